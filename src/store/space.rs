//! Free space on the store's disk.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::StoreError;

/// How long an answer of the system holds.
const FRESH: Duration = Duration::from_millis(100);
const MB: u64 = 1 << 20;

#[derive(Debug)]
pub(super) struct Space {
    folder: PathBuf,
    kept_mb: u64,
    last: Mutex<Option<(Instant, u64)>>,
}

impl Space {
    pub(super) fn of(folder: &Path, kept_mb: u64) -> Self {
        Self { folder: folder.to_owned(), kept_mb, last: Mutex::default() }
    }

    /// Whether there is room for something new: refused before the disk is full, so that jobs that run can end.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        let free_mb = self.free_mb()?;
        if free_mb < self.kept_mb { Err(StoreError::Full { free_mb, kept_mb: self.kept_mb }) } else { Ok(()) }
    }

    /// Free space, MB.
    pub(super) fn free_mb(&self) -> Result<u64, StoreError> {
        let mut last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner); // a number is whole
        match *last {
            Some((at, free_mb)) if at.elapsed() < FRESH => Ok(free_mb),
            _ => {
                let disk = rustix::fs::statvfs(&self.folder).map_err(std::io::Error::from)?;
                let free_mb = disk.f_bavail.saturating_mul(disk.f_frsize) / MB;
                *last = Some((Instant::now(), free_mb));
                Ok(free_mb)
            }
        }
    }
}
