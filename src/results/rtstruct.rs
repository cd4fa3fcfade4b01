//! The RT Structure Set (PS3.3 A.19): contours of the segments, for planning systems.
//!
//! A contour follows the edges of pixels, not their centres: then its area is that of its pixels, and they are those with their centre inside.
//! Through the centres of the outermost pixels it would be smaller by half a pixel all around.

use rayon::prelude::*;

use super::envelope::{EQUIPMENT, Moment, ResultObject, Slot, envelope, reference, reference_to, reference_to_frame, source_header};
use super::keyhole::contours;
use super::multiframe::spacing_between_slices_mm;
use super::outline::outlines;
use super::segments::Segment;
use super::{Context, Object, RTSTRUCT_FILE};
use crate::codes::{Code, sct, sop_class};
use crate::dataset::{Frame, Item, tags};
use crate::findings::{Finding, Findings};

const STRUCTURE_SET: Slot =
    Slot { name: "rtstruct", sop_class_uid: sop_class::RT_STRUCTURE_SET, modality: "RTSTRUCT", kind: "contours", place: 9 };

/// Bytes of contours that an object has at most: what our own reader takes, and far more than planning systems do.
const MOST_BYTES: usize = 60 << 20;

/// The structure set with a region of interest for each segment; none where [`left_out`] says why, or nothing was found.
pub(super) fn objects(context: &Context<'_>) -> Vec<Object<'static>> {
    match regions(context) {
        Ok(regions) if !regions.is_empty() => vec![structure_set(context, &regions)],
        _ => Vec::new(),
    }
}

/// Why findings with segments have no structure set.
pub(super) fn left_out(context: &Context<'_>) -> Option<String> {
    regions(context).err()
}

/// A segment and its contours.
struct Region<'a> {
    segment: &'a Segment<'a>,
    contours: Vec<Contour<'a>>,
}

/// A closed contour on an image.
struct Contour<'a> {
    frame: &'a Frame,
    plane: Plane,
    path: Vec<[u32; 2]>,
}

/// The contours of all segments; or why there are none.
fn regions<'a>(context: &'a Context<'_>) -> Result<Vec<Region<'a>>, String> {
    let findings = context.findings;
    let planes: Vec<Plane> = findings.source.frames.iter().filter_map(Plane::of).collect();
    if findings.source.instances[0].frame_of_reference_uid.is_empty() || planes.len() != findings.source.frames.len() {
        return Err("no structure set: the images lie nowhere in a Frame of Reference".into());
    }
    // Planning systems take the distance of two contours for the thickness of all.
    if planes.len() > 1 && spacing_between_slices_mm(findings).is_none() {
        return Err("no structure set: the slices are not evenly spaced".into());
    }
    let region = |segment: &'a Segment<'a>| Region { segment, contours: contours_of(findings, segment, &planes) };
    let regions: Vec<Region<'a>> = context.segments.all().iter().map(region).collect();
    let all = || regions.iter().flat_map(|region| &region.contours);
    let (count, points) = (all().count(), all().map(|contour| contour.path.len()).sum::<usize>());
    // Of a point three decimal strings of up to 10 characters, separators included; of a contour its references and lengths.
    if 30 * points + 300 * count > MOST_BYTES {
        return Err(format!("no structure set: {count} contours of {points} points would be more than {} MB", MOST_BYTES >> 20));
    }
    Ok(regions)
}

fn structure_set(context: &Context<'_>, regions: &[Region<'_>]) -> Object<'static> {
    let findings = context.findings;
    let reference = ResultObject::of(findings, &STRUCTURE_SET);
    let package = &findings.provenance.package;
    let started = Moment::of(findings);
    let frame_of_reference = &findings.source.instances[0].frame_of_reference_uid;
    let data = envelope(findings, &reference)
        .empty(tags::OPERATORS_NAME)
        .text(tags::FRAME_OF_REFERENCE_UID, frame_of_reference)
        .copied_or_empty(tags::POSITION_REFERENCE_INDICATOR, source_header(findings))
        .text(tags::STRUCTURE_SET_LABEL, &package.name)
        .text(tags::STRUCTURE_SET_NAME, &format!("{} {}", package.name, package.version_string()))
        .text(tags::STRUCTURE_SET_DESCRIPTION, "Contours by AI, not verified")
        .text(tags::STRUCTURE_SET_DATE, &started.date)
        .text(tags::STRUCTURE_SET_TIME, &started.time)
        .sequence(tags::REFERENCED_FRAME_OF_REFERENCE_SEQUENCE, [referenced_images(findings)])
        .sequence(tags::STRUCTURE_SET_ROI_SEQUENCE, regions.iter().map(|region| description(findings, region.segment)))
        .sequence(tags::ROI_CONTOUR_SEQUENCE, regions.iter().map(drawn))
        .sequence(tags::RTROI_OBSERVATIONS_SEQUENCE, regions.iter().map(|region| observation(region.segment)))
        .text(tags::APPROVAL_STATUS, "UNAPPROVED");
    Object::new(RTSTRUCT_FILE, reference, data)
}

/// Where the pixels of an image lie, mm.
#[derive(Debug, Clone, Copy)]
struct Plane {
    /// The outer corner of the first pixel.
    corner: [f64; 3],
    column: [f64; 3],
    row: [f64; 3],
}

impl Plane {
    fn of(frame: &Frame) -> Option<Self> {
        let (position, orientation, [down, across]) = (frame.position_mm?, frame.orientation?, frame.pixel_spacing_mm?);
        let column: [f64; 3] = std::array::from_fn(|n| orientation[n] * across);
        let row: [f64; 3] = std::array::from_fn(|n| orientation[3 + n] * down);
        Some(Self { corner: std::array::from_fn(|n| position[n] - (column[n] + row[n]) / 2.0), column, row })
    }

    /// A pixel corner, (column, row).
    fn lps_mm(&self, [column, row]: [u32; 2]) -> [f64; 3] {
        std::array::from_fn(|n| self.corner[n] + f64::from(column) * self.column[n] + f64::from(row) * self.row[n])
    }
}

/// All images of the source: study, series, instances (C.8.8.5).
fn referenced_images(findings: &Findings) -> Item {
    let first = &findings.source.instances[0];
    let series = Item::new()
        .text(tags::SERIES_INSTANCE_UID, &first.series_uid)
        .sequence(tags::CONTOUR_IMAGE_SEQUENCE, findings.source.instances.iter().map(|instance| reference_to(instance)));
    let study = reference(sop_class::DETACHED_STUDY, &first.study_uid).sequence(tags::RT_REFERENCED_SERIES_SEQUENCE, [series]);
    Item::new().text(tags::FRAME_OF_REFERENCE_UID, &first.frame_of_reference_uid).sequence(tags::RT_REFERENCED_STUDY_SEQUENCE, [study])
}

/// Which region of interest it is (C.8.8.5).
fn description(findings: &Findings, segment: &Segment<'_>) -> Item {
    let package = &findings.provenance.package;
    Item::new()
        .integer(tags::ROI_NUMBER, segment.number)
        .text(tags::REFERENCED_FRAME_OF_REFERENCE_UID, &findings.source.instances[0].frame_of_reference_uid)
        .text(tags::ROI_NAME, &segment.finding.name)
        .text(tags::ROI_GENERATION_ALGORITHM, "AUTOMATIC")
        .text(tags::ROI_GENERATION_DESCRIPTION, &format!("{EQUIPMENT}: {} {}", package.name, package.version_string()))
}

/// The contours of a segment, image by image.
fn contours_of<'a>(findings: &'a Findings, segment: &Segment<'_>, planes: &[Plane]) -> Vec<Contour<'a>> {
    let [columns, rows, _] = findings.labels.grid().dims().map(|d| d as usize);
    let of_frame = |&n: &u32| -> Vec<Contour<'a>> {
        let (frame, plane) = (&findings.source.frames[n as usize], planes[n as usize]);
        let slice = findings.labels.slice(findings.source.slice_of_frame[n as usize] as usize);
        let paths = contours(&outlines(slice, columns, segment.label), [columns, rows]);
        paths.into_iter().map(|path| Contour { frame, plane, path }).collect()
    };
    segment.frames.par_iter().map(of_frame).collect::<Vec<_>>().into_iter().flatten().collect()
}

/// The contours of a region, and its colour (C.8.8.6).
fn drawn(region: &Region<'_>) -> Item {
    Item::new()
        .integer(tags::REFERENCED_ROI_NUMBER, region.segment.number)
        .integers(tags::ROI_DISPLAY_COLOR, &region.segment.finding.colour.map(u32::from))
        .sequence(tags::CONTOUR_SEQUENCE, region.contours.par_iter().map(contour).collect::<Vec<_>>())
}

fn contour(Contour { frame, plane, path }: &Contour<'_>) -> Item {
    Item::new()
        .sequence(tags::CONTOUR_IMAGE_SEQUENCE, [reference_to_frame(frame)])
        .text(tags::CONTOUR_GEOMETRIC_TYPE, "CLOSED_PLANAR")
        .integer(tags::NUMBER_OF_CONTOUR_POINTS, path.len() as u32)
        .four_digits(tags::CONTOUR_DATA, path.iter().flat_map(|&corner| plane.lps_mm(corner)))
}

/// What the region is (C.8.8.8). An organ is called one; whether anything else is a target or is to be spared, a person decides.
fn observation(segment: &Segment<'_>) -> Item {
    let finding = segment.finding;
    let item = Item::new()
        .integer(tags::OBSERVATION_NUMBER, segment.number)
        .integer(tags::REFERENCED_ROI_NUMBER, segment.number)
        .sequence(tags::RTROI_IDENTIFICATION_CODE_SEQUENCE, [identification(finding)])
        .empty(tags::ROI_INTERPRETER);
    if is_organ(finding) { item.text(tags::RTROI_INTERPRETED_TYPE, "ORGAN") } else { item.empty(tags::RTROI_INTERPRETED_TYPE) }
}

fn identification(finding: &Finding) -> Item {
    let item = Item::of_code(&finding.finding_type);
    match &finding.laterality {
        Some(side) => item.code(tags::SEGMENTED_PROPERTY_TYPE_MODIFIER_CODE_SEQUENCE, side),
        None => item,
    }
}

fn is_organ(finding: &Finding) -> bool {
    let key = |code: &Code| (code.value.clone(), code.scheme.clone());
    key(&finding.category) == key(&sct::ANATOMICAL_STRUCTURE)
}
