//! Repeated measurements of one piece of work.

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

/// Runs `work` once, and then for `budget`.
pub(super) fn repeat<T>(budget: Duration, mut work: impl FnMut() -> T) -> Samples {
    let time = |work: &mut dyn FnMut() -> T| {
        let start = Instant::now();
        std::hint::black_box(work());
        start.elapsed()
    };
    let cold = time(&mut work);
    let started = Instant::now();
    let mut warm = Vec::new();
    while warm.len() < LEAST || warm.len() < MOST && started.elapsed() < budget {
        warm.push(time(&mut work));
    }
    warm.sort();
    Samples { cold, calls: warm.clone(), warm, clock: Clock::Wall }
}

/// The same on a GPU, where dispatches are told from the rest of a call.
pub(super) fn repeat_gpu<T>(gpu: &Gpu, budget: Duration, mut work: impl FnMut(&Gpu) -> Result<T, GpuError>) -> Result<Samples, GpuError> {
    let (_, cold) = gpu.timed(|| work(gpu))?;
    let started = Instant::now();
    let (mut warm, mut calls) = (Vec::new(), Vec::new());
    while warm.len() < LEAST || warm.len() < MOST && started.elapsed() < budget {
        let (_, call) = gpu.timed(|| work(gpu))?;
        let (_, kernels) = gpu.profiled(|| work(gpu))?;
        calls.push(call);
        warm.push(kernels.iter().map(|kernel| kernel.time).sum());
    }
    warm.sort();
    calls.sort();
    Ok(Samples { cold, warm, calls, clock: gpu.clock() })
}

/// The one in the middle.
pub(super) fn median(sorted: &[Duration]) -> Duration {
    sorted[sorted.len() / 2]
}

impl Samples {
    /// Half the distance between the quartiles, as a share of the median.
    pub(super) fn spread(&self) -> f64 {
        let quartile = |n: usize| self.warm[(self.warm.len() - 1) * n / 4].as_secs_f64();
        (quartile(3) - quartile(1)) / 2.0 / median(&self.warm).as_secs_f64().max(1e-9)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_and_spread() {
        let samples = |ms: &[u64]| {
            let warm: Vec<_> = ms.iter().map(|&ms| Duration::from_millis(ms)).collect();
            Samples { cold: Duration::ZERO, calls: warm.clone(), warm, clock: Clock::Wall }
        };
        assert_eq!(median(&samples(&[1, 2, 9]).warm), Duration::from_millis(2));
        assert_eq!(samples(&[2, 2, 2, 2]).spread(), 0.0);
        assert!((samples(&[8, 9, 10, 11, 12]).spread() - 0.1).abs() < 1e-9);
        let measured = repeat(Duration::ZERO, || 1 + 1);
        assert_eq!(measured.warm.len(), LEAST);
    }
}
