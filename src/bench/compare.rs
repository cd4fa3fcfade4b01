//! Two reports side by side: what became slower or faster beyond the noise.

use serde::Serialize;

use super::Report;

/// Less than this is never called a change, percent.
const LEAST_PERCENT: f64 = 5.0;
/// Spreads that a change must exceed.
const SPREADS: f64 = 3.0;

/// One measurement that is in both reports.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// What was measured: device, kernel or stage, and on what.
    pub what: String,
    /// Before.
    pub old_ms: f64,
    /// Now.
    pub new_ms: f64,
    /// Now to before.
    pub ratio: f64,
    /// How much of a difference may be noise, percent: three times both spreads, at least 5.
    pub noise_percent: f64,
}

impl Change {
    /// Whether it takes longer than before, beyond the noise.
    pub fn is_slower(&self) -> bool {
        self.ratio > 1.0 + self.noise_percent / 100.0
    }

    /// Whether it takes less time than before, beyond the noise.
    pub fn is_faster(&self) -> bool {
        self.ratio < 1.0 / (1.0 + self.noise_percent / 100.0)
    }
}

/// What a report measured: name, milliseconds, spread in percent.
fn measurements(report: &Report) -> Vec<(String, f64, f64)> {
    let kernels = report.kernels.iter().map(|kernel| {
        let what = format!("{}: {}, {}, {}³", kernel.device, kernel.kernel, kernel.variant, kernel.size);
        (what, kernel.median_ms, kernel.spread_percent)
    });
    let stages = report.runs.iter().flat_map(|run| {
        run.stages.iter().map(move |stage| {
            let [i, j, k] = run.dims;
            let what = format!("{}, {}: {} of {}, {i} x {j} x {k}", run.device, run.provider, stage.stage, run.package);
            (what, stage.median_ms, stage.spread_percent)
        })
    });
    kernels.chain(stages).collect()
}

/// All measurements that are in both, in the order of the new one.
pub fn compare(old: &Report, new: &Report) -> Vec<Change> {
    let before = measurements(old);
    let find = |what: &str| before.iter().find(|(name, ..)| name == what);
    let changes = measurements(new).into_iter().filter_map(|(what, new_ms, new_spread)| {
        let (_, old_ms, old_spread) = find(&what)?;
        let noise_percent = (SPREADS * (old_spread + new_spread)).max(LEAST_PERCENT);
        Some(Change { what, old_ms: *old_ms, new_ms, ratio: new_ms / old_ms.max(1e-9), noise_percent })
    });
    changes.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{RunReport, StageReport};

    fn report(ms: f64, spread_percent: f64) -> Report {
        let stage = StageReport { stage: "load".into(), cold_ms: 9.0, median_ms: ms, spread_percent };
        let run = RunReport {
            device: "cpu".into(),
            provider: "cpu".into(),
            package: "p".into(),
            dims: [1, 2, 3],
            open_ms: 1.0,
            stages: vec![stage],
        };
        Report { runs: vec![run], ..Report::default() }
    }

    #[test]
    fn only_what_exceeds_the_noise_is_a_change() {
        for (new_ms, spread, slower, faster) in
            [(10.4, 0.0, false, false), (10.6, 0.0, true, false), (9.4, 0.0, false, true), (10.6, 2.0, false, false), (13.0, 2.0, true, false)]
        {
            let changes = compare(&report(10.0, spread), &report(new_ms, spread));
            assert_eq!(changes.len(), 1);
            assert_eq!((changes[0].is_slower(), changes[0].is_faster()), (slower, faster), "{changes:?}");
        }
        assert_eq!(compare(&Report::default(), &report(1.0, 0.0)), [], "what is new has nothing to be compared with");
    }
}
