//! What the voxels of each label add up to: count, mean, spread, least and greatest stored value by slice, and where the voxels lie.
//!
//! Threads and their order change no digit. Of integers both implementations give the same numbers exactly; of floats they differ by
//! at most 2^-30 of the largest value a voxel (`label_sums.rs`). Values are kept by slice because the map from stored to physical
//! values is; [`LabelStatistics::physical`] combines them in f64. Shader: `shaders/label_statistics.wgsl`.

use bytemuck::{Pod, Zeroable};
use rayon::prelude::*;

use super::components::for_each_run;
pub use super::label_sums::SliceNumbers;
use super::label_sums::{Summed, Sums};
use super::regions::{RegionRuns, Run};
use super::slabs;
use crate::gpu::{Gpu, GpuError};
use crate::volume::{ImageVolume, LabelMap, Rescale, Stored, Volume};

pub(super) const WGSL_I16: &str =
    concat!(include_str!("../../shaders/shared/stored_i16.wgsl"), include_str!("../../shaders/label_statistics.wgsl"));
pub(super) const WGSL_F32: &str =
    concat!(include_str!("../../shaders/shared/stored_f32.wgsl"), include_str!("../../shaders/label_statistics.wgsl"));

/// Labels that one dispatch counts; more go through in groups.
const SLOTS: usize = 32;
/// Words of a label in a piece of a slice beside the sums of its values: number of voxels, sums and ends of indices, ends of values.
const OTHER_FIELDS: usize = 9;
/// Voxels of such a piece.
const VOXELS_A_GROUP: usize = 16384;
/// Most columns and rows: sums of indices of a piece stay below 2^32.
const MOST_ALONG_AXIS: u32 = 1 << 18;
/// Not asked for.
const NO_SLOT: u32 = 255;

/// Uniforms of `shaders/label_statistics.wgsl`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct LabelStatisticsParams {
    /// Voxels of a slice.
    pub plane: u32,
    /// Columns of a slice.
    pub columns: u32,
    /// Labels in this dispatch, at most 32.
    pub labels: u32,
    /// What floats are multiplied by to become whole numbers.
    pub per_unit: f32,
    /// Place of label `l` in this dispatch at `[l / 4][l % 4]`; 255 where it is not asked for.
    pub slot_of_label: [[u32; 4]; 64],
}

/// What the voxels of one label add up to.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelStatistics {
    /// The label.
    pub label: u8,
    /// Number of voxels.
    pub voxels: u64,
    /// Stored values, slice by slice in ascending `k`; slices without the label are left out.
    pub slices: Vec<SliceNumbers>,
    /// Sums of i, j, k over the voxels; divided by their number, the centroid in voxel indices.
    pub index_sums: [u64; 3],
    /// Smallest and largest i, j, k, both included; `None` without voxels.
    pub bounds: Option<[[u32; 3]; 2]>,
}

/// Mean, spread and range in the units of the image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PhysicalStatistics {
    /// Mean over the voxels.
    pub mean: f64,
    /// Population standard deviation: divided by the number of voxels (ddof = 0), 0 for one voxel.
    pub standard_deviation: f64,
    /// Least value.
    pub least: f64,
    /// Greatest value.
    pub greatest: f64,
}

/// Sums for every label that occurs, background (0) left out, in ascending order.
///
/// # Panics
/// Where the numbers of voxels along the axes differ: `measure` checks grids.
pub fn label_statistics_cpu(labels: &LabelMap, image: &ImageVolume) -> Vec<LabelStatistics> {
    let all: Vec<u8> = (1..=u8::MAX).collect();
    let mut statistics = label_statistics_of_cpu(labels, image, &all);
    statistics.retain(|s| s.voxels > 0);
    statistics
}

/// Sums for the labels in `asked`, in that order, background (0) included where it is asked; a label that does not occur has no voxels.
///
/// # Panics
/// Where the numbers of voxels along the axes differ.
pub fn label_statistics_of_cpu(labels: &LabelMap, image: &ImageVolume, asked: &[u8]) -> Vec<LabelStatistics> {
    let dims = labels.grid().dims();
    assert_eq!(dims, image.grid().dims(), "labels and image have the same voxels");
    let mut wanted = [false; 256];
    asked.iter().for_each(|&label| wanted[usize::from(label)] = true);
    match &image.stored {
        Stored::Int16(stored) => statistics_of(labels, stored, asked, &wanted),
        Stored::Float32(stored) => statistics_of(labels, stored, asked, &wanted),
    }
}

fn statistics_of<T: Summed>(labels: &LabelMap, stored: &Volume<T>, asked: &[u8], wanted: &[bool; 256]) -> Vec<LabelStatistics> {
    let [columns, _, slices] = labels.grid().dims();
    let slices: Vec<Vec<SlicePart<T::OnCpu>>> = (0..slices)
        .into_par_iter()
        .map(|k| slice_parts(labels.slice(k as usize), stored.slice(k as usize), columns as usize, k, wanted))
        .collect();
    combine(asked, slices.into_iter().flatten())
}

/// Sums for each region, in their order; the same numbers as [`label_statistics_of_cpu`] where regions are labels.
///
/// # Panics
/// Where a region lies outside of the image.
pub fn region_statistics_cpu(image: &ImageVolume, regions: &RegionRuns) -> Vec<LabelStatistics> {
    match &image.stored {
        Stored::Int16(stored) => statistics_of_regions(stored, regions),
        Stored::Float32(stored) => statistics_of_regions(stored, regions),
    }
}

fn statistics_of_regions<T: Summed>(stored: &Volume<T>, regions: &RegionRuns) -> Vec<LabelStatistics> {
    let of = |(runs, &label): (&[Run], &u8)| {
        let mut found = Found::none(label);
        for slice in runs.chunk_by(|a, b| a.k == b.k) {
            let mut part = SlicePart::none::<T>(label, slice[0].k, slice[0].of(stored)[0]);
            slice.iter().for_each(|run| part.add(run.start as usize, run.j, run.of(stored)));
            found.add(&part);
        }
        found.finished()
    };
    regions.regions().zip(regions.labels()).map(of).collect()
}

/// [`label_statistics_cpu`] on a GPU: the same numbers exactly of integers; of floats see [`self`].
///
/// # Errors
/// As [`label_statistics_of_gpu`].
///
/// # Panics
/// As [`label_statistics_cpu`].
pub fn label_statistics_gpu(gpu: &Gpu, labels: &LabelMap, image: &ImageVolume) -> Result<Vec<LabelStatistics>, GpuError> {
    let present = |mut present: [bool; 256], row: &[u8]| {
        for_each_run(row, |_, _, label| present[usize::from(label)] = true);
        present
    };
    let either = |a: [bool; 256], b: [bool; 256]| std::array::from_fn(|n| a[n] || b[n]);
    let present: [bool; 256] = labels.voxels().par_chunks(1 << 16).fold(|| [false; 256], present).reduce(|| [false; 256], either);
    let asked: Vec<u8> = (1..=u8::MAX).filter(|&label| present[usize::from(label)]).collect();
    label_statistics_of_gpu(gpu, labels, image, &asked)
}

/// [`label_statistics_of_cpu`] on a GPU: the same numbers exactly of integers; of floats see [`self`].
///
/// Slices go through in slabs, so volumes larger than a storage binding work; 32 labels are counted at a time.
///
/// # Errors
/// [`GpuError::TooLarge`] where one slice of stored values exceeds a binding, or has more than 2^18 columns or rows;
/// [`GpuError::OutOfMemory`]; [`GpuError::Lost`].
///
/// # Panics
/// As [`label_statistics_cpu`].
pub fn label_statistics_of_gpu(gpu: &Gpu, labels: &LabelMap, image: &ImageVolume, asked: &[u8]) -> Result<Vec<LabelStatistics>, GpuError> {
    let dims = labels.grid().dims();
    assert_eq!(dims, image.grid().dims(), "labels and image have the same voxels");
    match &image.stored {
        Stored::Int16(stored) => statistics_in_slabs(gpu, labels, stored, WGSL_I16, asked),
        Stored::Float32(stored) => statistics_in_slabs(gpu, labels, stored, WGSL_F32, asked),
    }
}

fn statistics_in_slabs<T: Summed>(
    gpu: &Gpu,
    labels: &LabelMap,
    stored: &Volume<T>,
    wgsl: &'static str,
    asked: &[u8],
) -> Result<Vec<LabelStatistics>, GpuError> {
    let dims = labels.grid().dims();
    let longest = dims[0].max(dims[1]);
    if longest > MOST_ALONG_AXIS {
        let what = "a slice for label statistics, columns or rows".to_owned();
        return Err(GpuError::TooLarge { what, needed: longest.into(), limit: MOST_ALONG_AXIS.into() });
    }
    let plane = labels.grid().slice_voxels();
    let pieces = plane.div_ceil(VOXELS_A_GROUP);
    let fields = T::WORDS + OTHER_FIELDS;
    let slice_words = pieces * asked.len().min(SLOTS) * fields;
    let depth = slabs::target_depth(gpu, "a slice of stored values, bytes", dims, size_of::<T>() as u64, slabs::MOST_VOXELS)?;
    let depth = depth.min((gpu.max_storage_bytes() / (slice_words as u64 * 4).max(1)).max(1) as usize);
    let pipeline = gpu.pipeline("label_statistics", wgsl, &[])?;
    let partials = gpu.storage("label_statistics: partial sums", (slice_words * depth * 4) as u64)?;
    let mut words = vec![0u32; slice_words * depth];
    let mut parts: Vec<Vec<SlicePart<T::OnGpu>>> = vec![Vec::new(); asked.len().div_ceil(SLOTS)];
    let slabs = labels.voxels().chunks(plane * depth).zip(stored.voxels().chunks(plane * depth));
    for (slab, (labels, stored)) in slabs.enumerate() {
        let slices = labels.len() / plane;
        let per_unit = T::per_unit(stored);
        let labels = gpu.upload("label_statistics: labels", labels)?;
        let stored = gpu.upload("label_statistics: stored values", stored)?;
        for (group, parts) in asked.chunks(SLOTS).zip(&mut parts) {
            let mut params = LabelStatisticsParams {
                plane: plane as u32,
                columns: dims[0],
                labels: group.len() as u32,
                per_unit,
                slot_of_label: [[NO_SLOT; 4]; 64],
            };
            for (slot, &label) in (0..).zip(group) {
                params.slot_of_label[usize::from(label) / 4][usize::from(label) % 4] = slot;
            }
            let params = gpu.uniform("label_statistics: params", &params)?;
            let groups = [pieces as u32, slices as u32, 1];
            gpu.dispatch("label_statistics", &pipeline, &[&params, &labels, &stored, &partials], groups)?;
            let words = &mut words[..slices * pieces * group.len() * fields];
            gpu.read_into(&partials, words)?;
            for (n, fields) in words.chunks_exact(fields).enumerate() {
                let k = slab * depth + n / group.len() / pieces;
                parts.extend(part_of_fields::<T>(group[n % group.len()], k as u32, fields, per_unit));
            }
        }
    }
    Ok(asked.chunks(SLOTS).zip(parts).flat_map(|(group, parts)| combine(group, parts.into_iter())).collect())
}

/// Sums as the shader writes them; `None` without voxels.
fn part_of_fields<T: Summed>(label: u8, k: u32, fields: &[u32], per_unit: f32) -> Option<SlicePart<T::OnGpu>> {
    let (values, rest) = fields[1..].split_at(T::WORDS);
    let &[sum_i, sum_j, least, first_i, first_j, greatest, last_i, last_j] = rest else { unreachable!("{OTHER_FIELDS} other fields") };
    let voxels = u64::from(fields[0]);
    (voxels > 0).then(|| SlicePart {
        label,
        k,
        voxels,
        sums: T::from_words(voxels, values, [least, greatest], per_unit),
        index_sums: [sum_i.into(), sum_j.into()],
        first: [first_i, first_j],
        last: [last_i, last_j],
    })
}

/// One label in one slice (or a piece of one): what both implementations hand to [`combine`]. It has voxels.
#[derive(Debug, Clone, Copy)]
struct SlicePart<S> {
    label: u8,
    k: u32,
    voxels: u64,
    sums: S,
    index_sums: [u64; 2],
    first: [u32; 2],
    last: [u32; 2],
}

impl<S> SlicePart<S> {
    /// No voxels yet; `first` is the first value that will be added.
    fn none<T: Summed<OnCpu = S>>(label: u8, k: u32, first: T) -> Self {
        Self { label, k, voxels: 0, sums: T::none(first), index_sums: [0; 2], first: [u32::MAX; 2], last: [0; 2] }
    }

    /// Adds the voxels from `start` on of row `j`, which is not before the last one.
    fn add<T: Summed<OnCpu = S>>(&mut self, start: usize, j: u32, values: &[T]) {
        let (voxels, end) = (values.len() as u64, start + values.len());
        T::add(&mut self.sums, values);
        self.voxels += voxels;
        self.index_sums[0] += voxels * (start + end - 1) as u64 / 2;
        self.index_sums[1] += voxels * u64::from(j);
        self.first = [self.first[0].min(start as u32), self.first[1].min(j)];
        self.last = [self.last[0].max(end as u32 - 1), j];
    }
}

/// A label so far, and the sums of its slices.
#[derive(Debug, Clone)]
struct Found<S> {
    own: LabelStatistics,
    slices: Vec<(u32, S)>,
}

impl<S: Sums> Found<S> {
    fn none(label: u8) -> Self {
        Self { own: LabelStatistics::none(label), slices: Vec::new() }
    }

    /// Adds a part of the last slice, or of a later one.
    fn add(&mut self, part: &SlicePart<S>) {
        let SlicePart { k, voxels, sums, index_sums, first, last, .. } = part;
        let own = &mut self.own;
        own.voxels += voxels;
        for (axis, sum) in [index_sums[0], index_sums[1], u64::from(*k) * voxels].into_iter().enumerate() {
            own.index_sums[axis] += sum;
        }
        let (first, last) = ([first[0], first[1], *k], [last[0], last[1], *k]);
        let [least, most] = own.bounds.get_or_insert([first, last]);
        for axis in 0..3 {
            least[axis] = least[axis].min(first[axis]);
            most[axis] = most[axis].max(last[axis]);
        }
        match self.slices.last_mut() {
            Some((of, slice)) if of == k => slice.add(sums),
            _ => self.slices.push((*k, *sums)),
        }
    }

    fn finished(self) -> LabelStatistics {
        LabelStatistics { slices: self.slices.iter().map(|(k, sums)| sums.numbers(*k)).collect(), ..self.own }
    }
}

/// Adds parts up, those of one slice next to each other in ascending order of slices.
fn combine<S: Sums>(asked: &[u8], parts: impl Iterator<Item = SlicePart<S>>) -> Vec<LabelStatistics> {
    let mut all: Vec<Found<S>> = (0..=u8::MAX).map(Found::none).collect();
    parts.for_each(|part| all[usize::from(part.label)].add(&part));
    asked.iter().map(|&label| all[usize::from(label)].clone().finished()).collect()
}

impl LabelStatistics {
    fn none(label: u8) -> Self {
        Self { label, voxels: 0, slices: Vec::new(), index_sums: [0; 3], bounds: None }
    }

    /// Centroid in voxel indices (i, j, k), voxel centres at whole numbers; `None` without voxels.
    pub fn centroid(&self) -> Option<[f64; 3]> {
        (self.voxels > 0).then(|| self.index_sums.map(|sum| sum as f64 / self.voxels as f64))
    }

    /// Mean, population standard deviation and range in physical units, `rescale` one a slice; `None` without voxels.
    ///
    /// Deviations within a slice come from integers without rounding, or floats less one of them; slices are combined as in Chan, Golub and LeVeque (1983),
    /// so a large intercept costs no digits.
    ///
    /// # Panics
    /// Where `rescale` has no entry for a slice.
    pub fn physical(&self, rescale: &[Rescale]) -> Option<PhysicalStatistics> {
        physical_of(&self.slices, rescale)
    }
}

/// Slices combined, in their order; `None` without any.
pub(super) fn physical_of(slices: &[SliceNumbers], rescale: &[Rescale]) -> Option<PhysicalStatistics> {
    let mut total: Option<(f64, f64, PhysicalStatistics)> = None; // voxels, sum of squared deviations, mean and range
    for slice in slices {
        let Rescale { slope, intercept } = rescale[slice.k as usize];
        let count = slice.voxels as f64;
        let mean = slope * slice.mean + intercept;
        let deviations = slope * slope * slice.deviations;
        let ends = [slice.least, slice.greatest].map(|stored| slope * stored + intercept);
        let (least, greatest) = (ends[0].min(ends[1]), ends[0].max(ends[1]));
        total = Some(match total {
            None => (count, deviations, PhysicalStatistics { mean, standard_deviation: 0.0, least, greatest }),
            Some((n, m, so_far)) => {
                let sum = n + count;
                let step = mean - so_far.mean;
                let now = PhysicalStatistics {
                    mean: so_far.mean + step * count / sum,
                    standard_deviation: 0.0,
                    least: least.min(so_far.least),
                    greatest: greatest.max(so_far.greatest),
                };
                (sum, m + deviations + step * step * n * count / sum, now)
            }
        });
    }
    total.map(|(count, deviations, physical)| PhysicalStatistics { standard_deviation: (deviations / count).sqrt(), ..physical })
}

/// The wanted labels of one slice.
fn slice_parts<T: Summed>(labels: &[u8], stored: &[T], columns: usize, k: u32, wanted: &[bool; 256]) -> Vec<SlicePart<T::OnCpu>> {
    let mut parts: Vec<SlicePart<T::OnCpu>> = Vec::new();
    let mut part_of = [u16::MAX; 256]; // no part yet
    for (j, (row, values)) in (0u32..).zip(labels.chunks_exact(columns).zip(stored.chunks_exact(columns))) {
        for_each_run(row, |start, end, label| {
            if !wanted[usize::from(label)] {
                return;
            }
            let n = &mut part_of[usize::from(label)];
            if *n == u16::MAX {
                *n = parts.len() as u16;
                parts.push(SlicePart::none(label, k, values[start]));
            }
            parts[usize::from(*n)].add(start, j, &values[start..end]);
        });
    }
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::components::tests::noise;
    use super::super::tests::as_floats;
    use super::*;
    use crate::geometry::{Affine, Grid};
    use crate::volume::Quantity;

    fn on_grid(dims: [u32; 3], labels: Vec<u8>, stored: Vec<i16>, rescale: Vec<Rescale>) -> (LabelMap, ImageVolume) {
        let grid = Grid::new(dims, Affine::IDENTITY).expect("a few voxels");
        let image = ImageVolume { stored: Volume::new(grid, stored).into(), rescale, quantity: Quantity::Hounsfield };
        (Volume::new(grid, labels), image)
    }

    /// Voxel by voxel, from the definitions, in f64.
    fn by_definition(label: u8, labels: &LabelMap, image: &ImageVolume) -> Option<(PhysicalStatistics, [f64; 3])> {
        let [columns, rows, slices] = labels.grid().dims();
        let mut found: Vec<(f64, [f64; 3])> = Vec::new();
        for k in 0..slices {
            for j in 0..rows {
                for i in 0..columns {
                    let n = (i + columns * (j + rows * k)) as usize;
                    let Rescale { slope, intercept } = image.rescale[k as usize];
                    if labels.voxels()[n] == label {
                        found.push((slope * image.stored.value(n) + intercept, [i, j, k].map(f64::from)));
                    }
                }
            }
        }
        let count = found.len() as f64;
        let mean = found.iter().map(|v| v.0).sum::<f64>() / count;
        let variance = found.iter().map(|v| (v.0 - mean).powi(2)).sum::<f64>() / count;
        let least = found.iter().map(|v| v.0).fold(f64::INFINITY, f64::min);
        let greatest = found.iter().map(|v| v.0).fold(f64::NEG_INFINITY, f64::max);
        let centroid = std::array::from_fn(|axis| found.iter().map(|v| v.1[axis]).sum::<f64>() / count);
        let physical = PhysicalStatistics { mean, standard_deviation: variance.sqrt(), least, greatest };
        (count > 0.0).then_some((physical, centroid))
    }

    fn any_case() -> impl Strategy<Value = (LabelMap, ImageVolume)> {
        let dims = prop::array::uniform3(prop_oneof![Just(1u32), 1u32..20]);
        dims.prop_flat_map(|dims| {
            let voxels = dims.iter().product::<u32>() as usize;
            let labels = prop::collection::vec(prop_oneof![4 => Just(0u8), 4 => 0u8..4, 1 => any::<u8>()], voxels);
            let stored = prop::collection::vec(prop_oneof![4 => -1024i16..3072, 1 => any::<i16>(), 1 => Just(i16::MIN)], voxels);
            let rescale = prop::collection::vec((-3.0..3.0f64, -2000.0..2000.0f64), dims[2] as usize);
            (labels, stored, rescale, any::<bool>()).prop_map(move |(labels, stored, rescale, floats)| {
                let rescale = rescale.into_iter().map(|(slope, intercept)| Rescale { slope, intercept }).collect();
                let (labels, image) = on_grid(dims, labels, stored, rescale);
                (labels, if floats { as_floats(&image) } else { image })
            })
        })
    }

    /// Same numbers of integers; of floats, whose values reach 33, to 2^-30 of that a voxel and the rounding of f64.
    fn check_same(gpu: &[LabelStatistics], cpu: &[LabelStatistics], image: &ImageVolume) -> Result<(), TestCaseError> {
        if image.stored.as_int16().is_some() {
            prop_assert_eq!(gpu, cpu);
            return Ok(());
        }
        prop_assert_eq!(gpu.len(), cpu.len());
        for (a, b) in gpu.iter().zip(cpu) {
            prop_assert_eq!(LabelStatistics { slices: Vec::new(), ..a.clone() }, LabelStatistics { slices: Vec::new(), ..b.clone() });
            prop_assert_eq!(a.slices.len(), b.slices.len());
            for (a, b) in a.slices.iter().zip(&b.slices) {
                prop_assert_eq!((a.k, a.voxels, a.least, a.greatest), (b.k, b.voxels, b.least, b.greatest));
                let rounding = 33.0 / f64::from(1u32 << 30);
                prop_assert!((a.mean - b.mean).abs() <= rounding, "{a:?} is not {b:?}");
                let spread = |n: &SliceNumbers| (n.deviations / n.voxels as f64).sqrt();
                prop_assert!((spread(a) - spread(b)).abs() <= rounding, "{a:?} is not {b:?}");
            }
        }
        Ok(())
    }

    /// f64 rounding only: sums of a few thousand values of at most 1e5.
    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-6 * (1.0 + b.abs())
    }

    proptest! {
        #[test]
        fn sums_are_the_definition((labels, image) in any_case()) {
            let asked: Vec<u8> = (0..=255).rev().collect();
            let all = label_statistics_of_cpu(&labels, &image, &asked);
            for (statistics, &label) in all.iter().zip(&asked) {
                prop_assert_eq!(statistics.label, label);
                let (Some(physical), Some((expected, centroid))) = (statistics.physical(&image.rescale), by_definition(label, &labels, &image))
                else {
                    prop_assert!(statistics.voxels == 0 && statistics.bounds.is_none() && !labels.voxels().contains(&label));
                    continue;
                };
                prop_assert!(close(physical.mean, expected.mean), "{} is not {}", physical.mean, expected.mean);
                prop_assert!(close(physical.standard_deviation, expected.standard_deviation));
                prop_assert_eq!((physical.least, physical.greatest), (expected.least, expected.greatest));
                let own = statistics.centroid().expect("it has voxels");
                prop_assert!((0..3).all(|axis| close(own[axis], centroid[axis])), "{:?} is not {:?}", own, centroid);
            }
            let regions = RegionRuns::of_labels(labels.voxels(), labels.grid().dims(), &asked);
            prop_assert_eq!(&region_statistics_cpu(&image, &regions), &all);
            let mut present = all;
            present.retain(|s| s.voxels > 0 && s.label != 0);
            present.reverse();
            prop_assert_eq!(label_statistics_cpu(&labels, &image), present);
        }
    }

    #[test]
    fn gpu_numbers_are_those_of_the_cpu() -> Result<(), GpuError> {
        let Some(mut gpu) = crate::gpu::for_tests() else { return Ok(()) };
        let all: Vec<u8> = (0..=255).rev().collect();
        for storage in [gpu.max_storage_bytes(), 4000] {
            gpu.limit_storage(storage);
            let mut runner =
                proptest::test_runner::TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(32) });
            let answer = runner.run(&any_case(), |(labels, image)| {
                let failed = |err: GpuError| TestCaseError::fail(err.to_string());
                let own = label_statistics_of_gpu(&gpu, &labels, &image, &all).map_err(failed)?;
                check_same(&own, &label_statistics_of_cpu(&labels, &image, &all), &image)?;
                let own = label_statistics_gpu(&gpu, &labels, &image).map_err(failed)?;
                check_same(&own, &label_statistics_cpu(&labels, &image), &image)?;
                Ok(())
            });
            assert!(answer.is_ok(), "{answer:?}");
        }
        // Several pieces a slice, extreme values, an odd number of voxels a slice.
        gpu.limit_storage(1 << 18);
        let voxels = 301 * 211 * 3;
        let labels = noise(voxels, 5).iter().enumerate().map(|(n, v)| if v % 16 == 0 { v / 16 } else { (n / 20000) as u8 }).collect();
        let stored = noise(voxels, 6).iter().map(|&v| if v < 128 { i16::MIN } else { i16::from(v) * 128 }).collect();
        let (labels, image) = on_grid([301, 211, 3], labels, stored, vec![Rescale { slope: 1.0, intercept: 0.0 }; 3]);
        for (image, bytes) in [(as_floats(&image), 4), (image, 2)] {
            gpu.limit_storage(1 << 18);
            let own = label_statistics_of_gpu(&gpu, &labels, &image, &all)?;
            let answer = check_same(&own, &label_statistics_of_cpu(&labels, &image, &all), &image);
            assert!(answer.is_ok(), "{answer:?}");
            assert_eq!(label_statistics_of_gpu(&gpu, &labels, &image, &[])?, []);
            gpu.limit_storage(301 * 211 * bytes);
            assert!(matches!(label_statistics_gpu(&gpu, &labels, &image), Err(GpuError::TooLarge { .. })));
        }
        Ok(())
    }

    #[test]
    fn shader_constants_are_those_of_rust() {
        let constants = [("SLOTS", SLOTS), ("VOXELS_A_GROUP", VOXELS_A_GROUP), ("NO_SLOT", NO_SLOT as usize)];
        for (wgsl, words) in [(WGSL_I16, i16::WORDS), (WGSL_F32, f32::WORDS)] {
            for (name, value) in constants.into_iter().chain([("SUMS", words)]) {
                assert!(wgsl.contains(&format!("const {name}: u32 = {value}u;")), "{name}");
            }
            assert!(wgsl.contains(&format!("const FIELDS: u32 = SUMS + {OTHER_FIELDS}u;")));
        }
    }

    #[test]
    fn extreme_values_do_not_overflow() {
        let voxels = 600 * 500;
        let (labels, image) = on_grid([600, 500, 1], vec![9; voxels], vec![i16::MIN; voxels], vec![Rescale { slope: 1.0, intercept: 0.0 }]);
        let all = label_statistics_cpu(&labels, &image);
        let physical = all[0].physical(&image.rescale).expect("it has voxels");
        assert_eq!((physical.mean, physical.standard_deviation), (-32768.0, 0.0));
        assert_eq!(all[0].bounds, Some([[0, 0, 0], [599, 499, 0]]));
    }

    #[test]
    fn as_scipy_measures() {
        // labels as in `components::tests::as_scipy_labels`; then, with SciPy 1.17.1 and numpy 2.4.6:
        //     stored = noise(9 * 7 * 5, 7) * 8 - 1024
        //     slope = np.array([1, 0.5, 2, 1, 1.25])[:, None, None]
        //     intercept = np.array([-10, 0, 3.5, -1024, 7])[:, None, None]
        //     image = slope * stored.reshape(5, 7, 9) + intercept
        //     for label in (0, 1, 2, 3):
        //         print(int((labels == label).sum()), ndimage.mean(image, labels, label),
        //               ndimage.standard_deviation(image, labels, label), ndimage.minimum(image, labels, label),
        //               ndimage.maximum(image, labels, label), ndimage.center_of_mass(labels == label)[::-1])
        let expected = [
            (108, -277.10185185185185, 796.9923141947227, -2032.0, 1715.5, [4.2592592592592595, 3.0925925925925926, 1.8981481481481481]),
            (67, -193.88059701492537, 772.6606681661665, -2048.0, 1683.5, [3.8955223880597014, 3.0, 1.9402985074626866]),
            (65, -141.26923076923077, 928.1767946518472, -2016.0, 2019.5, [3.523076923076923, 2.6, 1.9846153846153847]),
            (75, -228.65333333333334, 863.9755589650027, -2040.0, 1859.5, [4.133333333333334, 3.2133333333333334, 2.2133333333333334]),
        ];
        let labels = noise(9 * 7 * 5, 1).iter().map(|v| v / 52 % 4).collect();
        let stored = noise(9 * 7 * 5, 7).iter().map(|&v| i16::from(v) * 8 - 1024).collect();
        let rescale =
            [(1.0, -10.0), (0.5, 0.0), (2.0, 3.5), (1.0, -1024.0), (1.25, 7.0)].map(|(slope, intercept)| Rescale { slope, intercept });
        let (labels, image) = on_grid([9, 7, 5], labels, stored, rescale.to_vec());
        let all = label_statistics_of_cpu(&labels, &image, &[0, 1, 2, 3]);
        // The same with
        //     stored = noise(9 * 7 * 5, 7).astype(np.float32) * np.float32(0.0625) ** 2 * np.float32(0.7) + np.float32(1000)
        //     intercept = np.array([-1000, -500, -2000, -1000, -1249.5])[:, None, None]
        let floats = [
            (108, 0.46475502296730326, 0.3579310513892372, 0.0, 1.28515625),
            (67, 0.5093294969245569, 0.33147837506374994, 0.0, 1.292999267578125),
            (65, 0.506994863656851, 0.4159082760775322, 0.01092529296875, 1.3890380859375),
            (75, 0.5251267496744791, 0.3591769501467296, 0.00274658203125, 1.3510589599609375),
        ];
        let stored = noise(9 * 7 * 5, 7).iter().map(|&v| f32::from(v) * 0.0625f32.powi(2) * 0.7 + 1000.0).collect();
        let intercepts = [-1000.0, -500.0, -2000.0, -1000.0, -1249.5];
        let rescale = image.rescale.iter().zip(intercepts).map(|(r, intercept)| Rescale { intercept, ..*r }).collect();
        let stored = Stored::float32(Volume::new(*labels.grid(), stored)).expect("numbers");
        let float_image = ImageVolume { stored, rescale, quantity: Quantity::Arbitrary };
        let of_floats = label_statistics_of_cpu(&labels, &float_image, &[0, 1, 2, 3]);
        for (own, (voxels, mean, standard_deviation, least, greatest)) in of_floats.iter().zip(floats) {
            let physical = own.physical(&float_image.rescale).expect("it has voxels");
            assert_eq!((own.voxels, physical.least, physical.greatest), (voxels, least, greatest));
            assert!((physical.mean - mean).abs() < 1e-12 && (physical.standard_deviation - standard_deviation).abs() < 1e-12);
        }
        for (own, (voxels, mean, standard_deviation, least, greatest, centroid)) in all.iter().zip(expected) {
            let physical = own.physical(&image.rescale).expect("it has voxels");
            assert_eq!((own.voxels, physical.least, physical.greatest), (voxels, least, greatest));
            // The order of summation differs: a few units in the last place.
            assert!((physical.mean - mean).abs() < 1e-10 && (physical.standard_deviation - standard_deviation).abs() < 1e-10);
            let own = own.centroid().expect("it has voxels");
            assert!((0..3).all(|axis| (own[axis] - centroid[axis]).abs() < 1e-12));
        }
    }
}
