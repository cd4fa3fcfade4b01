//! A lane: a thread with loaded packages that runs one job at a time. It can be given up when a run does not end: nothing that runs there
//! can enter anything, only hand it back.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use serde_json::{Value, json};
use tokio::runtime::Handle;

use super::NodeError;
use super::config::{DeviceLoss, PackageConfig};
use super::metrics::Metrics;
use super::settings::Settings;
use crate::dataset::{DataSetFile, DatasetError, Instance};
use crate::engine::{Analysis, Engine, EngineError, Options, Stage, Timings};
use crate::findings::{Predecessor, Priors};
use crate::geometry::Coded;
use crate::gpu::{DeviceChoice, GpuError};
use crate::infer::InferError;
use crate::jobs::{self, Claimed, ResultObject};
use crate::model::{Check, Eligible, Ineligible, PackageFolders};
use crate::results::{Form, ResultsError, write_all};
use crate::series::{Part, discover};
use crate::store::{Store, StoreError, crash_point, loses_device};

/// Loaded packages, by their name in the configuration.
pub(super) type Engines = HashMap<String, Engine>;

/// Loads these packages; the first that is wrong is told.
pub(super) fn load(packages: &[&PackageConfig], options: &Options) -> Result<Engines, NodeError> {
    packages.iter().map(|package| Ok((package.name.clone(), load_one(package, options)?))).collect()
}

fn load_one(package: &PackageConfig, options: &Options) -> Result<Engine, NodeError> {
    let name = || package.name.clone();
    let found = PackageFolders::standard().find(&package.name).map_err(|source| NodeError::Package { name: name(), source })?;
    let options = Options { maps: package.results.0.contains(Form::Map), ..options.clone() };
    let engine = Engine::new(found, &options).map_err(|source| NodeError::Engine { name: name(), source: Box::new(source) })?;
    let (version, device) = (engine.package().id.version_string(), engine.device());
    tracing::info!(package = package.name, version, device, "a package is loaded");
    Ok(engine)
}

/// What a job has made.
pub(super) type Made = (Value, Vec<ResultObject>);

/// Why a job has no results.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) outcome: Value,
    pub(super) may_pass: bool,
    /// The run heard that it is to stop.
    pub(super) cancelled: bool,
    device_loss: bool,
}

impl Failure {
    pub(super) fn of(error: &(impl Coded + ?Sized), may_pass: bool) -> Self {
        Self { outcome: json!({ "error": error.to_string(), "code": error.code() }), may_pass, cancelled: false, device_loss: false }
    }

    pub(super) fn new(code: &str, error: &str, may_pass: bool) -> Self {
        Self { outcome: json!({ "error": error, "code": code }), may_pass, cancelled: false, device_loss: false }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::of(&error, true)
    }
}

impl From<NodeError> for Failure {
    /// A package that was loaded before, and is not now: somebody works on its folder, or the device has gone.
    fn from(error: NodeError) -> Self {
        let device_loss = matches!(&error, NodeError::Engine { source, .. } if source.device_loss().is_some());
        Self { device_loss, ..Self::of(&error, true) }
    }
}

impl From<EngineError> for Failure {
    /// What depends on this machine, not on study and package, may succeed later.
    fn from(error: EngineError) -> Self {
        let may_pass = matches!(error, EngineError::Device(_) | EngineError::Infer(_) | EngineError::Postprocess(_));
        let device_loss = error.device_loss().is_some();
        let cancelled = matches!(error, EngineError::Infer(InferError::Cancelled));
        Self { device_loss, cancelled, ..Self::of(&error, may_pass || device_loss) }
    }
}

/// A job, and what it goes by.
pub(super) struct Order {
    pub(super) job: Claimed,
    pub(super) settings: Arc<Settings>,
    /// Packages that were loaded for these settings.
    pub(super) engines: Engines,
    /// Set when the run is to stop.
    pub(super) cancel: Arc<AtomicBool>,
    /// What its lines of the log belong to.
    pub(super) span: tracing::Span,
}

/// A lane as the worker sees it. Dropped, it ends with the run that it is at, if that ends.
pub(super) struct Lane {
    pub(super) orders: SyncSender<Order>,
    pub(super) answers: Receiver<Result<Made, Failure>>,
}

impl Lane {
    /// Starts one with these packages.
    pub(super) fn start(engines: Engines, options: Options, store: Arc<Store>, metrics: Arc<Metrics>, runtime: Handle) -> io::Result<Self> {
        let (orders, taken) = sync_channel::<Order>(1);
        let (given, answers) = sync_channel(1);
        let mut track = Track { engines, options, store, metrics, runtime };
        thread::Builder::new().name("lane".into()).spawn(move || {
            while let Ok(order) = taken.recv() {
                if given.send(track.run(order)).is_err() {
                    return; // it was given up
                }
            }
        })?;
        Ok(Self { orders, answers })
    }
}

/// What the thread works with.
struct Track {
    engines: Engines,
    options: Options,
    store: Arc<Store>,
    metrics: Arc<Metrics>,
    runtime: Handle,
}

impl Track {
    fn run(&mut self, Order { job, settings, engines, cancel, span }: Order) -> Result<Made, Failure> {
        let _span = span.entered();
        self.engines.extend(engines);
        self.engines.retain(|name, _| settings.package.iter().any(|package| package.name == *name));
        let Some(package) = settings.package.iter().find(|package| package.name == job.package) else {
            return Err(Failure::new("node.no-package", "the configuration names this package no more", false));
        };
        crash_point("job-running");
        let caught = catch_unwind(AssertUnwindSafe(|| self.by_policy(&job, package, settings.worker.on_device_loss, &cancel)));
        caught.unwrap_or_else(|_| {
            // A broken promise in the engine ends this attempt, not the node. Nobody knows in what state the engine is.
            self.engines.remove(&job.package);
            Err(Failure::new("node.panic", "the engine panicked, the log says where", true))
        })
    }

    /// Runs the job on the device, and where that is lost, does what the configuration says.
    fn by_policy(&mut self, job: &Claimed, package: &PackageConfig, policy: DeviceLoss, cancel: &AtomicBool) -> Result<Made, Failure> {
        let loss = match self.on_device(job, package, cancel) {
            Err(failure) if failure.device_loss => failure,
            ended => return ended,
        };
        tracing::error!(code = loss.outcome["code"].as_str(), policy = %policy, "the device is lost");
        match policy {
            DeviceLoss::Retry => Err(loss),
            DeviceLoss::Fail => Err(Failure { may_pass: false, ..loss }),
            DeviceLoss::Cpu => {
                let options = Options { device: DeviceChoice::Cpu, ..self.options.clone() };
                let mut engine = load_one(package, &options)?;
                let (mut outcome, objects) = self.results(&mut engine, job, package, cancel)?;
                outcome["device_loss"] = loss.outcome;
                Ok((outcome, objects))
            }
        }
    }

    /// Loads the package where it is not, or was lost with its device.
    fn on_device(&mut self, job: &Claimed, package: &PackageConfig, cancel: &AtomicBool) -> Result<Made, Failure> {
        let mut engine = match self.engines.remove(&package.name) {
            Some(engine) => engine,
            None => load_one(package, &self.options)?,
        };
        let ended = if loses_device("device") {
            let lost = GpuError::Lost { during: "a run".into(), reason: "a test said so".into() };
            Err(EngineError::Device(lost).into())
        } else {
            self.results(&mut engine, job, package, cancel)
        };
        if !matches!(&ended, Err(failure) if failure.device_loss) {
            self.engines.insert(package.name.clone(), engine);
        }
        ended
    }

    /// Analyses what the package takes of the study, and writes the results. What it does not take is no failure.
    fn results(&self, engine: &mut Engine, job: &Claimed, package: &PackageConfig, cancel: &AtomicBool) -> Result<Made, Failure> {
        let (files, earlier, cut_off, missing, priors) = self.runtime.block_on(async {
            let cut_off = jobs::is_cut_off(self.store.pool(), &job.study_uid).await?; // before the files: it may be true of fewer than there are
            let files = self.store.files_of_study(&job.study_uid).await?;
            let missing = jobs::missing(self.store.pool(), &job.study_uid, job.generation).await?;
            let priors = jobs::priors(self.store.pool(), job.id).await?;
            Ok::<_, StoreError>((files, jobs::earlier_reports(self.store.pool(), job).await?, cut_off, missing, priors))
        })?;
        let found = discover(&files);
        let parts: Vec<Part<'_>> = found.series.iter().flat_map(|one| one.parts(engine.package().manifest.select.geometry)).collect();
        let answers = engine.package().take(&parts, parts.iter().map(|part| engine.package().eligible(part)).collect());
        let below = PathBuf::from("results").join(job.id.to_string());
        // What an attempt left that came to no end; nobody knows of it.
        match std::fs::remove_dir_all(self.store.folder().join(&below)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(StoreError::from(error).into()),
            _ => {}
        }
        let warnings = warnings(cut_off, missing.as_deref(), priors.lacking.as_deref());
        let (mut verdicts, mut objects) = (Vec::new(), Vec::new());
        for (part, answer) in parts.iter().zip(answers) {
            let series_uid = &part.series.series_uid;
            let mut verdict =
                json!({ "series_instance_uid": series_uid, "part": part.number, "of": part.of, "instances": part.instances().len() });
            match answer {
                Err(reasons) => {
                    let refused = reasons.iter().all(Ineligible::is_refusal);
                    verdict["outcome"] = if refused { "refused" } else { "not-eligible" }.into();
                    verdict["reasons"] =
                        reasons.iter().map(|r| json!({ "code": r.code(), "message": found.shown_in(&r.to_string()) })).collect();
                }
                Ok(eligible) => {
                    let suffix = if part.of > 1 { format!(".part{}", part.number) } else { String::new() };
                    let folder = below.join(format!("{series_uid}{suffix}"));
                    let others = eligible.others.iter().map(|other| other.why.clone());
                    verdict["selected_because"] = eligible.checks.iter().map(Check::short).chain(others).collect();
                    let context = Context {
                        earlier: &earlier,
                        priors: &priors,
                        warnings: &warnings,
                        package,
                        folder: &self.store.folder().join(&folder),
                        cancel,
                    };
                    let written = analyse(engine, eligible, &context)?;
                    crash_point("series-written");
                    verdict["outcome"] = "done".into();
                    verdict["device"] = engine.device().into();
                    self.metrics.analysed(&job.package, &engine.device(), &written.timings);
                    verdict["stages_s"] =
                        written.timings.0.iter().map(|(stage, time)| (stage.to_string(), Value::from(time.as_secs_f64()))).collect();
                    for (form, path) in written.files {
                        objects.extend(result_object(form, &path, self.store.folder()).map_err(|error| Failure::of(&error, true))?);
                    }
                }
            }
            verdicts.push(verdict);
        }
        let left_out: Vec<Value> = found.skipped.iter().map(|s| json!({ "code": s.error.code() })).collect();
        let priors = json!({ "instances": priors.instances.len(), "lacking": priors.lacking });
        Ok((json!({ "series": verdicts, "unreadable": left_out, "cut_off": cut_off, "missing": missing, "priors": priors }), objects))
    }
}

/// What all series of a job share.
struct Context<'a> {
    /// Reports that the new ones replace.
    earlier: &'a [Predecessor],
    /// Earlier studies that they refer to.
    priors: &'a Priors,
    /// What every result is to say of the study.
    warnings: &'a [String],
    package: &'a PackageConfig,
    folder: &'a Path,
    cancel: &'a AtomicBool,
}

/// What may be missing of a study, and of the earlier ones that were asked for.
fn warnings(cut_off: bool, missing: Option<&str>, lacking: Option<&str>) -> Vec<String> {
    let cut_off = cut_off.then(|| "the association that brought the last of the study was cut off: instances may be missing".to_owned());
    let missing = missing.map(|reason| format!("instances of the study are missing: {reason}"));
    let lacking = lacking.map(|why| format!("earlier studies were asked for and are not all here: {why}"));
    [cut_off, missing, lacking].into_iter().flatten().collect()
}

/// What was written of one series.
struct Written {
    files: Vec<(Form, PathBuf)>,
    timings: Timings,
}

fn analyse(engine: &mut Engine, eligible: Eligible, context: &Context<'_>) -> Result<Written, Failure> {
    let Analysis { mut findings, image, mut timings } = engine.analyse(eligible, context.cancel, &mut |_| {})?;
    findings.predecessors = context.earlier.to_vec();
    findings.priors = context.priors.clone();
    findings.warnings.extend_from_slice(context.warnings);
    // Somebody else may write in this folder once this run was given up.
    if context.cancel.load(Ordering::Relaxed) {
        return Err(EngineError::Infer(InferError::Cancelled).into());
    }
    let write = || write_all(&findings, &image, &context.package.results.0, context.folder);
    let written = timings.time(Stage::Write, &mut |_| {}, write);
    let written = written.map_err(|error| Failure::of(&error, matches!(error, ResultsError::Write(_))))?;
    Ok(Written { files: written.files, timings })
}

/// A DICOM file as an object to be delivered; none for the others.
fn result_object(form: Form, path: &Path, folder: &Path) -> Result<Option<ResultObject>, DatasetError> {
    if path.extension().is_none_or(|extension| extension != "dcm") {
        return Ok(None);
    }
    let file = DataSetFile::open(path)?;
    let instance = Instance::read(path)?;
    Ok(Some(ResultObject {
        sop_instance_uid: file.sop_instance_uid,
        sop_class_uid: file.sop_class_uid,
        transfer_syntax_uid: file.transfer_syntax_uid,
        series_uid: instance.series_uid,
        form: form.name().to_owned(),
        path: path.strip_prefix(folder).expect("results lie below the store's folder").to_owned(),
    }))
}
