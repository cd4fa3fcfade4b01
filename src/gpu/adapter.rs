//! Which adapters there are, and which one the operator's words choose.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::GpuError;

/// Where kernels run, as the operator says it: `auto`, `cpu`, `gpu`, `gpu:INDEX` or `gpu:NAME` (part of a name, any case).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// A discrete, integrated or virtual GPU when there is one, else the CPU implementation; never a software adapter.
    #[default]
    Auto,
    /// The CPU implementation.
    Cpu,
    /// The first real GPU; an error when there is none.
    Gpu,
    /// The adapter of this index in [`list_adapters`], software adapters included.
    GpuIndex(usize),
    /// The first adapter whose name contains this, software adapters included.
    GpuName(String),
}

impl FromStr for DeviceChoice {
    type Err = GpuError;

    fn from_str(text: &str) -> Result<Self, GpuError> {
        let invalid = || GpuError::InvalidChoice { text: text.to_owned() };
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "gpu" => Ok(Self::Gpu),
            _ => {
                let which = text.strip_prefix("gpu:").map(str::trim).filter(|w| !w.is_empty()).ok_or_else(invalid)?;
                if which.bytes().all(|b| b.is_ascii_digit()) {
                    which.parse().map(Self::GpuIndex).map_err(|_| invalid())
                } else {
                    Ok(Self::GpuName(which.to_owned()))
                }
            }
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Gpu => f.write_str("gpu"),
            Self::GpuIndex(index) => write!(f, "gpu:{index}"),
            Self::GpuName(name) => write!(f, "gpu:{name}"),
        }
    }
}

/// What an adapter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum AdapterKind {
    /// A card with its own memory.
    Discrete,
    /// Part of the processor, with shared memory.
    Integrated,
    /// A share of a GPU given to a virtual machine.
    Virtual,
    /// A program on the processor (lavapipe, SwiftShader, WARP).
    Software,
    /// The driver does not say.
    Other,
}

impl AdapterKind {
    /// Order of preference; `None` is taken only when named.
    fn rank(self) -> Option<u8> {
        match self {
            Self::Discrete => Some(0),
            Self::Integrated => Some(1),
            Self::Virtual => Some(2),
            Self::Software | Self::Other => None,
        }
    }
}

/// One adapter: what a person needs to choose it, and the limits that decide how work is tiled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AdapterSummary {
    /// Position in [`list_adapters`], for `gpu:INDEX`.
    pub index: usize,
    /// Name that the driver gives.
    pub name: String,
    /// `vulkan`, `metal` or `dx12`.
    pub backend: String,
    /// What it is.
    pub kind: AdapterKind,
    /// Driver and its version, as far as it tells.
    pub driver: String,
    /// Runs on the processor; used only when named.
    pub is_software: bool,
    /// Largest storage binding, bytes.
    pub max_storage_binding_bytes: u64,
    /// Largest buffer, bytes.
    pub max_buffer_bytes: u64,
    /// Most workgroups along one dimension of a dispatch.
    pub max_workgroups_per_dimension: u32,
    /// Most threads in a workgroup.
    pub max_threads_per_workgroup: u32,
}

impl fmt::Display for AdapterSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { index, name, backend, driver, .. } = self;
        let software = if self.is_software { ", software" } else { "" };
        write!(f, "{index}: {name}, {backend}, {driver}{software}")
    }
}

/// Every Vulkan, Metal or DX12 adapter, software ones included; empty where there is no such driver at all.
pub fn list_adapters() -> Vec<AdapterSummary> {
    enumerate().into_iter().map(|(_, summary)| summary).collect()
}

/// Adapters in a stable order: index n is place n.
pub(super) fn enumerate() -> Vec<(wgpu::Adapter, AdapterSummary)> {
    let backends = wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12;
    let descriptor = wgpu::InstanceDescriptor { backends, ..wgpu::InstanceDescriptor::new_without_display_handle() };
    let instance = wgpu::Instance::new(descriptor);
    let adapters = pollster::block_on(instance.enumerate_adapters(backends));
    let mut found = Vec::with_capacity(adapters.len());
    for (index, adapter) in adapters.into_iter().enumerate() {
        let summary = summarise(index, &adapter);
        found.push((adapter, summary));
    }
    found
}

fn summarise(index: usize, adapter: &wgpu::Adapter) -> AdapterSummary {
    let info = adapter.get_info();
    let limits = adapter.limits();
    let kind = match info.device_type {
        wgpu::DeviceType::DiscreteGpu => AdapterKind::Discrete,
        wgpu::DeviceType::IntegratedGpu => AdapterKind::Integrated,
        wgpu::DeviceType::VirtualGpu => AdapterKind::Virtual,
        wgpu::DeviceType::Cpu => AdapterKind::Software,
        wgpu::DeviceType::Other => AdapterKind::Other,
    };
    AdapterSummary {
        index,
        name: info.name,
        backend: info.backend.to_str().to_owned(),
        kind,
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
        is_software: kind == AdapterKind::Software,
        max_storage_binding_bytes: limits.max_storage_buffer_binding_size,
        max_buffer_bytes: limits.max_buffer_size,
        max_workgroups_per_dimension: limits.max_compute_workgroups_per_dimension,
        max_threads_per_workgroup: limits.max_compute_invocations_per_workgroup,
    }
}

/// Index of the adapter that `choice` means; `None` is the CPU implementation.
///
/// # Errors
/// [`GpuError::NoGpu`] and [`GpuError::NoSuchAdapter`].
pub(super) fn choose(choice: &DeviceChoice, adapters: &[AdapterSummary]) -> Result<Option<usize>, GpuError> {
    let best = || adapters.iter().filter_map(|a| Some((a.kind.rank()?, a.index))).min().map(|(_, index)| index);
    let names = |wanted: &dyn Fn(&AdapterSummary) -> bool| -> Vec<(usize, String)> {
        adapters.iter().filter(|a| wanted(a)).map(|a| (a.index, a.name.clone())).collect()
    };
    let found = |index: Option<usize>, wanted: String| match index {
        Some(index) => Ok(Some(index)),
        None => Err(GpuError::NoSuchAdapter { wanted, available: names(&|_| true) }),
    };
    match choice {
        DeviceChoice::Cpu => Ok(None),
        DeviceChoice::Auto => Ok(best()),
        DeviceChoice::Gpu => match best() {
            Some(index) => Ok(Some(index)),
            None => Err(GpuError::NoGpu { software: names(&|a| a.kind.rank().is_none()) }),
        },
        DeviceChoice::GpuIndex(index) => found(adapters.get(*index).map(|a| a.index), index.to_string()),
        DeviceChoice::GpuName(name) => {
            let part = name.to_lowercase();
            found(adapters.iter().find(|a| a.name.to_lowercase().contains(&part)).map(|a| a.index), name.clone())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter(index: usize, name: &str, kind: AdapterKind) -> AdapterSummary {
        AdapterSummary {
            index,
            name: name.to_owned(),
            backend: "vulkan".to_owned(),
            kind,
            driver: String::new(),
            is_software: kind == AdapterKind::Software,
            max_storage_binding_bytes: 1 << 27,
            max_buffer_bytes: 1 << 31,
            max_workgroups_per_dimension: 65535,
            max_threads_per_workgroup: 256,
        }
    }

    #[test]
    fn words_become_choices_and_back() {
        for (text, expected) in [
            ("auto", DeviceChoice::Auto),
            ("cpu", DeviceChoice::Cpu),
            ("gpu", DeviceChoice::Gpu),
            ("gpu:2", DeviceChoice::GpuIndex(2)),
            ("gpu:RTX 30", DeviceChoice::GpuName("RTX 30".to_owned())),
        ] {
            assert_eq!(text.parse(), Ok(expected.clone()));
            assert_eq!(expected.to_string(), text);
        }
        for text in ["", "gpu:", "gpu: ", "cuda", "GPU", "gpu:99999999999999999999999"] {
            assert_eq!(text.parse::<DeviceChoice>(), Err(GpuError::InvalidChoice { text: text.to_owned() }));
        }
    }

    #[test]
    fn software_is_never_taken_unnamed() {
        let machine = [adapter(0, "llvmpipe (LLVM 15)", AdapterKind::Software)];
        assert_eq!(choose(&DeviceChoice::Auto, &machine), Ok(None));
        let refused = choose(&DeviceChoice::Gpu, &machine).expect_err("there is no real GPU");
        assert!(refused.to_string().contains("gpu:0 (llvmpipe (LLVM 15))"), "{refused}");
        assert_eq!(choose(&DeviceChoice::GpuName("LLVMpipe".to_owned()), &machine), Ok(Some(0)));
        assert_eq!(choose(&DeviceChoice::GpuIndex(0), &machine), Ok(Some(0)));
    }

    #[test]
    fn discrete_comes_before_integrated() {
        let machine = [
            adapter(0, "llvmpipe", AdapterKind::Software),
            adapter(1, "Iris", AdapterKind::Integrated),
            adapter(2, "RTX", AdapterKind::Discrete),
        ];
        for choice in [DeviceChoice::Auto, DeviceChoice::Gpu] {
            assert_eq!(choose(&choice, &machine), Ok(Some(2)));
        }
        assert_eq!(choose(&DeviceChoice::Cpu, &machine), Ok(None));
    }

    #[test]
    fn what_is_not_there_is_an_error_that_lists_what_is() {
        let machine = [adapter(0, "Iris", AdapterKind::Integrated)];
        for choice in [DeviceChoice::GpuIndex(1), DeviceChoice::GpuName("rtx".to_owned())] {
            let refused = choose(&choice, &machine).expect_err("there is no such adapter");
            assert!(refused.to_string().contains("gpu:0 (Iris)"), "{refused}");
        }
        assert_eq!(choose(&DeviceChoice::Auto, &[]), Ok(None));
        assert_eq!(choose(&DeviceChoice::Gpu, &[]), Err(GpuError::NoGpu { software: Vec::new() }));
    }

    #[test]
    fn listing_never_panics() {
        for (n, adapter) in list_adapters().iter().enumerate() {
            assert_eq!(adapter.index, n);
            assert!(!adapter.name.is_empty());
        }
    }
}
