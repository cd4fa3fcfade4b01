//! `roentgen bench`: how fast this machine is, kernel by kernel and stage by stage.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use super::{Outcome, text};
use crate::bench::{self, Change, Plan, Report, Runs, short};
use crate::engine::{Engine, Options};
use crate::gpu::{self, DeviceChoice};
use crate::infer::Provider;
use crate::infer::runtime;

/// Measure kernels and whole runs on this machine, beside its limits.
///
/// Copy bandwidth and arithmetic are measured in the same run, so that each kernel has its share of what is possible. Times are medians
/// of warm repetitions; on a GPU those of the dispatches, by the device's timestamps where it has them, with the whole call, transfers
/// included, beside them. Runs take a package through a phantom of our own, results on disk included; without ONNX Runtime or the
/// package they are left out, and said so. Nothing else should run on the machine meanwhile.
#[derive(Args)]
#[command(after_help = EXIT_CODES)]
pub(super) struct Bench {
    /// Less than half a minute: smaller volumes, fewer repetitions.
    #[arg(long)]
    quick: bool,

    /// Only this device: `cpu`, `gpu`, `gpu:INDEX` or `gpu:NAME`. Without it the CPU and every adapter.
    #[arg(long, value_name = "DEVICE")]
    device: Option<DeviceChoice>,

    /// Edges of the cubes that kernels get, voxels, separated by commas; those that do not fit into memory are left out.
    #[arg(long, value_name = "SIZES", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(8..=2048))]
    sizes: Vec<u32>,

    /// The package of the runs: the name of an installed one, or a folder.
    #[arg(long, value_name = "NAME", default_value = "ct-tissue")]
    package: String,

    /// The ONNX Runtime library to load, instead of looking for it.
    #[arg(long, value_name = "FILE")]
    ort_lib: Option<PathBuf>,

    /// Write everything as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Write a page with rooflines and stages; it needs no network.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,

    /// Write a run on the first device as a timeline for chrome://tracing or ui.perfetto.dev.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,

    /// Compare with an earlier --json: what became slower beyond the noise is listed, and the exit code is 1.
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
}

const EXIT_CODES: &str = "\
Exit codes:
  0  everything was measured
  1  compared with an earlier run, something is slower
  2  could not start or was broken off";

impl Bench {
    pub(super) fn run(self) -> anyhow::Result<Outcome> {
        let earlier: Option<Report> = self.compare.as_deref().map(read).transpose()?;
        let devices = self.device.clone().map_or_else(|| bench::all_devices(&gpu::list_adapters()), |device| vec![device]);
        let sizes = match (&self.sizes[..], self.quick) {
            ([], true) => vec![64, 128],
            ([], false) => vec![64, 128, 256, 512],
            (sizes, _) => sizes.to_vec(),
        };
        let budget = Duration::from_millis(if self.quick { 150 } else { 1000 });
        let mut say = |what: &str| eprintln!("{what}");
        let mut report = bench::measure(&Plan { devices: devices.clone(), sizes, budget }, &mut say)?;
        self.measure_runs(&devices, budget, &mut report, &mut say)?;
        print(&report);
        if let Some(path) = &self.json {
            write(path, &serde_json::to_string_pretty(&report)?)?;
        }
        if let Some(path) = &self.html {
            write(path, &bench::page(&report))?;
        }
        let Some(earlier) = earlier else { return Ok(Outcome::AllDone) };
        let changes = bench::compare(&earlier, &report);
        print_changes(&changes);
        Ok(if changes.iter().any(Change::is_slower) { Outcome::SomeFailed } else { Outcome::AllDone })
    }

    fn measure_runs(
        &self,
        devices: &[DeviceChoice],
        budget: Duration,
        report: &mut Report,
        say: &mut dyn FnMut(&str),
    ) -> anyhow::Result<()> {
        let package = super::packages().find(&self.package).map_err(|error| error.to_string());
        let runtime = package.and_then(|_| runtime::load(self.ort_lib.as_deref(), Provider::Cpu).map_err(|error| error.to_string()));
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(missing) => {
                report.left_out.push(format!("whole runs: {missing}"));
                return Ok(());
            }
        };
        let runs = Runs::new(self.quick)?;
        for (n, device) in devices.iter().enumerate() {
            for provider in Provider::ALL.into_iter().filter(|provider| runtime.offers(*provider)) {
                say(&format!("{} on {device}, network by {}", self.package, provider.name()));
                let options = Options { device: device.clone(), provider, onnxruntime_library: self.ort_lib.clone(), ..Options::default() };
                let package = super::packages().find(&self.package)?;
                if n == 0
                    && let Some(path) = &self.trace
                {
                    let mut engine = Engine::new(super::packages().find(&self.package)?, &options)?;
                    write(path, &bench::trace(&runs, &mut engine)?.to_string())?;
                }
                report.runs.push(runs.measure(|| Engine::new(package, &options), provider.name(), budget)?);
            }
        }
        Ok(())
    }
}

fn read(path: &Path) -> anyhow::Result<Report> {
    let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is no report of this version of `roentgen bench --json`", path.display()))
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn print(report: &Report) {
    let machine = &report.machine;
    say!("roentgen {} on {}, {} threads, {}\n", report.roentgen, machine.cpu, machine.threads, machine.system);
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), short);
    let limits = report.devices.iter().map(|device| {
        let l = &device.limits;
        let numbers = [Some(l.copy_gb_s), Some(l.read_gb_s), Some(l.fill_gb_s), Some(l.compute_gflop_s), l.upload_gb_s, l.download_gb_s];
        std::iter::once(device.name.clone()).chain(numbers.map(number)).collect::<Vec<_>>()
    });
    say!("{}", text::table(&["limits", "copy GB/s", "read", "fill", "GFLOP/s", "upload GB/s", "download"], &limits.collect::<Vec<_>>()));
    for device in &report.devices {
        let kernels: Vec<_> = report.kernels.iter().filter(|kernel| kernel.device == device.name).collect();
        let Some(clock) = kernels.first().map(|kernel| kernel.clock) else { continue };
        let rows = kernels.iter().map(|kernel| {
            let numbers = [kernel.median_ms, kernel.spread_percent, kernel.cold_ms, kernel.call_ms, kernel.mvoxel_s, kernel.gb_s];
            let share = |percent: f64| format!("{percent:.0} %");
            std::iter::once(format!("{}, {}, {}³", kernel.kernel, kernel.variant, kernel.size))
                .chain(numbers.map(short))
                .chain([share(kernel.bandwidth_percent), kernel.compute_percent.map_or_else(|| "-".to_owned(), share)])
                .collect::<Vec<_>>()
        });
        let clock = match clock {
            gpu::Clock::Timestamps => "the device's timestamps",
            gpu::Clock::Wall => "wall time",
        };
        say!("{}: medians by {clock}", device.name);
        let header = ["kernel", "ms", "± %", "cold ms", "call ms", "Mvoxel/s", "GB/s", "of copy", "of GFLOP/s"];
        say!("{}", text::table(&header, &rows.collect::<Vec<_>>()));
    }
    for run in &report.runs {
        let [i, j, k] = run.dims;
        say!("{} on {}, network by {}, {i} x {j} x {k}; opening took {} ms", run.package, run.device, run.provider, short(run.open_ms));
        let rows = run.stages.iter().map(|stage| {
            std::iter::once(stage.stage.clone())
                .chain([stage.median_ms, stage.spread_percent, stage.cold_ms].map(short))
                .collect::<Vec<_>>()
        });
        say!("{}", text::table(&["stage", "ms", "± %", "cold ms"], &rows.collect::<Vec<_>>()));
    }
    report.left_out.iter().for_each(|what| say!("left out: {what}"));
}

fn print_changes(changes: &[Change]) {
    let of = |is: fn(&Change) -> bool| changes.iter().filter(|change| is(change)).collect::<Vec<_>>();
    for (word, changed) in [("slower", of(Change::is_slower)), ("faster", of(Change::is_faster))] {
        say!("\n{} of {} measurements are {word} beyond the noise", changed.len(), changes.len());
        for change in changed {
            say!("  {:.2}  {}: {} ms, was {}", change.ratio, change.what, short(change.new_ms), short(change.old_ms));
        }
    }
}
