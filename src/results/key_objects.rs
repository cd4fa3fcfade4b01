//! The Key Object Selection (PS3.3 A.35.4, PS3.16 TID 2010): the key images, for viewers that list such.

use super::content::{self, Relationship};
use super::envelope::{ResultObject, Slot, envelope, reference_to, reference_to_frame};
use super::placed::placed;
use super::sr::{observer, references};
use super::{Context, KO_FILE, Object};
use crate::codes::{dcm, sop_class};
use crate::dataset::{Frame, Instance, Item, tags};

const KEY_OBJECTS: Slot = Slot { name: "ko", sop_class_uid: sop_class::KEY_OBJECT_SELECTION, modality: "KO", kind: "key images", place: 8 };

/// The selection of the key images; none where nothing was found.
pub(super) fn objects(context: &Context<'_>) -> Vec<Object<'static>> {
    let findings = context.findings;
    let frames: Vec<&Frame> = context.key_images.iter().map(|image| &findings.source.frames[image.frame as usize]).collect();
    if frames.is_empty() {
        return Vec::new();
    }
    let reference = ResultObject::of(findings, &KEY_OBJECTS);
    let mut items = observer();
    items.push(content::text(Relationship::Contains, &dcm::KEY_OBJECT_DESCRIPTION, &description(context)));
    // Without a concept name, as the template has it; one item an image, so that each frame of a multi-frame instance is one.
    items.extend(frames.iter().map(|frame| content::image(Relationship::Contains, None, reference_to_frame(frame))));
    let data = envelope(findings, &reference)
        .empty(tags::REFERENCED_PERFORMED_PROCEDURE_STEP_SEQUENCE)
        .sequence(tags::CURRENT_REQUESTED_PROCEDURE_EVIDENCE_SEQUENCE, [evidence(&frames)])
        .with(content::root(&dcm::OF_INTEREST, "2010", items));
    vec![Object::new(KO_FILE, reference, data)]
}

/// Every instance with a key image, once: evidence knows no frames.
fn evidence(frames: &[&Frame]) -> Item {
    let mut instances: Vec<&Instance> = Vec::new();
    for frame in frames {
        if !instances.iter().any(|seen| seen.sop_instance_uid == frame.instance.sop_instance_uid) {
            instances.push(&frame.instance);
        }
    }
    let images = instances.iter().map(|instance| reference_to(instance)).collect();
    references(&instances[0].study_uid, [(instances[0].series_uid.as_str(), images)])
}

/// What the images show, and who says so.
fn description(context: &Context<'_>) -> String {
    let package = &context.findings.provenance.package;
    let segments = context.segments.all().iter().map(|segment| segment.finding.name.as_str());
    let names: Vec<&str> = segments.chain(placed(context.findings).map(|one| one.finding.name.as_str())).collect();
    format!("Key images of what {} {} found, not verified: {}", package.name, package.version_string(), names.join(", "))
}
