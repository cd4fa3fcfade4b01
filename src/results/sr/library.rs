//! The image library of a report (TID 1600).

use super::content::{self, Relationship};
use super::reference_to;
use crate::codes::{dcm, ucum};
use crate::dataset::{Instance, Item};
use crate::findings::Findings;

/// What all images share stands once on the group (TID 1602, 1604), which saves 4 kB an image.
pub(super) fn group(findings: &Findings, instances: &[&Instance]) -> Item {
    use Relationship::{Contains, HasAcqContext};
    let first = instances[0];
    let grid = findings.labels.grid();
    let mut shared = Vec::new();
    shared.extend(dcm::modality(&first.modality).map(|code| content::code(HasAcqContext, &dcm::MODALITY, &code)));
    if !first.frame_of_reference_uid.is_empty() {
        shared.push(content::uid_reference(HasAcqContext, &dcm::FRAME_OF_REFERENCE_UID, &first.frame_of_reference_uid));
    }
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
    for (concept, value, unit) in numbers {
        shared.extend(value.map(|value| content::number(HasAcqContext, concept, Some(value), unit, Vec::new())));
    }
    shared.extend(instances.iter().map(|instance| content::image(Contains, None, reference_to(instance))));
    content::container(Contains, &dcm::IMAGE_LIBRARY_GROUP, None, shared)
}
