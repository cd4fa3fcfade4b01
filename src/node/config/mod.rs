//! The node's configuration: typed, every default written out, checked before it is used.

mod check;
mod sections;
mod source;
#[cfg(test)]
mod tests;
mod text;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use check::check_url;
pub use sections::LogFormat;
pub(super) use sections::{
    AlertConfig, Archive, Destination, DeviceLoss, HttpConfig, Incomplete, Limits, PackageConfig, Peer, PriorsConfig, Reached,
    RetainConfig, Retrieve, Rule, StoreConfig, StudyConfig, TlsClient, TlsListen, WorkerConfig, millis,
};
pub(super) use source::SourceConfig;
pub(super) use text::Text;

use crate::dimse::{AeTitle, Patience};
use crate::geometry::Coded;

/// Why a configuration is not used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration: {0}")]
    Io(#[from] std::io::Error),
    /// It is no TOML, or has a field or value that there is not; says line and column.
    #[error("{0}")]
    Toml(Box<toml::de::Error>),
    /// Its values do not fit each other.
    #[error("{field}: {problem}")]
    Value {
        /// Which one.
        field: String,
        /// What is wrong and what to do.
        problem: String,
    },
}

impl Coded for ConfigError {
    fn code(&self) -> &'static str {
        match self {
            Self::Io(_) => "node.config-io",
            Self::Toml(_) => "node.config-toml",
            Self::Value { .. } => "node.config-value",
        }
    }
}

/// What a node is and does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Folder for everything that is received, made and known.
    pub data: PathBuf,
    /// How the log is written.
    pub log: LogFormat,
    /// Our title, which callers must name.
    pub ae_title: Text<AeTitle>,
    /// Where associations are taken.
    pub listen: Vec<SocketAddr>,
    /// Where they are taken by TLS.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tls_listen: Vec<TlsListen>,
    /// Whose associations are taken; nobody's where none is listed.
    pub peer: Vec<Peer>,
    /// How much at a time, and how long.
    pub limits: Limits,
    /// What is kept.
    pub store: StoreConfig,
    /// When a study is complete.
    pub study: StudyConfig,
    /// How long it is kept.
    pub retain: RetainConfig,
    /// What is run on studies.
    pub package: Vec<PackageConfig>,
    /// What is done otherwise with some studies.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rule: Vec<Rule>,
    /// On what it is run.
    pub worker: WorkerConfig,
    /// Where results go.
    pub destination: Vec<Destination>,
    /// Where earlier studies come from, and how many instances a study has.
    pub archive: Vec<Archive>,
    /// What people are told of.
    pub alert: AlertConfig,
    /// The HTTP interface.
    pub http: HttpConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data: "roentgen-node".into(),
            log: LogFormat::default(),
            ae_title: Text("ROENTGEN".parse().expect("a title")),
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 11112))],
            tls_listen: Vec::new(),
            peer: Vec::new(),
            limits: Limits::default(),
            store: StoreConfig::default(),
            study: StudyConfig::default(),
            retain: RetainConfig::default(),
            package: Vec::new(),
            rule: Vec::new(),
            worker: WorkerConfig::default(),
            destination: Vec::new(),
            archive: Vec::new(),
            alert: AlertConfig::default(),
            http: HttpConfig::default(),
        }
    }
}

impl Config {
    /// Reads and checks the configuration at `path`. Relative folders are below the file's own.
    ///
    /// # Errors
    /// [`ConfigError`], with line and column where it is one of form.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let mut config: Self = std::fs::read_to_string(path)?.parse()?;
        let folder = path.parent().unwrap_or(Path::new("."));
        config.data = folder.join(&config.data);
        config.http.token_file = config.http.token_file.map(|file| folder.join(file));
        for file in config.tls_files() {
            *file = folder.join(&file);
        }
        for destination in &mut config.destination {
            destination.token_file = destination.token_file.take().map(|file| folder.join(file));
        }
        Ok(config)
    }

    fn tls_files(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let listeners = self.tls_listen.iter_mut().flat_map(|tls| [&mut tls.certificate, &mut tls.key, &mut tls.client_ca]);
        let of_destinations = self.destination.iter_mut().filter_map(|destination| destination.tls.as_mut());
        let of_archives = self.archive.iter_mut().filter_map(|archive| archive.tls.as_mut());
        let called = of_destinations.chain(of_archives).chain(self.peer.iter_mut().filter_map(|peer| peer.tls.as_mut()));
        let http = self.http.tls.iter_mut().flat_map(|tls| [&mut tls.certificate, &mut tls.key].into_iter().chain(&mut tls.client_ca));
        listeners.chain(http).chain(called.flat_map(|tls| tls.certificate.iter_mut().chain(&mut tls.key).chain([&mut tls.ca])))
    }

    /// As TOML with every default.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("a configuration has text keys only")
    }

    /// How long peers may take.
    pub fn patience(&self) -> Patience {
        let Limits { artim_s, idle_s, pdu_s, .. } = self.limits;
        Patience { artim: Duration::from_secs(artim_s), idle: Duration::from_secs(idle_s), pdu: Duration::from_secs(pdu_s) }
    }

    /// Whether anybody of that title may call, and from that address.
    pub fn admits(&self, calling: &AeTitle, from: IpAddr) -> bool {
        // What comes through an IPv6 socket may be an IPv4 address in disguise.
        let from = from.to_canonical();
        self.peer.iter().any(|peer| peer.ae_title.0 == *calling && peer.from.iter().any(|network| network.0.contains(from)))
    }
}

impl FromStr for Config {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|error| ConfigError::Toml(Box::new(error)))?;
        config.check()?;
        Ok(config)
    }
}
