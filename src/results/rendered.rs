//! One frame of any image as a picture for people who have no viewer at hand: in its own window or another, without annotations.

use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

use image::{ImageFormat, Rgb, RgbImage};
use thiserror::Error;

use super::raster::colour_jpeg;
use super::window::grey;
use crate::dataset::{Attributes, DatasetError, Frame, Instance, Place, check_decodable, read_frames, tags};
use crate::geometry::Coded;
use crate::series::{VoiWindow, WindowFunction, has_voi_lut, windows};

/// Pixels of a frame that is rendered, at most.
const MAX_PIXELS: u64 = 64 << 20;
/// The largest compressed file that a frame is decoded out of: it is read as a whole.
const MAX_FILE_BYTES: u64 = 1 << 30;
/// Of JPEG: pictures to look at, not to measure.
const QUALITY: u8 = 90;

/// Why a frame is not rendered.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RenderError {
    /// It cannot be read.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// There is no frame of this number.
    #[error("there is no frame {number}, only {frames}")]
    NoFrame {
        /// What was asked for.
        number: u32,
        /// What there is.
        frames: u32,
    },
    /// It is larger than what is rendered.
    #[error("more than {MAX_PIXELS} pixels, or {MAX_FILE_BYTES} bytes of a file")]
    TooLarge,
    /// Its grey values come out of a table, and no window stands for that.
    #[error("its grey values go through a {what} table, which is not rendered")]
    Table {
        /// Which one.
        what: &'static str,
    },
}

impl Coded for RenderError {
    fn code(&self) -> &'static str {
        match self {
            Self::Dataset(error) => error.code(),
            Self::NoFrame { .. } => "rendered.no-frame",
            Self::TooLarge => "rendered.too-large",
            Self::Table { .. } => "rendered.table",
        }
    }
}

/// Renders frame `number` (from 1) of the object at `path`, through `window` or its own first one; where it has neither, from its least to its
/// greatest value.
///
/// # Errors
/// [`RenderError`]
pub fn rendered(path: &Path, number: u32, window: Option<VoiWindow>) -> Result<RgbImage, RenderError> {
    let instance = Arc::new(Instance::read(path)?);
    check_decodable(&instance)?;
    if !(1..=instance.frames).contains(&number) {
        return Err(RenderError::NoFrame { number, frames: instance.frames });
    }
    let pixels = u64::from(instance.rows) * u64::from(instance.columns);
    // What a file merely claims reserves nothing; RLE makes of 64 bytes one, and a bit is the least that a pixel takes.
    let bytes = std::fs::metadata(path).map_or(0, |file| file.len());
    if pixels > MAX_PIXELS || pixels > bytes.saturating_mul(512) || bytes > MAX_FILE_BYTES {
        return Err(RenderError::TooLarge);
    }
    let (width, height, count) = (instance.columns, instance.rows, pixels as usize);
    if instance.pixels.is_colour() {
        let mut colours = vec![[0; 3]; count];
        read_frames(&instance, &mut [(number, Place::Rgb(&mut colours))])?;
        return Ok(RgbImage::from_raw(width, height, colours.into_flattened()).expect("three bytes a pixel"));
    }
    let mut stored = vec![0f32; count];
    read_frames(&instance, &mut [(number, Place::Float32(&mut stored))])?;
    let frames = Frame::all_of(&instance)?;
    let context = frames[number as usize - 1].context()?;
    if !context.texts(tags::MODALITY_LUT_TYPE).is_empty() || instance.has_modality_lut {
        return Err(RenderError::Table { what: "modality" });
    }
    let number_of = |tag, otherwise| context.texts(tag).first().and_then(|text| text.trim().parse::<f64>().ok()).unwrap_or(otherwise);
    let (slope, intercept) = (number_of(tags::RESCALE_SLOPE, 1.0), number_of(tags::RESCALE_INTERCEPT, 0.0));
    let value = |stored: f32| slope * f64::from(stored) + intercept;
    let window = match window.or_else(|| windows(&context).into_iter().next()) {
        Some(window) => window,
        None if has_voi_lut(&context) => return Err(RenderError::Table { what: "VOI" }),
        None => whole_range(stored.iter().map(|&stored| value(stored))),
    };
    let shape = instance.attributes.texts(tags::PRESENTATION_LUT_SHAPE);
    let inverse = instance.pixels.photometric == "MONOCHROME1" || shape.first().is_some_and(|shape| shape == "INVERSE");
    let of = |stored: f32| {
        let grey = grey(&window, value(stored));
        if inverse { 255 - grey } else { grey }
    };
    let greys: Vec<u8> = stored.into_iter().map(of).collect();
    Ok(RgbImage::from_fn(width, height, |x, y| Rgb([greys[(y * width + x) as usize]; 3])))
}

/// From the least to the greatest value that is a number.
fn whole_range(values: impl Iterator<Item = f64>) -> VoiWindow {
    let (least, greatest) = values.filter(|v| v.is_finite()).fold((f64::MAX, f64::MIN), |(l, g), v| (v.min(l), v.max(g)));
    let (centre, width) = if least < greatest { ((least + greatest) / 2.0, greatest - least) } else { (least.min(0.0), 1.0) };
    VoiWindow { centre, width, function: WindowFunction::LinearExact }
}

/// As JPEG, 90 of 100.
pub fn to_jpeg(picture: &RgbImage) -> Vec<u8> {
    colour_jpeg(picture, QUALITY)
}

/// As PNG.
pub fn to_png(picture: &RgbImage) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, ImageFormat::Png).expect("an image in memory becomes a PNG");
    bytes.into_inner()
}
