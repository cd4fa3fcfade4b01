//! Model packages: manifest, hashes, input and output contract, series selection, intended use.
//!
//! A package is a folder with `model.toml`, ONNX files and `MODEL_CARD.md`, or these packed into one file, and no code. Its steps are a closed set.

mod axes;
mod boxes;
mod channels;
mod check;
mod error;
mod exactly;
mod files;
mod follow_up;
pub mod import;
mod inference;
mod instances;
mod manifest;
mod package;
mod reference;
pub mod select;
pub mod signature;
mod slices;
mod stage;
mod whole;

pub use axes::Axes;
pub use boxes::{BoxColumns, Boxes, Column, Suppression, Zero};
pub use channels::Channel;
pub use error::ModelError;
pub use files::pack;
pub use follow_up::FollowUp;
pub use inference::{Axis, Beyond, Blending, Convention, Inference, SlidingWindow, Tiles, Whole};
pub use instances::{InstanceScore, Instances};
pub use manifest::{
    Dtype, Finding, Foreground, Layout, Manifest, Map, MapKind, MapOf, MeasurementKind, Model, PostprocessStep, PreprocessStep, ScoreKind,
    Task,
};
pub use package::{Installed, Package, PackageFolders, PackageId};
pub use reference::{Expected, Reference, ReferenceInput};
pub use select::{Answer, Assessment, ChannelFile, ChannelSeries, Check, Eligible, EligibleVolume, Ineligible, Select, VolumeAssessment};
pub use slices::{SliceOrder, Slices};
pub use stage::{PreviousLabels, Stage, StageLabel};
pub use whole::{Estimate, Explanation, Fill, NamedFill, Threshold, patch_starts};
