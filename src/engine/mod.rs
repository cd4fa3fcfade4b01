//! One series or volume in, [`Findings`] out: stage order, cancellation, provenance, timings. Nothing medical is decided elsewhere.

mod classified;
mod detected;
mod follow_up;
mod found;
mod input;
mod intensity;
mod measured;
mod networks;
mod timings;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use thiserror::Error;

use found::{Found, found};
use input::{Closed, OpenedChannel, Voxels};
pub use input::{Input, Opened};
use measured::{Measured, measured};
use networks::{Course, Subject, ask, spreads_of};
pub use timings::{Stage, Timings, peak_memory_mb};

use crate::codes::{dcm, other, ucum};
use crate::findings::{Finding, Findings, Parameter, Priors, Provenance, Source, ValueMap};
use crate::geometry::{Coded, Grid};
use crate::gpu::{DeviceChoice, GpuError, KernelTime};
use crate::infer::runtime::{self, RuntimeError};
use crate::infer::{AtOnce, InferError, Network, Provider};
use crate::kernels::{Backend, Interpolation};
use crate::measure::MeasureError;
use crate::model::{Dtype, Explanation, Manifest, MapOf, Package};
use crate::postprocess::{self, PostprocessError};
use crate::preprocess::{PreprocessError, Previous};
use crate::research::ResearchError;
use crate::series::SeriesError;
use crate::volume::{ImageVolume, LabelMap, Quantity, Volume};

/// Why a series could not be analysed, or the engine not started.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EngineError {
    /// ONNX Runtime is not there.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The compute device that was asked for is not there.
    #[error(transparent)]
    Device(#[from] GpuError),
    /// Instances could not be decoded.
    #[error(transparent)]
    Series(#[from] SeriesError),
    /// A researcher's volume could not be read.
    #[error(transparent)]
    Research(#[from] ResearchError),
    /// Other channels than the package has.
    #[error("the package sees {needed} series at once, and was given {given}: select them by `Package::take`")]
    Channels {
        /// Channels of the package.
        needed: usize,
        /// Series or files, the reference among them.
        given: usize,
    },
    /// Preprocessing failed.
    #[error(transparent)]
    Preprocess(#[from] PreprocessError),
    /// The network failed.
    #[error(transparent)]
    Infer(#[from] InferError),
    /// Postprocessing failed.
    #[error(transparent)]
    Postprocess(#[from] PostprocessError),
    /// Measuring failed.
    #[error(transparent)]
    Measure(#[from] MeasureError),
}

impl Coded for EngineError {
    fn code(&self) -> &'static str {
        match self {
            Self::Runtime(e) => e.code(),
            Self::Device(e) => e.code(),
            Self::Series(e) => e.code(),
            Self::Research(e) => e.code(),
            Self::Channels { .. } => "engine.channels",
            Self::Preprocess(e) => e.code(),
            Self::Infer(e) => e.code(),
            Self::Postprocess(e) => e.code(),
            Self::Measure(e) => e.code(),
        }
    }
}

impl EngineError {
    /// Where the compute device went away, would not open again or had no memory left: another device may do the same work.
    pub fn device_loss(&self) -> Option<&GpuError> {
        let error = match self {
            Self::Device(error) | Self::Preprocess(PreprocessError::Kernel(error)) => error,
            Self::Postprocess(error) => error.device()?,
            _ => return None,
        };
        let lost = matches!(
            error,
            GpuError::Lost { .. }
                | GpuError::OutOfMemory { .. }
                | GpuError::Open { .. }
                | GpuError::NoGpu { .. }
                | GpuError::NoSuchAdapter { .. }
        );
        lost.then_some(error)
    }
}

/// What an engine runs on.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Where kernels run.
    pub device: DeviceChoice,
    /// Where the network runs.
    pub provider: Provider,
    /// How much the network does at a time.
    pub at_once: AtOnce,
    /// The ONNX Runtime library, instead of looking for it.
    pub onnxruntime_library: Option<PathBuf>,
    /// Memory that this process may have, in bytes; none: all that there is. What would take more is refused before the start.
    pub most_memory_bytes: Option<u64>,
    /// Whether the maps of the package are computed: each takes as much memory as a volume of floats.
    pub maps: bool,
}

/// One package, loaded, on one device. It analyses one series at a time.
#[derive(Debug)]
pub struct Engine {
    package: Arc<Package>,
    backend: Backend,
    network: Network,
    /// The networks that are asked before it, each with what it is as a package of its own.
    stages: Vec<(Package, Network)>,
    provider: Provider,
    onnxruntime_version: String,
    maps: bool,
}

/// What the engine hands out: findings, the image that they lie on, and where the time went.
#[derive(Debug)]
pub struct Analysis {
    /// What was found.
    pub findings: Findings,
    /// The analysed image, for pictures.
    pub image: ImageVolume,
    /// Wall time of each stage.
    pub timings: Timings,
}

impl Engine {
    /// Loads ONNX Runtime, the device and the package's network.
    ///
    /// # Errors
    /// [`EngineError`] where one of them is not there; nothing is exchanged for something else.
    pub fn new(package: Package, options: &Options) -> Result<Self, EngineError> {
        let backend = Backend::open(&options.device)?;
        let runtime = runtime::load(options.onnxruntime_library.as_deref(), options.provider)?;
        let load = |package: &Package| {
            let mut network = Network::load(runtime, package, options.provider, options.at_once)?;
            network.limit_memory(options.most_memory_bytes);
            Ok::<_, InferError>(network)
        };
        let network = load(&package)?;
        let stages = package.stages().into_iter().map(|stage| Ok((Package { graphs: Vec::new(), ..stage.clone() }, load(&stage)?)));
        let stages = stages.collect::<Result<_, InferError>>()?;
        let (provider, onnxruntime_version, maps) = (options.provider, runtime.version.clone(), options.maps);
        let package = Arc::new(package);
        Ok(Self { package, backend, network, stages, provider, onnxruntime_version, maps })
    }

    /// The package that it runs.
    pub fn package(&self) -> &Arc<Package> {
        &self.package
    }

    /// The device that its kernels run on.
    pub fn device(&self) -> String {
        self.backend.to_string()
    }

    /// Everything beside inputs and package that decides its results; each result repeats it.
    pub fn parameters(&self) -> Vec<Parameter> {
        let mut parameters = parameters(&self.package.manifest, &self.backend, self.provider, &self.onnxruntime_version);
        let networks = || self.stages.iter().map(|(_, network)| network).chain([&self.network]);
        let most = |of: fn(AtOnce) -> usize| networks().map(|network| of(network.at_once())).max().unwrap_or(1);
        let counts = [("sessions", most(|at_once| at_once.sessions)), ("patches", most(|at_once| at_once.patches))];
        let more_than_one = counts.into_iter().filter(|(_, count)| *count > 1);
        parameters.extend(more_than_one.map(|(name, count)| Parameter { name: name.to_owned(), value: count.to_string() }));
        parameters
    }

    /// Notes what the GPU does from now on; nothing where there is none.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn begin_profile(&self) -> Result<(), EngineError> {
        match &self.backend {
            Backend::Cpu => Ok(()),
            Backend::Gpu(gpu) => Ok(gpu.begin_profile()?),
        }
    }

    /// The dispatches since [`Engine::begin_profile`].
    ///
    /// # Errors
    /// Where the device fails.
    pub fn end_profile(&self) -> Result<Vec<KernelTime>, EngineError> {
        match &self.backend {
            Backend::Cpu => Ok(Vec::new()),
            Backend::Gpu(gpu) => Ok(gpu.end_profile()?),
        }
    }

    /// Reads one series or volume and analyses it; `on_stage` hears of each stage as it begins.
    ///
    /// # Errors
    /// What went wrong in which stage, or [`InferError::Cancelled`] soon after `cancel` is set; the engine can go on with the next series.
    pub fn analyse(
        &mut self,
        input: impl Into<Input>,
        cancel: &AtomicBool,
        on_stage: &mut dyn FnMut(Stage),
    ) -> Result<Analysis, EngineError> {
        on_stage(Stage::Load);
        let opened = input.into().open()?;
        self.analyse_opened(opened, cancel, on_stage)
    }

    /// Analyses what [`Input::open`] has read, which may have happened in another thread while this engine was at work.
    ///
    /// # Errors
    /// As [`Engine::analyse`].
    pub fn analyse_opened(
        &mut self,
        opened: Opened,
        cancel: &AtomicBool,
        on_stage: &mut dyn FnMut(Stage),
    ) -> Result<Analysis, EngineError> {
        let Opened { voxels, others, started, load } = opened;
        let mut timings = Timings(vec![(Stage::Load, load)]);
        if self.package.manifest.model.task.is_of_whole() {
            return self.classify(voxels, started, timings, cancel, on_stage);
        }
        let (labelled, notes) = self.ask_stages(voxels.image(), &others, cancel, &mut timings, on_stage)?;
        let begun = Begun { voxels, others, labelled, notes, started, timings };
        match self.package.manifest.output.boxes {
            Some(_) => self.detect(begun, cancel, on_stage),
            None => self.segment(begun, cancel, on_stage),
        }
    }

    /// What the last of the package's stages has labelled, and what the reader of a result should know of them.
    fn ask_stages(
        &mut self,
        image: &ImageVolume,
        others: &[OpenedChannel],
        cancel: &AtomicBool,
        timings: &mut Timings,
        on_stage: &mut dyn FnMut(Stage),
    ) -> Result<(Option<LabelMap>, Vec<String>), EngineError> {
        let manifest = &self.package.manifest;
        let mut course = Course { backend: &self.backend, cancel, timings, on_stage };
        let (mut labelled, mut said) = (None, Vec::new());
        for (n, (stage, network)) in self.stages.iter_mut().enumerate() {
            let names = n.checked_sub(1).map_or(&[][..], |before| &manifest.stage[before].label);
            let previous = labelled.as_ref().map(|labels| Previous { labels, names });
            let (stage, subject) = (&stage.manifest, Subject { image, others, previous });
            let (mut scores, notes, ()) = ask(stage, network, subject, &mut course, &mut [], || ())?;
            said.extend(notes.into_iter().map(|note| format!("stage {}: {note}", manifest.stage[n].name)));
            labelled = Some(course.timings.time(Stage::Postprocess, &mut *course.on_stage, || {
                postprocess::activate(&mut scores, &stage.postprocess);
                postprocess::labels_on(image.grid(), &scores, &stage.label_of_channel(), &stage.postprocess, &self.backend)
            })?);
        }
        Ok((labelled, said))
    }

    /// Labels the voxels of an image, and measures what it labels.
    fn segment(&mut self, begun: Begun, cancel: &AtomicBool, on_stage: &mut dyn FnMut(Stage)) -> Result<Analysis, EngineError> {
        let manifest = &self.package.manifest;
        let Begun { voxels, others, labelled, notes: of_stages, started, mut timings } = begun;
        let image = voxels.image();
        let previous = labelled.as_ref().map(|labels| Previous { labels, names: manifest.last_labels() });
        let subject = Subject { image, others: &others, previous };
        let mut spreads = if self.maps { spreads_of(manifest) } else { Vec::new() };
        let mut course = Course { backend: &self.backend, cancel, timings: &mut timings, on_stage: &mut *on_stage };
        let hashed = || content_of(&voxels, &others);
        let (mut scores, of_network, hashes) = ask(manifest, &mut self.network, subject, &mut course, &mut spreads, hashed)?;
        drop(labelled);
        let label_of_channel = manifest.label_of_channel();
        let (labels, objects, maps) = timings.time(Stage::Postprocess, on_stage, || {
            postprocess::activate(&mut scores, &manifest.postprocess);
            let labels = postprocess::labels_on(image.grid(), &scores, &label_of_channel, &manifest.postprocess, &self.backend)?;
            let wanted = manifest.maps().filter(|_| self.maps);
            let mut spreads = spreads.into_iter();
            let maps: Vec<ValueMap> = wanted
                .map(|(map, of, kind)| {
                    let values = match of {
                        MapOf::Spread { .. } => {
                            spreads.next().expect("there is one for each such map, in their order").into_map(image.grid())
                        }
                        _ => postprocess::map_on(image.grid(), &scores, &label_of_channel, of, kind),
                    };
                    value_map(&map.name, of, values)
                })
                .collect();
            let (labels, objects) = postprocess::objects_on(labels, &scores, manifest)?;
            Ok::<_, PostprocessError>((labels, objects, maps))
        })?;
        drop(scores);
        let (found, left_out) = found(&manifest.finding, &objects);
        let measured = timings.time(Stage::Measure, on_stage, || measured(&found, &labels, image))?;

        let (Read { image, source, notes }, mut warnings) = Read::of(voxels, others, hashes);
        warnings.extend(left_out);
        let provenance = self.provenance(notes.into_iter().chain(of_stages).chain(of_network).collect(), started);
        let mut findings = without_findings(source, labels, provenance, warnings, maps);
        findings.findings =
            found.into_iter().zip(&measured).map(|(found, measured)| finding(found, measured, image.quantity, &findings)).collect();
        Ok(Analysis { findings, image, timings })
    }

    /// Where the numbers of an analysis come from that began at `started`.
    fn provenance(&self, geometry: Vec<String>, started: jiff::ZonedDateTime) -> Provenance {
        Provenance {
            roentgen_version: env!("CARGO_PKG_VERSION").to_owned(),
            package: self.package.id.clone(),
            device: self.backend.to_string(),
            provider: self.provider.name().to_owned(),
            onnxruntime_version: self.onnxruntime_version.clone(),
            parameters: self.parameters(),
            geometry,
            started,
        }
    }
}

/// An analysis whose last network is still to be asked.
struct Begun {
    voxels: Voxels,
    others: Vec<OpenedChannel>,
    /// What the last of the stages has labelled.
    labelled: Option<LabelMap>,
    /// What the reader of a result should know of the stages.
    notes: Vec<String>,
    started: jiff::ZonedDateTime,
    timings: Timings,
}

/// Hashes of what the voxels of the reference and of each other channel were read from.
fn content_of(voxels: &Voxels, others: &[OpenedChannel]) -> (Vec<String>, Vec<Vec<String>>) {
    (voxels.content_sha256(), others.iter().map(|other| other.voxels.content_sha256()).collect())
}

/// What was read, when all is computed.
struct Read {
    image: ImageVolume,
    source: Source,
    notes: Vec<String>,
}

impl Read {
    /// Of the reference and the other channels, with the hashes of each; and what the reader of a result should be warned of.
    fn of(opened: Voxels, others: Vec<OpenedChannel>, (content_sha256, of_others): (Vec<String>, Vec<Vec<String>>)) -> (Self, Vec<String>) {
        let Closed { image, mut source, mut notes, warnings } = opened.close(content_sha256);
        for (other, content_sha256) in others.into_iter().zip(of_others) {
            let (channel, of_channel) = other.close(content_sha256);
            source.channels.push(channel);
            notes.extend(of_channel);
        }
        (Self { image, source, notes }, warnings)
    }
}

/// Of a result that labels no voxels.
fn no_labels(grid: Grid) -> LabelMap {
    Volume::new(grid, vec![0; grid.voxel_count()])
}

/// A result whose findings are still to be made: they need its UIDs.
fn without_findings(source: Source, labels: LabelMap, provenance: Provenance, warnings: Vec<String>, maps: Vec<ValueMap>) -> Findings {
    Findings {
        source,
        labels,
        findings: Vec::new(),
        provenance,
        warnings,
        maps,
        predecessors: Vec::new(),
        priors: Priors::default(),
        follow_up: None,
    }
}

fn finding(found: Found<'_>, measured: &Measured, quantity: Quantity, findings: &Findings) -> Finding {
    let Found { described, name, segment, score } = found;
    let modality = findings.source.instances.first().map_or("", |i| i.modality.as_str());
    Finding {
        segment: Some(segment),
        present: measured.numbers.voxels > 0,
        certainty_percent: score.map(|score| f64::from(score) * 100.0),
        measurements: described.measurements.iter().map(|kind| measured.measurement(*kind, quantity, modality)).collect(),
        ..Finding::of(described, name, findings.result_uid(&format!("tracking/{segment}")))
    }
}

fn value_map(name: &str, of: MapOf, values: Volume<f32>) -> ValueMap {
    let quantity = match of {
        MapOf::Probability { .. } => dcm::PROBABILITY,
        MapOf::Uncertainty => other::CLASS_ENTROPY,
        MapOf::Spread { .. } => other::ENSEMBLE_SPREAD,
    };
    ValueMap { name: name.to_owned(), quantity, unit: ucum::ONE, values }
}

/// How far the probability of a finding falls where the image is covered.
fn occlusion_map(of: &str, values: Volume<f32>) -> ValueMap {
    ValueMap { name: Explanation::map_name(of), quantity: other::OCCLUSION_DROP, unit: ucum::ONE, values }
}

/// Everything beside inputs and package that decides the result, and so its UIDs; with the package's steps, for readers of the result.
fn parameters(manifest: &Manifest, backend: &Backend, provider: Provider, onnxruntime_version: &str) -> Vec<Parameter> {
    let mut parameters = Vec::new();
    let mut add = |name: String, value: String| parameters.push(Parameter { name, value });
    let mut add_fields = |name: String, fields: serde_json::Value| {
        let serde_json::Value::Object(fields) = fields else { return };
        if fields.is_empty() {
            add(name.clone(), "on".to_owned());
        }
        for (field, value) in fields {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            add(format!("{name}.{field}"), text);
        }
    };
    let json = |step: Result<_, serde_json::Error>| step.expect("steps hold finite numbers and text only");
    let stages = manifest.stage.iter().enumerate().map(|(n, stage)| (format!("stage.{}.", stage.name), manifest.of_stage(n)));
    for (of_stage, manifest) in stages.chain([(String::new(), manifest.clone())]) {
        let preprocess = manifest.preprocess.iter().map(|step| ("preprocess".to_owned(), json(serde_json::to_value(step))));
        let own = manifest.input.channel.iter().filter_map(|channel| Some((channel, channel.preprocess.as_ref()?)));
        let of_channels = own.flat_map(|(channel, steps)| {
            steps.iter().map(move |step| (format!("channel.{}.preprocess", channel.name), json(serde_json::to_value(step))))
        });
        let postprocess = manifest.postprocess.iter().map(|step| ("postprocess".to_owned(), json(serde_json::to_value(step))));
        for (what, mut step) in preprocess.chain(of_channels).chain(postprocess) {
            let name = step.as_object_mut().and_then(|fields| fields.remove("step"));
            let name = name.as_ref().and_then(serde_json::Value::as_str).expect("steps are tagged with their name");
            add_fields(format!("{of_stage}{what}.{name}"), step);
        }
        if let serde_json::Value::Object(method) = json(serde_json::to_value(&manifest.inference)) {
            method.into_iter().for_each(|(name, fields)| add_fields(format!("{of_stage}inference.{name}"), fields));
        }
        if let Some(previous) = &manifest.input.previous {
            add_fields(format!("{of_stage}input.previous"), json(serde_json::to_value(previous)));
        }
        if let Some(slices) = &manifest.input.slices {
            add_fields(format!("{of_stage}input.slices"), json(serde_json::to_value(slices)));
        }
    }
    for (finding, instances) in manifest.finding.iter().filter_map(|finding| Some((finding, finding.instances.as_ref()?))) {
        add_fields(format!("finding.{}.instances", finding.name), json(serde_json::to_value(instances)));
    }
    for finding in &manifest.finding {
        if let Some(threshold) = &finding.threshold {
            add_fields(format!("finding.{}.threshold", finding.name), json(serde_json::to_value(threshold)));
        }
        if let Some(estimate) = &finding.estimate {
            add_fields(format!("finding.{}.estimate", finding.name), json(serde_json::to_value(estimate)));
        }
    }
    if let Some(boxes) = &manifest.output.boxes {
        add_fields("output.boxes".to_owned(), json(serde_json::to_value(boxes)));
    }
    if let Some(follow_up) = &manifest.follow_up {
        add_fields("follow-up".to_owned(), json(serde_json::to_value(follow_up)));
    }
    if let Some(explanation) = &manifest.explanation {
        add_fields("explanation".to_owned(), json(serde_json::to_value(explanation)));
    }
    for (name, dtype) in [("input.dtype", manifest.input.dtype), ("output.dtype", manifest.output.dtype)] {
        if dtype != Dtype::Float32 {
            add(name.to_owned(), dtype.to_string());
        }
    }
    if manifest.output.interpolation == Interpolation::Nearest {
        add("output.interpolation".to_owned(), "nearest".to_owned());
    }
    add("device".to_owned(), backend.class().to_owned());
    add("provider".to_owned(), provider.name().to_owned());
    if let Some(precision) = provider.precision() {
        add("precision".to_owned(), precision.name().to_owned());
    }
    add("onnxruntime".to_owned(), onnxruntime_version.to_owned());
    add("roentgen".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    parameters
}
