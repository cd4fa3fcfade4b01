//! The findings as a FHIR bundle, for R4 and R5: a transaction that a server takes as it is.
//!
//! Follows HL7's "DICOM SR to FHIR" (a measurement group is an Observation, each of its numbers and answers is one that it has as member) with
//! one difference: the group's code is the finding, and its value whether it is present. There the finding is the value, which reads as found
//! also where the model says that it is absent.
//!
//! 1. Every resource has a name of its own (UUID of the job and the thing, or UID), and is made only where the server has none of that name: a
//!    bundle that is sent twice changes nothing, and nothing that others wrote is changed.
//! 2. A patient is never matched by Patient ID alone, which is unique only within its issuer: by ID and issuer where the source states the issuer
//!    as URI or OID, else by a name that only bundles of ours use.
//! 3. The report is preliminary, and labelled as asserted by an AI.

mod device;
mod observation;
mod report;
mod subject;
mod value;

use dicom::object::InMemDicomObject;
use serde_json::{Value, json};

use super::Context;
use super::envelope::{ResultObject, source_header};
use crate::codes::urn_by_name;
use crate::findings::Findings;

/// Which release of FHIR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Release {
    R4,
    R5,
}

/// What the resources are made from, and how they refer to each other.
struct Job<'a> {
    context: &'a Context<'a>,
    findings: &'a Findings,
    /// The DICOM objects of the result.
    objects: &'a [(String, ResultObject)],
    header: &'a InMemDicomObject,
    release: Release,
    /// When the study began, as far as the source says.
    study_time: Option<String>,
    /// When the analysis began.
    issued: String,
    patient: String,
    study: String,
    model: String,
    node: String,
}

impl Job<'_> {
    /// Name of a resource that only this job has.
    fn urn(&self, parts: &[&str]) -> String {
        let job = self.findings.result_uid("fhir");
        urn_by_name(&[&["fhir", &job], parts].concat())
    }

    /// The object of that SOP Instance UID, where it was written.
    fn written(&self, object: &ResultObject) -> bool {
        self.objects.iter().any(|(_, o)| o.sop_instance_uid == object.sop_instance_uid)
    }
}

/// The bundle as JSON text, UTF-8; none of a researcher's volume, which has neither patient nor study. `objects` are those written beside it.
pub(super) fn bundle_of(context: &Context<'_>, objects: &[(String, ResultObject)], release: Release) -> Option<String> {
    let findings = context.findings;
    if findings.source.file.is_some() {
        return None;
    }
    let header = source_header(findings);
    let study_uid = &findings.source.instances[0].study_uid;
    let job = Job {
        context,
        findings,
        objects,
        header,
        release,
        study_time: value::study_time(header),
        issued: value::instant(&findings.provenance.started),
        patient: subject::patient_urn(findings, header),
        study: urn_by_name(&["fhir-study", study_uid]),
        model: urn_by_name(&["fhir-model", &findings.provenance.package.sha256]),
        node: urn_by_name(&["fhir-node", &findings.provenance.roentgen_version]),
    };
    let mut entries = vec![
        entry(&job.patient, subject::patient(&job)),
        entry(&job.study, subject::imaging_study(&job)),
        entry(&job.node, device::node(&job)),
        entry(&job.model, device::model(&job)),
    ];
    let mut groups = Vec::new();
    for finding in &findings.findings {
        let made = observation::of_finding(&job, finding);
        groups.push(made.group);
        entries.extend(made.resources.into_iter().map(|(urn, resource)| entry(&urn, resource)));
    }
    let report = job.urn(&["report"]);
    entries.push(entry(&report, report::diagnostic_report(&job, &report, &groups)));
    entries.push(entry(&job.urn(&["provenance"]), report::provenance(&job, &report)));
    let bundle = json!({
        "resourceType": "Bundle",
        "identifier": value::name(&job.urn(&["bundle"])),
        "type": "transaction",
        "timestamp": job.issued,
        "entry": entries,
    });
    Some(format!("{bundle:#}\n"))
}

/// An entry that makes the resource where there is none with its first identifier.
fn entry(urn: &str, resource: Value) -> Value {
    let resource = value::pruned(resource);
    let mut request = json!({ "method": "POST", "url": resource["resourceType"] });
    if let (Some(system), Some(value)) = (resource["identifier"][0]["system"].as_str(), resource["identifier"][0]["value"].as_str()) {
        request["ifNoneExist"] = format!("identifier={}|{}", value::escaped(system), value::escaped(value)).into();
    }
    json!({ "fullUrl": urn, "resource": resource, "request": request })
}
