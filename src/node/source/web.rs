//! Asking by DICOMweb: QIDO-RS and WADO-RS (PS3.18 10.4, 10.6).

use std::fs;
use std::io::Read;
use std::time::{Duration, Instant};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use ureq::Body;
use ureq::http::Response;
use ureq::http::header::CONTENT_TYPE;

use super::{Fetcher, FoundStudy, Sought, Source, SourceError};
use crate::dataset::{Beginning, SeriesMatch, StudyMatch, beginning, is_decodable};
use crate::node::classes;
use crate::node::dicomweb::multipart::{Event, Multipart, boundary};
use crate::store::{Announced, Receiving, Store, StoreError};

/// The longest answer to a query that is read, bytes: some hundred for each series.
const MAX_ANSWER: u64 = 4 << 20;
/// Parts of one answer.
const MAX_PARTS: usize = 100_000;
/// Bytes that are read at a time.
const PIECE: usize = 64 << 10;
/// The title that instances come under.
pub(super) const CALLING: &str = "WADO-RS";

/// All but what may stand as it is in the value of a parameter: Orthanc's plugin of 2022 decodes nothing.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/').remove(b':').remove(b'@');

const QUERY: &str = "a query (QIDO-RS)";
const RETRIEVAL: &str = "a retrieval (WADO-RS)";

impl Source {
    /// Studies of an accession number, or the one of a UID, as the server answers.
    pub(super) fn find_on_web(&self, url: &str, sought: &Sought, most: usize) -> Result<Vec<StudyMatch>, SourceError> {
        let (key, value) = match sought {
            Sought::Accession(number) => ("AccessionNumber", encoded(number)),
            Sought::Study(uid) => ("StudyInstanceUID", uid.clone()),
        };
        let fields = "includefield=AccessionNumber&includefield=NumberOfStudyRelatedInstances&includefield=ModalitiesInStudy";
        let answer = self.query(&format!("{url}/studies?{key}={value}&limit={most}&{fields}"))?;
        answer.map_or(Ok(Vec::new()), |json| StudyMatch::read_json(&json).map_err(unreadable))
    }

    /// The series of a study.
    pub(super) fn series_on_web(&self, url: &str, study_uid: &str) -> Result<Vec<SeriesMatch>, SourceError> {
        let answer = self.query(&format!("{url}/studies/{study_uid}/series?includefield=NumberOfSeriesRelatedInstances"))?;
        answer.map_or(Ok(Vec::new()), |json| SeriesMatch::read_json(&json).map_err(unreadable))
    }

    /// None where nothing matches.
    fn query(&self, url: &str) -> Result<Option<Vec<u8>>, SourceError> {
        let mut response = self.get(url, "application/dicom+json")?;
        match response.status().as_u16() {
            200 => {
                let answer = response.body_mut().with_config().limit(MAX_ANSWER).read_to_vec();
                answer.map(Some).map_err(|error| SourceError::Http { what: error.to_string() })
            }
            204 => Ok(None),
            status => Err(SourceError::HttpStatus { what: QUERY, status }),
        }
    }

    fn get(&self, url: &str, accept: &str) -> Result<Response<Body>, SourceError> {
        let agent = self.agent.as_ref().expect("a source with a URL has an agent");
        let request = agent.get(url).header("Accept", accept);
        let token = self.config.token_file.as_ref().map(fs::read_to_string).transpose();
        let token = token.map_err(|source| SourceError::Io { what: "read the token", source })?;
        let request = match token {
            Some(token) => request.header("Authorization", format!("Bearer {}", token.trim())),
            None => request,
        };
        // Its message may hold the address, and with it an accession number.
        request.call().map_err(|error| SourceError::Http { what: error.to_string().replace(url, "the address") })
    }
}

/// The part that comes.
enum Part<'s> {
    /// Its file meta group is not there yet.
    Beginning(Vec<u8>),
    DataSet(Box<Receiving<'s>>),
    /// It is passed over.
    Refused,
}

impl Fetcher<'_> {
    /// Brings a study here.
    pub(super) fn retrieve_from_web(&self, url: &str, study: &FoundStudy, go_on: &dyn Fn() -> bool) -> Result<(), SourceError> {
        let wrong = |problem: &str| SourceError::Answer { what: RETRIEVAL, problem: problem.to_owned() };
        let accept = "multipart/related; type=\"application/dicom\"; transfer-syntax=*";
        let mut response = self.source.get(&format!("{url}/studies/{}", study.study_uid), accept)?;
        match response.status().as_u16() {
            200 => {}
            status => return Err(SourceError::HttpStatus { what: RETRIEVAL, status }),
        }
        let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).and_then(boundary);
        let mut multipart = Multipart::new(kind.ok_or_else(|| wrong("it is no multipart/related of application/dicom"))?);
        let mut body = response.body_mut().as_reader();
        let seconds = self.source.config.study_s;
        let until = Instant::now() + Duration::from_secs(seconds);
        let (mut part, mut parts, mut failed) = (Part::Refused, 0, None);
        let mut piece = vec![0; PIECE];
        loop {
            if !go_on() || Instant::now() > until {
                return Err(SourceError::Ended { seconds });
            }
            let count = body.read(&mut piece).map_err(|error| SourceError::Http { what: error.to_string() })?;
            if count == 0 {
                break;
            }
            let taken = multipart.push(&piece[..count], |event| match event {
                Event::Part(_) => {
                    parts += 1;
                    part = Part::Beginning(Vec::new());
                }
                Event::Data(data) => failed = data_of(&self.store, &mut part, data, study).err().or(failed.take()),
                Event::End => {
                    if let Part::DataSet(receiving) = std::mem::replace(&mut part, Part::Refused) {
                        failed = receiving.finish().err().or(failed.take());
                    }
                }
            });
            taken.map_err(|malformed| wrong(malformed.0))?;
            if parts > MAX_PARTS {
                return Err(wrong("it has too many parts"));
            }
        }
        match failed {
            // What cannot be kept now; what is wrong with an instance shows when they are counted.
            Some(error @ (StoreError::Full { .. } | StoreError::Io(_) | StoreError::Database(_) | StoreError::Lookup(_))) => {
                Err(error.into())
            }
            _ if !multipart.is_closed() => Err(SourceError::Http { what: "the answer was cut off".to_owned() }),
            _ => Ok(()),
        }
    }
}

/// The next bytes of a part.
fn data_of<'s>(store: &'s Store, part: &mut Part<'s>, data: &[u8], study: &FoundStudy) -> Result<(), StoreError> {
    match part {
        Part::Refused => {}
        Part::DataSet(receiving) => receiving.write(data),
        Part::Beginning(bytes) => {
            bytes.extend_from_slice(data);
            match beginning(bytes) {
                Beginning::Unknown => {}
                Beginning::NotDicom => *part = Part::Refused,
                Beginning::Known { sop_class_uid, sop_instance_uid, transfer_syntax_uid, data_set } => {
                    let rest = bytes.split_off(data_set);
                    *part = Part::Refused;
                    if classes::is_storage(&sop_class_uid, false) && is_decodable(&transfer_syntax_uid) {
                        let study_uid = Some(study.study_uid.clone());
                        let calling = CALLING.to_owned();
                        let announced =
                            Announced { sop_class_uid, sop_instance_uid, transfer_syntax_uid, calling, study_uid, asked: false };
                        let mut receiving = store.receive(announced)?;
                        receiving.write(&rest);
                        *part = Part::DataSet(Box::new(receiving));
                    }
                }
            }
        }
    }
    Ok(())
}

fn unreadable(error: crate::dataset::DatasetError) -> SourceError {
    SourceError::Answer { what: QUERY, problem: error.to_string() }
}

/// For the value of a parameter (RFC 3986 3.4).
fn encoded(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_a_url_is_encoded() {
        assert_eq!(encoded("A 1/2&x=~3"), "A%201/2%26x%3D~3");
    }
}
