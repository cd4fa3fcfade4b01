//! The DICOM node: receives studies, runs packages on them, sends the results on.
//!
//! ```text
//! scp      a thread an association       -> store (sealed, synced, then acknowledged)
//! store    the indexer                   -> database
//! node     the assembler                 complete studies -> jobs
//! worker   one thread                    jobs -> results and deliveries
//! deliver  a thread a destination        deliveries -> their Storage SCP, and what it says of commitment -> deliveries
//! reporter one thread                    answers to those who asked us for commitment
//! ```
//!
//! They share nothing but store and database: each can stop or crash at any point and goes on from what is there.

mod classes;
mod commitment;
mod config;
mod deliver;
mod http;
mod metrics;
mod scp;
mod worker;

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::runtime::Handle;

pub use config::{Config, ConfigError};

use crate::dimse::{Association, Channel, DimseError, Proposal, dial};
use crate::engine::{EngineError, Options};
use crate::geometry::Coded;
use crate::jobs::{self, Planned};
use crate::model::ModelError;
use crate::store::{AuditRecord, Store, StoreError};
use commitment::Reporter;
use deliver::Sender;
use metrics::Metrics;
use scp::Scp;
use worker::Worker;

/// An association over any kind of connection.
type Link = Association<Box<dyn Channel>>;

/// Asks for an association with whoever is at `address`.
fn link(address: &str, proposal: &Proposal, config: &Config) -> Result<Link, DimseError> {
    let patience = config.patience();
    Association::request(Box::new(dial(address, patience)?), &proposal.associate(), patience)
}

/// How often studies are looked at.
const ASSEMBLY: Duration = Duration::from_millis(200);
/// How long associations that are open may go on after a stop was asked for.
const GRACE: Duration = Duration::from_secs(10);

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
    scp: Arc<Scp>,
    store: Arc<Store>,
    /// Where associations are taken.
    addresses: Vec<SocketAddr>,
    /// Where the HTTP interface is.
    http: Option<SocketAddr>,
    stopping: Arc<AtomicBool>,
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
        let loaded = {
            let (config, store, metrics, runtime) = (config.clone(), Arc::clone(&store), Arc::clone(&metrics), runtime.clone());
            tokio::task::spawn_blocking(move || Worker::new(config, store, metrics, runtime, options))
        };
        let mut worker = loaded.await.map_err(io::Error::other)??;
        let mut bound = Vec::new();
        for &address in &config.listen {
            bound.push(TcpListener::bind(address).map_err(|source| NodeError::Listen { address, source })?);
        }
        let addresses = bound.iter().map(TcpListener::local_addr).collect::<Result<Vec<_>, _>>()?;
        let scp = Arc::new(Scp::new(config.clone(), Arc::clone(&store), Arc::clone(&metrics), runtime.clone()));
        let http = http::start(&config, &store, &scp).await?;

        let stopping = Arc::new(AtomicBool::new(false));
        let mut node = Self { scp, store, addresses, http, stopping, listeners: Vec::new(), threads: Vec::new() };
        for listener in bound {
            let scp = Arc::clone(&node.scp);
            let thread = thread::Builder::new().name("listener".into()).spawn(move || scp.listen(&listener))?;
            node.listeners.push(thread);
        }
        node.thread("worker", move |stopping| worker.run(stopping))?;
        for destination in &config.destination {
            let (destination, config, metrics) = (destination.clone(), config.clone(), Arc::clone(&metrics));
            let sender = Sender { config, destination, store: Arc::clone(&node.store), metrics, runtime: runtime.clone() };
            node.thread("sender", move |stopping| sender.run(stopping))?;
        }
        let reporter = Reporter { config: config.clone(), store: Arc::clone(&node.store), runtime: runtime.clone() };
        node.thread("reporter", move |stopping| reporter.run(stopping))?;
        let assembler = Assembler { config, store: Arc::clone(&node.store), runtime };
        node.thread("assembler", move |stopping| assembler.run(stopping))?;
        node.store.audit(AuditRecord::activity("started"));
        Ok(node)
    }

    fn thread(&mut self, name: &str, run: impl FnOnce(&AtomicBool) + Send + 'static) -> io::Result<()> {
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
    }
}

/// Makes jobs of studies that are complete.
struct Assembler {
    config: Config,
    store: Arc<Store>,
    runtime: Handle,
}

impl Assembler {
    fn run(&self, stopping: &AtomicBool) {
        let planned = planned(&self.config);
        let [quiet_ms, cut_off_ms] =
            [self.config.study.quiet_s, self.config.study.cut_off_s].map(|s| i64::try_from(s.saturating_mul(1000)).unwrap_or(i64::MAX / 2));
        while !stopping.load(Ordering::SeqCst) {
            let is_open = |study_uid: &str| self.store.is_open(study_uid);
            match self.runtime.block_on(jobs::complete(self.store.pool(), quiet_ms, cut_off_ms, is_open, &planned)) {
                Ok(studies) => studies.iter().for_each(|study| tracing::info!(study, "a study is complete")),
                Err(error) => tracing::error!(%error, "studies cannot be completed, trying again"),
            }
            thread::sleep(ASSEMBLY);
        }
    }
}

/// The jobs of each study.
fn planned(config: &Config) -> Vec<Planned> {
    config.package.iter().map(|p| Planned { package: p.name.clone(), urgent: p.urgent }).collect()
}
