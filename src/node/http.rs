//! The HTTP interface: whether the node is well, what it counts, what became of a study, a few orders; and DICOMweb.
//!
//! On this machine alone unless a token or certificates of callers are configured. Answers hold UIDs, states and reasons, and no patient text but those of
//! DICOMweb.

use std::sync::Arc;

use axum::extract::{Path, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde_json::{Value, json};
use std::net::SocketAddr;
use tokio::net::TcpListener;
use tokio::runtime::Handle;

use super::alerts::{Alert, Board};
use super::config::ConfigError;
use super::dicomweb::{self, Web};
use super::metrics::{Gauge, labels};
use super::scp::Scp;
use super::server::{Caller, Server};
use super::settings::Current;
use super::{NodeError, plan};
use crate::jobs::{self, Dead, DeadOrder};
use crate::store::{AuditRecord, Store, StoreError, now_ms};

/// What the interface is, for programs.
const OPENAPI: &str = include_str!("../../docs/openapi.json");

/// What the handlers share.
#[derive(Clone)]
struct Interface {
    current: Arc<Current>,
    store: Arc<Store>,
    scp: Arc<Scp>,
    board: Arc<Board>,
    token: Option<Arc<str>>,
}

/// Begins to answer where the configuration says; the address, or none.
pub(super) async fn start(
    current: &Arc<Current>,
    store: &Arc<Store>,
    scp: &Arc<Scp>,
    board: &Arc<Board>,
) -> Result<Option<SocketAddr>, NodeError> {
    let config = current.get();
    let Some(address) = config.http.listen else { return Ok(None) };
    let token = match &config.http.token_file {
        Some(file) => Some(std::fs::read_to_string(file).map_err(|error| unreadable_token(file, &error))?.trim().into()),
        None => None,
    };
    let listener = TcpListener::bind(address).await.map_err(|source| NodeError::Listen { address, source })?;
    let address = listener.local_addr()?;
    let board = Arc::clone(board);
    let interface = Interface { current: Arc::clone(current), store: Arc::clone(store), scp: Arc::clone(scp), board, token };
    let routes = Router::new()
        .route("/metrics", get(metrics))
        .route("/alerts", get(alerts))
        .route("/deliveries", get(deliveries))
        .route("/deliveries/{destination}/retry", post(|state, caller, to| order_all(state, caller, to, DeadOrder::Retry)))
        .route("/deliveries/{destination}/give-up", post(|state, caller, to| order_all(state, caller, to, DeadOrder::GiveUp)))
        .route("/deliveries/{destination}/{uid}/retry", post(|state, caller, to| order_one(state, caller, to, DeadOrder::Retry)))
        .route("/deliveries/{destination}/{uid}/give-up", post(|state, caller, to| order_one(state, caller, to, DeadOrder::GiveUp)))
        .route("/jobs", get(all_jobs))
        .route("/jobs/{id}", get(one_job))
        .route("/jobs/{id}/retry", post(retry))
        .route("/jobs/{id}/cancel", post(cancel))
        .route("/studies/{uid}/trace", get(trace))
        .route("/studies/{uid}/complete", post(complete))
        .route("/studies/{uid}/deliver", post(deliver))
        .nest(dicomweb::ROOT, Web::new(current, store, &scp.metrics).routes())
        .route_layer(middleware::from_fn_with_state(interface.clone(), authorize))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/openapi.json", get(|| async { ([(header::CONTENT_TYPE, "application/json")], OPENAPI) }))
        .fallback(|| async { Problem::NoAddress })
        .with_state(interface);
    let (current, store, metrics) = (Arc::clone(current), Arc::clone(store), Arc::clone(&scp.metrics));
    tokio::spawn(Server { current, store, metrics, routes }.run(listener));
    Ok(Some(address))
}

/// What cannot be answered.
enum Problem {
    NotFound,
    NoAddress,
    NoJob,
    BadRequest(&'static str),
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
            Self::NoAddress => (StatusCode::NOT_FOUND, "there is no such address: /openapi.json says which there are".to_owned()),
            Self::NoJob => (StatusCode::NOT_FOUND, "there is no job of this number: /jobs lists the last ones".to_owned()),
            Self::BadRequest(why) => (StatusCode::BAD_REQUEST, why.to_owned()),
            Self::Conflict(why) => (StatusCode::CONFLICT, why.to_owned()),
            Self::Store(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        };
        (status, Json(json!({ "error": text }))).into_response()
    }
}

/// Lets in who shows the token, where there is one.
async fn authorize(State(interface): State<Interface>, Extension(caller): Extension<Caller>, request: Request, next: Next) -> Response {
    let shown = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let admitted = interface.token.as_ref().is_none_or(|token| shown.is_some_and(|shown| same(shown.as_bytes(), token.as_bytes())));
    if admitted {
        next.run(request).await
    } else {
        audit(&interface.store, AuditRecord::security_alert(&caller.peer.to_string(), "HTTP without the token")).await;
        (
            StatusCode::UNAUTHORIZED,
            [(header::WWW_AUTHENTICATE, "Bearer")],
            Json(json!({ "error": "show the token: Authorization: Bearer .." })),
        )
            .into_response()
    }
}

/// Notes something; on a thread for that, since it waits where the store is behind.
pub(super) async fn audit(store: &Arc<Store>, record: AuditRecord) {
    let store = Arc::clone(store);
    let _ = tokio::task::spawn_blocking(move || store.audit(record)).await; // a panic there was told there
}

fn unreadable_token(file: &std::path::Path, error: &std::io::Error) -> ConfigError {
    ConfigError::Value { field: "http.token_file".into(), problem: format!("cannot read {}: {error}", file.display()) }
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

async fn metrics(State(interface): State<Interface>) -> Result<Response, Problem> {
    let (pool, scp) = (interface.store.pool(), &interface.scp);
    let query = sqlx::query_as(
        "SELECT (SELECT count(*) FROM study WHERE state = 'receiving'), (SELECT count(*) FROM job WHERE state = 'waiting'),
            count(*), min(queued_ms) FROM job WHERE state = 'queued'",
    );
    let (receiving, waiting, queued, oldest_ms): (i64, i64, i64, Option<i64>) = query.fetch_one(pool).await?;
    let oldest_s = oldest_ms.map_or(0.0, |queued_ms| (now_ms() - queued_ms).max(0) as f64 / 1000.0);
    let (mut due, mut dead, mut uncommitted, mut of_each) = (0, 0, 0, Vec::new());
    for destination in &interface.current.get().destination {
        let waiting = jobs::waiting(pool, &destination.name).await?;
        (due, dead) = (due + waiting.due, dead + waiting.dead);
        uncommitted += if destination.commitment { waiting.stored } else { 0 };
        for (state, count) in [("due", waiting.due), ("stored", waiting.stored), ("dead", waiting.dead)] {
            of_each.push((labels(&[("destination", &destination.name), ("state", state)]), count as f64));
        }
    }
    let gauges = [
        Gauge::labelled("build_info", "The version that runs.", [(labels(&[("version", env!("CARGO_PKG_VERSION"))]), 1.0)]),
        Gauge::new("open_associations", "Associations that are open.", scp.open_associations() as f64),
        Gauge::new("studies_receiving", "Studies that are not complete yet.", receiving as f64),
        Gauge::new("jobs_queued", "Jobs that wait.", queued as f64),
        Gauge::new("jobs_waiting", "Jobs that wait for earlier studies.", waiting as f64),
        Gauge::new("jobs_oldest_queued_seconds", "How long the oldest of them waits.", oldest_s),
        Gauge::new("deliveries_due", "Result instances that wait for a destination.", due as f64),
        Gauge::new(
            "deliveries_uncommitted",
            "Result instances that a destination has, and has not taken responsibility for.",
            uncommitted as f64,
        ),
        Gauge::new("deliveries_dead", "Result instances that no destination will get without an order.", dead as f64),
        Gauge::labelled(
            "destination_instances",
            "The same by destination; `stored` with those that nobody will take responsibility for.",
            of_each,
        ),
        Gauge::labelled(
            "alert",
            "What people must know of: 1 as long as it is so.",
            interface.board.all().iter().map(|alert| (labels(&[("code", alert.about.code), ("subject", &alert.about.subject)]), 1.0)),
        ),
        Gauge::new("store_free_bytes", "What the store's disk has left.", interface.store.free_mb()? as f64 * f64::from(1 << 20)),
    ];
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], scp.metrics.text(&gauges)).into_response())
}

/// What is wrong at the moment.
async fn alerts(State(interface): State<Interface>) -> Json<Vec<Alert>> {
    Json(interface.board.all())
}

/// Which deliveries are listed.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    state: String,
    destination: Option<String>,
}

/// Dead deliveries, the newest first.
async fn deliveries(State(interface): State<Interface>, Query(wanted): Query<Wanted>) -> Result<Json<Value>, Problem> {
    if wanted.state != "dead" {
        return Err(Problem::BadRequest("only `state=dead` is listed; all of a study are in its trace"));
    }
    let dead = jobs::dead(interface.store.pool(), wanted.destination.as_deref(), 1000).await?;
    let told = |Dead { sop_instance_uid, destination, study_uid, attempts, status, remark }| {
        json!({
            "sop_instance_uid": sop_instance_uid, "destination": destination, "study_instance_uid": study_uid, "state": "dead",
            "attempts": attempts, "status": status, "remark": remark,
        })
    };
    Ok(Json(dead.into_iter().map(told).collect()))
}

/// An order about all dead deliveries to a destination, or about one of them.
async fn order_dead(
    State(interface): State<Interface>,
    Extension(caller): Extension<Caller>,
    destination: String,
    uid: Option<String>,
    order: DeadOrder,
) -> Result<Json<Value>, Problem> {
    let is_gone = interface.current.get().destination.iter().all(|one| one.name != destination);
    match jobs::order_dead(interface.store.pool(), &destination, uid.as_deref(), order, is_gone).await? {
        0 => Err(Problem::Conflict("no dead delivery there whose result is still here")),
        count => {
            let done = match order {
                DeadOrder::Retry => "are due again",
                DeadOrder::GiveUp => "are given up",
            };
            ordered(&interface, &caller, uid.as_deref().unwrap_or_default(), format!("{count} dead deliveries to {destination} {done}"))
                .await;
            Ok(Json(json!({ "destination": destination, "count": count })))
        }
    }
}

async fn order_all(state: State<Interface>, caller: Extension<Caller>, to: Path<String>, order: DeadOrder) -> Result<Json<Value>, Problem> {
    order_dead(state, caller, to.0, None, order).await
}

async fn order_one(
    state: State<Interface>,
    caller: Extension<Caller>,
    Path((to, uid)): Path<(String, String)>,
    order: DeadOrder,
) -> Result<Json<Value>, Problem> {
    order_dead(state, caller, to, Some(uid), order).await
}

type JobRow = (i64, String, String, i64, String, bool, i64, i64, Option<i64>, Option<String>, i64, String, bool);
const JOB: &str =
    "SELECT id, study_uid, package, generation, state, urgent, attempt, queued_ms, ended_ms, outcome, crashes, rules, kept FROM job";

fn job((id, study_uid, package, generation, state, urgent, attempt, queued_ms, ended_ms, outcome, crashes, rules, kept): JobRow) -> Value {
    let outcome: Value = outcome.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    json!({
        "id": id, "study_instance_uid": study_uid, "package": package, "generation": generation, "state": state, "urgent": urgent,
        "attempt": attempt, "queued_ms": queued_ms, "ended_ms": ended_ms, "outcome": outcome, "crashes": crashes,
        "rules": serde_json::from_str::<Value>(&rules).unwrap_or_default(), "kept": kept,
    })
}

/// The last jobs, the newest first.
async fn all_jobs(State(interface): State<Interface>) -> Result<Json<Value>, Problem> {
    let query = sqlx::AssertSqlSafe(format!("{JOB} ORDER BY id DESC LIMIT 1000"));
    let rows: Vec<JobRow> = sqlx::query_as(query).fetch_all(interface.store.pool()).await?;
    Ok(Json(rows.into_iter().map(job).collect()))
}

/// One job.
async fn one_job(State(interface): State<Interface>, Path(id): Path<i64>) -> Result<Json<Value>, Problem> {
    let query = sqlx::AssertSqlSafe(format!("{JOB} WHERE id = ?"));
    let row: Option<JobRow> = sqlx::query_as(query).bind(id).fetch_optional(interface.store.pool()).await?;
    row.map(|row| Json(job(row))).ok_or(Problem::NoJob)
}

/// Everything that is known of a study.
async fn trace(State(interface): State<Interface>, Path(uid): Path<String>) -> Result<Json<Value>, Problem> {
    let pool = interface.store.pool();
    type Study = (String, i64, bool, i64, bool);
    let query = sqlx::query_as("SELECT state, generation, cut_off, last_arrival_ms, kept FROM study WHERE study_uid = ?");
    let study: Option<Study> = query.bind(&uid).fetch_optional(pool).await?;
    let (state, generation, cut_off, last_arrival_ms, kept) = study.ok_or(Problem::NotFound)?;
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
        "kept": kept, "open": interface.store.is_open(&uid),
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
async fn complete(
    State(interface): State<Interface>,
    Extension(caller): Extension<Caller>,
    Path(uid): Path<String>,
) -> Result<Json<Value>, Problem> {
    let (config, store, study, runtime) = (interface.current.get(), Arc::clone(&interface.store), uid.clone(), Handle::current());
    let planned = tokio::task::spawn_blocking(move || plan::planned(&config, &store, &runtime, &study));
    let planned = planned.await.map_err(std::io::Error::other)??;
    match jobs::complete_now(interface.store.pool(), &uid, &planned).await? {
        true => {
            ordered(&interface, &caller, &uid, "the study is complete".into()).await;
            Ok(Json(json!({ "study_instance_uid": uid, "state": "complete" })))
        }
        false => Err(Problem::Conflict("the study is not here, or complete already")),
    }
}

/// Sends what waits or is dead of a study's results, now.
async fn deliver(
    State(interface): State<Interface>,
    Extension(caller): Extension<Caller>,
    Path(uid): Path<String>,
) -> Result<Json<Value>, Problem> {
    let results = jobs::send_again(interface.store.pool(), &uid).await?;
    if results == 0 {
        return Err(Problem::Conflict("nothing of this study waits for a destination, and nothing is dead"));
    }
    ordered(&interface, &caller, &uid, format!("{results} results are sent again")).await;
    Ok(Json(json!({ "study_instance_uid": uid, "results": results })))
}

async fn retry(
    State(interface): State<Interface>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<i64>,
) -> Result<Json<Value>, Problem> {
    let study = jobs::try_again(interface.store.pool(), id).await?;
    let otherwise = "only a job that failed, was cancelled or is in quarantine is tried again, and only while its study is here";
    job_ordered(&interface, &caller, id, study, "is tried again", otherwise).await
}

async fn cancel(
    State(interface): State<Interface>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<i64>,
) -> Result<Json<Value>, Problem> {
    let query = sqlx::query_scalar(
        "UPDATE job SET state = 'cancelled', ended_ms = unixepoch() * 1000
         WHERE id = ? AND state IN ('waiting', 'queued', 'running', 'failed', 'quarantined') RETURNING study_uid",
    );
    let study = query.bind(id).fetch_optional(interface.store.pool()).await?;
    job_ordered(&interface, &caller, id, study, "is cancelled", "a job that is done or cancelled is not cancelled").await
}

async fn job_ordered(
    interface: &Interface,
    caller: &Caller,
    id: i64,
    study: Option<String>,
    done: &str,
    otherwise: &'static str,
) -> Result<Json<Value>, Problem> {
    let Some(study) = study else {
        let query = sqlx::query("SELECT 1 FROM job WHERE id = ?").bind(id);
        let is_there = query.fetch_optional(interface.store.pool()).await?.is_some();
        return Err(if is_there { Problem::Conflict(otherwise) } else { Problem::NoJob });
    };
    ordered(interface, caller, &study, format!("job {id} {done}")).await;
    Ok(Json(json!({ "id": id })))
}

/// Notes an order.
async fn ordered(interface: &Interface, caller: &Caller, study: &str, what: String) {
    tracing::info!(study, what, "an order");
    audit(&interface.store, AuditRecord::order(&caller.peer.to_string(), study, what)).await;
}
