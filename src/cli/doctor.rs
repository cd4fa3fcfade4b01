//! `roentgen doctor`: what this machine has, and what to do about what it lacks.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::{Outcome, text};
use crate::gpu::{self, AdapterSummary};
use crate::infer::runtime::{self, Verdict};
use crate::infer::{Precision, Provider};

/// Check this machine: graphics adapters, ONNX Runtime, installed packages; every problem with what to do.
///
/// A machine without a GPU is no problem: the kernels then run on the CPU.
#[derive(Args)]
#[command(after_help = super::EXIT_CODES)]
pub(super) struct Doctor {
    /// The ONNX Runtime library to check, instead of looking for it.
    #[arg(long, value_name = "FILE")]
    ort_lib: Option<PathBuf>,

    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Diagnosis {
    roentgen_version: &'static str,
    cpu_threads: usize,
    adapters: Vec<AdapterSummary>,
    onnxruntime: Option<OnnxRuntime>,
    onnxruntime_looked_at: Vec<String>,
    openvino: Option<OnnxRuntime>,
    packages: Vec<PackageCheck>,
    problems: Vec<String>,
}

#[derive(Debug, Serialize)]
struct OnnxRuntime {
    version: String,
    library: PathBuf,
    found_as: String,
    providers: Vec<String>,
}

#[derive(Debug, Serialize)]
struct PackageCheck {
    folder: PathBuf,
    version: Option<String>,
    hashes_hold: bool,
}

impl Doctor {
    pub(super) fn run(self) -> anyhow::Result<Outcome> {
        let mut problems = Vec::new();
        let onnxruntime = match runtime::load(self.ort_lib.as_deref(), Provider::Cpu) {
            Ok(runtime) => Some(OnnxRuntime {
                version: runtime.version.clone(),
                library: runtime.path.clone(),
                found_as: runtime.origin.to_string(),
                providers: runtime.providers.clone(),
            }),
            Err(error) => {
                problems.push(error.to_string());
                None
            }
        };
        let mut packages = Vec::new();
        for (folder, package) in super::packages().installed() {
            packages.push(PackageCheck {
                folder,
                version: package.as_ref().ok().map(|p| p.id.version_string()),
                hashes_hold: package.is_ok(),
            });
            problems.extend(package.err().map(|error| error.to_string()));
        }
        if packages.is_empty() {
            problems.push(super::NO_PACKAGE.to_owned());
        }
        let diagnosis = Diagnosis {
            roentgen_version: env!("CARGO_PKG_VERSION"),
            cpu_threads: rayon::current_num_threads(),
            adapters: gpu::list_adapters(),
            onnxruntime,
            onnxruntime_looked_at: runtime::locate(self.ort_lib.as_deref(), Provider::Cpu).iter().map(ToString::to_string).collect(),
            openvino: open_vino(self.ort_lib.as_deref()),
            packages,
            problems,
        };
        if self.json {
            text::print_json(&diagnosis)?;
        } else {
            diagnosis.print();
        }
        Ok(if diagnosis.problems.is_empty() { Outcome::AllDone } else { Outcome::SomeFailed })
    }
}

/// The library that a run with `--provider openvino` would load; not there is no problem.
fn open_vino(named: Option<&Path>) -> Option<OnnxRuntime> {
    let found = runtime::find(named, Provider::OpenVino(Precision::Float32)).ok()?;
    let Verdict::Usable { version, providers } = found.verdict else { return None };
    Some(OnnxRuntime { version, library: found.path, found_as: found.origin.to_string(), providers })
}

impl Diagnosis {
    fn print(&self) {
        say!("roentgen {}\n\nCPU: {} threads", self.roentgen_version, self.cpu_threads);
        say!("\ngraphics adapters:");
        if self.adapters.is_empty() {
            say!("  none (no Vulkan, Metal or DirectX 12 driver): kernels run on the CPU");
        }
        for adapter in &self.adapters {
            say!("  {adapter}");
        }
        say!("\nONNX Runtime:");
        match &self.onnxruntime {
            Some(found) => say!(
                "  {} from {} ({})\n  providers: {}",
                found.version,
                found.library.display(),
                found.found_as,
                found.providers.join(", ")
            ),
            None => say!("  not found"),
        }
        self.onnxruntime_looked_at.iter().for_each(|candidate| say!("  looked at {candidate}"));
        match &self.openvino {
            Some(found) => say!("  with OpenVINO: {} from {} ({})", found.version, found.library.display(), found.found_as),
            None => say!("  with OpenVINO: none (`roentgen setup --provider openvino` fetches it)"),
        }
        say!("\npackages:");
        for package in &self.packages {
            let verdict = package.version.as_deref().unwrap_or("cannot be used");
            say!("  {}  {verdict}", package.folder.display());
        }
        say!("\n{}", if self.problems.is_empty() { "no problem found" } else { "problems:" });
        self.problems.iter().for_each(|problem| say!("  - {problem}"));
    }
}
