//! The DICOM file around a received data set (PS3.10 7.1), and the seal in its preamble.
//!
//! The file depends on the data set alone: no time, no sender, no version of this program, so that the same instance is the same bytes.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use sha2::{Digest, Sha256};
use twox_hash::XxHash3_128;

use super::receive::Announced;
use crate::codes::hex;
use crate::dataset::implementation_class_uid;

/// What the preamble begins with once a file is whole; its [`Checksum`] follows.
const MAGIC: &[u8; 16] = b"roentgen sealed\n";
/// Bytes of a file before `DICM` (PS3.10 7.1).
pub const PREAMBLE_BYTES: usize = 128;

/// Preamble without a seal, `DICM`, file meta group.
pub(super) fn beginning(announced: &Announced) -> Vec<u8> {
    let mut meta = Vec::new();
    let mut ui = |element: u16, uid: &str| {
        let padded = uid.len().next_multiple_of(2);
        meta.extend([2u16.to_le_bytes(), element.to_le_bytes(), *b"UI", (padded as u16).to_le_bytes()].concat());
        meta.extend(uid.bytes());
        meta.resize(meta.len() + padded - uid.len(), 0);
    };
    ui(0x0002, &announced.sop_class_uid);
    ui(0x0003, &announced.sop_instance_uid);
    ui(0x0010, &announced.transfer_syntax_uid);
    ui(0x0012, &implementation_class_uid());
    let version = [&2u16.to_le_bytes()[..], &1u16.to_le_bytes(), b"OB\0\0", &2u32.to_le_bytes(), &[0, 1]].concat();
    let length = (version.len() + meta.len()) as u32;
    let group = [&2u16.to_le_bytes()[..], &0u16.to_le_bytes(), b"UL", &4u16.to_le_bytes(), &length.to_le_bytes()].concat();
    [&[0; PREAMBLE_BYTES][..], b"DICM", &group, &version, &meta].concat()
}

/// What a seal says of a file: XXH3-128 of all that follows the preamble. It tells a file that a crash has cut off or torn from a whole one;
/// that no other data set is taken for this one is the matter of [`Contents::name`].
#[derive(Default)]
pub(super) struct Checksum(XxHash3_128);

impl fmt::Debug for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Checksum").field(&self.0.finish_128()).finish()
    }
}

impl Checksum {
    /// Of a file that begins so.
    pub(super) fn after(beginning: &[u8]) -> Self {
        let mut checksum = Self::default();
        checksum.more(&beginning[PREAMBLE_BYTES..]);
        checksum
    }

    /// The next piece.
    pub(super) fn more(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    fn bytes(&self) -> [u8; 16] {
        self.0.finish_128().to_le_bytes()
    }
}

/// Puts the seal into the file's preamble. The caller syncs.
pub(super) fn seal(file: &mut File, checksum: &Checksum) -> io::Result<()> {
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&[&MAGIC[..], &checksum.bytes()].concat())
}

/// What is in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Contents {
    /// SHA-256 of transfer syntax and data set, hex: it names the instance.
    pub(super) name: String,
    /// Whether it is sealed, and is what was sealed.
    pub(super) is_sealed: bool,
}

/// Reads a file; none where it does not begin as [`beginning`] has it.
pub(super) fn read(file: &mut File) -> io::Result<Option<Contents>> {
    file.seek(SeekFrom::Start(0))?;
    let mut prefix = [0; PREAMBLE_BYTES + 16];
    if !is_read(file, &mut prefix)? {
        return Ok(None);
    }
    let group_bytes = u32::from_le_bytes([prefix[140], prefix[141], prefix[142], prefix[143]]) as usize;
    let mut group = Vec::new();
    Read::by_ref(file).take(group_bytes.min(1 << 16) as u64).read_to_end(&mut group)?;
    let Some(transfer_syntax_uid) = transfer_syntax(&group) else { return Ok(None) };
    let mut hash = Sha256::new().chain_update((transfer_syntax_uid.len() as u64).to_le_bytes()).chain_update(transfer_syntax_uid);
    let mut checksum = Checksum::after(&prefix);
    checksum.more(&group);
    let mut buffer = vec![0; 1 << 17];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => {
                hash.update(&buffer[..count]);
                checksum.more(&buffer[..count]);
            }
        }
    }
    let is_sealed = prefix[..16] == MAGIC[..] && prefix[16..32] == checksum.bytes();
    Ok(Some(Contents { name: hex(&hash.finalize()), is_sealed }))
}

/// Fills the buffer; false where the file ends before that.
fn is_read(file: &mut File, buffer: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(buffer) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        read => read.map(|()| true),
    }
}

/// Transfer Syntax UID of a file meta group as [`beginning`] writes it.
fn transfer_syntax(mut group: &[u8]) -> Option<&str> {
    group = group.get(14..)?; // File Meta Information Version
    loop {
        let (header, rest) = group.split_at_checked(8)?;
        let (value, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes([header[6], header[7]])))?;
        if header[2..4] == [0x10, 0] {
            return std::str::from_utf8(value).ok().map(|uid| uid.trim_end_matches('\0'));
        }
        group = rest;
    }
}
