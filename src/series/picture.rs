//! Images that lie nowhere in the patient: radiographs, ultrasound, photographs, secondary captures; single or over time.

use super::gate::Placed;
use super::{Kind, Reason, Space};
use crate::dataset::{Attributes, Frame, Instance, tags};
use crate::geometry::{Affine, Grid};

/// Physical Units X and Y Direction (0018,6024): centimetres.
const CENTIMETRES: u32 = 3;

/// One image, or the frames of a cine, on a grid in the image's own plane: i along rows, j along columns, k over time.
pub(super) fn place(frames: &[Frame], reasons: &mut Vec<Reason>, notes: &mut Vec<String>) -> Option<Placed> {
    let instance = &frames[0].instance;
    let (spacing_mm, space) = spacing(instance, notes);
    if spacing_mm.iter().any(|&mm| mm <= 0.0) {
        reasons.push(Reason::BadPixelSpacing { spacing_mm });
        return None;
    }
    let [between_rows, between_columns] = spacing_mm;
    let dims = [instance.columns, instance.rows, frames.len() as u32];
    let affine = Affine::from_columns([between_columns, 0., 0.], [0., between_rows, 0.], [0., 0., 1.], [0.; 3]);
    let grid = Grid::new(dims, affine).map_err(|e| reasons.push(e.into())).ok()?;
    let kind = if frames.len() > 1 { Kind::Cine } else { Kind::Image };
    if kind == Kind::Cine {
        notes.push(format!("{} frames over time", frames.len()));
    }
    Some(Placed { grid, frames: frames.to_vec(), kind, space, slice_of_frame: (0..dims[2]).collect(), uneven: None })
}

/// Spacing between rows and between columns, mm, and what it is measured in (PS3.3 10.7.1.3).
///
/// Pixel Spacing is calibrated to the patient where it differs from Imager Pixel Spacing, which is that of the detector; the latter is
/// divided by the magnification where that is stated. Ultrasound states it for each region; one region is taken.
fn spacing(instance: &Instance, notes: &mut Vec<String>) -> ([f64; 2], Space) {
    let h = &*instance.attributes;
    let imager: Option<[f64; 2]> = h.numbers(tags::IMAGER_PIXEL_SPACING);
    if let Some(spacing_mm) = instance.pixel_spacing_mm {
        let calibrated = imager.is_none_or(|imager| imager != spacing_mm) && instance.modality != "US";
        notes.push(format!(
            "Pixel Spacing {:.4} x {:.4} mm, {}",
            spacing_mm[0],
            spacing_mm[1],
            if imager.is_some() && !calibrated { "that of the detector" } else { "as calibrated" }
        ));
        let space = if imager.is_some() && !calibrated { Space::Detector } else { Space::Plane };
        return (spacing_mm, space);
    }
    if let Some(spacing_mm) = imager {
        let magnification = h.number(tags::ESTIMATED_RADIOGRAPHIC_MAGNIFICATION_FACTOR).filter(|&m| m >= 1.0);
        return match magnification {
            Some(magnification) => {
                notes.push(format!("Imager Pixel Spacing divided by the estimated magnification of {magnification:.3}"));
                (spacing_mm.map(|mm| mm / magnification), Space::Plane)
            }
            None => {
                notes.push("Imager Pixel Spacing: distances at the detector, larger than in the patient".into());
                (spacing_mm, Space::Detector)
            }
        };
    }
    if let Some(spacing_mm) = ultrasound_region(instance) {
        notes.push("spacing from the one ultrasound region".into());
        return (spacing_mm, Space::Plane);
    }
    notes.push("no spacing is stated: distances are in pixels".into());
    ([1.0; 2], Space::Pixels)
}

/// Spacing of the only ultrasound region, where it is stated in centimetres (PS3.3 C.8.5.5).
fn ultrasound_region(instance: &Instance) -> Option<[f64; 2]> {
    let regions = instance.header().ok()?.get(tags::SEQUENCE_OF_ULTRASOUND_REGIONS)?.value().items()?;
    let [region] = regions else { return None };
    let centimetres = |tag| region.count(tag) == CENTIMETRES;
    if !centimetres(tags::PHYSICAL_UNITS_X_DIRECTION) || !centimetres(tags::PHYSICAL_UNITS_Y_DIRECTION) {
        return None;
    }
    Some([region.number(tags::PHYSICAL_DELTA_Y)?.abs() * 10.0, region.number(tags::PHYSICAL_DELTA_X)?.abs() * 10.0])
}
