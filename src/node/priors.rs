//! Earlier studies of a patient (priors): looked for at an archive, brought here, held beside what is sent to us. A thread an archive.
//!
//! Invariants:
//! 1. What was found is a prior only where it is beyond doubt the same patient's: as the archive names it, and as each instance says.
//! 2. A search is due until one transaction ends it and lets its job go on: a kill repeats it, and what is here already is not asked for
//!    again.
//! 3. An archive that is down holds up no other, and no job longer than its package says.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use jiff::ToSpan;
use jiff::civil::Date;
use thiserror::Error;
use tokio::runtime::Handle;

use super::archive::{Asked, census, has_images, unreadable};
use super::arrivals::Arrivals;
use super::config::{Archive, PriorsConfig, millis};
use super::metrics::Metrics;
use super::plan::MAX_SERIES;
use super::scp::Intake;
use super::settings::Current;
use crate::codes::Uid;
use crate::dataset::{DatasetError, Identity, Instance, StudyMatch, studies_of_patient, study_began};
use crate::dimse::DimseError;
use crate::geometry::Coded;
use crate::jobs::{self, PriorState, Search, SearchFailure, Searched};
use crate::store::{AuditRecord, Store, StoreError, crash_point, now_ms};

/// How often the searches are looked at.
const POLL: Duration = Duration::from_millis(200);
/// Studies of one patient that are looked at.
const MAX_STUDIES: usize = 500;
/// The longest time before a study that makes sense.
const MAX_DAYS: u32 = 100 * 366;

/// Why earlier studies are not here. No patient text.
#[derive(Debug, Error)]
pub(super) enum PriorsError {
    /// The configuration has no such archive or no such policy any more.
    #[error("the configuration names no archive `{archive}` for this package any more")]
    NoArchive { archive: String },
    /// Nobody can be asked for.
    #[error("the study has no Patient ID, so that earlier ones cannot be asked for")]
    NoPatientId,
    /// The archive cannot be asked, or refuses.
    #[error("archive `{archive}`: {source}")]
    Archive { archive: String, source: DimseError },
    /// Not all that was retrieved came.
    #[error("archive `{archive}`: {lacking} instances of an earlier study did not come (study {study_uid})")]
    Lacking { archive: String, lacking: i64, study_uid: Uid },
    /// Somebody else's instances came.
    #[error("archive `{archive}`: an earlier study holds another patient's instances, which are not used (study {study_uid})")]
    OtherPatient { archive: String, study_uid: Uid },
    /// There was no more time.
    #[error("archive `{archive}`: earlier studies did not come within `priors.wait_s`, {wait_s} s")]
    TooLate { archive: String, wait_s: u64 },
    /// The study itself cannot be read.
    #[error("the study itself cannot be read: {0}")]
    Dataset(#[from] DatasetError),
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl PriorsError {
    fn may_pass(&self) -> bool {
        match self {
            Self::Archive { source, .. } => source.is_transient(),
            Self::Lacking { .. } | Self::Store(_) => true,
            Self::NoArchive { .. } | Self::NoPatientId | Self::OtherPatient { .. } | Self::TooLate { .. } | Self::Dataset(_) => false,
        }
    }
}

impl Coded for PriorsError {
    fn code(&self) -> &'static str {
        match self {
            Self::NoArchive { .. } => "priors.no-archive",
            Self::NoPatientId => "priors.no-patient-id",
            Self::Archive { source, .. } => source.code(),
            Self::Lacking { .. } => "priors.lacking",
            Self::OtherPatient { .. } => "priors.other-patient",
            Self::TooLate { .. } => "priors.too-late",
            Self::Dataset(error) => error.code(),
            Self::Store(error) => error.code(),
        }
    }
}

/// What all threads share.
#[derive(Clone)]
pub(super) struct Fetchers {
    pub(super) current: Arc<Current>,
    pub(super) store: Arc<Store>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) runtime: Handle,
}

impl Fetchers {
    /// Keeps a thread for each archive that searches are due at, until `stopping` and until the last has ended.
    pub(super) fn run(&self, stopping: &Arc<AtomicBool>) {
        let mut threads: HashMap<String, JoinHandle<()>> = HashMap::new();
        while !stopping.load(Ordering::SeqCst) {
            threads.retain(|_, thread| !thread.is_finished());
            match self.runtime.block_on(jobs::searched_archives(self.store.pool())) {
                Ok(archives) => {
                    for name in archives.into_iter().filter(|name| !threads.contains_key(name)).collect::<Vec<_>>() {
                        let (fetchers, stopping, of) = (self.clone(), Arc::clone(stopping), name.clone());
                        match thread::Builder::new().name("fetcher".into()).spawn(move || fetchers.search_at(&of, &stopping)) {
                            Ok(thread) => drop(threads.insert(name, thread)),
                            Err(error) => tracing::error!(%error, archive = name, "a search cannot be started, trying again"),
                        }
                    }
                }
                Err(error) => tracing::error!(%error, "the searches cannot be read, trying again"),
            }
            thread::sleep(POLL);
        }
        for (_, thread) in threads {
            let _ = thread.join(); // a panic there was told there
        }
    }

    /// Does what is due at one archive.
    fn search_at(&self, archive: &str, stopping: &AtomicBool) {
        while !stopping.load(Ordering::SeqCst) {
            match self.runtime.block_on(jobs::next_search(self.store.pool(), archive)) {
                Ok(Some(search)) => self.search(&search, stopping),
                Ok(None) => return,
                Err(error) => return tracing::error!(%error, "the searches cannot be read, trying again"),
            }
        }
    }

    fn search(&self, search: &Search, stopping: &AtomicBool) {
        let settings = self.current.get();
        let package = settings.package.iter().find(|package| package.name == search.package);
        let policy = package.and_then(|package| package.priors.as_ref()).filter(|policy| policy.from == search.archive);
        let archive = settings.archive.iter().find(|archive| archive.name == search.archive);
        let fetched = match archive.zip(policy) {
            Some((archive, policy)) => {
                let left_ms = u64::try_from(search.since_ms + millis(policy.wait_s) - now_ms()).unwrap_or(0);
                let until = Instant::now() + Duration::from_millis(left_ms.min(86_400_000));
                let asked = Asked { settings: &settings, archive, until, go_on: &|| !stopping.load(Ordering::SeqCst) };
                Fetch { fetchers: self, search, asked, policy }.fetch()
            }
            None => Err(PriorsError::NoArchive { archive: search.archive.clone() }),
        };
        if stopping.load(Ordering::SeqCst) && fetched.is_err() {
            return; // it is due at the next start
        }
        let pool = self.store.pool();
        let entered = match &fetched {
            Ok(()) => self.runtime.block_on(jobs::search_done(pool, search)),
            Err(error) => {
                let failure = SearchFailure {
                    code: error.code(),
                    why: error.to_string(),
                    may_pass: error.may_pass(),
                    required: policy.is_some_and(|policy| policy.required),
                    until_ms: search.since_ms + policy.map_or(0, |policy| millis(policy.wait_s)),
                };
                let retry = archive.map_or(jobs::Retry { first_ms: 0, attempts: 1 }, Archive::retry);
                self.runtime.block_on(jobs::search_failed(pool, search, &failure, retry))
            }
        };
        let (job, archive) = (search.job, &search.archive);
        match (entered, fetched) {
            (Ok(_), Ok(())) => tracing::info!(job, archive, "the earlier studies of a job are here"),
            (Ok(ended), Err(error)) => {
                self.metrics.searches_failed.add(u64::from(ended != Searched::Again));
                tracing::warn!(job, archive, code = error.code(), attempt = search.attempts, ?ended, "a search for earlier studies failed");
                if ended != Searched::Again {
                    let detail = format!("earlier studies: {}", error.code());
                    self.store.audit(AuditRecord::query(4, archive, &search.study_uid, detail));
                }
            }
            // It is due still.
            (Err(error), _) => {
                tracing::error!(job, %error, "the end of a search for earlier studies cannot be entered, trying again");
                thread::sleep(Duration::from_secs(1));
            }
        }
    }
}

/// The study that earlier ones are wanted of.
struct Anchor {
    /// An instance of it.
    instance: Instance,
    patient: Identity,
    began: Option<(Date, String)>,
    /// Of its series with images.
    modalities: BTreeSet<String>,
}

/// One attempt.
struct Fetch<'a> {
    fetchers: &'a Fetchers,
    search: &'a Search,
    asked: Asked<'a>,
    policy: &'a PriorsConfig,
}

impl Fetch<'_> {
    /// Finds what the policy wants, and brings it here; the rest, too, where one of them fails.
    fn fetch(&self) -> Result<(), PriorsError> {
        let anchor = self.anchor()?;
        if !anchor.patient.has_id() {
            return Err(PriorsError::NoPatientId);
        }
        let mut failed = None;
        for found in self.find(&anchor)? {
            if let Err(error) = self.bring(&anchor, &found) {
                failed.get_or_insert(error);
            }
        }
        failed.map_or(Ok(()), Err)
    }

    fn failed(&self, source: DimseError) -> PriorsError {
        let archive = self.search.archive.clone();
        match source {
            DimseError::Ended { .. } if Instant::now() >= self.asked.until => PriorsError::TooLate { archive, wait_s: self.policy.wait_s },
            source => PriorsError::Archive { archive, source },
        }
    }

    fn anchor(&self) -> Result<Anchor, PriorsError> {
        let files = self.fetchers.runtime.block_on(self.fetchers.store.one_of_each_series(&self.search.study_uid, MAX_SERIES))?;
        let mut instances = files.iter().map(|(file, _)| Instance::read(file)).collect::<Result<Vec<_>, _>>()?;
        let modalities = instances.iter().map(|i| i.modality.clone()).filter(|m| !m.is_empty() && has_images(m)).collect();
        // The first with images: it says best when the study was made.
        instances.sort_by_key(|instance| !has_images(&instance.modality));
        let Some(instance) = instances.into_iter().next() else { return Err(PriorsError::NoPatientId) };
        let (patient, began) = (Identity::of_instance(&instance)?, study_began(&*instance.attributes));
        Ok(Anchor { patient, began, modalities, instance })
    }

    /// The earlier studies that the policy wants, the latest first.
    fn find(&self, anchor: &Anchor) -> Result<Vec<StudyMatch>, PriorsError> {
        let last = anchor.began.as_ref().map_or_else(|| jiff::ZonedDateTime::now().date(), |(date, _)| *date);
        let first = last.saturating_sub(i64::from(self.policy.within_days.min(MAX_DAYS)).days());
        let keys = studies_of_patient(anchor.instance.header()?, first, last);
        let found = self.asked.find(keys, MAX_STUDIES).map_err(|error| self.failed(error))?;
        if found.more {
            tracing::warn!(job = self.search.job, most = MAX_STUDIES, "a patient has more studies than are looked at");
        }
        let mut matches = Vec::new();
        for identifier in found.identifiers {
            matches.push(StudyMatch::read(identifier).map_err(|error| self.failed(unreadable(error)))?);
        }
        let count = matches.len();
        matches.retain(|found| found.study_uid != self.search.study_uid);
        let (of_patient, others): (Vec<_>, Vec<_>) = matches.into_iter().partition(|found| anchor.patient.is(&found.patient));
        for other in &others {
            self.enter(&other.study_uid, PriorState::Refused, 0)?;
        }
        let detail = format!("earlier studies of the patient of a study: {count} found, {} of another patient left out", others.len());
        let outcome = u8::from(!others.is_empty()) * 4;
        self.fetchers.store.audit(AuditRecord::query(outcome, &self.search.archive, &self.search.study_uid, detail));
        let mut earlier: Vec<StudyMatch> =
            of_patient.into_iter().filter(|found| is_earlier(found.began.as_ref(), first, last, anchor.began.as_ref())).collect();
        earlier.sort_by(|a, b| b.began.cmp(&a.began).then_with(|| a.study_uid.cmp(&b.study_uid)));
        let mut wanted = Vec::new();
        for mut found in earlier {
            if found.modalities.is_empty() {
                let series = self.asked.series(&found.study_uid).map_err(|error| self.failed(error))?;
                found.modalities = series.into_iter().map(|series| series.modality).collect();
            }
            let of_policy = |modality: &String| match self.policy.modalities.as_slice() {
                [] => anchor.modalities.contains(modality),
                modalities => modalities.contains(modality),
            };
            if found.modalities.iter().any(of_policy) {
                wanted.push(found);
            }
            if wanted.len() == self.policy.how_many {
                break;
            }
        }
        Ok(wanted)
    }

    /// Brings one study here, unless it is, and enters what became of it.
    fn bring(&self, anchor: &Anchor, found: &StudyMatch) -> Result<(), PriorsError> {
        let (store, study_uid) = (&self.fetchers.store, found.study_uid.as_str());
        let series = self.asked.series(study_uid).map_err(|error| self.failed(error))?;
        let census = census(&series);
        let lacking = |failed: u16| -> Result<i64, PriorsError> {
            let (here, by_series) = self.fetchers.runtime.block_on(jobs::here(store.pool(), study_uid, &census))?;
            Ok(if census.is_empty() { i64::from(failed).max(i64::from(here == 0)) } else { by_series })
        };
        let known_and_here = !census.is_empty() && lacking(0)? == 0;
        let mut failed = 0;
        if !known_and_here {
            self.enter(study_uid, PriorState::Asked, 0)?;
            crash_point("prior-asked");
            let mut arrivals = Arrivals::new(store, self.asked.archive.ae_title.0.as_str());
            let mut intake = Intake { store, metrics: &self.fetchers.metrics, arrivals: &mut arrivals };
            let retrieved = self.asked.retrieve(study_uid, &mut intake, true);
            arrivals.end(retrieved.is_ok());
            store.flush();
            match retrieved {
                Ok(retrieved) => failed = retrieved.failed,
                Err(error) => {
                    self.enter(study_uid, PriorState::Lacking, 0)?;
                    return Err(self.failed(error));
                }
            }
        }
        let archive = || self.search.archive.clone();
        let quarantined = self.fetchers.runtime.block_on(store.other_patients(study_uid, self.asked.archive.ae_title.0.as_str()))?;
        if quarantined || store.patient_of(study_uid)?.is_some_and(|theirs| !anchor.patient.is(&theirs)) {
            self.enter(study_uid, PriorState::Refused, 0)?;
            return Err(PriorsError::OtherPatient { archive: archive(), study_uid: study_uid.into() });
        }
        match lacking(failed)? {
            0 => self.enter(study_uid, PriorState::Held, found.instances.unwrap_or_default().into()),
            lacking => {
                self.enter(study_uid, PriorState::Lacking, 0)?;
                Err(PriorsError::Lacking { archive: archive(), lacking, study_uid: study_uid.into() })
            }
        }
    }

    fn enter(&self, study_uid: &str, state: PriorState, instances: i64) -> Result<(), PriorsError> {
        let title = self.asked.archive.ae_title.0.as_str();
        let entered = jobs::enter_prior(self.fetchers.store.pool(), self.search, study_uid, title, state, instances);
        Ok(self.fetchers.runtime.block_on(entered)?)
    }
}

/// Whether a study was made in time, and before the other one: on an earlier day, or on the same one by its time. What has no date is not
/// known to be earlier.
fn is_earlier(began: Option<&(Date, String)>, first: Date, last: Date, than: Option<&(Date, String)>) -> bool {
    let Some((date, time)) = began else { return false };
    let before = match than {
        Some((day, at)) if day == date => !time.is_empty() && time < at,
        Some((day, _)) => date < day,
        None => true,
    };
    (first..=last).contains(date) && before
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_before_is_a_prior() {
        let at = |year, month, day, time: &str| (Date::constant(year, month, day), time.to_owned());
        let (first, last) = (Date::constant(2015, 5, 2), Date::constant(2020, 5, 2));
        let study = at(2020, 5, 2, "101500");
        for (began, expected) in [
            (at(2020, 5, 1, ""), true),
            (at(2015, 5, 2, ""), true),
            (at(2015, 5, 1, ""), false),
            (at(2020, 5, 2, "080000"), true),
            (at(2020, 5, 2, "101500"), false),
            (at(2020, 5, 2, "111500"), false),
            (at(2020, 5, 2, ""), false),
            (at(2020, 5, 3, ""), false),
        ] {
            assert_eq!(is_earlier(Some(&began), first, last, Some(&study)), expected, "{began:?}");
        }
        assert!(!is_earlier(None, first, last, Some(&study)), "nobody knows when");
        assert!(is_earlier(Some(&at(2020, 5, 2, "")), first, last, None), "the study has no date itself");
    }
}
