//! Why findings could not be written.

use std::io;

use thiserror::Error;

use crate::dataset::WriteError;
use crate::findings::SegmentNumber;
use crate::geometry::Coded;

/// Why findings could not be written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ResultsError {
    /// The label map does not lie on the instances it is said to come from.
    #[error("label map of {} x {} x {} voxels does not lie on {frames} frames of {columns} x {rows} pixels", dims[0], dims[1], dims[2])]
    SourceMismatch {
        /// Voxels of the label map along i, j, k.
        dims: [u32; 3],
        /// Number of source frames.
        frames: usize,
        /// Columns of the first instance that differs, or of the first.
        columns: u32,
        /// Its rows.
        rows: u32,
    },
    /// Findings and label map say different things.
    #[error("label {label} of the label map {problem}")]
    Contradiction {
        /// The value in the label map.
        label: SegmentNumber,
        /// What does not fit.
        problem: &'static str,
    },
    /// A map of values that cannot be written.
    #[error("the map `{name}` {problem}")]
    Map {
        /// Its name, which is the package's.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A researcher's volume was analysed.
    #[error("the source is a {format} file, without patient, study and instances that a DICOM object could refer to")]
    NoInstances {
        /// Its format.
        format: &'static str,
    },
    /// An attribute that every object needs is missing in the source.
    #[error("source instances lack {attribute}, without which no result object can refer to them")]
    SourceLacks {
        /// Name of the attribute.
        attribute: &'static str,
    },
    /// What was written is not what was found: a fault of this program. Nothing is left behind.
    #[error("{file} was read again and is not what was found: {}", problems.join("; "))]
    SelfCheck {
        /// Name of the file.
        file: String,
        /// Everything that differs.
        problems: Vec<String>,
    },
    /// The output folder holds something that is not a result of ours, which is not ours to replace.
    #[error("output folder holds other files than results (`{found}`, for one): name a new or an empty folder")]
    Occupied {
        /// Name of one such file, without folder.
        found: String,
    },
    /// An object could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The folder could not be made, synced or renamed.
    #[error("cannot {action} the output folder: {source}")]
    Folder {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl ResultsError {
    /// Whether the disk takes nothing more, from whatever result: it is full, over its quota, or became read-only.
    pub fn is_of_disk(&self) -> bool {
        let (Self::Write(WriteError::Io { source, .. }) | Self::Folder { source, .. }) = self else { return false };
        use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        matches!(source.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem)
    }
}

impl Coded for ResultsError {
    fn code(&self) -> &'static str {
        match self {
            Self::SourceMismatch { .. } => "results.source-mismatch",
            Self::Contradiction { .. } => "results.contradiction",
            Self::Map { .. } => "results.map",
            Self::SourceLacks { .. } => "results.source-lacks",
            Self::NoInstances { .. } => "results.no-instances",
            Self::SelfCheck { .. } => "results.self-check",
            Self::Occupied { .. } => "results.occupied",
            Self::Write(err) => err.code(),
            Self::Folder { .. } => "results.folder",
        }
    }

    fn help(&self) -> Option<String> {
        match self {
            Self::Occupied { .. } => Some("results replace only earlier results in a folder; name another folder".into()),
            Self::SelfCheck { .. } => Some("nothing was written; please report this with the message".into()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_not_the_fault_of_a_result() {
        let io = |kind: io::ErrorKind| WriteError::Io { file: "sr.dcm".into(), source: kind.into() };
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded, io::ErrorKind::ReadOnlyFilesystem] {
            assert!(ResultsError::from(io(kind)).is_of_disk(), "{kind}");
            assert!(ResultsError::Folder { action: "create", source: kind.into() }.is_of_disk(), "{kind}");
        }
        assert!(!ResultsError::from(io(io::ErrorKind::PermissionDenied)).is_of_disk());
        assert!(!ResultsError::Occupied { found: "notes.txt".into() }.is_of_disk());
    }
}
