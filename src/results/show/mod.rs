//! Objects for a person: what a result, ours or another program's, says, as a [`Page`] that becomes text ([`text`]) or HTML ([`html`]).
//!
//! 1. Names, dates and free text of a header are on a page only where they are asked for; codes, labels and numbers always.
//! 2. Whatever a file holds, a page is bounded: in texts, rows and content items, and control characters do not reach a terminal.
//! 3. What cannot be told of an object (voxels of a segmentation that lies nowhere) is a note, and the rest is told.

mod contours;
mod drawing;
mod findings;
mod header;
mod html;
mod map;
mod names;
mod report;
mod segments;
mod text;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dicom::core::Tag;
use dicom::dictionary_std::uids;
use dicom::object::InMemDicomObject;
use serde::Serialize;
use thiserror::Error;

pub use html::html;
pub use text::text;

use crate::codes::{Code, sop_class};
use crate::dataset::{Attributes, CharacterSet, DatasetError, Instance, items, tags};
use crate::geometry::Coded;
use names::Names;

/// Characters of one text on a page.
const MAX_CHARACTERS: usize = 400;
/// Rows of one table.
const MAX_ROWS: usize = 2000;
/// Stands for what is not shown.
const HIDDEN: &str = "(hidden: use --patient)";

/// Why an object cannot be shown.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ShowError {
    /// It cannot be read.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// JSON that is no findings.json.
    #[error("no findings of roentgen: {what} ({})", path.display())]
    Findings {
        /// What is wrong.
        what: &'static str,
        /// The file.
        path: PathBuf,
    },
}

impl Coded for ShowError {
    fn code(&self) -> &'static str {
        match self {
            Self::Dataset(error) => error.code(),
            Self::Findings { .. } => "show.findings",
        }
    }
}

/// What one object says.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Page {
    /// Name of the file, without folder.
    pub file: String,
    /// What kind of object it is.
    pub title: String,
    /// What is said once, by name.
    pub facts: Vec<Fact>,
    /// What is said of each of several.
    pub tables: Vec<Table>,
    /// The content of a structured report.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<Node>,
    /// What could not be told, and why.
    pub notes: Vec<String>,
}

/// Something that is said once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fact {
    /// What it is.
    pub name: &'static str,
    /// Its value.
    pub value: String,
}

/// Rows with a cell for each column; a colour is `#rrggbb`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Table {
    /// What the rows are.
    pub title: &'static str,
    /// Names of the columns.
    pub columns: Vec<&'static str>,
    /// The rows.
    pub rows: Vec<Vec<String>>,
}

/// A content item of a structured report.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Node {
    /// Meaning of its concept name.
    pub name: String,
    /// The concept name as `scheme value`, or the template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Its value.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// The value as `scheme value`, where it is a code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_code: Option<String>,
    /// The items below it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<Node>,
}

impl Page {
    fn fact(&mut self, name: &'static str, value: impl AsRef<str>) {
        let value = clean(value.as_ref());
        if !value.is_empty() {
            self.facts.push(Fact { name, value });
        }
    }

    /// Adds a table, where it has rows.
    fn table(&mut self, title: &'static str, columns: &[&'static str], mut rows: Vec<Vec<String>>) {
        if rows.len() > MAX_ROWS {
            self.notes.push(format!("{} of {} {title} are shown", MAX_ROWS, rows.len()));
            rows.truncate(MAX_ROWS);
        }
        if !rows.is_empty() {
            rows.iter_mut().flatten().for_each(|cell| *cell = clean(cell));
            self.tables.push(Table { title, columns: columns.to_vec(), rows });
        }
    }

    fn note(&mut self, note: impl AsRef<str>) {
        self.notes.push(clean(note.as_ref()));
    }
}

/// What is seen of an object.
struct View<'a> {
    /// Whether names, dates and free text are.
    patient: bool,
    names: &'a Names,
}

impl View<'_> {
    /// A text that may name a person.
    fn private(&self, text: &str) -> String {
        if self.patient || text.is_empty() { clean(text) } else { HIDDEN.to_owned() }
    }
}

/// A page for each of `files`, in their order: DICOM objects and `findings.json`. Where an object refers to another of them, it is named by its
/// file. Names, dates and free text of headers are there only where `patient` is set.
pub fn show(files: &[PathBuf], patient: bool) -> Vec<Result<Page, ShowError>> {
    let read: Vec<(&PathBuf, Result<Arc<Instance>, DatasetError>)> =
        files.iter().map(|path| (path, Instance::read(path).map(Arc::new))).collect();
    let names = Names::of(read.iter().filter_map(|(_, instance)| instance.as_ref().ok()));
    let view = View { patient, names: &names };
    let page = |(path, instance): (&PathBuf, Result<Arc<Instance>, DatasetError>)| {
        let mut page = match instance {
            Ok(instance) => object(&instance, &view)?,
            Err(DatasetError::NotDicom { .. }) if starts_as_json(path) => findings::page(path)?,
            Err(error) => return Err(error.into()),
        };
        page.file = clean(&path.file_name().unwrap_or_default().to_string_lossy());
        Ok(page)
    };
    read.into_iter().map(page).collect()
}

fn object(instance: &Arc<Instance>, view: &View<'_>) -> Result<Page, ShowError> {
    let header = instance.header()?;
    let mut page = Page { title: names::class_name(&instance.sop_class_uid), ..Page::default() };
    header::facts(instance, header, view, &mut page);
    match instance.sop_class_uid.as_str() {
        sop_class::SEGMENTATION | sop_class::LABEL_MAP_SEGMENTATION => segments::segments(instance, header, &mut page),
        uids::PARAMETRIC_MAP_STORAGE => map::map(instance, header, &mut page),
        uids::RT_STRUCTURE_SET_STORAGE => contours::contours(header, &mut page),
        class if class.starts_with(PRESENTATION_STATES) => drawing::drawing(header, view, &mut page),
        // Reports and key objects, and what has content items under another class.
        _ if header.has(tags::CONTENT_SEQUENCE) => report::report(header, view, &mut page),
        _ => header::picture_or_document(instance, header, view, &mut page),
    }
    Ok(page)
}

/// Softcopy presentation states begin with this.
const PRESENTATION_STATES: &str = "1.2.840.10008.5.1.4.1.1.11.";

fn starts_as_json(path: &Path) -> bool {
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(64).read_to_end(&mut start));
    read.is_ok() && start.trim_ascii_start().starts_with(b"{")
}

/// A text for a page: on one line, of bounded length, without control characters and marks that turn the direction of writing.
fn clean(text: &str) -> String {
    let turns = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}');
    let shown = text.trim().chars().filter(|c| !turns(*c)).map(|c| if c.is_control() { ' ' } else { c });
    let mut shown: String = shown.take(MAX_CHARACTERS + 1).collect();
    if let Some((end, _)) = shown.char_indices().nth(MAX_CHARACTERS) {
        shown.truncate(end);
        shown.push_str("...");
    }
    shown
}

/// The first code of a code sequence, its meaning in Unicode.
fn concept(charset: &CharacterSet, object: &InMemDicomObject, tag: Tag) -> Option<Code> {
    let item = items(object, tag).first()?;
    let value = [tags::CODE_VALUE, tags::LONG_CODE_VALUE, tags::URN_CODE_VALUE].map(|tag| item.text(tag));
    let value = value.into_iter().find(|value| !value.is_empty())?;
    let meaning = charset.within(item).texts(item, tags::CODE_MEANING).into_iter().next().unwrap_or_default();
    Some(Code { value: value.into(), scheme: item.text(tags::CODING_SCHEME_DESIGNATOR).into(), meaning: meaning.into() })
}

/// What a code means; the code itself where it does not say.
fn meaning(code: &Code) -> String {
    clean(if code.meaning.is_empty() { &code.value } else { &code.meaning })
}

/// A code as `scheme value`.
fn short(code: &Code) -> String {
    clean(&format!("{} {}", code.scheme, code.value))
}

/// A unit as people write it; nothing for what has none.
fn unit(code: &Code) -> String {
    match code.value.as_ref() {
        "1" => String::new(),
        "[hnsf'U]" => "HU".to_owned(),
        // An annotation alone (UCUM 6): what is counted.
        other => match other.strip_prefix('{').and_then(|text| text.strip_suffix('}')) {
            Some(annotation) if !annotation.contains(['{', '}']) => clean(annotation),
            _ => clean(other),
        },
    }
}

/// A number rounded to seven digits.
fn number(value: f64) -> String {
    let rounded: f64 = format!("{value:.6e}").parse().unwrap_or(value);
    let size = rounded.abs();
    if size != 0.0 && !(1e-4..1e9).contains(&size) { format!("{rounded:e}") } else { rounded.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_bounded_and_harmless() {
        assert_eq!(clean(" a\u{1b}[31mred\r\n "), "a [31mred");
        assert_eq!(clean("abc\u{202e}def"), "abcdef");
        assert_eq!(clean(&"\u{e4}".repeat(1000)).chars().count(), MAX_CHARACTERS + 3);
    }

    #[test]
    fn numbers_for_people() {
        for (value, shown) in [(0.0, "0"), (1840.0, "1840"), (1.0 / 3.0, "0.3333333"), (-1024.5, "-1024.5"), (1e-9, "1e-9"), (2e12, "2e12")]
        {
            assert_eq!(number(value), shown);
        }
    }
}
