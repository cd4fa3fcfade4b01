//! Content items of a structured report (PS3.3 C.17.3). Each function makes one item.

use crate::codes::{Code, dcm};
use crate::dataset::{Item, tags};

/// Relationship Type (0040,A010): how an item relates to its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Relationship {
    Contains,
    HasObsContext,
    HasAcqContext,
    HasConceptMod,
    SelectedFrom,
}

impl Relationship {
    fn text(self) -> &'static str {
        match self {
            Self::Contains => "CONTAINS",
            Self::HasObsContext => "HAS OBS CONTEXT",
            Self::HasAcqContext => "HAS ACQ CONTEXT",
            Self::HasConceptMod => "HAS CONCEPT MOD",
            Self::SelectedFrom => "SELECTED FROM",
        }
    }
}

/// The document's root container, as attributes of the data set.
pub(super) fn root(title: &Code, template: &str, children: Vec<Item>) -> Item {
    container_of(Item::new(), title, Some(template), children)
}

/// CONTAINER, always SEPARATE: Weasis prints CONTINUOUS as running text.
pub(super) fn container(relationship: Relationship, name: &Code, template: Option<&str>, children: Vec<Item>) -> Item {
    container_of(Item::new().text(tags::RELATIONSHIP_TYPE, relationship.text()), name, template, children)
}

fn container_of(item: Item, name: &Code, template: Option<&str>, children: Vec<Item>) -> Item {
    let mut item =
        item.text(tags::VALUE_TYPE, "CONTAINER").code(tags::CONCEPT_NAME_CODE_SEQUENCE, name).text(tags::CONTINUITY_OF_CONTENT, "SEPARATE");
    if let Some(template) = template {
        let template = Item::new().text(tags::MAPPING_RESOURCE, "DCMR").text(tags::TEMPLATE_IDENTIFIER, template);
        item = item.sequence(tags::CONTENT_TEMPLATE_SEQUENCE, [template]);
    }
    with_children(item, children)
}

/// The item with these children; a sequence without items would be wrong, so none adds nothing.
pub(super) fn with_children(item: Item, children: Vec<Item>) -> Item {
    if children.is_empty() { item } else { item.sequence(tags::CONTENT_SEQUENCE, children) }
}

fn named(relationship: Relationship, value_type: &str, name: &Code) -> Item {
    Item::new()
        .text(tags::RELATIONSHIP_TYPE, relationship.text())
        .text(tags::VALUE_TYPE, value_type)
        .code(tags::CONCEPT_NAME_CODE_SEQUENCE, name)
}

/// TEXT.
pub(super) fn text(relationship: Relationship, name: &Code, value: &str) -> Item {
    named(relationship, "TEXT", name).text(tags::TEXT_VALUE, value)
}

/// UIDREF.
pub(super) fn uid_reference(relationship: Relationship, name: &Code, uid: &str) -> Item {
    named(relationship, "UIDREF", name).text(tags::UID, uid)
}

/// CODE.
pub(super) fn code(relationship: Relationship, name: &Code, value: &Code) -> Item {
    named(relationship, "CODE", name).code(tags::CONCEPT_CODE_SEQUENCE, value)
}

/// IMAGE; in an image library without a name.
pub(super) fn image(relationship: Relationship, name: Option<&Code>, reference: Item) -> Item {
    let item = Item::new().text(tags::RELATIONSHIP_TYPE, relationship.text()).text(tags::VALUE_TYPE, "IMAGE");
    let item = item.sequence(tags::REFERENCED_SOP_SEQUENCE, [reference]);
    match name {
        Some(name) => item.code(tags::CONCEPT_NAME_CODE_SEQUENCE, name),
        None => item,
    }
}

/// SCOORD: a polyline on the image `source`, which is an item [`Relationship::SelectedFrom`].
pub(super) fn polyline(relationship: Relationship, name: &Code, points: &[[f32; 2]], source: Item) -> Item {
    let item = named(relationship, "SCOORD", name).text(tags::GRAPHIC_TYPE, "POLYLINE").floats(tags::GRAPHIC_DATA, points.as_flattened());
    with_children(item, vec![source])
}

/// SCOORD: a point on the image `source`, as [`polyline`].
pub(super) fn point(relationship: Relationship, name: &Code, at: [f32; 2], source: Item) -> Item {
    with_children(named(relationship, "SCOORD", name).text(tags::GRAPHIC_TYPE, "POINT").floats(tags::GRAPHIC_DATA, &at), vec![source])
}

/// SCOORD3D: a `POINT`, or a closed `POLYGON`, patient LPS mm in a frame of reference.
pub(super) fn in_space(relationship: Relationship, name: &Code, graphic_type: &str, points: &[[f64; 3]], frame_of_reference: &str) -> Item {
    let points: Vec<f32> = points.as_flattened().iter().map(|&mm| mm as f32).collect();
    named(relationship, "SCOORD3D", name)
        .text(tags::GRAPHIC_TYPE, graphic_type)
        .floats(tags::GRAPHIC_DATA, &points)
        .text(tags::REFERENCED_FRAME_OF_REFERENCE_UID, frame_of_reference)
}

/// NUM: rounded to 7 digits for people, exact as Floating Point Value; without a number, the reason in its place (CID 42).
pub(super) fn number(relationship: Relationship, name: &Code, value: Option<f64>, unit: &Code, children: Vec<Item>) -> Item {
    let item = named(relationship, "NUM", name);
    let item = match value {
        Some(value) => {
            let measured = Item::new()
                .decimal(tags::NUMERIC_VALUE, seven_digits(value))
                .double(tags::FLOATING_POINT_VALUE, value)
                .code(tags::MEASUREMENT_UNITS_CODE_SEQUENCE, unit);
            item.sequence(tags::MEASURED_VALUE_SEQUENCE, [measured])
        }
        None => item.empty(tags::MEASURED_VALUE_SEQUENCE).code(tags::NUMERIC_VALUE_QUALIFIER_CODE_SEQUENCE, &dcm::MEASUREMENT_FAILURE),
    };
    with_children(item, children)
}

/// Rounded to seven significant digits.
fn seven_digits(value: f64) -> f64 {
    format!("{value:.6e}").parse().expect("a formatted number is one")
}
