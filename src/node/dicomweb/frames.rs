//! Frames by themselves (WADO-RS, PS3.18 10.4): as they are stored, or as pictures.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tracing::Span;

use super::multipart::parameter;
use super::wado::{boundary, found};
use super::{Refusal, Web};
use crate::dataset::{DatasetError, Instance, stored_frames};
use crate::geometry::Coded;
use crate::node::server::Caller;
use crate::results::{RenderError, rendered, to_jpeg, to_png};
use crate::series::{VoiWindow, WindowFunction};
use crate::store::AuditRecord;

/// Frames of one request.
const MAX_FRAMES: usize = 256;
/// Bytes of frames of one answer, and of a compressed file that they are taken out of.
const MAX_BYTES: u64 = 256 << 20;
/// Media types of code streams, by transfer syntax (PS3.18 table 8.7.3-5).
const STREAMS: [(&str, &str); 17] = [
    ("1.2.840.10008.1.2.4.50", "image/jpeg"),
    ("1.2.840.10008.1.2.4.51", "image/jpeg"),
    ("1.2.840.10008.1.2.4.57", "image/jpeg"),
    ("1.2.840.10008.1.2.4.70", "image/jpeg"),
    ("1.2.840.10008.1.2.4.80", "image/jls"),
    ("1.2.840.10008.1.2.4.81", "image/jls"),
    ("1.2.840.10008.1.2.4.90", "image/jp2"),
    ("1.2.840.10008.1.2.4.91", "image/jp2"),
    ("1.2.840.10008.1.2.4.92", "image/jpx"),
    ("1.2.840.10008.1.2.4.93", "image/jpx"),
    ("1.2.840.10008.1.2.4.110", "image/jxl"),
    ("1.2.840.10008.1.2.4.111", "image/jxl"),
    ("1.2.840.10008.1.2.4.112", "image/jxl"),
    ("1.2.840.10008.1.2.4.201", "image/jphc"),
    ("1.2.840.10008.1.2.4.202", "image/jphc"),
    ("1.2.840.10008.1.2.4.203", "image/jphc"),
    ("1.2.840.10008.1.2.5", "image/dicom-rle"),
];
/// Samples as they are, little endian.
const SAMPLES: &str = "application/octet-stream";

type Place = Path<(String, String, String)>;
type PlaceOfFrames = Path<(String, String, String, String)>;

/// How a picture is wanted.
#[derive(Debug, Deserialize)]
pub(super) struct Wanted {
    window: Option<String>,
}

pub(super) async fn instance_rendered(
    web: State<Web>,
    caller: Extension<Caller>,
    Path((study, series, instance)): Place,
    wanted: Query<Wanted>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    render(web, &caller, [study, series, instance], 1, wanted, &headers).await
}

pub(super) async fn frame_rendered(
    web: State<Web>,
    caller: Extension<Caller>,
    Path((study, series, instance, frames)): PlaceOfFrames,
    wanted: Query<Wanted>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let [number] = numbers(&frames)?[..] else {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "one frame is a picture, not several"));
    };
    render(web, &caller, [study, series, instance], number, wanted, &headers).await
}

/// Numbers from 1, separated by commas.
fn numbers(text: &str) -> Result<Vec<u32>, Refusal> {
    let numbers: Option<Vec<u32>> = text.split(',').map(|number| number.parse().ok().filter(|&number| number > 0)).collect();
    let bounded = numbers.filter(|numbers| numbers.len() <= MAX_FRAMES);
    bounded.ok_or_else(|| Refusal::new(StatusCode::BAD_REQUEST, "frames are numbers from 1, separated by commas, 256 at most"))
}

/// `centre,width,function` (PS3.18 8.3.5.1.4).
fn window(text: &str) -> Option<VoiWindow> {
    let [centre, width, function] = text.split(',').collect::<Vec<_>>()[..] else { return None };
    let (function, least) = match function.to_ascii_lowercase().as_str() {
        "linear" => (WindowFunction::Linear, 1.0),
        "linear-exact" => (WindowFunction::LinearExact, f64::MIN_POSITIVE),
        "sigmoid" => (WindowFunction::Sigmoid, f64::MIN_POSITIVE),
        _ => return None,
    };
    let [centre, width] = [centre, width].map(|number| number.parse::<f64>().ok().filter(|number| number.is_finite()));
    Some(VoiWindow { centre: centre?, width: width.filter(|&width| width >= least)?, function })
}

/// The first of these that the client takes, in the client's order.
fn picture_type(headers: &HeaderMap) -> Option<&'static str> {
    let Some(accept) = headers.get(header::ACCEPT) else { return Some("image/jpeg") };
    let kinds = accept.to_str().ok()?.split(',').map(|kind| kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    kinds
        .filter_map(|kind| match kind.as_str() {
            "image/jpeg" | "image/*" | "*/*" => Some("image/jpeg"),
            "image/png" => Some("image/png"),
            _ => None,
        })
        .next()
}

async fn render(
    State(web): State<Web>,
    caller: &Caller,
    [study, series, instance]: [String; 3],
    number: u32,
    Query(wanted): Query<Wanted>,
    headers: &HeaderMap,
) -> Result<Response, Refusal> {
    let kind = picture_type(headers).ok_or_else(|| Refusal::new(StatusCode::NOT_ACCEPTABLE, "pictures are image/jpeg or image/png"))?;
    let wrong = || Refusal::new(StatusCode::BAD_REQUEST, "a window is centre,width,function: linear, linear-exact or sigmoid");
    let window = wanted.window.map(|text| window(&text).ok_or_else(wrong)).transpose()?;
    let place = web.reading.clone().try_acquire_owned().map_err(|_| Refusal::busy())?;
    let object = found(&web, &study, Some(&series), Some(&instance)).await?.swap_remove(0);
    let record = AuditRecord::retrieved(&caller.peer.to_string(), &study, format!("WADO-RS: frame {number} of an instance, rendered"));
    let (store, span) = (Arc::clone(&web.store), Span::current());
    let made = tokio::task::spawn_blocking(move || {
        let (_place, _span) = (place, span.entered());
        store.audit(record);
        let picture = rendered(&object.path, number, window)?;
        Ok(if kind == "image/png" { to_png(&picture) } else { to_jpeg(&picture) })
    });
    let bytes = made.await.map_err(|_| Refusal::broken())?.map_err(|error| not_rendered(&error))?;
    Ok(([(header::CONTENT_TYPE, kind)], bytes).into_response())
}

fn not_rendered(error: &RenderError) -> Refusal {
    match error {
        RenderError::NoFrame { .. } => Refusal::Status(StatusCode::NOT_FOUND, error.to_string()),
        // Its text names a file of ours.
        RenderError::Dataset(error) => Refusal::Status(StatusCode::NOT_ACCEPTABLE, format!("not rendered: {}", error.code())),
        error => Refusal::Status(StatusCode::NOT_ACCEPTABLE, error.to_string()),
    }
}

pub(super) async fn frames(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    Path((study, series, instance, frames)): PlaceOfFrames,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let numbers = numbers(&frames)?;
    let place = web.reading.clone().try_acquire_owned().map_err(|_| Refusal::busy())?;
    let object = found(&web, &study, Some(&series), Some(&instance)).await?.swap_remove(0);
    let record = AuditRecord::retrieved(&caller.peer.to_string(), &study, format!("WADO-RS: {} frames of an instance", numbers.len()));
    let (store, span) = (Arc::clone(&web.store), Span::current());
    let read = tokio::task::spawn_blocking(move || {
        let (_place, _span) = (place, span.entered());
        let instance = Instance::read(&object.path)?;
        let syntax = instance.transfer_syntax_uid.clone();
        let kind = STREAMS.iter().find(|(of, _)| *of == syntax).map_or(SAMPLES, |(_, kind)| kind);
        let bytes = std::fs::metadata(&object.path).map_or(u64::MAX, |file| file.len());
        let samples = u64::from(instance.rows) * u64::from(instance.columns) * u64::from(instance.pixels.samples);
        let frame_bytes = if kind == SAMPLES { samples * u64::from(instance.pixels.bits_allocated) / 8 } else { bytes };
        if frame_bytes.saturating_mul(if kind == SAMPLES { numbers.len() as u64 } else { 1 }) > MAX_BYTES {
            return Err(DatasetError::TooLarge { what: "an answer", bytes: frame_bytes, limit: MAX_BYTES, path: object.path });
        }
        if !takes(&headers, kind, &syntax) {
            return Ok(None);
        }
        store.audit(record);
        let syntax = if kind == SAMPLES { super::EXPLICIT.to_owned() } else { syntax };
        Ok::<_, DatasetError>(Some((kind, syntax, stored_frames(&instance, &numbers)?)))
    });
    let read = read.await.map_err(|_| Refusal::broken())?.map_err(|error| match error {
        DatasetError::FrameCount { frames, .. } => Refusal::Status(StatusCode::NOT_FOUND, format!("there are {frames} frames")),
        error => Refusal::Status(StatusCode::NOT_ACCEPTABLE, format!("no frames by themselves: {}", error.code())),
    })?;
    let wrong = "frames are given as multipart/related of what they are stored as: octet-stream, or their code stream";
    let (kind, syntax, frames) = read.ok_or_else(|| Refusal::new(StatusCode::NOT_ACCEPTABLE, wrong))?;
    let boundary = boundary(&study);
    let mut body = Vec::new();
    for frame in frames {
        body.extend_from_slice(format!("--{boundary}\r\nContent-Type: {kind}; transfer-syntax={syntax}\r\n\r\n").as_bytes());
        body.extend_from_slice(&frame);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    let whole = format!("multipart/related; type=\"{kind}\"; boundary={boundary}");
    Ok(([(header::CONTENT_TYPE, whole)], body).into_response())
}

/// Whether the Accept header takes frames of that kind; samples count as Explicit VR Little Endian.
fn takes(headers: &HeaderMap, kind: &str, syntax: &str) -> bool {
    if !headers.contains_key(header::ACCEPT) {
        return true;
    }
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    values.into_iter().any(|accepted| {
        let media = accepted.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let of_kind = parameter(accepted, "type").is_none_or(|of| of.eq_ignore_ascii_case(kind));
        let stands_for = if kind == SAMPLES { super::EXPLICIT } else { syntax };
        let in_syntax = parameter(accepted, "transfer-syntax").is_none_or(|of| of == "*" || of == stands_for);
        ["*/*", "multipart/*"].contains(&media.as_str()) || (media == "multipart/related" && of_kind && in_syntax)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_is_read_or_refused() {
        let linear = |centre, width| Some(VoiWindow { centre, width, function: WindowFunction::Linear });
        for (text, expected) in [
            ("40,400,linear", linear(40.0, 400.0)),
            ("40,0.5,linear", None),
            ("40,400", None),
            ("a,400,linear", None),
            ("1,inf,sigmoid", None),
        ] {
            assert_eq!(window(text), expected, "{text}");
        }
        for (text, expected) in [("1", Some(vec![1])), ("3,1,3", Some(vec![3, 1, 3])), ("0", None), ("1,", None), ("-1", None)] {
            assert_eq!(numbers(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn frames_are_given_as_they_are_stored() {
        for (accept, kind, syntax, expected) in [
            ("multipart/related; type=\"application/octet-stream\"", SAMPLES, "1.2.840.10008.1.2", true),
            (
                "multipart/related; type=\"application/octet-stream\"; transfer-syntax=1.2.840.10008.1.2.1",
                SAMPLES,
                "1.2.840.10008.1.2",
                true,
            ),
            ("multipart/related; type=\"application/octet-stream\"", "image/jp2", "1.2.840.10008.1.2.4.90", false),
            ("multipart/related; type=\"image/jp2\", */*", "image/jls", "1.2.840.10008.1.2.4.80", true),
            ("multipart/related; type=\"image/jp2\"; transfer-syntax=1.2.840.10008.1.2.4.91", "image/jp2", "1.2.840.10008.1.2.4.90", false),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().expect("a header"))]);
            assert_eq!(takes(&headers, kind, syntax), expected, "{accept}");
        }
    }
}
