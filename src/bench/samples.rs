//! Repeated measurements of one piece of work.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use crate::gpu::{Clock, Gpu, GpuError};

const LEAST: usize = 3;
const MOST: usize = 200;

/// Times of one piece of work.
#[derive(Debug, Clone)]
pub(super) struct Samples {
    /// The first time, with whatever is made once: pages, pipelines.
    pub(super) cold: Duration,
    /// The later ones of the work itself, sorted: on a GPU of its dispatches.
    pub(super) warm: Vec<Duration>,
    /// The later ones of the whole call, with transfers, sorted.
    pub(super) calls: Vec<Duration>,
    /// How `warm` was measured.
    pub(super) clock: Clock,
}

/// Does `work` for `budget`: at least three times, at most `most` times.
pub(super) fn again<T, E>(budget: Duration, most: usize, mut work: impl FnMut() -> Result<T, E>) -> Result<Vec<T>, E> {
    let started = Instant::now();
    let mut done = Vec::new();
    while done.len() < LEAST || done.len() < most && started.elapsed() < budget {
        done.push(work()?);
    }
    Ok(done)
}

/// Runs `work` once, and then for `budget`.
pub(super) fn repeat<T>(budget: Duration, mut work: impl FnMut() -> T) -> Samples {
    let mut time = || {
        let start = Instant::now();
        std::hint::black_box(work());
        start.elapsed()
    };
    let cold = time();
    let Ok(mut warm) = again(budget, MOST, || Ok::<_, Infallible>(time()));
    warm.sort();
    Samples { cold, calls: warm.clone(), warm, clock: Clock::Wall }
}

/// The same on a GPU, where dispatches are told from the rest of a call.
pub(super) fn repeat_gpu<T>(gpu: &Gpu, budget: Duration, mut work: impl FnMut(&Gpu) -> Result<T, GpuError>) -> Result<Samples, GpuError> {
    let (_, cold) = gpu.timed(|| work(gpu))?;
    let times = again(budget, MOST, || {
        let (_, call) = gpu.timed(|| work(gpu))?;
        let (_, kernels) = gpu.profiled(|| work(gpu))?;
        Ok((call, kernels.iter().map(|kernel| kernel.time).sum::<Duration>()))
    })?;
    let (mut calls, mut warm): (Vec<_>, Vec<_>) = times.into_iter().unzip();
    warm.sort();
    calls.sort();
    Ok(Samples { cold, warm, calls, clock: gpu.clock() })
}

/// The one in the middle.
pub(super) fn median(sorted: &[Duration]) -> Duration {
    sorted[sorted.len() / 2]
}

/// Half the distance between the quartiles, percent of the median.
pub(super) fn spread_percent(sorted: &[Duration]) -> f64 {
    let quartile = |n: usize| sorted[(sorted.len() - 1) * n / 4].as_secs_f64();
    50.0 * (quartile(3) - quartile(1)) / median(sorted).as_secs_f64().max(1e-9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_and_spread() {
        let times = |ms: &[u64]| ms.iter().map(|&ms| Duration::from_millis(ms)).collect::<Vec<_>>();
        assert_eq!(median(&times(&[1, 2, 9])), Duration::from_millis(2));
        assert_eq!(spread_percent(&times(&[2, 2, 2, 2])), 0.0);
        assert!((spread_percent(&times(&[8, 9, 10, 11, 12])) - 10.0).abs() < 1e-7);
        let measured = repeat(Duration::ZERO, || 1 + 1);
        assert_eq!(measured.warm.len(), LEAST);
    }
}
