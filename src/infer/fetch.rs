//! Fetches the pinned ONNX Runtime library: Microsoft's own wheel, through pip, checked twice, its libraries kept.
//!
//! The wheel's SHA-256 is checked before it is opened, each library's before it is put in place, and it is put there in one step; the one
//! that the others belong to comes last, so that where it is, all are.
//! pip alone talks to the network, asked for a package by name; where from is pip's own configuration.
//!
//! The wheel with OpenVINO holds OpenVINO's libraries as well, and each of them looks for the others beside itself (`$ORIGIN`): they run
//! from any folder, without Python. Kept are those that networks on the CPU need, 133 of 263 MB.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use thiserror::Error;

use crate::codes::sha256_hex;
use crate::geometry::Coded;
use crate::infer::{Provider, runtime};

/// The version of ONNX Runtime that this program fetches and is tested with.
pub const VERSION: &str = "1.31.1";
/// The newest version of ONNX Runtime that there is with OpenVINO.
pub const OPENVINO_VERSION: &str = "1.24.1";
/// Largest file that [`install_from`] reads, bytes; the wheels are 15 to 84 MB, the libraries 67 MB at most.
const MAX_BYTES: u64 = 256 << 20;

/// One platform's wheel of one package, and what of it is kept.
struct Build {
    package: &'static str,
    version: &'static str,
    os: &'static str,
    arch: &'static str,
    platform: &'static str,
    wheel: &'static str,
    wheel_sha256: &'static str,
    /// ONNX Runtime itself.
    library: Library,
    /// What it loads from its own folder.
    companions: &'static [Library],
}

/// A file of a wheel.
#[derive(Clone, Copy)]
struct Library {
    member: &'static str,
    bytes: u64,
    sha256: &'static str,
}

impl Build {
    /// All that is kept; ONNX Runtime itself is the last.
    fn libraries(&self) -> impl Iterator<Item = &Library> {
        self.companions.iter().chain([&self.library])
    }
}

impl Library {
    fn file_name(&self) -> &'static str {
        self.member.rsplit('/').next().unwrap_or(self.member)
    }
}

// Every Python's wheel of `onnxruntime` for one platform holds the same library; those with OpenVINO differ. These are for CPython 3.12.
const BUILDS: [Build; 6] = [
    Build {
        package: "onnxruntime",
        version: VERSION,
        os: "linux",
        arch: "x86_64",
        platform: "manylinux_2_28_x86_64",
        wheel: "onnxruntime-1.31.1-cp312-cp312-manylinux_2_28_x86_64.whl",
        wheel_sha256: "1f3dea47f2f0e5117c2404cea7d21fd253ae7836a3bf167a501cdfbb2600d536",
        library: Library {
            member: "onnxruntime/capi/libonnxruntime.so.1.31.1",
            bytes: 29_352_200,
            sha256: "fc44112fbe06d7d689c57e11d3862031f64711007e4ee020f8eed5185fd2c1d3",
        },
        companions: &[],
    },
    Build {
        package: "onnxruntime",
        version: VERSION,
        os: "linux",
        arch: "aarch64",
        platform: "manylinux_2_28_aarch64",
        wheel: "onnxruntime-1.31.1-cp312-cp312-manylinux_2_28_aarch64.whl",
        wheel_sha256: "0b9a492176886992e0e875f06bc0367e333f5fff11711a2d642e18b02f3009cc",
        library: Library {
            member: "onnxruntime/capi/libonnxruntime.so.1.31.1",
            bytes: 25_265_040,
            sha256: "8aa3b76b28c778a2b1dd660d34161adb1d508c9ccd04ff9dc80e26eca5df8467",
        },
        companions: &[],
    },
    Build {
        package: "onnxruntime",
        version: VERSION,
        os: "windows",
        arch: "x86_64",
        platform: "win_amd64",
        wheel: "onnxruntime-1.31.1-cp312-cp312-win_amd64.whl",
        wheel_sha256: "ae8a9a351efda685cc59a66226cdefaa37a126c1d66872ca23a2de9425326130",
        library: Library {
            member: "onnxruntime/capi/onnxruntime.dll",
            bytes: 19_288_376,
            sha256: "e45f61e50d8650885452be538a00bb14a715e46a1bc3691000ce947e89ed0306",
        },
        companions: &[],
    },
    Build {
        package: "onnxruntime",
        version: VERSION,
        os: "windows",
        arch: "aarch64",
        platform: "win_arm64",
        wheel: "onnxruntime-1.31.1-cp312-cp312-win_arm64.whl",
        wheel_sha256: "fe8b9ac1ae8e894e12c47ee82e4f6dfc1835768133687257866469fda80d0bf1",
        library: Library {
            member: "onnxruntime/capi/onnxruntime.dll",
            bytes: 19_171_640,
            sha256: "dc9e2fe646a72829386a24ac9185a7a4e26d7dbe5dc433d41df063603c00bbc7",
        },
        companions: &[],
    },
    Build {
        package: "onnxruntime",
        version: VERSION,
        os: "macos",
        arch: "aarch64",
        platform: "macosx_14_0_arm64",
        wheel: "onnxruntime-1.31.1-cp312-cp312-macosx_14_0_arm64.whl",
        wheel_sha256: "96dd2564b10ea7153ad9c207e7cd8e5917cb3ba521e0e0a62ac03486fdc8d56c",
        library: Library {
            member: "onnxruntime/capi/libonnxruntime.1.31.1.dylib",
            bytes: 33_037_336,
            sha256: "d586cbe89effc085a09d3341b3cfbd5c322517f9d397aeb20814af21433f2b36",
        },
        companions: &[],
    },
    Build {
        package: "onnxruntime-openvino",
        version: OPENVINO_VERSION,
        os: "linux",
        arch: "x86_64",
        platform: "manylinux_2_28_x86_64",
        wheel: "onnxruntime_openvino-1.24.1-cp312-cp312-manylinux_2_28_x86_64.whl",
        wheel_sha256: "d617fac2f59a6ab5ea59a788c3e1592240a129642519aaeaa774761dfe35150e",
        library: Library {
            member: "onnxruntime/capi/libonnxruntime.so.1.24.1",
            bytes: 31_260_360,
            sha256: "c7b0590c7825f7029ba17e20a5dea27f7f570d8241d60584caacd363648aa8e2",
        },
        companions: &[
            Library {
                member: "onnxruntime/capi/libonnxruntime_providers_shared.so",
                bytes: 15_776,
                sha256: "5e02c1ff90e7d71365264dbb6767c00f04a8b57a96cddbc0085c61fa1393250d",
            },
            Library {
                member: "onnxruntime/capi/libonnxruntime_providers_openvino.so",
                bytes: 2_000_856,
                sha256: "b19cae6eb713f35427a8427f141ffc8fc2471ae0532f57e52d84fa9a66799c30",
            },
            Library {
                member: "onnxruntime/capi/libopenvino.so.2541",
                bytes: 25_284_089,
                sha256: "ac9634b715a242a61644c77bc38f17508fe73f517e418027e2410f4bee004943",
            },
            Library {
                member: "onnxruntime/capi/libopenvino_onnx_frontend.so.2541",
                bytes: 7_006_249,
                sha256: "f426710881d8c1a01d5ed6d7eaa076d923b19983d3ab3a18bb19d25dba7d8923",
            },
            Library {
                member: "onnxruntime/capi/libopenvino_intel_cpu_plugin.so",
                bytes: 67_008_289,
                sha256: "034df890550ae9199fe5f8608c0df8fd0fe355f303bad56bea10bae14c14c3cb",
            },
            Library {
                member: "onnxruntime/capi/libtbb.so.12",
                bytes: 367_649,
                sha256: "6781dc6aa8b2ca237d0164258e70266a44667756c02a9a039782ec1d1a67b653",
            },
        ],
    },
];

/// Why the library was not fetched.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FetchError {
    /// There is no wheel for this machine.
    #[error(
        "there is no {package} {version} wheel for {os} on {arch}: name a library of your own with --ort-lib or {}",
        runtime::PATH_VARIABLE
    )]
    NoBuild {
        /// The wheel's package.
        package: &'static str,
        /// Its version.
        version: &'static str,
        /// Operating system, as Rust names it.
        os: &'static str,
        /// Processor, as Rust names it.
        arch: &'static str,
    },
    /// Libraries with this provider are not fetched.
    #[error(
        "no library with `{provider}` is fetched, only with `cpu` and `openvino`: name one of your own with --ort-lib or {}",
        runtime::PATH_VARIABLE
    )]
    NotFetched {
        /// The execution provider.
        provider: Provider,
    },
    /// The system names no folder for this user's data.
    #[error("this user has no data folder (is HOME set?)")]
    NoDataFolder,
    /// pip could not be run, or did not fetch the wheel.
    #[error("pip did not fetch {wheel}: {reason}")]
    Pip {
        /// The wheel.
        wheel: &'static str,
        /// What pip or the system said, cut to its last lines.
        reason: String,
    },
    /// A file is not the one that was pinned.
    #[error("wrong SHA-256, not installed: expected {expected}, found {found} ({what} of {wheel})")]
    WrongHash {
        /// The wheel that is expected.
        wheel: &'static str,
        /// Which file.
        what: String,
        /// The pinned digest.
        expected: String,
        /// The file's digest.
        found: String,
    },
    /// A file is neither the library nor a wheel that holds it.
    #[error("neither ONNX Runtime's library nor a wheel like {wheel} that holds it: {reason} ({})", path.display())]
    NotAWheel {
        /// The wheel that is expected.
        wheel: &'static str,
        /// What is wrong with the file.
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
            Self::NoBuild { .. } | Self::NotFetched { .. } => "infer.no-build",
            Self::NoDataFolder => "infer.no-data-folder",
            Self::Pip { .. } => "infer.pip",
            Self::WrongHash { .. } => "infer.wrong-hash",
            Self::NotAWheel { .. } => "infer.not-a-wheel",
            Self::Io { .. } => "infer.io",
        }
    }

    fn help(&self) -> Option<String> {
        match self {
            Self::Pip { wheel, .. } => Some(format!(
                "needed are Python 3 with pip or venv (Debian: apt-get install python3-venv) and a package index; without them, \
                 take {wheel} from another machine and give it to `roentgen setup --from`"
            )),
            Self::WrongHash { wheel, .. } | Self::NotAWheel { wheel, .. } => Some(format!("the file that is expected is {wheel}")),
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

/// Fetches the pinned library that has `provider` with pip into this user's data folder, unless it is already there; returns where it is.
///
/// `say` gets one line per step, before the step.
///
/// # Errors
/// See [`FetchError`]; after an error each file in the folder is the pinned one or what it was before.
pub fn fetch(provider: Provider, say: &mut dyn FnMut(&str)) -> Result<PathBuf, FetchError> {
    let (build, target) = (build_with(provider)?, target(provider)?);
    let library = target.join(build.library.file_name());
    if installed(build, &target, say)? {
        return Ok(library);
    }
    let folder = tempfile::tempdir().map_err(|source| io_error("make a temporary folder", &std::env::temp_dir(), source))?;
    say(&format!("fetching {} with pip", build.wheel));
    download(build, folder.path(), say)?;
    let path = folder.path().join(build.wheel);
    if !path.is_file() {
        return Err(build.pip_error("it brought another file".to_owned()));
    }
    let wheel = read(build, &path)?;
    build.check("the whole", build.wheel_sha256, &wheel)?;
    say(&format!("wheel is as pinned, SHA-256 {}", build.wheel_sha256));
    install(build, &wheel, &path, &target, say)?;
    Ok(library)
}

/// Installs the pinned library from a file, for machines without a network: the platform's wheel, or, where it needs no others beside it, the
/// library itself. Wheels of `onnxruntime` may be those of any Python.
///
/// `say` gets one line per step. Returns where the library is.
///
/// # Errors
/// See [`FetchError`]; after an error each file in the folder is the pinned one or what it was before.
pub fn install_from(provider: Provider, file: &Path, say: &mut dyn FnMut(&str)) -> Result<PathBuf, FetchError> {
    let (build, target) = (build_with(provider)?, target(provider)?);
    install_file(build, file, &target, say)?;
    Ok(target.join(build.library.file_name()))
}

fn install_file(build: &Build, file: &Path, target: &Path, say: &mut dyn FnMut(&str)) -> Result<(), FetchError> {
    let bytes = read(build, file)?;
    if installed(build, target, say)? {
        return Ok(());
    }
    if build.companions.is_empty() && sha256_hex(&bytes) == build.library.sha256 {
        say("the file is the library itself");
        put(build, &build.library, &bytes, target)?;
        say_installed(build, target, say);
        return Ok(());
    }
    install(build, &bytes, file, target, say)
}

/// The wheel for this machine whose library has `provider`.
fn build_with(provider: Provider) -> Result<&'static Build, FetchError> {
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    let (package, version) = match provider {
        Provider::Cpu => ("onnxruntime", VERSION),
        Provider::OpenVino(_) => ("onnxruntime-openvino", OPENVINO_VERSION),
        _ => return Err(FetchError::NotFetched { provider }),
    };
    let fits = |build: &&Build| build.package == package && build.os == os && build.arch == arch;
    BUILDS.iter().find(fits).ok_or(FetchError::NoBuild { package, version, os, arch })
}

fn target(provider: Provider) -> Result<PathBuf, FetchError> {
    runtime::user_data_dir(provider).ok_or(FetchError::NoDataFolder)
}

/// Whether all pinned libraries are in place; says so, or which one will be replaced.
fn installed(build: &Build, target: &Path, say: &mut dyn FnMut(&str)) -> Result<bool, FetchError> {
    let mut all = true;
    for library in build.libraries() {
        let path = target.join(library.file_name());
        if !path.is_file() {
            all = false;
        } else if sha256_hex(&read(build, &path)?) != library.sha256 {
            say(&format!("the library in place is not the pinned one and will be replaced: {}", path.display()));
            all = false;
        }
    }
    if all {
        let path = target.join(build.library.file_name());
        say(&format!("{} {} is already installed, SHA-256 {}: {}", build.package, build.version, build.library.sha256, path.display()));
    }
    Ok(all)
}

/// Puts all libraries of a wheel in place.
fn install(build: &Build, wheel: &[u8], path: &Path, target: &Path, say: &mut dyn FnMut(&str)) -> Result<(), FetchError> {
    for library in build.libraries() {
        put(build, library, &library_in(build, library, wheel, path)?, target)?;
    }
    say_installed(build, target, say);
    Ok(())
}

fn say_installed(build: &Build, target: &Path, say: &mut dyn FnMut(&str)) {
    let path = target.join(build.library.file_name());
    say(&format!("installed {} {}, SHA-256 {}: {}", build.package, build.version, build.library.sha256, path.display()));
}

/// One library out of a wheel, not yet checked.
fn library_in(build: &Build, library: &Library, wheel: &[u8], path: &Path) -> Result<Vec<u8>, FetchError> {
    let not_a_wheel = |reason: String| FetchError::NotAWheel { wheel: build.wheel, reason, path: path.to_owned() };
    let mut archive = zip::ZipArchive::new(io::Cursor::new(wheel)).map_err(|error| not_a_wheel(error.to_string()))?;
    let member = archive.by_name(library.member).map_err(|error| not_a_wheel(format!("{error}, {}", library.member)))?;
    let mut bytes = Vec::new();
    // One byte more than there should be is enough to fail the check, however much the archive would unpack to.
    member.take(library.bytes + 1).read_to_end(&mut bytes).map_err(|error| not_a_wheel(error.to_string()))?;
    Ok(bytes)
}

/// Checks a library and puts it in place: written beside, synced, renamed.
fn put(build: &Build, library: &Library, bytes: &[u8], folder: &Path) -> Result<(), FetchError> {
    build.check(library.member, library.sha256, bytes)?;
    let target = folder.join(library.file_name());
    let write_error = |source| io_error("install the library", &target, source);
    std::fs::create_dir_all(folder).map_err(write_error)?;
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(write_error)?;
    file.write_all(bytes).map_err(write_error)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644)).map_err(write_error)?;
    }
    file.as_file().sync_all().map_err(write_error)?;
    file.persist(&target).map_err(|error| write_error(error.error))?;
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
        return Err(build.pip_error(last_lines(&output)));
    }
    say("this Python has no pip: making a virtual environment for it, for this step only");
    let environment = folder.join("venv");
    let made = build.finish(Command::new(&python).args(["-m", "venv"]).arg(&environment), &python)?;
    if !made.status.success() {
        return Err(build.pip_error(format!("no pip, and no virtual environment: {}", last_lines(&made))));
    }
    let inner = if cfg!(windows) { environment.join("Scripts").join("python.exe") } else { environment.join("bin").join("python") };
    let output = pip(&inner, build, folder)?;
    if output.status.success() { Ok(()) } else { Err(build.pip_error(last_lines(&output))) }
}

fn pip(python: &Path, build: &Build, folder: &Path) -> Result<Output, FetchError> {
    let mut command = Command::new(python);
    command.args(["-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet", "download", "--no-deps", "--only-binary=:all:"]);
    command.args(["--platform", build.platform, "--python-version", "3.12", "--implementation", "cp", "--abi", "cp312", "--dest"]);
    command.arg(folder).arg(format!("{}=={}", build.package, build.version));
    build.finish(&mut command, python)
}

impl Build {
    fn pip_error(&self, reason: String) -> FetchError {
        FetchError::Pip { wheel: self.wheel, reason }
    }

    fn finish(&self, command: &mut Command, python: &Path) -> Result<Output, FetchError> {
        let output = command.stdin(Stdio::null()).output();
        output.map_err(|error| self.pip_error(format!("{} cannot be run: {error}", python.display())))
    }

    fn check(&self, what: &str, expected: &str, bytes: &[u8]) -> Result<(), FetchError> {
        let found = sha256_hex(bytes);
        if found == expected {
            return Ok(());
        }
        Err(FetchError::WrongHash { wheel: self.wheel, what: what.to_owned(), expected: expected.to_owned(), found })
    }
}

fn last_lines(output: &Output) -> String {
    let text = String::from_utf8_lossy(if output.stderr.is_empty() { &output.stdout } else { &output.stderr }).into_owned();
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(3)..].join("; ")
}

fn read(build: &Build, path: &Path) -> Result<Vec<u8>, FetchError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes));
    read.map_err(|source| io_error("read a file", path, source))?;
    if bytes.len() as u64 > MAX_BYTES {
        let reason = format!("larger than {} MB", MAX_BYTES >> 20);
        return Err(FetchError::NotAWheel { wheel: build.wheel, reason, path: path.to_owned() });
    }
    Ok(bytes)
}

fn io_error(doing: &'static str, path: &Path, source: io::Error) -> FetchError {
    FetchError::Io { doing, source, path: path.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIBRARY: &[u8] = b"library";
    // printf library | sha256sum
    const PINNED: Library =
        Library { member: "onnxruntime/capi/lib.so", bytes: 7, sha256: "b718f1354f7247312eca086d9a024afe5fa717ddea5adeddd6f12bcf945b2e8c" };
    const BUILD: Build =
        Build { package: "", version: "", os: "", arch: "", platform: "", wheel: "", wheel_sha256: "", library: PINNED, companions: &[] };
    const PLUGIN: Library = Library { member: "onnxruntime/capi/plugin.so", ..PINNED };
    const WITH_PLUGIN: Build = Build { companions: &[PLUGIN], ..BUILD };

    fn wheel(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut zip = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
        for (name, content) in members {
            zip.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
            zip.write_all(content).unwrap();
        }
        zip.finish().unwrap().into_inner()
    }

    /// Installs `file` into an empty folder, and returns the error's code, or "installed".
    fn check_install(build: &Build, file: Option<&[u8]>) -> &'static str {
        let dir = tempfile::tempdir().unwrap();
        let (given, target) = (dir.path().join("given"), dir.path().join("data"));
        if let Some(bytes) = file {
            std::fs::write(&given, bytes).unwrap();
        }
        match install_file(build, &given, &target, &mut |_| ()) {
            Ok(()) => {
                build.libraries().for_each(|library| assert_eq!(std::fs::read(target.join(library.file_name())).unwrap(), LIBRARY));
                "installed"
            }
            Err(error) => {
                assert!(!target.join("lib.so").exists());
                error.code()
            }
        }
    }

    #[test]
    fn a_wheel_or_the_library_is_installed_and_nothing_else() {
        let check = |file: &[u8]| check_install(&BUILD, Some(file));
        assert_eq!(sha256_hex(LIBRARY), PINNED.sha256);
        assert_eq!(check(&wheel(&[(PINNED.member, LIBRARY)])), "installed");
        assert_eq!(check(LIBRARY), "installed");
        assert_eq!(check(&wheel(&[(PINNED.member, b"another")])), "infer.wrong-hash");
        assert_eq!(check(&wheel(&[(PINNED.member, b"library and more")])), "infer.wrong-hash");
        assert_eq!(check(&wheel(&[("onnxruntime/capi/other.so", LIBRARY)])), "infer.not-a-wheel");
        assert_eq!(check(&wheel(&[(PINNED.member, LIBRARY)])[..60]), "infer.not-a-wheel");
        assert_eq!(check(b"neither"), "infer.not-a-wheel");
        assert_eq!(check(b""), "infer.not-a-wheel");
        assert_eq!(check_install(&BUILD, None), "infer.io");
    }

    #[test]
    fn a_library_is_not_installed_without_what_belongs_to_it() {
        let check = |file: &[u8]| check_install(&WITH_PLUGIN, Some(file));
        assert_eq!(check(&wheel(&[(PINNED.member, LIBRARY), (PLUGIN.member, LIBRARY)])), "installed");
        assert_eq!(check(LIBRARY), "infer.not-a-wheel");
        assert_eq!(check(&wheel(&[(PINNED.member, LIBRARY)])), "infer.not-a-wheel");
        assert_eq!(check(&wheel(&[(PINNED.member, LIBRARY), (PLUGIN.member, b"another")])), "infer.wrong-hash");
    }

    #[test]
    fn a_damaged_library_in_place_is_replaced_and_a_good_one_left() {
        let dir = tempfile::tempdir().unwrap();
        let (given, plugin) = (dir.path().join("given"), dir.path().join("plugin.so"));
        std::fs::write(&given, wheel(&[(PINNED.member, LIBRARY), (PLUGIN.member, LIBRARY)])).unwrap();
        std::fs::write(&plugin, "damaged").unwrap();
        let mut said = Vec::new();
        install_file(&WITH_PLUGIN, &given, dir.path(), &mut |line| said.push(line.to_owned())).unwrap();
        assert_eq!(std::fs::read(&plugin).unwrap(), LIBRARY);
        install_file(&WITH_PLUGIN, &given, dir.path(), &mut |line| said.push(line.to_owned())).unwrap();
        assert!(said[0].contains("replaced") && said[1].contains("installed") && said[2].contains("already"), "{said:?}");
    }

    #[test]
    fn the_table_is_well_formed() {
        for build in &BUILDS {
            assert!(build.wheel.contains(build.version) && build.wheel.contains(build.platform), "{}", build.wheel);
            assert!(build.wheel.starts_with(&build.package.replace('-', "_")), "{}", build.wheel);
            for digest in build.libraries().map(|library| library.sha256).chain([build.wheel_sha256]) {
                assert!(digest.len() == 64 && digest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')), "{digest}");
            }
        }
        if let Ok(build) = build_with(Provider::Cpu) {
            assert_eq!(build.library.file_name(), library_file_name());
        }
        assert!(matches!(build_with(Provider::Cuda), Err(FetchError::NotFetched { .. })));
    }
}
