//! How fast kernels and whole runs are here, beside the limits of the machine, which are measured in the same run.
//!
//! [`measure`] gives a [`Report`], from which the table, the page and the comparison are made; [`trace`] is one run as a timeline. Times are
//! medians of warm repetitions; the first one is told apart as cold. Bytes are those that must move, each input read once and each output
//! written once, so that a share of the bandwidth of 1 cannot be surpassed except out of caches.

mod compare;
mod cases;
mod limits;
mod page;
mod report;
mod runs;
mod samples;
mod trace;

use std::time::Duration;

pub use cases::{Case, Cases};
pub use compare::{Change, compare};
pub use page::page;
pub(crate) use page::short;
pub use report::{Adapter, KernelReport, Limits, Machine, Report, RunReport, StageReport};
pub use runs::{RunError, Runs};
pub use trace::trace;

use crate::gpu::{AdapterSummary, DeviceChoice, Gpu, GpuError};
use crate::infer::memory;

/// What is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The devices; [`all_devices`] are those of this machine.
    pub devices: Vec<DeviceChoice>,
    /// Edges of the cubes that kernels get, voxels. Those that do not fit into memory are left out, and said so.
    pub sizes: Vec<u32>,
    /// How long one kernel is repeated; at least three times and at most 200 times.
    pub budget: Duration,
}

/// The CPU, and each adapter.
pub fn all_devices(adapters: &[AdapterSummary]) -> Vec<DeviceChoice> {
    std::iter::once(DeviceChoice::Cpu).chain((0..adapters.len()).map(DeviceChoice::GpuIndex)).collect()
}

/// Measures limits and kernels. `say` hears what comes next.
///
/// # Errors
/// Where a device cannot be opened, or fails.
pub fn measure(plan: &Plan, say: &mut dyn FnMut(&str)) -> Result<Report, GpuError> {
    let mut report = Report { roentgen: env!("CARGO_PKG_VERSION").to_owned(), machine: Machine::this(), ..Report::default() };
    for device in &plan.devices {
        let gpu = Gpu::open(device)?;
        let name = gpu.as_ref().map_or_else(|| "cpu".to_owned(), |gpu| gpu.summary().name.clone());
        say(&format!("limits of {name}"));
        let limits = match &gpu {
            None => limits::of_cpu(plan.budget),
            Some(gpu) => limits::of_gpu(gpu, plan.budget)?,
        };
        for &size in &plan.sizes {
            let needed = cases::bytes_needed(size);
            if let Some(free) = memory::free_bytes().filter(|free| *free < needed) {
                report.left_out.push(format!("{size}³ on {name}: needs {} MB of memory, {} are free", needed >> 20, free >> 20));
                continue;
            }
            say(&format!("kernels on {name}, {size}³"));
            let cases = Cases::of(size);
            for mut case in cases.all() {
                match case.measure(gpu.as_ref(), plan.budget) {
                    Ok(Some(samples)) => report.kernels.push(KernelReport::of(&name, &case, size, &samples, &limits)),
                    Ok(None) => {}
                    // The device is too small for it: all else goes on.
                    Err(error @ (GpuError::TooLarge { .. } | GpuError::OutOfMemory { .. })) => {
                        report.left_out.push(format!("{} at {size}³ on {name}: {error}", case.name));
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        report.devices.push(Adapter { name, adapter: gpu.as_ref().map(|gpu| gpu.summary().kind), limits });
    }
    Ok(report)
}
