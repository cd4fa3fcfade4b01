//! ONNX Runtime: found, loaded, and applied to volumes tile by tile.

pub mod fetch;
mod network;
pub mod runtime;

pub use network::{InferError, Network, Provider, Scores};
