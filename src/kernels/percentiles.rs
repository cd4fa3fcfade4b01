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
use super::voxel::{Voxel, float_of_rank, rank_of_float};
use crate::gpu::{Gpu, GpuError};
use crate::volume::{ImageVolume, Rescale, Stored, Volume};

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
    /// Least rank that counts.
    pub low: u32,
    /// Greatest rank that counts.
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
    assert!((1..=MOST_PERCENTILES).contains(&percents.len()), "1 to {MOST_PERCENTILES} percentiles");
    assert!(percents.iter().all(|p| (0.0..=100.0).contains(p)), "percentiles are 0 to 100");
    let scaled = keys.rescale.is_none();
    let shift = keys.bits() - 16;
    let first = count(Pass { scaled, shift, prefixes: &[] })?;
    let voxels: u64 = first.iter().sum();
    if voxels == 0 {
        return Ok(None);
    }
    // The values on both sides of each percentile, by their place among all.
    let places: Vec<[u64; 2]> = percents
        .iter()
        .map(|percent| {
            let lower = (percent / 100.0 * (voxels - 1) as f64).floor() as u64;
            [lower, (lower + 1).min(voxels - 1)].map(|place| if keys.falls() { voxels - 1 - place } else { place })
        })
        .collect();
    let found: Vec<(u32, u64)> = places.iter().flatten().map(|&place| bin_of(&first, place)).collect();
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
    let between = |(percent, ranks): (&f64, &[u32])| {
        let at = percent / 100.0 * (voxels - 1) as f64;
        let [lower, upper] = [ranks[0], ranks[1]].map(|rank| keys.physical(rank));
        lower + (upper - lower) * (at - at.floor())
    };
    Ok(Some(percents.iter().zip(ranks.chunks_exact(2)).map(between).collect()))
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
    // For each upper half the histogram that it has; beyond the last for those that have none.
    let mut histogram_of = vec![pass.prefixes.len() as u32; BINS];
    for (n, &prefix) in (0..).zip(pass.prefixes) {
        histogram_of[prefix as usize] = n;
    }
    let bins = pass.bins();
    let part = |slices: &[usize]| {
        let mut counts = vec![0u64; bins + BINS]; // and one histogram that nobody asked for
        for &k in slices {
            let Rescale { slope, intercept } = image.rescale[k];
            let key = |value: T| {
                if pass.scaled { rank_of_float((slope * f64::from(value.number()) + intercept) as f32) } else { value.rank() }
            };
            for_kept(stored.slice(k), labels.map(|labels| labels.slice(k)), ranks[k], |some| {
                if pass.prefixes.is_empty() {
                    some.iter().for_each(|&value| counts[(key(value) >> pass.shift) as usize] += 1);
                } else {
                    for &value in some {
                        let key = key(value);
                        counts[histogram_of[(key >> 16) as usize] as usize * BINS + (key & 0xffff) as usize] += 1;
                    }
                }
            });
        }
        counts.truncate(bins);
        counts
    };
    let slices: Vec<usize> = (0..ranks.len()).collect();
    let a_thread = slices.len().div_ceil(rayon::current_num_threads());
    let parts: Vec<Vec<u64>> = slices.par_chunks(a_thread).map(part).collect();
    let mut sum = vec![0u64; bins];
    parts.iter().for_each(|part| sum.iter_mut().zip(part).for_each(|(sum, count)| *sum += count));
    Ok(sum)
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
