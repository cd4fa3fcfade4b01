//! ONNX Runtime: found, loaded, and applied to volumes part by part, or to images as a whole.

mod asked;
mod boxes;
mod covered;
pub mod fetch;
pub(crate) mod memory;
mod network;
mod outlets;
mod provider;
pub mod runtime;
mod tiles;
mod whole;
mod window;

pub use boxes::{Detected, LeftOut, ScoredBox};
pub use covered::{Cover, CoveredBox};
pub use network::{AtOnce, InferError, Network, Scores, Tensor, tensors};
pub use provider::{Precision, Provider};
