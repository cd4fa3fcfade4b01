//! ONNX Runtime: found, loaded, and applied to volumes part by part.

pub mod fetch;
mod network;
pub mod runtime;
mod tiles;
mod window;

pub use network::{InferError, Network, Provider, Scores};
