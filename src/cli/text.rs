//! What commands print: text for people, JSON for programs.

use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use serde::Serialize;

use crate::engine::Timings;

/// Why stdout took no more, if it did not.
static LOST: OnceLock<io::Error> = OnceLock::new();

/// Prints text to stdout. Where that fails, what is under way goes on; [`lost`] says so at the end.
pub(super) fn print(text: &str) {
    if LOST.get().is_none()
        && let Err(error) = io::stdout().lock().write_all(text.as_bytes())
    {
        let _ = LOST.set(error); // the first one says why
    }
}

/// Why some of the output is missing; a reader that has seen enough (`| head`) is no error.
pub(super) fn lost() -> Option<&'static io::Error> {
    if let Err(error) = io::stdout().flush() {
        let _ = LOST.set(error); // as above
    }
    LOST.get().filter(|error| error.kind() != io::ErrorKind::BrokenPipe)
}

/// An error with its causes, but for those that the text says already.
pub(super) fn told(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |text, cause| match text.as_str() {
        "" => cause,
        said if said.contains(&cause) => text,
        _ => format!("{text}: {cause}"),
    })
}

/// Prints a result as the JSON that `--json` promises.
pub(super) fn print_json(result: &impl Serialize) -> anyhow::Result<()> {
    say!("{}", serde_json::to_string_pretty(result)?);
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

/// A bar over studies on a terminal; silent elsewhere. Its length is set when it is known.
pub(super) fn progress() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let rate = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        let _ = write!(out, "{:.0} studies/h", state.per_sec() * 3600.0); // a bar that cannot be drawn is no loss
    };
    let template = "{bar:30} {pos}/{len} studies  {rate}  {eta} left  {msg}  [{elapsed}]";
    let style = ProgressStyle::with_template(template).expect("the template is well formed").with_key("rate", rate);
    let bar = ProgressBar::new(0).with_style(style);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told_once() {
        let io = || io::Error::from(io::ErrorKind::NotFound);
        let read = crate::model::ModelError::Read { path: "model.toml".into(), source: io() };
        let text = told(&anyhow::Error::from(read));
        assert_eq!(text.matches(&io().to_string()).count(), 1, "{text}");
        let text = told(&anyhow::Error::from(io()).context("cannot read it"));
        assert_eq!(text, format!("cannot read it: {}", io()));
    }

    #[test]
    fn columns_line_up() {
        let rows = [vec!["air".to_owned(), "12.5".to_owned()], vec!["soft tissue".to_owned(), "3.0".to_owned()]];
        assert_eq!(table(&["tissue", "ml"], &rows), "tissue         ml\nair          12.5\nsoft tissue   3.0\n");
    }
}
