//! A network during one run: inputs in, answers out, of one session or of several at a time.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use half::f16;
use half::slice::HalfFloatSliceExt;
use ort::session::{RunOptions, Session, SessionInputValue, SessionOutputs};
use ort::value::{DynValue, Shape, TensorRef};
use rayon::prelude::*;

use super::outlets::has_shape;
use super::{InferError, memory};
use crate::model::{Dtype, Layout, Slices};

/// What goes in and what comes out, as the manifest says.
#[derive(Debug, Clone)]
pub(super) struct Contract {
    pub(super) input: String,
    /// Its element type.
    pub(super) given: Dtype,
    pub(super) output: String,
    pub(super) answered: Dtype,
    pub(super) layout: Layout,
    /// Volumes that it sees.
    pub(super) seen: usize,
    /// Those of them that are images, the first ones.
    pub(super) images: usize,
    /// Of each volume neighbouring slices are channels, where the package has it so.
    pub(super) slices: Option<Slices>,
    /// Channels of the output.
    pub(super) channels: usize,
    /// Images, or patches, that one run of the graphs takes.
    pub(super) batch: usize,
}

/// One session of each graph, which are asked one after the other.
#[derive(Debug)]
pub(super) struct Lane {
    sessions: Vec<Session>,
    /// Whether they have run, and so have taken what they need for themselves.
    has_run: bool,
}

impl Lane {
    pub(super) fn new(sessions: Vec<Session>) -> Self {
        Self { sessions, has_run: false }
    }

    pub(super) fn graphs(&self) -> usize {
        self.sessions.len()
    }
}

/// Memory that sessions may take.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// All that this process may have, in bytes.
    pub(super) most_bytes: Option<u64>,
    /// What the lane that ran first took for itself.
    lane_bytes: Mutex<Option<u64>>,
}

impl Room {
    /// Before the first run of a lane: one after the other, so that each finds what the others have left.
    fn begin(&self) -> Result<Beginning<'_>, InferError> {
        let lane_bytes = self.lane_bytes.lock().unwrap_or_else(PoisonError::into_inner); // a number is whole
        memory::afford(lane_bytes.unwrap_or(0), self.most_bytes)?;
        Ok(Beginning { lane_bytes, resident_bytes: memory::resident_bytes() })
    }
}

/// The first run of a lane.
struct Beginning<'r> {
    lane_bytes: MutexGuard<'r, Option<u64>>,
    resident_bytes: Option<u64>,
}

impl Beginning<'_> {
    fn end(mut self) {
        let taken = memory::resident_bytes().zip(self.resident_bytes).map(|(after, before)| after.saturating_sub(before));
        *self.lane_bytes = self.lane_bytes.or(taken);
    }
}

/// A network during one run.
pub(super) struct Asked<'a> {
    pub(super) contract: &'a Contract,
    /// The first is asked, unless [`Asked::lanes`] are.
    pub(super) lanes: &'a mut [Lane],
    /// Those that are asked; answers are the mean over them.
    pub(super) graphs: Range<usize>,
    pub(super) options: &'a RunOptions,
    pub(super) cancel: &'a AtomicBool,
    pub(super) room: &'a Room,
    /// What a run takes beside its input and the sessions' own.
    pub(super) rest_bytes: u64,
}

impl Asked<'_> {
    /// Each lane by itself, to be asked at the same time as the others.
    pub(super) fn lanes(&mut self) -> impl Iterator<Item = Asked<'_>> {
        let Asked { contract, options, cancel, room, rest_bytes, .. } = *self;
        let graphs = self.graphs.clone();
        self.lanes.chunks_mut(1).map(move |lanes| Asked { contract, lanes, graphs: graphs.clone(), options, cancel, room, rest_bytes })
    }

    /// The answer for `count` boxes of `shape` (i, j, k), one after the other: the mean over the graphs. Input and answer are channel by
    /// channel; where the network sees neighbouring slices, the input has as many slices more at both ends as these reach. Of slices there is
    /// one box.
    pub(super) fn answer(&mut self, input: &[f32], count: usize, [i, j, k]: [usize; 3]) -> Result<Vec<f32>, InferError> {
        let Contract { seen, channels, layout, slices, .. } = self.contract;
        match layout {
            Layout::Ncdhw => self.run(input, [seen, channels].map(|channels| vec![count, *channels, k, j, i])),
            Layout::Nchw => {
                assert_eq!(count, 1, "slices are together as they are");
                let (by_slice, seen) = match slices {
                    Some(slices) => (with_neighbours(input, [*seen, k], slices, i * j), seen * slices.count),
                    None => (exchanged(input, [*seen, k], i * j), *seen),
                };
                let by_slice = self.run(&by_slice, [seen, *channels].map(|channels| vec![k, channels, j, i]))?;
                let by_channel = match exchanged(&by_slice, [k, *channels], i * j) {
                    Cow::Owned(by_channel) => Some(by_channel),
                    Cow::Borrowed(_) => None,
                };
                Ok(by_channel.unwrap_or(by_slice))
            }
        }
    }

    /// The answer of the second of these shapes to an input of the first: the mean over the graphs.
    ///
    /// It is copied once, out of ONNX Runtime's memory: that kept in its place, while the next run wants as much again, makes the process a
    /// quarter larger and nothing faster.
    pub(super) fn run(&mut self, input: &[f32], [given, expected]: [Vec<usize>; 2]) -> Result<Vec<f32>, InferError> {
        let (output, answered, graphs) = (self.contract.output.as_str(), self.contract.answered, self.graphs.len());
        let mut sum = Vec::new();
        self.ask(input, &given, |outputs| {
            let (found, scores) = scores_of(&outputs[output], answered)?;
            if !has_shape(found, &expected.iter().copied().map(Some).collect::<Vec<_>>()) {
                return Err(InferError::Contract { what: format!("output has shape {:?}, expected {expected:?}", &**found) });
            }
            match scores.par_iter().filter(|s| !s.is_finite()).count() {
                0 => {}
                count => return Err(InferError::NotFinite { count }),
            }
            if sum.is_empty() {
                sum = scores.into_owned();
            } else {
                sum.iter_mut().zip(scores.iter()).for_each(|(sum, score)| *sum += score);
            }
            Ok(())
        })?;
        if graphs > 1 {
            sum.iter_mut().for_each(|sum| *sum /= graphs as f32);
        }
        Ok(sum)
    }

    /// Asks each graph about an input of the shape `given`; `take` hears of its outputs.
    pub(super) fn ask(
        &mut self,
        input: &[f32],
        given: &[usize],
        mut take: impl FnMut(&SessionOutputs<'_>) -> Result<(), InferError>,
    ) -> Result<(), InferError> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(InferError::Cancelled);
        }
        let Lane { sessions, has_run } = &mut self.lanes[0];
        let beginning = if *has_run { None } else { Some(self.room.begin()?) };
        let mut halves = Vec::new();
        if self.contract.given == Dtype::Float16 {
            halves.resize(input.len(), f16::ZERO);
            halves.convert_from_f32_slice(input);
            if halves.iter().any(|value| value.is_infinite()) {
                return Err(InferError::Contract {
                    what: "what goes into it is beyond 65504, the largest of float16: normalise it".to_owned(),
                });
            }
        }
        for session in &mut sessions[self.graphs.clone()] {
            let tensor: SessionInputValue<'_> = match self.contract.given {
                Dtype::Float32 => TensorRef::from_array_view((given.to_vec(), input))?.into(),
                Dtype::Float16 => TensorRef::from_array_view((given.to_vec(), halves.as_slice()))?.into(),
            };
            take(&session.run_with_options(ort::inputs![self.contract.input.as_str() => tensor], self.options)?)?;
        }
        if let Some(beginning) = beginning {
            beginning.end();
            *has_run = true;
            memory::afford(self.rest_bytes, self.room.most_bytes)?; // the scores of the whole are not touched yet
        }
        Ok(())
    }
}

/// Shape and values of an output.
fn scores_of(output: &DynValue, dtype: Dtype) -> Result<(&Shape, Cow<'_, [f32]>), InferError> {
    Ok(match dtype {
        Dtype::Float32 => {
            let (shape, scores) = output.try_extract_tensor::<f32>()?;
            (shape, scores.into())
        }
        Dtype::Float16 => {
            let (shape, scores) = output.try_extract_tensor::<f16>()?;
            (shape, scores.to_f32_vec().into())
        }
    })
}

/// Planes of `plane` values that lie as `[a, b]`, as `[b, a]`.
fn exchanged(values: &[f32], [a, b]: [usize; 2], plane: usize) -> Cow<'_, [f32]> {
    if a == 1 || b == 1 {
        return Cow::Borrowed(values);
    }
    let planes = (0..b).flat_map(|of_b| (0..a).map(move |of_a| of_a * b + of_b));
    Cow::Owned(planes_of(values, plane, a * b, planes))
}

/// What a network of slices sees of `k` slices of each of `seen` volumes, whose planes of `plane` values lie volume by volume, with as many
/// slices more at both ends as `slices` reaches: for each slice its neighbours and itself as channels.
fn with_neighbours<'a>(values: &'a [f32], [seen, k]: [usize; 2], slices: &Slices, plane: usize) -> Cow<'a, [f32]> {
    let channels = seen * slices.count;
    let of_volume = k + 2 * slices.reach();
    let plane_of = |slice: usize, channel: usize| {
        let [volume, place] = slices.of_channel(channel, seen);
        volume * of_volume + slice + place
    };
    if k == 1 && (0..channels).all(|channel| plane_of(0, channel) == channel) {
        return Cow::Borrowed(values);
    }
    let planes = (0..k).flat_map(|slice| (0..channels).map(move |channel| plane_of(slice, channel)));
    Cow::Owned(planes_of(values, plane, k * channels, planes))
}

/// `count` planes of `plane` values each, by their places among `values`.
fn planes_of(values: &[f32], plane: usize, count: usize, places: impl Iterator<Item = usize>) -> Vec<f32> {
    let mut planes = Vec::with_capacity(count * plane);
    places.for_each(|n| planes.extend_from_slice(&values[n * plane..][..plane]));
    planes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Beyond, SliceOrder};

    #[test]
    fn channels_of_slices_and_slices_of_channels() {
        // Two channels of three slices of two voxels.
        let by_channel: Vec<f32> = (0..12).map(|n| n as f32).collect();
        let by_slice = exchanged(&by_channel, [2, 3], 2);
        assert_eq!(&*by_slice, [0., 1., 6., 7., 2., 3., 8., 9., 4., 5., 10., 11.]);
        assert_eq!(&*exchanged(&by_slice, [3, 2], 2), by_channel);
        assert!(matches!(exchanged(&by_channel, [1, 6], 2), Cow::Borrowed(_)));
    }

    #[test]
    fn neighbours_of_slices() {
        // Two volumes of four slices of one voxel, of which the middle two are answered for.
        let values = [0., 1., 2., 3., 10., 11., 12., 13.];
        let of = |order| Slices { count: 3, beyond: Beyond::Edge, order };
        let by_image = with_neighbours(&values, [2, 2], &of(SliceOrder::ByImage), 1);
        assert_eq!(&*by_image, [0., 1., 2., 10., 11., 12., 1., 2., 3., 11., 12., 13.]);
        let by_slice = with_neighbours(&values, [2, 2], &of(SliceOrder::BySlice), 1);
        assert_eq!(&*by_slice, [0., 10., 1., 11., 2., 12., 1., 11., 2., 12., 3., 13.]);
        assert!(matches!(with_neighbours(&values[..6], [2, 1], &of(SliceOrder::ByImage), 1), Cow::Borrowed(_)));
        assert!(matches!(with_neighbours(&values[..6], [2, 1], &of(SliceOrder::BySlice), 1), Cow::Owned(_)));
        assert!(matches!(with_neighbours(&values[..3], [1, 1], &of(SliceOrder::BySlice), 1), Cow::Borrowed(_)));
    }
}
