//! Bytes of a file, plain or gzipped, hashed as they are read and never more than are asked for.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use sha2::{Digest, Sha256};

use super::ResearchError;

/// Deflate cannot make more than this many bytes of one (RFC 1951: 258 bytes from a length and a distance code of one bit each).
const DEFLATE_RATIO: u64 = 1032;
/// Padding after the voxels that is read over.
const MAX_SURPLUS: u64 = 64 << 10;
const BUFFER: usize = 64 << 10;

/// A file that is hashed as it is read.
struct Hashed {
    file: File,
    hash: Sha256,
    length: u64,
}

impl Read for Hashed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buffer)?;
        self.hash.update(&buffer[..n]);
        Ok(n)
    }
}

enum Stream {
    Plain(BufReader<Hashed>),
    Gzip(Box<MultiGzDecoder<BufReader<Hashed>>>),
}

/// One file from its start on; where it is gzipped, the bytes inside.
pub(super) struct Source {
    stream: Stream,
    length: u64,
    /// Bytes taken so far, inflated.
    taken: u64,
    pub(super) path: PathBuf,
}

impl Source {
    /// Opens a regular file that starts with a header; gzip is told by its first bytes.
    pub(super) fn open(path: &Path) -> Result<Self, ResearchError> {
        let mut source = Self::open_after(path, Sha256::new())?;
        let Stream::Plain(reader) = &mut source.stream else { return Ok(source) };
        let gzip = reader.fill_buf().map_err(|e| ResearchError::io(&e, path))?.starts_with(&[0x1F, 0x8B]);
        Ok(if gzip { source.into_gzip() } else { source })
    }

    /// Opens the second file of a pair; its bytes go into the same hash. They may be any: gzip is not told by them.
    pub(super) fn open_after(path: &Path, hash: Sha256) -> Result<Self, ResearchError> {
        let failed = |e: io::Error| ResearchError::io(&e, path);
        let metadata = std::fs::metadata(path).map_err(failed)?;
        if !metadata.is_file() {
            // A pipe or a device, where reading could wait for ever.
            return Err(ResearchError::Io { kind: io::ErrorKind::InvalidInput, path: path.into() });
        }
        let length = metadata.len();
        let file = File::open(path).map_err(failed)?;
        let stream = Stream::Plain(BufReader::with_capacity(BUFFER, Hashed { file, hash, length }));
        Ok(Self { stream, length, taken: 0, path: path.into() })
    }

    pub(super) fn is_gzip(&self) -> bool {
        matches!(self.stream, Stream::Gzip(_))
    }

    /// From here on the file is gzipped.
    pub(super) fn into_gzip(self) -> Self {
        let stream = match self.stream {
            Stream::Plain(reader) => Stream::Gzip(Box::new(MultiGzDecoder::new(reader))),
            gzip => gzip,
        };
        Self { stream, ..self }
    }

    /// The most bytes that can still come.
    pub(super) fn at_most(&self) -> u64 {
        match self.stream {
            Stream::Plain(_) => self.length.saturating_sub(self.taken),
            Stream::Gzip(_) => self.length.saturating_mul(DEFLATE_RATIO).saturating_sub(self.taken),
        }
    }

    /// Refuses what cannot be there, before anything is allocated for it.
    pub(super) fn expect(&self, what: &'static str, bytes: u64) -> Result<(), ResearchError> {
        if bytes > self.at_most() {
            return Err(ResearchError::Truncated { what, expected: bytes, found: self.at_most(), path: self.path.clone() });
        }
        Ok(())
    }

    /// Fills `buffer` as far as the file goes.
    pub(super) fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, ResearchError> {
        let mut filled = 0;
        while filled < buffer.len() {
            let result = match &mut self.stream {
                Stream::Plain(reader) => reader.read(&mut buffer[filled..]),
                Stream::Gzip(reader) => reader.read(&mut buffer[filled..]),
            };
            match result {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.failed(&e)),
            }
        }
        self.taken += filled as u64;
        Ok(filled)
    }

    /// Fills the whole of `buffer`.
    pub(super) fn exactly(&mut self, what: &'static str, buffer: &mut [u8]) -> Result<(), ResearchError> {
        let start = self.taken;
        if self.fill(buffer)? < buffer.len() {
            let expected = start + buffer.len() as u64;
            return Err(ResearchError::Truncated { what, expected, found: self.taken, path: self.path.clone() });
        }
        Ok(())
    }

    /// Reads over `bytes` bytes.
    pub(super) fn skip(&mut self, what: &'static str, mut bytes: u64) -> Result<(), ResearchError> {
        self.expect(what, bytes)?;
        let mut buffer = [0; 4096];
        while bytes > 0 {
            let n = bytes.min(buffer.len() as u64) as usize;
            self.exactly(what, &mut buffer[..n])?;
            bytes -= n as u64;
        }
        Ok(())
    }

    /// One line without its end, or `None` at the end of the file; at most `limit` bytes.
    pub(super) fn line(&mut self, limit: usize) -> Result<Option<Vec<u8>>, ResearchError> {
        let mut line = Vec::new();
        let mut byte = [0];
        loop {
            if self.fill(&mut byte)? == 0 {
                return Ok((!line.is_empty()).then_some(line));
            }
            if byte[0] == b'\n' {
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                return Ok(Some(line));
            }
            if line.len() == limit {
                return Err(ResearchError::header(format!("a line of more than {limit} bytes"), &self.path));
            }
            line.push(byte[0]);
        }
    }

    /// Reads to the end, which checks a gzip stream's checksum: how many bytes came after the voxels, and the file's hash.
    pub(super) fn finish(mut self) -> Result<(u64, Sha256), ResearchError> {
        let mut buffer = [0; 4096];
        let mut surplus = 0;
        loop {
            let n = self.fill(&mut buffer)?;
            surplus += n as u64;
            if surplus > MAX_SURPLUS {
                return Err(ResearchError::Surplus { limit: MAX_SURPLUS, path: self.path });
            }
            if n == 0 {
                return Ok((surplus, self.into_hash()?));
            }
        }
    }

    /// The hash of the whole file, whatever was read of it.
    pub(super) fn into_hash(self) -> Result<Sha256, ResearchError> {
        let mut reader = match self.stream {
            Stream::Plain(reader) => reader,
            Stream::Gzip(reader) => reader.into_inner(),
        };
        let failed = |e: io::Error| ResearchError::io(&e, &self.path);
        // A file that grows meanwhile is read to the length that it had.
        let limit = reader.get_ref().length;
        io::copy(&mut reader.by_ref().take(limit), &mut io::sink()).map_err(failed)?;
        Ok(reader.into_inner().hash)
    }

    fn failed(&self, error: &io::Error) -> ResearchError {
        match (&self.stream, error.kind()) {
            (Stream::Gzip(_), io::ErrorKind::UnexpectedEof) => {
                ResearchError::Damaged { what: "the gzip stream is cut off", path: self.path.clone() }
            }
            (Stream::Gzip(_), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) => {
                ResearchError::Damaged { what: "the gzip stream or its checksum is wrong", path: self.path.clone() }
            }
            _ => ResearchError::io(error, &self.path),
        }
    }
}
