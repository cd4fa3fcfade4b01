//! Model packages: manifest, hashes, input and output contract, series selection, intended use.
//!
//! A package is a folder with `model.toml`, ONNX files and `MODEL_CARD.md`, and no code. Its steps are a closed set.

mod error;
mod manifest;
mod package;
pub mod select;

pub use error::ModelError;
pub use manifest::{
    Dtype, Finding, Inference, Layout, Manifest, Map, MapKind, MapOf, MeasurementKind, Model, PostprocessStep, PreprocessStep, ScoreKind,
    Task,
};
pub use package::{Installed, Package, PackageFolders, PackageId};
pub use select::{Assessment, Check, Eligible, EligibleVolume, Ineligible, Select, VolumeAssessment};
