//! Why something is not in the store.

use std::io;

use thiserror::Error;

use crate::dataset::DatasetError;
use crate::geometry::Coded;

/// Why an instance was not taken, or the store cannot work. No patient text.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// There is less free space than is kept for running jobs.
    #[error("{free_mb} MB free on the disk of the store, {kept_mb} MB are kept free: delete old studies or lower `store.keep_free_mb`")]
    Full {
        /// What there is.
        free_mb: u64,
        /// What is kept.
        kept_mb: u64,
    },
    /// The disk does not do what it should.
    #[error("the store's disk fails: {0}")]
    Io(#[from] io::Error),
    /// The database does not do what it should.
    #[error("the store's database fails: {0}")]
    Database(#[from] sqlx::Error),
    /// The database does not say what it knows of an instance.
    #[error("the store's database fails: {0}")]
    Lookup(#[from] rusqlite::Error),
    /// It is no data set that can be kept.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// It is not what the command says.
    #[error("the data set's {what} is not that of the command")]
    NotAsAnnounced {
        /// Which attribute.
        what: &'static str,
    },
    /// It belongs to no study.
    #[error("the data set has no valid {what}")]
    NoUid {
        /// Which attribute.
        what: &'static str,
    },
    /// The study is another patient's.
    #[error("the study is here for another patient: correct one of the two, or release it from quarantine")]
    OtherPatient,
    /// It came because we asked for something, and is not what we asked for.
    #[error("it was asked for as an earlier study of another patient, or not at all: it is in quarantine")]
    NotAsAsked,
    /// Another process works in the same folder.
    #[error("another process uses this data folder")]
    InUse,
}

impl StoreError {
    /// The message without the path at its end, for those who do not know this machine.
    pub fn shown(&self) -> String {
        let text = self.to_string();
        match self {
            Self::Dataset(_) => text.rsplit_once(" (").map_or(text.as_str(), |(before, _)| before).to_owned(),
            _ => text,
        }
    }
}

impl Coded for StoreError {
    fn code(&self) -> &'static str {
        match self {
            Self::Full { .. } => "store.full",
            Self::Io(_) => "store.io",
            Self::Database(_) | Self::Lookup(_) => "store.database",
            Self::Dataset(error) => error.code(),
            Self::NotAsAnnounced { .. } => "store.not-as-announced",
            Self::NoUid { .. } => "store.no-uid",
            Self::OtherPatient => "store.other-patient",
            Self::NotAsAsked => "store.not-as-asked",
            Self::InUse => "store.in-use",
        }
    }
}
