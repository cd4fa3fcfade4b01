//! Running the binary, finding test data and Python, small studies.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use roentgen::findings::{PackageId, Parameter, Provenance, Source};
use roentgen::geometry::Grid;
use roentgen::phantom::{self, Phantom, Sampling};
use roentgen::series::{Loaded, Stack};
use roentgen::volume::{ImageVolume, Quantity, Rescale, Volume};
use serde_json::Value;
use tempfile::TempDir;

/// The project's folder.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The package that the project ships.
pub(crate) fn ct_tissue() -> PathBuf {
    root().join("models/ct-tissue")
}

/// A command line's outcome.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code().expect("it ended by itself"),
            stdout: String::from_utf8(output.stdout).expect("stdout is UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("stderr is UTF-8"),
        }
    }

    /// Standard output of a `--json` command.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("stdout is no JSON ({e}):\n{}\n{}", self.stdout, self.stderr))
    }

    /// Both outputs, for messages.
    pub(crate) fn all(&self) -> String {
        format!("exit code {}\n{}\n{}", self.code, self.stdout, self.stderr)
    }
}

/// The binary with these arguments.
pub(crate) fn roentgen<A: AsRef<std::ffi::OsStr>>(arguments: &[A]) -> Ran {
    Ran::of(command().args(arguments).output().expect("the binary starts"))
}

/// The binary, run from the project's folder.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_roentgen"));
    command.current_dir(root());
    command
}

/// `roentgen run --json` with the shipped package on the CPU. Whatever comes of it, it must not name the phantom's patient.
pub(crate) fn run_ct_tissue(inputs: &[&Path], output: &Path) -> Ran {
    let mut run = command();
    run.args(["run", "--device", "cpu", "--json", "--model"]).arg(ct_tissue()).args(inputs).arg("--output").arg(output);
    let ran = Ran::of(run.output().expect("the binary starts"));
    for patient_text in ["Phantom^Chest", "ROENTGEN-PHANTOM"] {
        assert!(!ran.all().contains(patient_text), "patient text in the output: {}", ran.all());
        let named = |f: &PathBuf| f.to_string_lossy().contains(patient_text);
        assert!(!output.is_dir() || !files_below(output).iter().any(named), "patient text in a file name");
    }
    ran
}

/// The folder of real test data, or one line that says it is absent.
pub(crate) fn test_data() -> Option<PathBuf> {
    let shared = std::env::var_os("ROENTGEN_TEST_DATA").map_or_else(|| root().join("../shared"), PathBuf::from);
    let folder = [shared.join("data"), shared].into_iter().find(|f| f.join("ct-abdomen-siemens").is_dir());
    if folder.is_none() {
        println!("skipped: no test data");
    }
    folder
}

/// Unpacks `archive` into a folder of its own.
pub(crate) fn unpacked(archive: &Path) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let status = Command::new("tar").arg("-xJf").arg(archive).arg("-C").arg(folder.path()).status().expect("tar starts");
    assert!(status.success(), "tar -xJf {}", archive.display());
    folder
}

/// A script of `tests/python` (or another one) in the Python environment that `tests/run` makes.
pub(crate) fn python(script: &Path, arguments: &[&Path]) -> Ran {
    let interpreter = std::env::var_os("ROENTGEN_PYTHON").expect("ROENTGEN_PYTHON names the Python of `tests/run`: run the tests with it");
    Ran::of(Command::new(interpreter).arg(script).args(arguments).output().expect("Python starts"))
}

/// A small phantom, the whole chest in few voxels, written to a folder.
pub(crate) fn small_study() -> (Phantom, TempDir) {
    let phantom = phantom::chest(&Sampling { dims: [90, 68, 24], spacing_mm: [4.0, 4.0, 12.0 / 1.25], noise_hu: 15.0 });
    let folder = tempfile::tempdir().expect("a temporary folder");
    phantom::write_series(&phantom, folder.path()).expect("the study can be written");
    (phantom, folder)
}

/// Outcomes of the series of a report, by name, with their reasons' codes.
pub(crate) fn outcomes(report: &Value) -> Vec<(String, Vec<String>)> {
    let text = |v: &Value| v.as_str().expect("a text").to_owned();
    let codes = |s: &Value| s["reasons"].as_array().into_iter().flatten().map(|r| text(&r["code"])).collect();
    report["series"].as_array().expect("series").iter().map(|s| (text(&s["outcome"]), codes(s))).collect()
}

/// Every file below `folder`.
pub(crate) fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("readable").map(|e| e.expect("readable").path()) {
            if entry.is_dir() { folders.push(entry) } else { files.push(entry) }
        }
    }
    files.sort();
    files
}

/// Where findings come from that a test makes up: a package of this name.
pub(crate) fn made_up(package: &str) -> Provenance {
    Provenance {
        roentgen_version: env!("CARGO_PKG_VERSION").into(),
        package: PackageId {
            name: package.into(),
            version: "1.0.0".into(),
            sha256: "0123456789abcdef".repeat(4),
            manufacturer: "roentgen".into(),
            intended_use: "Made up by a test, not for diagnosis.".into(),
            licence: "MIT OR Apache-2.0".into(),
            regulatory_status: "none".into(),
            card: None,
        },
        device: "CPU".into(),
        provider: "none".into(),
        onnxruntime_version: "none".into(),
        parameters: vec![Parameter { name: "threshold".into(), value: "exact".into() }],
        geometry: vec!["a test".into()],
        started: "2026-03-04T05:06:07+01:00[Europe/Berlin]".parse().expect("a time"),
    }
}

/// The series that a stack was read from, as the source of findings.
pub(crate) fn source_of(stack: &Stack, loaded: &Loaded) -> Source {
    Source {
        content_sha256: loaded.content_sha256(),
        instances: loaded.instances.clone(),
        frames: stack.frames.clone(),
        slice_of_frame: stack.slice_of_frame.clone(),
        file: None,
        channels: Vec::new(),
    }
}

/// The findings that a folder of results holds.
pub(crate) fn findings_json(folder: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join("findings.json")).expect("there")).expect("JSON")
}

/// The folder of the only results below `output`.
pub(crate) fn results_below(output: &Path) -> PathBuf {
    let json = files_below(output).into_iter().find(|file| file.ends_with("findings.json")).expect("written");
    json.parent().expect("in a folder").to_owned()
}

/// A temporary folder; below the one that `ROENTGEN_KEEP_TEST_OUTPUT` names, and kept there, where that is set.
pub(crate) fn folder_to_look_at(prefix: &str) -> TempDir {
    let kept = std::env::var_os("ROENTGEN_KEEP_TEST_OUTPUT");
    let mut builder = tempfile::Builder::new();
    builder.prefix(prefix).disable_cleanup(kept.is_some());
    kept.map_or_else(|| builder.tempdir(), |kept| builder.tempdir_in(kept)).expect("a folder")
}

/// `roentgen run` of `folder/package` on `folder/study`, its results in `folder/output`.
pub(crate) fn run_case(folder: &Path, output: &str, forms: &str) -> Ran {
    let text = |path: PathBuf| path.to_str().expect("ASCII").to_owned();
    let [package, study, output] = ["package", "study", output].map(|name| text(folder.join(name)));
    roentgen(&["run", "--device", "cpu", "--json", "--results", forms, "--model", &package, "--output", &output, &study])
}

/// A text with the first of each of these pairs replaced by the second, where it stands first.
pub(crate) fn changed(text: String, changes: &[(&str, &str)]) -> String {
    changes.iter().fold(text, |text, (from, to)| {
        assert!(text.contains(from), "{from} is there to be changed");
        text.replacen(from, to, 1)
    })
}

/// A CT of stored values that are HU and 1024; `name` makes it another study.
pub(crate) fn write_ct(name: u32, grid: Grid, stored: Vec<i16>, folder: &Path) {
    let rescale = vec![Rescale { slope: 1.0, intercept: -1024.0 }; grid.dims()[2] as usize];
    let image = ImageVolume { stored: Volume::new(grid, stored).into(), rescale, quantity: Quantity::Hounsfield };
    let phantom = Phantom { image, truth: Vec::new(), noise_hu: f64::from(name) };
    phantom::write_series(&phantom, folder).expect("the study can be written");
}
