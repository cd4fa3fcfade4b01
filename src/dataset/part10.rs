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

/// What the first bytes of a DICOM file say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Beginning {
    /// More of them are needed.
    Unknown,
    /// It is no DICOM file, or its file meta group is none that says how long it is.
    NotDicom,
    /// The file meta group is there.
    Known {
        /// Media Storage SOP Class UID (0002,0002).
        sop_class_uid: Uid,
        /// Media Storage SOP Instance UID (0002,0003).
        sop_instance_uid: Uid,
        /// Transfer Syntax UID (0002,0010).
        transfer_syntax_uid: Uid,
        /// Where the data set begins.
        data_set: usize,
    },
}

/// The longest file meta group that is waited for.
const MAX_META_BYTES: usize = 64 << 10;
/// Preamble, `DICM`, and File Meta Information Group Length (0002,0000).
const FIXED_BYTES: usize = 144;

/// Reads the file meta group of a file that comes piece by piece.
pub fn beginning(bytes: &[u8]) -> Beginning {
    if bytes.get(128..132).is_some_and(|magic| magic != b"DICM") {
        return Beginning::NotDicom;
    }
    let Some(fixed) = bytes.get(..FIXED_BYTES) else { return Beginning::Unknown };
    let length = u32::from_le_bytes([fixed[140], fixed[141], fixed[142], fixed[143]]) as usize;
    if fixed[132..140] != [2, 0, 0, 0, b'U', b'L', 4, 0] || length > MAX_META_BYTES {
        return Beginning::NotDicom;
    }
    let Some(group) = bytes.get(..FIXED_BYTES + length) else { return Beginning::Unknown };
    match read_meta(&mut Source::of_bytes(group.to_vec()), Path::new("")) {
        Ok((meta, data_set, _)) if !meta.transfer_syntax_uid.is_empty() => Beginning::Known {
            sop_class_uid: meta.sop_class_uid,
            sop_instance_uid: meta.sop_instance_uid,
            transfer_syntax_uid: meta.transfer_syntax_uid,
            data_set,
        },
        _ => Beginning::NotDicom,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::testing::slice;

    #[test]
    fn a_file_says_what_it_is_as_soon_as_it_can() {
        let mut file = slice(1).bytes();
        let known = beginning(&file);
        let Beginning::Known { sop_instance_uid, transfer_syntax_uid, data_set, .. } = &known else { panic!("{known:?}") };
        assert_eq!((sop_instance_uid.as_str(), transfer_syntax_uid.as_str()), (slice(1).sop_uid.as_str(), "1.2.840.10008.1.2.1"));
        assert_eq!(file[*data_set..*data_set + 2], [8, 0], "the first group of the data set");
        (0..*data_set).for_each(|end| assert_eq!(beginning(&file[..end]), Beginning::Unknown, "{end} bytes"));
        file[128] = b'X';
        assert_eq!(beginning(&file), Beginning::NotDicom);
        assert_eq!(beginning(&[0x20; 200]), Beginning::NotDicom);
    }
}
