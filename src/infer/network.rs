//! One ONNX graph in one session, applied to volumes tile by tile.

use std::ops::Range;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};

use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use ort::value::{TensorElementType, TensorRef, ValueType};
use thiserror::Error;

use super::runtime::Runtime;
use crate::geometry::{Coded, Grid};
use crate::model::Package;
use crate::volume::Volume;

/// An ONNX Runtime execution provider. Asked for by name, never exchanged quietly for another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Provider {
    /// `CPUExecutionProvider`.
    #[default]
    Cpu,
}

impl Provider {
    /// Those that this program can ask for.
    pub const ALL: [Self; 1] = [Self::Cpu];

    /// ONNX Runtime's own name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "CPUExecutionProvider",
        }
    }
}

impl FromStr for Provider {
    type Err = InferError;

    fn from_str(name: &str) -> Result<Self, InferError> {
        match name {
            "cpu" => Ok(Self::Cpu),
            _ => Err(InferError::NoProvider { wanted: name.to_owned() }),
        }
    }
}

/// Why a network cannot be loaded or run.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum InferError {
    /// This build has no such execution provider.
    #[error("no execution provider `{wanted}`: this version runs `cpu`")]
    NoProvider {
        /// What was asked for.
        wanted: String,
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
    /// Stopped between two tiles because the caller asked for it.
    #[error("cancelled")]
    Cancelled,
    /// ONNX Runtime refused the graph or failed while running it.
    #[error("ONNX Runtime: {0}")]
    Ort(String),
}

impl Coded for InferError {
    fn code(&self) -> &'static str {
        match self {
            Self::NoProvider { .. } => "infer.no-provider",
            Self::Contract { .. } => "infer.contract",
            Self::NotFinite { .. } => "infer.not-finite",
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
}

/// A loaded network. It stays loaded: one for each worker, since a session runs one input at a time.
#[derive(Debug)]
pub struct Network {
    session: Session,
    input: String,
    output: String,
    channels: usize,
    tile: [u32; 3],
    halo: u32,
}

impl Network {
    /// Loads the package's graph and holds it against the manifest.
    ///
    /// # Errors
    /// [`InferError::Contract`] where tensors differ from the manifest, [`InferError::Ort`] where the graph does not load.
    pub fn load(runtime: &Runtime, package: &Package, provider: Provider) -> Result<Self, InferError> {
        let Provider::Cpu = provider; // the only one so far, and what a session without providers runs on
        // Level 3 is the default of every peer; without the memory pattern peak memory halves at the same speed.
        let session = Session::builder(&runtime.environment)?
            .with_optimization_level(GraphOptimizationLevel::Level3)?
            .with_intra_threads(rayon::current_num_threads())?
            .with_memory_pattern(false)?
            .commit_from_memory(&package.onnx)?;
        let manifest = &package.manifest;
        let channels = manifest.finding.len();
        check_tensor(session.inputs(), &manifest.input.tensor, 1)?;
        check_tensor(session.outputs(), &manifest.output.tensor, channels)?;
        if session.inputs().len() != 1 {
            return Err(InferError::Contract { what: format!("{} inputs, the manifest describes 1", session.inputs().len()) });
        }
        Ok(Self {
            session,
            input: manifest.input.tensor.clone(),
            output: manifest.output.tensor.clone(),
            channels,
            tile: manifest.inference.tile,
            halo: manifest.inference.halo,
        })
    }

    /// The network's answer for the whole of `input`. Tiles overlap by the halo, which is cut off again: no seams.
    ///
    /// # Errors
    /// [`InferError::Cancelled`] soon after `cancel` is set; otherwise what the network did wrong.
    pub fn run(&mut self, input: &Volume<f32>, cancel: &AtomicBool) -> Result<Scores, InferError> {
        let grid = *input.grid();
        let dims = grid.dims();
        let mut values = vec![0.0; self.channels * grid.voxel_count()];
        let spans: [Vec<Span>; 3] = std::array::from_fn(|axis| spans(dims[axis], self.tile[axis], self.halo));
        let mut tile_input = Vec::new();
        for z in &spans[2] {
            for y in &spans[1] {
                for x in &spans[0] {
                    if cancel.load(Ordering::Relaxed) {
                        return Err(InferError::Cancelled);
                    }
                    let outer = [&x.outer, &y.outer, &z.outer];
                    let shape = outer.map(|r| r.len());
                    tile_input.clear();
                    for_rows(dims, outer, |row| tile_input.extend_from_slice(&input.voxels()[row]));
                    let inner = [&x.inner, &y.inner, &z.inner];
                    self.run_tile(&tile_input, shape, |scores| {
                        let voxels = shape.iter().product::<usize>();
                        for (from, to) in scores.chunks_exact(voxels).zip(values.chunks_exact_mut(grid.voxel_count())) {
                            for_rows(dims, inner, |row| {
                                let row_of_tile = row_within(dims, shape, outer, &row);
                                to[row].copy_from_slice(&from[row_of_tile]);
                            });
                        }
                    })?;
                }
            }
        }
        Ok(Scores { grid, values })
    }

    /// One session run; `shape` is (i, j, k). `deliver` gets the scores, channel by channel.
    fn run_tile(&mut self, input: &[f32], shape: [usize; 3], deliver: impl FnOnce(&[f32])) -> Result<(), InferError> {
        let [i, j, k] = shape;
        let tensor = TensorRef::from_array_view(([1, 1, k, j, i], input))?;
        let outputs = self.session.run(ort::inputs![self.input.as_str() => tensor])?;
        let (found, scores) = outputs[self.output.as_str()].try_extract_tensor::<f32>()?;
        let expected = [1, self.channels, k, j, i].map(|n| n as i64);
        if **found != expected {
            return Err(InferError::Contract { what: format!("output has shape {:?}, expected {expected:?}", &**found) });
        }
        match scores.iter().filter(|s| !s.is_finite()).count() {
            0 => deliver(scores),
            count => return Err(InferError::NotFinite { count }),
        }
        Ok(())
    }
}

/// Along one axis: the voxels that a tile answers for, and those that it sees.
#[derive(Debug, Clone, PartialEq)]
struct Span {
    inner: Range<usize>,
    outer: Range<usize>,
}

fn spans(length: u32, tile: u32, halo: u32) -> Vec<Span> {
    let (length, tile, halo) = (length as usize, tile as usize, halo as usize);
    // Equal parts rather than full tiles and a sliver.
    let count = length.div_ceil(tile);
    (0..count)
        .map(|n| {
            let inner = n * length / count..(n + 1) * length / count;
            let outer = inner.start.saturating_sub(halo)..(inner.end + halo).min(length);
            Span { inner, outer }
        })
        .collect()
}

/// Calls `f` with the index range of each row of a box within a volume of `dims`.
fn for_rows(dims: [u32; 3], of_box: [&Range<usize>; 3], mut f: impl FnMut(Range<usize>)) {
    let [i, j, _] = dims.map(|d| d as usize);
    for z in of_box[2].clone() {
        for y in of_box[1].clone() {
            let start = (z * j + y) * i;
            f(start + of_box[0].start..start + of_box[0].end);
        }
    }
}

/// Where a row of the volume lies within the tile that sees `outer`.
fn row_within(dims: [u32; 3], shape: [usize; 3], outer: [&Range<usize>; 3], row: &Range<usize>) -> Range<usize> {
    let [i, j, _] = dims.map(|d| d as usize);
    let [x, y, z] = [row.start % i, row.start / i % j, row.start / (i * j)];
    let start = ((z - outer[2].start) * shape[1] + (y - outer[1].start)) * shape[0] + (x - outer[0].start);
    start..start + row.len()
}

/// A float32 tensor of rank 5 with batch 1 and `channels`, as far as the graph fixes them.
fn check_tensor(outlets: &[ort::value::Outlet], name: &str, channels: usize) -> Result<(), InferError> {
    let broken = |what: String| Err(InferError::Contract { what });
    let Some(outlet) = outlets.iter().find(|o| o.name() == name) else {
        let names: Vec<_> = outlets.iter().map(ort::value::Outlet::name).collect();
        return broken(format!("no tensor `{name}`, the graph has {names:?}"));
    };
    let ValueType::Tensor { ty, shape, .. } = outlet.dtype() else {
        return broken(format!("`{name}` is no tensor"));
    };
    if *ty != TensorElementType::Float32 {
        return broken(format!("`{name}` has element type {ty}, the manifest says float32"));
    }
    let fixed_or = |found: i64, wanted: usize| found == -1 || found == wanted as i64;
    match shape[..] {
        [batch, c, _, _, _] if fixed_or(batch, 1) && fixed_or(c, channels) => Ok(()),
        _ => broken(format!("`{name}` has shape {:?}, expected [1, {channels}, D, H, W]", &**shape)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(length: u32, tile: u32, halo: u32, expected: &[(Range<usize>, Range<usize>)]) {
        let expected: Vec<_> = expected.iter().map(|(inner, outer)| Span { inner: inner.clone(), outer: outer.clone() }).collect();
        assert_eq!(spans(length, tile, halo), expected);
    }

    #[test]
    fn spans_cover_an_axis_once_and_see_the_halo() {
        check(10, 16, 2, &[(0..10, 0..10)]);
        check(10, 5, 2, &[(0..5, 0..7), (5..10, 3..10)]);
        check(10, 4, 1, &[(0..3, 0..4), (3..6, 2..7), (6..10, 5..10)]);
    }
}
