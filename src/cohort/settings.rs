//! By which settings the results in a folder were made: others are never mixed with them.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::CohortError;
use super::error::io_at;
use crate::engine::Engine;
use crate::results::{self, Forms};

const FILE: &str = "settings.json";

/// Everything but the inputs that decides the results.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Settings {
    /// Name and version with the first digits of its hash.
    pub(super) package: String,
    package_sha256: String,
    pub(super) device: String,
    /// What is to be said above every result of the package.
    #[serde(default)]
    pub(super) banner: String,
    forms: String,
    /// Steps with their values, class of device, provider and versions.
    parameters: Vec<(String, String)>,
}

impl Settings {
    pub(super) fn of(engine: &Engine, forms: &Forms) -> Self {
        let id = &engine.package().id;
        Self {
            package: format!("{} {}", id.name, id.version_string()),
            package_sha256: id.sha256.clone(),
            device: engine.device(),
            banner: results::banner(id).to_owned(),
            forms: forms.to_string(),
            parameters: engine.parameters().into_iter().map(|p| (p.name, p.value)).collect(),
        }
    }

    /// Those of a folder.
    pub(super) fn read(work: &Path) -> Result<Option<Self>, CohortError> {
        let path = work.join(FILE);
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map(Some).map_err(io::Error::from).map_err(io_at("read", path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_at("read", path)(error)),
        }
    }

    /// Makes them those of a folder, or compares them with those that are.
    pub(super) fn enter(&self, work: &Path) -> Result<(), CohortError> {
        let failed = || io_at("write", work.join(FILE));
        let mut file = tempfile::Builder::new().prefix(".settings-").tempfile_in(work).map_err(failed())?;
        file.write_all(&serde_json::to_vec_pretty(self).map_err(io::Error::from).map_err(failed())?).map_err(failed())?;
        file.as_file().sync_all().map_err(failed())?;
        match file.persist_noclobber(work.join(FILE)) {
            Ok(_) => return Ok(()),
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed()(error.error)),
        }
        let Some(then) = Self::read(work)? else { return Ok(()) };
        let Some((what, then, now)) = then.first_difference(self) else { return Ok(()) };
        Err(CohortError::OtherSettings { what, then, now, path: work.parent().unwrap_or(work).to_owned() })
    }

    /// What differs, and both values. Two devices of one class give the same results.
    fn first_difference(&self, now: &Self) -> Option<(String, String, String)> {
        let named = [("package", &self.package, &now.package), ("package hash", &self.package_sha256, &now.package_sha256)];
        let forms = [("--results", &self.forms, &now.forms)];
        let text = |what: &str, then: &str, now: &str| (what.to_owned(), then.to_owned(), now.to_owned());
        let plain = named.into_iter().chain(forms).find(|(_, then, now)| then != now).map(|(what, then, now)| text(what, then, now));
        plain.or_else(|| {
            let value = |of: &Self, name: &str| of.parameters.iter().find(|(n, _)| n == name).map_or("none", |(_, v)| v).to_owned();
            let names = self.parameters.iter().chain(&now.parameters).map(|(name, _)| name);
            names.map(|name| (name.clone(), value(self, name), value(now, name))).find(|(_, then, now)| then != now)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_settings_are_named() {
        let work = tempfile::tempdir().unwrap();
        let then = Settings {
            package: "a 1.0.0".into(),
            package_sha256: "00".into(),
            device: "CPU".into(),
            banner: String::new(),
            forms: "sr".into(),
            parameters: vec![("device".into(), "cpu".into())],
        };
        then.enter(work.path()).unwrap();
        then.enter(work.path()).unwrap();
        Settings { device: "another CPU".into(), ..then.clone() }.enter(work.path()).unwrap();
        let check = |now: Settings, what: &str| assert!(now.enter(work.path()).unwrap_err().to_string().starts_with(what));
        check(Settings { forms: "sr,seg".into(), ..then.clone() }, "--results differs");
        check(Settings { package: "a 1.0.1".into(), ..then.clone() }, "package differs");
        check(Settings { parameters: vec![("device".into(), "gpu".into())], ..then.clone() }, "device differs");
        check(Settings { parameters: Vec::new(), ..then }, "device differs");
    }
}
