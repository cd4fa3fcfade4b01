//! Writes the report and the segmentation of a synthetic volume, and says how long that takes and how much memory.
//!
//! `cargo run --release --example results -- [--segments N] [--dims I,J,K] [--forms sr,seg] [--rounds N] [--keep DIR]`
//!
//! Prints a line for people and, for the comparison with other programs, `RESULT {"times":[..],"voxels":N,"check":{..}}`. The time is that of
//! `results::write_all`: all objects written, synced, read again and compared. With `--keep`, series and label map stay in DIR for
//! `benches/results_peer.py`, which writes the same with highdicom.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, bail};
use roentgen::results::{Forms, write_all};

#[path = "../benches/made/mod.rs"]
mod made;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (mut segments, mut dims, mut rounds) = (20u8, [512u32, 512, 300], 3);
    let mut forms: Forms = "sr,seg".parse()?;
    let mut keep: Option<PathBuf> = None;
    while let Some(name) = arguments.next() {
        let value = arguments.next().with_context(|| format!("{name} takes a value"))?;
        match name.as_str() {
            "--segments" => segments = value.parse()?,
            "--dims" => {
                let all: Vec<u32> = value.split(',').map(str::parse).collect::<Result<_, _>>()?;
                dims = all.try_into().ok().context("--dims takes three numbers")?;
            }
            "--rounds" => rounds = value.parse()?,
            "--forms" => forms = value.parse()?,
            "--keep" => keep = Some(value.into()),
            _ => bail!("no option is called {name}"),
        }
    }
    let temporary = tempfile::tempdir()?;
    let folder = keep.as_deref().unwrap_or(temporary.path());
    let series = folder.join("series");
    std::fs::create_dir_all(&series)?;
    made::write_series(&series, dims)?;
    let (stack, loaded) = made::load(&series)?;
    let findings = made::findings(&stack, &loaded, segments);
    if keep.is_some() {
        std::fs::write(folder.join("labels.raw"), findings.labels.voxels())?;
    }
    let before_mb = memory_mb("VmRSS:");
    let output = tempfile::tempdir()?;
    let mut times = Vec::new();
    let mut bytes = 0;
    for round in 0..rounds {
        let folder = output.path().join(round.to_string());
        let start = Instant::now();
        let written = write_all(&findings, &loaded.image, &forms, &folder)?;
        times.push(start.elapsed().as_secs_f64());
        bytes = written.files.iter().map(|(_, path)| std::fs::metadata(path).map_or(0, |m| m.len())).sum();
        std::fs::remove_dir_all(&folder)?;
    }
    times.sort_by(f64::total_cmp);
    let voxels = findings.labels.voxels().len();
    println!(
        "{segments} segments, {forms}: {:.3} s (median of {rounds}), {:.1} MB written, {before_mb:.0} MB before, {:.0} MB at most",
        times[times.len() / 2],
        bytes as f64 / 1e6,
        memory_mb("VmHWM:"),
    );
    let found = findings.findings.len();
    println!("RESULT {{\"times\":{times:?},\"voxels\":{voxels},\"check\":{{\"segments\":{found},\"bytes\":{bytes}}}}}");
    Ok(())
}

/// A line of `/proc/self/status`, MB; 0 where there is none.
fn memory_mb(name: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok()).map_or(0.0, |kb| kb / 1024.0)
}
