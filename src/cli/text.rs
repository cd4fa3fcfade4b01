//! Text for people: tables, progress, memory.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::engine::Timings;

/// Prints a result as the JSON that `--json` promises.
pub(super) fn print_json(result: &impl Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string_pretty(result)?);
    Ok(())
}

/// Columns as wide as their longest cell; the first column to the left, numbers to the right.
pub(super) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let width = |n: usize| rows.iter().map(|r| r[n].chars().count()).chain([header[n].len()]).max().unwrap_or(0);
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let padded = cells.iter().zip(&widths).enumerate().map(|(n, (cell, &width))| match n {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    let body = rows.iter().map(|row| line(row.iter().map(String::as_str).collect()));
    std::iter::once(line(header.to_vec())).chain(body).collect()
}

/// A bar over `length` series on a terminal; silent elsewhere.
pub(super) fn progress(length: usize) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} series  {msg}  [{elapsed}]").expect("the template is well formed");
    let bar = ProgressBar::new(length as u64).with_style(style);
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

/// The time of each stage, for `--timings`.
pub(super) fn timings(timings: &Timings) -> String {
    let seconds = |time: Duration| format!("{:.3}", time.as_secs_f64());
    let mut rows: Vec<_> = timings.0.iter().map(|(stage, time)| vec![stage.to_string(), seconds(*time)]).collect();
    rows.push(vec!["all".to_owned(), seconds(timings.total())]);
    table(&["stage", "s"], &rows)
}

/// The most memory that this process has held so far, MB; none where the system does not say.
pub(super) fn peak_memory_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [vec!["air".to_owned(), "12.5".to_owned()], vec!["soft tissue".to_owned(), "3.0".to_owned()]];
        assert_eq!(table(&["tissue", "ml"], &rows), "tissue         ml\nair          12.5\nsoft tissue   3.0\n");
    }
}
