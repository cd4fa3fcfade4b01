//! Reports: Comprehensive 3D SR (PS3.3 A.35.13) with TID 1500 (PS3.16), one document for each kind of measurement group.
//!
//! A viewer that knows one kind skips, or worse misreads, documents that mix them (3D Slicer, PixelMed), so regions, images and the study as a
//! whole have documents of their own.

mod group;
mod library;

use std::collections::BTreeMap;

use dicom::core::Tag;

use super::content::{self, Relationship};
use super::envelope::{EQUIPMENT, REPORT, ResultObject, SERIAL_NUMBER, Slot, envelope, known, reference, reference_to, source_header};
use super::placed::by_number;
use super::{Context, Object, labels_object, report_object};
use crate::codes::{Code, dcm, other, sop_class, uid_by_name};
use crate::dataset::{Instance, Item, codes, tags};
use crate::findings::{Finding, Findings, Predecessor};

pub(super) const STUDY_REPORT: Slot =
    Slot { name: "sr-study", sop_class_uid: sop_class::COMPREHENSIVE_3D_SR, modality: "SR", kind: "report of the study", place: 2 };
const OUTLINE_REPORT: Slot =
    Slot { name: "sr-outlines", sop_class_uid: sop_class::COMPREHENSIVE_3D_SR, modality: "SR", kind: "report with outlines", place: 3 };

/// The report on findings with a segment or a place (TID 1411), and that on all others, the absent ones too (TID 1501): "nothing found" is a
/// result.
///
/// A group refers to its segment in the Segmentation, or in the Label Map Segmentation where only that is written. Where neither is, there is
/// nothing to refer to, and the numbers stand in the report on the study.
pub(super) fn objects(context: &Context<'_>) -> Vec<Object<'static>> {
    let findings = context.findings;
    let labels = labels_object(context);
    let (mut of_regions, mut of_study) = (Vec::new(), Vec::new());
    for finding in &findings.findings {
        match context.segments.number_of(finding).zip(labels.as_ref()) {
            Some((number, labels)) => of_regions.push(group::of_region(findings, finding, number, labels)),
            None if stands_in_space(findings, finding) => {
                of_regions.extend(finding.place.as_ref().map(|place| group::of_place(findings, finding, place)));
            }
            None => of_study.push(group::of_study(findings, finding)),
        }
    }
    let all = findings.source.series();
    let [of_regions_under, of_study_under] = [&REPORT, &STUDY_REPORT].map(|slot| report_object(context, slot));
    let regions = Document { reference: of_regions_under, file: super::SR_FILE, series: all.clone(), labels, groups: of_regions };
    let study = Document { reference: of_study_under, file: super::STUDY_SR_FILE, series: all, labels: None, groups: of_study };
    [regions, study].into_iter().filter(|document| !document.groups.is_empty()).map(|document| document.written(findings)).collect()
}

/// Whether a finding is a box or a point in the patient: it stands in the report on regions, whatever else is written.
pub(super) fn stands_in_space(findings: &Findings, finding: &Finding) -> bool {
    finding.present && finding.place.is_some() && findings.source.lies_in_patient()
}

/// The report with an outline of each segment, box and point on its key image (TID 1410).
pub(super) fn outlines(context: &Context<'_>) -> Vec<Object<'static>> {
    let findings = context.findings;
    let mut instances: Vec<&Instance> = Vec::new();
    let mut groups = Vec::new();
    for image in &context.key_images {
        let frame = &findings.source.frames[image.frame as usize];
        if !instances.iter().any(|seen| seen.sop_instance_uid == frame.instance.sop_instance_uid) {
            instances.push(&frame.instance);
        }
        let segments = image.segments.iter().filter_map(|&number| context.segments.by_number(number));
        groups.extend(segments.map(|segment| group::of_image(findings, segment, image, frame)));
        let placed = image.placed.iter().filter_map(|&number| by_number(findings, number));
        groups.extend(placed.map(|placed| group::of_place_on(findings, &placed, image, frame)));
    }
    let reference = ResultObject::of(findings, &OUTLINE_REPORT);
    let document = Document { reference, file: super::OUTLINES_SR_FILE, series: vec![instances], labels: None, groups };
    if document.groups.is_empty() { Vec::new() } else { vec![document.written(findings)] }
}

/// One report.
struct Document<'a> {
    reference: ResultObject,
    file: &'a str,
    /// The images that it is about, series by series.
    series: Vec<Vec<&'a Instance>>,
    /// What its groups refer to.
    labels: Option<ResultObject>,
    groups: Vec<Item>,
}

impl Document<'_> {
    fn written(self, findings: &Findings) -> Object<'static> {
        let (file, reference) = (self.file, self.reference.clone());
        let data = envelope(findings, &reference)
            .empty(tags::REFERENCED_PERFORMED_PROCEDURE_STEP_SEQUENCE)
            .empty(tags::PERFORMED_PROCEDURE_CODE_SEQUENCE)
            .text(tags::COMPLETION_FLAG, "COMPLETE")
            .text(tags::VERIFICATION_FLAG, "UNVERIFIED")
            .text(tags::PRELIMINARY_FLAG, "PRELIMINARY")
            .sequence(tags::CURRENT_REQUESTED_PROCEDURE_EVIDENCE_SEQUENCE, [self.evidence()])
            .with(referred(tags::PERTINENT_OTHER_EVIDENCE_SEQUENCE, &findings.priors.instances))
            .with(referred(tags::PREDECESSOR_DOCUMENTS_SEQUENCE, &findings.predecessors))
            .with(content::root(&dcm::IMAGING_MEASUREMENT_REPORT, "1500", self.tree(findings)));
        Object::new(file, reference, data)
    }

    /// Every instance that the tree refers to: the image series first, since 3D Slicer takes the first as the reference.
    fn evidence(&self) -> Item {
        let images = self.series.iter().map(|instances| {
            (instances[0].series_uid.as_str(), instances.iter().map(|instance| reference_to(instance)).collect::<Vec<_>>())
        });
        let labels = self.labels.as_ref().map(|object| (object.series_uid.as_str(), vec![object.reference()]));
        references(&self.series[0][0].study_uid, images.chain(labels))
    }

    /// TID 1500.
    fn tree(self, findings: &Findings) -> Vec<Item> {
        use Relationship::{Contains, HasConceptMod};
        let mut items = vec![content::code(HasConceptMod, &dcm::LANGUAGE_OF_CONTENT, &other::ENGLISH)];
        items.extend(observer());
        items.push(procedure(findings));
        items.push(content::container(Contains, &dcm::IMAGE_LIBRARY, None, library::groups(findings, &self.series)));
        items.push(content::container(Contains, &dcm::IMAGING_MEASUREMENTS, None, self.groups));
        items
    }
}

/// This program as the observer (TID 1002, 1004).
pub(super) fn observer() -> Vec<Item> {
    use Relationship::HasObsContext;
    vec![
        content::code(HasObsContext, &dcm::OBSERVER_TYPE, &dcm::DEVICE),
        content::uid_reference(HasObsContext, &dcm::DEVICE_OBSERVER_UID, &uid_by_name(&["device-observer", EQUIPMENT, SERIAL_NUMBER])),
        content::text(HasObsContext, &dcm::DEVICE_OBSERVER_NAME, EQUIPMENT),
        content::text(HasObsContext, &dcm::DEVICE_OBSERVER_MANUFACTURER, EQUIPMENT),
        content::text(HasObsContext, &dcm::DEVICE_OBSERVER_MODEL_NAME, EQUIPMENT),
        content::text(HasObsContext, &dcm::DEVICE_OBSERVER_SERIAL_NUMBER, SERIAL_NUMBER),
    ]
}

/// The imaging procedure (CID 100): the source's own code where it has one of a public scheme, else as far as the modality alone tells.
fn procedure(findings: &Findings) -> Item {
    let usable = |code: &Code| {
        // What we write is ASCII.
        let is_text = |text: &str| !text.is_empty() && text.is_ascii();
        ["SCT", "LN", "RADLEX"].contains(&code.scheme.as_ref()) && is_text(&code.value) && is_text(&code.meaning)
    };
    match codes(source_header(findings), tags::PROCEDURE_CODE_SEQUENCE).into_iter().next().filter(usable) {
        Some(code) => content::code(Relationship::HasConceptMod, &dcm::PROCEDURE_REPORTED, &code),
        None => {
            let by_modality = match findings.source.instances[0].modality.as_str() {
                "CT" => other::CT_PROCEDURE,
                "MR" => other::MRI_PROCEDURE,
                "PT" => other::PET_PROCEDURE,
                _ => other::IMAGING_PROCEDURE,
            };
            content::code(Relationship::HasConceptMod, &dcm::PROCEDURE_REPORTED, &by_modality)
        }
    }
}

/// The earlier reports that this one replaces, the earlier studies that go with it (C.17.2): study by study and series by series.
fn referred(sequence: Tag, all: &[Predecessor]) -> Item {
    let mut studies: BTreeMap<&str, BTreeMap<&str, Vec<Item>>> = BTreeMap::new();
    for one in all {
        let series = studies.entry(&one.study_instance_uid).or_default().entry(&one.series_instance_uid).or_default();
        series.push(reference(&one.sop_class_uid, &one.sop_instance_uid));
    }
    if studies.is_empty() {
        return Item::new();
    }
    Item::new().sequence(sequence, studies.into_iter().map(|(study, series)| references(study, series)))
}

/// Instances of a study, series by series (hierarchical SOP instance reference, PS3.3 table C.17-3).
pub(super) fn references<'a>(study_uid: &str, series: impl IntoIterator<Item = (&'a str, Vec<Item>)>) -> Item {
    let of_series = |(uid, instances): (&str, Vec<Item>)| {
        Item::new().text(tags::SERIES_INSTANCE_UID, uid).sequence(tags::REFERENCED_SOP_SEQUENCE, instances)
    };
    let series = series.into_iter().map(of_series);
    Item::new().text(tags::STUDY_INSTANCE_UID, study_uid).sequence(tags::REFERENCED_SERIES_SEQUENCE, series)
}
