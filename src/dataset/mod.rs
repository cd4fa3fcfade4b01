//! DICOM attributes in and out: typed access, checks, decoding of stored values, atomic writing. The only raw tags.

mod attribute;
mod build;
mod charset;
mod codec;
mod coded;
mod colour;
mod commitment;
mod directory;
mod error;
mod fragments;
mod frame;
mod header;
mod instance;
mod layout;
mod part10;
mod pixels;
mod query;
mod sample_bits;
mod stored;
mod stored_frames;
mod streamed;
#[cfg(test)]
pub(crate) mod testing;
mod web;
mod whole;

pub use attribute::{Attribute, acquired_at};
pub use build::{
    IMPLEMENTATION_VERSION_NAME, Item, WriteError, decimal_string, implementation_class_uid, study_attributes, write_atomically,
};
pub use charset::{CharacterSet, decoded_text};
pub use codec::{is_decodable, rle_frame};
pub use coded::{codes, items};
pub use commitment::{Commitment, Reference};
pub use dicom::dictionary_std::tags;
pub use directory::referenced_file_ids;
pub use error::DatasetError;
pub use frame::{Frame, FrameContext};
pub use header::{Attributes, Header};
pub use instance::{Instance, PixelFormat};
pub use part10::{Beginning, DataSetFile, beginning};
pub use pixels::{ContentHash, Place, StoredAs, check_decodable, native_pixels, read_frames, same_content};
pub use query::{
    Identity, SeriesMatch, StudyMatch, accession_number_of, identifier, series_of_study, studies_named, studies_of_patient, study_began,
    whole_study,
};
pub use stored::StoreAnswer;
pub use stored_frames::stored_frames;
pub use streamed::{Writable, write_object};
pub use web::{Candidate, Level, Query, Stored, json};
