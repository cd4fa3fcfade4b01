//! The measurements that a package asks for, of each of its findings.

use super::found::Found;
use super::intensity;
use crate::codes::{Code, dcm, ibsi, sct, ucum};
use crate::findings::Measurement;
use crate::measure::{self, MeasureError, RegionNumbers, Shape};
use crate::model::MeasurementKind;
use crate::volume::{ImageVolume, LabelMap, Quantity};

/// The percentiles that packages can ask for.
const PERCENTS: [f64; 5] = [5.0, 10.0, 50.0, 90.0, 95.0];

/// What is known of one finding's region.
pub(super) struct Measured {
    pub(super) numbers: RegionNumbers,
    /// Where the finding asks for some of it, and has voxels.
    shape: Option<Shape>,
    /// One for each of [`PERCENTS`]; where the finding asks for some, and has voxels.
    percentiles: Option<Vec<f64>>,
}

/// Measures the findings, each as far as it asks.
///
/// # Errors
/// As [`measure::measure_labels`].
pub(super) fn measured(findings: &[Found<'_>], labels: &LabelMap, image: &ImageVolume) -> Result<Vec<Measured>, MeasureError> {
    let asking = |wanted: fn(MeasurementKind) -> bool| -> Vec<u8> {
        findings.iter().filter(|f| f.described.measurements.iter().any(|&kind| wanted(kind))).map(|f| f.segment).collect()
    };
    let numbers = measure::measure_labels(labels, image, &findings.iter().map(|f| f.segment).collect::<Vec<u8>>())?;
    let shaped = asking(is_of_shape);
    let ranked = asking(|kind| percent(kind).is_some());
    let shapes = if shaped.is_empty() { Vec::new() } else { measure::measure_shapes(labels, &shaped) };
    let percentiles = if ranked.is_empty() { Vec::new() } else { measure::measure_percentiles(labels, image, &ranked, &PERCENTS)? };
    let measured = |numbers: RegionNumbers| Measured {
        numbers,
        shape: of_label(&shaped, &shapes, numbers.label).copied(),
        percentiles: of_label(&ranked, &percentiles, numbers.label).cloned(),
    };
    Ok(numbers.into_iter().map(measured).collect())
}

/// What was measured of a label, where it was.
fn of_label<'a, T>(labels: &[u8], values: &'a [Option<T>], label: u8) -> Option<&'a T> {
    values[labels.iter().position(|&other| other == label)?].as_ref()
}

fn is_of_shape(kind: MeasurementKind) -> bool {
    use MeasurementKind::{LongAxis, LongestDiameter, ShortAxis, Sphericity, SurfaceArea};
    matches!(kind, LongestDiameter | LongAxis | ShortAxis | SurfaceArea | Sphericity)
}

fn percent(kind: MeasurementKind) -> Option<f64> {
    match kind {
        MeasurementKind::Percentile5 => Some(5.0),
        MeasurementKind::Percentile10 => Some(10.0),
        MeasurementKind::Median => Some(50.0),
        MeasurementKind::Percentile90 => Some(90.0),
        MeasurementKind::Percentile95 => Some(95.0),
        _ => None,
    }
}

impl Measured {
    /// One of the numbers, with its codes and unit.
    pub(super) fn measurement(&self, kind: MeasurementKind, quantity: Quantity, modality: &str) -> Measurement {
        let intensity = |derivation, value| {
            let (concept, unit) = intensity::concept_and_unit(quantity, modality);
            Measurement { concept, derivation: Some(derivation), method: None, value, unit }
        };
        let percentile = |derivation| {
            let place = PERCENTS.iter().position(|&p| percent(kind) == Some(p));
            intensity(derivation, self.percentiles.as_ref().zip(place).map(|(values, place)| values[place]))
        };
        let of_shape = |concept: Code, value: fn(&Shape) -> f64, unit: Code| Measurement {
            concept,
            derivation: None,
            method: None,
            value: self.shape.as_ref().map(value),
            unit,
        };
        match kind {
            MeasurementKind::Volume => Measurement {
                concept: sct::VOLUME,
                derivation: None,
                method: Some(dcm::SUM_OF_VOXELS),
                value: Some(self.numbers.volume_ml),
                unit: ucum::MILLILITRE,
            },
            MeasurementKind::Mean => intensity(sct::MEAN, self.numbers.mean),
            MeasurementKind::StandardDeviation => intensity(sct::STANDARD_DEVIATION, self.numbers.standard_deviation),
            MeasurementKind::Minimum => intensity(sct::MINIMUM, self.numbers.least),
            MeasurementKind::Maximum => intensity(sct::MAXIMUM, self.numbers.greatest),
            MeasurementKind::Median => percentile(sct::MEDIAN),
            MeasurementKind::Percentile5 => percentile(sct::PERCENTILE_5),
            MeasurementKind::Percentile10 => percentile(sct::PERCENTILE_10),
            MeasurementKind::Percentile90 => percentile(sct::PERCENTILE_90),
            MeasurementKind::Percentile95 => percentile(sct::PERCENTILE_95),
            MeasurementKind::LongestDiameter => Measurement {
                derivation: Some(sct::MAXIMUM),
                ..of_shape(sct::DIAMETER, |shape| shape.longest_diameter_mm, ucum::MILLIMETRE)
            },
            MeasurementKind::LongAxis => of_shape(sct::LONG_AXIS, |shape| shape.long_axis_mm, ucum::MILLIMETRE),
            MeasurementKind::ShortAxis => of_shape(sct::SHORT_AXIS, |shape| shape.short_axis_mm, ucum::MILLIMETRE),
            MeasurementKind::SurfaceArea => of_shape(ibsi::SURFACE_AREA_OF_MESH, |shape| shape.surface_area_mm2, ucum::SQUARE_MILLIMETRE),
            MeasurementKind::Sphericity => of_shape(ibsi::SPHERICITY, |shape| shape.sphericity, ucum::ONE),
        }
    }
}
