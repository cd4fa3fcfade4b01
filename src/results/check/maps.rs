//! Parametric Maps: what the values are, and every value as the map has it.

use std::collections::{HashMap, HashSet};
use std::io::{Read, Seek, SeekFrom};

use dicom::object::InMemDicomObject;
use rayon::prelude::*;

use super::frames::{Found, frames};
use super::{Problems, code, is_code, item};
use crate::codes::sct;
use crate::dataset::{Attributes, Instance, items, native_pixels, tags};
use crate::findings::ValueMap;
use crate::results::Context;
use crate::results::envelope::ResultObject;
use crate::results::map::reference_of;

/// Frames that are read at a time.
const BATCH: usize = 16;

pub(super) fn check(
    context: &Context<'_>,
    instance: &Instance,
    header: &InMemDicomObject,
    reference: &ResultObject,
    known: &HashMap<&str, &str>,
    problems: &mut Problems,
) {
    let findings = context.findings;
    let map = findings.maps.iter().enumerate().find(|&(n, _)| reference_of(findings, n) == *reference);
    let Some((_, map)) = map else { return problems.add("it is none of the maps".into()) };
    check_mapping(map, header, problems);
    let Some(frames) = frames(context, instance, header, known, problems) else { return };
    let seen: HashSet<usize> = frames.found.iter().map(|found| found.source).collect();
    let (all, count) = (findings.source.frames.len(), frames.found.len());
    problems
        .unless(seen.len() == all && count == all, || format!("{count} frames at {} source images, not one at each of {all}", seen.len()));
    if problems.0.is_empty()
        && let Err(problem) = check_values(context, map, instance, &frames.found)
    {
        problems.add(problem);
    }
}

/// Stored values are the quantity itself, in its unit.
fn check_mapping(map: &ValueMap, header: &InMemDicomObject, problems: &mut Problems) {
    let shared = items(header, tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE).first();
    let Some(mapping) = shared.and_then(|shared| item(shared, tags::REAL_WORLD_VALUE_MAPPING_SEQUENCE)) else {
        return problems.add("nothing says what its values are".into());
    };
    let unit = code(mapping, tags::MEASUREMENT_UNITS_CODE_SEQUENCE);
    problems.unless(is_code(unit.as_ref(), &map.unit), || "its values have another unit".into());
    let quantity = item(mapping, tags::QUANTITY_DEFINITION_SEQUENCE);
    let named = quantity.and_then(|q| code(q, tags::CONCEPT_NAME_CODE_SEQUENCE));
    let value = quantity.and_then(|q| code(q, tags::CONCEPT_CODE_SEQUENCE));
    let same = is_code(named.as_ref(), &sct::QUANTITY) && is_code(value.as_ref(), &map.quantity);
    problems.unless(same, || "its values are another quantity".into());
    let line = [tags::REAL_WORLD_VALUE_SLOPE, tags::REAL_WORLD_VALUE_INTERCEPT].map(|tag| mapping.number(tag));
    problems.unless(line == [Some(1.0), Some(0.0)], || "its values are scaled".into());
    let ends = [tags::DOUBLE_FLOAT_REAL_WORLD_VALUE_FIRST_VALUE_MAPPED, tags::DOUBLE_FLOAT_REAL_WORLD_VALUE_LAST_VALUE_MAPPED];
    let [first, last] = ends.map(|tag| mapping.number(tag).unwrap_or(f64::NAN));
    let mapped = map.values.voxels().par_iter().all(|&value| (first..=last).contains(&f64::from(value)));
    problems.unless(mapped, || "some of its values are not mapped".into());
}

/// Every value, bit by bit.
fn check_values(context: &Context<'_>, map: &ValueMap, instance: &Instance, found: &[Found]) -> Result<(), String> {
    let unreadable = || "its values cannot be read again".to_owned();
    let range = native_pixels(instance).map_err(|_| unreadable())?;
    let frame_bytes = 4 * context.findings.labels.grid().slice_voxels();
    let needed = (frame_bytes * found.len()) as u64;
    if !instance.pixels.float || range.end - range.start != needed {
        return Err(format!("{} bytes of values, not {needed} of floats", range.end - range.start));
    }
    let mut file = std::fs::File::open(&instance.path).map_err(|_| unreadable())?;
    file.seek(SeekFrom::Start(range.start)).map_err(|_| unreadable())?;
    let mut bytes = Vec::new();
    for batch in found.chunks(BATCH) {
        bytes.resize(batch.len() * frame_bytes, 0);
        file.read_exact(&mut bytes).map_err(|_| unreadable())?;
        let differs = |(found, bytes): (&Found, &[u8])| {
            let expected = map.values.slice(context.findings.source.slice_of_frame[found.source] as usize);
            let (values, _) = bytes.as_chunks::<4>();
            values.iter().zip(expected).any(|(value, expected)| u32::from_le_bytes(*value) != expected.to_bits())
        };
        let wrong = batch.par_iter().zip(bytes.par_chunks_exact(frame_bytes)).find_first(|&pair| differs(pair));
        if let Some((found, _)) = wrong {
            return Err(format!("values of frame {} are not those of the map", found.n + 1));
        }
    }
    Ok(())
}
