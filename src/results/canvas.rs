//! Drawing on an RGB image: text, boxes, lines.

use ab_glyph::{Font, point};
use image::{Rgb, RgbImage};

use super::typeface::Face;

/// How a line of text looks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    pub(super) face: Face,
    /// Pixels an em; a capital letter is 0.71 of it.
    pub(super) size: f32,
    pub(super) colour: [u8; 3],
}

impl Style {
    pub(super) const fn new(face: Face, size: f32, colour: [u8; 3]) -> Self {
        Self { face, size, colour }
    }
}

/// Writes one line whose letters stand on y + size and begin at x; what lies outside the image is left out.
pub(super) fn text(image: &mut RgbImage, x: u32, y: u32, text: &str, style: Style) {
    write(image, [x as f32, y as f32], text, style);
}

/// The same with a black rim, for text on an image.
pub(super) fn rimmed_text(image: &mut RgbImage, x: u32, y: u32, line: &str, style: Style) {
    for (dx, dy) in [(-1.0, -1.0), (0.0, -1.5), (1.0, -1.0), (-1.5, 0.0), (1.5, 0.0), (-1.0, 1.0), (0.0, 1.5), (1.0, 1.0)] {
        write(image, [x as f32 + dx, y as f32 + dy], line, Style { colour: [0; 3], ..style });
    }
    text(image, x, y, line, style);
}

fn write(image: &mut RgbImage, [x, y]: [f32; 2], text: &str, style: Style) {
    let font = style.face.font();
    let mut pen = x;
    for c in text.chars() {
        let glyph = font.glyph_id(c).with_scale_and_position(style.face.scale(style.size), point(pen, y + style.size));
        pen += style.face.advance(c) * style.size;
        let Some(outline) = font.outline_glyph(glyph) else { continue };
        let corner = outline.px_bounds().min;
        outline.draw(|column, row, coverage| {
            let (x, y) = (corner.x as i64 + i64::from(column), corner.y as i64 + i64::from(row));
            let inside = |v: i64, size: u32| u32::try_from(v).ok().filter(|&v| v < size);
            if let (Some(x), Some(y)) = (inside(x, image.width()), inside(y, image.height())) {
                let below = image.get_pixel(x, y).0;
                let coverage = coverage.clamp(0.0, 1.0);
                let mixed = std::array::from_fn(|n| mix(below[n], style.colour[n], coverage));
                image.put_pixel(x, y, Rgb(mixed));
            }
        });
    }
}

fn mix(below: u8, above: u8, share: f32) -> u8 {
    (f32::from(below) * (1.0 - share) + f32::from(above) * share).round() as u8
}

/// Fills the box [x, y, width, height], as far as it lies in the image.
pub(super) fn fill(image: &mut RgbImage, [x, y, width, height]: [u32; 4], colour: [u8; 3]) {
    for row in y..(y + height).min(image.height()) {
        for column in x..(x + width).min(image.width()) {
            image.put_pixel(column, row, Rgb(colour));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_in_its_line_and_in_the_image() {
        let mut image = RgbImage::new(60, 40);
        let style = Style::new(Face::Bold, 16.0, [255; 3]);
        text(&mut image, 4, 8, "Hg\u{c4}", style);
        let inked =
            |image: &RgbImage| image.enumerate_pixels().filter(|(_, _, p)| p.0[0] > 128).map(|(x, y, _)| (x, y)).collect::<Vec<_>>();
        let ink = inked(&image);
        assert!(
            ink.len() > 60
                && ink
                    .iter()
                    .all(|&(x, y)| (4..4 + Face::Bold.width("Hg\u{c4}", 16.0).ceil() as u32).contains(&x) && (8..8 + 21).contains(&y))
        );
        assert_eq!(ink.iter().filter(|p| p.0 < 14).map(|p| p.1).max(), Some(8 + 15), "letters stand on y + size");
        text(&mut image, 55, 35, "far outside", style);
    }
}
