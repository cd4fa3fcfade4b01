//! One SOP instance as a file: its header, typed.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dicom::core::{PrimitiveValue, Tag};
use dicom::dictionary_std::{tags, uids};
use dicom::encoding::TransferSyntaxIndex;
use dicom::object::InMemDicomObject;
use dicom::transfer_syntax::TransferSyntaxRegistry;
use sha2::{Digest, Sha256};

use super::DatasetError;
use super::layout::{Layout, PixelData, Source, ascii, io_error};
use crate::codes::{Uid, sha256_hex};
use crate::volume::Rescale;

/// The header of one SOP instance, read up to the pixel data.
///
/// UIDs that are missing in the data set are empty here; [`Instance::read`] takes SOP Class and Instance UID from the file meta group.
/// Numbers that are missing or unreadable (`***` stands in real files) are `None` or 0.
#[derive(Debug, Clone)]
pub struct Instance {
    /// Where it was read.
    pub path: PathBuf,
    /// Every attribute before the pixel data, as it was.
    pub header: Arc<InMemDicomObject>,
    /// Transfer Syntax UID (0002,0010); where it is missing, the native one that the data set is written in.
    pub transfer_syntax_uid: Uid,
    /// SOP Class UID (0008,0016).
    pub sop_class_uid: Uid,
    /// SOP Instance UID (0008,0018).
    pub sop_instance_uid: Uid,
    /// Study Instance UID (0020,000D).
    pub study_uid: Uid,
    /// Series Instance UID (0020,000E).
    pub series_uid: Uid,
    /// Frame of Reference UID (0020,0052).
    pub frame_of_reference_uid: Uid,
    /// SHA-256 of Patient ID and Patient's Name: equal for the same patient, and no text of either.
    pub patient_key: String,
    /// Modality (0008,0060).
    pub modality: String,
    /// Series Number (0020,0011).
    pub series_number: Option<i64>,
    /// Acquisition Number (0020,0012).
    pub acquisition_number: Option<i64>,
    /// Instance Number (0020,0013).
    pub instance_number: Option<i64>,
    /// Series Description (0008,103E): free text, for selection by rules only, never for a message or a log.
    pub series_description: String,
    /// Rows (0028,0010): length of the j axis; 0 when absent.
    pub rows: u32,
    /// Columns (0028,0011): length of the i axis; 0 when absent.
    pub columns: u32,
    /// Number of Frames (0028,0008); 1 when absent, 0 when unreadable.
    pub frames: u32,
    /// Whether there is any kind of pixel data.
    pub has_pixel_data: bool,
    /// How the pixels are stored.
    pub pixels: PixelFormat,
    /// Image Position (Patient) (0020,0032), mm.
    pub position_mm: Option<[f64; 3]>,
    /// Image Orientation (Patient) (0020,0037): direction of increasing column, then of increasing row.
    pub orientation: Option<[f64; 6]>,
    /// Pixel Spacing (0028,0030): between rows, between columns, mm.
    pub pixel_spacing_mm: Option<[f64; 2]>,
    /// Slice Thickness (0018,0050), mm.
    pub slice_thickness_mm: Option<f64>,
    /// Spacing Between Slices (0018,0088), mm; what the header says, never used for geometry.
    pub spacing_between_slices_mm: Option<f64>,
    /// Gantry/Detector Tilt (0018,1120), degrees; what the header says, never used for geometry.
    pub gantry_tilt_deg: Option<f64>,
    /// Rescale Slope and Intercept (0028,1053 and 1052), where both are there.
    pub rescale: Option<Rescale>,
    /// Rescale Type (0028,1054): `HU`, `US` (unspecified) and others; empty when absent.
    pub rescale_type: String,
    /// Whether there is a Modality LUT Sequence (0028,3000).
    pub has_modality_lut: bool,
    /// Whether the pixels went through lossy compression at any time (0028,2110).
    pub lossy: bool,
    /// Image Type (0008,0008).
    pub image_type: Vec<String>,
    /// SHA-256 of the header's bytes. Comparing parsed headers would not do: a NaN in a private element is not equal to itself.
    pub(super) header_sha256: [u8; 32],
}

/// How pixels are stored (PS3.3 C.7.6.3); 0 or empty where the header does not say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PixelFormat {
    /// Samples per Pixel (0028,0002).
    pub samples: u16,
    /// Photometric Interpretation (0028,0004).
    pub photometric: String,
    /// Bits Allocated (0028,0100).
    pub bits_allocated: u16,
    /// Bits Stored (0028,0101).
    pub bits_stored: u16,
    /// High Bit (0028,0102).
    pub high_bit: u16,
    /// Pixel Representation (0028,0103): two's complement.
    pub signed: bool,
    /// Float or Double Float Pixel Data instead of integers.
    pub float: bool,
}

impl Instance {
    /// Reads the header of the file at `path`. Files without a preamble, and data sets without a file meta group, are read where they
    /// begin as data sets do.
    ///
    /// # Errors
    /// [`DatasetError`] when it is no DICOM file, is a DICOMDIR, is cut off within the header, breaks PS3.5, or cannot be opened.
    pub fn read(path: &Path) -> Result<Self, DatasetError> {
        let file = open_regular(path)?;
        Ok(Self::parse(Source::new(file), path)?.0)
    }

    /// The header, and where the pixel data lies.
    pub(super) fn parse<'r>(source: Source<'r>, path: &Path) -> Result<(Self, Layout<'r>), DatasetError> {
        let layout = Layout::of(source, path)?;
        let malformed =
            || DatasetError::Malformed { what: "the header cannot be parsed", offset: layout.header.start as u64, path: path.into() };
        let ts = TransferSyntaxRegistry.get(layout.encoding.native_uid()).ok_or_else(malformed)?;
        let bytes = layout.header_bytes();
        // dicom-rs should not panic; a file that makes it do so must not end more than itself. What it says is not passed on, since it
        // may quote the header.
        let header = catch_unwind(AssertUnwindSafe(|| InMemDicomObject::read_dataset_with_ts(&*bytes, ts)))
            .map_err(|_| malformed())?
            .map_err(|_| malformed())?;
        let mut instance = Self::from_header(header, &layout, path)?;
        instance.header_sha256 = Sha256::digest(&bytes).into();
        drop(bytes);
        Ok((instance, layout))
    }

    fn from_header(header: InMemDicomObject, layout: &Layout<'_>, path: &Path) -> Result<Self, DatasetError> {
        let h = Attributes(&header);
        let meta = &layout.meta;
        let or = |text: String, other: &str| if text.is_empty() { other.to_owned() } else { text };
        let sop_class_uid = or(h.text(tags::SOP_CLASS_UID), &meta.sop_class_uid);
        if sop_class_uid == uids::MEDIA_STORAGE_DIRECTORY_STORAGE || header.get(tags::DIRECTORY_RECORD_SEQUENCE).is_some() {
            return Err(DatasetError::Dicomdir { path: path.into() });
        }
        let modality = h.text(tags::MODALITY);
        if !layout.declared && sop_class_uid.is_empty() && modality.is_empty() {
            return Err(DatasetError::NotDicom { path: path.into() });
        }
        let frames = match header.get(tags::NUMBER_OF_FRAMES) {
            Some(_) if !h.text(tags::NUMBER_OF_FRAMES).is_empty() => h.count(tags::NUMBER_OF_FRAMES),
            _ => 1,
        };
        let rescale = match (h.number(tags::RESCALE_SLOPE), h.number(tags::RESCALE_INTERCEPT)) {
            (Some(slope), Some(intercept)) => Some(Rescale { slope, intercept }),
            _ => None,
        };
        let small = |tag| u16::try_from(h.count(tag)).unwrap_or(0);
        let bits_stored = small(tags::BITS_STORED);
        let pixels = PixelFormat {
            samples: small(tags::SAMPLES_PER_PIXEL),
            photometric: h.text(tags::PHOTOMETRIC_INTERPRETATION),
            bits_allocated: small(tags::BITS_ALLOCATED),
            bits_stored,
            high_bit: if header.get(tags::HIGH_BIT).is_some() { small(tags::HIGH_BIT) } else { bits_stored.saturating_sub(1) },
            signed: h.count(tags::PIXEL_REPRESENTATION) == 1,
            float: layout.pixels == PixelData::Float,
        };
        Ok(Self {
            path: path.into(),
            transfer_syntax_uid: or(meta.transfer_syntax_uid.clone(), layout.encoding.native_uid()),
            sop_class_uid,
            sop_instance_uid: or(h.text(tags::SOP_INSTANCE_UID), &meta.sop_instance_uid),
            study_uid: h.text(tags::STUDY_INSTANCE_UID),
            series_uid: h.text(tags::SERIES_INSTANCE_UID),
            frame_of_reference_uid: h.text(tags::FRAME_OF_REFERENCE_UID),
            patient_key: h.patient_key(),
            // Modalities are named in messages: a text that is no Code String (PS3.5 6.2) is not one.
            modality: if is_code_string(&modality) { modality } else { String::new() },
            series_number: h.integer(tags::SERIES_NUMBER),
            acquisition_number: h.integer(tags::ACQUISITION_NUMBER),
            instance_number: h.integer(tags::INSTANCE_NUMBER),
            series_description: h.text(tags::SERIES_DESCRIPTION),
            rows: h.count(tags::ROWS),
            columns: h.count(tags::COLUMNS),
            frames,
            has_pixel_data: layout.pixels != PixelData::None,
            pixels,
            position_mm: h.numbers(tags::IMAGE_POSITION_PATIENT),
            orientation: h.numbers(tags::IMAGE_ORIENTATION_PATIENT),
            pixel_spacing_mm: h.numbers(tags::PIXEL_SPACING),
            slice_thickness_mm: h.number(tags::SLICE_THICKNESS),
            spacing_between_slices_mm: h.number(tags::SPACING_BETWEEN_SLICES),
            gantry_tilt_deg: h.number(tags::GANTRY_DETECTOR_TILT),
            rescale,
            rescale_type: h.text(tags::RESCALE_TYPE),
            has_modality_lut: header.get(tags::MODALITY_LUT_SEQUENCE).is_some(),
            lossy: h.text(tags::LOSSY_IMAGE_COMPRESSION) == "01",
            image_type: h.texts(tags::IMAGE_TYPE),
            header: Arc::new(header),
            header_sha256: [0; 32],
        })
    }

    /// Whether this is a localizer, scout or surview: a plan of the examination, not a slice of a volume (PS3.3 C.8.2.1.1.1).
    pub fn is_localizer(&self) -> bool {
        self.image_type.iter().skip(2).any(|v| v == "LOCALIZER")
    }
}

/// Opens a file, but no pipe or device, where reading could wait for ever.
pub(super) fn open_regular(path: &Path) -> Result<File, DatasetError> {
    let regular = std::fs::metadata(path).map_err(|e| io_error(&e, path))?.is_file();
    if !regular {
        return Err(DatasetError::NotAFile { path: path.into() });
    }
    File::open(path).map_err(|e| io_error(&e, path))
}

/// Typed access to the attributes of a data set.
struct Attributes<'h>(&'h InMemDicomObject);

impl Attributes<'_> {
    /// The values as text, padding taken off. Bytes (an element written with VR UN) count as text.
    fn texts(&self, tag: Tag) -> Vec<String> {
        let Some(value) = self.0.get(tag).and_then(|e| e.value().primitive()) else { return Vec::new() };
        match value {
            PrimitiveValue::Empty => Vec::new(),
            PrimitiveValue::U8(bytes) => ascii(bytes).split('\\').map(|v| v.trim().to_owned()).collect(),
            other => other.to_multi_str().iter().map(|v| ascii(v.as_bytes())).collect(),
        }
    }

    /// The first value as text; empty when there is none.
    fn text(&self, tag: Tag) -> String {
        self.texts(tag).into_iter().next().unwrap_or_default()
    }

    /// Exactly `N` finite numbers.
    fn numbers<const N: usize>(&self, tag: Tag) -> Option<[f64; N]> {
        let values: Option<Vec<f64>> = self.texts(tag).iter().map(|v| v.parse().ok().filter(|n: &f64| n.is_finite())).collect();
        values?.try_into().ok()
    }

    fn number(&self, tag: Tag) -> Option<f64> {
        self.numbers(tag).map(|[n]| n)
    }

    fn integer(&self, tag: Tag) -> Option<i64> {
        self.number(tag).filter(|n| n.fract() == 0.0 && n.abs() <= f64::from(u32::MAX)).map(|n| n as i64)
    }

    /// A number from 0 up; 0 when it is missing, unreadable or negative.
    fn count(&self, tag: Tag) -> u32 {
        self.integer(tag).and_then(|n| u32::try_from(n).ok()).unwrap_or(0)
    }

    /// Patient ID and Patient's Name as one hash. Empty trailing parts of a name do not count (PS3.5 6.2.1).
    fn patient_key(&self) -> String {
        let mut identity = Vec::new();
        for part in [self.text(tags::PATIENT_ID), self.text(tags::PATIENT_NAME)] {
            let part = part.trim_end_matches(['^', '=', ' ']);
            identity.extend((part.len() as u64).to_le_bytes());
            identity.extend(part.bytes());
        }
        sha256_hex(&identity)
    }
}

/// Up to 16 upper-case letters, digits, spaces and underscores.
fn is_code_string(text: &str) -> bool {
    text.len() <= 16 && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b' ' || b == b'_')
}
