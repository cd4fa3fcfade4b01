//! Class scores to probabilities in place, and to labels by a threshold: softmax and sigmoid on the network's grid.
//!
//! `softmax(c) = exp(score(c) - highest) / sum over classes`, `sigmoid(s) = 1 / (1 + exp(-s))`. Scores are C, D, H, W; nothing of that size is
//! allocated. Exponentials are a polynomial, good to 2e-7.
//!
//! Memory traffic a voxel and channel: softmax 8 bytes (a block of all channels stays in the cache), sigmoid 8, threshold 4.
//! Shaders: `shaders/softmax.wgsl`, `shaders/sigmoid.wgsl`, `shaders/threshold.wgsl`.

use bytemuck::{Pod, Zeroable};
use rayon::prelude::*;

use super::lines::groups_of;
use super::simd::wide;
use crate::gpu::{Buffer, Gpu, GpuError};

pub(super) const SOFTMAX_WGSL: &str =
    concat!(include_str!("../../shaders/shared/probabilities.wgsl"), include_str!("../../shaders/softmax.wgsl"));
pub(super) const SIGMOID_WGSL: &str =
    concat!(include_str!("../../shaders/shared/probabilities.wgsl"), include_str!("../../shaders/sigmoid.wgsl"));
pub(super) const THRESHOLD_WGSL: &str =
    concat!(include_str!("../../shaders/shared/probabilities.wgsl"), include_str!("../../shaders/threshold.wgsl"));

/// Voxels that one thread takes at a time.
const BLOCK: usize = 1024;
/// Threads of a workgroup.
const THREADS: u32 = 64;

/// Uniforms of the three shaders.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct ProbabilityParams {
    /// Voxels of a channel.
    pub voxels: u32,
    /// Number of channels.
    pub channels: u32,
    /// Threads along x of the dispatch.
    pub threads_a_row: u32,
    /// Least score that counts.
    pub threshold: f32,
}

/// Scores to probabilities that sum to 1 at each voxel. Scores must not be NaN.
///
/// # Panics
/// Where `scores` does not hold whole channels: a broken promise of the caller.
pub fn softmax_cpu(scores: &mut [f32], channels: usize) {
    let voxels = voxels_of(scores, channels);
    if voxels == 0 {
        return;
    }
    let mut blocks: Vec<Vec<&mut [f32]>> = (0..voxels.div_ceil(BLOCK)).map(|_| Vec::with_capacity(channels)).collect();
    for channel in scores.chunks_exact_mut(voxels) {
        channel.chunks_mut(BLOCK).zip(&mut blocks).for_each(|(part, block)| block.push(part));
    }
    blocks.into_par_iter().for_each_init(
        || ([0f32; BLOCK], [0f32; BLOCK]),
        |(highest, sum), mut block| {
            let width = block[0].len();
            let (highest, sum) = (&mut highest[..width], &mut sum[..width]);
            highest.copy_from_slice(block[0]);
            block[1..].iter().for_each(|scores| raise(highest, scores));
            sum.fill(0.0);
            block.iter_mut().for_each(|scores| exponentials(scores, highest, sum));
            block.iter_mut().for_each(|scores| divide(scores, sum));
        },
    );
}

/// Each score to a probability by itself.
pub fn sigmoid_cpu(scores: &mut [f32]) {
    scores.par_chunks_mut(1 << 14).for_each(sigmoids);
}

/// For each voxel the label of the channel with the highest score of those that are at least `threshold`, the lower one of equals;
/// 0 where there is none.
///
/// # Panics
/// Where `scores` does not hold a whole channel for each label: a broken promise of the caller.
pub fn threshold_cpu(scores: &[f32], label_of_channel: &[u8], threshold: f32) -> Vec<u8> {
    let voxels = voxels_of(scores, label_of_channel.len());
    let mut labels = vec![0u8; voxels];
    labels.par_chunks_mut(BLOCK).enumerate().for_each_init(
        || [0f32; BLOCK],
        |best, (n, labels)| {
            let best = &mut best[..labels.len()];
            best.fill(f32::NEG_INFINITY);
            for (channel, &label) in scores.chunks_exact(voxels).zip(label_of_channel) {
                take_over(labels, best, &channel[n * BLOCK..][..labels.len()], label, threshold);
            }
        },
    );
    labels
}

fn voxels_of(scores: &[f32], channels: usize) -> usize {
    assert!(channels > 0 && scores.len().is_multiple_of(channels), "whole channels");
    scores.len() / channels
}

/// `exp(x)` for x up to 0: 2^n times a polynomial in what is left (Cephes' `expf`), 2e-7 of the result; below -87, 1e-38.
#[inline(always)]
fn exp_of_negative(x: f32) -> f32 {
    const ROUNDS: f32 = 12_582_912.0; // 1.5 * 2^23: adding it leaves a whole number in the lowest bits
    let x = if x > -87.0 { x } else { -87.0 };
    let shifted = x * std::f32::consts::LOG2_E + ROUNDS;
    let n = shifted - ROUNDS;
    let rest = (x - n * 0.693_359_4) - n * -2.121_944_4e-4;
    let p = 1.987_569_1e-4f32;
    let p = p * rest + 1.398_199_9e-3;
    let p = p * rest + 8.333_452e-3;
    let p = p * rest + 4.166_579_6e-2;
    let p = p * rest + 1.666_666_5e-1;
    let p = p * rest + 0.5;
    let value = p * rest * rest + rest + 1.0;
    value * f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23))
}

wide! {
    fn raise(highest: &mut [f32], scores: &[f32]) {
        highest.iter_mut().zip(scores).for_each(|(highest, &score)| *highest = if score > *highest { score } else { *highest });
    }
}

wide! {
    fn exponentials(scores: &mut [f32], highest: &[f32], sum: &mut [f32]) {
        for ((score, highest), sum) in scores.iter_mut().zip(highest).zip(sum) {
            *score = exp_of_negative(*score - highest);
            *sum += *score;
        }
    }
}

wide! {
    fn divide(scores: &mut [f32], sum: &[f32]) {
        scores.iter_mut().zip(sum).for_each(|(score, sum)| *score /= sum);
    }
}

wide! {
    fn sigmoids(scores: &mut [f32]) {
        for score in scores {
            let e = exp_of_negative(-score.abs());
            let share = if *score < 0.0 { e } else { 1.0 };
            *score = share / (1.0 + e);
        }
    }
}

wide! {
    fn take_over(labels: &mut [u8], best: &mut [f32], scores: &[f32], label: u8, threshold: f32) {
        for ((own, best), &score) in labels.iter_mut().zip(best).zip(scores) {
            let wins = (score >= threshold) & (score > *best);
            *own = if wins { label } else { *own };
            *best = if wins { score } else { *best };
        }
    }
}

fn params(gpu: &Gpu, threads: usize, voxels: usize, channels: usize, threshold: f32) -> Result<(Buffer, [u32; 3]), GpuError> {
    let (threads_a_row, groups) = groups_of(gpu, threads, THREADS);
    let params = ProbabilityParams { voxels: voxels as u32, channels: channels as u32, threads_a_row, threshold };
    Ok((gpu.uniform("probabilities: params", &params)?, groups))
}

/// [`softmax_cpu`] on scores in the memory of a GPU, to 1e-6. It is queued, not awaited.
///
/// # Errors
/// [`GpuError::OutOfMemory`], [`GpuError::Lost`].
pub fn softmax_gpu(gpu: &Gpu, scores: &Buffer, voxels: usize, channels: usize) -> Result<(), GpuError> {
    let pipeline = gpu.pipeline("softmax", SOFTMAX_WGSL, &[])?;
    let (params, groups) = params(gpu, voxels, voxels, channels, 0.0)?;
    gpu.dispatch("softmax", &pipeline, &[&params, scores], groups)
}

/// [`sigmoid_cpu`] on scores in the memory of a GPU, to 1e-6. It is queued, not awaited.
///
/// # Errors
/// [`GpuError::OutOfMemory`], [`GpuError::Lost`].
pub fn sigmoid_gpu(gpu: &Gpu, scores: &Buffer, values: usize) -> Result<(), GpuError> {
    let pipeline = gpu.pipeline("sigmoid", SIGMOID_WGSL, &[])?;
    let (params, groups) = params(gpu, values, values, 1, 0.0)?;
    gpu.dispatch("sigmoid", &pipeline, &[&params, scores], groups)
}

/// [`threshold_cpu`] on scores in the memory of a GPU: the same labels, four a word.
///
/// # Errors
/// [`GpuError::TooLarge`] where the labels exceed a binding; [`GpuError::OutOfMemory`]; [`GpuError::Lost`].
pub fn threshold_gpu(gpu: &Gpu, scores: &Buffer, voxels: usize, label_of_channel: &[u8], threshold: f32) -> Result<Buffer, GpuError> {
    let pipeline = gpu.pipeline("threshold", THRESHOLD_WGSL, &[])?;
    let (params, groups) = params(gpu, voxels.div_ceil(4), voxels, label_of_channel.len(), threshold)?;
    let label_of_channel: Vec<u32> = label_of_channel.iter().map(|&label| label.into()).collect();
    let label_of_channel = gpu.upload("threshold: label of channel", &label_of_channel)?;
    let labels = gpu.storage("threshold: labels", voxels as u64)?;
    gpu.dispatch("threshold", &pipeline, &[&params, scores, &label_of_channel, &labels], groups)?;
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use super::super::tests::noise;
    use super::*;

    #[test]
    fn exponentials_are_good_to_seven_digits() {
        for n in 0..200_000 {
            let x = -(n as f32) * 4.3e-4;
            let exact = f64::from(x).exp();
            assert!((f64::from(exp_of_negative(x)) - exact).abs() <= 2e-7 * exact, "{x}");
        }
        assert_eq!(exp_of_negative(0.0), 1.0);
        assert!((0.0..1e-37).contains(&exp_of_negative(f32::MIN)));
    }

    #[test]
    fn both_are_the_formula() -> Result<(), GpuError> {
        let gpu = crate::gpu::for_tests();
        for (voxels, channels) in [(1, 1), (1, 5), (1023, 2), (2049, 7), (67, 118)] {
            // A few of them far apart.
            let score = |n: usize| (if n.is_multiple_of(13) { 300.0 } else { 12.0 } * (noise(n + voxels) - 0.5)) as f32;
            let scores: Vec<f32> = (0..voxels * channels).map(score).collect();
            let at = |c: usize, v: usize| f64::from(scores[c * voxels + v]);
            let highest = |v: usize| (0..channels).map(|c| at(c, v)).fold(f64::NEG_INFINITY, f64::max);
            let sum = |v: usize| (0..channels).map(|c| (at(c, v) - highest(v)).exp()).sum::<f64>();
            let each = || (0..channels).flat_map(|c| (0..voxels).map(move |v| (c, v)));
            let softmax: Vec<f64> = each().map(|(c, v)| (at(c, v) - highest(v)).exp() / sum(v)).collect();
            let sigmoid: Vec<f64> = each().map(|(c, v)| 1.0 / (1.0 + (-at(c, v)).exp())).collect();
            let labels: Vec<u8> = (0..channels).map(|c| (channels - c) as u8).collect();
            let wins = |v: usize| (0..channels).filter(|&c| at(c, v) >= 1.5).reduce(|a, b| if at(b, v) > at(a, v) { b } else { a });
            let thresholded: Vec<u8> = (0..voxels).map(|v| wins(v).map_or(0, |c| labels[c])).collect();
            let same = |found: &[f32], expected: &[f64]| {
                for (found, expected) in found.iter().zip(expected) {
                    assert!((f64::from(*found) - expected).abs() < 1e-6, "{found} is not {expected}");
                }
            };
            let [mut p, mut s] = [scores.clone(), scores.clone()];
            softmax_cpu(&mut p, channels);
            sigmoid_cpu(&mut s);
            same(&p, &softmax);
            same(&s, &sigmoid);
            assert_eq!(threshold_cpu(&scores, &labels, 1.5), thresholded);
            let Some(gpu) = &gpu else { continue };
            let [on_p, on_s] = [gpu.upload("scores", &scores)?, gpu.upload("scores", &scores)?];
            let found = threshold_gpu(gpu, &on_p, voxels, &labels, 1.5)?;
            let mut found_labels = vec![0u8; voxels];
            gpu.read_into(&found, &mut found_labels)?;
            assert_eq!(found_labels, thresholded);
            softmax_gpu(gpu, &on_p, voxels, channels)?;
            sigmoid_gpu(gpu, &on_s, scores.len())?;
            gpu.read_into(&on_p, &mut p)?;
            gpu.read_into(&on_s, &mut s)?;
            same(&p, &softmax);
            same(&s, &sigmoid);
        }
        Ok(())
    }
}
