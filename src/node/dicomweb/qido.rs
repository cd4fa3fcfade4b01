//! Searches (QIDO-RS, PS3.18 10.6). The database knows UIDs alone, so that it holds no patient text; all else is read from the files'
//! headers when somebody asks, which is why a search goes through so many studies and no more.

use std::collections::BTreeMap;
use std::path::Path as FilePath;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, Query as Parameters, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::{JSON, Refusal, Web, base};
use crate::codes::{Uid, is_uid};
use crate::dataset::{Candidate, Instance, Level, Query, json};
use crate::node::server::Caller;
use crate::store::{AuditRecord, Object, StoreError};

/// Answers to one search.
const MAX_ANSWERS: usize = 1000;
/// Studies that one search goes through.
const MAX_STUDIES: u32 = 5000;
/// What a client is told where a search has gone through that many.
const CUT: &str = "299 roentgen \"the search went through the newest 5000 studies only\"";

type Pairs = Parameters<Vec<(String, String)>>;

pub(super) async fn studies(web: State<Web>, caller: Extension<Caller>, pairs: Pairs) -> Result<Response, Refusal> {
    search(web, &caller, pairs, Level::Study, None, None).await
}

pub(super) async fn all_series(web: State<Web>, caller: Extension<Caller>, pairs: Pairs) -> Result<Response, Refusal> {
    search(web, &caller, pairs, Level::Series, None, None).await
}

pub(super) async fn all_instances(web: State<Web>, caller: Extension<Caller>, pairs: Pairs) -> Result<Response, Refusal> {
    search(web, &caller, pairs, Level::Instance, None, None).await
}

pub(super) async fn series(
    web: State<Web>,
    Path(study): Path<String>,
    caller: Extension<Caller>,
    pairs: Pairs,
) -> Result<Response, Refusal> {
    search(web, &caller, pairs, Level::Series, Some(study), None).await
}

pub(super) async fn instances_of_study(
    web: State<Web>,
    Path(study): Path<String>,
    caller: Extension<Caller>,
    pairs: Pairs,
) -> Result<Response, Refusal> {
    search(web, &caller, pairs, Level::Instance, Some(study), None).await
}

pub(super) async fn instances(
    web: State<Web>,
    Path((study, series)): Path<(String, String)>,
    caller: Extension<Caller>,
    pairs: Pairs,
) -> Result<Response, Refusal> {
    search(web, &caller, pairs, Level::Instance, Some(study), Some(series)).await
}

async fn search(
    State(web): State<Web>,
    caller: &Caller,
    Parameters(pairs): Pairs,
    level: Level,
    study: Option<Uid>,
    series: Option<Uid>,
) -> Result<Response, Refusal> {
    let query = Query::read(&pairs, MAX_ANSWERS).map_err(|why| Refusal::Status(StatusCode::BAD_REQUEST, why))?;
    let place = web.reading.clone().try_acquire_owned().map_err(|_| Refusal::busy())?;
    let (base, worker) = (base(caller), web.clone());
    let search = Search { web: worker, query, level, series, base, answers: Vec::new(), left_out: 0 };
    let (peer, span) = (caller.peer, tracing::Span::current());
    let searched = tokio::task::spawn_blocking(move || {
        let (_span, _place) = (span.entered(), place); // the place until this ends, whether somebody waits for it or not
        // What was searched for may name a patient: it is not noted.
        let subject = study.as_deref().filter(|study| is_uid(study)).unwrap_or_default().to_owned();
        let store = Arc::clone(&search.web.store);
        let found = search.run(study)?;
        store.audit(AuditRecord::query(0, &peer.to_string(), &subject, format!("QIDO-RS: {} answers", found.0.len())));
        Ok::<_, StoreError>(found)
    });
    let (answers, cut) = searched.await.map_err(|_| Refusal::broken())??;
    let mut response = ([(header::CONTENT_TYPE, JSON)], format!("[{}]", answers.join(","))).into_response();
    if cut {
        response.headers_mut().insert(header::WARNING, HeaderValue::from_static(CUT));
    }
    Ok(response)
}

struct Search {
    web: Web,
    query: Query,
    level: Level,
    series: Option<Uid>,
    base: String,
    /// As JSON.
    answers: Vec<String>,
    left_out: usize,
}

impl Search {
    /// The answers, and whether there may be more in studies that were not looked at.
    fn run(mut self, study: Option<Uid>) -> Result<(Vec<String>, bool), StoreError> {
        let asked_for = study.map(|study| vec![study]).or_else(|| Some(self.query.study_uids()?.into_iter().map(str::to_owned).collect()));
        let all = asked_for.is_none();
        let studies = match asked_for {
            Some(studies) => studies,
            None => self.web.runtime.block_on(self.web.store.studies(MAX_STUDIES))?,
        };
        let cut = all && studies.len() == MAX_STUDIES as usize;
        for study in studies {
            if self.answers.len() >= self.query.limit {
                return Ok((self.answers, false));
            }
            self.study(&study)?;
        }
        Ok((self.answers, cut))
    }

    fn study(&mut self, study: &str) -> Result<(), StoreError> {
        let objects = self.web.runtime.block_on(self.web.store.objects(study, None, None))?;
        let mut by_series: BTreeMap<&str, Vec<&Object>> = BTreeMap::new();
        objects.iter().for_each(|object| by_series.entry(&object.series_uid).or_default().push(object));
        let url = format!("{}/studies/{study}", self.base);
        let (series, instances) = (by_series.len(), objects.len());
        let whole = |url| Whole { modalities: Vec::new(), series, instances, url };
        match self.level {
            Level::Study => {
                let firsts = by_series.values().filter_map(|of_it| Instance::read(&of_it.first()?.path).ok());
                let mut modalities: Vec<String> = firsts.map(|instance| instance.modality).filter(|m| !m.is_empty()).collect();
                modalities.sort();
                modalities.dedup();
                // The first that came stands for all: what was made of it says the same of patient and study.
                let Some(first) = objects.first() else { return Ok(()) };
                self.answer(&first.path, &Whole { modalities, ..whole(url) });
            }
            Level::Series => {
                for (uid, of_it) in &by_series {
                    let Some(first) = of_it.first() else { continue };
                    self.answer(&first.path, &Whole { instances: of_it.len(), ..whole(format!("{url}/series/{uid}")) });
                }
            }
            Level::Instance => {
                let wanted = self.series.clone();
                for object in objects.iter().filter(|object| wanted.as_ref().is_none_or(|series| *series == object.series_uid)) {
                    let Object { series_uid, sop_instance_uid, .. } = object;
                    self.answer(&object.path, &whole(format!("{url}/series/{series_uid}/instances/{sop_instance_uid}")));
                }
            }
        }
        Ok(())
    }

    /// Adds what is told of something, where it is asked for. What cannot be read is not found.
    fn answer(&mut self, path: &FilePath, whole: &Whole) {
        if self.answers.len() >= self.query.limit {
            return;
        }
        let Ok(header) = Instance::read(path).and_then(|instance| instance.attributes.object_without_frames(path)) else { return };
        let Whole { modalities, series, instances, url } = whole;
        let candidate = Candidate { header: &header, modalities, series: *series, instances: *instances, url };
        let Some(told) = self.query.answer(self.level, &candidate) else { return };
        if self.left_out < self.query.offset {
            self.left_out += 1;
        } else {
            self.answers.extend(json(&told).ok());
        }
    }
}

/// What the database says of a study, a series or an instance.
struct Whole {
    modalities: Vec<String>,
    series: usize,
    instances: usize,
    url: String,
}
