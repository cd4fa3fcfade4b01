//! ONNX Runtime's execution providers: their names, and what each is asked for.

use std::fmt;
use std::str::FromStr;

use ort::ep::{self, ArbitrarilyConfigurableExecutionProvider, ExecutionProviderDispatch};
use serde::Serialize;

use super::InferError;

/// An ONNX Runtime execution provider. Asked for by name, never exchanged quietly for another.
///
/// All of them compute in float32 unless the name says otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Provider {
    /// `cpu`: ONNX Runtime's own kernels.
    #[default]
    Cpu,
    /// `openvino`, `openvino:bfloat16`: Intel's kernels, on the CPU. They run on AMD's processors too.
    OpenVino(Precision),
    /// `cuda`: the first NVIDIA GPU.
    Cuda,
    /// `tensorrt`: the first NVIDIA GPU, through graphs compiled for it.
    TensorRt,
    /// `webgpu`: a GPU through Vulkan, Metal or DirectX 12.
    WebGpu,
    /// `coreml`: Apple's GPU and CPU.
    CoreMl,
    /// `directml`: a GPU through DirectX 12.
    DirectMl,
}

/// The numbers that a network computes with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 24 significant bits, as in training.
    #[default]
    Float32,
    /// 8 significant bits, where the processor is faster with them: other scores, and other labels where two classes are close.
    BFloat16,
}

impl Precision {
    /// `float32` or `bfloat16`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::BFloat16 => "bfloat16",
        }
    }
}

impl Provider {
    /// Those that this program can ask for, each as precise as it is.
    pub const ALL: [Self; 7] =
        [Self::Cpu, Self::OpenVino(Precision::Float32), Self::Cuda, Self::TensorRt, Self::WebGpu, Self::CoreMl, Self::DirectMl];

    /// ONNX Runtime's own name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "CPUExecutionProvider",
            Self::OpenVino(_) => "OpenVINOExecutionProvider",
            Self::Cuda => "CUDAExecutionProvider",
            Self::TensorRt => "TensorrtExecutionProvider",
            Self::WebGpu => "WebGpuExecutionProvider",
            Self::CoreMl => "CoreMLExecutionProvider",
            Self::DirectMl => "DmlExecutionProvider",
        }
    }

    /// What it computes with, where that is a choice.
    pub fn precision(self) -> Option<Precision> {
        match self {
            Self::OpenVino(precision) => Some(precision),
            _ => None,
        }
    }

    /// Why this machine cannot run it as it is asked for, where that is so and ONNX Runtime would not say it.
    pub(super) fn lacking(self) -> Option<&'static str> {
        // Without such instructions OpenVINO takes float32, and says nothing.
        (self.precision() == Some(Precision::BFloat16) && !has_bfloat16()).then_some("this processor has no bfloat16")
    }

    /// What a session is built with, with so many threads; nothing for [`Provider::Cpu`], which every session has.
    pub(super) fn dispatch(self, threads: usize) -> Option<ExecutionProviderDispatch> {
        let provider = match self {
            Self::Cpu => return None,
            Self::OpenVino(precision) => {
                let config = open_vino_config(precision, threads);
                ep::OpenVINO::default().with_device_type("CPU").with_arbitrary_config("load_config", config).build()
            }
            Self::Cuda => ep::CUDA::default().with_tf32(false).build(),
            Self::TensorRt => ep::TensorRT::default().with_fp16(false).with_bf16(false).with_int8(false).build(),
            Self::WebGpu => ep::WebGPU::default().build(),
            Self::CoreMl => ep::CoreML::default()
                .with_model_format(ep::coreml::ModelFormat::MLProgram) // the older format computes in float16
                .with_compute_units(ep::coreml::ComputeUnits::CPUAndGPU) // the neural engine does, too
                .with_low_precision_accumulation_on_gpu(false)
                .build(),
            Self::DirectMl => ep::DirectML::default().build(),
        };
        Some(provider.error_on_failure())
    }
}

#[cfg(target_arch = "x86_64")]
fn has_bfloat16() -> bool {
    std::arch::is_x86_feature_detected!("avx512bf16")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_bfloat16() -> bool {
    false // there is no library with OpenVINO for others
}

/// OpenVINO's own settings. By itself it takes bfloat16 where a processor has it, and binds its threads to cores, which kernels of ours and
/// other sessions run on as well.
fn open_vino_config(precision: Precision, threads: usize) -> String {
    let (numbers, mode) = match precision {
        Precision::Float32 => ("f32", "ACCURACY"),
        Precision::BFloat16 => ("bf16", "PERFORMANCE"),
    };
    let settings = serde_json::json!({
        "INFERENCE_PRECISION_HINT": numbers,
        "EXECUTION_MODE_HINT": mode,
        "INFERENCE_NUM_THREADS": threads.to_string(),
        "NUM_STREAMS": "1",
        "ENABLE_CPU_PINNING": "NO",
    });
    serde_json::json!({ "CPU": settings }).to_string()
}

/// The name that it is asked for by.
impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cpu => "cpu",
            Self::OpenVino(Precision::Float32) => "openvino",
            Self::OpenVino(Precision::BFloat16) => "openvino:bfloat16",
            Self::Cuda => "cuda",
            Self::TensorRt => "tensorrt",
            Self::WebGpu => "webgpu",
            Self::CoreMl => "coreml",
            Self::DirectMl => "directml",
        })
    }
}

impl FromStr for Provider {
    type Err = InferError;

    fn from_str(name: &str) -> Result<Self, InferError> {
        let known = Self::ALL.into_iter().chain([Self::OpenVino(Precision::BFloat16)]);
        known.into_iter().find(|known| known.to_string() == name).ok_or_else(|| InferError::NoProvider { wanted: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Coded;

    #[test]
    fn each_is_asked_for_by_its_name() {
        for provider in Provider::ALL.into_iter().chain([Provider::OpenVino(Precision::BFloat16)]) {
            assert_eq!(provider.to_string().parse::<Provider>().unwrap(), provider);
        }
        for unknown in ["", "CPU", "openvino:", "openvino:float16", "cpu:bfloat16", "CPUExecutionProvider"] {
            let error = unknown.parse::<Provider>().unwrap_err();
            assert_eq!(error.code(), "infer.no-provider");
            assert!(error.to_string().contains("openvino:bfloat16"), "{error}");
        }
    }

    #[test]
    fn open_vino_is_told_its_precision_and_threads() {
        let settings = |precision| serde_json::from_str::<serde_json::Value>(&open_vino_config(precision, 3)).unwrap()["CPU"].clone();
        assert_eq!(settings(Precision::Float32)["INFERENCE_PRECISION_HINT"], "f32");
        assert_eq!(settings(Precision::BFloat16)["INFERENCE_PRECISION_HINT"], "bf16");
        assert_eq!(settings(Precision::Float32)["INFERENCE_NUM_THREADS"], "3");
    }
}
