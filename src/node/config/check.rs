//! Whether the values of a configuration fit each other.

use std::collections::HashSet;

use super::{Config, ConfigError, Destination, PackageConfig, RetainConfig, Retrieve, TlsClient};
use crate::infer::AtOnce;

/// The longest time that a peer may be given, s: added to a point in time it is one still.
const LONGEST_S: u64 = 365 * 86400;

impl Config {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
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
            if !(1..=LONGEST_S).contains(&seconds) {
                return wrong(format!("limits.{field}"), &format!("not between 1 and {LONGEST_S} s (a year)"));
            }
        }
        for (field, count) in [("sessions", self.worker.sessions), ("patches", self.worker.patches)] {
            if !(1..=AtOnce::MOST).contains(&count) {
                return wrong(format!("worker.{field}"), &format!("not between 1 and {}", AtOnce::MOST));
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
        let of_destinations = self.destination.iter().filter_map(|one| one.tls.as_ref());
        let of_archives = self.archive.iter().filter_map(|one| one.tls.as_ref());
        let mut clients = of_destinations.chain(of_archives).chain(self.peer.iter().filter_map(|one| one.tls.as_ref()));
        if clients.any(|tls| tls.certificate.is_some() != tls.key.is_some()) {
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
        if self.http.head_s > LONGEST_S {
            return wrong("http.head_s".into(), &format!("more than {LONGEST_S} s (a year)"));
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
}

impl Destination {
    fn check(&self) -> Result<(), &'static str> {
        match (&self.ae_title, &self.address, &self.url) {
            (Some(_), Some(_), None) if self.token_file.is_some() => return Err("a token is for a `url`"),
            (Some(_), Some(_), None) => return Ok(()),
            (None, None, Some(_)) => {}
            _ => return Err("give either `ae_title` and `address`, or `url`"),
        }
        check_url(self.url.as_deref().unwrap_or_default(), self.tls.as_ref(), self.token_file.is_some())?;
        if self.commitment {
            return Err("there is no storage commitment by DICOMweb: its answers say what is stored");
        }
        Ok(())
    }
}

/// The root of a DICOMweb server, with what it is shown.
pub(super) fn check_url(url: &str, tls: Option<&TlsClient>, has_token: bool) -> Result<(), &'static str> {
    let ends = |rest: &str| rest.is_empty() || rest.starts_with([':', '/']);
    let here = ["http://127.0.0.1", "http://localhost", "http://[::1]"].iter().any(|start| url.strip_prefix(start).is_some_and(ends));
    match (url.starts_with("https://"), url.starts_with("http://")) {
        (true, _) if tls.is_none() => Err("https needs `tls = { ca = \"..\" }`: the authorities whose certificates are taken"),
        (false, true) if tls.is_some() => Err("`tls` is for https"),
        (true, _) if tls.is_some_and(|tls| tls.name.is_some()) => Err("the name in the certificate is that of the `url`"),
        (false, true) if has_token && !here => Err("a token is shown by https alone"),
        (false, false) => Err("`url` begins with http:// or https://"),
        _ => Ok(()),
    }
}
