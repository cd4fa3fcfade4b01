//! What memory and arithmetic can do at most, measured: a copy, a read, a fill, and multiply-adds in registers.

use std::time::Duration;

use rayon::prelude::*;

use super::report::Limits;
use super::samples::{Samples, median, repeat, repeat_gpu};
use crate::gpu::{Gpu, GpuError};

/// Larger than any cache, bytes.
const CPU_BYTES: usize = 256 << 20;
const GPU_BYTES: u64 = 256 << 20;
/// Multiply-adds in registers on each thread.
const CPU_ROUNDS: usize = 4 << 20;

fn per_second(amount: f64, samples: &Samples) -> f64 {
    amount / median(&samples.warm).as_secs_f64().max(1e-9)
}

/// Of all threads together.
pub(super) fn of_cpu(budget: Duration) -> Limits {
    let threads = rayon::current_num_threads();
    let floats = CPU_BYTES / 4;
    let piece = floats.div_ceil(threads);
    let source = vec![1.0f32; floats];
    let mut target = vec![0.0f32; floats];
    let copy =
        repeat(budget, || target.par_chunks_mut(piece).zip(source.par_chunks(piece)).for_each(|(to, from)| to.copy_from_slice(from)));
    let fill = repeat(budget, || target.par_chunks_mut(piece).for_each(|to| to.fill(2.0)));
    let read = repeat(budget, || source.par_chunks(piece).map(sum).sum::<f32>());
    let multiply = repeat(budget, || (0..threads).into_par_iter().map(|_| multiply_adds(CPU_ROUNDS)).sum::<f32>());
    let gb = CPU_BYTES as f64 / 1e9;
    Limits {
        copy_gb_s: per_second(2.0 * gb, &copy),
        read_gb_s: per_second(gb, &read),
        fill_gb_s: per_second(gb, &fill),
        compute_gflop_s: per_second(2.0 * (LANES * CPU_ROUNDS * threads) as f64 / 1e9, &multiply),
        upload_gb_s: None,
        download_gb_s: None,
    }
}

/// Sums that do not wait for each other: as much as the adders and loads of a core can do.
const LANES: usize = 192;

/// The same loop for more and more instructions, the best that the processor has.
macro_rules! best {
    (fn $name:ident($arg:ident: $type:ty) -> f32 $body:block) => {
        fn $name($arg: $type) -> f32 {
            #[inline(always)]
            fn portable<const FUSED: bool>($arg: $type) -> f32 $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,fma")]
                fn avx512($arg: $type) -> f32 { portable::<true>($arg) }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($arg: $type) -> f32 { portable::<true>($arg) }

                let fma = std::arch::is_x86_feature_detected!("fma");
                #[allow(unsafe_code, reason = "calling functions compiled for more instructions")]
                if fma && std::arch::is_x86_feature_detected!("avx512f") {
                    // SAFETY: the processor has AVX-512F and FMA, the only requirements of this function.
                    return unsafe { avx512($arg) };
                } else if fma && std::arch::is_x86_feature_detected!("avx2") {
                    // SAFETY: the processor has AVX2 and FMA, the only requirements of this function.
                    return unsafe { avx2($arg) };
                }
            }
            portable::<{ cfg!(target_arch = "aarch64") }>($arg)
        }
    };
}

best! {
    fn multiply_adds(rounds: usize) -> f32 {
        let mut sums = [3.0f32; LANES];
        let (factor, summand) = std::hint::black_box((0.999_f32, 0.001_f32));
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = if FUSED { sum.mul_add(factor, summand) } else { *sum * factor + summand };
            }
        }
        sums.iter().sum()
    }
}

best! {
    fn sum(values: &[f32]) -> f32 {
        let _ = FUSED;
        let mut sums = [0.0f32; LANES];
        let mut chunks = values.chunks_exact(LANES);
        for chunk in &mut chunks {
            sums.iter_mut().zip(chunk).for_each(|(sum, value)| *sum += value);
        }
        sums.iter().chain(chunks.remainder()).sum()
    }
}

const COPY: &str = include_str!("../../shaders/bench_copy.wgsl");
const MULTIPLY_ADD: &str = include_str!("../../shaders/bench_multiply_add.wgsl");
/// As in the shaders.
const THREADS: u64 = 256;
const ROUNDS: u64 = 4096;

/// Of a GPU and of the way to it.
pub(super) fn of_gpu(gpu: &Gpu, budget: Duration) -> Result<Limits, GpuError> {
    let bytes = GPU_BYTES.min(gpu.max_storage_bytes() / 4096 * 4096);
    let vectors = bytes / 16;
    let limit = u64::from(gpu.summary().max_workgroups_per_dimension);
    let groups = vectors.div_ceil(THREADS);
    let groups = [groups.min(limit) as u32, groups.div_ceil(limit) as u32, 1];
    let source = gpu.storage("bench: source", bytes)?;
    let target = gpu.storage("bench: target", bytes)?;
    let copying = |entry| {
        let pipeline = gpu.pipeline(entry, COPY, &[])?;
        repeat_gpu(gpu, budget, |gpu| gpu.dispatch(entry, &pipeline, &[&source, &target], groups))
    };
    let (copy, fill, read) = (copying("copy")?, copying("fill")?, copying("read_all")?);
    let pipeline = gpu.pipeline("multiply_add", MULTIPLY_ADD, &[])?;
    let groups = 1024;
    let multiply = repeat_gpu(gpu, budget, |gpu| gpu.dispatch("multiply_add", &pipeline, &[&target], [groups, 1, 1]))?;
    let mut host = vec![1u32; bytes as usize / 4];
    let upload = repeat_gpu(gpu, budget, |gpu| gpu.write(&source, 0, &host))?;
    let download = repeat_gpu(gpu, budget, |gpu| gpu.read_into(&target, &mut host))?;
    let gb = bytes as f64 / 1e9;
    let transfer = |samples: &Samples| gb / median(&samples.calls).as_secs_f64().max(1e-9);
    // Four sums of four lanes each, two operations a multiply-add.
    let operations = (u64::from(groups) * THREADS * ROUNDS * 4 * 4 * 2) as f64 / 1e9;
    Ok(Limits {
        copy_gb_s: per_second(2.0 * gb, &copy),
        read_gb_s: per_second(gb, &read),
        fill_gb_s: per_second(gb, &fill),
        compute_gflop_s: per_second(operations, &multiply),
        upload_gb_s: Some(transfer(&upload)),
        download_gb_s: Some(transfer(&download)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shaders_are_valid_and_run_where_there_is_an_adapter() -> Result<(), GpuError> {
        for source in [COPY, MULTIPLY_ADD] {
            let module = naga::front::wgsl::parse_str(source).unwrap_or_else(|err| panic!("{}", err.emit_to_string(source)));
            let mut validator = naga::valid::Validator::new(naga::valid::ValidationFlags::all(), naga::valid::Capabilities::empty());
            validator.validate(&module).expect("the shader is valid");
        }
        let Some(gpu) = crate::gpu::for_tests() else { return Ok(()) };
        let source: Vec<u32> = (0..4096).collect();
        let (source_buffer, target) = (gpu.upload("source", &source)?, gpu.storage("target", 4 * 4096)?);
        let mut seen = vec![0u32; 4096];
        for (entry, expected) in [("copy", source[77]), ("fill", 77 / 4), ("read_all", 77 / 4)] {
            let pipeline = gpu.pipeline(entry, COPY, &[])?;
            gpu.dispatch(entry, &pipeline, &[&source_buffer, &target], [4, 1, 1])?;
            gpu.read_into(&target, &mut seen)?;
            assert_eq!(seen[77], expected, "{entry}");
        }
        let pipeline = gpu.pipeline("multiply_add", MULTIPLY_ADD, &[])?;
        gpu.dispatch("multiply_add", &pipeline, &[&target], [1, 1, 1])?;
        let mut sums = vec![0.0f32; 4];
        gpu.read_into(&target, &mut sums)?;
        assert!((sums[0] - 4.0).abs() < 0.2, "each converges to 1: {sums:?}");
        Ok(())
    }

    #[test]
    fn arithmetic_is_right_whatever_the_instructions() {
        assert_eq!(sum(&vec![1.0; 1000]), 1000.0);
        let mut expected = 3.0f32;
        for _ in 0..1000 {
            expected = expected * 0.999 + 0.001;
        }
        assert!((multiply_adds(1000) / LANES as f32 - expected).abs() < 1e-3);
    }
}
