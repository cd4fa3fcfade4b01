//! Studies of a cohort from a PACS: found by accession number or UID, brought here one by one, taken away again.
//!
//! 1. What was found for an accession number is one study that states exactly it, or nothing.
//! 2. A study that was fetched is whole, as far as the PACS says how many instances it has; all of it is of the study and of the accession
//!    number that were asked for, and of one patient. Otherwise nothing of it is used.
//! 3. What is fetched lies in the folder of its [`Fetcher`], and goes with it at the latest.
//!
//! Instances go through a store of their own, as those that a node receives: C-MOVE needs its Storage SCP, which takes nobody's but that PACS's.

mod error;
mod web;

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use ureq::Agent;

pub use error::SourceError;

use super::archive::{Asked, census, has_images, unreadable};
use super::arrivals::Arrivals;
use super::config::{Archive, ConfigError, SourceConfig};
use super::metrics::Metrics;
use super::post;
use super::scp::{Intake, Scp};
use super::settings::{Current, Settings};
use crate::codes::Uid;
use crate::dataset::{Instance, SeriesMatch, StudyMatch, accession_number_of, studies_named};
use crate::jobs;
use crate::store::Store;

/// Studies of one accession number that are looked at.
const MAX_STUDIES: usize = 20;
/// The longest wait between two attempts.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// How often those who wait look whether to go on.
const POLL: Duration = Duration::from_millis(100);
/// How long an association that is open may go on after the end.
const GRACE: Duration = Duration::from_secs(5);

/// What a study is asked for by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sought {
    /// Accession Number (0008,0050), as [`is_accession_number`] takes it.
    Accession(String),
    /// Study Instance UID.
    Study(Uid),
}

/// Whether a PACS can be asked for exactly this: 1 to 16 characters of ASCII, no wildcard, no backslash (PS3.5 6.2, PS3.4 C.2.2.2).
pub fn is_accession_number(text: &str) -> bool {
    let fits = |c: char| c == ' ' || (c.is_ascii_graphic() && !['*', '?', '\\'].contains(&c));
    (1..=16).contains(&text.len()) && text.chars().all(fits) && text.trim() == text
}

/// A study that a PACS has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundStudy {
    /// Study Instance UID.
    pub study_uid: Uid,
    /// What it was asked for by; none where that was the UID.
    pub accession_number: Option<String>,
    /// Number of Study Related Instances (0020,1208), where the PACS says.
    pub instances: Option<u32>,
    /// Modalities in Study (0008,0061), where the PACS says.
    pub modalities: Vec<String>,
}

/// A PACS.
pub struct Source {
    config: SourceConfig,
    current: Arc<Current>,
    /// For DIMSE.
    archive: Option<Archive>,
    /// For DICOMweb.
    agent: Option<Agent>,
}

impl Source {
    /// As the table `[source]` of the file at `path` has it. Nobody is called yet.
    ///
    /// # Errors
    /// What is wrong with it, or with a file that it names.
    pub fn read(path: &Path) -> Result<Self, SourceError> {
        let config = SourceConfig::read(path)?;
        let node = config.node()?;
        let agent = config.url.is_some().then(|| post::agent(&node, config.tls.as_ref(), Duration::from_secs(config.study_s)));
        let wrong = |problem| ConfigError::Value { field: "source.tls".into(), problem };
        let agent = agent.transpose().map_err(wrong)?;
        Ok(Self { archive: config.archive(), current: Arc::new(Current::new(Settings::load(node)?)), agent, config })
    }

    /// How it is named to people.
    pub fn place(&self) -> String {
        self.config.place()
    }

    /// Studies that may be on disk at a time.
    pub fn ahead(&self) -> usize {
        self.config.ahead
    }

    /// The one study that is sought.
    ///
    /// # Errors
    /// [`SourceError::NotFound`] and [`SourceError::Several`]; and where it cannot be asked.
    pub fn find(&self, sought: &Sought, go_on: &dyn Fn() -> bool) -> Result<FoundStudy, SourceError> {
        let matches = match &self.config.url {
            Some(url) => self.find_on_web(url, sought, MAX_STUDIES)?,
            None => self.asked(go_on, |asked| {
                let (number, uid) = match sought {
                    Sought::Accession(number) => (Some(number.as_str()), None),
                    Sought::Study(uid) => (None, Some(uid.as_str())),
                };
                let found = asked.find(studies_named(number, uid), MAX_STUDIES)?;
                found.identifiers.into_iter().map(|one| StudyMatch::read(one).map_err(|error| unreadable(error).into())).collect()
            })?,
        };
        // A PACS that knows no such key, or folds case, answers with more than was asked for.
        let mut exact: Vec<StudyMatch> = matches.into_iter().filter(|found| is_it(found, sought)).collect();
        exact.sort_by(|a, b| a.study_uid.cmp(&b.study_uid));
        exact.dedup_by(|a, b| a.study_uid == b.study_uid);
        let (of, accession_number) = match sought {
            Sought::Accession(number) => ("accession number", Some(number.clone())),
            Sought::Study(_) => ("Study Instance UID", None),
        };
        match exact.len() {
            0 => Err(SourceError::NotFound { of }),
            1 => {
                let StudyMatch { study_uid, instances, modalities, .. } = exact.remove(0);
                Ok(FoundStudy { study_uid, accession_number, instances, modalities })
            }
            count => Err(SourceError::Several { count }),
        }
    }

    /// Does `what` until it succeeds or fails for good, as often as the configuration says; `say` hears of each failure that may pass.
    ///
    /// # Errors
    /// The last one of `what`.
    pub fn patiently<T>(
        &self,
        go_on: &dyn Fn() -> bool,
        say: &dyn Fn(String),
        mut what: impl FnMut() -> Result<T, SourceError>,
    ) -> Result<T, SourceError> {
        let mut wait = Duration::from_secs(self.config.retry_s).min(LONGEST_WAIT);
        let mut attempt = 1;
        loop {
            match what() {
                Err(error) if error.may_pass() && attempt < self.config.attempts && go_on() => {
                    let (of, seconds) = (self.config.attempts, wait.as_secs());
                    say(format!("{error}; attempt {attempt} of {of}, again in {seconds} s"));
                    let until = Instant::now() + wait;
                    while go_on() && Instant::now() < until {
                        thread::sleep(POLL);
                    }
                    wait = (wait * 2).min(LONGEST_WAIT);
                    attempt += 1;
                }
                ended => return ended,
            }
        }
    }

    /// The series with images of a study.
    fn series(&self, study_uid: &str, go_on: &dyn Fn() -> bool) -> Result<Vec<SeriesMatch>, SourceError> {
        match &self.config.url {
            Some(url) => {
                let series = self.series_on_web(url, study_uid)?;
                Ok(series.into_iter().filter(|series| has_images(&series.modality)).collect())
            }
            None => self.asked(go_on, |asked| Ok(asked.series(study_uid)?)),
        }
    }

    /// By DIMSE.
    fn asked<T>(&self, go_on: &dyn Fn() -> bool, question: impl FnOnce(&Asked<'_>) -> Result<T, SourceError>) -> Result<T, SourceError> {
        let settings = self.current.get();
        let archive = self.archive.as_ref().expect("a source has an archive or a URL");
        let until = Instant::now() + Duration::from_secs(self.config.study_s);
        question(&Asked { settings: &settings, archive, until, go_on })
    }

    /// Begins to fetch: what comes lies in `folder`, which is this process's alone.
    ///
    /// # Errors
    /// Where the folder or the address for C-MOVE cannot be used.
    pub fn begin(&self, folder: &Path) -> Result<Fetcher<'_>, SourceError> {
        let failed = |what| move |source| SourceError::Io { what, source };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(failed("start a thread"))?;
        let settings = self.current.get();
        let store = runtime.block_on(Store::open(folder, settings.store.keep_free_mb))?;
        let metrics = Arc::new(Metrics::default());
        let mut fetcher = Fetcher { source: self, scp: None, store, metrics, runtime, folder: folder.to_owned() };
        if let Some(&address) = settings.listen.first() {
            let listener = TcpListener::bind(address).map_err(failed("listen for what the PACS sends"))?;
            let address = listener.local_addr().map_err(failed("listen for what the PACS sends"))?;
            let (current, store, metrics) = (Arc::clone(&self.current), Arc::clone(&fetcher.store), Arc::clone(&fetcher.metrics));
            let scp = Arc::new(Scp::new(current, store, metrics, fetcher.runtime.handle().clone()));
            let listening = Arc::clone(&scp);
            let thread = thread::Builder::new().name("listener".into()).spawn(move || listening.listen(&listener, None));
            fetcher.scp = Some(Listening { scp, address, thread: Some(thread.map_err(failed("start a thread"))?) });
        }
        Ok(fetcher)
    }
}

fn is_it(found: &StudyMatch, sought: &Sought) -> bool {
    match sought {
        Sought::Accession(number) => found.accession_number.trim() == number,
        Sought::Study(uid) => found.study_uid == *uid,
    }
}

/// The Storage SCP that a PACS calls for C-MOVE.
struct Listening {
    scp: Arc<Scp>,
    address: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.scp.stopping.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address); // so that the listener looks up
        let until = Instant::now() + GRACE;
        while self.scp.open_associations() > 0 && Instant::now() < until {
            thread::sleep(POLL);
        }
        self.thread.take().map(JoinHandle::join);
    }
}

/// Brings studies here, and takes them away again. Its folder goes with it.
pub struct Fetcher<'s> {
    source: &'s Source,
    /// Ends before the store does.
    scp: Option<Listening>,
    store: Arc<Store>,
    metrics: Arc<Metrics>,
    runtime: Runtime,
    folder: PathBuf,
}

impl Fetcher<'_> {
    /// Brings a study here: its files, until [`Fetcher::release`].
    ///
    /// # Errors
    /// Where it does not come whole, or something else comes. What has come of it lies here until it is released, too.
    pub fn fetch(&self, study: &FoundStudy, go_on: &dyn Fn() -> bool) -> Result<Vec<PathBuf>, SourceError> {
        let study_uid = study.study_uid.as_str();
        let census = census(&self.source.series(study_uid, go_on)?);
        let (failed, calling) = match &self.source.config.url {
            Some(url) => {
                self.retrieve_from_web(url, study, go_on)?;
                (0, web::CALLING.to_owned())
            }
            None => self.source.asked(go_on, |asked| {
                let title = asked.archive.ae_title.0.as_str().to_owned();
                let mut arrivals = Arrivals::new(&self.store, &title);
                let mut intake = Intake { store: &self.store, metrics: &self.metrics, arrivals: &mut arrivals };
                let retrieved = asked.retrieve(study_uid, &mut intake, false);
                arrivals.end(retrieved.is_ok());
                Ok((retrieved?.failed, title))
            })?,
        };
        self.store.flush();
        let uid = || study.study_uid.clone();
        if self.runtime.block_on(self.store.other_patients(study_uid, &calling))? {
            return Err(SourceError::SeveralPatients { study_uid: uid() });
        }
        let (here, of_series) = self.runtime.block_on(jobs::here(self.store.pool(), study_uid, &census))?;
        let lacking = if census.is_empty() { i64::from(failed).max(i64::from(here == 0)) } else { of_series };
        if lacking > 0 || here == 0 {
            let [lacking, here] = [lacking.max(1), here].map(|count| u64::try_from(count).unwrap_or_default());
            let named: u64 = census.values().map(|&count| u64::from(count)).sum();
            return Err(SourceError::Lacking { lacking, expected: named.max(here + lacking), study_uid: uid() });
        }
        let files = self.runtime.block_on(self.store.files_of_study(study_uid))?;
        check_accession(&files, study)?;
        Ok(files)
    }

    /// Takes a study away.
    pub fn release(&self, study_uid: &str) {
        let files = self.runtime.block_on(self.store.files_of_study(study_uid)).unwrap_or_default();
        let quarantine = fs::read_dir(self.folder.join("quarantine")).into_iter().flatten().flatten().map(|entry| entry.path());
        for file in files.into_iter().chain(quarantine) {
            let _ = fs::remove_file(file); // it goes with the folder at the latest
        }
    }
}

impl Drop for Fetcher<'_> {
    fn drop(&mut self) {
        self.scp = None;
        let _ = fs::remove_dir_all(&self.folder); // the next run removes it otherwise
    }
}

/// What came states the accession number that was asked for, and no other.
fn check_accession(files: &[PathBuf], study: &FoundStudy) -> Result<(), SourceError> {
    let Some(number) = &study.accession_number else { return Ok(()) };
    let (mut same, mut other) = (0, 0);
    for file in files {
        match accession_number_of(&Instance::read(file)?)?.trim() {
            "" => {} // what a workstation adds may state none
            stated if stated == number => same += 1,
            _ => other += 1,
        }
    }
    match (other, same) {
        (0, 1..) => Ok(()),
        (0, 0) => Err(SourceError::NoAccession { study_uid: study.study_uid.clone() }),
        (count, _) => Err(SourceError::OtherAccession { count, study_uid: study.study_uid.clone() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_means_itself_is_asked_for() {
        for (text, expected) in [
            ("A17", true),
            ("2024-0017/b", true),
            ("A 17", true),
            ("", false),
            ("A*", false),
            ("A?", false),
            ("A\\B", false),
            (" A", false),
            ("M\u{fc}1", false),
            ("A\n", false),
            ("12345678901234567", false),
        ] {
            assert_eq!(is_accession_number(text), expected, "{text:?}");
        }
    }
}
