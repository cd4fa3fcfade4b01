//! `task = "classification"` and `"regression"`: findings of an image as a whole, each with a probability, or each a number; and what of the
//! image a probability rests on, which detections may tell of their objects as well.

use serde::{Deserialize, Serialize};

use super::check::is_code;
use super::manifest::{Finding, Layout, Manifest, PreprocessStep, Task};
use super::select::Kind;
use super::{Inference, Whole};
use crate::codes::Code;

/// Letters of an origin.
const MOST_ORIGIN: usize = 200;
/// Letters of the name of a finding that is explained: that of its map says more.
const MOST_NAME: usize = 48;
/// Runs of the network that one explanation may take.
const MAX_OCCLUSIONS: usize = 4096;
/// Objects that may be explained.
const MOST_OBJECTS: u8 = 100;

/// From which probability on a finding is present.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Threshold {
    /// A finding of this probability or a higher one is present: above 0, to 1.
    pub at: f64,
    /// Where it comes from: the ROC of the card, for one. It is copied into every result.
    pub origin: String,
}

/// `[finding.estimate]`: a number that the network gives for the image as a whole, `scale` times its output plus `offset`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Estimate {
    /// What the number is: the concept of a measurement.
    pub concept: Code,
    /// Its unit, UCUM.
    pub unit: Code,
    /// Units for 1 of the network's output, not 0.
    #[serde(default = "one")]
    pub scale: f64,
    /// In the unit, where the network's output is 0.
    #[serde(default)]
    pub offset: f64,
    /// In the unit. A number below it, or above `most`, is no result: the image is refused.
    pub least: f64,
    /// In the unit.
    pub most: f64,
}

fn one() -> f64 {
    1.0
}

impl Estimate {
    /// The number that an output of the network stands for; the same as an error where there is no such thing.
    ///
    /// # Errors
    /// The number, where it is not within `least` to `most`.
    pub fn of(&self, output: f32) -> Result<f64, f64> {
        let number = f64::from(output) * self.scale + self.offset;
        if (self.least..=self.most).contains(&number) { Ok(number) } else { Err(number) }
    }

    fn check(&self) -> Result<(), &'static str> {
        match () {
            () if !is_code(&self.concept) || !is_code(&self.unit) => {
                Err("has a code in its `estimate` with an empty part, or a value over 16 or a meaning over 64 characters")
            }
            () if self.unit.scheme != "UCUM" => Err("has an `estimate.unit` that is not of the scheme UCUM"),
            () if !self.scale.is_normal() || !self.offset.is_finite() => {
                Err("has an `estimate.scale` that is 0 or not finite, or an `offset` that is not finite")
            }
            () if !(self.least.is_finite() && self.most.is_finite() && self.least < self.most) => {
                Err("has no `estimate.least` below `estimate.most`")
            }
            () => Ok(()),
        }
    }
}

/// `[explanation]`: how it is found out what of the image a probability rests on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Explanation {
    /// A patch of the network's input is covered, place by place, and it is noted how far each probability falls.
    Occlusion {
        /// Voxels of the network's grid that are covered at a time, along i, j, k.
        patch: [u32; 3],
        /// From one place to the next: at most a patch, so that each voxel is covered.
        stride: [u32; 3],
        /// With what.
        fill: Fill,
        /// How many of the objects of a network that gives boxes are explained, those with the highest scores: 1 to 100, 5 where it does not say.
        /// Each takes so many runs of the network as places reach it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        objects: Option<u8>,
    },
}

/// What covers a patch.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "`fill` is \"mean\" or a number")]
pub enum Fill {
    /// A value of the network's input.
    Value(f64),
    /// One that the image has itself.
    Named(NamedFill),
}

impl Fill {
    /// The value, where `mean` is that of the input.
    pub fn value(self, mean: impl FnOnce() -> f32) -> f32 {
        match self {
            Self::Value(value) => value as f32,
            Self::Named(NamedFill::Mean) => mean(),
        }
    }
}

/// A value that an image has itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NamedFill {
    /// The mean of the network's input over the image, without what lies beside it.
    Mean,
}

impl Explanation {
    /// Name of the map that explains a finding.
    pub fn map_name(of: &str) -> String {
        format!("occlusion: {of}")
    }
}

/// Where patches begin along an axis of `length` voxels: one a stride, and one at the end.
pub fn patch_starts(length: u32, patch: u32, stride: u32) -> impl Iterator<Item = u32> + Clone {
    let last = length - patch;
    (0..=last.div_ceil(stride)).map(move |n| (n * stride).min(last))
}

impl Manifest {
    /// Voxels that a network of fixed size sees, where the package brings images to one.
    pub fn resized_to(&self) -> Option<[u32; 3]> {
        self.preprocess.iter().find_map(|step| match step {
            PreprocessStep::Resize { to, .. } => Some(*to),
            _ => None,
        })
    }

    /// What a classification or regression needs, and what it has no use for.
    pub(super) fn check_whole(&self) -> Result<(), String> {
        let require = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
        require(self.postprocess.is_empty(), "`postprocess` makes label maps, and classifications and regressions have none")?;
        require(self.map.is_empty(), "a [[map]] is of a label map's classes: `explanation` explains a classification")?;
        if self.model.task == Task::Regression {
            require(
                self.output.scores.is_none(),
                "`output.scores` is of class scores: `finding.estimate` says what a regression's output is",
            )?;
            require(self.output.background.is_none(), "`output.background` is of class scores: a regression has none")?;
            require(self.explanation.is_none(), "`explanation` is of the probabilities of a classification")?;
        } else {
            require(self.output.scores.is_some(), "`output.scores` says how scores become probabilities: it is missing")?;
        }
        require(
            self.inference == Inference::Whole(Whole {}),
            "a classification or regression sees the image as a whole: give `[inference.whole]`",
        )?;
        let to = self.resized_to().ok_or("the input of a classification or regression has one size: give a `resize` step")?;
        let crops = self.preprocess.iter().any(|s| matches!(s, PreprocessStep::Crop { .. }));
        require(!crops, "`crop` is of segmentations and detections: a classification or regression sees the image as a whole")?;
        let is_flat = to[2] == 1;
        require(
            is_flat == (self.select.kind == Kind::Image),
            "`resize.to` has 1 along k for a `select.kind` of \"image\", and more for volumes",
        )?;
        require(is_flat || self.input.layout == Layout::Ncdhw, "`input.layout` of a volume as a whole is \"NCDHW\"")?;
        self.finding.iter().try_for_each(|finding| check_finding(finding, self.model.task))?;
        match &self.explanation {
            Some(Explanation::Occlusion { patch, stride, objects, .. }) => {
                self.check_explanation(to)?;
                require(objects.is_none(), "`explanation.objects` is of boxes: all findings of a classification are explained")?;
                let runs: usize = (0..3).map(|n| patch_starts(to[n], patch[n], stride[n]).count()).product();
                if runs > MAX_OCCLUSIONS {
                    return Err(format!(
                        "`explanation` takes {runs} runs of the network, at most {MAX_OCCLUSIONS}: give a larger `stride`"
                    ));
                }
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// What an explanation needs of a network that sees `to` voxels at a time.
    pub(super) fn check_explanation(&self, to: [u32; 3]) -> Result<(), String> {
        let Some(Explanation::Occlusion { patch, stride, fill, objects }) = &self.explanation else { return Ok(()) };
        let require = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
        require((0..3).all(|n| (1..=to[n]).contains(&patch[n])), "`explanation.patch` is empty or larger than the network's input")?;
        require(
            (0..3).all(|n| (1..=patch[n]).contains(&stride[n])),
            "`explanation.stride` is 0, or larger than a patch: voxels would be left out",
        )?;
        require(!matches!(fill, Fill::Value(value) if !value.is_finite()), "`explanation.fill` is not finite")?;
        require(objects.is_none_or(|most| (1..=MOST_OBJECTS).contains(&most)), "`explanation.objects` is outside 1 to 100")?;
        let fits = |name: &str| name.len() <= MOST_NAME && name.chars().all(|c| matches!(c, ' '..='~') && c != '\\');
        require(
            self.finding.iter().all(|finding| fits(&finding.name)),
            "a finding that is explained has a name of 1 to 48 ASCII characters, none of them a backslash",
        )
    }
}

fn check_finding(finding: &Finding, task: Task) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("the finding `{}` {what}", finding.name));
    if finding.segment != 0 || finding.colour.is_some() || !finding.measurements.is_empty() {
        return wrong("is one of an image as a whole, which has no region: leave out `segment`, `colour` and `measurements`");
    }
    if task == Task::Regression {
        return match &finding.estimate {
            _ if finding.threshold.is_some() => wrong("is one of a regression: `threshold` is of classifications"),
            None => wrong("has no `estimate`: nothing says which number it is, and in which unit"),
            Some(estimate) => estimate.check().or_else(wrong),
        };
    }
    if finding.estimate.is_some() {
        return wrong("is one of a classification: `estimate` is of regressions");
    }
    match &finding.threshold {
        None => wrong("has no `threshold`: nothing says from which probability on it is present"),
        Some(threshold) if !(threshold.at > 0.0 && threshold.at <= 1.0) => wrong("has a `threshold.at` that is not above 0, to 1"),
        Some(threshold) if !(1..=MOST_ORIGIN).contains(&threshold.origin.len()) => {
            wrong("has a `threshold.origin` of not 1 to 200 characters")
        }
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_cover_an_axis() {
        let starts = |length, patch, stride| patch_starts(length, patch, stride).collect::<Vec<u32>>();
        assert_eq!(starts(10, 4, 4), [0, 4, 6]);
        assert_eq!(starts(12, 4, 4), [0, 4, 8]);
        assert_eq!(starts(12, 12, 5), [0]);
        assert_eq!(starts(1, 1, 1), [0]);
        assert_eq!(starts(7, 3, 2), [0, 2, 4]);
    }
}
