//! nnU-Net v2: a results folder (`DATASET/TRAINER__PLANS__CONFIGURATION`) becomes a package.
//!
//! nnU-Net itself exports its networks to ONNX, in a Python where it is installed (`export_nnunet.py`). Preprocessing and the sliding window
//! become steps of the manifest that do the same: the box around what is not 0, clip and normalisation before cubic splines within its
//! outer faces, nothing interpolated across thick slices, patches spread evenly, its Gaussian, its mirrors, folds averaged, scores linear back to the source.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::{ImportError, Tool, Written, ask, colour, selection, write};
use crate::codes::sha256_hex;
use crate::model::channels::{MAX_CHANNELS, MAX_NAME, is_in_name};

const TOOL: Tool = Tool { name: "nnU-Net", needs: "nnunetv2" };
const SCRIPT: &str = include_str!("export_nnunet.py");
/// nnU-Net's own.
const NORMALIZATIONS: [&str; 4] = ["CTNormalization", "ZScoreNormalization", "NoNormalization", "RescaleTo01Normalization"];
/// nnU-Net's `ANISO_THRESHOLD`.
const THICK: f64 = 3.0;
/// What a step of a manifest begins with.
const STEP: &str = "[[preprocess]]";
/// What `resample.nearest_beyond` takes.
const THICKS: RangeInclusive<f64> = 1.0..=1000.0;
/// nnU-Net's function for splines of order 3 there and 1 back.
const SPLINES: &str = "resample_data_or_seg_to_shape";
/// nnU-Net's function that is linear both ways.
const LINEAR: &str = "resample_torch_fornnunet";

/// What is to be imported.
#[derive(Debug, Clone)]
pub struct Nnunet {
    /// Folder with `plans.json`, `dataset.json` and `fold_N`.
    pub results: PathBuf,
    /// Which folds; none: all that are there.
    pub folds: Vec<String>,
    /// File name of the weights in each fold.
    pub checkpoint: String,
    /// A Python interpreter where `nnunetv2` is installed.
    pub python: PathBuf,
    /// Goes on where something cannot be carried over.
    pub leave_out: bool,
}

/// What `export_nnunet.py` prints. Axes are nnU-Net's: slice, row, column, in the order of `transpose`.
#[derive(Debug, Deserialize)]
struct Exported {
    files: Vec<String>,
    dataset: String,
    channels: Vec<String>,
    patch: Vec<u32>,
    spacing: Vec<f64>,
    transpose: Vec<usize>,
    mirror: Vec<usize>,
    normalization: Vec<String>,
    use_mask: Vec<bool>,
    intensity: Vec<BTreeMap<String, f64>>,
    resampling: Resampling,
    resampling_back: Resampling,
    /// Of labels: of the stage before, in a cascade.
    resampling_seg: Resampling,
    previous_stage: Option<String>,
    labels: BTreeMap<String, Value>,
    /// Labels that a cascade sees of the stage before, in the order of its channels.
    foreground: Vec<u64>,
    /// One for each channel; none where classes exclude each other.
    regions: Vec<Region>,
}

/// A function of nnU-Net and what its plans call it with.
#[derive(Debug, Deserialize)]
#[serde(from = "(String, BTreeMap<String, Value>)")]
struct Resampling {
    name: String,
    options: BTreeMap<String, Value>,
}

/// A region that a channel of the network finds.
#[derive(Debug, Deserialize)]
struct Region {
    name: String,
    /// The labels that it is made of.
    labels: Vec<u64>,
    /// The label that its voxels have, where no later region has them.
    label: u64,
}

/// Writes the package to `folder`, which must not be there. Nothing is written where something cannot be carried over.
///
/// # Errors
/// [`ImportError`]
pub fn import_nnunet(nnunet: &Nnunet, folder: &Path) -> Result<Written, ImportError> {
    let missing = |what| ImportError::NotThere { what, path: nnunet.results.clone() };
    if nnunet.results.join("plans.pkl").exists() {
        return Err(missing("plans.pkl is nnU-Net v1's, whose networks nnU-Net v2 does not load: train or convert the model with v2"));
    }
    if !nnunet.results.join("plans.json").is_file() || !nnunet.results.join("dataset.json").is_file() {
        return Err(missing("no plans.json and dataset.json: give the folder DATASET/TRAINER__PLANS__CONFIGURATION of nnUNet_results"));
    }
    let folds = if nnunet.folds.is_empty() { folds_in(&nnunet.results, &nnunet.checkpoint)? } else { nnunet.folds.clone() };
    if folds.is_empty() {
        return Err(missing("no fold has the checkpoint: see --checkpoint"));
    }
    let graphs = tempfile::tempdir()?;
    let exported = export(nnunet, graphs.path(), &folds)?;
    let previous = exported.previous_stage.as_deref().map(|stage| previous_stage(nnunet, stage)).transpose()?;
    let mut left_out = exported.left_out();
    let mut cannot_run = exported.cannot_run();
    if let Some((stage, _)) = &previous {
        let of_stage = stage.left_out().into_iter().chain(exported.left_out_of_cascade(stage));
        left_out.extend(of_stage.map(|line| format!("the stage before: {line}")));
        cannot_run |= stage.cannot_run() || !exported.fits_after(stage);
    }
    if cannot_run || !(left_out.is_empty() || nnunet.leave_out) {
        return Err(ImportError::Incomplete(left_out));
    }
    let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let of_stage: Vec<(String, PathBuf)> = match &previous {
        Some((stage, graphs)) => stage.files.iter().map(|file| (format!("stage_{file}"), graphs.path().join(file))).collect(),
        None => Vec::new(),
    };
    let mut files = Vec::new();
    for file in &exported.files {
        files.push((file.as_str(), fs::read(graphs.path().join(file))?));
    }
    for (file, path) in &of_stage {
        files.push((file.as_str(), fs::read(path)?));
    }
    let manifest = exported.manifest(name, &files, previous.as_ref().map(|(stage, _)| stage));
    let package = write(folder, &manifest, &exported.card(name, &left_out), &files)?;
    Ok(Written { package, left_out })
}

/// The stage of a cascade that comes before, from the results folder beside that of the cascade; and the folder of its graphs.
fn previous_stage(nnunet: &Nnunet, stage: &str) -> Result<(Exported, tempfile::TempDir), ImportError> {
    let beside = || {
        let name = nnunet.results.canonicalize().ok()?;
        let (trainer_and_plans, _) = name.file_name()?.to_str()?.rsplit_once("__")?;
        Some(name.with_file_name(format!("{trainer_and_plans}__{stage}")))
    };
    let results = beside().unwrap_or_else(|| nnunet.results.clone());
    let missing = |what| ImportError::NotThere { what, path: results.clone() };
    if !results.join("plans.json").is_file() || !results.join("dataset.json").is_file() {
        return Err(missing("a cascade needs the results of the stage before, beside its own: TRAINER__PLANS__3d_lowres"));
    }
    let folds = if nnunet.folds.is_empty() { folds_in(&results, &nnunet.checkpoint)? } else { nnunet.folds.clone() };
    if folds.is_empty() {
        return Err(missing("no fold of the stage before has the checkpoint: see --checkpoint"));
    }
    let graphs = tempfile::tempdir()?;
    let exported = export(&Nnunet { results, ..nnunet.clone() }, graphs.path(), &folds)?;
    Ok((exported, graphs))
}

fn folds_in(results: &Path, checkpoint: &str) -> Result<Vec<String>, ImportError> {
    let mut folds = Vec::new();
    for entry in fs::read_dir(results)? {
        let entry = entry?;
        let fold = entry.file_name().to_string_lossy().strip_prefix("fold_").map(str::to_owned);
        folds.extend(fold.filter(|fold| fold != "all" && entry.path().join(checkpoint).is_file()));
    }
    folds.sort();
    Ok(folds)
}

fn export(nnunet: &Nnunet, output: &Path, folds: &[String]) -> Result<Exported, ImportError> {
    let mut arguments = vec![nnunet.results.as_os_str(), output.as_os_str(), nnunet.checkpoint.as_ref()];
    arguments.extend(folds.iter().map(AsRef::<OsStr>::as_ref));
    ask(&nnunet.python, TOOL, SCRIPT, &arguments)
}

impl Exported {
    /// Whether there is no package at all that would run it.
    fn cannot_run(&self) -> bool {
        !self.has_channels() || !(2..=3).contains(&self.patch.len()) || self.spacing.len() != self.patch.len() || !self.turns_axes()
    }

    /// Whether each channel says how it is normalised.
    fn has_channels(&self) -> bool {
        let channels = self.channels.len();
        (1..=MAX_CHANNELS).contains(&channels) && self.normalization.len() == channels
    }

    /// Whether the order of the axes is one.
    fn turns_axes(&self) -> bool {
        self.transpose.len() == 3 && (0..3).all(|axis| self.transpose.contains(&axis))
    }

    /// Whether it can see the labels of `stage`.
    fn fits_after(&self, stage: &Self) -> bool {
        let labels: Vec<u64> = stage.classes().into_iter().map(|class| class.label).collect();
        stage.previous_stage.is_none()
            && stage.channels == self.channels
            && stage.transpose == self.transpose
            && !self.foreground.is_empty()
            && self.foreground.iter().all(|label| labels.contains(label))
    }

    /// What a package cannot say of how it sees the labels of `stage`.
    fn left_out_of_cascade(&self, stage: &Self) -> Vec<String> {
        let mut left_out = Vec::new();
        if !self.fits_after(stage) {
            left_out.push("a stage before it, other channels, axes or labels than the cascade's".to_owned());
        }
        if self.resampling_seg.name != SPLINES {
            left_out.push(format!("its labels resampled by {}", self.resampling_seg.name));
        }
        left_out.extend(self.resampling_seg.unknown(1).map(|(option, value)| format!("its labels resampled with {option} = {value}")));
        if self.resampling_seg.thick_beyond() != self.resampling.thick_beyond() {
            left_out
                .push("thick slices of the image and of its labels by different rules: those of the image are taken for both".to_owned());
        }
        left_out
    }

    /// What a package cannot say, one line each.
    fn left_out(&self) -> Vec<String> {
        let mut left_out = Vec::new();
        let mut unless = |holds: bool, what: String| {
            if !holds {
                left_out.push(what);
            }
        };
        unless(
            self.has_channels(),
            format!(
                "{} channels with {} normalisations: 1 to {MAX_CHANNELS}, each with one",
                self.channels.len(),
                self.normalization.len()
            ),
        );
        unless(
            (2..=3).contains(&self.patch.len()) && self.spacing.len() == self.patch.len(),
            format!("patches of {} axes with spacings of {}: this version runs two or three", self.patch.len(), self.spacing.len()),
        );
        unless(self.turns_axes(), format!("axes in the order {:?}, which names not each of the three once", self.transpose));
        for one in &self.normalization {
            unless(NORMALIZATIONS.contains(&one.as_str()), format!("the normalization {one:?}"));
        }
        let [there, back] = [&self.resampling, &self.resampling_back];
        unless(
            [SPLINES, LINEAR].contains(&there.name.as_str()) && there.name == back.name,
            format!("the resampling {} and {}", there.name, back.name),
        );
        for (resampling, order) in [(there, 3), (back, 1)] {
            for (option, value) in resampling.unknown(order) {
                unless(false, format!("{option} = {value} of {}", resampling.name));
            }
        }
        unless(
            there.thick_beyond() == back.thick_beyond(),
            "thick slices of the image and of the scores by different rules: those of the image are taken for both".to_owned(),
        );
        left_out
    }

    /// `files` are its graphs and then those of `previous`, the stage before.
    fn manifest(&self, name: &str, files: &[(&str, Vec<u8>)], previous: Option<&Self>) -> String {
        let mut text = format!(
            "# {name:?}: imported from nnU-Net, {:?}. What is not stated is yours to say; docs/package-format.md explains every field.\n\
             format = 1\n\n[model]\nname = {name:?}\nversion = \"1.0.0\"\ntask = \"segmentation\"\nmanufacturer = \"not stated\"\n\
             licence = \"not stated\"\nintended_use = \"Research only: imported from nnU-Net, no intended use is stated.\"\n\
             regulatory_status = \"none\"\n",
            self.dataset
        );
        let mut add = |piece: String| text.push_str(&piece);
        let (own, of_previous) = files.split_at(self.files.len());
        add(format!("\n[select]\n{}", self.selection(0)));
        add(self.network("", own, previous));
        if let Some(previous) = previous {
            add(format!("\n[[stage]]\nname = {:?}\n", self.previous_stage.as_deref().unwrap_or_default()));
            add(previous.network("stage.", of_previous, None));
            for Class { channel, label, .. } in previous.classes() {
                add(format!("\n[[stage.label]]\nname = \"label {label}\"\nchannel = {channel}\nvalue = {label}\n"));
            }
        }
        for Class { channel, label, name } in self.classes() {
            let [red, green, blue] = colour(label);
            add(format!(
                "\n[[finding]]\nchannel = {channel}\nsegment = {label}\nname = {name:?}\ncolour = [{red}, {green}, {blue}]\n\
                 # To be said: codes of PS3.16, CID 7150 and what it includes.\n\
                 category = {{ value = \"91723000\", scheme = \"SCT\", meaning = \"Anatomical Structure\" }}\n\
                 type = {{ value = \"LABEL-{label}\", scheme = \"99NNUNET\", meaning = {:?} }}\n\
                 measurements = [\"volume\", \"mean\", \"standard-deviation\"]\n",
                name.chars().take(64).collect::<String>()
            ));
        }
        text
    }

    /// From files to labels: the package's own network, or with `of` "stage." that of a stage before.
    fn network(&self, of: &str, files: &[(&str, Vec<u8>)], previous: Option<&Self>) -> String {
        let mut text = String::new();
        let mut add = |piece: String| text.push_str(&piece);
        for (path, bytes) in files {
            add(format!("\n[[{of}file]]\npath = {path:?}\nsha256 = \"{}\"\n", sha256_hex(bytes)));
        }
        let layout = if self.patch.len() == 2 { "NCHW" } else { "NCDHW" };
        add(format!("\n[{of}input]\ntensor = \"image\"\ndtype = \"float32\"\nlayout = \"{layout}\"\n"));
        if previous.is_some() {
            let labels: Vec<String> = self.foreground.iter().map(|label| format!("\"label {label}\"")).collect();
            add(format!("previous = {{ one_hot = [{}] }}\n", labels.join(", ")));
        }
        let steps: Vec<String> = (0..self.channels.len()).map(|channel| self.steps(channel)).collect();
        for (channel, own) in steps.iter().enumerate().filter(|_| steps.len() > 1) {
            add(format!("\n[[{of}input.channel]]\nname = {:?}\n", self.channel_name(channel)));
            if channel > 0 && of.is_empty() {
                add(format!("[input.channel.select]\n{}", self.selection(channel)));
            }
            if *own != steps[0] {
                add(own.replace(STEP, &format!("[[{of}input.channel.preprocess]]")));
            }
        }
        add(steps[0].replace(STEP, &format!("[[{of}preprocess]]")));
        let axes = &["k", "j", "i"][3 - self.patch.len()..];
        let mirror: Vec<String> = self.mirror.iter().filter_map(|&axis| Some(format!("{:?}", axes.get(axis)?))).collect();
        add(format!(
            "\n[{of}inference.sliding-window]\npatch = [{}]\noverlap = 0.5\nblending = \"gaussian\"\nconvention = \"nnunet\"\nmirror = [{}]\n",
            self.listed(self.patch.iter().map(u32::to_string), "1"),
            mirror.join(", ")
        ));
        let (scores, step) =
            if self.regions.is_empty() { ("logits\"\nbackground = 0", "argmax") } else { ("independent-logits\"", "regions") };
        add(format!("\n[{of}output]\ntensor = \"scores\"\nscores = \"{scores}\n\n[[{of}postprocess]]\nstep = \"{step}\"\n"));
        text
    }

    /// By axis, the last one first; `of_slice_axis` where the network sees slices.
    fn listed(&self, values: impl Iterator<Item = String>, of_slice_axis: &str) -> String {
        let mut values: Vec<String> = values.collect();
        values.reverse();
        values.extend((self.patch.len() == 2).then(|| of_slice_axis.to_owned()));
        values.join(", ")
    }

    /// As a package may have it, and none has twice.
    fn channel_name(&self, channel: usize) -> String {
        let name: String = self.channels[channel].chars().filter(|&c| is_in_name(c)).take(MAX_NAME).collect();
        let again = self.channels.iter().filter(|other| **other == self.channels[channel]).count() > 1;
        if name.is_empty() || again { format!("channel {channel}") } else { name }
    }

    /// What is known of the series of a channel.
    fn selection(&self, channel: usize) -> String {
        let modality = if self.channels[channel].eq_ignore_ascii_case("CT") { "CT" } else { "MR" };
        let min_slices = if self.patch.len() == 2 { 1 } else { 8 };
        selection(modality, min_slices, (self.channels.len() > 1).then(|| self.channel_name(channel)))
    }

    /// The preprocessing of a channel.
    fn steps(&self, channel: usize) -> String {
        let mut text = String::new();
        let mut step = |fields: String| text.push_str(&format!("\n{STEP}\nstep = {fields}"));
        if self.transpose != [0, 1, 2] {
            let axes: String = self.transpose.iter().rev().map(|&axis| ['k', 'j', 'i'][axis]).collect();
            step(format!("\"orient\"\nto = \"{axes}\"\n"));
        }
        step("\"crop\"\nto = \"nonzero\"\n".to_owned());
        let intensity = |key: &str| self.intensity.get(channel).and_then(|found| found.get(key)).copied().unwrap_or(0.0);
        match self.normalization[channel].as_str() {
            "CTNormalization" => {
                step(format!("\"clip\"\nmin = {:?}\nmax = {:?}\n", intensity("percentile_00_5"), intensity("percentile_99_5")));
                step(format!("\"normalize\"\nsubtract = {:?}\ndivide = {:?}\n", intensity("mean"), intensity("std").max(1e-8)));
            }
            "ZScoreNormalization" => {
                let masked = if self.use_mask.get(channel) == Some(&true) { "over = \"nonzero\"\nmasked = true\n" } else { "" };
                step(format!("\"z-score\"\n{masked}"));
            }
            "RescaleTo01Normalization" => step("\"percentiles\"\nlow = 0.0\nhigh = 100.0\n".to_owned()),
            _ => {}
        }
        let interpolation = if self.resampling.name == LINEAR { "linear" } else { "cubic" };
        let thick = self.resampling.thick_beyond().map(|ratio| format!("nearest_beyond = {ratio:?}\n")).unwrap_or_default();
        let spacing_mm = self.listed(self.spacing.iter().map(|mm| format!("{mm:?}")), "0.0");
        step(format!("\"resample\"\nspacing_mm = [{spacing_mm}]\ninterpolation = \"{interpolation}\"\nwithin = true\n{thick}"));
        text
    }

    /// Each class but the background, by channel. nnU-Net's labels are those that are left of regions: later ones are cut out of them.
    fn classes(&self) -> Vec<Class> {
        if !self.regions.is_empty() {
            let class = |(channel, region): (usize, &Region)| Class {
                channel: channel as u64,
                label: region.label,
                name: region.without(&self.regions[channel + 1..]),
            };
            return self.regions.iter().enumerate().map(class).collect();
        }
        let labels = self.labels.iter().filter_map(|(name, label)| Some((label.as_u64()?, name)));
        let class = |(label, name): (u64, &String)| Class { channel: label, label, name: name.clone() };
        let mut classes: Vec<_> = labels.filter(|(label, _)| *label > 0).map(class).collect();
        classes.sort_unstable_by_key(|class| class.label);
        classes
    }

    fn card(&self, name: &str, left_out: &[String]) -> String {
        let mut text = format!(
            "# {name} 1.0.0\n\n**Intended use: research only, none is stated.** Regulatory status: none. Licence: not stated.\n\n\
             Imported from nnU-Net v2 ({:?}), {} fold(s). Nothing of nnU-Net's postprocessing.pkl was taken over: `components` in model.toml\n\
             can keep the largest component.\n\n## What it does\n\nClasses: {}.\n",
            self.dataset,
            self.files.len(),
            self.classes().into_iter().map(|class| class.name).collect::<Vec<_>>().join(", ")
        );
        if !left_out.is_empty() {
            text.push_str("\n## Other than in nnU-Net\n\n");
            left_out.iter().for_each(|line| writeln!(text, "- {line}").expect("a text takes all"));
        }
        text.push_str("\n## Data and figures\n\nNot stated: what it was trained and tested on, and what was measured.\n");
        text
    }
}

/// What a finding of the package is made of.
struct Class {
    channel: u64,
    label: u64,
    name: String,
}

impl From<(String, BTreeMap<String, Value>)> for Resampling {
    fn from((name, options): (String, BTreeMap<String, Value>)) -> Self {
        Self { name, options }
    }
}

impl Resampling {
    /// Beyond which ratio of spacings nothing is interpolated across slices; `None` where everything always is.
    fn thick_beyond(&self) -> Option<f64> {
        let always = match self.options.get("force_separate_z") {
            Some(forced) => *forced == Value::Bool(false),
            None => self.name == SPLINES, // what each function does unless told
        };
        let ratio = self.options.get("separate_z_anisotropy_threshold").and_then(Value::as_f64).filter(|ratio| THICKS.contains(ratio));
        (!always).then_some(ratio.unwrap_or(THICK))
    }

    /// Options that a package cannot say. Splines of `order` are as they are by default.
    fn unknown(&self, order: i64) -> impl Iterator<Item = (&str, &Value)> {
        let is_known = move |option: &str, value: &Value| match option {
            "is_seg" | "num_threads" | "device" | "memefficient_seg_resampling" => true,
            "order" => value.as_i64() == Some(order),
            "order_z" => value.as_i64() == Some(0),
            "force_separate_z" => matches!(value, Value::Null | Value::Bool(false)),
            "separate_z_anisotropy_threshold" => value.as_f64().is_some_and(|ratio| THICKS.contains(&ratio)),
            "mode" => value.as_str() == Some("linear"),
            "aniso_axis_mode" => value.as_str() == Some("nearest-exact"),
            _ => false,
        };
        self.options.iter().map(|(option, value)| (option.as_str(), value)).filter(move |(option, value)| !is_known(option, value))
    }
}

impl Region {
    /// What is left of it, in words: `whole tumour without tumour core`. Of later regions within one another only the outermost are named.
    fn without(&self, later: &[Self]) -> String {
        let is_within = |a: &Self, b: &Self| a.labels.iter().all(|label| b.labels.contains(label));
        let cuts = |n: &usize| later[*n].labels.iter().any(|label| self.labels.contains(label));
        let is_outermost = |n: &usize| (0..later.len()).all(|other| other == *n || !cuts(&other) || !is_within(&later[*n], &later[other]));
        let cut_out: Vec<&str> = (0..later.len()).filter(cuts).filter(is_outermost).map(|n| later[n].name.as_str()).collect();
        if cut_out.is_empty() { self.name.clone() } else { format!("{} without {}", self.name, cut_out.join(" and ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Interpolation;
    use crate::model::{Axes, Beyond, Blending, Convention, Foreground, Inference, Manifest, PreprocessStep, SlidingWindow};

    /// What `export_nnunet.py` printed for a network of one channel with thick slices, nnU-Net 2.8.1.
    const EXPORTED: &str = r#"{
        "files": ["fold_0.onnx"], "dataset": "Dataset001_anisotropic-ct", "channels": ["CT"], "patch": [16, 64, 48],
        "spacing": [6.0, 1.8, 1.5], "transpose": [0, 1, 2], "mirror": [1, 2], "normalization": ["CTNormalization"], "use_mask": [false],
        "intensity": [{"mean": -20.0, "std": 300.0, "percentile_00_5": -980.0, "percentile_99_5": 900.0, "min": -1024.0, "max": 3071.0,
            "median": 0.0}],
        "resampling": ["resample_data_or_seg_to_shape", {"is_seg": false, "order": 3, "order_z": 0, "force_separate_z": null}],
        "resampling_back": ["resample_data_or_seg_to_shape", {"is_seg": false, "order": 1, "order_z": 0, "force_separate_z": null}],
        "resampling_seg": ["resample_data_or_seg_to_shape", {"is_seg": true, "order": 1, "order_z": 0, "force_separate_z": null}],
        "previous_stage": null, "foreground": [1, 2], "labels": {"background": 0, "soft \"tissue\"": 2, "lung": 1}, "regions": []
    }"#;

    fn exported(change: impl FnOnce(&mut Value)) -> Exported {
        let mut exported = serde_json::from_str(EXPORTED).expect("JSON");
        change(&mut exported);
        serde_json::from_value(exported).expect("what the script prints")
    }

    #[test]
    fn a_name_of_several_lines_stays_a_name() {
        let exported = exported(|exported| exported["dataset"] = "liver\n[model]\nname = \"other\"\n#".into());
        let text = exported.manifest("liver", &[("fold_0.onnx", b"graph".to_vec())], None);
        let manifest = Manifest::parse(&text, Path::new("model.toml")).expect("a manifest");
        assert_eq!(manifest.model.name, "liver");
        assert!(manifest.model.intended_use.starts_with("Research only"), "it can be run at once, and says what it is");
    }

    #[test]
    fn a_manifest_says_what_nnunet_does() {
        let exported = exported(|_| {});
        assert!(exported.left_out().is_empty() && !exported.cannot_run());
        let text = exported.manifest("liver", &[("fold_0.onnx", b"graph".to_vec())], None);
        let manifest = Manifest::parse(&text, Path::new("model.toml")).expect("a manifest");
        let expected = [
            PreprocessStep::Crop { to: Some(Foreground::Nonzero), above: None, labelled: Vec::new(), margin: 0, margin_mm: 0.0 },
            PreprocessStep::Clip { min: -980.0, max: 900.0 },
            PreprocessStep::Normalize { subtract: -20.0, divide: 300.0 },
            PreprocessStep::Resample {
                spacing_mm: [1.5, 1.8, 6.0],
                interpolation: Interpolation::Cubic,
                within: true,
                from_first: false,
                nearest_beyond: Some(3.0),
            },
        ];
        assert_eq!(manifest.preprocess, expected);
        let window = SlidingWindow {
            patch: [48, 64, 16],
            overlap: 0.5,
            blending: Blending::Gaussian,
            convention: Convention::Nnunet,
            beyond: Beyond::Zero,
            mirror: vec![crate::model::Axis::J, crate::model::Axis::I],
            empty: None,
        };
        assert_eq!(manifest.inference, Inference::SlidingWindow(window));
        assert_eq!(manifest.label_of_channel(), [0, 1, 2]);
        assert_eq!(manifest.finding.iter().map(|finding| finding.name.as_str()).collect::<Vec<_>>(), ["lung", "soft \"tissue\""]);
    }

    fn check(change: impl FnOnce(&mut Value), expected: &str, cannot_run: bool) {
        let exported = exported(change);
        let left_out = exported.left_out();
        assert!(left_out.len() == 1 && left_out[0].contains(expected), "{left_out:?}");
        assert_eq!(exported.cannot_run(), cannot_run, "{expected}");
    }

    #[test]
    fn what_is_left_out_is_named() {
        check(|e| e["channels"] = serde_json::json!(["T1", "T2"]), "2 channels with 1 normalisations", true);
        check(|e| e["patch"] = serde_json::json!([64, 64]), "patches of 2 axes with spacings of 3", true);
        check(|e| e["transpose"] = serde_json::json!([2, 0, 0]), "axes in the order [2, 0, 0]", true);
        check(|e| e["normalization"] = serde_json::json!([]), "1 channels with 0 normalisations", true);
        check(|e| e["normalization"] = serde_json::json!(["RGBTo01Normalization"]), "RGBTo01Normalization", false);
        check(
            |e| e["resampling"][0] = "resample_torch_simple".into(),
            "the resampling resample_torch_simple and resample_data_or_seg",
            false,
        );
        check(|e| e["resampling"][1]["order"] = 2.into(), "order = 2 of resample_data_or_seg_to_shape", false);
        check(|e| e["resampling_back"][1]["order_z"] = 1.into(), "order_z = 1", false);
        for part in ["resampling", "resampling_back"] {
            check(|e| e[part][1]["force_separate_z"] = true.into(), "force_separate_z = true", false);
            check(|e| e[part][1]["separate_z_anisotropy_threshold"] = 4.into(), "thick slices of the image and of the scores", false);
        }
    }

    #[test]
    fn thick_slices_are_those_of_the_plans() {
        let check = |change: fn(&mut serde_json::Map<String, Value>), expected| {
            let exported = exported(|e| {
                for part in ["resampling", "resampling_back"] {
                    change(e[part][1].as_object_mut().expect("options"));
                }
            });
            assert!(exported.left_out().is_empty(), "{:?}", exported.left_out());
            let manifest = Manifest::parse(&exported.manifest("liver", &[("fold_0.onnx", Vec::new())], None), Path::new("model.toml"))
                .expect("a manifest");
            let Some(PreprocessStep::Resample { nearest_beyond, .. }) = manifest.preprocess.last() else { panic!("{manifest:?}") };
            assert_eq!(*nearest_beyond, expected);
        };
        check(|_| (), Some(3.0));
        check(|o| drop(o.insert("separate_z_anisotropy_threshold".to_owned(), 4.5.into())), Some(4.5));
        check(|o| drop(o.insert("force_separate_z".to_owned(), false.into())), None);
        check(|o| drop(o.remove("force_separate_z")), None);
    }

    #[test]
    fn regions_are_named_by_what_is_left_of_them() {
        let regions = exported(|e| {
            e["labels"] = serde_json::json!({"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3});
            e["regions"] = serde_json::json!([
                {"name": "whole", "labels": [1, 2, 3], "label": 1},
                {"name": "core", "labels": [2, 3], "label": 2},
                {"name": "enhancing", "labels": [3], "label": 3},
            ]);
        });
        assert!(regions.left_out().is_empty() && !regions.cannot_run());
        let manifest =
            Manifest::parse(&regions.manifest("brats", &[("fold_0.onnx", Vec::new())], None), Path::new("model.toml")).expect("a manifest");
        let found: Vec<_> = manifest.finding.iter().map(|f| (f.channel, f.segment, f.name.as_str())).collect();
        assert_eq!(found, [(0, 1, "whole without core"), (1, 2, "core without enhancing"), (2, 3, "enhancing")]);
        assert_eq!((manifest.channels(), manifest.output.scores), (3, Some(crate::model::ScoreKind::IndependentLogits)));
        assert_eq!(manifest.postprocess, [crate::model::PostprocessStep::Regions { above: 0.0 }]);
        let side_by_side = |name: &str, labels: &[u64]| Region { name: name.into(), labels: labels.to_vec(), label: 1 };
        let body = side_by_side("body", &[1, 2, 3]);
        assert_eq!(body.without(&[side_by_side("left", &[2]), side_by_side("right", &[3])]), "body without left and right");
        assert_eq!(body.without(&[side_by_side("elsewhere", &[9])]), "body");
    }

    #[test]
    fn slices_stay_where_they_are() {
        let slices = exported(|e| {
            e["patch"] = serde_json::json!([64, 48]);
            e["spacing"] = serde_json::json!([1.8, 1.5]);
            e["mirror"] = serde_json::json!([0]);
        });
        assert!(slices.left_out().is_empty() && !slices.cannot_run());
        let manifest =
            Manifest::parse(&slices.manifest("liver", &[("fold_0.onnx", Vec::new())], None), Path::new("model.toml")).expect("a manifest");
        assert!(matches!(manifest.preprocess[3], PreprocessStep::Resample { spacing_mm: [1.5, 1.8, 0.0], .. }));
        let Inference::SlidingWindow(window) = &manifest.inference else { panic!("{:?}", manifest.inference) };
        assert_eq!((window.patch, &window.mirror[..]), ([48, 64, 1], &[crate::model::Axis::J][..]));
        assert_eq!(manifest.input.layout, crate::model::Layout::Nchw);
    }

    #[test]
    fn axes_are_turned() {
        // Slices, rows and columns of the network run along columns, slices and rows of the image.
        let turned = exported(|e| e["transpose"] = serde_json::json!([2, 0, 1]));
        assert!(turned.left_out().is_empty() && !turned.cannot_run());
        let manifest =
            Manifest::parse(&turned.manifest("liver", &[("fold_0.onnx", Vec::new())], None), Path::new("model.toml")).expect("a manifest");
        use crate::model::Axis::{I, J, K};
        assert_eq!(manifest.preprocess[0], PreprocessStep::Orient { to: Axes::Stored([J, K, I]) });
    }

    #[test]
    fn a_cascade_is_two_stages() {
        let cascade = exported(|e| e["previous_stage"] = "3d_lowres".into());
        let before = exported(|e| e["spacing"] = serde_json::json!([9.0, 3.0, 3.0]));
        assert!(cascade.left_out_of_cascade(&before).is_empty() && cascade.fits_after(&before));
        let files = [("fold_0.onnx", b"graph".to_vec()), ("stage_fold_0.onnx", b"coarse".to_vec())];
        let manifest = Manifest::parse(&cascade.manifest("liver", &files, Some(&before)), Path::new("model.toml")).expect("a manifest");
        assert_eq!((manifest.input_channels(), manifest.images(), manifest.stage.len()), (3, 1, 1));
        assert_eq!(manifest.stage[0].name, "3d_lowres");
        let stage = manifest.of_stage(0);
        assert_eq!(
            (stage.input_channels(), stage.label_of_channel(), stage.file[0].path.as_str()),
            (1, vec![0, 1, 2], "stage_fold_0.onnx")
        );
        assert!(matches!(stage.preprocess.last(), Some(PreprocessStep::Resample { spacing_mm: [3.0, 3.0, 9.0], .. })));
        let refused = |change: fn(&mut Value), expected: &str| {
            let lines = cascade.left_out_of_cascade(&exported(change)).join("; ");
            assert!(lines.contains(expected), "{lines}");
        };
        refused(|e| e["channels"] = serde_json::json!(["MR"]), "other channels");
        refused(|e| e["labels"] = serde_json::json!({"background": 0, "lung": 1}), "labels than the cascade's");
        refused(|e| e["previous_stage"] = "3d_lowest".into(), "a stage before it");
        let by_order = exported(|e| e["resampling_seg"][1]["order"] = 0.into());
        assert_eq!(by_order.left_out_of_cascade(&before), ["its labels resampled with order = 0"]);
    }

    #[test]
    fn channels_have_values_of_their_own() {
        let several = exported(|e| {
            e["channels"] = serde_json::json!(["CT", "T2 (late)", "T2 (late)"]);
            e["normalization"] = serde_json::json!(["CTNormalization", "ZScoreNormalization", "CTNormalization"]);
            e["use_mask"] = serde_json::json!([false, true, false]);
            e["intensity"] = serde_json::json!([e["intensity"][0], {}, e["intensity"][0]]);
        });
        assert!(several.left_out().is_empty() && !several.cannot_run(), "{:?}", several.left_out());
        let manifest =
            Manifest::parse(&several.manifest("brain", &[("fold_0.onnx", Vec::new())], None), Path::new("model.toml")).expect("a manifest");
        assert_eq!(manifest.input.channel.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["CT", "channel 1", "channel 2"]);
        let [first, second, third] = manifest.steps_of_images()[..] else { panic!("three channels") };
        assert!(matches!(first[1], PreprocessStep::Clip { min: -980.0, .. }) && first == third);
        assert!(matches!(second[1], PreprocessStep::ZScore { over: Some(Foreground::Nonzero), masked: true, .. }));
        assert_eq!((manifest.reference_channel(), second.last()), (0, first.last()));
        let modality = |n: usize| manifest.input.channel[n].select.as_ref().map(|select| select.modality.clone());
        assert_eq!([modality(0), modality(1)], [None, Some(vec!["MR".to_owned()])]);
    }

    #[test]
    fn a_z_score_within_a_mask() {
        let masked = exported(|e| {
            e["normalization"] = serde_json::json!(["ZScoreNormalization"]);
            e["use_mask"] = serde_json::json!([true]);
        });
        assert!(masked.left_out().is_empty());
        let manifest =
            Manifest::parse(&masked.manifest("brain", &[("fold_0.onnx", Vec::new())], None), Path::new("model.toml")).expect("a manifest");
        let expected =
            PreprocessStep::ZScore { above: None, over: Some(Foreground::Nonzero), masked: true, nonzero: false, resampled: false };
        assert_eq!(manifest.preprocess[1], expected);
    }
}
