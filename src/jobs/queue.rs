//! Jobs: claimed, finished, failed.

use std::path::PathBuf;

use sqlx::SqlitePool;

use crate::codes::Uid;
use crate::findings::Predecessor;
use crate::store::{StoreError, now_ms};

/// How often the process may go down during a job before that is the suspect.
const CRASHES: i64 = 2;
/// First wait after a failure that may pass; it doubles with each.
const RETRY_MS: i64 = 2_000;
/// The longest wait.
const MAX_RETRY_MS: i64 = 600_000;

/// A job to be run now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// Its number.
    pub id: i64,
    /// The study.
    pub study_uid: Uid,
    /// The package, by its name in the configuration.
    pub package: String,
    /// How many times the study was complete.
    pub generation: i64,
    /// From 1.
    pub attempt: i64,
    /// Names of the rules that held of the study when it was queued.
    pub rules: Vec<String>,
    /// When it was queued, ms since 1970.
    pub queued_ms: i64,
    /// When the last instance came that it is to see, ms since 1970.
    pub last_instance_ms: i64,
}

/// A DICOM object that a job has made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResultObject {
    /// SOP Instance UID.
    pub sop_instance_uid: Uid,
    /// SOP Class UID.
    pub sop_class_uid: Uid,
    /// Transfer Syntax UID of its file.
    pub transfer_syntax_uid: Uid,
    /// Series Instance UID.
    pub series_uid: Uid,
    /// The form, as configurations name it.
    pub form: String,
    /// Below the store's folder.
    pub path: PathBuf,
}

/// How an attempt ended for the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// As it was said.
    Entered,
    /// It will be tried again.
    Again,
    /// Another attempt has begun meanwhile, or the job was cancelled: nothing was entered.
    TooLate,
}

/// Takes the next job: urgent ones first, then in the order that they were queued.
///
/// # Errors
/// Where the database fails.
pub async fn claim(pool: &SqlitePool) -> Result<Option<Claimed>, StoreError> {
    let query = sqlx::query_as(
        "UPDATE job SET state = 'running', attempt = attempt + 1 WHERE id =
            (SELECT id FROM job WHERE state = 'queued' AND not_before_ms <= ? ORDER BY urgent DESC, queued_ms, id LIMIT 1)
         RETURNING id, study_uid, package, generation, attempt, rules, queued_ms, coalesce((SELECT max(received_ms) FROM instance
            WHERE instance.study_uid = job.study_uid AND received_ms <= job.queued_ms), queued_ms)",
    );
    type Row = (i64, String, String, i64, i64, String, i64, i64);
    let claimed: Option<Row> = query.bind(now_ms()).fetch_optional(pool).await?;
    let claimed = claimed.map(|(id, study_uid, package, generation, attempt, rules, queued_ms, last_instance_ms)| Claimed {
        id,
        study_uid,
        package,
        generation,
        attempt,
        rules: serde_json::from_str(&rules).expect("rules are written as JSON"),
        queued_ms,
        last_instance_ms,
    });
    Ok(claimed)
}

/// Whether this attempt is the job's, and neither cancelled nor at its end.
///
/// # Errors
/// Where the database fails.
pub async fn is_running(pool: &SqlitePool, job: &Claimed) -> Result<bool, StoreError> {
    let query = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM job WHERE id = ? AND attempt = ? AND state = 'running')");
    Ok(query.bind(job.id).bind(job.attempt).fetch_one(pool).await?)
}

/// Jobs that nobody will run without an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeadJobs {
    /// They failed for good, or too often.
    pub failed: i64,
    /// They took the process or their lane down.
    pub quarantined: i64,
}

/// How many jobs wait for an order.
///
/// # Errors
/// Where the database fails.
pub async fn dead_jobs(pool: &SqlitePool) -> Result<DeadJobs, StoreError> {
    let query = sqlx::query_as(
        "SELECT count(*) FILTER (WHERE state = 'failed'), count(*) FILTER (WHERE state = 'quarantined')
         FROM job WHERE state IN ('failed', 'quarantined')",
    );
    let (failed, quarantined) = query.fetch_one(pool).await?;
    Ok(DeadJobs { failed, quarantined })
}

/// Enters what a job has made, and where each of it is to go.
///
/// # Errors
/// Where the database fails; nothing is entered then.
pub async fn finish(
    pool: &SqlitePool,
    job: &Claimed,
    outcome: &serde_json::Value,
    results: &[ResultObject],
    goes_to: impl Fn(&ResultObject) -> Vec<String>,
) -> Result<Ended, StoreError> {
    let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await?;
    let query = sqlx::query(
        "UPDATE job SET state = 'done', ended_ms = ?, outcome = ?, kept = 1 WHERE id = ? AND attempt = ? AND state = 'running'",
    );
    let query = query.bind(now_ms()).bind(outcome.to_string()).bind(job.id).bind(job.attempt);
    if query.execute(&mut *transaction).await?.rows_affected() == 0 {
        return Ok(Ended::TooLate);
    }
    for result in results {
        let query = sqlx::query(
            "INSERT INTO result (sop_instance_uid, job, sop_class_uid, transfer_syntax_uid, series_uid, form, path)
             VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        );
        query
            .bind(&result.sop_instance_uid)
            .bind(job.id)
            .bind(&result.sop_class_uid)
            .bind(&result.transfer_syntax_uid)
            .bind(&result.series_uid)
            .bind(&result.form)
            .bind(result.path.to_string_lossy())
            .execute(&mut *transaction)
            .await?;
        for destination in goes_to(result) {
            let query = sqlx::query(
                "INSERT INTO delivery (sop_instance_uid, destination, state, attempts, not_before_ms, asked) VALUES (?, ?, 'due', 0, 0, 0)
                 ON CONFLICT DO NOTHING",
            );
            query.bind(&result.sop_instance_uid).bind(destination).execute(&mut *transaction).await?;
        }
    }
    transaction.commit().await?;
    Ok(Ended::Entered)
}

/// Enters that an attempt failed. It is tried again, up to `attempts` times, where that may help.
///
/// # Errors
/// Where the database fails.
pub async fn fail(
    pool: &SqlitePool,
    job: &Claimed,
    outcome: &serde_json::Value,
    may_pass: bool,
    attempts: u32,
) -> Result<Ended, StoreError> {
    let again = may_pass && job.attempt < i64::from(attempts);
    let wait_ms = (RETRY_MS << job.attempt.clamp(1, 16)).min(MAX_RETRY_MS);
    let query = sqlx::query(
        "UPDATE job SET state = ?, not_before_ms = ?, ended_ms = ?, outcome = ? WHERE id = ? AND attempt = ? AND state = 'running'",
    );
    let query = query
        .bind(if again { "queued" } else { "failed" })
        .bind(now_ms() + wait_ms)
        .bind((!again).then(now_ms))
        .bind(outcome.to_string())
        .bind(job.id)
        .bind(job.attempt);
    let entered = query.execute(pool).await?.rows_affected() > 0;
    Ok(match (entered, again) {
        (false, _) => Ended::TooLate,
        (true, true) => Ended::Again,
        (true, false) => Ended::Entered,
    })
}

/// Tries again what failed, was cancelled or is in quarantine, because somebody says so; where its search for earlier studies came to no
/// end or failed, with that. The study; none for any other job, and where the study is not here any more.
///
/// # Errors
/// Where the database fails.
pub async fn try_again(pool: &SqlitePool, job: i64) -> Result<Option<Uid>, StoreError> {
    let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await?;
    let query = sqlx::query_scalar(
        "UPDATE job SET not_before_ms = 0, ended_ms = NULL, crashes = 0,
            state = iif(EXISTS (SELECT 1 FROM search WHERE job = ?1 AND state IN ('due', 'failed')), 'waiting', 'queued')
         WHERE id = ?1 AND state IN ('failed', 'quarantined', 'cancelled')
         AND EXISTS (SELECT 1 FROM study WHERE study.study_uid = job.study_uid AND study.kept = 1) RETURNING study_uid",
    );
    let study_uid: Option<Uid> = query.bind(job).fetch_optional(&mut *transaction).await?;
    if study_uid.is_some() {
        let query = sqlx::query(
            "UPDATE search SET state = 'due', attempts = 0, not_before_ms = 0, since_ms = ? WHERE job = ? AND state IN ('due', 'failed')",
        );
        query.bind(now_ms()).bind(job).execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    Ok(study_uid)
}

/// Enters that an attempt took the lane that it ran in with it, as a crash takes the process: the job is queued again, or in quarantine
/// when that happened twice.
///
/// # Errors
/// Where the database fails.
pub async fn crash(pool: &SqlitePool, job: &Claimed, outcome: &serde_json::Value) -> Result<Ended, StoreError> {
    let query = sqlx::query_scalar(
        "UPDATE job SET crashes = crashes + 1, outcome = ?, not_before_ms = ?, state = iif(crashes + 1 < ?, 'queued', 'quarantined'),
            ended_ms = iif(crashes + 1 < ?, NULL, ?)
         WHERE id = ? AND attempt = ? AND state = 'running' RETURNING state = 'queued'",
    );
    let now = now_ms();
    let query = query.bind(outcome.to_string()).bind(now + RETRY_MS).bind(CRASHES).bind(CRASHES).bind(now).bind(job.id).bind(job.attempt);
    Ok(match query.fetch_optional(pool).await? {
        None => Ended::TooLate,
        Some(true) => Ended::Again,
        Some(false) => Ended::Entered,
    })
}

/// At the start: what ran when the process went down is queued again, or in quarantine when that happened twice. The jobs in quarantine.
///
/// # Errors
/// Where the database fails; nothing is entered then.
pub async fn recover(pool: &SqlitePool) -> Result<Vec<i64>, StoreError> {
    let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await?;
    sqlx::query("UPDATE job SET crashes = crashes + 1 WHERE state = 'running'").execute(&mut *transaction).await?;
    let query =
        sqlx::query_scalar("UPDATE job SET state = 'quarantined', ended_ms = ? WHERE state = 'running' AND crashes >= ? RETURNING id");
    let suspects = query.bind(now_ms()).bind(CRASHES).fetch_all(&mut *transaction).await?;
    sqlx::query("UPDATE job SET state = 'queued', not_before_ms = 0 WHERE state = 'running'").execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(suspects)
}

/// The reports of the last earlier generation of this study by the same package, which a new result replaces.
///
/// # Errors
/// Where the database fails.
pub async fn earlier_reports(pool: &SqlitePool, job: &Claimed) -> Result<Vec<Predecessor>, StoreError> {
    let query = sqlx::query_as(
        "SELECT sop_class_uid, sop_instance_uid, series_uid FROM result JOIN job ON job.id = result.job
         WHERE study_uid = ?1 AND package = ?2 AND form IN ('sr', 'sr-outlines') AND generation =
            (SELECT max(generation) FROM job JOIN result ON job.id = result.job WHERE study_uid = ?1 AND package = ?2 AND generation < ?3)
         ORDER BY sop_instance_uid",
    );
    let found: Vec<(Uid, Uid, Uid)> = query.bind(&job.study_uid).bind(&job.package).bind(job.generation).fetch_all(pool).await?;
    let predecessor = |(sop_class_uid, sop_instance_uid, series_instance_uid)| Predecessor {
        study_instance_uid: job.study_uid.clone(),
        series_instance_uid,
        sop_class_uid,
        sop_instance_uid,
    };
    Ok(found.into_iter().map(predecessor).collect())
}
