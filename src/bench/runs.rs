//! A package on a phantom of our own, stage by stage, as `roentgen run` does it.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use thiserror::Error;

use super::report::{RunReport, StageReport, ms};
use super::samples::{again, median, spread_percent};
use crate::dataset::WriteError;
use crate::engine::{Analysis, Engine, EngineError, Stage, Timings};
use crate::geometry::Coded;
use crate::phantom::{self, Sampling};
use crate::results::{self, Forms, ResultsError};
use crate::series::{self, Stack};

/// Runs that are timed at most.
const MOST: usize = 50;

/// Why a run could not be measured.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RunError {
    /// No temporary folder.
    #[error("no temporary folder for the phantom: {0}")]
    Io(#[from] std::io::Error),
    /// The phantom cannot be written.
    #[error("the phantom cannot be written: {0}")]
    Write(#[from] WriteError),
    /// The package takes no chest CT.
    #[error("the package {package} does not take the phantom, an axial CT of the chest; give another with --package")]
    NotEligible {
        /// Its name.
        package: String,
    },
    /// The engine fails.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Results cannot be written.
    #[error(transparent)]
    Results(#[from] ResultsError),
}

impl Coded for RunError {
    fn code(&self) -> &'static str {
        match self {
            Self::Io(_) => "bench.io",
            Self::Write(error) => error.code(),
            Self::NotEligible { .. } => "bench.not-eligible",
            Self::Engine(error) => error.code(),
            Self::Results(error) => error.code(),
        }
    }
}

/// The phantom as a series on disk, and results beside it, in a folder that goes away with this.
#[derive(Debug)]
pub struct Runs {
    folder: TempDir,
    study: PathBuf,
    dims: [u32; 3],
    forms: Forms,
}

impl Runs {
    /// A chest of 358 x 269 x 288 mm in 96 slices, or in fewer, larger voxels where it has to be `quick`.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn new(quick: bool) -> Result<Self, RunError> {
        let small = Sampling { dims: [112, 84, 48], spacing_mm: [3.2, 3.2, 6.0], noise_hu: 15.0 };
        let sampling = if quick { small } else { Sampling::default() };
        let folder = tempfile::tempdir()?;
        let study = folder.path().join("study");
        phantom::write_series(&phantom::chest(&sampling), &study)?;
        let forms = "sr,seg".parse().expect("these are forms");
        Ok(Self { folder, study, dims: sampling.dims, forms })
    }

    fn stack(&self, engine: &Engine) -> Result<Stack, RunError> {
        let package = engine.package();
        let found = series::discover(std::slice::from_ref(&self.study));
        let parts = found.series.iter().flat_map(|one| one.parts(package.manifest.select.geometry)).collect::<Vec<_>>();
        let eligible = parts.iter().find_map(|part| package.eligible(part).ok());
        eligible.map(|one| one.stack).ok_or_else(|| RunError::NotEligible { package: package.id.name.clone() })
    }

    /// One run, results on disk in the end.
    pub(super) fn once(&self, engine: &mut Engine, on_stage: &mut dyn FnMut(Stage)) -> Result<Timings, RunError> {
        let stack = self.stack(engine)?;
        let Analysis { findings, image, mut timings } = engine.analyse(stack, &AtomicBool::new(false), on_stage)?;
        let results = self.folder.path().join("results");
        timings.time(Stage::Write, on_stage, || results::write_all(&findings, &image, &self.forms, &results))?;
        Ok(timings)
    }

    /// Repeats it for `budget`, at least four times. `open` makes the engine.
    ///
    /// # Errors
    /// Where the engine fails.
    pub fn measure(
        &self,
        open: impl FnOnce() -> Result<Engine, EngineError>,
        provider: &str,
        budget: Duration,
    ) -> Result<RunReport, RunError> {
        let started = Instant::now();
        let mut engine = open()?;
        let open_ms = ms(started.elapsed());
        let cold = self.once(&mut engine, &mut |_| {})?;
        let warm = again(budget, MOST, || self.once(&mut engine, &mut |_| {}))?;
        let stage = |(n, (stage, cold)): (usize, &(Stage, Duration))| {
            let mut times: Vec<_> = warm.iter().map(|timings| timings.0[n].1).collect();
            times.sort();
            let (median_ms, spread_percent) = (ms(median(&times)), spread_percent(&times));
            StageReport { stage: stage.to_string(), cold_ms: ms(*cold), median_ms, spread_percent }
        };
        Ok(RunReport {
            device: engine.device(),
            provider: provider.to_owned(),
            package: engine.package().id.name.clone(),
            dims: self.dims,
            open_ms,
            stages: cold.0.iter().enumerate().map(stage).collect(),
        })
    }
}
