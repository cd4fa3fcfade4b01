//! Observations: a finding, and its numbers and answers as its members.

use serde_json::{Value, json};

use super::value::{self, concept, hl7, quantity, reference, uid};
use super::{Job, Release};
use crate::codes::{Code, dcm, other, sct, ucum};
use crate::findings::{Finding, Measurement};
use crate::results::labels_object;

/// The coordinates of a centre, patient LPS.
const CENTRE: [Code; 3] = [other::CENTRE_LEFT, other::CENTRE_POSTERIOR, other::CENTRE_SUPERIOR];

/// The resources of one finding.
pub(super) struct Made {
    /// Name of the Observation that the report lists.
    pub(super) group: String,
    /// Every resource with its name.
    pub(super) resources: Vec<(String, Value)>,
}

pub(super) fn of_finding(job: &Job<'_>, finding: &Finding) -> Made {
    let urn = |parts: &[&str]| job.urn(&[&[finding.tracking_uid.as_str()], parts].concat());
    let mut resources = Vec::new();
    let mut shared = json!({
        "resourceType": "Observation",
        "meta": { "security": [ai_asserted()] },
        "partOf": [reference(&job.study)],
        "status": "preliminary",
        "subject": reference(&job.patient),
        "effectiveDateTime": job.study_time,
        "issued": job.issued,
        "device": reference(&job.model),
        "derivedFrom": [reference(&job.study)],
    });
    if let Some(structure) = body_structure(job, finding) {
        let name = urn(&["site"]);
        resources.push((name.clone(), with_name(structure, &name)));
        locate(&mut shared, job, finding, Some(&name));
    } else {
        locate(&mut shared, job, finding, None);
    }
    if let Some(selection) = segment(job, finding) {
        let name = urn(&["segment"]);
        resources.push((name.clone(), with_name(selection, &name)));
        shared["derivedFrom"] = json!([reference(&name)]);
    }

    let mut members = Vec::new();
    for (n, measured) in finding.numbers().iter().enumerate() {
        let name = urn(&["number", &n.to_string()]);
        resources.push((name.clone(), with_name(number(&shared, measured), &name)));
        members.push(name);
    }
    for (n, evaluation) in finding.evaluations.iter().enumerate() {
        let name = urn(&["answer", &n.to_string()]);
        let mut answer = shared.clone();
        answer["category"] = json!([imaging()]);
        answer["code"] = concept(&evaluation.question);
        answer["valueCodeableConcept"] = concept(&evaluation.answer);
        resources.push((name.clone(), with_name(answer, &name)));
        members.push(name);
    }

    let name = urn(&["finding"]);
    let mut group = shared;
    let mut tracking = uid(&finding.tracking_uid);
    tracking["type"] = concept(&dcm::TRACKING_UNIQUE_IDENTIFIER);
    group["identifier"] = json!([value::name(&name), tracking]);
    group["category"] = json!([imaging(), concept(&dcm::MEASUREMENT_GROUP), concept(&finding.category)]);
    group["code"] = concept(&finding.finding_type);
    group["code"]["text"] = finding.name.trim().into();
    let presence = if finding.present { sct::PRESENT } else { sct::ABSENT };
    group["valueCodeableConcept"] = concept(&presence);
    group["hasMember"] = members.iter().map(|member| reference(member)).collect();
    let mut components = Vec::new();
    let mut component = |code: &Code, value: Option<f64>, unit: &Code| {
        let (field, value) = quantity(value, unit);
        let mut component = json!({ "code": concept(code) });
        component[field] = value;
        components.push(component);
    };
    if finding.certainty_percent.is_some() {
        component(&finding.certainty_concept(), finding.certainty_percent, &ucum::PERCENT);
    }
    // Of a box or a point: R4 has no resource for a place in the patient.
    for (code, mm) in finding.place.iter().flat_map(|place| CENTRE.into_iter().zip(place.centre_lps_mm)) {
        component(&code, Some(mm), &ucum::MILLIMETRE);
    }
    if !components.is_empty() {
        group["component"] = components.into();
    }
    resources.push((name.clone(), group));
    Made { group: name, resources }
}

/// One number: how it was derived from the voxels is a component.
fn number(shared: &Value, measured: &Measurement) -> Value {
    let mut number = shared.clone();
    number["category"] = json!([imaging()]);
    number["code"] = concept(&measured.concept);
    let (field, value) = quantity(measured.value, &measured.unit);
    number[field] = value;
    number["method"] = measured.method.as_ref().map_or(Value::Null, concept);
    if let Some(derivation) = &measured.derivation {
        number["component"] = json!([{ "code": concept(&dcm::DERIVATION), "valueCodeableConcept": concept(derivation) }]);
    }
    number
}

/// The place in the body of a finding with a side, which a code alone does not tell.
fn body_structure(job: &Job<'_>, finding: &Finding) -> Option<Value> {
    let side = finding.laterality.as_ref()?;
    // A structure is its own site.
    let site = concept(finding.site.as_ref().unwrap_or(&finding.finding_type));
    let mut structure = json!({ "resourceType": "BodyStructure", "patient": reference(&job.patient) });
    match job.release {
        Release::R4 => {
            structure["location"] = site;
            structure["locationQualifier"] = json!([concept(side)]);
        }
        Release::R5 => structure["includedStructure"] = json!([{ "structure": site, "laterality": concept(side) }]),
    }
    Some(structure)
}

/// Site, and side through the BodyStructure: in R5 one or the other, in R4 an extension of the site.
fn locate(observation: &mut Value, job: &Job<'_>, finding: &Finding, structure: Option<&str>) {
    match (job.release, structure, &finding.site) {
        (Release::R5, Some(structure), _) => observation["bodyStructure"] = reference(structure),
        (Release::R4, Some(structure), site) => {
            let mut body_site = concept(site.as_ref().unwrap_or(&finding.finding_type));
            let side = finding.laterality.as_ref().map_or("", |side| side.meaning.as_ref());
            body_site["text"] = format!("{}, {}", body_site["text"].as_str().unwrap_or_default(), side.to_lowercase()).into();
            body_site["extension"] =
                json!([{ "url": "http://hl7.org/fhir/StructureDefinition/bodySite", "valueReference": reference(structure) }]);
            observation["bodySite"] = body_site;
        }
        (_, None, Some(site)) => observation["bodySite"] = concept(site),
        (_, None, None) => {}
    }
}

/// The segment in its object (R5): R4 has no resource for a part of an instance, and the tracking UID leads there.
fn segment(job: &Job<'_>, finding: &Finding) -> Option<Value> {
    let number = job.context.segments.number_of(finding).filter(|_| job.release == Release::R5)?;
    let object = labels_object(job.context).filter(|object| job.written(object))?;
    Some(json!({
        "resourceType": "ImagingSelection",
        "status": "available",
        "subject": reference(&job.patient),
        "issued": job.issued,
        "code": concept(&dcm::REFERENCED_SEGMENT),
        "studyUid": job.findings.source.instances[0].study_uid,
        "derivedFrom": [reference(&job.study)],
        "seriesUid": object.series_uid,
        "frameOfReferenceUid": job.findings.source.instances[0].frame_of_reference_uid,
        "instance": [{
            "uid": object.sop_instance_uid,
            "sopClass": value::sop_class(object.sop_class_uid),
            "subset": [number.to_string()],
        }],
    }))
}

fn with_name(mut resource: Value, name: &str) -> Value {
    resource["identifier"] = json!([value::name(name)]);
    resource
}

fn imaging() -> Value {
    hl7("observation-category", "imaging", "Imaging")
}

/// Security label of what an AI says.
pub(super) fn ai_asserted() -> Value {
    hl7("v3-ObservationValue", "AIAST", "Artificial Intelligence asserted")["coding"][0].clone()
}
