//! Text for people: tables, times, roles.

use std::time::Duration;

use muster_wire::Role;

/// Lines of columns, two spaces between them, none after the last.
pub(crate) fn table(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| console::measure_text_width(cell)).max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| {
            format!("{cell}{}", " ".repeat(width.saturating_sub(console::measure_text_width(cell))))
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// A role, or a dash before there is one.
pub(crate) fn role(role: Option<Role>) -> &'static str {
    match role {
        Some(Role::ControlPlane) => "control plane",
        Some(Role::Worker) => "worker",
        None => "-",
    }
}

/// `0.42 s` below ten seconds, `75 s` above.
pub(crate) fn seconds(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 10.0 { format!("{seconds:.2} s") } else { format!("{seconds:.0} s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligns_columns() {
        let rows =
            [vec!["NAME".to_owned(), "X".to_owned()], vec!["a".to_owned(), "longer".to_owned()], vec!["b".to_owned()]];
        assert_eq!(table(&rows), ["NAME  X", "a     longer", "b"]);
    }
}
