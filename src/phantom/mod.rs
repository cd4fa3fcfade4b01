//! A chest CT of our own making, and a radiograph of it, with known truth: for the demo, for tests, and for anyone without data.
//!
//! A body of nested analytic shapes, sampled eight times a voxel so that edges have partial volume, with noise that
//! depends on nothing but the voxel's index: the same options give the same bytes. It is no patient and no training data.

mod body;
mod radiograph;
mod write;

use rayon::prelude::*;

pub use body::{NODULES, Tissue};
pub use radiograph::{radiograph_sampling, write_radiograph};
pub use write::{Visit, write_series, write_visit};

use crate::geometry::{Affine, Grid};
use crate::volume::{ImageVolume, Quantity, Rescale, Volume};

/// How the phantom is sampled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Columns, rows, slices; the body is centred in them.
    pub dims: [u32; 3],
    /// Along i, j, k, mm.
    pub spacing_mm: [f64; 3],
    /// Standard deviation of the noise, HU.
    pub noise_hu: f64,
}

impl Default for Sampling {
    /// The whole chest, 358 x 269 x 288 mm, as a thick-slice CT has it.
    fn default() -> Self {
        Self { dims: [224, 168, 96], spacing_mm: [1.6, 1.6, 3.0], noise_hu: 15.0 }
    }
}

/// The sampled phantom and its truth.
#[derive(Debug, Clone)]
pub struct Phantom {
    /// Axial CT, LPS, stored values offset by 1024.
    pub image: ImageVolume,
    /// What was put in.
    pub truth: Vec<Truth>,
    /// Standard deviation of the noise, HU.
    pub noise_hu: f64,
}

/// How much of a tissue is in the sampled box.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Truth {
    /// Which.
    pub tissue: Tissue,
    /// From the samples, each an eighth of a voxel, ml.
    pub volume_ml: f64,
}

const STORED_OFFSET: f64 = 1024.0;

/// Samples the phantom.
///
/// # Panics
/// Where `sampling` has an empty axis or no spacing: a broken promise of the caller.
pub fn chest(sampling: &Sampling) -> Phantom {
    chest_of(sampling, &NODULES, &Affine::IDENTITY)
}

/// Samples the phantom with other nodules (centre and radius, mm), lying elsewhere: `body_from_lps` is a turn and a shift.
///
/// # Panics
/// As [`chest`].
pub fn chest_of(sampling: &Sampling, nodules: &[([f64; 3], f64)], body_from_lps: &Affine) -> Phantom {
    let [columns, rows, slices] = sampling.dims;
    let spacing = sampling.spacing_mm;
    let first = std::array::from_fn(|n| -spacing[n] * (f64::from(sampling.dims[n]) - 1.0) / 2.0);
    let grid = Grid::new(sampling.dims, Affine::scale_then_shift(spacing, first)).expect("sampling has voxels and spacing");

    let mut stored = vec![0i16; grid.voxel_count()];
    let counts = stored
        .par_chunks_mut(grid.slice_voxels())
        .enumerate()
        .map(|(k, slice)| {
            let mut counts = [0u64; Tissue::ALL.len()];
            for j in 0..rows {
                for i in 0..columns {
                    let n = (j * columns + i) as usize;
                    let mut sum_hu = 0.0;
                    for corner in 0..8 {
                        let voxel = [f64::from(i), f64::from(j), k as f64];
                        let point = std::array::from_fn(|axis| {
                            let offset = if corner >> axis & 1 == 1 { 0.25 } else { -0.25 };
                            first[axis] + spacing[axis] * (voxel[axis] + offset)
                        });
                        let tissue = body::tissue_at(body_from_lps.apply(point), nodules);
                        counts[tissue as usize] += 1;
                        sum_hu += tissue.hu();
                    }
                    let hu = sum_hu / 8.0 + sampling.noise_hu * gaussian(k as u64 * grid.slice_voxels() as u64 + n as u64);
                    slice[n] = (hu + STORED_OFFSET).round().clamp(0.0, 4095.0) as i16;
                }
            }
            counts
        })
        .reduce(|| [0; Tissue::ALL.len()], |a, b| std::array::from_fn(|n| a[n] + b[n]));

    let sample_ml = grid.voxel_volume_mm3() / 8.0 / 1000.0;
    let truth = Tissue::ALL.map(|tissue| Truth { tissue, volume_ml: counts[tissue as usize] as f64 * sample_ml });
    let rescale = vec![Rescale { slope: 1.0, intercept: -STORED_OFFSET }; slices as usize];
    let image = ImageVolume { stored: Volume::new(grid, stored).into(), rescale, quantity: Quantity::Hounsfield };
    Phantom { image, truth: truth.to_vec(), noise_hu: sampling.noise_hu }
}

/// A standard normal number for each `index`, by its bits alone: sum of twelve uniform ones, minus 6.
fn gaussian(index: u64) -> f64 {
    let mut sum = 0.0;
    let mut state = index.wrapping_mul(3);
    for _ in 0..3 {
        // splitmix64 (Steele et al. 2014)
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^= bits >> 31;
        sum += (0..4).map(|n| f64::from((bits >> (16 * n)) as u16)).sum::<f64>();
    }
    sum / 65536.0 - 6.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_standard_normal_and_repeatable() {
        let values: Vec<f64> = (0..100_000).map(gaussian).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64;
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.02, "mean {mean}, variance {variance}");
        assert_eq!(gaussian(7), gaussian(7));
    }

    #[test]
    fn truth_fills_the_box_and_left_is_not_right() {
        let sampling = Sampling { dims: [56, 42, 24], spacing_mm: [6.4, 6.4, 12.0], noise_hu: 0.0 };
        let phantom = chest(&sampling);
        let box_ml = 56.0 * 6.4 * 42.0 * 6.4 * 24.0 * 12.0 / 1000.0;
        let sum_ml: f64 = phantom.truth.iter().map(|t| t.volume_ml).sum();
        assert!((sum_ml - box_ml).abs() < 1e-6, "{sum_ml} of {box_ml}");
        // The heart lies left, where LPS x is positive.
        assert_eq!(body::tissue_at([40.0, -30.0, -40.0], &NODULES), Tissue::Soft);
        assert_eq!(body::tissue_at([-70.0, -30.0, 0.0], &NODULES), Tissue::Lung);
    }
}
