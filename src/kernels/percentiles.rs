//! Exact percentiles of the physical values of an image by histograms of ranks, without sorting.
//!
//! Integers whose slices share one [`Rescale`] have 65536 bins, one a value. Everything else has a rank of 32 bits: a first histogram
//! of the upper 16 finds the bins that the percentiles lie in, a second one looks into each of those. Where slices have rescales of
//! their own, the ranks are those of physical values rounded to `f32`; otherwise nothing is rounded. Counts are whole numbers, so
//! the number of threads changes nothing.
//!
//! Memory traffic a voxel and pass (one pass, or two): 2 (integers) or 4 (floats) bytes read, and 1 with a label map.
//! Shader: `shaders/histogram.wgsl`.

use std::convert::Infallible;

use bytemuck::{Pod, Zeroable};
use rayon::prelude::*;

use super::mask::{Mask, for_each_slab, for_kept};
use super::regions::{RegionRuns, Run};
use super::voxel::{Voxel, float_of_rank, rank_of_float};
use crate::gpu::{Gpu, GpuError};
use crate::volume::{ImageVolume, LabelMap, Rescale, Stored, Volume};

pub(super) const WGSL_I16: &str =
    concat!(include_str!("../../shaders/shared/stored_i16.wgsl"), include_str!("../../shaders/histogram.wgsl"));
pub(super) const WGSL_F32: &str =
    concat!(include_str!("../../shaders/shared/stored_f32.wgsl"), include_str!("../../shaders/histogram.wgsl"));

/// Most percentiles in one call.
pub const MOST_PERCENTILES: usize = 8;
/// Bins of a histogram.
const BINS: usize = 1 << 16;
/// Upper halves of ranks that a second pass looks into: a percentile lies between two values.
const MOST_PREFIXES: usize = 2 * MOST_PERCENTILES;
/// Voxels of a slice that one workgroup counts.
const VOXELS_A_GROUP: usize = 16384;

/// Uniforms of `shaders/histogram.wgsl`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct HistogramParams {
    /// Voxels of a slice.
    pub plane: u32,
    /// First slice of the bound ones.
    pub first_slice: u32,
    /// Bits by which ranks are shifted down to bins.
    pub shift: u32,
    /// Number of `prefixes`; 0 in a first pass.
    pub prefix_count: u32,
    /// Upper halves of the ranks that are counted by their lower halves.
    pub prefixes: [[u32; 4]; MOST_PREFIXES / 4],
}

/// What each slice needs in the shader.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct SliceRanks {
    /// First rank that counts.
    pub low: u32,
    /// Last rank that counts; where it is below `low`, all from there on and all up to this one.
    pub high: u32,
    /// Physical units a stored unit.
    pub slope: f32,
    /// Physical value of stored 0.
    pub intercept: f32,
}

/// Percentiles (0 to 100) of the physical values of the voxels that `mask` keeps, linear between neighbouring values as numpy's
/// default; `None` where it keeps none.
///
/// # Panics
/// Where there are none or more than [`MOST_PERCENTILES`], or one is outside 0 to 100, or a label map has other dimensions than the
/// image: broken promises of the caller.
pub fn percentiles_cpu(image: &ImageVolume, mask: Mask<'_>, percents: &[f64]) -> Option<Vec<f64>> {
    let done = match &image.stored {
        Stored::Int16(stored) => percentiles(Keys::<i16>::of(image), percents, |pass| count(image, stored, mask, pass)),
        Stored::Float32(stored) => percentiles(Keys::<f32>::of(image), percents, |pass| count(image, stored, mask, pass)),
    };
    let Ok(found) = done;
    found
}

/// [`percentiles_cpu`] on a GPU: the same numbers, but where slices have rescales of their own, whose physical values a GPU may round
/// the other way (2^-23 of them).
///
/// # Errors
/// [`GpuError::TooLarge`] where one slice exceeds a binding; [`GpuError::OutOfMemory`]; [`GpuError::Lost`].
///
/// # Panics
/// As [`percentiles_cpu`].
pub fn percentiles_gpu(gpu: &Gpu, image: &ImageVolume, mask: Mask<'_>, percents: &[f64]) -> Result<Option<Vec<f64>>, GpuError> {
    match &image.stored {
        Stored::Int16(stored) => {
            percentiles(Keys::<i16>::of(image), percents, |pass| count_in_slabs(gpu, WGSL_I16, image, stored, mask, pass))
        }
        Stored::Float32(stored) => {
            percentiles(Keys::<f32>::of(image), percents, |pass| count_in_slabs(gpu, WGSL_F32, image, stored, mask, pass))
        }
    }
}

/// [`percentiles_cpu`] of each region; `None` where it has no voxels.
///
/// # Panics
/// As [`percentiles_cpu`]; where a region lies outside of the image.
pub fn region_percentiles_cpu(image: &ImageVolume, regions: &RegionRuns, percents: &[f64]) -> Vec<Option<Vec<f64>>> {
    match &image.stored {
        Stored::Int16(stored) => regions.regions().map(|runs| percentiles_of_runs(image, stored, runs, percents)).collect(),
        Stored::Float32(stored) => regions.regions().map(|runs| percentiles_of_runs(image, stored, runs, percents)).collect(),
    }
}

fn percentiles_of_runs<T: Voxel>(image: &ImageVolume, stored: &Volume<T>, runs: &[Run], percents: &[f64]) -> Option<Vec<f64>> {
    let keys = Keys::<T>::of(image);
    let voxels: usize = runs.iter().map(|run| run.len()).sum();
    if voxels >= BINS {
        let Ok(found) = percentiles(keys, percents, |pass| Ok::<_, Infallible>(count_runs(image, stored, runs, pass)));
        return found;
    }
    // Few values are sorted sooner than a histogram is added up.
    check(percents);
    if voxels == 0 {
        return None;
    }
    let mut ranks = Vec::with_capacity(voxels);
    for run in runs {
        ranks.extend(run.of(stored).iter().map(|&value| keys.rank(value, image.rescale[run.k as usize])));
    }
    ranks.sort_unstable();
    let values: Vec<f64> = places(percents, voxels as u64, keys.falls()).map(|place| keys.physical(ranks[place as usize])).collect();
    Some(between(percents, voxels as u64, &values))
}

/// [`region_percentiles_cpu`] of the labels in `asked`, in that order, on a GPU, one after the other: the same numbers, but for what
/// [`percentiles_gpu`] may round.
///
/// # Errors
/// As [`percentiles_gpu`].
///
/// # Panics
/// As [`percentiles_cpu`].
pub fn label_percentiles_gpu(
    gpu: &Gpu,
    labels: &LabelMap,
    image: &ImageVolume,
    asked: &[u8],
    percents: &[f64],
) -> Result<Vec<Option<Vec<f64>>>, GpuError> {
    let of = |asked: u8| {
        let own = labels.voxels().par_iter().map(|&label| u8::from(label == asked)).collect();
        percentiles_gpu(gpu, image, Mask::Labelled(&Volume::new(*labels.grid(), own)), percents)
    };
    asked.iter().map(|&label| of(label)).collect()
}

/// What is ranked.
#[derive(Debug, Clone, Copy)]
struct Keys<T> {
    /// That of all slices; `None` where they differ, and the ranks are those of physical values.
    rescale: Option<Rescale>,
    stored: std::marker::PhantomData<T>,
}

impl<T: Voxel> Keys<T> {
    fn of(image: &ImageVolume) -> Self {
        let first = image.rescale[0];
        Self { rescale: image.rescale.iter().all(|rescale| *rescale == first).then_some(first), stored: std::marker::PhantomData }
    }

    fn bits(&self) -> u32 {
        if self.rescale.is_some() { T::RANK_BITS } else { f32::RANK_BITS }
    }

    /// The rank of a value of a slice.
    #[inline(always)]
    fn rank(&self, value: T, Rescale { slope, intercept }: Rescale) -> u32 {
        if self.rescale.is_some() { value.rank() } else { rank_of_float((slope * f64::from(value.number()) + intercept) as f32) }
    }

    fn physical(&self, rank: u32) -> f64 {
        self.rescale.map_or_else(|| float_of_rank(rank).into(), |Rescale { slope, intercept }| slope * T::of_rank(rank) + intercept)
    }

    fn falls(&self) -> bool {
        self.rescale.is_some_and(|rescale| rescale.slope < 0.0)
    }
}

/// One histogram: of ranks shifted down, or of the lower halves of ranks with these upper halves, one histogram each.
#[derive(Debug, Clone, Copy)]
struct Pass<'a> {
    scaled: bool,
    shift: u32,
    prefixes: &'a [u32],
}

impl Pass<'_> {
    fn bins(&self) -> usize {
        BINS * self.prefixes.len().max(1)
    }
}

fn percentiles<T: Voxel, E>(
    keys: Keys<T>,
    percents: &[f64],
    mut count: impl FnMut(Pass<'_>) -> Result<Vec<u64>, E>,
) -> Result<Option<Vec<f64>>, E> {
    check(percents);
    let scaled = keys.rescale.is_none();
    let shift = keys.bits() - 16;
    let first = count(Pass { scaled, shift, prefixes: &[] })?;
    let voxels: u64 = first.iter().sum();
    if voxels == 0 {
        return Ok(None);
    }
    let found: Vec<(u32, u64)> = places(percents, voxels, keys.falls()).map(|place| bin_of(&first, place)).collect();
    let ranks: Vec<u32> = if shift == 0 {
        found.iter().map(|&(rank, _)| rank).collect()
    } else {
        let mut prefixes: Vec<u32> = found.iter().map(|&(prefix, _)| prefix).collect();
        prefixes.sort_unstable();
        prefixes.dedup();
        let second = count(Pass { scaled, shift: 0, prefixes: &prefixes })?;
        let within = |&(prefix, place): &(u32, u64)| {
            let n = prefixes.binary_search(&prefix).expect("it is one of them");
            prefix << 16 | bin_of(&second[n * BINS..][..BINS], place).0
        };
        found.iter().map(within).collect()
    };
    let values: Vec<f64> = ranks.iter().map(|&rank| keys.physical(rank)).collect();
    Ok(Some(between(percents, voxels, &values)))
}

fn check(percents: &[f64]) {
    assert!((1..=MOST_PERCENTILES).contains(&percents.len()), "1 to {MOST_PERCENTILES} percentiles");
    assert!(percents.iter().all(|p| (0.0..=100.0).contains(p)), "percentiles are 0 to 100");
}

/// Places among `voxels` ranks of the values on both sides of each percentile; ranks may fall as values rise.
fn places(percents: &[f64], voxels: u64, falls: bool) -> impl Iterator<Item = u64> {
    percents.iter().flat_map(move |percent| {
        let lower = (percent / 100.0 * (voxels - 1) as f64).floor() as u64;
        [lower, (lower + 1).min(voxels - 1)].map(|place| if falls { voxels - 1 - place } else { place })
    })
}

/// Percentiles from the values at [`places`].
fn between(percents: &[f64], voxels: u64, values: &[f64]) -> Vec<f64> {
    let one = |(percent, [lower, upper]): (&f64, &[f64; 2])| {
        let at = percent / 100.0 * (voxels - 1) as f64;
        lower + (upper - lower) * (at - at.floor())
    };
    percents.iter().zip(values.as_chunks::<2>().0).map(one).collect()
}

/// The bin of the value at `place`, and its place within the bin.
fn bin_of(counts: &[u64], mut place: u64) -> (u32, u64) {
    for (bin, &count) in (0..).zip(counts) {
        if place < count {
            return (bin, place);
        }
        place -= count;
    }
    unreachable!("there are more values than {place}")
}

fn count<T: Voxel>(image: &ImageVolume, stored: &Volume<T>, mask: Mask<'_>, pass: Pass<'_>) -> Result<Vec<u64>, Infallible> {
    let labels = mask.labels(image);
    let ranks = mask.ranks::<T>(&image.rescale);
    let slices: Vec<usize> = (0..ranks.len()).collect();
    Ok(counted(image, &slices, pass, |&k, add| {
        for_kept(stored.slice(k), labels.map(|labels| labels.slice(k)), ranks[k], |some| add(k, some))
    }))
}

fn count_runs<T: Voxel>(image: &ImageVolume, stored: &Volume<T>, runs: &[Run], pass: Pass<'_>) -> Vec<u64> {
    counted(image, runs, pass, |run, add| add(run.k as usize, run.of(stored)))
}

/// Counts what `visit` adds, slice and values, of each part.
fn counted<T: Voxel, P: Sync>(
    image: &ImageVolume,
    parts: &[P],
    pass: Pass<'_>,
    visit: impl Fn(&P, &mut dyn FnMut(usize, &[T])) + Sync,
) -> Vec<u64> {
    let keys = Keys::<T>::of(image);
    // For each upper half the histogram that it has; beyond the last for those that have none.
    let mut histogram_of = vec![pass.prefixes.len() as u32; BINS];
    for (n, &prefix) in (0..).zip(pass.prefixes) {
        histogram_of[prefix as usize] = n;
    }
    let bins = pass.bins();
    let counts_of = |parts: &[P]| {
        let mut counts = vec![0u64; bins + BINS]; // and one histogram that nobody asked for
        let mut add = |k: usize, some: &[T]| {
            let rescale = image.rescale[k];
            if pass.prefixes.is_empty() {
                some.iter().for_each(|&value| counts[(keys.rank(value, rescale) >> pass.shift) as usize] += 1);
            } else {
                for &value in some {
                    let rank = keys.rank(value, rescale);
                    counts[histogram_of[(rank >> 16) as usize] as usize * BINS + (rank & 0xffff) as usize] += 1;
                }
            }
        };
        parts.iter().for_each(|part| visit(part, &mut add));
        counts.truncate(bins);
        counts
    };
    let a_thread = parts.len().div_ceil(rayon::current_num_threads());
    let counts: Vec<Vec<u64>> = parts.par_chunks(a_thread).map(counts_of).collect();
    let mut sum = vec![0u64; bins];
    counts.iter().for_each(|counts| sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count));
    sum
}

fn count_in_slabs<T: Voxel>(
    gpu: &Gpu,
    wgsl: &'static str,
    image: &ImageVolume,
    stored: &Volume<T>,
    mask: Mask<'_>,
    pass: Pass<'_>,
) -> Result<Vec<u64>, GpuError> {
    let labels = mask.labels(image);
    let flag = |on: bool| if on { 1.0 } else { 0.0 };
    let pipeline = gpu.pipeline("histogram", wgsl, &[("labelled", flag(labels.is_some())), ("scaled", flag(pass.scaled))])?;
    let slices: Vec<SliceRanks> = mask
        .ranks::<T>(&image.rescale)
        .into_iter()
        .zip(&image.rescale)
        .map(|([low, high], rescale)| SliceRanks { low, high, slope: rescale.slope as f32, intercept: rescale.intercept as f32 })
        .collect();
    let slices = gpu.upload("histogram: slices", &slices)?;
    let mut params = HistogramParams {
        plane: image.grid().slice_voxels() as u32,
        first_slice: 0,
        shift: pass.shift,
        prefix_count: pass.prefixes.len() as u32,
        prefixes: [[0; 4]; MOST_PREFIXES / 4],
    };
    for (n, &prefix) in pass.prefixes.iter().enumerate() {
        params.prefixes[n / 4][n % 4] = prefix;
    }
    let mut sum = vec![0u64; pass.bins()];
    let mut counts = vec![0u32; pass.bins()];
    for_each_slab(gpu, stored, labels, VOXELS_A_GROUP, |slab| {
        params.first_slice = slab.first_slice;
        let uniform = gpu.uniform("histogram: params", &params)?;
        let bins = gpu.storage("histogram: bins", (pass.bins() * 4) as u64)?;
        gpu.dispatch("histogram", &pipeline, &[&uniform, &slab.stored, &slab.labels, &slices, &bins], slab.groups)?;
        gpu.read_into(&bins, &mut counts)?;
        sum.iter_mut().zip(&counts).for_each(|(sum, &count)| *sum += u64::from(count));
        Ok(())
    })?;
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{as_floats, kept_values, masked_case, noisy_image};
    use super::*;

    const PERCENTS: [f64; 6] = [0.0, 0.5, 37.25, 50.0, 99.5, 100.0];

    fn by_sorting(image: &ImageVolume, mask: Mask<'_>) -> Option<Vec<f64>> {
        let mut values = kept_values(image, mask);
        values.sort_unstable_by(f64::total_cmp);
        let last = values.len().checked_sub(1)?;
        let at = |percent: &f64| {
            let place = percent / 100.0 * last as f64;
            let (lower, upper) = (values[place.floor() as usize], values[place.ceil() as usize]);
            lower + (upper - lower) * place.fract()
        };
        Some(PERCENTS.iter().map(at).collect())
    }

    /// `tolerance` of 1e4, the size of the values.
    fn check(found: Option<Vec<f64>>, expected: Option<&Vec<f64>>, tolerance: f64) {
        assert_eq!(found.is_some(), expected.is_some());
        for (found, expected) in found.iter().flatten().zip(expected.into_iter().flatten()) {
            assert!((found - expected).abs() <= tolerance * 1e4, "{found} is not {expected}");
        }
    }

    #[test]
    fn sorting_says_the_same() -> Result<(), GpuError> {
        let gpu = crate::gpu::for_tests();
        for (dims, seed) in [([1, 1, 1], 1), ([37, 1, 5], 2), ([1, 90, 3], 3), ([161, 147, 2], 4), ([40, 33, 7], 5)] {
            let own = noisy_image(dims, seed);
            let shared = |slope| ImageVolume { rescale: vec![Rescale { slope, intercept: -7.5 }; dims[2] as usize], ..own.clone() };
            for image in [own.clone(), shared(1.25), shared(-0.5), as_floats(&own), as_floats(&shared(2.0)), as_floats(&shared(-2.0))] {
                let labels = masked_case(&image);
                for mask in [Mask::All, Mask::Labelled(&labels), Mask::Above(100.0), Mask::Above(1e9)] {
                    let expected = by_sorting(&image, mask);
                    let exact = Keys::<i16>::of(&image).rescale.is_some();
                    // Rounding of f64, or of f32.
                    check(percentiles_cpu(&image, mask, &PERCENTS), expected.as_ref(), if exact { 1e-14 } else { 6e-8 });
                    if let Some(gpu) = &gpu {
                        let found = percentiles_gpu(gpu, &image, mask, &PERCENTS)?;
                        check(found, expected.as_ref(), if exact { 1e-14 } else { 3e-7 });
                    }
                }
            }
        }
        Ok(())
    }

    #[test]
    fn regions_have_the_percentiles_of_their_voxels() -> Result<(), GpuError> {
        let gpu = crate::gpu::for_tests();
        // Label 1 of the last case has voxels enough for histograms.
        for (dims, seed) in [([1, 1, 1], 1), ([37, 1, 5], 2), ([161, 147, 11], 4)] {
            let own = noisy_image(dims, seed);
            let shared = |slope| ImageVolume { rescale: vec![Rescale { slope, intercept: -7.5 }; dims[2] as usize], ..own.clone() };
            for image in [own.clone(), shared(-0.5), as_floats(&own), as_floats(&shared(2.0))] {
                let labels = masked_case(&image);
                let labels = Volume::new(*labels.grid(), labels.voxels().iter().map(|&label| label.min(2)).collect::<Vec<u8>>());
                let asked = [2, 9, 1, 0];
                let expected: Vec<_> = asked
                    .iter()
                    .map(|&asked| {
                        let own: Vec<u8> = labels.voxels().iter().map(|&label| u8::from(label == asked)).collect();
                        percentiles_cpu(&image, Mask::Labelled(&Volume::new(*labels.grid(), own)), &PERCENTS)
                    })
                    .collect();
                let regions = RegionRuns::of_labels(labels.voxels(), dims, &asked);
                assert_eq!(region_percentiles_cpu(&image, &regions, &PERCENTS), expected);
                if let Some(gpu) = &gpu {
                    for (found, expected) in label_percentiles_gpu(gpu, &labels, &image, &asked, &PERCENTS)?.into_iter().zip(&expected) {
                        check(found, expected.as_ref(), 3e-7);
                    }
                }
            }
        }
        Ok(())
    }

    #[test]
    fn a_small_device_counts_in_slabs() -> Result<(), GpuError> {
        let Some(mut gpu) = crate::gpu::for_tests() else { return Ok(()) };
        let image = noisy_image([260, 260, 9], 3); // a slice is half of what the histogram itself needs
        let expected = percentiles_gpu(&gpu, &image, Mask::All, &PERCENTS[..1])?;
        gpu.limit_storage(2 * BINS as u64 * 4);
        assert_eq!(percentiles_gpu(&gpu, &image, Mask::All, &PERCENTS[..1])?, expected);
        gpu.limit_storage(1 << 16);
        assert!(matches!(percentiles_gpu(&gpu, &image, Mask::All, &PERCENTS[..1]), Err(GpuError::TooLarge { .. })));
        Ok(())
    }

    #[test]
    fn shader_constants_are_those_of_rust() {
        for wgsl in [WGSL_I16, WGSL_F32] {
            assert!(wgsl.contains(&format!("const VOXELS_A_GROUP: u32 = {VOXELS_A_GROUP}u;")));
            assert!(wgsl.contains(&format!("array<vec4<u32>, {}>", MOST_PREFIXES / 4)));
        }
    }
}
