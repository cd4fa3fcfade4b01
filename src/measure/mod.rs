//! Numbers with units from label maps and volumes: how large a region is, what the image shows in it, where it lies.

use serde::Serialize;
use thiserror::Error;

use crate::geometry::{Coded, Grid};
use crate::kernels::components::{ComponentRuns, Connectivity};
use crate::kernels::diameters::{Axes, axes_mm, longest_diameters_mm};
use crate::kernels::label_statistics::{LabelStatistics, label_statistics_cpu, label_statistics_of_cpu, region_statistics_cpu};
use crate::kernels::percentiles::region_percentiles_cpu;
use crate::kernels::regions::RegionRuns;
use crate::kernels::surface::{Surface, surfaces_cpu};
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

/// The shape of a region that has voxels. Distances are between voxel centres, so those of one voxel are 0.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Shape {
    /// Largest distance between two voxels, mm.
    pub longest_diameter_mm: f64,
    /// Largest distance between two voxels of one slice, mm.
    pub long_axis_mm: f64,
    /// Longest line across the long axis in its slice, within the convex hull of the region there, mm.
    pub short_axis_mm: f64,
    /// The slice of the axes, from 0.
    pub axes_slice: u32,
    /// Area of the surface by marching cubes, mm².
    pub surface_area_mm2: f64,
    /// Volume within that surface, millilitres; [`RegionNumbers::volume_ml`] is that of the voxels.
    pub mesh_volume_ml: f64,
    /// Surface of a ball of the mesh's volume, as a share of the mesh's: 1 for a ball.
    pub sphericity: f64,
}

/// What is measured of one connected component.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ComponentNumbers {
    /// As of a label.
    pub numbers: RegionNumbers,
    /// Its shape.
    pub shape: Shape,
    /// Percentiles of the image values, in the order in which they were asked for.
    pub percentiles: Vec<f64>,
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

/// The shapes of the labels in `asked`, in that order; `None` where one does not occur.
///
/// # Panics
/// Where a label is asked for twice.
pub fn measure_shapes(labels: &LabelMap, asked: &[u8]) -> Vec<Option<Shape>> {
    let grid = labels.grid();
    shapes(&RegionRuns::of_labels(labels.voxels(), grid.dims(), asked), grid)
}

/// Percentiles (0 to 100, at most [`MOST_PERCENTILES`](crate::kernels::percentiles::MOST_PERCENTILES)) of the image values of the labels in
/// `asked`, in that order, linear between neighbouring values; `None` where a label does not occur.
///
/// # Errors
/// As [`measure_regions`].
///
/// # Panics
/// Where a label is asked for twice, or for other percentiles.
pub fn measure_percentiles(
    labels: &LabelMap,
    image: &ImageVolume,
    asked: &[u8],
    percents: &[f64],
) -> Result<Vec<Option<Vec<f64>>>, MeasureError> {
    check_grids(labels, image)?;
    Ok(region_percentiles_cpu(image, &RegionRuns::of_labels(labels.voxels(), labels.grid().dims(), asked), percents))
}

/// Measures each connected component of each label, in the order of their first voxels in memory.
///
/// # Errors
/// As [`measure_regions`].
///
/// # Panics
/// As [`measure_percentiles`].
pub fn measure_components(
    labels: &LabelMap,
    image: &ImageVolume,
    connectivity: Connectivity,
    percents: &[f64],
) -> Result<Vec<ComponentNumbers>, MeasureError> {
    check_grids(labels, image)?;
    let grid = labels.grid();
    let regions = RegionRuns::of_components(&ComponentRuns::of(labels.voxels(), grid.dims(), connectivity));
    let statistics = region_statistics_cpu(image, &regions);
    let percentiles = region_percentiles_cpu(image, &regions, percents);
    let component = |((statistics, shape), percentiles): ((&LabelStatistics, Option<Shape>), Option<Vec<f64>>)| {
        Some(ComponentNumbers { numbers: region_numbers(statistics, grid, &image.rescale), shape: shape?, percentiles: percentiles? })
    };
    Ok(statistics.iter().zip(shapes(&regions, grid)).zip(percentiles).filter_map(component).collect())
}

fn shapes(regions: &RegionRuns, grid: &Grid) -> Vec<Option<Shape>> {
    let affine = grid.lps_from_voxel();
    let diameters = longest_diameters_mm(regions, &affine);
    let axes = axes_mm(regions, &affine);
    let surfaces = surfaces_cpu(regions, &affine);
    let shape = |((diameter, axes), surface): ((Option<f64>, Option<Axes>), Option<Surface>)| {
        let (axes, surface) = (axes?, surface?);
        Some(Shape {
            longest_diameter_mm: diameter?,
            long_axis_mm: axes.long_mm,
            short_axis_mm: axes.short_mm,
            axes_slice: axes.slice,
            surface_area_mm2: surface.area_mm2,
            mesh_volume_ml: surface.volume_mm3 / 1000.0,
            sphericity: surface.sphericity(),
        })
    };
    diameters.into_iter().zip(axes).zip(surfaces).map(shape).collect()
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
    fn shapes_are_of_the_tilted_grid() {
        let grid = tilted([5.0, 6.0, 7.0]);
        let shapes = measure_shapes(&labels(grid), &[3, 9]);
        assert_eq!(shapes[1], None);
        // Label 3: (1, 0, 0), (2, 0, 0), (1, 0, 1), with columns 0.5 mm and slices 2.5 mm apart, at right angles.
        let own = shapes[0].expect("has voxels");
        assert!((own.longest_diameter_mm - 6.5f64.sqrt()).abs() < 1e-12 && (own.long_axis_mm - 0.5).abs() < 1e-12, "{own:?}");
        assert_eq!((own.short_axis_mm, own.axes_slice), (0.0, 0));
        assert!(own.mesh_volume_ml < 3.0 * 0.5 * 0.8 * 2.5 / 1000.0 && (0.3..1.0).contains(&own.sphericity), "{own:?}");
    }

    #[test]
    fn components_are_measured_each() {
        let grid = tilted([0.0; 3]);
        let (labels, image) = (labels(grid), image(grid));
        let found = measure_components(&labels, &image, Connectivity::TwentySix, &[0.0, 50.0, 100.0]).expect("one grid");
        // Each label is one component, that of label 3 the first in memory.
        let regions = measure_regions(&labels, &image).expect("one grid");
        assert_eq!(found.iter().map(|c| c.numbers).collect::<Vec<_>>(), [regions[1], regions[0]]);
        assert_eq!(found[0].percentiles, [-990.0, -980.0, 25.0]);
        assert_eq!(Some(found[0].shape), measure_shapes(&labels, &[3])[0]);
        let of_labels = measure_percentiles(&labels, &image, &[3, 9], &[50.0]).expect("one grid");
        assert_eq!(of_labels, [Some(vec![-980.0]), None]);
        assert_eq!(measure_components(&labels, &image, Connectivity::Six, &[50.0]).expect("one grid").len(), 2);
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
