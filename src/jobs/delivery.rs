//! Results on their way: what is due, and what became of it.

use std::path::PathBuf;

use sqlx::SqlitePool;

use crate::codes::Uid;
use crate::store::{StoreError, now_ms};

/// The longest wait between two attempts.
const MAX_RETRY_MS: i64 = 3_600_000;

/// A result that is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// SOP Instance UID.
    pub sop_instance_uid: Uid,
    /// SOP Class UID.
    pub sop_class_uid: Uid,
    /// Transfer Syntax UID of its file.
    pub transfer_syntax_uid: Uid,
    /// Below the store's folder.
    pub path: PathBuf,
    /// The study that it belongs to.
    pub study_uid: Uid,
    /// How often it was tried.
    pub attempts: i64,
}

/// What an attempt came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The destination has it, and answered with this status.
    Stored(u16),
    /// It may succeed later. The status, where there was an answer, and why.
    Again(Option<u16>, String),
    /// It will not.
    Dead(Option<u16>, String),
}

/// What is due at a destination, the oldest first, as many as go over one association.
///
/// # Errors
/// Where the database fails.
pub async fn due(pool: &SqlitePool, destination: &str, most: u32) -> Result<Vec<Due>, StoreError> {
    let query = sqlx::query_as(
        "SELECT result.sop_instance_uid, result.sop_class_uid, transfer_syntax_uid, path, study_uid, attempts
         FROM delivery JOIN result USING (sop_instance_uid) JOIN job ON job.id = result.job
         WHERE destination = ? AND delivery.state = 'due' AND delivery.not_before_ms <= ? ORDER BY result.job, result.sop_instance_uid LIMIT ?",
    );
    let rows: Vec<(Uid, Uid, Uid, String, Uid, i64)> = query.bind(destination).bind(now_ms()).bind(most).fetch_all(pool).await?;
    let due = |(sop_instance_uid, sop_class_uid, transfer_syntax_uid, path, study_uid, attempts): (_, _, _, String, _, _)| Due {
        sop_instance_uid,
        sop_class_uid,
        transfer_syntax_uid,
        path: path.into(),
        study_uid,
        attempts,
    };
    Ok(rows.into_iter().map(due).collect())
}

/// Enters what an attempt came to. What may succeed later waits `retry_ms`, twice that after the next failure, and so on; after `attempts`
/// it is dead.
///
/// # Errors
/// Where the database fails.
pub async fn settle(
    pool: &SqlitePool,
    destination: &str,
    due: &Due,
    verdict: &Verdict,
    retry_ms: i64,
    attempts: u32,
) -> Result<(), StoreError> {
    let (state, status, remark) = match verdict {
        Verdict::Stored(status) => ("stored", Some(*status), None),
        Verdict::Again(status, why) if due.attempts + 1 < i64::from(attempts) => ("due", *status, Some(why)),
        Verdict::Again(status, why) | Verdict::Dead(status, why) => ("dead", *status, Some(why)),
    };
    let wait_ms = retry_ms.saturating_mul(1 << due.attempts.clamp(0, 20)).min(MAX_RETRY_MS);
    let query = sqlx::query(
        "UPDATE delivery SET state = ?, attempts = attempts + 1, not_before_ms = ?, status = ?, remark = ?
         WHERE sop_instance_uid = ? AND destination = ? AND state = 'due'",
    );
    query
        .bind(state)
        .bind(now_ms() + wait_ms)
        .bind(status)
        .bind(remark)
        .bind(&due.sop_instance_uid)
        .bind(destination)
        .execute(pool)
        .await?;
    Ok(())
}

/// How many results wait for a destination, and how many are dead.
///
/// # Errors
/// Where the database fails.
pub async fn waiting(pool: &SqlitePool, destination: &str) -> Result<(i64, i64), StoreError> {
    let query = sqlx::query_as(
        "SELECT count(*) FILTER (WHERE state = 'due'), count(*) FILTER (WHERE state = 'dead') FROM delivery WHERE destination = ?",
    );
    Ok(query.bind(destination).fetch_one(pool).await?)
}
