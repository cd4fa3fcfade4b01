//! Loading a series from the page cache: finding it, checking its geometry, decoding it into its volume; and hashing what was read.
//!
//! ROENTGEN_BENCH_LARGE=1 takes a chest CT of 512 x 512 x 300 voxels instead of a small one.

#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use roentgen::phantom::{Sampling, chest, write_series};
use roentgen::series::{GeometryPolicy, discover};

fn loading(criterion: &mut Criterion) {
    let large = std::env::var_os("ROENTGEN_BENCH_LARGE").is_some();
    let (dims, spacing_mm) = if large { ([512, 512, 300], [0.7, 0.7, 1.0]) } else { ([128, 128, 40], [2.8, 2.8, 7.5]) };
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    write_series(&chest(&Sampling { dims, spacing_mm, noise_hu: 15.0 }), folder.path()).expect("the phantom can be written");
    let inputs = [folder.path().to_owned()];
    let stack = || discover(&inputs).series[0].parts(GeometryPolicy::Refuse)[0].gate().expect("the phantom is regular");

    let mut group = criterion.benchmark_group("loading");
    group.sample_size(10).throughput(Throughput::Elements(dims.iter().map(|&d| u64::from(d)).product()));
    group.bench_function("find and check", |b| b.iter(|| black_box(stack())));
    group.bench_function("find, check and load", |b| b.iter(|| black_box(stack().load().expect("whole files"))));
    let loaded = stack().load().expect("whole files");
    group.bench_function("hash", |b| b.iter(|| black_box(loaded.content_sha256())));
    group.finish();
}

criterion_group!(benches, loading);
criterion_main!(benches);
