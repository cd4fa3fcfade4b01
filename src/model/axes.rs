//! Which way the axes of a network's input run.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::geometry::{GeometryError, Grid, Orientation};

/// Which way i, j, k of a network's input run; i is the last axis of the tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Axes {
    /// Along these directions of the patient: `LPS`.
    Patient(Orientation),
    /// As they are stored, in reverse order: `kji`.
    Reversed,
}

const REVERSED: &str = "kji";

impl Axes {
    /// Left, posterior, superior: axial slices as most scanners store them.
    pub const LPS: Self = Self::Patient(Orientation::LPS);

    /// `source` with its axes turned; no voxel moves.
    pub fn of(self, source: &Grid) -> Grid {
        match self {
            Self::Patient(orientation) => source.reoriented(orientation),
            Self::Reversed => source.reversed(),
        }
    }
}

impl fmt::Display for Axes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Patient(orientation) => orientation.fmt(f),
            Self::Reversed => f.write_str(REVERSED),
        }
    }
}

impl TryFrom<String> for Axes {
    type Error = GeometryError;

    fn try_from(text: String) -> Result<Self, GeometryError> {
        if text == REVERSED { Ok(Self::Reversed) } else { text.parse().map(Self::Patient) }
    }
}

impl From<Axes> for String {
    fn from(axes: Axes) -> Self {
        axes.to_string()
    }
}
