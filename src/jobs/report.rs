//! Answers to those who asked us for storage commitment.

use sqlx::SqlitePool;

use super::Retry;
use crate::codes::Uid;
use crate::store::{StoreError, now_ms};

/// An answer that somebody waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Its number.
    pub id: i64,
    /// AE title that asked.
    pub calling: String,
    /// As it was named there.
    pub transaction_uid: Uid,
    /// SOP Class UID and SOP Instance UID of each instance that was asked for.
    pub instances: Vec<(Uid, Uid)>,
    /// How often it was tried to be sent.
    pub attempts: i64,
}

/// Enters that `calling` has asked, over an association that is open and may take the answer. Asking the same again is a new question.
///
/// # Errors
/// Where the database fails.
pub async fn enter_report(
    pool: &SqlitePool,
    calling: &str,
    transaction_uid: &str,
    instances: Vec<(Uid, Uid)>,
) -> Result<Report, StoreError> {
    let query = sqlx::query_scalar(
        "INSERT INTO report (calling, transaction_uid, instances, state, held, attempts, not_before_ms) VALUES (?, ?, ?, 'due', 1, 0, 0)
         ON CONFLICT DO UPDATE SET instances = excluded.instances, state = 'due', held = 1, attempts = 0, not_before_ms = 0, remark = NULL
         RETURNING id",
    );
    let json = serde_json::to_string(&instances).expect("pairs of texts are JSON");
    let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await?;
    let id = query.bind(calling).bind(transaction_uid).bind(json).fetch_one(&mut *transaction).await?;
    transaction.commit().await?; // of a statement that commits by itself, sqlx does not tell when that fails
    Ok(Report { id, calling: calling.into(), transaction_uid: transaction_uid.into(), instances, attempts: 0 })
}

/// The association that asked is over, or every one where none is named: its answers go out over new ones.
///
/// # Errors
/// Where the database fails.
pub async fn let_go(pool: &SqlitePool, report: Option<i64>) -> Result<(), StoreError> {
    sqlx::query("UPDATE report SET held = 0 WHERE held = 1 AND id = coalesce(?, id)").bind(report).execute(pool).await?;
    Ok(())
}

/// The next answer that is to go out over a new association.
///
/// # Errors
/// Where the database fails.
pub async fn next_report(pool: &SqlitePool) -> Result<Option<Report>, StoreError> {
    let query = sqlx::query_as(
        "SELECT id, calling, transaction_uid, instances, attempts FROM report
         WHERE state = 'due' AND held = 0 AND not_before_ms <= ? ORDER BY not_before_ms, id LIMIT 1",
    );
    let found: Option<(i64, String, Uid, String, i64)> = query.bind(now_ms()).fetch_optional(pool).await?;
    Ok(found.map(|(id, calling, transaction_uid, instances, attempts)| {
        let instances = serde_json::from_str(&instances).unwrap_or_default();
        Report { id, calling, transaction_uid, instances, attempts }
    }))
}

/// Who asked has the answer.
///
/// # Errors
/// Where the database fails.
pub async fn report_sent(pool: &SqlitePool, id: i64) -> Result<(), StoreError> {
    sqlx::query("UPDATE report SET state = 'sent', remark = NULL WHERE id = ? AND state = 'due'").bind(id).execute(pool).await?;
    Ok(())
}

/// It could not be sent, and why: later again, or, after the last attempt, not any more. Whether it is tried again.
///
/// # Errors
/// Where the database fails.
pub async fn report_failed(pool: &SqlitePool, report: &Report, why: &str, retry: Retry) -> Result<bool, StoreError> {
    let again = retry.again(report.attempts + 1);
    let query = sqlx::query(
        "UPDATE report SET state = ?, attempts = attempts + 1, not_before_ms = ?, remark = ? WHERE id = ? AND state = 'due' AND held = 0",
    );
    query.bind(if again { "due" } else { "dead" }).bind(retry.at_ms(report.attempts)).bind(why).bind(report.id).execute(pool).await?;
    Ok(again)
}
