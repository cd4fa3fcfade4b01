//! The DICOM file around a received data set (PS3.10 7.1), and the seal in its preamble.
//!
//! The file depends on the data set alone: no time, no sender, no version of this program, so that the same instance is the same bytes.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use sha2::{Digest, Sha256};

use super::receive::Announced;
use crate::codes::hex;
use crate::dataset::implementation_class_uid;

/// What the 128 bytes before `DICM` begin with once a file is whole; the SHA-256 of transfer syntax and data set follows.
const MAGIC: &[u8; 16] = b"roentgen sealed\n";
/// Preamble and `DICM`.
const PREFIX_BYTES: usize = 132;

/// The hash that names an instance.
pub(super) fn hasher(transfer_syntax_uid: &str) -> Sha256 {
    Sha256::new().chain_update((transfer_syntax_uid.len() as u64).to_le_bytes()).chain_update(transfer_syntax_uid)
}

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
    [&[0; PREFIX_BYTES - 4][..], b"DICM", &group, &version, &meta].concat()
}

/// Puts the seal into the file's preamble. The caller syncs.
pub(super) fn seal(file: &mut File, sha256: &[u8; 32]) -> io::Result<()> {
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&[&MAGIC[..], sha256].concat())
}

/// Whether the file is sealed, and what follows is what was sealed: its hash then, hex.
pub(super) fn sealed(file: &mut File) -> io::Result<Option<String>> {
    let mut prefix = [0; PREFIX_BYTES + 12];
    file.seek(SeekFrom::Start(0))?;
    match file.read_exact(&mut prefix) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    if prefix[..16] != MAGIC[..] {
        return Ok(None);
    }
    let group_bytes = u32::from_le_bytes([prefix[140], prefix[141], prefix[142], prefix[143]]) as usize;
    let mut group = Vec::new();
    Read::by_ref(file).take(group_bytes.min(1 << 16) as u64).read_to_end(&mut group)?;
    let Some(transfer_syntax_uid) = transfer_syntax(&group) else { return Ok(None) };
    let mut hash = hasher(transfer_syntax_uid);
    let mut buffer = vec![0; 1 << 17];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => hash.update(&buffer[..count]),
        }
    }
    let found: [u8; 32] = hash.finalize().into();
    Ok((found[..] == prefix[16..48]).then(|| hex(&found)))
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
