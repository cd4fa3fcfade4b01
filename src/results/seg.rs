//! The Segmentation (PS3.3 A.51, C.8.20): one bit a voxel and segment, on the grid of the source.

use super::bits::pack_frames;
use super::colour::cielab_from_srgb;
use super::envelope::{ResultObject, SEGMENTATION, envelope, known, reference_to, reference_to_frame, source_header};
use super::segments::{Segment, Segments};
use super::{Context, Object, ResultsError, SEG_FILE};
use crate::codes::{dcm, uid_by_name};
use crate::dataset::{Item, tags};
use crate::findings::{Findings, Provenance};
use crate::geometry::{cross, dot, norm};

/// The Segmentation of the present findings; none where nothing is there to segment.
///
/// Only frames with voxels are written, segment by segment in slice order. Positions, orientation and spacing are the source's strings.
///
/// # Errors
/// Where findings and label map contradict each other (see [`ResultsError`]).
pub fn segmentation(findings: &Findings) -> Result<Option<Item>, ResultsError> {
    Ok(segmentation_of(findings, &Segments::for_objects(findings)?))
}

pub(super) fn objects(context: &Context<'_>) -> Vec<Object> {
    let reference = ResultObject::of(context.findings, &SEGMENTATION);
    let object = segmentation_of(context.findings, &context.segments);
    object.map(|data| Object { file: SEG_FILE.into(), reference, data }).into_iter().collect()
}

fn segmentation_of(findings: &Findings, segments: &Segments<'_>) -> Option<Item> {
    if segments.all().is_empty() {
        return None;
    }
    let object = ResultObject::of(findings, &SEGMENTATION);
    let grid = findings.labels.grid();
    let header = source_header(findings);
    let planes: Vec<Plane<'_>> =
        segments.all().iter().flat_map(|segment| segment.frames.iter().map(move |&n| Plane { segment, n })).collect();
    let packed: Vec<(u32, u8)> = planes.iter().map(|plane| (plane.n, plane.segment.label)).collect();
    let bits = pack_frames(grid.slice_voxels(), &packed, |n| findings.labels.slice(findings.source.slice_of_frame[n as usize] as usize));
    let used = frames_in_use(&packed);

    let item = envelope(findings, &object)
        .texts(tags::IMAGE_TYPE, &["DERIVED", "PRIMARY"])
        .copied(tags::BODY_PART_EXAMINED, header)
        .copied(tags::LATERALITY, header)
        .text(tags::FRAME_OF_REFERENCE_UID, &findings.source.instances[0].frame_of_reference_uid)
        .copied_or_empty(tags::POSITION_REFERENCE_INDICATOR, header)
        .text(tags::CONTENT_LABEL, &content_label(&findings.provenance.package.name))
        .text(tags::CONTENT_DESCRIPTION, &format!("AI segmentation by {}", findings.provenance.package.name))
        .text(tags::CONTENT_CREATOR_NAME, super::envelope::EQUIPMENT)
        .sequence(tags::REFERENCED_SERIES_SEQUENCE, [referenced_series(findings)])
        .text(tags::SEGMENTATION_TYPE, "BINARY")
        .text(tags::SEGMENTS_OVERLAP, "NO")
        .sequence(tags::SEGMENT_SEQUENCE, segments.all().iter().map(|segment| description(segment, &findings.provenance)))
        .integer(tags::SAMPLES_PER_PIXEL, 1)
        .text(tags::PHOTOMETRIC_INTERPRETATION, "MONOCHROME2")
        .integer(tags::NUMBER_OF_FRAMES, planes.len() as u32)
        .integer(tags::ROWS, grid.dims()[1])
        .integer(tags::COLUMNS, grid.dims()[0])
        .integer(tags::BITS_ALLOCATED, 1)
        .integer(tags::BITS_STORED, 1)
        .integer(tags::HIGH_BIT, 0)
        .integer(tags::PIXEL_REPRESENTATION, 0)
        .with(lossy(findings))
        .with(dimensions(&object))
        .sequence(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE, [shared_groups(findings)])
        .sequence(
            tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE,
            planes.iter().map(|plane| {
                let place = used.binary_search(&plane.n).expect("the source frame of a plane is in use") as u32 + 1;
                frame_groups(findings, plane, place)
            }),
        )
        .bytes(tags::PIXEL_DATA, bits);
    Some(item)
}

/// One bit plane: a segment on a frame of the source.
struct Plane<'a> {
    segment: &'a Segment<'a>,
    n: u32,
}

/// Source frames that some plane lies on, ascending.
fn frames_in_use(planes: &[(u32, u8)]) -> Vec<u32> {
    let mut frames: Vec<u32> = planes.iter().map(|&(n, _)| n).collect();
    frames.sort_unstable();
    frames.dedup();
    frames
}

/// Content Label is a code string: capitals, digits, space and underscore.
fn content_label(package_name: &str) -> String {
    package_name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).take(16).collect()
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

/// Common Instance Reference (PS3.3 C.12.2): the source series with all its instances.
fn referenced_series(findings: &Findings) -> Item {
    Item::new()
        .text(tags::SERIES_INSTANCE_UID, &findings.source.instances[0].series_uid)
        .sequence(tags::REFERENCED_INSTANCE_SEQUENCE, findings.source.instances.iter().map(|instance| reference_to(instance)))
}

/// Once an image was compressed with loss, so are all images made from it (PS3.3 C.7.6.1.1.5).
pub(super) fn lossy(findings: &Findings) -> Item {
    let compressed = findings.source.instances.iter().find(|instance| instance.lossy);
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

/// Frames are ordered by segment, then by position (PS3.3 C.7.6.17).
fn dimensions(object: &ResultObject) -> Item {
    let organization = uid_by_name(&["dimension-organization", &object.sop_instance_uid]);
    let index = |attribute, group, label| {
        Item::new()
            .text(tags::DIMENSION_ORGANIZATION_UID, &organization)
            .pointer(tags::DIMENSION_INDEX_POINTER, attribute)
            .pointer(tags::FUNCTIONAL_GROUP_POINTER, group)
            .text(tags::DIMENSION_DESCRIPTION_LABEL, label)
    };
    Item::new()
        .sequence(tags::DIMENSION_ORGANIZATION_SEQUENCE, [Item::new().text(tags::DIMENSION_ORGANIZATION_UID, &organization)])
        .sequence(
            tags::DIMENSION_INDEX_SEQUENCE,
            [
                index(tags::REFERENCED_SEGMENT_NUMBER, tags::SEGMENT_IDENTIFICATION_SEQUENCE, "Referenced Segment Number"),
                index(tags::IMAGE_POSITION_PATIENT, tags::PLANE_POSITION_SEQUENCE, "Image Position Patient"),
            ],
        )
}

/// Orientation and spacing, the same for all frames.
fn shared_groups(findings: &Findings) -> Item {
    let first = &findings.source.frames[0];
    let copied = |item: Item, tag| match first.texts(tag) {
        values if values.is_empty() => item,
        values => item.decimals_of(tag, &values),
    };
    let measures = copied(copied(Item::new(), tags::PIXEL_SPACING), tags::SLICE_THICKNESS);
    // Unevenly spaced frames have no one distance.
    let even = findings.source.slice_of_frame.iter().zip(0..).all(|(&k, n)| k == n);
    let measures = if even { measures.decimal(tags::SPACING_BETWEEN_SLICES, spacing_along_normal_mm(findings)) } else { measures };
    Item::new()
        .sequence(tags::PLANE_ORIENTATION_SEQUENCE, [copied(Item::new(), tags::IMAGE_ORIENTATION_PATIENT)])
        .sequence(tags::PIXEL_MEASURES_SEQUENCE, [measures])
}

/// Distance of neighbouring slices along their normal, mm: less than that of their corners where the stack is sheared.
fn spacing_along_normal_mm(findings: &Findings) -> f64 {
    let lps_from_voxel = findings.labels.grid().lps_from_voxel();
    let normal = cross(lps_from_voxel.column(0), lps_from_voxel.column(1));
    (dot(lps_from_voxel.column(2), normal) / norm(normal)).abs()
}

/// What differs from frame to frame.
fn frame_groups(findings: &Findings, plane: &Plane<'_>, place: u32) -> Item {
    let source = &findings.source.frames[plane.n as usize];
    let number = plane.segment.number;
    let image = reference_to_frame(source)
        .text(tags::SPATIAL_LOCATIONS_PRESERVED, "YES")
        .code(tags::PURPOSE_OF_REFERENCE_CODE_SEQUENCE, &dcm::SOURCE_IMAGE_FOR_PROCESSING);
    let derivation = Item::new().code(tags::DERIVATION_CODE_SEQUENCE, &dcm::SEGMENTATION).sequence(tags::SOURCE_IMAGE_SEQUENCE, [image]);
    let position = Item::new().decimals_of(tags::IMAGE_POSITION_PATIENT, &source.texts(tags::IMAGE_POSITION_PATIENT));
    Item::new()
        .sequence(tags::FRAME_CONTENT_SEQUENCE, [Item::new().integers(tags::DIMENSION_INDEX_VALUES, &[number, place])])
        .sequence(tags::PLANE_POSITION_SEQUENCE, [position])
        .sequence(tags::SEGMENT_IDENTIFICATION_SEQUENCE, [Item::new().integer(tags::REFERENCED_SEGMENT_NUMBER, number)])
        .sequence(tags::DERIVATION_IMAGE_SEQUENCE, [derivation])
}
