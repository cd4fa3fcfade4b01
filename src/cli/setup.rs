//! `roentgen setup`: the ONNX Runtime library into the user's data folder.

use std::path::PathBuf;

use clap::Args;

use super::Outcome;
use crate::infer::{Provider, fetch};

/// Fetch the ONNX Runtime library that networks run in.
///
/// Asks `python3 -m pip` for Microsoft's pinned onnxruntime wheel (about 24 MB), checks its SHA-256, takes the library out
/// and puts it into the user's data folder. Nothing else is installed, and Python is not needed afterwards.
/// On a machine without network, bring the wheel along and give it with --from.
///
/// With `--provider openvino` it is the onnxruntime-openvino wheel (84 MB, Linux on x86-64), kept beside the other one: which of them is
/// loaded is decided by the provider that a run asks for. OpenVINO is the fast provider on Intel's and AMD's processors.
#[derive(Args)]
#[command(after_help = super::EXIT_CODES)]
pub(super) struct Setup {
    /// The execution provider that the library must have: `cpu` or `openvino`.
    #[arg(long, value_name = "NAME", default_value = "cpu")]
    provider: Provider,

    /// A wheel, or for `cpu` the library itself, that was brought to this machine: nothing is downloaded.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
}

impl Setup {
    pub(super) fn run(self) -> anyhow::Result<Outcome> {
        let mut say = |line: &str| eprintln!("{line}");
        let library = match &self.from {
            Some(file) => fetch::install_from(self.provider, file, &mut say)?,
            None => fetch::fetch(self.provider, &mut say)?,
        };
        say!("{}", library.display());
        Ok(Outcome::AllDone)
    }
}
