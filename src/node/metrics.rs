//! Counts for monitoring, without patient data.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::dimse::Status;

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
    /// Instances that a destination has taken responsibility for.
    pub(super) committed: Counter,
    /// Searches for earlier studies that came to no good end.
    pub(super) searches_failed: Counter,
    /// Attempts at delivery that failed.
    pub(super) delivery_failures: Counter,
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

    /// In the Prometheus text format, with what is measured at the moment as `gauges`: name, help, value.
    pub(super) fn text(&self, gauges: &[(&str, &str, f64)]) -> String {
        let counters = [
            ("associations_total", "Associations that were accepted.", "", &self.associations),
            ("associations_rejected_total", "Associations that were rejected.", "", &self.rejected),
            ("received_bytes_total", "Bytes of data sets.", "", &self.received_bytes),
            ("instances_total", "Instances by the status that they were answered with.", "{status=\"success\"}", &self.instances[0]),
            ("instances_total", "", "{status=\"warning\"}", &self.instances[1]),
            ("instances_total", "", "{status=\"failure\"}", &self.instances[2]),
            ("jobs_total", "Jobs that ended.", "{outcome=\"done\"}", &self.jobs_done),
            ("jobs_total", "", "{outcome=\"failed\"}", &self.jobs_failed),
            ("delivered_total", "Result instances that a destination has taken.", "", &self.delivered),
            ("committed_total", "Result instances that a destination has taken responsibility for.", "", &self.committed),
            ("searches_failed_total", "Searches for earlier studies that jobs went without or failed for.", "", &self.searches_failed),
            ("delivery_failures_total", "Attempts at delivery that failed.", "", &self.delivery_failures),
        ];
        let mut text = String::new();
        for (name, help, labels, counter) in counters {
            if !help.is_empty() {
                let _ = write!(text, "# HELP roentgen_{name} {help}\n# TYPE roentgen_{name} counter\n"); // a String takes all
            }
            let _ = writeln!(text, "roentgen_{name}{labels} {}", counter.get());
        }
        for (name, help, value) in gauges {
            let _ = write!(text, "# HELP roentgen_{name} {help}\n# TYPE roentgen_{name} gauge\nroentgen_{name} {value}\n");
        }
        text
    }
}
