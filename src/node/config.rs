//! The node's configuration: typed, every default written out, checked before it is used.

use std::collections::HashSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::dimse::{AeTitle, Patience};
use crate::geometry::Coded;
use crate::jobs::Retry;
use crate::results::Forms;

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
    /// What is run on studies.
    pub package: Vec<PackageConfig>,
    /// On what it is run.
    pub worker: WorkerConfig,
    /// Where results go.
    pub destination: Vec<Destination>,
    /// The HTTP interface.
    pub http: HttpConfig,
}

/// A listener for TLS 1.2 and 1.3 (BCP 195). Its files are read again when the configuration is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsListen {
    /// Where it listens; 2762 is the port that is registered for this.
    pub address: SocketAddr,
    /// Our certificate and those between it and the authority, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// The authorities whose certificates callers must show, PEM.
    pub client_ca: PathBuf,
}

/// How a peer is called by TLS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsClient {
    /// The certificate that we show, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// The authorities whose certificates the peer must show, PEM.
    pub ca: PathBuf,
    /// The name in the peer's certificate (a Subject Alternative Name), where it is not the host of its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Who may call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Its title.
    pub ae_title: Text<AeTitle>,
    /// The addresses or networks (`10.1.0.0/16`) that it may call from.
    pub from: Vec<Text<Network>>,
    /// `host:port` where it takes our answers to its requests for storage commitment, where it does not wait for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// How it is called there, where not by plain TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsClient>,
}

/// Bounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Associations at a time; one more is rejected as "local limit exceeded".
    pub associations: usize,
    /// Instances of one association that may wait for the disk at once, where the peer offers asynchronous operations; 1 to 256.
    pub operations: u16,
    /// For a request after the connection, and for the end after a release.
    pub artim_s: u64,
    /// Between two messages.
    pub idle_s: u64,
    /// For the rest of a PDU once it has begun, and for the next one within a message.
    pub pdu_s: u64,
}

/// What is kept, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreConfig {
    /// Less free space than this, and instances are refused with A700.
    pub keep_free_mb: u64,
    /// Take every storage SOP class, not only those of images and of results.
    pub any_sop_class: bool,
}

/// When a study is complete.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StudyConfig {
    /// Nothing came for this long, and the association that brought the last instance was released.
    pub quiet_s: u64,
    /// The same where it was cut off.
    pub cut_off_s: u64,
}

/// A package that is run on studies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackageConfig {
    /// The name of an installed package, or a folder.
    pub name: String,
    /// The forms of its results.
    #[serde(default = "default_forms")]
    pub results: Text<Forms>,
    /// Names of the destinations that get them.
    #[serde(default)]
    pub deliver: Vec<String>,
    /// Run before all that is not urgent.
    #[serde(default)]
    pub urgent: bool,
}

fn default_forms() -> Text<Forms> {
    Text("sr,seg".parse().expect("these are forms"))
}

/// On what packages are run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WorkerConfig {
    /// As `roentgen run --device`.
    pub device: String,
    /// As `roentgen run --provider`.
    pub provider: String,
    /// How often what may pass is tried.
    pub attempts: u32,
}

/// A Storage SCP that results go to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Destination {
    /// What packages call it.
    pub name: String,
    /// Its title.
    pub ae_title: Text<AeTitle>,
    /// `host:port`.
    pub address: String,
    /// The title that we call it with; ours where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calling: Option<Text<AeTitle>>,
    /// First wait after a failure that may pass; it doubles with each, up to an hour.
    #[serde(default = "default_retry_s")]
    pub retry_s: u64,
    /// How often what may pass is tried before it is dead.
    #[serde(default = "default_delivery_attempts")]
    pub attempts: u32,
    /// Ask for storage commitment: results are at this destination when it has taken responsibility for them, not before.
    #[serde(default)]
    pub commitment: bool,
    /// How long its answer is waited for before it is asked again; twice that after the next time, up to an hour.
    #[serde(default = "default_commitment_timeout_s")]
    pub commitment_timeout_s: u64,
    /// Where it is not called by plain TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsClient>,
}

fn default_commitment_timeout_s() -> u64 {
    300
}

fn default_retry_s() -> u64 {
    5
}

fn default_delivery_attempts() -> u32 {
    1000
}

/// The HTTP interface.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    /// Where it listens; nowhere where none is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// A file with the token that callers show. Without one only this machine is listened to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
}

impl Destination {
    /// How what may pass is tried again.
    pub(super) fn retry(&self) -> Retry {
        Retry { first_ms: millis(self.retry_s), attempts: self.attempts }
    }

    /// How commitment is asked for again.
    pub(super) fn commitment_retry(&self) -> Retry {
        Retry { first_ms: millis(self.commitment_timeout_s), attempts: self.attempts }
    }
}

/// Seconds as milliseconds, as far as there are such.
pub(super) fn millis(seconds: u64) -> i64 {
    i64::try_from(seconds.saturating_mul(1000)).unwrap_or(i64::MAX / 2)
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data: "roentgen-node".into(),
            ae_title: Text("ROENTGEN".parse().expect("a title")),
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 11112))],
            tls_listen: Vec::new(),
            peer: Vec::new(),
            limits: Limits::default(),
            store: StoreConfig::default(),
            study: StudyConfig::default(),
            package: Vec::new(),
            worker: WorkerConfig::default(),
            destination: Vec::new(),
            http: HttpConfig::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { associations: 64, operations: 16, artim_s: 30, idle_s: 60, pdu_s: 30 }
    }
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self { keep_free_mb: 1024, any_sop_class: false }
    }
}

impl Default for StudyConfig {
    fn default() -> Self {
        Self { quiet_s: 5, cut_off_s: 120 }
    }
}

impl Default for WorkerConfig {
    fn default() -> Self {
        Self { device: "auto".into(), provider: "cpu".into(), attempts: 3 }
    }
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self { listen: Some(SocketAddr::from(([127, 0, 0, 1], 11180))), token_file: None }
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
        Ok(config)
    }

    fn tls_files(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let listeners = self.tls_listen.iter_mut().flat_map(|tls| [&mut tls.certificate, &mut tls.key, &mut tls.client_ca]);
        let of_destinations = self.destination.iter_mut().filter_map(|destination| destination.tls.as_mut());
        let called = of_destinations.chain(self.peer.iter_mut().filter_map(|peer| peer.tls.as_mut()));
        listeners.chain(called.flat_map(|tls| [&mut tls.certificate, &mut tls.key, &mut tls.ca]))
    }

    /// As TOML with every default.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("a configuration has text keys only")
    }

    fn check(&self) -> Result<(), ConfigError> {
        let wrong = |field: String, problem: &str| Err(ConfigError::Value { field, problem: problem.into() });
        if self.listen.is_empty() && self.tls_listen.is_empty() {
            return wrong("listen".into(), "no address: nobody can call");
        }
        if self.limits.associations == 0 {
            return wrong("limits.associations".into(), "0: nobody can call");
        }
        if !(1..=256).contains(&self.limits.operations) {
            return wrong("limits.operations".into(), "not between 1 and 256");
        }
        for (field, seconds) in [("artim_s", self.limits.artim_s), ("idle_s", self.limits.idle_s), ("pdu_s", self.limits.pdu_s)] {
            if seconds == 0 {
                return wrong(format!("limits.{field}"), "0: no peer is that fast");
            }
        }
        let mut names = HashSet::new();
        for destination in &self.destination {
            if !names.insert(destination.name.as_str()) {
                return wrong(format!("destination `{}`", destination.name), "there are two of this name");
            }
        }
        let mut packages = HashSet::new();
        for package in &self.package {
            let field = format!("package `{}`", package.name);
            if !packages.insert(package.name.as_str()) {
                return wrong(field, "there are two of this name");
            }
            if let Some(unknown) = package.deliver.iter().find(|name| !names.contains(name.as_str())) {
                return wrong(field, &format!("delivers to `{unknown}`, which is no destination"));
            }
        }
        if self.http.token_file.is_none() && self.http.listen.is_some_and(|address| !address.ip().is_loopback()) {
            return wrong("http.listen".into(), "not on this machine alone: give a token_file, or listen on 127.0.0.1");
        }
        Ok(())
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

/// A value that stands as text in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text<T>(pub T);

impl<T: fmt::Display> Serialize for Text<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for Text<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

/// Addresses with the same first bits: `10.1.0.0/16`; one address where no number of bits is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// Whether `address` is one of them.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                u32::from(network) & mask == u32::from(address) & mask
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0);
                u128::from(network) & mask == u128::from(address) & mask
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no address and no network such as 10.1.0.0/16");
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), |bits| bits.parse().ok().filter(|&bits| bits <= most).ok_or_else(wrong))?;
        Ok(Self { address, bits })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = r#"
ae_title = "NODE"
listen = ["127.0.0.1:0"]

[[peer]]
ae_title = "CT1"
from = ["127.0.0.1", "10.1.0.0/16"]

[[package]]
name = "ct-tissue"
deliver = ["PACS"]

[[destination]]
name = "PACS"
ae_title = "ORTHANC"
address = "127.0.0.1:4242"
tls = { certificate = "node.pem", key = "node.key", ca = "ca.pem" }

[[tls_listen]]
address = "127.0.0.1:2762"
certificate = "node.pem"
key = "node.key"
client_ca = "ca.pem"
"#;

    #[test]
    fn every_default_is_written_out_and_read_again() {
        for text in ["", EXAMPLE] {
            let config: Config = text.parse().expect("a configuration");
            assert_eq!(config.to_toml().parse::<Config>().expect("what we write"), config, "{}", config.to_toml());
        }
    }

    #[test]
    fn a_wrong_one_says_where() {
        for (from, to, expected) in [
            ("ae_title = \"NODE\"", "ae_title = \"\"", "line 2"),
            ("from = [", "form = [", "line 7"),
            ("10.1.0.0/16", "10.1.0.0/33", "line 7"),
            ("deliver = [\"PACS\"]", "deliver = [\"VNA\"]", "package `ct-tissue`: delivers to `VNA`, which is no destination"),
            ("deliver = [\"PACS\"]", "results = \"sr,word\"", "no form of results is called `word`"),
            ("client_ca = \"ca.pem\"", "", "client_ca"),
            ("[[peer]]", "http = { listen = \"0.0.0.0:80\" }\n[[peer]]", "http.listen: not on this machine alone"),
        ] {
            let error = EXAMPLE.replacen(from, to, 1).parse::<Config>().expect_err(to).to_string();
            assert!(error.contains(expected), "{to}: {error}");
        }
    }

    #[test]
    fn a_node_that_nobody_can_call_is_a_mistake() {
        let error = "listen = []".parse::<Config>().expect_err("nowhere").to_string();
        assert!(error.contains("listen: no address"), "{error}");
    }

    #[test]
    fn who_may_call() {
        let config: Config = EXAMPLE.parse().expect("a configuration");
        let title = |text: &str| text.parse::<AeTitle>().expect("a title");
        let from = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert!(config.admits(&title("CT1"), from("127.0.0.1")));
        assert!(config.admits(&title("CT1"), from("::ffff:10.1.200.3")));
        assert!(!config.admits(&title("CT1"), from("10.2.0.1")));
        assert!(!config.admits(&title("CT2"), from("127.0.0.1")));
        assert!(!Config::default().admits(&title("CT1"), from("127.0.0.1")), "closed by default");
    }
}
