//! The manifest's preprocessing steps, composed into one pass from stored values to the network's input.

use thiserror::Error;

use crate::geometry::{Affine, Coded, GeometryError, Grid};
use crate::gpu::GpuError;
use crate::kernels::{Backend, Interpolation, Resample};
use crate::model::PreprocessStep;
use crate::volume::{ImageVolume, Volume};

/// The largest grid that a network runs on: 4 GiB of input, and as much again for each class of output.
pub const MAX_NETWORK_VOXELS: usize = 1 << 30;

/// Why preprocessing cannot run.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PreprocessError {
    /// The network's grid would be empty or enormous.
    #[error("the network's grid cannot be made: {0}")]
    Grid(#[from] GeometryError),
    /// The network's grid would need more memory than a machine has.
    #[error(
        "the network's grid would have {voxels} voxels, {MAX_NETWORK_VOXELS} are allowed: the package's spacing is too fine for a series of this size"
    )]
    TooLarge {
        /// Voxels of the network's grid.
        voxels: usize,
    },
    /// The device failed.
    #[error(transparent)]
    Kernel(#[from] GpuError),
}

impl Coded for PreprocessError {
    fn code(&self) -> &'static str {
        match self {
            Self::Grid(_) => "preprocess.grid",
            Self::TooLarge { .. } => "preprocess.too-large",
            Self::Kernel(e) => e.code(),
        }
    }
}

/// All steps of a manifest for one source grid, as one kernel: orientation and spacing are one affine, values are clipped and
/// normalised as they are interpolated.
///
/// A sheared source (a gantry tilt) is straightened first, see [`Grid::straightened`], so a network sees box-shaped voxels whatever the
/// scanner did. The box has corners that the source does not reach. What lies there is unknown, and the edge voxels of a stack do
/// not continue into it, as they would smear a body that the stack cuts; it gets the clip's minimum where the package clips, and
/// the lowest value of the image where it does not: air in CT, no signal elsewhere.
#[derive(Debug, Clone)]
pub struct Plan {
    network_grid: Grid,
    kernel: Resample,
    straightened_from: Option<f64>,
}

impl Plan {
    /// Composes `steps`, which the manifest guarantees to be in the order geometry, then values.
    ///
    /// # Errors
    /// [`PreprocessError::Grid`] where the spacing asked for, or a shear, makes no grid, [`PreprocessError::TooLarge`] where it makes too large a one.
    pub fn new(steps: &[PreprocessStep], source: &Grid) -> Result<Self, PreprocessError> {
        let straightened_from = (!source.is_straight()).then(|| source.shear());
        let mut network_grid = if straightened_from.is_some() { source.straightened()? } else { *source };
        let mut kernel = Resample {
            target_dims: [0; 3],
            source_from_target: Affine::IDENTITY,
            interpolation: Interpolation::Linear,
            outside: None,
            clip: None,
            subtract: 0.0,
            divide: 1.0,
        };
        for step in steps {
            match *step {
                PreprocessStep::Orient { .. } => network_grid = network_grid.reoriented_lps(),
                PreprocessStep::Resample { spacing_mm, interpolation } => {
                    network_grid = network_grid.respaced(spacing_mm)?;
                    kernel.interpolation = interpolation;
                }
                PreprocessStep::Clip { min, max } => kernel.clip = Some([min, max]),
                PreprocessStep::Normalize { subtract, divide } => (kernel.subtract, kernel.divide) = (subtract, divide),
            }
        }
        if network_grid.voxel_count() > MAX_NETWORK_VOXELS {
            return Err(PreprocessError::TooLarge { voxels: network_grid.voxel_count() });
        }
        kernel.target_dims = network_grid.dims();
        kernel.source_from_target = source.voxel_from_lps() * network_grid.lps_from_voxel();
        Ok(Self { network_grid, kernel, straightened_from })
    }

    /// The grid of the network's input and output.
    pub fn network_grid(&self) -> &Grid {
        &self.network_grid
    }

    /// The network's input for `image`, which lies on the grid that the plan was made for.
    ///
    /// # Errors
    /// [`PreprocessError::Kernel`] where the device fails.
    pub fn run(&self, backend: &Backend, image: &ImageVolume) -> Result<Volume<f32>, PreprocessError> {
        let mut kernel = self.kernel.clone();
        if self.straightened_from.is_some() {
            kernel.outside = Some(kernel.clip.map_or_else(|| image.range()[0], |[low, _]| low));
        }
        Ok(Volume::new(self.network_grid, backend.resample(image, &kernel)?))
    }

    /// What the reader of a result should know of the network's grid, where there is anything.
    pub fn note(&self) -> Option<String> {
        let angle_deg = self.straightened_from?.atan().to_degrees();
        let outside = self.kernel.clip.map_or_else(|| "the lowest value of the image".to_owned(), |[low, _]| format!("{low}"));
        Some(format!(
            "the series is sheared by {angle_deg:.2} degrees (gantry tilt): the network saw it resampled to a straight grid, with \
             {outside} where the series has no voxels; labels and measurements lie on the series' own grid"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Interpolation;

    /// A sagittal grid of 40 x 30 x 20 voxels of 2 x 2 x 3 mm.
    fn source() -> Grid {
        let axes = Affine::from_columns([0., 2., 0.], [0., 0., -2.], [3., 0., 0.], [-30., -40., 30.]);
        Grid::new([40, 30, 20], axes).expect("axes span space")
    }

    fn resample(spacing_mm: f64) -> PreprocessStep {
        PreprocessStep::Resample { spacing_mm: [spacing_mm; 3], interpolation: Interpolation::Linear }
    }

    #[test]
    fn orientation_and_spacing_are_one_affine() {
        let steps = [PreprocessStep::Orient { to: "LPS".into() }, resample(1.0)];
        let plan = Plan::new(&steps, &source()).expect("a plan");
        assert_eq!(plan.network_grid().dims(), [60, 80, 60]);
        assert_eq!(plan.network_grid().orientation().to_string(), "LPS");
        // The kernel's affine takes the first network voxel to where the source has the same point of the patient.
        let patient = plan.network_grid().lps_from_voxel().column(3);
        let expected = source().voxel_from_lps().apply(patient);
        let found = plan.kernel.source_from_target.column(3);
        assert!((0..3).all(|n| (found[n] - expected[n]).abs() < 1e-9), "{found:?} is not {expected:?}");
    }

    #[test]
    fn a_grid_too_large_is_refused_before_memory_is_asked_for() {
        let error = Plan::new(&[resample(0.05)], &source()).expect_err("2304 million voxels are too many");
        assert_eq!(error.code(), "preprocess.too-large");
    }
}
