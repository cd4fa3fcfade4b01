//! Drawing on an RGB image: text, boxes, lines.

use font8x8::UnicodeFonts;
use image::{Rgb, RgbImage};

/// Side of a character, pixels: the 8 x 8 font, doubled.
pub(super) const CHARACTER: u32 = 16;

/// Writes one line with its upper left corner at (x, y); what lies outside the image is left out, unknown characters are `?`.
pub(super) fn text(image: &mut RgbImage, x: u32, y: u32, text: &str, colour: [u8; 3]) {
    for (n, c) in text.chars().enumerate() {
        let glyph = font8x8::BASIC_FONTS.get(c).or_else(|| font8x8::LATIN_FONTS.get(c)).or_else(|| font8x8::BASIC_FONTS.get('?'));
        for (row, bits) in glyph.unwrap_or_default().into_iter().enumerate() {
            for column in (0..8).filter(|column| bits >> column & 1 == 1) {
                fill(image, [x + n as u32 * CHARACTER + column * 2, y + row as u32 * 2, 2, 2], colour);
            }
        }
    }
}

/// The same with a black rim, for text on an image.
pub(super) fn rimmed_text(image: &mut RgbImage, x: u32, y: u32, line: &str, colour: [u8; 3]) {
    for (dx, dy) in [(0, 0), (2, 0), (4, 0), (0, 2), (4, 2), (0, 4), (2, 4), (4, 4)] {
        text(image, (x + dx).saturating_sub(2), (y + dy).saturating_sub(2), line, [0; 3]);
    }
    text(image, x, y, line, colour);
}

/// Fills the box [x, y, width, height], as far as it lies in the image.
pub(super) fn fill(image: &mut RgbImage, [x, y, width, height]: [u32; 4], colour: [u8; 3]) {
    for row in y..(y + height).min(image.height()) {
        for column in x..(x + width).min(image.width()) {
            image.put_pixel(column, row, Rgb(colour));
        }
    }
}

/// Breaks text at spaces into lines of at most `columns` characters; a longer word is cut.
pub(super) fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let letters: Vec<char> = word.chars().collect();
        for part in letters.chunks(columns.max(1)) {
            let last = lines.last_mut().expect("there is always a line");
            let used = last.chars().count();
            if used > 0 && used + 1 + part.len() > columns {
                lines.push(part.iter().collect());
            } else {
                if used > 0 {
                    last.push(' ');
                }
                last.extend(part);
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_kept_whole_where_they_fit() {
        assert_eq!(wrap("not for diagnosis", 7), ["not for", "diagnos", "is"]);
        assert_eq!(wrap("", 7), [""]);
    }
}
