//! What became of everything: `report.json`, and what tables and pages are made from.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use serde::Serialize;

use super::error::{CohortError, io_at};
use super::journal::{Entry, History};
use super::pipeline::EngineTime;
use super::record::{FileRecord, Problem, SeriesRecord, StudyRecord, Verdict, VolumeRecord};
use super::settings::Settings;
use super::{Cohort, FAILURES_FILE, FINDINGS_CSV_FILE, FINDINGS_PARQUET_FILE, PAGE_FILE, REPORT_FILE, page, table};
use crate::codes::Uid;
use crate::dataset::{WriteError, write_atomically};
use crate::engine::peak_memory_mb;

/// What became of every input: also written as `report.json`.
#[derive(Debug, Serialize)]
pub struct Report {
    roentgen_version: &'static str,
    /// Name and version of the package.
    pub package: String,
    /// The device of the process that wrote this.
    pub device: String,
    #[serde(skip)]
    pub(super) banner: String,
    /// Studies that were to be done by that process, and how many are.
    pub studies: Studies,
    /// By study, series number and UID.
    pub series: Vec<SeriesRecord>,
    /// Researchers' volumes, by path.
    pub volumes: Vec<VolumeRecord>,
    /// What is neither, by path.
    pub files: Vec<FileRecord>,
    /// Studies that a PACS does not have, or that did not come.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<StudyRecord>,
    /// Where the time of that process's engine went.
    pub engine: EngineTime,
    /// Where the studies lie, by Study Instance UID: one at least, and several of a study that lies in several.
    #[serde(skip)]
    pub(super) places: BTreeMap<Uid, Vec<Place>>,
    /// Most memory that that process held, MB, where the system says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_memory_mb: Option<f64>,
}

/// Where a study is found in the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// By which a list names the study.
    pub(super) study_uid: Uid,
    /// As `paths::text_of` has it; empty of a study that came from a PACS.
    pub(super) path: String,
}

/// How far it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Studies {
    /// All.
    pub chosen: usize,
    /// Nothing of these is left to do.
    pub complete: usize,
}

impl Report {
    /// Of a run: from the journal, and the files that never came so far.
    pub(super) fn of(settings: &Settings, history: &History, cohort: &Cohort<'_>, engine: EngineTime) -> Self {
        let mut report = Self::without_entries(settings);
        report.studies = Studies {
            chosen: cohort.chosen.len(),
            complete: cohort.studies().filter(|study| history.is_complete(&study.key, &study.stamp)).count(),
        };
        report.engine = engine;
        report.peak_memory_mb = peak_memory_mb();
        report.files.extend(cohort.inventory.skipped.iter().map(|skipped| FileRecord {
            path: skipped.path.clone(),
            unreadable: !skipped.error.is_foreign(),
            problem: Problem::of(&skipped.error, |message| cohort.inventory.shown_in(message)),
        }));
        report.missing.extend(cohort.remote.iter().flat_map(|remote| remote.missing.clone()));
        report.take(history, cohort.output);
        report
    }

    /// What is known of a folder without its inputs: all that the journal says.
    pub(super) fn past(settings: &Settings, history: &History, output: &Path) -> Self {
        let mut report = Self::without_entries(settings);
        report.take(history, output);
        report
    }

    fn without_entries(settings: &Settings) -> Self {
        Self {
            roentgen_version: env!("CARGO_PKG_VERSION"),
            package: settings.package.clone(),
            device: settings.device.clone(),
            banner: settings.banner.clone(),
            studies: Studies::default(),
            series: Vec::new(),
            volumes: Vec::new(),
            files: Vec::new(),
            missing: Vec::new(),
            places: BTreeMap::new(),
            engine: EngineTime::default(),
            peak_memory_mb: None,
        }
    }

    /// The entries of a journal.
    fn take(&mut self, history: &History, output: &Path) {
        let placed = |mut verdict: Verdict| {
            if let Verdict::Done(done) = &mut verdict {
                done.folder = output.join(&done.folder);
            }
            verdict
        };
        for line in history.lines() {
            match line.entry.clone() {
                Entry::Series(series) => {
                    let SeriesRecord { head, verdict } = *series;
                    let places = self.places.entry(head.study_instance_uid.clone()).or_default();
                    let paths = line.study_paths.iter().map(String::as_str).chain(line.study_paths.is_empty().then_some(""));
                    for place in paths.map(|path| Place { study_uid: line.study_uid.clone(), path: path.to_owned() }) {
                        if !places.contains(&place) {
                            places.push(place);
                        }
                    }
                    self.series.push(SeriesRecord { head, verdict: placed(verdict) });
                }
                Entry::Volume(volume) => self.volumes.push(VolumeRecord { verdict: placed(volume.verdict), ..volume }),
                Entry::File(file) => self.files.push(file),
                Entry::Study(study) => self.missing.push(study),
                Entry::Complete | Entry::Changed | Entry::Reopened => {}
            }
        }
        let key = |s: &SeriesRecord| {
            let head = &s.head;
            let part = head.part.as_ref().map(|part| part.number);
            (head.study_instance_uid.clone(), head.series_number, head.series_instance_uid.clone(), part)
        };
        self.series.sort_by_cached_key(key);
        self.volumes.sort_by(|a, b| a.path.cmp(&b.path));
        self.missing.sort_by(|a, b| (&a.accession_number, &a.study_instance_uid).cmp(&(&b.accession_number, &b.study_instance_uid)));
        self.files.sort_by(|a, b| a.path.cmp(&b.path));
        self.files.dedup_by(|a, b| a.path == b.path);
    }

    /// Every verdict.
    pub fn verdicts(&self) -> impl Iterator<Item = &Verdict> {
        self.series.iter().map(|s| &s.verdict).chain(self.volumes.iter().map(|v| &v.verdict))
    }

    /// Whether something should have been analysed and was not.
    pub fn has_failures(&self) -> bool {
        self.failures() != [0, 0]
    }

    /// Series, volumes, files and studies that should have been analysed and were not: those that need other files, and those that may pass
    /// when they are tried again.
    pub fn failures(&self) -> [usize; 2] {
        let of_files = self.verdicts().filter(|verdict| verdict.needs_other_files()).count();
        let unreadable = self.files.iter().filter(|file| file.unreadable);
        let all = self.verdicts().filter(|verdict| verdict.is_failure()).count() + unreadable.clone().count() + self.missing.len();
        let of_files = of_files + unreadable.filter(|file| file.problem.is_of_files()).count();
        [of_files, all - of_files]
    }

    /// Whether studies are left to do.
    pub fn is_stopped(&self) -> bool {
        self.studies.complete < self.studies.chosen
    }

    /// Writes everything that is told of the cohort as a whole.
    pub(super) fn write(&self, output: &Path) -> Result<(), CohortError> {
        let findings = table::findings(self);
        write_text(&output.join(FINDINGS_CSV_FILE), &findings.csv())?;
        write_text(&output.join(FINDINGS_PARQUET_FILE), &findings.parquet())?;
        write_text(&output.join(FAILURES_FILE), &table::failures(self).csv())?;
        write_text(&output.join(PAGE_FILE), page::page(self, output).as_bytes())?;
        let path = output.join(REPORT_FILE);
        let json = serde_json::to_vec_pretty(self).map_err(std::io::Error::from).map_err(io_at("write", &path))?;
        write_text(&path, &json)
    }
}

/// Into place as a whole.
pub(super) fn write_text(path: &Path, text: &[u8]) -> Result<(), CohortError> {
    let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(write_atomically(path, |writer| writer.write_all(text).map_err(|source| WriteError::Io { file, source }))?)
}
