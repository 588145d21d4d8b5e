//! What a formed cluster costs at rest: memory, processor, and bytes a second of every machine of a lab, by role. Prints;
//! asserts nothing.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

#[derive(Parser)]
struct Arguments {
    /// Machines
    #[arg(long, default_value_t = 5)]
    machines: u32,
    /// Control planes
    #[arg(long, default_value_t = 3)]
    control_planes: u32,
    /// Seconds of rest before it is measured
    #[arg(long, default_value_t = 30)]
    settle: u64,
    /// Seconds that are measured
    #[arg(long, default_value_t = 60)]
    window: u64,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// One machine at one moment. Counts only grow.
struct Sample {
    resident_kb: u64,
    processor_ticks: u64,
    frames_sent: u64,
    frame_bytes_sent: u64,
    frame_bytes_received: u64,
    /// Bytes by TCP connection, sent and received, as the kernel counts them: encryption and framing included.
    tcp: BTreeMap<String, (u64, u64)>,
}

struct Machine {
    name: String,
    role: String,
    pid: u32,
    socket: PathBuf,
}

fn main() -> ExitCode {
    match measure(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            println!("failed: {why}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> Result<(), String> {
    let mut lab = Command::new(env!("CARGO_BIN_EXE_muster"))
        .args(["lab", "--json", "--machines", &arguments.machines.to_string()])
        .args(["--control-planes", &arguments.control_planes.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    let measured = formed(&mut lab).and_then(|machines| rest(arguments, &machines));
    if let Some(pid) = i32::try_from(lab.id()).ok().and_then(Pid::from_raw) {
        kill_process(pid, Signal::INT).map_err(|error| error.to_string())?;
    }
    lab.wait().map_err(|error| error.to_string())?;
    measured
}

/// Reads the lab's lines until it says what came of it.
fn formed(lab: &mut Child) -> Result<Vec<Machine>, String> {
    let output = lab.stdout.take().ok_or("the lab has no output")?;
    let mut dir = PathBuf::new();
    for line in BufReader::new(output).lines() {
        let event: Value =
            serde_json::from_str(&line.map_err(|error| error.to_string())?).map_err(|error| error.to_string())?;
        if event["event"] == "started" {
            dir = PathBuf::from(event["dir"].as_str().unwrap_or_default());
        }
        if event["ready"].is_boolean() {
            let machines = event["machines"].as_array().cloned().unwrap_or_default();
            let machine = |machine: &Value| {
                let name = machine["name"].as_str()?.to_owned();
                let socket = dir.join(&name).join("run/muster/muster.sock");
                let role = machine["role"].as_str()?.to_owned();
                Some(Machine { name, role, pid: u32::try_from(machine["pid"].as_u64()?).ok()?, socket })
            };
            return machines.iter().map(machine).collect::<Option<_>>().ok_or(format!("not Ready: {event}"));
        }
    }
    Err("the lab ended before it was Ready".to_owned())
}

fn rest(arguments: &Arguments, machines: &[Machine]) -> Result<(), String> {
    std::thread::sleep(Duration::from_secs(arguments.settle));
    let begin = Instant::now();
    let before = machines.iter().map(sample).collect::<Result<Vec<_>, _>>()?;
    std::thread::sleep(Duration::from_secs(arguments.window));
    let seconds = begin.elapsed().as_secs_f64();
    let after = machines.iter().map(sample).collect::<Result<Vec<_>, _>>()?;
    println!("{} machines at rest, measured for {seconds:.0} s; B/s are bytes a second", machines.len());
    println!(
        "{:<10}{:<16}{:>10}{:>9}{:>12}{:>14}{:>14}{:>13}{:>13}",
        "machine", "role", "resident", "core", "frames/s", "frame B/s out", "frame B/s in", "TCP B/s out", "TCP B/s in"
    );
    let ticks = f64::from(u32::try_from(rustix::param::clock_ticks_per_second()).unwrap_or(100));
    for ((machine, before), after) in machines.iter().zip(&before).zip(&after) {
        let rate = |before: u64, after: u64| after.saturating_sub(before) as f64 / seconds;
        let (out, inward) = tcp_rates(before, after, seconds);
        println!(
            "{:<10}{:<16}{:>7.1} MB{:>7.2} %{:>12.1}{:>14.0}{:>14.0}{out:>13.0}{inward:>13.0}",
            machine.name,
            machine.role,
            after.resident_kb as f64 / 1024.0,
            100.0 * rate(before.processor_ticks, after.processor_ticks) / ticks,
            rate(before.frames_sent, after.frames_sent),
            rate(before.frame_bytes_sent, after.frame_bytes_sent),
            rate(before.frame_bytes_received, after.frame_bytes_received),
        );
    }
    let size = fs::metadata(env!("CARGO_BIN_EXE_muster")).map_err(|error| error.to_string())?.len();
    println!("the binary has {:.1} MB", size as f64 / 1e6);
    Ok(())
}

/// Connections made meanwhile count from nothing, those that ended count no more.
fn tcp_rates(before: &Sample, after: &Sample, seconds: f64) -> (f64, f64) {
    let mut sums = (0, 0);
    for (connection, (sent, received)) in &after.tcp {
        let (sent_before, received_before) = before.tcp.get(connection).copied().unwrap_or_default();
        sums.0 += sent.saturating_sub(sent_before);
        sums.1 += received.saturating_sub(received_before);
    }
    (sums.0 as f64 / seconds, sums.1 as f64 / seconds)
}

fn sample(machine: &Machine) -> Result<Sample, String> {
    let proc = Path::new("/proc").join(machine.pid.to_string());
    let read = |name: &str| fs::read_to_string(proc.join(name)).map_err(|error| format!("{}: {error}", machine.name));
    let status = read("status")?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    let stat = read("stat")?;
    // Counted from the field after the name: utime and stime are the 12th and 13th.
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    let counters = metrics(&machine.socket)?;
    let counter = |name: &str| counters[name].as_u64().unwrap_or(0);
    Ok(Sample {
        resident_kb: resident.trim().trim_end_matches(" kB").parse().unwrap_or(0),
        processor_ticks: ticks(11) + ticks(12),
        frames_sent: counter("frames_sent"),
        frame_bytes_sent: counter("bytes_sent"),
        frame_bytes_received: counter("bytes_received"),
        tcp: connections(machine.pid)?,
    })
}

fn metrics(socket: &Path) -> Result<Value, String> {
    let ask = || -> std::io::Result<String> {
        let mut stream = UnixStream::connect(socket)?;
        stream.write_all(b"GET /v1/metrics HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().map_err(|error| error.to_string())?;
    let (_, body) = answer.split_once("\r\n\r\n").ok_or("no answer to /v1/metrics")?;
    serde_json::from_str(body).map_err(|error| error.to_string())
}

/// What the kernel counts for each established connection of a process, by `ss`. Empty where there is no `ss`.
fn connections(pid: u32) -> Result<BTreeMap<String, (u64, u64)>, String> {
    let Ok(output) = Command::new("ss").args(["-tinpHO", "state", "established"]).output() else {
        return Ok(BTreeMap::new());
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let owner = format!("pid={pid},");
    let mut connections = BTreeMap::new();
    for line in text.lines().filter(|line| line.contains(&owner)) {
        let number = |name: &str| line.split_whitespace().find_map(|word| word.strip_prefix(name)?.parse::<u64>().ok());
        let ends: Vec<&str> = line.split_whitespace().skip(2).take(2).collect();
        // What was acknowledged, where a kernel does not count what was sent.
        let sent = number("bytes_sent:").or_else(|| number("bytes_acked:")).unwrap_or(0);
        connections.insert(ends.join(" "), (sent, number("bytes_received:").unwrap_or(0)));
    }
    Ok(connections)
}
