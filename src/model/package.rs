//! A package on disk: found, read, and checked against its hashes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::files::{CARD, Files, MANIFEST, MOST_TEXT_BYTES};
use super::manifest::File;
use super::{Manifest, ModelError};
use crate::codes::sha256_hex;

/// Which model package.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PackageId {
    /// Its name.
    pub name: String,
    /// Its semantic version.
    pub version: String,
    /// SHA-256 of the package (manifest and files), hex.
    pub sha256: String,
    /// Who made it.
    pub manufacturer: String,
    /// One sentence.
    pub intended_use: String,
    /// SPDX expression.
    pub licence: String,
    /// `none`, or the mark that it carries.
    pub regulatory_status: String,
    /// What its maker says of it at length (`MODEL_CARD.md`), for people; it decides nothing and is not part of the hash.
    #[serde(skip)]
    pub card: Option<Arc<str>>,
}

impl PackageId {
    /// Version as written into every object: semantic version and the first 12 digits of the hash.
    pub fn version_string(&self) -> String {
        format!("{}+sha256.{}", self.version, &self.sha256[..12])
    }

    /// Whether it carries a mark of some authority.
    pub fn is_cleared(&self) -> bool {
        !matches!(self.regulatory_status.trim(), "" | "none")
    }
}

/// A package whose files have the hashes that its manifest names.
#[derive(Debug, Clone)]
pub struct Package {
    /// Its manifest.
    pub manifest: Manifest,
    /// Name, version and hash.
    pub id: PackageId,
    /// The folder or packed file that it was read from.
    pub path: PathBuf,
    /// The ONNX graphs, whose answers are averaged: the bytes that were hashed are the bytes that run.
    pub graphs: Vec<Vec<u8>>,
    /// The same of each stage before.
    pub stage_graphs: Vec<Vec<Vec<u8>>>,
}

impl Package {
    /// Reads the package in a folder or a packed file. Its hash is that of the manifest, which names the hash of every other file.
    ///
    /// # Errors
    /// [`ModelError`] for a file that cannot be read, a manifest that cannot be carried out, or a wrong hash.
    pub fn read(path: &Path) -> Result<Self, ModelError> {
        let mut files = Files::open(path)?;
        let text = files.read(MANIFEST, MOST_TEXT_BYTES)?;
        let manifest = Manifest::parse(&String::from_utf8_lossy(&text), &files.path_of(MANIFEST))?;
        let mut read = |named: &[File]| named.iter().map(|file| files.read_checked(file)).collect::<Result<Vec<_>, _>>();
        let graphs = read(&manifest.file)?;
        let stage_graphs = manifest.stage.iter().map(|stage| read(&stage.file)).collect::<Result<_, _>>()?;
        let id = PackageId {
            name: manifest.model.name.clone(),
            version: manifest.model.version.clone(),
            sha256: sha256_hex(&text),
            manufacturer: manifest.model.manufacturer.clone(),
            intended_use: manifest.model.intended_use.clone(),
            licence: manifest.model.licence.clone(),
            regulatory_status: manifest.model.regulatory_status.clone(),
            card: files.read(CARD, MOST_TEXT_BYTES).ok().map(|bytes| String::from_utf8_lossy(&bytes).into()),
        };
        Ok(Self { manifest, id, path: path.to_owned(), graphs, stage_graphs })
    }

    /// Each stage before the package's own network, as a package of that network alone.
    pub fn stages(&self) -> Vec<Self> {
        let stage = |(n, graphs): (usize, &Vec<Vec<u8>>)| Self {
            manifest: self.manifest.of_stage(n),
            id: self.id.clone(),
            path: self.path.clone(),
            graphs: graphs.clone(),
            stage_graphs: Vec::new(),
        };
        self.stage_graphs.iter().enumerate().map(stage).collect()
    }

    /// The bytes of a file that the manifest names.
    ///
    /// # Errors
    /// [`ModelError`] where it cannot be read or has another hash.
    pub fn bytes_of(&self, file: &File) -> Result<Vec<u8>, ModelError> {
        Files::open(&self.path)?.read_checked(file)
    }
}

/// Where packages are looked for by name, first to last.
#[derive(Debug, Clone)]
pub struct PackageFolders(Vec<PathBuf>);

/// A folder that holds a manifest, and the package in it or what is wrong with it.
pub type Installed = (PathBuf, Result<Package, ModelError>);

impl PackageFolders {
    /// `models` in the working directory, beside the executable and up to three folders above it, and in the user's data folder.
    pub fn standard() -> Self {
        let beside_executable = std::env::current_exe().unwrap_or_default();
        let mut folders = vec![PathBuf::from("models")];
        folders.extend(beside_executable.ancestors().skip(1).take(4).map(|folder| folder.join("models")));
        folders.extend(directories::ProjectDirs::from("", "", "roentgen").map(|dirs| dirs.data_dir().join("models")));
        Self(folders)
    }

    /// Every package in these folders, by name; of two with one folder name the first found.
    pub fn installed(&self) -> Vec<Installed> {
        let mut seen = std::collections::BTreeMap::new();
        for folder in &self.0 {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.path().join(MANIFEST).is_file() {
                    seen.entry(entry.file_name()).or_insert_with(|| entry.path());
                }
            }
        }
        seen.into_values().map(|path| (path.clone(), Package::read(&path))).collect()
    }

    /// The package in the folder or packed file `wanted`, or the installed one of that name.
    ///
    /// # Errors
    /// [`ModelError::NotFound`] with the names there are, or what is wrong with the package.
    pub fn find(&self, wanted: &str) -> Result<Package, ModelError> {
        let named = self.0.iter().map(|folder| folder.join(wanted));
        let is_package = |path: &PathBuf| path.is_file() || path.join(MANIFEST).is_file();
        match std::iter::once(PathBuf::from(wanted)).chain(named).find(is_package) {
            Some(path) => Package::read(&path),
            None => {
                let names = self.installed().into_iter().filter_map(|(path, _)| Some(path.file_name()?.to_string_lossy().into_owned()));
                Err(ModelError::NotFound { wanted: wanted.to_owned(), known: names.collect() })
            }
        }
    }
}
