//! MONAI: a bundle (`metadata.json`, `inference.json`, weights) becomes a package.
//!
//! MONAI itself reads the configuration and exports the network (`export_monai.py`). Each transform that a package has a step for becomes that
//! step. MONAI's arrays are x, y, z with z fastest: its first axis is k of a package, so all that goes by axes is turned round here.

mod intensity;
mod labels;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{ImportError, Tool, Written, ask, colour, selection, write};
use crate::codes::sha256_hex;
use crate::geometry::Orientation;
use crate::kernels::Interpolation;
use crate::model::channels::{MAX_CHANNELS, is_channel_name};
use crate::model::check::is_version;
use crate::model::{Axes, Beyond, Blending, Convention, Inference, Manifest, PostprocessStep, PreprocessStep, SlidingWindow, Tiles};
use intensity::Intensity;
use labels::Labels;

const TOOL: Tool = Tool { name: "MONAI", needs: "monai" };
const SCRIPT: &str = include_str!("export_monai.py");
const GRAPH: &str = "model.onnx";
/// Where a bundle keeps its configuration, the first that is there.
const CONFIGS: [&str; 3] = ["configs/inference.json", "configs/inference.yaml", "configs/inference.yml"];
/// Where a bundle keeps its weights.
const WEIGHTS: [&str; 2] = ["models/model.pt", "models/model.ts"];
/// Transforms that do not change what the network sees.
const NEUTRAL: [&str; 8] =
    ["LoadImaged", "EnsureChannelFirstd", "EnsureTyped", "ToTensord", "ToDeviced", "SelectItemsd", "DeleteItemsd", "Identityd"];
/// More than any volume has along an axis.
const WHOLE: u32 = 1 << 12;

/// What is to be imported.
#[derive(Debug, Clone)]
pub struct Monai {
    /// The bundle's folder.
    pub bundle: PathBuf,
    /// The configuration of inference, within it; none: the usual place.
    pub config: Option<PathBuf>,
    /// A checkpoint (`.pt`) or TorchScript (`.ts`), within it; none: the usual place.
    pub weights: Option<PathBuf>,
    /// A Python interpreter where `monai`, `onnx` and `onnxruntime` are installed.
    pub python: PathBuf,
    /// Goes on where something cannot be carried over.
    pub leave_out: bool,
}

/// What `export_monai.py` prints. Axes are MONAI's: x, y, z.
#[derive(Debug, Deserialize)]
struct Exported {
    name: String,
    version: String,
    modality: String,
    patch: Vec<u32>,
    dynamic: bool,
    channels: usize,
    output: Vec<usize>,
    /// Names of the channels of the input, where the bundle has some.
    #[serde(default)]
    input_channel_def: BTreeMap<String, String>,
    channel_def: BTreeMap<String, String>,
    preprocessing: Vec<Transform>,
    inferer: Transform,
    postprocessing: Vec<Transform>,
}

/// A transform or an inferer, by class.
#[derive(Debug, Deserialize)]
struct Transform {
    name: String,
    /// None where it was not made from the configuration.
    arguments: Option<Map<String, Value>>,
}

/// What becomes of a bundle.
#[derive(Debug, Default)]
struct Carried {
    preprocess: Vec<PreprocessStep>,
    inference: Option<Inference>,
    interpolation: Option<Interpolation>,
    postprocess: Vec<PostprocessStep>,
    lost: Lost,
}

/// What a package cannot say, one line each.
#[derive(Debug, Default)]
struct Lost {
    lines: Vec<String>,
    /// Whether there is no package at all that would run it.
    vital: bool,
}

impl Lost {
    /// Can be left out, with other results.
    fn name(&mut self, line: impl Into<String>) {
        self.lines.push(line.into());
    }

    /// Cannot be left out.
    fn stop(&mut self, line: impl Into<String>) {
        self.vital = true;
        self.name(line);
    }

    fn name_unless(&mut self, holds: bool, line: impl Into<String>) {
        if !holds {
            self.name(line);
        }
    }
}

impl Transform {
    fn get(&self, key: &str) -> Option<&Value> {
        self.arguments.as_ref()?.get(key).filter(|value| !value.is_null())
    }

    fn is_on(&self, key: &str) -> bool {
        self.get(key) == Some(&Value::Bool(true))
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_str()
    }

    /// One number, or the one that all of a list are.
    fn number(&self, key: &str) -> Option<f64> {
        match self.get(key)? {
            Value::Array(all) => all.first().filter(|first| all.iter().all(|one| one == *first))?.as_f64(),
            one => one.as_f64(),
        }
    }

    /// Numbers along i, j, k: a list along x, y, z turned round, or one for all.
    fn along_axes(&self, key: &str) -> Option<[f64; 3]> {
        match self.get(key)? {
            Value::Array(all) => {
                let all: Option<Vec<f64>> = all.iter().rev().map(Value::as_f64).collect();
                all?.try_into().ok()
            }
            one => one.as_f64().map(|one| [one; 3]),
        }
    }
}

/// Writes the package to `folder`, which must not be there. Nothing is written where something cannot be carried over.
///
/// # Errors
/// [`ImportError`]
pub fn import_monai(monai: &Monai, folder: &Path) -> Result<Written, ImportError> {
    let there = |named: &Option<PathBuf>, usual: &[&str], what| {
        let mut candidates = named.iter().cloned().chain(usual.iter().filter(|_| named.is_none()).map(PathBuf::from));
        let found = candidates.find(|file| monai.bundle.join(file).is_file());
        found.ok_or_else(|| ImportError::NotThere { what, path: monai.bundle.clone() })
    };
    let config = there(&monai.config, &CONFIGS, "no configs/inference.json or .yaml: give the folder of a MONAI bundle, or --config")?;
    let weights =
        there(&monai.weights, &WEIGHTS, "no models/model.pt or model.ts: download the bundle with its weights, or see --weights")?;
    let graphs = tempfile::tempdir()?;
    let arguments = [monai.bundle.as_os_str(), config.as_os_str(), weights.as_os_str(), graphs.path().as_os_str()];
    let exported: Exported = ask(&monai.python, TOOL, SCRIPT, &arguments)?;
    let mut carried = exported.carried();
    let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let graph = fs::read(graphs.path().join(GRAPH))?;
    let manifest = exported.manifest(name, &carried, &graph);
    if !carried.lost.vital
        && let Err(error) = Manifest::parse(&manifest, &folder.join("model.toml"))
    {
        carried.lost.stop(error.to_string());
    }
    let Lost { lines, vital } = carried.lost;
    if vital || !(lines.is_empty() || monai.leave_out) {
        return Err(ImportError::Incomplete(lines));
    }
    let package = write(folder, &manifest, &exported.card(name, &lines), &[(GRAPH, graph)])?;
    Ok(Written { package, left_out: lines })
}

impl Exported {
    fn carried(&self) -> Carried {
        let mut carried = Carried::default();
        let lost = &mut carried.lost;
        if !(1..=MAX_CHANNELS).contains(&self.channels) {
            lost.stop(format!("{} channels: this version runs networks of 1 to {MAX_CHANNELS}", self.channels));
        }
        if self.patch.len() != 3 {
            lost.stop(format!("a network of {} dimensions: this version imports those of three", self.patch.len()));
        } else if self.output.len() != 5 || self.output[2..].iter().zip(&self.patch).any(|(&out, &n)| out != n as usize) {
            lost.stop("a network whose answer is no map of its input: this version imports segmentation");
        } else if !(2..=256).contains(&self.output[1]) {
            lost.stop(format!(
                "an answer of {} channels: this version runs a background and 1 to 255 classes that exclude each other",
                self.output[1]
            ));
        }
        carried.preprocess = self.preprocess(lost);
        carried.inference = self.inference(lost);
        let is_resampled = carried.preprocess.iter().any(|step| matches!(step, PreprocessStep::Resample { .. }));
        let Labels { interpolation, steps } = labels::of(&self.postprocessing, is_resampled, lost);
        (carried.interpolation, carried.postprocess) = (Some(interpolation), steps);
        carried
    }

    /// Orientation, spacing and values, in the order of the bundle.
    fn preprocess(&self, lost: &mut Lost) -> Vec<PreprocessStep> {
        let mut axes = Axes::REVERSED;
        let mut intensity = Intensity { of_channels: self.channels > 1, steps: Vec::new() };
        let spacing = self.preprocessing.iter().position(|transform| transform.name == "Spacingd");
        for (n, transform) in self.preprocessing.iter().enumerate() {
            let name = transform.name.as_str();
            if NEUTRAL.contains(&name) {
                continue;
            }
            if transform.arguments.is_none() {
                lost.stop(format!("the transform {name}, which is not made from the configuration"));
                continue;
            }
            match name {
                "Orientationd" => {
                    lost.name_unless(spacing.is_none_or(|spacing| n < spacing), "Orientationd after Spacingd: it comes before");
                    match orientation(transform) {
                        Some(orientation) => axes = Axes::Patient(orientation),
                        None => lost.stop(format!("Orientationd to {}", transform.get("axcodes").unwrap_or(&Value::Null))),
                    }
                }
                "Spacingd" => match resample(transform, lost) {
                    Some(step) => intensity.resample(step),
                    None => lost.stop(format!("Spacingd with pixdim {}", transform.get("pixdim").unwrap_or(&Value::Null))),
                },
                _ => intensity.add(transform, spacing.is_some_and(|spacing| n < spacing), lost),
            }
        }
        let mut steps = vec![PreprocessStep::Orient { to: axes }];
        steps.extend(intensity.steps);
        steps
    }

    fn inference(&self, lost: &mut Lost) -> Option<Inference> {
        let inferer = &self.inferer;
        let patch = [2, 1, 0].map(|axis| self.patch.get(axis).copied().unwrap_or(1));
        match inferer.name.as_str() {
            "SimpleInferer" if self.dynamic => Some(Inference::Tiles(Tiles { tile: [WHOLE; 3], halo: 0 })),
            "SimpleInferer" => {
                lost.stop("SimpleInferer with a network that could be exported for one size only");
                None
            }
            "SlidingWindowInferer" => {
                let overlap = inferer.number("overlap");
                let gaussian = inferer.text("mode") == Some("gaussian");
                let fixed = inferer.along_axes("roi_size").is_some_and(|roi| roi.iter().all(|&n| n >= 1.0));
                if !fixed || overlap.is_none() {
                    lost.stop("SlidingWindowInferer with a roi_size of whole axes, or an overlap for each axis");
                }
                lost.name_unless(
                    !gaussian || inferer.number("sigma_scale") == Some(0.125),
                    "SlidingWindowInferer's sigma_scale: it is 0.125",
                );
                let zero = inferer.number("cval") == Some(0.0);
                let beyond = match inferer.text("padding_mode") {
                    Some("replicate") => Beyond::Edge,
                    Some("constant") if zero => Beyond::Zero,
                    _ => {
                        lost.name("SlidingWindowInferer's padding_mode or cval: what a volume smaller than a patch lacks is 0");
                        Beyond::Zero
                    }
                };
                Some(Inference::SlidingWindow(SlidingWindow {
                    patch,
                    overlap: overlap.unwrap_or_default(),
                    blending: if gaussian { Blending::Gaussian } else { Blending::Constant },
                    convention: Convention::Monai,
                    beyond,
                    mirror: Vec::new(),
                    empty: None,
                }))
            }
            other => {
                lost.stop(format!("the inferer {other}: this version knows SlidingWindowInferer and SimpleInferer"));
                None
            }
        }
    }

    fn manifest(&self, name: &str, carried: &Carried, graph: &[u8]) -> String {
        #[derive(Serialize)]
        struct Steps<'a> {
            preprocess: &'a [PreprocessStep],
            #[serde(skip_serializing_if = "Option::is_none")]
            inference: Option<&'a Inference>,
            postprocess: &'a [PostprocessStep],
        }
        let steps = Steps { preprocess: &carried.preprocess, inference: carried.inference.as_ref(), postprocess: &carried.postprocess };
        let steps = toml::to_string(&steps).expect("steps are tables of numbers and text");
        let mut channels = String::new();
        for channel in (0..self.channels).filter(|_| self.channels > 1) {
            channels += &format!("\n[[input.channel]]\nname = {:?}\n", self.channel_name(channel));
            if channel > 0 {
                channels += &format!("[input.channel.select]\n{}", self.selection(channel));
            }
        }
        let nearest = if carried.interpolation == Some(Interpolation::Nearest) { "interpolation = \"nearest\"\n" } else { "" };
        let mut text = format!(
            "# {name:?}: imported from the MONAI bundle {:?}. What is not stated is yours to say; docs/package-format.md explains every field.\n\
             format = 1\n\n[model]\nname = {name:?}\nversion = {:?}\ntask = \"segmentation\"\nmanufacturer = \"not stated\"\n\
             licence = \"not stated\"\nintended_use = \"Research only: imported from a MONAI bundle, no intended use is stated.\"\n\
             regulatory_status = \"none\"\n\n[[file]]\npath = \"{GRAPH}\"\nsha256 = \"{}\"\n\n\
             [select]\n{}\n\
             [input]\ntensor = \"image\"\ndtype = \"float32\"\nlayout = \"NCDHW\"\n{channels}\n\
             [output]\ntensor = \"scores\"\nscores = \"logits\"\nbackground = 0\n{nearest}\n{steps}",
            self.name,
            self.version(),
            sha256_hex(graph),
            self.selection(0),
        );
        for channel in 1..self.output.get(1).copied().unwrap_or_default() {
            let name = self.class(channel);
            let [red, green, blue] = colour(channel as u64);
            let finding = format!(
                "\n[[finding]]\nchannel = {channel}\nsegment = {channel}\nname = {name:?}\ncolour = [{red}, {green}, {blue}]\n\
                 # To be said: codes of PS3.16, CID 7150 and what it includes.\n\
                 category = {{ value = \"91723000\", scheme = \"SCT\", meaning = \"Anatomical Structure\" }}\n\
                 type = {{ value = \"LABEL-{channel}\", scheme = \"99MONAI\", meaning = {:?} }}\n\
                 measurements = [\"volume\", \"mean\", \"standard-deviation\"]\n",
                name.chars().take(64).collect::<String>()
            );
            text.push_str(&finding);
        }
        text
    }

    /// As a package may have it, and none has twice.
    fn channel_name(&self, channel: usize) -> String {
        let named = |n: usize| self.input_channel_def.get(&n.to_string());
        let is_fit = |name: &&String| is_channel_name(name) && (0..self.channels).filter(|&n| named(n) == Some(name)).count() == 1;
        named(channel).filter(is_fit).cloned().unwrap_or_else(|| format!("channel {channel}"))
    }

    /// What is known of the series of a channel.
    fn selection(&self, channel: usize) -> String {
        let modality = if self.modality.to_ascii_uppercase().starts_with("CT") { "CT" } else { "MR" };
        selection(modality, 8, (self.channels > 1).then(|| self.channel_name(channel)))
    }

    /// The bundle's, where a package may have it.
    fn version(&self) -> &str {
        if Manifest::is_name(&self.version) && is_version(&self.version) { &self.version } else { "1.0.0" }
    }

    fn class(&self, channel: usize) -> String {
        self.channel_def.get(&channel.to_string()).filter(|name| !name.is_empty()).cloned().unwrap_or_else(|| format!("class {channel}"))
    }

    fn card(&self, name: &str, left_out: &[String]) -> String {
        let classes: Vec<String> = (1..self.output.get(1).copied().unwrap_or_default()).map(|channel| self.class(channel)).collect();
        let mut text = format!(
            "# {name} {}\n\n**Intended use: research only, none is stated.** Regulatory status: none. Licence: not stated.\n\n\
             Imported from the MONAI bundle {:?}.\n\n## What it does\n\nClasses: {}.\n",
            self.version(),
            self.name,
            classes.join(", ")
        );
        if !left_out.is_empty() {
            text.push_str("\n## Other than in MONAI\n\n");
            left_out.iter().for_each(|line| writeln!(text, "- {line}").expect("a text takes all"));
        }
        text.push_str("\n## Data and figures\n\nNot stated: what it was trained and tested on, and what was measured.\n");
        text
    }
}

/// Where i, j, k run: the last letter is that of the fastest axis.
fn orientation(transform: &Transform) -> Option<Orientation> {
    // The default labels, or a space that LoadImaged makes RAS.
    let usual = serde_json::json!([["L", "R"], ["P", "A"], ["I", "S"]]);
    if transform.get("labels").is_some_and(|labels| *labels != usual) {
        return None;
    }
    let codes = if transform.is_on("as_closest_canonical") { "RAS" } else { transform.text("axcodes")? };
    codes.chars().rev().collect::<String>().parse().ok()
}

fn resample(transform: &Transform, lost: &mut Lost) -> Option<PreprocessStep> {
    let spacing_mm = transform.along_axes("pixdim").filter(|spacing| spacing.iter().all(|&mm| mm > 0.0))?;
    let interpolation = match transform.text("mode") {
        Some("nearest") => Interpolation::Nearest,
        Some("bilinear") => Interpolation::Linear,
        _ => {
            lost.name(format!("Spacingd with mode {}: it is bilinear", transform.get("mode").unwrap_or(&Value::Null)));
            Interpolation::Linear
        }
    };
    for key in ["diagonal", "scale_extent", "recompute_affine"] {
        lost.name_unless(!transform.is_on(key), format!("Spacingd with {key}"));
    }
    for key in ["min_pixdim", "max_pixdim"] {
        lost.name_unless(transform.get(key).is_none(), format!("Spacingd with {key}: every volume is resampled"));
    }
    lost.name_unless(transform.text("padding_mode") == Some("border"), "Spacingd's padding_mode: edge voxels continue");
    Some(PreprocessStep::Resample { spacing_mm, interpolation, within: false, from_first: true, nearest_beyond: None })
}

#[cfg(test)]
mod tests;
