//! What can go wrong between us and a GPU.

use thiserror::Error;

use crate::geometry::Coded;

/// Why a GPU could not be had, or did not do what it was told.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum GpuError {
    /// The text names no device.
    #[error("`{text}` names no device: use auto, cpu, gpu, gpu:INDEX or gpu:PART-OF-ITS-NAME")]
    InvalidChoice {
        /// What was asked for.
        text: String,
    },
    /// `gpu` was asked for on a machine without one.
    #[error("no GPU found; {}", software_hint(software))]
    NoGpu {
        /// Index and name of the software adapters, which are used only when named.
        software: Vec<(usize, String)>,
    },
    /// No adapter has that index or name.
    #[error("no adapter matches `{wanted}`; {}", available_hint(available))]
    NoSuchAdapter {
        /// The index or part of a name that was asked for.
        wanted: String,
        /// Index and name of every adapter there is.
        available: Vec<(usize, String)>,
    },
    /// The driver refused to open the device.
    #[error("adapter {adapter} could not be opened: {reason}")]
    Open {
        /// Name of the adapter.
        adapter: String,
        /// What the driver said.
        reason: String,
    },
    /// The device went away: driver reset, time limit of the display driver, or unplugged.
    #[error("the GPU was lost during {during}: {reason}")]
    Lost {
        /// The operation that met the loss.
        during: String,
        /// What the driver said.
        reason: String,
    },
    /// The device has too little memory left.
    #[error("out of GPU memory during {during}")]
    OutOfMemory {
        /// The operation that asked for memory.
        during: String,
    },
    /// The driver layer refused a call: a defect of ours.
    #[error("the GPU layer refused {during}: {message}")]
    Validation {
        /// The refused operation.
        during: String,
        /// The explanation of the layer.
        message: String,
    },
    /// One step needs more than the device's limits allow, however it is tiled.
    #[error("{what} needs {needed}, this GPU allows {limit}")]
    TooLarge {
        /// What is too large, with its unit.
        what: String,
        /// The smallest amount that would do.
        needed: u64,
        /// What the device allows.
        limit: u64,
    },
}

impl Coded for GpuError {
    fn code(&self) -> &'static str {
        match self {
            Self::InvalidChoice { .. } => "gpu.invalid-choice",
            Self::NoGpu { .. } => "gpu.none",
            Self::NoSuchAdapter { .. } => "gpu.no-such-adapter",
            Self::Open { .. } => "gpu.open",
            Self::Lost { .. } => "gpu.lost",
            Self::OutOfMemory { .. } => "gpu.out-of-memory",
            Self::Validation { .. } => "gpu.validation",
            Self::TooLarge { .. } => "gpu.too-large",
        }
    }

    fn help(&self) -> Option<String> {
        let text = match self {
            Self::InvalidChoice { .. } | Self::NoSuchAdapter { .. } => "`roentgen doctor` lists the adapters",
            Self::Validation { .. } => "this is a defect of roentgen: please report it; `--device cpu` works meanwhile",
            _ => "`--device cpu` runs the same steps on the processor",
        };
        Some(text.to_owned())
    }
}

fn named(adapters: &[(usize, String)]) -> String {
    adapters.iter().map(|(index, name)| format!("gpu:{index} ({name})")).collect::<Vec<_>>().join(", ")
}

fn software_hint(software: &[(usize, String)]) -> String {
    if software.is_empty() {
        "there is no software adapter either".to_owned()
    } else {
        format!("software adapters are used only when named: {}", named(software))
    }
}

fn available_hint(available: &[(usize, String)]) -> String {
    if available.is_empty() { "no adapter was found".to_owned() } else { format!("there are: {}", named(available)) }
}
