//! The worker: claims jobs, has a lane run them, and enters what became of them. It never runs anything itself, so that a run that does not
//! end holds nobody up for ever:
//!
//! ```text
//! runs -> ended                            done, or failed
//! runs -> cancelled                        after `worker.longest_s`, or because somebody said so; it stops at the next operator of its graph
//! cancelled -> ended                       failed, and tried again where it was too long
//! cancelled -> given up                    after `worker.grace_s`: a fresh lane takes its place, and that counts as a crash
//! given up for the third time              the worker ends, and the node with it: whoever started it starts it again
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::config::Config;
use super::lane::{Engines, Failure, Lane, Made, Order};
use super::metrics::{Metrics, Step};
use super::settings::{Current, Settings};
use super::trail::between;
use crate::engine::Options;
use crate::jobs::{self, Claimed, Ended, ResultObject};
use crate::store::{AuditRecord, Store, StoreError, crash_point, now_ms};

/// How often queue and run are looked at.
const POLL: Duration = Duration::from_millis(200);
/// Lanes that are given up before the process is: each may hold a processor and the memory of a run.
const MAX_GIVEN_UP: u32 = 2;

/// What runs the jobs.
pub(super) struct Worker {
    pub(super) current: Arc<Current>,
    pub(super) store: Arc<Store>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) runtime: Handle,
    pub(super) options: Options,
    /// Told when the worker has ended and will not go on.
    pub(super) given_up: Arc<Notify>,
}

/// How a run came to its end.
enum Run {
    Ended(Result<Made, Failure>),
    /// It does not end.
    Stuck,
}

impl Worker {
    /// Runs jobs until `stopping`; the one that runs then is ended first. Begins with these packages.
    pub(super) fn run(&self, engines: Engines, stopping: &AtomicBool) {
        let (mut lane, mut stuck) = (self.lane(engines), 0);
        let mut seen: Option<Arc<Settings>> = None;
        let mut used = false; // memory, by a job since it was given back
        while !stopping.load(Ordering::SeqCst) {
            let settings = self.current.get();
            let Some(open) = &lane else {
                std::thread::sleep(POLL);
                lane = self.lane(Engines::new()); // it loads what a job needs
                continue;
            };
            let job = match self.runtime.block_on(jobs::claim(self.store.pool())) {
                Ok(Some(job)) => job,
                Ok(None) => {
                    if std::mem::take(&mut used) {
                        give_back();
                    }
                    std::thread::sleep(POLL);
                    continue;
                }
                Err(error) => {
                    tracing::error!(%error, "the queue cannot be read, trying again");
                    std::thread::sleep(Duration::from_secs(1));
                    continue;
                }
            };
            used = true;
            let is_new = seen.as_ref().is_none_or(|seen| !Arc::ptr_eq(seen, &settings));
            let engines = if is_new { self.current.take_engines() } else { Engines::new() };
            seen = Some(Arc::clone(&settings));
            if let Run::Stuck = self.job(open, job, &settings, engines, stopping) {
                stuck += 1;
                lane = None;
                if stuck > MAX_GIVEN_UP {
                    tracing::error!(stuck, "runs do not end, and each holds a lane: the node stops, start it again");
                    self.given_up.notify_one();
                    return;
                }
            }
        }
    }

    fn lane(&self, engines: Engines) -> Option<Lane> {
        let lane = Lane::start(engines, self.options.clone(), Arc::clone(&self.store), Arc::clone(&self.metrics), self.runtime.clone());
        lane.inspect_err(|error| tracing::error!(%error, "a lane cannot be started, trying again")).ok()
    }

    fn job(&self, lane: &Lane, job: Claimed, settings: &Arc<Settings>, engines: Engines, stopping: &AtomicBool) -> Run {
        let started = Instant::now();
        let _span = tracing::error_span!("job", job = job.id, attempt = job.attempt, study = job.study_uid).entered();
        let (quiet, queue) = (between(job.last_instance_ms, job.queued_ms), between(job.queued_ms, now_ms()));
        if job.attempt == 1 {
            self.metrics.took(Step::Quiet, quiet);
            self.metrics.took(Step::Queue, queue);
        }
        tracing::info!(package = job.package, quiet_s = quiet.as_secs_f64(), queue_s = queue.as_secs_f64(), "a job begins");
        let run = self.watch(lane, &job, settings, engines);
        match &run {
            Run::Ended(Ok((outcome, results))) => {
                let mut outcome = outcome.clone();
                let times = [quiet, queue, started.elapsed()].map(|time| time.as_secs_f64());
                outcome["times_s"] = json!({ "quiet": times[0], "queue": times[1], "job": times[2] });
                let goes_to = |result: &ResultObject| destinations(settings, &job, &result.form);
                let finished = self.runtime.block_on(jobs::finish(self.store.pool(), &job, &outcome, results, goes_to));
                match finished {
                    Ok(Ended::TooLate) => {
                        tracing::warn!("an attempt ended too late: it was cancelled")
                    }
                    Ok(_) => {
                        crash_point("after-finish");
                        self.metrics.jobs_done.add(1);
                        self.metrics.took(Step::Job, started.elapsed());
                        tracing::info!(objects = results.len(), seconds = started.elapsed().as_secs_f64(), "a job is done");
                        let detail = format!("job {}, attempt {}: {} objects by {}", job.id, job.attempt, results.len(), job.package);
                        self.store.audit(AuditRecord::job(0, &job.study_uid, detail));
                    }
                    Err(error) => self.failed(&job, settings, &error.into(), stopping),
                }
            }
            Run::Ended(Err(failure)) => self.failed(&job, settings, failure, stopping),
            Run::Stuck => {
                let failure = Failure::new("worker.stuck", "the run did not end when it was told to: its lane was given up", true);
                let enter = || self.runtime.block_on(jobs::crash(self.store.pool(), &job, &failure.outcome));
                self.enter(&job, "worker.stuck", stopping, enter);
            }
        }
        run
    }

    /// Hands the job to the lane and waits, as long as it may take.
    fn watch(&self, lane: &Lane, job: &Claimed, settings: &Arc<Settings>, engines: Engines) -> Run {
        let (started, cancel) = (Instant::now(), Arc::new(AtomicBool::new(false)));
        let (cancelled_by, span) = (Arc::clone(&cancel), tracing::Span::current());
        let order = Order { job: job.clone(), settings: Arc::clone(settings), engines, cancel: cancelled_by, span };
        if lane.orders.send(order).is_err() {
            return Run::Stuck;
        }
        let longest = (settings.worker.longest_s > 0).then(|| Duration::from_secs(settings.worker.longest_s));
        let mut cancelled: Option<(Instant, bool)> = None;
        loop {
            match lane.answers.recv_timeout(POLL) {
                Ok(Err(failure)) if failure.cancelled && cancelled.is_some_and(|(_, too_long)| too_long) => {
                    let seconds = settings.worker.longest_s;
                    let error = format!("the run took longer than {seconds} s and was stopped: raise `worker.longest_s` if it may");
                    return Run::Ended(Err(Failure::new("worker.too-long", &error, true)));
                }
                Ok(ended) => return Run::Ended(ended),
                // Its thread has ended without an answer.
                Err(RecvTimeoutError::Disconnected) => return Run::Stuck,
                Err(RecvTimeoutError::Timeout) => {}
            }
            let too_long = longest.is_some_and(|longest| started.elapsed() > longest);
            match cancelled {
                Some((at, _)) if at.elapsed() > Duration::from_secs(settings.worker.grace_s) => return Run::Stuck,
                Some(_) => {}
                // What the database cannot say is asked again.
                None if too_long || !self.runtime.block_on(jobs::is_running(self.store.pool(), job)).unwrap_or(true) => {
                    tracing::warn!(too_long, "a run is told to stop");
                    cancel.store(true, Ordering::Relaxed);
                    cancelled = Some((Instant::now(), too_long));
                }
                None => {}
            }
        }
    }

    fn failed(&self, job: &Claimed, settings: &Config, failure: &Failure, stopping: &AtomicBool) {
        let code = failure.outcome["code"].as_str().unwrap_or_default();
        let attempts = settings.worker.attempts;
        let enter = || self.runtime.block_on(jobs::fail(self.store.pool(), job, &failure.outcome, failure.may_pass, attempts));
        self.enter(job, code, stopping, enter);
    }

    /// Enters a failure, as often as it takes, and tells of it: a disk that is full now has room again one day. A job of which it is not
    /// entered stays in the state `running`, and is taken up at the next start.
    fn enter(&self, job: &Claimed, code: &str, stopping: &AtomicBool, enter: impl Fn() -> Result<Ended, StoreError>) {
        let ended = loop {
            match enter() {
                Ok(ended) => break ended,
                Err(error) => tracing::error!(%error, "a failure cannot be entered, trying again"),
            }
            if stopping.load(Ordering::SeqCst) {
                return;
            }
            std::thread::sleep(Duration::from_secs(1));
        };
        match ended {
            Ended::TooLate => tracing::info!("a job was cancelled, its run has ended"),
            ended => {
                let again = ended == Ended::Again;
                tracing::warn!(code, again, "a job failed");
                if !again {
                    self.metrics.jobs_failed.add(1);
                    let detail = format!("job {}, attempt {}: failed ({code})", job.id, job.attempt);
                    self.store.audit(AuditRecord::job(8, &job.study_uid, detail));
                }
            }
        }
    }
}

/// Gives back what jobs have freed: glibc keeps it, in a heap for each thread.
fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it takes no pointer, and locks the heaps itself.
    #[allow(unsafe_code, reason = "no other way to tell glibc")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Where a result of that form goes: where its package says, and the rules that held of the study, and that take such.
fn destinations(config: &Config, job: &Claimed, form: &str) -> Vec<String> {
    let package = config.package.iter().filter(|package| package.name == job.package).flat_map(|package| &package.deliver);
    let of_rules = config.rule.iter().filter(|rule| job.rules.contains(&rule.name)).flat_map(|rule| &rule.deliver);
    let named: Vec<&String> = package.chain(of_rules).collect();
    let takes = |name: &str| config.destination.iter().any(|one| one.name == name && one.takes(form));
    let mut names: Vec<String> = named.into_iter().filter(|name| takes(name)).cloned().collect();
    names.sort();
    names.dedup();
    names
}
