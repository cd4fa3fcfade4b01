//! Where kernels run: one call a kernel, the same contract on both sides.

use std::fmt;

use super::bounding_box::{Bounds, bounding_box_cpu, bounding_box_gpu};
use super::components::{Connectivity, keep_largest_cpu, remove_small_cpu};
use super::holes::fill_holes_cpu;
use super::percentiles::{percentiles_cpu, percentiles_gpu};
use super::statistics::{Statistics, statistics_cpu, statistics_gpu};
use super::{Mask, Resample, ScoresToLabels, resample_cpu, resample_gpu, scores_to_labels_cpu, scores_to_labels_gpu};
use crate::gpu::{DeviceChoice, Gpu, GpuError};
use crate::volume::{ImageVolume, LabelMap};

/// Where kernels run.
#[derive(Debug)]
pub enum Backend {
    /// The CPU implementations.
    Cpu,
    /// The shaders.
    Gpu(Box<Gpu>),
}

/// Which connected components stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ComponentFilter {
    /// Fewest voxels.
    pub min_voxels: u64,
    /// Only the largest of each label.
    pub keep_largest: bool,
}

impl Backend {
    /// Opens what `choice` asks for.
    ///
    /// # Errors
    /// [`GpuError`] where that is not there.
    pub fn open(choice: &DeviceChoice) -> Result<Self, GpuError> {
        Ok(Gpu::open(choice)?.map_or(Self::Cpu, |gpu| Self::Gpu(Box::new(gpu))))
    }

    /// `cpu` or `gpu`: results are the same bytes within a class.
    pub fn class(&self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Gpu(_) => "gpu",
        }
    }

    /// See [`resample_cpu`].
    ///
    /// # Errors
    /// Where the GPU fails.
    pub fn resample(&self, image: &ImageVolume, kernel: &Resample) -> Result<Vec<f32>, GpuError> {
        match self {
            Self::Cpu => Ok(resample_cpu(image, kernel)),
            Self::Gpu(gpu) => resample_gpu(gpu, image, kernel),
        }
    }

    /// See [`statistics_cpu`].
    ///
    /// # Errors
    /// Where the GPU fails.
    pub fn statistics(&self, image: &ImageVolume, mask: Mask<'_>) -> Result<Option<Statistics>, GpuError> {
        match self {
            Self::Cpu => Ok(statistics_cpu(image, mask)),
            Self::Gpu(gpu) => statistics_gpu(gpu, image, mask),
        }
    }

    /// See [`percentiles_cpu`].
    ///
    /// # Errors
    /// Where the GPU fails.
    pub fn percentiles(&self, image: &ImageVolume, mask: Mask<'_>, percents: &[f64]) -> Result<Option<Vec<f64>>, GpuError> {
        match self {
            Self::Cpu => Ok(percentiles_cpu(image, mask, percents)),
            Self::Gpu(gpu) => percentiles_gpu(gpu, image, mask, percents),
        }
    }

    /// See [`bounding_box_cpu`].
    ///
    /// # Errors
    /// Where the GPU fails.
    pub fn bounding_box(&self, image: &ImageVolume, mask: Mask<'_>) -> Result<Option<Bounds>, GpuError> {
        match self {
            Self::Cpu => Ok(bounding_box_cpu(image, mask)),
            Self::Gpu(gpu) => bounding_box_gpu(gpu, image, mask),
        }
    }

    /// What of an image is not 0, with its holes filled (across faces): 1 there, 0 elsewhere. `scipy.ndimage.binary_fill_holes(image != 0)`.
    ///
    /// Runs on the CPU whatever the backend: both choose the same voxels.
    pub fn nonzero_filled(&self, image: &ImageVolume) -> LabelMap {
        let grid = *image.grid();
        let mut kept = Mask::Nonzero.label_map(image, None).into_voxels();
        fill_holes_cpu(&mut kept, grid.dims(), 1, false);
        LabelMap::new(grid, kept)
    }

    /// See [`scores_to_labels_cpu`].
    ///
    /// # Errors
    /// Where the GPU fails.
    pub fn scores_to_labels(&self, scores: &[f32], kernel: &ScoresToLabels<'_>) -> Result<Vec<u8>, GpuError> {
        match self {
            Self::Cpu => Ok(scores_to_labels_cpu(scores, kernel)),
            Self::Gpu(gpu) => scores_to_labels_gpu(gpu, scores, kernel),
        }
    }

    /// Connected components (26 neighbours) of each label: those that `filter` does not keep become background.
    ///
    /// Runs on the CPU whatever the backend: the label map is in host memory by then, and both implementations are exact.
    pub fn filter_components(&self, labels: &mut [u8], dims: [u32; 3], filter: ComponentFilter) {
        if filter.keep_largest {
            keep_largest_cpu(labels, dims, Connectivity::TwentySix);
        }
        if filter.min_voxels > 1 {
            remove_small_cpu(labels, dims, Connectivity::TwentySix, filter.min_voxels);
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Gpu(gpu) => write!(f, "gpu {}", gpu.summary()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(min_voxels: u64, keep_largest: bool, expected: &[u8]) {
        let mut labels = [1, 1, 0, 1, 0, 2, 2, 2, 0, 2];
        Backend::Cpu.filter_components(&mut labels, [10, 1, 1], ComponentFilter { min_voxels, keep_largest });
        assert_eq!(labels, expected);
    }

    #[test]
    fn filters_components_of_each_label() {
        check(0, false, &[1, 1, 0, 1, 0, 2, 2, 2, 0, 2]);
        check(2, false, &[1, 1, 0, 0, 0, 2, 2, 2, 0, 0]);
        check(3, false, &[0, 0, 0, 0, 0, 2, 2, 2, 0, 0]);
        check(0, true, &[1, 1, 0, 0, 0, 2, 2, 2, 0, 0]);
        check(3, true, &[0, 0, 0, 0, 0, 2, 2, 2, 0, 0]);
    }
}
