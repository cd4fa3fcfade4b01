//! Taking away what is old: first from the database, in one transaction with the audit entry and a note of the files, then from the disk.
//!
//! The indexer does it, between the instances that it enters, so that a file which comes again at that moment is not taken for the old
//! one. What a crash leaves of the files is removed at the next start, before anything else.

use std::fs;
use std::io::ErrorKind;

use sqlx::{Sqlite, SqlitePool, Transaction};

use super::audit::{self, AuditRecord};
use super::index::Entry;
use super::{Shared, Store, StoreError};
use crate::codes::Uid;

/// What is to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Old {
    /// The instances of a study.
    Study(Uid),
    /// The results of a job.
    Results(i64),
    /// An instance in quarantine, by its content.
    Quarantined(String),
}

/// That a job is still at work, or a result of it on its way: due, dead, or to be committed by one of the destinations in `?1` (JSON).
const AT_WORK: &str = "job.state IN ('waiting', 'queued', 'running') OR EXISTS (
    SELECT 1 FROM result JOIN delivery USING (sop_instance_uid) WHERE result.job = job.id AND (
        delivery.state IN ('due', 'dead')
        OR delivery.state = 'stored' AND delivery.destination IN (SELECT value FROM json_each(?1))))";
/// That a job is one of a study, or refers to it as an earlier one.
const OF_STUDY: &str = "(job.study_uid = study.study_uid OR job.id IN (SELECT job FROM prior WHERE prior.study_uid = study.study_uid))";

fn json(texts: &[String]) -> String {
    serde_json::to_string(texts).expect("texts are JSON")
}

impl Store {
    /// The oldest of what came, was made, or went to quarantine before `before_ms`, and is not needed any more: all jobs of the study have
    /// ended, and their results are where they are to go (`committing` names the destinations that must have committed them).
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn old_studies(&self, before_ms: i64, committing: &[String], most: u32) -> Result<Vec<Old>, StoreError> {
        let query = sqlx::AssertSqlSafe(format!(
            "SELECT study_uid FROM study WHERE kept = 1 AND state IN ('complete', 'held') AND last_arrival_ms <= ?2
             AND NOT EXISTS (SELECT 1 FROM job WHERE {OF_STUDY} AND ({AT_WORK}))
             ORDER BY last_arrival_ms LIMIT ?3"
        ));
        let uids = sqlx::query_scalar(query).bind(json(committing)).bind(before_ms).bind(most).fetch_all(self.pool()).await?;
        Ok(uids.into_iter().map(Old::Study).collect())
    }

    /// See [`Store::old_studies`].
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn old_results(&self, before_ms: i64, committing: &[String], most: u32) -> Result<Vec<Old>, StoreError> {
        let query = sqlx::AssertSqlSafe(format!(
            "SELECT id FROM job WHERE kept = 1 AND ended_ms IS NOT NULL AND ended_ms <= ?2 AND NOT ({AT_WORK}) ORDER BY ended_ms LIMIT ?3"
        ));
        let jobs = sqlx::query_scalar(query).bind(json(committing)).bind(before_ms).bind(most).fetch_all(self.pool()).await?;
        Ok(jobs.into_iter().map(Old::Results).collect())
    }

    /// See [`Store::old_studies`].
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn old_quarantine(&self, before_ms: i64, most: u32) -> Result<Vec<Old>, StoreError> {
        let query = sqlx::query_scalar("SELECT content FROM quarantine WHERE received_ms <= ? ORDER BY received_ms LIMIT ?");
        let contents = query.bind(before_ms).bind(most).fetch_all(self.pool()).await?;
        Ok(contents.into_iter().map(Old::Quarantined).collect())
    }

    /// Bytes of all instances that are here.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn bytes(&self) -> Result<u64, StoreError> {
        let bytes: i64 = sqlx::query_scalar("SELECT bytes FROM held").fetch_one(self.pool()).await?;
        Ok(u64::try_from(bytes).unwrap_or_default())
    }

    /// Takes it away, unless it is needed again by then.
    pub fn remove(&self, old: Old, committing: &[String]) {
        self.enter(Entry::Remove(old, json(committing)));
    }
}

/// In the transaction of the indexer.
pub(super) async fn enter(
    shared: &Shared,
    transaction: &mut Transaction<'_, Sqlite>,
    old: &Old,
    committing: &str,
) -> Result<(), StoreError> {
    match old {
        Old::Study(study_uid) => study(shared, transaction, study_uid, committing).await,
        Old::Results(job) => results(transaction, *job, committing).await,
        Old::Quarantined(content) => quarantined(transaction, content).await,
    }
}

async fn study(shared: &Shared, transaction: &mut Transaction<'_, Sqlite>, study_uid: &str, committing: &str) -> Result<(), StoreError> {
    if shared.sealed().patients.contains_key(study_uid) || !shared.in_use().goes(study_uid) {
        return Ok(()); // it is being sent again
    }
    let query = sqlx::AssertSqlSafe(format!(
        "UPDATE study SET kept = 0 WHERE study_uid = ?2 AND kept = 1 AND state IN ('complete', 'held')
         AND NOT EXISTS (SELECT 1 FROM job WHERE {OF_STUDY} AND ({AT_WORK}))"
    ));
    if sqlx::query(query).bind(committing).bind(study_uid).execute(&mut **transaction).await?.rows_affected() == 0 {
        return Ok(());
    }
    let query = "INSERT OR IGNORE INTO removed SELECT 'instances/' || substr(content, 1, 2) || '/' || content || '.dcm' FROM instance WHERE study_uid = ?";
    sqlx::query(query).bind(study_uid).execute(&mut **transaction).await?;
    let query = "INSERT OR IGNORE INTO gone SELECT content, study_uid FROM instance WHERE study_uid = ?";
    sqlx::query(query).bind(study_uid).execute(&mut **transaction).await?;
    let query = sqlx::query("DELETE FROM instance WHERE study_uid = ?").bind(study_uid);
    let count = query.execute(&mut **transaction).await?.rows_affected();
    audit::append(transaction, &AuditRecord::removed(study_uid, format!("{count} instances removed, as they are old"))).await
}

async fn results(transaction: &mut Transaction<'_, Sqlite>, job: i64, committing: &str) -> Result<(), StoreError> {
    let query = sqlx::AssertSqlSafe(format!("UPDATE job SET kept = 0 WHERE id = ?2 AND kept = 1 AND NOT ({AT_WORK}) RETURNING study_uid"));
    let study_uid: Option<Uid> = sqlx::query_scalar(query).bind(committing).bind(job).fetch_optional(&mut **transaction).await?;
    let Some(study_uid) = study_uid else { return Ok(()) };
    sqlx::query("INSERT OR IGNORE INTO removed VALUES ('results/' || ?)").bind(job).execute(&mut **transaction).await?;
    audit::append(transaction, &AuditRecord::removed(&study_uid, format!("results of job {job} removed, as they are old"))).await
}

async fn quarantined(transaction: &mut Transaction<'_, Sqlite>, content: &str) -> Result<(), StoreError> {
    let query = sqlx::query_scalar("DELETE FROM quarantine WHERE content = ? RETURNING study_uid");
    let study_uid: Option<Uid> = query.bind(content).fetch_optional(&mut **transaction).await?;
    let Some(study_uid) = study_uid else { return Ok(()) };
    sqlx::query("INSERT OR IGNORE INTO removed VALUES ('quarantine/' || ? || '.dcm')").bind(content).execute(&mut **transaction).await?;
    audit::append(transaction, &AuditRecord::removed(&study_uid, "an instance in quarantine removed, as it is old".into())).await
}

/// Removes from the disk what the database has let go, and does not know again: what could not be removed the last time may have come or
/// be made once more. What cannot be removed is told, after the rest, and stays noted.
pub(super) async fn sweep(folder: &std::path::Path, pool: &SqlitePool) -> Result<(), StoreError> {
    let known_again = "DELETE FROM removed WHERE path LIKE 'instances/%' AND substr(path, 14, 64) IN (SELECT content FROM instance)
        OR path LIKE 'quarantine/%' AND substr(path, 12, 64) IN (SELECT content FROM quarantine)
        OR path LIKE 'results/%' AND EXISTS (SELECT 1 FROM job WHERE id = CAST(substr(path, 9) AS INTEGER)
            AND (kept = 1 OR state IN ('waiting', 'queued', 'running')))";
    sqlx::query(known_again).execute(pool).await?;
    let paths: Vec<String> = sqlx::query_scalar("SELECT path FROM removed").fetch_all(pool).await?;
    let (mut gone, mut failed) = (Vec::new(), Ok(()));
    for path in paths {
        let full = folder.join(&path);
        let removed = if full.is_dir() { fs::remove_dir_all(&full) } else { fs::remove_file(&full) };
        match removed {
            Err(error) if error.kind() != ErrorKind::NotFound => failed = Err(error.into()),
            _ => gone.push(path),
        }
    }
    if !gone.is_empty() {
        let query = sqlx::query("DELETE FROM removed WHERE path IN (SELECT value FROM json_each(?))");
        query.bind(json(&gone)).execute(pool).await?;
    }
    failed
}
