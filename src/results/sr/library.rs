//! The image library of a report (TID 1600).

use super::content::{self, Relationship};
use super::reference_to;
use crate::codes::{dcm, ucum};
use crate::dataset::{Instance, Item};
use crate::findings::Findings;

/// A group for each series, the first of which is that of the label map's grid. What all its images share stands once on the group (TID 1602,
/// 1604), which saves 4 kB an image; of the other series that is modality and frame of reference.
pub(super) fn groups(findings: &Findings, series: &[Vec<&Instance>]) -> Vec<Item> {
    use Relationship::{Contains, HasAcqContext};
    let group = |(n, instances): (usize, &Vec<&Instance>)| {
        let first = instances[0];
        let mut items = Vec::new();
        items.extend(dcm::modality(&first.modality).map(|code| content::code(HasAcqContext, &dcm::MODALITY, &code)));
        if !first.frame_of_reference_uid.is_empty() {
            items.push(content::uid_reference(HasAcqContext, &dcm::FRAME_OF_REFERENCE_UID, &first.frame_of_reference_uid));
        }
        if n == 0 {
            items.extend(pixels(findings, first));
        }
        items.extend(instances.iter().map(|instance| content::image(Contains, None, reference_to(instance))));
        content::container(Contains, &dcm::IMAGE_LIBRARY_GROUP, None, items)
    };
    series.iter().enumerate().map(group).collect()
}

/// Size and place of the pixels of the series whose grid the label map has.
fn pixels(findings: &Findings, first: &Instance) -> Vec<Item> {
    let grid = findings.labels.grid();
    let [columns, rows, _] = grid.dims().map(f64::from);
    // Pixel Spacing is (between rows, between columns): vertical, horizontal. A radiograph may have none.
    let [vertical_mm, horizontal_mm] = findings.source.frames[0].pixel_spacing_mm.map_or([None; 2], |spacing| spacing.map(Some));
    let slice_mm = grid.spacing_mm()[2];
    let numbers = [
        (&dcm::PIXEL_DATA_ROWS, Some(rows), &ucum::PIXELS),
        (&dcm::PIXEL_DATA_COLUMNS, Some(columns), &ucum::PIXELS),
        (&dcm::HORIZONTAL_PIXEL_SPACING, horizontal_mm, &ucum::MILLIMETRE),
        (&dcm::VERTICAL_PIXEL_SPACING, vertical_mm, &ucum::MILLIMETRE),
        (&dcm::SPACING_BETWEEN_SLICES, (grid.dims()[2] > 1).then_some(slice_mm), &ucum::MILLIMETRE),
        (&dcm::SLICE_THICKNESS, first.slice_thickness_mm, &ucum::MILLIMETRE),
    ];
    let item = |(concept, value, unit): (_, Option<f64>, _)| {
        value.map(|value| content::number(Relationship::HasAcqContext, concept, Some(value), unit, Vec::new()))
    };
    numbers.into_iter().filter_map(item).collect()
}
