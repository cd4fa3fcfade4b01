//! Segmentations: what each segment is, and how much of it there is.

use std::collections::BTreeMap;
use std::sync::Arc;

use dicom::core::Tag;
use dicom::object::InMemDicomObject;

use super::{Page, concept, meaning, number};
use crate::dataset::{Attributes, CharacterSet, Instance, items, tags};
use crate::geometry::Coded;
use crate::results::colour::srgb_from_cielab;
use crate::series::{GeometryPolicy, Series};

const COLUMNS: [&str; 10] = ["number", "label", "category", "type", "side", "algorithm", "frames", "voxels", "ml", "colour"];

pub(super) fn segments(instance: &Arc<Instance>, header: &InMemDicomObject, page: &mut Page) {
    let kind = header.text(tags::SEGMENTATION_TYPE);
    page.fact("segmentation type", &kind);
    if kind == "FRACTIONAL" {
        page.note("voxels and ml count what is more than nothing, whatever the fraction");
    }
    page.fact("size", format!("{} x {} pixels, {} frames", instance.columns, instance.rows, instance.frames));
    let counted = voxels(instance, page);
    let count = |number: &str| counted.as_ref()?.by_number.get(&number.parse().ok()?).copied();
    let voxel_ml = counted.as_ref().map_or(0.0, |counted| counted.voxel_ml);
    let frames = frames(header);
    let charset = CharacterSet::of(header);
    let row = |item: &InMemDicomObject| {
        let charset = charset.within(item);
        let text = |tag| charset.texts(item, tag).into_iter().next().unwrap_or_default();
        let code = |object: &InMemDicomObject, tag| concept(&charset, object, tag).as_ref().map_or_else(String::new, meaning);
        let kind = items(item, tags::SEGMENTED_PROPERTY_TYPE_CODE_SEQUENCE).first();
        let segment = item.text(tags::SEGMENT_NUMBER);
        let voxels = count(&segment);
        let algorithm = [text(tags::SEGMENT_ALGORITHM_TYPE), text(tags::SEGMENT_ALGORITHM_NAME)];
        vec![
            segment.clone(),
            text(tags::SEGMENT_LABEL),
            code(item, tags::SEGMENTED_PROPERTY_CATEGORY_CODE_SEQUENCE),
            code(item, tags::SEGMENTED_PROPERTY_TYPE_CODE_SEQUENCE),
            kind.map_or_else(String::new, |kind| code(kind, tags::SEGMENTED_PROPERTY_TYPE_MODIFIER_CODE_SEQUENCE)),
            algorithm.join(" "),
            frames.get(&segment).map_or_else(String::new, usize::to_string),
            voxels.map_or_else(String::new, |n| n.to_string()),
            voxels.map_or_else(String::new, |n| number(n as f64 * voxel_ml)),
            colour(item, tags::RECOMMENDED_DISPLAY_CIE_LAB_VALUE),
        ]
    };
    let rows = items(header, tags::SEGMENT_SEQUENCE).iter().map(row).collect();
    page.table("segments", &COLUMNS, rows);
}

/// Voxels of each segment.
struct Counted {
    by_number: BTreeMap<u16, u64>,
    voxel_ml: f64,
}

/// Counts the voxels, where the frames lie somewhere and can be decoded; else says why not.
fn voxels(instance: &Arc<Instance>, page: &mut Page) -> Option<Counted> {
    let series = Series::new(vec![Instance::clone(instance)]);
    let parts = series.parts(GeometryPolicy::Resample);
    let part = parts.iter().find(|part| part.is_segmentation())?;
    let segmentation = match part.segmentation() {
        Ok(segmentation) => segmentation,
        Err(refusal) => {
            let mut codes: Vec<&str> = refusal.reasons.iter().map(Coded::code).collect();
            codes.dedup();
            page.note(format!("voxels are not counted: {}", codes.join(", ")));
            return None;
        }
    };
    match segmentation.load() {
        Ok(loaded) => Some(Counted { by_number: loaded.voxel_counts(), voxel_ml: loaded.grid.voxel_volume_mm3() / 1000.0 }),
        Err(error) => {
            page.note(format!("voxels are not counted: {}", error.code()));
            None
        }
    }
}

/// Frames of each segment, by its number; none where they belong to all.
fn frames(header: &InMemDicomObject) -> BTreeMap<String, usize> {
    let mut frames = BTreeMap::new();
    for frame in items(header, tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE) {
        for identification in items(frame, tags::SEGMENT_IDENTIFICATION_SEQUENCE).iter().take(1) {
            *frames.entry(identification.text(tags::REFERENCED_SEGMENT_NUMBER)).or_insert(0) += 1;
        }
    }
    frames
}

/// A CIELab value as `#rrggbb`.
pub(super) fn colour(item: &InMemDicomObject, tag: Tag) -> String {
    match item.numbers::<3>(tag) {
        Some(lab) if lab.iter().all(|v| (0.0..=65535.0).contains(v)) => hex(srgb_from_cielab(lab.map(|v| v as u32))),
        _ => String::new(),
    }
}

pub(super) fn hex([red, green, blue]: [u8; 3]) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}
