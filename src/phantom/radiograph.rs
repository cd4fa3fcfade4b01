//! A radiograph of the phantom: what it absorbs along parallel rays from back to front.

use std::path::Path;

use super::write::{NAME, Visit, study};
use super::{Phantom, Sampling};
use crate::codes::{Uid, sop_class, uid_by_name};
use crate::dataset::{Item, WriteError, tags, write_object};

/// Attenuation of water at the energies of a chest radiograph, a millimetre.
const WATER_PER_MM: f64 = 0.02;
/// Greatest stored value: 12 bits.
const WHITE: f64 = 4095.0;

/// How the phantom is sampled for a radiograph: voxels as high as wide, so that its pixels are square.
pub fn radiograph_sampling() -> Sampling {
    Sampling { dims: [224, 168, 180], spacing_mm: [1.6; 3], ..Sampling::default() }
}

/// Writes the radiograph of `phantom`, which is axial, into `folder` as `0001.dcm`, and returns its Series Instance UID: a DX image for
/// presentation, MONOCHROME2, the patient's left on the right of it and the head above. The same phantom gives the same bytes.
///
/// # Errors
/// [`WriteError`] where the file cannot be written.
pub fn write_radiograph(phantom: &Phantom, folder: &Path) -> Result<Uid, WriteError> {
    let grid = phantom.image.grid();
    let [columns, _, slices] = grid.dims();
    let spacing = grid.spacing_mm();
    let sampling = format!("{:?}{:?}{:?}", grid.dims(), spacing, phantom.noise_hu);
    let uid = |slot: &str| uid_by_name(&[NAME, "radiograph", &sampling, slot]);
    let series_uid = uid("series");
    std::fs::create_dir_all(folder).map_err(|source| WriteError::Io { file: folder.display().to_string(), source })?;
    let pixel_spacing = [spacing[2].to_string(), spacing[0].to_string()];
    let instance = Item::new()
        .texts(tags::IMAGE_TYPE, &["ORIGINAL", "PRIMARY"])
        .text(tags::SOP_CLASS_UID, sop_class::DIGITAL_X_RAY_FOR_PRESENTATION)
        .text(tags::SOP_INSTANCE_UID, &uid("instance"))
        .with(study("DX", &Visit::default()))
        .text(tags::PRESENTATION_INTENT_TYPE, "FOR PRESENTATION")
        .text(tags::BODY_PART_EXAMINED, "CHEST")
        .text(tags::VIEW_POSITION, "PA")
        .texts(tags::IMAGER_PIXEL_SPACING, &pixel_spacing.each_ref().map(String::as_str))
        .text(tags::STUDY_INSTANCE_UID, &uid("study"))
        .text(tags::SERIES_INSTANCE_UID, &series_uid)
        .text(tags::STUDY_ID, "2")
        .text(tags::SERIES_NUMBER, "1")
        .text(tags::INSTANCE_NUMBER, "1")
        .texts(tags::PATIENT_ORIENTATION, &["L", "F"])
        .text(tags::IMAGE_LATERALITY, "U")
        .integer(tags::SAMPLES_PER_PIXEL, 1)
        .text(tags::PHOTOMETRIC_INTERPRETATION, "MONOCHROME2")
        .integer(tags::ROWS, slices)
        .integer(tags::COLUMNS, columns)
        .integer(tags::BITS_ALLOCATED, 16)
        .integer(tags::BITS_STORED, 12)
        .integer(tags::HIGH_BIT, 11)
        .integer(tags::PIXEL_REPRESENTATION, 0)
        .text(tags::PIXEL_INTENSITY_RELATIONSHIP, "LOG")
        .text(tags::PRESENTATION_LUT_SHAPE, "IDENTITY")
        .text(tags::LOSSY_IMAGE_COMPRESSION, "00")
        .text(tags::BURNED_IN_ANNOTATION, "NO")
        .decimal(tags::RESCALE_INTERCEPT, 0.0)
        .decimal(tags::RESCALE_SLOPE, 1.0)
        .text(tags::RESCALE_TYPE, "US")
        .words(tags::PIXEL_DATA, pixels(phantom));
    write_object(&folder.join("0001.dcm"), instance)?;
    Ok(series_uid)
}

/// Line integrals of attenuation, the greatest as white; the highest slice first.
fn pixels(phantom: &Phantom) -> Vec<u16> {
    let [columns, rows, slices] = phantom.image.grid().dims().map(|n| n as usize);
    let step_mm = phantom.image.grid().spacing_mm()[1];
    let absorbed = |i: usize, j: usize, k: usize| WATER_PER_MM * step_mm * (1.0 + phantom.image.physical([i, j, k]) / 1000.0).max(0.0);
    let integral = |(k, i): (usize, usize)| (0..rows).map(|j| absorbed(i, j, k)).sum::<f64>();
    let places = (0..slices).rev().flat_map(|k| (0..columns).map(move |i| (k, i)));
    let integrals: Vec<f64> = places.map(integral).collect();
    let most = integrals.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    integrals.into_iter().map(|value| (value / most * WHITE).round() as u16).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::phantom::chest;

    #[test]
    fn bone_is_bright_lung_is_dark_and_left_is_on_the_right() {
        let phantom = chest(&Sampling { dims: [56, 42, 45], spacing_mm: [6.4; 3], noise_hu: 0.0 });
        let pixels = pixels(&phantom);
        assert_eq!(pixels.len(), 56 * 45);
        // Column and row of a point of the patient, mm from the centre.
        let at = |x: f64, z: f64| f64::from(pixels[(22.0 - z / 6.4).round() as usize * 56 + (27.5 + x / 6.4).round() as usize]);
        assert!(at(0.0, 40.0) > 1.5 * at(-80.0, 40.0), "spine and lung");
        assert!(at(55.0, -40.0) > 1.2 * at(-55.0, -40.0), "the heart lies left");
        assert!(at(-175.0, 0.0) < 0.05 * WHITE, "air");
    }
}
