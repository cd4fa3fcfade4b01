//! DiagnosticReport and Provenance: the result as a whole, and where it comes from.

use serde_json::{Value, json};

use super::observation::ai_asserted;
use super::value::{self, hl7, reference, uid};
use super::{Job, Release, subject};
use crate::codes::sop_class;
use crate::dataset::{decoded_text, tags};

pub(super) fn diagnostic_report(job: &Job<'_>, name: &str, groups: &[String]) -> Value {
    let reports = job.objects.iter().filter(|(_, object)| object.sop_class_uid == sop_class::COMPREHENSIVE_3D_SR);
    let identifiers: Vec<Value> = [value::name(name)].into_iter().chain(reports.map(|(_, object)| uid(&object.sop_instance_uid))).collect();
    let accession = subject::accession_number(&decoded_text(job.header, tags::ACCESSION_NUMBER));
    let request = if accession.is_null() { Value::Null } else { json!([{ "type": "ServiceRequest", "identifier": accession }]) };
    let study = match job.release {
        Release::R4 => "imagingStudy",
        Release::R5 => "study",
    };
    json!({
        "resourceType": "DiagnosticReport",
        "meta": { "security": [ai_asserted()] },
        "identifier": identifiers,
        "basedOn": request,
        "status": "preliminary",
        "category": [hl7("v2-0074", "IMG", "Diagnostic Imaging")],
        "code": { "coding": [{ "system": "http://loinc.org", "code": "18748-4", "display": "Diagnostic imaging study" }] },
        "subject": reference(&job.patient),
        "effectiveDateTime": job.study_time,
        "issued": job.issued,
        "result": groups.iter().map(|group| reference(group)).collect::<Vec<_>>(),
        study: [reference(&job.study)],
        "conclusion": conclusion(job),
    })
}

fn conclusion(job: &Job<'_>) -> String {
    let package = &job.findings.provenance.package;
    let names = |present: bool| {
        let names: Vec<&str> = job.findings.findings.iter().filter(|f| f.present == present).map(|f| f.name.trim()).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    };
    format!(
        "AI result of {} {}, not verified by a person. Found: {}. Not found: {}.",
        package.name,
        package.version_string(),
        names(true),
        names(false)
    )
}

pub(super) fn provenance(job: &Job<'_>, report: &str) -> Value {
    let agent =
        |role: &str, display: &str, who: &str| json!({ "type": hl7("provenance-participant-type", role, display), "who": reference(who) });
    let mut entities = vec![json!({ "role": "source", "what": reference(&job.study) })];
    let earlier = job.findings.predecessors.iter().map(|p| subject::earlier(&p.sop_instance_uid));
    entities.extend(earlier.map(|what| json!({ "role": "revision", "what": what })));
    json!({
        "resourceType": "Provenance",
        "target": [reference(report)],
        "recorded": job.issued,
        "activity": hl7("v3-DataOperation", "CREATE", "create"),
        "agent": [agent("author", "Author", &job.model), agent("assembler", "Assembler", &job.node)],
        "entity": entities,
    })
}
