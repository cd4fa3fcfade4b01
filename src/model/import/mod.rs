//! Packages out of what other tools have trained. What a package cannot carry over is named, one line each.
//!
//! The tool itself exports its networks to ONNX and says what it does around them: a script that we ship, in a Python where the tool is
//! installed. What it says becomes a manifest here.

mod monai;
mod nnunet;

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::de::DeserializeOwned;
use thiserror::Error;

pub use monai::{Monai, import_monai};
pub use nnunet::{Nnunet, import_nnunet};

use crate::geometry::Coded;
use crate::model::{Manifest, ModelError, Package};

/// What was written.
#[derive(Debug)]
pub struct Written {
    /// The package, as it is read back.
    pub package: Package,
    /// What could not be carried over, and was left out.
    pub left_out: Vec<String>,
}

/// Why nothing was imported.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ImportError {
    /// Not what the tool leaves.
    #[error("{what} ({})", path.display())]
    NotThere {
        /// What is missing, and what would do.
        what: &'static str,
        /// The folder.
        path: PathBuf,
    },
    /// There is no such Python.
    #[error("cannot run {}: {source}; name a Python where {needs} is installed (--python)", python.display())]
    Python {
        /// Python package of the tool.
        needs: &'static str,
        /// Which one.
        python: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The tool could not export its networks.
    #[error("{tool} could not export its networks: {last}; all it said is above")]
    Export {
        /// Which one.
        tool: &'static str,
        /// The last line of what it said.
        last: String,
    },
    /// Something cannot be carried over.
    #[error("what this network needs cannot all be carried over:\n  {}\nto import it without, and with other results, say --leave-out", .0.join("\n  "))]
    Incomplete(Vec<String>),
    /// A file cannot be read or written.
    #[error("cannot write the package: {0}")]
    Io(#[from] std::io::Error),
    /// What would be written is no package, as where the folder's name can be none's.
    #[error(transparent)]
    Model(#[from] ModelError),
}

impl Coded for ImportError {
    fn code(&self) -> &'static str {
        match self {
            Self::NotThere { .. } => "import.no-results",
            Self::Python { .. } => "import.python",
            Self::Export { .. } => "import.export",
            Self::Incomplete(_) => "import.incomplete",
            Self::Io(_) => "import.write",
            Self::Model(e) => e.code(),
        }
    }
}

/// What is asked in Python.
#[derive(Debug, Clone, Copy)]
struct Tool {
    name: &'static str,
    /// The package that `python` must have.
    needs: &'static str,
}

/// What `script`, run by `python` with `arguments`, prints as JSON.
fn ask<T: DeserializeOwned>(python: &Path, tool: Tool, script: &str, arguments: &[&OsStr]) -> Result<T, ImportError> {
    let mut command = Command::new(python);
    command.arg("-").args(arguments);
    let running = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut running = running.map_err(|source| ImportError::Python { needs: tool.needs, python: python.to_owned(), source })?;
    let written = running.stdin.take().expect("it is piped").write_all(script.as_bytes());
    let done = running.wait_with_output()?;
    let said = String::from_utf8_lossy(&done.stderr);
    let failed = || {
        eprint!("{said}");
        let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("nothing was said").to_owned();
        ImportError::Export { tool: tool.name, last }
    };
    if !done.status.success() {
        return Err(failed());
    }
    written?;
    serde_json::from_slice(&done.stdout).map_err(|_| failed())
}

/// The fields of `select` of a series of which so much is known; `channel` is its name, where there are others.
fn selection(modality: &str, min_slices: u32, channel: Option<String>) -> String {
    let told_apart = channel.map_or_else(String::new, |name| {
        let pattern = format!("(?i){}", regex::escape(&name));
        format!("# To be said: what tells this series apart from those of the other channels.\ndescription = {{ any = [{pattern:?}] }}\n")
    });
    format!("modality = [\"{modality}\"]\nmin_slices = {min_slices}\ngeometry = \"refuse\"\n{told_apart}")
}

/// Writes a package to `folder`, which must not be there; nothing where the manifest is none. It is there as a whole or not at all.
fn write(folder: &Path, manifest: &str, card: &str, files: &[(&str, Vec<u8>)]) -> Result<Package, ImportError> {
    Manifest::parse(manifest, &folder.join("model.toml"))?;
    let beside = folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let begun = tempfile::Builder::new().prefix(".import-").tempdir_in(beside)?;
    let package = begun.path().join("package"); // with the permissions of any folder, which a temporary one does not have
    fs::create_dir(&package)?;
    for (file, bytes) in files {
        fs::write(package.join(file), bytes)?;
    }
    fs::write(package.join("model.toml"), manifest)?;
    fs::write(package.join("MODEL_CARD.md"), card)?;
    Package::read(&package)?;
    if folder.exists() {
        return Err(std::io::Error::new(std::io::ErrorKind::AlreadyExists, format!("{} is there already", folder.display())).into());
    }
    fs::rename(&package, folder)?;
    Ok(Package::read(folder)?)
}

/// Colours far apart for labels that follow each other: hues by the golden angle.
fn colour(label: u64) -> [u8; 3] {
    let hue = (label as f64 * 0.618_034).fract() * 6.0;
    let part = |shift: f64| {
        let at = (hue + shift) % 6.0;
        (70.0 + 170.0 * (2.0 - (at - 2.0).abs().min(2.0)).clamp(0.0, 1.0)) as u8
    };
    [part(2.0), part(0.0), part(4.0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHIPPED: &str = include_str!("../../../models/ct-tissue/model.toml");

    #[test]
    fn what_cannot_be_written_leaves_nothing_behind() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let output = folder.path().join("package");
        let graph = include_bytes!("../../../models/ct-tissue/ct-tissue.onnx").to_vec();
        let refused = write(&output, SHIPPED, "", &[("no/such/folder.onnx", Vec::new())]).expect_err("there is no such folder");
        assert!(matches!(refused, ImportError::Io(_)), "{refused}");
        assert!(write(&output, SHIPPED, "", &[("ct-tissue.onnx", b"another".to_vec())]).is_err(), "a wrong hash");
        assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 0, "nothing is left");
        write(&output, SHIPPED, "", &[("ct-tissue.onnx", graph.clone())]).expect("the next try");
        assert!(write(&output, SHIPPED, "", &[("ct-tissue.onnx", graph)]).is_err_and(|e| e.to_string().contains("is there already")));
        assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 1);
    }
}
