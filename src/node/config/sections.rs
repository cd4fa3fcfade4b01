//! What stands in a configuration, section by section, each with its defaults.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Config;
use super::text::{Network, Text};
use crate::dimse::AeTitle;
use crate::jobs::Retry;
use crate::model::select::TagRule;
use crate::results::{Form, Forms};

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
    /// As `roentgen run --sessions`.
    pub sessions: u8,
    /// As `roentgen run --patches`.
    pub patches: u8,
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
    /// The title that it knows us by.
    pub(in crate::node) fn calling<'a>(&'a self, config: &'a Config) -> &'a AeTitle {
        &self.calling.as_ref().unwrap_or(&config.ae_title).0
    }

    /// How what may pass is tried again.
    pub(in crate::node) fn retry(&self) -> Retry {
        Retry { first_ms: millis(self.retry_s), attempts: self.attempts }
    }
}

pub(super) fn default_silent_s() -> u64 {
    120
}

pub(super) fn default_archive_attempts() -> u32 {
    5
}

fn default_commitment_timeout_s() -> u64 {
    300
}

pub(super) fn default_retry_s() -> u64 {
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
pub(in crate::node) enum Reached<'a> {
    /// By C-STORE: title and `host:port`.
    Dimse(&'a AeTitle, &'a str),
    /// By STOW-RS: the root of the server.
    Web(&'a str),
}

impl Destination {
    pub(in crate::node) fn reached(&self) -> Reached<'_> {
        match (&self.ae_title, &self.address, &self.url) {
            (Some(title), Some(address), None) => Reached::Dimse(&title.0, address),
            (None, None, Some(url)) => Reached::Web(url.trim_end_matches('/')),
            _ => unreachable!("a configuration is checked before it is used"),
        }
    }

    /// Whether it gets results of that form without anything having been refused.
    pub(in crate::node) fn takes(&self, form: &str) -> bool {
        let wanted = self.forms.as_ref().is_none_or(|forms| form.parse().is_ok_and(|form| forms.0.contains(form)));
        wanted && self.instead.values().all(|other| other.0.name() != form)
    }

    /// How what may pass is tried again.
    pub(in crate::node) fn retry(&self) -> Retry {
        Retry { first_ms: millis(self.retry_s), attempts: self.attempts }
    }

    /// How commitment is asked for again.
    pub(in crate::node) fn commitment_retry(&self) -> Retry {
        Retry { first_ms: millis(self.commitment_timeout_s), attempts: self.attempts }
    }
}

/// Seconds as milliseconds, as far as there are such.
pub(in crate::node) fn millis(seconds: u64) -> i64 {
    i64::try_from(seconds.saturating_mul(1000)).unwrap_or(i64::MAX / 2)
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
        Self {
            device: "auto".into(),
            provider: "cpu".into(),
            sessions: 1,
            patches: 1,
            attempts: 3,
            longest_s: 3600,
            grace_s: 60,
            on_device_loss: DeviceLoss::Retry,
        }
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
