//! Where the time of an analysis went.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::infer::memory;

/// The stages of an analysis, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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
    /// Laid beside an earlier study of the patient.
    FollowUp,
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
            Self::FollowUp => "follow-up",
            Self::Write => "write",
        };
        f.pad(name)
    }
}

/// Wall time of each stage that ran, in order; as data, seconds by the stage's name.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(from = "BTreeMap<Stage, f64>", into = "BTreeMap<Stage, f64>")]
pub struct Timings(pub Vec<(Stage, Duration)>);

impl From<BTreeMap<Stage, f64>> for Timings {
    /// Times that are none become zero.
    fn from(seconds: BTreeMap<Stage, f64>) -> Self {
        Self(seconds.into_iter().map(|(stage, s)| (stage, Duration::try_from_secs_f64(s).unwrap_or_default())).collect())
    }
}

impl From<Timings> for BTreeMap<Stage, f64> {
    fn from(timings: Timings) -> Self {
        timings.0.into_iter().map(|(stage, time)| (stage, time.as_secs_f64())).collect()
    }
}

impl Timings {
    /// Announces `stage`, runs `work` and notes how long it took, with what it took before.
    pub fn time<T>(&mut self, stage: Stage, on_stage: &mut dyn FnMut(Stage), work: impl FnOnce() -> T) -> T {
        on_stage(stage);
        let start = Instant::now();
        let result = work();
        let took = start.elapsed();
        match self.0.iter_mut().find(|(known, _)| *known == stage) {
            Some((_, time)) => *time += took,
            None => self.0.push((stage, took)),
        }
        result
    }

    /// All stages together.
    pub fn total(&self) -> Duration {
        self.0.iter().map(|(_, time)| *time).sum()
    }
}

/// The most memory that this process has held so far, MB; none where the system does not say.
pub fn peak_memory_mb() -> Option<f64> {
    memory::peak_bytes().map(|bytes| bytes as f64 / 1e6)
}
