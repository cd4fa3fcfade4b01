//! How values become grey.

use crate::codes::ucum;
use crate::dataset::{Frame, tags};
use crate::series::{VoiWindow, WindowFunction, has_voi_lut, windows};
use crate::volume::{ImageVolume, Quantity};

/// Which physical values are black and white (PS3.3 C.11.2.1.2).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Window {
    /// The middle grey.
    pub centre: f64,
    /// From black to white; above 0.
    pub width: f64,
}

impl Window {
    /// Soft tissue, HU.
    pub const SOFT_TISSUE: Self = Self { centre: 40.0, width: 400.0 };

    /// [`Window::SOFT_TISSUE`] for HU; else from the 1st to the 99th percentile of about 100 000 voxels.
    pub fn of(image: &ImageVolume) -> Self {
        if image.quantity == Quantity::Hounsfield {
            return Self::SOFT_TISSUE;
        }
        let [nx, ny, _] = image.grid().dims().map(|d| d as usize);
        let voxels = image.grid().voxel_count();
        let step = (voxels / 100_000).max(1) | 1;
        let mut values: Vec<f64> = (0..voxels).step_by(step).map(|n| image.physical([n % nx, n / nx % ny, n / (nx * ny)])).collect();
        values.sort_by(f64::total_cmp);
        let percentile = |share: f64| values[((values.len() - 1) as f64 * share) as usize];
        let (low, high) = (percentile(0.01), percentile(0.99));
        Self { centre: (low + high) / 2.0, width: (high - low).max(f64::MIN_POSITIVE) }
    }

    /// Grey of every value.
    pub(super) fn greys(self) -> VoiWindow {
        VoiWindow { centre: self.centre, width: self.width, function: WindowFunction::LinearExact }
    }
}

/// The window that the source itself names for a frame, for the physical values of slice `k`: its first one. None where there is none, where
/// a VOI LUT counts instead, or where the physical values are none that a window of the header is made for.
pub(super) fn of_source(frame: &Frame, image: &ImageVolume, k: usize) -> Option<VoiWindow> {
    let context = frame.context().ok()?;
    if has_voi_lut(&context) {
        return None;
    }
    let first = windows(&context).into_iter().next()?;
    match image.quantity {
        Quantity::Hounsfield | Quantity::ActivityConcentration | Quantity::OpticalDensity | Quantity::Arbitrary => Some(first),
        // The window is for the output of the Modality LUT; the SUV is a multiple of that.
        Quantity::Suv(_) => {
            let slope: f64 = context.texts(tags::RESCALE_SLOPE).first()?.parse().ok()?;
            let factor = image.rescale[k].slope / slope;
            (factor.is_finite() && factor > 0.0).then(|| first.times(factor))
        }
        Quantity::RealWorld { .. } => None,
    }
}

/// 8 bits of grey.
pub(super) fn grey(window: &VoiWindow, value: f64) -> u8 {
    (window.grey(value).clamp(0.0, 1.0) * 255.0).round() as u8
}

/// Centre and width for people, with the unit where there is one.
pub(super) fn caption(window: &VoiWindow, quantity: Quantity) -> String {
    let unit = match quantity {
        Quantity::Hounsfield => super::wording::unit(&ucum::HOUNSFIELD),
        _ => String::new(),
    };
    let numbers = [window.centre, window.width].map(super::wording::number);
    format!("Window centre {}, width {} {unit}", numbers[0], numbers[1]).trim_end().to_owned()
}
