//! A DICOM file as its file meta group says, with its data set as bytes (PS3.10 7.1).

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::Path;

use super::DatasetError;
use super::instance::open_regular;
use super::layout::{Source, io_error, read_meta};
use crate::codes::Uid;

/// A file whose data set is to be sent as it is.
#[derive(Debug)]
pub struct DataSetFile {
    /// Media Storage SOP Class UID (0002,0002).
    pub sop_class_uid: Uid,
    /// Media Storage SOP Instance UID (0002,0003).
    pub sop_instance_uid: Uid,
    /// Transfer Syntax UID (0002,0010).
    pub transfer_syntax_uid: Uid,
    /// Stands at the first byte of the data set.
    pub data_set: File,
}

impl DataSetFile {
    /// Opens the file at `path`.
    ///
    /// # Errors
    /// Where it cannot be read or has no file meta group.
    pub fn open(path: &Path) -> Result<Self, DatasetError> {
        let (meta, offset, _) = read_meta(&mut Source::new(open_regular(path)?), path)?;
        if meta.transfer_syntax_uid.is_empty() {
            return Err(DatasetError::NotDicom { path: path.into() });
        }
        let mut data_set = open_regular(path)?;
        data_set.seek(SeekFrom::Start(offset as u64)).map_err(|e| io_error(&e, path))?;
        Ok(Self {
            sop_class_uid: meta.sop_class_uid,
            sop_instance_uid: meta.sop_instance_uid,
            transfer_syntax_uid: meta.transfer_syntax_uid,
            data_set,
        })
    }
}
