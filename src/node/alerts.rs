//! What people must know of: each is told once when it begins and once when it is over, in the log, at `/alerts`, in the metrics and to a
//! program of the site. No patient data.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::runtime::Handle;

use super::config::{Config, millis};
use super::repeat;
use super::settings::Current;
use crate::jobs;
use crate::store::{Store, StoreError, now_ms};

/// How often it is looked at what is wrong.
const EVERY: Duration = Duration::from_secs(2);
/// How long the program may take that is told.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long an instance in quarantine is news.
const QUARANTINE_MS: i64 = 86_400_000;

/// What an alert is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct About {
    /// What programs match on.
    pub(super) code: &'static str,
    /// A destination; empty where there is nothing to tell apart.
    pub(super) subject: String,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Alert {
    #[serde(flatten)]
    pub(super) about: About,
    /// Since when, as far as we have seen, ms since 1970, UTC.
    pub(super) since_ms: i64,
    /// How many deliveries, jobs or instances; for `store.low-disk` the free MB.
    pub(super) count: i64,
    /// What to do.
    pub(super) help: &'static str,
}

/// What is wrong at the moment.
#[derive(Debug, Default)]
pub(super) struct Board(Mutex<BTreeMap<About, Alert>>);

/// What has begun and what is over.
type Changes = (Vec<Alert>, Vec<Alert>);

impl Board {
    pub(super) fn all(&self) -> Vec<Alert> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect() // between two statements it is whole
    }

    /// Puts up what is found now, each with since when.
    fn replace(&self, found: Vec<(About, i64, &'static str)>) -> Changes {
        let mut board = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::take(&mut *board);
        let mut begun = Vec::new();
        for (about, count, help) in found {
            let known = before.get(&about);
            let alert = Alert { about: about.clone(), since_ms: known.map_or_else(now_ms, |known| known.since_ms), count, help };
            if known.is_none() {
                begun.push(alert.clone());
            }
            board.insert(about, alert);
        }
        (begun, before.into_values().filter(|alert| !board.contains_key(&alert.about)).collect())
    }
}

/// What looks, and tells.
pub(super) struct Alerts {
    pub(super) current: Arc<Current>,
    pub(super) store: Arc<Store>,
    pub(super) runtime: Handle,
    pub(super) board: Arc<Board>,
}

impl Alerts {
    pub(super) fn run(&self, stopping: &AtomicBool) {
        repeat(stopping, || {
            let next = Instant::now() + EVERY;
            let config = self.current.get();
            match self.runtime.block_on(self.look(&config)) {
                Ok(found) => self.tell(&config, self.board.replace(found), stopping),
                Err(error) => tracing::error!(%error, "it cannot be looked at what is wrong, trying again"),
            }
            next
        });
    }

    async fn look(&self, config: &Config) -> Result<Vec<(About, i64, &'static str)>, StoreError> {
        let pool = self.store.pool();
        let mut found = Vec::new();
        let mut add = |code, subject: &str, count: i64, help| {
            if count > 0 {
                found.push((About { code, subject: subject.to_owned() }, count, help));
            }
        };
        for destination in &config.destination {
            let name = &destination.name;
            if config.alert.undelivered_minutes > 0 {
                let before_ms = now_ms() - millis(config.alert.undelivered_minutes.saturating_mul(60));
                let count = jobs::overdue(pool, name, destination.commitment, before_ms).await?;
                add("delivery.overdue", name, count, "see why it takes nothing: `remark` at /studies/UID/trace");
            }
            let dead = jobs::waiting(pool, name).await?.dead;
            add("delivery.dead", name, dead, "see /deliveries?state=dead; then POST /deliveries/DESTINATION/retry or /give-up");
        }
        let configured: Vec<&str> = config.destination.iter().map(|destination| destination.name.as_str()).collect();
        for (name, count) in jobs::stranded(pool, &configured).await? {
            add("delivery.stranded", &name, count, "no [[destination]] has that name: give one, or POST /deliveries/DESTINATION/give-up");
        }
        let jobs = jobs::dead_jobs(pool).await?;
        add("job.failed", "", jobs.failed, "see `outcome` at /jobs; then POST /jobs/ID/retry or /cancel");
        add(
            "job.quarantined",
            "",
            jobs.quarantined,
            "these took the process down: see `outcome` at /jobs; then POST /jobs/ID/retry or /cancel",
        );
        let quarantined = self.store.quarantined_since(now_ms() - QUARANTINE_MS).await?;
        add("instance.quarantined", "", quarantined, "see `quarantine` at /studies/UID/trace");
        let free_mb = self.store.free_mb()?;
        if free_mb < config.alert.free_mb.max(config.store.keep_free_mb) {
            found.push((
                About { code: "store.low-disk", subject: String::new() },
                i64::try_from(free_mb).unwrap_or(i64::MAX),
                "below `store.keep_free_mb` instances are refused: make room, or set [retain]",
            ));
        }
        Ok(found)
    }

    fn tell(&self, config: &Config, (begun, over): Changes, stopping: &AtomicBool) {
        for (alert, begins) in begun.iter().map(|alert| (alert, true)).chain(over.iter().map(|alert| (alert, false))) {
            let (About { code, subject }, count) = (&alert.about, alert.count);
            if begins {
                tracing::warn!(code, subject, count, help = alert.help, "alert");
            } else {
                tracing::info!(code, subject, "an alert is over");
            }
            let Some((program, arguments)) = config.alert.command.split_first() else { continue };
            let message =
                serde_json::json!({ "node": config.ae_title.0.as_str(), "state": if begins { "begun" } else { "over" }, "alert": alert });
            if let Err(error) = told(program, arguments, &message.to_string(), stopping) {
                tracing::error!(%error, code, "the program in `alert.command` was not told");
            }
        }
    }
}

/// Starts the program, gives it the message and waits for its end, not for ever.
fn told(program: &str, arguments: &[String], message: &str, stopping: &AtomicBool) -> std::io::Result<()> {
    let mut child = Command::new(program).args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    if let Some(mut input) = child.stdin.take() {
        let _ = input.write_all(message.as_bytes()); // less than a pipe holds; who does not read it is told nothing
    }
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until && !stopping.load(Ordering::SeqCst) {
        if let Some(status) = child.try_wait()? {
            return if status.success() { Ok(()) } else { Err(std::io::Error::other(status.to_string())) };
        }
        thread::sleep(Duration::from_millis(20));
    }
    end(&mut child)?;
    Err(std::io::ErrorKind::TimedOut.into())
}

fn end(child: &mut Child) -> std::io::Result<()> {
    child.kill()?;
    child.wait().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_told_once_when_it_begins_and_once_when_it_is_over() {
        let board = Board::default();
        let about = |subject: &str| About { code: "delivery.dead", subject: subject.into() };
        let subjects = |alerts: &[Alert]| alerts.iter().map(|alert| alert.about.subject.clone()).collect::<Vec<_>>();
        let put = |subjects_now: &[&str]| {
            let (begun, over) = board.replace(subjects_now.iter().map(|subject| (about(subject), 1, "")).collect());
            (subjects(&begun), subjects(&over))
        };
        assert_eq!(put(&["A"]), (vec!["A".to_owned()], vec![]));
        assert_eq!(put(&["A", "B"]), (vec!["B".to_owned()], vec![]));
        assert_eq!(put(&["B"]), (vec![], vec!["A".to_owned()]));
        assert_eq!(subjects(&board.all()), ["B"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_program_is_told_on_its_standard_input() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let told_to = folder.path().join("told");
        let stopping = AtomicBool::new(false);
        let shell = |script: &str| told("sh", &["-c".to_owned(), script.to_owned()], "a message", &stopping);
        shell(&format!("cat > {}", told_to.display())).expect("it ends well");
        assert_eq!(std::fs::read_to_string(&told_to).expect("written"), "a message");
        assert!(shell("exit 3").is_err());
        assert!(told("/no/such/program", &[], "", &stopping).is_err());
        stopping.store(true, Ordering::SeqCst);
        assert_eq!(shell("sleep 60").expect_err("the node stops").kind(), std::io::ErrorKind::TimedOut);
    }
}
