//! `[[stage]]`: networks that are asked before the package's own, one after the other, and what becomes of their labels.

use serde::{Deserialize, Serialize};

use super::manifest::{File, Finding, Input, Manifest, Output, PostprocessStep, PreprocessStep, Task};
use super::{Channel, Inference};
use crate::codes::Code;

/// What a label of a stage is, of which no result says anything.
const LABEL: Code = Code::new("STAGE-LABEL", "99ROENTGEN", "Label of an earlier stage");
/// Stages before the last that a package may have.
const MAX_STAGES: usize = 4;

/// A network that is asked before others of its package: it labels the reference's grid, for the next one.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// For people: "localise".
    pub name: String,
    /// Its graphs, with their hashes.
    pub file: Vec<File>,
    /// Its input; the images are the package's, so a channel here has steps at most.
    pub input: Input,
    /// From stored values to its input.
    pub preprocess: Vec<PreprocessStep>,
    /// How it is applied.
    pub inference: Inference,
    /// Its output.
    pub output: Output,
    /// From class scores to labels.
    pub postprocess: Vec<PostprocessStep>,
    /// What its labels are.
    pub label: Vec<StageLabel>,
}

/// A label that a stage gives.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageLabel {
    /// By which the next stage names it.
    pub name: String,
    /// Channel of the stage's output.
    pub channel: usize,
    /// Value in its label map, 1 to 255.
    pub value: u8,
}

/// `[input.previous]`: what a network sees of the stage before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreviousLabels {
    /// Names of labels: after the images there is a channel for each, 1 where the label is and 0 elsewhere.
    pub one_hot: Vec<String>,
}

impl Manifest {
    /// Stage `n` as the manifest of a network by itself: its labels are the findings.
    ///
    /// # Panics
    /// Where there is no such stage: a broken promise of the caller.
    pub fn of_stage(&self, n: usize) -> Self {
        let stage = &self.stage[n];
        let own = &stage.input.channel;
        let channel = self
            .input
            .channel
            .iter()
            .enumerate()
            .map(|(c, channel)| Channel { preprocess: own.get(c).and_then(|own| own.preprocess.clone()), ..channel.clone() });
        let finding = |label: &StageLabel| Finding {
            channel: label.channel,
            segment: label.value,
            name: label.name.clone(),
            colour: Some([0; 3]),
            category: LABEL,
            finding_type: LABEL,
            site: None,
            laterality: None,
            measurements: Vec::new(),
            instances: None,
            threshold: None,
            estimate: None,
        };
        Self {
            model: super::Model { task: Task::Segmentation, ..self.model.clone() },
            file: stage.file.clone(),
            input: Input { channel: channel.collect(), ..stage.input.clone() },
            preprocess: stage.preprocess.clone(),
            inference: stage.inference.clone(),
            output: stage.output.clone(),
            postprocess: stage.postprocess.clone(),
            finding: stage.label.iter().map(finding).collect(),
            stage: Vec::new(),
            map: Vec::new(),
            explanation: None,
            reference: None,
            ..self.clone()
        }
    }

    /// The labels of the stage before the package's own network; none where it has no stages.
    pub fn last_labels(&self) -> &[StageLabel] {
        self.stage.last().map_or(&[], |stage| &stage.label)
    }

    /// What TOML's types cannot say of stages.
    pub(super) fn check_stages(&self) -> Result<(), String> {
        if self.stage.len() > MAX_STAGES {
            return Err(format!("{} stages before the last: at most {MAX_STAGES} are run", self.stage.len()));
        }
        if self.model.task.is_of_whole() && !self.stage.is_empty() {
            return Err("`stage` is not for networks that see an image as a whole".to_owned());
        }
        for (n, stage) in self.stage.iter().enumerate() {
            let wrong = |what: &str| Err(format!("the stage `{}`: {what}", stage.name));
            if !is_name(&stage.name) || self.stage[..n].iter().any(|other| other.name == stage.name) {
                return wrong("its name is another one's, or not of 1 to 64 letters, digits, spaces, - . _");
            }
            if stage.label.iter().any(|label| !is_name(&label.name)) {
                return wrong("the name of a `label` is not of 1 to 64 letters, digits, spaces, - . _");
            }
            let own = &stage.input.channel;
            let is_the_packages = |(own, channel): (&Channel, &Channel)| own.name == channel.name && own.select.is_none();
            if !own.is_empty() && (own.len() != self.input.channel.len() || !own.iter().zip(&self.input.channel).all(is_the_packages)) {
                return wrong("its `input.channel` are the package's by name and order, without `select`");
            }
            let before = n.checked_sub(1).map_or(&[][..], |before| &self.stage[before].label);
            check_uses(&stage.input, &stage.preprocess, before).or_else(|what| wrong(&what))?;
            self.of_stage(n).check_network().or_else(|what| wrong(&what))?;
        }
        check_uses(&self.input, &self.preprocess, self.last_labels())
    }
}

/// Holds what a network asks for of the labels before against these.
fn check_uses(input: &Input, steps: &[PreprocessStep], before: &[StageLabel]) -> Result<(), String> {
    let one_hot = input.previous.iter().flat_map(|previous| &previous.one_hot);
    let labelled = steps.iter().flat_map(|step| match step {
        PreprocessStep::Crop { labelled, .. } => labelled.as_slice(),
        _ => &[],
    });
    for (key, name) in one_hot.map(|name| ("input.previous.one_hot", name)).chain(labelled.map(|name| ("crop.labelled", name))) {
        if !before.iter().any(|label| label.name == *name) {
            let known: Vec<&str> = before.iter().map(|label| label.name.as_str()).collect();
            let known = if known.is_empty() {
                "there is no stage before".to_owned()
            } else {
                format!("the stage before has: {}", known.join(", "))
            };
            return Err(format!("`{key}` names the label `{name}`; {known}"));
        }
    }
    match &input.previous {
        Some(previous) if previous.one_hot.is_empty() => Err("`input.previous.one_hot` is empty: name labels, or leave it out".to_owned()),
        _ => Ok(()),
    }
}

fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric() || " -._".contains(c))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::geometry::Coded;
    use crate::model::ModelError;

    const STAGE: &str = r#"
        [[stage]]
        name = "localise"
        file = [{ path = "coarse.onnx", sha256 = "0000000000000000000000000000000000000000000000000000000000000000" }]
        input = { tensor = "image", dtype = "float32", layout = "NCDHW" }
        preprocess = [{ step = "resample", spacing_mm = [6.0, 6.0, 6.0], interpolation = "linear" }]
        inference = { tiles = { tile = [64, 64, 64], halo = 0 } }
        output = { tensor = "scores", background = 0 }
        postprocess = [{ step = "argmax" }]
        label = [{ name = "lung", channel = 1, value = 1 }]
    "#;

    /// The shipped manifest with a stage before, and these fields of `[input]` and of a crop.
    fn with(stage: &str, input: &str, crop: &str) -> Result<Manifest, ModelError> {
        let shipped = include_str!("../../models/ct-tissue/model.toml");
        let (layout, resample) = ("layout = \"NCDHW\"\n", "[[preprocess]]\nstep = \"resample\"");
        assert_eq!((shipped.matches(layout).count(), shipped.matches(resample).count()), (1, 1));
        let text = shipped.replace(layout, &format!("{layout}{input}")).replace(resample, &format!("{crop}\n{resample}"));
        Manifest::parse(&format!("{text}\n{stage}"), Path::new("model.toml"))
    }

    const CROP: &str = "[[preprocess]]\nstep = \"crop\"\nlabelled = [\"lung\"]\nmargin_mm = 20.0\n";

    #[test]
    fn a_stage_is_a_network_by_itself() {
        let manifest = with(STAGE, "previous = { one_hot = [\"lung\"] }\n", CROP).expect("a manifest");
        assert_eq!((manifest.input_channels(), manifest.files().count()), (2, 2));
        let stage = manifest.of_stage(0);
        assert_eq!((stage.input_channels(), stage.label_of_channel(), stage.stage.len()), (1, vec![0, 1], 0));
        assert_eq!(manifest.last_labels()[0].name, "lung");
        assert_eq!(manifest.steps_of_images()[0].len(), 5);
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let refused = |stage: &str, input: &str, crop: &str, said: &str| {
            let error = with(stage, input, crop).expect_err("it is refused");
            assert_eq!(error.code(), "model.unsupported", "{error}");
            assert!(error.to_string().contains(said), "{error}");
        };
        refused("", "", CROP, "there is no stage before");
        refused(STAGE, "previous = { one_hot = [\"liver\"] }\n", "", "the stage before has: lung");
        refused(STAGE, "previous = { one_hot = [] }\n", "", "is empty");
        refused(STAGE, "", &CROP.replace("lung", "liver"), "`crop.labelled` names the label `liver`");
        refused(&STAGE.repeat(2), "", "", "another one's");
        refused(&STAGE.replace("background = 0", "background = 2"), "", "", "the stage `localise`: ");
        refused(&STAGE.replace("value = 1", "value = 0"), "", "", "the stage `localise`: ");
        refused(&STAGE.replace("[{ step = \"argmax\" }]", "[]"), "", "", "the stage `localise`: ");
        refused(&STAGE.replace("\"resample\", ", "\"crop\", labelled = [\"lung\"] }, { step = \"resample\", "), "", "", "no stage before");
        refused(STAGE, "", &CROP.replace("margin_mm = 20.0", "margin_mm = -1.0"), "margin_mm");
    }
}
