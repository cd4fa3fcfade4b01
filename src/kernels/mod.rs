//! One file per shader: parameters, GPU dispatch, and the CPU implementation.
//!
//! A caller without a [`Gpu`](crate::gpu::Gpu) calls the `_cpu` function, one with it the `_gpu` function; both give the same
//! result up to the rounding that each function states. [`Backend`] chooses between them.

pub mod alignment;
pub mod area;
mod backend;
pub mod bounding_box;
pub mod components;
pub mod components_gpu;
pub mod diameters;
pub mod distance;
pub mod gaussian;
pub mod half;
pub mod holes;
mod label_rows;
pub mod label_statistics;
mod label_sums;
mod lattice;
mod lines;
mod map_scores;
mod marching_cubes;
mod mask;
pub mod morphology;
pub mod patches;
pub mod percentiles;
pub mod plane;
pub mod probabilities;
pub mod projection;
pub mod regions;
mod resample;
mod resample_gpu;
mod rows;
mod scores_to_labels;
pub mod separable;
pub mod separable_gpu;
mod simd;
mod slabs;
pub mod source_values;
mod spline;
mod spread;
pub mod statistics;
pub mod surface;
mod voxel;
mod weights;

pub use backend::{Backend, ComponentFilter};
pub use lattice::{Interpolation, Step};
pub use map_scores::{RegionValues, map_scores_cpu, region_values_cpu, scores_margin_cpu};
pub use mask::Mask;
pub use resample::{Background, Resample, ResampleParams, SliceScale, resample_cpu, resample_half_cpu};
pub use resample_gpu::{resample_gpu, resample_half_gpu};
pub use scores_to_labels::{Rule, ScoresToLabels, ScoresToLabelsParams, scores_to_labels_cpu, scores_to_labels_gpu};

#[cfg(test)]
mod tests;
