//! Studies of a list that lie in a PACS: found when the run begins, fetched ahead of the reader, taken away when they are done.
//!
//! 1. A study that was not found, or that is not known to be the one that is meant, is never fetched: it is among the failures.
//! 2. At most [`Source::ahead`] studies are here at a time, from the first instance that comes to the last result that is written.
//! 3. They lie in `work/fetched-N`, which is one process's alone and goes with it; what a dead one left goes with the next run.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::CohortError;
use super::list::StudyList;
use super::record::{Problem, StudyRecord};
use crate::codes::{Uid, sha256_hex};
use crate::geometry::Coded;
use crate::node::{Fetcher, FoundStudy, Sought, Source, SourceError};
use crate::series::StudyFiles;

const FETCHED: &str = "fetched-";
/// So many studies in a row did not come for reasons that may pass: the PACS is taken to be down.
pub(super) const MOST_IN_A_ROW: u32 = 3;
/// How often who waits for a place looks whether to go on.
const POLL: Duration = Duration::from_millis(200);

/// What a PACS has of a list.
pub(super) struct Remote {
    pub(super) source: Source,
    /// By Study Instance UID.
    pub(super) found: BTreeMap<Uid, FoundStudy>,
    /// Rows of the list that name no study of it, or several.
    pub(super) missing: Vec<StudyRecord>,
}

impl Remote {
    /// Asks the PACS that the file at `from` names for what is sought in `list`, of which the studies in `here` are left out.
    pub(super) fn of(
        from: &Path,
        list: Option<&StudyList>,
        here: &BTreeSet<&Uid>,
        go_on: &dyn Fn() -> bool,
        say: &dyn Fn(String),
    ) -> Result<Self, CohortError> {
        let mut remote = Self { source: Source::read(from)?, found: BTreeMap::new(), missing: Vec::new() };
        let source = &remote.source;
        for sought in list.into_iter().flat_map(|list| &list.sought) {
            match source.patiently(go_on, say, || source.find(sought, go_on)) {
                Ok(found) if here.contains(&found.study_uid) => {}
                Ok(found) => {
                    remote.found.entry(found.study_uid.clone()).or_insert(found);
                }
                Err(error @ (SourceError::NotFound { .. } | SourceError::Several { .. })) => {
                    let (study_instance_uid, accession_number) = match sought.clone() {
                        Sought::Accession(number) => (String::new(), number),
                        Sought::Study(uid) => (uid, String::new()),
                    };
                    remote.missing.push(StudyRecord { study_instance_uid, accession_number, problem: problem(&error) });
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(remote)
    }

    /// Those that were found, to be done: of each, what the PACS says of it stands for its files.
    pub(super) fn studies(&self) -> impl Iterator<Item = StudyFiles> {
        self.found.values().map(|study| {
            let stamp = sha256_hex(format!("{}\n{:?}", study.study_uid, study.instances).as_bytes());
            StudyFiles::elsewhere(&study.study_uid, stamp)
        })
    }
}

/// For people and programs.
pub(super) fn problem(error: &dyn Coded) -> Problem {
    Problem::of(error, str::to_owned)
}

/// Where the process with this number keeps what it fetches.
pub(super) fn folder(work: &Path, number: u32) -> PathBuf {
    work.join(format!("{FETCHED}{number:04}"))
}

/// Takes away what dead processes have left, while nobody is at work.
pub(super) fn remove_left(work: &Path) -> io::Result<()> {
    for entry in fs::read_dir(work)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(FETCHED)) && entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Studies that are here.
pub(super) struct Here<'f> {
    fetcher: Fetcher<'f>,
    most: usize,
    uids: Mutex<HashSet<Uid>>,
    freed: Condvar,
}

impl<'f> Here<'f> {
    pub(super) fn new(remote: &'f Remote, folder: &Path) -> Result<Self, SourceError> {
        let fetcher = remote.source.begin(folder)?;
        Ok(Self { fetcher, most: remote.source.ahead(), uids: Mutex::default(), freed: Condvar::new() })
    }

    /// How many may be here.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// Waits for a place and fetches a study; none where the run ends meanwhile.
    pub(super) fn fetch(
        &self,
        remote: &Remote,
        study_uid: &str,
        go_on: &dyn Fn() -> bool,
        say: &dyn Fn(String),
    ) -> Option<Result<Vec<PathBuf>, SourceError>> {
        let study = remote.found.get(study_uid).expect("a study without files was found at the PACS");
        let mut uids = self.uids();
        while uids.len() >= self.most {
            if !go_on() {
                return None;
            }
            uids = self.freed.wait_timeout(uids, POLL).unwrap_or_else(PoisonError::into_inner).0;
        }
        uids.insert(study.study_uid.clone());
        drop(uids);
        let fetched = remote.source.patiently(go_on, say, || self.fetcher.fetch(study, go_on));
        if fetched.is_err() {
            self.release(study_uid);
            if !go_on() {
                return None;
            }
        }
        Some(fetched)
    }

    /// Takes a study away, if it is here.
    pub(super) fn release(&self, study_uid: &str) {
        if self.uids().contains(study_uid) {
            self.fetcher.release(study_uid);
            self.uids().remove(study_uid); // now there is a place
            self.freed.notify_one();
        }
    }

    fn uids(&self) -> MutexGuard<'_, HashSet<Uid>> {
        self.uids.lock().unwrap_or_else(PoisonError::into_inner) // a set is whole between any two statements
    }
}
