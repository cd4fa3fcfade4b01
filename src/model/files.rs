//! The files of a package, in a folder or packed into one zip archive.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use super::{ModelError, manifest};
use crate::codes::sha256_hex;

/// What the package is.
pub(super) const MANIFEST: &str = "model.toml";
/// What its maker says of it at length, for people; it decides nothing.
pub(super) const CARD: &str = "MODEL_CARD.md";
/// What a manifest or a card may have.
pub(super) const MOST_TEXT_BYTES: u64 = 1 << 20;
/// What an ONNX graph in one file can have: it is a Protocol Buffer.
const MOST_BYTES: u64 = (1 << 31) - 1;

/// Where a package's files lie.
pub(super) enum Files {
    Folder(PathBuf),
    Packed(PathBuf, Box<ZipArchive<File>>),
}

impl Files {
    pub(super) fn open(path: &Path) -> Result<Self, ModelError> {
        if path.is_dir() {
            return Ok(Self::Folder(path.to_owned()));
        }
        let file = File::open(path).map_err(|source| ModelError::Read { path: path.to_owned(), source })?;
        let archive = ZipArchive::new(file).map_err(|_| ModelError::NotPacked { path: path.to_owned() })?;
        Ok(Self::Packed(path.to_owned(), Box::new(archive)))
    }

    /// For messages.
    pub(super) fn path_of(&self, name: &str) -> PathBuf {
        let (Self::Folder(path) | Self::Packed(path, _)) = self;
        path.join(name)
    }

    /// The bytes of a file that has `most` of them.
    pub(super) fn read(&mut self, name: &str, most: u64) -> Result<Vec<u8>, ModelError> {
        let path = self.path_of(name);
        let (bytes, read): (u64, io::Result<Vec<u8>>) = match self {
            Self::Folder(_) => {
                let failed = |source| ModelError::Read { path: path.clone(), source };
                let file = File::open(&path).map_err(failed)?;
                let bytes = file.metadata().map_err(failed)?.len();
                (bytes, contents(file, bytes, most))
            }
            Self::Packed(_, archive) => {
                let entry = archive.by_name(name).map_err(|error| ModelError::Read { path: path.clone(), source: error.into() })?;
                let bytes = entry.size();
                (bytes, contents(entry, bytes, most))
            }
        };
        if bytes > most {
            return Err(ModelError::TooLarge { bytes, most, path });
        }
        read.map_err(|source| ModelError::Read { path, source })
    }

    /// The bytes of a file that the manifest names.
    pub(super) fn read_checked(&mut self, file: &manifest::File) -> Result<Vec<u8>, ModelError> {
        let bytes = self.read(&file.path, MOST_BYTES)?;
        let found = sha256_hex(&bytes);
        if found != file.sha256 {
            let in_folder = matches!(self, Self::Folder(_));
            return Err(ModelError::Hash { found, expected: file.sha256.clone(), in_folder, path: self.path_of(&file.path) });
        }
        Ok(bytes)
    }
}

/// All `bytes`, which are no more than `most`; none where they are.
fn contents(file: impl Read, bytes: u64, most: u64) -> io::Result<Vec<u8>> {
    let mut contents = Vec::new();
    if bytes <= most {
        file.take(most).read_to_end(&mut contents)?;
    }
    Ok(contents)
}

/// Writes the package in `folder` as one zip archive: the same files give the same bytes.
///
/// # Errors
/// Where a file cannot be read or has another hash, or the archive not be written.
pub fn pack(folder: &Path, packed: impl Write + io::Seek) -> Result<(), ModelError> {
    let mut files = Files::open(folder)?;
    let text = files.read(MANIFEST, MOST_TEXT_BYTES)?;
    let manifest = manifest::Manifest::parse(&String::from_utf8_lossy(&text), &files.path_of(MANIFEST))?;
    let mut contents = vec![(MANIFEST.to_owned(), text)];
    contents.extend(files.read(CARD, MOST_TEXT_BYTES).ok().map(|card| (CARD.to_owned(), card)));
    for file in manifest.files() {
        contents.push((file.path.clone(), files.read_checked(file)?));
    }
    let mut archive = ZipWriter::new(packed);
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated).large_file(true);
    let written = contents.iter().try_for_each(|(name, bytes)| {
        archive.start_file(name.as_str(), options)?;
        archive.write_all(bytes)
    });
    let finished = written.and_then(|()| archive.finish().map_err(io::Error::from));
    finished.map(drop).map_err(|source| ModelError::Write { source })
}
