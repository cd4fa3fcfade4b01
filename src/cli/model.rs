//! `roentgen model`: packages, listed, begun, checked, packed and verified.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use anyhow::{Context, anyhow, bail, ensure};
use clap::{Args, Subcommand};
use serde::Serialize;

use super::{Outcome, text};
use crate::codes::sha256_hex;
use crate::engine::{Engine, EngineError, Input, Options};
use crate::findings::Findings;
use crate::gpu::DeviceChoice;
use crate::infer::{Precision, Provider, Tensor, runtime, tensors};
use crate::model::import::{Monai, Nnunet, Written, import_monai, import_nnunet};
use crate::model::{self, Expected, Manifest, MeasurementKind, Package, ReferenceInput, Slices, signature};
use crate::series;

/// List, begin, check, pack and verify model packages.
///
/// docs/package-format.md says what a package holds.
#[derive(Args)]
#[command(after_help = super::EXIT_CODES)]
pub(super) struct Model {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    List(List),
    New(New),
    #[command(subcommand)]
    Import(Import),
    Check(Check),
    Pack(Pack),
    Verify(Verify),
}

/// List the installed packages, and what is wrong with those that cannot be used.
#[derive(Args)]
struct List {
    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
}

/// Begin a package: a folder with a manifest and a model card to fill in, for an ONNX graph that you have.
#[derive(Args)]
struct New {
    /// The folder to make; its name becomes the package's.
    folder: PathBuf,

    /// The graph, which is copied into it: names and channels of its tensors are those of the manifest.
    #[arg(long, value_name = "FILE")]
    onnx: PathBuf,

    /// Of a network of two dimensions: its channels are so many neighbouring slices of each image, the one in the middle is labelled.
    #[arg(long, value_name = "COUNT")]
    slices: Option<usize>,

    /// The ONNX Runtime library to load, instead of looking for it.
    #[arg(long, value_name = "FILE")]
    ort_lib: Option<PathBuf>,
}

/// Make a package of a network that another tool has trained.
#[derive(Subcommand)]
enum Import {
    Nnunet(ImportNnunet),
    Monai(ImportMonai),
}

/// nnU-Net v2: its networks as ONNX graphs, its preprocessing and sliding window as steps of the manifest.
///
/// What cannot be carried over is named, and the import stops. nnU-Net's own code exports the networks, in a Python where it is
/// installed, with torch and onnx: `pip install nnunetv2 onnx`.
#[derive(Args)]
struct ImportNnunet {
    /// The folder DATASET/TRAINER__PLANS__CONFIGURATION of nnUNet_results.
    results: PathBuf,

    /// The package's folder, which is made; its name becomes the package's.
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,

    /// Which folds, separated by commas; all that are there where it is left out. Their scores are averaged.
    #[arg(long, value_name = "FOLDS", value_delimiter = ',')]
    folds: Vec<String>,

    /// File name of the weights.
    #[arg(long, value_name = "FILE", default_value = "checkpoint_final.pth")]
    checkpoint: String,

    /// A Python interpreter where nnunetv2 is installed.
    #[arg(long, value_name = "PYTHON", default_value = "python3")]
    python: PathBuf,

    /// Import it without what cannot be carried over; results then differ from nnU-Net's.
    #[arg(long)]
    leave_out: bool,
}

/// A MONAI bundle: its network as an ONNX graph, its transforms and inferer as steps of the manifest.
///
/// What cannot be carried over is named, and the import stops. MONAI itself reads the configuration, which runs whatever Python code the
/// bundle holds, and exports the network: `pip install monai onnx onnxruntime`, and pyyaml for a configuration in YAML.
#[derive(Args)]
struct ImportMonai {
    /// The bundle's folder, which holds `configs` and `models`.
    bundle: PathBuf,

    /// The package's folder, which is made; its name becomes the package's.
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,

    /// The configuration of inference, within the bundle; configs/inference.json or .yaml where it is left out.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// A checkpoint (.pt) or TorchScript (.ts), within the bundle; models/model.pt or model.ts where it is left out.
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,

    /// A Python interpreter where monai, onnx and onnxruntime are installed.
    #[arg(long, value_name = "PYTHON", default_value = "python3")]
    python: PathBuf,

    /// Import it without what cannot be carried over; results then differ from MONAI's.
    #[arg(long)]
    leave_out: bool,
}

/// Check a package: its manifest, the hashes of its files, whether the graph fits, and its reference case on each provider.
#[derive(Args)]
struct Check {
    /// The package: a folder, a packed file, or the name of an installed one.
    package: String,

    /// Where the kernels run, as for `roentgen run`.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: DeviceChoice,

    /// The execution provider to check it on, instead of each one that a library here has.
    #[arg(long, value_name = "NAME")]
    provider: Option<Provider>,

    /// The ONNX Runtime library to load, instead of looking for it.
    #[arg(long, value_name = "FILE")]
    ort_lib: Option<PathBuf>,

    /// The last line is another check's, which has begun this one.
    #[arg(long, hide = true)]
    within_another: bool,
}

/// Pack a package into one file, which runs as the folder does.
#[derive(Args)]
struct Pack {
    /// The package's folder.
    folder: PathBuf,

    /// The file to write.
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,

    /// Sign it with this private Ed25519 key (PEM); the signature is written beside it, with `.sig` added to the name.
    #[arg(long, value_name = "KEY")]
    sign: Option<PathBuf>,
}

/// Verify a packed package: its signature, and the hashes of its files.
#[derive(Args)]
struct Verify {
    /// The packed file; its signature lies beside it.
    packed: PathBuf,

    /// The public Ed25519 key (PEM) of whoever signed it.
    #[arg(long, value_name = "KEY")]
    key: PathBuf,
}

impl Model {
    pub(super) fn run(self) -> anyhow::Result<Outcome> {
        match self.command {
            Command::List(command) => command.run(),
            Command::New(command) => command.run(),
            Command::Import(Import::Nnunet(command)) => command.run(),
            Command::Import(Import::Monai(command)) => command.run(),
            Command::Check(command) => command.run(),
            Command::Pack(command) => command.run(),
            Command::Verify(command) => command.run(),
        }
    }
}

#[derive(Debug, Serialize)]
struct Listed {
    path: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    package: Option<model::PackageId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

impl List {
    fn run(self) -> anyhow::Result<Outcome> {
        let installed = super::packages().installed().into_iter().map(|(path, package)| match package {
            Ok(package) => Listed { path, package: Some(package.id), problem: None },
            Err(error) => Listed { path, package: None, problem: Some(error.to_string()) },
        });
        let listed: Vec<Listed> = installed.collect();
        if self.json {
            text::print_json(&listed)?;
        } else {
            let usable = listed.iter().filter_map(|one| Some((one.package.as_ref()?, &one.path)));
            let row = |(id, path): (&model::PackageId, &PathBuf)| {
                vec![id.name.clone(), id.version_string(), id.intended_use.clone(), path.display().to_string()]
            };
            text::print(&text::table(&["package", "version", "intended use", "path"], &usable.map(row).collect::<Vec<_>>()));
            listed.iter().filter_map(|one| one.problem.as_ref()).for_each(|problem| say!("cannot be used: {problem}"));
        }
        Ok(if listed.iter().all(|one| one.problem.is_none()) { Outcome::AllDone } else { Outcome::SomeFailed })
    }
}

/// What a new package starts with. Every line is explained; what must be filled in says so.
const NEW_MANIFEST: &str = include_str!("new_model.toml");
const NEW_CARD: &str = include_str!("new_model_card.md");

impl New {
    fn run(self) -> anyhow::Result<Outcome> {
        let name = self.folder.file_name().and_then(|name| name.to_str()).context("give a folder whose name can be the package's")?;
        ensure!(
            Manifest::is_name(name),
            "the folder's name becomes the package's, and `{}` cannot be one: 1 to 32 letters, digits, - . _ +",
            name.escape_debug()
        );
        let graph = fs::read(&self.onnx).with_context(|| format!("cannot read {}", self.onnx.display()))?;
        let runtime = runtime::load(self.ort_lib.as_deref(), Provider::Cpu)?;
        let [inputs, outputs] = tensors(runtime, &graph).with_context(|| format!("cannot use {}", self.onnx.display()))?;
        let manifest = new_manifest(&inputs, &outputs, self.slices)?.replace("{name}", name).replace("{sha256}", &sha256_hex(&graph));
        fs::create_dir(&self.folder).with_context(|| format!("cannot make {}", self.folder.display()))?;
        for (file, bytes) in [
            ("model.onnx", &graph[..]),
            ("model.toml", manifest.as_bytes()),
            ("MODEL_CARD.md", NEW_CARD.replace("{name}", name).as_bytes()),
        ] {
            fs::write(self.folder.join(file), bytes).with_context(|| format!("cannot write {file}"))?;
        }
        say!("{}: fill in model.toml and MODEL_CARD.md, then: roentgen model check {0}", self.folder.display());
        Ok(Outcome::AllDone)
    }
}

/// The manifest for a graph with these tensors, as far as they say what belongs into it; name and hash are left to put in. With `slices` its
/// channels are so many of each image.
fn new_manifest(inputs: &[Tensor], outputs: &[Tensor], slices: Option<usize>) -> anyhow::Result<String> {
    let [input] = inputs else { bail!("the graph has {} inputs, a package describes 1", inputs.len()) };
    let output = outputs.first().context("the graph has no output")?;
    let values = |tensor: &Tensor| tensor.values.clone().with_context(|| format!("`{}` is no float32 or float16 tensor", tensor.name));
    let ((dtype, given), (answered, found)) = (values(input)?, values(output)?);
    let layout = match given.len() {
        5 => "NCDHW",
        4 => "NCHW",
        _ => bail!("`{}` has shape {given:?}: a package's network takes [N, C, D, H, W] or [N, C, H, W]", input.name),
    };
    ensure!(
        found.len() == given.len(),
        "`{}` has shape {found:?}: class scores have the axes of the input; for [N, C], probabilities of an image as a whole, begin with \
         docs/package-format.md, Classification",
        output.name
    );
    let count = |axis: i64, otherwise: usize, most: usize| usize::try_from(axis).unwrap_or(otherwise).clamp(1, most);
    let seen = count(given[1], slices.unwrap_or(1), MOST_CHANNELS);
    let images = match slices {
        None => seen,
        Some(_) if layout != "NCHW" => bail!("`--slices` is of networks of two dimensions, and `{}` has shape {given:?}", input.name),
        Some(slices) if !Slices::is_count(slices) => {
            bail!("`--slices` takes an odd number of 3 to 31: the slice in the middle is labelled")
        }
        Some(slices) if seen % slices != 0 => bail!("`{}` has {seen} channels, which are not {slices} slices of each image", input.name),
        Some(slices) => seen / slices,
    };
    let several: String = if images > 1 { (0..images).map(new_channel).collect() } else { String::new() };
    let channels = match slices {
        Some(slices) => format!("{}{several}", NEW_SLICES.replace("{slices}", &slices.to_string())),
        None if layout == "NCHW" && images >= 3 && images % 2 == 1 => {
            format!("{}{several}", PERHAPS_SLICES.replace("{slices}", &images.to_string()))
        }
        None => several,
    };
    let classes = count(found[1], 2, MOST_CHANNELS);
    let (scores, first) = if classes == 1 {
        ("scores = \"independent-logits\"\n\n[[postprocess]]\nstep = \"regions\"\nabove = 0.0\n", 0)
    } else {
        (
            "scores = \"logits\"\nbackground = 0                 # the channel of none of the findings\n\n[[postprocess]]\nstep = \"argmax\"\n",
            1,
        )
    };
    let space: Vec<String> = given[2..].iter().rev().map(|&axis| count(axis, 96, 4096).to_string()).collect();
    let patch = space.join(", ") + if layout == "NCHW" { ", 1" } else { "" };
    let quoted = |name: &str| toml::Value::from(name).to_string();
    let placed = NEW_MANIFEST
        .replace("\"{input}\"", &quoted(&input.name))
        .replace("\"{output}\"", &quoted(&output.name))
        .replace("{dtype}", &dtype.to_string())
        .replace("{answered}", &answered.to_string())
        .replace("{layout}", layout)
        .replace("{channels}", &channels)
        .replace("{patch}", &patch)
        .replace("{scores}", scores)
        .replace("{findings}", &(first..classes).map(new_finding).collect::<String>());
    Ok(placed)
}

/// Channels that a new manifest has at most.
const MOST_CHANNELS: usize = 256;

/// Where channels are slices.
const NEW_SLICES: &str = "# neighbouring slices; beyond the ends of a volume the last one again (\"zero\": 0); of several images all slices of the first one come first
slices = { count = {slices}, beyond = \"edge\", order = \"by-image\" }
";
/// Where they may be.
const PERHAPS_SLICES: &str = "# Where the {slices} channels are neighbouring slices of one image, this in place of all [[input.channel]]:
# slices = { count = {slices} }
";

fn new_channel(channel: usize) -> String {
    let select = "[input.channel.select]\nmodality = [\"CT\"]\nmin_slices = 20\ndescription = { any = [\"FILL IN\"] }\n";
    format!("\n[[input.channel]]\nname = \"FILL IN: channel {channel}\"\n{}", if channel > 0 { select } else { "" })
}

fn new_finding(channel: usize) -> String {
    format!(
        "\n[[finding]]\nchannel = {channel}\nsegment = {}\nname = \"FILL IN: channel {channel}\"\ncolour = [220, 40, 40]\n\
         category = {{ value = \"49755003\", scheme = \"SCT\", meaning = \"Morphologically Altered Structure\" }}\n\
         type = {{ value = \"52988006\", scheme = \"SCT\", meaning = \"Lesion\" }}\n\
         measurements = [\"volume\", \"mean\", \"standard-deviation\"]\n",
        channel.max(1)
    )
}

impl ImportNnunet {
    fn run(self) -> anyhow::Result<Outcome> {
        let Self { results, output, folds, checkpoint, python, leave_out } = self;
        let written = import_nnunet(&Nnunet { results, folds, checkpoint, python, leave_out }, &output)?;
        say_written(&written, &output);
        Ok(Outcome::AllDone)
    }
}

impl ImportMonai {
    fn run(self) -> anyhow::Result<Outcome> {
        let Self { bundle, output, config, weights, python, leave_out } = self;
        let written = import_monai(&Monai { bundle, config, weights, python, leave_out }, &output)?;
        say_written(&written, &output);
        Ok(Outcome::AllDone)
    }
}

fn say_written(Written { package, left_out }: &Written, output: &Path) {
    left_out.iter().for_each(|line| say!("left out: {line}"));
    say!(
        "{}: {} {}; say in model.toml and MODEL_CARD.md what is not stated",
        output.display(),
        package.id.name,
        package.id.version_string()
    );
}

impl Check {
    fn run(self) -> anyhow::Result<Outcome> {
        let package = super::packages().find(&self.package)?;
        say!("{} {}: manifest and hashes hold", package.id.name, package.id.version_string());
        let mut passed = true;
        if package.id.card.is_none() {
            say!("no MODEL_CARD.md: people cannot read what it is good for");
            passed = false;
        }
        passed &= match self.provider {
            Some(provider) => self.check_on(&package, provider)?,
            None => self.check_on_all(&package)?,
        };
        if !self.within_another {
            let unheld = package.manifest.reference.is_none();
            say!(
                "{}",
                match passed {
                    true if unheld => "passed, not checked against a reference: add [reference]",
                    true => "passed",
                    false => "failed",
                }
            );
        }
        Ok(if passed { Outcome::AllDone } else { Outcome::SomeFailed })
    }

    /// On each provider of the library that is loaded, and on OpenVINO where that has a library of its own: in a process of its own, which
    /// has one library only.
    fn check_on_all(&self, package: &Package) -> anyhow::Result<bool> {
        let runtime = runtime::load(self.ort_lib.as_deref(), Provider::Cpu)?;
        let mut passed = true;
        for provider in Provider::ALL.into_iter().filter(|provider| runtime.offers(*provider)) {
            passed &= self.check_on(package, provider)?;
        }
        let open_vino = Provider::OpenVino(Precision::Float32);
        if !runtime.offers(open_vino) && runtime::find(self.ort_lib.as_deref(), open_vino).is_ok() {
            say!("in a process of its own, which has another library:");
            let mut command = std::process::Command::new(std::env::current_exe().context("this program does not know where it is")?);
            command.args(["model", "check", &self.package, "--provider", &open_vino.to_string(), "--device", &self.device.to_string()]);
            command.arg("--within-another");
            passed &= command.status().context("this program cannot be started again")?.success();
        }
        Ok(passed)
    }

    fn check_on(&self, package: &Package, provider: Provider) -> anyhow::Result<bool> {
        let (device, onnxruntime_library) = (self.device.clone(), self.ort_lib.clone());
        let options = Options { device, provider, onnxruntime_library, ..Options::default() };
        match Engine::new(package.clone(), &options) {
            Ok(mut engine) => check_reference(&mut engine, provider),
            Err(EngineError::Infer(error)) => {
                say!("{}: {error}", provider.name());
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Runs the package's reference case; whether it comes out as it must.
fn check_reference(engine: &mut Engine, provider: Provider) -> anyhow::Result<bool> {
    let Some(reference) = engine.package().manifest.reference.clone() else {
        say!("{}: the graph fits the manifest; no reference case", provider.name());
        return Ok(true);
    };
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let input = reference_input(engine.package(), &reference.input, folder.path())?;
    let findings = match engine.analyse(input, &AtomicBool::new(false), &mut |_| {}) {
        Ok(analysis) => analysis.findings,
        Err(error) => {
            say!("{}: the reference case fails: {error}", provider.name());
            return Ok(false);
        }
    };
    let rows: Vec<_> = reference.expect.iter().map(|expected| (expected, measured(engine.package(), &findings, expected))).collect();
    let fits =
        |(expected, found): &(&Expected, Option<f64>)| found.is_some_and(|found| (found - expected.value).abs() <= expected.tolerance);
    let row = |line: &(&Expected, Option<f64>)| {
        let (expected, found) = line;
        vec![
            expected.finding.clone(),
            expected.measurement.map_or_else(|| "probability".to_owned(), MeasurementKind::name),
            format!("{} +- {}", expected.value, expected.tolerance),
            found.map_or_else(|| "none".to_owned(), |found| format!("{found:.4}")),
            if fits(line) { "passed" } else { "FAILED" }.to_owned(),
        ]
    };
    say!("{} on {}:", provider.name(), engine.device());
    text::print(&text::table(&["finding", "measurement", "expected", "found", ""], &rows.iter().map(row).collect::<Vec<_>>()));
    Ok(rows.iter().all(fits))
}

fn reference_input(package: &Package, input: &ReferenceInput, folder: &Path) -> anyhow::Result<Input> {
    match input {
        ReferenceInput::Phantom => {
            super::demo::write_study(package, folder)?;
        }
        ReferenceInput::File(file) => {
            let name = Path::new(&file.path).file_name().context("the reference case has no file name")?;
            fs::write(folder.join(name), package.bytes_of(file)?).context("cannot write to the temporary folder")?;
        }
    }
    let found = series::discover(&[folder.to_owned()]);
    let parts = found.series.first().map(|series| series.parts(package.manifest.select.geometry)).unwrap_or_default();
    let input = match (&parts[..], &found.volumes[..]) {
        ([part], []) => package.eligible(part).map(|eligible| eligible.stack.into()),
        ([], [volume]) => package.assess_volume(volume).answer().map(Input::from),
        _ => bail!("the reference case is not one series or volume"),
    };
    input.map_err(|reasons| anyhow!("the package does not take its own reference case: {}", reasons[0]))
}

fn measured(package: &Package, findings: &Findings, expected: &Expected) -> Option<f64> {
    let finding = findings.findings.iter().find(|finding| finding.name == expected.finding)?;
    let described = package.manifest.finding_named(&expected.finding)?;
    let Some(wanted) = expected.measurement else {
        let probability = finding.certainty_percent.map(|percent| percent / 100.0);
        return if described.estimate.is_some() { finding.measurements.first()?.value } else { probability };
    };
    let place = described.measurements.iter().position(|kind| *kind == wanted)?;
    finding.measurements.get(place)?.value
}

impl Pack {
    fn run(self) -> anyhow::Result<Outcome> {
        ensure!(!self.output.exists(), "{} is there already", self.output.display());
        Package::read(&self.folder)?;
        let packed = File::create(&self.output).with_context(|| format!("cannot write {}", self.output.display()))?;
        model::pack(&self.folder, packed)?;
        say!("{}", self.output.display());
        if let Some(key) = &self.sign {
            say!("{}", signature::sign(&self.output, key)?.display());
        }
        Ok(Outcome::AllDone)
    }
}

impl Verify {
    fn run(self) -> anyhow::Result<Outcome> {
        let signature = signature::path_of(&self.packed);
        ensure!(
            !self.packed.is_file() || signature.is_file(),
            "not signed: no {} beside it",
            signature.file_name().unwrap_or_default().display()
        );
        signature::verify(&self.packed, &self.key)?;
        let package = Package::read(&self.packed)?;
        say!("{} {}: signature and hashes hold", package.id.name, package.id.version_string());
        Ok(Outcome::AllDone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The manifest for a graph that takes and gives these shapes, when what is to be filled in is.
    fn begun(takes: &[i64], gives: &[i64]) -> anyhow::Result<Manifest> {
        begun_of_slices(takes, gives, None)
    }

    fn begun_of_slices(takes: &[i64], gives: &[i64], slices: Option<usize>) -> anyhow::Result<Manifest> {
        let tensor = |name: &str, shape: &[i64]| Tensor { name: name.to_owned(), values: Some((model::Dtype::Float32, shape.to_vec())) };
        let text = new_manifest(&[tensor("image \"a\"", takes)], &[tensor("out", gives)], slices)?;
        let text = text.replace("{name}", "begun").replace("{sha256}", &"0".repeat(64)).replace("FILL IN", "filled in");
        assert!(!text.contains("{}") && !text.contains("\"{"), "{text}");
        Ok(Manifest::parse(&text, Path::new("model.toml"))?)
    }

    #[test]
    fn a_new_manifest_is_that_of_its_graph() {
        let manifest = begun(&[1, 1, 64, 80, 96], &[1, 4, 64, 80, 96]).expect("a manifest");
        assert_eq!((manifest.input.tensor.as_str(), manifest.output.tensor.as_str()), ("image \"a\"", "out"));
        assert_eq!(manifest.finding.iter().map(|finding| finding.channel).collect::<Vec<_>>(), [1, 2, 3]);
        assert!(matches!(&manifest.inference, model::Inference::SlidingWindow(window) if window.patch == [96, 80, 64]));
        let slices = begun(&[-1, 2, -1, -1], &[-1, 1, -1, -1]).expect("a manifest");
        assert_eq!((slices.input_channels(), slices.input.layout), (2, model::Layout::Nchw));
        assert_eq!((slices.finding[0].channel, slices.output.background), (0, None));
        assert!(matches!(&slices.inference, model::Inference::SlidingWindow(window) if window.patch == [96, 96, 1]));
        assert!(begun(&[1, 1, 64], &[1, 2, 64]).is_err_and(|e| e.to_string().contains("[N, C, H, W]")));
        assert!(begun(&[1, 1, 64, 64], &[1, 2]).is_err_and(|e| e.to_string().contains("Classification")));
        assert!(!Manifest::is_name("my package") && Manifest::is_name("my-package"));
    }

    #[test]
    fn channels_are_slices_where_one_says_so() {
        let of = |manifest: &Manifest| (manifest.input.slices.map(|slices| slices.count), manifest.images(), manifest.tensor_channels());
        let manifest = begun_of_slices(&[-1, 6, 64, 64], &[-1, 2, 64, 64], Some(3)).expect("a manifest");
        assert_eq!(of(&manifest), (Some(3), 2, 6));
        let open = begun_of_slices(&[-1, -1, 64, 64], &[-1, 2, 64, 64], Some(5)).expect("a manifest");
        assert_eq!(of(&open), (Some(5), 1, 5));
        assert_eq!(of(&begun(&[-1, 3, 64, 64], &[-1, 2, 64, 64]).expect("a manifest")), (None, 3, 3));
        let refused = |takes: &[i64], slices, said: &str| {
            let error = begun_of_slices(takes, takes, Some(slices)).expect_err("it is refused");
            assert!(error.to_string().contains(said), "{error}");
        };
        refused(&[-1, 6, 64, 64], 5, "6 channels");
        refused(&[-1, 6, 64, 64], 2, "an odd number");
        refused(&[1, 3, 64, 64, 64], 3, "two dimensions");
    }
}
