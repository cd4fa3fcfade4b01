//! Images that a network sees as a whole: one row of class scores for each; and what they become where parts of an image are covered.

use std::ops::Range;
use std::sync::atomic::AtomicBool;

use ort::session::Session;
use ort::value::{TensorElementType, ValueType};

use super::network::{Asked, InferError, Network};
use crate::model::{Layout, Manifest, patch_starts};
use crate::volume::Volume;

/// Images that one run takes, where the graph leaves their number open: memory for so many, and work for every core.
const BATCH: usize = 16;

/// Holds a graph's tensors against the manifest, whose images have `to` (i, j, k) voxels: input [N, 1, ..], output [N, C].
///
/// # Errors
/// [`InferError::Contract`] with what differs.
pub(super) fn check(session: &Session, manifest: &Manifest, [i, j, k]: [u32; 3]) -> Result<(), InferError> {
    let expected: Vec<u32> = match manifest.input.layout {
        Layout::Ncdhw => vec![1, 1, k, j, i],
        Layout::Nchw => vec![1, 1, j, i],
    };
    check_shape(session.inputs(), &manifest.input.tensor, &expected)?;
    check_shape(session.outputs(), &manifest.output.tensor, &[1, manifest.channels() as u32])
}

fn check_shape(outlets: &[ort::value::Outlet], name: &str, expected: &[u32]) -> Result<(), InferError> {
    let broken = |what: String| Err(InferError::Contract { what });
    let Some(outlet) = outlets.iter().find(|o| o.name() == name) else {
        let names: Vec<_> = outlets.iter().map(ort::value::Outlet::name).collect();
        return broken(format!("no tensor `{name}`, the graph has {names:?}"));
    };
    match outlet.dtype() {
        ValueType::Tensor { ty, shape, .. } => {
            let fits = shape.len() == expected.len() && shape.iter().zip(expected).all(|(&n, &wanted)| n == -1 || n == i64::from(wanted));
            match *ty {
                TensorElementType::Float32 if fits => Ok(()),
                TensorElementType::Float32 => {
                    broken(format!("`{name}` has shape {:?}, expected {expected:?} (1 first, or open)", &**shape))
                }
                _ => broken(format!("`{name}` has element type {ty}, the manifest says float32")),
            }
        }
        _ => broken(format!("`{name}` is no tensor")),
    }
}

/// Images that one run of all graphs takes.
pub(super) fn batch(sessions: &[Session], manifest: &Manifest) -> usize {
    let is_open = |outlets: &[ort::value::Outlet], name: &str| {
        outlets.iter().any(|o| o.name() == name && matches!(o.dtype(), ValueType::Tensor { shape, .. } if shape.first() == Some(&-1)))
    };
    let all_open = sessions.iter().all(|s| is_open(s.inputs(), &manifest.input.tensor) && is_open(s.outputs(), &manifest.output.tensor));
    if all_open { BATCH } else { 1 }
}

/// How an image is covered, on the network's grid.
#[derive(Debug, Clone, Copy)]
pub struct Cover {
    /// Voxels along i, j, k that are covered at a time.
    pub patch: [u32; 3],
    /// From one place to the next.
    pub stride: [u32; 3],
    /// With which value.
    pub value: f32,
}

impl Network {
    /// The scores of each channel for an image as a whole.
    ///
    /// # Errors
    /// As [`Network::run`].
    pub fn classify(&mut self, input: &Volume<f32>, cancel: &AtomicBool) -> Result<Vec<f32>, InferError> {
        let dims = input.grid().dims().map(|n| n as usize);
        self.watched(0, cancel, |asked| {
            let mut scores = Vec::new();
            asked.classify(input.voxels(), 1, dims, &mut scores)?;
            Ok(scores)
        })
    }

    /// What covering parts of the image does: `effect(scores)` gives a number for each of `count` things, and each voxel gets the mean of
    /// those of all places at which it was covered. One map for each thing, in the order of the grid.
    ///
    /// # Errors
    /// As [`Network::run`], and what `effect` gives.
    pub fn covered(
        &mut self,
        input: &Volume<f32>,
        cover: &Cover,
        count: usize,
        effect: impl Fn(&[f32]) -> Result<Vec<f64>, InferError>,
        cancel: &AtomicBool,
    ) -> Result<Vec<Vec<f32>>, InferError> {
        let dims = input.grid().dims();
        let shape = dims.map(|n| n as usize);
        let places: Vec<[Range<usize>; 3]> = places(dims, cover);
        let voxels = input.voxels();
        let mut sums = vec![vec![0f64; voxels.len()]; count];
        let mut times = vec![0u32; voxels.len()];
        self.watched(0, cancel, |asked| {
            let (channels, batch) = (asked.channels(), asked.batch());
            let (mut images, mut scores) = (Vec::with_capacity(batch * voxels.len()), Vec::new());
            for places in places.chunks(batch) {
                images.clear();
                for place in places {
                    let start = images.len();
                    images.extend_from_slice(voxels);
                    for_each_row(place, shape, |row| images[start..][row].fill(cover.value));
                }
                asked.classify(&images, places.len(), shape, &mut scores)?;
                for (place, scores) in places.iter().zip(scores.chunks_exact(channels)) {
                    let effects = effect(scores)?;
                    for_each_row(place, shape, |row| {
                        times[row.clone()].iter_mut().for_each(|times| *times += 1);
                        sums.iter_mut()
                            .zip(&effects)
                            .for_each(|(sums, effect)| sums[row.clone()].iter_mut().for_each(|sum| *sum += effect));
                    });
                }
            }
            Ok(())
        })?;
        let mean = |sums: Vec<f64>| sums.into_iter().zip(&times).map(|(sum, &times)| (sum / f64::from(times)) as f32).collect();
        Ok(sums.into_iter().map(mean).collect())
    }
}

/// Every place of a patch, i fastest.
fn places(dims: [u32; 3], cover: &Cover) -> Vec<[Range<usize>; 3]> {
    let along = |n: usize| {
        patch_starts(dims[n], cover.patch[n], cover.stride[n]).map(move |start| start as usize..(start + cover.patch[n]) as usize)
    };
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

/// The rows of a box in a grid of `shape` (i, j, k), each as its place in memory.
fn for_each_row([i, j, k]: &[Range<usize>; 3], [nx, ny, _]: [usize; 3], mut row: impl FnMut(Range<usize>)) {
    for k in k.clone() {
        for j in j.clone() {
            let start = (k * ny + j) * nx;
            row(start + i.start..start + i.end);
        }
    }
}

impl Asked<'_> {
    /// `channels` scores for each of `count` images of `shape` (i, j, k), which lie one after the other.
    fn classify(&mut self, images: &[f32], count: usize, [i, j, k]: [usize; 3], scores: &mut Vec<f32>) -> Result<(), InferError> {
        let given = match self.layout() {
            Layout::Ncdhw => vec![count, 1, k, j, i],
            Layout::Nchw => vec![count, 1, j, i],
        };
        let expected = vec![count, self.channels()];
        self.run(images, [given, expected], scores)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_voxel_is_covered_and_patches_stay_inside() {
        let cover = Cover { patch: [3, 2, 2], stride: [2, 2, 1], value: 0.0 };
        let dims = [8usize, 5, 3];
        let places = places(dims.map(|n| n as u32), &cover);
        assert_eq!(places.len(), 4 * 3 * 2);
        assert_eq!(places[1], [2..5, 0..2, 0..2], "i fastest");
        let mut times = vec![0; 8 * 5 * 3];
        for place in &places {
            for_each_row(place, dims, |row| {
                assert_eq!(row.len(), 3);
                times[row].iter_mut().for_each(|n| *n += 1);
            });
        }
        assert!(times.iter().all(|&n| n > 0), "{times:?}");
        assert_eq!(times.iter().sum::<usize>(), places.len() * 3 * 2 * 2);
    }
}
