//! Whether the pixel data of a file is there as far as the file says, without reading it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use super::DatasetError;
use super::instance::{Instance, open_regular};
use super::layout::{PixelData, io_error};

/// Bytes of an item's tag and length.
const ITEM_BYTES: u64 = 8;

impl Instance {
    /// Whether the file holds as much pixel data as its element or, of encapsulated data, its items announce. Deflated data is not looked into.
    ///
    /// # Errors
    /// [`DatasetError::Truncated`] where it ends before, [`DatasetError::Malformed`] where items are something else, and where it cannot be read.
    pub fn check_whole(&self) -> Result<(), DatasetError> {
        if self.place.deflated {
            return Ok(());
        }
        match self.place.pixels {
            PixelData::None => Ok(()),
            PixelData::Native { offset, length, .. } | PixelData::Float { offset, length, .. } => {
                self.reaches(offset as u64 + u64::from(length))
            }
            PixelData::Encapsulated { offset } => self.check_items(&mut open_regular(&self.path)?, offset as u64),
        }
    }

    fn reaches(&self, expected: u64) -> Result<(), DatasetError> {
        let found = self.place.file_bytes;
        if expected > found {
            return Err(DatasetError::Truncated { what: "the pixel data", expected, found, path: self.path.clone() });
        }
        Ok(())
    }

    /// Follows the items from `at` to the delimiter (PS3.5 A.4); encapsulated data is little endian.
    fn check_items(&self, file: &mut File, mut at: u64) -> Result<(), DatasetError> {
        loop {
            self.reaches(at + ITEM_BYTES)?;
            let mut header = [0; ITEM_BYTES as usize];
            let read = file.seek(SeekFrom::Start(at)).and_then(|_| file.read_exact(&mut header));
            read.map_err(|e| io_error(&e, &self.path))?;
            let [a, b, c, d, length @ ..] = header;
            match [a, b, c, d] {
                [0xFE, 0xFF, 0x00, 0xE0] => at += ITEM_BYTES + u64::from(u32::from_le_bytes(length)),
                [0xFE, 0xFF, 0xDD, 0xE0] => return Ok(()),
                _ => return Err(DatasetError::Malformed { what: "no item of pixel data", offset: at, path: self.path.clone() }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::testing::slice;

    #[test]
    fn pixel_data_ends_where_it_says() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("one.dcm");
        let check = |bytes: &[u8]| {
            std::fs::write(&path, bytes).expect("written");
            Instance::read(&path).and_then(|instance| instance.check_whole())
        };
        let native = slice(1).bytes();
        assert!(check(&native).is_ok());
        assert!(matches!(check(&native[..native.len() - 1]), Err(DatasetError::Truncated { .. })));

        // The same with two fragments in place of the values.
        let at = native.windows(6).rposition(|w| w == *b"\xE0\x7F\x10\x00OW").expect("pixel data");
        let items = [
            &native[..at],
            b"\xE0\x7F\x10\x00OB\0\0\xFF\xFF\xFF\xFF",
            b"\xFE\xFF\x00\xE0\0\0\0\0",
            b"\xFE\xFF\x00\xE0\x04\0\0\0abcd",
            b"\xFE\xFF\x00\xE0\x02\0\0\0ef",
            b"\xFE\xFF\xDD\xE0\0\0\0\0",
        ]
        .concat();
        assert!(check(&items).is_ok());
        for cut in [1, 8, 9, 12, 20] {
            assert!(matches!(check(&items[..items.len() - cut]), Err(DatasetError::Truncated { .. })), "{cut} bytes less");
        }
        let mut other = items.clone();
        other[at + 12] = 0;
        assert!(matches!(check(&other), Err(DatasetError::Malformed { .. })));
    }
}
