//! Commands: arguments, output, exit codes. Results go to stdout, talk to stderr.

/// Prints a line to stdout: [`text::print`].
macro_rules! say {
    ($($text:tt)*) => { $crate::cli::text::print(&(format!($($text)*) + "\n")) };
}

mod batch;
mod bench;
mod demo;
mod doctor;
mod generated;
mod inspect;
mod model;
mod notify;
mod outcome;
mod query;
mod run;
mod serve;
mod setup;
mod show;
mod signals;
mod text;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::engine::Options;
use crate::gpu::DeviceChoice;
use crate::infer::{AtOnce, Provider};
use crate::model::PackageFolders;
use crate::results::{Form, Forms};

/// How a command that started has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Everything asked for was done.
    AllDone,
    /// Something failed; the output names each.
    SomeFailed,
    /// It was asked to stop before the end; what was done by then is written.
    Stopped,
}

const EXIT_CODES: &str = "\
Exit codes:
  0  everything asked for was done
  1  something was refused, failed or could not be read, each named in the output; or nothing was analysed at all
  2  could not start, and nothing was done; or could not note what was done (the disk is full)
  3  asked to stop (SIGINT, SIGTERM) before the end; what was done is written (run)
130  asked to stop a second time: it ended at once";

#[derive(Parser)]
#[command(name = "roentgen", version, after_help = EXIT_CODES, arg_required_else_help = true)]
/// Medical imaging inference engine: DICOM studies in, traceable DICOM results out.
///
/// Runs on this machine alone: no command but `setup` (and `demo`, where the ONNX Runtime library is missing)
/// downloads anything. Start with `roentgen demo`.
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(run::Run),
    Query(query::Query),
    Serve(serve::Serve),
    Demo(demo::Demo),
    Inspect(inspect::Inspect),
    Show(show::Show),
    Model(model::Model),
    Bench(bench::Bench),
    Doctor(doctor::Doctor),
    Setup(setup::Setup),
    Completions(generated::Completions),
    Man(generated::Man),
}

/// What a package runs on.
#[derive(Args)]
struct EngineArgs {
    /// Where the kernels run: `auto` (a real GPU, else the CPU), `cpu`, `gpu`, `gpu:INDEX` or `gpu:NAME` out of `roentgen doctor`.
    ///
    /// Nothing is exchanged quietly: a device that is not there is an error, a software driver runs only when named, and
    /// every result says what ran.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: DeviceChoice,

    /// ONNX Runtime's execution provider for the network: cpu, openvino, cuda, tensorrt, webgpu, coreml or directml.
    ///
    /// One that the library does not have, or that cannot run the whole network, is an error. `roentgen setup --provider openvino` fetches
    /// the fast one on Intel's and AMD's processors; `openvino:bfloat16` is faster still where the processor has such numbers, with other
    /// scores. Results say which one ran. docs/providers.md
    #[arg(long, value_name = "NAME", default_value = "cpu")]
    provider: Provider,

    /// The ONNX Runtime library to load, instead of looking for it.
    #[arg(long, value_name = "FILE")]
    ort_lib: Option<PathBuf>,

    /// Sessions of a network that sees patches that overlap: each is asked about patches of its own at the same time, with its part of the
    /// threads and memory of its own. docs/providers.md
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=i64::from(AtOnce::MOST)))]
    sessions: u8,

    /// Patches that one run of a network of volumes takes, where its graph leaves their number open.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=i64::from(AtOnce::MOST)))]
    patches: u8,

    /// Memory that this program may have, in MB; a volume that would take more is refused. Without it, what the machine and its control
    /// groups have free.
    #[arg(long, value_name = "MB", value_parser = clap::value_parser!(u64).range(1..1 << 32))]
    memory_mb: Option<u64>,
}

/// What is written.
#[derive(Args)]
struct ResultArgs {
    /// The forms of the results, separated by commas, or `all`: sr (reports), sr-outlines (one more with outlines on key images), seg,
    /// labelmap (the segmentation, one byte a voxel), map (the package's maps of values), gsps (outlines for viewers), ko (key images),
    /// rtstruct (contours for planning), sc (key images with overlay), pdf (report to read), json, csv, fhir (R4), fhir-r5, html (page),
    /// png.
    #[arg(long, value_name = "FORMS", default_value_t)]
    results: Forms,
}

/// How a result is printed.
#[derive(Args)]
struct OutputArgs {
    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,

    /// Print the time of each stage and the peak memory.
    #[arg(long)]
    timings: bool,
}

impl EngineArgs {
    /// For results in these forms: maps are computed where they are to be written.
    fn options(&self, forms: &Forms) -> Options {
        let (device, onnxruntime_library) = (self.device.clone(), self.ort_lib.clone());
        let most_memory_bytes = self.memory_mb.map(|most| most << 20);
        let at_once = AtOnce { sessions: self.sessions.into(), patches: self.patches.into() };
        Options { device, provider: self.provider, at_once, onnxruntime_library, most_memory_bytes, maps: forms.contains(Form::Map) }
    }
}

/// Refuses an output folder that is a file, before anything else is done.
fn check_folder(output: &Path) -> anyhow::Result<()> {
    anyhow::ensure!(!output.is_file(), "{} is a file, give a folder", output.display());
    Ok(())
}

/// What to do where there is no package at all.
const NO_PACKAGE: &str =
    "no model package is installed: run from the project's folder, or put packages into a folder `models` beside the program";

/// Where packages are found by name.
fn packages() -> PackageFolders {
    PackageFolders::standard()
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let arguments = match batch::expanded(std::env::args_os().collect()) {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("error: {}", text::told(&error));
            return ExitCode::from(2);
        }
    };
    let done = match Cli::parse_from(arguments).command {
        Command::Run(command) => command.run(),
        Command::Query(command) => command.run(),
        Command::Serve(command) => command.run(),
        Command::Demo(command) => command.run(),
        Command::Inspect(command) => command.run(),
        Command::Show(command) => command.run(),
        Command::Model(command) => command.run(),
        Command::Bench(command) => command.run(),
        Command::Doctor(command) => command.run(),
        Command::Setup(command) => command.run(),
        Command::Completions(command) => command.run(),
        Command::Man(command) => command.run(),
    };
    let done = done.and_then(|outcome| match text::lost() {
        Some(error) => Err(anyhow::anyhow!("cannot print all of the result: {error}")),
        None => Ok(outcome),
    });
    match done {
        Ok(Outcome::AllDone) => ExitCode::SUCCESS,
        Ok(Outcome::SomeFailed) => ExitCode::from(1),
        Ok(Outcome::Stopped) => ExitCode::from(3),
        Err(error) => {
            eprintln!("error: {}", text::told(&error));
            ExitCode::from(2)
        }
    }
}
