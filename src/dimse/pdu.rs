//! Protocol data units on the wire (PS3.8 9.3), read into one buffer of fixed size.

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use super::{DimseError, MAX_PDU_BYTES};

/// PDU types.
pub(super) mod kind {
    pub(crate) const ASSOCIATE_RQ: u8 = 1;
    pub(crate) const ASSOCIATE_AC: u8 = 2;
    pub(crate) const ASSOCIATE_RJ: u8 = 3;
    pub(crate) const DATA: u8 = 4;
    pub(crate) const RELEASE_RQ: u8 = 5;
    pub(crate) const RELEASE_RP: u8 = 6;
    pub(crate) const ABORT: u8 = 7;
}

/// Bytes of a PDU's header: type, reserved, length.
pub(super) const HEADER_BYTES: usize = 6;

/// An application entity's title: 1 to 16 printable ASCII characters, no backslash, spaces around it do not count (PS3.5 6.2).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AeTitle(String);

impl AeTitle {
    /// The title as it stands in a PDU, 16 bytes; `None` where that is no title.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        std::str::from_utf8(bytes).ok()?.parse().ok()
    }

    /// 16 bytes, filled with spaces.
    pub(super) fn padded(&self) -> [u8; 16] {
        let mut bytes = [b' '; 16];
        bytes[..self.0.len()].copy_from_slice(self.0.as_bytes());
        bytes
    }

    /// The title without padding.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AeTitle {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim_matches([' ', '\0']);
        let printable = text.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'\\');
        if (1..=16).contains(&text.len()) && printable {
            Ok(Self(text.to_owned()))
        } else {
            Err("an AE title has 1 to 16 printable ASCII characters and no backslash")
        }
    }
}

impl fmt::Display for AeTitle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who aborted, and why (PS3.8 table 9-26).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbortReason {
    /// 0: the service user, 2: the upper layer.
    pub source: u8,
    /// 0: not specified, 1: unrecognized PDU, 2: unexpected PDU, 4: unrecognized parameter, 5: unexpected parameter, 6: invalid value.
    pub reason: u8,
}

/// Reads PDUs from a stream through one buffer, as many bytes at a time as there are.
#[derive(Debug)]
pub(super) struct PduReader {
    buffer: Box<[u8]>,
    /// What is in the buffer and not yet taken.
    from: usize,
    to: usize,
}

/// A PDU: its type and where its body lies in the buffer, until the next one is read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pdu {
    pub(super) kind: u8,
    start: usize,
    end: usize,
}

impl PduReader {
    pub(super) fn new() -> Self {
        Self { buffer: vec![0; HEADER_BYTES + MAX_PDU_BYTES as usize].into(), from: 0, to: 0 }
    }

    /// The next PDU; `None` where the stream ends before its first byte.
    pub(super) fn next(&mut self, stream: &mut impl Read) -> Result<Option<Pdu>, DimseError> {
        if self.is_empty() {
            (self.from, self.to) = (0, 0);
        }
        if !self.fill(stream, HEADER_BYTES)? {
            return Ok(None);
        }
        let header = &self.buffer[self.from..];
        let kind = header[0];
        let length = u32::from_be_bytes([header[2], header[3], header[4], header[5]]);
        if !(kind::ASSOCIATE_RQ..=kind::ABORT).contains(&kind) {
            return Err(DimseError::Protocol { what: "a PDU of unknown type", reason: 1 });
        }
        if length > MAX_PDU_BYTES {
            return Err(DimseError::protocol("a PDU longer than we announced"));
        }
        let bytes = HEADER_BYTES + length as usize;
        if !self.fill(stream, bytes)? {
            return Err(DimseError::Closed);
        }
        let start = self.from + HEADER_BYTES;
        self.from += bytes;
        Ok(Some(Pdu { kind, start, end: self.from }))
    }

    /// The body of the PDU that was read last.
    pub(super) fn body(&self, pdu: Pdu) -> &[u8] {
        &self.buffer[pdu.start..pdu.end]
    }

    /// Whether all that was read is taken.
    pub(super) fn is_empty(&self) -> bool {
        self.from == self.to
    }

    /// Whether something that was not taken yet is in the buffer, or comes with one read. The end of the stream counts as something.
    pub(super) fn look(&mut self, stream: &mut impl Read) -> io::Result<bool> {
        if self.is_empty() {
            (self.from, self.to) = (0, 0);
            match stream.read(&mut self.buffer) {
                Ok(count) => self.to = count,
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted) => {
                    return Ok(false);
                }
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }

    /// Reads until `bytes` are there; false where the stream ends before the first of them.
    fn fill(&mut self, stream: &mut impl Read, bytes: usize) -> Result<bool, DimseError> {
        while self.to - self.from < bytes {
            if self.from + bytes > self.buffer.len() {
                self.buffer.copy_within(self.from..self.to, 0);
                (self.from, self.to) = (0, self.to - self.from);
            }
            match stream.read(&mut self.buffer[self.to..]) {
                Ok(0) if self.from == self.to => return Ok(false),
                Ok(0) => return Err(DimseError::Closed),
                Ok(count) => self.to += count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(true)
    }
}

/// A PDU of `kind` with `body` as one piece, to be written at once.
pub(super) fn pdu(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
    bytes.extend([kind, 0]);
    bytes.extend((body.len() as u32).to_be_bytes());
    bytes.extend(body);
    bytes
}

/// One presentation data value of a P-DATA-TF PDU (PS3.8 9.3.5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pdv {
    pub(super) context_id: u8,
    pub(super) is_command: bool,
    pub(super) is_last: bool,
    /// Where its data lies in the body.
    pub(super) start: usize,
    pub(super) end: usize,
}

/// The value that begins at `at` in the body of a P-DATA-TF PDU.
pub(super) fn pdv(body: &[u8], at: usize) -> Result<Pdv, DimseError> {
    let header = body.get(at..at + 6).ok_or(DimseError::protocol("a presentation data value is cut off"))?;
    let length = u32::from_be_bytes([header[0], header[1], header[2], header[3]]) as usize;
    let end = at + 4 + length;
    if length < 2 || end > body.len() {
        return Err(DimseError::protocol("a presentation data value is longer than its PDU"));
    }
    Ok(Pdv { context_id: header[4], is_command: header[5] & 1 == 1, is_last: header[5] & 2 == 2, start: at + 6, end })
}
