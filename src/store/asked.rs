//! What came because we asked for it: earlier studies of a patient (priors), which are held beside what is sent to us.

use std::path::Path;

use super::index::Arrival;
use super::{Contradiction, Store, StoreError};
use crate::codes::Uid;
use crate::dataset::{Identity, Instance};

impl Store {
    /// Whether an instance of a study that we asked this sender for is of the patient that it was asked for. It counts as asked for from now
    /// on where its study is on its way, whether its sender says so or not.
    ///
    /// A study that was asked for before and comes now without a word of that is sent to us, and passes.
    pub(super) fn is_as_asked(&self, arrival: &mut Arrival) -> Result<bool, StoreError> {
        let query = sqlx::query_as(
            "SELECT job.study_uid, prior.state = 'asked' FROM prior JOIN job ON job.id = prior.job
             WHERE prior.study_uid = ? AND title = ? ORDER BY prior.state = 'asked' DESC, job.id DESC LIMIT 1",
        );
        let query = query.bind(&arrival.study_uid).bind(&arrival.calling).fetch_optional(self.pool());
        let found: Option<(Uid, bool)> = self.shared.runtime.block_on(query)?;
        let Some((asked_for, on_its_way)) = found else { return Ok(false) };
        arrival.asked |= on_its_way;
        if !arrival.asked {
            return Ok(true);
        }
        let patient = self.patient_of(&asked_for)?;
        Ok(patient_in(&arrival.path).zip(patient).is_some_and(|(theirs, ours)| ours.is(&theirs)))
    }

    /// Whether something of a study that this sender sent is in quarantine because it is another patient's.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn other_patients(&self, study_uid: &str, sender: &str) -> Result<bool, StoreError> {
        let query = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM quarantine WHERE study_uid = ? AND calling = ? AND reason IN (?, ?))");
        let [patient, not_asked] = [Contradiction::Patient, Contradiction::NotAsked].map(Contradiction::reason);
        Ok(query.bind(study_uid).bind(sender).bind(patient).bind(not_asked).fetch_one(self.pool()).await?)
    }

    /// Whose study it is, as one of its instances says; none where none is here that can be read. The last answer is remembered: a study
    /// has one patient.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn patient_of(&self, study_uid: &str) -> Result<Option<Identity>, StoreError> {
        let mut last = self.shared.patient.lock().unwrap_or_else(std::sync::PoisonError::into_inner); // replaced as a whole
        if let Some((_, patient)) = last.as_ref().filter(|(known, _)| known == study_uid) {
            return Ok(Some(patient.clone()));
        }
        let query = sqlx::query_scalar("SELECT content FROM instance WHERE study_uid = ? ORDER BY received_ms, sop_instance_uid LIMIT 1");
        let found: Option<String> = self.shared.runtime.block_on(query.bind(study_uid).fetch_optional(self.pool()))?;
        let patient = found.and_then(|content| patient_in(&self.path_of(&content)));
        *last = patient.clone().map(|patient| (study_uid.to_owned(), patient));
        Ok(patient)
    }

    /// A held study is sent to us: before that is acknowledged, it is one that packages are run on.
    pub(super) fn sent_unasked(&self, arrival: &Arrival) -> Result<(), StoreError> {
        let query =
            sqlx::query("UPDATE study SET state = 'receiving', cut_off = 1, last_arrival_ms = ? WHERE study_uid = ? AND state = 'held'");
        let query = query.bind(arrival.received_ms).bind(&arrival.study_uid).execute(self.pool());
        self.shared.runtime.block_on(query)?;
        Ok(())
    }
}

/// Whose an instance is, where that can be read.
fn patient_in(path: &Path) -> Option<Identity> {
    Instance::read(path).and_then(|instance| Identity::of_instance(&instance)).ok()
}
