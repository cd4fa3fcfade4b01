//! The HTTP interface: whether the node is well, what it counts, what became of a study, a few orders; and DICOMweb.
//!
//! On this machine alone unless a token is configured. Answers hold UIDs, states and reasons, and no patient text but those of
//! DICOMweb.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use std::net::SocketAddr;
use tokio::net::TcpListener;

use super::config::ConfigError;
use super::dicomweb::{self, Web};
use super::scp::Scp;
use super::settings::Current;
use super::{NodeError, planned};
use crate::jobs;
use crate::store::{Store, StoreError};

/// What the handlers share.
#[derive(Clone)]
struct Interface {
    current: Arc<Current>,
    store: Arc<Store>,
    scp: Arc<Scp>,
    token: Option<Arc<str>>,
}

/// Begins to answer where the configuration says; the address, or none.
pub(super) async fn start(current: &Arc<Current>, store: &Arc<Store>, scp: &Arc<Scp>) -> Result<Option<SocketAddr>, NodeError> {
    let config = current.get();
    let Some(address) = config.http.listen else { return Ok(None) };
    let token = match &config.http.token_file {
        Some(file) => Some(std::fs::read_to_string(file).map_err(ConfigError::Io)?.trim().into()),
        None => None,
    };
    let listener = TcpListener::bind(address).await.map_err(|source| NodeError::Listen { address, source })?;
    let address = listener.local_addr()?;
    let interface = Interface { current: Arc::clone(current), store: Arc::clone(store), scp: Arc::clone(scp), token };
    let routes = Router::new()
        .route("/metrics", get(metrics))
        .route("/jobs", get(all_jobs))
        .route("/jobs/{id}/retry", post(retry))
        .route("/jobs/{id}/cancel", post(cancel))
        .route("/studies/{uid}/trace", get(trace))
        .route("/studies/{uid}/complete", post(complete))
        .nest(dicomweb::ROOT, Web::new(current, store, &scp.metrics).routes())
        .route_layer(middleware::from_fn_with_state(interface.clone(), authorize))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(interface);
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, routes).await {
            tracing::error!(%error, "the HTTP interface has ended");
        }
    });
    Ok(Some(address))
}

/// What cannot be answered.
enum Problem {
    NotFound,
    Conflict(&'static str),
    Store(StoreError),
}

impl<E: Into<StoreError>> From<E> for Problem {
    fn from(error: E) -> Self {
        Self::Store(error.into())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, text) = match self {
            Self::NotFound => (StatusCode::NOT_FOUND, "there is none of this name".to_owned()),
            Self::Conflict(why) => (StatusCode::CONFLICT, why.to_owned()),
            Self::Store(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        };
        (status, Json(json!({ "error": text }))).into_response()
    }
}

/// Lets in who shows the token, where there is one.
async fn authorize(State(interface): State<Interface>, request: Request, next: Next) -> Response {
    let shown = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let admitted = interface.token.as_ref().is_none_or(|token| shown.is_some_and(|shown| same(shown.as_bytes(), token.as_bytes())));
    if admitted {
        next.run(request).await
    } else {
        (StatusCode::UNAUTHORIZED, Json(json!({ "error": "show the token: Authorization: Bearer .." }))).into_response()
    }
}

/// Compares in a time that depends on the lengths alone.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

/// Whether the database answers and associations are taken.
async fn ready(State(interface): State<Interface>) -> Response {
    let answers = sqlx::query("SELECT 1").execute(interface.store.pool()).await.is_ok();
    let stopping = interface.scp.stopping.load(std::sync::atomic::Ordering::SeqCst);
    if answers && !stopping { "ready\n".into_response() } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready\n").into_response() }
}

async fn metrics(State(interface): State<Interface>) -> Result<String, Problem> {
    let pool = interface.store.pool();
    let (receiving, queued, waiting): (i64, i64, i64) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM study WHERE state = 'receiving'), (SELECT count(*) FROM job WHERE state = 'queued'),
            (SELECT count(*) FROM job WHERE state = 'waiting')",
    )
    .fetch_one(pool)
    .await?;
    let (mut due, mut dead, mut uncommitted) = (0, 0, 0);
    for destination in &interface.current.get().destination {
        let waiting = jobs::waiting(pool, &destination.name).await?;
        (due, dead) = (due + waiting.due, dead + waiting.dead);
        uncommitted += if destination.commitment { waiting.stored } else { 0 };
    }
    Ok(interface.scp.metrics.text(&[
        ("open_associations", "Associations that are open.", interface.scp.open_associations() as f64),
        ("studies_receiving", "Studies that are not complete yet.", receiving as f64),
        ("jobs_queued", "Jobs that wait.", queued as f64),
        ("jobs_waiting", "Jobs that wait for earlier studies.", waiting as f64),
        ("deliveries_due", "Result instances that wait for a destination.", due as f64),
        ("deliveries_uncommitted", "Result instances that a destination has, and has not taken responsibility for.", uncommitted as f64),
        ("deliveries_dead", "Result instances that no destination will get without an order.", dead as f64),
    ]))
}

type JobRow = (i64, String, String, i64, String, bool, i64, i64, Option<i64>, Option<String>);
const JOB: &str = "SELECT id, study_uid, package, generation, state, urgent, attempt, queued_ms, ended_ms, outcome FROM job";

fn job((id, study_uid, package, generation, state, urgent, attempt, queued_ms, ended_ms, outcome): JobRow) -> Value {
    let outcome: Value = outcome.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    json!({
        "id": id, "study_instance_uid": study_uid, "package": package, "generation": generation, "state": state, "urgent": urgent,
        "attempt": attempt, "queued_ms": queued_ms, "ended_ms": ended_ms, "outcome": outcome,
    })
}

/// The last jobs, the newest first.
async fn all_jobs(State(interface): State<Interface>) -> Result<Json<Value>, Problem> {
    let query = sqlx::AssertSqlSafe(format!("{JOB} ORDER BY id DESC LIMIT 1000"));
    let rows: Vec<JobRow> = sqlx::query_as(query).fetch_all(interface.store.pool()).await?;
    Ok(Json(rows.into_iter().map(job).collect()))
}

/// Everything that is known of a study.
async fn trace(State(interface): State<Interface>, Path(uid): Path<String>) -> Result<Json<Value>, Problem> {
    let pool = interface.store.pool();
    type Study = (String, i64, bool, i64);
    let query = sqlx::query_as("SELECT state, generation, cut_off, last_arrival_ms FROM study WHERE study_uid = ?");
    let study: Option<Study> = query.bind(&uid).fetch_optional(pool).await?;
    let (state, generation, cut_off, last_arrival_ms) = study.ok_or(Problem::NotFound)?;
    let query =
        sqlx::query_as("SELECT series_uid, count(*), min(received_ms), max(received_ms) FROM instance WHERE study_uid = ? GROUP BY 1");
    let series: Vec<(String, i64, i64, i64)> = query.bind(&uid).fetch_all(pool).await?;
    let query = sqlx::AssertSqlSafe(format!("{JOB} WHERE study_uid = ? ORDER BY id"));
    let jobs: Vec<JobRow> = sqlx::query_as(query).bind(&uid).fetch_all(pool).await?;
    let query = sqlx::query_as(
        "SELECT sop_instance_uid, form, job, destination, delivery.state, attempts, status, remark FROM result
         JOIN job ON job.id = result.job LEFT JOIN delivery USING (sop_instance_uid) WHERE study_uid = ? ORDER BY job, sop_instance_uid",
    );
    type Result = (String, String, i64, Option<String>, Option<String>, Option<i64>, Option<i64>, Option<String>);
    let results: Vec<Result> = query.bind(&uid).fetch_all(pool).await?;
    let query = sqlx::query_as(
        "SELECT search.job, archive, search.state, attempts, search.code, search.remark,
            prior.study_uid, prior.state, (SELECT count(*) FROM instance WHERE instance.study_uid = prior.study_uid)
         FROM search JOIN job ON job.id = search.job LEFT JOIN prior ON prior.job = search.job
         WHERE job.study_uid = ? ORDER BY search.job, prior.study_uid",
    );
    let searches: Vec<SearchRow> = query.bind(&uid).fetch_all(pool).await?;
    let query = sqlx::query_as("SELECT generation, at_ms, reason, missing FROM completion WHERE study_uid = ? ORDER BY generation");
    let completions: Vec<(i64, i64, String, i64)> = query.bind(&uid).fetch_all(pool).await?;
    let query = sqlx::query_as("SELECT sop_instance_uid, reason, received_ms FROM quarantine WHERE study_uid = ?");
    let quarantine: Vec<(String, String, i64)> = query.bind(&uid).fetch_all(pool).await?;
    let query = sqlx::query_as("SELECT at_ms, event, action, outcome, peer, detail FROM audit WHERE subject = ? ORDER BY id");
    let audit: Vec<(i64, String, String, i64, String, String)> = query.bind(&uid).fetch_all(pool).await?;
    let of_series = |(uid, instances, first_ms, last_ms)| json!({ "series_instance_uid": uid, "instances": instances, "first_ms": first_ms, "last_ms": last_ms });
    let of_result = |(uid, form, job, destination, state, attempts, status, remark): Result| {
        json!({
            "sop_instance_uid": uid, "form": form, "job": job, "destination": destination, "state": state, "attempts": attempts,
            "status": status, "remark": remark,
        })
    };
    let of_completion = |(generation, at_ms, reason, missing): (i64, i64, String, i64)| json!({ "generation": generation, "at_ms": at_ms, "reason": reason, "missing": missing });
    let of_quarantine = |(uid, reason, ms): (String, String, i64)| json!({ "sop_instance_uid": uid, "reason": reason, "received_ms": ms });
    let of_audit = |(at_ms, event, action, outcome, peer, detail): (i64, String, String, i64, String, String)| json!({ "at_ms": at_ms, "event": event, "action": action, "outcome": outcome, "peer": peer, "detail": detail });
    Ok(Json(json!({
        "study_instance_uid": uid, "state": state, "generation": generation, "cut_off": cut_off, "last_arrival_ms": last_arrival_ms,
        "open": interface.store.is_open(&uid),
        "complete": completions.into_iter().map(of_completion).collect::<Value>(),
        "priors": searches_of(searches),
        "series": series.into_iter().map(of_series).collect::<Value>(),
        "jobs": jobs.into_iter().map(job).collect::<Value>(),
        "results": results.into_iter().map(of_result).collect::<Value>(),
        "quarantine": quarantine.into_iter().map(of_quarantine).collect::<Value>(),
        "audit": audit.into_iter().map(of_audit).collect::<Value>(),
    })))
}

/// Job, archive, state, attempts, code, remark; an earlier study, its state, its instances here.
type SearchRow = (i64, String, String, i64, Option<String>, Option<String>, Option<String>, Option<String>, i64);

/// The searches for earlier studies, each with what it found.
fn searches_of(rows: Vec<SearchRow>) -> Value {
    let mut searches: Vec<Value> = Vec::new();
    for (job, archive, state, attempts, code, remark, study_uid, prior_state, instances) in rows {
        if searches.last().is_none_or(|last| last["job"] != job) {
            searches.push(json!({
                "job": job, "archive": archive, "state": state, "attempts": attempts, "code": code, "remark": remark, "studies": [],
            }));
        }
        let studies = searches.last_mut().and_then(|last| last["studies"].as_array_mut());
        if let (Some(studies), Some(study_uid)) = (studies, study_uid) {
            studies.push(json!({ "study_instance_uid": study_uid, "state": prior_state, "instances": instances }));
        }
    }
    searches.into()
}

/// Completes a study now.
async fn complete(State(interface): State<Interface>, Path(uid): Path<String>) -> Result<Json<Value>, Problem> {
    match jobs::complete_now(interface.store.pool(), &uid, &planned(&interface.current.get())).await? {
        true => Ok(Json(json!({ "study_instance_uid": uid, "state": "complete" }))),
        false => Err(Problem::Conflict("the study is not here, or complete already")),
    }
}

async fn retry(State(interface): State<Interface>, Path(id): Path<i64>) -> Result<Json<Value>, Problem> {
    let again = jobs::try_again(interface.store.pool(), id).await?;
    ordered(again, id, "only a job that failed, was cancelled or is in quarantine is tried again")
}

async fn cancel(State(interface): State<Interface>, Path(id): Path<i64>) -> Result<Json<Value>, Problem> {
    let query = "UPDATE job SET state = 'cancelled' WHERE id = ? AND state IN ('waiting', 'queued', 'running')";
    let cancelled = sqlx::query(query).bind(id).execute(interface.store.pool()).await?.rows_affected() == 1;
    ordered(cancelled, id, "only a job that waits or runs is cancelled")
}

fn ordered(done: bool, id: i64, otherwise: &'static str) -> Result<Json<Value>, Problem> {
    if done { Ok(Json(json!({ "id": id }))) } else { Err(Problem::Conflict(otherwise)) }
}
