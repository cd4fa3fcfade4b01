//! Sending results to a DICOMweb server (STOW-RS, PS3.18 10.5): one request for all that is due, each instance with its own verdict.

use std::fs::{self, File};
use std::io::{self, Cursor, Read};
use std::sync::Arc;
use std::time::Duration;

use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};
use ureq::{Agent, SendBody};

use super::config::{Config, TlsClient};
use super::deliver::{Sender, verdict};
use super::tls;
use crate::codes::uid_by_name;
use crate::dataset::StoreAnswer;
use crate::dimse::Status;
use crate::jobs::{Due, Verdict};

/// The longest answer that is read, bytes: some hundred for each instance.
const MAX_ANSWER: u64 = 4 << 20;
/// How long a server may think after it has all of a request.
const ANSWER: Duration = Duration::from_secs(300);

/// What calls a server, with the certificates of its configuration: no proxy, no redirection, nobody else's authorities. `body`
/// is how long an answer may take to come.
///
/// # Errors
/// What is wrong with which file.
pub(super) fn agent(config: &Config, tls: Option<&TlsClient>, body: Duration) -> Result<Agent, String> {
    let patience = config.patience();
    let agent = Agent::config_builder().http_status_as_error(false).max_redirects(0).proxy(None).user_agent("roentgen");
    let agent = agent.timeout_connect(Some(patience.artim)).timeout_recv_response(Some(ANSWER));
    let agent = agent.timeout_per_write(Some(patience.pdu)).timeout_recv_body(Some(body));
    let agent = match tls {
        Some(tls) => agent.tls_config(trust(tls)?),
        None => agent,
    };
    Ok(agent.build().new_agent())
}

fn trust(client: &TlsClient) -> Result<TlsConfig, String> {
    let certificates = |path| -> Result<Vec<_>, String> {
        Ok(tls::certificates(path)?.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).collect())
    };
    let config = TlsConfig::builder().root_certs(RootCerts::Specific(Arc::new(certificates(&client.ca)?)));
    let config = config.unversioned_rustls_crypto_provider(tls::provider());
    let (Some(certificate), Some(key)) = (&client.certificate, &client.key) else { return Ok(config.build()) };
    let pem = fs::read(key).map_err(|error| format!("{}: {error}", key.display()))?;
    let key = PrivateKey::from_pem(&pem).map_err(|_| format!("{}: no private key in PEM form", key.display()))?;
    Ok(config.client_cert(Some(ClientCert::new_with_certs(&certificates(certificate)?, key))).build())
}

impl Sender {
    /// Sends these in one request. Where the server refuses it as a whole and for good, each is tried by itself: one may spoil it for all.
    pub(super) fn post(&self, url: &str, due: &[Due]) {
        let verdicts = self.requested(url, due);
        let spoilt = due.len() > 1 && verdicts.iter().all(|verdict| matches!(verdict, Verdict::Dead(None, _)));
        if spoilt {
            due.chunks(1).for_each(|one| self.post(url, one));
        } else {
            due.iter().zip(&verdicts).for_each(|(one, verdict)| self.settle(one, verdict));
        }
    }

    /// A verdict for each.
    fn requested(&self, url: &str, due: &[Due]) -> Vec<Verdict> {
        let all = |verdict: Verdict| vec![verdict; due.len()];
        let again = |why: String| {
            tracing::warn!(destination = self.destination.name, why, "a destination takes no request");
            all(Verdict::Again(None, why))
        };
        let mut body = match Multipart::of(self, due) {
            Ok(body) => body,
            // Only by itself is it known which one it is.
            Err(error) if due.len() > 1 => return all(Verdict::Dead(None, error)),
            Err(error) => return all(Verdict::Dead(None, format!("the result cannot be read: {error}"))),
        };
        let token = match self.destination.token_file.as_ref().map(fs::read_to_string).transpose() {
            Ok(token) => token,
            Err(error) => return again(format!("the token cannot be read: {error}")),
        };
        let request = self.settings.agent(&self.destination.name).post(format!("{url}/studies"));
        let request = request.header("Accept", "application/dicom+json").header("Content-Length", body.bytes.to_string());
        let kind = format!("multipart/related; type=\"application/dicom\"; boundary={}", body.boundary);
        let mut request = request.header("Content-Type", kind);
        if let Some(token) = token {
            request = request.header("Authorization", format!("Bearer {}", token.trim()));
        }
        let mut response = match request.send(SendBody::from_reader(&mut body.parts)) {
            Ok(response) => response,
            Err(error) => return again(error.to_string()),
        };
        let status = response.status().as_u16();
        let answer = response.body_mut().with_config().limit(MAX_ANSWER).read_to_vec();
        let answer = answer.ok().and_then(|body| StoreAnswer::read(&body));
        due.iter().map(|one| of_one(status, answer.as_ref(), one)).collect()
    }
}

/// What an answer says of one instance.
fn of_one(http: u16, answer: Option<&StoreAnswer>, one: &Due) -> Verdict {
    if let Some(answer) = answer {
        let is_it = |uid: &str| uid == one.sop_instance_uid;
        if let Some((_, warning)) = answer.stored.iter().find(|(uid, _)| is_it(uid)) {
            return Verdict::Stored(warning.unwrap_or_default());
        }
        if let Some((_, reason)) = answer.failed.iter().find(|(uid, _)| is_it(uid)) {
            return match verdict(Status(*reason), "") {
                Verdict::Stored(status) => Verdict::Dead(Some(status), format!("failed with the reason {}", Status(status))),
                other => other,
            };
        }
    }
    let why = format!("HTTP status {http}");
    match http {
        200..=299 => Verdict::Again(None, format!("{why}, and the answer does not name it")),
        // What is wrong with what was sent; all else is somebody's to put right (a token, a path), or passes.
        400 | 406 | 409 | 413 | 415 | 422 => Verdict::Dead(None, why),
        _ => Verdict::Again(None, why),
    }
}

/// The body of a request: files as they lie on the disk, never in memory.
struct Multipart {
    boundary: String,
    bytes: u64,
    parts: Box<dyn Read>,
}

impl Multipart {
    fn of(sender: &Sender, due: &[Due]) -> Result<Self, String> {
        // A name by content that no file has in it by chance.
        let names: Vec<&str> = due.iter().map(|one| one.sop_instance_uid.as_str()).collect();
        let boundary = uid_by_name(&[&["boundary"], &names[..]].concat());
        let mut body = Self { boundary, bytes: 0, parts: Box::new(io::empty()) };
        for one in due {
            let path = sender.store.folder().join(&one.path);
            let opened = File::open(path).and_then(|file| Ok((file.metadata()?.len(), file)));
            let (bytes, file) = opened.map_err(|error| error.kind().to_string())?;
            // Without the transfer syntax, which stands in the file: Orthanc 1.10 refuses the parameter.
            body.text(format!("\r\n--{}\r\nContent-Type: application/dicom\r\n\r\n", body.boundary));
            body.add(bytes, file.take(bytes));
        }
        body.text(format!("\r\n--{}--\r\n", body.boundary));
        Ok(body)
    }

    fn text(&mut self, text: String) {
        self.add(text.len() as u64, Cursor::new(text));
    }

    fn add(&mut self, bytes: u64, part: impl Read + 'static) {
        let before = std::mem::replace(&mut self.parts, Box::new(io::empty()));
        (self.bytes, self.parts) = (self.bytes + bytes, Box::new(before.chain(part)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_answer_says_of_an_instance() {
        let one = |uid: &str| Due {
            sop_instance_uid: uid.into(),
            sop_class_uid: String::new(),
            transfer_syntax_uid: String::new(),
            path: "x".into(),
            study_uid: String::new(),
            attempts: 0,
            form: "sr".into(),
            job: 1,
        };
        let answer = StoreAnswer {
            stored: vec![("1".into(), None), ("2".into(), Some(0xB007))],
            failed: vec![("3".into(), 0xA700), ("4".into(), 0x0122), ("5".into(), 0)],
        };
        let of = |http, uid| of_one(http, Some(&answer), &one(uid));
        assert_eq!([of(200, "1"), of(202, "2")], [Verdict::Stored(0), Verdict::Stored(0xB007)]);
        assert!(matches!(of(202, "3"), Verdict::Again(Some(0xA700), _)));
        assert!(matches!(of(409, "4"), Verdict::Dead(Some(0x0122), _)));
        assert!(matches!(of(409, "5"), Verdict::Dead(Some(0), _)), "a failure is none that was stored, whatever its reason");
        assert!(matches!(of(200, "6"), Verdict::Again(None, _)));
        for (http, dead) in [(400, true), (413, true), (401, false), (404, false), (429, false), (500, false), (503, false)] {
            assert_eq!(matches!(of_one(http, None, &one("1")), Verdict::Dead(None, _)), dead, "{http}");
        }
    }
}
