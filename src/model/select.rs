//! Whether a package takes a series, and if not, every reason why.

use thiserror::Error;

use super::Package;
use crate::geometry::Coded;
use crate::series::{Reason, Series, Stack};
use crate::volume::Quantity;

/// One rule of the package, or of geometry, that a series does not meet.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum Ineligible {
    /// Modality (0008,0060) is another.
    #[error("modality is {found}, the package takes {}", wanted.join(", "))]
    Modality {
        /// Of the series.
        found: String,
        /// Of the package.
        wanted: Vec<String>,
    },
    /// Too few slices.
    #[error("{found} slices, the package takes {wanted} or more")]
    Slices {
        /// Of the series.
        found: usize,
        /// Of the package.
        wanted: usize,
    },
    /// Slices too far apart.
    #[error("slices are {found_mm:.2} mm apart, the package takes up to {wanted_mm:.2} mm")]
    Spacing {
        /// Of the series.
        found_mm: f64,
        /// Of the package.
        wanted_mm: f64,
    },
    /// Values are not in the unit that the modality promises.
    #[error("values are not Hounsfield units (Rescale Type), the package takes CT numbers")]
    NotHounsfield,
    /// The geometry gate refused it.
    #[error("{0}")]
    Geometry(Reason),
}

impl Coded for Ineligible {
    fn code(&self) -> &'static str {
        match self {
            Self::Modality { .. } => "select.modality",
            Self::Slices { .. } => "select.slices",
            Self::Spacing { .. } => "select.spacing",
            Self::NotHounsfield => "select.not-hounsfield",
            Self::Geometry(reason) => reason.code(),
        }
    }
}

impl Ineligible {
    /// Whether the series is one that the package wants, in a state that is not safe to analyse.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Geometry(_) | Self::NotHounsfield)
    }
}

/// A series that a package takes: its instances as a regular stack.
pub type Eligible = Stack;

impl Package {
    /// Holds `series` against the package's rules and the geometry gate.
    ///
    /// # Errors
    /// Every rule that it does not meet.
    pub fn eligible(&self, series: &Series) -> Result<Eligible, Vec<Ineligible>> {
        let select = &self.manifest.select;
        let mut reasons = Vec::new();
        if !select.modality.contains(&series.modality) {
            reasons.push(Ineligible::Modality { found: series.modality.clone(), wanted: select.modality.clone() });
        }
        if series.instances.len() < select.min_slices {
            reasons.push(Ineligible::Slices { found: series.instances.len(), wanted: select.min_slices });
        }
        match series.gate(select.geometry) {
            Ok(stack) => {
                let found_mm = stack.grid.spacing_mm()[2];
                if found_mm > select.max_slice_spacing_mm {
                    reasons.push(Ineligible::Spacing { found_mm, wanted_mm: select.max_slice_spacing_mm });
                }
                if series.modality == "CT" && stack.quantity != Quantity::Hounsfield {
                    reasons.push(Ineligible::NotHounsfield);
                }
                if reasons.is_empty() {
                    return Ok(stack);
                }
            }
            Err(refusal) => reasons.extend(refusal.reasons.into_iter().map(Ineligible::Geometry)),
        }
        Err(reasons)
    }
}
