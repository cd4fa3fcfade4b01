//! Patches that overlap, and whose answers are blended. The next patch is gathered and the last one blended while the network runs.

use std::sync::mpsc::sync_channel;
use std::thread;

use super::InferError;
use super::network::Asked;
use crate::kernels::patches::{Patch, Weighting, blend_cpu, gather_patch_cpu, scatter_patch_cpu};
use crate::model::{Blending, Convention, SlidingWindow};
use crate::volume::Volume;

/// Value of what a patch has beyond the volume.
const OUTSIDE: f32 = 0.0;

/// Scores of the whole of `input`, channel by channel.
pub(super) fn run(network: &mut Asked<'_>, window: &SlidingWindow, input: &Volume<f32>) -> Result<Vec<f32>, InferError> {
    let volume_dims = input.grid().dims();
    let patches = patches(window, volume_dims);
    let weights = weighting(window).weights(window.patch);
    let shape = window.patch.map(|n| n as usize);
    let mut sums = vec![0.0; network.channels() * input.voxels().len()];
    let mut weight_sums = vec![0.0; input.voxels().len()];
    thread::scope(|scope| {
        // One patch waits on each side of the network: memory is that of a few patches, however many there are.
        let (gathered, inputs) = sync_channel::<Vec<f32>>(1);
        let (answered, scores) = sync_channel::<(&Patch, Vec<f32>)>(1);
        scope.spawn(|| {
            let gathered = gathered; // moved in: it ends with this thread
            for patch in &patches {
                let mut values = vec![0.0; weights.len()];
                gather_patch_cpu(input.voxels(), volume_dims, patch, OUTSIDE, &mut values);
                if gathered.send(values).is_err() {
                    return; // the network failed
                }
            }
        });
        let blending = scope.spawn(|| {
            for (patch, scores) in scores {
                scatter_patch_cpu(&mut sums, &mut weight_sums, volume_dims, patch, &scores, &weights);
            }
        });
        let answers = patches.iter().zip(&inputs).try_for_each(|(patch, input)| {
            let mut scores = Vec::new();
            network.answer(&input, shape, &mut scores)?;
            answered.send((patch, scores)).expect("it is blended as long as there are answers");
            Ok::<_, InferError>(())
        });
        drop((answered, inputs));
        blending.join().expect("blending does not fail");
        answers
    })?;
    blend_cpu(&mut sums, &weight_sums);
    Ok(sums)
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
