//! What was measured, as `roentgen bench --json` writes it and `--compare` reads it.

use std::fs;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::cases::Case;
use super::samples::{Samples, median, spread_percent};
use crate::gpu::{AdapterKind, Clock};
use crate::infer::memory;

/// All of one run of the bench.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Version of this program.
    pub roentgen: String,
    /// Where it ran.
    pub machine: Machine,
    /// What ran, each with its limits.
    pub devices: Vec<Adapter>,
    /// Each kernel on each device at each size.
    pub kernels: Vec<KernelReport>,
    /// Each stage of a whole run, for each device, provider and package.
    pub runs: Vec<RunReport>,
    /// What could not be measured, and why.
    pub left_out: Vec<String>,
}

/// The machine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's own name.
    pub cpu: String,
    /// Threads that the kernels use.
    pub threads: usize,
    /// Memory, MB.
    pub memory_mb: Option<u64>,
    /// Operating system and architecture.
    pub system: String,
}

/// A device and what it can do at most.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Adapter {
    /// `cpu`, or the name of the adapter.
    pub name: String,
    /// What kind of adapter it is; none for the CPU.
    pub adapter: Option<AdapterKind>,
    /// What it can do at most.
    pub limits: Limits,
}

/// The most that was reached here by code that does nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// A copy, read and written bytes together.
    pub copy_gb_s: f64,
    /// Reading alone.
    pub read_gb_s: f64,
    /// Writing alone.
    pub fill_gb_s: f64,
    /// Multiply-adds in registers, f32, two operations each.
    pub compute_gflop_s: f64,
    /// From host memory to the device.
    pub upload_gb_s: Option<f64>,
    /// And back.
    pub download_gb_s: Option<f64>,
}

/// One kernel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KernelReport {
    /// Where it ran.
    pub device: String,
    /// Which kernel.
    pub kernel: String,
    /// On what.
    pub variant: String,
    /// Voxels along each axis of the volume.
    pub size: u32,
    /// Voxels of the larger grid.
    pub voxels: u64,
    /// Bytes that must move.
    pub bytes: u64,
    /// Additions and multiplications of its formula; 0 where that says nothing.
    pub operations: u64,
    /// The first call, with what is made once.
    pub cold_ms: f64,
    /// The median of the later ones: on a GPU of the dispatches alone.
    pub median_ms: f64,
    /// Half the distance between the quartiles, percent of the median.
    pub spread_percent: f64,
    /// How many later ones.
    pub samples: usize,
    /// What they were measured with.
    pub clock: Clock,
    /// The median of the whole call: on a GPU with uploads and readback.
    pub call_ms: f64,
    /// Millions of voxels a second.
    pub mvoxel_s: f64,
    /// Bytes that must move, a second.
    pub gb_s: f64,
    /// Of the copy bandwidth, percent.
    pub bandwidth_percent: f64,
    /// Of the arithmetic, percent; none where operations say nothing.
    pub compute_percent: Option<f64>,
}

/// One package on one phantom, on one device with one provider.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunReport {
    /// Where the kernels ran.
    pub device: String,
    /// Where the network ran.
    pub provider: String,
    /// The package.
    pub package: String,
    /// Columns, rows and slices of the series.
    pub dims: [u32; 3],
    /// Opening the device, the library and the network.
    pub open_ms: f64,
    /// Its stages, in order.
    pub stages: Vec<StageReport>,
}

/// One stage of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageReport {
    /// Which.
    pub stage: String,
    /// In the first run.
    pub cold_ms: f64,
    /// The median of the later ones.
    pub median_ms: f64,
    /// Half the distance between the quartiles, percent of the median.
    pub spread_percent: f64,
}

pub(super) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

impl KernelReport {
    pub(super) fn of(device: &str, case: &Case<'_>, size: u32, samples: &Samples, limits: &Limits) -> Self {
        let seconds = median(&samples.warm).as_secs_f64().max(1e-9);
        let gb_s = case.bytes as f64 / 1e9 / seconds;
        let gflop_s = case.operations as f64 / 1e9 / seconds;
        Self {
            device: device.to_owned(),
            kernel: case.name.to_owned(),
            variant: case.variant.to_owned(),
            size,
            voxels: case.voxels,
            bytes: case.bytes,
            operations: case.operations,
            cold_ms: ms(samples.cold),
            median_ms: seconds * 1e3,
            spread_percent: spread_percent(&samples.warm),
            samples: samples.warm.len(),
            clock: samples.clock,
            call_ms: ms(median(&samples.calls)),
            mvoxel_s: case.voxels as f64 / 1e6 / seconds,
            gb_s,
            bandwidth_percent: 100.0 * gb_s / limits.copy_gb_s,
            compute_percent: (case.operations > 0).then(|| 100.0 * gflop_s / limits.compute_gflop_s),
        }
    }
}

impl Machine {
    /// This one.
    pub fn this() -> Self {
        let cpu = fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("model name"))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        });
        Self {
            cpu: cpu.unwrap_or_else(|| "unknown".to_owned()),
            threads: rayon::current_num_threads(),
            memory_mb: memory::machine_bytes().map(|bytes| bytes >> 20),
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        }
    }
}
