//! DICOM attributes in and out: typed access, checks, decoding of stored values, atomic writing. The only raw tags.

mod attribute;
mod build;
mod codec;
mod colour;
mod error;
mod instance;
mod layout;
mod pixels;
mod rgb;
#[cfg(test)]
pub(crate) mod testing;

pub use attribute::{Attribute, acquired_at};
pub use build::{IMPLEMENTATION_VERSION_NAME, Item, WriteError, decimal_string, implementation_class_uid, write_atomically, write_object};
pub use dicom::dictionary_std::tags;
pub use error::DatasetError;
pub use instance::{Instance, PixelFormat};
pub use pixels::{StoredAs, check_decodable, read_stored, same_content};
pub use rgb::read_rgb;
