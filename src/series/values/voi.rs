//! What is kept for pictures and statistics: VOI windows, and which stored values are padding.

use std::ops::RangeInclusive;

use super::attributes::{as_stored, integer, texts};
use crate::dataset::{FrameContext, tags};

/// How a window maps values to grey (PS3.3 C.11.2.1.2, C.11.2.1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WindowFunction {
    /// LINEAR, also where VOI LUT Function is absent.
    Linear,
    /// LINEAR_EXACT.
    LinearExact,
    /// SIGMOID.
    Sigmoid,
}

/// One window of the header, in the values that the Modality LUT gives: HU, Bq/ml or counts, not SUV or real-world values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VoiWindow {
    /// Window Center (0028,1050).
    pub centre: f64,
    /// Window Width (0028,1051), at least 1 for [`WindowFunction::Linear`], else above 0.
    pub width: f64,
    /// VOI LUT Function (0028,1056).
    pub function: WindowFunction,
}

impl VoiWindow {
    /// Grey of a value, 0 (black of MONOCHROME2) to 1.
    pub fn grey(&self, value: f64) -> f64 {
        let (centre, width) = (self.centre, self.width);
        match self.function {
            // Two integers are one width apart from end to end, so a width of 1 is a threshold.
            WindowFunction::Linear if width > 1.0 => ((value - (centre - 0.5)) / (width - 1.0) + 0.5).clamp(0.0, 1.0),
            WindowFunction::Linear => f64::from(u8::from(value > centre - 0.5)),
            WindowFunction::LinearExact => ((value - centre) / width + 0.5).clamp(0.0, 1.0),
            WindowFunction::Sigmoid => 1.0 / (1.0 + (-4.0 * (value - centre) / width).exp()),
        }
    }

    /// The same window for values that were multiplied by `factor`, from Bq/ml to SUV for one. It becomes `LINEAR_EXACT` where it was
    /// linear, since the half steps of `LINEAR` belong to integers.
    #[must_use]
    pub fn times(&self, factor: f64) -> Self {
        let (centre, width) = (self.centre * factor, self.width * factor);
        match self.function {
            WindowFunction::Linear if self.width > 1.0 => {
                Self { centre: centre - 0.5 * factor, width: width - factor, function: WindowFunction::LinearExact }
            }
            WindowFunction::Linear => {
                Self { centre: centre - 0.5 * factor, width: f64::MIN_POSITIVE, function: WindowFunction::LinearExact }
            }
            function => Self { centre, width, function },
        }
    }
}

/// The windows of a frame (Frame VOI LUT functional group, or the data set), in their order; what is no window is left out.
pub(crate) fn windows(context: &FrameContext<'_>) -> Vec<VoiWindow> {
    let holder = context.within(tags::FRAME_VOILUT_SEQUENCE).find(|d| !texts(d, tags::WINDOW_CENTER).is_empty());
    let Some(holder) = holder else { return Vec::new() };
    let function = match texts(holder, tags::VOILUT_FUNCTION).first().map_or("", String::as_str) {
        "" | "LINEAR" => WindowFunction::Linear,
        "LINEAR_EXACT" => WindowFunction::LinearExact,
        "SIGMOID" => WindowFunction::Sigmoid,
        _ => return Vec::new(),
    };
    let least = if function == WindowFunction::Linear { 1.0 } else { f64::MIN_POSITIVE };
    let numbers = |tag| texts(holder, tag).into_iter().map(|v| v.parse::<f64>().ok().filter(|n| n.is_finite()));
    numbers(tags::WINDOW_CENTER)
        .zip(numbers(tags::WINDOW_WIDTH))
        .filter_map(|(centre, width)| Some(VoiWindow { centre: centre?, width: width.filter(|&w| w >= least)?, function }))
        .collect()
}

/// Whether the frame has a VOI LUT Sequence (0028,3010): a picture by its windows alone would not be what its maker meant.
pub(crate) fn has_voi_lut(context: &FrameContext<'_>) -> bool {
    !context.items(tags::VOILUT_SEQUENCE).is_empty()
}

/// Stored values that stand for no image: Pixel Padding Value (0028,0120) to Pixel Padding Range Limit (0028,0121), either one first
/// (PS3.3 C.7.5.1.1.2). Nothing is done to them when values are mapped; statistics may leave them out.
pub(crate) fn padding(context: &FrameContext<'_>) -> Option<RangeInclusive<i64>> {
    let read = |tag| integer(context.root, tag).ok().flatten().map(|v| as_stored(v, context.signed()));
    let value = read(tags::PIXEL_PADDING_VALUE)?;
    let limit = read(tags::PIXEL_PADDING_RANGE_LIMIT).unwrap_or(value);
    Some(value.min(limit)..=value.max(limit))
}
