//! Retention: what is old is taken away, as the configuration says. What is needed stays however old it is (`store::Old`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::config::{Config, RetainConfig};
use super::settings::Current;
use crate::store::{Old, Store, StoreError, now_ms};

/// How often it is looked at what is old.
const EVERY: Duration = Duration::from_secs(10);
/// How often it is looked whether the node stops.
const POLL: Duration = Duration::from_millis(200);
/// Studies, jobs or instances that go at a time.
const AT_A_TIME: u32 = 50;
const DAY_MS: f64 = 86_400_000.0;
const GB: f64 = 1e9;

/// What takes old things away.
pub(super) struct Retention {
    pub(super) current: Arc<Current>,
    pub(super) store: Arc<Store>,
    pub(super) runtime: Handle,
}

impl Retention {
    pub(super) fn run(&self, stopping: &AtomicBool) {
        let mut next = Instant::now();
        while !stopping.load(Ordering::SeqCst) {
            if Instant::now() < next {
                thread::sleep(POLL);
                continue;
            }
            // As long as there is more, without a pause but the indexer's.
            match self.pass(&self.current.get()) {
                Ok(0) => next = Instant::now() + EVERY,
                Ok(count) => tracing::info!(count, "what was old is removed"),
                Err(error) => {
                    tracing::error!(%error, "what is old cannot be looked for, trying again");
                    next = Instant::now() + EVERY;
                }
            }
        }
    }

    /// Takes some away; how much.
    fn pass(&self, config: &Config) -> Result<usize, StoreError> {
        let RetainConfig { received_days, received_gb, results_days, quarantine_days } = config.retain;
        let asks = config.destination.iter().filter(|destination| destination.commitment);
        let committing: Vec<String> = asks.map(|destination| destination.name.clone()).collect();
        let before = |days: f64| (days > 0.0).then(|| now_ms() - (days * DAY_MS) as i64);
        let mut old = self.runtime.block_on(async {
            let mut old: Vec<Old> = Vec::new();
            if let Some(before_ms) = before(received_days) {
                old.extend(self.store.old_studies(before_ms, &committing, AT_A_TIME).await?);
            }
            if let Some(before_ms) = before(results_days) {
                old.extend(self.store.old_results(before_ms, &committing, AT_A_TIME).await?);
            }
            if let Some(before_ms) = before(quarantine_days) {
                old.extend(self.store.old_quarantine(before_ms, AT_A_TIME).await?);
            }
            Ok::<_, StoreError>(old)
        })?;
        // One at a time: the next may not have to go.
        if old.is_empty() && received_gb > 0.0 && self.runtime.block_on(self.store.bytes())? as f64 > received_gb * GB {
            old = self.runtime.block_on(self.store.old_studies(now_ms(), &committing, 1))?;
        }
        let count = old.len();
        old.into_iter().for_each(|one| self.store.remove(one, &committing));
        self.store.flush();
        Ok(count)
    }
}
