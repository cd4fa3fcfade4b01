//! Studies that are complete, and the jobs that this makes.

use sqlx::SqlitePool;

use crate::codes::Uid;
use crate::store::{StoreError, now_ms};

/// A package that is to be run on each study.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// Its name in the configuration.
    pub package: String,
    /// Before all that is not urgent.
    pub urgent: bool,
}

/// Completes the studies that nothing came of for `quiet_ms` (`cut_off_ms` where the last association was cut off), but those that
/// `is_open` says more may come of, and queues a job for each package. Their UIDs.
///
/// # Errors
/// Where the database fails.
pub async fn complete(
    pool: &SqlitePool,
    quiet_ms: i64,
    cut_off_ms: i64,
    is_open: impl Fn(&str) -> bool,
    packages: &[Planned],
) -> Result<Vec<Uid>, StoreError> {
    let now = now_ms();
    let query = sqlx::query_as(
        "SELECT study_uid, last_arrival_ms FROM study
         WHERE state = 'receiving' AND last_arrival_ms <= CASE cut_off WHEN 0 THEN ? ELSE ? END ORDER BY last_arrival_ms",
    );
    let quiet: Vec<(Uid, i64)> = query.bind(now - quiet_ms).bind(now - cut_off_ms).fetch_all(pool).await?;
    let mut completed = Vec::new();
    for (study_uid, last_arrival_ms) in quiet.into_iter().filter(|(study_uid, _)| !is_open(study_uid)) {
        if complete_one(pool, &study_uid, Some(last_arrival_ms), packages).await? {
            completed.push(study_uid);
        }
    }
    Ok(completed)
}

/// Completes one study at once, because somebody says so. False where it is not there or complete already.
///
/// # Errors
/// Where the database fails.
pub async fn complete_now(pool: &SqlitePool, study_uid: &str, packages: &[Planned]) -> Result<bool, StoreError> {
    complete_one(pool, study_uid, None, packages).await
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

/// Where an arrival is given, only if nothing came since.
async fn complete_one(pool: &SqlitePool, study_uid: &str, last_arrival_ms: Option<i64>, packages: &[Planned]) -> Result<bool, StoreError> {
    let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await?;
    let query = sqlx::query_as(
        "UPDATE study SET state = 'complete', generation = generation + 1
         WHERE study_uid = ? AND state = 'receiving' AND last_arrival_ms = coalesce(?, last_arrival_ms) RETURNING generation",
    );
    let generation: Option<(i64,)> = query.bind(study_uid).bind(last_arrival_ms).fetch_optional(&mut *transaction).await?;
    let Some((generation,)) = generation else { return Ok(false) };
    for Planned { package, urgent } in packages {
        let query = sqlx::query(
            "INSERT INTO job (study_uid, package, generation, state, urgent, attempt, not_before_ms, queued_ms)
             VALUES (?, ?, ?, 'queued', ?, 0, 0, ?) ON CONFLICT DO NOTHING",
        );
        query.bind(study_uid).bind(package).bind(generation).bind(urgent).bind(now_ms()).execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    Ok(true)
}
