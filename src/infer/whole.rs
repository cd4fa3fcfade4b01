//! Images that a network sees as a whole: one row of class scores for each.

use std::sync::atomic::AtomicBool;

use ort::session::Session;
use ort::value::Outlet;

use super::asked::Asked;
use super::network::{InferError, Network};
use super::outlets::{broken, element_type, open_or, shape_of};
use crate::model::{Dtype, Layout, Manifest};
use crate::volume::Volume;

/// Images that one run takes, where the graph leaves their number open: memory for so many, and work for every core.
const BATCH: usize = 16;

/// Holds a graph's tensors against the manifest, whose images have `to` (i, j, k) voxels: input [N, 1, ..], output [N, C].
///
/// # Errors
/// [`InferError::Contract`] with what differs.
pub(super) fn check(session: &Session, manifest: &Manifest, [i, j, k]: [u32; 3]) -> Result<(), InferError> {
    let expected: Vec<u32> = match manifest.input.layout {
        Layout::Ncdhw => vec![1, 1, k, j, i],
        Layout::Nchw => vec![1, 1, j, i],
    };
    check_shape(session.inputs(), &manifest.input.tensor, manifest.input.dtype, &expected)?;
    check_shape(session.outputs(), &manifest.output.tensor, manifest.output.dtype, &[1, manifest.channels() as u32])
}

fn check_shape(outlets: &[Outlet], name: &str, dtype: Dtype, expected: &[u32]) -> Result<(), InferError> {
    let found = shape_of(outlets, name, element_type(dtype))?;
    if found.len() == expected.len() && found.iter().zip(expected).all(|(&n, &wanted)| open_or(n, wanted as usize)) {
        return Ok(());
    }
    broken(format!("`{name}` has shape {found:?}, expected {expected:?} (1 first, or open)"))
}

/// Images that one run of all graphs takes.
pub(super) fn batch(sessions: &[Session], manifest: &Manifest) -> usize {
    let (input, output) = (&manifest.input, &manifest.output);
    let is_open = |outlets: &[Outlet], name: &str, dtype: Dtype| {
        shape_of(outlets, name, element_type(dtype)).is_ok_and(|shape| shape.first() == Some(&-1))
    };
    let are_open = |s: &Session| is_open(s.inputs(), &input.tensor, input.dtype) && is_open(s.outputs(), &output.tensor, output.dtype);
    if sessions.iter().all(are_open) { BATCH } else { 1 }
}

impl Network {
    /// The scores of each channel for an image as a whole.
    ///
    /// # Errors
    /// As [`Network::run`].
    pub fn classify(&mut self, input: &Volume<f32>, cancel: &AtomicBool) -> Result<Vec<f32>, InferError> {
        let dims = input.grid().dims().map(|n| n as usize);
        self.watched(0, cancel, |asked| asked.classify(input.voxels(), 1, dims))
    }
}

impl Asked<'_> {
    /// As many scores as there are channels for each of `count` images of `shape` (i, j, k), which lie one after the other.
    pub(super) fn classify(&mut self, images: &[f32], count: usize, [i, j, k]: [usize; 3]) -> Result<Vec<f32>, InferError> {
        let given = match self.contract.layout {
            Layout::Ncdhw => vec![count, 1, k, j, i],
            Layout::Nchw => vec![count, 1, j, i],
        };
        let expected = vec![count, self.contract.channels];
        self.run(images, [given, expected])
    }
}
