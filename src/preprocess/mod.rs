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
#[derive(Debug, Clone)]
pub struct Plan {
    network_grid: Grid,
    kernel: Resample,
}

impl Plan {
    /// Composes `steps`, which the manifest guarantees to be in the order geometry, then values.
    ///
    /// # Errors
    /// [`PreprocessError::Grid`] where the spacing asked for makes no grid, [`PreprocessError::TooLarge`] where it makes too large a one.
    pub fn new(steps: &[PreprocessStep], source: &Grid) -> Result<Self, PreprocessError> {
        let mut network_grid = *source;
        let mut kernel = Resample {
            target_dims: [0; 3],
            source_from_target: Affine::IDENTITY,
            interpolation: Interpolation::Linear,
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
        Ok(Self { network_grid, kernel })
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
        Ok(Volume::new(self.network_grid, backend.resample(image, &self.kernel)?))
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
