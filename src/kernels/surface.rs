//! Surface area and enclosed volume of regions, by marching cubes over the voxel centres, half way between voxels of the region and others.
//!
//! Outside of the grid is background, so that every surface is closed. What a cube of eight voxels adds depends on which of them belong to
//! the region alone: both implementations count cubes by case (`marching_cubes.rs`), in whole numbers that no order of threads changes, and
//! so give the same bits. Areas are those of scikit-image's `marching_cubes` (its default, Lewiner's topology) on the mask as floats with a
//! border of background, at level 0.5.
//!
//! Memory traffic a voxel: 1 byte read. Shader: `shaders/surface.wgsl`.

use std::array;

use bytemuck::{Pod, Zeroable};
use rayon::prelude::*;

use super::components::voxel_count;
use super::marching_cubes::{Cube, cubes};
use super::regions::{RegionRuns, Run};
use super::slabs;
use crate::geometry::Affine;
use crate::gpu::{Gpu, GpuError};

pub(super) const WGSL: &str = include_str!("../../shaders/surface.wgsl");

/// Cubes between two slices that one workgroup counts.
const CUBES_A_GROUP: usize = 16384;

/// Uniforms of `shaders/surface.wgsl`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct SurfaceParams {
    /// Columns of a slice.
    pub columns: u32,
    /// Rows of a slice.
    pub rows: u32,
    /// Slices bound.
    pub slices: u32,
    /// Layers of cubes before the one on the first slice: 1 where that is the first of the grid.
    pub before: u32,
}

/// The surface of a region.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Surface {
    /// Its area, mm².
    pub area_mm2: f64,
    /// The volume that it encloses, mm³: less than that of the voxels where the region is convex.
    pub volume_mm3: f64,
}

impl Surface {
    /// Surface of a ball of the same volume, as a share of the area: 1 for a ball, less for everything else (IBSI QCFX).
    pub fn sphericity(&self) -> f64 {
        (36.0 * std::f64::consts::PI * self.volume_mm3 * self.volume_mm3).cbrt() / self.area_mm2
    }
}

/// The surface of each region; `None` where it has no voxels.
pub fn surfaces_cpu(regions: &RegionRuns, lps_from_voxel: &Affine) -> Vec<Option<Surface>> {
    let cubes = cubes(lps_from_voxel);
    let surface = |runs: &[Run]| {
        let counts = layers(runs).into_par_iter().with_min_len(16).fold(
            || [0; 256],
            |mut counts, layer| {
                count_layer(layer, &mut counts);
                counts
            },
        );
        surface_of(&counts.reduce(|| [0; 256], |a, b| array::from_fn(|n| a[n] + b[n])), &cubes)
    };
    regions.regions().map(surface).collect()
}

/// [`surfaces_cpu`] of the labels in `asked`, in that order, on a GPU: the same numbers. `dims` = (columns, rows, slices), `i` fastest.
///
/// # Errors
/// [`GpuError::TooLarge`] where two slices exceed a binding, or there are more slices than workgroups in a dispatch;
/// [`GpuError::OutOfMemory`]; [`GpuError::Lost`].
///
/// # Panics
/// Where `labels` has another length than `dims` says: a broken promise of the caller.
pub fn surfaces_gpu(
    gpu: &Gpu,
    labels: &[u8],
    dims: [u32; 3],
    lps_from_voxel: &Affine,
    asked: &[u8],
) -> Result<Vec<Option<Surface>>, GpuError> {
    assert_eq!(labels.len(), voxel_count(dims), "one label a voxel");
    let most_slices = u64::from(gpu.summary().max_workgroups_per_dimension - 1);
    if u64::from(dims[2]) > most_slices {
        return Err(GpuError::TooLarge { what: "slices for surfaces".to_owned(), needed: dims[2].into(), limit: most_slices });
    }
    let [columns, rows, slices] = dims;
    let plane = columns as usize * rows as usize;
    let pieces = ((columns as usize + 1) * (rows as usize + 1)).div_ceil(CUBES_A_GROUP) as u32;
    let pipeline = gpu.pipeline("surface", WGSL, &[])?;
    let mut counts = vec![[0u64; 256]; 256];
    let mut found = vec![[0u32; 256]; 256];
    for slab in slabs::overlapping(gpu, "two slices of labels, bytes", slices, plane as u64)? {
        let before = u32::from(slab.owned.start == 0);
        let loaded = slab.loaded.start as usize * plane..slab.loaded.end as usize * plane;
        let params = SurfaceParams { columns, rows, slices: slab.loaded.len() as u32, before };
        let params = gpu.uniform("surface: params", &params)?;
        let bound = gpu.upload("surface: labels", &labels[loaded])?;
        let bins = gpu.storage("surface: cubes by label and case", size_of_val(&found[..]) as u64)?;
        gpu.dispatch("surface", &pipeline, &[&params, &bound, &bins], [pieces, slab.owned.len() as u32 + before, 1])?;
        gpu.read_into(&bins, &mut found)?;
        counts.as_flattened_mut().iter_mut().zip(found.as_flattened()).for_each(|(sum, &count)| *sum += u64::from(count));
    }
    let cubes = cubes(lps_from_voxel);
    Ok(asked.iter().map(|&label| surface_of(&counts[usize::from(label)], &cubes)).collect())
}

/// What cubes add up to; `None` where all are empty. Case 0 is none of the region's.
fn surface_of(counts: &[u64; 256], cubes: &[Cube; 256]) -> Option<Surface> {
    let sum = |of: fn(&Cube) -> f64| counts.iter().zip(cubes).skip(1).map(|(&count, cube)| count as f64 * of(cube)).sum();
    counts[1..]
        .iter()
        .any(|&count| count > 0)
        .then(|| Surface { area_mm2: sum(|cube| cube.area_mm2), volume_mm3: sum(|cube| cube.volume_mm3) })
}

/// The slices of a region two by two, the lower first, and each end of the region with an empty one.
fn layers(runs: &[Run]) -> Vec<[&[Run]; 2]> {
    let mut layers = Vec::new();
    let mut last: &[Run] = &[];
    for slice in runs.chunk_by(|a, b| a.k == b.k) {
        if last.first().is_some_and(|run| run.k + 1 != slice[0].k) {
            layers.push([last, &[]]);
            last = &[];
        }
        layers.push([last, slice]);
        last = slice;
    }
    layers.push([last, &[]]);
    layers
}

/// Counts the cubes between two slices by case.
fn count_layer(slices: [&[Run]; 2], counts: &mut [u64; 256]) {
    let mut rows = slices.map(|slice| slice.chunk_by(|a, b| a.j == b.j).peekable());
    let mut last: [&[Run]; 2] = [&[]; 2];
    let mut last_j = 0;
    loop {
        let next = rows.each_mut().map(|rows| rows.peek().map(|row| row[0].j));
        let Some(j) = next.into_iter().flatten().min() else { break };
        if last_j + 1 != j {
            count_cubes([last[0], &[], last[1], &[]], counts);
            last = [&[]; 2];
        }
        let now = rows.each_mut().map(|rows| rows.next_if(|row| row[0].j == j).unwrap_or_default());
        count_cubes([last[0], now[0], last[1], now[1]], counts);
        (last, last_j) = (now, j);
    }
    count_cubes([last[0], &[], last[1], &[]], counts);
}

/// Counts the cubes between four rows, in the order of a case's bits, by case: all those between two changes at once.
fn count_cubes(rows: [&[Run]; 4], counts: &mut [u64; 256]) {
    /// Bits of the voxels with even numbers, from one bit a row; shifted by one, those with odd numbers.
    const SPREAD: [usize; 16] = [0, 1, 4, 5, 16, 17, 20, 21, 64, 65, 68, 69, 80, 81, 84, 85];
    let mut ends = rows.map(|row| row.iter().flat_map(|run| [run.start, run.end]));
    let mut next = ends.each_mut().map(|ends| ends.next().unwrap_or(u32::MAX));
    let (mut set, mut from) = (0, 0);
    loop {
        let at = next.into_iter().fold(u32::MAX, u32::min);
        if at == u32::MAX {
            return;
        }
        if set != 0 {
            counts[SPREAD[set] * 3] += u64::from(at - from - 1);
        }
        let before = set;
        for (n, ends) in ends.iter_mut().enumerate() {
            if next[n] == at {
                set ^= 1 << n;
                next[n] = ends.next().unwrap_or(u32::MAX);
            }
        }
        counts[SPREAD[before] | SPREAD[set] << 1] += 1;
        from = at;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::components::tests::{any_labels, noise};
    use super::super::tests::any_linear;
    use super::*;

    /// Each cube, voxel by voxel.
    fn by_definition(labels: &[u8], dims: [u32; 3], label: u8) -> [u64; 256] {
        let [nx, ny, nz] = dims.map(i64::from);
        let mut counts = [0; 256];
        for (k, j, i) in (-1..nz).flat_map(|k| (-1..ny).flat_map(move |j| (-1..nx).map(move |i| (k, j, i)))) {
            let has = |n: i64| {
                let [i, j, k] = [i + (n & 1), j + (n >> 1 & 1), k + (n >> 2)];
                let inside = (0..nx).contains(&i) && (0..ny).contains(&j) && (0..nz).contains(&k);
                inside && labels[(i + nx * (j + ny * k)) as usize] == label
            };
            counts[(0..8).map(|n| usize::from(has(n)) << n).sum::<usize>()] += 1;
        }
        counts
    }

    fn affine([x, y, z]: [[f64; 3]; 3]) -> Affine {
        Affine::from_columns(x, y, z, [-31.0, 7.5, 1e3])
    }

    proptest! {
        #[test]
        fn cubes_are_counted_by_case((dims, labels) in any_labels(), linear in any_linear()) {
            let asked = [1, 2, 3, 4, 5];
            let expected: Vec<_> =
                asked.iter().map(|&label| surface_of(&by_definition(&labels, dims, label), &cubes(&affine(linear)))).collect();
            prop_assert_eq!(surfaces_cpu(&RegionRuns::of_labels(&labels, dims, &asked), &affine(linear)), expected);
        }
    }

    #[test]
    fn gpu_surfaces_are_those_of_the_cpu() -> Result<(), GpuError> {
        let Some(mut gpu) = crate::gpu::for_tests() else { return Ok(()) };
        let asked: Vec<u8> = (1..=255).collect();
        let compare = |gpu: &Gpu, labels: &[u8], dims, linear| -> Result<(), GpuError> {
            let own = surfaces_gpu(gpu, labels, dims, &affine(linear), &asked)?;
            assert_eq!(own, surfaces_cpu(&RegionRuns::of_labels(labels, dims, &asked), &affine(linear)));
            Ok(())
        };
        let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) };
        let answer = proptest::test_runner::TestRunner::new(config).run(&(any_labels(), any_linear()), |((dims, labels), linear)| {
            compare(&gpu, &labels, dims, linear).map_err(|err| TestCaseError::fail(err.to_string()))
        });
        assert!(answer.is_ok(), "{answer:?}");
        // Several pieces a layer, two slabs, long stretches among noise.
        let dims = [203, 301, 6];
        let labels: Vec<u8> =
            noise(voxel_count(dims), 5).iter().enumerate().map(|(n, v)| if v % 16 == 0 { v / 16 } else { (n / 9000) as u8 }).collect();
        gpu.limit_storage(203 * 301 * 5);
        compare(&gpu, &labels, dims, super::super::tests::LINEARS[4])?;
        gpu.limit_storage(203 * 301 * 2);
        assert!(matches!(surfaces_gpu(&gpu, &labels, dims, &Affine::IDENTITY, &asked), Err(GpuError::TooLarge { .. })));
        Ok(())
    }

    #[test]
    fn shader_constants_are_those_of_rust() {
        assert!(WGSL.contains(&format!("const CUBES_A_GROUP: u32 = {CUBES_A_GROUP}u;")));
    }

    #[test]
    fn one_voxel_is_an_octahedron() {
        let [a, b, c] = [0.4, 0.45, 1.25]; // half axes
        let regions = RegionRuns::of_labels(&[0, 7, 0], [3, 1, 1], &[7, 8]);
        let found = surfaces_cpu(&regions, &Affine::scale_then_shift([2.0 * a, 2.0 * b, -2.0 * c], [5.0; 3]));
        let own = found[0].expect("a voxel");
        let area = 4.0 * f64::sqrt((a * b).powi(2) + (b * c).powi(2) + (c * a).powi(2));
        assert!((own.area_mm2 - area).abs() < 1e-12 && (own.volume_mm3 - 4.0 / 3.0 * a * b * c).abs() < 1e-12, "{own:?}");
        let ball = 4.0 * std::f64::consts::PI * (a * b * c / std::f64::consts::PI).powf(2.0 / 3.0);
        assert!((own.sphericity() - ball / area).abs() < 1e-12, "{own:?}");
        assert_eq!(found[1], None);
    }

    #[test]
    fn a_ball_is_nearly_one() {
        let dims = [61, 61, 61];
        let labels: Vec<u8> = super::super::tests::voxels(dims)
            .map(|voxel| u8::from(voxel.iter().map(|&n| (f64::from(n) - 30.0).powi(2)).sum::<f64>() <= 28.0 * 28.0))
            .collect();
        let own = surfaces_cpu(&RegionRuns::of_labels(&labels, dims, &[1]), &Affine::IDENTITY)[0].expect("voxels");
        let volume = 4.0 / 3.0 * std::f64::consts::PI * 28f64.powi(3);
        assert!((own.volume_mm3 / volume - 1.0).abs() < 5e-3, "{own:?}");
        // The steps of voxels make the surface larger, at any resolution.
        assert!((0.90..0.94).contains(&own.sphericity()), "{}", own.sphericity());
    }
}
