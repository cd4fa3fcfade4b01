//! Steps from the first one that measures what the steps before it have made: each is a pass over the network's input.
//!
//! On the CPU whatever the backend, in place, in `f64`, sums in a fixed order: the number of threads changes no digit.

use rayon::prelude::*;

use super::{LEAST_SPREAD, PreprocessError};
use crate::model::PreprocessStep;
use crate::volume::Volume;

/// Voxels that one thread takes at a time.
const BLOCK: usize = 1 << 16;

/// `input` after one step of values.
///
/// # Errors
/// [`PreprocessError::NothingAbove`] where no voxel counts.
///
/// # Panics
/// For a step of geometry: a broken promise of the manifest.
pub(super) fn run(step: &PreprocessStep, input: Volume<f32>) -> Result<Volume<f32>, PreprocessError> {
    let grid = *input.grid();
    let mut values = input.into_voxels();
    match *step {
        PreprocessStep::Clip { min, max } => change(&mut values, |v| v.clamp(min, max)),
        PreprocessStep::Normalize { subtract, divide } => change(&mut values, |v| (v - subtract) / divide),
        PreprocessStep::ZScore { above, masked, nonzero, .. } => {
            let counts = |v: f64| if nonzero { v != 0.0 } else { above.is_none_or(|above| v > above) };
            let (mean, deviation) = spread(&values, counts).ok_or_else(|| nothing(above))?;
            let divide = deviation.max(LEAST_SPREAD);
            change(&mut values, |v| if !masked || counts(v) { (v - mean) / divide } else { 0.0 });
        }
        PreprocessStep::Percentiles { low, high, above, .. } => {
            let counts = |v: f64| above.is_none_or(|above| v > above);
            let [low, high] = percentiles(&values, counts, [low, high]).ok_or_else(|| nothing(above))?;
            let divide = (high - low).max(LEAST_SPREAD);
            change(&mut values, |v| (v.clamp(low, high) - low) / divide);
        }
        PreprocessStep::Orient { .. } | PreprocessStep::Crop { .. } | PreprocessStep::Resample { .. } | PreprocessStep::Resize { .. } => {
            unreachable!("the manifest has geometry before such steps")
        }
    }
    Ok(Volume::new(grid, values))
}

fn nothing(above: Option<f64>) -> PreprocessError {
    PreprocessError::NothingAbove { above: above.unwrap_or(0.0) }
}

fn change(values: &mut [f32], to: impl Fn(f64) -> f64 + Sync) {
    values.par_chunks_mut(BLOCK).for_each(|block| block.iter_mut().for_each(|v| *v = to(f64::from(*v)) as f32));
}

/// Mean and standard deviation (the population's) of the values that count; `None` where none does.
fn spread(values: &[f32], counts: impl Fn(f64) -> bool + Sync) -> Option<(f64, f64)> {
    let sum_of = |of: &(dyn Fn(f64) -> f64 + Sync)| {
        let sums = values.par_chunks(BLOCK).map(|block| block.iter().map(|&v| f64::from(v)).filter(|&v| counts(v)).map(of).sum());
        sums.collect::<Vec<f64>>().iter().sum::<f64>()
    };
    let count = sum_of(&|_| 1.0);
    let mean = sum_of(&|v| v) / count;
    let variance = sum_of(&|v| (v - mean).powi(2)) / count;
    (count > 0.0).then(|| (mean, variance.sqrt()))
}

/// Percentiles of the values that count, between two of them linear (numpy's default); `None` where none does.
fn percentiles(values: &[f32], counts: impl Fn(f64) -> bool + Sync, percents: [f64; 2]) -> Option<[f64; 2]> {
    let mut kept: Vec<f32> = values.par_iter().copied().filter(|&v| counts(f64::from(v))).collect();
    let last = kept.len().checked_sub(1)?;
    Some(percents.map(|percent| {
        let at = percent / 100.0 * last as f64;
        let (_, &mut lower, above) = kept.select_nth_unstable_by(at as usize, f32::total_cmp);
        let upper = above.iter().copied().reduce(f32::min).unwrap_or(lower);
        f64::from(lower) + at.fract() * (f64::from(upper) - f64::from(lower))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::{Affine, Coded, Grid};

    /// -5, -3 .. 13, and two that are 0.
    fn check(step: &PreprocessStep, expected: impl Fn(f64) -> f64) {
        let before: Vec<f32> = (0..10).map(|n| 2.0 * n as f32 - 5.0).chain([0.0, 0.0]).collect();
        let grid = Grid::new([3, 4, 1], Affine::IDENTITY).expect("a grid");
        let after = run(step, Volume::new(grid, before.clone())).expect("values count");
        for (before, &after) in before.into_iter().zip(after.voxels()) {
            let expected = expected(f64::from(before));
            assert!((f64::from(after) - expected).abs() < 1e-6, "{before} becomes {after}, not {expected}");
        }
    }

    #[test]
    fn what_was_resampled_normalises_itself() {
        // numpy: these 12 values have mean 10 / 3 and standard deviation 5.451809077932042, those that are not 0 have 4 and 5.744562646538029.
        let z_score = |above, masked, nonzero| PreprocessStep::ZScore { above, over: None, masked, nonzero, resampled: true };
        check(&z_score(None, false, false), |v| (v - 10.0 / 3.0) / 5.451_809_077_932_042);
        check(&z_score(None, false, true), |v| (v - 4.0) / 5.744_562_646_538_029);
        check(&z_score(None, true, true), |v| if v != 0.0 { (v - 4.0) / 5.744_562_646_538_029 } else { 0.0 });
        check(&z_score(Some(0.0), true, false), |v| if v > 0.0 { (v - 7.0) / 4.0 } else { 0.0 });
        let percentiles = |low, high, above| PreprocessStep::Percentiles { low, high, above, resampled: true };
        check(&percentiles(0.0, 100.0, None), |v| (v + 5.0) / 18.0);
        check(&percentiles(10.0, 95.0, Some(0.0)), |v| (v.clamp(2.2, 12.4) - 2.2) / 10.2);
        check(&PreprocessStep::Clip { min: -1.0, max: 2.0 }, |v| v.clamp(-1.0, 2.0));
        check(&PreprocessStep::Normalize { subtract: 1.0, divide: -2.0 }, |v| (v - 1.0) / -2.0);
    }

    #[test]
    fn nothing_counts() {
        let grid = Grid::new([2, 1, 1], Affine::IDENTITY).expect("a grid");
        let step = PreprocessStep::ZScore { above: None, over: None, masked: true, nonzero: true, resampled: true };
        assert_eq!(run(&step, Volume::new(grid, vec![0.0; 2])).expect_err("both are 0").code(), "preprocess.nothing-above");
    }
}
