//! Loads a series as the engine does: find it, check its geometry, decode it into one volume.
//!
//!     cargo run --release --example load -- FOLDER [ROUNDS]
//!
//! The last line, `RESULT {...}`, is what the comparison with other programs reads: wall and processor seconds of each round after the
//! first, and what the volume holds. Voxels stay the 16-bit integers that were stored, with the map to physical values beside them.

mod processor;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, bail};
use processor::processor_seconds;
use roentgen::series::{GeometryPolicy, Loaded, Stack, discover};

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().context("give a folder with one series")?);
    let rounds: usize = arguments.next().map_or(Ok(5), |n| n.parse()).context("rounds are a number")?;
    let (mut times, mut cpu) = (Vec::new(), Vec::new());
    let mut last = None;
    for round in 0..=rounds {
        drop(last.take()); // one volume at a time
        let (wall, processor) = (Instant::now(), processor_seconds());
        let found = discover(std::slice::from_ref(&folder));
        let series = found.series.first().with_context(|| format!("no series below {}", folder.display()))?;
        let opened = wall.elapsed();
        let stack = series.parts(GeometryPolicy::Refuse)[0].gate()?;
        let checked = wall.elapsed();
        let loaded = stack.load()?;
        if round > 0 {
            times.push(wall.elapsed().as_secs_f64());
            cpu.push(processor_seconds() - processor);
            println!(
                "found {:.4} s, checked {:.4} s, loaded {:.4} s",
                opened.as_secs_f64(),
                checked.as_secs_f64(),
                wall.elapsed().as_secs_f64()
            );
        }
        last = Some((stack, loaded));
    }
    let Some((stack, loaded)) = last else { bail!("no round") };
    if let Some(peak) = status_kb("VmHWM:") {
        let volume = stack.grid.voxel_count() as f64 * 2.0;
        println!("peak memory {:.1} MB, {:.3} times the volume", peak * 1024.0 / 1e6, peak * 1024.0 / volume);
    }
    println!(
        "RESULT {}",
        serde_json::json!({
            "times": times, "cpu": cpu, "voxels": stack.grid.voxel_count(), "check": summary(&stack, &loaded),
        })
    );
    Ok(())
}

/// Shape (slices, rows, columns), mean, and five samples on the diagonal, as the peers print them.
fn summary(stack: &Stack, loaded: &Loaded) -> serde_json::Value {
    let [columns, rows, slices] = stack.grid.dims().map(|d| d as usize);
    let mut sum = 0.0;
    for k in 0..slices {
        for j in 0..rows {
            sum += (0..columns).map(|i| loaded.image.physical([i, j, k])).sum::<f64>();
        }
    }
    let at = |length: usize, n: usize| ((0.31 + 0.095 * n as f64) * length as f64) as usize;
    let sample = |n: usize| loaded.image.physical([at(columns, n), at(rows, n), at(slices, n)]);
    serde_json::json!({
        "shape": [slices, rows, columns],
        "mean": sum / stack.grid.voxel_count() as f64,
        "samples": (0..5).map(sample).collect::<Vec<f64>>(),
    })
}

fn status_kb(key: &str) -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|l| l.strip_prefix(key)?.split_whitespace().next()?.parse().ok())
}
