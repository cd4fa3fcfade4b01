//! Asking the source of a study how many instances it has, before the study counts as complete.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::archive::{Asked, census};
use super::config::{Archive, millis};
use super::settings::{Current, Settings};
use crate::geometry::Coded;
use crate::jobs::{self, Unasked};
use crate::store::{Store, StoreError, now_ms};

/// How often there is something new to look for.
const POLL: Duration = Duration::from_millis(200);
/// How long an archive that could not be asked is left alone.
const REST: Duration = Duration::from_secs(30);

/// What asks.
pub(super) struct Censor {
    pub(super) current: Arc<Current>,
    pub(super) store: Arc<Store>,
    pub(super) runtime: Handle,
}

impl Censor {
    /// Asks for each study that is quiet, until `stopping`.
    pub(super) fn run(&self, stopping: &AtomicBool) {
        // Archives that could not be asked: when, and why.
        let mut resting: HashMap<String, (Instant, String)> = HashMap::new();
        while !stopping.load(Ordering::SeqCst) {
            let settings = self.current.get();
            if let Err(error) = self.turn(&settings, &mut resting, stopping) {
                tracing::error!(%error, "the numbers of instances cannot be entered, trying again");
                std::thread::sleep(Duration::from_secs(1));
            }
            std::thread::sleep(POLL);
        }
    }

    fn turn(&self, settings: &Settings, resting: &mut HashMap<String, (Instant, String)>, stopping: &AtomicBool) -> Result<(), StoreError> {
        let senders = asked_senders(settings);
        if senders.is_empty() {
            return Ok(());
        }
        let pool = self.store.pool();
        for Unasked { study_uid, calling } in self.runtime.block_on(jobs::unasked(pool, millis(settings.study.quiet_s), &senders))? {
            if stopping.load(Ordering::SeqCst) {
                break;
            }
            if self.store.is_open(&study_uid) {
                continue;
            }
            let Some(archive) = source_of(settings, &calling) else { continue };
            resting.retain(|_, (since, _)| since.elapsed() < REST);
            let asked_ms = now_ms();
            let answer = match resting.get(&archive.name) {
                Some((_, why)) => Err(why.clone()),
                None => {
                    let until = Instant::now() + Duration::from_secs(settings.study.cut_off_s.min(3600));
                    let asked = Asked { settings, archive, until, go_on: &|| !stopping.load(Ordering::SeqCst) };
                    asked.series(&study_uid).map_err(|error| {
                        tracing::warn!(
                            archive = archive.name,
                            code = error.code(),
                            "an archive cannot be asked for the instances of a study"
                        );
                        let why = error.to_string();
                        resting.insert(archive.name.clone(), (Instant::now(), why.clone()));
                        why
                    })
                }
            };
            let answer = answer.map(|series| census(&series));
            self.runtime.block_on(jobs::enter_census(pool, &study_uid, &archive.name, asked_ms, &answer))?;
        }
        Ok(())
    }
}

/// Titles of peers whose source is asked.
pub(super) fn asked_senders(settings: &Settings) -> Vec<String> {
    settings.peer.iter().filter(|peer| peer.query.is_some()).map(|peer| peer.ae_title.0.as_str().to_owned()).collect()
}

fn source_of<'a>(settings: &'a Settings, calling: &str) -> Option<&'a Archive> {
    let of_peer = settings.peer.iter().filter(|peer| peer.ae_title.0.as_str() == calling).find_map(|peer| peer.query.as_ref());
    of_peer.and_then(|name| settings.archive.iter().find(|archive| archive.name == *name))
}
