//! A PACS that studies of a cohort are fetched from: the table `[source]` of a file for `roentgen run --from`.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::text::{Network, Text};
use super::{Archive, Config, ConfigError, Peer, Retrieve, StoreConfig, TlsClient};
use crate::dimse::AeTitle;

/// Where studies are fetched from, and how.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::node) struct SourceConfig {
    /// Its title; with `address`.
    ae_title: Option<Text<AeTitle>>,
    /// `host:port` of its Query/Retrieve SCP.
    address: Option<String>,
    /// The title that we call it with.
    #[serde(default = "default_calling")]
    calling: Text<AeTitle>,
    /// How studies are retrieved.
    #[serde(default)]
    retrieve: Retrieve,
    /// Where it calls us for C-MOVE, under the title `calling`.
    listen: Option<SocketAddr>,
    /// The addresses or networks that it calls from for C-MOVE; those of `address` where none are given.
    #[serde(default)]
    from: Vec<Text<Network>>,
    /// The root of a DICOMweb server, without `/studies`: QIDO-RS and WADO-RS instead of DIMSE.
    pub(in crate::node) url: Option<String>,
    /// A file with the token that it is shown (`Authorization: Bearer ..`), read again each time.
    pub(in crate::node) token_file: Option<PathBuf>,
    /// Where it is not called by plain TCP or HTTP.
    pub(in crate::node) tls: Option<TlsClient>,
    /// Nothing comes from it for this long: the attempt has failed.
    #[serde(default = "super::sections::default_silent_s")]
    silent_s: u64,
    /// One study may take so long.
    #[serde(default = "default_study_s")]
    pub(in crate::node) study_s: u64,
    /// First wait after a failure that may pass; it doubles with each, up to a minute.
    #[serde(default = "super::sections::default_retry_s")]
    pub(in crate::node) retry_s: u64,
    /// How often what may pass is tried.
    #[serde(default = "super::sections::default_archive_attempts")]
    pub(in crate::node) attempts: u32,
    /// Studies that are on disk at a time, from the first instance that comes to the last result that is written.
    #[serde(default = "default_ahead")]
    pub(in crate::node) ahead: usize,
    /// Less free space than this, and nothing is fetched.
    #[serde(default = "default_keep_free_mb")]
    keep_free_mb: u64,
}

/// A file that may hold more, such as the arguments of a recurring batch.
#[derive(Deserialize)]
struct File {
    source: Option<SourceConfig>,
}

impl SourceConfig {
    /// Reads and checks the table `[source]` of the file at `path`. Relative paths in it count from its folder.
    ///
    /// # Errors
    /// [`ConfigError`], with line and column where it is one of form.
    pub(in crate::node) fn read(path: &Path) -> Result<Self, ConfigError> {
        let file: File = toml::from_str(&std::fs::read_to_string(path)?).map_err(|error| ConfigError::Toml(Box::new(error)))?;
        let mut config = file.source.ok_or_else(|| wrong("there is no table [source] in the file: it names the PACS"))?;
        config.check()?;
        let folder = path.parent().unwrap_or(Path::new("."));
        config.token_file = config.token_file.map(|file| folder.join(file));
        if let Some(tls) = &mut config.tls {
            for file in tls.certificate.iter_mut().chain(&mut tls.key).chain([&mut tls.ca]) {
                *file = folder.join(&file);
            }
        }
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.attempts == 0 || self.silent_s == 0 || self.study_s == 0 || self.ahead == 0 {
            return Err(wrong("attempts, silent_s, study_s and ahead: 0 would fetch nothing"));
        }
        if self.tls.as_ref().is_some_and(|tls| tls.certificate.is_some() != tls.key.is_some()) {
            return Err(wrong("certificate and key go together"));
        }
        let of_dimse = self.listen.is_some() || !self.from.is_empty() || self.retrieve == Retrieve::Move;
        match (&self.ae_title, &self.address, &self.url) {
            (None, None, Some(_)) if of_dimse => Err(wrong("`retrieve`, `listen` and `from` are for `address`, not for `url`")),
            (None, None, Some(url)) => super::check_url(url, self.tls.as_ref(), self.token_file.is_some()).map_err(wrong),
            (Some(_), Some(_), None) if self.token_file.is_some() => Err(wrong("a token is for a `url`")),
            (Some(_), Some(_), None) if (self.retrieve == Retrieve::Move) != self.listen.is_some() => {
                Err(wrong("retrieve = \"move\" and `listen`, where the PACS calls us, go together"))
            }
            (Some(_), Some(_), None) => Ok(()),
            _ => Err(wrong("give either `ae_title` and `address`, or `url`")),
        }
    }

    /// How it is named to people.
    pub(in crate::node) fn place(&self) -> String {
        let title = self.ae_title.as_ref().map_or_else(String::new, |title| format!("{} at ", title.0));
        title + self.address.as_ref().or(self.url.as_ref()).map_or("", String::as_str)
    }

    /// The archive that is asked by DIMSE; none for DICOMweb.
    pub(in crate::node) fn archive(&self) -> Option<Archive> {
        Some(Archive {
            name: "source".into(),
            ae_title: self.ae_title.clone()?,
            address: self.address.clone()?,
            calling: None,
            retrieve: self.retrieve,
            silent_s: self.silent_s,
            retry_s: self.retry_s,
            attempts: self.attempts,
            tls: self.tls.clone(),
        })
    }

    /// As a node that nobody may call but that PACS.
    ///
    /// # Errors
    /// Where its name has no address.
    pub(in crate::node) fn node(&self) -> Result<Config, ConfigError> {
        let mut config = Config { ae_title: self.calling.clone(), listen: self.listen.into_iter().collect(), ..Config::default() };
        config.store = StoreConfig { keep_free_mb: self.keep_free_mb, ..config.store };
        let (Some(title), Some(address)) = (&self.ae_title, &self.address) else { return Ok(config) };
        let mut from = self.from.clone();
        if from.is_empty() && self.listen.is_some() {
            let resolved = address.to_socket_addrs().map_err(|error| wrong_owned(format!("`address`: {error}")))?;
            from.extend(resolved.map(|address| Text(Network::from(address.ip()))));
        }
        config.peer.push(Peer { ae_title: title.clone(), from, address: None, query: None, tls: self.tls.clone() });
        Ok(config)
    }
}

fn wrong(problem: &str) -> ConfigError {
    wrong_owned(problem.to_owned())
}

fn wrong_owned(problem: String) -> ConfigError {
    ConfigError::Value { field: "source".into(), problem }
}

fn default_calling() -> Text<AeTitle> {
    Config::default().ae_title
}

fn default_study_s() -> u64 {
    3600
}

fn default_ahead() -> usize {
    4
}

fn default_keep_free_mb() -> u64 {
    2000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&str, &str>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("source.toml");
        std::fs::write(&path, text).unwrap();
        match (SourceConfig::read(&path), expected) {
            (Ok(config), Ok(place)) => assert_eq!(config.place(), place, "{text}"),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (found, expected) => panic!("{found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn a_source_is_one_way_to_one_pacs() {
        check("model = \"x\"\n[source]\nae_title = \"PACS\"\naddress = \"10.0.0.1:104\"", Ok("PACS at 10.0.0.1:104"));
        check("[source]\nurl = \"http://127.0.0.1:8042/dicom-web\"\ntoken_file = \"t\"", Ok("http://127.0.0.1:8042/dicom-web"));
        let moved = "[source]\nae_title = \"PACS\"\naddress = \"10.0.0.1:104\"\nretrieve = \"move\"\n";
        check(&format!("{moved}listen = \"127.0.0.1:11113\""), Ok("PACS at 10.0.0.1:104"));
        check(moved, Err("go together"));
        check("model = \"x\"", Err("no table [source]"));
        check("[source]\nae_title = \"PACS\"", Err("either"));
        check("[source]\nurl = \"http://10.0.0.1/x\"\ntoken_file = \"t\"", Err("https alone"));
        check("[source]\nurl = \"https://10.0.0.1/x\"", Err("https needs"));
        check("[source]\nurl = \"http://10.0.0.1/x\"\nretrieve = \"move\"", Err("are for `address`"));
        check("[source]\nae_title = \"PACS\"\naddress = \"10.0.0.1:104\"\nattempts = 0", Err("0 would fetch"));
        check("[source]\nae_title = \"PACS\"\naddress = \"10.0.0.1:104\"\nport = 3", Err("unknown field"));
    }
}
