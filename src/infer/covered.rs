//! What becomes of a network's answers where parts of what it sees are covered: what they rest on.

use std::ops::Range;
use std::sync::atomic::AtomicBool;

use super::asked::{Asked, Contract};
use super::boxes::ScoredBox;
use super::network::Network;
use super::{InferError, window};
use crate::kernels::patches::Patch;
use crate::model::{Inference, SlidingWindow, patch_starts};
use crate::volume::Volume;

/// Runs of the network for one box at most.
const MOST_RUNS: usize = 4096;

/// How an image is covered, on the network's grid.
#[derive(Debug, Clone, Copy)]
pub struct Cover<V> {
    /// Voxels along i, j, k that are covered at a time.
    pub patch: [u32; 3],
    /// From one place to the next.
    pub stride: [u32; 3],
    /// With which value, or values.
    pub value: V,
}

/// What covering does to one box: numbers for the voxels of a part of the network's grid.
#[derive(Debug, Clone)]
pub struct CoveredBox {
    /// Voxels of the part along i, j, k.
    pub part: [Range<usize>; 3],
    /// How far the score fell, as the mean over the places at which the voxel was covered.
    pub falls: Vec<f32>,
}

impl Network {
    /// What covering parts of the image does: `effect(scores)` gives a number for each of `count` things, and each voxel gets the mean of
    /// those of all places at which it was covered. One map for each thing, in the order of the grid.
    ///
    /// # Errors
    /// As [`Network::run`], and what `effect` gives.
    pub fn covered(
        &mut self,
        input: &Volume<f32>,
        cover: &Cover<f32>,
        count: usize,
        effect: impl Fn(&[f32]) -> Result<Vec<f64>, InferError>,
        cancel: &AtomicBool,
    ) -> Result<Vec<Vec<f32>>, InferError> {
        let dims = input.grid().dims();
        let shape = dims.map(|n| n as usize);
        let places = places(dims, cover.patch, cover.stride);
        let voxels = input.voxels();
        let mut means = Means::of(count, shape);
        self.watched(0, cancel, |asked| {
            let Contract { channels, batch, .. } = *asked.contract;
            let mut images = Vec::with_capacity(batch * voxels.len());
            for places in places.chunks(batch) {
                images.clear();
                for place in places {
                    let start = images.len();
                    images.extend_from_slice(voxels);
                    for_each_row(place, [shape[0], shape[1]], |row| images[start..][row].fill(cover.value));
                }
                let scores = asked.classify(&images, places.len(), shape)?;
                for (place, scores) in places.iter().zip(scores.chunks_exact(channels)) {
                    means.add(place, &effect(scores)?);
                }
            }
            Ok(())
        })?;
        Ok(means.end())
    }

    /// What covering parts of `object` and of what lies around it, as far as is covered at a time, does to its score, in the patch that has it
    /// nearest to its middle. `cover.value` has a value for each image. Its score is the highest of those of its channel that `is_one` says are
    /// the same, 0 where there is none. `None` where that takes more than 4096 runs.
    ///
    /// # Errors
    /// As [`Network::detect`].
    pub fn covered_box(
        &mut self,
        input: &[Volume<f32>],
        object: &ScoredBox,
        cover: &Cover<&[f32]>,
        is_one: impl Fn(&ScoredBox) -> bool,
        cancel: &AtomicBool,
    ) -> Result<Option<CoveredBox>, InferError> {
        let (Some(output), Inference::SlidingWindow(window)) = (&self.boxes, self.inference.clone()) else {
            return Err(InferError::Contract { what: "it gives scores, and no boxes".to_owned() });
        };
        let output = output.of_any_score();
        let dims = input[0].grid().dims();
        let patch = around(&window, object, dims);
        let region: [Range<u32>; 3] = std::array::from_fn(|n| reached(object, n, cover.patch[n], &patch, dims[n]));
        let lengths = region.each_ref().map(|along| along.end - along.start);
        let cover_patch = std::array::from_fn(|n| cover.patch[n].min(lengths[n]));
        let places = places(lengths, cover_patch, cover.stride);
        if places.len() > MOST_RUNS {
            return Ok(None);
        }
        let [i, j, _] = window.patch.map(|n| n as usize);
        let voxels_of_patch = window.patch.iter().map(|&n| n as usize).product::<usize>();
        let mut seen = Vec::new();
        window::see(&window, &patch, input, None, &mut seen);
        let mut means = Means::of(1, lengths.map(|n| n as usize));
        self.watched(0, cancel, |asked| {
            let score = |asked: &mut Asked<'_>, seen: &[f32]| {
                let boxes = output.ask(asked, &window, seen)?;
                let own = boxes.into_iter().map(|one| one.on_grid(&patch)).filter(|one| one.channel == object.channel && is_one(one));
                Ok::<_, InferError>(own.map(|one| f64::from(one.score)).fold(0.0, f64::max))
            };
            let whole = score(asked, &seen)?;
            let mut covered = seen.clone();
            for place in &places {
                let in_patch: [Range<usize>; 3] =
                    std::array::from_fn(|n| place[n].start + region[n].start as usize..place[n].end + region[n].start as usize);
                for (channel, &value) in cover.value.iter().enumerate() {
                    let start = channel * voxels_of_patch;
                    for_each_row(&in_patch, [i, j], |row| covered[start..][row].fill(value));
                }
                means.add(place, &[whole - score(asked, &covered)?]);
                covered.copy_from_slice(&seen);
            }
            Ok(())
        })?;
        let part = std::array::from_fn(|n| {
            let on_grid = |at: u32| (i64::from(at) + i64::from(patch.start[n])) as usize; // the region lies within the volume
            on_grid(region[n].start)..on_grid(region[n].end)
        });
        Ok(Some(CoveredBox { part, falls: means.end().remove(0) }))
    }
}

/// What covering does to some things, for each voxel as the mean over the places at which it was covered.
struct Means {
    in_plane: [usize; 2],
    /// One for each thing.
    sums: Vec<Vec<f64>>,
    times: Vec<u32>,
}

impl Means {
    fn of(count: usize, shape: [usize; 3]) -> Self {
        let voxels = shape.iter().product();
        Self { in_plane: [shape[0], shape[1]], sums: vec![vec![0.0; voxels]; count], times: vec![0; voxels] }
    }

    /// An effect on each thing, of covering that place.
    fn add(&mut self, place: &[Range<usize>; 3], effects: &[f64]) {
        for_each_row(place, self.in_plane, |row| {
            self.times[row.clone()].iter_mut().for_each(|times| *times += 1);
            for (sums, effect) in self.sums.iter_mut().zip(effects) {
                sums[row.clone()].iter_mut().for_each(|sum| *sum += effect);
            }
        });
    }

    fn end(self) -> Vec<Vec<f32>> {
        let mean = |sums: Vec<f64>| sums.into_iter().zip(&self.times).map(|(sum, &times)| (sum / f64::from(times)) as f32).collect();
        self.sums.into_iter().map(mean).collect()
    }
}

/// The patch that has a box nearest to its middle, and no more beyond the volume than others have.
fn around(window: &SlidingWindow, object: &ScoredBox, dims: [u32; 3]) -> Patch {
    let start = |n: usize| {
        let starts = window.starts(n, dims[n]);
        let (first, last) = (starts[0], starts[starts.len() - 1]);
        let wanted = object.centre()[n] + 0.5 - f64::from(window.patch[n]) / 2.0;
        (wanted.round() as i32).clamp(first, last)
    };
    Patch { start: std::array::from_fn(start), dims: window.patch, mirror: [false; 3] }
}

/// Along an axis, the voxels of a patch that a box takes and, on both sides, as many more as are covered at a time; what lies beyond patch or
/// volume is left out.
fn reached(object: &ScoredBox, n: usize, cover: u32, patch: &Patch, length: u32) -> Range<u32> {
    let start = i64::from(patch.start[n]);
    let within = [0.max(-start), i64::from(patch.dims[n]).min(i64::from(length) - start)];
    let low = (object.low[n] + 0.5).floor() as i64 - start - i64::from(cover);
    let high = (object.high[n] + 0.5).ceil() as i64 - start + i64::from(cover);
    let low = low.clamp(within[0], within[1] - 1);
    low as u32..high.clamp(low + 1, within[1]) as u32
}

/// Every place of a patch, i fastest.
fn places(dims: [u32; 3], patch: [u32; 3], stride: [u32; 3]) -> Vec<[Range<usize>; 3]> {
    let along = |n: usize| patch_starts(dims[n], patch[n], stride[n]).map(move |start| start as usize..(start + patch[n]) as usize);
    let (x, y, z) = (along(0), along(1), along(2));
    let rows = move |k: Range<usize>| {
        let x = x.clone();
        y.clone().flat_map(move |j| {
            let k = k.clone();
            x.clone().map(move |i| [i, j.clone(), k.clone()])
        })
    };
    z.flat_map(rows).collect()
}

/// The rows of a box in a grid of so many voxels along i and j, each as its place in memory.
fn for_each_row([i, j, k]: &[Range<usize>; 3], [nx, ny]: [usize; 2], mut row: impl FnMut(Range<usize>)) {
    for k in k.clone() {
        for j in j.clone() {
            let start = (k * ny + j) * nx;
            row(start + i.start..start + i.end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_voxel_is_covered_and_patches_stay_inside() {
        let dims = [8usize, 5, 3];
        let places = places(dims.map(|n| n as u32), [3, 2, 2], [2, 2, 1]);
        assert_eq!(places.len(), 4 * 3 * 2);
        assert_eq!(places[1], [2..5, 0..2, 0..2], "i fastest");
        let mut times = vec![0; 8 * 5 * 3];
        for place in &places {
            for_each_row(place, [dims[0], dims[1]], |row| {
                assert_eq!(row.len(), 3);
                times[row].iter_mut().for_each(|n| *n += 1);
            });
        }
        assert!(times.iter().all(|&n| n > 0), "{times:?}");
        assert_eq!(times.iter().sum::<usize>(), places.len() * 3 * 2 * 2);
    }
}
