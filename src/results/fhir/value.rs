//! Data types of FHIR: codes, quantities, identifiers, times.

use dicom::object::InMemDicomObject;
use jiff::ZonedDateTime;
use jiff::civil::{Date, Time};
use serde_json::{Value, json};

use crate::codes::{Code, uid_by_name};
use crate::dataset::{Attributes, tags};
use crate::results::envelope::offset_from_utc;

/// System of DICOM UIDs; values are `urn:oid:`.
pub(super) const DICOM_UID: &str = "urn:dicom:uid";
/// System of URIs.
const URI: &str = "urn:ietf:rfc:3986";

/// A name of ours as an identifier.
pub(super) fn name(urn: &str) -> Value {
    json!({ "system": URI, "value": urn })
}

/// A UID as an identifier.
pub(super) fn uid(uid: &str) -> Value {
    json!({ "system": DICOM_UID, "value": format!("urn:oid:{uid}") })
}

/// A SOP class.
pub(super) fn sop_class(uid: &str) -> Value {
    json!({ "system": URI, "code": format!("urn:oid:{uid}") })
}

pub(super) fn reference(urn: &str) -> Value {
    json!({ "reference": urn })
}

/// A code of a system that FHIR names itself.
pub(super) fn hl7(system: &str, code: &str, display: &str) -> Value {
    let system = format!("http://terminology.hl7.org/CodeSystem/{system}");
    json!({ "coding": [{ "system": system, "code": code, "display": display }] })
}

pub(super) fn coding(code: &Code) -> Value {
    let display = Some(code.meaning.trim()).filter(|text| !text.is_empty());
    json!({ "system": system(&code.scheme), "code": code.value.trim(), "display": display })
}

pub(super) fn concept(code: &Code) -> Value {
    let text = Some(code.meaning.trim()).filter(|text| !text.is_empty());
    json!({ "coding": [coding(code)], "text": text })
}

/// URI of a coding scheme (PS3.16 table 8-1 and HL7's terminology); private ones get a name of ours.
fn system(scheme: &str) -> Option<String> {
    let uri = match scheme {
        "SCT" => "http://snomed.info/sct",
        "DCM" => "http://dicom.nema.org/resources/ontology/DCM",
        "LN" => "http://loinc.org",
        "UCUM" => "http://unitsofmeasure.org",
        "RADLEX" => "http://www.radlex.org",
        "FMA" => "urn:oid:2.16.840.1.113883.6.119",
        "NCIt" => "http://ncicb.nci.nih.gov/xml/owl/EVS/Thesaurus.owl",
        "UMLS" => "http://www.nlm.nih.gov/research/umls",
        "IBSI" => "urn:oid:1.2.840.10008.2.16.13",
        private if private.starts_with("99") => return Some(format!("urn:oid:{}", uid_by_name(&["coding-scheme", private]))),
        _ => return None,
    };
    Some(uri.to_owned())
}

/// A number with its unit; the reason why there is none, in its place, as a field of an Observation.
pub(super) fn quantity(value: Option<f64>, unit: &Code) -> (&'static str, Value) {
    match value.filter(|value| value.is_finite()) {
        Some(value) => (
            "valueQuantity",
            json!({ "value": value, "unit": unit.meaning.trim(), "system": system(&unit.scheme), "code": unit.value.trim() }),
        ),
        None => {
            let reason = hl7("data-absent-reason", "error", "Error");
            let failure = coding(&crate::codes::dcm::MEASUREMENT_FAILURE);
            ("dataAbsentReason", json!({ "coding": [reason["coding"][0], failure] }))
        }
    }
}

/// RFC 3339 with seconds.
pub(super) fn instant(time: &ZonedDateTime) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
}

/// A date (DA) as FHIR writes it; none where it is no day.
pub(super) fn date(text: &str) -> Option<String> {
    day(text).map(|date| date.to_string())
}

fn day(text: &str) -> Option<Date> {
    let digits = Some(text).filter(|text| text.len() == 8 && text.bytes().all(|b| b.is_ascii_digit()))?;
    Date::new(digits[..4].parse().ok()?, digits[4..6].parse().ok()?, digits[6..].parse().ok()?).ok().filter(|date| date.year() > 0)
}

/// Study Date, and Study Time where the source says in which time zone.
pub(super) fn study_time(header: &InMemDicomObject) -> Option<String> {
    let date = day(&header.text(tags::STUDY_DATE))?;
    let time = header.text(tags::STUDY_TIME);
    let part = |at: usize| time.get(at..at + 2).and_then(|two| two.parse::<i8>().ok());
    let clock = || Time::new(part(0)?, part(2)?, part(4)?, 0).ok();
    let zone = || offset_from_utc(&header.text(tags::TIMEZONE_OFFSET_FROM_UTC));
    match clock().zip(zone()) {
        Some((clock, zone)) => {
            let seconds = zone.seconds();
            let (sign, minutes) = (if seconds < 0 { '-' } else { '+' }, seconds.abs() / 60);
            Some(format!("{date}T{clock}{sign}{:02}:{:02}", minutes / 60, minutes % 60))
        }
        None => Some(date.to_string()),
    }
}

/// Without nulls and empty texts, lists and objects, which FHIR's JSON does not have.
pub(super) fn pruned(value: Value) -> Value {
    let is_empty = |value: &Value| match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(all) => all.is_empty(),
        Value::Object(all) => all.is_empty(),
        _ => false,
    };
    match value {
        Value::Array(all) => Value::Array(all.into_iter().map(pruned).filter(|value| !is_empty(value)).collect()),
        Value::Object(all) => all.into_iter().map(|(key, value)| (key, pruned(value))).filter(|(_, value)| !is_empty(value)).collect(),
        other => other,
    }
}

/// A value of a search parameter (RFC 3986): what would end it is percent-encoded, FHIR's own separators escaped.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'.' | b'_' | b'~' | b':' | b'/' => out.push(char::from(byte)),
            b',' | b'|' | b'$' | b'\\' => out += &format!("%5C%{byte:02X}"),
            other => out += &format!("%{other:02X}"),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::Item;

    #[test]
    fn dates() {
        assert_eq!(date("19600229").as_deref(), Some("1960-02-29"));
        for wrong in ["", "19610229", "1960.02.29", "00000101", "196002", "\u{e4}960022"] {
            assert_eq!(date(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_time_needs_its_zone() {
        let study = |time: &str, zone: &str| {
            let item = Item::new().text(tags::STUDY_DATE, "20240305").text(tags::STUDY_TIME, time);
            study_time(&item.text(tags::TIMEZONE_OFFSET_FROM_UTC, zone).into_inner()).expect("the date is one")
        };
        assert_eq!(study("091500", "+0100"), "2024-03-05T09:15:00+01:00");
        assert_eq!(study("091500.25", "-0330"), "2024-03-05T09:15:00-03:30");
        assert_eq!(study("091500", ""), "2024-03-05");
        assert_eq!(study("0915", "+0100"), "2024-03-05");
        assert_eq!(study("996000", "+0100"), "2024-03-05");
    }

    #[test]
    fn search_values_end_where_they_end() {
        assert_eq!(escaped("urn:oid:1.2"), "urn:oid:1.2");
        assert_eq!(escaped("A&b=1|2 \u{e4}"), "A%26b%3D1%5C%7C2%20%C3%A4");
    }
}
