//! The phantom as a DICOM study: one CT series, as a scanner would send it.

use std::path::Path;

use super::Phantom;
use crate::codes::{Uid, sop_class, uid_by_name};
use crate::dataset::{Item, WriteError, tags, write_object};

/// Where the phantom's study and series UIDs come from, beside the sampling itself.
pub(super) const NAME: &str = "chest phantom 1";

/// Whose study it is, and when it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Visit<'a> {
    /// Names the study among others of the same sampling; empty for the first.
    pub name: &'a str,
    /// Patient ID.
    pub patient_id: &'a str,
    /// Patient's Birth Date, `19700101`, or empty.
    pub birth_date: &'a str,
    /// Study Date, and that of everything in it.
    pub date: &'a str,
}

impl Default for Visit<'_> {
    fn default() -> Self {
        Self { name: "", patient_id: "ROENTGEN-PHANTOM", birth_date: "", date: "20260101" }
    }
}

/// Writes `phantom` into `folder` as `0001.dcm` and so on, and returns its Series Instance UID.
///
/// The same phantom gives the same bytes. The patient is called `Phantom^Chest`.
///
/// # Errors
/// [`WriteError`] where a file cannot be written.
pub fn write_series(phantom: &Phantom, folder: &Path) -> Result<Uid, WriteError> {
    write_visit(phantom, &Visit::default(), folder)
}

/// As [`write_series`], of another patient or at another time.
///
/// # Errors
/// As [`write_series`].
pub fn write_visit(phantom: &Phantom, visit: &Visit<'_>, folder: &Path) -> Result<Uid, WriteError> {
    let grid = phantom.image.grid();
    let [columns, rows, slices] = grid.dims();
    let spacing = grid.spacing_mm();
    let sampling = format!("{:?}{:?}{:?}", grid.dims(), spacing, phantom.noise_hu);
    let mut name = vec![NAME, sampling.as_str()];
    if *visit != Visit::default() {
        name.extend([visit.name, visit.patient_id, visit.birth_date, visit.date]);
    }
    let uid = |slot: &str| uid_by_name(&[name.as_slice(), &[slot]].concat());
    let series_uid = uid("series");
    std::fs::create_dir_all(folder).map_err(|source| WriteError::Io { file: folder.display().to_string(), source })?;
    for k in 0..slices {
        let position = grid.lps_from_voxel().apply([0.0, 0.0, f64::from(k)]).map(|mm| format!("{mm:.3}"));
        let pixels =
            phantom.image.stored.as_int16().expect("the phantom is of integers").slice(k as usize).iter().map(|&v| v as u16).collect();
        let rescale = phantom.image.rescale[k as usize];
        let instance = Item::new()
            .texts(tags::IMAGE_TYPE, &["ORIGINAL", "PRIMARY", "AXIAL"])
            .text(tags::SOP_CLASS_UID, sop_class::CT_IMAGE)
            .text(tags::SOP_INSTANCE_UID, &uid(&format!("instance {k}")))
            .with(study("CT", visit))
            .text(tags::BODY_PART_EXAMINED, "CHEST")
            .decimal(tags::SLICE_THICKNESS, spacing[2])
            .decimal(tags::KVP, 120.0)
            .text(tags::PATIENT_POSITION, "HFS")
            .text(tags::STUDY_INSTANCE_UID, &uid("study"))
            .text(tags::SERIES_INSTANCE_UID, &series_uid)
            .text(tags::STUDY_ID, "1")
            .text(tags::SERIES_NUMBER, "2")
            .text(tags::ACQUISITION_NUMBER, "1")
            .text(tags::INSTANCE_NUMBER, &(k + 1).to_string())
            .texts(tags::IMAGE_POSITION_PATIENT, &position.each_ref().map(String::as_str))
            .texts(tags::IMAGE_ORIENTATION_PATIENT, &["1", "0", "0", "0", "1", "0"])
            .text(tags::FRAME_OF_REFERENCE_UID, &uid("frame of reference"))
            .empty(tags::POSITION_REFERENCE_INDICATOR)
            .integer(tags::SAMPLES_PER_PIXEL, 1)
            .text(tags::PHOTOMETRIC_INTERPRETATION, "MONOCHROME2")
            .integer(tags::ROWS, rows)
            .integer(tags::COLUMNS, columns)
            .texts(tags::PIXEL_SPACING, &[&spacing[1].to_string(), &spacing[0].to_string()])
            .integer(tags::BITS_ALLOCATED, 16)
            .integer(tags::BITS_STORED, 12)
            .integer(tags::HIGH_BIT, 11)
            .integer(tags::PIXEL_REPRESENTATION, 0)
            .decimal(tags::RESCALE_INTERCEPT, rescale.intercept)
            .decimal(tags::RESCALE_SLOPE, rescale.slope)
            .text(tags::RESCALE_TYPE, "HU")
            .words(tags::PIXEL_DATA, pixels);
        write_object(&folder.join(format!("{:04}.dcm", k + 1)), instance)?;
    }
    Ok(series_uid)
}

/// What every image of the phantom says of patient, study and equipment.
pub(super) fn study(modality: &str, visit: &Visit<'_>) -> Item {
    Item::new()
        .text(tags::STUDY_DATE, visit.date)
        .text(tags::SERIES_DATE, visit.date)
        .text(tags::ACQUISITION_DATE, visit.date)
        .text(tags::CONTENT_DATE, visit.date)
        .text(tags::STUDY_TIME, "120000")
        .text(tags::SERIES_TIME, "120000")
        .text(tags::ACQUISITION_TIME, "120000")
        .text(tags::CONTENT_TIME, "120000")
        .empty(tags::ACCESSION_NUMBER)
        .text(tags::MODALITY, modality)
        .text(tags::MANUFACTURER, "roentgen")
        .text(tags::MANUFACTURER_MODEL_NAME, "chest phantom")
        .empty(tags::REFERRING_PHYSICIAN_NAME)
        .text(tags::STUDY_DESCRIPTION, "Phantom, no patient")
        .text(tags::PATIENT_NAME, "Phantom^Chest")
        .text(tags::PATIENT_ID, visit.patient_id)
        .text(tags::PATIENT_BIRTH_DATE, visit.birth_date)
        .text(tags::PATIENT_SEX, "O")
}
