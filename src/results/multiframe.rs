//! What multi-frame results have in common: each frame lies on a frame of the source, with its place and its name (PS3.3 C.7.6.16).

use dicom::object::InMemDicomObject;

use super::envelope::{EQUIPMENT, ResultObject, envelope, reference_to, reference_to_frame, source_header};
use crate::codes::{Code, dcm, uid_by_name};
use crate::dataset::{Attributes, Frame, Item, tags};
use crate::findings::Findings;
use crate::geometry::{cross, dot, norm, sub};
use crate::series::allowed_off_place_mm;

/// All but frames, pixels and what is of one kind of object: the envelope, what the object is called and made from, and its size.
pub(super) fn image(findings: &Findings, object: &ResultObject, label: &str, description: &str, frames: usize) -> Item {
    let header = source_header(findings);
    let grid = findings.labels.grid();
    let item = envelope(findings, object)
        .with(body_part(header))
        .text(tags::CONTENT_LABEL, &content_label(label))
        .text(tags::CONTENT_DESCRIPTION, description)
        .text(tags::CONTENT_CREATOR_NAME, EQUIPMENT)
        .sequence(tags::REFERENCED_SERIES_SEQUENCE, referenced_series(findings))
        .integer(tags::SAMPLES_PER_PIXEL, 1)
        .text(tags::PHOTOMETRIC_INTERPRETATION, "MONOCHROME2")
        .integer(tags::NUMBER_OF_FRAMES, frames as u32)
        .integer(tags::ROWS, grid.dims()[1])
        .integer(tags::COLUMNS, grid.dims()[0])
        .with(lossy(findings));
    if findings.source.lies_in_patient() {
        item.text(tags::FRAME_OF_REFERENCE_UID, &findings.source.instances[0].frame_of_reference_uid)
            .copied_or_empty(tags::POSITION_REFERENCE_INDICATOR, header)
    } else {
        item.copied_or_empty(tags::PATIENT_ORIENTATION, header)
    }
}

/// Body part and side. An empty side beside a body part says that it is paired and nobody knows (C.7.3.1): of a thorax that is wrong.
fn body_part(header: &InMemDicomObject) -> Item {
    let item = Item::new().copied(tags::BODY_PART_EXAMINED, header);
    let is_said = |tag| !header.text(tag).is_empty();
    if is_said(tags::LATERALITY) || !is_said(tags::BODY_PART_EXAMINED) { item.copied(tags::LATERALITY, header) } else { item }
}

/// Content Label is a code string: capitals, digits, space and underscore.
pub(super) fn content_label(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).take(16).collect()
}

/// Common Instance Reference (PS3.3 C.12.2): every source series with all its instances, that of the label map's grid first.
fn referenced_series(findings: &Findings) -> impl Iterator<Item = Item> {
    findings.source.series().into_iter().map(|instances| {
        Item::new()
            .text(tags::SERIES_INSTANCE_UID, &instances[0].series_uid)
            .sequence(tags::REFERENCED_INSTANCE_SEQUENCE, instances.into_iter().map(reference_to))
    })
}

/// Once an image was compressed with loss, so are all images made from it (PS3.3 C.7.6.1.1.5).
pub(super) fn lossy(findings: &Findings) -> Item {
    let compressed = findings.source.series().into_iter().flatten().find(|instance| instance.lossy);
    match compressed {
        None => Item::new().text(tags::LOSSY_IMAGE_COMPRESSION, "00"),
        Some(instance) => {
            let item = Item::new().text(tags::LOSSY_IMAGE_COMPRESSION, "01");
            match instance.header() {
                Ok(header) => item.copied(tags::LOSSY_IMAGE_COMPRESSION_RATIO, header).copied(tags::LOSSY_IMAGE_COMPRESSION_METHOD, header),
                Err(_) => item,
            }
        }
    }
}

/// Frames are ordered by segment, where they are of one, then by place (PS3.3 C.7.6.17). Images that lie nowhere follow each other in time.
pub(super) fn dimensions(findings: &Findings, object: &ResultObject, by_segment: bool) -> Item {
    let organization = uid_by_name(&["dimension-organization", &object.sop_instance_uid]);
    let index = |(attribute, group, label)| {
        Item::new()
            .text(tags::DIMENSION_ORGANIZATION_UID, &organization)
            .pointer(tags::DIMENSION_INDEX_POINTER, attribute)
            .pointer(tags::FUNCTIONAL_GROUP_POINTER, group)
            .text(tags::DIMENSION_DESCRIPTION_LABEL, label)
    };
    let segment = (tags::REFERENCED_SEGMENT_NUMBER, tags::SEGMENT_IDENTIFICATION_SEQUENCE, "Referenced Segment Number");
    let place = if findings.source.lies_in_patient() {
        (tags::IMAGE_POSITION_PATIENT, tags::PLANE_POSITION_SEQUENCE, "Image Position Patient")
    } else {
        (tags::TEMPORAL_POSITION_INDEX, tags::FRAME_CONTENT_SEQUENCE, "Temporal Position Index")
    };
    Item::new()
        .sequence(tags::DIMENSION_ORGANIZATION_SEQUENCE, [Item::new().text(tags::DIMENSION_ORGANIZATION_UID, &organization)])
        .sequence(tags::DIMENSION_INDEX_SEQUENCE, by_segment.then_some(segment).into_iter().chain([place]).map(index))
}

/// Orientation and spacing, the same for all frames: the source's strings.
pub(super) fn shared_groups(findings: &Findings) -> Item {
    let first = &findings.source.frames[0];
    let copied = |item: Item, tag| match first.texts(tag) {
        values if values.is_empty() => item,
        values => item.decimals_of(tag, &values),
    };
    let measures = copied(copied(Item::new(), tags::PIXEL_SPACING), tags::SLICE_THICKNESS);
    if !findings.source.lies_in_patient() {
        let has_spacing = first.pixel_spacing_mm.is_some();
        return if has_spacing { Item::new().sequence(tags::PIXEL_MEASURES_SEQUENCE, [measures]) } else { Item::new() };
    }
    let measures = match spacing_between_slices_mm(findings) {
        Some(spacing_mm) => measures.decimal(tags::SPACING_BETWEEN_SLICES, spacing_mm),
        None => measures,
    };
    Item::new()
        .sequence(tags::PLANE_ORIENTATION_SEQUENCE, [copied(Item::new(), tags::IMAGE_ORIENTATION_PATIENT)])
        .sequence(tags::PIXEL_MEASURES_SEQUENCE, [measures])
}

/// Distance of neighbouring slices along their normal, mm: less than that of their corners where the stack is sheared. None where the
/// frames do not lie at the slices of the grid: unevenly spaced ones have no one distance.
pub(super) fn spacing_between_slices_mm(findings: &Findings) -> Option<f64> {
    let lps_from_voxel = findings.labels.grid().lps_from_voxel();
    let normal = cross(lps_from_voxel.column(0), lps_from_voxel.column(1));
    let spacing_mm = (dot(lps_from_voxel.column(2), normal) / norm(normal)).abs();
    let source = &findings.source;
    let is_in_place = |(n, frame): (usize, &Frame)| {
        let place = lps_from_voxel.apply([0.0, 0.0, n as f64]);
        let off_mm = frame.position_mm.map_or(f64::INFINITY, |position| norm(sub(position, place)));
        source.slice_of_frame[n] as usize == n && off_mm <= allowed_off_place_mm(spacing_mm)
    };
    source.frames.iter().enumerate().all(is_in_place).then_some(spacing_mm)
}

/// What differs from frame to frame: which frame of the source it lies on, where, and by which `derivation` it was made. `segment` is that
/// which it shows, where it shows one; `place` counts the source frames in use from 1.
pub(super) fn frame_groups(findings: &Findings, n: u32, place: u32, segment: Option<u32>, derivation: &Code) -> Item {
    let source = &findings.source.frames[n as usize];
    let image = reference_to_frame(source)
        .text(tags::SPATIAL_LOCATIONS_PRESERVED, "YES")
        .code(tags::PURPOSE_OF_REFERENCE_CODE_SEQUENCE, &dcm::SOURCE_IMAGE_FOR_PROCESSING);
    let derivation = Item::new().code(tags::DERIVATION_CODE_SEQUENCE, derivation).sequence(tags::SOURCE_IMAGE_SEQUENCE, [image]);
    let indices: Vec<u32> = segment.into_iter().chain([place]).collect();
    let content = Item::new().integers(tags::DIMENSION_INDEX_VALUES, &indices);
    let item = Item::new().sequence(tags::DERIVATION_IMAGE_SEQUENCE, [derivation]);
    let item = if findings.source.lies_in_patient() {
        let position = Item::new().decimals_of(tags::IMAGE_POSITION_PATIENT, &source.texts(tags::IMAGE_POSITION_PATIENT));
        item.sequence(tags::FRAME_CONTENT_SEQUENCE, [content]).sequence(tags::PLANE_POSITION_SEQUENCE, [position])
    } else {
        item.sequence(tags::FRAME_CONTENT_SEQUENCE, [content.integer(tags::TEMPORAL_POSITION_INDEX, place)])
    };
    match segment {
        Some(number) => {
            item.sequence(tags::SEGMENT_IDENTIFICATION_SEQUENCE, [Item::new().integer(tags::REFERENCED_SEGMENT_NUMBER, number)])
        }
        None => item,
    }
}
