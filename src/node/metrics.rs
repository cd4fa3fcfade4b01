//! Counts and times for monitoring, in the Prometheus text format (version 0.0.4). No label holds anything of a patient or a study.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::codes::Uid;
use crate::dimse::Status;
use crate::engine::Timings;
use crate::infer::memory;

/// Upper bounds of the buckets of every time, seconds.
const BOUNDS_S: [f64; 16] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0, 600.0];
/// Requests for commitment whose answers are timed; what is asked beyond them is not.
const MAX_ASKED: usize = 4096;

/// A number that grows.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How often something took how long.
#[derive(Debug, Default)]
struct Histogram {
    /// One a bound, and one for what took longer.
    buckets: [Counter; BOUNDS_S.len() + 1],
    sum_us: Counter,
}

impl Histogram {
    fn add(&self, time: Duration) {
        let bucket = BOUNDS_S.partition_point(|&bound| bound < time.as_secs_f64());
        self.buckets[bucket].add(1);
        self.sum_us.add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }
}

/// What an instance, a job or a result goes through, beside the stages of an analysis.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    /// An instance: its data set comes in.
    Receive,
    /// An instance: it is checked, sealed and synced.
    Seal,
    /// A job: from the last instance to the completion of its study.
    Quiet,
    /// A job: in the queue.
    Queue,
    /// A job: it runs.
    Job,
    /// A result: C-STORE and its answer.
    Deliver,
    /// Results of a job: from the request for storage commitment to the answer.
    Commit,
    /// Results of a job: from the last instance to the last result that a destination has taken.
    Turnaround,
    /// An HTTP request, to the head of its answer.
    Http,
}

/// In the order of [`Step`].
const STEPS: [&str; 9] = ["receive", "seal", "quiet", "queue", "job", "deliver", "commit", "turnaround", "http"];

/// What a stage of analyses is told apart by: package, device, stage.
type Analysed = (String, String, String);

/// What the node counts since it started.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    /// Associations that were accepted.
    pub(super) associations: Counter,
    /// Associations that were rejected.
    pub(super) rejected: Counter,
    /// Bytes of data sets.
    pub(super) received_bytes: Counter,
    /// Instances that were taken, taken with a warning, refused.
    instances: [Counter; 3],
    /// Jobs that ended well, and not.
    pub(super) jobs_done: Counter,
    /// Jobs that are dead or in quarantine.
    pub(super) jobs_failed: Counter,
    /// Instances that a destination has taken.
    pub(super) delivered: Counter,
    /// Bytes of their data sets.
    pub(super) delivered_bytes: Counter,
    /// Instances that a destination has taken responsibility for.
    pub(super) committed: Counter,
    /// Searches for earlier studies that came to no good end.
    pub(super) searches_failed: Counter,
    /// Attempts at delivery that failed.
    pub(super) delivery_failures: Counter,
    /// HTTP answers by the hundreds of their status, from 1xx on.
    http: [Counter; 5],
    /// HTTP connections that were closed at once, or by TLS.
    pub(super) http_refused: Counter,
    steps: [Histogram; STEPS.len()],
    analyses: Mutex<BTreeMap<Analysed, Histogram>>,
    /// When commitment was asked for, by transaction.
    asked: Mutex<HashMap<Uid, Instant>>,
}

impl Metrics {
    /// Counts the answer to a C-STORE.
    pub(super) fn stored(&self, status: Status) {
        let n = if status.is_success() {
            0
        } else if status.is_warning() {
            1
        } else {
            2
        };
        self.instances[n].add(1);
    }

    /// Counts an HTTP answer.
    pub(super) fn answered(&self, status: u16, time: Duration) {
        if let Some(counter) = self.http.get(usize::from(status / 100).wrapping_sub(1)) {
            counter.add(1);
        }
        self.took(Step::Http, time);
    }

    /// Notes how long a step took.
    pub(super) fn took(&self, step: Step, time: Duration) {
        self.steps[step as usize].add(time);
    }

    /// Notes where the time of an analysis went.
    pub(super) fn analysed(&self, package: &str, device: &str, timings: &Timings) {
        let mut analyses = self.analyses.lock().unwrap_or_else(PoisonError::into_inner); // its histograms are whole
        for (stage, time) in &timings.0 {
            analyses.entry((package.to_owned(), device.to_owned(), stage.to_string())).or_default().add(*time);
        }
    }

    /// Commitment is asked for with this transaction.
    pub(super) fn asked(&self, transaction_uid: &str) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner); // a map of copies is whole
        if asked.len() < MAX_ASKED {
            asked.insert(transaction_uid.to_owned(), Instant::now());
        }
    }

    /// The answer to a transaction has come, or is waited for no more.
    pub(super) fn settled(&self, transaction_uid: &str, answered: bool) {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner).remove(transaction_uid);
        if let Some(asked) = asked.filter(|_| answered) {
            self.took(Step::Commit, asked.elapsed());
        }
    }

    /// In the Prometheus text format, with what is measured at the moment.
    pub(super) fn text(&self, gauges: &[Gauge]) -> String {
        let mut text = Exposition::default();
        let one = |counter: &Counter| [(String::new(), counter.get())];
        text.counters("associations_total", "Associations that were accepted.", one(&self.associations));
        text.counters("associations_rejected_total", "Associations that were rejected.", one(&self.rejected));
        text.counters("received_bytes_total", "Bytes of data sets.", one(&self.received_bytes));
        let by = |label, values: &[&str], counters: &[Counter]| {
            values.iter().zip(counters).map(|(value, counter)| (labels(&[(label, value)]), counter.get())).collect::<Vec<_>>()
        };
        let statuses = by("status", &["success", "warning", "failure"], &self.instances);
        text.counters("instances_total", "Instances by the status that they were answered with.", statuses);
        let outcomes = [("done", &self.jobs_done), ("failed", &self.jobs_failed)];
        text.counters("jobs_total", "Jobs that ended.", outcomes.map(|(name, count)| (labels(&[("outcome", name)]), count.get())));
        text.counters("delivered_total", "Result instances that a destination has taken.", one(&self.delivered));
        text.counters("delivered_bytes_total", "Bytes of their data sets.", one(&self.delivered_bytes));
        text.counters("committed_total", "Result instances that a destination has taken responsibility for.", one(&self.committed));
        let failed = one(&self.searches_failed);
        text.counters("searches_failed_total", "Searches for earlier studies that jobs went without or failed for.", failed);
        text.counters("delivery_failures_total", "Attempts at delivery that failed.", one(&self.delivery_failures));
        text.counters("http_requests_total", "HTTP answers.", by("code", &["1xx", "2xx", "3xx", "4xx", "5xx"], &self.http));
        text.counters("http_refused_total", "HTTP connections that were closed unheard.", one(&self.http_refused));
        text.family("step_seconds", "histogram", "Wall time of what instances, jobs and results go through.");
        for (step, histogram) in STEPS.iter().zip(&self.steps) {
            text.histogram("step_seconds", &[("step", step)], histogram);
        }
        text.family("stage_seconds", "histogram", "Wall time of the stages of analyses, with the device that their kernels ran on.");
        for ((package, device, stage), histogram) in &*self.analyses.lock().unwrap_or_else(PoisonError::into_inner) {
            text.histogram("stage_seconds", &[("package", package), ("device", device), ("stage", stage)], histogram);
        }
        for gauge in gauges {
            text.family(gauge.name, "gauge", gauge.help);
            for (labels, value) in &gauge.samples {
                text.sample(gauge.name, labels, value);
            }
        }
        text.0 + &process()
    }
}

/// Something that is measured when it is asked for.
pub(super) struct Gauge {
    name: &'static str,
    help: &'static str,
    /// By their labels.
    samples: Vec<(String, f64)>,
}

impl Gauge {
    /// One number.
    pub(super) fn new(name: &'static str, help: &'static str, value: f64) -> Self {
        Self { name, help, samples: vec![(String::new(), value)] }
    }

    /// Several, told apart by labels.
    pub(super) fn labelled(name: &'static str, help: &'static str, samples: impl IntoIterator<Item = (String, f64)>) -> Self {
        Self { name, help, samples: samples.into_iter().collect() }
    }
}

/// Labels as they stand behind a name.
pub(super) fn labels(pairs: &[(&str, &str)]) -> String {
    let escaped = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    format!("{{{}}}", pairs.join(","))
}

/// The text format as it is written. A `String` takes all, so that results of writing to it are dropped.
#[derive(Default)]
struct Exposition(String);

impl Exposition {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.0, "# HELP roentgen_{name} {help}\n# TYPE roentgen_{name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.0, "roentgen_{name}{labels} {value}");
    }

    fn counters(&mut self, name: &str, help: &str, samples: impl IntoIterator<Item = (String, u64)>) {
        self.family(name, "counter", help);
        samples.into_iter().for_each(|(labels, value)| self.sample(name, &labels, value));
    }

    fn histogram(&mut self, name: &str, pairs: &[(&str, &str)], histogram: &Histogram) {
        let mut count = 0;
        for (n, bucket) in histogram.buckets.iter().enumerate() {
            count += bucket.get();
            let bound = BOUNDS_S.get(n).map_or_else(|| "+Inf".to_owned(), f64::to_string);
            self.sample(&format!("{name}_bucket"), &labels(&[pairs, &[("le", &bound)]].concat()), count);
        }
        self.sample(&format!("{name}_sum"), &labels(pairs), Duration::from_micros(histogram.sum_us.get()).as_secs_f64());
        self.sample(&format!("{name}_count"), &labels(pairs), count);
    }
}

/// What the system says of this process, by the names that Prometheus clients give it; nothing where it does not say.
fn process() -> String {
    let files = std::fs::read_dir("/proc/self/fd").map(|found| found.count() as u64).ok();
    let mut text = String::new();
    for (name, help, value) in [
        ("process_resident_memory_bytes", "Resident memory.", memory::resident_bytes()),
        ("process_open_fds", "Open file descriptors.", files),
        ("process_threads", "Threads.", std::fs::read_dir("/proc/self/task").map(|found| found.count() as u64).ok()),
    ] {
        if let Some(value) = value {
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}\n"); // a String takes all
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_every_bucket_from_its_own_on() {
        let metrics = Metrics::default();
        [0.001, 0.003, 700.0].iter().for_each(|&seconds| metrics.took(Step::Seal, Duration::from_secs_f64(seconds)));
        let text = metrics.text(&[]);
        for line in [
            "roentgen_step_seconds_bucket{step=\"seal\",le=\"0.001\"} 1",
            "roentgen_step_seconds_bucket{step=\"seal\",le=\"0.0025\"} 1",
            "roentgen_step_seconds_bucket{step=\"seal\",le=\"0.005\"} 2",
            "roentgen_step_seconds_bucket{step=\"seal\",le=\"600\"} 2",
            "roentgen_step_seconds_bucket{step=\"seal\",le=\"+Inf\"} 3",
            "roentgen_step_seconds_sum{step=\"seal\"} 700.004",
            "roentgen_step_seconds_count{step=\"seal\"} 3",
            "roentgen_step_seconds_count{step=\"receive\"} 0",
        ] {
            assert!(text.lines().any(|l| l == line), "no `{line}` in {text}");
        }
    }

    #[test]
    fn labels_cannot_break_out() {
        assert_eq!(labels(&[("a", "b"), ("device", "x\" y\\\n")]), r#"{a="b",device="x\" y\\\n"}"#);
    }

    #[test]
    fn only_answers_are_timed_and_the_map_of_questions_is_bounded() {
        let metrics = Metrics::default();
        (0..=MAX_ASKED).for_each(|n| metrics.asked(&n.to_string()));
        (0..=MAX_ASKED).for_each(|n| metrics.settled(&n.to_string(), n % 2 == 0));
        assert!(metrics.text(&[]).contains("roentgen_step_seconds_count{step=\"commit\"} 2048\n"));
    }
}
