//! What is to be done with a study: its jobs, and which rules of the configuration hold of it.

use std::sync::Arc;

use tokio::runtime::Handle;

use super::config::{Config, Rule};
use crate::dataset::{Frame, Instance};
use crate::jobs::Planned;
use crate::store::{Store, StoreError};

/// Series of a study that are looked at.
pub(super) const MAX_SERIES: u32 = 200;

/// A series as rules see it.
struct Sample {
    /// Who sent it.
    calling: String,
    /// The first frame of one of its instances; none where that cannot be read.
    frame: Option<Frame>,
}

/// The jobs of a study. Reads the header of an instance of each series where there are rules. Blocks: not for an asynchronous task.
///
/// # Errors
/// Where the database fails.
pub(super) fn planned(config: &Config, store: &Store, runtime: &Handle, study_uid: &str) -> Result<Vec<Planned>, StoreError> {
    let samples = if config.rule.is_empty() { Vec::new() } else { samples(store, runtime, study_uid)? };
    let held: Vec<&Rule> = config.rule.iter().filter(|rule| samples.iter().any(|sample| holds(rule, sample))).collect();
    let of = |package: &super::PackageConfig| {
        let about = held.iter().filter(|rule| rule.packages.is_empty() || rule.packages.contains(&package.name));
        let rules: Vec<&&Rule> = about.collect();
        let urgent = package.urgent || rules.iter().any(|rule| rule.urgent);
        Planned {
            package: package.name.clone(),
            urgent,
            rules: rules.iter().map(|rule| rule.name.clone()).collect(),
            priors_from: package.priors.as_ref().map(|priors| priors.from.clone()),
        }
    };
    Ok(config.package.iter().map(of).collect())
}

fn holds(rule: &Rule, sample: &Sample) -> bool {
    let sender = rule.calling.is_empty() || rule.calling.iter().any(|title| title.0.as_str() == sample.calling);
    // A header that nobody can read meets no condition.
    sender && rule.when.iter().all(|when| sample.frame.as_ref().is_some_and(|frame| when.rule.holds(frame)))
}

fn samples(store: &Store, runtime: &Handle, study_uid: &str) -> Result<Vec<Sample>, StoreError> {
    let found = runtime.block_on(store.one_of_each_series(study_uid, MAX_SERIES))?;
    let sample = |(path, calling): (std::path::PathBuf, String)| {
        let instance = Instance::read(&path).ok().map(Arc::new);
        let frame = instance.and_then(|instance| Frame::all_of(&instance).ok()?.into_iter().next());
        Sample { calling, frame }
    };
    Ok(found.into_iter().map(sample).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::testing::{Slice, slice};

    #[test]
    fn a_rule_holds_where_all_of_it_does() {
        let config: Config = r#"
            [[destination]]
            name = "ER"
            ae_title = "ER"
            address = "er:104"
            [[rule]]
            name = "all"
            calling = ["CT1", "CT2"]
            when = [{ tag = "Rows", range = [4, inf] }, { tag = "StudyDescription", present = false }]
            deliver = ["ER"]
        "#
        .parse()
        .expect("a configuration");
        let check = |calling: &str, rows: u16, expected: bool| {
            let slice = Slice { rows, pixels: None, ..slice(1) };
            let frame = Frame::all_of(&Arc::new(slice.instance())).expect("a frame").into_iter().next();
            assert_eq!(holds(&config.rule[0], &Sample { calling: calling.into(), frame }), expected, "{calling} {rows}");
        };
        check("CT2", 4, true);
        check("CT3", 4, false);
        check("CT2", 3, false);
        assert!(!holds(&config.rule[0], &Sample { calling: "CT1".into(), frame: None }));
    }
}
