//! How long the rest takes, and how much disk: from what the first studies took.

use std::path::Path;
use std::time::{Duration, Instant};

use super::Cohort;
use super::journal::{Entry, History};
use crate::series::StudyFiles;

/// Studies with results after which the rest can be foretold.
const FIRST: usize = 3;

/// What was done of what is to do, in bytes of input: studies differ in size. What is not here yet counts as a byte: its size is not known.
#[derive(Debug)]
pub(super) struct Pace {
    began: Instant,
    left_bytes: u64,
    left_studies: usize,
    done_bytes: u64,
    result_bytes: u64,
    analysed: usize,
    has_foretold: bool,
}

impl Pace {
    pub(super) fn new(cohort: &Cohort<'_>, history: &History) -> Self {
        let left: Vec<&StudyFiles> = cohort.studies().filter(|files| !history.is_complete(&files.key, &files.stamp)).collect();
        Self {
            began: Instant::now(),
            left_bytes: left.iter().map(|files| files.bytes.max(1)).sum(),
            left_studies: left.len(),
            done_bytes: 0,
            result_bytes: 0,
            analysed: 0,
            has_foretold: false,
        }
    }

    /// Hears of each line of the journal; foretells the rest once, when enough is known.
    pub(super) fn hear(&mut self, entry: &Entry, files: &StudyFiles, output: &Path) -> Option<String> {
        if matches!(entry, Entry::Complete) {
            self.done_bytes += files.bytes.max(1);
            self.left_bytes = self.left_bytes.saturating_sub(files.bytes.max(1));
            self.left_studies = self.left_studies.saturating_sub(1);
            let enough = self.analysed >= FIRST && !std::mem::replace(&mut self.has_foretold, self.analysed >= FIRST);
            return enough.then(|| self.foretell(output)).flatten();
        }
        if let Some(done) = entry.done() {
            self.result_bytes += done.result_bytes;
            self.analysed += 1;
        }
        None
    }

    fn foretell(&self, output: &Path) -> Option<String> {
        let share = self.left_bytes as f64 / self.done_bytes.max(1) as f64;
        let time = Duration::try_from_secs_f64(self.began.elapsed().as_secs_f64() * share).ok()?;
        let needed = (self.result_bytes as f64 * share) as u64;
        if self.left_studies == 0 {
            return None;
        }
        let mut text = format!(
            "the other {} studies take about {} and {} of disk",
            self.left_studies,
            time_for_people(time),
            bytes_for_people(needed)
        );
        if let Some(free) = free_bytes(output) {
            text += &format!("; {} are free{}", bytes_for_people(free), if free < needed { ", which is too little" } else { "" });
        }
        Some(text)
    }
}

/// What is free on the disk of a folder, where the system says.
pub(super) fn free_bytes(folder: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(folder).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// In the largest decimal unit below it.
pub fn bytes_for_people(bytes: u64) -> String {
    let units = [(1e12, "TB"), (1e9, "GB"), (1e6, "MB")];
    match units.into_iter().find(|(size, _)| bytes as f64 >= *size) {
        Some((size, unit)) => format!("{:.1} {unit}", bytes as f64 / size),
        None => format!("{:.0} kB", (bytes as f64 / 1e3).ceil()),
    }
}

/// To a minute, or below two minutes to a second.
pub fn time_for_people(time: Duration) -> String {
    match time.as_secs() {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ ..7200 => format!("{} min", seconds.div_ceil(60)),
        seconds => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_round_numbers() {
        assert_eq!([999, 1_500_000, 2_040_000_000].map(bytes_for_people), ["1 kB", "1.5 MB", "2.0 GB"]);
        assert_eq!([5, 150, 8000].map(|s| time_for_people(Duration::from_secs(s))), ["5 s", "3 min", "2 h 13 min"]);
    }
}
