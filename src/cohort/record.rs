//! What became of one series, one volume, one file: a line of the journal, and of the report.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::acquisition::Acquisition;
use super::paths;
use crate::codes::{Uid, sct};
use crate::engine::Timings;
use crate::findings::{self, Findings, Measurement, Status};
use crate::geometry::Coded;
use crate::research::Format;

/// A series, or one part of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SeriesHead {
    /// Study Instance UID (0020,000D), or the derived one.
    pub study_instance_uid: Uid,
    /// Series Instance UID (0020,000E), or the derived one.
    pub series_instance_uid: Uid,
    /// Which part, where the series has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<PartRecord>,
    /// Modality (0008,0060).
    pub modality: String,
    /// Series Number (0020,0011).
    #[serde(default)]
    pub series_number: Option<i64>,
    /// Instances of the part.
    pub instances: usize,
    /// What the reader should know of the series. No text of a header.
    pub warnings: Vec<String>,
    /// How it was acquired.
    #[serde(default)]
    pub acquisition: Acquisition,
}

/// What became of one series, or of one part of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SeriesRecord {
    /// Which.
    #[serde(flatten)]
    pub head: SeriesHead,
    /// How it ended.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// What became of one NIfTI or NRRD file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VolumeRecord {
    /// How it is named to people; in text, a `file:` URI where it is no Unicode.
    #[serde(with = "paths")]
    pub path: PathBuf,
    /// Its format.
    pub format: Format,
    /// What the reader should know.
    pub warnings: Vec<String>,
    /// How it ended.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// Which part of a series that has several.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PartRecord {
    /// From 1.
    pub number: usize,
    /// How many there are.
    pub of: usize,
    /// What sets it apart.
    pub label: String,
}

/// A file that is no part of any series.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FileRecord {
    /// How it is named to people; in text, a `file:` URI where it is no Unicode.
    #[serde(with = "paths")]
    pub path: PathBuf,
    /// Whether it should have been one.
    pub unreadable: bool,
    /// Why it is none.
    #[serde(flatten)]
    pub problem: Problem,
}

/// A study of a PACS that was not found or did not come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StudyRecord {
    /// Study Instance UID (0020,000D); empty where it is not known.
    pub study_instance_uid: Uid,
    /// As the list has it; empty where it was asked for by its UID.
    pub accession_number: String,
    /// Why. Holds no accession number.
    #[serde(flatten)]
    pub problem: Problem,
}

/// How one series or volume ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Verdict {
    /// Results are written, read again and held against the findings.
    Done(Done),
    /// The package's rules do not take it: nothing is wrong with it.
    NotEligible {
        /// Every one.
        reasons: Vec<Problem>,
    },
    /// The package's rules take it, but its geometry is not safe to analyse.
    Refused {
        /// Every one.
        reasons: Vec<Problem>,
    },
    /// It should have been analysed and was not.
    Failed {
        /// Why.
        reasons: Vec<Problem>,
    },
}

/// What came of an analysis.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Done {
    /// Where the results are: in the journal within the output folder, in a report with that folder.
    #[serde(with = "paths")]
    pub folder: PathBuf,
    /// In the order of the package.
    pub findings: Vec<FindingRecord>,
    /// Each rule of the package in short: what the series has.
    pub selected_because: Vec<String>,
    /// Why it was taken before other series of its study that fit as well.
    pub preferred: Vec<String>,
    /// What the results themselves warn of.
    #[serde(default)]
    pub result_warnings: Vec<String>,
    /// The earlier study that it was compared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follow_up: Option<Box<FollowUpRecord>>,
    /// The device that ran the kernels.
    pub device: String,
    /// The execution provider that ran the network.
    pub provider: String,
    /// SHA-256 of the file, where a researcher's volume was analysed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_file_sha256: Option<Box<str>>,
    /// All result files together.
    pub result_bytes: u64,
    /// Wall time of each stage, s.
    pub stages_s: Timings,
}

/// An earlier study of the patient.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FollowUpRecord {
    /// Its Study Instance UID.
    pub study_instance_uid: Uid,
    /// The series of it that was analysed.
    pub series_instance_uid: Uid,
    /// From it to this study.
    pub days: i64,
    /// Of the images after registration; none where there is none.
    pub correlation: Option<f64>,
    /// Why nothing was matched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// A finding in one line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FindingRecord {
    /// For people.
    pub name: String,
    /// Whether it was found.
    pub present: bool,
    /// The same in every study of the patient that it was matched in.
    #[serde(default, skip_serializing_if = "Uid::is_empty")]
    pub tracking_uid: Uid,
    /// What became of it since the earlier study that it was compared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// The model's output for *present*, %.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certainty_percent: Option<f64>,
    /// Centre of the box, or the point, patient LPS, mm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub centre_lps_mm: Option<[f64; 3]>,
    /// In the order of the package.
    pub measurements: Vec<Number>,
}

/// A number in one line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Number {
    /// For people.
    pub name: String,
    /// None where it cannot be computed.
    pub value: Option<f64>,
    /// UCUM.
    pub unit: String,
}

/// A reason: what programs match on, and what people read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Stable.
    pub code: String,
    /// No text of a header.
    pub message: String,
}

impl Problem {
    /// Of an error; `shown` puts the names of archives' entries for paths of temporary files.
    pub fn of(error: &dyn Coded, shown: impl Fn(&str) -> String) -> Self {
        Self { code: error.code().to_owned(), message: shown(&error.to_string()) }
    }

    /// Whether the files themselves are what is wrong, so that trying again changes nothing.
    pub(super) fn is_of_files(&self) -> bool {
        let passes = ["io", "archive-io", "changed", "memory", "write"];
        let (room, what) = self.code.split_once('.').unwrap_or_default();
        ["dataset", "geometry", "research", "series"].contains(&room) && !passes.contains(&what)
    }
}

/// How many have each code among their reasons, the most frequent first.
pub(super) fn count_by_code<'a>(all: impl Iterator<Item = &'a [Problem]>) -> Vec<(&'a str, usize)> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for reasons in all {
        let codes: BTreeSet<&str> = reasons.iter().map(|reason| reason.code.as_str()).collect();
        codes.into_iter().for_each(|code| *counts.entry(code).or_default() += 1);
    }
    let mut counts: Vec<(&str, usize)> = counts.into_iter().collect();
    counts.sort_by_key(|&(code, count)| (std::cmp::Reverse(count), code));
    counts
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.message, self.code)
    }
}

impl Verdict {
    /// In a word, as in reports and tables.
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::Done(_) => "done",
            Self::NotEligible { .. } => "not-eligible",
            Self::Refused { .. } => "refused",
            Self::Failed { .. } => "failed",
        }
    }

    /// Why there are no results; nothing where there are.
    pub fn reasons(&self) -> &[Problem] {
        match self {
            Self::Done(_) => &[],
            Self::NotEligible { reasons } | Self::Refused { reasons } | Self::Failed { reasons } => reasons,
        }
    }

    /// What came of it, where it was analysed.
    pub fn done(&self) -> Option<&Done> {
        if let Self::Done(done) = self { Some(done) } else { None }
    }

    /// Whether it was not analysed for what its files are.
    pub(super) fn needs_other_files(&self) -> bool {
        match self {
            Self::Refused { .. } => true,
            Self::Failed { reasons } => reasons.iter().any(Problem::is_of_files),
            Self::Done(_) | Self::NotEligible { .. } => false,
        }
    }

    /// Whether it should have been analysed and was not.
    pub fn is_failure(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::Failed { .. })
    }
}

/// The earlier study in short.
pub(super) fn followed(findings: &Findings) -> Option<Box<FollowUpRecord>> {
    let followed = findings.follow_up.as_ref()?;
    Some(Box::new(FollowUpRecord {
        study_instance_uid: followed.study_instance_uid.clone(),
        series_instance_uid: followed.series_instance_uid.clone(),
        days: followed.days,
        correlation: followed.registration.map(|registration| registration.correlation),
        refused: followed.refused.clone(),
    }))
}

/// The findings in short.
pub(super) fn in_short(findings: &Findings) -> Vec<FindingRecord> {
    // Image values go by how they were derived from the voxels: their unit says what they are.
    let name = |m: &Measurement| match &m.derivation {
        Some(derivation) if m.concept == sct::DIAMETER => format!("{} {}", derivation.meaning, m.concept.meaning),
        Some(derivation) => derivation.meaning.to_string(),
        None => m.concept.meaning.to_string(),
    };
    let number = |m: &Measurement| Number { name: name(m), value: m.value, unit: m.unit.value.to_string() };
    let compared = findings.follow_up.iter().flat_map(|followed| &followed.findings);
    let status = |f: &findings::Finding| compared.clone().find(|one| one.tracking_uid == f.tracking_uid).map(|one| one.status);
    let short = |f: &findings::Finding| FindingRecord {
        name: f.name.clone(),
        present: f.present,
        tracking_uid: f.tracking_uid.clone(),
        status: status(f),
        certainty_percent: f.certainty_percent,
        centre_lps_mm: f.place.map(|place| place.centre_lps_mm),
        measurements: f.measurements.iter().map(number).collect(),
    };
    findings.findings.iter().map(short).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trying_again_does_not_mend_a_file() {
        let needs =
            |code: &str| Verdict::Failed { reasons: vec![Problem { code: code.to_owned(), message: String::new() }] }.needs_other_files();
        for code in ["dataset.truncated", "research.damaged", "series.sheared"] {
            assert!(needs(code), "{code}");
        }
        for code in ["dataset.io", "series.archive-io", "series.memory", "research.io", "infer.memory", "cohort.panicked", "results.folder"]
        {
            assert!(!needs(code), "{code}");
        }
        assert!(Verdict::Refused { reasons: Vec::new() }.needs_other_files());
    }
}
