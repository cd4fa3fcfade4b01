//! Studies that are complete, and the jobs that this makes.

use sqlx::SqlitePool;

use crate::codes::{Uid, sha256_hex};
use crate::store::{StoreError, now_ms};

/// A package that is to be run on each study.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// Its name in the configuration.
    pub package: String,
    /// Before all that is not urgent.
    pub urgent: bool,
    /// Names of the rules that held.
    pub rules: Vec<String>,
}

/// A study that nothing came of for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quiet {
    /// Its UID.
    pub study_uid: Uid,
    last_arrival_ms: i64,
}

/// The studies that nothing came of for `quiet_ms` (`cut_off_ms` where the last association was cut off), but those that `is_open` says more
/// may come of.
///
/// # Errors
/// Where the database fails.
pub async fn quiet(pool: &SqlitePool, quiet_ms: i64, cut_off_ms: i64, is_open: impl Fn(&str) -> bool) -> Result<Vec<Quiet>, StoreError> {
    let now = now_ms();
    let query = sqlx::query_as(
        "SELECT study_uid, last_arrival_ms FROM study
         WHERE state = 'receiving' AND last_arrival_ms <= CASE cut_off WHEN 0 THEN ? ELSE ? END ORDER BY last_arrival_ms",
    );
    let quiet: Vec<(Uid, i64)> = query.bind(now - quiet_ms).bind(now - cut_off_ms).fetch_all(pool).await?;
    let quiet = quiet.into_iter().map(|(study_uid, last_arrival_ms)| Quiet { study_uid, last_arrival_ms });
    Ok(quiet.filter(|one| !is_open(&one.study_uid)).collect())
}

/// Completes a study that is quiet, unless something came since, and queues these jobs. Whether it is complete now.
///
/// # Errors
/// Where the database fails.
pub async fn complete(pool: &SqlitePool, quiet: &Quiet, planned: &[Planned]) -> Result<bool, StoreError> {
    complete_one(pool, &quiet.study_uid, Some(quiet.last_arrival_ms), planned).await
}

/// Completes one study at once, because somebody says so. False where it is not there or complete already.
///
/// # Errors
/// Where the database fails.
pub async fn complete_now(pool: &SqlitePool, study_uid: &str, planned: &[Planned]) -> Result<bool, StoreError> {
    complete_one(pool, study_uid, None, planned).await
}

/// Whether what brought the last of a study was not released, yet or for ever: instances may be missing.
///
/// # Errors
/// Where the database fails.
pub async fn is_cut_off(pool: &SqlitePool, study_uid: &str) -> Result<bool, StoreError> {
    let query = sqlx::query_scalar("SELECT cut_off FROM study WHERE study_uid = ?");
    let cut_off: Option<bool> = query.bind(study_uid).fetch_optional(pool).await?;
    Ok(cut_off.unwrap_or(false))
}

/// Where an arrival is given, only if nothing came since. What is complete with the same instances as the last time (they were removed, and
/// came again) is no new generation: its jobs are known.
async fn complete_one(pool: &SqlitePool, study_uid: &str, last_arrival_ms: Option<i64>, planned: &[Planned]) -> Result<bool, StoreError> {
    let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await?;
    let query = sqlx::query_scalar(
        "SELECT content FROM instance WHERE study_uid = ? AND NOT EXISTS
            (SELECT 1 FROM result WHERE result.sop_instance_uid = instance.sop_instance_uid) ORDER BY content",
    );
    let contents: Vec<String> = query.bind(study_uid).fetch_all(&mut *transaction).await?;
    let query = sqlx::query_scalar(
        "UPDATE study SET state = 'complete', generation = generation + (contents IS NOT ?1), contents = ?1
         WHERE study_uid = ?2 AND state = 'receiving' AND last_arrival_ms = coalesce(?3, last_arrival_ms) RETURNING generation",
    );
    let query = query.bind(sha256_hex(contents.concat().as_bytes())).bind(study_uid).bind(last_arrival_ms);
    let generation: Option<i64> = query.fetch_optional(&mut *transaction).await?;
    let Some(generation) = generation else { return Ok(false) };
    for Planned { package, urgent, rules } in planned {
        let query = sqlx::query(
            "INSERT INTO job (study_uid, package, generation, state, urgent, attempt, not_before_ms, queued_ms, rules)
             VALUES (?, ?, ?, 'queued', ?, 0, 0, ?, ?) ON CONFLICT DO NOTHING",
        );
        let rules = serde_json::to_string(rules).expect("names are text");
        let query = query.bind(study_uid).bind(package).bind(generation).bind(urgent).bind(now_ms()).bind(rules);
        query.execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    Ok(true)
}
