//! What one association or one request brings, by study: counted, audited, and held against the completion of a study.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::codes::Uid;
use crate::store::{AuditRecord, Kept, Store};

/// Instances that somebody brings.
pub(super) struct Arrivals {
    store: Arc<Store>,
    /// Who.
    peer: String,
    studies: BTreeMap<Uid, Brought>,
}

/// What came of a study.
#[derive(Debug, Clone, Copy, Default)]
struct Brought {
    /// Instances that were not here.
    new: u64,
    /// Instances that were.
    again: u64,
    /// Instances that came because we asked for them.
    asked: u64,
    /// Its completion waits for the end.
    open: bool,
}

impl Arrivals {
    pub(super) fn new(store: &Arc<Store>, peer: &str) -> Self {
        Self { store: Arc::clone(store), peer: peer.to_owned(), studies: BTreeMap::new() }
    }

    /// Counts an instance. From the first one of a study on, new or not, more of it may come until [`Arrivals::end`]; where an earlier
    /// association was cut off, the end of this one says whether the rest came.
    pub(super) fn add(&mut self, kept: &Kept) {
        let (Kept::New { study_uid } | Kept::Again { study_uid } | Kept::Asked { study_uid }) = kept else { return };
        let brought = self.studies.entry(study_uid.clone()).or_default();
        match kept {
            Kept::New { .. } => brought.new += 1,
            Kept::Asked { .. } => {
                brought.asked += 1;
                return; // nothing new of its study
            }
            _ => brought.again += 1,
        }
        let is_open = matches!(kept, Kept::Again { .. }); // by the store, once for this instance
        match (std::mem::replace(&mut brought.open, true), is_open) {
            (false, false) => self.store.study_opened(study_uid),
            (true, true) => self.store.study_closed(study_uid),
            _ => {}
        }
    }

    /// No more comes: all was sent, or it was cut off. Instances that were not here, and that were or that we asked for.
    pub(super) fn end(mut self, whole: bool) -> (u64, u64) {
        self.close(whole)
    }

    fn close(&mut self, whole: bool) -> (u64, u64) {
        let studies = std::mem::take(&mut self.studies);
        for (study_uid, brought) in &studies {
            let counts = [("C", brought.new, "received"), ("R", brought.again, "received"), ("C", brought.asked, "retrieved")];
            for (action, count, how) in counts.into_iter().filter(|(_, count, _)| *count > 0) {
                self.store.audit(AuditRecord::transferred(action, &self.peer, study_uid, format!("{count} instances {how}")));
            }
        }
        let sum = studies.values().fold((0, 0), |sum, brought| (sum.0 + brought.new, sum.1 + brought.again + brought.asked));
        let opened = studies.into_iter().filter(|(_, brought)| brought.open).map(|(study_uid, _)| study_uid);
        self.store.association_ended(opened.collect(), whole);
        sum
    }
}

impl Drop for Arrivals {
    /// Whoever brought them has panicked: that is as if he was cut off.
    fn drop(&mut self) {
        self.close(false);
    }
}
