//! Real World Value Mapping Sequence (0040,9096): stored values to a quantity with a coded unit (PS3.3 C.7.6.16.2.11).

use dicom::core::Tag;
use dicom::object::InMemDicomObject;

use super::Mapping;
use super::attributes::{integer, number, text, texts};
use super::lut::{ModalityLut, real_world_range};
use super::reason::ValueFault;
use crate::dataset::{FrameContext, items, tags};
use crate::volume::{Property, Quantity, Rescale, SuvKind, Unit};

/// What the items of one frame's sequence say.
#[derive(Debug, Default)]
pub(super) struct RealWorld {
    /// Usable ones, in their order.
    pub(super) mappings: Vec<RealWorldMapping>,
    /// Items whose unit is none that [`Unit`] knows, or says nothing.
    pub(super) without_unit: usize,
    /// What is wrong with the others.
    pub(super) faults: Vec<ValueFault>,
}

/// One usable item.
#[derive(Debug)]
pub(super) struct RealWorldMapping {
    pub(super) quantity: Quantity,
    pub(super) mapping: Mapping,
    /// Whether it is defined for all values that Bits Stored allows.
    pub(super) whole_range: bool,
}

impl RealWorld {
    /// Those of a frame; `hounsfield` where that unit means CT numbers.
    pub(super) fn of(context: &FrameContext<'_>, hounsfield: bool) -> Self {
        let mut found = Self::default();
        for item in context.items(tags::REAL_WORLD_VALUE_MAPPING_SEQUENCE) {
            match (quantity(item, hounsfield), mapping(item, context)) {
                (None, _) => found.without_unit += 1,
                (Some(_), Err(fault)) => found.faults.push(fault),
                (Some(quantity), Ok((mapping, whole_range))) => {
                    found.mappings.push(RealWorldMapping { quantity, mapping, whole_range });
                }
            }
        }
        found
    }
}

/// The quantity of an item that says something: it has a unit, or, without one, a property that is more than the signal of a modality.
fn quantity(item: &InMemDicomObject, hounsfield: bool) -> Option<Quantity> {
    let (scheme, code) = code(items(item, tags::MEASUREMENT_UNITS_CODE_SEQUENCE).first()?);
    let unit = Unit::of(&current(&code)).filter(|_| scheme == "UCUM")?;
    let meant = |property: Property| !property.meaning().to_lowercase().ends_with("signal intensity");
    if matches!(unit.code(), "1" | "[arb'U]") && !property(item).is_some_and(meant) {
        return None;
    }
    let suv = |name: &str| SuvKind::ALL.into_iter().find(|kind| suv_unit(*kind) == name);
    Some(match unit.code() {
        "[hnsf'U]" if hounsfield => Quantity::Hounsfield,
        "Bq/ml" => Quantity::ActivityConcentration,
        name => suv(name).map_or_else(|| Quantity::RealWorld { unit, property: property(item) }, Quantity::Suv),
    })
}

/// CID 85.
fn suv_unit(kind: SuvKind) -> &'static str {
    match kind {
        SuvKind::Bw => "g/ml{SUVbw}",
        SuvKind::Lbm => "g/ml{SUVlbm}",
        SuvKind::LbmJames128 => "g/ml{SUVlbm(James128)}",
        SuvKind::LbmJanma => "g/ml{SUVlbm(Janma)}",
        SuvKind::Bsa => "cm2/ml{SUVbsa}",
        SuvKind::Ibw => "g/ml{SUVibw}",
    }
}

/// A code of UCUM as PS3.16 writes it today: annotations of SUVs came first in older editions, and litres are `L` as well as `l`.
fn current(code: &str) -> String {
    let code = code.replace("mL", "ml");
    match code.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
        Some((annotation, unit)) if annotation.starts_with("SUV") => format!("{unit}{{{annotation}}}"),
        _ => code,
    }
}

/// What is measured: the concept code of the item (246205007, SCT, "Quantity") of the Quantity Definition Sequence.
fn property(item: &InMemDicomObject) -> Option<Property> {
    let defining = |tag: Tag, content: &InMemDicomObject| items(content, tag).first().map(code);
    let of_quantity = items(item, tags::QUANTITY_DEFINITION_SEQUENCE).iter().find(|content| {
        let name = defining(tags::CONCEPT_NAME_CODE_SEQUENCE, content).map(|(_, value)| value);
        matches!(name.as_deref(), Some("246205007" | "G-C1C6"))
    })?;
    let (scheme, value) = defining(tags::CONCEPT_CODE_SEQUENCE, of_quantity)?;
    Property::of(&value).filter(|_| scheme == "DCM")
}

/// Coding scheme designator and value.
fn code(item: &InMemDicomObject) -> (String, String) {
    let value = Some(text(item, tags::CODE_VALUE)).filter(|v| !v.is_empty()).unwrap_or_else(|| text(item, tags::LONG_CODE_VALUE));
    (text(item, tags::CODING_SCHEME_DESIGNATOR), value)
}

fn mapping(item: &InMemDicomObject, context: &FrameContext<'_>) -> Result<(Mapping, bool), ValueFault> {
    let range = real_world_range(item, context.signed());
    let bits = integer(context.root, tags::BITS_STORED).ok().flatten().filter(|bits| (1..=32).contains(bits));
    let whole_range = match (&range, bits) {
        (Ok((first, last)), Some(bits)) if context.signed() => *first <= -(1 << (bits - 1)) && *last >= (1 << (bits - 1)) - 1,
        (Ok((first, last)), Some(bits)) => *first <= 0 && *last >= (1 << bits) - 1,
        _ => false,
    };
    if !texts(item, tags::REAL_WORLD_VALUE_LUT_DATA).is_empty() {
        let (first, last) = range?;
        return Ok((Mapping::Lut(ModalityLut::of_real_world(item, first, last)?), whole_range));
    }
    match (number(item, tags::REAL_WORLD_VALUE_SLOPE), number(item, tags::REAL_WORLD_VALUE_INTERCEPT)) {
        (Ok(Some(slope)), Ok(Some(intercept))) if slope != 0.0 => Ok((Mapping::Linear(Rescale { slope, intercept }), whole_range)),
        _ => Err(ValueFault::RealWorldMap),
    }
}
