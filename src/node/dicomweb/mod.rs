//! DICOMweb (PS3.18): storing, searching and retrieving studies, series and instances; what was received, and what was made of it.
//!
//! All that touches disk or database runs on threads for that, with bounded channels between: neither a request nor an answer is in memory
//! as a whole. Behind the same door as the rest of the HTTP interface.

mod frames;
pub(super) mod multipart;
mod qido;
mod stow;
mod wado;

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::classes::EXPLICIT;
use super::metrics::Metrics;
use super::server::Caller;
use super::settings::Current;
use crate::store::{Store, StoreError};

/// Where all of it is.
pub(super) const ROOT: &str = "/dicom-web";
/// Requests at a time that store, and that read; one more is told to come again.
const TRANSACTIONS: usize = 16;
/// Pieces of a body between network and disk.
const PIECES: usize = 8;
/// The media type of the DICOM JSON Model.
const JSON: &str = "application/dicom+json";

/// What the handlers share.
#[derive(Clone)]
pub(super) struct Web {
    current: Arc<Current>,
    store: Arc<Store>,
    metrics: Arc<Metrics>,
    runtime: Handle,
    storing: Arc<Semaphore>,
    reading: Arc<Semaphore>,
}

impl Web {
    pub(super) fn new(current: &Arc<Current>, store: &Arc<Store>, metrics: &Arc<Metrics>) -> Self {
        let places = || Arc::new(Semaphore::new(TRANSACTIONS));
        let (current, store, metrics) = (Arc::clone(current), Arc::clone(store), Arc::clone(metrics));
        Self { current, store, metrics, runtime: Handle::current(), storing: places(), reading: places() }
    }

    /// The services, below [`ROOT`].
    pub(super) fn routes<S: Clone + Send + Sync + 'static>(self) -> Router<S> {
        Router::new()
            .route("/studies", get(qido::studies).post(stow::any_study))
            .route("/series", get(qido::all_series))
            .route("/instances", get(qido::all_instances))
            .route("/studies/{study}", get(wado::study).post(stow::one_study))
            .route("/studies/{study}/metadata", get(wado::study_metadata))
            .route("/studies/{study}/series", get(qido::series))
            .route("/studies/{study}/instances", get(qido::instances_of_study))
            .route("/studies/{study}/series/{series}", get(wado::series))
            .route("/studies/{study}/series/{series}/metadata", get(wado::series_metadata))
            .route("/studies/{study}/series/{series}/instances", get(qido::instances))
            .route("/studies/{study}/series/{series}/instances/{instance}", get(wado::instance))
            .route("/studies/{study}/series/{series}/instances/{instance}/metadata", get(wado::instance_metadata))
            .route("/studies/{study}/series/{series}/instances/{instance}/rendered", get(frames::instance_rendered))
            .route("/studies/{study}/series/{series}/instances/{instance}/frames/{frames}", get(frames::frames))
            .route("/studies/{study}/series/{series}/instances/{instance}/frames/{frames}/rendered", get(frames::frame_rendered))
            .with_state(self)
    }
}

/// What a request gets instead of what it wants.
#[derive(Debug)]
enum Refusal {
    Status(StatusCode, String),
    Store(StoreError),
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Refusal {
    fn new(status: StatusCode, why: &str) -> Self {
        Self::Status(status, why.to_owned())
    }

    fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "nothing of these UIDs is here")
    }

    /// A thread that did not come to its end.
    fn broken() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the node failed, its log says where")
    }

    fn busy() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "too many transactions at a time, come again")
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, why) = match self {
            Self::Status(status, why) => (status, why),
            Self::Store(error @ StoreError::Full { .. }) => (StatusCode::INSUFFICIENT_STORAGE, error.to_string()),
            Self::Store(error) => {
                tracing::error!(%error, "a DICOMweb request fails");
                (StatusCode::INTERNAL_SERVER_ERROR, "the store fails".into())
            }
        };
        (status, axum::Json(serde_json::json!({ "error": why }))).into_response()
    }
}

/// Where the caller finds us: by the name that he called.
fn base(caller: &Caller) -> String {
    format!("{}{ROOT}", caller.base.as_deref().unwrap_or_default())
}
