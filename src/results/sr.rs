//! The report: Comprehensive 3D SR (PS3.3 A.35.13) with TID 1500 (PS3.16).

use super::content::{self, Relationship};
use super::envelope::{EQUIPMENT, REPORT, ResultObject, SEGMENTATION, SERIAL_NUMBER, envelope, known, reference_to};
use super::segments::Segments;
use super::{Context, Object, ResultsError, SR_FILE};
use crate::codes::{Code, dcm, other, sct, ucum, uid_by_name};
use crate::dataset::{Item, tags};
use crate::findings::{Finding, Findings, Measurement};

/// The report on all findings, present and absent: "nothing found" is a result too.
///
/// A finding with a segment is a TID 1411 group that refers to it, any other a TID 1501 group with its presence.
///
/// # Errors
/// Where findings and label map contradict each other, or no DICOM series was analysed (see [`ResultsError`]).
pub fn report(findings: &Findings) -> Result<Item, ResultsError> {
    Ok(report_of(findings, &Segments::for_objects(findings)?))
}

pub(super) fn objects(context: &Context<'_>) -> Vec<Object> {
    let reference = ResultObject::of(context.findings, &REPORT);
    vec![Object { file: SR_FILE.into(), reference, data: report_of(context.findings, &context.segments) }]
}

fn report_of(findings: &Findings, segments: &Segments<'_>) -> Item {
    let segmentation = (!segments.all().is_empty()).then(|| ResultObject::of(findings, &SEGMENTATION));
    envelope(findings, &ResultObject::of(findings, &REPORT))
        .empty(tags::REFERENCED_PERFORMED_PROCEDURE_STEP_SEQUENCE)
        .empty(tags::PERFORMED_PROCEDURE_CODE_SEQUENCE)
        .text(tags::COMPLETION_FLAG, "COMPLETE")
        .text(tags::VERIFICATION_FLAG, "UNVERIFIED")
        .text(tags::PRELIMINARY_FLAG, "PRELIMINARY")
        .sequence(tags::CURRENT_REQUESTED_PROCEDURE_EVIDENCE_SEQUENCE, [evidence(findings, segmentation.as_ref())])
        .with(content::root(&dcm::IMAGING_MEASUREMENT_REPORT, "1500", tree(findings, segments, segmentation.as_ref())))
}

/// Every instance that the tree refers to: the image series first, since 3D Slicer takes the first as the reference.
fn evidence(findings: &Findings, segmentation: Option<&ResultObject>) -> Item {
    let series = |uid: &str, instances: Vec<Item>| {
        Item::new().text(tags::SERIES_INSTANCE_UID, uid).sequence(tags::REFERENCED_SOP_SEQUENCE, instances)
    };
    let source = &findings.source.instances;
    let mut all = vec![series(&source[0].series_uid, source.iter().map(|instance| reference_to(instance)).collect())];
    all.extend(segmentation.map(|object| series(&object.series_uid, vec![object.reference()])));
    Item::new().text(tags::STUDY_INSTANCE_UID, &source[0].study_uid).sequence(tags::REFERENCED_SERIES_SEQUENCE, all)
}

/// TID 1500.
fn tree(findings: &Findings, segments: &Segments<'_>, segmentation: Option<&ResultObject>) -> Vec<Item> {
    use Relationship::{Contains, HasConceptMod, HasObsContext};
    let groups = findings.findings.iter().map(|finding| {
        let region = segments.number_of(finding).zip(segmentation);
        group(findings, finding, region)
    });
    vec![
        content::code(HasConceptMod, &dcm::LANGUAGE_OF_CONTENT, &other::ENGLISH),
        content::code(HasObsContext, &dcm::OBSERVER_TYPE, &dcm::DEVICE),
        content::uid_reference(HasObsContext, &dcm::DEVICE_OBSERVER_UID, &uid_by_name(&["device-observer", EQUIPMENT, SERIAL_NUMBER])),
        content::text(HasObsContext, &dcm::DEVICE_OBSERVER_NAME, EQUIPMENT),
        content::text(HasObsContext, &dcm::DEVICE_OBSERVER_MANUFACTURER, EQUIPMENT),
        content::text(HasObsContext, &dcm::DEVICE_OBSERVER_MODEL_NAME, EQUIPMENT),
        content::text(HasObsContext, &dcm::DEVICE_OBSERVER_SERIAL_NUMBER, SERIAL_NUMBER),
        content::code(HasConceptMod, &dcm::PROCEDURE_REPORTED, &procedure(&findings.source.instances[0].modality)),
        content::container(Contains, &dcm::IMAGE_LIBRARY, None, vec![image_library_group(findings)]),
        content::container(Contains, &dcm::IMAGING_MEASUREMENTS, None, groups.collect()),
    ]
}

/// The imaging procedure, as far as the modality alone tells (CID 100).
fn procedure(modality: &str) -> Code {
    match modality {
        "CT" => other::CT_PROCEDURE,
        "MR" => other::MRI_PROCEDURE,
        "PT" => other::PET_PROCEDURE,
        _ => other::IMAGING_PROCEDURE,
    }
}

/// TID 1600: what all images share stands once on the group (TID 1602, 1604), which saves 4 kB an image.
fn image_library_group(findings: &Findings) -> Item {
    use Relationship::{Contains, HasAcqContext};
    let first = &findings.source.instances[0];
    let grid = findings.labels.grid();
    let mut shared = Vec::new();
    let modality = match first.modality.as_str() {
        "CT" => Some(dcm::COMPUTED_TOMOGRAPHY),
        "MR" => Some(dcm::MAGNETIC_RESONANCE),
        "PT" => Some(dcm::POSITRON_EMISSION_TOMOGRAPHY),
        _ => None,
    };
    shared.extend(modality.map(|code| content::code(HasAcqContext, &dcm::MODALITY, &code)));
    shared.push(content::uid_reference(HasAcqContext, &dcm::FRAME_OF_REFERENCE_UID, &first.frame_of_reference_uid));
    let [columns, rows, _] = grid.dims().map(f64::from);
    let [column_mm, row_mm, slice_mm] = grid.spacing_mm();
    // Pixel Spacing is (between rows, between columns): vertical, horizontal.
    let [vertical_mm, horizontal_mm] = first.pixel_spacing_mm.unwrap_or([row_mm, column_mm]);
    let numbers = [
        (&dcm::PIXEL_DATA_ROWS, Some(rows), &ucum::PIXELS),
        (&dcm::PIXEL_DATA_COLUMNS, Some(columns), &ucum::PIXELS),
        (&dcm::HORIZONTAL_PIXEL_SPACING, Some(horizontal_mm), &ucum::MILLIMETRE),
        (&dcm::VERTICAL_PIXEL_SPACING, Some(vertical_mm), &ucum::MILLIMETRE),
        (&dcm::SPACING_BETWEEN_SLICES, Some(slice_mm), &ucum::MILLIMETRE),
        (&dcm::SLICE_THICKNESS, first.slice_thickness_mm, &ucum::MILLIMETRE),
    ];
    for (concept, value, unit) in numbers {
        shared.extend(value.map(|value| content::number(HasAcqContext, concept, Some(value), unit, Vec::new())));
    }
    shared.extend(findings.source.instances.iter().map(|instance| content::image(Contains, None, reference_to(instance))));
    content::container(Contains, &dcm::IMAGE_LIBRARY_GROUP, None, shared)
}

/// TID 1411 for a finding with a segment, TID 1501 for any other; the order of items matters.
fn group(findings: &Findings, finding: &Finding, region: Option<(u32, &ResultObject)>) -> Item {
    use Relationship::{Contains, HasConceptMod, HasObsContext};
    let mut items = vec![
        content::text(HasObsContext, &dcm::TRACKING_IDENTIFIER, known(&finding.name)),
        content::uid_reference(HasObsContext, &dcm::TRACKING_UNIQUE_IDENTIFIER, &finding.tracking_uid),
        content::code(Contains, &sct::FINDING_CATEGORY, &finding.category),
        content::code(Contains, &dcm::FINDING, &finding.finding_type),
    ];
    items.extend(finding.site.as_ref().map(|site| {
        let side = finding.laterality.as_ref().map(|side| content::code(HasConceptMod, &sct::LATERALITY, side));
        content::with_children(content::code(HasConceptMod, &sct::FINDING_SITE, site), side.into_iter().collect())
    }));
    items.extend(algorithm(findings));
    // Numbers of a region that does not exist are none: not 0 ml, and no mean of nothing.
    let has_numbers = finding.present || finding.segment.is_none();
    items.extend(finding.measurements.iter().filter(|_| has_numbers).map(measurement));
    match region {
        Some((number, segmentation)) => {
            let segment = segmentation.reference().integer(tags::REFERENCED_SEGMENT_NUMBER, number);
            let series = &findings.source.instances[0].series_uid;
            items.push(content::image(Contains, Some(&dcm::REFERENCED_SEGMENT), segment));
            items.push(content::uid_reference(Contains, &dcm::SOURCE_SERIES_FOR_SEGMENTATION, series));
            content::container(Contains, &dcm::MEASUREMENT_GROUP, Some("1411"), items)
        }
        None => {
            let presence = if finding.present { &sct::PRESENT } else { &sct::ABSENT };
            items.push(content::code(Contains, &dcm::PRESENCE_OF_PROPERTY, presence));
            content::container(Contains, &dcm::MEASUREMENT_GROUP, Some("1501"), items)
        }
    }
}

/// TID 4019.
fn algorithm(findings: &Findings) -> Vec<Item> {
    use Relationship::HasConceptMod;
    let package = &findings.provenance.package;
    let mut items = vec![
        content::text(HasConceptMod, &dcm::ALGORITHM_NAME, &package.name),
        content::text(HasConceptMod, &dcm::ALGORITHM_VERSION, &package.version_string()),
    ];
    items.extend(super::parameters(&findings.provenance).map(|text| content::text(HasConceptMod, &dcm::ALGORITHM_PARAMETERS, &text)));
    items.push(content::code(HasConceptMod, &dcm::ALGORITHM_FAMILY, &dcm::ARTIFICIAL_INTELLIGENCE));
    items
}

/// TID 300, or a row of TID 1419.
fn measurement(measurement: &Measurement) -> Item {
    let derivation = measurement.derivation.as_ref().map(|code| content::code(Relationship::HasConceptMod, &dcm::DERIVATION, code));
    let value = measurement.value.filter(|value| value.is_finite());
    content::number(Relationship::Contains, &measurement.concept, value, &measurement.unit, derivation.into_iter().collect())
}
