//! Parametric Maps (PS3.3 A.75, C.8.32): the values of each voxel of the source grid, as floats; one object a map.

use rayon::prelude::*;

use super::envelope::{ResultObject, Slot};
use super::multiframe::{dimensions, frame_groups, image, shared_groups};
use super::{Context, MAP_FILE, Object, ResultsError};
use crate::codes::{dcm, sct, sop_class};
use crate::dataset::{Item, Writable, tags};
use crate::findings::{Findings, ValueMap};

/// Maps of one result are one series.
const MAP: Slot = Slot { name: "map", sop_class_uid: sop_class::PARAMETRIC_MAP, modality: "OT", kind: "map", place: 5 };

/// What image and frames are (C.8.16.1): made by computation, from a volume, and their values are a quantity.
const IMAGE_TYPE: [&str; 4] = ["DERIVED", "PRIMARY", "VOLUME", "QUANTITY"];

/// A Parametric Map of each map. Of images that lie nowhere in the patient there is none, since the class has no place for them: see `heat.rs`.
pub(super) fn objects<'a>(context: &Context<'a>) -> Vec<Object<'a>> {
    let findings = context.findings;
    if !findings.source.lies_in_patient() {
        return Vec::new();
    }
    let object = |(n, map)| {
        let reference = reference_of(findings, n);
        let data = parametric_map(findings, map, &reference);
        Object::new(file_of(n, findings.maps.len()), reference, data)
    };
    findings.maps.iter().enumerate().map(object).collect()
}

/// The object of the map with index `n`.
pub(super) fn reference_of(findings: &Findings, n: usize) -> ResultObject {
    ResultObject::numbered(findings, &MAP, n as u32 + 1)
}

pub(super) fn file_of(n: usize, of: usize) -> String {
    if of == 1 { MAP_FILE.to_owned() } else { format!("map-{}.dcm", n + 1) }
}

/// Every map lies on the grid of the label map and is made of numbers.
///
/// # Errors
/// [`ResultsError::Map`] for the first that is not.
pub(super) fn check_values(findings: &Findings) -> Result<(), ResultsError> {
    for map in &findings.maps {
        let wrong = |problem| Err(ResultsError::Map { name: map.name.clone(), problem });
        if map.values.grid() != findings.labels.grid() {
            return wrong("does not lie on the grid of the label map");
        }
        if !map.values.voxels().par_iter().all(|value| value.is_finite()) {
            return wrong("holds values that are not finite");
        }
    }
    Ok(())
}

fn parametric_map<'a>(findings: &'a Findings, map: &'a ValueMap, object: &ResultObject) -> Writable<'a> {
    let slices = &findings.source.slice_of_frame;
    let count = slices.len();
    let description = format!("{} by {}", map.name, findings.provenance.package.name);
    let data = image(findings, object, &map.name, &description, count)
        .texts(tags::IMAGE_TYPE, &IMAGE_TYPE)
        .text(tags::PIXEL_PRESENTATION, "MONOCHROME")
        .text(tags::CONTENT_QUALIFICATION, "RESEARCH")
        .text(tags::BURNED_IN_ANNOTATION, "NO")
        .text(tags::RECOGNIZABLE_VISUAL_FEATURES, "NO")
        .text(tags::PRESENTATION_LUT_SHAPE, "IDENTITY")
        .empty(tags::ACQUISITION_CONTEXT_SEQUENCE)
        .integer(tags::BITS_ALLOCATED, 32)
        .with(dimensions(findings, object, false))
        .sequence(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE, [shared_groups(findings).with(value_groups(map))]);
    let groups = |f: usize| frame_groups(findings, f as u32, f as u32 + 1, None, &dcm::UNSPECIFIED_METHOD);
    let frame = |f: usize| {
        let values = map.values.slice(slices[f] as usize);
        let mut bytes = vec![0; values.len() * 4];
        bytes.as_chunks_mut().0.iter_mut().zip(values).for_each(|(bytes, value)| *bytes = value.to_le_bytes());
        bytes
    };
    let bytes = 4 * findings.labels.grid().slice_voxels() as u64 * count as u64;
    Writable::from(data).frame_groups(count, groups).float_pixel_data(bytes, count, frame)
}

/// What the values are, and how they are shown: functional groups that all frames share.
fn value_groups(map: &ValueMap) -> Item {
    let [least, greatest] = range(map);
    let window = Item::new()
        .decimal(tags::WINDOW_CENTER, (least + greatest) / 2.0)
        .decimal(tags::WINDOW_WIDTH, if greatest > least { greatest - least } else { 1.0 })
        .text(tags::VOILUT_FUNCTION, "LINEAR_EXACT"); // a window of LINEAR is at least 1 wide (C.11.2.1.2)
    let identity = Item::new().text(tags::RESCALE_INTERCEPT, "0").text(tags::RESCALE_SLOPE, "1").text(tags::RESCALE_TYPE, "US"); // unspecified: the mapping below says what the values are
    let quantity = Item::new()
        .text(tags::VALUE_TYPE, "CODE")
        .code(tags::CONCEPT_NAME_CODE_SEQUENCE, &sct::QUANTITY)
        .code(tags::CONCEPT_CODE_SEQUENCE, &map.quantity);
    let mapping = Item::new()
        .text(tags::LUT_EXPLANATION, &map.name)
        .text(tags::LUT_LABEL, &map.name)
        .code(tags::MEASUREMENT_UNITS_CODE_SEQUENCE, &map.unit)
        .double(tags::DOUBLE_FLOAT_REAL_WORLD_VALUE_FIRST_VALUE_MAPPED, least)
        .double(tags::DOUBLE_FLOAT_REAL_WORLD_VALUE_LAST_VALUE_MAPPED, greatest)
        .double(tags::REAL_WORLD_VALUE_INTERCEPT, 0.0)
        .double(tags::REAL_WORLD_VALUE_SLOPE, 1.0)
        .sequence(tags::QUANTITY_DEFINITION_SEQUENCE, [quantity]);
    Item::new()
        .sequence(tags::PARAMETRIC_MAP_FRAME_TYPE_SEQUENCE, [Item::new().texts(tags::FRAME_TYPE, &IMAGE_TYPE)])
        .sequence(tags::FRAME_VOILUT_SEQUENCE, [window])
        .sequence(tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE, [identity])
        .sequence(tags::REAL_WORLD_VALUE_MAPPING_SEQUENCE, [mapping])
}

/// Least and greatest value.
fn range(map: &ValueMap) -> [f64; 2] {
    let wider = |a: [f32; 2], b: [f32; 2]| [a[0].min(b[0]), a[1].max(b[1])];
    let none = || [f32::INFINITY, f32::NEG_INFINITY];
    map.values.voxels().par_iter().fold(none, |range, &value| wider(range, [value; 2])).reduce(none, wider).map(f64::from)
}
