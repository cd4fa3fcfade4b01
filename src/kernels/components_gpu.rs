//! Connected components on a GPU: union-find with atomics, slab by slab, joined on the host.
//!
//! Shaders: `shaders/components_init.wgsl`, `components_merge.wgsl`, `components_flatten.wgsl`. Twin: `components.rs`.

use bytemuck::{Pod, Zeroable};
use rayon::prelude::*;

use super::components::{Components, Connectivity, unite, voxel_count};
use super::slabs;
use crate::gpu::{Gpu, GpuError};

pub(super) const INIT_WGSL: &str =
    concat!(include_str!("../../shaders/shared/components.wgsl"), include_str!("../../shaders/components_init.wgsl"));
pub(super) const MERGE_WGSL: &str =
    concat!(include_str!("../../shaders/shared/components.wgsl"), include_str!("../../shaders/components_merge.wgsl"));
pub(super) const FLATTEN_WGSL: &str =
    concat!(include_str!("../../shaders/shared/components.wgsl"), include_str!("../../shaders/components_flatten.wgsl"));

/// Uniforms of the three component shaders.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct ComponentsParams {
    /// Voxels of the slab along i, j, k.
    pub dims: [u32; 3],
    /// Threads along x of the dispatch.
    pub threads_a_row: u32,
    /// Axes along which neighbours may differ: 1, 2, 3 for 6, 18, 26 neighbours.
    pub most_axes: u32,
    /// WGSL alignment.
    pub pad0: u32,
    /// WGSL alignment.
    pub pad1: u32,
    /// WGSL alignment.
    pub pad2: u32,
}

/// Component numbers on a GPU, exactly those of [`super::components::components_cpu`].
///
/// Labels go through in slabs of slices, joined on the host, so volumes larger than a storage binding work.
///
/// # Errors
/// [`GpuError::TooLarge`] where one slice of 4 bytes a voxel exceeds a binding; [`GpuError::OutOfMemory`]; [`GpuError::Lost`].
///
/// # Panics
/// Where `labels` has another length than `dims` says, or 2^32 - 1 or more components: broken promises of the caller.
pub fn components_gpu(gpu: &Gpu, labels: &[u8], dims: [u32; 3], connectivity: Connectivity) -> Result<Components, GpuError> {
    const THREADS: u32 = 64;
    assert_eq!(labels.len(), voxel_count(dims), "one label a voxel");
    let mut numbers = vec![0u32; labels.len()];
    if labels.is_empty() {
        return Ok(Components { numbers, count: 0 });
    }
    let plane = dims[0] as usize * dims[1] as usize;
    let depth = slabs::target_depth(gpu, "a slice of component numbers, bytes", dims, 4, slabs::MOST_VOXELS)?;
    let [init, merge, flatten] = [("components_init", INIT_WGSL), ("components_merge", MERGE_WGSL), ("components_flatten", FLATTEN_WGSL)]
        .map(|(entry, source)| gpu.pipeline(entry, source, &[]));
    let (init, merge, flatten) = (init?, merge?, flatten?);
    let parents = gpu.storage("components: parents", (plane * depth * 4) as u64)?;
    let mut found = 0u32;
    for (out, part) in numbers.chunks_mut(plane * depth).zip(labels.chunks(plane * depth)) {
        let groups = (part.len() as u32).div_ceil(THREADS);
        let groups_x = groups.min(gpu.summary().max_workgroups_per_dimension);
        let params = ComponentsParams {
            dims: [dims[0], dims[1], (part.len() / plane) as u32],
            threads_a_row: groups_x * THREADS,
            most_axes: connectivity.most_axes(),
            pad0: 0,
            pad1: 0,
            pad2: 0,
        };
        let params = gpu.uniform("components: params", &params)?;
        let bound = gpu.upload("components: labels", part)?;
        let groups = [groups_x, groups.div_ceil(groups_x), 1];
        gpu.dispatch("components_init", &init, &[&params, &bound, &parents], groups)?;
        gpu.dispatch("components_merge", &merge, &[&params, &bound, &parents], groups)?;
        gpu.dispatch("components_flatten", &flatten, &[&params, &parents], groups)?;
        gpu.read_into(&parents, out)?;
        number_roots(out, &mut found);
    }
    let count = join_slabs(&mut numbers, labels, dims, depth, connectivity, found);
    Ok(Components { numbers, count })
}

/// Roots become numbers, counted on from `found`: a root comes before the voxels that point at it.
fn number_roots(roots: &mut [u32], found: &mut u32) {
    for n in 0..roots.len() {
        roots[n] = match roots[n] {
            u32::MAX => 0,
            own if own as usize == n => {
                *found = found.checked_add(1).expect("fewer than 2^32 - 1 components");
                *found
            }
            root => roots[root as usize],
        };
    }
}

/// Joins components that touch across slabs of `depth` slices and renumbers; how many are left of `found`.
fn join_slabs(numbers: &mut [u32], labels: &[u8], dims: [u32; 3], depth: usize, connectivity: Connectivity, found: u32) -> u32 {
    let [columns, rows, slices] = dims.map(|d| d as usize);
    if slices <= depth {
        return found;
    }
    let mut parents: Vec<u32> = (0..=found).collect();
    let reach = |axes: u32| if connectivity.most_axes() > axes { 1 } else { 0 };
    for k in (depth..slices).step_by(depth) {
        for j in 0..rows {
            for i in 0..columns {
                let n = (k * rows + j) * columns + i;
                if labels[n] == 0 {
                    continue;
                }
                let row_reach = reach(1);
                for other_j in j.saturating_sub(row_reach)..=(j + row_reach).min(rows - 1) {
                    let along = reach(if other_j == j { 1 } else { 2 });
                    for other_i in i.saturating_sub(along)..=(i + along).min(columns - 1) {
                        let other = ((k - 1) * rows + other_j) * columns + other_i;
                        if labels[other] == labels[n] {
                            unite(&mut parents, numbers[n], numbers[other]);
                        }
                    }
                }
            }
        }
    }
    // From parents to final numbers: 0 stays background, a parent comes before its children.
    let mut count = 0;
    for n in 1..parents.len() {
        let parent = parents[n] as usize;
        if parent == n {
            count += 1;
            parents[n] = count;
        } else {
            parents[n] = parents[parent];
        }
    }
    numbers.par_iter_mut().for_each(|number| *number = parents[*number as usize]);
    count
}
