//! RT Structure Sets: contours filled again are the voxels of their segment in every slice; areas and centroids too, by the points alone.

use std::collections::HashMap;

use dicom::object::InMemDicomObject;
use rayon::prelude::*;

use super::fill::encloses;
use super::{Problems, code, is_code, item};
use crate::codes::{Uid, sct};
use crate::dataset::{Attributes, Frame, items, tags};
use crate::geometry::{cross, dot, norm, sub};
use crate::results::Context;
use crate::results::segments::Segment;

/// How far a point may lie from the plane of the image that its contour names.
const PLANE_TOLERANCE_MM: f64 = 0.01;
/// How far the centroid of the contours of a slice may lie from that of its voxels, in pixels. A ragged border has so much length for its
/// area that what is rounded there adds up.
const CENTROID_TOLERANCE: f64 = 0.1;
/// By how much the border may be off, on average: points are rounded to a ten-thousandth.
const BORDER_TOLERANCE_MM: f64 = 0.0002;

pub(super) fn check(context: &Context<'_>, header: &InMemDicomObject, problems: &mut Problems) {
    problems.unless(header.text(tags::APPROVAL_STATUS) == "UNAPPROVED", || "it is approved".into());
    problems.unless(header.has(tags::OPERATORS_NAME) && header.text(tags::OPERATORS_NAME).is_empty(), || "it names an operator".into());
    let regions = items(header, tags::STRUCTURE_SET_ROI_SEQUENCE);
    let segments = context.segments.all();
    problems.unless(regions.len() == segments.len(), || format!("{} regions, not {}", regions.len(), segments.len()));
    let frame_of_reference = &context.findings.source.instances[0].frame_of_reference_uid;
    let referenced = item(header, tags::REFERENCED_FRAME_OF_REFERENCE_SEQUENCE).map(|f| f.text(tags::FRAME_OF_REFERENCE_UID));
    problems.unless(referenced.as_ref() == Some(frame_of_reference), || "it is in another Frame of Reference".into());
    let numbered = |sequence, tag, number: u32| items(header, sequence).iter().find(move |i| i.count(tag) == number);
    let images = images(context);
    for segment in segments {
        let n = segment.number;
        let region = numbered(tags::STRUCTURE_SET_ROI_SEQUENCE, tags::ROI_NUMBER, n);
        let observed = numbered(tags::RTROI_OBSERVATIONS_SEQUENCE, tags::REFERENCED_ROI_NUMBER, n);
        let drawn = numbered(tags::ROI_CONTOUR_SEQUENCE, tags::REFERENCED_ROI_NUMBER, n);
        let (Some(region), Some(observed), Some(drawn)) = (region, observed, drawn) else {
            problems.add(format!("region {n} is not there"));
            continue;
        };
        check_region(segment, region, observed, drawn, &mut |what| problems.add(format!("region {n} {what}")));
        let another_place = region.text(tags::REFERENCED_FRAME_OF_REFERENCE_UID) != *frame_of_reference;
        problems.unless(!another_place, || format!("region {n} is in another Frame of Reference"));
        check_contours(context, segment, &images, items(drawn, tags::CONTOUR_SEQUENCE), problems);
    }
}

/// Name, codes and colour are the finding's.
fn check_region(
    segment: &Segment<'_>,
    region: &InMemDicomObject,
    observed: &InMemDicomObject,
    drawn: &InMemDicomObject,
    differs: &mut dyn FnMut(&str),
) {
    let finding = segment.finding;
    let mut is = |what: &str, holds: bool| {
        if !holds {
            differs(what);
        }
    };
    is("has another name", region.text(tags::ROI_NAME) == finding.name || !finding.name.is_ascii() || finding.name.len() > 64);
    is("is not said to be automatic", region.text(tags::ROI_GENERATION_ALGORITHM) == "AUTOMATIC");
    let identified = item(observed, tags::RTROI_IDENTIFICATION_CODE_SEQUENCE);
    let kind = code(observed, tags::RTROI_IDENTIFICATION_CODE_SEQUENCE);
    is("is something else", is_code(kind.as_ref(), &finding.finding_type));
    let side = identified.and_then(|i| code(i, tags::SEGMENTED_PROPERTY_TYPE_MODIFIER_CODE_SEQUENCE));
    is("lies on another side", finding.laterality.as_ref().map_or(side.is_none(), |expected| is_code(side.as_ref(), expected)));
    let organ = if is_code(Some(&finding.category), &sct::ANATOMICAL_STRUCTURE) { "ORGAN" } else { "" };
    is("is interpreted otherwise", observed.text(tags::RTROI_INTERPRETED_TYPE) == organ);
    is("has another colour", drawn.numbers(tags::ROI_DISPLAY_COLOR) == Some(finding.colour.map(f64::from)));
}

/// Places of the frames of `Source::frames`, by instance and, of multi-frame ones, number.
type Images<'a> = HashMap<(&'a Uid, u32), usize>;

fn images<'a>(context: &'a Context<'_>) -> Images<'a> {
    let number = |frame: &Frame| if frame.is_whole_instance() { 0 } else { frame.number };
    (0..).zip(&context.findings.source.frames).map(|(n, frame)| ((&frame.instance.sop_instance_uid, number(frame)), n)).collect()
}

/// Every slice with voxels of the segment has contours, which enclose these and no others.
fn check_contours(
    context: &Context<'_>,
    segment: &Segment<'_>,
    images: &Images<'_>,
    contours: &[InMemDicomObject],
    problems: &mut Problems,
) {
    let n = segment.number;
    let mut of_frame: HashMap<usize, Vec<&InMemDicomObject>> = HashMap::new();
    for contour in contours {
        let image = item(contour, tags::CONTOUR_IMAGE_SEQUENCE);
        let named = image.map(|i| (i.text(tags::REFERENCED_SOP_INSTANCE_UID), i.count(tags::REFERENCED_FRAME_NUMBER)));
        match named.and_then(|(uid, number)| images.get(&(&uid, number)).copied()) {
            Some(frame) => of_frame.entry(frame).or_default().push(contour),
            None => problems.add(format!("region {n} has a contour on an image that was not analysed")),
        }
    }
    let lacking = segment.frames.iter().filter(|&&frame| !of_frame.contains_key(&(frame as usize))).count();
    let more = of_frame.len() - (segment.frames.len() - lacking);
    problems.unless(lacking == 0 && more == 0, || format!("region {n} lacks contours on {lacking} images, and has some on {more} others"));
    let wrong = |(&frame, contours): (&usize, &Vec<&InMemDicomObject>)| slice_problem(context, segment, frame, contours);
    let mut wrong: Vec<(usize, String)> = of_frame.par_iter().filter_map(wrong).collect();
    wrong.sort_unstable();
    wrong.into_iter().for_each(|(frame, what)| problems.add(format!("region {n} on image {} {what}", frame + 1)));
}

/// What is wrong with the contours of a segment on one image.
fn slice_problem(context: &Context<'_>, segment: &Segment<'_>, n: usize, contours: &[&InMemDicomObject]) -> Option<(usize, String)> {
    let findings = context.findings;
    let wrong = |what: &str| Some((n, what.to_owned()));
    let Some(plane) = Plane::of(&findings.source.frames[n]) else { return wrong("has no place") };
    let mut outlines = Vec::new();
    for contour in contours {
        let points = contour.all_numbers(tags::CONTOUR_DATA).unwrap_or_default();
        let (points, rest) = points.as_chunks::<3>();
        let counted = points.len() == contour.count(tags::NUMBER_OF_CONTOUR_POINTS) as usize && rest.is_empty();
        if contour.text(tags::CONTOUR_GEOMETRIC_TYPE) != "CLOSED_PLANAR" || !counted {
            return wrong("is no closed contour of the stated number of points");
        }
        if points.iter().any(|&p| plane.off_mm(p) > PLANE_TOLERANCE_MM) {
            return wrong("leaves the plane of the image");
        }
        outlines.push(points.iter().map(|&p| plane.pixel(p)).collect::<Vec<_>>());
    }
    let columns = findings.labels.grid().dims()[0] as usize;
    let slice = findings.labels.slice(findings.source.slice_of_frame[n] as usize);
    if !encloses(&outlines, slice, columns, segment.label) {
        return wrong("encloses other voxels than the segment has");
    }
    let (drawn, found) = (Moments::of_outlines(&outlines), Moments::of_pixels(slice, columns, segment.label));
    // What is rounded along the border.
    let tolerance = BORDER_TOLERANCE_MM / plane.pixel_mm() * drawn.border;
    if (drawn.area - found.area).abs() > tolerance {
        return wrong("has another area than its voxels");
    }
    let off = norm(sub(plane.lps_mm(drawn.centroid), plane.lps_mm(found.centroid))) / plane.pixel_mm();
    (off > CENTROID_TOLERANCE).then(|| (n, format!("lies {off:.3} pixels from its voxels")))
}

/// The plane of an image, by its own attributes.
struct Plane {
    /// The centre of the first pixel.
    position: [f64; 3],
    column: [f64; 3],
    row: [f64; 3],
}

impl Plane {
    fn of(frame: &Frame) -> Option<Self> {
        let (orientation, [down, across]) = (frame.orientation?, frame.pixel_spacing_mm?);
        let direction = |from: usize, mm: f64| std::array::from_fn(|n| orientation[from + n] * mm);
        Some(Self { position: frame.position_mm?, column: direction(0, across), row: direction(3, down) })
    }

    /// The shorter side of a pixel.
    fn pixel_mm(&self) -> f64 {
        norm(self.column).min(norm(self.row))
    }

    fn off_mm(&self, point: [f64; 3]) -> f64 {
        let normal = cross(self.column, self.row);
        (dot(sub(point, self.position), normal) / norm(normal)).abs()
    }

    /// (column, row) of a point, 0.0 at the outer corner of the first pixel.
    fn pixel(&self, point: [f64; 3]) -> [f64; 2] {
        let (from, c, r) = (sub(point, self.position), self.column, self.row);
        let (cc, cr, rr) = (dot(c, c), dot(c, r), dot(r, r));
        let (a, b) = (dot(from, c), dot(from, r));
        let determinant = cc * rr - cr * cr;
        [(a * rr - b * cr) / determinant + 0.5, (b * cc - a * cr) / determinant + 0.5]
    }

    fn lps_mm(&self, [column, row]: [f64; 2]) -> [f64; 3] {
        std::array::from_fn(|n| self.position[n] + (column - 0.5) * self.column[n] + (row - 0.5) * self.row[n])
    }
}

/// Area and centroid in pixels, and the length of the border.
struct Moments {
    area: f64,
    centroid: [f64; 2],
    border: f64,
}

impl Moments {
    /// By the points alone (Green's theorem).
    fn of_outlines(outlines: &[Vec<[f64; 2]>]) -> Self {
        let (mut area, mut first, mut border) = (0.0, [0.0; 2], 0.0);
        for outline in outlines {
            for (a, b) in outline.iter().zip(outline.iter().cycle().skip(1)) {
                let twice = a[0] * b[1] - b[0] * a[1];
                area += twice / 2.0;
                (0..2).for_each(|n| first[n] += (a[n] + b[n]) * twice / 6.0);
                border += (a[0] - b[0]).hypot(a[1] - b[1]);
            }
        }
        Self { area: area.abs(), centroid: first.map(|sum| sum / area), border }
    }

    fn of_pixels(slice: &[u8], columns: usize, label: u8) -> Self {
        let (mut count, mut sums) = (0usize, [0usize; 2]);
        for n in (0..slice.len()).filter(|&n| slice[n] == label) {
            count += 1;
            sums = [sums[0] + n % columns, sums[1] + n / columns];
        }
        let area = count as f64;
        Self { area, centroid: sums.map(|sum| sum as f64 / area + 0.5), border: 0.0 }
    }
}
