//! A zip archive as input: its files in a temporary folder, under numbers.
//!
//! Names of entries come from elsewhere and may hold a patient's name or a way out of the folder, so none becomes a file name or
//! stands in a message: an entry is `archive.zip!entry N`, counted from 1 in the order of the archive's directory. An archive is
//! unpacked as a whole or not at all, so that no slice is quietly missing. Files of one folder of the archive come into one folder, under
//! a number too: what has no UID is told apart by it.

use std::cell::Cell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use tempfile::TempDir;
use thiserror::Error;
use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

use crate::geometry::Coded;

/// The most entries of one archive.
const MAX_ENTRIES: usize = 100_000;
/// The most bytes that are read to find the entries: names, sizes and places of [`MAX_ENTRIES`] of them.
const MAX_DIRECTORY_BYTES: u64 = 64 << 20;
/// The most bytes of all files together, unpacked.
const MAX_TOTAL_BYTES: u64 = 32 << 30;
/// How many times its own size an archive may become. Scans shrink to a half or a third, label maps to a hundredth.
const MAX_RATIO: u64 = 200;
/// Below this many unpacked bytes any ratio is accepted.
const FREE_BYTES: u64 = 256 << 20;

/// Why an archive is not unpacked. Messages hold numbers, no names of entries.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The archive cannot be read from, or the temporary folder not written to.
    #[error("cannot {what}: {kind} ({})", path.display())]
    Io {
        /// `read the archive`, or `write to the temporary folder`.
        what: &'static str,
        /// The kind of refusal.
        kind: io::ErrorKind,
        /// The archive.
        path: PathBuf,
    },
    /// No zip archive, or one that is cut off or damaged.
    #[error("no zip archive, or cut off or damaged{}; copy it again ({})", at_entry(*entry), path.display())]
    Damaged {
        /// Where, if in an entry.
        entry: Option<usize>,
        /// The archive.
        path: PathBuf,
    },
    /// A password is needed.
    #[error("entry {entry} is encrypted; unpack the archive with its password and give the folder ({})", path.display())]
    Encrypted {
        /// The first such entry.
        entry: usize,
        /// The archive.
        path: PathBuf,
    },
    /// Neither stored nor deflated.
    #[error("entry {entry} is compressed by another method than deflate; unpack the archive and give the folder ({})", path.display())]
    Method {
        /// The first such entry.
        entry: usize,
        /// The archive.
        path: PathBuf,
    },
    /// Too many entries.
    #[error("more than {limit} entries; unpack the archive and give the folder ({})", path.display())]
    TooManyEntries {
        /// The most that are accepted.
        limit: usize,
        /// The archive.
        path: PathBuf,
    },
    /// More inside than is taken in, or far more than its size lets expect.
    #[error("entries 1 to {entry} unpack to more than {limit} bytes; unpack the archive and give the folder ({})", path.display())]
    TooLarge {
        /// The entry at which it was given up.
        entry: usize,
        /// The most bytes that are accepted from this archive.
        limit: u64,
        /// The archive.
        path: PathBuf,
    },
}

fn at_entry(entry: Option<usize>) -> String {
    entry.map_or_else(String::new, |n| format!(" at entry {n}"))
}

impl Coded for ArchiveError {
    fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "series.archive-io",
            Self::Damaged { .. } => "series.archive-damaged",
            Self::Encrypted { .. } => "series.archive-encrypted",
            Self::Method { .. } => "series.archive-method",
            Self::TooManyEntries { .. } => "series.archive-too-many-entries",
            Self::TooLarge { .. } => "series.archive-too-large",
        }
    }
}

/// The files of an archive, for as long as this value lives.
#[derive(Debug)]
pub(super) struct Unpacked {
    archive: PathBuf,
    /// Removed with its files on drop.
    folder: TempDir,
    /// The files, in the order of the archive.
    pub(super) files: Vec<PathBuf>,
    /// Entries that are no files of interest, by number, and why.
    pub(super) left_out: Vec<(usize, &'static str)>,
}

impl Unpacked {
    /// How a report names `path`, which lies in the temporary folder: `archive.zip!entry N`. Other paths stay as they are.
    pub(super) fn shown(&self, path: &Path) -> PathBuf {
        let inside = path.strip_prefix(self.folder.path()).ok().and_then(|p| p.file_name()?.to_str()?.split('.').next());
        match inside.and_then(|number| number.parse().ok()) {
            Some(number) => self.entry(number),
            None => path.into(),
        }
    }

    /// The archive, where it holds `path`.
    pub(super) fn archive_of(&self, path: &Path) -> Option<&Path> {
        path.starts_with(self.folder.path()).then_some(self.archive.as_path())
    }

    /// `text`, a message, with the names of [`Unpacked::shown`] for those of the temporary folder.
    pub(super) fn shown_in(&self, text: &str) -> String {
        let folder = self.folder.path().to_string_lossy();
        let mut parts = text.split(folder.as_ref());
        let mut shown = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let end = part.find(|c: char| !(c.is_ascii_alphanumeric() || c == '.' || std::path::is_separator(c))).unwrap_or(part.len());
            let path = self.folder.path().join(part[..end].trim_start_matches(std::path::is_separator));
            shown.push_str(&self.shown(&path).to_string_lossy());
            shown.push_str(&part[end..]);
        }
        shown
    }

    /// How a report names entry `number`.
    pub(super) fn entry(&self, number: usize) -> PathBuf {
        let mut shown = self.archive.as_os_str().to_owned();
        shown.push(format!("!entry {number}"));
        shown.into()
    }
}

/// Whether a file starts as zip archives do: a first entry, or the end of an empty one.
pub(super) fn is_archive(start: &[u8]) -> bool {
    start.starts_with(b"PK\x03\x04") || start.starts_with(b"PK\x05\x06")
}

/// Unpacks the zip archive at `path` into a temporary folder of its own. Archives within it are not unpacked but listed, and links.
///
/// # Errors
/// [`ArchiveError`]; nothing stays on the disk then.
pub(super) fn unpack(path: &Path) -> Result<Unpacked, ArchiveError> {
    unpack_within(path, &Limits { entries: MAX_ENTRIES, total: MAX_TOTAL_BYTES, free: FREE_BYTES })
}

struct Limits {
    entries: usize,
    total: u64,
    free: u64,
}

fn unpack_within(path: &Path, limits: &Limits) -> Result<Unpacked, ArchiveError> {
    let unreadable = |e: &io::Error| ArchiveError::Io { what: "read the archive", kind: e.kind(), path: path.into() };
    let unwritable = |e: &io::Error| ArchiveError::Io { what: "write to the temporary folder", kind: e.kind(), path: path.into() };
    let metadata = std::fs::metadata(path).map_err(|e| unreadable(&e))?;
    if !metadata.is_file() {
        return Err(ArchiveError::Io { what: "read the archive", kind: io::ErrorKind::InvalidInput, path: path.into() });
    }
    let file = File::open(path).map_err(|e| unreadable(&e))?;
    let left = Rc::new(Cell::new(MAX_DIRECTORY_BYTES));
    let opened = ZipArchive::new(Bounded { file, left: left.clone() });
    let too_many = || ArchiveError::TooManyEntries { limit: limits.entries, path: path.into() };
    let mut archive =
        opened.map_err(|_| if left.get() == 0 { too_many() } else { ArchiveError::Damaged { entry: None, path: path.into() } })?;
    left.set(u64::MAX);
    if archive.len() > limits.entries {
        return Err(too_many());
    }
    let most = limits.total.min(limits.free.max(metadata.len().saturating_mul(MAX_RATIO)));
    let mut total = 0;
    let folder = tempfile::Builder::new().prefix("roentgen-").tempdir().map_err(|e| unwritable(&e))?;
    let mut unpacked = Unpacked { archive: path.into(), folder, files: Vec::new(), left_out: Vec::new() };
    let mut buffer = vec![0; 64 << 10];
    let mut folders: HashMap<Vec<u8>, usize> = HashMap::new();
    for index in 0..archive.len() {
        let number = index + 1;
        let failed = |e: &ZipError| match e {
            ZipError::CompressionMethodNotSupported(_) => ArchiveError::Method { entry: number, path: path.into() },
            _ => ArchiveError::Damaged { entry: Some(number), path: path.into() },
        };
        let (within, extension) = {
            let entry = archive.by_index_raw(index).map_err(|e| failed(&e))?;
            if entry.is_dir() {
                continue;
            }
            if entry.is_symlink() {
                unpacked.left_out.push((number, "a link"));
                continue;
            }
            if entry.name_raw().starts_with(b"__MACOSX/") {
                unpacked.left_out.push((number, "what macOS adds to an archive"));
                continue;
            }
            if entry.encrypted() {
                return Err(ArchiveError::Encrypted { entry: number, path: path.into() });
            }
            if !matches!(entry.compression(), CompressionMethod::Stored | CompressionMethod::Deflated) {
                return Err(ArchiveError::Method { entry: number, path: path.into() });
            }
            let name = entry.name_raw();
            let folder = name.rsplitn(2, |&c| c == b'/' || c == b'\\').nth(1).unwrap_or_default();
            let number = folders.len() + 1;
            (*folders.entry(folder.to_owned()).or_insert(number), extension_of(name))
        };
        let mut entry = archive.by_index(index).map_err(|e| failed(&e))?;
        let below = unpacked.folder.path().join(within.to_string());
        let target = below.join(format!("{number}{extension}"));
        let mut out: Option<File> = None;
        loop {
            // Reading to the very end checks the checksum.
            let n = match fill(&mut entry, &mut buffer) {
                Ok(n) => n,
                Err(e) => {
                    // An error of the disk below is none of the archive.
                    let damaged = matches!(
                        e.kind(),
                        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::UnexpectedEof | io::ErrorKind::Other
                    );
                    return Err(if damaged { ArchiveError::Damaged { entry: Some(number), path: path.into() } } else { unreadable(&e) });
                }
            };
            if out.is_none() && is_archive(&buffer[..n]) {
                unpacked.left_out.push((number, "an archive within the archive"));
                break;
            }
            total += n as u64;
            if total > most {
                return Err(ArchiveError::TooLarge { entry: number, limit: most, path: path.into() });
            }
            if out.is_none() {
                std::fs::create_dir_all(&below).map_err(|e| unwritable(&e))?;
                out = Some(File::create(&target).map_err(|e| unwritable(&e))?);
                unpacked.files.push(target.clone());
            }
            out.as_mut().expect("made above").write_all(&buffer[..n]).map_err(|e| unwritable(&e))?;
            if n < buffer.len() {
                break;
            }
        }
    }
    Ok(unpacked)
}

/// Fills `buffer` as far as the entry goes.
fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

/// The ending by which a file's type is told where its content does not; nothing else of a name is kept.
fn extension_of(name: &[u8]) -> &'static str {
    let ends = |ending: &str| name.len() >= ending.len() && name[name.len() - ending.len()..].eq_ignore_ascii_case(ending.as_bytes());
    [".nii.gz", ".nii", ".nrrd"].into_iter().find(|ending| ends(ending)).unwrap_or("")
}

/// A file of which only so much is read.
struct Bounded {
    file: File,
    left: Rc<Cell<u64>>,
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.left.get();
        if left == 0 && !buffer.is_empty() {
            return Err(io::Error::other("the archive's directory is too long"));
        }
        let n = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let n = self.file.read(&mut buffer[..n])?;
        self.left.set(left - n as u64);
        Ok(n)
    }
}

impl Seek for Bounded {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

#[cfg(test)]
mod tests {
    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;

    fn archive(folder: &Path, entries: &[(&str, &[u8])]) -> PathBuf {
        let path = folder.join("a.zip");
        let mut zip = ZipWriter::new(File::create(&path).unwrap());
        for (name, content) in entries {
            let method = if content.len() > 100 { CompressionMethod::Deflated } else { CompressionMethod::Stored };
            zip.start_file(*name, SimpleFileOptions::default().compression_method(method)).unwrap();
            zip.write_all(content).unwrap();
        }
        zip.finish().unwrap();
        path
    }

    fn code_of(path: &Path, limits: &Limits) -> &'static str {
        unpack_within(path, limits).unwrap_err().code()
    }

    const LIMITS: Limits = Limits { entries: 5, total: 1 << 30, free: 1 << 20 };

    #[test]
    fn files_get_numbers_for_names() {
        let folder = tempfile::tempdir().unwrap();
        let entries: [(&str, &[u8]); 5] = [
            ("DOE^JANE/IM1", b"one"),
            ("../../escape.NII.GZ", b"two"),
            ("/etc/passwd", b"three"),
            ("__MACOSX/._x", b"x"),
            ("in.zip", b"PK\x03\x04"),
        ];
        let path = archive(folder.path(), &entries);
        let unpacked = unpack(&path).unwrap();
        let names: Vec<_> = unpacked.files.iter().map(|f| f.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["1", "2.nii.gz", "3"]);
        let contents: Vec<_> = unpacked.files.iter().map(|f| std::fs::read(f).unwrap()).collect();
        assert_eq!(contents, [b"one".to_vec(), b"two".to_vec(), b"three".to_vec()]);
        assert_eq!(unpacked.left_out.iter().map(|l| l.0).collect::<Vec<_>>(), [4, 5]);
        let shown = |n: usize| unpacked.shown(&unpacked.files[n]);
        assert_eq!(shown(1), PathBuf::from(format!("{}!entry 2", path.display())));
        assert_eq!(unpacked.shown(Path::new("/x/1")), Path::new("/x/1"));
        let message = |n: usize| format!("cut off ({}); and {}", unpacked.files[n].display(), unpacked.files[0].display());
        let expected = format!("cut off ({0}!entry 2); and {0}!entry 1", path.display());
        assert_eq!((unpacked.shown_in(&message(1)), unpacked.shown_in("no path")), (expected, "no path".to_owned()));
        let below = unpacked.folder.path().to_owned();
        assert!(below.is_dir());
        drop(unpacked);
        assert!(!below.exists(), "removed with the value");
    }

    #[test]
    fn bombs_are_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = archive(folder.path(), &[("IM1", &vec![0; 2 << 20])]);
        assert!(std::fs::metadata(&path).unwrap().len() < 10_000);
        assert_eq!(code_of(&path, &LIMITS), "series.archive-too-large");
        assert_eq!(code_of(&path, &Limits { total: 1000, free: u64::MAX, ..LIMITS }), "series.archive-too-large");
        assert!(unpack(&path).is_ok(), "small enough for any ratio");
        let many: Vec<(String, &[u8])> = (0..6).map(|n| (n.to_string(), b"x".as_slice())).collect();
        let many: Vec<_> = many.iter().map(|(name, content)| (name.as_str(), *content)).collect();
        assert_eq!(code_of(&archive(folder.path(), &many), &LIMITS), "series.archive-too-many-entries");
    }

    #[test]
    fn damage_and_encryption_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = archive(folder.path(), &[("IM1", b"one"), ("IM2", b"twotwo")]);
        let whole = std::fs::read(&path).unwrap();
        let place = whole.windows(6).position(|w| w == b"twotwo").unwrap();
        let mut changed = whole.clone();
        changed[place] ^= 1;
        std::fs::write(&path, &changed).unwrap();
        assert_eq!(unpack(&path).unwrap_err(), ArchiveError::Damaged { entry: Some(2), path: path.clone() });
        // General purpose bit 0, in the central directory and in the entry.
        let mut encrypted = whole.clone();
        for at in 0..whole.len() - 4 {
            match &whole[at..at + 4] {
                b"PK\x01\x02" => encrypted[at + 8] |= 1,
                b"PK\x03\x04" => encrypted[at + 6] |= 1,
                _ => {}
            }
        }
        std::fs::write(&path, &encrypted).unwrap();
        assert_eq!(unpack(&path).unwrap_err(), ArchiveError::Encrypted { entry: 1, path: path.clone() });
        std::fs::write(&path, &whole[..whole.len() - 30]).unwrap();
        assert_eq!(unpack(&path).unwrap_err().code(), "series.archive-damaged");
        std::fs::write(&path, b"PK\x03\x04").unwrap();
        assert_eq!(unpack(&path).unwrap_err().code(), "series.archive-damaged");
        assert_eq!(unpack(folder.path()).unwrap_err().code(), "series.archive-io");
    }
}
