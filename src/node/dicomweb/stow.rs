//! Store transactions (STOW-RS, PS3.18 10.5): DICOM files in the parts of a request, each on disk before it is answered for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Extension;
use axum::body::{Body, HttpBody};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::sync::mpsc;

use super::multipart::{Event, Malformed, Multipart, boundary};
use super::{JSON, PIECES, Refusal, Web, base};
use crate::codes::{Uid, is_uid};
use crate::dataset::{Beginning, Reference, Stored, beginning, is_decodable};
use crate::dimse::Status;
use crate::geometry::Coded;
use crate::node::arrivals::Arrivals;
use crate::node::classes;
use crate::node::metrics::Step;
use crate::node::scp::answer_of;
use crate::node::server::Caller;
use crate::store::{Announced, Receiving, Store};

/// What is written as the sender's title.
const CALLING: &str = "STOW-RS";
/// Parts of one request.
const MAX_PARTS: usize = 100_000;
/// Failure reasons beside those of C-STORE (PS3.18 table 10.5.3-2).
const SOP_CLASS_NOT_SUPPORTED: u16 = 0x0122;
const TRANSFER_SYNTAX_NOT_SUPPORTED: u16 = 0xC122;
const NOT_DICOM: u16 = 0xC000;

pub(super) async fn any_study(
    State(web): State<Web>,
    caller: Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    store(web, &caller, None, &headers, body).await
}

pub(super) async fn one_study(
    State(web): State<Web>,
    caller: Extension<Caller>,
    Path(study_uid): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    if !is_uid(&study_uid) {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "no UID"));
    }
    store(web, &caller, Some(study_uid), &headers, body).await
}

async fn store(web: Web, caller: &Caller, study_uid: Option<Uid>, headers: &HeaderMap, body: Body) -> Result<Response, Refusal> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).and_then(boundary);
    let wanted = "multipart/related; type=\"application/dicom\"; boundary=.. is wanted";
    let multipart = Multipart::new(kind.ok_or_else(|| Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, wanted))?);
    let settings = web.current.get();
    let most_bytes = settings.http.body_mb.saturating_mul(1 << 20);
    if body.size_hint().lower() > most_bytes {
        return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "longer than http.body_mb: send it in several requests"));
    }
    let _place = web.storing.try_acquire().map_err(|_| Refusal::busy())?;
    let (pieces, incoming) = mpsc::channel(PIECES);
    let (upload, span) = (Upload::new(&web, study_uid, caller), tracing::Span::current());
    let stored = tokio::task::spawn_blocking(move || span.in_scope(|| upload.run(multipart, incoming)));
    let mut coming = Coming { body, patience: settings.patience().pdu, waited: Duration::ZERO, bytes: 0, left: most_bytes };
    while let Some(piece) = coming.next().await {
        if pieces.send(piece).await.is_err() {
            break; // it has seen enough
        }
    }
    drop(pieces);
    let stored = stored.await.map_err(|_| Refusal::broken())?;
    let stored = stored.map_err(|Malformed(why)| Refusal::new(StatusCode::BAD_REQUEST, why))?;
    let warned = stored.kept.iter().any(|(_, _, warning)| warning.is_some());
    let status = match (stored.kept.is_empty(), stored.failed.is_empty() && stored.other.is_empty() && !warned) {
        (true, _) => StatusCode::CONFLICT,
        (false, true) => StatusCode::OK,
        (false, false) => StatusCode::ACCEPTED,
    };
    Ok((status, [(header::CONTENT_TYPE, JSON)], stored.json()).into_response())
}

/// What must come of a body within the time for a PDU, or be its end: who sends a byte now and then gains nothing.
const PACE_BYTES: u64 = 64 << 10;

/// A body that comes in.
struct Coming {
    body: Body,
    patience: Duration,
    /// How long the next [`PACE_BYTES`] were waited for, and what of them has come.
    waited: Duration,
    bytes: u64,
    /// What may come at most.
    left: u64,
}

impl Coming {
    /// The next piece; none at the end, where it fails, where it comes too slowly, and where it is too long.
    async fn next(&mut self) -> Option<Bytes> {
        while !self.body.is_end_stream() {
            let began = Instant::now();
            let frame = tokio::time::timeout(self.patience.checked_sub(self.waited)?, self.body.frame()).await.ok()??.ok()?;
            self.waited += began.elapsed();
            let Ok(data) = frame.into_data() else { continue };
            self.left = self.left.checked_sub(data.len() as u64)?;
            self.bytes += data.len() as u64;
            if self.bytes >= PACE_BYTES {
                (self.waited, self.bytes) = (Duration::ZERO, 0);
            }
            return Some(data);
        }
        None
    }
}

/// A request on its way to the disk.
struct Upload {
    store: Arc<Store>,
    web: Web,
    study_uid: Option<Uid>,
    base: String,
    peer: String,
}

/// The part that is being received.
enum Part<'s> {
    /// Its file meta group is not there yet.
    Beginning(Vec<u8>),
    DataSet(Box<Receiving<'s>>, Reference, Instant),
    /// It is passed over.
    Refused,
}

impl Upload {
    fn new(web: &Web, study_uid: Option<Uid>, caller: &Caller) -> Self {
        let peer = format!("{CALLING} at {}", caller.peer);
        Self { store: Arc::clone(&web.store), web: web.clone(), study_uid, base: base(caller), peer }
    }

    /// Stores what comes, until there is no more.
    fn run(&self, mut multipart: Multipart, mut incoming: mpsc::Receiver<Bytes>) -> Result<Stored, Malformed> {
        let mut arrivals = Arrivals::new(&self.store, &self.peer);
        let url = self.study_uid.as_ref().map(|uid| format!("{}/studies/{uid}", self.base));
        let (mut stored, mut part, mut parts) = (Stored { url, ..Stored::default() }, Part::Refused, 0);
        let mut taken = Ok(());
        while let Some(piece) = incoming.blocking_recv() {
            taken = multipart.push(&piece, |event| match event {
                Event::Part(kind) => {
                    parts += 1;
                    let dicom = kind.is_empty() || kind.split(';').next().is_some_and(|kind| kind.trim() == "application/dicom");
                    part = if dicom { Part::Beginning(Vec::new()) } else { Part::Refused };
                    if !dicom {
                        stored.other.push(NOT_DICOM);
                    }
                }
                Event::Data(data) => self.data(&mut part, data, &mut stored),
                Event::End => self.end(std::mem::replace(&mut part, Part::Refused), &mut stored, &mut arrivals),
            });
            if taken.is_ok() && parts > MAX_PARTS {
                taken = Err(Malformed("too many parts"));
            }
            if taken.is_err() {
                break;
            }
        }
        let whole = multipart.is_closed();
        let (new, again) = arrivals.end(whole);
        tracing::info!(new, again, whole, "a STOW-RS request brought instances");
        // Whoever asks for them next finds them.
        self.store.flush();
        self.tell_where(&mut stored);
        // What came before something malformed is kept, and must be answered for.
        match taken {
            Err(malformed) if stored.kept.is_empty() => Err(malformed),
            Ok(()) if !whole && stored.kept.is_empty() => Err(Malformed("the body ends before its last boundary")),
            _ => {
                stored.other.extend((!whole).then_some(NOT_DICOM));
                Ok(stored)
            }
        }
    }

    /// Where what is kept can be retrieved. What is in quarantine cannot.
    fn tell_where(&self, stored: &mut Stored) {
        for (Reference { sop_instance_uid, .. }, url, warning) in &mut stored.kept {
            match self.web.runtime.block_on(self.store.place_of(sop_instance_uid)) {
                Ok(Some((study, series))) if warning.is_none() => {
                    *url = Some(format!("{}/studies/{study}/series/{series}/instances/{sop_instance_uid}", self.base));
                }
                Ok(_) => {}
                Err(error) => tracing::error!(%error, "a stored instance cannot be found"),
            }
        }
    }

    fn data<'s>(&'s self, part: &mut Part<'s>, data: &[u8], stored: &mut Stored) {
        match part {
            Part::Refused => {}
            Part::DataSet(receiving, ..) => {
                self.web.metrics.received_bytes.add(data.len() as u64);
                receiving.write(data);
            }
            Part::Beginning(bytes) => {
                bytes.extend_from_slice(data);
                match beginning(bytes) {
                    Beginning::Unknown => {}
                    Beginning::NotDicom => {
                        stored.other.push(NOT_DICOM);
                        *part = Part::Refused;
                    }
                    Beginning::Known { sop_class_uid, sop_instance_uid, transfer_syntax_uid, data_set } => {
                        let rest = bytes.split_off(data_set);
                        *part = self.begin(Reference { sop_class_uid, sop_instance_uid }, transfer_syntax_uid, stored);
                        self.data(part, &rest, stored);
                    }
                }
            }
        }
    }

    fn begin(&self, reference: Reference, transfer_syntax_uid: Uid, stored: &mut Stored) -> Part<'_> {
        let any = self.web.current.get().store.any_sop_class;
        let reason = if !classes::is_storage(&reference.sop_class_uid, any) {
            SOP_CLASS_NOT_SUPPORTED
        } else if !is_decodable(&transfer_syntax_uid) {
            TRANSFER_SYNTAX_NOT_SUPPORTED
        } else {
            let announced = Announced {
                sop_class_uid: reference.sop_class_uid.clone(),
                sop_instance_uid: reference.sop_instance_uid.clone(),
                transfer_syntax_uid,
                calling: CALLING.into(),
                study_uid: self.study_uid.clone(),
                asked: false,
            };
            match self.store.receive(announced) {
                Ok(receiving) => return Part::DataSet(Box::new(receiving), reference, Instant::now()),
                Err(error) => answer_of(&Err(error)).0.0,
            }
        };
        self.web.metrics.stored(Status(reason));
        stored.failed.push((reference, reason));
        Part::Refused
    }

    fn end(&self, part: Part<'_>, stored: &mut Stored, arrivals: &mut Arrivals) {
        let (receiving, reference, began) = match part {
            Part::DataSet(receiving, reference, began) => (receiving, reference, began),
            Part::Beginning(_) => return stored.other.push(NOT_DICOM),
            Part::Refused => return,
        };
        let metrics = &self.web.metrics;
        metrics.took(Step::Receive, began.elapsed());
        let came = Instant::now();
        let kept = receiving.finish();
        metrics.took(Step::Seal, came.elapsed());
        let (status, _) = answer_of(&kept);
        self.web.metrics.stored(status);
        match kept {
            Ok(kept) => {
                arrivals.add(&kept);
                stored.kept.push((reference, None, status.is_warning().then_some(status.0)));
            }
            Err(error) => {
                tracing::warn!(%status, code = error.code(), "an instance is refused");
                stored.failed.push((reference, status.0));
            }
        }
    }
}
