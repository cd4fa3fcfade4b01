//! Structured reports and key objects: the content tree (PS3.3 C.17.3).

use dicom::core::Tag;
use dicom::object::InMemDicomObject;

use super::names::short_uid;
use super::{Node, Page, View, clean, concept, meaning, short, unit};
use crate::codes::Code;
use crate::dataset::{Attributes, CharacterSet, items, tags};

/// Content items of one page.
const MAX_ITEMS: usize = 20_000;
/// Containers within containers; the reader of files allows no more.
const MAX_DEPTH: usize = 40;
/// Images in a row that are listed one by one.
const MAX_IMAGES: usize = 4;

/// DCM concepts whose text is of a program or a device, not of a person: tracking identifier, algorithm, device observer, device of a dose report.
const TECHNICAL: [&str; 13] =
    ["112039", "111001", "111002", "111003", "121013", "121014", "121015", "121016", "113876", "113877", "113878", "113879", "113880"];

pub(super) fn report(header: &InMemDicomObject, view: &View<'_>, page: &mut Page) {
    let mut tree = Tree { view, left: MAX_ITEMS };
    page.content = tree.node(header, &CharacterSet::of(header), 0);
    if tree.left == 0 {
        page.note(format!("more than {MAX_ITEMS} content items: the rest is not shown"));
    }
}

struct Tree<'a> {
    view: &'a View<'a>,
    /// Items that may still be shown.
    left: usize,
}

impl Tree<'_> {
    fn node(&mut self, item: &InMemDicomObject, charset: &CharacterSet, depth: usize) -> Option<Node> {
        if depth > MAX_DEPTH {
            return None;
        }
        self.left = self.left.checked_sub(1)?;
        let charset = charset.within(item);
        let name = concept(&charset, item, tags::CONCEPT_NAME_CODE_SEQUENCE);
        let kind = item.text(tags::VALUE_TYPE);
        let (value, code) = self.value(&kind, item, &charset, name.as_ref());
        let template = items(item, tags::CONTENT_TEMPLATE_SEQUENCE).first().map(|t| format!("TID {}", t.text(tags::TEMPLATE_IDENTIFIER)));
        Some(Node {
            name: name.as_ref().map_or_else(|| kind_name(&kind), meaning),
            code: template.map(|template| clean(&template)).or_else(|| name.as_ref().map(short)),
            value: clean(&value),
            value_code: code,
            children: self.children(item, &charset, depth + 1),
        })
    }

    fn children(&mut self, item: &InMemDicomObject, charset: &CharacterSet, depth: usize) -> Vec<Node> {
        let is_image = |item: &InMemDicomObject| item.text(tags::VALUE_TYPE) == "IMAGE";
        let mut nodes = Vec::new();
        for run in items(item, tags::CONTENT_SEQUENCE).chunk_by(|a, b| is_image(a) && is_image(b)) {
            // An image library has hundreds: the first ones will do.
            let shown = if run.len() > MAX_IMAGES + 1 { &run[..MAX_IMAGES] } else { run };
            nodes.extend(shown.iter().map_while(|child| self.node(child, charset, depth)));
            if shown.len() < run.len() {
                nodes.push(Node { name: format!("and {} images more", run.len() - shown.len()), ..Node::default() });
            }
        }
        nodes
    }

    /// The value in words, and its code where it is one.
    fn value(&self, kind: &str, item: &InMemDicomObject, charset: &CharacterSet, name: Option<&Code>) -> (String, Option<String>) {
        let text = |tag: Tag| charset.texts(item, tag).into_iter().next().unwrap_or_default();
        let value = match kind {
            "" | "CONTAINER" => String::new(),
            "TEXT" if name.is_some_and(is_technical) => text(tags::TEXT_VALUE),
            "TEXT" => self.view.private(&text(tags::TEXT_VALUE)),
            "PNAME" => self.view.private(&text(tags::PERSON_NAME)),
            "DATE" => self.view.private(&text(tags::DATE)),
            "TIME" => self.view.private(&text(tags::TIME)),
            "DATETIME" => self.view.private(&text(tags::DATE_TIME)),
            "UIDREF" => short_uid(&item.text(tags::UID)),
            "NUM" => number(item, charset),
            "CODE" => {
                let code = concept(charset, item, tags::CONCEPT_CODE_SEQUENCE);
                return code.map_or_else(|| ("(no code)".to_owned(), None), |code| (meaning(&code), Some(short(&code))));
            }
            "IMAGE" | "COMPOSITE" | "WAVEFORM" => self.reference(item),
            "SCOORD" => coordinates(item, ["columns", "rows"], ""),
            "SCOORD3D" => coordinates(item, ["x", "y", "z"], " mm"),
            other => format!("({other})"),
        };
        let by_reference = item.texts(tags::REFERENCED_CONTENT_ITEM_IDENTIFIER);
        if by_reference.is_empty() { (value, None) } else { (format!("item {}", by_reference.join(".")), None) }
    }

    fn reference(&self, item: &InMemDicomObject) -> String {
        let Some(to) = items(item, tags::REFERENCED_SOP_SEQUENCE).first() else { return "(no reference)".to_owned() };
        let (class, uid) = (to.text(tags::REFERENCED_SOP_CLASS_UID), to.text(tags::REFERENCED_SOP_INSTANCE_UID));
        let mut shown = self.view.names.instance(&class, &uid);
        for number in to.texts(tags::REFERENCED_SEGMENT_NUMBER) {
            let label = self.view.names.segment(&uid, &number).map_or_else(String::new, |label| format!(" \"{label}\""));
            shown += &format!(", segment {number}{label}");
        }
        match to.texts(tags::REFERENCED_FRAME_NUMBER) {
            frames if frames.is_empty() => shown,
            frames => format!("{shown}, frame {}", frames.join(", ")),
        }
    }
}

fn is_technical(name: &Code) -> bool {
    name.scheme == "DCM" && TECHNICAL.contains(&name.value.as_ref())
}

/// An item without concept name, by its value type.
fn kind_name(kind: &str) -> String {
    match kind {
        "" => "(item without value type)".to_owned(),
        "IMAGE" => "Image".to_owned(),
        other => clean(other),
    }
}

fn number(item: &InMemDicomObject, charset: &CharacterSet) -> String {
    let Some(measured) = items(item, tags::MEASURED_VALUE_SEQUENCE).first() else {
        let why = concept(charset, item, tags::NUMERIC_VALUE_QUALIFIER_CODE_SEQUENCE);
        return why.map_or_else(|| "(no value)".to_owned(), |why| format!("(no value: {})", meaning(&why)));
    };
    let unit = concept(charset, measured, tags::MEASUREMENT_UNITS_CODE_SEQUENCE).map_or_else(String::new, |code| unit(&code));
    format!("{} {unit}", measured.text(tags::NUMERIC_VALUE)).trim().to_owned()
}

/// Type of graphic, number of points, and the box around them.
fn coordinates<const N: usize>(item: &InMemDicomObject, axes: [&str; N], unit: &str) -> String {
    let kind = item.text(tags::GRAPHIC_TYPE);
    let Some(values) = item.all_numbers(tags::GRAPHIC_DATA) else { return format!("{kind} without coordinates") };
    let span = |n: usize| {
        let along = || values.iter().skip(n).step_by(N).copied();
        (along().fold(f64::INFINITY, f64::min), along().fold(f64::NEG_INFINITY, f64::max))
    };
    let spans = axes.iter().enumerate().map(|(n, axis)| {
        let (least, greatest) = span(n);
        format!("{axis} {least:.1} to {greatest:.1}{unit}")
    });
    let points = values.len() / N;
    format!("{kind}, {points} {}, {}", if points == 1 { "point" } else { "points" }, spans.collect::<Vec<_>>().join(", "))
}
