//! The node's configuration: typed, every default written out, checked before it is used.

use std::collections::{BTreeMap, HashSet};
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
use crate::model::select::TagRule;
use crate::results::{Form, Forms};

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

/// How the log is written, to stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For programs: an object a line.
    Json,
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
    /// The certificate that we show, PEM; none where the peer asks for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// Its private key, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
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
    /// The name of the archive that is asked how many instances a study has that this peer sends: it is complete when all are here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
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

/// How long things are kept: days with fractions, 0 for ever. Nothing goes whose jobs or deliveries are not at their end; a dead delivery
/// is not.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetainConfig {
    /// Instances, after the last of their study came.
    pub received_days: f64,
    /// The oldest studies go before, where all instances together have more than that many GB (10^9 bytes); 0: no limit.
    pub received_gb: f64,
    /// Results, after their job.
    pub results_days: f64,
    /// What is in quarantine.
    pub quarantine_days: f64,
}

/// What people are told of: in the log, at `/alerts`, in the metrics, and by a program of theirs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AlertConfig {
    /// A result that has waited for its destination that long; 0: never.
    pub undelivered_minutes: u64,
    /// Less free space than this on the disk of the store.
    pub free_mb: u64,
    /// Program and arguments. It is started when something begins and when it is over, and gets it as JSON on its standard input, without
    /// patient data. After 30 s it is killed.
    pub command: Vec<String>,
}

/// When a study is complete.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StudyConfig {
    /// Nothing came for this long, and the association that brought the last instance was released.
    pub quiet_s: u64,
    /// The same where it was cut off, or has fewer instances than it should.
    pub cut_off_s: u64,
    /// What becomes of one that has fewer instances than it should then.
    pub incomplete: Incomplete,
}

/// What becomes of a study that lacks instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Incomplete {
    /// Packages are run on it, and their results say what is missing.
    Run,
    /// It waits until they come, or somebody orders that it be complete.
    Hold,
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
    /// The earlier studies of the patient that it waits for and refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priors: Option<PriorsConfig>,
}

/// Which earlier studies of a patient (priors) a package refers to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriorsConfig {
    /// The name of the archive that has them.
    pub from: String,
    /// At most so many, the latest first; 1 to 10.
    #[serde(default = "default_how_many")]
    pub how_many: usize,
    /// Made so many days before the study or later.
    #[serde(default = "default_within_days")]
    pub within_days: u32,
    /// With a series of one of these modalities; of one that the study has, where none is given.
    #[serde(default)]
    pub modalities: Vec<String>,
    /// Whether the job fails where they cannot be had. A patient who has none is no failure.
    #[serde(default)]
    pub required: bool,
    /// How long the job waits for them.
    #[serde(default = "default_wait_s")]
    pub wait_s: u64,
}

fn default_how_many() -> usize {
    1
}

fn default_within_days() -> u32 {
    1825
}

fn default_wait_s() -> u64 {
    600
}

/// What is done otherwise with the studies that it holds of. It holds where the instances of one series meet all of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// As it stands in the trace.
    pub name: String,
    /// Titles of senders, any of them; any at all where none is given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calling: Vec<Text<AeTitle>>,
    /// Conditions on attributes, as `[[select.rule]]` of a package.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub when: Vec<When>,
    /// The packages that it is about; all where none is given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<String>,
    /// Run before all that is not urgent.
    #[serde(default)]
    pub urgent: bool,
    /// Destinations that get the results, too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deliver: Vec<String>,
}

/// A condition on an attribute, and how it is written.
#[derive(Debug, Clone, PartialEq)]
pub struct When {
    /// The condition.
    pub rule: TagRule,
    written: toml::Value,
}

impl<'de> Deserialize<'de> for When {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = toml::Value::deserialize(deserializer)?;
        let rule = TagRule::deserialize(written.clone()).map_err(|error| serde::de::Error::custom(error.message()))?;
        Ok(Self { rule, written })
    }
}

impl Serialize for When {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.written.serialize(serializer)
    }
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
    /// A run that takes longer is stopped, and tried again; 0: it may take for ever.
    pub longest_s: u64,
    /// How long it may take to stop. Then its lane is given up; a job that this happens to twice goes to quarantine.
    pub grace_s: u64,
    /// What becomes of a run whose device was lost, or has no memory left.
    pub on_device_loss: DeviceLoss,
}

/// What becomes of a run whose device was lost. The cause stands in the job in each case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceLoss {
    /// It is tried again later on the same device, opened anew.
    Retry,
    /// It is run on the processor at once; results say so.
    Cpu,
    /// It has failed.
    Fail,
}

impl fmt::Display for DeviceLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Retry => "retry",
            Self::Cpu => "cpu",
            Self::Fail => "fail",
        })
    }
}

/// Where results go: a Storage SCP (`ae_title` and `address`), or a DICOMweb server (`url`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Destination {
    /// What packages call it.
    pub name: String,
    /// Its title.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ae_title: Option<Text<AeTitle>>,
    /// `host:port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The root of a DICOMweb server, without `/studies`: results go there by STOW-RS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// A file with the token that it is shown (`Authorization: Bearer ..`), read again each time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// The forms that it gets, of those that packages make; all where none are given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forms: Option<Text<Forms>>,
    /// What it gets instead of a form that it refuses for good, and does not get otherwise: `{ labelmap = "seg" }`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub instead: BTreeMap<Text<Form>, Text<Form>>,
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

/// A Query/Retrieve SCP.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Archive {
    /// What packages and peers call it.
    pub name: String,
    /// Its title.
    pub ae_title: Text<AeTitle>,
    /// `host:port`.
    pub address: String,
    /// The title that we call it with; ours where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calling: Option<Text<AeTitle>>,
    /// How studies are retrieved.
    #[serde(default)]
    pub retrieve: Retrieve,
    /// Nothing comes from it for this long: it is given up. It may say nothing while it sends by C-MOVE.
    #[serde(default = "default_silent_s")]
    pub silent_s: u64,
    /// First wait after a failure that may pass; it doubles with each, up to an hour.
    #[serde(default = "default_retry_s")]
    pub retry_s: u64,
    /// How often what may pass is tried.
    #[serde(default = "default_archive_attempts")]
    pub attempts: u32,
    /// Where it is not called by plain TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsClient>,
}

/// How studies come from an archive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Retrieve {
    /// C-GET: over the association that asks for them.
    #[default]
    Get,
    /// C-MOVE: the archive calls this node, whose title and address it must know.
    Move,
}

impl Archive {
    /// How what may pass is tried again.
    pub(super) fn retry(&self) -> Retry {
        Retry { first_ms: millis(self.retry_s), attempts: self.attempts }
    }
}

fn default_silent_s() -> u64 {
    120
}

fn default_archive_attempts() -> u32 {
    5
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
    /// A file with the token that callers show. Without one, and without `tls.client_ca`, only this machine is listened to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// Connections at a time; one more is closed at once.
    pub connections: usize,
    /// For the head of a request: from the connection, or from the answer before, to its last byte.
    pub head_s: u64,
    /// The longest body of a request, MB.
    pub body_mb: u64,
    /// Believe `X-Forwarded-Proto` and `X-Forwarded-Host` in the URLs of answers: where a proxy in front sets them, and nobody else can.
    pub forwarded: bool,
    /// By TLS alone, where this is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<HttpTls>,
}

/// TLS 1.2 and 1.3 of the HTTP interface. Its files are read again when the configuration is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpTls {
    /// Our certificate and those between it and the authority, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// The authorities whose certificates callers must show, PEM; they need show none where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<PathBuf>,
}

/// How a destination is reached.
#[derive(Debug, Clone, Copy)]
pub(super) enum Reached<'a> {
    /// By C-STORE: title and `host:port`.
    Dimse(&'a AeTitle, &'a str),
    /// By STOW-RS: the root of the server.
    Web(&'a str),
}

impl Destination {
    pub(super) fn reached(&self) -> Reached<'_> {
        match (&self.ae_title, &self.address, &self.url) {
            (Some(title), Some(address), None) => Reached::Dimse(&title.0, address),
            (None, None, Some(url)) => Reached::Web(url.trim_end_matches('/')),
            _ => unreachable!("a configuration is checked before it is used"),
        }
    }

    /// Whether it gets results of that form without anything having been refused.
    pub(super) fn takes(&self, form: &str) -> bool {
        let wanted = self.forms.as_ref().is_none_or(|forms| form.parse().is_ok_and(|form| forms.0.contains(form)));
        wanted && self.instead.values().all(|other| other.0.name() != form)
    }

    fn check(&self) -> Result<(), &'static str> {
        match (&self.ae_title, &self.address, &self.url) {
            (Some(_), Some(_), None) if self.token_file.is_some() => return Err("a token is for a `url`"),
            (Some(_), Some(_), None) => return Ok(()),
            (None, None, Some(_)) => {}
            _ => return Err("give either `ae_title` and `address`, or `url`"),
        }
        let url = self.url.as_deref().unwrap_or_default();
        let here = ["http://127.0.0.1", "http://localhost", "http://[::1]"].iter().any(|start| url.starts_with(start));
        match (url.starts_with("https://"), url.starts_with("http://")) {
            (true, _) if self.tls.is_none() => Err("https needs `tls = { ca = \"..\" }`: the authorities whose certificates are taken"),
            (false, true) if self.tls.is_some() => Err("`tls` is for https"),
            (true, _) if self.tls.as_ref().is_some_and(|tls| tls.name.is_some()) => Err("the name in the certificate is that of the `url`"),
            (false, true) if self.token_file.is_some() && !here => Err("a token is shown by https alone"),
            (false, false) => Err("`url` begins with http:// or https://"),
            _ if self.commitment => Err("there is no storage commitment by DICOMweb: its answers say what is stored"),
            _ => Ok(()),
        }
    }

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
        Self { quiet_s: 5, cut_off_s: 120, incomplete: Incomplete::Run }
    }
}

impl Default for WorkerConfig {
    fn default() -> Self {
        Self { device: "auto".into(), provider: "cpu".into(), attempts: 3, longest_s: 3600, grace_s: 60, on_device_loss: DeviceLoss::Retry }
    }
}

impl Default for AlertConfig {
    fn default() -> Self {
        Self { undelivered_minutes: 30, free_mb: 4096, command: Vec::new() }
    }
}

impl Default for HttpConfig {
    fn default() -> Self {
        let listen = Some(SocketAddr::from(([127, 0, 0, 1], 11180)));
        Self { listen, token_file: None, connections: 64, head_s: 30, body_mb: 16384, forwarded: false, tls: None }
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
            if let Err(problem) = destination.check() {
                return wrong(format!("destination `{}`", destination.name), problem);
            }
        }
        let clients = self.destination.iter().filter_map(|one| one.tls.as_ref()).chain(self.peer.iter().filter_map(|one| one.tls.as_ref()));
        if clients.into_iter().any(|tls| tls.certificate.is_some() != tls.key.is_some()) {
            return wrong("tls".into(), "certificate and key go together");
        }
        self.check_archives()?;
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
        self.check_rules(&names, &packages)?;
        self.check_instead()?;
        let RetainConfig { received_days, received_gb, results_days, quarantine_days } = self.retain;
        if [received_days, received_gb, results_days, quarantine_days].iter().any(|n| !n.is_finite() || *n < 0.0) {
            return wrong("retain".into(), "days and GB are 0 or more");
        }
        for (field, value) in [("connections", self.http.connections as u64), ("head_s", self.http.head_s), ("body_mb", self.http.body_mb)]
        {
            if value == 0 {
                return wrong(format!("http.{field}"), "0: nobody gets an answer; leave http.listen out where that is meant");
            }
        }
        let known = self.http.token_file.is_some() || self.http.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
        if !known && self.http.listen.is_some_and(|address| !address.ip().is_loopback()) {
            return wrong("http.listen".into(), "not on this machine alone: give a token_file or tls.client_ca, or listen on 127.0.0.1");
        }
        Ok(())
    }

    fn check_rules(&self, destinations: &HashSet<&str>, packages: &HashSet<&str>) -> Result<(), ConfigError> {
        let mut rules = HashSet::new();
        for rule in &self.rule {
            let unknown = |names: &[String], known: &HashSet<&str>| names.iter().find(|name| !known.contains(name.as_str())).cloned();
            let problem = if !rules.insert(rule.name.as_str()) {
                "there are two of this name".to_owned()
            } else if rule.when.is_empty() && rule.calling.is_empty() {
                "holds of every study: give `when` or `calling`, or say it of the packages".to_owned()
            } else if let Some(name) = unknown(&rule.packages, packages) {
                format!("is about `{name}`, which is no package here")
            } else if let Some(name) = unknown(&rule.deliver, destinations) {
                format!("delivers to `{name}`, which is no destination")
            } else {
                continue;
            };
            return Err(ConfigError::Value { field: format!("rule `{}`", rule.name), problem });
        }
        Ok(())
    }

    /// A form that is sent instead of another one must be made.
    fn check_instead(&self) -> Result<(), ConfigError> {
        for destination in &self.destination {
            for (refused, other) in &destination.instead {
                let lacks = |package: &&PackageConfig| {
                    package.results.0.contains(refused.0)
                        && !package.results.0.contains(other.0)
                        && package.deliver.contains(&destination.name)
                };
                if let Some(package) = self.package.iter().find(lacks) {
                    let problem = format!("sends {} instead of {}, and package `{}` does not make it", other.0, refused.0, package.name);
                    return Err(ConfigError::Value { field: format!("destination `{}`", destination.name), problem });
                }
            }
        }
        Ok(())
    }

    fn check_archives(&self) -> Result<(), ConfigError> {
        let wrong = |field: String, problem: String| Err(ConfigError::Value { field, problem });
        let mut names = HashSet::new();
        for archive in &self.archive {
            let field = format!("archive `{}`", archive.name);
            if !names.insert(archive.name.as_str()) {
                return wrong(field, "there are two of this name".into());
            }
            let may_call = self.peer.iter().any(|peer| peer.ae_title == archive.ae_title);
            if archive.retrieve == Retrieve::Move && !may_call {
                let title = &archive.ae_title.0;
                return wrong(field, format!("sends by C-MOVE: make it a [[peer]] with the title {title}, or use retrieve = \"get\""));
            }
            if archive.attempts == 0 || archive.silent_s == 0 {
                return wrong(field, "attempts and silent_s: 0 would ask for nothing".into());
            }
        }
        for peer in &self.peer {
            if let Some(unknown) = peer.query.as_ref().filter(|name| !names.contains(name.as_str())) {
                return wrong(format!("peer `{}`", peer.ae_title.0), format!("is asked for at `{unknown}`, which is no archive"));
            }
        }
        for package in &self.package {
            let field = format!("package `{}`", package.name);
            let Some(priors) = &package.priors else { continue };
            if !names.contains(priors.from.as_str()) {
                return wrong(field, format!("has priors from `{}`, which is no archive", priors.from));
            }
            if !(1..=10).contains(&priors.how_many) {
                return wrong(field, format!("priors.how_many is {}: 1 to 10 are possible", priors.how_many));
            }
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
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
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

[package.priors]
from = "OLD"
modalities = ["CT"]

[[archive]]
name = "OLD"
ae_title = "CT1"
address = "127.0.0.1:4243"
retrieve = "move"

[[destination]]
name = "PACS"
ae_title = "ORTHANC"
address = "127.0.0.1:4242"
tls = { certificate = "node.pem", key = "node.key", ca = "ca.pem" }

[[destination]]
name = "CLOUD"
url = "https://127.0.0.1/dicom-web"
tls = { ca = "ca.pem" }
forms = "sr,seg,labelmap"
instead = { labelmap = "seg" }

[[rule]]
name = "stroke"
calling = ["CT1"]
when = [{ tag = "StudyDescription", matches = "(?i)stroke" }, { tag = "Rows", range = [256, inf] }]
urgent = true
deliver = ["CLOUD"]

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
            ("tag = \"StudyDescription\"", "tag = \"PatientName\"", "can identify a person"),
            ("matches = \"(?i)stroke\"", "matches = \"(\"", "line 39"),
            ("deliver = [\"CLOUD\"]", "deliver = [\"VNA\"]", "rule `stroke`: delivers to `VNA`, which is no destination"),
            ("calling = [\"CT1\"]", "packages = [\"x\"]", "rule `stroke`: is about `x`, which is no package here"),
            ("https://", "http://", "destination `CLOUD`: `tls` is for https"),
            ("tls = { ca = \"ca.pem\" }", "", "https needs `tls"),
            ("url =", "commitment = true\nurl =", "no storage commitment by DICOMweb"),
            ("url =", "address = \"x:1\"\nurl =", "give either `ae_title` and `address`, or `url`"),
            ("tls = { ca", "tls = { key = \"k\", ca", "certificate and key go together"),
            ("[[peer]]", "[worker]\non_device_loss = \"gpu\"\n[[peer]]", "line 6"),
            ("[[peer]]", "retain = { received_days = -1 }\n[[peer]]", "retain: days and GB are 0 or more"),
            (
                "deliver = [\"PACS\"]",
                "deliver = [\"CLOUD\"]\nresults = \"labelmap\"",
                "sends seg instead of labelmap, and package `ct-tissue` does not make it",
            ),
            ("from = \"OLD\"", "from = \"NEW\"", "package `ct-tissue`: has priors from `NEW`, which is no archive"),
            ("from = \"OLD\"", "from = \"OLD\"\nhow_many = 11", "priors.how_many is 11"),
            ("ae_title = \"CT1\"\naddress", "ae_title = \"CT2\"\naddress", "archive `OLD`: sends by C-MOVE: make it a [[peer]]"),
            ("[[package]]", "query = \"NEW\"\n[[package]]", "peer `CT1`: is asked for at `NEW`, which is no archive"),
            ("[[peer]]", "http = { listen = \"0.0.0.0:80\" }\n[[peer]]", "http.listen: not on this machine alone"),
            ("[[peer]]", "http = { head_s = 0 }\n[[peer]]", "http.head_s: 0"),
            ("ae_title", "log = \"xml\"\nae_title", "line 2"),
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
