//! The earlier studies that a job waits for: searched for, retrieved, or done without.

use std::collections::BTreeMap;

use serde_json::json;
use sqlx::SqlitePool;

use super::Retry;
use crate::codes::Uid;
use crate::findings::{Predecessor, Priors};
use crate::store::{StoreError, now_ms};

/// A search that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Search {
    /// The job that waits.
    pub job: i64,
    /// The study that earlier ones are wanted of.
    pub study_uid: Uid,
    /// The package, by its name in the configuration.
    pub package: String,
    /// The archive, by its name in the configuration.
    pub archive: String,
    /// Attempts, with this one.
    pub attempts: i64,
    /// When the job began to wait.
    pub since_ms: i64,
}

/// What became of an earlier study.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PriorState {
    /// It is on its way.
    Asked,
    /// It is here.
    Held,
    /// It did not come, or not as a whole.
    Lacking,
    /// It is not beyond doubt this patient's.
    Refused,
}

impl PriorState {
    fn name(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Held => "held",
            Self::Lacking => "lacking",
            Self::Refused => "refused",
        }
    }
}

/// How a search ended for its job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Searched {
    /// All that was found is here.
    Done,
    /// It is tried again.
    Again,
    /// The job goes on without.
    Without,
    /// The job does not go on.
    Failed,
}

/// Why a search failed, and what follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchFailure {
    /// For programs.
    pub code: &'static str,
    /// For people.
    pub why: String,
    /// Whether another attempt may succeed.
    pub may_pass: bool,
    /// Whether the job needs what was searched for.
    pub required: bool,
    /// No attempt begins after this time.
    pub until_ms: i64,
}

/// The next search at an archive, which begins with this.
///
/// # Errors
/// Where the database fails.
pub async fn next_search(pool: &SqlitePool, archive: &str) -> Result<Option<Search>, StoreError> {
    let query = sqlx::query_as(
        "UPDATE search SET attempts = attempts + 1 WHERE job =
            (SELECT job FROM search JOIN job ON job.id = search.job
             WHERE archive = ? AND search.state = 'due' AND search.not_before_ms <= ? AND job.state = 'waiting'
             ORDER BY job.urgent DESC, since_ms, job LIMIT 1)
         RETURNING job, attempts, since_ms",
    );
    let next: Option<(i64, i64, i64)> = query.bind(archive).bind(now_ms()).fetch_optional(pool).await?;
    let Some((job, attempts, since_ms)) = next else { return Ok(None) };
    let (study_uid, package): (Uid, String) =
        sqlx::query_as("SELECT study_uid, package FROM job WHERE id = ?").bind(job).fetch_one(pool).await?;
    Ok(Some(Search { job, study_uid, package, archive: archive.to_owned(), attempts, since_ms }))
}

/// The archives that searches are due at.
///
/// # Errors
/// Where the database fails.
pub async fn searched_archives(pool: &SqlitePool) -> Result<Vec<String>, StoreError> {
    let query = "SELECT DISTINCT archive FROM search JOIN job ON job.id = search.job WHERE search.state = 'due' AND job.state = 'waiting'";
    Ok(sqlx::query_scalar(query).fetch_all(pool).await?)
}

/// Enters what became of an earlier study, which `title` sends.
///
/// # Errors
/// Where the database fails.
pub async fn enter_prior(
    pool: &SqlitePool,
    search: &Search,
    study_uid: &str,
    title: &str,
    state: PriorState,
    instances: i64,
) -> Result<(), StoreError> {
    let query = sqlx::query(
        "INSERT INTO prior (job, study_uid, title, state, instances) VALUES (?, ?, ?, ?, ?)
         ON CONFLICT (job, study_uid) DO UPDATE SET title = excluded.title, state = excluded.state, instances = excluded.instances",
    );
    query.bind(search.job).bind(study_uid).bind(title).bind(state.name()).bind(instances).execute(pool).await?;
    Ok(())
}

/// Enters that a search came to its end, and lets its job go on.
///
/// # Errors
/// Where the database fails; nothing is entered then.
pub async fn search_done(pool: &SqlitePool, search: &Search) -> Result<Searched, StoreError> {
    end(pool, search, "done", None, None).await?;
    Ok(Searched::Done)
}

/// Enters that a search failed: it is tried again where that may help and there is time, or the job goes on without, or fails.
///
/// # Errors
/// Where the database fails; nothing is entered then.
pub async fn search_failed(pool: &SqlitePool, search: &Search, failure: &SearchFailure, retry: Retry) -> Result<Searched, StoreError> {
    let at_ms = retry.at_ms(search.attempts - 1);
    if failure.may_pass && retry.again(search.attempts) && at_ms <= failure.until_ms {
        let query = sqlx::query("UPDATE search SET not_before_ms = ?, code = ?, remark = ? WHERE job = ? AND state = 'due'");
        query.bind(at_ms).bind(failure.code).bind(&failure.why).bind(search.job).execute(pool).await?;
        return Ok(Searched::Again);
    }
    if failure.required {
        let outcome = json!({ "error": format!("earlier studies are required: {}", failure.why), "code": failure.code });
        end(pool, search, "failed", Some(failure), Some(outcome.to_string())).await?;
        return Ok(Searched::Failed);
    }
    end(pool, search, "without", Some(failure), None).await?;
    Ok(Searched::Without)
}

/// The job is queued, or with an `outcome` failed.
async fn end(
    pool: &SqlitePool,
    search: &Search,
    state: &str,
    failure: Option<&SearchFailure>,
    outcome: Option<String>,
) -> Result<(), StoreError> {
    let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await?;
    let query = sqlx::query("UPDATE search SET state = ?, code = ?, remark = ? WHERE job = ? AND state = 'due'");
    query
        .bind(state)
        .bind(failure.map(|failure| failure.code))
        .bind(failure.map(|failure| &failure.why))
        .bind(search.job)
        .execute(&mut *transaction)
        .await?;
    // What was on its way is no more: an instance that comes now without a word of us is sent, not asked for.
    let query = sqlx::query("UPDATE prior SET state = 'lacking' WHERE job = ? AND state = 'asked'");
    query.bind(search.job).execute(&mut *transaction).await?;
    let query = sqlx::query("UPDATE job SET state = ?, ended_ms = ?, outcome = ? WHERE id = ? AND state = 'waiting'");
    query
        .bind(if outcome.is_some() { "failed" } else { "queued" })
        .bind(outcome.is_some().then(now_ms))
        .bind(outcome)
        .bind(search.job)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(())
}

/// How many instances of a study are here, and how many of a census by series are not.
///
/// # Errors
/// Where the database fails.
pub async fn here(pool: &SqlitePool, study_uid: &str, census: &BTreeMap<Uid, u32>) -> Result<(i64, i64), StoreError> {
    let query = sqlx::query_as("SELECT series_uid, count(*) FROM instance WHERE study_uid = ? GROUP BY 1");
    let series: Vec<(Uid, i64)> = query.bind(study_uid).fetch_all(pool).await?;
    let here_of = |uid: &str| series.iter().find(|one| one.0 == uid).map_or(0, |one| one.1);
    let lacking = census.iter().map(|(uid, named)| (i64::from(*named) - here_of(uid)).max(0)).sum();
    Ok((series.iter().map(|one| one.1).sum(), lacking))
}

/// The earlier studies of a job as its results refer to them: every instance that is held of them, and why there are none where there
/// should be.
///
/// # Errors
/// Where the database fails.
pub async fn priors(pool: &SqlitePool, job: i64) -> Result<Priors, StoreError> {
    let query = sqlx::query_as(
        "SELECT instance.study_uid, series_uid, sop_class_uid, sop_instance_uid FROM prior JOIN instance USING (study_uid)
         WHERE job = ? AND state = 'held' ORDER BY 1, 2, 4",
    );
    let rows: Vec<(Uid, Uid, Uid, Uid)> = query.bind(job).fetch_all(pool).await?;
    let instance = |(study_instance_uid, series_instance_uid, sop_class_uid, sop_instance_uid)| Predecessor {
        study_instance_uid,
        series_instance_uid,
        sop_class_uid,
        sop_instance_uid,
    };
    let query = sqlx::query_scalar("SELECT remark FROM search WHERE job = ? AND state = 'without'");
    let lacking: Option<Option<String>> = query.bind(job).fetch_optional(pool).await?;
    Ok(Priors { instances: rows.into_iter().map(instance).collect(), lacking: lacking.flatten() })
}
