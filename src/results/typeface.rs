//! The fonts that results are written in: Latin, Greek and Cyrillic (`assets/fonts`), the same on every machine.

use std::sync::LazyLock;

use ab_glyph::{Font, FontRef, PxScale};

/// One of the two fonts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Face {
    Regular,
    Bold,
}

static REGULAR: LazyLock<FontRef<'static>> = LazyLock::new(|| font_of(Face::Regular));
static BOLD: LazyLock<FontRef<'static>> = LazyLock::new(|| font_of(Face::Bold));

fn font_of(face: Face) -> FontRef<'static> {
    FontRef::try_from_slice(face.file()).expect("the fonts of the program can be read")
}

impl Face {
    /// The font as a TrueType file.
    pub(super) fn file(self) -> &'static [u8] {
        match self {
            Self::Regular => include_bytes!("../../assets/fonts/NotoSans-Regular.ttf"),
            Self::Bold => include_bytes!("../../assets/fonts/NotoSans-Bold.ttf"),
        }
    }

    /// The parsed font.
    pub(super) fn font(self) -> &'static FontRef<'static> {
        match self {
            Self::Regular => &REGULAR,
            Self::Bold => &BOLD,
        }
    }

    /// Number of the glyph of a character; 0, which is a box, where the font lacks it.
    pub(super) fn glyph(self, c: char) -> u16 {
        self.font().glyph_id(c).0
    }

    /// Whether the font can show a character.
    pub(super) fn has(self, c: char) -> bool {
        self.glyph(c) != 0
    }

    /// Scale at which an em is `size` pixels.
    pub(super) fn scale(self, size: f32) -> PxScale {
        PxScale::from(size * self.font().height_unscaled() / self.units_per_em())
    }

    /// Units of the font in an em.
    pub(super) fn units_per_em(self) -> f32 {
        self.font().units_per_em().expect("the fonts of the program state it")
    }

    /// How far a character moves the pen, in ems.
    pub(super) fn advance(self, c: char) -> f32 {
        self.font().h_advance_unscaled(self.font().glyph_id(c)) / self.units_per_em()
    }

    /// Width of a line, in the unit of `size`.
    pub(super) fn width(self, text: &str, size: f32) -> f32 {
        text.chars().map(|c| self.advance(c)).sum::<f32>() * size
    }

    /// Breaks text at spaces into lines of at most `width`; a word that is wider is cut. There is always one line.
    pub(super) fn wrap(self, text: &str, size: f32, width: f32) -> Vec<String> {
        let fits = |line: &str| self.width(line, size) <= width;
        let mut lines = vec![String::new()];
        for word in text.split_whitespace() {
            let last = lines.last_mut().expect("there is always a line");
            let longer = if last.is_empty() { word.to_owned() } else { format!("{last} {word}") };
            if fits(&longer) {
                *last = longer;
                continue;
            }
            if !last.is_empty() {
                lines.push(String::new());
            }
            for c in word.chars() {
                let last = lines.last_mut().expect("there is always a line");
                if last.is_empty() || fits(&format!("{last}{c}")) {
                    last.push(c);
                } else {
                    lines.push(c.to_string());
                }
            }
        }
        lines
    }

    /// The text as it fits into `width`, with an ellipsis where it was cut.
    pub(super) fn cut(self, text: &str, size: f32, width: f32) -> String {
        if self.width(text, size) <= width {
            return text.to_owned();
        }
        let room = width - self.width("\u{2026}", size);
        let mut used = 0.0;
        let kept = text.chars().take_while(|&c| {
            used += self.advance(c) * size;
            used <= room
        });
        kept.collect::<String>().trim_end().to_owned() + "\u{2026}"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_kept_whole_where_they_fit() {
        let wide = Face::Regular.width("diagnos", 10.0);
        let lines = Face::Regular.wrap("not for diagnosis", 10.0, wide);
        assert_eq!(lines, ["not for", "diagnos", "is"]);
        assert_eq!(Face::Regular.wrap("", 10.0, wide), [""]);
        assert_eq!(Face::Regular.wrap("ab", 10.0, 0.0), ["a", "b"], "a character too wide stands alone");
    }

    #[test]
    fn a_cut_line_fits() {
        let line = Face::Bold.cut("soft tissue", 16.0, 60.0);
        assert!(line.ends_with('\u{2026}') && Face::Bold.width(&line, 16.0) <= 60.0, "{line}");
        assert_eq!(Face::Bold.cut("bone", 16.0, 60.0), "bone");
    }

    #[test]
    fn three_alphabets_are_there() {
        for face in [Face::Regular, Face::Bold] {
            let text = "A\u{fc}\u{142}\u{151}\u{1ea1}\u{3a9}\u{416}\u{456}\u{b2}\u{b5}\u{207b}\u{2026}\u{fffd}";
            assert!(text.chars().all(|c| face.has(c)));
            assert!(!face.has('\u{5c71}') && !face.has('\u{5d0}'));
            assert!((face.advance('0') - face.advance('1')).abs() < 1e-6, "figures are of one width");
        }
    }
}
