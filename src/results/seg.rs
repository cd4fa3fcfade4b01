//! Segmentations (PS3.3 A.51, C.8.20) on the grid of the source: BINARY with one bit a voxel and segment, LABELMAP with one byte a voxel.

use super::bits::{frames_a_group, pack_group};
use super::colour::cielab_from_srgb;
use super::envelope::{LABEL_MAP, ResultObject, SEGMENTATION, known};
use super::multiframe::{dimensions, frame_groups, image, shared_groups};
use super::segments::{Segment, Segments};
use super::{Context, LABELMAP_FILE, Object, ResultsError, SEG_FILE};
use crate::codes::dcm;
use crate::dataset::{Item, Writable, rle_frame, tags};
use crate::findings::{Findings, Provenance};

/// The Segmentation of the present findings; none where nothing is there to segment.
///
/// Only frames with voxels are written, segment by segment in slice order. Positions, orientation and spacing are the source's strings.
///
/// # Errors
/// Where findings and label map contradict each other (see [`ResultsError`]).
pub fn segmentation(findings: &Findings) -> Result<Option<Writable<'_>>, ResultsError> {
    let segments = Segments::for_objects(findings)?;
    Ok((!segments.all().is_empty()).then(|| binary(findings, &segments, &ResultObject::of(findings, &SEGMENTATION))))
}

/// The BINARY Segmentation.
pub(super) fn objects<'a>(context: &Context<'a>) -> Vec<Object<'a>> {
    if context.segments.all().is_empty() {
        return Vec::new();
    }
    let reference = ResultObject::of(context.findings, &SEGMENTATION);
    let data = binary(context.findings, &context.segments, &reference);
    vec![Object::new(SEG_FILE, reference, data)]
}

/// The Label Map Segmentation.
pub(super) fn label_maps<'a>(context: &Context<'a>) -> Vec<Object<'a>> {
    if context.segments.all().is_empty() {
        return Vec::new();
    }
    let reference = ResultObject::of(context.findings, &LABEL_MAP);
    let data = label_map(context.findings, &context.segments, &reference);
    vec![Object::new(LABELMAP_FILE, reference, data)]
}

/// One bit plane: a segment on a frame of the source.
#[derive(Clone, Copy)]
struct Plane {
    n: u32,
    number: u32,
    label: u8,
}

fn binary<'a>(findings: &'a Findings, segments: &Segments<'_>, object: &ResultObject) -> Writable<'a> {
    let of_segment = |segment: &Segment<'_>| {
        let (number, label) = (segment.number, segment.label);
        segment.frames.iter().map(move |&n| Plane { n, number, label }).collect::<Vec<_>>()
    };
    let planes: Vec<Plane> = segments.all().iter().flat_map(of_segment).collect();
    let used = frames_in_use(segments);
    let count = planes.len();
    let data = header(findings, segments, object, count)
        .text(tags::SEGMENTATION_TYPE, "BINARY")
        .integer(tags::BITS_ALLOCATED, 1)
        .integer(tags::BITS_STORED, 1)
        .integer(tags::HIGH_BIT, 0)
        .with(dimensions(findings, object, true));

    let voxels = findings.labels.grid().slice_voxels();
    let group = frames_a_group(voxels);
    let packed = planes.clone();
    let slice_of = |n: u32| findings.labels.slice(findings.source.slice_of_frame[n as usize] as usize);
    let bits = move |g: usize| {
        let frames = &packed[g * group..packed.len().min((g + 1) * group)];
        pack_group(voxels, frames.iter().map(|plane| (plane.n, plane.label)), slice_of)
    };
    Writable::from(data)
        .frame_groups(count, move |f| {
            let Plane { n, number, .. } = planes[f];
            frame_groups(findings, n, place_of(n, &used), Some(number), &dcm::SEGMENTATION)
        })
        .pixel_data((voxels as u64 * count as u64).div_ceil(8), count.div_ceil(group), bits)
}

/// One frame for each source frame with voxels; the value of a voxel is its Segment Number, 0 without a segment.
fn label_map<'a>(findings: &'a Findings, segments: &Segments<'_>, object: &ResultObject) -> Writable<'a> {
    let used = frames_in_use(segments);
    let count = used.len();
    let data = header(findings, segments, object, count)
        .text(tags::SEGMENTATION_TYPE, "LABELMAP")
        .integer(tags::BITS_ALLOCATED, 8)
        .integer(tags::BITS_STORED, 8)
        .integer(tags::HIGH_BIT, 7)
        .integer(tags::PIXEL_PADDING_VALUE, 0)
        .text(tags::PRESENTATION_LUT_SHAPE, "IDENTITY")
        .with(dimensions(findings, object, false));

    // Labels are 1 to 255 and segments are numbered without gaps, so that a byte holds every number.
    let mut number_of = [0u8; 256];
    segments.all().iter().for_each(|segment| number_of[usize::from(segment.label)] = segment.number as u8);
    let columns = findings.labels.grid().dims()[0] as usize;
    let coded = used.clone();
    let frame = move |f: usize| {
        let slice = findings.labels.slice(findings.source.slice_of_frame[coded[f] as usize] as usize);
        let numbers: Vec<u8> = slice.iter().map(|&label| number_of[usize::from(label)]).collect();
        rle_frame(&numbers, columns)
    };
    let groups = move |f: usize| frame_groups(findings, used[f], f as u32 + 1, None, &dcm::SEGMENTATION);
    Writable::from(data).frame_groups(count, groups).rle(count, frame)
}

/// What both kinds have.
fn header(findings: &Findings, segments: &Segments<'_>, object: &ResultObject, frames: usize) -> Item {
    let package = &findings.provenance.package;
    image(findings, object, &package.name, &format!("AI segmentation by {}", package.name), frames)
        .texts(tags::IMAGE_TYPE, &["DERIVED", "PRIMARY"])
        .text(tags::SEGMENTS_OVERLAP, "NO")
        .sequence(tags::SEGMENT_SEQUENCE, segments.all().iter().map(|segment| description(segment, &findings.provenance)))
        .integer(tags::PIXEL_REPRESENTATION, 0)
        .sequence(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE, [shared_groups(findings)])
}

/// Source frames that some segment has voxels on, ascending.
fn frames_in_use(segments: &Segments<'_>) -> Vec<u32> {
    let mut frames: Vec<u32> = segments.all().iter().flat_map(|segment| segment.frames.iter().copied()).collect();
    frames.sort_unstable();
    frames.dedup();
    frames
}

/// Place of a source frame among those in use, from 1.
fn place_of(n: u32, used: &[u32]) -> u32 {
    used.binary_search(&n).expect("the source frame of a plane is in use") as u32 + 1
}

/// Segment Description Macro (PS3.3 table C.8.20-4).
fn description(segment: &Segment<'_>, provenance: &Provenance) -> Item {
    let finding = segment.finding;
    let package = &provenance.package;
    let mut property_type = Item::of_code(&finding.finding_type);
    if let Some(side) = &finding.laterality {
        property_type = property_type.code(tags::SEGMENTED_PROPERTY_TYPE_MODIFIER_CODE_SEQUENCE, side);
    }
    let parameters: Vec<String> = super::parameters(provenance).collect();
    let algorithm = Item::new()
        .code(tags::ALGORITHM_FAMILY_CODE_SEQUENCE, &dcm::ARTIFICIAL_INTELLIGENCE)
        .text(tags::ALGORITHM_NAME, &package.name)
        .text(tags::ALGORITHM_VERSION, &package.version_string())
        .text(tags::ALGORITHM_SOURCE, known(&package.manufacturer))
        .text(tags::ALGORITHM_PARAMETERS, &parameters.join("\r\n"));
    let item = Item::new()
        .integer(tags::SEGMENT_NUMBER, segment.number)
        .text(tags::SEGMENT_LABEL, &finding.name)
        .text(tags::SEGMENT_ALGORITHM_TYPE, "AUTOMATIC")
        .text(tags::SEGMENT_ALGORITHM_NAME, &package.name)
        .sequence(tags::SEGMENTATION_ALGORITHM_IDENTIFICATION_SEQUENCE, [algorithm])
        .code(tags::SEGMENTED_PROPERTY_CATEGORY_CODE_SEQUENCE, &finding.category)
        .sequence(tags::SEGMENTED_PROPERTY_TYPE_CODE_SEQUENCE, [property_type])
        .text(tags::TRACKING_ID, &finding.name)
        .text(tags::TRACKING_UID, &finding.tracking_uid)
        .integers(tags::RECOMMENDED_DISPLAY_CIE_LAB_VALUE, &cielab_from_srgb(finding.colour));
    // Where it is, unless that is what it is.
    match &finding.site {
        Some(site) if *site != finding.finding_type => item.code(tags::ANATOMIC_REGION_SEQUENCE, site),
        _ => item,
    }
}
