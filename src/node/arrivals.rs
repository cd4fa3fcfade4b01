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
}

impl Arrivals {
    pub(super) fn new(store: &Arc<Store>, peer: &str) -> Self {
        Self { store: Arc::clone(store), peer: peer.to_owned(), studies: BTreeMap::new() }
    }

    /// Counts an instance. From the first one of a study on, new or not, more of it may come until [`Arrivals::end`]; where an earlier
    /// association was cut off, the end of this one says whether the rest came.
    pub(super) fn add(&mut self, kept: &Kept) {
        let (Kept::New { study_uid } | Kept::Again { study_uid }) = kept else { return };
        let brought = self.studies.entry(study_uid.clone()).or_insert_with_key(|study_uid| {
            self.store.study_opened(study_uid);
            Brought::default()
        });
        match kept {
            Kept::New { .. } => brought.new += 1,
            _ => brought.again += 1,
        }
    }

    /// No more comes: all was sent, or it was cut off. Instances that were not here, and that were.
    pub(super) fn end(self, whole: bool) -> (u64, u64) {
        for (study_uid, brought) in &self.studies {
            for (action, count) in [("C", brought.new), ("R", brought.again)].into_iter().filter(|(_, count)| *count > 0) {
                self.store.audit(AuditRecord::transferred(action, &self.peer, study_uid, format!("{count} instances received")));
            }
        }
        let sum = self.studies.values().fold((0, 0), |sum, brought| (sum.0 + brought.new, sum.1 + brought.again));
        self.store.association_ended(self.studies.into_keys().collect(), whole);
        sum
    }
}
