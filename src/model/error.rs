//! Why a model package cannot be used.

use std::path::PathBuf;

use thiserror::Error;

use crate::geometry::Coded;

/// Why a model package cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ModelError {
    /// Neither a folder with a manifest nor the name of an installed package.
    #[error(
        "no model package `{wanted}`: give a folder that holds a model.toml, or a name out of: {}",
        if known.is_empty() { "(none installed)".to_owned() } else { known.join(", ") }
    )]
    NotFound {
        /// What was asked for.
        wanted: String,
        /// Names of the installed packages.
        known: Vec<String>,
    },
    /// A file of the package cannot be read.
    #[error("cannot read a file of the model package: {source} ({})", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The manifest is of a later format than this program knows.
    #[error("the manifest has format {found}, this roentgen reads format {known}: update roentgen ({})", path.display())]
    NewerFormat {
        /// Format of the manifest.
        found: i64,
        /// Format of this program.
        known: i64,
        /// The manifest.
        path: PathBuf,
    },
    /// A step that this program does not have.
    #[error("unknown {stage} step `{step}`, known are: {}; update roentgen or correct the manifest ({})", known.join(", "), path.display())]
    UnknownStep {
        /// `preprocess` or `postprocess`.
        stage: &'static str,
        /// The step's name.
        step: String,
        /// The closed set.
        known: &'static [&'static str],
        /// The manifest.
        path: PathBuf,
    },
    /// The manifest is no TOML, or lacks or has too much.
    #[error("the manifest is not valid ({}):\n{message}", path.display())]
    Manifest {
        /// What the parser said, with line and column.
        message: String,
        /// The manifest.
        path: PathBuf,
    },
    /// The manifest contradicts itself or asks for what this version cannot do.
    #[error("the manifest cannot be carried out: {what} ({})", path.display())]
    Unsupported {
        /// Which field, why, and what would do.
        what: String,
        /// The manifest.
        path: PathBuf,
    },
    /// Neither a folder nor a packed package.
    #[error("no model package: neither a folder with a model.toml nor what `roentgen model pack` writes ({})", path.display())]
    NotPacked {
        /// What was given.
        path: PathBuf,
    },
    /// A packed package or its signature cannot be written.
    #[error("cannot write the packed package: {source}")]
    Write {
        /// What the system said.
        source: std::io::Error,
    },
    /// No key that signs or verifies.
    #[error("{what} ({})", path.display())]
    Key {
        /// What is wrong, and what would do.
        what: &'static str,
        /// The key's file.
        path: PathBuf,
    },
    /// The package is not what the holder of the key has signed.
    #[error("wrong signature: the package was changed, or signed with another key; do not use it ({})", path.display())]
    Signature {
        /// The packed package.
        path: PathBuf,
    },
    /// More than a file of its kind can have.
    #[error("the file has {bytes} bytes, {most} at most can be read: export the graph with a smaller type of weights ({})", path.display())]
    TooLarge {
        /// Bytes of the file.
        bytes: u64,
        /// Most bytes.
        most: u64,
        /// Which file.
        path: PathBuf,
    },
    /// A file is not the one that the manifest names.
    #[error(
        "wrong hash: sha256 is {found}, the manifest says {expected}: the file was changed or damaged, install the package again{} ({})",
        if *in_folder { format!("; or, where it is you who changed it, put sha256 = \"{found}\" into model.toml") } else { String::new() },
        path.display()
    )]
    Hash {
        /// Hash of the file.
        found: String,
        /// Hash in the manifest.
        expected: String,
        /// Whether the package is a folder, which nobody has signed, and whose maker may be at work in it.
        in_folder: bool,
        /// Which file.
        path: PathBuf,
    },
}

impl Coded for ModelError {
    fn code(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "model.not-found",
            Self::Read { .. } => "model.read",
            Self::NewerFormat { .. } => "model.newer-format",
            Self::UnknownStep { .. } => "model.unknown-step",
            Self::Manifest { .. } => "model.manifest",
            Self::Unsupported { .. } => "model.unsupported",
            Self::NotPacked { .. } => "model.not-packed",
            Self::Write { .. } => "model.write",
            Self::Key { .. } => "model.key",
            Self::Signature { .. } => "model.signature",
            Self::TooLarge { .. } => "model.too-large",
            Self::Hash { .. } => "model.hash",
        }
    }
}
