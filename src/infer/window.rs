//! Patches that overlap, and whose answers are blended. The next patch is gathered and the last one blended while the network runs.

use std::collections::HashSet;
use std::sync::mpsc::sync_channel;
use std::thread;

use rayon::prelude::*;

use super::InferError;
use super::asked::{Asked, Contract};
use super::network::Scores;
use crate::kernels::patches::{Patch, Weighting, blend_cpu, gather_patch_cpu, scatter_patch_cpu};
use crate::model::{Beyond, Blending, Convention, Slices, SlidingWindow};
use crate::volume::Volume;

/// Value of what a patch has beyond the volume, where edges do not continue.
const OUTSIDE: f32 = 0.0;

/// Scores of the whole of `input`, a volume for each channel. `background` are those of what empty patches alone cover.
pub(super) fn run(
    network: &mut Asked<'_>,
    window: &SlidingWindow,
    input: &[Volume<f32>],
    background: Option<&[f32]>,
) -> Result<Scores, InferError> {
    let volume_dims = input[0].grid().dims();
    let Contract { channels, images, slices, .. } = *network.contract;
    let (patches, all) = patches_of(window, input, images, slices);
    let weights = weighting(window).weights(window.patch);
    let shape = window.patch.map(|n| n as usize);
    let of_patch = channels * weights.len();
    let mut sums = vec![0.0; channels * input[0].voxels().len()];
    let mut weight_sums = vec![0.0; input[0].voxels().len()];
    let ask = |lane: &mut Asked<'_>, patches: &[Patch], seen: &[f32]| lane.answer(seen, patches.len(), shape);
    for_each(network, window, &patches, input, ask, |patches, scores| {
        for (patch, scores) in patches.iter().zip(scores.chunks_exact(of_patch)) {
            scatter_patch_cpu(&mut sums, &mut weight_sums, volume_dims, patch, scores, &weights);
        }
    })?;
    blend_cpu(&mut sums, &weight_sums);
    let empty_patches = all - patches.len();
    if empty_patches > 0 {
        let background = background.expect("the manifest was checked: where patches may be empty there is a background");
        for (channel, &score) in sums.chunks_exact_mut(weight_sums.len()).zip(background) {
            channel.iter_mut().zip(&weight_sums).filter(|(_, weight)| **weight == 0.0).for_each(|(sum, _)| *sum = score);
        }
    }
    Ok(Scores { patches: all, empty_patches, ..Scores::linear(*input[0].grid(), sums) })
}

/// The patches that the network is asked about, and how many there are with those that are left out because the first `images` volumes of
/// `input` hold nothing there.
pub(super) fn patches_of(window: &SlidingWindow, input: &[Volume<f32>], images: usize, slices: Option<Slices>) -> (Vec<Patch>, usize) {
    let mut patches = patches(window, input[0].grid().dims());
    let all = patches.len();
    if let Some(range) = window.empty {
        let empty = empty_starts(&patches, reach_of(slices), &input[..images], range);
        patches.retain(|patch| !empty.contains(&patch.start));
    }
    (patches, all)
}

/// Calls `ask` with as many patches as go into a run and what the network sees of them, patch by patch and channel by channel, and `take`
/// with what it gave, in the order of the patches. The next ones are gathered, and the last ones taken, while the network runs: each of its
/// lanes has a thread.
pub(super) fn for_each<'p, A: Send>(
    network: &mut Asked<'_>,
    window: &SlidingWindow,
    patches: &'p [Patch],
    input: &[Volume<f32>],
    ask: impl Fn(&mut Asked<'_>, &'p [Patch], &[f32]) -> Result<A, InferError> + Sync,
    mut take: impl FnMut(&'p [Patch], A),
) -> Result<(), InferError> {
    let Contract { slices, batch, .. } = *network.contract;
    let ask = &ask;
    thread::scope(|scope| {
        // The lanes get parts in turn, and answer in turn. One part waits on each side of each: memory is that of a few, however many there are.
        let lanes = network.lanes().map(|mut lane| {
            let (gathered, inputs) = sync_channel::<(&'p [Patch], Vec<f32>)>(1);
            let (answered, answers) = sync_channel(1);
            scope.spawn(move || {
                for (part, seen) in inputs {
                    let answer = ask(&mut lane, part, &seen);
                    let has_failed = answer.is_err();
                    if answered.send(answer).is_err() || has_failed {
                        return;
                    }
                }
            });
            (gathered, answers)
        });
        let (gathered, answers): (Vec<_>, Vec<_>) = lanes.unzip();
        scope.spawn(move || {
            for (part, gathered) in patches.chunks(batch).zip(gathered.iter().cycle()) {
                let mut seen = Vec::new();
                part.iter().for_each(|patch| see(window, patch, input, slices, &mut seen));
                if gathered.send((part, seen)).is_err() {
                    return; // the network failed
                }
            }
        });
        for (part, answers) in patches.chunks(batch).zip(answers.iter().cycle()) {
            take(part, answers.recv().expect("a lane answers for each part that it gets")?);
        }
        Ok(())
    })
}

/// Adds what the network sees of a patch, channel by channel.
pub(super) fn see(window: &SlidingWindow, patch: &Patch, input: &[Volume<f32>], slices: Option<Slices>, values: &mut Vec<f32>) {
    let volume_dims = input[0].grid().dims();
    let in_plane = window.beyond == Beyond::Edge;
    let continued = [in_plane, in_plane, slices.map_or(window.beyond, |slices| slices.beyond) == Beyond::Edge];
    let seen = with_neighbours(patch, reach_of(slices));
    let voxels = seen.dims.iter().map(|&n| n as usize).product::<usize>();
    let start = values.len();
    values.resize(start + voxels * input.len(), 0.0);
    for (channel, values) in input.iter().zip(values[start..].chunks_exact_mut(voxels)) {
        gather_patch_cpu(channel.voxels(), volume_dims, &seen, OUTSIDE, values);
        if continued.contains(&true) {
            continue_edges(values, &seen, volume_dims, continued);
        }
    }
}

/// How many slices more the network sees at both ends of a patch.
fn reach_of(slices: Option<Slices>) -> usize {
    slices.map_or(0, |slices| slices.reach())
}

/// What the network sees for a patch: `reach` slices more at both ends. Where the patch is turned round along k, so are they.
fn with_neighbours(patch: &Patch, reach: usize) -> Patch {
    let ([x, y, z], [i, j, k]) = (patch.start, patch.dims);
    Patch { start: [x, y, z - reach as i32], dims: [i, j, k + 2 * reach as u32], mirror: patch.mirror }
}

/// Where the patches start for which the network sees nothing but values in `range`, in every image. What lies beyond the volume does not
/// count.
fn empty_starts(patches: &[Patch], reach: usize, images: &[Volume<f32>], [low, high]: [f64; 2]) -> HashSet<[i32; 3]> {
    let [nx, ny, nz] = images[0].grid().dims();
    let is_empty = |patch: &Patch| {
        let Patch { start, dims, .. } = with_neighbours(patch, reach);
        let along = |n: usize, length: u32| {
            let end = (i64::from(start[n]) + i64::from(dims[n])).clamp(0, length.into()) as usize;
            start[n].max(0) as usize..end
        };
        let (xs, ys, zs) = (along(0, nx), along(1, ny), along(2, nz));
        let mut rows = zs.flat_map(|z| ys.clone().map(move |y| (z * ny as usize + y) * nx as usize));
        rows.all(|row| {
            let in_range = |&value: &f32| (low..=high).contains(&f64::from(value));
            images.iter().all(|image| image.voxels()[row + xs.start..row + xs.end].iter().all(in_range))
        })
    };
    let mut places: Vec<_> = patches.iter().collect();
    places.dedup_by_key(|patch| patch.start);
    places.into_par_iter().filter(|patch| is_empty(patch)).map(|patch| patch.start).collect()
}

/// What of a gathered patch lies beyond the volume along the axes that are `continued` becomes the nearest of what lies within it.
fn continue_edges(values: &mut [f32], patch: &Patch, volume_dims: [u32; 3], continued: [bool; 3]) {
    let [nx, ny, nz] = patch.dims.map(|n| n as usize);
    // The voxel within the volume nearest to the n-th one along an axis; where the patch is turned round, its ends are exchanged.
    let within = |axis: usize, n: usize| {
        if !continued[axis] {
            return n;
        }
        let last = patch.dims[axis] as i32 - 1;
        let turned = |n: i32| if patch.mirror[axis] { last - n } else { n };
        let ends = [-patch.start[axis], volume_dims[axis] as i32 - 1 - patch.start[axis]].map(|end| turned(end.clamp(0, last)));
        (n as i32).clamp(ends[0].min(ends[1]), ends[0].max(ends[1])) as usize
    };
    for k in 0..nz {
        for j in 0..ny {
            let (row, nearest) = ((k * ny + j) * nx, (within(2, k) * ny + within(1, j)) * nx);
            if row != nearest {
                continue;
            }
            let (first, last) = (within(0, 0), within(0, nx - 1));
            let [left, right] = [values[row + first], values[row + last]];
            values[row..row + first].fill(left);
            values[row + last + 1..row + nx].fill(right);
        }
    }
    for k in 0..nz {
        for j in 0..ny {
            let (row, nearest) = ((k * ny + j) * nx, (within(2, k) * ny + within(1, j)) * nx);
            if row != nearest {
                values.copy_within(nearest..nearest + nx, row);
            }
        }
    }
}

fn weighting(window: &SlidingWindow) -> Weighting {
    match (window.blending, window.convention) {
        (Blending::Constant, _) => Weighting::Constant,
        (Blending::Gaussian, Convention::Nnunet) => Weighting::NnunetGaussian,
        (Blending::Gaussian, Convention::Monai) => Weighting::MonaiGaussian,
    }
}

/// All patches, each turned round in all ways that are asked for.
fn patches(window: &SlidingWindow, volume_dims: [u32; 3]) -> Vec<Patch> {
    let [xs, ys, zs]: [Vec<i32>; 3] = std::array::from_fn(|axis| window.starts(axis, volume_dims[axis]));
    let mirrors = window.mirrors();
    let mut patches = Vec::with_capacity(xs.len() * ys.len() * zs.len() * mirrors.len());
    for &z in &zs {
        for &y in &ys {
            for &x in &xs {
                patches.extend(mirrors.iter().map(|&mirror| Patch { start: [x, y, z], dims: window.patch, mirror }));
            }
        }
    }
    patches
}
