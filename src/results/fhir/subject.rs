//! Patient and ImagingStudy: whom and what the findings are about.

use dicom::object::InMemDicomObject;
use serde_json::{Value, json};

use super::value::{self, DICOM_UID, date, hl7, reference, uid};
use super::{Job, Release};
use crate::codes::{is_uid, urn_by_name};
use crate::dataset::{Attributes, Instance, decoded_text, items, tags};
use crate::findings::Findings;

/// Name of the patient's resource: the same for what the source says of one patient. Where it has no ID, each study has a patient of its own.
pub(super) fn patient_urn(findings: &Findings, header: &InMemDicomObject) -> String {
    let first = &findings.source.instances[0];
    let texts =
        [tags::PATIENT_ID, tags::ISSUER_OF_PATIENT_ID, tags::PATIENT_BIRTH_DATE, tags::PATIENT_SEX].map(|tag| decoded_text(header, tag));
    let [id, issuer, birth, sex] = &texts;
    if id.is_empty() {
        return urn_by_name(&["fhir-patient-of-study", &first.study_uid]);
    }
    urn_by_name(&["fhir-patient", &first.patient_key, id, issuer, birth, sex])
}

pub(super) fn patient(job: &Job<'_>) -> Value {
    let text = |tag| decoded_text(job.header, tag);
    let system = issuer(job.header);
    let id = text(tags::PATIENT_ID);
    let stated = json!({ "system": system, "value": id, "assigner": { "display": text(tags::ISSUER_OF_PATIENT_ID) } });
    let identifiers = match (id.is_empty(), system.is_some()) {
        (true, _) => json!([value::name(&job.patient)]),
        (false, true) => json!([stated]),
        (false, false) => json!([value::name(&job.patient), stated]),
    };
    let gender = match text(tags::PATIENT_SEX).as_str() {
        "M" => Some("male"),
        "F" => Some("female"),
        "O" => Some("other"),
        _ => None,
    };
    json!({
        "resourceType": "Patient",
        "identifier": identifiers,
        "name": names(&text(tags::PATIENT_NAME)),
        "gender": gender,
        "birthDate": date(&text(tags::PATIENT_BIRTH_DATE)),
    })
}

/// Who gave the Patient ID, as a URI (PS3.3 table 10-17, Universal Entity ID).
fn issuer(header: &InMemDicomObject) -> Option<String> {
    let qualifiers = items(header, tags::ISSUER_OF_PATIENT_ID_QUALIFIERS_SEQUENCE).first()?;
    let id = qualifiers.text(tags::UNIVERSAL_ENTITY_ID);
    match qualifiers.text(tags::UNIVERSAL_ENTITY_ID_TYPE).as_str() {
        "ISO" if is_uid(&id) => Some(format!("urn:oid:{id}")),
        "URI" if id.contains(':') && !id.contains(char::is_whitespace) => Some(id),
        _ => None,
    }
}

/// A name (PN) in each way that it is written: alphabetic, ideographic, phonetic (PS3.5 6.2.1).
fn names(text: &str) -> Vec<Value> {
    let groups: Vec<&str> = text.split('=').take(3).collect();
    let several = groups.iter().filter(|group| !is_blank(group)).count() > 1;
    let name = |(group, way): (&&str, &str)| {
        let parts: Vec<&str> = group.split('^').map(str::trim).collect();
        let part = |n: usize| parts.get(n).copied().unwrap_or_default();
        let shown: Vec<&str> = [3, 1, 2, 0, 4].map(part).into_iter().filter(|part| !part.is_empty()).collect();
        let representation = json!([{ "url": "http://hl7.org/fhir/StructureDefinition/iso21090-EN-representation", "valueCode": way }]);
        json!({
            "extension": if several { representation } else { Value::Null },
            "text": shown.join(" "),
            "family": part(0),
            "given": [part(1), part(2)],
            "prefix": [part(3)],
            "suffix": [part(4)],
        })
    };
    groups.iter().zip(["ABC", "IDE", "SYL"]).filter(|(group, _)| !is_blank(group)).map(name).collect()
}

fn is_blank(group: &str) -> bool {
    group.trim_matches(['^', ' ']).is_empty()
}

/// The study with the series that were used and those of the result; it has others, so nothing is counted.
pub(super) fn imaging_study(job: &Job<'_>) -> Value {
    let source = job.findings.source.series();
    let study_uid = &source[0][0].study_uid;
    let instance = |i: &&Instance| {
        let number = i.instance_number.filter(|n| *n >= 0);
        json!({ "uid": i.sop_instance_uid, "sopClass": value::sop_class(&i.sop_class_uid), "number": number })
    };
    let of_source = source.iter().map(|all| {
        let first = all[0];
        (first.series_uid.as_str(), first.modality.as_str(), all.iter().map(instance).collect::<Vec<_>>())
    });
    let mut series: Vec<_> = of_source.collect();
    for (_, object) in job.objects {
        let instance = json!({ "uid": object.sop_instance_uid, "sopClass": value::sop_class(object.sop_class_uid) });
        match series.iter_mut().find(|(uid, _, _)| *uid == object.series_uid) {
            Some((_, _, instances)) => instances.push(instance),
            None => series.push((&object.series_uid, object.modality, vec![instance])),
        }
    }
    let mut modalities: Vec<&str> = Vec::new();
    for (_, modality, _) in &series {
        if !modalities.contains(modality) {
            modalities.push(modality);
        }
    }
    let series = series
        .iter()
        .map(|(uid, modality, instances)| json!({ "uid": uid, "modality": modality_of(job.release, modality), "instance": instances }));
    let accession = decoded_text(job.header, tags::ACCESSION_NUMBER);
    json!({
        "resourceType": "ImagingStudy",
        "identifier": [uid(study_uid), accession_number(&accession)],
        "status": "available",
        "modality": modalities.iter().map(|modality| modality_of(job.release, modality)).collect::<Vec<_>>(),
        "subject": reference(&job.patient),
        "started": job.study_time,
        "series": series.collect::<Vec<_>>(),
    })
}

/// Identifier of the request; nothing without one.
pub(super) fn accession_number(text: &str) -> Value {
    if text.is_empty() {
        return Value::Null;
    }
    json!({ "type": hl7("v2-0203", "ACSN", "Accession ID"), "value": text })
}

fn modality_of(release: Release, modality: &str) -> Value {
    let code = if modality.is_empty() { "OT" } else { modality };
    let coding = json!({ "system": "http://dicom.nema.org/resources/ontology/DCM", "code": code });
    match release {
        Release::R4 => coding,
        Release::R5 => json!({ "coding": [coding] }),
    }
}

/// A logical reference to an earlier report, by UID.
pub(super) fn earlier(sop_instance_uid: &str) -> Value {
    json!({ "identifier": { "system": DICOM_UID, "value": format!("urn:oid:{sop_instance_uid}") } })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[(&str, &[&str], &str)]) {
        let all = value::pruned(json!(names(text)));
        let all = all.as_array().expect("a list");
        assert_eq!(all.len(), expected.len(), "{text}");
        for (name, (family, given, way)) in all.iter().zip(expected) {
            assert_eq!(name["family"].as_str().unwrap_or_default(), *family);
            let found: Vec<&str> = name["given"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            assert_eq!(found, *given);
            assert_eq!(name["extension"][0]["valueCode"].as_str().unwrap_or_default(), *way);
        }
    }

    #[test]
    fn names_in_each_way_of_writing() {
        check("", &[]);
        check("^^^", &[]);
        check("Doe^Jane^Q^Dr^MD", &[("Doe", &["Jane", "Q"], "")]);
        check(
            "Yamada^Tarou=\u{5c71}\u{7530}^\u{592a}\u{90ce}",
            &[("Yamada", &["Tarou"], "ABC"), ("\u{5c71}\u{7530}", &["\u{592a}\u{90ce}"], "IDE")],
        );
        check("=\u{5c71}\u{7530}=", &[("\u{5c71}\u{7530}", &[], "")]);
        let name = value::pruned(json!(names("Doe^Jane^Q^Dr^MD")));
        assert_eq!(name[0]["text"], "Dr Jane Q Doe MD");
    }
}
