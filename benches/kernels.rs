//! Kernels on this machine: the CPU implementation, and the GPU one (its wait and transfers inside) where there is an adapter.
//!
//! `cargo bench --bench kernels -- --quick`; the adapter's name is in each GPU case. `ROENTGEN_BENCH_LARGE=1` takes a chest CT
//! (512 x 512 x 300) instead of a small one.

#![allow(missing_docs, reason = "criterion's macros make public functions")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use roentgen::geometry::{Affine, Grid};
use roentgen::gpu::{self, Gpu};
use roentgen::kernels::bounding_box::{bounding_box_cpu, bounding_box_gpu};
use roentgen::kernels::components::{ComponentRuns, Connectivity, components_cpu};
use roentgen::kernels::components_gpu::components_gpu;
use roentgen::kernels::distance::{Target, distance_mm_cpu, distance_mm_gpu};
use roentgen::kernels::gaussian::{Boundary, Gaussian, gaussian_cpu, gaussian_gpu};
use roentgen::kernels::holes::fill_holes_cpu;
use roentgen::kernels::label_statistics::{label_statistics_cpu, label_statistics_gpu};
use roentgen::kernels::morphology::{Element, Operation, morphology_cpu, morphology_gpu};
use roentgen::kernels::patches::{Patch, Weighting, gather_patch_cpu, scatter_patch_cpu};
use roentgen::kernels::percentiles::{percentiles_cpu, percentiles_gpu};
use roentgen::kernels::probabilities::{sigmoid_cpu, softmax_cpu};
use roentgen::kernels::projection::{Project, project_cpu, project_gpu};
use roentgen::kernels::statistics::{statistics_cpu, statistics_gpu};
use roentgen::kernels::{
    Interpolation, Mask, Resample, Rule, ScoresToLabels, resample_cpu, resample_gpu, resample_half_cpu, scores_to_labels_cpu,
    scores_to_labels_gpu,
};
use roentgen::volume::{ImageVolume, LabelMap, Quantity, Rescale, Stored, Volume};

/// A CT of 0.7 x 0.7 x 1.0 mm: a bright ellipsoid in air, with noise.
fn source() -> ImageVolume {
    let dims = if std::env::var_os("ROENTGEN_BENCH_LARGE").is_some() { [512, 512, 300] } else { [256, 256, 96] };
    let grid = Grid::new(dims, Affine::scale_then_shift([0.7, 0.7, 1.0], [0.0; 3])).expect("a grid");
    let mut noise = 1u32;
    let stored = (0..grid.voxel_count()).map(|n| {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let inside = radius(&dims, n) < 0.8;
        (if inside { 1064 } else { 24 }) + (noise >> 26) as i16
    });
    let stored = Volume::new(grid, stored.collect());
    ImageVolume {
        stored: stored.into(),
        rescale: vec![Rescale { slope: 1.0, intercept: -1024.0 }; dims[2] as usize],
        quantity: Quantity::Hounsfield,
    }
}

/// The same image as floats.
fn floats(image: &ImageVolume) -> ImageVolume {
    let voxels = (0..image.grid().voxel_count()).map(|n| image.stored.value(n) as f32).collect();
    let stored = Stored::float32(Volume::new(*image.grid(), voxels)).expect("numbers");
    ImageVolume { stored, rescale: image.rescale.clone(), quantity: image.quantity }
}

/// Distance of voxel `n` from the centre, 1 at the middle of each face.
fn radius(dims: &[u32; 3], n: usize) -> f64 {
    let [nx, ny, nz] = dims.map(|d| d as usize);
    let voxel = [n % nx, n / nx % ny, n / nx / ny];
    let square = |v: usize, d: usize| ((2.0 * v as f64 + 1.0) / d as f64 - 1.0).powi(2);
    (square(voxel[0], nx) + square(voxel[1], ny) + square(voxel[2], nz)).sqrt()
}

/// Scores of nested shells.
fn shells(dims: [u32; 3], channels: usize) -> Vec<f32> {
    let voxels = dims.iter().map(|&d| d as usize).product();
    (0..channels).flat_map(|c| (0..voxels).map(move |n| -(radius(&dims, n) - 0.2 * c as f64).abs() as f32)).collect()
}

fn case(gpu: Option<&Gpu>) -> Option<(&Gpu, String)> {
    gpu.map(|gpu| (gpu, format!("gpu {}", gpu.summary().name)))
}

fn resample(c: &mut Criterion) {
    let gpu = gpu::for_tests();
    let image = source();
    let target = image.grid().respaced([1.5; 3]).expect("a grid");
    let p = Resample {
        clip: Some([-1000.0, 1000.0]),
        subtract: -100.0,
        divide: 400.0,
        ..Resample::new(target.dims(), image.grid().voxel_from_lps() * target.lps_from_voxel())
    };
    let [nx, ny, nz] = p.target_dims;
    let centre = p.source_from_target.column(3);
    let x_to_z = Affine::from_columns([0., 0., 1.5], [1.5 / 0.7, 0., 0.], [0., 1.5 / 0.7, 0.], centre);
    let turned = Resample { source_from_target: x_to_z, target_dims: [nz, nx, ny], ..p.clone() };
    let (sin, cos) = 0.1f64.sin_cos();
    let tilt = Affine::from_columns([cos, sin, 0.], [-sin, cos, 0.], [0., 0., 1.], [0.; 3]);
    let oblique = Resample { source_from_target: tilt * p.source_from_target, ..p.clone() };

    let lean = Affine::from_columns([1., 0., 0.], [0., 1., 0.], [0.1, 0.3, 1.], [0.; 3]);
    let sheared = Resample { source_from_target: lean * p.source_from_target, outside: Some(-1000.0), ..p.clone() };
    let of_floats = floats(&image);

    let mut group = c.benchmark_group("resample to 1.5 mm");
    group.sample_size(10).throughput(Throughput::Elements(target.voxel_count() as u64));
    group.bench_function("cpu", |b| b.iter(|| resample_cpu(&image, &p)));
    group.bench_function("cpu, axes permuted", |b| b.iter(|| resample_cpu(&image, &turned)));
    group.bench_function("cpu, oblique", |b| b.iter(|| resample_cpu(&image, &oblique)));
    group.bench_function("cpu, sheared", |b| b.iter(|| resample_cpu(&image, &sheared)));
    group.bench_function("cpu, floats", |b| b.iter(|| resample_cpu(&of_floats, &p)));
    group.bench_function("cpu, half precision", |b| b.iter(|| resample_half_cpu(&image, &p)));
    let area = Resample { interpolation: Interpolation::Area, ..p.clone() };
    group.bench_function("cpu, area", |b| b.iter(|| resample_cpu(&image, &area)));
    let cubic = Resample { interpolation: Interpolation::Cubic, values_first: true, ..p.clone() };
    group.bench_function("cpu, cubic", |b| b.iter(|| resample_cpu(&image, &cubic)));
    if let Some((gpu, name)) = case(gpu.as_ref()) {
        group.bench_function(name, |b| b.iter(|| resample_gpu(gpu, &image, &p).expect("the GPU works")));
    }
    group.finish();
}

fn scores_to_labels(c: &mut Criterion) {
    let gpu = gpu::for_tests();
    let target = *source().grid();
    let network = target.respaced([1.5; 3]).expect("a grid");
    let scores = shells(network.dims(), 5);
    let p = ScoresToLabels {
        network_dims: network.dims(),
        target_dims: target.dims(),
        network_from_target: network.voxel_from_lps() * target.lps_from_voxel(),
        interpolation: [Interpolation::Linear; 3],
        label_of_channel: &[0, 1, 2, 3, 4],
        rule: Rule::Highest,
    };
    let mut group = c.benchmark_group("scores to labels, 5 classes");
    group.sample_size(10).throughput(Throughput::Elements(target.voxel_count() as u64));
    group.bench_function("cpu", |b| b.iter(|| scores_to_labels_cpu(&scores, &p)));
    if let Some((gpu, name)) = case(gpu.as_ref()) {
        group.bench_function(name, |b| b.iter(|| scores_to_labels_gpu(gpu, &scores, &p).expect("the GPU works")));
    }
    group.finish();
}

/// Shells of five labels with speckles of a sixth, as noise makes them.
fn label_map() -> LabelMap {
    let grid = *source().grid();
    let dims = grid.dims();
    let label = |n: usize| if n.wrapping_mul(2_654_435_761).is_multiple_of(257) { 6 } else { (radius(&dims, n) * 4.0).min(5.0) as u8 };
    Volume::new(grid, (0..grid.voxel_count()).map(label).collect())
}

fn components(c: &mut Criterion) {
    let gpu = gpu::for_tests();
    let labels = label_map();
    let dims = labels.grid().dims();
    let mut group = c.benchmark_group("components, 26 neighbours");
    group.sample_size(10).throughput(Throughput::Elements(labels.voxels().len() as u64));
    group.bench_function("cpu, sizes", |b| b.iter(|| ComponentRuns::of(labels.voxels(), dims, Connectivity::TwentySix)));
    group.bench_function("cpu, a number a voxel", |b| b.iter(|| components_cpu(labels.voxels(), dims, Connectivity::TwentySix)));
    if let Some((gpu, name)) = case(gpu.as_ref()) {
        group.bench_function(name, |b| {
            b.iter(|| components_gpu(gpu, labels.voxels(), dims, Connectivity::TwentySix).expect("the GPU works"));
        });
    }
    group.finish();
}

fn label_statistics(c: &mut Criterion) {
    let gpu = gpu::for_tests();
    let (labels, image) = (label_map(), source());
    let mut group = c.benchmark_group("label statistics, 6 labels");
    group.sample_size(10).throughput(Throughput::Elements(labels.voxels().len() as u64));
    let of_floats = floats(&image);
    group.bench_function("cpu", |b| b.iter(|| label_statistics_cpu(&labels, &image)));
    group.bench_function("cpu, floats", |b| b.iter(|| label_statistics_cpu(&labels, &of_floats)));
    if let Some((gpu, name)) = case(gpu.as_ref()) {
        group.bench_function(name, |b| b.iter(|| label_statistics_gpu(gpu, &labels, &image).expect("the GPU works")));
    }
    group.finish();
}

/// One volume in, a few numbers or a picture out.
fn statistics(c: &mut Criterion) {
    let gpu = gpu::for_tests();
    let image = source();
    let mut group = c.benchmark_group("statistics");
    group.sample_size(10).throughput(Throughput::Elements(image.grid().voxel_count() as u64));
    group.bench_function("mean, cpu", |b| b.iter(|| statistics_cpu(&image, Mask::All)));
    group.bench_function("mean above, cpu", |b| b.iter(|| statistics_cpu(&image, Mask::Above(0.0))));
    group.bench_function("percentiles, cpu", |b| b.iter(|| percentiles_cpu(&image, Mask::All, &[0.5, 99.5])));
    group.bench_function("bounding box, cpu", |b| b.iter(|| bounding_box_cpu(&image, Mask::Above(0.0))));
    group.bench_function("maximum along k, cpu", |b| b.iter(|| project_cpu(&image, 2, Project::Maximum)));
    if let Some((gpu, name)) = case(gpu.as_ref()) {
        let works = "the GPU works";
        group.bench_function(format!("mean, {name}"), |b| b.iter(|| statistics_gpu(gpu, &image, Mask::All).expect(works)));
        group.bench_function(format!("percentiles, {name}"), |b| {
            b.iter(|| percentiles_gpu(gpu, &image, Mask::All, &[0.5, 99.5]).expect(works));
        });
        group.bench_function(format!("bounding box, {name}"), |b| b.iter(|| bounding_box_gpu(gpu, &image, Mask::Above(0.0)).expect(works)));
        group
            .bench_function(format!("maximum along k, {name}"), |b| b.iter(|| project_gpu(gpu, &image, 2, Project::Maximum).expect(works)));
    }
    group.finish();
}

/// A mask or a field in, as much out.
fn neighbourhoods(c: &mut Criterion) {
    let gpu = gpu::for_tests();
    let image = source();
    let dims = image.grid().dims();
    let spacing_mm = [0.7, 0.7, 1.0];
    let mask: Vec<u8> = (0..image.grid().voxel_count()).map(|n| u8::from(radius(&dims, n) < 0.8)).collect();
    let values: Vec<f32> = (0..mask.len()).map(|n| image.stored.value(n) as f32).collect();
    let open = (Operation::Open, Element::Neighbours(Connectivity::Six, 3));
    let gaussian = Gaussian { sigma_voxels: [1.5; 3], boundary: Boundary::Reflect };
    let mut group = c.benchmark_group("neighbourhoods");
    group.sample_size(10).throughput(Throughput::Elements(mask.len() as u64));
    group.bench_function("distance, cpu", |b| b.iter(|| distance_mm_cpu(&mask, dims, spacing_mm, Target::Background)));
    group.bench_function("opening, 3 times 6 neighbours, cpu", |b| b.iter(|| morphology_cpu(&mut mask.clone(), dims, open.0, open.1)));
    group.bench_function("holes, cpu", |b| b.iter(|| fill_holes_cpu(&mut mask.clone(), dims, 1, false)));
    group.bench_function("gaussian of 1.5 voxels, cpu", |b| b.iter(|| gaussian_cpu(&mut values.clone(), dims, &gaussian)));
    if let Some((gpu, name)) = case(gpu.as_ref()) {
        let works = "the GPU works";
        group.bench_function(format!("distance, {name}"), |b| {
            b.iter(|| distance_mm_gpu(gpu, &mask, dims, spacing_mm, Target::Background).expect(works));
        });
        group.bench_function(format!("opening, 3 times 6 neighbours, {name}"), |b| {
            b.iter(|| morphology_gpu(gpu, &mut mask.clone(), dims, open.0, open.1).expect(works));
        });
        group.bench_function(format!("gaussian of 1.5 voxels, {name}"), |b| {
            b.iter(|| gaussian_gpu(gpu, &mut values.clone(), dims, &gaussian).expect(works));
        });
    }
    group.finish();
}

/// What happens around one run of a network: a patch of 128 voxels and 5 classes.
fn patches(c: &mut Criterion) {
    let dims = source().grid().dims();
    let patch = Patch { start: [16, 16, -8], dims: [128; 3], mirror: [false; 3] };
    let weights = Weighting::NnunetGaussian.weights(patch.dims);
    let volume = shells(dims, 1);
    let mut scores = shells(patch.dims, 5);
    let mut seen = vec![0.0; weights.len()];
    let (mut sums, mut weight_sums) = (vec![0.0; volume.len() * 5], vec![0.0; volume.len()]);
    let mut group = c.benchmark_group("patch of 128 voxels, 5 classes");
    group.sample_size(10).throughput(Throughput::Elements(weights.len() as u64));
    group.bench_function("gather, cpu", |b| b.iter(|| gather_patch_cpu(&volume, dims, &patch, 0.0, &mut seen)));
    group.bench_function("scatter, cpu", |b| {
        b.iter(|| scatter_patch_cpu(&mut sums, &mut weight_sums, dims, &patch, &scores, &weights));
    });
    group.bench_function("softmax, cpu", |b| b.iter(|| softmax_cpu(&mut scores, 5)));
    group.bench_function("sigmoid, cpu", |b| b.iter(|| sigmoid_cpu(&mut scores)));
    group.finish();
}

criterion_group!(benches, statistics, neighbourhoods, patches, resample, scores_to_labels, components, label_statistics);
criterion_main!(benches);
