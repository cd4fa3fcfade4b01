//! Why a study does not come from a PACS.

use std::io;

use thiserror::Error;

use crate::codes::Uid;
use crate::dataset::DatasetError;
use crate::dimse::DimseError;
use crate::geometry::Coded;
use crate::node::ConfigError;
use crate::store::StoreError;

/// Why a study does not come from a PACS. Messages hold no accession number and no text of a header.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SourceError {
    /// Its configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// It cannot be asked by DIMSE, or refuses.
    #[error("the PACS: {0}")]
    Dimse(#[from] DimseError),
    /// It cannot be reached by HTTP.
    #[error("the PACS cannot be reached: {what}")]
    Http {
        /// What the system said.
        what: String,
    },
    /// It answers with a failure.
    #[error("the PACS answers {what} with HTTP status {status}{}", http_meaning(*status))]
    HttpStatus {
        /// What was asked.
        what: &'static str,
        /// As it came.
        status: u16,
    },
    /// It answers with something else.
    #[error("the PACS answers {what} with what cannot be read: {problem}")]
    Answer {
        /// What was asked.
        what: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// It has no such study.
    #[error("the PACS has no study of this {of}: correct the list, or see whether we may see it there")]
    NotFound {
        /// `accession number` or `Study Instance UID`.
        of: &'static str,
    },
    /// It has several.
    #[error("the PACS has {count} studies of this accession number, and which is meant is not known: name them by study_instance_uid")]
    Several {
        /// At least so many.
        count: usize,
    },
    /// Not all of the study came.
    #[error("{lacking} of {expected} instances of the study did not come (study {study_uid})")]
    Lacking {
        /// How many did not come.
        lacking: u64,
        /// How many the PACS names.
        expected: u64,
        /// Study Instance UID.
        study_uid: Uid,
    },
    /// Something else came.
    #[error(
        "{count} instances that came state another accession number than was asked for: nothing of the study is used; \
             correct it at the PACS, or name the study by study_instance_uid (study {study_uid})"
    )]
    OtherAccession {
        /// How many.
        count: usize,
        /// Study Instance UID.
        study_uid: Uid,
    },
    /// Nothing says that it is the study.
    #[error(
        "no instance that came states an accession number, so that nothing but the PACS's index says that it is the study that was \
             asked for: name it by study_instance_uid (study {study_uid})"
    )]
    NoAccession {
        /// Study Instance UID.
        study_uid: Uid,
    },
    /// Instances of several patients came.
    #[error("instances of several patients came in one study: nothing of it is used (study {study_uid})")]
    SeveralPatients {
        /// Study Instance UID.
        study_uid: Uid,
    },
    /// It takes too long, or the run is to stop.
    #[error("the study did not come within {seconds} s, or the run was stopped")]
    Ended {
        /// What one may take.
        seconds: u64,
    },
    /// An instance that came cannot be read.
    #[error("an instance that came cannot be read: {0}")]
    Dataset(#[from] DatasetError),
    /// What comes cannot be kept.
    #[error("what comes cannot be kept: {0}")]
    Store(#[from] StoreError),
    /// We cannot be called.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was to be done.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl SourceError {
    /// Whether the same may succeed later: what depends on network, load and disk, not on what was asked.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Dimse(error) => error.is_transient(),
            Self::HttpStatus { status, .. } => matches!(status, 408 | 429 | 500..=599),
            Self::Http { .. } | Self::Lacking { .. } | Self::Ended { .. } | Self::Store(_) => true,
            Self::Config(_)
            | Self::Answer { .. }
            | Self::NotFound { .. }
            | Self::Several { .. }
            | Self::OtherAccession { .. }
            | Self::NoAccession { .. }
            | Self::SeveralPatients { .. }
            | Self::Dataset(_)
            | Self::Io { .. } => false,
        }
    }
}

impl Coded for SourceError {
    fn code(&self) -> &'static str {
        match self {
            Self::Config(error) => error.code(),
            Self::Dimse(error) => error.code(),
            Self::Http { .. } => "source.http",
            Self::HttpStatus { .. } => "source.http-status",
            Self::Answer { .. } => "source.answer",
            Self::NotFound { .. } => "source.not-found",
            Self::Several { .. } => "source.several",
            Self::Lacking { .. } => "source.lacking",
            Self::OtherAccession { .. } => "source.other-accession",
            Self::NoAccession { .. } => "source.no-accession",
            Self::SeveralPatients { .. } => "source.several-patients",
            Self::Ended { .. } => "source.ended",
            Self::Dataset(error) => error.code(),
            Self::Store(error) => error.code(),
            Self::Io { .. } => "source.io",
        }
    }
}

fn http_meaning(status: u16) -> &'static str {
    match status {
        401 | 403 => ": see whether the token is right and may see this",
        404 => ": see whether `url` is the root of the DICOMweb server",
        _ => "",
    }
}
