//! What became of a finding since an earlier study of the patient.

use serde::{Deserialize, Serialize};

use super::Measurement;
use crate::codes::{Code, Uid, other};
use crate::geometry::Affine;

/// A result laid beside that of an earlier study of the same patient.
#[derive(Debug, Clone, PartialEq)]
pub struct FollowUp {
    /// The earlier study.
    pub study_instance_uid: Uid,
    /// Its series that was analysed.
    pub series_instance_uid: Uid,
    /// From that study to this one, by their Study Dates.
    pub days: i64,
    /// Where the images lie on each other; none where they could not be laid on each other.
    pub registration: Option<Registration>,
    /// Why findings were not matched.
    pub refused: Option<String>,
    /// Each finding that was looked at, of this study and then those that are not found any more.
    pub findings: Vec<Compared>,
    /// SHA-256 of what was known of the earlier study, hex: another result of it makes another one of this.
    pub earlier_sha256: String,
}

/// Where the later images lie on the earlier ones.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Registration {
    /// Patient mm of the earlier images from those of the later ones: a turn and a shift.
    pub earlier_from_later: Affine,
    /// Pearson's correlation of the values where both have some, after registration.
    pub correlation: f64,
    /// Share of the smaller volume that lies in the other, 0 to 1.
    pub overlap: f64,
}

/// One finding and what it was before.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Compared {
    /// Of the finding in this result.
    pub tracking_uid: Uid,
    /// What became of it.
    pub status: Status,
    /// Its name in the earlier result.
    pub earlier_name: Option<String>,
    /// How far apart both lie after registration, mm.
    pub distance_mm: Option<f64>,
}

/// What became of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// It was there in the earlier study.
    Matched,
    /// It was not found in the earlier study, whose images show the place.
    New,
    /// It was found in the earlier study and is not found now, though the images show the place.
    NotFound,
    /// Several findings may be the same: none is taken for it.
    Ambiguous,
    /// The images of the other study do not show the place.
    NotCovered,
}

impl Status {
    /// All.
    pub const ALL: [Self; 5] = [Self::Matched, Self::New, Self::NotFound, Self::Ambiguous, Self::NotCovered];

    /// In a word, as in tables.
    pub fn word(self) -> &'static str {
        match self {
            Self::Matched => "matched",
            Self::New => "new",
            Self::NotFound => "not-found",
            Self::Ambiguous => "ambiguous",
            Self::NotCovered => "not-covered",
        }
    }

    /// The answer to [`other::FOLLOW_UP`].
    pub fn code(self) -> Code {
        match self {
            Self::Matched => other::FOLLOW_UP_MATCHED,
            Self::New => other::FOLLOW_UP_NEW,
            Self::NotFound => other::FOLLOW_UP_NOT_FOUND,
            Self::Ambiguous => other::FOLLOW_UP_AMBIGUOUS,
            Self::NotCovered => other::FOLLOW_UP_NOT_COVERED,
        }
    }
}

/// A finding as a later study needs to know it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// In the result that it was measured in.
    pub name: String,
    /// The package's finding that it is an object of.
    pub class: String,
    /// The same in every study that it was matched in.
    pub tracking_uid: Uid,
    /// Its centre, patient mm of the study that this is told of.
    pub centre_lps_mm: [f64; 3],
    /// Volume and diameters.
    pub measurements: Vec<Measurement>,
    /// Days from the study in which it was measured to that which this is told of: 0, or more where it was not found since.
    pub days_before: i64,
}
