//! Which way the axes of a network's input run.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Axis;
use crate::geometry::{GeometryError, Grid, Orientation};

/// Which way i, j, k of a network's input run; i is the last axis of the tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Axes {
    /// Along these directions of the patient: `LPS`.
    Patient(Orientation),
    /// Along these axes of the source, whichever way they run, each named once: `kji`.
    Stored([Axis; 3]),
}

impl Axes {
    /// Left, posterior, superior: axial slices as most scanners store them.
    pub const LPS: Self = Self::Patient(Orientation::LPS);
    /// As they are stored, in reverse order: `kji`.
    pub const REVERSED: Self = Self::Stored([Axis::K, Axis::J, Axis::I]);

    /// `source` with its axes turned; no voxel moves.
    pub fn of(self, source: &Grid) -> Grid {
        match self {
            Self::Patient(orientation) => source.reoriented(orientation),
            Self::Stored(axes) => source.transposed(axes.map(|axis| axis as usize)),
        }
    }
}

impl fmt::Display for Axes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Patient(orientation) => orientation.fmt(f),
            Self::Stored(axes) => axes.iter().try_for_each(|axis| axis.fmt(f)),
        }
    }
}

impl TryFrom<String> for Axes {
    type Error = GeometryError;

    fn try_from(text: String) -> Result<Self, GeometryError> {
        stored(&text).map_or_else(|| text.parse().map(Self::Patient), |axes| Ok(Self::Stored(axes)))
    }
}

impl From<Axes> for String {
    fn from(axes: Axes) -> Self {
        axes.to_string()
    }
}

/// `jki`: each of three axes once.
fn stored(text: &str) -> Option<[Axis; 3]> {
    let axes: Option<Vec<Axis>> = text.chars().map(|letter| Axis::ALL.into_iter().find(|axis| axis.letter() == letter)).collect();
    let axes: [Axis; 3] = axes?.try_into().ok()?;
    Axis::ALL.iter().all(|axis| axes.contains(axis)).then_some(axes)
}
