//! Retrieval (WADO-RS, PS3.18 10.4): files as they are, in the transfer syntax that they are kept in, or their attributes as JSON.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::channel::{Channel, Sender};
use tokio::sync::OwnedSemaphorePermit;

use super::multipart::parameter;
use super::{JSON, PIECES, Refusal, Web};
use crate::codes::{sha256_hex, uid_by_name};
use crate::dataset::{DataSetFile, Instance, json};
use crate::node::server::Caller;
use crate::store::{AuditRecord, Object, PREAMBLE_BYTES};

/// Bytes of a file at a time.
const PIECE_BYTES: usize = 128 << 10;
/// How long a client may take no piece.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) async fn study(
    web: State<Web>,
    caller: Extension<Caller>,
    Path(study): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    files(web, &caller, &headers, &study, None, None).await
}

pub(super) async fn series(
    web: State<Web>,
    caller: Extension<Caller>,
    Path((study, series)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    files(web, &caller, &headers, &study, Some(&series), None).await
}

pub(super) async fn instance(
    web: State<Web>,
    caller: Extension<Caller>,
    Path((study, series, instance)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    files(web, &caller, &headers, &study, Some(&series), Some(&instance)).await
}

pub(super) async fn study_metadata(web: State<Web>, caller: Extension<Caller>, Path(study): Path<String>) -> Result<Response, Refusal> {
    metadata(web, &caller, &study, None, None).await
}

pub(super) async fn series_metadata(
    web: State<Web>,
    caller: Extension<Caller>,
    Path((study, series)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    metadata(web, &caller, &study, Some(&series), None).await
}

pub(super) async fn instance_metadata(
    web: State<Web>,
    caller: Extension<Caller>,
    Path((study, series, instance)): Path<(String, String, String)>,
) -> Result<Response, Refusal> {
    metadata(web, &caller, &study, Some(&series), Some(&instance)).await
}

/// What of the stored transfer syntaxes a client takes.
#[derive(Debug, PartialEq, Eq)]
enum Accepted {
    Any,
    Only(Vec<String>),
    Nothing,
}

/// Reads the Accept header. Without a transfer syntax in it, every one is taken: nothing is transcoded here, and who can read but one says so.
fn accepted(headers: &HeaderMap) -> Accepted {
    let mut syntaxes = Vec::new();
    let mut any = !headers.contains_key(header::ACCEPT);
    for value in headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()) {
        for media_type in value.split(',') {
            let kind = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
            let of_dicom = parameter(media_type, "type").is_none_or(|kind| kind.eq_ignore_ascii_case("application/dicom"));
            if ["*/*", "multipart/*"].contains(&kind.as_str()) || (kind == "multipart/related" && of_dicom) {
                match parameter(media_type, "transfer-syntax") {
                    None | Some("*") => any = true,
                    Some(syntax) => syntaxes.push(syntax.to_owned()),
                }
            }
        }
    }
    match (any, syntaxes.is_empty()) {
        (true, _) => Accepted::Any,
        (false, false) => Accepted::Only(syntaxes),
        (false, true) => Accepted::Nothing,
    }
}

type Pieces = Sender<Bytes, io::Error>;

/// An answer that `write` fills from a thread for that.
fn streamed(
    web: &Web,
    kind: &str,
    place: OwnedSemaphorePermit,
    record: AuditRecord,
    write: impl FnOnce(&mut Outlet) -> io::Result<()> + Send + 'static,
) -> Response {
    let (pieces, body) = Channel::new(PIECES);
    let mut outlet = Outlet { pieces, runtime: web.runtime.clone() };
    let (store, span) = (Arc::clone(&web.store), tracing::Span::current());
    tokio::task::spawn_blocking(move || {
        let (_place, _span) = (place, span.entered());
        store.audit(record);
        if let Err(error) = write(&mut outlet) {
            // The client sees that the answer is not whole.
            tracing::warn!(%error, "an answer is cut off");
            outlet.pieces.abort(error);
        }
    });
    ([(header::CONTENT_TYPE, kind)], Body::new(body)).into_response()
}

/// Where an answer is written to.
struct Outlet {
    pieces: Pieces,
    runtime: tokio::runtime::Handle,
}

impl Outlet {
    fn write(&mut self, piece: impl Into<Bytes>) -> io::Result<()> {
        let sent = async { tokio::time::timeout(PATIENCE, self.pieces.send_data(piece.into())).await };
        match self.runtime.block_on(sent) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(io::ErrorKind::BrokenPipe.into()),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

/// What no file holds by chance.
pub(super) fn boundary(study: &str) -> String {
    sha256_hex(uid_by_name(&["boundary", study, &crate::store::now_ms().to_string()]).as_bytes())[..32].to_owned()
}

pub(super) async fn found(web: &Web, study: &str, series: Option<&str>, instance: Option<&str>) -> Result<Vec<Object>, Refusal> {
    let objects = web.store.objects(study, series, instance).await?;
    if objects.is_empty() { Err(Refusal::not_found()) } else { Ok(objects) }
}

async fn files(
    State(web): State<Web>,
    caller: &Caller,
    headers: &HeaderMap,
    study: &str,
    series: Option<&str>,
    instance: Option<&str>,
) -> Result<Response, Refusal> {
    let accepted = accepted(headers);
    let refused =
        || Refusal::new(StatusCode::NOT_ACCEPTABLE, "DICOM files are given as multipart/related, in the transfer syntax that they have");
    if accepted == Accepted::Nothing {
        return Err(refused());
    }
    let place = web.reading.clone().try_acquire_owned().map_err(|_| Refusal::busy())?;
    let mut objects = found(&web, study, series, instance).await?;
    if let Accepted::Only(syntaxes) = accepted {
        let fits = move |object: &Object| DataSetFile::open(&object.path).is_ok_and(|file| syntaxes.contains(&file.transfer_syntax_uid));
        let fitting = tokio::task::spawn_blocking(move || objects.into_iter().filter(fits).collect::<Vec<_>>());
        objects = fitting.await.map_err(|_| Refusal::broken())?;
        if objects.is_empty() {
            return Err(refused());
        }
    }
    let boundary = boundary(study);
    let kind = format!("multipart/related; type=\"application/dicom\"; boundary={boundary}");
    let record = AuditRecord::retrieved(&caller.peer.to_string(), study, format!("WADO-RS: {} instances", objects.len()));
    Ok(streamed(&web, &kind, place, record, move |out| {
        for object in &objects {
            let known = DataSetFile::open(&object.path).map_err(io::Error::other)?;
            let syntax = known.transfer_syntax_uid;
            out.write(format!("--{boundary}\r\nContent-Type: application/dicom; transfer-syntax={syntax}\r\n\r\n"))?;
            let mut file = File::open(&object.path)?;
            // Ours holds a seal that is nobody else's business.
            file.read_exact(&mut [0; PREAMBLE_BYTES])?;
            out.write(vec![0; PREAMBLE_BYTES])?;
            loop {
                let mut piece = Vec::with_capacity(PIECE_BYTES);
                Read::by_ref(&mut file).take(PIECE_BYTES as u64).read_to_end(&mut piece)?;
                if piece.is_empty() {
                    break;
                }
                out.write(piece)?;
            }
            out.write("\r\n")?;
        }
        out.write(format!("--{boundary}--\r\n"))
    }))
}

async fn metadata(
    State(web): State<Web>,
    caller: &Caller,
    study: &str,
    series: Option<&str>,
    instance: Option<&str>,
) -> Result<Response, Refusal> {
    let place = web.reading.clone().try_acquire_owned().map_err(|_| Refusal::busy())?;
    let objects = found(&web, study, series, instance).await?;
    let record = AuditRecord::retrieved(&caller.peer.to_string(), study, format!("WADO-RS: metadata of {} instances", objects.len()));
    Ok(streamed(&web, JSON, place, record, move |out| {
        for (n, object) in objects.iter().enumerate() {
            let header = Instance::read(&object.path).map_err(io::Error::other)?;
            let header = header.attributes.to_object(&object.path).map_err(io::Error::other)?;
            out.write(if n == 0 { "[" } else { "," })?;
            out.write(json(&header)?)?;
        }
        out.write("]")
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_takes() {
        for (accept, expected) in [
            (None, Accepted::Any),
            (Some("*/*"), Accepted::Any),
            (Some("multipart/related; type=\"application/dicom\""), Accepted::Any),
            (Some("multipart/related; type=application/dicom; transfer-syntax=*"), Accepted::Any),
            (
                Some("multipart/related; type=\"application/dicom\"; transfer-syntax=1.2.840.10008.1.2.1"),
                Accepted::Only(vec!["1.2.840.10008.1.2.1".into()]),
            ),
            (Some("image/jpeg"), Accepted::Nothing),
            (Some("multipart/related; type=\"application/octet-stream\""), Accepted::Nothing),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(accept) = accept {
                headers.insert(header::ACCEPT, accept.parse().expect("a header"));
            }
            assert_eq!(accepted(&headers), expected, "{accept:?}");
        }
    }
}
