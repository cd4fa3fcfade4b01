//! Measurement groups; the order of their items matters.

use super::ResultObject;
use super::content::{self, Relationship};
use super::known;
use crate::codes::{Code, dcm, sct, ucum};
use crate::dataset::{Frame, Item, tags};
use crate::findings::{Finding, Findings, Measurement, Place};
use crate::results::envelope::reference_to_frame;
use crate::results::key::KeyImage;
use crate::results::outline::{MOST_POINTS, Outline, outlines, point};
use crate::results::placed::Placed;
use crate::results::segments::Segment;

/// TID 1411: numbers of the region that a segment describes.
pub(super) fn of_region(findings: &Findings, finding: &Finding, number: u32, labels: &ResultObject) -> Item {
    use Relationship::Contains;
    let mut items = head(findings, finding);
    items.extend(finding.numbers().iter().map(measurement));
    items.extend(certainty(finding));
    items.extend(evaluations(finding));
    let segment = labels.reference().integer(tags::REFERENCED_SEGMENT_NUMBER, number);
    items.push(content::image(Contains, Some(&dcm::REFERENCED_SEGMENT), segment));
    let series = &findings.source.instances[0].series_uid;
    items.push(content::uid_reference(Contains, &dcm::SOURCE_SERIES_FOR_SEGMENTATION, series));
    content::container(Contains, &dcm::MEASUREMENT_GROUP, Some("1411"), items)
}

/// TID 1411: a box by its faces, or a point, in the patient.
pub(super) fn of_place(findings: &Findings, finding: &Finding, place: &Place) -> Item {
    use Relationship::Contains;
    let mut items = head(findings, finding);
    items.extend(finding.numbers().iter().map(measurement));
    items.extend(certainty(finding));
    items.extend(evaluations(finding));
    let source = &findings.source.instances[0];
    let surface = |graphic_type: &str, points: &[[f64; 3]]| {
        content::in_space(Contains, &dcm::VOLUME_SURFACE, graphic_type, points, &source.frame_of_reference_uid)
    };
    match place.faces_lps_mm() {
        Some(faces) => items.extend(faces.iter().map(|[a, b, c, d]| surface("POLYGON", &[*a, *b, *c, *d, *a]))),
        None => items.push(surface("POINT", &[place.centre_lps_mm])),
    }
    items.push(content::uid_reference(Contains, &dcm::SOURCE_SERIES_FOR_SEGMENTATION, &source.series_uid));
    content::container(Contains, &dcm::MEASUREMENT_GROUP, Some("1411"), items)
}

/// TID 1410: where the frame nearest to its centre cuts a box, or a point on it.
pub(super) fn of_place_on(findings: &Findings, placed: &Placed<'_>, image: &KeyImage, frame: &Frame) -> Item {
    use Relationship::Contains;
    let finding = placed.finding;
    let mut items = head(findings, finding);
    items.extend(finding.numbers().iter().map(measurement));
    items.extend(certainty(finding));
    items.extend(evaluations(finding));
    let source = content::image(Relationship::SelectedFrom, None, reference_to_frame(frame));
    let (region, purpose) = match placed.place.extent {
        Some(_) => (content::polyline(Contains, &dcm::IMAGE_REGION, &placed.outline(findings, image.frame), source), sct::BOUNDED_BY),
        None => (content::point(Contains, &dcm::IMAGE_REGION, placed.point(findings, image.frame), source), dcm::CENTER),
    };
    items.push(region);
    items.push(content::code(Contains, &dcm::GEOMETRIC_PURPOSE_OF_REGION, &purpose));
    content::container(Contains, &dcm::MEASUREMENT_GROUP, Some("1410"), items)
}

/// TID 1501: whether it is there, and numbers without a region.
pub(super) fn of_study(findings: &Findings, finding: &Finding) -> Item {
    let mut items = head(findings, finding);
    items.extend(finding.numbers().iter().map(measurement));
    items.extend(certainty(finding));
    let presence = if finding.present { &sct::PRESENT } else { &sct::ABSENT };
    items.push(content::code(Relationship::Contains, &dcm::PRESENCE_OF_PROPERTY, presence));
    items.extend(evaluations(finding));
    content::container(Relationship::Contains, &dcm::MEASUREMENT_GROUP, Some("1501"), items)
}

/// TID 1410: the largest outline of a segment on its key image, with its area.
pub(super) fn of_image(findings: &Findings, segment: &Segment<'_>, image: &KeyImage, frame: &Frame) -> Item {
    use Relationship::Contains;
    let grid = findings.labels.grid();
    let all = outlines(findings.labels.slice(image.slice as usize), grid.dims()[0] as usize, segment.label);
    let largest = all.iter().filter(|o| !o.hole).max_by_key(|o| o.area()).expect("the segment has voxels on its key image");
    // Without a spacing there is an outline and no area.
    let area_mm2 = frame.pixel_spacing_mm.map(|[row_mm, column_mm]| largest.area() as f64 * row_mm * column_mm);
    let mut items = head(findings, segment.finding);
    items.push(content::number(Contains, &sct::AREA, area_mm2, &ucum::SQUARE_MILLIMETRE, Vec::new()));
    items.extend(certainty(segment.finding));
    items.extend(evaluations(segment.finding));
    let (points, purpose) = points(largest);
    let source = content::image(Relationship::SelectedFrom, None, reference_to_frame(frame));
    items.push(content::polyline(Contains, &dcm::IMAGE_REGION, &points, source));
    items.push(content::code(Contains, &dcm::GEOMETRIC_PURPOSE_OF_REGION, &purpose));
    content::container(Contains, &dcm::MEASUREMENT_GROUP, Some("1410"), items)
}

/// Points of a closed polyline (C.18.6), and what it is: the outline, or the box around one with more points than an element holds.
fn points(outline: &Outline) -> (Vec<[f32; 2]>, Code) {
    let (mut points, purpose): (Vec<[f32; 2]>, _) = if outline.corners.len() < MOST_POINTS {
        (outline.corners.iter().copied().map(point).collect(), dcm::OUTLINE)
    } else {
        let span = |n: usize| {
            let along = || outline.corners.iter().map(|c| c[n]);
            (along().min().unwrap_or_default(), along().max().unwrap_or_default())
        };
        let ((left, right), (top, bottom)) = (span(0), span(1));
        ([[left, top], [right, top], [right, bottom], [left, bottom]].map(point).to_vec(), sct::BOUNDED_BY)
    };
    points.extend(points.first().copied());
    (points, purpose)
}

/// What every group begins with: who it is, what was found and where, and by which algorithm (TID 4019).
fn head(findings: &Findings, finding: &Finding) -> Vec<Item> {
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
    let package = &findings.provenance.package;
    items.push(content::text(HasConceptMod, &dcm::ALGORITHM_NAME, &package.name));
    items.push(content::text(HasConceptMod, &dcm::ALGORITHM_VERSION, &package.version_string()));
    let parameters = crate::results::parameters(&findings.provenance);
    items.extend(parameters.map(|text| content::text(HasConceptMod, &dcm::ALGORITHM_PARAMETERS, &text)));
    items.push(content::code(HasConceptMod, &dcm::ALGORITHM_FAMILY, &dcm::ARTIFICIAL_INTELLIGENCE));
    items
}

/// TID 300, or a row of TID 1419.
fn measurement(measurement: &Measurement) -> Item {
    let modifier = |name, code: &Option<_>| code.as_ref().map(|code| content::code(Relationship::HasConceptMod, name, code));
    let modifiers = [modifier(&sct::MEASUREMENT_METHOD, &measurement.method), modifier(&dcm::DERIVATION, &measurement.derivation)];
    let value = measurement.value.filter(|value| value.is_finite());
    let children = modifiers.into_iter().flatten().collect();
    content::number(Relationship::Contains, &measurement.concept, value, &measurement.unit, children)
}

fn certainty(finding: &Finding) -> Option<Item> {
    let percent = finding.certainty_percent?;
    Some(content::number(Relationship::Contains, &finding.certainty_concept(), Some(percent), &ucum::PERCENT, Vec::new()))
}

fn evaluations(finding: &Finding) -> impl Iterator<Item = Item> {
    finding.evaluations.iter().map(|e| content::code(Relationship::Contains, &e.question, &e.answer))
}
