//! Reports: every group is a finding, with its codes, its numbers and what it refers to.

use std::collections::{HashMap, HashSet};

use dicom::core::Tag;
use dicom::object::InMemDicomObject;

use super::{Problems, code, is_code, item, placed};
use crate::codes::{Code, dcm, sct, sop_class};
use crate::dataset::{Attributes, items, tags};
use crate::findings::Finding;
use crate::results::Context;

pub(super) fn check(context: &Context<'_>, header: &InMemDicomObject, known: &HashMap<&str, &str>, problems: &mut Problems) {
    let flags = [
        ("Completion Flag", tags::COMPLETION_FLAG, "COMPLETE"),
        ("Verification Flag", tags::VERIFICATION_FLAG, "UNVERIFIED"),
        ("Preliminary Flag", tags::PRELIMINARY_FLAG, "PRELIMINARY"),
    ];
    for (name, tag, value) in flags {
        problems.unless(header.text(tag) == value, || format!("{name} is not {value}"));
    }
    check_evidence(header, problems);
    let title = code(header, tags::CONCEPT_NAME_CODE_SEQUENCE);
    problems.unless(is_code(title.as_ref(), &dcm::IMAGING_MEASUREMENT_REPORT), || "it has another title".into());
    let measurements = items(header, tags::CONTENT_SEQUENCE).iter().find(|i| is_named(i, &dcm::IMAGING_MEASUREMENTS));
    let groups = measurements.map(|m| items(m, tags::CONTENT_SEQUENCE)).unwrap_or_default();
    problems.unless(!groups.is_empty(), || "it has no measurement group".into());
    let mut seen = HashSet::new();
    for (n, group) in groups.iter().enumerate() {
        let n = n + 1;
        let tracking = child(group, &dcm::TRACKING_UNIQUE_IDENTIFIER).map(|i| i.text(tags::UID)).unwrap_or_default();
        match context.findings.findings.iter().find(|f| f.tracking_uid == tracking) {
            None => problems.add(format!("group {n} is none of the findings")),
            Some(finding) => {
                problems.unless(seen.insert(tracking), || format!("group {n} is a finding that another group is"));
                check_group(context, group, finding, known, &mut |what| problems.add(format!("group {n}: {what}")));
            }
        }
    }
}

fn check_group(
    context: &Context<'_>,
    group: &InMemDicomObject,
    finding: &Finding,
    known: &HashMap<&str, &str>,
    differs: &mut dyn FnMut(&str),
) {
    let template = item(group, tags::CONTENT_TEMPLATE_SEQUENCE).map(|t| t.text(tags::TEMPLATE_IDENTIFIER)).unwrap_or_default();
    let mut is = |what: &str, holds: bool| {
        if !holds {
            differs(what);
        }
    };
    let value = |of: &InMemDicomObject, name: &Code| child(of, name).and_then(|i| code(i, tags::CONCEPT_CODE_SEQUENCE));
    let same = |found: Option<Code>, expected: Option<&Code>| match expected {
        Some(expected) => is_code(found.as_ref(), expected),
        None => found.is_none(),
    };
    is("another finding", same(value(group, &dcm::FINDING), Some(&finding.finding_type)));
    is("another category", same(value(group, &sct::FINDING_CATEGORY), Some(&finding.category)));
    is("another site", same(value(group, &sct::FINDING_SITE), finding.site.as_ref()));
    let side = child(group, &sct::FINDING_SITE).and_then(|site| value(site, &sct::LATERALITY));
    is("another side", same(side, finding.laterality.as_ref().filter(|_| finding.site.is_some())));
    let version = child(group, &dcm::ALGORITHM_VERSION).map(|i| i.text(tags::TEXT_VALUE));
    is("another algorithm version", version.as_deref() == Some(&context.findings.provenance.package.version_string()));
    for evaluation in &finding.evaluations {
        is("another evaluation", same(value(group, &evaluation.question), Some(&evaluation.answer)));
    }

    let numbers: Vec<&InMemDicomObject> =
        items(group, tags::CONTENT_SEQUENCE).iter().filter(|i| i.text(tags::VALUE_TYPE) == "NUM").collect();
    let (certainty, numbers): (Vec<_>, Vec<_>) = numbers.into_iter().partition(|i| is_named(i, &finding.certainty_concept()));
    is("another certainty", certainty.first().and_then(|i| measured(i)) == finding.certainty_percent);
    let presence = value(group, &dcm::PRESENCE_OF_PROPERTY);
    match template.as_str() {
        "1410" if finding.place.is_some() => is("a region elsewhere", placed::is_region(context, group, finding)),
        "1410" => is("no outline", child(group, &dcm::IMAGE_REGION).is_some()),
        "1411" => {
            is("a region of what is absent", finding.present);
            match &finding.place {
                Some(place) => is("a box or a point elsewhere", placed::is_surface(context, group, place)),
                None => is("the wrong segment", refers_to_segment(context, group, finding, known)),
            }
        }
        "1501" => {
            let expected = if finding.present { sct::PRESENT } else { sct::ABSENT };
            is("another presence", is_code(presence.as_ref(), &expected));
        }
        _ => is("an unknown template", false),
    }
    if template != "1410" || finding.place.is_some() {
        let expected = finding.numbers();
        is("another number of numbers", numbers.len() == expected.len());
        for (found, expected) in numbers.iter().zip(expected) {
            is("another measurement", is_named(found, &expected.concept));
            is("another value", measured(found) == expected.value.filter(|v| v.is_finite()));
            is(
                "a decimal string that is not the value",
                decimal(found).is_none_or(|(text, exact)| (text - exact).abs() <= 1e-6 * exact.abs()),
            );
            if expected.value.is_some_and(f64::is_finite) {
                let unit = item(found, tags::MEASURED_VALUE_SEQUENCE).and_then(|m| code(m, tags::MEASUREMENT_UNITS_CODE_SEQUENCE));
                is("another unit", is_code(unit.as_ref(), &expected.unit));
            }
            is("another derivation", same(value(found, &dcm::DERIVATION), expected.derivation.as_ref()));
            is("another method", same(value(found, &sct::MEASUREMENT_METHOD), expected.method.as_ref()));
        }
    }
}

/// Whether the group refers to its finding's segment, in a segmentation of this result.
fn refers_to_segment(context: &Context<'_>, group: &InMemDicomObject, finding: &Finding, known: &HashMap<&str, &str>) -> bool {
    let reference = child(group, &dcm::REFERENCED_SEGMENT).and_then(|i| item(i, tags::REFERENCED_SOP_SEQUENCE));
    let Some(reference) = reference else { return false };
    let class = known.get(reference.text(tags::REFERENCED_SOP_INSTANCE_UID).as_str()).copied();
    let is_segmentation = matches!(class, Some(sop_class::SEGMENTATION | sop_class::LABEL_MAP_SEGMENTATION));
    let number = reference.count(tags::REFERENCED_SEGMENT_NUMBER);
    is_segmentation && context.segments.number_of(finding) == Some(number)
}

/// What the tree refers to is the evidence, no more and no less.
pub(super) fn check_evidence(header: &InMemDicomObject, problems: &mut Problems) {
    fn below(item: &InMemDicomObject, tag: Tag, found: &mut HashSet<String>, depth: usize) {
        for reference in items(item, tag) {
            found.insert(reference.text(tags::REFERENCED_SOP_INSTANCE_UID));
        }
        if depth < 16 {
            items(item, tags::CONTENT_SEQUENCE).iter().for_each(|child| below(child, tag, found, depth + 1));
        }
    }
    let mut referred = HashSet::new();
    below(header, tags::REFERENCED_SOP_SEQUENCE, &mut referred, 0);
    let mut evidence = HashSet::new();
    for study in items(header, tags::CURRENT_REQUESTED_PROCEDURE_EVIDENCE_SEQUENCE) {
        let same_study = study.text(tags::STUDY_INSTANCE_UID) == header.text(tags::STUDY_INSTANCE_UID);
        problems.unless(same_study, || "its evidence is of another study".into());
        for series in items(study, tags::REFERENCED_SERIES_SEQUENCE) {
            below(series, tags::REFERENCED_SOP_SEQUENCE, &mut evidence, 16);
        }
    }
    let (lacking, idle) = (referred.difference(&evidence).count(), evidence.difference(&referred).count());
    problems.unless(lacking == 0 && idle == 0, || format!("its evidence lacks {lacking} references and has {idle} that nothing refers to"));
}

fn is_named(item: &InMemDicomObject, name: &Code) -> bool {
    is_code(code(item, tags::CONCEPT_NAME_CODE_SEQUENCE).as_ref(), name)
}

pub(super) fn child<'a>(of: &'a InMemDicomObject, name: &Code) -> Option<&'a InMemDicomObject> {
    items(of, tags::CONTENT_SEQUENCE).iter().find(|i| is_named(i, name))
}

/// The exact value of a number.
fn measured(item: &InMemDicomObject) -> Option<f64> {
    super::item(item, tags::MEASURED_VALUE_SEQUENCE)?.number(tags::FLOATING_POINT_VALUE)
}

/// Its decimal string, and its exact value.
fn decimal(item: &InMemDicomObject) -> Option<(f64, f64)> {
    let measured = super::item(item, tags::MEASURED_VALUE_SEQUENCE)?;
    Some((measured.number(tags::NUMERIC_VALUE).unwrap_or(f64::NAN), measured.number(tags::FLOATING_POINT_VALUE)?))
}
