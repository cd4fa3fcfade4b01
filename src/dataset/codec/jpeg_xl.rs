//! JPEG XL (ISO 18181) by jxl-oxide. Integers are taken as they were coded: a scale of 0 to 1 and back would round samples of more
//! than 8 bits.

use jxl_oxide::image::BitDepth;
use jxl_oxide::{AlignedGrid, AllocTracker, JxlImage, JxlThreadPool};
use jxl_render::ImageBuffer;

use super::jpeg_2000::interleave;
use super::{Fault, FrameFormat, Samples, StreamInfo, samples};
use crate::dataset::colour::Photometric;

/// What the decoder may take for one frame, for each byte of samples, and beside that.
const MEMORY_PER_BYTE: usize = 64;
const MEMORY: usize = 64 << 20;

pub(super) fn decode(stream: &[u8], format: &FrameFormat<'_>, photometric: Photometric) -> Result<Samples, Fault> {
    let memory = MEMORY + MEMORY_PER_BYTE * format.count() * format.bytes_per_sample();
    let image = JxlImage::builder()
        .pool(JxlThreadPool::none())
        .alloc_tracker(AllocTracker::with_limit(memory))
        .read(stream)
        .map_err(|_| Fault::Damaged)?;
    let header = image.image_header();
    let BitDepth::IntegerSample { bits_per_sample: precision } = header.metadata.bit_depth else {
        return Err(Fault::Unsupported("JPEG XL with floating point samples is".into()));
    };
    if header.metadata.orientation != 1 {
        return Err(Fault::Unsupported("JPEG XL that asks to be turned or mirrored is".into()));
    }
    let components = (image.pixel_format().channels()) as u32;
    StreamInfo { rows: header.size.height, columns: header.size.width, components, precision }.check(format)?;
    let render = image.render_frame(0).map_err(|_| Fault::Damaged)?;
    let most = (1i64 << precision) - 1;
    let (columns, rows) = (usize::from(format.columns), usize::from(format.rows));
    let planes: Vec<Vec<i32>> = render
        .color_channels()
        .iter()
        .take(format.samples.into())
        .map(|channel| match channel {
            ImageBuffer::I16(grid) => cropped(grid, columns, rows, |v| v.into()),
            ImageBuffer::I32(grid) => cropped(grid, columns, rows, |v| v),
            // 0 to 1; lossy streams only.
            ImageBuffer::F32(grid) => cropped(grid, columns, rows, |v| (f64::from(v) * most as f64).round().clamp(0.0, most as f64) as i32),
        })
        .collect::<Option<_>>()
        .ok_or(Fault::Damaged)?;
    let planes: Vec<&[i32]> = planes.iter().map(Vec::as_slice).collect();
    if planes.len() != usize::from(format.samples) || planes.iter().any(|p| p.len() != format.pixels()) {
        return Err(Fault::Damaged);
    }
    let colour = if format.samples == 3 { Photometric::Rgb } else { photometric };
    Ok(samples(interleave(&planes, format.bytes_per_sample()), format, colour))
}

/// The image in a buffer that may be larger, for whole blocks.
fn cropped<T: Copy>(grid: &AlignedGrid<T>, columns: usize, rows: usize, value: impl Fn(T) -> i32) -> Option<Vec<i32>> {
    if grid.width() < columns || grid.height() < rows {
        return None;
    }
    Some(grid.buf().chunks_exact(grid.width()).take(rows).flat_map(|row| row[..columns].iter().map(|&v| value(v))).collect())
}
