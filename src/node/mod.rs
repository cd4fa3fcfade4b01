//! The DICOM node: receives studies, runs packages on them, sends the results on.
//!
//! ```text
//! scp      a thread an association       -> store (sealed, synced, then acknowledged)
//! store    the indexer                   -> database
//! node     the assembler                 complete studies -> jobs
//! worker   one thread, and a lane        jobs -> results and deliveries
//! priors   a thread an archive           jobs that wait for earlier studies -> store, jobs
//! census   one thread                    quiet studies -> what their source says of them
//! deliver  a thread a destination        deliveries -> their Storage SCP, and what it says of commitment -> deliveries
//! reporter one thread                    answers to those who asked us for commitment
//! retention, alerts                      a thread each: what is old goes, what is wrong is told
//! ```
//!
//! They share nothing but store and database: each can stop or crash at any point and goes on from what is there.

mod alerts;
mod archive;
mod arrivals;
mod census;
mod classes;
mod commitment;
mod config;
mod deliver;
mod dicomweb;
mod http;
mod lane;
mod metrics;
mod plan;
mod post;
mod priors;
mod retention;
mod scp;
mod server;
mod settings;
mod source;
mod tls;
mod trail;
mod worker;

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::runtime::Handle;
use tokio::sync::Notify;

pub use config::{Config, ConfigError, LogFormat};
use config::{Incomplete, PackageConfig};
pub use source::{Fetcher, FoundStudy, Sought, Source, SourceError, is_accession_number};

use crate::dimse::{Association, Channel};
use crate::engine::{EngineError, Options};
use crate::geometry::Coded;
use crate::jobs::{self, Left, Quiet, Waits};
use crate::model::ModelError;
use crate::store::{AuditRecord, Store, StoreError};
use alerts::{Alerts, Board};
use census::{Censor, asked_senders};
use commitment::Reporter;
use deliver::Senders;
use metrics::Metrics;
use priors::Fetchers;
use retention::Retention;
use scp::Scp;
use settings::{Current, Settings, needs_restart};
use worker::Worker;

/// An association over any kind of connection.
type Link = Association<Box<dyn Channel>>;

/// How often studies are looked at.
const ASSEMBLY: Duration = Duration::from_millis(200);
/// How long associations that are open may go on after a stop was asked for.
const GRACE: Duration = Duration::from_secs(10);
/// How often those who wait for their turn look whether the node stops.
const POLL: Duration = Duration::from_millis(200);

/// Does `turn` until `stopping`; each says when the next one is due.
fn repeat(stopping: &AtomicBool, mut turn: impl FnMut() -> Instant) {
    let mut next = Instant::now();
    while !stopping.load(Ordering::SeqCst) {
        if Instant::now() < next {
            thread::sleep(POLL);
        } else {
            next = turn();
        }
    }
}

/// Why a node does not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NodeError {
    /// Its configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Its store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A package is not there or wrong.
    #[error("package `{name}`: {source}")]
    Package {
        /// Its name in the configuration.
        name: String,
        /// Why.
        source: ModelError,
    },
    /// A package cannot be run here.
    #[error("package `{name}`: {source}")]
    Engine {
        /// Its name in the configuration.
        name: String,
        /// Why.
        source: Box<EngineError>,
    },
    /// An address cannot be listened at.
    #[error("cannot listen at {address}: {source}")]
    Listen {
        /// Which one.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A thread cannot be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] io::Error),
}

impl Coded for NodeError {
    fn code(&self) -> &'static str {
        match self {
            Self::Config(error) => error.code(),
            Self::Store(error) => error.code(),
            Self::Package { source, .. } => source.code(),
            Self::Engine { source, .. } => source.code(),
            Self::Listen { .. } => "node.listen",
            Self::Thread(_) => "node.thread",
        }
    }
}

/// A node at work.
pub struct Node {
    current: Arc<Current>,
    /// What packages are loaded with.
    options: Options,
    scp: Arc<Scp>,
    store: Arc<Store>,
    /// Where associations are taken.
    addresses: Vec<SocketAddr>,
    /// Where the HTTP interface is.
    http: Option<SocketAddr>,
    stopping: Arc<AtomicBool>,
    given_up: Arc<Notify>,
    listeners: Vec<JoinHandle<()>>,
    threads: Vec<JoinHandle<()>>,
}

impl Node {
    /// Opens the store, takes up what a crash left, and begins to listen. Runs on the current Tokio runtime and threads of its own.
    ///
    /// # Errors
    /// [`NodeError`]; nothing is left running then.
    pub async fn start(config: Config, options: Options) -> Result<Self, NodeError> {
        let store = Store::open(&config.data, config.store.keep_free_mb).await?;
        for job in jobs::recover(store.pool()).await? {
            tracing::error!(job, "a job took the process down twice and is in quarantine");
        }
        jobs::let_go(store.pool(), None).await?;
        let metrics = Arc::new(Metrics::default());
        let runtime = Handle::current();
        let (settings, engines, options) = tokio::task::spawn_blocking(move || {
            let settings = Settings::load(config)?;
            let engines = lane::load(&settings.package.iter().collect::<Vec<_>>(), &options)?;
            Ok::<_, NodeError>((settings, engines, options))
        })
        .await
        .map_err(io::Error::other)??;
        let current = Arc::new(Current::new(settings));
        let settings = current.get();
        let mut bound = Vec::new();
        let tls = settings.tls_listen.iter().enumerate().map(|(n, listen)| (listen.address, Some(n)));
        for (address, tls) in settings.listen.iter().map(|&address| (address, None)).chain(tls) {
            bound.push((TcpListener::bind(address).map_err(|source| NodeError::Listen { address, source })?, tls));
        }
        let addresses = bound.iter().map(|(listener, _)| listener.local_addr()).collect::<Result<Vec<_>, _>>()?;
        let scp = Arc::new(Scp::new(Arc::clone(&current), Arc::clone(&store), Arc::clone(&metrics), runtime.clone()));
        let board = Arc::new(Board::default());
        let http = http::start(&current, &store, &scp, &board).await?;

        let (stopping, given_up) = (Arc::new(AtomicBool::new(false)), Arc::new(Notify::new()));
        let (listeners, threads) = (Vec::new(), Vec::new());
        let mut node = Self { current, options, scp, store, addresses, http, stopping, given_up, listeners, threads };
        for (listener, tls) in bound {
            let scp = Arc::clone(&node.scp);
            let thread = thread::Builder::new().name("listener".into()).spawn(move || scp.listen(&listener, tls))?;
            node.listeners.push(thread);
        }
        let shared = || (Arc::clone(&node.current), Arc::clone(&node.store), Arc::clone(&metrics), runtime.clone());
        let (current, store, metrics, runtime) = shared();
        let (options, given_up) = (node.options.clone(), Arc::clone(&node.given_up));
        let worker = Worker { current, store, metrics, runtime, options, given_up };
        let (current, store, metrics, runtime) = shared();
        let senders = Senders { current, store, metrics, runtime };
        let (current, store, _, runtime) = shared();
        let reporter = Reporter { current, store, runtime };
        let (current, store, metrics, runtime) = shared();
        let fetchers = Fetchers { current, store, metrics, runtime };
        let (current, store, _, runtime) = shared();
        let censor = Censor { current, store, runtime };
        let (current, store, _, runtime) = shared();
        let assembler = Assembler { current, store, runtime };
        let (current, store, _, runtime) = shared();
        let retention = Retention { current, store, runtime };
        let (current, store, _, runtime) = shared();
        let alerts = Alerts { current, store, runtime, board };
        node.thread("worker", move |stopping| worker.run(engines, stopping))?;
        node.thread("retention", move |stopping| retention.run(stopping))?;
        node.thread("alerts", move |stopping| alerts.run(stopping))?;
        node.thread("senders", move |stopping| senders.run(stopping))?;
        node.thread("fetchers", move |stopping| fetchers.run(stopping))?;
        node.thread("censor", move |stopping| censor.run(stopping))?;
        node.thread("reporter", move |stopping| reporter.run(stopping))?;
        node.thread("assembler", move |stopping| assembler.run(stopping))?;
        node.store.audit(AuditRecord::activity("started"));
        Ok(node)
    }

    /// Goes by the configuration at `path` from now on, as a whole or not at all: what begins does, what has begun ends as it began.
    /// Certificates are read again. Blocks: not for an asynchronous task.
    ///
    /// # Errors
    /// What is wrong with it, or needs a restart; all goes on as before then.
    pub fn reload(&self, path: &Path) -> Result<(), NodeError> {
        let replaced = Config::read(path).map_err(NodeError::from).and_then(|config| self.replace(config));
        let subject = self.current.get().sha256();
        self.store.audit(AuditRecord::configuration(&subject, replaced.as_ref().err().map(Coded::code)));
        replaced
    }

    fn replace(&self, config: Config) -> Result<(), NodeError> {
        let old = self.current.get();
        needs_restart(&old, &config)?;
        let settings = Settings::load(config)?;
        let loaded = |package: &PackageConfig| old.package.iter().any(|old| old.name == package.name && old.results == package.results);
        let missing: Vec<&PackageConfig> = settings.package.iter().filter(|package| !loaded(package)).collect();
        let engines = lane::load(&missing, &self.options)?;
        self.current.replace(settings, engines);
        Ok(())
    }

    fn thread(&mut self, name: &str, run: impl FnOnce(&Arc<AtomicBool>) + Send + 'static) -> io::Result<()> {
        let stopping = Arc::clone(&self.stopping);
        self.threads.push(thread::Builder::new().name(name.into()).spawn(move || run(&stopping))?);
        Ok(())
    }

    /// Where associations are taken.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where the HTTP interface is.
    pub fn http(&self) -> Option<SocketAddr> {
        self.http
    }

    /// Comes when the node has given up running jobs, as too many runs did not end: it is to be stopped, and started again.
    pub async fn given_up(&self) {
        self.given_up.notified().await;
    }

    /// Takes no more associations, waits a while for those that are open and for the job that runs, and enters all that is sealed.
    /// Blocks: not for an asynchronous task.
    pub fn stop(self) {
        self.scp.stopping.store(true, Ordering::SeqCst);
        self.stopping.store(true, Ordering::SeqCst);
        for address in &self.addresses {
            let _ = TcpStream::connect(address); // so that the listener looks up
        }
        let until = Instant::now() + GRACE;
        while self.scp.open_associations() > 0 && Instant::now() < until {
            thread::sleep(Duration::from_millis(20));
        }
        for thread in self.listeners.into_iter().chain(self.threads) {
            let _ = thread.join(); // a panic there was told there
        }
        self.store.audit(AuditRecord::activity("stopped"));
        self.store.flush();
        match self.scp.runtime.block_on(jobs::left(self.store.pool())) {
            Ok(Left { deliveries, jobs }) => tracing::info!("stopped: {deliveries} deliveries due, {jobs} jobs queued"),
            Err(error) => tracing::error!(%error, "stopped, and what is left cannot be counted"),
        }
    }
}

/// Makes jobs of studies that are complete.
struct Assembler {
    current: Arc<Current>,
    store: Arc<Store>,
    runtime: Handle,
}

impl Assembler {
    fn run(&self, stopping: &AtomicBool) {
        while !stopping.load(Ordering::SeqCst) {
            let settings = self.current.get();
            let [quiet_ms, cut_off_ms] = [settings.study.quiet_s, settings.study.cut_off_s].map(config::millis);
            let hold_incomplete = settings.study.incomplete == Incomplete::Hold;
            let waits = Waits { quiet_ms, cut_off_ms, hold_incomplete, asked_senders: asked_senders(&settings) };
            let is_open = |study_uid: &str| self.store.is_open(study_uid);
            let quiet = self.runtime.block_on(jobs::quiet(self.store.pool(), &waits, is_open));
            let completed = quiet.and_then(|quiet| quiet.iter().try_for_each(|study| self.complete(&settings, study)));
            if let Err(error) = completed {
                tracing::error!(%error, "studies cannot be completed, trying again");
            }
            thread::sleep(ASSEMBLY);
        }
    }

    fn complete(&self, settings: &Config, quiet: &Quiet) -> Result<(), StoreError> {
        let planned = plan::planned(settings, &self.store, &self.runtime, &quiet.study_uid)?;
        if self.runtime.block_on(jobs::complete(self.store.pool(), quiet, &planned))? {
            tracing::info!(study = quiet.study_uid, reason = quiet.reason(), "a study is complete");
        }
        Ok(())
    }
}
