//! Pictures as files: grey and colour as JPEG, overlays as PNG with transparency. Lossy, so for orientation, never for measuring.

use std::io::Cursor;

use image::RgbImage;
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

use super::plane::{Colours, Sampled, TINT};

/// The grey values as JPEG.
pub(super) fn grey_jpeg(sampled: &Sampled, quality: u8) -> Vec<u8> {
    jpeg(&sampled.grey, [sampled.width, sampled.height], ColorType::Luma, quality)
}

/// Colours as JPEG, at full resolution, so that thin outlines keep theirs.
pub(super) fn colour_jpeg(image: &RgbImage, quality: u8) -> Vec<u8> {
    jpeg(image.as_raw(), [image.width(), image.height()], ColorType::Rgb, quality)
}

fn jpeg(samples: &[u8], [width, height]: [u32; 2], colours: ColorType, quality: u8) -> Vec<u8> {
    let side = |pixels: u32| u16::try_from(pixels).expect("pictures are a few thousand pixels wide");
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, quality);
    encoder.set_sampling_factor(SamplingFactor::R_4_4_4);
    encoder.encode(samples, side(width), side(height), colours).expect("an image in memory becomes a JPEG");
    bytes
}

/// The segments alone as PNG: transparent where nothing is, tinted within, solid along borders.
pub(super) fn overlay_png(sampled: &Sampled, colours: &Colours) -> Vec<u8> {
    // Entry 0 is nothing; then two for each label that is seen, tinted and solid, or solid alone where there are too many for a palette.
    let mut seen = [false; 256];
    sampled.label.iter().for_each(|&label| seen[usize::from(label)] = true);
    let shown: Vec<(usize, [u8; 3])> =
        colours.iter().enumerate().filter(|(label, _)| seen[*label]).filter_map(|(label, colour)| Some((label, (*colour)?))).collect();
    let entries = if shown.len() <= 127 { 2 } else { 1 };
    let mut place = [0u8; 256];
    let (mut palette, mut alpha) = (vec![0; 3], vec![0]);
    let tint = (TINT * 255.0).round() as u8;
    for (label, colour) in shown.into_iter().take(255) {
        place[label] = alpha.len() as u8;
        for alpha_of_entry in [tint, 255].into_iter().take(entries) {
            palette.extend(colour);
            alpha.push(alpha_of_entry);
        }
    }
    let index = |n: usize| match place[usize::from(sampled.label[n])] {
        0 => 0,
        tinted if entries == 2 && sampled.is_border(n) => tinted + 1,
        tinted => tinted,
    };
    let indices: Vec<u8> = (0..sampled.label.len()).map(index).collect();
    let mut bytes = Cursor::new(Vec::new());
    let mut encoder = png::Encoder::new(&mut bytes, sampled.width, sampled.height);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Balanced);
    encoder.set_filter(png::Filter::NoFilter);
    encoder.set_palette(palette);
    encoder.set_trns(alpha);
    let written = encoder.write_header().and_then(|mut writer| writer.write_image_data(&indices).and_then(|()| writer.finish()));
    written.expect("an indexed image in memory becomes a PNG");
    bytes.into_inner()
}

/// Red, green, blue and opacity of each pixel, row by row, as PNG.
pub(super) fn rgba_png(samples: &[u8], [width, height]: [u32; 2]) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgba);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Balanced);
    let written = encoder.write_header().and_then(|mut writer| writer.write_image_data(samples).and_then(|()| writer.finish()));
    written.expect("an image in memory becomes a PNG");
    bytes.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_overlay_is_there_where_the_labels_are() {
        let mut label = vec![0u8; 20 * 10];
        (3..8).for_each(|y| label[y * 20 + 4..y * 20 + 12].fill(7));
        let sampled = Sampled { width: 20, height: 10, grey: vec![90; 200], label };
        let mut colours = [None; 256];
        colours[7] = Some([10, 200, 30]);
        let read = image::load_from_memory(&overlay_png(&sampled, &colours)).expect("a PNG").to_rgba8();
        for (n, pixel) in read.pixels().enumerate() {
            let expected = match (sampled.label[n], sampled.is_border(n)) {
                (0, _) => [0, 0, 0, 0],
                (_, true) => [10, 200, 30, 255],
                (_, false) => [10, 200, 30, 64],
            };
            assert_eq!(pixel.0, expected, "pixel {n}");
        }
    }

    /// More labels than a palette has pairs for.
    #[test]
    fn two_hundred_labels_fit() {
        let label: Vec<u8> = (0..=255).collect();
        let sampled = Sampled { width: 16, height: 16, grey: vec![0; 256], label };
        let mut colours: Colours = std::array::from_fn(|n| Some([n as u8, 1, 2]));
        colours[0] = None;
        let read = image::load_from_memory(&overlay_png(&sampled, &colours)).expect("a PNG").to_rgba8();
        assert!(read.pixels().enumerate().skip(1).all(|(n, p)| p.0[0] == n as u8 && p.0[3] > 0));
    }
}
