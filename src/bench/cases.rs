//! The kernels and what they get: a bright ellipsoid in air with noise, its label map, and class scores of nested shells.

use std::time::Duration;

use rayon::prelude::*;

use super::samples::{Samples, repeat, repeat_gpu};
use crate::geometry::{Affine, Grid};
use crate::gpu::{Gpu, GpuError};
use crate::kernels::bounding_box::{bounding_box_cpu, bounding_box_gpu};
use crate::kernels::components::{ComponentRuns, Connectivity, components_cpu};
use crate::kernels::components_gpu::components_gpu;
use crate::kernels::diameters::{axes_mm, longest_diameters_mm};
use crate::kernels::distance::{Target, distance_mm_cpu, distance_mm_gpu};
use crate::kernels::gaussian::{Boundary, Gaussian, gaussian_cpu, gaussian_gpu};
use crate::kernels::holes::fill_holes_cpu;
use crate::kernels::label_statistics::{label_statistics_cpu, label_statistics_gpu};
use crate::kernels::morphology::{Element, Operation, morphology_cpu, morphology_gpu};
use crate::kernels::patches::{Patch, Weighting, gather_patch_cpu, gather_patch_gpu, scatter_patch_cpu, scatter_patch_gpu};
use crate::kernels::percentiles::{percentiles_cpu, percentiles_gpu};
use crate::kernels::probabilities::{softmax_cpu, softmax_gpu};
use crate::kernels::projection::{Project, project_cpu, project_gpu};
use crate::kernels::regions::RegionRuns;
use crate::kernels::statistics::{statistics_cpu, statistics_gpu};
use crate::kernels::surface::{surfaces_cpu, surfaces_gpu};
use crate::kernels::{
    Interpolation, Mask, Resample, Rule, ScoresToLabels, resample_cpu, resample_gpu, scores_to_labels_cpu, scores_to_labels_gpu,
};
use crate::volume::{ImageVolume, LabelMap, Quantity, Rescale, Volume};

/// Spacing of the volume, and of what the network sees, mm.
const SPACING: f64 = 0.7;
const NETWORK_SPACING: f64 = 1.5;
const LABEL_OF_CHANNEL: [u8; 5] = [0, 1, 2, 3, 4];
/// Additions and multiplications of a trilinear interpolation: seven in one dimension, three each.
const TRILINEAR: u64 = 21;

/// Memory that the cases of a size and their results take, bytes.
pub(super) fn bytes_needed(size: u32) -> u64 {
    24 * u64::from(size).pow(3) + (512 << 20)
}

/// What all kernels of one size get.
pub struct Cases {
    image: ImageVolume,
    labels: LabelMap,
    /// 1 inside of the ellipsoid, but for the speckles.
    mask: Vec<u8>,
    /// The image in floats.
    values: Vec<f32>,
    network: Grid,
    scores: Vec<f32>,
}

/// One kernel on one input.
pub struct Case<'a> {
    /// The kernel.
    pub name: &'static str,
    /// On what.
    pub variant: &'static str,
    /// Voxels on the volume's grid or on the network's, where the result lies on that.
    pub voxels: u64,
    /// Bytes that must move.
    pub bytes: u64,
    /// Additions and multiplications of the formula; 0 where they are no measure.
    pub operations: u64,
    on_cpu: Box<dyn FnMut() + 'a>,
    on_gpu: Option<OnGpu<'a>>,
}

const PERCENTS: [f64; 2] = [0.5, 99.5];
/// Labels of the map whose shapes are measured.
const SHAPED: [u8; 5] = [1, 2, 3, 4, 5];
const SMOOTHED: Gaussian = Gaussian { sigma_voxels: [1.5; 3], boundary: Boundary::Reflect };
/// Voxels along an axis of what a network sees at a time, at most.
const PATCH: u32 = 128;
const INSIDE: Target = Target::Background;
const OPENED_BY: Element = Element::Neighbours(Connectivity::Six, 3);
const NO_GPU: Option<MaskOnGpu> = None;

type MaskOnGpu = fn(&Gpu, &mut [u8], [u32; 3]) -> Result<(), GpuError>;

type OnGpu<'a> = Box<dyn Fn(&Gpu) -> Result<(), GpuError> + 'a>;

impl<'a> Case<'a> {
    /// One whose traffic goes by the voxel.
    fn of_voxels(
        voxels: usize,
        name: &'static str,
        variant: &'static str,
        bytes_a_voxel: u64,
        on_cpu: Box<dyn FnMut() + 'a>,
        on_gpu: OnGpu<'a>,
    ) -> Self {
        let voxels = voxels as u64;
        Self { name, variant, voxels, bytes: bytes_a_voxel * voxels, operations: 0, on_cpu, on_gpu: Some(on_gpu) }
    }

    /// The CPU implementation, once.
    pub fn run_on_cpu(&mut self) {
        (self.on_cpu)();
    }

    /// Whether it is there for a GPU.
    pub fn is_on_gpu(&self) -> bool {
        self.on_gpu.is_some()
    }

    /// The GPU implementation with its transfers, once; nothing where it is not there.
    ///
    /// # Errors
    /// Where the device is too small for it, or fails.
    pub fn run_on_gpu(&self, gpu: &Gpu) -> Result<(), GpuError> {
        self.on_gpu.as_ref().map_or(Ok(()), |kernel| kernel(gpu))
    }

    /// On a GPU, or the CPU where there is none; none where the kernel is not there.
    pub(super) fn measure(&mut self, gpu: Option<&Gpu>, budget: Duration) -> Result<Option<Samples>, GpuError> {
        match (gpu, &self.on_gpu) {
            (None, _) => Ok(Some(repeat(budget, &mut self.on_cpu))),
            (Some(gpu), Some(kernel)) => repeat_gpu(gpu, budget, kernel).map(Some),
            (Some(_), None) => Ok(None),
        }
    }
}

impl Cases {
    /// Cubes of `size` voxels a side.
    pub fn of(size: u32) -> Self {
        let dims = [size; 3];
        let grid = Grid::new(dims, Affine::scale_then_shift([SPACING; 3], [0.0; 3])).expect("a grid");
        let noise = |n: usize| (n as u32).wrapping_mul(2_654_435_761) >> 26;
        let stored = fill(dims, |n, radius| (if radius < 0.8 { 1064 } else { 24 }) + noise(n) as i16);
        // Speckles of a sixth label, as noise makes them.
        let label = |n: usize, radius: f32| if noise(n) == 63 && n.is_multiple_of(5) { 6 } else { (radius * 4.0).min(5.0) as u8 };
        let labels = Volume::new(grid, fill(dims, label));
        let values = stored.par_iter().map(|&value| f32::from(value)).collect();
        let mask = fill(dims, |n, radius| u8::from(radius < 0.8 && label(n, radius) != 6));
        let network = grid.respaced([NETWORK_SPACING; 3]).expect("a grid");
        let shell = |channel: usize| fill(network.dims(), move |_, radius| -(radius - 0.2 * channel as f32).abs());
        let scores = (0..LABEL_OF_CHANNEL.len()).flat_map(shell).collect();
        let image = ImageVolume {
            stored: Volume::new(grid, stored).into(),
            rescale: vec![Rescale { slope: 1.0, intercept: -1024.0 }; size as usize],
            quantity: Quantity::Hounsfield,
        };
        Self { image, labels, mask, values, network, scores }
    }

    fn resample(&self) -> Resample {
        let source_from_target = self.image.grid().voxel_from_lps() * self.network.lps_from_voxel();
        Resample {
            clip: Some([-1000.0, 1000.0]),
            subtract: -100.0,
            divide: 400.0,
            ..Resample::new(self.network.dims(), source_from_target)
        }
    }

    /// Every kernel.
    pub fn all(&self) -> Vec<Case<'_>> {
        let voxels = self.image.grid().voxel_count() as u64;
        let network = self.network.voxel_count() as u64;
        let channels = LABEL_OF_CHANNEL.len() as u64;
        let aligned = self.resample();
        let same = Resample { target_dims: self.image.grid().dims(), source_from_target: Affine::IDENTITY, ..aligned.clone() };
        let (sin, cos) = 0.1f64.sin_cos();
        let tilt = Affine::from_columns([cos, sin, 0.], [-sin, cos, 0.], [0., 0., 1.], [0.; 3]);
        let oblique = Resample { source_from_target: tilt * aligned.source_from_target, ..aligned.clone() };
        let cubic = Resample { interpolation: Interpolation::Cubic, values_first: true, ..aligned.clone() };
        let area = Resample { interpolation: Interpolation::Area, ..aligned.clone() };
        let resampling = |variant, target: u64, p: Resample| {
            let on_gpu = p.clone();
            Case {
                name: "resample",
                variant,
                voxels: voxels.max(target),
                bytes: 2 * voxels + 4 * target,
                operations: if p.interpolation == Interpolation::Linear { (TRILINEAR + 4) * target } else { 0 },
                on_cpu: Box::new(move || discard(resample_cpu(&self.image, &p))),
                on_gpu: Some(Box::new(move |gpu| resample_gpu(gpu, &self.image, &on_gpu).map(drop))),
            }
        };
        let back = ScoresToLabels {
            network_dims: self.network.dims(),
            target_dims: self.image.grid().dims(),
            network_from_target: self.network.voxel_from_lps() * self.image.grid().lps_from_voxel(),
            interpolation: [Interpolation::Linear; 3],
            label_of_channel: &LABEL_OF_CHANNEL,
            rule: Rule::Highest,
        };
        let (back_on_gpu, dims) = (back.clone(), self.image.grid().dims());
        vec![
            resampling("window and normalise, same grid", voxels, same),
            resampling("linear to 1.5 mm", network, aligned),
            resampling("linear to 1.5 mm, oblique", network, oblique),
            resampling("cubic to 1.5 mm, clipped first", network, cubic),
            resampling("area to 1.5 mm", network, area),
            Case {
                name: "scores to labels",
                variant: "5 classes from 1.5 mm",
                voxels,
                bytes: 4 * channels * network + voxels,
                operations: TRILINEAR * channels * voxels,
                on_cpu: Box::new(move || discard(scores_to_labels_cpu(&self.scores, &back))),
                on_gpu: Some(Box::new(move |gpu| scores_to_labels_gpu(gpu, &self.scores, &back_on_gpu).map(drop))),
            },
            Case {
                name: "components",
                variant: "26 neighbours, sizes",
                voxels,
                bytes: voxels,
                operations: 0,
                on_cpu: Box::new(move || discard(ComponentRuns::of(self.labels.voxels(), dims, Connectivity::TwentySix))),
                on_gpu: None,
            },
            Case {
                name: "components",
                variant: "26 neighbours, a number a voxel",
                voxels,
                bytes: 5 * voxels,
                operations: 0,
                on_cpu: Box::new(move || discard(components_cpu(self.labels.voxels(), dims, Connectivity::TwentySix))),
                on_gpu: Some(Box::new(move |gpu| components_gpu(gpu, self.labels.voxels(), dims, Connectivity::TwentySix).map(drop))),
            },
            Case {
                name: "label statistics",
                variant: "6 labels",
                voxels,
                bytes: 3 * voxels,
                operations: 0,
                on_cpu: Box::new(|| discard(label_statistics_cpu(&self.labels, &self.image))),
                on_gpu: Some(Box::new(|gpu| label_statistics_gpu(gpu, &self.labels, &self.image).map(drop))),
            },
            self.of_image(
                "statistics",
                "mean and spread",
                2,
                |image| discard(statistics_cpu(image, Mask::All)),
                |gpu, image| statistics_gpu(gpu, image, Mask::All).map(drop),
            ),
            self.of_image(
                "percentiles",
                "0.5 and 99.5",
                2,
                |image| discard(percentiles_cpu(image, Mask::All, &PERCENTS)),
                |gpu, image| percentiles_gpu(gpu, image, Mask::All, &PERCENTS).map(drop),
            ),
            self.of_image(
                "bounding box",
                "above 0 HU",
                2,
                |image| discard(bounding_box_cpu(image, Mask::Above(0.0))),
                |gpu, image| bounding_box_gpu(gpu, image, Mask::Above(0.0)).map(drop),
            ),
            self.of_image(
                "projection",
                "maximum along k",
                2,
                |image| discard(project_cpu(image, 2, Project::Maximum)),
                |gpu, image| project_gpu(gpu, image, 2, Project::Maximum).map(drop),
            ),
            self.of_labels(
                "distance",
                "to the background, mm",
                29,
                |labels, dims| discard(distance_mm_cpu(labels, dims, [SPACING; 3], INSIDE)),
                Some(|gpu: &Gpu, labels: &mut [u8], dims| distance_mm_gpu(gpu, labels, dims, [SPACING; 3], INSIDE).map(drop)),
            ),
            self.of_labels(
                "morphology",
                "opening, 6 neighbours, 3 times",
                3,
                |labels, dims| morphology_cpu(labels, dims, Operation::Open, OPENED_BY),
                Some(|gpu: &Gpu, labels: &mut [u8], dims| morphology_gpu(gpu, labels, dims, Operation::Open, OPENED_BY)),
            ),
            self.of_labels("holes", "in space", 5, |labels, dims| discard(fill_holes_cpu(labels, dims, 1, false)), NO_GPU),
            Case {
                name: "gaussian",
                variant: "1.5 voxels",
                voxels,
                bytes: 24 * voxels,
                operations: 0,
                on_cpu: Box::new(move || gaussian_cpu(&mut self.values.clone(), dims, &SMOOTHED)),
                on_gpu: Some(Box::new(move |gpu| gaussian_gpu(gpu, &mut self.values.clone(), dims, &SMOOTHED))),
            },
            Case {
                name: "surface",
                variant: "5 labels",
                voxels,
                bytes: voxels,
                operations: 0,
                on_cpu: Box::new(move || discard(surfaces_cpu(&self.regions(), &self.labels.grid().lps_from_voxel()))),
                on_gpu: Some(Box::new(move |gpu| {
                    surfaces_gpu(gpu, self.labels.voxels(), dims, &self.labels.grid().lps_from_voxel(), &SHAPED).map(drop)
                })),
            },
            Case {
                name: "diameters",
                variant: "5 labels, in space and in the plane",
                voxels,
                bytes: voxels,
                operations: 0,
                on_cpu: Box::new(move || {
                    let (regions, lps_from_voxel) = (self.regions(), &self.labels.grid().lps_from_voxel());
                    discard((longest_diameters_mm(&regions, lps_from_voxel), axes_mm(&regions, lps_from_voxel)));
                }),
                on_gpu: None,
            },
        ]
        .into_iter()
        .chain(self.around_a_network())
        .collect()
    }

    fn regions(&self) -> RegionRuns {
        RegionRuns::of_labels(self.labels.voxels(), self.labels.grid().dims(), &SHAPED)
    }

    /// What happens to the scores of a network, and to the patch that it sees.
    fn around_a_network(&self) -> Vec<Case<'_>> {
        let dims = self.network.dims();
        let (voxels, channels) = (self.network.voxel_count(), LABEL_OF_CHANNEL.len());
        let patch = Patch { start: [0; 3], dims: dims.map(|n| n.min(PATCH)), mirror: [false; 3] };
        let patch_voxels = patch.dims.iter().map(|&n| n as usize).product();
        let volume = &self.scores[..voxels];
        let scores = &self.scores[..channels * patch_voxels]; // any values
        let weights = Weighting::NnunetGaussian.weights(patch.dims);
        let (mut seen, mut made) = (vec![0.0; patch_voxels], vec![0.0; scores.len()]);
        let (mut sums, mut weight_sums) = (vec![0.0; self.scores.len()], vec![0.0; voxels]);
        let weights_on_gpu = weights.clone();
        vec![
            Case::of_voxels(
                patch_voxels,
                "patch",
                "gathered",
                8,
                Box::new(move || gather_patch_cpu(volume, dims, &patch, 0.0, &mut seen)),
                Box::new(move |gpu| {
                    let out = gpu.storage("bench: patch", 4 * patch_voxels as u64)?;
                    gather_patch_gpu(gpu, &gpu.upload("bench: volume", volume)?, dims, &patch, 0.0, &out)
                }),
            ),
            Case::of_voxels(
                patch_voxels,
                "patch",
                "scores of 5 classes blended in",
                16 * channels as u64 + 12,
                Box::new(move || scatter_patch_cpu(&mut sums, &mut weight_sums, dims, &patch, scores, &weights)),
                Box::new(move |gpu| {
                    let [sums, weight_sums] = [channels * voxels, voxels].map(|count| gpu.storage("bench: sums", 4 * count as u64));
                    let made = [gpu.upload("bench: scores", scores)?, gpu.upload("bench: weights", &weights_on_gpu)?];
                    let (sums, made) = ([&sums?, &weight_sums?], made.each_ref());
                    scatter_patch_gpu(gpu, sums, dims, &patch, channels as u32, made)
                }),
            ),
            Case::of_voxels(
                patch_voxels,
                "softmax",
                "5 classes, with a copy of them",
                16 * channels as u64,
                Box::new(move || {
                    made.copy_from_slice(scores);
                    softmax_cpu(&mut made, channels);
                }),
                Box::new(move |gpu| softmax_gpu(gpu, &gpu.upload("bench: scores", scores)?, patch_voxels, channels)),
            ),
        ]
    }

    /// A kernel that reads the image.
    fn of_image<'a>(
        &'a self,
        name: &'static str,
        variant: &'static str,
        bytes_a_voxel: u64,
        on_cpu: impl Fn(&ImageVolume) + 'a,
        on_gpu: impl Fn(&Gpu, &ImageVolume) -> Result<(), GpuError> + 'a,
    ) -> Case<'a> {
        let voxels = self.image.grid().voxel_count() as u64;
        let on_cpu = Box::new(move || on_cpu(&self.image));
        let on_gpu: OnGpu<'_> = Box::new(move |gpu| on_gpu(gpu, &self.image));
        Case { name, variant, voxels, bytes: bytes_a_voxel * voxels, operations: 0, on_cpu, on_gpu: Some(on_gpu) }
    }

    /// A kernel that changes a mask; it gets a copy, whose time is in the measurement.
    fn of_labels<'a>(
        &'a self,
        name: &'static str,
        variant: &'static str,
        bytes_a_voxel: u64,
        on_cpu: impl Fn(&mut [u8], [u32; 3]) + 'a,
        on_gpu: Option<impl Fn(&Gpu, &mut [u8], [u32; 3]) -> Result<(), GpuError> + 'a>,
    ) -> Case<'a> {
        let (voxels, dims) = (self.image.grid().voxel_count() as u64, self.image.grid().dims());
        let on_cpu = Box::new(move || on_cpu(&mut self.mask.clone(), dims));
        let on_gpu = on_gpu.map(|kernel| Box::new(move |gpu: &Gpu| kernel(gpu, &mut self.mask.clone(), dims)) as OnGpu<'_>);
        Case { name, variant, voxels, bytes: bytes_a_voxel * voxels, operations: 0, on_cpu, on_gpu }
    }
}

/// Computed, whatever the compiler thinks of it.
fn discard<T>(made: T) {
    std::hint::black_box(&made);
}

/// `value(n, radius)` of each voxel; the radius is 1 at the middle of each face.
fn fill<T: Send>(dims: [u32; 3], value: impl Fn(usize, f32) -> T + Sync + Send) -> Vec<T> {
    let [nx, ny, nz] = dims.map(|n| n as usize);
    let square = |v: usize, n: usize| ((2.0 * v as f32 + 1.0) / n as f32 - 1.0).powi(2);
    let radius = |n: usize| (square(n % nx, nx) + square(n / nx % ny, ny) + square(n / nx / ny, nz)).sqrt();
    (0..nx * ny * nz).into_par_iter().map(|n| value(n, radius(n))).collect()
}
