//! The manifest `model.toml`, format 1. Fields that it does not know are errors, never ignored.

use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

use super::reference::{Reference, ReferenceInput};
use super::select::Kind;
use super::{Axes, Channel, Estimate, Explanation, FollowUp, Inference, Instances, ModelError, PreviousLabels, Select, Stage, Threshold};
use crate::codes::Code;
use crate::kernels::Interpolation;

/// What a text begins with that is still to be filled in, in a package that was just begun.
const FILL_IN: &str = "FILL IN";
/// The manifest format that this program reads.
const FORMAT: i64 = 1;
/// Maps that a package may have.
const MAX_MAPS: usize = 16;
/// Steps from the first one that is `resampled` on: each is a pass over the network's grid.
const MAX_PASSES: usize = 8;
const LATER_STEPS: &str = "after a step that is `resampled` come only others, `clip` and `normalize`: 8 at most";
const PREPROCESS_STEPS: &[&str] = &["orient", "crop", "resample", "resize", "clip", "normalize", "z-score", "percentiles"];
const POSTPROCESS_STEPS: &[&str] = &["softmax", "argmax", "regions", "components"];
/// Logit of what is certainly not there: a probability of 1e-13.
const LEAST_LOGIT: f32 = -30.0;
/// Findings that `regions` can tell apart: one label is that of none.
const MAX_REGIONS: usize = 254;

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
    /// The same, where the objects of some class are findings each.
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
}

/// Element type of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dtype {
    /// IEEE 754 single precision.
    Float32,
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
/// whole batch and channel.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// Its name in the graph.
    pub tensor: String,
    /// What the scores are, which only maps, instances and classifications need to know.
    pub scores: Option<ScoreKind>,
    /// The channel of what is none of the findings, where the network has one.
    pub background: Option<usize>,
    /// How scores go back to the source grid: `linear`, or `nearest`, the highest class of the nearest voxel of the network's grid.
    #[serde(default = "linear")]
    pub interpolation: Interpolation,
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
    /// Value in the label map, 1 to 255; 0 for a finding without region, as those of an image as a whole are.
    #[serde(default)]
    pub segment: u8,
    /// For people.
    pub name: String,
    /// Recommended display colour, sRGB, of a segment.
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
    /// Name of the finding whose probability it is.
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
        let of = |map: &Map| match map.of {
            MapKind::Probability => {
                let finding = self.finding.iter().find(|finding| Some(&finding.name) == map.finding.as_ref())?;
                Some(MapOf::Probability { channel: finding.channel })
            }
            MapKind::Uncertainty => Some(MapOf::Uncertainty),
        };
        self.map.iter().filter_map(move |map| Some((map, of(map)?, self.score_kind()?)))
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
    fn has_labels(&self) -> bool {
        !self.model.task.is_of_whole()
    }

    /// Whether scores become probabilities on the network's grid.
    pub fn has_softmax(&self) -> bool {
        self.postprocess.contains(&PostprocessStep::Softmax)
    }

    /// What TOML's types cannot say.
    fn check(&self) -> Result<(), String> {
        self.check_stages()?;
        self.check_network()
    }

    /// What holds of the package's own network, and of each stage by itself.
    pub(super) fn check_network(&self) -> Result<(), String> {
        let require = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
        require(self.format == FORMAT, "`format` is not 1")?;
        require(
            Self::is_name(&self.model.name) && Self::is_name(&self.model.version),
            "`model.name` and `model.version` take 1 to 32 letters, digits, - . _ +",
        )?;
        require(is_version(&self.model.version), "`model.version` is no version: numbers with dots between them, as 1.0.0 or 1.2.0-rc.1")?;
        let is_hash = |file: &File| file.sha256.len() == 64 && file.sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if let Some(file) = self.files().find(|file| !is_hash(file)) {
            return Err(format!("the `sha256` of the file {:?} is not 64 hexadecimal digits, a to f in small letters", file.path));
        }
        require(!self.file.is_empty(), "no `file`: a package has an ONNX graph at least")?;
        self.select.check()?;
        self.inference.check()?;
        if self.has_labels() {
            self.check_labels()?;
        }
        self.check_channels()?;
        self.steps_of_images().into_iter().try_for_each(Self::check_preprocess)?;
        self.check_findings()?;
        self.check_maps()
    }

    /// Numbers and order of the preprocessing steps.
    fn check_preprocess(steps: &[PreprocessStep]) -> Result<(), String> {
        let require = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
        let is_resample = |s: &PreprocessStep| matches!(s, PreprocessStep::Resample { .. } | PreprocessStep::Resize { .. });
        let of_values = steps.iter().position(|s| !s.is_geometry());
        let resample_comes_first = steps.iter().position(is_resample).is_some_and(|n| of_values.is_none_or(|first| n < first));
        for step in steps {
            match step {
                PreprocessStep::Orient { .. } => {}
                PreprocessStep::Resample { spacing_mm, within, from_first, nearest_beyond, .. } => {
                    require(!(*within && *from_first), "`resample` keeps the outer faces (`within`) or the first voxel (`from_first`)")?;
                    let fits = |&s: &f64| s == 0.0 || (0.05..=50.0).contains(&s);
                    require(spacing_mm.iter().all(fits), "`resample.spacing_mm` is outside 0.05 to 50 mm, and not 0, which keeps an axis")?;
                    require(
                        nearest_beyond.is_none_or(|ratio| (1.0..=1000.0).contains(&ratio)),
                        "`resample.nearest_beyond` is outside 1 to 1000",
                    )?;
                }
                PreprocessStep::Resize { to, .. } => {
                    require(to.iter().all(|n| (1..=1 << 12).contains(n)), "`resize.to` has an axis outside 1 to 4096")?;
                }
                PreprocessStep::Crop { to, above, labelled, margin_mm, .. } => {
                    let given = [to.is_some(), above.is_some(), !labelled.is_empty()].into_iter().filter(|is| *is).count();
                    require(given == 1, "`crop` takes one of `to`, `above` and `labelled`")?;
                    require(above.is_none_or(f64::is_finite), "`crop.above` is not finite")?;
                    require((0.0..=1000.0).contains(margin_mm), "`crop.margin_mm` is outside 0 to 1000 mm")?;
                }
                PreprocessStep::Clip { min, max } => require(min < max, "`clip` has min >= max")?,
                PreprocessStep::Normalize { divide, .. } => require(divide.is_normal(), "`normalize.divide` is 0 or not finite")?,
                PreprocessStep::ZScore { above, over, masked, nonzero, resampled } => {
                    require(above.is_none_or(f64::is_finite), "`z-score.above` is not finite")?;
                    require(above.is_none() || over.is_none(), "`z-score` takes one of `above` and `over`")?;
                    require(over.is_none() || !resampled, "`z-score.over` is of the series: not for `resampled`, which has `nonzero`")?;
                    require(
                        above.is_some() || over.is_some() || *nonzero || !masked,
                        "`z-score.masked` needs `above`, `over` or `nonzero`",
                    )?;
                    require(
                        !masked || *resampled || !resample_comes_first,
                        "`z-score` with `masked` comes before `resample`, or is `resampled`",
                    )?;
                    require(!nonzero || (*resampled && above.is_none()), "`z-score.nonzero` is for `resampled`, and without `above`")?;
                }
                PreprocessStep::Percentiles { low, high, above, .. } => {
                    require(above.is_none_or(f64::is_finite), "`percentiles.above` is not finite")?;
                    require(
                        (0.0..=100.0).contains(low) && (0.0..=100.0).contains(high) && low < high,
                        "`percentiles` has no `low` below `high`, both 0 to 100",
                    )?;
                }
            }
        }
        let rank = |s: &PreprocessStep| match s {
            PreprocessStep::Orient { .. } => 0,
            PreprocessStep::Crop { .. } => 1,
            PreprocessStep::Resample { .. } | PreprocessStep::Resize { .. } => {
                if resample_comes_first {
                    2
                } else {
                    5
                }
            }
            PreprocessStep::Clip { .. } => 3,
            PreprocessStep::Normalize { .. } | PreprocessStep::ZScore { .. } | PreprocessStep::Percentiles { .. } => 4,
        };
        let first_resampled = steps.iter().position(PreprocessStep::measures_resampled).unwrap_or(steps.len());
        let (fused, later) = steps.split_at(first_resampled);
        require(
            fused.is_sorted_by(|a, b| rank(a) < rank(b)),
            "`preprocess` steps come at most once each and in the order orient, crop, resample or resize, clip, and one of normalize, z-score, \
             percentiles; or orient, crop, clip, one of these, resample or resize; then those that are `resampled`",
        )?;
        let follows =
            |s: &PreprocessStep| s.measures_resampled() || matches!(s, PreprocessStep::Clip { .. } | PreprocessStep::Normalize { .. });
        require(later.len() <= MAX_PASSES && later.iter().all(follows), LATER_STEPS)?;
        let clips = fused.iter().any(|s| matches!(s, PreprocessStep::Clip { .. }));
        let measures = fused.iter().any(|s| matches!(s, PreprocessStep::ZScore { .. } | PreprocessStep::Percentiles { .. }));
        require(!(clips && measures), "`z-score` and `percentiles` take the image as it is: no `clip` before them")
    }

    /// Names, numbers and codes of the findings, and what is named beside them.
    fn check_findings(&self) -> Result<(), String> {
        let require = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
        require(!self.finding.is_empty(), "no `finding`")?;
        require(
            self.output.background.is_none_or(|background| background < self.channels()),
            "`output.background` is beyond the channels of the output: one for each finding and the background",
        )?;
        for (n, finding) in self.finding.iter().enumerate() {
            require(finding.segment > 0 || !self.has_labels(), "`finding.segment` 0 is background")?;
            let before = self.finding[..n].iter().map(|other| other.channel).chain(self.output.background);
            require(
                finding.channel < self.channels() && before.clone().all(|other| other != finding.channel),
                "`finding.channel` and `output.background` name each channel of the output once, from 0 on",
            )?;
            let others = &self.finding[n + 1..];
            require(
                others.iter().all(|o| (o.segment != finding.segment || !self.has_labels()) && o.name != finding.name),
                "two findings share a segment or a name",
            )?;
            for code in [Some(&finding.category), Some(&finding.finding_type), finding.site.as_ref(), finding.laterality.as_ref()] {
                let fits =
                    code.is_none_or(|c| (1..=16).contains(&c.value.len()) && !c.scheme.is_empty() && (1..=64).contains(&c.meaning.len()));
                require(fits, "a code has an empty part, or a value over 16 or a meaning over 64 characters")?;
            }
        }
        self.check_instances()?;
        self.check_follow_up()?;
        if !self.has_labels() {
            self.check_whole()?;
        }
        self.reference.as_ref().map_or(Ok(()), |reference| reference.check(&self.finding))?;
        let inside = |path: &str| Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
        require(self.files().all(|file| inside(&file.path)), "the path of a file does not lie within the package")
    }

    /// What a package whose result is a label map needs, and what it has no use for.
    fn check_labels(&self) -> Result<(), String> {
        let require = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
        require(
            [Interpolation::Nearest, Interpolation::Linear].contains(&self.output.interpolation),
            "`output.interpolation` is neither \"nearest\" nor \"linear\"",
        )?;
        require(
            !self.has_softmax() || self.output.scores.is_none_or(|kind| kind == ScoreKind::Logits),
            "`softmax` makes probabilities of `logits`: `output.scores` says something else",
        )?;
        let labels = &self.postprocess[usize::from(self.postprocess.first() == Some(&PostprocessStep::Softmax))..];
        let decides = match labels.first() {
            Some(PostprocessStep::Argmax) => true,
            Some(PostprocessStep::Regions { .. }) => !self.has_softmax(),
            _ => false,
        };
        require(decides, "the first `postprocess` step must be `argmax`, `softmax` and then `argmax`, or `regions`")?;
        let once = |s: &PostprocessStep| matches!(s, PostprocessStep::Components { .. });
        require(labels.iter().skip(1).all(once), "`postprocess` has `softmax` late, or a second `softmax`, `argmax` or `regions`")?;
        if let Some(PostprocessStep::Regions { above }) = labels.first() {
            require(above.is_finite(), "`regions.above` is not finite")?;
            require(self.output.background.is_none(), "`regions` has no channel for the background: it is where no region is")?;
            require(self.finding.len() <= MAX_REGIONS, "`regions` takes 254 findings at most")?;
        }
        require(
            self.empty_patches().is_none() || (self.output.scores.is_some() && self.background_scores().is_some()),
            "`sliding-window.empty` makes background of patches: it needs `output.scores`, and `output.background` or `regions`",
        )?;
        require(!matches!(self.inference, Inference::Whole(_)), "`inference.whole` is of classifications: give tiles or a sliding window")?;
        require(self.select.kind == Kind::Volume, "`select.kind` of anything but a classification is \"volume\"")?;
        let resizes = self.preprocess.iter().any(|s| matches!(s, PreprocessStep::Resize { .. }));
        require(!resizes, "`resize` is of classifications: give `resample` with a spacing")?;
        require(self.explanation.is_none(), "`explanation` is of classifications: a [[map]] shows a segmentation's probabilities")?;
        require(self.finding.iter().all(|f| f.threshold.is_none()), "`finding.threshold` is of classifications")?;
        require(self.finding.iter().all(|f| f.estimate.is_none()), "`finding.estimate` is of regressions")?;
        require(self.finding.iter().all(|f| f.colour.is_some()), "a `finding` with a segment has no `colour`")
    }

    fn check_maps(&self) -> Result<(), String> {
        if !self.map.is_empty() && self.output.scores.is_none() {
            return Err("a `map` needs `output.scores`: `logits`, `independent-logits` or `probabilities`".to_owned());
        }
        if self.map.len() > MAX_MAPS {
            return Err(format!("{} maps: at most {MAX_MAPS} are written", self.map.len()));
        }
        for (n, map) in self.map.iter().enumerate() {
            let wrong = |what: &str| Err(format!("the map `{}` {what}", map.name));
            if !(1..=64).contains(&map.name.len()) || !map.name.chars().all(|c| matches!(c, ' '..='~') && c != '\\') {
                return Err("`map.name` takes 1 to 64 ASCII characters, none of them a backslash".to_owned());
            }
            if self.map[n + 1..].iter().any(|other| other.name == map.name) {
                return wrong("is there twice");
            }
            match (map.of, &map.finding) {
                (MapKind::Probability, None) => return wrong("is of the probability of a `finding`, and names none"),
                (MapKind::Probability, Some(name)) if !self.finding.iter().any(|finding| finding.name == *name) => {
                    return wrong("is of a `finding` that is none of the package's");
                }
                (MapKind::Uncertainty, Some(_)) => return wrong("is of the uncertainty between all findings, and names one"),
                (MapKind::Uncertainty, None) if self.channels() < 2 => return wrong("is of the uncertainty between one finding"),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Whether a text is numbers with dots between them, and what may follow a `-` or `+`: `1.0.0`, `1.2.0-rc.1`.
pub(super) fn is_version(text: &str) -> bool {
    let numbers = text.split(['-', '+']).next().unwrap_or_default();
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    (1..=4).contains(&numbers.split('.').count()) && numbers.split('.').all(is_number)
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
mod tests {
    use super::*;
    use crate::geometry::Coded;

    #[test]
    fn what_nobody_has_filled_in_is_named() {
        let shipped = include_str!("../../models/ct-tissue/model.toml");
        let begun = shipped.replace("licence = \"MIT OR Apache-2.0\"", "licence = \"FILL IN: an SPDX expression\"");
        let begun = begun.replacen("name = \"lung\"", "name = \"FILL IN\"", 1);
        let error = Manifest::parse(&begun, Path::new("model.toml")).expect_err("it is refused");
        assert_eq!(error.code(), "model.unsupported");
        assert!(error.to_string().contains("`model.licence`") && error.to_string().contains("].name`"), "{error}");
    }

    #[test]
    fn versions_and_hashes_look_like_such() {
        let shipped = include_str!("../../models/ct-tissue/model.toml");
        let version = shipped.lines().find(|line| line.starts_with("version = ")).expect("it has a version");
        let with = |text: &str| Manifest::parse(text, Path::new("model.toml")).map_err(|error| error.to_string());
        for (text, fits) in [("1.0.0", true), ("0.3", true), ("1.2.0-rc.1+b7", true), ("latest", false), ("v1.0", false), ("1..0", false)] {
            assert_eq!(with(&shipped.replace(version, &format!("version = {text:?}"))).is_ok(), fits, "{text}");
        }
        for wrong in ["sha256 = \"0", "sha256 = \"0x", "sha256 = \"\"\n# \""] {
            assert!(with(&shipped.replacen("sha256 = \"", wrong, 1)).is_err_and(|e| e.contains("64 hexadecimal digits")), "{wrong}");
        }
    }

    #[test]
    fn what_is_no_toml_is_shown_with_its_line() {
        let error = Manifest::parse("format = 1\n[model]\nname = nobody\n", Path::new("model.toml")).expect_err("it is refused");
        assert!(error.to_string().contains("\n3 | name = nobody\n"), "{error}");
    }

    /// The shipped manifest with these value steps in place of its own.
    fn with_steps(steps: &str) -> Result<Manifest, ModelError> {
        let shipped = include_str!("../../models/ct-tissue/model.toml");
        let clip = "[[preprocess]]\nstep = \"clip\"\nmin = -1024.0\nmax = 3071.0\n";
        let normalize = "[[preprocess]]\nstep = \"normalize\"\nsubtract = 0.0\ndivide = 1000.0\n";
        let bare = shipped.replace(clip, "").replace(normalize, "");
        assert_eq!(bare.matches("[[preprocess]]").count(), 2, "orient and resample are left");
        Manifest::parse(&bare.replace("[inference.tiles]", &format!("{steps}\n[inference.tiles]")), Path::new("model.toml"))
    }

    fn check(steps: &str, expected: &[PreprocessStep]) {
        let manifest = with_steps(steps).expect("a manifest");
        assert_eq!(manifest.preprocess[2..], *expected);
    }

    fn refused(steps: &str, code: &str) {
        let error = with_steps(steps).expect_err("it is refused");
        assert_eq!(error.code(), code, "{error}");
    }

    #[test]
    fn an_image_may_normalise_itself() {
        let step = |fields: &str| format!("[[preprocess]]\nstep = {fields}\n");
        check(&step("\"z-score\""), &[PreprocessStep::ZScore { above: None, over: None, masked: false, nonzero: false, resampled: false }]);
        check(
            &step("\"z-score\"\nabove = 0"),
            &[PreprocessStep::ZScore { above: Some(0.0), over: None, masked: false, nonzero: false, resampled: false }],
        );
        check(
            &step("\"z-score\"\nover = \"nonzero\""),
            &[PreprocessStep::ZScore { above: None, over: Some(Foreground::Nonzero), masked: false, nonzero: false, resampled: false }],
        );
        refused(&step("\"z-score\"\nover = \"nonzero\"\nabove = 1.0"), "model.unsupported");
        refused(&step("\"z-score\"\nover = \"nonzero\"\nresampled = true"), "model.unsupported");
        let ends = "\"percentiles\"\nlow = 0.5\nhigh = 99.5";
        check(&step(ends), &[PreprocessStep::Percentiles { low: 0.5, high: 99.5, above: None, resampled: false }]);
        let clip = step("\"clip\"\nmin = 0.0\nmax = 1.0");
        refused(&(clip.clone() + &step("\"z-score\"")), "model.unsupported");
        refused(&(clip + &step(ends)), "model.unsupported");
        refused(&(step("\"z-score\"") + &step(ends)), "model.unsupported");
        refused(&step("\"percentiles\"\nlow = 5.0\nhigh = 5.0"), "model.unsupported");
        refused(&step("\"percentiles\"\nlow = 5.0\nhigh = 101.0"), "model.unsupported");
        refused(&step("\"z-score\"\nabove = inf"), "model.unsupported");
        refused(&step("\"z-score\"\nbelow = 1.0"), "model.manifest");
    }

    #[test]
    fn regions_may_lie_within_each_other() {
        let shipped = include_str!("../../models/ct-tissue/model.toml");
        let [argmax, softmax, regions] = ["argmax", "softmax", "regions"].map(|step| format!("step = \"{step}\"\n"));
        assert_eq!(shipped.matches(&argmax).count(), 1);
        let with = |steps: &str| Manifest::parse(&shipped.replace(&argmax, steps), Path::new("model.toml"));
        let first = |fields: &str| with(&format!("step = \"regions\"\n{fields}")).expect("a manifest").postprocess[0].clone();
        assert_eq!(first(""), PostprocessStep::Regions { above: 0.0 });
        assert_eq!(first("above = 0.5"), PostprocessStep::Regions { above: 0.5 });
        let two = |first: &str, second: &str| format!("{first}[[postprocess]]\n{second}");
        for refused in [regions.clone() + "above = nan", two(&regions, &argmax), two(&argmax, &regions), two(&softmax, &regions)] {
            assert_eq!(with(&refused).expect_err("it is refused").code(), "model.unsupported", "{refused}");
        }
        let background = shipped.replace(&argmax, "step = \"regions\"").replace("[output]\n", "[output]\nbackground = 9\n");
        assert_eq!(Manifest::parse(&background, Path::new("model.toml")).expect_err("it is refused").code(), "model.unsupported");
    }

    #[test]
    fn what_was_resampled_may_be_measured() {
        let step = |fields: &str| format!("[[preprocess]]\nstep = {fields}\n");
        let range = "\"percentiles\"\nlow = 0.0\nhigh = 100.0\nresampled = true";
        let later = step("\"z-score\"\nnonzero = true\nmasked = true\nresampled = true")
            + &step(range)
            + &step("\"normalize\"\nsubtract = 0.5\ndivide = 0.5");
        let expected = [
            PreprocessStep::ZScore { above: None, over: None, masked: true, nonzero: true, resampled: true },
            PreprocessStep::Percentiles { low: 0.0, high: 100.0, above: None, resampled: true },
            PreprocessStep::Normalize { subtract: 0.5, divide: 0.5 },
        ];
        check(&later, &expected);
        let clip = step("\"clip\"\nmin = 0.0\nmax = 1.0");
        assert_eq!(with_steps(&(clip + &later)).expect("a manifest").preprocess.len(), 6);
        refused(&step("\"z-score\"\nnonzero = true"), "model.unsupported");
        refused(&step("\"z-score\"\nnonzero = true\nabove = 0.0\nresampled = true"), "model.unsupported");
        refused(&(step(range) + &step("\"z-score\"")), "model.unsupported");
        refused(&step(range).repeat(9), "model.unsupported");
    }

    #[test]
    fn axes_faces_and_what_goes_back() {
        let with = |from: &str, to: &str| {
            let shipped = include_str!("../../models/ct-tissue/model.toml");
            assert_eq!(shipped.matches(from).count(), 1, "{from}");
            Manifest::parse(&shipped.replace(from, to), Path::new("model.toml"))
        };
        let code = |from: &str, to: &str| with(from, to).expect_err("it is refused").code();
        for to in ["SAR", "kji", "jki", "ijk"] {
            let manifest = with("to = \"LPS\"", &format!("to = \"{to}\"")).expect("a manifest");
            assert!(matches!(manifest.preprocess[0], PreprocessStep::Orient { to: axes } if axes.to_string() == to));
        }
        for to in ["LPR", "kjj", "kj", "kjil", "KJI"] {
            assert_eq!(code("to = \"LPS\"", &format!("to = \"{to}\"")), "model.manifest", "{to}");
        }
        assert_eq!(code("step = \"resample\"", "step = \"resample\"\nwithin = true\nfrom_first = true"), "model.unsupported");
        let argmax = "step = \"argmax\"";
        let softmax = "step = \"softmax\"\n[[postprocess]]\nstep = \"argmax\"";
        // Its scores are probabilities already.
        assert_eq!(code(argmax, softmax), "model.unsupported");
        let logits = include_str!("../../models/ct-tissue/model.toml").replace("scores = \"probabilities\"", "scores = \"logits\"");
        let manifest = Manifest::parse(&logits.replace(argmax, softmax), Path::new("model.toml")).expect("a manifest");
        assert!(manifest.has_softmax());
        assert_eq!(code(argmax, "step = \"softmax\""), "model.unsupported");
        assert_eq!(code(argmax, "step = \"argmax\"\n[[postprocess]]\nstep = \"softmax\""), "model.unsupported");
        let nearest = |how: &str| with("[output]\n", &format!("[output]\ninterpolation = \"{how}\"\n"));
        assert_eq!(nearest("nearest").expect("a manifest").output.interpolation, Interpolation::Nearest);
        assert_eq!(nearest("cubic").expect_err("it is refused").code(), "model.unsupported");
    }

    #[test]
    fn patches_may_be_empty_where_that_is_background() {
        let shipped = include_str!("../../models/ct-lung-nodule/model.toml");
        let with = |empty: &str, from: &str, to: &str| {
            assert!(shipped.contains(from), "{from}");
            let table = "[inference.sliding-window]\n";
            Manifest::parse(&shipped.replace(from, to).replace(table, &format!("{table}empty = {empty}\n")), Path::new("model.toml"))
        };
        let manifest = with("[-inf, -1.0]", "", "").expect("a manifest");
        assert_eq!(manifest.empty_patches(), Some([f64::NEG_INFINITY, -1.0]));
        let scores = manifest.background_scores().expect("it has a background");
        let background = manifest.output.background.expect("it has a background");
        assert!(scores.iter().enumerate().all(|(channel, &score)| score == if channel == background { 0.0 } else { LEAST_LOGIT }));
        assert!(with("[0.0, 0.0]", "", "").is_ok());
        for range in ["[1.0, -1.0]", "[-inf, inf]", "[nan, 1.0]"] {
            assert_eq!(with(range, "", "").expect_err("it is refused").code(), "model.unsupported", "{range}");
        }
    }

    #[test]
    fn an_image_may_be_cropped() {
        let shipped = include_str!("../../models/ct-tissue/model.toml");
        let resample = "[[preprocess]]\nstep = \"resample\"";
        let with = |fields: &str| {
            let crop = format!("[[preprocess]]\nstep = \"crop\"\n{fields}\n\n{resample}");
            Manifest::parse(&shipped.replace(resample, &crop), Path::new("model.toml"))
        };
        let check = |fields: &str, to, above, margin| {
            let manifest = with(fields).expect("a manifest");
            let crop = PreprocessStep::Crop { to, above, labelled: Vec::new(), margin, margin_mm: 0.0 };
            assert_eq!(manifest.preprocess[1], crop);
        };
        check("to = \"nonzero\"", Some(Foreground::Nonzero), None, 0);
        check("above = -500\nmargin = 3", None, Some(-500.0), 3);
        for fields in ["margin = 3", "to = \"nonzero\"\nabove = 0.0", "above = nan"] {
            assert_eq!(with(fields).expect_err("it is refused").code(), "model.unsupported", "{fields}");
        }
        assert_eq!(with("to = \"body\"").expect_err("it is refused").code(), "model.manifest");
    }

    #[test]
    fn values_may_come_before_spacing() {
        let shipped = include_str!("../../models/ct-tissue/model.toml");
        let step = |name: &str| {
            let start = shipped.find(&format!("[[preprocess]]\nstep = \"{name}\"")).expect("it has the step");
            let length = shipped[start + 1..].find("\n[").expect("more follows") + 2;
            &shipped[start..start + length]
        };
        let [resample, clip, normalize] = ["resample", "clip", "normalize"].map(step);
        let with = |steps: &str| {
            let bare = shipped.replace(resample, "").replace(clip, "").replace(normalize, "");
            Manifest::parse(&bare.replace("[inference.tiles]", &format!("{steps}\n[inference.tiles]")), Path::new("model.toml"))
        };
        let cubic = "[[preprocess]]\nstep = \"resample\"\nspacing_mm = [1.5, 1.5, 1.5]\ninterpolation = \"cubic\"\n";
        let masked = "[[preprocess]]\nstep = \"z-score\"\nabove = 0.0\nmasked = true\n";
        let last = |manifest: Manifest| manifest.preprocess.last().cloned();
        let nnunet = format!("{clip}{normalize}{cubic}within = true\nnearest_beyond = 3.0\n");
        let expected = PreprocessStep::Resample {
            spacing_mm: [1.5; 3],
            interpolation: Interpolation::Cubic,
            within: true,
            from_first: false,
            nearest_beyond: Some(3.0),
        };
        assert_eq!(last(with(&nnunet).expect("a manifest")), Some(expected));
        assert_eq!(with(&format!("{masked}{cubic}")).expect("a manifest").preprocess.len(), 3);
        let of_slices = cubic.replace("[1.5, 1.5, 1.5]", "[1.5, 1.5, 0.0]");
        assert!(matches!(last(with(&of_slices).expect("a manifest")), Some(PreprocessStep::Resample { spacing_mm: [_, _, 0.0], .. })));
        assert_eq!(with(&of_slices.replace("0.0]", "-1.0]")).expect_err("it is refused").code(), "model.unsupported");
        for refused in [format!("{clip}{cubic}{normalize}"), format!("{cubic}{masked}"), format!("{cubic}nearest_beyond = 0.5\n")] {
            assert_eq!(with(&refused).expect_err("it is refused").code(), "model.unsupported", "{refused}");
        }
    }
}
