//! Running packages on complete studies: one job at a time, engines stay loaded.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::runtime::Handle;

use super::NodeError;
use super::config::PackageConfig;
use super::metrics::Metrics;
use super::settings::{Current, Settings};
use crate::dataset::{DataSetFile, DatasetError, Instance};
use crate::engine::{Analysis, Engine, EngineError, Options, Stage};
use crate::findings::Priors;
use crate::geometry::Coded;
use crate::jobs::{self, Claimed, Ended, ResultObject};
use crate::model::{Check, Eligible, Ineligible, PackageFolders};
use crate::results::{Form, ResultsError, write_all};
use crate::series::{Part, discover};
use crate::store::{AuditRecord, Store, StoreError, crash_point};

/// How often the queue is looked at, where nothing says that something is in it.
const POLL: Duration = Duration::from_millis(200);

/// What runs the jobs.
pub(super) struct Worker {
    current: Arc<Current>,
    /// Those of the job that runs.
    settings: Arc<Settings>,
    store: Arc<Store>,
    metrics: Arc<Metrics>,
    runtime: Handle,
    options: Options,
    /// Loaded packages, by their name in the configuration.
    engines: HashMap<String, Engine>,
}

/// Loads these packages; the first that is wrong is told.
pub(super) fn load(packages: &[&PackageConfig], options: &Options) -> Result<HashMap<String, Engine>, NodeError> {
    let mut engines = HashMap::new();
    for package in packages {
        let name = || package.name.clone();
        let found = PackageFolders::standard().find(&package.name).map_err(|source| NodeError::Package { name: name(), source })?;
        let options = Options { maps: package.results.0.contains(Form::Map), ..options.clone() };
        let engine = Engine::new(found, &options).map_err(|source| NodeError::Engine { name: name(), source: Box::new(source) })?;
        let (version, device) = (engine.package().id.version_string(), engine.device());
        tracing::info!(package = package.name, version, device, "a package is loaded");
        engines.insert(name(), engine);
    }
    Ok(engines)
}

/// Why a job has no results.
struct Failure {
    outcome: Value,
    may_pass: bool,
}

impl Failure {
    fn of(error: &impl Coded, may_pass: bool) -> Self {
        Self { outcome: json!({ "error": error.to_string(), "code": error.code() }), may_pass }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::of(&error, true)
    }
}

impl Worker {
    /// With these packages, and what they were loaded with.
    pub(super) fn new(
        current: Arc<Current>,
        (engines, options): (HashMap<String, Engine>, Options),
        store: Arc<Store>,
        metrics: Arc<Metrics>,
        runtime: Handle,
    ) -> Self {
        Self { settings: current.get(), current, store, metrics, runtime, options, engines }
    }

    /// Runs jobs until `stopping`; the one that runs then is ended first.
    pub(super) fn run(&mut self, stopping: &AtomicBool) {
        while !stopping.load(Ordering::SeqCst) {
            self.take_settings();
            match self.runtime.block_on(jobs::claim(self.store.pool())) {
                Ok(Some(job)) => self.job(&job),
                Ok(None) => std::thread::sleep(POLL),
                Err(error) => {
                    tracing::error!(%error, "the queue cannot be read, trying again");
                    std::thread::sleep(Duration::from_secs(1));
                }
            }
        }
    }

    /// Goes by new settings, where there are some: with the packages that were loaded for them, without those that they have no more.
    fn take_settings(&mut self) {
        let settings = self.current.get();
        if !Arc::ptr_eq(&settings, &self.settings) {
            self.engines.extend(self.current.take_engines());
            self.engines.retain(|name, _| settings.package.iter().any(|package| package.name == *name));
            self.settings = settings;
        }
    }

    fn job(&mut self, job: &Claimed) {
        let started = Instant::now();
        tracing::info!(job = job.id, study = job.study_uid, package = job.package, attempt = job.attempt, "a job begins");
        let Some(package) = self.settings.package.iter().find(|p| p.name == job.package).cloned() else {
            let outcome = json!({ "error": "the configuration names this package no more" });
            return self.failed(job, &Failure { outcome, may_pass: false });
        };
        crash_point("job-running");
        let caught = catch_unwind(AssertUnwindSafe(|| self.results(job, &package)));
        match caught.unwrap_or_else(|_| Err(self.panicked(&package))) {
            Ok((outcome, results)) => {
                let finished = self.runtime.block_on(jobs::finish(self.store.pool(), job, &outcome, &results, &package.deliver));
                match finished {
                    Ok(Ended::TooLate) => {
                        tracing::warn!(job = job.id, attempt = job.attempt, "an attempt ended too late, another has begun")
                    }
                    Ok(_) => {
                        crash_point("after-finish");
                        self.metrics.jobs_done.add(1);
                        let seconds = started.elapsed().as_secs_f64();
                        tracing::info!(job = job.id, objects = results.len(), seconds, "a job is done");
                        let detail = format!("job {}, attempt {}: {} objects by {}", job.id, job.attempt, results.len(), job.package);
                        self.store.audit(AuditRecord::job(0, &job.study_uid, detail));
                    }
                    Err(error) => self.failed(job, &error.into()),
                }
            }
            Err(failure) => self.failed(job, &failure),
        }
    }

    /// A broken promise in the engine ends this attempt, not the node. The engine is loaded again: nobody knows in what state it is.
    fn panicked(&mut self, package: &PackageConfig) -> Failure {
        match load(&[package], &self.options) {
            Ok(engines) => self.engines.extend(engines),
            Err(error) => tracing::error!(package = package.name, %error, "a package cannot be loaded again"),
        }
        Failure { outcome: json!({ "error": "the engine panicked, the log says where", "code": "node.panic" }), may_pass: true }
    }

    fn failed(&self, job: &Claimed, failure: &Failure) {
        let code = failure.outcome["code"].as_str().unwrap_or_default().to_owned();
        let attempts = self.settings.worker.attempts;
        match self.runtime.block_on(jobs::fail(self.store.pool(), job, &failure.outcome, failure.may_pass, attempts)) {
            Ok(ended) => {
                let again = ended == Ended::Again;
                tracing::warn!(job = job.id, attempt = job.attempt, code, again, "a job failed");
                if !again {
                    self.metrics.jobs_failed.add(1);
                    let detail = format!("job {}, attempt {}: failed ({code})", job.id, job.attempt);
                    self.store.audit(AuditRecord::job(8, &job.study_uid, detail));
                }
            }
            // It stays in the state `running` and is taken up at the next start.
            Err(error) => tracing::error!(job = job.id, %error, "a failure cannot be entered"),
        }
    }

    /// Analyses what the package takes of the study, and writes the results. What it does not take is no failure.
    fn results(&mut self, job: &Claimed, package: &PackageConfig) -> Result<(Value, Vec<ResultObject>), Failure> {
        let (files, earlier, cut_off, around) = self.runtime.block_on(async {
            let cut_off = jobs::is_cut_off(self.store.pool(), &job.study_uid).await?; // before the files: it may be true of fewer than there are
            let files = self.store.files_of_study(&job.study_uid).await?;
            let missing = jobs::missing(self.store.pool(), &job.study_uid, job.generation).await?;
            let around = Around { priors: jobs::priors(self.store.pool(), job.id).await?, missing };
            Ok::<_, StoreError>((files, jobs::earlier_reports(self.store.pool(), job).await?, cut_off, around))
        })?;
        let found = discover(&files);
        let engine = self.engines.get_mut(&job.package).expect("every package of the configuration is loaded");
        let parts: Vec<Part<'_>> = found.series.iter().flat_map(|one| one.parts(engine.package().manifest.select.geometry)).collect();
        let answers = engine.package().take(parts.iter().map(|part| engine.package().eligible(part)).collect());
        let below = PathBuf::from("results").join(job.id.to_string());
        // What an attempt left that came to no end; nobody knows of it.
        match std::fs::remove_dir_all(self.store.folder().join(&below)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(StoreError::from(error).into()),
            _ => {}
        }
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
                    verdict["selected_because"] = eligible.checks.iter().map(Check::short).collect();
                    let written = analyse(engine, eligible, &earlier, cut_off, &around, package, &self.store.folder().join(&folder))?;
                    crash_point("series-written");
                    verdict["outcome"] = "done".into();
                    verdict["stages_s"] = written.stages;
                    for (form, path) in written.files {
                        objects.extend(result_object(form, &path, self.store.folder()).map_err(|error| Failure::of(&error, true))?);
                    }
                }
            }
            verdicts.push(verdict);
        }
        let left_out: Vec<Value> = found.skipped.iter().map(|s| json!({ "code": s.error.code() })).collect();
        Ok((
            json!({ "series": verdicts, "unreadable": left_out, "cut_off": cut_off, "missing": around.missing,
            "priors": { "instances": around.priors.instances.len(), "lacking": around.priors.lacking } }),
            objects,
        ))
    }
}

/// What is known of a study beside its own instances.
struct Around {
    priors: Priors,
    /// By which evidence instances are missing.
    missing: Option<String>,
}

/// What was written of one series.
struct Written {
    files: Vec<(Form, PathBuf)>,
    stages: Value,
}

fn analyse(
    engine: &mut Engine,
    eligible: Eligible,
    earlier: &[crate::findings::Predecessor],
    cut_off: bool,
    around: &Around,
    package: &PackageConfig,
    folder: &Path,
) -> Result<Written, Failure> {
    let cancel = AtomicBool::new(false);
    let analysis = engine.analyse(eligible.stack, &cancel, &mut |_| {});
    let Analysis { mut findings, image, mut timings } = analysis.map_err(|error| Failure::of(&error, may_pass(&error)))?;
    findings.predecessors = earlier.to_vec();
    if cut_off {
        findings.warnings.push("the association that brought the last of the study was cut off: instances may be missing".into());
    }
    if let Some(reason) = &around.missing {
        findings.warnings.push(format!("instances of the study are missing: {reason}"));
    }
    if let Some(why) = &around.priors.lacking {
        findings.warnings.push(format!("earlier studies were asked for and are not all here: {why}"));
    }
    findings.priors = around.priors.clone();
    let written = timings.time(Stage::Write, &mut |_| {}, || write_all(&findings, &image, &package.results.0, folder));
    let written = written.map_err(|error| Failure::of(&error, matches!(error, ResultsError::Write(_))))?;
    let stages = timings.0.iter().map(|(stage, time)| (stage.to_string(), Value::from(time.as_secs_f64()))).collect();
    Ok(Written { files: written.files, stages: Value::Object(stages) })
}

/// Whether the same may succeed later: what depends on this machine, not on study and package.
fn may_pass(error: &EngineError) -> bool {
    matches!(error, EngineError::Device(_) | EngineError::Infer(_) | EngineError::Postprocess(_))
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
