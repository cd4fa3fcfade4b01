//! `[finding.instances]`: a class whose objects are findings each, as nodules are and lungs are not.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::manifest::{Finding, Manifest, Task};

/// Letters of a Segment Label (0062,0005), which a finding's name becomes.
const MOST_LETTERS: usize = 64;
/// Letters of an origin.
const MOST_ORIGIN: usize = 200;

/// How the objects of a class become findings: one for each connected component (26 neighbours), or for each box.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instances {
    /// What the score of an object is.
    pub score: InstanceScore,
    /// Objects with a lower score are left out: 0 to 1, compared in single precision, in which probabilities are computed.
    pub min_score: f64,
    /// Where `min_score` comes from: a row of the card's FROC table, for one. It is copied into every result.
    pub origin: String,
    /// Most objects that are reported, those with the highest scores: 1 to 255.
    pub max_count: u8,
}

/// The score of an object: made of its class's probabilities at its voxels, the values of a map of that probability, or that of its box.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InstanceScore {
    /// The greatest.
    MaximumProbability,
    /// Their mean.
    MeanProbability,
    /// What the network says of its box or point.
    Box,
}

impl Instances {
    /// Name of object `n`, from 1: "nodule 2".
    pub fn name(of: &str, n: usize) -> String {
        format!("{of} {n}")
    }
}

impl Finding {
    /// The labels that it may have: its segment, or as many as it may have objects from there on. Beyond 255 where the manifest is wrong.
    pub(super) fn segments(&self) -> RangeInclusive<u32> {
        let first = u32::from(self.segment);
        let most = self.instances.as_ref().map_or(1, |instances| u32::from(instances.max_count));
        first..=first + most.max(1) - 1
    }

    /// Whether a result may have a finding of that name by it: its own, or that of one of its objects.
    pub fn is_named(&self, name: &str) -> bool {
        let objects = self.instances.as_ref().map_or(0, |instances| usize::from(instances.max_count));
        name == self.name || (1..=objects).any(|n| name == Instances::name(&self.name, n))
    }
}

impl Manifest {
    /// The finding that one of a result's, or one of its objects, is by its name.
    pub fn finding_named(&self, name: &str) -> Option<&Finding> {
        self.finding.iter().find(|finding| finding.is_named(name))
    }

    /// What TOML's types cannot say of findings and their objects.
    pub(super) fn check_instances(&self) -> Result<(), String> {
        let with_objects = || self.finding.iter().filter_map(|finding| Some((finding, finding.instances.as_ref()?)));
        match self.model.task {
            Task::Detection if with_objects().next().is_none() => {
                return Err("`task` is \"detection\", and no finding has `instances`".to_owned());
            }
            Task::Segmentation | Task::Classification | Task::Regression if with_objects().next().is_some() => {
                return Err("a finding has `instances`: `task` must be \"detection\"".to_owned());
            }
            _ => {}
        }
        for (finding, instances) in with_objects() {
            let wrong = |what: &str| Err(format!("the `instances` of `{}` {what}", finding.name));
            if self.output.scores.is_none() {
                return wrong("need `output.scores`: `logits`, `independent-logits` or `probabilities`");
            }
            if self.has_labels() && instances.score == InstanceScore::Box {
                return wrong("have the `score` of boxes, and the network gives none: add `[output.boxes]`");
            }
            if !(0.0..=1.0).contains(&instances.min_score) {
                return wrong("have a `min_score` outside 0 to 1");
            }
            if !(1..=MOST_ORIGIN).contains(&instances.origin.len()) || !instances.origin.chars().all(|c| matches!(c, ' '..='~')) {
                return wrong("need an `origin` of 1 to 200 ASCII characters: where `min_score` comes from");
            }
            if instances.max_count == 0 {
                return wrong("have a `max_count` of 0: 1 to 255");
            }
            let last = *finding.segments().end();
            if last > u32::from(u8::MAX) {
                return wrong(&format!("may have segments {} to {last}: 255 is the last", finding.segment));
            }
            if Instances::name(&finding.name, usize::from(instances.max_count)).chars().count() > MOST_LETTERS {
                return wrong("have names of more than 64 characters: shorten the finding's");
            }
            let others = || self.finding.iter().filter(|other| !std::ptr::eq(*other, finding));
            let has_its_segment = |other: &&Finding| self.has_labels() && finding.segments().contains(&u32::from(other.segment));
            if let Some(other) = others().find(has_its_segment) {
                let first = finding.segment;
                return wrong(&format!(
                    "may have segments {first} to {last}, one of which is that of `{}`: give it the last ones",
                    other.name
                ));
            }
            if let Some(other) = others().find(|other| finding.is_named(&other.name)) {
                return wrong(&format!("may have the name of the finding `{}`", other.name));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::ModelError;
    use super::*;
    use crate::geometry::Coded;

    const INSTANCES: &str = r#"
        [finding.instances]
        score = "maximum-probability"
        min_score = 0.5
        origin = "MODEL_CARD.md"
        max_count = 50
    "#;

    /// The shipped manifest, the bones of which (segment 5, the last finding) are objects, with `changes` made.
    fn with(changes: &[(&str, &str)]) -> Result<Manifest, ModelError> {
        let shipped = include_str!("../../models/ct-tissue/model.toml");
        let (findings, maps) = shipped.split_at(shipped.find("[[map]]").expect("it has maps"));
        let text = format!("{findings}{INSTANCES}{maps}").replace("\"segmentation\"", "\"detection\"");
        let change = |text: String, (from, to): &(&str, &str)| {
            assert!(text.contains(from), "{from} is there to be changed");
            text.replacen(from, to, 1)
        };
        Manifest::parse(&changes.iter().fold(text, change), Path::new("model.toml"))
    }

    fn refused(changes: &[(&str, &str)], code: &str, said: &str) {
        let error = with(changes).expect_err("it is refused");
        assert_eq!(error.code(), code, "{changes:?}: {error}");
        assert!(error.to_string().contains(said), "{changes:?}: {error}");
    }

    #[test]
    fn objects_have_names_and_segments() {
        let manifest = with(&[]).expect("a manifest");
        let bone = manifest.finding_named("bone").expect("there");
        assert_eq!((bone.segments(), manifest.finding[0].segments()), (5..=54, 1..=1));
        assert_eq!(manifest.finding_named("bone 50").map(|f| f.segment), Some(5));
        assert_eq!([manifest.finding_named("bone 51"), manifest.finding_named("bone 0"), manifest.finding_named("lung 1")], [None; 3]);
        assert!(with(&[("max_count = 50", "max_count = 251")]).is_ok(), "255 is the last segment");
        assert!(with(&[("min_score = 0.5", "min_score = 1")]).is_ok());
        assert!(with(&[("\"maximum-", "\"mean-")]).is_ok());
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let unsupported = |changes: &[(&str, &str)], said: &str| refused(changes, "model.unsupported", said);
        unsupported(&[("\"detection\"", "\"segmentation\"")], "must be \"detection\"");
        unsupported(&[(INSTANCES, "")], "no finding has `instances`");
        unsupported(&[("min_score = 0.5", "min_score = 1.01")], "outside 0 to 1");
        unsupported(&[("min_score = 0.5", "min_score = -0.1")], "outside 0 to 1");
        unsupported(&[("min_score = 0.5", "min_score = nan")], "outside 0 to 1");
        unsupported(&[("origin = \"MODEL_CARD.md\"", "origin = \"\"")], "origin");
        unsupported(&[("origin = \"MODEL_CARD.md\"", "origin = \"a\\nb\"")], "origin");
        unsupported(&[("max_count = 50", "max_count = 0")], "1 to 255");
        unsupported(&[("max_count = 50", "max_count = 252")], "segments 5 to 256");
        unsupported(&[("segment = 4", "segment = 54")], "that of `soft tissue`");
        unsupported(&[("name = \"soft tissue\"", "name = \"bone 7\"")], "the name of the finding `bone 7`");
        let long = format!("name = \"{}\"", "b".repeat(62));
        unsupported(&[("name = \"bone\"", &long)], "more than 64");
        unsupported(&[("scores = \"probabilities\"", "")], "the `instances` of `bone` need `output.scores`");
        let manifest = |changes: &[(&str, &str)]| refused(changes, "model.manifest", "");
        manifest(&[("max_count = 50", "max_count = 256")]);
        manifest(&[("max_count = 50", "")]);
        manifest(&[("origin = \"MODEL_CARD.md\"", "")]);
        manifest(&[("\"maximum-probability\"", "\"volume\"")]);
        manifest(&[("max_count = 50", "max_count = 50\nmin_mm = 3")]);
    }
}
