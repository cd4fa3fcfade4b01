//! ONNX graphs in sessions, and what they answer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use ort::session::builder::GraphOptimizationLevel;
use ort::session::{RunOptions, Session};
use ort::value::{Outlet, TensorElementType};
use rayon::prelude::*;
use thiserror::Error;

use super::asked::{Asked, Contract, Lane, Room};
use super::boxes::{self, BoxOutput, Detected};
use super::outlets::{broken, element_type, open_or, shape_of};
use super::runtime::Runtime;
use super::{Provider, memory, tiles, whole, window};
use crate::geometry::{Coded, Grid};
use crate::kernels::Interpolation;
use crate::kernels::bounding_box::Bounds;
use crate::model::{Dtype, Inference, Layout, Package};
use crate::volume::Volume;

/// How soon a run hears that it is cancelled.
const HEARS: Duration = Duration::from_millis(50);

/// Why a network cannot be loaded or run.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum InferError {
    /// There is no such execution provider.
    #[error("no execution provider `{wanted}`: there are {}, and openvino:bfloat16", Provider::ALL.map(|p| p.to_string()).join(", "))]
    NoProvider {
        /// What was asked for.
        wanted: String,
    },
    /// The execution provider is in the library and does not start.
    #[error("{} does not start here: {reason}; ask for another one, `--provider cpu` runs everywhere", provider.name())]
    ProviderStart {
        /// Which one.
        provider: Provider,
        /// What ONNX Runtime said.
        reason: String,
    },
    /// The execution provider cannot run the graph by itself.
    #[error("{} has not all operators of the graph, and the CPU's would run the rest: ask for `--provider cpu`, or change the graph",
            provider.name())]
    Operators {
        /// Which one.
        provider: Provider,
    },
    /// ONNX Runtime does not take the graph.
    #[error("ONNX Runtime does not take the graph: {reason}")]
    Graph {
        /// What it said: an operator that it does not have, a damaged file.
        reason: String,
    },
    /// The graph is not what the manifest says.
    #[error("the ONNX graph does not fit its manifest: {what}")]
    Contract {
        /// Which tensor, found and expected.
        what: String,
    },
    /// The network gave values that are no scores.
    #[error("the network's output holds {count} values that are not finite; the result would be a guess")]
    NotFinite {
        /// How many, in one tile.
        count: usize,
    },
    /// There is less memory than a run takes.
    #[error(
        "this volume needs {needed_mb} MB more memory for this network, and {free_mb} MB are to be had: free some, allow more, \
             or use a package with a coarser grid or smaller tiles"
    )]
    Memory {
        /// What the run would take beside what is loaded already.
        needed_mb: u64,
        /// What there is.
        free_mb: u64,
    },
    /// Values that the manifest calls probabilities, and that are none.
    #[error("the network's output holds {value}, which is no probability: `output.scores` of the manifest says `probabilities`")]
    NotProbability {
        /// The first such value.
        value: f32,
    },
    /// A row of the network's boxes is none.
    #[error(
        "the network gives what is no box: box {row} of a patch: {what}; the package's maker must mend the graph, or `output.boxes` of its manifest"
    )]
    Box {
        /// Which row, from 0.
        row: usize,
        /// What is wrong with it.
        what: String,
    },
    /// A number that the manifest says is none for such an image.
    #[error("the network says {value} {unit} for `{finding}`, and the package takes nothing outside {least} to {most} for a result")]
    OutOfRange {
        /// Name of the finding.
        finding: String,
        /// The number.
        value: f64,
        /// Its unit, UCUM.
        unit: String,
        /// Of the manifest.
        least: f64,
        /// Of the manifest.
        most: f64,
    },
    /// Stopped because the caller asked for it.
    #[error("cancelled")]
    Cancelled,
    /// ONNX Runtime failed while it ran the graph.
    #[error("ONNX Runtime: {0}")]
    Ort(String),
}

impl Coded for InferError {
    fn code(&self) -> &'static str {
        match self {
            Self::NoProvider { .. } => "infer.no-provider",
            Self::ProviderStart { .. } => "infer.provider-start",
            Self::Operators { .. } => "infer.provider-operators",
            Self::Graph { .. } => "infer.graph",
            Self::Contract { .. } => "infer.contract",
            Self::NotFinite { .. } => "infer.not-finite",
            Self::Memory { .. } => "infer.memory",
            Self::NotProbability { .. } => "infer.not-probability",
            Self::Box { .. } => "infer.box",
            Self::OutOfRange { .. } => "infer.out-of-range",
            Self::Cancelled => "infer.cancelled",
            Self::Ort(_) => "infer.onnxruntime",
        }
    }
}

impl<T> From<ort::Error<T>> for InferError {
    fn from(error: ort::Error<T>) -> Self {
        Self::Ort(error.to_string())
    }
}

/// Class scores as the network gave them: channel by channel, each `grid.voxel_count()` values in the grid's order.
#[derive(Debug, Clone)]
pub struct Scores {
    /// The network's grid.
    pub grid: Grid,
    /// `channels * grid.voxel_count()` values.
    pub values: Vec<f32>,
    /// How scores between voxel centres are made along i, j, k: nearest or linear.
    pub interpolation: [Interpolation; 3],
    /// First and last voxel of the source grid that they answer for; the others are background. `None`: all of it.
    pub source_box: Option<Bounds>,
    /// Patches that they were made of, 0 where it was no patches.
    pub patches: usize,
    /// Those among them that the network was not asked about, as the package wants it of empty ones.
    pub empty_patches: usize,
}

impl Scores {
    /// Linear along each axis, for all of the source.
    pub fn linear(grid: Grid, values: Vec<f32>) -> Self {
        Self { grid, values, interpolation: [Interpolation::Linear; 3], source_box: None, patches: 0, empty_patches: 0 }
    }
}

/// How much a network does at a time. Answers are the same but for rounding, and always the same for the same numbers; speed and memory differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AtOnce {
    /// Sessions that are asked about different patches at the same time, each with its part of the threads; 1 or more.
    pub sessions: usize,
    /// Patches of a network of volumes that one run of it takes, where it gives scores of voxels; 1 or more.
    pub patches: usize,
}

impl AtOnce {
    /// Of each that may be asked for.
    pub const MOST: u8 = 64;
}

impl Default for AtOnce {
    /// One of each.
    fn default() -> Self {
        Self { sessions: 1, patches: 1 }
    }
}

/// A loaded network, of one or several graphs whose answers are averaged. It stays loaded, and answers for one volume at a time.
#[derive(Debug)]
pub struct Network {
    contract: Contract,
    lanes: Vec<Lane>,
    pub(super) inference: Inference,
    /// Whether each graph answers for the whole before the next one does.
    one_by_one: bool,
    /// Scores of each channel where nothing is, where some says that.
    background: Option<Vec<f32>>,
    /// What is read in place of scores of voxels, where the network gives boxes.
    pub(super) boxes: Option<BoxOutput>,
    room: Room,
}

impl Network {
    /// Loads the package's graphs and holds them against the manifest. Of `at_once` counts what the package has a use for: see
    /// [`Network::at_once`].
    ///
    /// # Errors
    /// [`InferError::Contract`] where tensors differ from the manifest, [`InferError::Graph`] where a graph does not load,
    /// [`InferError::ProviderStart`] and [`InferError::Operators`] where the provider does not run it, all of it.
    pub fn load(runtime: &Runtime, package: &Package, provider: Provider, at_once: AtOnce) -> Result<Self, InferError> {
        let manifest = &package.manifest;
        let channels = manifest.channels();
        let layout = manifest.input.layout;
        let seen = manifest.input_channels();
        let slices = slices_at_a_time(&manifest.inference);
        let of_slices = manifest
            .input
            .slices
            .map_or_else(String::new, |slices| format!(": as channels {} slices of each of {seen} (`input.slices`)", slices.count));
        let boxes = BoxOutput::of(manifest);
        let is_windowed = matches!(manifest.inference, Inference::SlidingWindow(_));
        let lanes = if is_windowed { at_once.sessions } else { 1 };
        let together = if is_windowed && layout == Layout::Ncdhw && boxes.is_none() { at_once.patches } else { 1 };
        let threads = (rayon::current_num_threads() / lanes).max(1);
        let load = |graph: &Vec<u8>| {
            let session = session(runtime, provider, graph, threads)?;
            let [given, answered] = [manifest.input.dtype, manifest.output.dtype].map(element_type);
            let (input, output) = (&manifest.input.tensor, &manifest.output.tensor);
            check_tensor(session.inputs(), (input, given), layout, (manifest.tensor_channels(), &of_slices), slices)?;
            match (manifest.resized_to(), &boxes) {
                (_, Some(boxes)) => boxes.check(&session)?,
                (Some(to), None) => whole::check(&session, manifest, to)?,
                (None, None) => check_tensor(session.outputs(), (output, answered), layout, (channels, ""), slices)?,
            }
            for (outlets, name, dtype) in [(session.inputs(), input, given), (session.outputs(), output, answered)] {
                check_open(shape_of(outlets, name, dtype)?, name, together)?;
            }
            match session.inputs().len() {
                1 => Ok(session),
                count => Err(InferError::Contract { what: format!("{count} inputs, the manifest describes 1") }),
            }
        };
        let lane = |_| package.graphs.iter().map(load).collect::<Result<_, InferError>>();
        let lanes: Vec<Vec<Session>> = (0..lanes).map(lane).collect::<Result<_, InferError>>()?;
        let contract = Contract {
            input: manifest.input.tensor.clone(),
            given: manifest.input.dtype,
            output: manifest.output.tensor.clone(),
            answered: manifest.output.dtype,
            layout,
            seen,
            images: manifest.images(),
            slices: manifest.input.slices,
            channels,
            batch: if is_windowed { together } else { whole::batch(&lanes[0], manifest) },
        };
        Ok(Self {
            contract,
            lanes: lanes.into_iter().map(Lane::new).collect(),
            inference: manifest.inference.clone(),
            one_by_one: manifest.has_spread(),
            background: manifest.background_scores(),
            boxes,
            room: Room::default(),
        })
    }

    /// What it does at a time: one session where it sees no patches that overlap, one patch where it is a network of slices or gives boxes.
    pub fn at_once(&self) -> AtOnce {
        let is_windowed = matches!(self.inference, Inference::SlidingWindow(_));
        AtOnce { sessions: self.lanes.len(), patches: if is_windowed { self.contract.batch } else { 1 } }
    }

    /// Lets the process have so many bytes of memory and not all that there is.
    pub fn limit_memory(&mut self, most_bytes: Option<u64>) {
        self.room.most_bytes = most_bytes;
    }

    /// Bytes that a run over `voxels` of the network's grid takes beside what is loaded: input, scores, and the parts that are on their way.
    ///
    /// What the sessions take for themselves is not among them: they keep it from their first answer on, and then it is loaded.
    pub fn needed_bytes(&self, voxels: u64) -> u64 {
        let part = |shape: [u32; 3], halo: u32| shape.iter().map(|&n| u64::from(n) + 2 * u64::from(halo)).product::<u64>();
        let (seen, channels, batch) = (self.contract.seen as u64, self.contract.channels as u64, self.contract.batch as u64);
        // Parts that are on their way: each lane has one, and one waits on each side of it; one more is gathered, and one taken.
        let parts = (2 * self.lanes.len() as u64 + 1) * batch;
        // Of a part of so many voxels in so many slices: what of each volume is taken for it, and once more by slices, as the network sees it.
        let shown = |part: u64, slices: u64| match &self.contract.slices {
            Some(of) => [part + part.div_ceil(slices) * 2 * of.reach() as u64, part * of.count as u64],
            None => [part, 0],
        };
        let values = match &self.inference {
            Inference::Tiles(tiles) => {
                let part = part(tiles.tile, tiles.halo).min(voxels);
                let [taken, stacked] = shown(part, u64::from(tiles.tile[2]));
                voxels * (seen + channels) + seen * (taken + stacked) + 2 * channels * part
            }
            Inference::SlidingWindow(window) if self.boxes.is_some() => voxels * seen + parts * seen * part(window.patch, 0),
            // Weights are summed up beside the scores.
            Inference::SlidingWindow(window) => {
                let part = part(window.patch, 0);
                let [taken, stacked] = shown(part, u64::from(window.patch[2]));
                voxels * (1 + seen + channels) + parts * (seen * taken + channels * part) + seen * stacked
            }
            Inference::Whole(_) => voxels * (1 + batch), // covered in many places at a time
        };
        // One graph's scores beside the sum of all.
        let of_one = if self.one_by_one { voxels * channels } else { 0 };
        4 * (values + of_one)
    }

    /// Refuses a volume of `voxels` on the network's grid that does not fit into memory, with `beside` bytes for what is made of the answers
    /// meanwhile, before anything is done with it.
    ///
    /// # Errors
    /// [`InferError::Memory`].
    pub fn afford(&self, voxels: u64, beside: u64) -> Result<(), InferError> {
        memory::afford(self.needed_bytes(voxels).saturating_add(beside), self.room.most_bytes)
    }

    /// The network's answer for the whole of `input`: a volume for each channel that it sees, on one grid.
    ///
    /// # Errors
    /// [`InferError::Cancelled`] soon after `cancel` is set: at the next operator of the graph, loops within it included; with providers that
    /// run a graph as a whole, at the next part of the volume. [`InferError::Memory`] where, after the first answer of all, there is not
    /// enough left for the rest. Otherwise what the network did wrong.
    ///
    /// # Panics
    /// Where there are other channels than the manifest has, or on different grids: broken promises of the caller.
    pub fn run(&mut self, input: &[Volume<f32>], cancel: &AtomicBool) -> Result<Scores, InferError> {
        self.run_each(input, cancel, |_| ())
    }

    /// As [`Network::run`], and `each` is given what each graph of the ensemble says by itself, one after the other, where the package has a map of
    /// their spread; of other packages it is given nothing.
    ///
    /// Such a package's scores are the means of those of whole volumes, and others' those of parts: the same but for rounding. They do not depend
    /// on whether maps are asked for.
    ///
    /// # Errors
    /// As [`Network::run`].
    ///
    /// # Panics
    /// As [`Network::run`].
    pub fn run_each(&mut self, input: &[Volume<f32>], cancel: &AtomicBool, mut each: impl FnMut(Scores)) -> Result<Scores, InferError> {
        assert_eq!(input.len(), self.contract.seen, "a volume for each channel");
        let grid = *input[0].grid();
        assert!(input.iter().all(|channel| *channel.grid() == grid), "channels lie on one grid");
        let inference = self.inference.clone();
        let voxels = grid.voxel_count() as u64;
        let rest_bytes = self.needed_bytes(voxels).saturating_sub(4 * voxels * self.contract.seen as u64);
        let background = self.background.clone();
        let scores = |asked: &mut Asked<'_>| match &inference {
            Inference::Tiles(tiles) => Ok(Scores::linear(grid, tiles::run(asked, tiles, input)?)),
            Inference::SlidingWindow(window) => window::run(asked, window, input, background.as_deref()),
            Inference::Whole(_) => {
                Err(InferError::Contract { what: "it sees images as a whole, and gives no scores for voxels".to_owned() })
            }
        };
        let graphs = self.lanes[0].graphs();
        let one_by_one = self.one_by_one;
        self.watched(rest_bytes, cancel, |asked| {
            if !one_by_one {
                return scores(asked);
            }
            asked.graphs = 0..1;
            let first = scores(asked)?;
            let mut sum = first.clone();
            each(first);
            for n in 1..graphs {
                asked.graphs = n..n + 1;
                let one = scores(asked)?;
                sum.values.par_iter_mut().zip(&one.values).for_each(|(sum, score)| *sum += score);
                each(one);
            }
            sum.values.par_iter_mut().for_each(|sum| *sum /= graphs as f32);
            Ok(sum)
        })
    }

    /// The boxes that the network gives for the whole of `input`, as [`Network::run`] is asked.
    ///
    /// # Errors
    /// As [`Network::run`], and [`InferError::Box`] where it gives something else.
    ///
    /// # Panics
    /// As [`Network::run`].
    pub fn detect(&mut self, input: &[Volume<f32>], cancel: &AtomicBool) -> Result<Detected, InferError> {
        assert_eq!(input.len(), self.contract.seen, "a volume for each channel");
        assert!(input.iter().all(|channel| channel.grid() == input[0].grid()), "channels lie on one grid");
        let (Some(output), Inference::SlidingWindow(window)) = (self.boxes.clone(), self.inference.clone()) else {
            return Err(InferError::Contract { what: "it gives scores, and no boxes".to_owned() });
        };
        self.watched(0, cancel, |asked| boxes::run(asked, &window, &output, input))
    }

    /// `work` with a thread beside it that ends a run when `cancel` is set; `rest_bytes` is what it takes beside its input and the sessions' own.
    pub(super) fn watched<T>(
        &mut self,
        rest_bytes: u64,
        cancel: &AtomicBool,
        work: impl FnOnce(&mut Asked<'_>) -> Result<T, InferError>,
    ) -> Result<T, InferError> {
        let options = RunOptions::new()?;
        let (over, is_over) = mpsc::channel::<()>();
        thread::scope(|scope| {
            scope.spawn(|| {
                let is_over = is_over; // moved in: it ends with this thread
                while let Err(RecvTimeoutError::Timeout) = is_over.recv_timeout(HEARS) {
                    if cancel.load(Ordering::Relaxed) {
                        let _ = options.terminate(); // it cannot fail for options that are alive
                        return;
                    }
                }
            });
            let Self { contract, lanes, room, .. } = self;
            let graphs = 0..lanes[0].graphs();
            let answer = work(&mut Asked { contract, lanes, graphs, options: &options, cancel, room, rest_bytes });
            drop(over);
            answer.map_err(|error| if cancel.load(Ordering::Relaxed) { InferError::Cancelled } else { error })
        })
    }
}

/// A tensor that a graph takes or gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Its name in the graph.
    pub name: String,
    /// Its element type, and its shape, -1 where the graph leaves an axis open; `None` of what packages do not have.
    pub values: Option<(Dtype, Vec<i64>)>,
}

/// What a graph takes and what it gives.
///
/// # Errors
/// [`InferError::Graph`] where ONNX Runtime does not take it.
pub fn tensors(runtime: &Runtime, graph: &[u8]) -> Result<[Vec<Tensor>; 2], InferError> {
    let session = session(runtime, Provider::Cpu, graph, rayon::current_num_threads())?;
    let told = |outlet: &Outlet| {
        let of =
            |dtype: Dtype| shape_of(std::slice::from_ref(outlet), outlet.name(), element_type(dtype)).map(|shape| (dtype, shape.to_vec()));
        let values = [Dtype::Float32, Dtype::Float16].into_iter().find_map(|dtype| of(dtype).ok());
        Tensor { name: outlet.name().to_owned(), values }
    };
    Ok([session.inputs(), session.outputs()].map(|outlets| outlets.iter().map(told).collect()))
}

/// A session of `provider` alone: what it has no operator for is not left to the CPU's.
fn session(runtime: &Runtime, provider: Provider, graph: &[u8], threads: usize) -> Result<Session, InferError> {
    // Level 3 is the default of every peer; without the memory pattern peak memory halves at the same speed.
    let mut builder = Session::builder(&runtime.environment)?
        .with_optimization_level(GraphOptimizationLevel::Level3)?
        .with_intra_threads(threads)?
        .with_memory_pattern(false)?;
    if let Some(reason) = provider.lacking() {
        return Err(InferError::ProviderStart { provider, reason: reason.to_owned() });
    }
    if let Some(dispatch) = provider.dispatch(threads) {
        let does_not_start = |error: ort::Error<_>| InferError::ProviderStart { provider, reason: error.to_string() };
        builder = builder.with_execution_providers([dispatch]).map_err(does_not_start)?.with_disable_cpu_fallback()?;
    }
    builder.commit_from_memory(graph).map_err(|error| match error.to_string() {
        // ONNX Runtime has no code of its own for this.
        reason if reason.contains("fallback to CPU EP has been explicitly disabled") => InferError::Operators { provider },
        reason => InferError::Graph { reason },
    })
}

/// Slices that each run of a network of slices gets, its batch; `None` where runs differ, as tiles and their halos do at the ends of a volume.
fn slices_at_a_time(inference: &Inference) -> Option<usize> {
    match inference {
        Inference::Tiles(tiles) => (tiles.tile[2] == 1 && tiles.halo == 0).then_some(1),
        Inference::SlidingWindow(window) => Some(window.patch[2] as usize),
        Inference::Whole(_) => Some(1),
    }
}

/// Whether a graph whose batch is `found` (-1: open) takes what it gets.
fn batch_fits(found: i64, layout: Layout, slices: Option<usize>) -> bool {
    let wanted = match layout {
        Layout::Ncdhw => Some(1),
        Layout::Nchw => slices,
    };
    found == -1 || wanted.is_some_and(|wanted| found == wanted as i64)
}

/// Holds a tensor's shape against the number of patches that a run is to take: the graph must leave it open.
fn check_open(shape: &[i64], name: &str, patches: usize) -> Result<(), InferError> {
    match shape.first() {
        Some(-1) => Ok(()),
        _ if patches == 1 => Ok(()),
        _ => broken(format!(
            "`{name}` takes one patch at a time, and {patches} are asked for: export the graph with an open batch, or ask for 1"
        )),
    }
}

/// A tensor of that element type, of the layout's rank and `channels`, as far as the graph fixes them; beside their number stands what a message says of
/// it. `slices` as of [`slices_at_a_time`].
fn check_tensor(
    outlets: &[Outlet],
    (name, dtype): (&str, TensorElementType),
    layout: Layout,
    (channels, why): (usize, &str),
    slices: Option<usize>,
) -> Result<(), InferError> {
    let shape = shape_of(outlets, name, dtype)?;
    match (layout, shape) {
        (Layout::Ncdhw, &[batch, c, _, _, _]) if batch_fits(batch, layout, slices) && open_or(c, channels) => Ok(()),
        (Layout::Nchw, &[batch, c, _, _]) if open_or(c, channels) && !batch_fits(batch, layout, slices) => broken(format!(
            "`{name}` takes {batch} slices at a time, and `tile` and `halo` or `patch` give it others: export the graph with an open batch, \
             or have 1 along k and no halo"
        )),
        (Layout::Nchw, &[_, c, _, _]) if open_or(c, channels) => Ok(()),
        (Layout::Ncdhw, _) => broken(format!("`{name}` has shape {shape:?}, expected [1, {channels}, D, H, W]")),
        (Layout::Nchw, _) => broken(format!("`{name}` has shape {shape:?}, expected [N, {channels}, H, W]{why}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Tiles;

    #[test]
    fn a_fixed_batch_is_as_many_slices_as_come() {
        let of_tiles = |k: u32, halo: u32| slices_at_a_time(&Inference::Tiles(Tiles { tile: [64, 64, k], halo }));
        let fits = |batch, k, halo| batch_fits(batch, Layout::Nchw, of_tiles(k, halo));
        assert!(fits(1, 1, 0) && fits(-1, 8, 2));
        assert!(!fits(1, 8, 0), "the network would get eight slices");
        assert!(!fits(1, 1, 2), "and five with a halo");
        assert!(!fits(8, 8, 0), "equal parts are smaller than a tile");
        assert!(batch_fits(1, Layout::Ncdhw, None) && !batch_fits(2, Layout::Ncdhw, Some(2)));
    }
}
