//! What every result object says about patient, study, series and the equipment that made it.

use std::collections::BTreeMap;

use dicom::object::InMemDicomObject;
use jiff::ZonedDateTime;
use jiff::tz::Offset;

use crate::codes::{Code, Uid, dcm, sop_class, uid_by_name};
use crate::dataset::{Frame, Instance, Item, tags};
use crate::findings::{Findings, PackageId};

/// Manufacturer, model name and observer name of this program.
pub(super) const EQUIPMENT: &str = "roentgen";
/// Device Serial Number is type 1 in a Segmentation; installations have no numbers yet.
pub(super) const SERIAL_NUMBER: &str = "UNASSIGNED";

/// What one kind of result object is, in every job.
#[derive(Debug)]
pub(super) struct Slot {
    /// Its UIDs are made of this name.
    pub(super) name: &'static str,
    pub(super) sop_class_uid: &'static str,
    pub(super) modality: &'static str,
    /// Last word of Series Description.
    pub(super) kind: &'static str,
    /// Its place among the series numbers of a job.
    pub(super) place: u32,
}

pub(super) const SEGMENTATION: Slot =
    Slot { name: "seg", sop_class_uid: sop_class::SEGMENTATION, modality: "SEG", kind: "segmentation", place: 0 };
pub(super) const LABEL_MAP: Slot =
    Slot { name: "labelmap", sop_class_uid: sop_class::LABEL_MAP_SEGMENTATION, modality: "SEG", kind: "label map", place: 4 };
pub(super) const REPORT: Slot =
    Slot { name: "sr", sop_class_uid: sop_class::COMPREHENSIVE_3D_SR, modality: "SR", kind: "report", place: 1 };

/// Series numbers that a job may use.
const PLACES: u32 = 20;

/// One result object, as others refer to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ResultObject {
    pub(super) sop_class_uid: &'static str,
    pub(super) sop_instance_uid: Uid,
    pub(super) series_uid: Uid,
    pub(super) modality: &'static str,
    kind: &'static str,
    place: u32,
    /// Its number in its series, from 1.
    number: u32,
}

impl ResultObject {
    /// The only object of its series.
    pub(super) fn of(findings: &Findings, slot: &Slot) -> Self {
        Self::numbered(findings, slot, 1)
    }

    /// The `number`-th of several in one series, from 1.
    pub(super) fn numbered(findings: &Findings, slot: &Slot, number: u32) -> Self {
        let instance = if number == 1 { slot.name.to_owned() } else { format!("{}/{number}", slot.name) };
        Self::named(findings, slot, number, &instance)
    }

    /// One of which there may be another with other content, of which only one is written: `instance` tells them apart.
    pub(super) fn named(findings: &Findings, slot: &Slot, number: u32, instance: &str) -> Self {
        Self {
            sop_class_uid: slot.sop_class_uid,
            sop_instance_uid: findings.result_uid(instance),
            series_uid: findings.result_uid(&format!("{}-series", slot.name)),
            modality: slot.modality,
            kind: slot.kind,
            place: slot.place,
            number,
        }
    }

    /// Item of a sequence that refers to this object.
    pub(super) fn reference(&self) -> Item {
        reference(self.sop_class_uid, &self.sop_instance_uid)
    }
}

/// SOP Instance Reference (PS3.3 table 10-11).
pub(super) fn reference(sop_class_uid: &str, sop_instance_uid: &str) -> Item {
    Item::new().text(tags::REFERENCED_SOP_CLASS_UID, sop_class_uid).text(tags::REFERENCED_SOP_INSTANCE_UID, sop_instance_uid)
}

/// The same for a source instance.
pub(super) fn reference_to(instance: &Instance) -> Item {
    reference(&instance.sop_class_uid, &instance.sop_instance_uid)
}

/// The same for one frame of a source.
pub(super) fn reference_to_frame(frame: &Frame) -> Item {
    let item = reference_to(&frame.instance);
    if frame.is_whole_instance() { item } else { item.integer(tags::REFERENCED_FRAME_NUMBER, frame.number) }
}

/// The header of the source that patient, study and geometry are copied from: the first slice's.
pub(super) fn source_header(findings: &Findings) -> &InMemDicomObject {
    findings.source.instances[0].header().expect("the gate has parsed it")
}

/// Everything but the content: patient, study, series, equipment, SOP common, content date.
///
/// Instance Creation Date and Time stay away: the same findings give the same bytes.
pub(super) fn envelope(findings: &Findings, object: &ResultObject) -> Item {
    let header = source_header(findings);
    let package = &findings.provenance.package;
    let started = Moment::of(findings);
    let item = Item::of_study(header)
        .text(tags::STUDY_INSTANCE_UID, &findings.source.instances[0].study_uid)
        .text(tags::SOP_CLASS_UID, object.sop_class_uid)
        .text(tags::SOP_INSTANCE_UID, &object.sop_instance_uid)
        .text(tags::MODALITY, object.modality)
        .text(tags::SERIES_INSTANCE_UID, &object.series_uid)
        .integer(tags::SERIES_NUMBER, series_numbers(&package.name, header) + object.place)
        .text(tags::SERIES_DESCRIPTION, &format!("AI {} {} {}", package.name, package.version, object.kind))
        .text(tags::SERIES_DATE, &started.date)
        .text(tags::SERIES_TIME, &started.time)
        .text(tags::CONTENT_DATE, &started.date)
        .text(tags::CONTENT_TIME, &started.time)
        .integer(tags::INSTANCE_NUMBER, object.number)
        .text(tags::MANUFACTURER, EQUIPMENT)
        .text(tags::MANUFACTURER_MODEL_NAME, EQUIPMENT)
        .text(tags::DEVICE_SERIAL_NUMBER, SERIAL_NUMBER)
        .text(tags::SOFTWARE_VERSIONS, &findings.provenance.roentgen_version)
        .sequence(tags::CONTRIBUTING_EQUIPMENT_SEQUENCE, [model_equipment(package, &started)]);
    match private_schemes(findings) {
        schemes if schemes.is_empty() => item,
        schemes => item.sequence(tags::CODING_SCHEME_IDENTIFICATION_SEQUENCE, schemes),
    }
}

/// Private coding schemes must be declared (PS3.3 C.12.1): one item each, by designator.
fn private_schemes(findings: &Findings) -> Vec<Item> {
    let mut schemes = BTreeMap::new();
    let mut declare = |code: &Code| {
        if code.scheme.starts_with("99") {
            schemes.entry(code.scheme.to_string()).or_insert_with(|| {
                let package = &findings.provenance.package;
                Item::new()
                    .text(tags::CODING_SCHEME_DESIGNATOR, &code.scheme)
                    .text(tags::CODING_SCHEME_NAME, &format!("Private codes of {}", package.name))
                    .text(tags::CODING_SCHEME_RESPONSIBLE_ORGANIZATION, known(&package.manufacturer))
            });
        }
    };
    for finding in &findings.findings {
        let of_numbers =
            finding.measurements.iter().flat_map(|m| [Some(&m.concept), m.derivation.as_ref(), m.method.as_ref(), Some(&m.unit)]);
        let of_evaluations = finding.evaluations.iter().flat_map(|e| [Some(&e.question), Some(&e.answer)]);
        let codes = [Some(&finding.category), Some(&finding.finding_type), finding.site.as_ref(), finding.laterality.as_ref()];
        codes.into_iter().chain(of_numbers).chain(of_evaluations).flatten().for_each(&mut declare);
    }
    findings.maps.iter().flat_map(|map| [&map.quantity, &map.unit]).for_each(declare);
    schemes.into_values().collect()
}

/// The model, as IHE AI Results 6.5.3.1 wants it: one item for each, with one Device UID for each set of weights.
fn model_equipment(package: &PackageId, started: &Moment) -> Item {
    Item::new()
        .code(tags::PURPOSE_OF_REFERENCE_CODE_SEQUENCE, &dcm::PROCESSING_EQUIPMENT)
        .text(tags::MANUFACTURER, known(&package.manufacturer))
        .text(tags::MANUFACTURER_MODEL_NAME, &package.name)
        .text(tags::SOFTWARE_VERSIONS, &package.version_string())
        .text(tags::DEVICE_UID, &uid_by_name(&["package", &package.sha256]))
        .text(tags::CONTRIBUTION_DATE_TIME, &format!("{}{}", started.date, started.time))
        .text(tags::CONTRIBUTION_DESCRIPTION, "AI model that computed the result")
}

/// A text that must not be empty.
pub(super) fn known(text: &str) -> &str {
    if text.trim().is_empty() { "unknown" } else { text }
}

/// First of the Series Numbers of a job's objects.
///
/// From 90000 on, where scanners do not number; which ones depends on the package's name, so the results of two models in one study
/// differ and those of one model do not wander. A source series among them moves them by 10000.
fn series_numbers(package_name: &str, source: &InMemDicomObject) -> u32 {
    let hash = package_name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)); // FNV-1a
    let first = 90_000 + hash % 450 * PLACES;
    let taken = source.get(tags::SERIES_NUMBER).and_then(|e| e.value().to_int::<u32>().ok());
    if taken.is_some_and(|number| (first..first + PLACES).contains(&number)) { first + 10_000 } else { first }
}

/// A date and a time as DICOM writes them.
pub(super) struct Moment {
    pub(super) date: String,
    pub(super) time: String,
}

impl Moment {
    /// When the analysis began; in the source's time zone where it states one, since that holds for the whole data set (PS3.3 C.12.1.1.8).
    pub(super) fn of(findings: &Findings) -> Self {
        let started = &findings.provenance.started;
        let zone = source_header(findings)
            .get(tags::TIMEZONE_OFFSET_FROM_UTC)
            .and_then(|e| e.value().to_str().ok().and_then(|text| offset_from_utc(&text)));
        let local: ZonedDateTime = zone.map_or_else(|| started.clone(), |zone| started.with_time_zone(zone.to_time_zone()));
        Self { date: local.strftime("%Y%m%d").to_string(), time: local.strftime("%H%M%S").to_string() }
    }
}

/// Reads `+0100`.
pub(super) fn offset_from_utc(text: &str) -> Option<Offset> {
    let text = text.trim_matches([' ', '\0']);
    let (sign, digits) = text.strip_prefix('-').map(|digits| (-1, digits)).or_else(|| text.strip_prefix('+').map(|digits| (1, digits)))?;
    let number: i32 = digits.parse().ok().filter(|_| digits.len() == 4)?;
    Offset::from_seconds(sign * (number / 100 * 3600 + number % 100 * 60)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets() {
        assert_eq!(offset_from_utc("+0100").map(Offset::seconds), Some(3600));
        assert_eq!(offset_from_utc("-0330 ").map(Offset::seconds), Some(-12600));
        assert_eq!(offset_from_utc("0100"), None);
        assert_eq!(offset_from_utc("+\u{e9}1"), None);
    }
}
