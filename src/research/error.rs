//! What can be wrong with one research volume.

use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::geometry::{Coded, GeometryError};
use crate::volume::MAX_MAGNITUDE;

/// What is wrong with one NIfTI or NRRD file. Messages hold numbers and names from the formats, never text of the header; the path
/// comes last.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum ResearchError {
    /// The file system refused.
    #[error("cannot read file: {kind}; check that it exists and may be read ({})", path.display())]
    Io {
        /// The kind of refusal.
        kind: std::io::ErrorKind,
        /// The file.
        path: PathBuf,
    },
    /// Neither format.
    #[error("neither a NIfTI nor a NRRD file ({})", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The file ends early.
    #[error("the file is cut off: {what} needs {expected} bytes, {found} are there; copy it again ({})", path.display())]
    Truncated {
        /// What was being read.
        what: &'static str,
        /// Bytes needed, inflated where the file is compressed.
        expected: u64,
        /// Bytes there; of a compressed file the most that can be inside.
        found: u64,
        /// The file.
        path: PathBuf,
    },
    /// More data than the dimensions describe.
    #[error("more than {limit} bytes follow the voxels, so the dimensions of the header are in doubt; write the file again ({})", path.display())]
    Surplus {
        /// Bytes after the voxels that are accepted.
        limit: u64,
        /// The file.
        path: PathBuf,
    },
    /// A compressed stream or text that is no such thing.
    #[error("damaged: {what}; copy or write the file again ({})", path.display())]
    Damaged {
        /// What is damaged.
        what: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// The header breaks its format or contradicts itself.
    #[error("impossible header: {what}; write the file again ({})", path.display())]
    Header {
        /// What is wrong, in numbers.
        what: String,
        /// The file.
        path: PathBuf,
    },
    /// Right by the format, but not one volume of real numbers, or not read.
    #[error("{what} not supported; {remedy} ({})", path.display())]
    Unsupported {
        /// What is not supported, with its verb.
        what: String,
        /// What to do.
        remedy: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// Several volumes in one file.
    #[error("{count} volumes in one file; give one volume a file ({})", path.display())]
    Volumes {
        /// How many.
        count: u64,
        /// The file.
        path: PathBuf,
    },
    /// More than this program takes in.
    #[error("{what} of {bytes} bytes is larger than the {limit} that are accepted ({})", path.display())]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size.
        bytes: u64,
        /// The largest size accepted.
        limit: u64,
        /// The file.
        path: PathBuf,
    },
    /// The machine has less memory.
    #[error("no memory for a volume of {bytes} bytes; close other programs or give a smaller volume ({})", path.display())]
    Memory {
        /// What the volume needs.
        bytes: u64,
        /// The file.
        path: PathBuf,
    },
    /// Nothing says how the voxels lie in the patient.
    #[error("{what}, so left and right are unknown; write the file with its orientation ({})", path.display())]
    NoOrientation {
        /// What is missing.
        what: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// A NIfTI file with two places for its voxels.
    #[error("sform (code {sform_code}) and qform (code {qform_code}) place voxels up to {distance_mm:.3} mm apart{}; \
             programs differ in which one they take: set both to the right one ({})",
            if *flips { " and name other sides of the patient" } else { "" }, path.display())]
    TransformsDisagree {
        /// sform_code.
        sform_code: i64,
        /// qform_code.
        qform_code: i64,
        /// The largest distance between the two places of a corner voxel, mm.
        distance_mm: f64,
        /// Whether the nearest patient directions of the axes differ.
        flips: bool,
        /// The file.
        path: PathBuf,
    },
    /// Dimensions or axes that make no lattice.
    #[error("{source} ({})", path.display())]
    Geometry {
        /// What is wrong with them.
        source: GeometryError,
        /// The file.
        path: PathBuf,
    },
    /// Another file than the one whose header was read before.
    #[error("the file was changed while it was in use; run again when it is in place ({})", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// Values that nothing can be computed from.
    #[error("{nan} voxels are NaN, {infinite} infinite and {beyond} beyond {MAX_MAGNITUDE:e}; \
             replace them with a value that says what lies there ({})", path.display())]
    NotFinite {
        /// Not a number.
        nan: u64,
        /// Infinite.
        infinite: u64,
        /// Finite, but of a magnitude above [`MAX_MAGNITUDE`].
        beyond: u64,
        /// The file.
        path: PathBuf,
    },
}

impl ResearchError {
    /// The same of a file that goes by another name: one in an archive.
    #[must_use]
    pub fn at(mut self, place: &Path) -> Self {
        match &mut self {
            Self::Io { path, .. }
            | Self::Foreign { path }
            | Self::Truncated { path, .. }
            | Self::Surplus { path, .. }
            | Self::Damaged { path, .. }
            | Self::Header { path, .. }
            | Self::Unsupported { path, .. }
            | Self::Volumes { path, .. }
            | Self::TooLarge { path, .. }
            | Self::Memory { path, .. }
            | Self::NoOrientation { path, .. }
            | Self::TransformsDisagree { path, .. }
            | Self::Geometry { path, .. }
            | Self::NotFinite { path, .. }
            | Self::Changed { path } => *path = place.into(),
        }
        self
    }

    /// Whether the file is simply of another kind, rather than unreadable.
    pub fn is_foreign(&self) -> bool {
        matches!(self, Self::Foreign { .. })
    }

    pub(super) fn io(error: &std::io::Error, path: &Path) -> Self {
        Self::Io { kind: error.kind(), path: path.into() }
    }

    pub(super) fn header(what: impl Into<String>, path: &Path) -> Self {
        Self::Header { what: what.into(), path: path.into() }
    }

    pub(super) fn unsupported(what: impl Into<String>, remedy: &'static str, path: &Path) -> Self {
        Self::Unsupported { what: what.into(), remedy, path: path.into() }
    }
}

impl Coded for ResearchError {
    fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "research.io",
            Self::Foreign { .. } => "research.foreign",
            Self::Truncated { .. } => "research.truncated",
            Self::Surplus { .. } => "research.surplus",
            Self::Damaged { .. } => "research.damaged",
            Self::Header { .. } => "research.header",
            Self::Unsupported { .. } => "research.unsupported",
            Self::Volumes { .. } => "research.volumes",
            Self::TooLarge { .. } => "research.too-large",
            Self::Memory { .. } => "research.memory",
            Self::NoOrientation { .. } => "research.no-orientation",
            Self::TransformsDisagree { .. } => "research.transforms-disagree",
            Self::Geometry { .. } => "research.geometry",
            Self::NotFinite { .. } => "research.not-finite",
            Self::Changed { .. } => "research.changed",
        }
    }
}
