//! What ties lines of the log together: every line of an association, a delivery or an HTTP request carries its id, every line of a job
//! its number and attempt. Spans are of level ERROR, so that they are there whatever ROENTGEN_LOG leaves out.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::engine::Stage;
use crate::store::now_ms;

/// A name that no other has in the log of this data folder: the second of the start, hexadecimal, and a number.
pub(super) fn next_id() -> String {
    static START: LazyLock<i64> = LazyLock::new(|| now_ms() / 1000);
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("{:x}-{}", *START, NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The time between two moments in ms since 1970; none where the clock was put back between them.
pub(super) fn between(from_ms: i64, to_ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(to_ms.saturating_sub(from_ms)).unwrap_or(0))
}

/// Where the time of a study went, from its last instance to the last result that a destination has taken, s.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Times {
    pub(super) quiet: f64,
    pub(super) queue: f64,
    /// In the order of [`STAGES`], over all series.
    pub(super) stages: [f64; STAGES.len()],
    /// What the job did beside its stages: headers read, series sorted, results entered.
    pub(super) rest: f64,
    pub(super) deliver: f64,
}

const STAGES: [Stage; 6] = [Stage::Load, Stage::Preprocess, Stage::Infer, Stage::Postprocess, Stage::Measure, Stage::Write];

impl Times {
    /// Of the outcome of a job, and how long its results were on their way. None where the outcome does not say.
    pub(super) fn of(outcome: &Value, deliver: Duration) -> Option<Self> {
        let waits = outcome.get("times_s")?;
        let [quiet, queue, job] = ["quiet", "queue", "job"].map(|name| waits[name].as_f64());
        let series = outcome["series"].as_array()?;
        let stages = STAGES.map(|stage| series.iter().filter_map(|one| one["stages_s"][stage.to_string()].as_f64()).sum::<f64>());
        let rest = (job? - stages.iter().sum::<f64>()).max(0.0);
        Some(Self { quiet: quiet?, queue: queue?, stages, rest, deliver: deliver.as_secs_f64() })
    }

    /// All of it.
    pub(super) fn total(&self) -> f64 {
        self.quiet + self.queue + self.stages.iter().sum::<f64>() + self.rest + self.deliver
    }

    /// One line of the log, in its span.
    pub(super) fn log(&self) {
        let ms = |seconds: f64| (seconds * 1000.0).round() / 1000.0;
        let [load_s, preprocess_s, infer_s, postprocess_s, measure_s, write_s] = self.stages.map(ms);
        let [total_s, quiet_s, queue_s, rest_s, deliver_s] = [self.total(), self.quiet, self.queue, self.rest, self.deliver].map(ms);
        tracing::info!(
            total_s,
            quiet_s,
            queue_s,
            load_s,
            preprocess_s,
            infer_s,
            postprocess_s,
            measure_s,
            write_s,
            rest_s,
            deliver_s,
            "the results of a job are at a destination"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_parts_of_a_time_make_up_the_whole() {
        let stages = json!({ "load": 1.0, "infer": 2.0 });
        let outcome = json!({ "times_s": { "quiet": 5.0, "queue": 0.5, "job": 7.0 }, "series": [{ "stages_s": stages }, { "stages_s": stages }, {}] });
        let times = Times::of(&outcome, Duration::from_millis(250)).expect("times");
        assert_eq!((times.stages, times.rest), ([2.0, 0.0, 4.0, 0.0, 0.0, 0.0], 1.0));
        assert!((times.total() - 12.75).abs() < 1e-9, "{times:?}"); // decimal fractions
        assert_eq!(Times::of(&json!({ "series": [] }), Duration::ZERO), None, "a job of an older version");
    }

    #[test]
    fn a_clock_that_was_put_back_makes_no_time() {
        assert_eq!(between(5000, 3000), Duration::ZERO);
        assert_ne!(next_id(), next_id());
    }
}
