//! `roentgen serve`: the DICOM node.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use tracing_subscriber::EnvFilter;

use super::notify::notify;
use super::{Outcome, text};
use crate::engine::Options;
use crate::geometry::Coded;
use crate::infer::AtOnce;
use crate::node::{Config, LogFormat, Node};

/// Run as a DICOM node: take studies by C-STORE, run packages on them, send the results on.
///
/// An instance is acknowledged when it is on disk, and then it is never lost; a result goes to each
/// destination once in effect, however often it must be sent. Nobody may call who is not listed in
/// the configuration, and nothing is connected to that is not.
///
/// SIGHUP has the configuration and its certificates read again: a wrong one is refused and the old one
/// stays; what has begun ends as it began. Addresses, folders and devices need a restart.
///
/// Stops on SIGTERM and Ctrl-C: takes no more associations, lets those that are open and the job
/// that runs come to an end. A kill loses nothing that was acknowledged.
///
/// The log goes to stderr, as the configuration's `log` says, or as JSON with `--log-json`; ROENTGEN_LOG
/// sets what is logged (`info`). systemd is told when the node is ready (Type=notify).
#[derive(Args)]
#[command(after_help = super::EXIT_CODES, verbatim_doc_comment)]
pub(super) struct Serve {
    /// The configuration, TOML.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Print the configuration with every default, and end.
    #[arg(long)]
    print_config: bool,

    /// Log in JSON, whatever the configuration says: an object a line.
    #[arg(long)]
    log_json: bool,

    /// The ONNX Runtime library to load, instead of looking for it.
    #[arg(long, value_name = "FILE")]
    ort_lib: Option<PathBuf>,
}

impl Serve {
    pub(super) fn run(self) -> anyhow::Result<Outcome> {
        let config = match &self.config {
            Some(path) => Config::read(path).with_context(|| format!("{}", path.display()))?,
            None if self.print_config => Config::default(),
            None => anyhow::bail!("no configuration: begin with `roentgen serve --print-config > node.toml`"),
        };
        if self.print_config {
            text::print(&config.to_toml());
            return Ok(Outcome::AllDone);
        }
        let filter = EnvFilter::try_from_env("ROENTGEN_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
        let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
        if self.log_json || config.log == LogFormat::Json {
            log.json().init()
        } else {
            log.init()
        }
        std::panic::set_hook(Box::new(log_panic));
        let options = Options {
            device: config.worker.device.parse().map_err(|e| anyhow::anyhow!("worker.device: {e}"))?,
            provider: config.worker.provider.parse().map_err(|e| anyhow::anyhow!("worker.provider: {e}"))?,
            at_once: AtOnce { sessions: config.worker.sessions.into(), patches: config.worker.patches.into() },
            onnxruntime_library: self.ort_lib,
            ..Options::default()
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let mut signals = runtime.block_on(async { Signals::new() })?;
        let node = runtime.block_on(Node::start(config, options))?;
        for address in node.addresses() {
            tracing::info!(%address, "listening for associations");
        }
        if let Some(address) = node.http() {
            tracing::info!(%address, "listening for HTTP");
        }
        notify("READY=1");
        let mut given_up = false;
        while let Event::Reload = runtime.block_on(async {
            tokio::select! {
                event = signals.next() => event,
                () = node.given_up() => { given_up = true; Event::Stop }
            }
        }) {
            notify("RELOADING=1");
            let path = self.config.as_deref().expect("a node runs by a configuration");
            match node.reload(path) {
                Ok(()) => tracing::info!("the configuration is replaced"),
                Err(error) => {
                    let problem = error.to_string();
                    tracing::error!(
                        problem = problem.trim_end(),
                        code = error.code(),
                        "the new configuration is refused, the old one stays"
                    );
                }
            }
            notify("READY=1");
        }
        notify("STOPPING=1");
        tracing::info!("stopping");
        node.stop();
        anyhow::ensure!(!given_up, "runs do not end, see the log: start the node again");
        Ok(Outcome::AllDone)
    }
}

/// Says where a promise was broken. What was formatted into the message may be of a patient, and is not told.
fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let message = panic.payload().downcast_ref::<&'static str>().copied().unwrap_or("a message with values, left out");
    tracing::error!(place, message, "a panic");
}

/// What somebody wants of a node that runs.
enum Event {
    Reload,
    Stop,
}

/// Listens for signals from its making on: what comes while one is answered is not lost.
#[cfg(unix)]
struct Signals([tokio::signal::unix::Signal; 3]);

#[cfg(unix)]
impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self([signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?]))
    }

    async fn next(&mut self) -> Event {
        let [interrupt, terminate, hang_up] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => Event::Stop,
            _ = terminate.recv() => Event::Stop,
            _ = hang_up.recv() => Event::Reload,
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> Event {
        let _ = tokio::signal::ctrl_c().await; // without signals there is nothing but a stop
        Event::Stop
    }
}
