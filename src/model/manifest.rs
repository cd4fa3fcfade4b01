//! The manifest `model.toml`, format 1. Fields that it does not know are errors, never ignored.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::exactly::exactly_some;
use super::reference::{Reference, ReferenceInput};
use super::{
    Axes, Boxes, Channel, Estimate, Explanation, FollowUp, Inference, Instances, ModelError, PreviousLabels, Select, Slices, Stage,
    Threshold,
};
use crate::codes::Code;
use crate::kernels::Interpolation;

/// What a text begins with that is still to be filled in, in a package that was just begun.
const FILL_IN: &str = "FILL IN";
/// The manifest format that this program reads.
pub(super) const FORMAT: i64 = 1;
const PREPROCESS_STEPS: &[&str] = &["orient", "crop", "resample", "resize", "clip", "normalize", "z-score", "percentiles"];
const POSTPROCESS_STEPS: &[&str] = &["softmax", "argmax", "regions", "components"];
/// Logit of what is certainly not there: a probability of 1e-13.
const LEAST_LOGIT: f32 = -30.0;

/// A model package's manifest.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Always [`FORMAT`].
    pub format: i64,
    /// What it is.
    pub model: Model,
    /// Every file that decides results, with its hash.
    pub file: Vec<File>,
    /// Which series it takes.
    pub select: Select,
    /// The network's input.
    pub input: Input,
    /// From stored values to the network's input, in order.
    pub preprocess: Vec<PreprocessStep>,
    /// How the network is applied.
    pub inference: Inference,
    /// The network's output.
    pub output: Output,
    /// From class scores to the label map, in order; none of an image as a whole.
    #[serde(default)]
    pub postprocess: Vec<PostprocessStep>,
    /// What the labels mean.
    pub finding: Vec<Finding>,
    /// Maps of values beside the labels, which are computed where they are asked for.
    #[serde(default)]
    pub map: Vec<Map>,
    /// Networks that are asked before this one, in order.
    #[serde(default)]
    pub stage: Vec<Stage>,
    /// What of the image a classification rests on, which is computed where maps are asked for.
    pub explanation: Option<Explanation>,
    /// How objects are matched with those of an earlier study of the patient; none: they are not.
    #[serde(rename = "follow-up")]
    pub follow_up: Option<FollowUp>,
    /// A case with known result, which `roentgen model check` runs.
    pub reference: Option<Reference>,
}

/// Who and what.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Short name, also the folder's: letters, digits, `-`.
    pub name: String,
    /// Semantic version.
    pub version: String,
    /// What kind of answer it gives.
    pub task: Task,
    /// Who made it.
    pub manufacturer: String,
    /// SPDX expression.
    pub licence: String,
    /// One sentence, copied into every result.
    pub intended_use: String,
    /// `none`, or the mark that it carries.
    pub regulatory_status: String,
}

/// What kind of answer a model gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// A class for each voxel.
    Segmentation,
    /// Objects that are findings each: those of some class of voxels, or boxes that the network gives.
    Detection,
    /// A probability for the whole image for each finding.
    Classification,
    /// A number for the whole image for each finding.
    Regression,
}

impl Task {
    /// Whether its answers are of the image as a whole, and not of regions in it.
    pub fn is_of_whole(self) -> bool {
        matches!(self, Self::Classification | Self::Regression)
    }
}

/// One file of the package.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Relative to the manifest.
    pub path: String,
    /// SHA-256 of its bytes, lower-case hex.
    pub sha256: String,
}

/// The network's input tensor.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Its name in the graph.
    pub tensor: String,
    /// Element type.
    pub dtype: Dtype,
    /// Axis order.
    pub layout: Layout,
    /// The series that it is made of, where these are several, in the order of its channels.
    #[serde(default)]
    pub channel: Vec<Channel>,
    /// What it sees of the stage before.
    pub previous: Option<PreviousLabels>,
    /// The slices that it sees for each one that it answers for, where these are several. Only with `NCHW`.
    pub slices: Option<Slices>,
}

/// Element type of a tensor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dtype {
    /// IEEE 754 single precision.
    #[default]
    Float32,
    /// IEEE 754 half precision: what goes in is rounded, and nothing of it may be above 65504.
    Float16,
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Float32 => "float32",
            Self::Float16 => "float16",
        })
    }
}

/// Axis order of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Layout {
    /// Batch, channel, slice (k), row (j), column (i).
    #[serde(rename = "NCDHW")]
    Ncdhw,
    /// Slice (k) as the batch, channel, row (j), column (i).
    #[serde(rename = "NCHW")]
    Nchw,
}

/// One preprocessing step. All run as one pass over the voxels: `orient` and `crop`, then `resample`, then what is done to values, or these
/// two the other way round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case", deny_unknown_fields)]
pub enum PreprocessStep {
    /// Axes permuted, and flipped where they are to run along directions of the patient; no voxel moves.
    Orient {
        /// `LPS` or another of the 48 orientations, or axes as they are stored: `kji`.
        to: Axes,
    },
    /// Only the box around the foreground of the source image is analysed; what lies outside is background. By `to`, `above` or `labelled`.
    Crop {
        /// What the foreground is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<Foreground>,
        /// The foreground is what is above this value, physical units.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        above: Option<f64>,
        /// The foreground is what the stage before has given one of these labels, by name.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        labelled: Vec<String>,
        /// Voxels more on each side, as far as the image goes.
        #[serde(default)]
        margin: u32,
        /// The same in mm, rounded up to voxels; the larger of the two counts.
        #[serde(default, skip_serializing_if = "is_zero")]
        margin_mm: f64,
    },
    /// Another spacing, same centre.
    Resample {
        /// Along i, j, k after `orient`, mm. 0: that of the source, as where a network of slices takes them as they are.
        spacing_mm: [f64; 3],
        /// Between voxel centres.
        interpolation: Interpolation,
        /// The outer faces of the grid stay instead, and the spacing is what so many voxels have within them.
        #[serde(default, skip_serializing_if = "is_off")]
        within: bool,
        /// The centre of the first voxel stays instead, as in MONAI's `Spacing`.
        #[serde(default, skip_serializing_if = "is_off")]
        from_first: bool,
        /// Where the largest spacing of the source, or else `spacing_mm`, is more than this many times the smallest, and one axis alone has
        /// it: the nearest voxel along that axis.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        nearest_beyond: Option<f64>,
    },
    /// So many voxels: the image in the middle with its proportions, as large as it fits in, and 0 beside it. In place of `resample`.
    Resize {
        /// Voxels along i, j, k after `orient`; 1 along k of a single image.
        to: [u32; 3],
        /// Between voxel centres.
        interpolation: Interpolation,
    },
    /// Values below `min` become `min`, above `max` become `max`; physical units.
    Clip {
        /// Lowest value that stays.
        min: f64,
        /// Highest value that stays.
        max: f64,
    },
    /// `(value - subtract) / divide`.
    Normalize {
        /// Physical units.
        subtract: f64,
        /// Physical units, not 0.
        divide: f64,
    },
    /// `(value - mean) / standard deviation` of the source image (after `crop`), all of it or its foreground. In place of `clip` and `normalize`.
    ZScore {
        /// Only values above this one count, physical units; none: all do.
        above: Option<f64>,
        /// Only the foreground counts, in place of `above`. Not with `resampled`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        over: Option<Foreground>,
        /// Those that do not count become 0. Before `resample`, or with `resampled`.
        #[serde(default, skip_serializing_if = "is_off")]
        masked: bool,
        /// Only values that are not 0 count. With `resampled` only.
        #[serde(default, skip_serializing_if = "is_off")]
        nonzero: bool,
        /// Of what the steps before it have made, on the network's grid, instead of the source image. After any steps.
        #[serde(default, skip_serializing_if = "is_off")]
        resampled: bool,
    },
    /// Values clipped to two percentiles of the source image, which become 0 and 1. In place of `clip` and `normalize`.
    Percentiles {
        /// Becomes 0: 0 to 100.
        low: f64,
        /// Becomes 1: above `low`, to 100.
        high: f64,
        /// Only values above this one count, physical units; none: all do.
        above: Option<f64>,
        /// As in `z-score`.
        #[serde(default, skip_serializing_if = "is_off")]
        resampled: bool,
    },
}

impl PreprocessStep {
    /// Whether it decides where the voxels of the network's grid lie.
    pub fn is_geometry(&self) -> bool {
        matches!(self, Self::Orient { .. } | Self::Crop { .. } | Self::Resample { .. } | Self::Resize { .. })
    }

    /// Whether it measures what the steps before it have made, on the network's grid.
    pub fn measures_resampled(&self) -> bool {
        matches!(self, Self::ZScore { resampled: true, .. } | Self::Percentiles { resampled: true, .. })
    }
}

/// What of an image is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Foreground {
    /// What is not 0, with its holes filled: nnU-Net's.
    Nonzero,
}

/// Whether a length is as it was before it was there.
fn is_zero(length: &f64) -> bool {
    *length == 0.0
}

/// Whether a switch is as it was before it was there.
fn is_off(switch: &bool) -> bool {
    !switch
}

/// The network's output tensor: class scores with the input's layout, one channel for each finding and the background. Of an image as a
/// whole batch and channel, of boxes box and channel.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// Its name in the graph.
    pub tensor: String,
    /// Element type.
    #[serde(default)]
    pub dtype: Dtype,
    /// What the scores are, which only maps, instances, boxes and classifications need to know.
    pub scores: Option<ScoreKind>,
    /// The channel of what is none of the findings, where the network has one.
    pub background: Option<usize>,
    /// How scores go back to the source grid: `linear`, or `nearest`, the highest class of the nearest voxel of the network's grid.
    #[serde(default = "linear")]
    pub interpolation: Interpolation,
    /// The boxes or points whose scores these are, in place of scores of voxels.
    pub boxes: Option<Boxes>,
}

fn linear() -> Interpolation {
    Interpolation::Linear
}

/// What class scores are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScoreKind {
    /// Logarithms of probabilities but for a constant: softmax makes them probabilities.
    Logits,
    /// Of each class by itself: a sigmoid makes them probabilities.
    IndependentLogits,
    /// Probabilities but for a factor, none below 0: divided by their sum.
    Probabilities,
}

/// One postprocessing step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case", deny_unknown_fields)]
pub enum PostprocessStep {
    /// Scores of each voxel of the network's grid become probabilities that sum to 1, which are then what is interpolated.
    Softmax,
    /// Scores interpolated on the source grid; the highest class wins, the lower channel where two tie.
    Argmax,
    /// Scores interpolated on the source grid; of the findings whose score is high enough, that of the last channel wins. For regions that
    /// may lie within each other.
    Regions {
        /// What a score must be above: 0 for logits, the default, or 0.5 for probabilities.
        #[serde(default)]
        above: f32,
    },
    /// Connected components (26 neighbours) of each label: small ones become background.
    Components {
        /// Smallest component that stays, ml.
        #[serde(default)]
        min_ml: f64,
        /// Only the largest component of each label stays.
        #[serde(default)]
        keep_largest: bool,
    },
}

/// What one channel of the output means.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// Channel of the output tensor.
    pub channel: usize,
    /// Value in the label map, 1 to 255; 0 for a finding without voxels, as those of an image as a whole and boxes are.
    #[serde(default)]
    pub segment: u8,
    /// For people.
    pub name: String,
    /// Recommended display colour, sRGB, of a segment or a box.
    #[serde(default, deserialize_with = "exactly_some")]
    pub colour: Option<[u8; 3]>,
    /// Segmented property category (CID 7150).
    pub category: Code,
    /// Segmented property type, and the SR's Finding.
    #[serde(rename = "type")]
    pub finding_type: Code,
    /// Where in the body.
    pub site: Option<Code>,
    /// Which side.
    pub laterality: Option<Code>,
    /// Numbers to report.
    #[serde(default)]
    pub measurements: Vec<MeasurementKind>,
    /// Each of its objects is a finding of its own, in place of all of them together.
    pub instances: Option<Instances>,
    /// From which probability on it is present, in a classification.
    pub threshold: Option<Threshold>,
    /// The number that it is, in a regression.
    pub estimate: Option<Estimate>,
}

/// Values for each voxel of the source.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Map {
    /// For people: "lung probability".
    pub name: String,
    /// What the values are.
    pub of: MapKind,
    /// Name of the finding whose probability or spread it is.
    pub finding: Option<String>,
}

/// What the values of a map are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MapKind {
    /// That of one finding, 0 to 1.
    Probability,
    /// Normalized entropy over all findings: 0 certain, 1 every finding as likely.
    Uncertainty,
    /// Standard deviation of the probability of one finding over the graphs of an ensemble, 0 to 0.5.
    Spread,
}

/// What a map is computed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapOf {
    /// The probability of one class.
    Probability {
        /// Its channel.
        channel: usize,
    },
    /// The entropy over all classes.
    Uncertainty,
    /// How far the graphs of an ensemble are apart in the probability of one class.
    Spread {
        /// Its channel.
        channel: usize,
    },
}

/// A number that can be measured on a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MeasurementKind {
    /// Voxels times voxel volume, ml.
    Volume,
    /// Mean physical value.
    Mean,
    /// Population standard deviation of the physical values.
    StandardDeviation,
    /// Least physical value.
    Minimum,
    /// Greatest physical value.
    Maximum,
    /// Median of the physical values.
    Median,
    /// 5 % of the physical values are below.
    #[serde(rename = "percentile-5")]
    Percentile5,
    /// 10 % of the physical values are below.
    #[serde(rename = "percentile-10")]
    Percentile10,
    /// 90 % of the physical values are below.
    #[serde(rename = "percentile-90")]
    Percentile90,
    /// 95 % of the physical values are below.
    #[serde(rename = "percentile-95")]
    Percentile95,
    /// Largest distance between voxel centres in space, mm.
    LongestDiameter,
    /// Largest distance between voxel centres of one slice, mm.
    LongAxis,
    /// Longest line across the long axis in its slice, mm.
    ShortAxis,
    /// Area of the surface, mm².
    SurfaceArea,
    /// Surface of a ball of the same volume, as a share of the region's.
    Sphericity,
}

impl MeasurementKind {
    /// As in a manifest.
    pub fn name(self) -> String {
        let name = serde_json::to_value(self).expect("a kind is a text");
        name.as_str().expect("a kind is a text").to_owned()
    }
}

impl Manifest {
    /// Reads a manifest's text; `path` is only for messages.
    ///
    /// # Errors
    /// A newer format, an unknown step, or a text that is no manifest, each with the place.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ModelError> {
        let invalid = |e: toml::de::Error| ModelError::Manifest { message: e.to_string().trim_end().to_owned(), path: path.to_owned() };
        let table: toml::Table = toml::from_str(text).map_err(invalid)?;
        match table.get("format").and_then(toml::Value::as_integer) {
            Some(found) if found > FORMAT => return Err(ModelError::NewerFormat { found, known: FORMAT, path: path.to_owned() }),
            _ => {}
        }
        for (stage, known) in [("preprocess", PREPROCESS_STEPS), ("postprocess", POSTPROCESS_STEPS)] {
            let steps = table.get(stage).and_then(toml::Value::as_array).into_iter().flatten();
            for step in steps.filter_map(|s| s.get("step")?.as_str()) {
                if !known.contains(&step) {
                    return Err(ModelError::UnknownStep { stage, step: step.to_owned(), known, path: path.to_owned() });
                }
            }
        }
        let mut to_fill_in = Vec::new();
        table.iter().for_each(|(key, value)| add_to_fill_in(key, value, &mut to_fill_in));
        if !to_fill_in.is_empty() {
            let what = format!("{} still says {FILL_IN}: results would repeat it", to_fill_in.join(", "));
            return Err(ModelError::Unsupported { what, path: path.to_owned() });
        }
        let manifest: Self = toml::from_str(text).map_err(invalid)?;
        manifest.check().map_err(|what| ModelError::Unsupported { what, path: path.to_owned() })?;
        Ok(manifest)
    }

    /// Whether `text` can be a package's name.
    pub fn is_name(text: &str) -> bool {
        (1..=32).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric() || "-._+".contains(c))
    }

    /// Every file that the manifest names with its hash: the graphs, those of stages among them, and the image of the reference case.
    pub fn files(&self) -> impl Iterator<Item = &File> {
        let image = self.reference.as_ref().and_then(|reference| match &reference.input {
            ReferenceInput::File(file) => Some(file),
            ReferenceInput::Phantom => None,
        });
        self.file.iter().chain(self.stage.iter().flat_map(|stage| &stage.file)).chain(image)
    }

    /// Channels of the output: one for each finding and the background.
    pub fn channels(&self) -> usize {
        self.finding.len() + usize::from(self.output.background.is_some())
    }

    /// The label of each channel, 0 for the background.
    pub fn label_of_channel(&self) -> Vec<u8> {
        let mut labels = vec![0; self.channels()];
        self.finding.iter().for_each(|finding| labels[finding.channel] = finding.segment);
        labels
    }

    /// The maps, with what each is computed from, and from what kind of scores.
    pub fn maps(&self) -> impl Iterator<Item = (&Map, MapOf, ScoreKind)> {
        let of = |map: &Map| {
            let finding = self.finding.iter().find(|finding| Some(&finding.name) == map.finding.as_ref());
            match map.of {
                MapKind::Probability => Some(MapOf::Probability { channel: finding?.channel }),
                MapKind::Uncertainty => Some(MapOf::Uncertainty),
                MapKind::Spread => Some(MapOf::Spread { channel: finding?.channel }),
            }
        };
        self.map.iter().filter_map(move |map| Some((map, of(map)?, self.score_kind()?)))
    }

    /// Whether some map needs what each graph of the ensemble says by itself.
    pub fn has_spread(&self) -> bool {
        self.map.iter().any(|map| map.of == MapKind::Spread)
    }

    /// What scores are by the time that they are interpolated.
    pub fn score_kind(&self) -> Option<ScoreKind> {
        if self.has_softmax() { Some(ScoreKind::Probabilities) } else { self.output.scores }
    }

    /// The values that patches are empty of which, where the package leaves such out.
    pub fn empty_patches(&self) -> Option<[f64; 2]> {
        match &self.inference {
            Inference::SlidingWindow(window) => window.empty,
            Inference::Tiles(_) | Inference::Whole(_) => None,
        }
    }

    /// The scores of each channel where nothing is found for certain; `None` where no score says that.
    pub fn background_scores(&self) -> Option<Vec<f32>> {
        let of_regions = self.postprocess.iter().any(|step| matches!(step, PostprocessStep::Regions { .. }));
        let certainly_not = match self.output.scores {
            Some(ScoreKind::Probabilities) => 0.0,
            _ => LEAST_LOGIT,
        };
        let of_background = if certainly_not == 0.0 { 1.0 } else { 0.0 };
        let mut scores = vec![certainly_not; self.channels()];
        match self.output.background {
            Some(background) => *scores.get_mut(background)? = of_background,
            None if of_regions => {}
            None => return None,
        }
        Some(scores)
    }

    /// Whether its result is a label map.
    pub(super) fn has_labels(&self) -> bool {
        !self.model.task.is_of_whole() && self.output.boxes.is_none()
    }

    /// Whether scores become probabilities on the network's grid.
    pub fn has_softmax(&self) -> bool {
        self.postprocess.contains(&PostprocessStep::Softmax)
    }
}

/// Adds the names of the texts within `value` that nobody has filled in yet: `model.licence`, `finding[0].name`.
fn add_to_fill_in(name: &str, value: &toml::Value, to_fill_in: &mut Vec<String>) {
    match value {
        toml::Value::String(text) if text.starts_with(FILL_IN) => to_fill_in.push(format!("`{name}`")),
        toml::Value::Array(values) => {
            values.iter().enumerate().for_each(|(n, value)| add_to_fill_in(&format!("{name}[{n}]"), value, to_fill_in));
        }
        toml::Value::Table(table) => {
            table.iter().for_each(|(key, value)| add_to_fill_in(&format!("{name}.{key}"), value, to_fill_in));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests;
