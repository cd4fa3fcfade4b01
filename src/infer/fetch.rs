//! Fetches the pinned ONNX Runtime library: Microsoft's own wheel, through pip, checked twice, one file kept.
//!
//! The wheel's SHA-256 is checked before it is opened, the library's before it is put in place, and it is put there in one step.
//! pip alone talks to the network, asked for a package by name; where from is pip's own configuration.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use thiserror::Error;

use crate::codes::sha256_hex;
use crate::geometry::Coded;
use crate::infer::runtime;

/// The version of ONNX Runtime that this program fetches and is tested with.
pub const VERSION: &str = "1.31.1";
/// Largest file that [`install_from`] reads, bytes; the wheels are 15 to 24 MB, the libraries 19 to 33 MB.
const MAX_BYTES: u64 = 256 << 20;

/// One platform's wheel and the library in it.
struct Build {
    os: &'static str,
    arch: &'static str,
    platform: &'static str,
    wheel: &'static str,
    wheel_sha256: &'static str,
    library: &'static str,
    library_bytes: u64,
    library_sha256: &'static str,
}

// Every Python's wheel of one platform holds the same library; these are for CPython 3.12.
const BUILDS: [Build; 5] = [
    Build {
        os: "linux",
        arch: "x86_64",
        platform: "manylinux_2_28_x86_64",
        wheel: "onnxruntime-1.31.1-cp312-cp312-manylinux_2_28_x86_64.whl",
        wheel_sha256: "1f3dea47f2f0e5117c2404cea7d21fd253ae7836a3bf167a501cdfbb2600d536",
        library: "onnxruntime/capi/libonnxruntime.so.1.31.1",
        library_bytes: 29_352_200,
        library_sha256: "fc44112fbe06d7d689c57e11d3862031f64711007e4ee020f8eed5185fd2c1d3",
    },
    Build {
        os: "linux",
        arch: "aarch64",
        platform: "manylinux_2_28_aarch64",
        wheel: "onnxruntime-1.31.1-cp312-cp312-manylinux_2_28_aarch64.whl",
        wheel_sha256: "0b9a492176886992e0e875f06bc0367e333f5fff11711a2d642e18b02f3009cc",
        library: "onnxruntime/capi/libonnxruntime.so.1.31.1",
        library_bytes: 25_265_040,
        library_sha256: "8aa3b76b28c778a2b1dd660d34161adb1d508c9ccd04ff9dc80e26eca5df8467",
    },
    Build {
        os: "windows",
        arch: "x86_64",
        platform: "win_amd64",
        wheel: "onnxruntime-1.31.1-cp312-cp312-win_amd64.whl",
        wheel_sha256: "ae8a9a351efda685cc59a66226cdefaa37a126c1d66872ca23a2de9425326130",
        library: "onnxruntime/capi/onnxruntime.dll",
        library_bytes: 19_288_376,
        library_sha256: "e45f61e50d8650885452be538a00bb14a715e46a1bc3691000ce947e89ed0306",
    },
    Build {
        os: "windows",
        arch: "aarch64",
        platform: "win_arm64",
        wheel: "onnxruntime-1.31.1-cp312-cp312-win_arm64.whl",
        wheel_sha256: "fe8b9ac1ae8e894e12c47ee82e4f6dfc1835768133687257866469fda80d0bf1",
        library: "onnxruntime/capi/onnxruntime.dll",
        library_bytes: 19_171_640,
        library_sha256: "dc9e2fe646a72829386a24ac9185a7a4e26d7dbe5dc433d41df063603c00bbc7",
    },
    Build {
        os: "macos",
        arch: "aarch64",
        platform: "macosx_14_0_arm64",
        wheel: "onnxruntime-1.31.1-cp312-cp312-macosx_14_0_arm64.whl",
        wheel_sha256: "96dd2564b10ea7153ad9c207e7cd8e5917cb3ba521e0e0a62ac03486fdc8d56c",
        library: "onnxruntime/capi/libonnxruntime.1.31.1.dylib",
        library_bytes: 33_037_336,
        library_sha256: "d586cbe89effc085a09d3341b3cfbd5c322517f9d397aeb20814af21433f2b36",
    },
];

/// Why the library was not fetched.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FetchError {
    /// There is no wheel for this machine.
    #[error(
        "there is no ONNX Runtime {VERSION} wheel for {os} on {arch}: name a library of your own with --ort-lib or {}",
        runtime::PATH_VARIABLE
    )]
    NoBuild {
        /// Operating system, as Rust names it.
        os: &'static str,
        /// Processor, as Rust names it.
        arch: &'static str,
    },
    /// The system names no folder for this user's data.
    #[error("this user has no data folder (is HOME set?)")]
    NoDataFolder,
    /// pip could not be run, or did not fetch the wheel.
    #[error("pip did not fetch onnxruntime {VERSION}: {reason}")]
    Pip {
        /// What pip or the system said, cut to its last lines.
        reason: String,
    },
    /// A file is not the one that was pinned.
    #[error("wrong SHA-256, nothing was installed: expected {expected}, found {found} ({what})")]
    WrongHash {
        /// Which file.
        what: String,
        /// The pinned digest.
        expected: String,
        /// The file's digest.
        found: String,
    },
    /// A file is neither the library nor a wheel that holds it.
    #[error("neither the ONNX Runtime {VERSION} library for this machine nor a wheel that holds it: {reason} ({})", path.display())]
    NotAWheel {
        /// What is wrong with it.
        reason: String,
        /// The file.
        path: PathBuf,
    },
    /// A file or folder could not be read or written.
    #[error("cannot {doing}: {source} ({})", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The system's reason.
        source: io::Error,
        /// The file or folder.
        path: PathBuf,
    },
}

impl Coded for FetchError {
    fn code(&self) -> &'static str {
        match self {
            Self::NoBuild { .. } => "infer.no-build",
            Self::NoDataFolder => "infer.no-data-folder",
            Self::Pip { .. } => "infer.pip",
            Self::WrongHash { .. } => "infer.wrong-hash",
            Self::NotAWheel { .. } => "infer.not-a-wheel",
            Self::Io { .. } => "infer.io",
        }
    }

    fn help(&self) -> Option<String> {
        let build = this_build().ok()?;
        match self {
            Self::Pip { .. } => Some(format!(
                "needed are Python 3 with pip or venv (Debian: apt-get install python3-venv) and a package index; without them, \
                 take {} from another machine and give it to `roentgen setup` as a file",
                build.wheel
            )),
            Self::WrongHash { .. } | Self::NotAWheel { .. } => Some(format!("the file that is expected is {}", build.wheel)),
            _ => None,
        }
    }
}

/// The library's file name on this system.
pub(crate) fn library_file_name() -> &'static str {
    if cfg!(windows) {
        "onnxruntime.dll"
    } else if cfg!(target_os = "macos") {
        "libonnxruntime.1.31.1.dylib"
    } else {
        "libonnxruntime.so.1.31.1"
    }
}

/// Fetches the pinned library with pip into this user's data folder, unless it is already there; returns where it is.
///
/// `say` gets one line per step, before the step.
///
/// # Errors
/// See [`FetchError`]; after an error the folder holds what it held before.
pub fn fetch(say: &mut dyn FnMut(&str)) -> Result<PathBuf, FetchError> {
    let (build, target) = (this_build()?, target()?);
    if installed(build, &target, say)? {
        return Ok(target);
    }
    let folder = tempfile::tempdir().map_err(|source| io_error("make a temporary folder", &std::env::temp_dir(), source))?;
    say(&format!("fetching {} with pip", build.wheel));
    download(build, folder.path(), say)?;
    let path = folder.path().join(build.wheel);
    if !path.is_file() {
        return Err(FetchError::Pip { reason: format!("it brought no {}", build.wheel) });
    }
    let wheel = read(&path)?;
    check("wheel", build.wheel_sha256, &wheel)?;
    say(&format!("wheel is as pinned, SHA-256 {}", build.wheel_sha256));
    install(build, &library_in(build, &wheel, &path)?, &target, say)?;
    Ok(target)
}

/// Installs the pinned library from a file, for machines without a network: the platform's wheel (of any Python), or the library itself.
///
/// `say` gets one line per step. Returns where the library is.
///
/// # Errors
/// See [`FetchError`]; after an error the folder holds what it held before.
pub fn install_from(file: &Path, say: &mut dyn FnMut(&str)) -> Result<PathBuf, FetchError> {
    let target = target()?;
    install_file(this_build()?, file, &target, say)?;
    Ok(target)
}

fn install_file(build: &Build, file: &Path, target: &Path, say: &mut dyn FnMut(&str)) -> Result<(), FetchError> {
    let bytes = read(file)?;
    if installed(build, target, say)? {
        return Ok(());
    }
    if sha256_hex(&bytes) == build.library_sha256 {
        say("the file is the library itself");
        return install(build, &bytes, target, say);
    }
    let library = library_in(build, &bytes, file)?;
    install(build, &library, target, say)
}

fn this_build() -> Result<&'static Build, FetchError> {
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    BUILDS.iter().find(|build| build.os == os && build.arch == arch).ok_or(FetchError::NoBuild { os, arch })
}

fn target() -> Result<PathBuf, FetchError> {
    Ok(runtime::user_data_dir().ok_or(FetchError::NoDataFolder)?.join(library_file_name()))
}

/// Whether the pinned library is in place; says so, or that what is there will be replaced.
fn installed(build: &Build, target: &Path, say: &mut dyn FnMut(&str)) -> Result<bool, FetchError> {
    if !target.is_file() {
        return Ok(false);
    }
    if sha256_hex(&read(target)?) == build.library_sha256 {
        say(&format!("ONNX Runtime {VERSION} is already installed, SHA-256 {}: {}", build.library_sha256, target.display()));
        return Ok(true);
    }
    say(&format!("the library in place is not the pinned one and will be replaced: {}", target.display()));
    Ok(false)
}

/// The library out of a wheel, not yet checked.
fn library_in(build: &Build, wheel: &[u8], path: &Path) -> Result<Vec<u8>, FetchError> {
    let not_a_wheel = |reason: String| FetchError::NotAWheel { reason, path: path.to_owned() };
    let mut archive = zip::ZipArchive::new(io::Cursor::new(wheel)).map_err(|error| not_a_wheel(error.to_string()))?;
    let member = archive.by_name(build.library).map_err(|error| not_a_wheel(format!("{error}, {}", build.library)))?;
    let mut library = Vec::new();
    // One byte more than there should be is enough to fail the check, however much the archive would unpack to.
    member.take(build.library_bytes + 1).read_to_end(&mut library).map_err(|error| not_a_wheel(error.to_string()))?;
    Ok(library)
}

/// Checks the library and puts it in place: written beside, synced, renamed.
fn install(build: &Build, library: &[u8], target: &Path, say: &mut dyn FnMut(&str)) -> Result<(), FetchError> {
    check(build.library, build.library_sha256, library)?;
    let folder = target.parent().ok_or(FetchError::NoDataFolder)?;
    let write_error = |source| io_error("install the library", target, source);
    std::fs::create_dir_all(folder).map_err(write_error)?;
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(write_error)?;
    file.write_all(library).map_err(write_error)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644)).map_err(write_error)?;
    }
    file.as_file().sync_all().map_err(write_error)?;
    file.persist(target).map_err(|error| write_error(error.error))?;
    say(&format!("installed ONNX Runtime {VERSION}, SHA-256 {}: {}", build.library_sha256, target.display()));
    Ok(())
}

/// Has pip put the wheel into `folder`. A Python without pip (Debian's own) makes itself a virtual environment for it.
fn download(build: &Build, folder: &Path, say: &mut dyn FnMut(&str)) -> Result<(), FetchError> {
    let python = runtime::python();
    let output = pip(&python, build, folder)?;
    if output.status.success() {
        return Ok(());
    }
    if !String::from_utf8_lossy(&output.stderr).contains("No module named pip") {
        return Err(FetchError::Pip { reason: last_lines(&output) });
    }
    say("this Python has no pip: making a virtual environment for it, for this step only");
    let environment = folder.join("venv");
    let made = finish(Command::new(&python).args(["-m", "venv"]).arg(&environment), &python)?;
    if !made.status.success() {
        return Err(FetchError::Pip { reason: format!("no pip, and no virtual environment: {}", last_lines(&made)) });
    }
    let inner = if cfg!(windows) { environment.join("Scripts").join("python.exe") } else { environment.join("bin").join("python") };
    let output = pip(&inner, build, folder)?;
    if output.status.success() { Ok(()) } else { Err(FetchError::Pip { reason: last_lines(&output) }) }
}

fn pip(python: &Path, build: &Build, folder: &Path) -> Result<Output, FetchError> {
    let mut command = Command::new(python);
    command.args(["-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet", "download", "--no-deps", "--only-binary=:all:"]);
    command.args(["--platform", build.platform, "--python-version", "3.12", "--implementation", "cp", "--abi", "cp312", "--dest"]);
    command.arg(folder).arg(format!("onnxruntime=={VERSION}"));
    finish(&mut command, python)
}

fn finish(command: &mut Command, python: &Path) -> Result<Output, FetchError> {
    let output = command.stdin(Stdio::null()).output();
    output.map_err(|error| FetchError::Pip { reason: format!("{} cannot be run: {error}", python.display()) })
}

fn last_lines(output: &Output) -> String {
    let text = String::from_utf8_lossy(if output.stderr.is_empty() { &output.stdout } else { &output.stderr }).into_owned();
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(3)..].join("; ")
}

fn read(path: &Path) -> Result<Vec<u8>, FetchError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes));
    read.map_err(|source| io_error("read a file", path, source))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(FetchError::NotAWheel { reason: format!("larger than {} MB", MAX_BYTES >> 20), path: path.to_owned() });
    }
    Ok(bytes)
}

fn check(what: &str, expected: &str, bytes: &[u8]) -> Result<(), FetchError> {
    let found = sha256_hex(bytes);
    if found == expected {
        return Ok(());
    }
    Err(FetchError::WrongHash { what: what.to_owned(), expected: expected.to_owned(), found })
}

fn io_error(doing: &'static str, path: &Path, source: io::Error) -> FetchError {
    FetchError::Io { doing, source, path: path.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIBRARY: &[u8] = b"library";
    // printf library | sha256sum
    const BUILD: Build = Build {
        os: "",
        arch: "",
        platform: "",
        wheel: "",
        wheel_sha256: "",
        library: "onnxruntime/capi/libonnxruntime.so.1.31.1",
        library_bytes: LIBRARY.len() as u64,
        library_sha256: "b718f1354f7247312eca086d9a024afe5fa717ddea5adeddd6f12bcf945b2e8c",
    };

    fn wheel(member: &str, content: &[u8]) -> Vec<u8> {
        let mut zip = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
        zip.start_file(member, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(content).unwrap();
        zip.finish().unwrap().into_inner()
    }

    /// Installs `file` into an empty folder, and returns the error's code, or "installed".
    fn check_install(file: Option<&[u8]>) -> &'static str {
        let dir = tempfile::tempdir().unwrap();
        let (given, target) = (dir.path().join("given"), dir.path().join("data").join("lib.so"));
        if let Some(bytes) = file {
            std::fs::write(&given, bytes).unwrap();
        }
        match install_file(&BUILD, &given, &target, &mut |_| ()) {
            Ok(()) => {
                assert_eq!(std::fs::read(&target).unwrap(), LIBRARY);
                "installed"
            }
            Err(error) => {
                assert!(!target.exists());
                error.code()
            }
        }
    }

    #[test]
    fn a_wheel_or_the_library_is_installed_and_nothing_else() {
        assert_eq!(sha256_hex(LIBRARY), BUILD.library_sha256);
        assert_eq!(check_install(Some(&wheel(BUILD.library, LIBRARY))), "installed");
        assert_eq!(check_install(Some(LIBRARY)), "installed");
        assert_eq!(check_install(Some(&wheel(BUILD.library, b"another"))), "infer.wrong-hash");
        assert_eq!(check_install(Some(&wheel(BUILD.library, b"library and more"))), "infer.wrong-hash");
        assert_eq!(check_install(Some(&wheel("onnxruntime/capi/other.so", LIBRARY))), "infer.not-a-wheel");
        assert_eq!(check_install(Some(&wheel(BUILD.library, LIBRARY)[..60])), "infer.not-a-wheel");
        assert_eq!(check_install(Some(b"neither")), "infer.not-a-wheel");
        assert_eq!(check_install(Some(b"")), "infer.not-a-wheel");
        assert_eq!(check_install(None), "infer.io");
    }

    #[test]
    fn a_damaged_library_in_place_is_replaced_and_a_good_one_left() {
        let dir = tempfile::tempdir().unwrap();
        let (given, target) = (dir.path().join("given"), dir.path().join("lib.so"));
        std::fs::write(&given, wheel(BUILD.library, LIBRARY)).unwrap();
        std::fs::write(&target, "damaged").unwrap();
        let mut said = Vec::new();
        install_file(&BUILD, &given, &target, &mut |line| said.push(line.to_owned())).unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), LIBRARY);
        install_file(&BUILD, &given, &target, &mut |line| said.push(line.to_owned())).unwrap();
        assert!(said[0].contains("replaced") && said[1].contains("installed") && said[2].contains("already"), "{said:?}");
    }

    #[test]
    fn the_table_is_well_formed() {
        for build in &BUILDS {
            assert!(build.wheel.contains(VERSION) && build.wheel.contains(build.platform), "{}", build.wheel);
            for digest in [build.wheel_sha256, build.library_sha256] {
                assert!(digest.len() == 64 && digest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')), "{digest}");
            }
        }
        if let Ok(build) = this_build() {
            assert!(build.library.ends_with(library_file_name()));
        }
    }
}
