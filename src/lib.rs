//! roentgen: a medical imaging inference engine.
//!
//! DICOM instances become a geometry-checked volume, the volume goes through the preprocessing
//! steps of a model package (WGSL on a GPU, or the CPU implementation) into ONNX Runtime, and what
//! the model found comes back as [`Findings`], from which every result object is written.
//!
//! World coordinates are patient LPS millimetres in `f64`. Voxel index (i, j, k) is
//! (column, row, slice), `i` fastest. `ARCHITECTURE.md` says where everything is.

// Rooms, top to bottom: a room uses only rooms below it (held by `tests/it/rooms.rs`).
pub mod cli;
pub mod cohort;
pub mod bench;
pub mod node;
pub mod jobs;
pub mod phantom;
pub mod engine;
pub mod results;
pub mod followup;
pub mod findings;
pub mod measure;
pub mod postprocess;
pub mod infer;
pub mod preprocess;
pub mod model;
pub mod kernels;
pub mod gpu;
pub mod series;
pub mod research;
pub mod store;
pub mod dimse;
pub mod dataset;
pub mod codes;
pub mod volume;
pub mod geometry;

pub use findings::Findings;
pub use geometry::{Affine, Grid};
pub use volume::{ImageVolume, LabelMap, Stored, Volume};
