//! What a run would do, and why, without doing it.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::estimate::free_bytes;
use super::journal::{Entry, History};
use super::paths;
use super::record::{Problem, StudyRecord, count_by_code};
use super::{Asked, Cohort, CohortError};
use crate::codes::Uid;
use crate::model::{Ineligible, Package};
use crate::node::FoundStudy;
use crate::series::{Part, StudyFiles};

/// What a run would do.
#[derive(Debug, Serialize)]
pub struct Plan {
    /// In the order in which they would be done.
    pub studies: Vec<PlannedStudy>,
    /// Files that are no input: how many.
    pub left_out: usize,
    /// .. and that should be and cannot be read.
    pub unreadable: usize,
    /// Studies of the list that the PACS does not have, or not surely.
    pub missing: Vec<StudyRecord>,
    /// From what is done in the folder already; none where that is nothing.
    pub estimate: Option<Estimate>,
    /// Free on the disk of the output folder, where the system says.
    pub free_bytes: Option<u64>,
}

/// What is left to do will take so much.
#[derive(Debug, Serialize)]
pub struct Estimate {
    /// From how many analyses this is known.
    pub from: usize,
    /// Reading, analysing and writing one after the other, s: stages run at once, so it is less.
    pub at_most_s: f64,
    /// Result files.
    pub result_bytes: u64,
}

/// One study, or one researcher's volume.
#[derive(Debug, Serialize)]
pub struct PlannedStudy {
    /// As it is stated; empty for a volume.
    pub study_instance_uid: Uid,
    /// Where its files lie, from the root: several of a study that lies in several inputs; a `file:` URI where a path is no Unicode.
    pub paths: Vec<String>,
    /// The file, for a volume.
    #[serde(serialize_with = "volume_text")]
    pub volume: Option<PathBuf>,
    /// Of its files.
    pub bytes: u64,
    /// Whether it is done already.
    pub is_done: bool,
    /// Where it would be fetched first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fetch: Option<PlannedFetch>,
    /// Its series; of a volume one without UID; of a study that is not here none, which are known when it is.
    pub series: Vec<PlannedSeries>,
}

/// A study of a PACS.
#[derive(Debug, Serialize)]
pub struct PlannedFetch {
    /// The PACS.
    pub from: String,
    /// As the list has it; none where it names the study by its UID.
    pub accession_number: Option<String>,
    /// Instances there, where the PACS says.
    pub instances: Option<u32>,
    /// Modalities there, where the PACS says.
    pub modalities: Vec<String>,
}

/// One series or part of it.
#[derive(Debug, Serialize)]
pub struct PlannedSeries {
    /// Empty for a volume.
    pub series_instance_uid: Uid,
    /// Which part, where there are several.
    pub part: Option<usize>,
    /// Modality (0008,0060); empty for a volume.
    pub modality: String,
    /// Instances of it.
    pub instances: usize,
    /// Why it would not be analysed; empty where it would.
    pub reasons: Vec<Problem>,
    /// Whether the package wants it, and its geometry is not safe.
    pub is_refused: bool,
}

impl Plan {
    /// Series that would be analysed, of studies that are not done.
    pub fn to_analyse(&self) -> usize {
        let open = self.studies.iter().filter(|study| !study.is_done);
        open.flat_map(|study| &study.series).filter(|series| series.reasons.is_empty()).count()
    }

    /// Studies that would be fetched.
    pub fn to_fetch(&self) -> usize {
        self.studies.iter().filter(|study| !study.is_done && study.fetch.is_some()).count()
    }

    /// Codes of the reasons for which series are not taken, each with the number of these series, the most frequent first.
    pub fn reasons(&self) -> Vec<(&str, usize)> {
        count_by_code(self.studies.iter().flat_map(|study| &study.series).map(|series| series.reasons.as_slice()))
    }

    /// Whether there is a series that the package takes, done already or not, or a study that may have one.
    pub fn takes_some(&self) -> bool {
        self.studies.iter().any(|study| study.fetch.is_some())
            || self.studies.iter().flat_map(|study| &study.series).any(|series| series.reasons.is_empty())
    }
}

/// Plans what [`super::run`] would do. Nothing is written, and nothing fetched; `say` hears of what a PACS refuses for the moment.
///
/// # Errors
/// As [`super::run`] has for inputs, and where the journal of the folder cannot be read.
pub fn plan(package: &Package, asked: &Asked<'_>, say: &dyn Fn(String)) -> Result<Plan, CohortError> {
    let cohort = Cohort::of(asked, package.manifest.follow_up.is_some(), &|| true, say)?;
    let goes_on = asked.resume || asked.shard.is_some();
    let history = cohort.history().map_err(super::error::io_at("read the journal in", &cohort.work))?;
    let is_done = |files: &StudyFiles| goes_on && asked.only.is_none() && history.is_complete(&files.key, &files.stamp);
    let studies: Vec<PlannedStudy> = cohort.studies().map(|files| planned(package, &cohort, files, is_done(files))).collect();
    let left_bytes = studies.iter().filter(|study| !study.is_done).map(|study| study.bytes).sum();
    Ok(Plan {
        missing: cohort.remote.iter().flat_map(|remote| remote.missing.clone()).collect(),
        estimate: estimate(&history, &cohort, left_bytes),
        left_out: cohort.inventory.skipped.iter().filter(|s| s.error.is_foreign()).count(),
        unreadable: cohort.inventory.skipped.iter().filter(|s| !s.error.is_foreign()).count(),
        free_bytes: asked.output.ancestors().find_map(free_bytes).or_else(|| free_bytes(".".as_ref())),
        studies,
    })
}

fn planned(package: &Package, cohort: &Cohort<'_>, files: &StudyFiles, is_done: bool) -> PlannedStudy {
    let found = cohort.inventory.open(files);
    let parts: Vec<Part<'_>> = found.series.iter().flat_map(|one| one.parts(package.manifest.select.geometry)).collect();
    let answers = package.take(&parts, parts.iter().map(|part| package.eligible(part)).collect());
    let reasons = |answer: Result<(), &Vec<Ineligible>>| -> (Vec<Problem>, bool) {
        let reasons = answer.err().map(Vec::as_slice).unwrap_or_default();
        let problems = reasons.iter().map(|reason| Problem::of(reason, |message| cohort.inventory.shown_in(message))).collect();
        (problems, !reasons.is_empty() && reasons.iter().all(Ineligible::is_refusal))
    };
    let mut series = Vec::new();
    for (part, answer) in parts.iter().zip(&answers) {
        let (reasons, is_refused) = reasons(answer.as_ref().map(|_| ()));
        series.push(PlannedSeries {
            series_instance_uid: part.series.series_uid.clone(),
            part: (part.of > 1).then_some(part.number),
            modality: part.first().modality.clone(),
            instances: part.instances().len(),
            reasons,
            is_refused,
        });
    }
    for file in &found.volumes {
        let (reasons, is_refused) = reasons(package.assess_volume(file).answer().as_ref().map(|_| ()));
        let (series_instance_uid, modality) = (String::new(), String::new());
        series.push(PlannedSeries { series_instance_uid, part: None, modality, instances: 1, reasons, is_refused });
    }
    let volume = found.volumes.first().map(|file| file.shown.clone());
    let fetch = cohort.remote.as_ref().filter(|_| files.files.is_empty()).map(|remote| {
        let found = &remote.found[&files.study_uid];
        let FoundStudy { accession_number, instances, modalities, .. } = found.clone();
        PlannedFetch { from: remote.source.place(), accession_number, instances, modalities }
    });
    let paths = cohort.inventory.places_of(files).iter().map(|place| paths::text_of(place)).collect();
    PlannedStudy { study_instance_uid: files.study_uid.clone(), paths, volume, bytes: files.bytes, is_done, fetch, series }
}

fn volume_text<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
    path.as_deref().map(paths::text_of).serialize(serializer)
}

/// From the time, input and results of the studies that are done.
fn estimate(history: &History, cohort: &Cohort<'_>, left_bytes: u64) -> Option<Estimate> {
    let (mut from, mut time, mut results, mut input) = (0, Duration::ZERO, 0, 0);
    for files in cohort.studies().filter(|files| history.is_complete(&files.key, &files.stamp)) {
        for done in history.of(&files.key, &files.stamp).filter_map(Entry::done) {
            from += 1;
            time += done.stages_s.total();
            results += done.result_bytes;
        }
        input += files.bytes;
    }
    let share = left_bytes as f64 / input as f64;
    (from > 0).then_some(Estimate { from, at_most_s: time.as_secs_f64() * share, result_bytes: (results as f64 * share) as u64 })
}
