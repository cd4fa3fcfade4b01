//! Retention: what is old is taken away, as the configuration says. What is needed stays however old it is (`store::Old`).

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::config::{Config, RetainConfig};
use super::repeat;
use super::settings::Current;
use crate::store::{Old, Store, StoreError, now_ms};

/// How often it is looked at what is old.
const EVERY: Duration = Duration::from_secs(10);
/// When there may be more to take away.
const SOON: Duration = Duration::from_millis(200);
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
        repeat(stopping, || {
            let count = self.pass(&self.current.get()).unwrap_or_else(|error| {
                tracing::error!(%error, "what is old cannot be looked for, trying again");
                0
            });
            // What somebody needs again by now stays, and is found again.
            Instant::now() + if count < AT_A_TIME as usize { EVERY } else { SOON }
        });
    }

    /// Takes some away; how much.
    fn pass(&self, config: &Config) -> Result<usize, StoreError> {
        let RetainConfig { received_days, received_gb, results_days, quarantine_days } = config.retain;
        let asks = config.destination.iter().filter(|destination| destination.commitment);
        let committing: Vec<String> = asks.map(|destination| destination.name.clone()).collect();
        let before = |days: f64| (days > 0.0).then(|| now_ms() - (days * DAY_MS) as i64);
        let old = self.runtime.block_on(async {
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
        let mut count = 0;
        for one in old {
            self.store.remove(one, &committing);
            count += 1;
        }
        if count > 0 {
            self.store.flush();
        }
        if received_gb > 0.0 && self.over(received_gb)? {
            // One by one: the next may not have to go.
            for one in self.runtime.block_on(self.store.old_studies(now_ms(), &committing, AT_A_TIME))? {
                self.store.remove(one, &committing);
                self.store.flush();
                count += 1;
                if !self.over(received_gb)? {
                    break;
                }
            }
        }
        if count > 0 {
            tracing::info!(count, "what is old is taken away");
        }
        Ok(count)
    }

    fn over(&self, gb: f64) -> Result<bool, StoreError> {
        Ok(self.runtime.block_on(self.store.bytes())? as f64 > gb * GB)
    }
}
