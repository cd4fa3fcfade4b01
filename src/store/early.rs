//! What is done for an instance while it still arrives, so that little is left to do at its end: its header is read, and the database asked.

use std::path::Path;

use tokio::task::JoinHandle;

use super::{Announced, Store, StoreError};
use crate::codes::Uid;
use crate::dataset::Instance;

/// Bytes of a file in which its header is looked for.
const HEAD_BYTES: usize = 16 * 1024;

/// The beginning of an instance.
#[derive(Debug, Default)]
pub(super) struct Early {
    head: Vec<u8>,
    known: Option<(Instance, Lookup)>,
}

/// What the database is asked about an instance.
#[derive(Debug)]
pub(super) struct Lookup {
    answer: JoinHandle<sqlx::Result<Known>>,
    /// [`super::Sealed`]'s count of batches before that.
    batches: u64,
}

/// What the database says of an instance.
#[derive(Debug)]
pub(super) struct Known {
    /// Of the instance of that UID.
    pub(super) content: Option<String>,
    /// Hash of the patient of its study.
    pub(super) patient: Option<String>,
    /// Of its study.
    pub(super) state: Option<String>,
    /// Whether its sender was asked for its study.
    pub(super) prior: bool,
}

impl Early {
    /// After the file's own beginning.
    pub(super) fn after(beginning: &[u8]) -> Self {
        Self { head: beginning.to_vec(), known: None }
    }

    /// The next piece of the data set.
    pub(super) fn more(&mut self, store: &Store, announced: &Announced, fragment: &[u8]) {
        let lacking = HEAD_BYTES.saturating_sub(self.head.len());
        if lacking == 0 {
            return;
        }
        self.head.extend(&fragment[..lacking.min(fragment.len())]);
        if self.head.len() == HEAD_BYTES {
            self.known = Instance::of_beginning(self.head.clone()).map(|instance| {
                let lookup = store.look_up(&announced.sop_instance_uid, &instance.study_uid, &announced.calling);
                (instance, lookup)
            });
        }
    }

    /// The instance that has been written to `path`, and what was asked about it, if it was.
    pub(super) fn ended(self, path: &Path) -> (Result<Instance, StoreError>, Option<Lookup>) {
        match self.known {
            Some((instance, lookup)) => (instance.written_to(path).map_err(StoreError::from), Some(lookup)),
            None => (Instance::read(path).map_err(StoreError::from), None),
        }
    }
}

impl Store {
    /// Asks the database about an instance.
    pub(super) fn look_up(&self, sop_instance_uid: &Uid, study_uid: &Uid, calling: &str) -> Lookup {
        let batches = self.shared.sealed().batches;
        let (pool, sop_instance_uid, study_uid, calling) =
            (self.pool().clone(), sop_instance_uid.clone(), study_uid.clone(), calling.to_owned());
        let answer = self.shared.runtime.spawn(async move {
            let query = sqlx::query_as(
                "SELECT (SELECT content FROM instance WHERE sop_instance_uid = ?1), (SELECT patient_key FROM study WHERE study_uid = ?2),
                    (SELECT state FROM study WHERE study_uid = ?2), EXISTS (SELECT 1 FROM prior WHERE study_uid = ?2 AND title = ?3)",
            );
            let (content, patient, state, prior) = query.bind(sop_instance_uid).bind(study_uid).bind(calling).fetch_one(&pool).await?;
            Ok(Known { content, patient, state, prior })
        });
        Lookup { answer, batches }
    }
}

impl Lookup {
    /// What the database said, and the count of batches before that.
    pub(super) async fn answer(self) -> Result<(Known, u64), StoreError> {
        let known = self.answer.await.map_err(std::io::Error::other)??;
        Ok((known, self.batches))
    }
}
