//! The kernels as `roentgen bench` has them (`src/bench/cases.rs`), timed by criterion: the CPU implementation, and the GPU's with its
//! transfers where there is an adapter.
//!
//! `cargo bench --bench kernels -- --quick "scores to labels"`. `ROENTGEN_BENCH_LARGE=1` takes 512 voxels a side instead of 128.

#![allow(missing_docs, reason = "criterion's macros make public functions")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use roentgen::bench::Cases;
use roentgen::gpu;

fn kernels(criterion: &mut Criterion) {
    let size = if std::env::var_os("ROENTGEN_BENCH_LARGE").is_some() { 512 } else { 128 };
    let gpu = gpu::for_tests();
    let cases = Cases::of(size);
    for mut case in cases.all() {
        let mut group = criterion.benchmark_group(format!("{}: {}", case.name, case.variant));
        group.sample_size(10).throughput(Throughput::Bytes(case.bytes));
        group.bench_function("cpu", |b| b.iter(|| case.run_on_cpu()));
        if let Some(gpu) = gpu.as_ref().filter(|_| case.is_on_gpu()) {
            group.bench_function(format!("gpu {}", gpu.summary().name), |b| b.iter(|| case.run_on_gpu(gpu).expect("the GPU works")));
        }
        group.finish();
    }
}

criterion_group!(benches, kernels);
criterion_main!(benches);
