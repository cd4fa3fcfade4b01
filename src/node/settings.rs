//! What the node goes by at the moment: a configuration with the certificates that it names, replaced as a whole.
//!
//! Whoever begins something (an association, a job, a delivery) takes the settings once and goes by them to its end.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rustls::{ClientConfig, ServerConfig};
use ureq::Agent;

use super::config::{Config, ConfigError, TlsClient};
use super::post;
use super::tls::{self, TlsChannel};
use super::{Link, NodeError};
use crate::codes::sha256_hex;
use crate::dimse::{Association, Channel, DimseError, Proposal, dial};
use crate::engine::Engine;

/// A configuration, and what was read from the files that it names.
#[derive(Debug)]
pub(super) struct Settings {
    config: Config,
    /// For each TLS listener, in their order.
    servers: Vec<Arc<ServerConfig>>,
    /// What calls each DICOMweb destination, by its name.
    agents: HashMap<String, Agent>,
    /// For the HTTP interface.
    http_server: Option<Arc<ServerConfig>>,
    /// For each way to call by TLS.
    clients: Vec<(TlsClient, Arc<ClientConfig>)>,
}

impl Deref for Settings {
    type Target = Config;

    fn deref(&self) -> &Config {
        &self.config
    }
}

impl Settings {
    /// Reads the files that the configuration names.
    ///
    /// # Errors
    /// Which one is wrong.
    pub(super) fn load(config: Config) -> Result<Self, ConfigError> {
        let wrong = |field: String| move |problem: String| ConfigError::Value { field, problem };
        let mut servers = Vec::new();
        for listen in &config.tls_listen {
            let server = tls::server(&listen.certificate, &listen.key, Some(&listen.client_ca));
            servers.push(server.map_err(wrong(format!("tls_listen {}", listen.address)))?);
        }
        let http_server = match &config.http.tls {
            Some(tls) => Some(tls::server(&tls.certificate, &tls.key, tls.client_ca.as_deref()).map_err(wrong("http.tls".into()))?),
            None => None,
        };
        let of_destinations = config.destination.iter().filter_map(|d| Some((format!("destination `{}`", d.name), d.tls.as_ref()?)));
        let of_peers = config.peer.iter().filter_map(|p| Some((format!("peer `{}`", p.ae_title.0), p.tls.as_ref()?)));
        let mut clients = Vec::new();
        let of_archives = config.archive.iter().filter_map(|a| Some((format!("archive `{}`", a.name), a.tls.as_ref()?)));
        for (field, tls) in of_destinations.chain(of_peers).chain(of_archives) {
            clients.push((tls.clone(), tls::client(tls).map_err(wrong(field))?));
        }
        let mut agents = HashMap::new();
        for destination in config.destination.iter().filter(|destination| destination.url.is_some()) {
            let agent = post::agent(&config, destination.tls.as_ref(), config.patience().idle)
                .map_err(wrong(format!("destination `{}`", destination.name)))?;
            agents.insert(destination.name.clone(), agent);
        }
        Ok(Self { servers, http_server, agents, clients, config })
    }

    /// A name for exactly this configuration.
    pub(super) fn sha256(&self) -> String {
        sha256_hex(self.config.to_toml().as_bytes())
    }

    /// What the TLS listener of that number shows and asks for.
    pub(super) fn server(&self, n: usize) -> Arc<ServerConfig> {
        Arc::clone(&self.servers[n])
    }

    /// What calls the DICOMweb destination of that name.
    pub(super) fn agent(&self, destination: &str) -> &Agent {
        self.agents.get(destination).expect("every destination with a URL has one")
    }

    /// What the HTTP interface shows and asks for; none where it is not by TLS.
    pub(super) fn http_server(&self) -> Option<Arc<ServerConfig>> {
        self.http_server.clone()
    }

    /// Asks for an association with whoever is at `address`, by TLS where that is configured.
    pub(super) fn link(&self, address: &str, tls: Option<&TlsClient>, proposal: &Proposal) -> Result<Link, DimseError> {
        let patience = self.patience();
        let tcp = dial(address, patience)?;
        let channel: Box<dyn Channel> = match tls {
            None => Box::new(tcp),
            Some(tls) => {
                let known = self.clients.iter().find(|(known, _)| known == tls);
                let (_, config) = known.expect("every way to call was read with the configuration");
                let host = address.rsplit_once(':').map_or(address, |(host, _)| host.trim_matches(['[', ']']));
                let name = tls.name.as_deref().unwrap_or(host);
                Box::new(TlsChannel::call(tcp, Arc::clone(config), name, patience.artim)?)
            }
        };
        Association::request(channel, &proposal.associate(), patience)
    }
}

/// The settings of the moment, shared by all that runs.
#[derive(Debug)]
pub(super) struct Current {
    settings: RwLock<Arc<Settings>>,
    /// Packages that were loaded for new settings, and that the worker has not taken yet.
    engines: Mutex<HashMap<String, Engine>>,
}

impl Current {
    pub(super) fn new(settings: Settings) -> Self {
        Self { settings: RwLock::new(Arc::new(settings)), engines: Mutex::default() }
    }

    pub(super) fn get(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner)) // a pointer is whole
    }

    /// From now on what begins goes by these, with these packages more.
    pub(super) fn replace(&self, settings: Settings, engines: HashMap<String, Engine>) {
        // First the packages: whoever sees the new settings finds them.
        self.engines.lock().unwrap_or_else(PoisonError::into_inner).extend(engines);
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }

    /// The packages that were loaded since the last time.
    pub(super) fn take_engines(&self) -> HashMap<String, Engine> {
        std::mem::take(&mut *self.engines.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Why new settings are refused although they are right in themselves.
pub(super) fn needs_restart(old: &Config, new: &Config) -> Result<(), NodeError> {
    let listeners = |config: &Config| config.tls_listen.iter().map(|listen| listen.address).collect::<Vec<_>>();
    for (field, same) in [
        ("data", old.data == new.data),
        ("listen", old.listen == new.listen),
        ("tls_listen", listeners(old) == listeners(new)),
        ("store.keep_free_mb", old.store.keep_free_mb == new.store.keep_free_mb),
        ("worker.device", old.worker.device == new.worker.device),
        ("worker.provider", old.worker.provider == new.worker.provider),
        ("worker.sessions", old.worker.sessions == new.worker.sessions),
        ("worker.patches", old.worker.patches == new.worker.patches),
        ("http", old.http == new.http),
    ] {
        if !same {
            let problem = "has changed: that needs a restart, all else stays as it was, too".into();
            return Err(ConfigError::Value { field: field.into(), problem }.into());
        }
    }
    Ok(())
}
