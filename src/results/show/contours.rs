//! RT Structure Sets: regions and their contours (PS3.3 C.8.8.5, C.8.8.6).

use std::collections::HashMap;

use dicom::object::InMemDicomObject;

use super::segments::hex;
use super::{Page, clean};
use crate::dataset::{Attributes, CharacterSet, items, tags};

const COLUMNS: [&str; 9] = ["number", "name", "type", "algorithm", "contours", "points", "from x, y, z mm", "to x, y, z mm", "colour"];

pub(super) fn contours(header: &InMemDicomObject, page: &mut Page) {
    let charset = CharacterSet::of(header);
    page.fact("label", header.text(tags::STRUCTURE_SET_LABEL));
    let by_number = |sequence| -> HashMap<String, &InMemDicomObject> {
        items(header, sequence).iter().map(|item| (item.text(tags::REFERENCED_ROI_NUMBER), item)).collect()
    };
    let (drawn, observed) = (by_number(tags::ROI_CONTOUR_SEQUENCE), by_number(tags::RTROI_OBSERVATIONS_SEQUENCE));
    let row = |roi: &InMemDicomObject| {
        let number = roi.text(tags::ROI_NUMBER);
        let of_contours = drawn.get(&number).copied();
        let contours = of_contours.map(|item| items(item, tags::CONTOUR_SEQUENCE)).unwrap_or_default();
        let extent = Extent::of(contours);
        let rgb =
            of_contours.and_then(|item| item.numbers::<3>(tags::ROI_DISPLAY_COLOR)).filter(|c| c.iter().all(|v| (0.0..=255.0).contains(v)));
        vec![
            number.clone(),
            charset.within(roi).texts(roi, tags::ROI_NAME).join(", "),
            observed.get(&number).map_or_else(String::new, |item| item.text(tags::RTROI_INTERPRETED_TYPE)),
            roi.text(tags::ROI_GENERATION_ALGORITHM),
            contours.len().to_string(),
            extent.points.to_string(),
            extent.shown(extent.least),
            extent.shown(extent.greatest),
            rgb.map_or_else(String::new, |c| hex(c.map(|v| v as u8))),
        ]
    };
    page.table("regions", &COLUMNS, items(header, tags::STRUCTURE_SET_ROI_SEQUENCE).iter().map(row).collect());
    let unusable: usize = drawn.values().map(|item| Extent::of(items(item, tags::CONTOUR_SEQUENCE)).unusable).sum();
    if unusable > 0 {
        page.note(clean(&format!("{unusable} contours have no usable coordinates")));
    }
}

/// The box around contours, patient LPS mm.
struct Extent {
    points: usize,
    unusable: usize,
    least: [f64; 3],
    greatest: [f64; 3],
}

impl Extent {
    fn of(contours: &[InMemDicomObject]) -> Self {
        let mut extent = Self { points: 0, unusable: 0, least: [f64::INFINITY; 3], greatest: [f64::NEG_INFINITY; 3] };
        for contour in contours {
            match contour.all_numbers(tags::CONTOUR_DATA).filter(|values| values.len() % 3 == 0) {
                None => extent.unusable += 1,
                Some(values) => {
                    extent.points += values.len() / 3;
                    for (n, &value) in values.iter().enumerate() {
                        extent.least[n % 3] = extent.least[n % 3].min(value);
                        extent.greatest[n % 3] = extent.greatest[n % 3].max(value);
                    }
                }
            }
        }
        extent
    }

    fn shown(&self, [x, y, z]: [f64; 3]) -> String {
        if self.points == 0 { String::new() } else { format!("{x:.1}, {y:.1}, {z:.1}") }
    }
}
