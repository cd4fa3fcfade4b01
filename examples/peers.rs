//! Kernels on the arrays that other people's programs get, so that both can be timed in the same rounds.
//!
//!     cargo run --release --example peers -- prepare|back|components|feret|feret-all FOLDER [ROUNDS]
//!
//! FOLDER holds `meta.json` (`affine_lps`) and NumPy files: `vol.npy` (z, y, x, int16 HU) is turned to RAS, resampled to 1.5 mm, windowed
//! to 0..1 and cropped to what is not 0; `logits15.npy` (class, z, y, x, float32) goes back to the grid of `vol.npy` as labels; `mask.npy`
//! (z, y, x, uint8) becomes 26-connected components with their sizes and boxes; the labels of `top50.npy` (z, y, x, uint16) get their longest
//! diameters, all or but the two largest, which are the first. The last line, `RESULT {...}`, has wall and processor
//! seconds of each round after the first, and what tells whether two programs have done the same.

mod processor;

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use processor::processor_seconds;
use roentgen::geometry::{Affine, Grid};
use roentgen::kernels::bounding_box::bounding_box_cpu;
use roentgen::kernels::components::{ComponentRuns, Connectivity};
use roentgen::kernels::diameters::longest_diameters_mm;
use roentgen::kernels::regions::RegionRuns;
use roentgen::kernels::{Interpolation, Mask, Resample, ScoresToLabels, resample_cpu, scores_to_labels_cpu};
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
        "back" => back(folder, rounds)?,
        "components" => components(folder, rounds)?,
        "feret" => feret(folder, rounds, 2)?,
        "feret-all" => feret(folder, rounds, 0)?,
        other => bail!("there is no `{other}`: prepare, back, components, feret or feret-all"),
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

fn prepare(folder: &Path, rounds: usize) -> anyhow::Result<Measured> {
    let (shape, values) = array::<i16>(folder, "vol", "<i2")?;
    let [nz, ny, nx] = shape[..] else { bail!("vol.npy has {} axes", shape.len()) };
    let dims = [nx, ny, nz].map(|n| n as u32);
    let spacing = spacing(folder)?;
    let grid = Grid::new(dims, Affine::scale_then_shift(spacing, [0.0; 3]))?;
    let image = ImageVolume {
        stored: Volume::new(grid, values).into(),
        rescale: vec![Rescale { slope: 1.0, intercept: 0.0 }; nz],
        quantity: Quantity::Hounsfield,
    };
    // From LPS to RAS: i and j turn round.
    let step = spacing.map(|s| SPACING / s);
    let end = [0, 1].map(|n| f64::from(dims[n] - 1));
    let p = Resample {
        target_dims: std::array::from_fn(|n| (f64::from(dims[n] - 1) * spacing[n] / SPACING).round() as u32 + 1),
        source_from_target: Affine::from_columns([-step[0], 0.0, 0.0], [0.0, -step[1], 0.0], [0.0, 0.0, step[2]], [end[0], end[1], 0.0]),
        interpolation: Interpolation::Linear,
        outside: None,
        clip: Some(WINDOW),
        subtract: WINDOW[0],
        divide: WINDOW[1] - WINDOW[0],
    };
    let target = Grid::new(p.target_dims, Affine::scale_then_shift([SPACING; 3], [0.0; 3]))?;
    let (times, (cropped, size)) = timed(rounds, || {
        let prepared = Stored::float32(Volume::new(target, resample_cpu(&image, &p))).expect("numbers");
        let prepared = ImageVolume {
            stored: prepared,
            rescale: vec![Rescale { slope: 1.0, intercept: 0.0 }; target.dims()[2] as usize],
            ..image_like(&image)
        };
        let [low, high] = bounding_box_cpu(&prepared, Mask::Above(0.0)).expect("not all of it is air");
        let size: [usize; 3] = std::array::from_fn(|n| (high[n] - low[n] + 1) as usize);
        let values = prepared.stored.as_float32().expect("made of floats").voxels();
        let [tx, ty, _] = target.dims().map(|n| n as usize);
        let mut cropped = Vec::with_capacity(size.iter().product());
        for k in 0..size[2] {
            for j in 0..size[1] {
                let start = ((low[2] as usize + k) * ty + low[1] as usize + j) * tx + low[0] as usize;
                cropped.extend_from_slice(&values[start..start + size[0]]);
            }
        }
        (cropped, size)
    });
    let at = |n: usize| size.map(|length| ((0.31 + 0.095 * n as f64) * length as f64) as usize);
    let sample = |n: usize| {
        let [i, j, k] = at(n);
        cropped[(k * size[1] + j) * size[0] + i]
    };
    let mean = cropped.iter().map(|v| f64::from(*v)).sum::<f64>() / cropped.len() as f64;
    let check = json!({ "shape": size, "mean": mean, "samples": (0..5).map(sample).collect::<Vec<f32>>() });
    Ok((grid.voxel_count(), times, check))
}

/// A volume without voxels that is otherwise the same.
fn image_like(image: &ImageVolume) -> ImageVolume {
    let grid = Grid::new([1; 3], Affine::IDENTITY).expect("a grid");
    ImageVolume { stored: Volume::new(grid, vec![0i16]).into(), rescale: Vec::new(), quantity: image.quantity }
}

fn back(folder: &Path, rounds: usize) -> anyhow::Result<Measured> {
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
    let p = ScoresToLabels { network_dims, target_dims, network_from_target, label_of_channel: &label_of_channel };
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
