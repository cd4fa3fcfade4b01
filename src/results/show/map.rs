//! Parametric maps: what the values are, and what they come to.

use std::sync::Arc;

use dicom::object::InMemDicomObject;

use super::{Page, concept, meaning, number, short, unit};
use crate::dataset::{Attributes, CharacterSet, Instance, Place, items, read_frames, tags};
use crate::geometry::Coded;

/// Values of one map that are read at most: 1 GB of them.
const MAX_VALUES: u64 = 1 << 28;

pub(super) fn map(instance: &Arc<Instance>, header: &InMemDicomObject, page: &mut Page) {
    page.fact("size", format!("{} x {} pixels, {} frames", instance.columns, instance.rows, instance.frames));
    let charset = CharacterSet::of(header);
    let groups = items(header, tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE).iter();
    let groups = groups.chain(items(header, tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE).iter().take(1));
    let mapping = groups.flat_map(|group| items(group, tags::REAL_WORLD_VALUE_MAPPING_SEQUENCE)).next();
    let (mut slope, mut intercept, mut units) = (1.0, 0.0, String::new());
    if let Some(mapping) = mapping {
        let quantity = items(mapping, tags::QUANTITY_DEFINITION_SEQUENCE).first();
        if let Some(quantity) = quantity.and_then(|item| concept(&charset, item, tags::CONCEPT_CODE_SEQUENCE)) {
            page.fact("quantity", format!("{} ({})", meaning(&quantity), short(&quantity)));
        }
        if let Some(code) = concept(&charset, mapping, tags::MEASUREMENT_UNITS_CODE_SEQUENCE) {
            page.fact("unit", format!("{} ({})", meaning(&code), short(&code)));
            units = unit(&code);
        }
        page.fact("label", charset.texts(mapping, tags::LUT_LABEL).join(", "));
        slope = mapping.number(tags::REAL_WORLD_VALUE_SLOPE).unwrap_or(1.0);
        intercept = mapping.number(tags::REAL_WORLD_VALUE_INTERCEPT).unwrap_or(0.0);
    }
    match values(instance) {
        Ok([least, mean, greatest]) => {
            let real = |stored: f64| format!("{} {units}", number(slope * stored + intercept)).trim().to_owned();
            let (low, high) = if slope < 0.0 { (greatest, least) } else { (least, greatest) };
            page.fact("least value", real(low));
            page.fact("mean value", real(mean));
            page.fact("greatest value", real(high));
        }
        Err(why) => page.note(format!("values are not read: {why}")),
    }
}

/// Least, mean and greatest of the stored values.
fn values(instance: &Instance) -> Result<[f64; 3], &'static str> {
    let pixels = u64::from(instance.rows) * u64::from(instance.columns);
    let total = pixels.saturating_mul(instance.frames.into());
    // What a file merely claims reserves nothing; RLE makes of 64 bytes one.
    let bytes = std::fs::metadata(&instance.path).map_or(0, |file| file.len());
    if total == 0 || total > MAX_VALUES || total > bytes.saturating_mul(64) {
        return Err("there are none, or more than fit");
    }
    let mut stored = vec![0f32; total as usize];
    let mut places: Vec<(u32, Place<'_>)> = (1..).zip(stored.chunks_mut(pixels as usize).map(Place::Float32)).collect();
    read_frames(instance, &mut places).map_err(|error| error.code())?;
    let start = (f64::INFINITY, 0.0, f64::NEG_INFINITY, 0u64);
    let finite = stored.iter().map(|&v| f64::from(v)).filter(|v| v.is_finite());
    let (least, sum, greatest, count) =
        finite.fold(start, |(least, sum, greatest, count), v| (v.min(least), sum + v, v.max(greatest), count + 1));
    if count == 0 { Err("none is a number") } else { Ok([least, sum / count as f64, greatest]) }
}
