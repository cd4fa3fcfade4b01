//! A PDF document under construction: A4 pages filled from top to bottom, with the two fonts of the program embedded.
//!
//! Lengths are points (1/72 inch), and y runs down from the upper edge of a page. The same calls give the same bytes.

use std::collections::BTreeMap;
use std::io::Write;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use pdf_writer::types::{CidFontType, FontFlags, SystemInfo, UnicodeCmap};
use pdf_writer::{Content, Date, Filter, Finish, Name, Pdf, Rect, Ref, Str, TextStr};

use crate::results::typeface::Face;

/// Width and height of a page.
const PAGE: [f32; 2] = [595.28, 841.89];
/// Room at each side.
pub(super) const MARGIN: f32 = 40.0;
/// Width that can be written on.
pub(super) const WIDTH: f32 = PAGE[0] - 2.0 * MARGIN;
/// Where the last line of a page ends, above its footer.
const BOTTOM: f32 = PAGE[1] - 54.0;
/// In place of a letter that the fonts lack.
pub(super) const MISSING: char = '\u{fffd}';

/// A colour, 0 to 1.
pub(super) type Colour = [f32; 3];
pub(super) const BLACK: Colour = [0.07, 0.08, 0.1];
pub(super) const SOFT: Colour = [0.33, 0.36, 0.4];
pub(super) const RULE: Colour = [0.82, 0.84, 0.87];

/// How text looks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    pub(super) face: Face,
    pub(super) size: f32,
    pub(super) colour: Colour,
}

impl Style {
    pub(super) const fn new(face: Face, size: f32, colour: Colour) -> Self {
        Self { face, size, colour }
    }

    /// Distance of lines.
    pub(super) fn leading(self) -> f32 {
        self.size * 1.35
    }

    /// Text as it is shown, in lines of at most `width`.
    pub(super) fn wrapped(self, text: &str, width: f32) -> Vec<String> {
        self.face.wrap(&shown(self.face, text), self.size, width)
    }
}

/// The document.
pub(super) struct Paper {
    pages: Vec<Content>,
    /// Where the next thing goes.
    pub(super) y: f32,
    images: Vec<(Vec<u8>, [u32; 2])>,
    /// Glyphs that were used of each font, and what they mean.
    used: [BTreeMap<u16, char>; 2],
    /// Whether a letter was asked for that the fonts lack.
    pub(super) lacks_letters: bool,
}

/// What a document is called, and what stands at the foot of each page.
pub(super) struct Description<'a> {
    pub(super) title: &'a str,
    pub(super) producer: &'a str,
    pub(super) made: &'a jiff::ZonedDateTime,
    /// Tells documents apart.
    pub(super) id: &'a str,
    /// Two lines, the page's number follows.
    pub(super) footer: [&'a str; 2],
}

impl Paper {
    pub(super) fn new() -> Self {
        Self { pages: vec![Content::new()], y: MARGIN, images: Vec::new(), used: Default::default(), lacks_letters: false }
    }

    /// Begins a page where less than `height` is left; true where it did.
    pub(super) fn need(&mut self, height: f32) -> bool {
        let full = self.y + height > BOTTOM && self.y > MARGIN;
        if full {
            self.pages.push(Content::new());
            self.y = MARGIN;
        }
        full
    }

    fn page(&mut self) -> &mut Content {
        self.pages.last_mut().expect("a document has a page")
    }

    /// A line of text in the box of its leading, whose upper edge is `y`.
    pub(super) fn line(&mut self, x: f32, y: f32, text: &str, style: Style) {
        let mut page = std::mem::replace(self.page(), Content::new());
        self.write(&mut page, [x, y], text, style);
        *self.page() = page;
    }

    fn write(&mut self, page: &mut Content, [x, y]: [f32; 2], text: &str, style: Style) {
        let text = shown(style.face, text);
        self.lacks_letters |= text.contains(MISSING);
        let used = &mut self.used[index(style.face)];
        let glyphs: Vec<u8> = text
            .chars()
            .flat_map(|c| {
                let glyph = style.face.glyph(c);
                used.entry(glyph).or_insert(c);
                glyph.to_be_bytes()
            })
            .collect();
        let [r, g, b] = style.colour;
        page.set_fill_rgb(r, g, b).begin_text().set_font(name(style.face), style.size);
        page.next_line(x, PAGE[1] - y - style.size * 1.06).show(Str(&glyphs)).end_text();
    }

    /// A line that ends at `right`.
    pub(super) fn line_to(&mut self, right: f32, y: f32, text: &str, style: Style) {
        let width = style.face.width(&shown(style.face, text), style.size);
        self.line(right - width, y, text, style);
    }

    /// Text over the whole width, on as many lines and pages as it needs.
    pub(super) fn paragraph(&mut self, text: &str, style: Style) {
        for line in style.wrapped(text, WIDTH) {
            self.need(style.leading());
            self.line(MARGIN, self.y, &line, style);
            self.y += style.leading();
        }
    }

    /// A filled box.
    pub(super) fn fill(&mut self, [x, y, width, height]: [f32; 4], [r, g, b]: Colour) {
        self.page().set_fill_rgb(r, g, b).rect(x, PAGE[1] - y - height, width, height).fill_nonzero();
    }

    /// A JPEG of `size` pixels, drawn into a box.
    pub(super) fn image(&mut self, [x, y, width, height]: [f32; 4], jpeg: Vec<u8>, size: [u32; 2]) {
        self.images.push((jpeg, size));
        let name = image_name(self.images.len());
        let page = self.page();
        page.save_state().transform([width, 0.0, 0.0, height, x, PAGE[1] - y - height]).x_object(Name(name.as_bytes())).restore_state();
    }

    /// The document as a file.
    pub(super) fn finish(mut self, description: &Description<'_>) -> Vec<u8> {
        self.foot(description);
        let mut pdf = Pdf::new();
        pdf.set_version(1, 7);
        pdf.set_file_id((description.id.as_bytes().to_vec(), description.id.as_bytes().to_vec()));
        let mut next = Ref::new(1);
        let (catalog, tree, info) = (next.bump(), next.bump(), next.bump());
        let fonts = [Face::Regular, Face::Bold].map(|face| (face, embed(&mut pdf, &mut next, face, &self.used[index(face)])));
        let images: Vec<Ref> = self.images.iter().map(|(jpeg, size)| picture(&mut pdf, next.bump(), jpeg, *size)).collect();
        let mut kids = Vec::new();
        for content in std::mem::take(&mut self.pages) {
            let (page, stream) = (next.bump(), next.bump());
            let bytes = deflated(&content.finish());
            pdf.stream(stream, &bytes).filter(Filter::FlateDecode);
            let mut written = pdf.page(page);
            written.media_box(Rect::new(0.0, 0.0, PAGE[0], PAGE[1])).parent(tree).contents(stream);
            let mut resources = written.resources();
            let mut of_page = resources.fonts();
            for (face, font) in fonts {
                of_page.pair(name(face), font);
            }
            of_page.finish();
            let mut of_page = resources.x_objects();
            for (n, &image) in images.iter().enumerate() {
                of_page.pair(Name(image_name(n + 1).as_bytes()), image);
            }
            of_page.finish();
            resources.finish();
            written.finish();
            kids.push(page);
        }
        pdf.pages(tree).count(kids.len() as i32).kids(kids);
        let mut root = pdf.catalog(catalog);
        root.pages(tree).lang(TextStr("en"));
        root.viewer_preferences().display_doc_title(true);
        root.finish();
        let mut about = pdf.document_info(info);
        about.title(TextStr(description.title)).producer(TextStr(description.producer)).creation_date(date(description.made));
        about.finish();
        pdf.finish()
    }

    /// What stands at the foot of each page.
    fn foot(&mut self, description: &Description<'_>) {
        let style = Style::new(Face::Regular, 7.5, SOFT);
        let bold = Style { face: Face::Bold, ..style };
        let mut pages = std::mem::take(&mut self.pages);
        let count = pages.len();
        for (n, page) in pages.iter_mut().enumerate() {
            let y = BOTTOM + 8.0;
            let [r, g, b] = RULE;
            page.set_fill_rgb(r, g, b).rect(MARGIN, PAGE[1] - y, WIDTH, 0.6).fill_nonzero();
            self.write(page, [MARGIN, y + 4.0], description.footer[0], bold);
            self.write(page, [MARGIN, y + 4.0 + style.leading()], &style.face.cut(description.footer[1], style.size, WIDTH), style);
            let number = format!("page {} of {count}", n + 1);
            let right = PAGE[0] - MARGIN - style.face.width(&number, style.size);
            self.write(page, [right, y + 4.0], &number, style);
        }
        self.pages = pages;
    }
}

/// The text with each letter that the font lacks replaced.
fn shown(face: Face, text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).map(|c| if face.has(c) { c } else { MISSING }).collect()
}

fn index(face: Face) -> usize {
    usize::from(face == Face::Bold)
}

fn name(face: Face) -> Name<'static> {
    match face {
        Face::Regular => Name(b"F1"),
        Face::Bold => Name(b"F2"),
    }
}

fn image_name(number: usize) -> String {
    format!("Im{number}")
}

fn date(at: &jiff::ZonedDateTime) -> Date {
    let minutes = at.offset().seconds() / 60;
    Date::new(at.year().unsigned_abs())
        .month(at.month().unsigned_abs())
        .day(at.day().unsigned_abs())
        .hour(at.hour().unsigned_abs())
        .minute(at.minute().unsigned_abs())
        .second(at.second().unsigned_abs())
        .utc_offset_hour((minutes / 60) as i8)
        .utc_offset_minute((minutes % 60).unsigned_abs() as u8)
}

fn deflated(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("memory takes what is written")
}

/// A JPEG as it is.
fn picture(pdf: &mut Pdf, id: Ref, jpeg: &[u8], [width, height]: [u32; 2]) -> Ref {
    let mut image = pdf.image_xobject(id, jpeg);
    image.filter(Filter::DctDecode);
    image.width(width as i32).height(height as i32).bits_per_component(8);
    image.color_space().device_rgb();
    id
}

/// Embeds a font (PDF 1.7, 9.7): glyphs are named by their numbers, and a map tells which characters they are, for search and copying.
fn embed(pdf: &mut Pdf, next: &mut Ref, face: Face, used: &BTreeMap<u16, char>) -> Ref {
    use ab_glyph::Font;
    let (font, cid, descriptor, cmap, file) = (next.bump(), next.bump(), next.bump(), next.bump(), next.bump());
    let base = match face {
        Face::Regular => Name(b"NotoSans-Regular"),
        Face::Bold => Name(b"NotoSans-Bold"),
    };
    let system = SystemInfo { registry: Str(b"Adobe"), ordering: Str(b"Identity"), supplement: 0 };
    let per_mille = |units: f32| units / face.units_per_em() * 1000.0;
    let parsed = face.font();

    pdf.type0_font(font).base_font(base).encoding_predefined(Name(b"Identity-H")).descendant_font(cid).to_unicode(cmap);
    let mut described = pdf.cid_font(cid);
    described.subtype(CidFontType::Type2).base_font(base).system_info(system).font_descriptor(descriptor).default_width(0.0);
    described.cid_to_gid_map_predefined(Name(b"Identity"));
    let mut widths = described.widths();
    for (&glyph, &c) in used {
        widths.consecutive(glyph, [face.advance(c) * 1000.0]);
    }
    widths.finish();
    described.finish();
    let (ascent, descent) = (per_mille(parsed.ascent_unscaled()), per_mille(parsed.descent_unscaled()));
    pdf.font_descriptor(descriptor)
        .name(base)
        .flags(FontFlags::NON_SYMBOLIC)
        .bbox(Rect::new(-500.0, descent, 1500.0, ascent))
        .italic_angle(0.0)
        .ascent(ascent)
        .descent(descent)
        .cap_height(714.0)
        .stem_v(if face == Face::Bold { 140.0 } else { 80.0 })
        .font_file2(file);
    let mut map = UnicodeCmap::new(Name(b"Roentgen"), system);
    used.iter().for_each(|(&glyph, &c)| map.pair(glyph, c));
    let map = deflated(&map.finish());
    pdf.cmap(cmap, &map).filter(Filter::FlateDecode);
    let bytes = deflated(face.file());
    let mut stream = pdf.stream(file, &bytes);
    stream.filter(Filter::FlateDecode).pair(Name(b"Length1"), face.file().len() as i32);
    stream.finish();
    font
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_fonts_lack_is_no_secret() {
        assert_eq!(shown(Face::Regular, "Pr\u{fc}fling \u{5c71}\u{7530}\u{1b}"), "Pr\u{fc}fling \u{fffd}\u{fffd}");
        let mut paper = Paper::new();
        paper.paragraph("plain", Style::new(Face::Regular, 9.0, BLACK));
        assert!(!paper.lacks_letters);
        paper.paragraph("\u{5c71}", Style::new(Face::Regular, 9.0, BLACK));
        assert!(paper.lacks_letters);
    }

    #[test]
    fn text_goes_on_on_the_next_page() {
        let mut paper = Paper::new();
        let style = Style::new(Face::Regular, 10.0, BLACK);
        (0..200).for_each(|n| paper.paragraph(&format!("line {n}"), style));
        assert_eq!(paper.pages.len(), 4, "13.5 points a line, 748 a page");
    }
}
