//! One SOP instance as a file: its header, typed.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dicom::dictionary_std::{tags, uids};
use dicom::object::InMemDicomObject;
use sha2::{Digest, Sha256};

use super::header::patient_key_of;
use super::layout::{Encoding, Layout, PixelData, Source, io_error};
use super::{Attributes, DatasetError, Header};
use crate::codes::Uid;
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
    pub attributes: Arc<Header>,
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
    /// Image Position (Patient) (0020,0032), mm; of single-frame instances, as are the next three.
    pub position_mm: Option<[f64; 3]>,
    /// Image Orientation (Patient) (0020,0037): direction of increasing column, then of increasing row.
    pub orientation: Option<[f64; 6]>,
    /// Pixel Spacing (0028,0030): between rows, between columns, mm.
    pub pixel_spacing_mm: Option<[f64; 2]>,
    /// Slice Thickness (0018,0050), mm.
    pub slice_thickness_mm: Option<f64>,
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
    /// Where the pixel data lies.
    pub(super) place: PixelPlace,
}

/// Where the pixel data of a file lies, and how to tell that the file is still the same.
#[derive(Debug, Clone, Copy)]
pub(super) struct PixelPlace {
    pub(super) pixels: PixelData,
    pub(super) encoding: Encoding,
    /// Whether offsets count in the inflated data set.
    pub(super) deflated: bool,
    /// SHA-256 of the bytes before the pixel values (of the inflated data set, when it is deflated).
    pub(super) prefix_sha256: [u8; 32],
    /// Bytes of the file.
    pub(super) file_bytes: u64,
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
    /// Planar Configuration (0028,0006) 1: all red values of a frame, then all green, then all blue ones.
    pub planar: bool,
    /// Float or Double Float Pixel Data instead of integers.
    pub float: bool,
}

impl PixelFormat {
    /// Whether the lowest value is white.
    pub fn is_monochrome1(&self) -> bool {
        self.photometric == "MONOCHROME1"
    }

    /// Whether a pixel is a colour.
    pub fn is_colour(&self) -> bool {
        self.samples == 3 || self.photometric == "PALETTE COLOR"
    }
}

impl Instance {
    /// Reads the header of the file at `path`. Files without a preamble, and data sets without a file meta group, are read where they
    /// begin as data sets do.
    ///
    /// # Errors
    /// [`DatasetError`] when it is no DICOM file, is a DICOMDIR, is cut off within the header, breaks PS3.5, or cannot be opened.
    pub fn read(path: &Path) -> Result<Self, DatasetError> {
        let file = open_regular(path)?;
        let file_bytes = file.metadata().map_err(|e| io_error(&e, path))?.len();
        Self::parse(Source::new(file), file_bytes, path)
    }

    /// The header of a file that is still being written, where `beginning` reaches into its pixel data; see [`Instance::written_to`].
    pub fn of_beginning(beginning: Vec<u8>) -> Option<Self> {
        let instance = Self::parse(Source::of_bytes(beginning), 0, Path::new("")).ok()?;
        (instance.place.pixels != PixelData::None && !instance.place.deflated).then_some(instance)
    }

    /// The same, now that all of it is there.
    ///
    /// # Errors
    /// Where the file cannot be looked at.
    pub fn written_to(mut self, path: &Path) -> Result<Self, DatasetError> {
        self.place.file_bytes = std::fs::metadata(path).map_err(|e| io_error(&e, path))?.len();
        self.path = path.to_owned();
        Ok(self)
    }

    /// Whether it says whose it is, by Patient ID or Patient's Name: [`Instance::patient_key`] is of nobody otherwise.
    pub fn names_patient(&self) -> bool {
        self.patient_key != patient_key_of(["", ""])
    }

    /// Bytes of the file.
    pub fn file_bytes(&self) -> u64 {
        self.place.file_bytes
    }

    /// The header of a file of `file_bytes` bytes.
    pub(super) fn parse(source: Source<'_>, file_bytes: u64, path: &Path) -> Result<Self, DatasetError> {
        let layout = Layout::of(source, path)?;
        let prefix = layout.pixels.offset().unwrap_or(layout.header.end);
        let place = PixelPlace {
            pixels: layout.pixels,
            encoding: layout.encoding,
            deflated: layout.deflated,
            prefix_sha256: Sha256::digest(&layout.source.bytes()[..prefix]).into(),
            file_bytes,
        };
        Self::from_header(Header::of(&layout), &layout, place, path)
    }

    fn from_header(h: Header, layout: &Layout<'_>, place: PixelPlace, path: &Path) -> Result<Self, DatasetError> {
        let meta = &layout.meta;
        let or = |text: String, other: &str| if text.is_empty() { other.to_owned() } else { text };
        let sop_class_uid = or(h.text(tags::SOP_CLASS_UID), &meta.sop_class_uid);
        if sop_class_uid == uids::MEDIA_STORAGE_DIRECTORY_STORAGE || h.has(tags::DIRECTORY_RECORD_SEQUENCE) {
            return Err(DatasetError::Dicomdir { path: path.into() });
        }
        let modality = h.text(tags::MODALITY);
        if !layout.declared && sop_class_uid.is_empty() && modality.is_empty() {
            return Err(DatasetError::NotDicom { path: path.into() });
        }
        let frames = if h.text(tags::NUMBER_OF_FRAMES).is_empty() { 1 } else { h.count(tags::NUMBER_OF_FRAMES) };
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
            high_bit: if h.has(tags::HIGH_BIT) { small(tags::HIGH_BIT) } else { bits_stored.saturating_sub(1) },
            signed: h.count(tags::PIXEL_REPRESENTATION) == 1,
            planar: h.count(tags::PLANAR_CONFIGURATION) == 1,
            float: matches!(layout.pixels, PixelData::Float { .. }),
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
            rescale,
            rescale_type: h.text(tags::RESCALE_TYPE),
            has_modality_lut: h.has(tags::MODALITY_LUT_SEQUENCE),
            lossy: h.text(tags::LOSSY_IMAGE_COMPRESSION) == "01",
            image_type: h.texts(tags::IMAGE_TYPE),
            attributes: Arc::new(h),
            place,
        })
    }

    /// The header as an object.
    ///
    /// # Errors
    /// Where it is too damaged for one.
    pub fn header(&self) -> Result<&InMemDicomObject, DatasetError> {
        self.attributes.object(&self.path)
    }

    /// SOP Class and SOP Instance UID as the data set has them; empty where it has none, whatever the file meta group says.
    pub fn uids_of_data_set(&self) -> [Uid; 2] {
        [tags::SOP_CLASS_UID, tags::SOP_INSTANCE_UID].map(|tag| self.attributes.text(tag))
    }

    /// How many instances it says that its study has, and its series (0020,1208 and 0020,1209).
    pub fn stated_counts(&self) -> [Option<i64>; 2] {
        let stated = |tag| self.attributes.integer(tag).filter(|number| *number > 0);
        [tags::NUMBER_OF_STUDY_RELATED_INSTANCES, tags::NUMBER_OF_SERIES_RELATED_INSTANCES].map(stated)
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

/// Up to 16 upper-case letters, digits, spaces and underscores.
fn is_code_string(text: &str) -> bool {
    text.len() <= 16 && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b' ' || b == b'_')
}
