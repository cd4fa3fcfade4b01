//! What it costs to tell objects apart, to score and to measure each: a chest CT of 512 x 512 x 300 voxels with many nodules, and one with
//! specks as near to each other as components can be.
//!
//! `cargo run --release --example objects`

use std::path::Path;
use std::time::Instant;

use roentgen::infer::Scores;
use roentgen::kernels::Backend;
use roentgen::measure::{measure_labels, measure_percentiles, measure_shapes};
use roentgen::model::{Manifest, MapOf, ScoreKind};
use roentgen::postprocess::{labels_on, map_on, objects_on};
use roentgen::volume::{ImageVolume, LabelMap, Quantity, Rescale, Volume};
use roentgen::{Affine, Grid};

/// Channels: neither, lung, nodule.
const MANIFEST: &str = include_str!("../models/ct-lung-nodule/model.toml");
const ROUNDS: usize = 5;

fn main() {
    let source = Grid::new([512, 512, 300], Affine::scale_then_shift([0.7, 0.7, 1.0], [0.0; 3])).expect("a grid");
    let mut manifest = Manifest::parse(MANIFEST, Path::new("model.toml")).expect("the shipped manifest");
    manifest.finding[1].instances.as_mut().expect("nodules are objects").max_count = 254;
    let network = Grid::new([238, 238, 200], Affine::scale_then_shift([1.5; 3], [0.0; 3])).expect("a grid");
    let scores = scores(network);
    let labels = labels_on(&source, &scores, &manifest.label_of_channel(), &manifest.postprocess, &Backend::Cpu).expect("on the CPU");
    let voxels = labels.voxels().iter().filter(|&&label| label == 2).count();
    println!("nodules: {voxels} voxels");
    let (objects, of_nodules) = timed("objects and scores", || objects_on(labels.clone(), &scores, &manifest).expect("numbers"));
    println!("{} objects", of_nodules[1].as_ref().map_or(0, Vec::len));
    let asked: Vec<u8> = (2..=255).collect();
    let image = image(source);
    timed("volume, mean, spread", || measure_labels(&objects, &image, &asked).expect("one grid"));
    timed("diameters, surface", || measure_shapes(&objects, &asked));
    timed("percentiles", || measure_percentiles(&objects, &image, &asked, &[5.0, 50.0, 95.0]).expect("one grid"));
    timed("for comparison: the map of the probability", || {
        map_on(&source, &scores, &manifest.label_of_channel(), MapOf::Probability { channel: 2 }, ScoreKind::Logits)
    });

    let specks = specks(source);
    let (_, of_specks) = timed("specks: objects and scores", || objects_on(specks.clone(), &scores, &manifest).expect("numbers"));
    println!("{} specks reach the score", of_specks[1].as_ref().map_or(0, Vec::len));
    println!("peak memory {}", peak_memory());
}

/// 8 x 8 x 4 nodules of 5 to 9 mm in lungs that are all of the rest.
fn scores(grid: Grid) -> Scores {
    let [columns, rows, slices] = grid.dims().map(|d| d as usize);
    let mut values = vec![0.0f32; 3 * columns * rows * slices];
    let (lung, nodule) = values[columns * rows * slices..].split_at_mut(columns * rows * slices);
    for (n, (lung, nodule)) in lung.iter_mut().zip(nodule).enumerate() {
        let voxel = [n % columns, n / columns % rows, n / (columns * rows)];
        let cell = [28, 28, 48];
        let away: f32 = (0..3).map(|a| (voxel[a] % cell[a]) as f32 - cell[a] as f32 / 2.0).map(|d| (1.5 * d).powi(2)).sum();
        let radius = 2.5 + 2.0 * (voxel[0] / cell[0] % 8) as f32 / 8.0;
        *lung = 1.0;
        *nodule = 1.0 + 2.0 * (radius - away.sqrt());
    }
    Scores::linear(grid, values)
}

fn image(grid: Grid) -> ImageVolume {
    let stored = (0..grid.voxel_count()).map(|n| (n * 7919 % 2000) as i16).collect();
    let rescale = vec![Rescale { slope: 1.0, intercept: -1024.0 }; grid.dims()[2] as usize];
    ImageVolume { stored: Volume::new(grid, stored).into(), rescale, quantity: Quantity::Hounsfield }
}

/// Every second voxel along each axis: 9.8 million objects.
fn specks(grid: Grid) -> LabelMap {
    let [columns, rows, _] = grid.dims().map(|d| d as usize);
    let is_speck = |n: usize| [n % columns, n / columns % rows, n / (columns * rows)].iter().all(|at| at.is_multiple_of(2));
    Volume::new(grid, (0..grid.voxel_count()).map(|n| if is_speck(n) { 2 } else { 0 }).collect())
}

/// The median of some rounds, printed.
fn timed<T>(what: &str, work: impl Fn() -> T) -> T {
    let mut times: Vec<f64> = Vec::new();
    let mut result = None;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        result = Some(work());
        times.push(start.elapsed().as_secs_f64() * 1000.0);
    }
    times.sort_by(f64::total_cmp);
    println!("{what}: {:.0} ms ({:.0} to {:.0})", times[ROUNDS / 2], times[0], times[ROUNDS - 1]);
    result.expect("some rounds")
}

fn peak_memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().find_map(|line| line.strip_prefix("VmHWM:")).map_or_else(|| "unknown".to_owned(), |text| text.trim().to_owned())
}
