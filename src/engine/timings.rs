//! Where the time of an analysis went.

use std::fmt;
use std::time::{Duration, Instant};

use serde::Serialize;

/// The stages of an analysis, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Instances read, hashed and decoded.
    Load,
    /// Stored values to the network's input.
    Preprocess,
    /// The network.
    Infer,
    /// Class scores to the label map.
    Postprocess,
    /// Numbers from the label map.
    Measure,
    /// Result objects on disk.
    Write,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Load => "load",
            Self::Preprocess => "preprocess",
            Self::Infer => "infer",
            Self::Postprocess => "postprocess",
            Self::Measure => "measure",
            Self::Write => "write",
        };
        f.pad(name)
    }
}

/// Wall time of each stage that ran, in order.
#[derive(Debug, Clone, Default)]
pub struct Timings(pub Vec<(Stage, Duration)>);

impl Timings {
    /// Announces `stage`, runs `work` and notes how long it took.
    pub fn time<T>(&mut self, stage: Stage, on_stage: &mut dyn FnMut(Stage), work: impl FnOnce() -> T) -> T {
        on_stage(stage);
        let start = Instant::now();
        let result = work();
        self.0.push((stage, start.elapsed()));
        result
    }

    /// All stages together.
    pub fn total(&self) -> Duration {
        self.0.iter().map(|(_, time)| *time).sum()
    }
}
