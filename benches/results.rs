//! Writing results: report and segmentation, label map, all synced, read again and compared with the findings.
//!
//! ROENTGEN_BENCH_LARGE=1 takes 512 x 512 x 300 voxels with 20 segments instead of a small volume. Beside other programs:
//! `examples/results.rs`.

#![allow(missing_docs, reason = "criterion's macros make public functions")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use roentgen::results::{Forms, write_all};

mod made;

fn results(criterion: &mut Criterion) {
    let large = std::env::var_os("ROENTGEN_BENCH_LARGE").is_some();
    let dims = if large { [512, 512, 300] } else { [128, 128, 40] };
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    made::write_series(folder.path(), dims).expect("the series can be written");
    let (stack, loaded) = made::load(folder.path()).expect("the series is regular");
    let findings = made::findings(&stack, &loaded, 20);

    let mut group = criterion.benchmark_group("results");
    group.sample_size(10).throughput(Throughput::Elements(dims.iter().map(|&d| u64::from(d)).product()));
    for forms in ["sr,seg", "sr,labelmap"] {
        let wanted: Forms = forms.parse().expect("forms");
        let output = folder.path().join("results");
        group.bench_function(forms, |b| {
            b.iter(|| write_all(&findings, &loaded.image, &wanted, &output).expect("results can be written"));
        });
    }
    group.finish();
}

criterion_group!(benches, results);
criterion_main!(benches);
