//! What stands on the pages.

use image::RgbImage;

use super::paper::{BLACK, Colour, Description, MARGIN, MISSING, Paper, RULE, SOFT, Style, WIDTH};
use super::title;
use crate::findings::Finding;
use crate::results::plane::{colours, planes};
use crate::results::raster::colour_jpeg;
use crate::results::typeface::Face;
use crate::results::wording::{self, Fact, Row, Table};
use crate::results::{Context, envelope, parameters, window};

const BODY: Style = Style::new(Face::Regular, 9.5, BLACK);
const SMALL: Style = Style::new(Face::Regular, 8.0, BLACK);
const FINE: Style = Style::new(Face::Regular, 7.5, BLACK);
const NOTE: Style = Style { colour: SOFT, ..FINE };
const AMBER: Colour = [1.0, 0.85, 0.54];
const LETTER: Colour = [1.0, 0.75, 0.24];
/// Pixels of the longer side of a plane.
const SIDE: u32 = 560;

/// The report as a PDF document.
pub(in crate::results) fn document(context: &Context<'_>) -> Vec<u8> {
    let findings = context.findings;
    let package = &findings.provenance.package;
    let mut paper = Paper::new();
    banner(&mut paper, context);
    paper.paragraph(&title(context), Style::new(Face::Bold, 16.0, BLACK));
    paper.paragraph(&package.intended_use, Style { colour: SOFT, ..BODY });
    paper.y += 6.0;
    let study = wording::study(findings, |c| Face::Regular.has(c));
    facts(&mut paper, &study, 4, BODY);
    if paper.lacks_letters {
        paper.paragraph(&format!("{MISSING} stands for a letter that this document cannot show; the header of the study has it."), NOTE);
    }
    if !findings.warnings.is_empty() {
        heading(&mut paper, "Warnings", 20.0);
        findings.warnings.iter().for_each(|warning| paper.paragraph(&format!("\u{2022} {warning}"), BODY));
    }
    heading(&mut paper, "Findings", 40.0);
    Grid::of(&Table::of(&findings.findings)).draw(&mut paper);
    pictures(&mut paper, context);
    heading(&mut paper, "How this result came about", 60.0);
    facts(&mut paper, &wording::provenance(context), 4, FINE);
    let geometry = findings.provenance.geometry.join("; ");
    let settings = parameters(&findings.provenance).collect::<Vec<_>>().join("; ");
    for (name, text) in [("Geometry", geometry), ("Settings", settings)] {
        if !text.is_empty() {
            paper.need(2.0 * NOTE.leading());
            paper.paragraph(name, NOTE);
            paper.paragraph(&text, FINE);
            paper.y += 3.0;
        }
    }
    let whom: Vec<&str> =
        study.iter().filter(|f| ["Patient", "Patient ID", "Study date"].contains(&f.name)).map(|f| f.value.as_str()).collect();
    let whose = whom.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(" \u{b7} ");
    paper.finish(&Description {
        title: &title(context),
        producer: &format!("{} {}", envelope::EQUIPMENT, findings.provenance.roentgen_version),
        made: &findings.provenance.started,
        id: &findings.result_uid("pdf-document"),
        footer: [wording::banner(package), &whose],
    })
}

/// What the result must not be used for, above everything.
fn banner(paper: &mut Paper, context: &Context<'_>) {
    let height = 26.0;
    paper.fill([MARGIN, paper.y, WIDTH, height], AMBER);
    let bold = Style::new(Face::Bold, 11.5, BLACK);
    let text = wording::banner(&context.findings.provenance.package);
    paper.line(MARGIN + 10.0, paper.y + 5.5, text, bold);
    let beside = MARGIN + 20.0 + bold.face.width(text, bold.size);
    paper.line(beside, paper.y + 8.0, wording::UNVERIFIED, SMALL);
    paper.y += height + 12.0;
}

/// A heading with at least `room` below it on its page.
fn heading(paper: &mut Paper, text: &str, room: f32) {
    let style = Style::new(Face::Bold, 11.5, BLACK);
    paper.y += 8.0;
    paper.need(style.leading() + room);
    paper.paragraph(text, style);
    paper.y += 2.0;
}

/// Names above their values, in columns.
fn facts(paper: &mut Paper, facts: &[Fact], columns: usize, style: Style) {
    let width = WIDTH / columns as f32;
    for row in facts.chunks(columns) {
        let values: Vec<Vec<String>> =
            row.iter().map(|fact| style.wrapped(if fact.value.is_empty() { wording::NONE } else { &fact.value }, width - 10.0)).collect();
        let lines = values.iter().map(Vec::len).max().unwrap_or(0);
        let height = NOTE.leading() + lines as f32 * style.leading() + 3.0;
        paper.need(height);
        for (n, (fact, lines)) in row.iter().zip(&values).enumerate() {
            let x = MARGIN + n as f32 * width;
            paper.line(x, paper.y, fact.name, NOTE);
            for (m, line) in lines.iter().enumerate() {
                paper.line(x, paper.y + NOTE.leading() + m as f32 * style.leading(), line, style);
            }
        }
        paper.y += height;
    }
}

/// The table of findings, its cells as text.
struct Grid<'a> {
    columns: Vec<Column>,
    rows: Vec<(&'a Finding, Vec<Vec<String>>)>,
}

struct Column {
    heading: String,
    left: f32,
    width: f32,
    is_number: bool,
}

impl<'a> Grid<'a> {
    const PADDING: f32 = 5.0;
    const SWATCH: f32 = 7.5;

    fn of(table: &Table<'a>) -> Self {
        // Heading, share of the width, whether it holds numbers.
        let mut headings = vec![("Finding".to_owned(), 1.7, false)];
        headings.extend(table.has_site.then(|| ("Site".to_owned(), 1.3, false)));
        headings.push(("Presence".to_owned(), 0.9, false));
        headings.extend(table.has_certainty.then(|| ("Probability of presence".to_owned(), 1.1, true)));
        headings.extend(table.columns.iter().map(|[name, unit]| {
            let separator = if unit.is_empty() { "" } else { ", " };
            (format!("{name}{separator}{unit}"), 1.3, true)
        }));
        headings.extend(table.columns.is_empty().then(|| ("Measurements".to_owned(), 3.2, false)));
        headings.extend(table.has_answers.then(|| ("Assessment".to_owned(), 1.8, false)));
        let all: f32 = headings.iter().map(|h| h.1).sum();
        let mut left = MARGIN;
        let columns: Vec<Column> = headings
            .into_iter()
            .map(|(heading, share, is_number)| {
                let width = WIDTH * share / all;
                left += width;
                Column { heading, left: left - width, width, is_number }
            })
            .collect();
        let rows = table.rows.iter().map(|row| (row.finding, cells(table, row))).collect();
        Self { columns, rows }
    }

    fn draw(&self, paper: &mut Paper) {
        self.head(paper);
        for (finding, cells) in &self.rows {
            let style = if finding.present { SMALL } else { Style { colour: SOFT, ..SMALL } };
            let wrapped: Vec<Vec<String>> = cells
                .iter()
                .zip(&self.columns)
                .map(|(lines, column)| lines.iter().flat_map(|line| style.wrapped(line, self.room(column))).collect())
                .collect();
            let lines = wrapped.iter().map(Vec::len).max().unwrap_or(1);
            let height = lines as f32 * style.leading() + Self::PADDING;
            if paper.need(height) {
                self.head(paper);
            }
            if finding.is_drawn() {
                let colour = finding.colour.map(|c| f32::from(c) / 255.0);
                paper.fill([MARGIN, paper.y + 4.5, Self::SWATCH, Self::SWATCH], colour);
            }
            self.row(paper, &wrapped, style);
            paper.y += height;
            paper.fill([MARGIN, paper.y, WIDTH, 0.5], RULE);
        }
        paper.y += 4.0;
    }

    fn head(&self, paper: &mut Paper) {
        let style = Style { face: Face::Bold, ..NOTE };
        let wrapped: Vec<Vec<String>> = self.columns.iter().map(|c| style.wrapped(&c.heading, self.room(c))).collect();
        let height = wrapped.iter().map(Vec::len).max().unwrap_or(1) as f32 * style.leading() + Self::PADDING;
        self.row(paper, &wrapped, style);
        paper.y += height;
        paper.fill([MARGIN, paper.y, WIDTH, 0.8], SOFT);
    }

    fn row(&self, paper: &mut Paper, cells: &[Vec<String>], style: Style) {
        for (n, (column, lines)) in self.columns.iter().zip(cells).enumerate() {
            for (m, line) in lines.iter().enumerate() {
                let style = if n == 0 && m == 0 { Style { face: Face::Bold, ..style } } else { style };
                let y = paper.y + Self::PADDING / 2.0 + m as f32 * style.leading();
                if column.is_number {
                    paper.line_to(column.left + column.width - 2.0 * Self::PADDING, y, line, style);
                } else {
                    paper.line(self.start(n), y, line, style);
                }
            }
        }
    }

    /// Where the text of a column begins: that of the first after its square of colour.
    fn start(&self, n: usize) -> f32 {
        self.columns[n].left + if n == 0 { Self::SWATCH + Self::PADDING } else { 0.0 }
    }

    fn room(&self, column: &Column) -> f32 {
        if column.left == MARGIN {
            // Its first line is bold, which is up to a tenth wider.
            (column.width - Self::SWATCH - 2.0 * Self::PADDING) * 0.9
        } else {
            column.width - 2.0 * Self::PADDING
        }
    }
}

/// The cells of a row, each a list of lines.
fn cells(table: &Table<'_>, row: &Row<'_>) -> Vec<Vec<String>> {
    let one = |text: &str| vec![if text.is_empty() { wording::NONE.to_owned() } else { text.to_owned() }];
    let many = |lines: &[String]| if lines.is_empty() { one("") } else { lines.to_vec() };
    let mut cells = vec![std::iter::once(row.finding.name.as_str()).chain(row.kind).map(str::to_owned).collect()];
    cells.extend(table.has_site.then(|| one(&row.site)));
    cells.push(one(row.presence));
    cells.extend(table.has_certainty.then(|| one(&row.certainty)));
    if table.columns.is_empty() {
        cells.push(many(&row.numbers));
    } else {
        cells.extend(row.numbers.iter().map(|number| one(number)));
    }
    cells.extend(table.has_answers.then(|| many(&row.answers)));
    cells
}

/// Three planes, or the one image, with the segments over them.
fn pictures(paper: &mut Paper, context: &Context<'_>) {
    const GAP: f32 = 8.0;
    let findings = context.findings;
    let side = (WIDTH - 2.0 * GAP) / 3.0;
    heading(paper, "Pictures", side + 40.0);
    let (table, window) = (colours(&findings.findings), context.window.greys());
    let letter = Style::new(Face::Bold, 9.0, LETTER);
    for (n, plane) in planes(findings).into_iter().enumerate() {
        let x = MARGIN + n as f32 * (side + GAP);
        let y = paper.y;
        paper.fill([x, y, side, side], [0.0; 3]);
        if !plane.is_flat() {
            let (size, _) = plane.fitted(SIDE);
            let sampled = plane.sampled(context.image, findings, &window, size);
            let mut drawn = RgbImage::new(size[0], size[1]);
            sampled.draw(&mut drawn, [0, 0], Some(&table));
            let [width, height] = size.map(|pixels| pixels as f32 * side / SIDE as f32);
            paper.image([x + (side - width) / 2.0, y + (side - height) / 2.0, width, height], colour_jpeg(&drawn, 90), size);
        }
        let middle = side / 2.0 - 6.0;
        let [start, end] = plane.across.letters.map(String::from);
        let [top, bottom] = plane.down.letters.map(String::from);
        paper.line(x + 3.0, y + middle, &start, letter);
        paper.line_to(x + side - 3.0, y + middle, &end, letter);
        paper.line(x + side / 2.0 - 3.0, y + 1.0, &top, letter);
        paper.line(x + side / 2.0 - 3.0, y + side - letter.leading(), &bottom, letter);
        paper.line(x, y + side + 2.0, &plane.caption(), NOTE);
    }
    paper.y += side + 4.0 + NOTE.leading();
    let letters = "R, L, A, P, H and F are the patient's right, left, front, back, head and feet";
    let window = window::caption(&window, context.image.quantity);
    paper.paragraph(&format!("For orientation only: compressed with loss. {window}. Colours as in the table. {letters}."), NOTE);
}
