//! The computer that all machines of a testbed share.

/// Processor time that this host has used, in seconds: all of `/proc/stat` but idle and waiting for disks (`proc(5)`).
pub(super) fn busy() -> f64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks = stat.lines().next().unwrap_or_default().split_whitespace().skip(1).enumerate();
    ticks
        .filter(|(place, _)| !matches!(place, 3 | 4) && *place < 8)
        .filter_map(|(_, ticks)| ticks.parse::<f64>().ok())
        .sum::<f64>()
        / 100.0
}

/// How many processors it has.
pub(super) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
