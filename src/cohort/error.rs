//! Why a cohort cannot be begun or carried on.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::dataset::WriteError;
use crate::engine::EngineError;
use crate::geometry::Coded;
use crate::node::SourceError;
use crate::results::ResultsError;

/// Why a cohort cannot be begun or carried on. What befalls one series is in the report.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CohortError {
    /// An input is not there.
    #[error("cannot read the input {}: {source}", path.display())]
    Input {
        /// The input.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is nothing in the inputs.
    #[error("no file in the input; give folders or files with DICOM instances, or NIfTI or NRRD volumes")]
    Empty,
    /// None of the studies that a list names is there.
    #[error("none of the {wanted} studies and paths that the list names is in the input")]
    NotThere {
        /// Rows of the list.
        wanted: usize,
    },
    /// A list of studies cannot be used.
    #[error("{what} ({})", path.display())]
    List {
        /// What is wrong with it.
        what: String,
        /// The list.
        path: PathBuf,
    },
    /// A shard that does not exist.
    #[error("`{text}` is no shard: give I/N, such as 1/4, with I from 1 to N")]
    Shard {
        /// As it was given.
        text: String,
    },
    /// Somebody else works in the output folder.
    #[error("another process is at work in {}: with --resume this one helps it, another output folder keeps them apart", path.display())]
    Busy {
        /// The output folder.
        path: PathBuf,
    },
    /// The output folder is an input, too.
    #[error(
        "the output folder is an input, and its results would be read as instances: name another one, which may lie within the input ({})",
        path.display()
    )]
    OutputIsInput {
        /// The output folder.
        path: PathBuf,
    },
    /// Files of the same studies lie where this run does not look.
    #[error(
        "{studies} studies were analysed from files that are no input now, and would lose those results: give all folders of a study \
         together, or take another output folder ({}, for one)",
        path.display()
    )]
    Elsewhere {
        /// So many studies.
        studies: usize,
        /// Where one of them lies.
        path: PathBuf,
    },
    /// What was begun there was begun otherwise.
    #[error(
        "{what} differs from what the results in the folder were made with: {then}, now {now}; \
         go on as it was begun, start over without --resume, or take another folder ({})",
        path.display()
    )]
    OtherSettings {
        /// Which setting.
        what: String,
        /// What it was.
        then: String,
        /// What it is.
        now: String,
        /// The output folder.
        path: PathBuf,
    },
    /// There is no cohort in the folder.
    #[error("no cohort in {}: it is an output folder of `roentgen run` that is meant", path.display())]
    NoCohort {
        /// The folder.
        path: PathBuf,
    },
    /// The output folder refuses.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was to be done.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A PACS cannot be asked for the studies of a list.
    #[error("the studies of the list cannot be asked for: {0}")]
    Source(#[from] SourceError),
    /// A list names studies of a PACS, and there is none.
    #[error("{count} rows of the list name no path: give the PACS that has these studies by --from, or the paths")]
    NoSource {
        /// So many rows.
        count: usize,
    },
    /// The compute device went away in the middle: no series would be analysed after it.
    #[error(
        "the run ended, because the compute device has gone: {0}; --resume goes on from here once it is back, or --device names another"
    )]
    DeviceLost(Box<EngineError>),
    /// The disk of the output folder takes no results.
    #[error("the run ended, because the disk takes nothing more: {source}; make room, then --resume goes on from here ({})", path.display())]
    Disk {
        /// The output folder.
        path: PathBuf,
        /// What could not be written.
        source: ResultsError,
    },
    /// A file of the outcome cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A question that is none, or that cannot be answered.
    #[error("{what}")]
    Question {
        /// What is wrong with it.
        what: String,
    },
}

impl Coded for CohortError {
    fn code(&self) -> &'static str {
        match self {
            Self::Input { .. } => "cohort.input",
            Self::Empty => "cohort.empty",
            Self::NotThere { .. } => "cohort.not-there",
            Self::List { .. } => "cohort.list",
            Self::Shard { .. } => "cohort.shard",
            Self::Busy { .. } => "cohort.busy",
            Self::OutputIsInput { .. } => "cohort.output-is-input",
            Self::Elsewhere { .. } => "cohort.elsewhere",
            Self::OtherSettings { .. } => "cohort.other-settings",
            Self::NoCohort { .. } => "cohort.no-cohort",
            Self::Io { .. } => "cohort.io",
            Self::Source(error) => error.code(),
            Self::NoSource { .. } => "cohort.no-source",
            Self::DeviceLost(error) => error.code(),
            Self::Disk { .. } => "cohort.disk",
            Self::Write(error) => error.code(),
            Self::Question { .. } => "cohort.question",
        }
    }
}

/// For `map_err`.
pub(super) fn io_at(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> CohortError {
    let path = path.into();
    move |source| CohortError::Io { action, path, source }
}
