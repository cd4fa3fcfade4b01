//! Numbers with units from label maps and volumes: how large a region is, what the image shows in it, where it lies.

use serde::Serialize;
use thiserror::Error;

use crate::geometry::{Coded, Grid};
use crate::kernels::label_statistics::{LabelStatistics, label_statistics_cpu, label_statistics_of_cpu};
use crate::volume::{ImageVolume, LabelMap, Rescale};

/// How far the same voxel of a label map and its image may lie apart, mm: well below a voxel, well above decimal strings' rounding.
pub const GRID_TOLERANCE_MM: f64 = 0.01;

/// Why a region could not be measured.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum MeasureError {
    /// Label map and image are not on one grid.
    #[error(
        "labels on {} x {} x {} voxels and image on {} x {} x {} voxels are not the same grid (spacing {:.4} x {:.4} x {:.4} mm \
         and {:.4} x {:.4} x {:.4} mm, tolerance {GRID_TOLERANCE_MM} mm at the corners): bring the labels back to the source grid first",
        .labels.dims()[0], .labels.dims()[1], .labels.dims()[2], .image.dims()[0], .image.dims()[1], .image.dims()[2],
        .labels.spacing_mm()[0], .labels.spacing_mm()[1], .labels.spacing_mm()[2],
        .image.spacing_mm()[0], .image.spacing_mm()[1], .image.spacing_mm()[2]
    )]
    GridsDiffer {
        /// Grid of the label map.
        labels: Box<Grid>,
        /// Grid of the image.
        image: Box<Grid>,
    },
    /// Not one rescale a slice.
    #[error("{rescales} rescale pairs for {slices} slices")]
    RescaleCount {
        /// Pairs the image has.
        rescales: usize,
        /// Slices the image has.
        slices: u32,
    },
}

impl Coded for MeasureError {
    fn code(&self) -> &'static str {
        match self {
            Self::GridsDiffer { .. } => "measure.grids-differ",
            Self::RescaleCount { .. } => "measure.rescale-count",
        }
    }
}

/// What is measured of one region (one label). Image values are in the units of the image's [`crate::volume::Quantity`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct RegionNumbers {
    /// The label.
    pub label: u8,
    /// Number of voxels.
    pub voxels: u64,
    /// Voxels times the volume of one, millilitres.
    pub volume_ml: f64,
    /// Mean image value; `None` without voxels.
    pub mean: Option<f64>,
    /// Population standard deviation of the image values (divided by the number of voxels, ddof = 0); `None` without voxels.
    pub standard_deviation: Option<f64>,
    /// Least image value; `None` without voxels.
    pub least: Option<f64>,
    /// Greatest image value; `None` without voxels.
    pub greatest: Option<f64>,
    /// Mean of the voxel centres, patient LPS mm; `None` without voxels. It may lie outside a curved region.
    pub centroid_lps_mm: Option<[f64; 3]>,
    /// Smallest and largest voxel index (i, j, k), both included; `None` without voxels.
    pub bounds: Option<[[u32; 3]; 2]>,
}

/// Measures every label that occurs, background (0) left out, in ascending order.
///
/// # Errors
/// [`MeasureError::GridsDiffer`] where a corner of the grids lies more than [`GRID_TOLERANCE_MM`] apart;
/// [`MeasureError::RescaleCount`] where the image has not one rescale a slice.
pub fn measure_regions(labels: &LabelMap, image: &ImageVolume) -> Result<Vec<RegionNumbers>, MeasureError> {
    check_grids(labels, image)?;
    let statistics = label_statistics_cpu(labels, image);
    Ok(statistics.iter().map(|s| region_numbers(s, labels.grid(), &image.rescale)).collect())
}

/// Measures the labels in `asked`, in that order; one that does not occur has 0 voxels, 0 ml and no mean.
///
/// # Errors
/// As [`measure_regions`].
pub fn measure_labels(labels: &LabelMap, image: &ImageVolume, asked: &[u8]) -> Result<Vec<RegionNumbers>, MeasureError> {
    check_grids(labels, image)?;
    let statistics = label_statistics_of_cpu(labels, image, asked);
    Ok(statistics.iter().map(|s| region_numbers(s, labels.grid(), &image.rescale)).collect())
}

/// Numbers with units from sums that were made on a grid, on whichever device; `rescale` is one a slice.
///
/// # Panics
/// Where the sums name a slice that `rescale` has no entry for: [`check_grids`] goes before.
pub fn region_numbers(statistics: &LabelStatistics, grid: &Grid, rescale: &[Rescale]) -> RegionNumbers {
    let physical = statistics.physical(rescale);
    RegionNumbers {
        label: statistics.label,
        voxels: statistics.voxels,
        volume_ml: volume_ml(statistics.voxels, grid),
        mean: physical.map(|p| p.mean),
        standard_deviation: physical.map(|p| p.standard_deviation),
        least: physical.map(|p| p.least),
        greatest: physical.map(|p| p.greatest),
        centroid_lps_mm: statistics.centroid().map(|voxel| grid.lps_from_voxel().apply(voxel)),
        bounds: statistics.bounds,
    }
}

/// Volume of `voxels` voxels of `grid`, millilitres (1 ml = 1000 mm³); right for oblique and sheared grids.
pub fn volume_ml(voxels: u64, grid: &Grid) -> f64 {
    voxels as f64 * grid.voxel_volume_mm3() / 1000.0
}

/// Whether labels and image are on one grid, with one rescale a slice.
///
/// # Errors
/// As [`measure_regions`].
pub fn check_grids(labels: &LabelMap, image: &ImageVolume) -> Result<(), MeasureError> {
    if !labels.grid().matches(image.grid(), GRID_TOLERANCE_MM) {
        return Err(MeasureError::GridsDiffer { labels: Box::new(*labels.grid()), image: Box::new(*image.grid()) });
    }
    let slices = image.grid().dims()[2];
    if image.rescale.len() != slices as usize {
        return Err(MeasureError::RescaleCount { rescales: image.rescale.len(), slices });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Affine;
    use crate::volume::{Quantity, Volume};

    /// 3 x 2 x 2 voxels of 0.5 x 0.8 x 2.5 mm, columns towards the patient's left, rows down a 3-4-5 tilt.
    fn tilted(zero: [f64; 3]) -> Grid {
        let axes = Affine::from_columns([0.5, 0., 0.], [0., 0.64, -0.48], [0., 1.5, 2.0], zero);
        Grid::new([3, 2, 2], axes).expect("axes span space")
    }

    fn image(grid: Grid) -> ImageVolume {
        let stored = vec![0, 10, 20, 30, 40, 50, 0, -10, -20, -30, -40, -50];
        let rescale = vec![Rescale { slope: 1.0, intercept: -1000.0 }, Rescale { slope: -2.0, intercept: 5.0 }];
        ImageVolume { stored: Volume::new(grid, stored).into(), rescale, quantity: Quantity::Hounsfield }
    }

    fn labels(grid: Grid) -> LabelMap {
        Volume::new(grid, vec![0, 3, 3, 0, 0, 0, 0, 3, 0, 0, 0, 1])
    }

    #[test]
    fn numbers_carry_units_and_place() {
        let grid = tilted([10.0, 20.0, 30.0]);
        let all = measure_regions(&labels(grid), &image(grid)).expect("one grid");
        assert_eq!(all.iter().map(|r| (r.label, r.voxels)).collect::<Vec<_>>(), [(1, 1), (3, 3)]);
        // Label 3: -990, -980 and 25 HU at (1, 0, 0), (2, 0, 0), (1, 0, 1).
        let own = all[1];
        let mean = (-990.0 - 980.0 + 25.0) / 3.0;
        let spread = [-990.0, -980.0, 25.0].map(|v: f64| (v - mean).powi(2)).iter().sum::<f64>() / 3.0;
        assert!((own.mean.expect("has voxels") - mean).abs() < 1e-10);
        assert!((own.standard_deviation.expect("has voxels") - spread.sqrt()).abs() < 1e-10);
        assert_eq!((own.least, own.greatest), (Some(-990.0), Some(25.0)));
        assert!((own.volume_ml - 3.0 * 0.5 * 0.8 * 2.5 / 1000.0).abs() < 1e-15, "{} ml", own.volume_ml);
        let centroid = own.centroid_lps_mm.expect("has voxels");
        let expected = [10.0 + 0.5 * 4.0 / 3.0, 20.0 + 1.5 / 3.0, 30.0 + 2.0 / 3.0];
        assert!((0..3).all(|axis| (centroid[axis] - expected[axis]).abs() < 1e-12), "{centroid:?}");
        assert_eq!(own.bounds, Some([[1, 0, 0], [2, 0, 1]]));
        // Label 1: one voxel has a mean, no spread.
        assert_eq!((all[0].mean, all[0].standard_deviation), (Some(105.0), Some(0.0)));
    }

    #[test]
    fn a_label_that_does_not_occur_has_no_mean() {
        let grid = tilted([0.0; 3]);
        let all = measure_labels(&labels(grid), &image(grid), &[7]).expect("one grid");
        assert_eq!((all[0].voxels, all[0].volume_ml, all[0].mean, all[0].centroid_lps_mm), (0, 0.0, None, None));
        let json = serde_json::to_value(all[0]).expect("plain numbers");
        assert!(json["mean"].is_null() && json["volume_ml"] == 0.0, "{json}");
    }

    #[test]
    fn another_grid_is_refused() {
        let check = |shift: f64, same: bool| {
            let answer = measure_regions(&labels(tilted([shift, 0.0, 0.0])), &image(tilted([0.0; 3])));
            assert_eq!(answer.is_ok(), same, "{shift} mm");
            if let Err(error) = answer {
                assert_eq!(error.code(), "measure.grids-differ");
                assert!(error.to_string().contains("3 x 2 x 2"), "{error}");
            }
        };
        check(0.001, true);
        check(0.02, false);
    }

    #[test]
    fn missing_rescale_is_refused() {
        let grid = tilted([0.0; 3]);
        let mut image = image(grid);
        image.rescale.pop();
        let answer = measure_regions(&labels(grid), &image);
        assert_eq!(answer, Err(MeasureError::RescaleCount { rescales: 1, slices: 2 }));
    }
}
