//! The files that a DICOMDIR refers to (PS3.3 annex F).

use std::path::Path;

use dicom::object::InMemDicomObject;

use super::instance::open_regular;
use super::layout::{Layout, Source};
use super::{Attributes, DatasetError, Header, tags};

/// The components of each Referenced File ID (0004,1500) in the DICOMDIR at `path`, in the order of its records, as they stand there:
/// what they may name on a disk is for the caller to decide. Records that are not in use (PS3.3 F.3.2.2) are left out.
///
/// # Errors
/// [`DatasetError`]: not readable, no DICOM file, or no directory.
pub fn referenced_file_ids(path: &Path) -> Result<Vec<Vec<String>>, DatasetError> {
    let layout = Layout::of(Source::new(open_regular(path)?), path)?;
    let header = Header::of(&layout);
    let records = header.object(path)?.get(tags::DIRECTORY_RECORD_SEQUENCE).and_then(|e| e.items());
    let what = "no sequence of directory records: this is no DICOMDIR";
    let records = records.ok_or(DatasetError::Malformed { what, offset: layout.header.start as u64, path: path.into() })?;
    let in_use = |record: &InMemDicomObject| record.integer(tags::RECORD_IN_USE_FLAG) != Some(0);
    let components = |record: &InMemDicomObject| {
        let parts = record.texts(tags::REFERENCED_FILE_ID);
        parts.iter().any(|part| !part.is_empty()).then_some(parts)
    };
    Ok(records.iter().filter(|record| in_use(record)).filter_map(components).collect())
}
