//! Kernels on the arrays that other people's programs get, so that both can be timed in the same rounds.
//!
//!     cargo run --release --example peers -- prepare|cubic|zscore|back|nearest|components|feret|feret-all FOLDER [ROUNDS]
//!
//! FOLDER holds `meta.json` (`affine_lps`) and NumPy files: `vol.npy` (z, y, x, int16 HU) is turned to RAS, resampled to 1.5 mm, windowed
//! to 0..1 and cropped to what is not 0, or (`cubic`) clipped, normalised and resampled as nnU-Net does it; of `mr.npy` (z, y, x, int16) the
//! voxels above 0 get mean 0 and spread 1; `logits15.npy` (class, z, y, x, float32) goes back to the grid of `vol.npy` as labels, by
//! interpolated scores or by the nearest ones; `mask.npy` (z, y, x, uint8) becomes 26-connected components with their sizes and boxes; the
//! labels of `top50.npy` (z, y, x, uint16) get their longest diameters, all or but the two largest, which are the first. The last line,
//! `RESULT {...}`, has wall and processor seconds of each round after the first, and what tells whether two programs have done the same.

mod processor;

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use processor::processor_seconds;
use roentgen::geometry::{Affine, Grid};
use roentgen::kernels::bounding_box::{bounding_box_cpu, crop};
use roentgen::kernels::components::{ComponentRuns, Connectivity};
use roentgen::kernels::diameters::longest_diameters_mm;
use roentgen::kernels::regions::RegionRuns;
use roentgen::kernels::statistics::statistics_cpu;
use roentgen::kernels::{Background, Interpolation, Mask, Resample, Rule, ScoresToLabels, resample_cpu, scores_to_labels_cpu};
use roentgen::volume::{ImageVolume, Quantity, Rescale, Stored, Volume};
use serde_json::{Value, json};

const SPACING: f64 = 1.5;
const WINDOW: [f64; 2] = [-1000.0, 400.0];

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [work, folder, rounds @ ..] = &arguments[..] else { bail!("say what to do, and give the folder with the arrays") };
    let (folder, rounds) = (Path::new(folder), rounds.first().map_or(Ok(5), |n| n.parse::<usize>())?);
    let (voxels, times, check) = match work.as_str() {
        "prepare" => prepare(folder, rounds)?,
        "cubic" => cubic(folder, rounds)?,
        "zscore" => zscore(folder, rounds)?,
        "back" => back(folder, rounds, [Interpolation::Linear; 3])?,
        "nearest" => back(folder, rounds, [Interpolation::Nearest; 3])?,
        "components" => components(folder, rounds)?,
        "feret" => feret(folder, rounds, 2)?,
        "feret-all" => feret(folder, rounds, 0)?,
        other => bail!("there is no `{other}`: prepare, cubic, zscore, back, nearest, components, feret or feret-all"),
    };
    let (wall, cpu): (Vec<f64>, Vec<f64>) = times.into_iter().unzip();
    println!("RESULT {}", json!({ "times": wall, "cpu": cpu, "voxels": voxels, "check": check }));
    Ok(())
}

type Measured = (usize, Vec<(f64, f64)>, Value);

/// Wall and processor seconds of each round after the first, and what the last one gave.
fn timed<T>(rounds: usize, work: impl Fn() -> T) -> (Vec<(f64, f64)>, T) {
    let mut times = Vec::new();
    let mut last = work();
    for _ in 0..rounds {
        let (wall, processor) = (Instant::now(), processor_seconds());
        last = work();
        times.push((wall.elapsed().as_secs_f64(), processor_seconds() - processor));
    }
    (times, last)
}

/// A file of integers that are physical values, on a grid of that spacing.
fn image(folder: &Path, name: &str, spacing: [f64; 3]) -> anyhow::Result<ImageVolume> {
    let (shape, values) = array::<i16>(folder, name, "<i2")?;
    let [nz, ny, nx] = shape[..] else { bail!("{name}.npy has {} axes", shape.len()) };
    let grid = Grid::new([nx, ny, nz].map(|n| n as u32), Affine::scale_then_shift(spacing, [0.0; 3]))?;
    let rescale = vec![Rescale { slope: 1.0, intercept: 0.0 }; nz];
    Ok(ImageVolume { stored: Volume::new(grid, values).into(), rescale, quantity: Quantity::Arbitrary })
}

/// The CT, and its spacing along i, j, k.
fn ct(folder: &Path) -> anyhow::Result<(ImageVolume, [f64; 3])> {
    let spacing = spacing(folder)?;
    Ok((image(folder, "vol", spacing)?, spacing))
}

/// What `run_peers.py` says of its peers' arrays: shape, mean and five values on a diagonal, along i, j, k.
fn summary(values: &[f32], dims: [usize; 3]) -> Value {
    let sample = |n: usize| {
        let [i, j, k] = dims.map(|length| ((0.31 + 0.095 * n as f64) * length as f64) as usize);
        values[(k * dims[1] + j) * dims[0] + i]
    };
    let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / values.len() as f64;
    json!({ "shape": dims, "mean": mean, "samples": (0..5).map(sample).collect::<Vec<f32>>() })
}

/// nnU-Net's preprocessing of CT: nothing to crop where voxels of the outermost planes are not 0; clip, normalisation, splines, within the same
/// outer faces.
fn cubic(folder: &Path, rounds: usize) -> anyhow::Result<Measured> {
    let (image, _) = ct(folder)?;
    let target = image.grid().respaced_within([SPACING; 3])?;
    let p = Resample {
        interpolation: Interpolation::Cubic,
        clip: Some([-980.0, 900.0]),
        values_first: true,
        subtract: -20.0,
        divide: 300.0,
        ..Resample::new(target.dims(), image.grid().voxel_from_lps() * target.lps_from_voxel())
    };
    let (times, values) = timed(rounds, || {
        assert!(nothing_to_crop(&image), "the volume fills its grid");
        resample_cpu(&image, &p)
    });
    Ok((image.grid().voxel_count(), times, summary(&values, target.dims().map(|n| n as usize))))
}

/// Whether each outermost plane has a voxel that is not 0.
fn nothing_to_crop(image: &ImageVolume) -> bool {
    let values = image.stored.as_int16().expect("made of integers").voxels();
    let [nx, ny, nz] = image.grid().dims().map(|n| n as usize);
    let at = |[i, j, k]: [usize; 3]| values[(k * ny + j) * nx + i] != 0;
    [0, nx - 1].into_iter().all(|i| (0..ny * nz).any(|n| at([i, n % ny, n / ny])))
        && [0, ny - 1].into_iter().all(|j| (0..nx * nz).any(|n| at([n % nx, j, n / nx])))
        && [0, nz - 1].into_iter().all(|k| (0..nx * ny).any(|n| at([n % nx, n / nx, k])))
}

/// nnU-Net's normalisation of MR: mean and spread of what is above 0; what is not stays 0.
fn zscore(folder: &Path, rounds: usize) -> anyhow::Result<Measured> {
    let image = image(folder, "mr", [1.0; 3])?;
    let dims = image.grid().dims();
    let (times, values) = timed(rounds, || {
        let found = statistics_cpu(&image, Mask::Above(0.0)).expect("not all of it is air").physical;
        let p = Resample {
            values_first: true,
            background: Some(Background::NotAbove(0.0)),
            subtract: found.mean,
            divide: found.standard_deviation.max(1e-8),
            ..Resample::new(dims, Affine::IDENTITY)
        };
        resample_cpu(&image, &p)
    });
    Ok((values.len(), times, summary(&values, dims.map(|n| n as usize))))
}

fn prepare(folder: &Path, rounds: usize) -> anyhow::Result<Measured> {
    let (image, spacing) = ct(folder)?;
    let (grid, dims) = (*image.grid(), image.grid().dims());
    // From LPS to RAS: i and j turn round.
    let step = spacing.map(|s| SPACING / s);
    let end = [0, 1].map(|n| f64::from(dims[n] - 1));
    let p = Resample {
        clip: Some(WINDOW),
        subtract: WINDOW[0],
        divide: WINDOW[1] - WINDOW[0],
        ..Resample::new(
            std::array::from_fn(|n| (f64::from(dims[n] - 1) * spacing[n] / SPACING).round() as u32 + 1),
            Affine::from_columns([-step[0], 0.0, 0.0], [0.0, -step[1], 0.0], [0.0, 0.0, step[2]], [end[0], end[1], 0.0]),
        )
    };
    let target = Grid::new(p.target_dims, Affine::scale_then_shift([SPACING; 3], [0.0; 3]))?;
    let (times, (cropped, size)) = timed(rounds, || {
        let prepared = ImageVolume {
            stored: Stored::float32(Volume::new(target, resample_cpu(&image, &p))).expect("numbers"),
            rescale: vec![Rescale { slope: 1.0, intercept: 0.0 }; target.dims()[2] as usize],
            quantity: image.quantity,
        };
        let bounds = bounding_box_cpu(&prepared, Mask::Above(0.0)).expect("not all of it is air");
        let mut values = prepared.stored.into_float32().expect("made of floats").into_voxels();
        crop(&mut values, target.dims(), bounds);
        (values, [0, 1, 2].map(|n| (bounds[1][n] - bounds[0][n] + 1) as usize))
    });
    Ok((grid.voxel_count(), times, summary(&cropped, size)))
}

fn back(folder: &Path, rounds: usize, interpolation: [Interpolation; 3]) -> anyhow::Result<Measured> {
    let (shape, scores) = array::<f32>(folder, "logits15", "<f4")?;
    let [channels, lz, ly, lx] = shape[..] else { bail!("logits15.npy has {} axes", shape.len()) };
    let meta: Value = serde_json::from_slice(&std::fs::read(folder.join("meta.json"))?)?;
    let target_dims = [2, 1, 0].map(|n| meta["shape"][n].as_u64().unwrap_or(0) as u32);
    ensure!(target_dims.iter().all(|n| *n > 0), "meta.json has no shape");
    let network_dims = [lx, ly, lz].map(|n| n as u32);
    // Both grids cover the same box.
    let scale: [f64; 3] = std::array::from_fn(|n| f64::from(network_dims[n]) / f64::from(target_dims[n]));
    let label_of_channel: Vec<u8> = (0..channels as u8).collect();
    let network_from_target = Affine::scale_then_shift(scale, scale.map(|s| s / 2.0 - 0.5));
    let p = ScoresToLabels {
        network_dims,
        target_dims,
        network_from_target,
        interpolation,
        label_of_channel: &label_of_channel,
        rule: Rule::Highest,
    };
    let (times, labels) = timed(rounds, || scores_to_labels_cpu(&scores, &p));
    let mut counts = vec![0u64; channels];
    labels.iter().for_each(|&label| counts[usize::from(label)] += 1);
    let mean = labels.iter().map(|v| f64::from(*v)).sum::<f64>() / labels.len() as f64;
    Ok((labels.len(), times, json!({ "shape": meta["shape"], "mean": mean, "voxels": counts })))
}

fn components(folder: &Path, rounds: usize) -> anyhow::Result<Measured> {
    let (shape, mask) = array::<u8>(folder, "mask", "|u1")?;
    let [nz, ny, nx] = shape[..] else { bail!("mask.npy has {} axes", shape.len()) };
    let dims = [nx, ny, nz].map(|n| n as u32);
    let (times, (runs, extents)) = timed(rounds, || {
        let runs = ComponentRuns::of(&mask, dims, Connectivity::TwentySix);
        let extents = runs.extents();
        (runs, extents)
    });
    let mut sizes: Vec<u64> = runs.components().iter().map(|component| component.voxels).collect();
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    ensure!(extents.len() == sizes.len(), "a box a component");
    let check = json!({ "components": sizes.len(), "largest": sizes[..sizes.len().min(5)], "total": sizes.iter().sum::<u64>() });
    Ok((mask.len(), times, check))
}

/// Leaves out the first labels, and numbers the others from 1, before the time runs.
fn feret(folder: &Path, rounds: usize, left_out: u16) -> anyhow::Result<Measured> {
    let (shape, labels) = array::<u16>(folder, "top50", "<u2")?;
    let [nz, ny, nx] = shape[..] else { bail!("top50.npy has {} axes", shape.len()) };
    let labels = labels.iter().map(|label| u8::try_from(label.saturating_sub(left_out))).collect::<Result<Vec<u8>, _>>()?;
    let dims = [nx, ny, nz].map(|n| n as u32);
    let spacing = spacing(folder)?;
    let asked: Vec<u8> = (1..=labels.iter().copied().max().unwrap_or(0)).collect();
    let affine = Affine::scale_then_shift(spacing, [0.0; 3]);
    let (times, diameters) = timed(rounds, || longest_diameters_mm(&RegionRuns::of_labels(&labels, dims, &asked), &affine));
    let rounded: Vec<f64> = diameters.iter().flatten().take(6).map(|mm| (mm * 100.0).round() / 100.0).collect();
    Ok((labels.len(), times, json!({ "feret_mm": rounded, "n": diameters.len() })))
}

/// Millimetres between voxels along i, j, k.
fn spacing(folder: &Path) -> anyhow::Result<[f64; 3]> {
    let meta: Value = serde_json::from_slice(&std::fs::read(folder.join("meta.json"))?)?;
    let spacing = [2, 1, 0].map(|n| meta["spacing_zyx"][n].as_f64().unwrap_or(f64::NAN));
    ensure!(spacing.iter().all(|s| *s > 0.0), "meta.json has no spacing_zyx");
    Ok(spacing)
}

/// Shape and values of a NumPy file of that type, in C order.
fn array<T: bytemuck::Pod>(folder: &Path, name: &str, kind: &str) -> anyhow::Result<(Vec<usize>, Vec<T>)> {
    let path = folder.join(name).with_extension("npy");
    let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let header_end = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = std::str::from_utf8(&bytes[10..header_end])?;
    ensure!(header.contains(kind) && header.contains("'fortran_order': False"), "{} is not {kind} in C order: {header}", path.display());
    let shape = header.split_once("'shape': (").and_then(|(_, rest)| rest.split_once(')')).context("no shape")?.0;
    let shape: Vec<usize> = shape.split(',').map(str::trim).filter(|n| !n.is_empty()).map(str::parse).collect::<Result<_, _>>()?;
    Ok((shape, bytemuck::pod_collect_to_vec(&bytes[header_end..])))
}
