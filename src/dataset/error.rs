//! What can be wrong with one DICOM file.

use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::geometry::Coded;

/// What is wrong with one DICOM file. Messages hold numbers and names from the standard, never text of the header; the path comes last.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DatasetError {
    /// The file system refused.
    #[error("cannot read {what}: {kind}; check that it exists and may be read ({})", path.display())]
    Io {
        /// `file` or `folder`.
        what: &'static str,
        /// The kind of refusal.
        kind: std::io::ErrorKind,
        /// The file or folder.
        path: PathBuf,
    },
    /// A device, a pipe or a folder where a file is expected.
    #[error("not a regular file ({})", path.display())]
    NotAFile {
        /// What is no file.
        path: PathBuf,
    },
    /// Folders that are too deep, or too many files.
    #[error("more than {limit} {what} below this folder; give smaller inputs ({})", path.display())]
    TooMany {
        /// `files` or `levels of folders`.
        what: &'static str,
        /// The largest number accepted.
        limit: usize,
        /// The folder.
        path: PathBuf,
    },
    /// Neither a DICOM file nor a data set without a file header.
    #[error("not a DICOM file ({})", path.display())]
    NotDicom {
        /// The file.
        path: PathBuf,
    },
    /// A media directory (PS3.3 annex F): it lists images and is none.
    #[error("a DICOMDIR, which lists images and is none; the folder beside it is read instead ({})", path.display())]
    Dicomdir {
        /// The file.
        path: PathBuf,
    },
    /// The file ends early.
    #[error("the file is cut off: {what} needs {expected} bytes, {found} are there; send it again ({})", path.display())]
    Truncated {
        /// What was being read.
        what: &'static str,
        /// Bytes needed, from the start of the file (of the data set when it is deflated).
        expected: u64,
        /// Bytes there.
        found: u64,
        /// The file.
        path: PathBuf,
    },
    /// The encoding breaks PS3.5.
    #[error("malformed at byte {offset}: {what} ({})", path.display())]
    Malformed {
        /// What is wrong.
        what: &'static str,
        /// Where, from the start of the file (of the data set when it is deflated).
        offset: u64,
        /// The file.
        path: PathBuf,
    },
    /// Something larger than this program takes in.
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
    /// No transfer syntax that we know.
    #[error("unknown transfer syntax {uid}; convert the file to Explicit VR Little Endian ({})", path.display())]
    UnknownTransferSyntax {
        /// Transfer Syntax UID, or `(not a UID)`.
        uid: String,
        /// The file.
        path: PathBuf,
    },
    /// Right by the standard, but not read yet.
    #[error("{what} not supported yet; convert the file to Explicit VR Little Endian with 8 or 16 bits ({})", path.display())]
    Unsupported {
        /// What is not supported.
        what: String,
        /// The file.
        path: PathBuf,
    },
    /// No Pixel Data (7FE0,0010).
    #[error("no pixel data ({})", path.display())]
    NoPixelData {
        /// The file.
        path: PathBuf,
    },
    /// The attributes that describe the pixels contradict each other or PS3.3 C.7.6.3.
    #[error("impossible pixel description: {rows} rows, {columns} columns, {bits_allocated} bits allocated, {bits_stored} stored, \
             high bit {high_bit} ({})", path.display())]
    PixelDescription {
        /// Rows.
        rows: u32,
        /// Columns.
        columns: u32,
        /// Bits Allocated.
        bits_allocated: u16,
        /// Bits Stored.
        bits_stored: u16,
        /// High Bit.
        high_bit: u16,
        /// The file.
        path: PathBuf,
    },
    /// Pixel Data of another length than Rows and Columns promise.
    #[error("pixel data has {found} bytes, {frames} frames of {rows} rows and {columns} columns need {expected}; send it again ({})", path.display())]
    PixelLength {
        /// Bytes needed.
        expected: u64,
        /// Bytes there.
        found: u64,
        /// Rows.
        rows: u32,
        /// Columns.
        columns: u32,
        /// Number of Frames.
        frames: u32,
        /// The file.
        path: PathBuf,
    },
    /// The compressed image inside is not the one that the attributes describe.
    #[error("the {codec} image inside has {found_rows} rows, {found_columns} columns, {components} components of {precision} bits; \
             the header says {rows} rows, {columns} columns, {samples} of {bits_allocated} bits ({})", path.display())]
    CodeStream {
        /// Name of the compression.
        codec: &'static str,
        /// Rows in the code stream.
        found_rows: u32,
        /// Columns in the code stream.
        found_columns: u32,
        /// Components in the code stream.
        components: u32,
        /// Bits a sample in the code stream.
        precision: u32,
        /// Rows in the header.
        rows: u32,
        /// Columns in the header.
        columns: u32,
        /// Samples per Pixel in the header.
        samples: u16,
        /// Bits Allocated in the header.
        bits_allocated: u16,
        /// The file.
        path: PathBuf,
    },
    /// The decoder gave up.
    #[error("the {codec} image inside cannot be decoded; send it again or uncompressed ({})", path.display())]
    Decode {
        /// Name of the compression.
        codec: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// Number of Frames is no number, more than the file can hold, or not that of its functional groups.
    #[error("Number of Frames is {frames} (0 stands for unreadable), {groups} frames are described; the file cannot be used ({})", path.display())]
    FrameCount {
        /// Number of Frames (0028,0008).
        frames: u32,
        /// Items of the Per-Frame Functional Groups Sequence.
        groups: usize,
        /// The file.
        path: PathBuf,
    },
    /// Frames of encapsulated pixel data that cannot be told apart.
    #[error("{fragments} fragments of pixel data cannot be assigned to {frames} frames; send it again uncompressed ({})", path.display())]
    Fragments {
        /// Fragments there are.
        fragments: usize,
        /// Frames that should be in them.
        frames: u32,
        /// The file.
        path: PathBuf,
    },
    /// Header and pixels were read at different times and disagree.
    #[error("the file changed while it was read; wait until it is complete and run again ({})", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
}

impl DatasetError {
    /// The same of a file that goes by another name: one in an archive.
    #[must_use]
    pub fn at(mut self, place: &Path) -> Self {
        match &mut self {
            Self::Io { path, .. }
            | Self::NotAFile { path, .. }
            | Self::TooMany { path, .. }
            | Self::NotDicom { path, .. }
            | Self::Dicomdir { path, .. }
            | Self::Truncated { path, .. }
            | Self::Malformed { path, .. }
            | Self::TooLarge { path, .. }
            | Self::UnknownTransferSyntax { path, .. }
            | Self::Unsupported { path, .. }
            | Self::NoPixelData { path, .. }
            | Self::PixelDescription { path, .. }
            | Self::PixelLength { path, .. }
            | Self::CodeStream { path, .. }
            | Self::Decode { path, .. }
            | Self::FrameCount { path, .. }
            | Self::Fragments { path, .. }
            | Self::Changed { path, .. } => *path = place.into(),
        }
        self
    }

    /// Whether the file is simply none of ours to read, such as a text file or a media directory, rather than unreadable.
    pub fn is_foreign(&self) -> bool {
        matches!(self, Self::NotDicom { .. } | Self::Dicomdir { .. } | Self::NotAFile { .. })
    }
}

impl Coded for DatasetError {
    fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "dataset.io",
            Self::NotAFile { .. } => "dataset.not-a-file",
            Self::TooMany { .. } => "dataset.too-many",
            Self::NotDicom { .. } => "dataset.not-dicom",
            Self::Dicomdir { .. } => "dataset.dicomdir",
            Self::Truncated { .. } => "dataset.truncated",
            Self::Malformed { .. } => "dataset.malformed",
            Self::TooLarge { .. } => "dataset.too-large",
            Self::UnknownTransferSyntax { .. } => "dataset.unknown-transfer-syntax",
            Self::Unsupported { .. } => "dataset.unsupported",
            Self::NoPixelData { .. } => "dataset.no-pixel-data",
            Self::PixelDescription { .. } => "dataset.pixel-description",
            Self::PixelLength { .. } => "dataset.pixel-length",
            Self::CodeStream { .. } => "dataset.code-stream",
            Self::Decode { .. } => "dataset.decode",
            Self::FrameCount { .. } => "dataset.frame-count",
            Self::Fragments { .. } => "dataset.fragments",
            Self::Changed { .. } => "dataset.changed",
        }
    }
}
