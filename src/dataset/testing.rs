//! Small CT files made in code, for tests.

use std::path::{Path, PathBuf};

use dicom::core::{DataElement, PrimitiveValue, VR};
use dicom::object::mem::InMemElement;
use dicom::object::{FileMetaTableBuilder, InMemDicomObject};

use super::{Instance, tags};
use crate::codes::{sop_class, transfer_syntax};

/// What a test says of one slice; everything else is an ordinary CT.
#[derive(Debug, Clone)]
pub(crate) struct Slice {
    pub(crate) number: u32,
    pub(crate) sop_class: String,
    pub(crate) sop_uid: String,
    pub(crate) study_uid: String,
    pub(crate) series_uid: String,
    pub(crate) patient_id: String,
    pub(crate) image_type: String,
    pub(crate) orientation: [f64; 6],
    pub(crate) position_mm: [f64; 3],
    /// Between rows, between columns.
    pub(crate) spacing_mm: [f64; 2],
    pub(crate) rows: u16,
    pub(crate) columns: u16,
    pub(crate) intercept: Option<f64>,
    pub(crate) signed: bool,
    pub(crate) bits_stored: u16,
    /// Little endian bytes of the pixel data; `None`: no pixel data.
    pub(crate) pixels: Option<Vec<u8>>,
    /// Elements beside those above, or instead of them.
    pub(crate) more: Vec<InMemElement>,
}

/// Slice `number` of an axial series, 2 mm apart, whose pixels are all `number`.
pub(crate) fn slice(number: u32) -> Slice {
    let (rows, columns) = (4u16, 3u16);
    Slice {
        number,
        sop_class: sop_class::CT_IMAGE.into(),
        sop_uid: format!("1.2.3.4.{}", number + 1),
        study_uid: "1.2.3".into(),
        series_uid: "1.2.3.4".into(),
        patient_id: "P1".into(),
        image_type: "ORIGINAL\\PRIMARY\\AXIAL".into(),
        orientation: [1., 0., 0., 0., 1., 0.],
        position_mm: [-10., -20., 2.0 * f64::from(number)],
        spacing_mm: [0.7, 0.5],
        rows,
        columns,
        intercept: Some(-1024.0),
        signed: false,
        bits_stored: 12,
        pixels: Some((0..rows * columns).flat_map(|_| (number as u16).to_le_bytes()).collect()),
        more: Vec::new(),
    }
}

impl Slice {
    pub(crate) fn object(&self) -> InMemDicomObject {
        let numbers = |values: &[f64]| PrimitiveValue::Strs(values.iter().map(|v| format!("{v:?}")).collect());
        let text = |t: &str| PrimitiveValue::Strs(t.split('\\').map(str::to_owned).collect());
        let mut elements = vec![
            DataElement::new(tags::IMAGE_TYPE, VR::CS, text(&self.image_type)),
            DataElement::new(tags::SOP_CLASS_UID, VR::UI, text(&self.sop_class)),
            DataElement::new(tags::SOP_INSTANCE_UID, VR::UI, text(&self.sop_uid)),
            DataElement::new(tags::MODALITY, VR::CS, text("CT")),
            DataElement::new(tags::PATIENT_NAME, VR::PN, text("PHANTOM^ONE")),
            DataElement::new(tags::PATIENT_ID, VR::LO, text(&self.patient_id)),
            DataElement::new(tags::STUDY_INSTANCE_UID, VR::UI, text(&self.study_uid)),
            DataElement::new(tags::SERIES_INSTANCE_UID, VR::UI, text(&self.series_uid)),
            DataElement::new(tags::INSTANCE_NUMBER, VR::IS, text(&self.number.to_string())),
            DataElement::new(tags::IMAGE_POSITION_PATIENT, VR::DS, numbers(&self.position_mm)),
            DataElement::new(tags::IMAGE_ORIENTATION_PATIENT, VR::DS, numbers(&self.orientation)),
            DataElement::new(tags::SLICE_THICKNESS, VR::DS, text("99")),
            DataElement::new(tags::PIXEL_SPACING, VR::DS, numbers(&self.spacing_mm)),
            DataElement::new(tags::SAMPLES_PER_PIXEL, VR::US, PrimitiveValue::from(1u16)),
            DataElement::new(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, text("MONOCHROME2")),
            DataElement::new(tags::ROWS, VR::US, PrimitiveValue::from(self.rows)),
            DataElement::new(tags::COLUMNS, VR::US, PrimitiveValue::from(self.columns)),
            DataElement::new(tags::BITS_ALLOCATED, VR::US, PrimitiveValue::from(16u16)),
            DataElement::new(tags::BITS_STORED, VR::US, PrimitiveValue::from(self.bits_stored)),
            DataElement::new(tags::HIGH_BIT, VR::US, PrimitiveValue::from(self.bits_stored - 1)),
            DataElement::new(tags::PIXEL_REPRESENTATION, VR::US, PrimitiveValue::from(u16::from(self.signed))),
        ];
        if let Some(intercept) = self.intercept {
            elements.push(DataElement::new(tags::RESCALE_INTERCEPT, VR::DS, numbers(&[intercept])));
            elements.push(DataElement::new(tags::RESCALE_SLOPE, VR::DS, text("1")));
        }
        if let Some(pixels) = &self.pixels {
            elements.push(DataElement::new(tags::PIXEL_DATA, VR::OW, PrimitiveValue::from(pixels.clone())));
        }
        elements.extend(self.more.iter().cloned());
        InMemDicomObject::from_element_iter(elements)
    }

    /// The bytes of a file in Explicit VR Little Endian.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let meta = FileMetaTableBuilder::new()
            .media_storage_sop_class_uid(&self.sop_class)
            .media_storage_sop_instance_uid(&self.sop_uid)
            .transfer_syntax(transfer_syntax::EXPLICIT_LITTLE);
        let mut bytes = Vec::new();
        self.object().with_meta(meta).expect("meta is complete").write_all(&mut bytes).expect("memory takes all");
        bytes
    }

    pub(crate) fn write(&self, folder: &Path, name: &str) -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, self.bytes()).expect("temporary folder takes a file");
        path
    }

    /// The slice as if it had been read.
    pub(crate) fn instance(&self) -> Instance {
        let bytes = self.bytes();
        let file_bytes = bytes.len() as u64;
        Instance::parse(super::layout::Source::of_bytes(bytes), file_bytes, Path::new("made/in/code")).expect("it was made right")
    }
}

pub(crate) fn instance() -> Instance {
    slice(0).instance()
}
