//! How a series was acquired: what a table of a cohort is grouped by. Settings of scanners and numbers alone, no free text.

use serde::{Deserialize, Serialize};

use crate::dataset::Attribute;
use crate::series::{Part, Stack};

/// Of the first image of a part; empty or none where the header does not say.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Acquisition {
    /// First 16 digits of the SHA-256 over Patient ID and Patient's Name: equal for the same patient. A pseudonym: who knows both texts
    /// can compute it. Empty where the header has neither.
    pub patient: String,
    /// Manufacturer (0008,0070), where it reads as one.
    pub manufacturer: String,
    /// Manufacturer's Model Name (0008,1090), where it reads as one.
    pub model: String,
    /// Convolution Kernel (0018,1210).
    pub kernel: String,
    /// Slice Thickness (0018,0050).
    pub slice_thickness_mm: Option<f64>,
    /// Along i, j, k, of the grid that was analysed.
    pub spacing_mm: Option<[f64; 3]>,
    /// Voxels along i, j, k.
    pub dims: Option<[u32; 3]>,
}

impl Acquisition {
    /// Of a part, and of the grid that its images make where they make one.
    pub(super) fn of(part: &Part<'_>, stack: Option<&Stack>) -> Self {
        let setting = |keyword: &str| {
            let values = Attribute::known(keyword).values(&part.frames[0]);
            values.iter().map(|value| value.trim()).filter(|value| is_setting(value)).collect::<Vec<_>>().join(" ")
        };
        let thickness = Attribute::known("SliceThickness");
        Self {
            patient: Some(part.first()).filter(|first| first.names_patient()).map_or("", |first| &first.patient_key[..16]).to_owned(),
            manufacturer: setting("Manufacturer"),
            model: setting("ManufacturerModelName"),
            kernel: setting("ConvolutionKernel"),
            slice_thickness_mm: thickness.values(&part.frames[0]).iter().find_map(|value| thickness.number(value)),
            spacing_mm: stack.map(|stack| stack.grid.spacing_mm()),
            dims: stack.map(|stack| stack.grid.dims()),
        }
    }
}

/// Names of scanners and kernels are kept by every profile of de-identification (PS3.15 table E.1-1); a longer text is no such name.
fn is_setting(value: &str) -> bool {
    (1..=64).contains(&value.len()) && value.chars().all(|c| c.is_ascii_alphanumeric() || " _-./+()[]',&".contains(c))
}
