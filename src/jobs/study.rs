//! Studies: what is complete, and the jobs that follow from it.

use sqlx::SqlitePool;

use super::census::{Evidence, Gone};
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
    /// The archive whose earlier studies it waits for.
    pub priors_from: Option<String>,
}

/// When a study is complete.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Waits {
    /// Nothing came for this long, and what brought the last was released, or all is here that should be.
    pub quiet_ms: i64,
    /// Nothing came for this long, whatever is missing.
    pub cut_off_ms: i64,
    /// Where something is missing then, it is not complete until it comes or somebody says so.
    pub hold_incomplete: bool,
    /// Senders whose source is asked how many instances a study has, before it is complete.
    pub asked_senders: Vec<String>,
}

/// A study that is complete, unless something comes before that is entered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quiet {
    /// Its UID.
    pub study_uid: Uid,
    end: End,
}

impl Quiet {
    /// By which evidence.
    pub fn reason(&self) -> &str {
        &self.end.reason
    }
}

/// How a study came to be complete.
#[derive(Debug, Clone, PartialEq, Eq)]
struct End {
    /// Only if nothing came since; by order where there is none.
    last_arrival_ms: Option<i64>,
    reason: String,
    /// All is here that should be, however the association ended.
    whole: bool,
    missing: i64,
}

/// The studies that are complete by these rules, but those that `is_open` says more may come of.
///
/// # Errors
/// Where the database fails.
pub async fn quiet(pool: &SqlitePool, waits: &Waits, is_open: impl Fn(&str) -> bool) -> Result<Vec<Quiet>, StoreError> {
    let now = now_ms();
    let query = sqlx::query_as(
        "SELECT study_uid, last_arrival_ms, cut_off FROM study WHERE state = 'receiving' AND last_arrival_ms <= ? ORDER BY last_arrival_ms",
    );
    let found: Vec<(Uid, i64, bool)> = query.bind(now - waits.quiet_ms.min(waits.cut_off_ms)).fetch_all(pool).await?;
    let mut quiet = Vec::new();
    for (study_uid, last_arrival_ms, cut_off) in found.into_iter().filter(|(study_uid, ..)| !is_open(study_uid)) {
        let evidence = Evidence::of(&mut *pool.acquire().await?, &study_uid, &waits.asked_senders).await?;
        let quiet_ms = now - last_arrival_ms;
        let released = !cut_off && evidence.missing == 0;
        let by_then_ms = if released || evidence.is_whole() { waits.quiet_ms } else { waits.cut_off_ms };
        // An answer of the source is waited for as long as for a study that was cut off.
        let unasked = evidence.open && quiet_ms < waits.cut_off_ms;
        if quiet_ms < by_then_ms || unasked || (evidence.missing > 0 && waits.hold_incomplete) {
            continue;
        }
        let how = format!("{} and quiet for {} s", if cut_off { "cut off" } else { "released" }, by_then_ms / 1000);
        let (reason, whole) = (evidence.reason(&how), evidence.is_whole());
        quiet.push(Quiet { study_uid, end: End { last_arrival_ms: Some(last_arrival_ms), reason, whole, missing: evidence.missing } });
    }
    Ok(quiet)
}

/// Completes a study that is quiet, unless something came since, and queues these jobs. Whether it is complete now.
///
/// # Errors
/// Where the database fails.
pub async fn complete(pool: &SqlitePool, quiet: &Quiet, planned: &[Planned]) -> Result<bool, StoreError> {
    complete_one(pool, &quiet.study_uid, &quiet.end, planned).await
}

/// Completes one study at once, because somebody says so; one that is held, too. False where it is not there or complete already.
///
/// # Errors
/// Where the database fails.
pub async fn complete_now(pool: &SqlitePool, study_uid: &str, planned: &[Planned]) -> Result<bool, StoreError> {
    let evidence = Evidence::of(&mut *pool.acquire().await?, study_uid, &[]).await?;
    let end = End { last_arrival_ms: None, reason: evidence.reason("by order"), whole: evidence.is_whole(), missing: evidence.missing };
    complete_one(pool, study_uid, &end, planned).await
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

/// What is complete with the same instances as the last time, or with some of them alone (they were removed, and came again), is no new
/// generation: its jobs are known. Some alone are nothing to run another package on, either.
async fn complete_one(pool: &SqlitePool, study_uid: &str, end: &End, planned: &[Planned]) -> Result<bool, StoreError> {
    let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await?;
    let query = sqlx::query_scalar(
        "SELECT content FROM instance WHERE study_uid = ? AND NOT EXISTS
            (SELECT 1 FROM result WHERE result.sop_instance_uid = instance.sop_instance_uid) ORDER BY content",
    );
    let contents: Vec<String> = query.bind(study_uid).fetch_all(&mut *transaction).await?;
    let gone = Gone::of(&mut transaction, study_uid).await?;
    let query = sqlx::query_scalar(
        "UPDATE study SET state = 'complete', generation = generation + (contents IS NOT ?1 AND NOT ?5),
            contents = iif(?5, contents, ?1), cut_off = cut_off AND NOT ?4
         WHERE study_uid = ?2 AND (state = 'receiving' AND last_arrival_ms = coalesce(?3, last_arrival_ms) OR state = 'held' AND ?3 IS NULL)
         RETURNING generation",
    );
    let query = query
        .bind(sha256_hex(contents.concat().as_bytes()))
        .bind(study_uid)
        .bind(end.last_arrival_ms)
        .bind(end.whole)
        .bind(gone.nothing_new);
    let generation: Option<i64> = query.fetch_optional(&mut *transaction).await?;
    let Some(generation) = generation else { return Ok(false) };
    let now = now_ms();
    let query = sqlx::query(
        "INSERT INTO completion (study_uid, generation, at_ms, reason, missing) VALUES (?, ?, ?, ?, ?)
         ON CONFLICT DO UPDATE SET at_ms = excluded.at_ms, reason = excluded.reason, missing = excluded.missing",
    );
    query.bind(study_uid).bind(generation).bind(now).bind(&end.reason).bind(end.missing).execute(&mut *transaction).await?;
    let planned = if gone.nothing_new && gone.lacking > 0 { &[] } else { planned };
    for Planned { package, urgent, rules, priors_from } in planned {
        let query = sqlx::query_scalar(
            "INSERT INTO job (study_uid, package, generation, state, urgent, attempt, not_before_ms, queued_ms, rules)
             VALUES (?, ?, ?, ?, ?, 0, 0, ?, ?) ON CONFLICT DO NOTHING RETURNING id",
        );
        let state = if priors_from.is_some() { "waiting" } else { "queued" };
        let rules = serde_json::to_string(rules).expect("names are text");
        let query = query.bind(study_uid).bind(package).bind(generation).bind(state).bind(urgent).bind(now).bind(rules);
        let job: Option<i64> = query.fetch_optional(&mut *transaction).await?;
        if let Some((job, archive)) = job.zip(priors_from.as_ref()) {
            let query =
                sqlx::query("INSERT INTO search (job, archive, state, attempts, not_before_ms, since_ms) VALUES (?, ?, 'due', 0, 0, ?)");
            query.bind(job).bind(archive).bind(now).execute(&mut *transaction).await?;
        }
    }
    transaction.commit().await?;
    Ok(true)
}
