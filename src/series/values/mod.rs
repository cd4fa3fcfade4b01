//! How stored values become physical ones, and what these are.
//!
//! Which of the header's mappings counts:
//!
//! 1. The Modality LUT (Rescale Slope and Intercept, or a table) where the standard gives its output a unit: Hounsfield units of CT (Rescale
//!    Type absent or HU), Units of PET, Rescale Type OD, MGML, ED or PCT. That is what SimpleITK, DCMTK and pydicom compute.
//! 2. Else an item of the Real World Value Mapping Sequence with a known unit (ADC maps, enhanced PET); the first one, or the one that was
//!    asked for. It applies to stored values and not to the output of the Modality LUT (PS3.3 C.7.6.16.2.11), as in highdicom.
//! 3. Else the Modality LUT with an arbitrary quantity, or for want of one the stored values themselves. CT and PET are refused then.
//!
//! A Modality LUT Sequence beside slope and intercept, which the standard forbids, wins, as in DCMTK and pydicom. Scale factors that only
//! one maker knows are used for nothing but Philips' counts (see [`suv`]).

mod attributes;
mod lut;
mod real_world;
mod reason;
mod suv;
#[cfg(test)]
mod tests;
mod time;
mod voi;

use std::collections::HashSet;

use dicom::core::Tag;
use dicom::object::InMemDicomObject;

pub use lut::ModalityLut;
pub use reason::{SuvError, ValueFault, ValueReason};
pub(crate) use suv::suv_scaling;
pub use voi::{VoiWindow, WindowFunction};
pub(crate) use voi::{has_voi_lut, padding, windows};

use self::attributes::{number, private_number, text, texts};
use self::real_world::RealWorld;
use crate::dataset::{Attributes, FrameContext, Header, items, tags};
use crate::volume::{Quantity, Rescale, SuvKind, Unit};

/// How stored values of one frame become physical ones.
#[derive(Debug, Clone, PartialEq)]
pub enum Mapping {
    /// `slope * stored + intercept`.
    Linear(Rescale),
    /// By a table.
    Lut(ModalityLut),
}

impl Mapping {
    /// The physical value of a stored one.
    pub fn apply(&self, stored: i64) -> f64 {
        match self {
            Self::Linear(Rescale { slope, intercept }) => slope * stored as f64 + intercept,
            Self::Lut(lut) => lut.apply(stored),
        }
    }

    /// The mapping whose values are `factor` times as large.
    #[must_use]
    pub fn times(&self, factor: f64) -> Self {
        match self {
            Self::Linear(Rescale { slope, intercept }) => Self::Linear(Rescale { slope: slope * factor, intercept: intercept * factor }),
            Self::Lut(lut) => Self::Lut(lut.times(factor)),
        }
    }
}

/// What the values of a stack are.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PhysicalValues {
    /// The same in all frames.
    pub(crate) quantity: Quantity,
    /// One for each frame.
    pub(crate) mappings: Vec<Mapping>,
    /// What the reader of a result should know; no text of a header.
    pub(crate) notes: Vec<String>,
}

/// The physical values of all frames of one stack, as their headers give them. PET is in the unit that it was stored in, and a note says
/// why there is no SUV by body weight where it cannot be computed.
///
/// # Errors
/// Every reason why the meaning of the values is unknown or contradictory.
///
/// # Panics
/// Without frames: a broken promise of the caller.
pub(crate) fn physical_values(frames: &[FrameContext<'_>], modality: &str) -> Result<PhysicalValues, Vec<ValueReason>> {
    let values = stated(frames, modality, None)?;
    let PhysicalValues { quantity, mappings, mut notes } = values;
    if modality == "PT" && quantity == Quantity::ActivityConcentration {
        notes.extend(suv_scaling(frames, quantity, SuvKind::Bw).err().map(|e| format!("no {} can be computed: {e}", SuvKind::Bw)));
    }
    Ok(PhysicalValues { quantity, mappings, notes })
}

/// As [`physical_values`], but in the quantity that a model package wants: a Real World Value Mapping of it counts before the Modality LUT,
/// counts of Philips' PET become Bq/ml by its factor, and SUVs are computed.
///
/// # Errors
/// As [`physical_values`], and where the values are and become something else.
///
/// # Panics
/// Without frames: a broken promise of the caller.
pub(crate) fn physical_values_as(
    frames: &[FrameContext<'_>],
    modality: &str,
    wanted: Quantity,
) -> Result<PhysicalValues, Vec<ValueReason>> {
    let values = stated(frames, modality, Some(wanted))?;
    let total = frames.len();
    let refused = |fault| vec![ValueReason { fault, count: total, total }];
    if values.quantity.is(wanted) {
        return Ok(values);
    }
    let scaled = match wanted {
        Quantity::Suv(kind) => suv_scaling(frames, values.quantity, kind).map_err(|error| refused(ValueFault::Suv { kind, error }))?,
        Quantity::ActivityConcentration if modality == "PT" => match suv::activity_scaling(frames, values.quantity) {
            Some(scaling) => scaling,
            None => return Err(refused(ValueFault::OtherQuantity { found: values.quantity, wanted })),
        },
        _ => return Err(refused(ValueFault::OtherQuantity { found: values.quantity, wanted })),
    };
    let mappings = values.mappings.iter().zip(&scaled.factors).map(|(mapping, &factor)| mapping.times(factor)).collect();
    Ok(PhysicalValues { quantity: wanted, mappings, notes: values.notes.into_iter().chain(scaled.notes).collect() })
}

/// What decides the values of a single-frame CT, for comparison: of headers that agree in it only one has to be parsed. `None` where more
/// than these attributes may decide: other modalities, tables, real-world mappings.
pub(super) fn deciding(header: &Header, modality: &str) -> Option<Vec<Vec<u8>>> {
    const TABLES: [Tag; 2] = [tags::MODALITY_LUT_SEQUENCE, tags::REAL_WORLD_VALUE_MAPPING_SEQUENCE];
    const DECIDING: [Tag; 8] = [
        tags::RESCALE_SLOPE,
        tags::RESCALE_INTERCEPT,
        tags::RESCALE_TYPE,
        tags::IMAGE_TYPE,
        tags::MULTIENERGY_CT_ACQUISITION,
        tags::PIXEL_REPRESENTATION,
        tags::PIXEL_PADDING_VALUE,
        tags::PIXEL_PADDING_RANGE_LIMIT,
    ];
    let plain = modality == "CT" && TABLES.iter().all(|&tag| !header.has(tag)) && !header.has_group(0x2005);
    plain.then(|| DECIDING.iter().map(|&tag| header.bytes(tag).unwrap_or_default().to_vec()).collect())
}

/// One frame's.
struct FrameValues {
    quantity: Quantity,
    mapping: Mapping,
    notes: Vec<String>,
}

fn stated(frames: &[FrameContext<'_>], modality: &str, wanted: Option<Quantity>) -> Result<PhysicalValues, Vec<ValueReason>> {
    assert!(!frames.is_empty(), "a stack has frames");
    let total = frames.len();
    let mut reasons: Vec<ValueReason> = Vec::new();
    let mut notes: Vec<(String, usize)> = Vec::new();
    let mut quantities: Vec<Quantity> = Vec::new();
    let mut mappings: Vec<Mapping> = Vec::with_capacity(total);
    for frame in frames {
        match frame_values(frame, modality, wanted) {
            Err(fault) => match reasons.iter_mut().find(|r| r.fault == fault) {
                Some(reason) => reason.count += 1,
                None => reasons.push(ValueReason { fault, count: 1, total }),
            },
            Ok(values) => {
                quantities.push(values.quantity);
                for note in values.notes {
                    match notes.iter_mut().find(|n| n.0 == note) {
                        Some(known) => known.1 += 1,
                        None => notes.push((note, 1)),
                    }
                }
                mappings.push(match (values.mapping, mappings.last()) {
                    (Mapping::Lut(lut), Some(Mapping::Lut(before))) => Mapping::Lut(lut.shared_with(before)),
                    (mapping, _) => mapping,
                });
            }
        }
    }
    if let Some(&first) = quantities.first() {
        let count = quantities.iter().filter(|&&q| q != first).count();
        if let Some(&other) = quantities.iter().find(|&&q| q != first) {
            let quantities = quantities.iter().collect::<HashSet<_>>().len();
            reasons.push(ValueReason { fault: ValueFault::MixedQuantities { quantities, first, other }, count, total });
        }
        if reasons.is_empty() {
            let said = |(note, count)| if count == total { note } else { format!("{note} ({count} of {total} frames)") };
            return Ok(PhysicalValues { quantity: first, mappings, notes: notes.into_iter().map(said).collect() });
        }
    }
    Err(reasons)
}

fn frame_values(frame: &FrameContext<'_>, modality: &str, wanted: Option<Quantity>) -> Result<FrameValues, ValueFault> {
    let mut notes: Vec<String> = Vec::new();
    let modality_lut = modality_lut(frame, &mut notes)?;
    let real_world = RealWorld::of(frame, modality == "CT");
    note_what_is_left(frame, &mut notes);

    let stated_type = modality_lut.as_ref().map_or("", |m| m.1.as_str());
    let by_standard = match (modality, modality_lut.is_some()) {
        ("CT", true) => hounsfield(frame, stated_type, &mut notes),
        ("PT", true) => pet_units(frame, &mut notes)?,
        _ => None,
    };
    let by_standard = by_standard.or_else(|| rescale_type(stated_type));
    if modality != "CT" && stated_type == "HU" {
        notes.push("Rescale Type is HU, but the modality is not CT: values are not taken as Hounsfield units".into());
    }

    let asked = real_world.mappings.iter().position(|m| wanted.is_some_and(|w| m.quantity.is(w)));
    let chosen = asked.or_else(|| (by_standard.is_none() && !real_world.mappings.is_empty()).then_some(0));
    let others = real_world.mappings.len() + real_world.without_unit + real_world.faults.len();
    if let Some(n) = chosen.filter(|_| !by_standard.is_some_and(|q| wanted.is_some_and(|w| q.is(w)))) {
        let mut mappings = real_world.mappings;
        let chosen = mappings.swap_remove(n);
        notes.push(format!("values are real-world values ({}), item {} of {others} Real World Value Mappings", chosen.quantity, n + 1));
        if !chosen.whole_range {
            let outside = match chosen.mapping {
                Mapping::Linear(_) => "the same line is used beyond",
                Mapping::Lut(_) => "its ends are used beyond",
            };
            notes.push(format!("the Real World Value Mapping does not cover all values that could be stored; {outside}"));
        }
        return Ok(FrameValues { quantity: chosen.quantity, mapping: chosen.mapping, notes });
    }
    if let (None, "CT" | "PT", Some(fault)) = (&modality_lut, modality, real_world.faults.first()) {
        return Err(fault.clone());
    }
    if others > 0 {
        notes.push(format!("{others} Real World Value Mappings are not used"));
    }
    let mapping = match (modality_lut, modality) {
        (Some((mapping, _)), _) => mapping,
        (None, "CT") => return Err(ValueFault::NoRescale { modality: "CT" }),
        (None, "PT") => return Err(ValueFault::NoRescale { modality: "PET" }),
        (None, _) => Mapping::Linear(Rescale { slope: 1.0, intercept: 0.0 }),
    };
    Ok(FrameValues { quantity: by_standard.unwrap_or(Quantity::Arbitrary), mapping, notes })
}

/// The Modality LUT, and the type of its output.
fn modality_lut(frame: &FrameContext<'_>, notes: &mut Vec<String>) -> Result<Option<(Mapping, String)>, ValueFault> {
    let has = |d: &InMemDicomObject| !texts(d, tags::RESCALE_SLOPE).is_empty() || !texts(d, tags::RESCALE_INTERCEPT).is_empty();
    let rescaled = frame.within(tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE).find(|d| has(d));
    if let Some(item) = items(frame.root, tags::MODALITY_LUT_SEQUENCE).first() {
        if rescaled.is_some() {
            notes.push("Rescale Slope and Intercept stand beside a Modality LUT Sequence; the table is used".into());
        }
        let lut = ModalityLut::of_item(item, frame.signed())?;
        return Ok(Some((Mapping::Lut(lut), text(item, tags::MODALITY_LUT_TYPE))));
    }
    let Some(holder) = rescaled else { return Ok(None) };
    match (number(holder, tags::RESCALE_SLOPE), number(holder, tags::RESCALE_INTERCEPT)) {
        (Ok(Some(0.0)), Ok(Some(_))) => Err(ValueFault::ZeroSlope),
        (Ok(Some(slope)), Ok(Some(intercept))) => {
            Ok(Some((Mapping::Linear(Rescale { slope, intercept }), text(holder, tags::RESCALE_TYPE))))
        }
        (Err(_), _) | (_, Err(_)) => Err(ValueFault::BadRescale),
        _ => Err(ValueFault::HalfRescale),
    }
}

/// What is in the header, matters to some, and changes nothing here.
fn note_what_is_left(frame: &FrameContext<'_>, notes: &mut Vec<String>) {
    if padding(frame).is_some() {
        notes.push("Pixel Padding Value marks pixels without image; they stay as stored".into());
    }
    let philips = |d: &InMemDicomObject| private_number(d, 0x2005, "Philips MR Imaging DD 001", 0x0e).ok().flatten().is_some();
    if [frame.per_frame, Some(frame.root)].into_iter().flatten().any(philips) {
        notes.push("Philips' private Scale Slope is not used: values are those of the Modality LUT".into());
    }
}

/// Image Type values that say that a CT image holds something else than CT numbers (PS3.3 C.8.2.1.1.1, C.8.16.1.4, and what makers write).
const NOT_HOUNSFIELD: [&str; 16] = [
    "LOCALIZER",
    "CBF",
    "RCBF",
    "CBV",
    "RCBV",
    "MTT",
    "TTP",
    "TTD",
    "TMAX",
    "PERMEABILITY",
    "STD_DEVIATION",
    "T_TEST",
    "Z_SCORE",
    "SUBTRACTION",
    "DIVISION",
    "MULTIPLICATION",
];

/// Hounsfield units need CT whose Rescale Type, where it is given, says so. It must be given where it is not HU, and in multi-energy CT
/// (PS3.3 C.8.2.1, C.11.1.1.2).
fn hounsfield(frame: &FrameContext<'_>, stated_type: &str, notes: &mut Vec<String>) -> Option<Quantity> {
    let image_type = texts(frame.root, tags::IMAGE_TYPE);
    let frame_type = frame.within(tags::CT_IMAGE_FRAME_TYPE_SEQUENCE).flat_map(|d| texts(d, tags::FRAME_TYPE));
    let derived = image_type.iter().cloned().chain(frame_type).any(|v| NOT_HOUNSFIELD.contains(&v.as_str()));
    let multi_energy = text(frame.root, tags::MULTIENERGY_CT_ACQUISITION) == "YES" && !image_type.iter().any(|v| v == "VMI");
    let why_not = match stated_type {
        "HU" | "" if derived => "Image Type names a map or a localizer",
        "" if multi_energy => "Multi-energy CT Acquisition is YES and there is no Rescale Type",
        "HU" | "" => return Some(Quantity::Hounsfield),
        _ => "Rescale Type is not HU",
    };
    notes.push(format!("{why_not}: values are not taken as Hounsfield units"));
    None
}

/// Rescale Types with a unit (PS3.3 C.11.1.1.2).
fn rescale_type(term: &str) -> Option<Quantity> {
    let of = |code| Some(Quantity::RealWorld { unit: Unit::of(code)?, property: None });
    match term {
        "OD" => Some(Quantity::OpticalDensity),
        "MGML" => of("mg/ml"),
        "ED" => of("10*23/ml"),
        "PCT" => of("%"),
        _ => None,
    }
}

/// Units (0054,1001) and SUV Type (0054,1006) of a PET (PS3.3 C.8.9.1).
fn pet_units(frame: &FrameContext<'_>, notes: &mut Vec<String>) -> Result<Option<Quantity>, ValueFault> {
    let suv_type = text(frame.root, tags::SUV_TYPE);
    let unit = |code: &str| Unit::of(code).map(|unit| Quantity::RealWorld { unit, property: None });
    Ok(match text(frame.root, tags::UNITS).as_str() {
        "BQML" => Some(Quantity::ActivityConcentration),
        "GML" => match suv_type.as_str() {
            "" => {
                notes.push("Units are GML without SUV Type, which then is body weight".into());
                Some(Quantity::Suv(SuvKind::Bw))
            }
            term => Some(Quantity::Suv(SuvKind::of_dicom_term(term).filter(|&k| k != SuvKind::Bsa).ok_or(ValueFault::SuvType)?)),
        },
        "CM2ML" => match suv_type.as_str() {
            "" | "BSA" => Some(Quantity::Suv(SuvKind::Bsa)),
            _ => return Err(ValueFault::SuvType),
        },
        "CNTS" => unit("{counts}"),
        "CPS" => unit("{counts}/s"),
        "PROPCNTS" => unit("{propcounts}"),
        "PROPCPS" => unit("{propcounts}/s"),
        "PCNT" => unit("%"),
        "CM2" => unit("cm2"),
        "1CM" => unit("/cm"),
        "MLG" => unit("ml/g"),
        "MLMING" => unit("ml/min/g"),
        "MGMINML" => unit("mg/min/ml"),
        "UMOLMINML" => unit("umol/min/ml"),
        "UMOLML" => unit("umol/ml"),
        _ => {
            notes.push("Units of the PET are absent or have no meaning that is known here".into());
            None
        }
    })
}
