//! Finds the ONNX Runtime library and starts it, once per process, before anything else talks to it.
//!
//! Places, in this order: the one the operator names (`--ort-lib`), `ORT_DYLIB_PATH`, next to this program, its neighbour `lib`,
//! this user's data folder (where `roentgen setup` puts it), Python's `onnxruntime` package, the system's loader. A place the operator
//! names is taken or refused; it is never passed over for another. Of the others the first usable one that has the execution provider
//! asked for is taken: providers come in libraries of their own, and a process has one library.
//!
//! Invariants:
//! 1. `ort` is asked for nothing before [`load`] has given it a library: it would look for one by itself, and panic without one.
//! 2. A library is loaded by trial, outside `ort`, and its version read, before `ort` gets it.
//! 3. The environment lives as long as the process. Telemetry is off.

use std::ffi::{CStr, c_char, c_int};
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::geometry::Coded;
use crate::infer::{Provider, fetch};

/// What the operator sets to name the library or its folder.
pub const PATH_VARIABLE: &str = "ORT_DYLIB_PATH";
/// What names the Python to ask for packages; `python3` without it.
pub const PYTHON_VARIABLE: &str = "ROENTGEN_PYTHON";
/// How long Python may take to say where its package is.
const PYTHON_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a library was looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// Named on the command line or in the configuration.
    Explicit,
    /// Named by [`PATH_VARIABLE`].
    Environment,
    /// The folder of this program, or `lib` beside that folder.
    Executable,
    /// This user's data folder.
    UserData,
    /// Python's `onnxruntime` package.
    Python,
    /// Left to the system's loader.
    System,
}

impl Origin {
    /// Whether somebody named this place, so that no other may take its part.
    pub fn is_named(self) -> bool {
        matches!(self, Self::Explicit | Self::Environment)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Explicit => "--ort-lib",
            Self::Environment => PATH_VARIABLE,
            Self::Executable => "next to the program",
            Self::UserData => "user data folder",
            Self::Python => "Python package",
            Self::System => "system",
        })
    }
}

/// What came of one place.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// An ONNX Runtime library of this version that this program can use.
    Usable {
        /// What the library says, like `1.31.1`.
        version: String,
        /// Execution providers compiled into it, in its order of preference, like `CPUExecutionProvider`.
        providers: Vec<String>,
    },
    /// No library there.
    Missing,
    /// Something is there, and it cannot be used.
    Refused {
        /// Why, as one line.
        reason: String,
    },
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usable { version, providers } => write!(f, "ONNX Runtime {version} with {}", providers.join(", ")),
            Self::Missing => f.write_str("not there"),
            Self::Refused { reason } => f.write_str(reason),
        }
    }
}

/// One place where a library was looked for, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Which place.
    pub origin: Origin,
    /// The library, or where it would be; for [`Origin::System`] the bare name that the loader gets; empty when there is no such place.
    pub path: PathBuf,
    /// What came of it.
    pub verdict: Verdict,
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.verdict)?;
        if self.path.as_os_str().is_empty() { Ok(()) } else { write!(f, " ({})", self.path.display()) }
    }
}

/// Why there is no ONNX Runtime.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// None of the places has a usable library with this execution provider.
    #[error("no usable ONNX Runtime library with {}: {}name one with --ort-lib or {PATH_VARIABLE} (looked at {})", provider.name(),
            setup(*provider).map_or_else(String::new, |setup| format!("run `{setup}` to fetch one, or ")), list(.candidates))]
    NotFound {
        /// What was asked for.
        provider: Provider,
        /// The places, in order.
        candidates: Vec<Candidate>,
    },
    /// The place that somebody named has no usable library.
    #[error("the ONNX Runtime library named by {origin} cannot be used: {verdict}; correct the name, or leave it out and run \
             `roentgen setup` to fetch one ({})", path.display())]
    Named {
        /// Who named it.
        origin: Origin,
        /// What is wrong with it.
        verdict: Verdict,
        /// What was named.
        path: PathBuf,
    },
    /// The library that somebody named, or that this process already runs, does not have the execution provider.
    #[error("this ONNX Runtime library has no {}, only {}: name one that has it with --ort-lib or {PATH_VARIABLE}{} ({})",
            provider.name(), offered.join(", "), setup(*provider).map_or_else(String::new, |setup| format!(", or none and run `{setup}`")),
            path.display())]
    LacksProvider {
        /// What was asked for.
        provider: Provider,
        /// What the library has.
        offered: Vec<String>,
        /// The library.
        path: PathBuf,
    },
    /// This process already runs another library.
    #[error("ONNX Runtime is already loaded from another library, and a process has one only: start again to change it \
             (loaded {}, asked for {})", loaded.display(), asked.display())]
    OtherLoaded {
        /// The library that runs.
        loaded: PathBuf,
        /// The one asked for.
        asked: PathBuf,
    },
    /// The library was loaded and would not start.
    #[error("ONNX Runtime {version} does not start: {reason}; run `roentgen setup` to fetch the version this program is tested with ({})",
            path.display())]
    Start {
        /// What the library says its version is.
        version: String,
        /// What it said.
        reason: String,
        /// The library.
        path: PathBuf,
    },
}

/// What brings a library with this provider, where something of ours does.
fn setup(provider: Provider) -> Option<&'static str> {
    match provider {
        Provider::Cpu => Some("roentgen setup"),
        Provider::OpenVino(_) => Some("roentgen setup --provider openvino"),
        _ => None,
    }
}

fn list(candidates: &[Candidate]) -> String {
    candidates.iter().map(Candidate::to_string).collect::<Vec<_>>().join("; ")
}

impl Coded for RuntimeError {
    fn code(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "infer.no-runtime",
            Self::Named { .. } => "infer.runtime-refused",
            Self::LacksProvider { .. } => "infer.runtime-lacks-provider",
            Self::OtherLoaded { .. } => "infer.runtime-already-loaded",
            Self::Start { .. } => "infer.runtime-start",
        }
    }

    fn help(&self) -> Option<String> {
        match self {
            Self::NotFound { .. } | Self::Named { .. } | Self::Start { .. } => {
                Some("`roentgen setup` fetches ONNX Runtime with pip, checks it, and keeps it in your data folder".into())
            }
            Self::LacksProvider { .. } | Self::OtherLoaded { .. } => None,
        }
    }
}

/// The ONNX Runtime of this process.
pub struct Runtime {
    /// Needed to build sessions.
    pub environment: ort::environment::Environment,
    /// The library; for [`Origin::System`] the bare name that the loader got.
    pub path: PathBuf,
    /// Which place it came from.
    pub origin: Origin,
    /// What the library says its version is, like `1.31.1`.
    pub version: String,
    /// What the library says about its build: branch, commit, compiler options.
    pub build: String,
    /// Execution providers compiled into the library, in its order of preference, like `CPUExecutionProvider`.
    pub providers: Vec<String>,
}

impl Runtime {
    /// Whether this execution provider is compiled into the library.
    pub fn offers(&self, provider: Provider) -> bool {
        offers(&self.providers, provider)
    }
}

fn offers(providers: &[String], provider: Provider) -> bool {
    providers.iter().any(|name| name == provider.name())
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Runtime {{ {} from {}, {}, {:?} }}", self.version, self.origin, self.path.display(), self.providers)
    }
}

static RUNTIME: OnceLock<Runtime> = OnceLock::new();
static LOADING: Mutex<()> = Mutex::new(());

/// The ONNX Runtime that [`load`] has started, if it has.
pub fn loaded() -> Option<&'static Runtime> {
    RUNTIME.get()
}

/// Finds and starts an ONNX Runtime that has `provider`, or returns the one already started.
///
/// `explicit` is a library or a folder that holds one. The search stops at the first usable place.
///
/// # Errors
/// [`RuntimeError::NotFound`], [`RuntimeError::Named`] when `explicit` or [`PATH_VARIABLE`] names something unusable,
/// [`RuntimeError::LacksProvider`] when what is named or already runs does not have `provider`,
/// [`RuntimeError::OtherLoaded`] when `explicit` is not the library that already runs, [`RuntimeError::Start`].
pub fn load(explicit: Option<&Path>, provider: Provider) -> Result<&'static Runtime, RuntimeError> {
    let _one_at_a_time = LOADING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(runtime) = RUNTIME.get() {
        return match explicit.map(library_at) {
            Some(asked) if !same_file(&asked, &runtime.path) => Err(RuntimeError::OtherLoaded { loaded: runtime.path.clone(), asked }),
            _ if runtime.offers(provider) => Ok(runtime),
            _ => Err(RuntimeError::LacksProvider { provider, offered: runtime.providers.clone(), path: runtime.path.clone() }),
        };
    }
    let runtime = start(find(explicit, provider)?)?;
    Ok(RUNTIME.get_or_init(|| runtime))
}

/// The place whose library [`load`] would start in a process that has none yet; its verdict is [`Verdict::Usable`].
///
/// # Errors
/// As [`load`], save that nothing is started.
pub fn find(explicit: Option<&Path>, provider: Provider) -> Result<Candidate, RuntimeError> {
    let candidates = search(explicit, std::env::var_os(PATH_VARIABLE).map(PathBuf::from), provider);
    choose(candidates, provider)
}

/// Every place where a library with `provider` may be and what is there, in the order of preference; starts nothing.
///
/// For `roentgen doctor`: [`load`] takes the first usable one that has it, and none after one that somebody named.
pub fn locate(explicit: Option<&Path>, provider: Provider) -> Vec<Candidate> {
    search(explicit, std::env::var_os(PATH_VARIABLE).map(PathBuf::from), provider).collect()
}

/// The folder of this user's data for the pinned ONNX Runtime with this provider; `None` where the system names no home.
///
/// Providers that `roentgen setup` does not fetch have none of their own: theirs is the CPU's.
pub fn user_data_dir(provider: Provider) -> Option<PathBuf> {
    let dirs = directories::ProjectDirs::from("", "", "roentgen")?;
    let (package, version) = match provider {
        Provider::OpenVino(_) => ("onnxruntime-openvino", fetch::OPENVINO_VERSION),
        _ => ("onnxruntime", fetch::VERSION),
    };
    Some(dirs.data_local_dir().join(package).join(version))
}

/// The first usable candidate with `provider`; asks for no more of them than needed.
fn choose(candidates: impl Iterator<Item = Candidate>, provider: Provider) -> Result<Candidate, RuntimeError> {
    let mut seen = Vec::new();
    for candidate in candidates {
        let Candidate { origin, path, verdict } = &candidate;
        match verdict {
            Verdict::Usable { providers, .. } if offers(providers, provider) => return Ok(candidate),
            Verdict::Usable { providers, .. } if origin.is_named() => {
                return Err(RuntimeError::LacksProvider { provider, offered: providers.clone(), path: path.clone() });
            }
            _ if origin.is_named() => {
                return Err(RuntimeError::Named { origin: *origin, verdict: candidate.verdict, path: candidate.path });
            }
            _ => seen.push(candidate),
        }
    }
    Err(RuntimeError::NotFound { provider, candidates: seen })
}

/// The places in order, each looked at only when it is asked for.
fn search(explicit: Option<&Path>, variable: Option<PathBuf>, provider: Provider) -> impl Iterator<Item = Candidate> {
    let named = explicit.map(|path| (Origin::Explicit, library_at(path)));
    let variable = variable.filter(|path| !path.as_os_str().is_empty()).map(|path| (Origin::Environment, library_at(&path)));
    let program = std::env::current_exe().ok().and_then(|exe| Some(exe.canonicalize().unwrap_or(exe).parent()?.to_owned()));
    let beside = program.clone().map(|dir| (Origin::Executable, library_in(&dir)));
    let lib = program.and_then(|dir| Some((Origin::Executable, library_in(&dir.parent()?.join("lib")))));
    let first = [named, variable, beside, lib, user_data_dir(provider).map(|dir| (Origin::UserData, library_in(&dir)))];
    let judged = |(origin, path): (Origin, PathBuf)| {
        let verdict = judge(&path);
        Candidate { origin, path, verdict }
    };
    first
        .into_iter()
        .flatten()
        .map(judged)
        .chain(std::iter::once_with(python_candidate))
        .chain(std::iter::once_with(|| system_candidate(&system_names())))
}

/// Names that the system's loader may know the library by.
fn system_names() -> Vec<PathBuf> {
    if cfg!(windows) {
        vec!["onnxruntime.dll".into()]
    } else if cfg!(target_os = "macos") {
        vec!["libonnxruntime.dylib".into()]
    } else {
        vec!["libonnxruntime.so".into(), "libonnxruntime.so.1".into()]
    }
}

fn system_candidate(names: &[PathBuf]) -> Candidate {
    let mut refused = None;
    for name in names {
        match probe(name) {
            Ok(verdict) => return Candidate { origin: Origin::System, path: name.clone(), verdict },
            Err(Unusable::NotLoaded(_)) => {}
            Err(Unusable::Loaded(reason)) => refused = refused.or(Some((name.clone(), Verdict::Refused { reason }))),
        }
    }
    let (path, verdict) = refused.unwrap_or_else(|| (names.first().cloned().unwrap_or_default(), Verdict::Missing));
    Candidate { origin: Origin::System, path, verdict }
}

fn python_candidate() -> Candidate {
    match python_package() {
        Ok(Some(dir)) => {
            let path = library_in(&dir.join("capi"));
            let verdict = judge(&path);
            Candidate { origin: Origin::Python, path, verdict }
        }
        Ok(None) => Candidate { origin: Origin::Python, path: PathBuf::new(), verdict: Verdict::Missing },
        Err(reason) => Candidate { origin: Origin::Python, path: PathBuf::new(), verdict: Verdict::Refused { reason } },
    }
}

/// The Python to ask: [`PYTHON_VARIABLE`], else `python3` (`python` on Windows).
pub(crate) fn python() -> PathBuf {
    let named = std::env::var_os(PYTHON_VARIABLE).filter(|name| !name.is_empty());
    named.map_or_else(|| if cfg!(windows) { "python".into() } else { "python3".into() }, PathBuf::from)
}

/// The folder of Python's `onnxruntime` package, if it has one; no Python is no package.
fn python_package() -> Result<Option<PathBuf>, String> {
    // Finds the package without running it, and not in the working folder, which may be anybody's.
    let script = "import sys; sys.path = [p for p in sys.path if p not in ('', '.')]\nimport importlib.util as u\n\
                  s = u.find_spec('onnxruntime')\nprint(list(s.submodule_search_locations or [''])[0] if s else '')";
    let mut command = Command::new(python());
    command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let Ok(mut child) = command.spawn() else { return Ok(None) };
    let started = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => break,
            Ok(Some(status)) => return Err(format!("python ended with {status}")),
            Ok(None) if started.elapsed() < PYTHON_TIMEOUT => std::thread::sleep(Duration::from_millis(5)),
            Ok(None) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("python gave no answer within {} s", PYTHON_TIMEOUT.as_secs()));
            }
            Err(error) => return Err(format!("python cannot be waited for: {error}")),
        }
    }
    let mut answer = String::new();
    let read = child.stdout.take().map(|mut out| out.read_to_string(&mut answer));
    match read {
        Some(Ok(_)) if answer.trim().is_empty() => Ok(None),
        Some(Ok(_)) => Ok(Some(PathBuf::from(answer.trim()))),
        _ => Err("python's answer cannot be read".into()),
    }
}

/// `path` itself, or, when it is a folder, [`library_in`] it.
fn library_at(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    if path.is_dir() { library_in(&path) } else { path }
}

/// The newest ONNX Runtime library in a folder, or the name it would have there.
fn library_in(folder: &Path) -> PathBuf {
    let entries = folder.read_dir().into_iter().flatten();
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let newest = names.filter(|name| is_library_name(name)).max_by_key(|name| version_key(name));
    folder.join(newest.unwrap_or_else(|| fetch::library_file_name().to_owned()))
}

/// Whether a file of this name is the library itself, not one of its companions (`..providers_shared..`).
fn is_library_name(name: &str) -> bool {
    name == "onnxruntime.dll" || (name.starts_with("libonnxruntime.") && (name.contains(".so") || name.ends_with(".dylib")))
}

/// The numbers in a file name, so that 1.10 sorts after 1.9 and a bare name (most often a link) first.
fn version_key(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

fn same_file(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    }
}

fn judge(path: &Path) -> Verdict {
    if !path.is_file() {
        return Verdict::Missing;
    }
    if is_cut_short(path) {
        return Verdict::Refused { reason: "is cut short: the file ends before its own tables do".into() };
    }
    match probe(path) {
        Ok(verdict) => verdict,
        Err(Unusable::NotLoaded(reason) | Unusable::Loaded(reason)) => Verdict::Refused { reason },
    }
}

/// Whether an ELF file (64 bit, little-endian) is shorter than its header says. The loader maps such a file, and the process dies of it.
fn is_cut_short(path: &Path) -> bool {
    let Ok(mut file) = std::fs::File::open(path) else { return false };
    let mut header = [0u8; 64];
    if file.read_exact(&mut header).is_err() || !header.starts_with(b"\x7fELF\x02\x01") {
        return false;
    }
    let number = |at: usize, bytes: usize| header[at..at + bytes].iter().rev().fold(0u64, |n, byte| (n << 8) | u64::from(*byte));
    // The section header table, which linkers put last: offset, size of an entry, entries.
    let end = number(40, 8).saturating_add(number(58, 2) * number(60, 2));
    file.metadata().is_ok_and(|metadata| metadata.len() < end)
}

/// Why a library is no use.
enum Unusable {
    /// The system's loader did not load it.
    NotLoaded(String),
    /// It was loaded and is not what is needed.
    Loaded(String),
}

/// Loads the library, reads its version and its execution providers, and lets it go again: [`Verdict::Usable`] or why not.
#[allow(unsafe_code)] // a C library's entry point can be asked for its version in no other way
fn probe(path: &Path) -> Result<Verdict, Unusable> {
    // SAFETY: loading runs the library's initialisers. The places are the operator's, this program's, the user's and the system's own,
    // and a library found there is about to be used.
    let library = unsafe { libloading::Library::new(path) };
    let library = library.map_err(|error| Unusable::NotLoaded(format!("cannot be loaded: {}", one_line(&error.to_string()))))?;
    // SAFETY: ONNX Runtime's C API declares `OrtGetApiBase` with this signature, unchanged since version 1.0.
    let get_base =
        unsafe { library.get::<unsafe extern "system" fn() -> *const ort::sys::OrtApiBase>(c"OrtGetApiBase".to_bytes_with_nul()) };
    let get_base = get_base.map_err(|_| Unusable::Loaded("is not an ONNX Runtime library (no OrtGetApiBase)".into()))?;
    // SAFETY: as declared; it takes nothing and returns a pointer to a static table.
    let base = unsafe { get_base() };
    // SAFETY: null, or a table that lives as long as the library does, which `library` keeps loaded until the end of this function.
    let Some(base) = (unsafe { base.as_ref() }) else { return Err(Unusable::Loaded("offers no API (OrtGetApiBase gave nothing)".into())) };
    // SAFETY: an entry of that table; it returns a static string that ends with 0.
    let version = unsafe { CStr::from_ptr((base.GetVersionString)()) }.to_string_lossy().into_owned();
    // SAFETY: an entry of that table; an unknown API version gives null.
    let api = unsafe { (base.GetApi)(ort::MINOR_VERSION) };
    // SAFETY: null, or a table that lives as long as the library does.
    let (Some(api), true) = (unsafe { api.as_ref() }, minor(&version) >= Some(ort::MINOR_VERSION)) else {
        return Err(Unusable::Loaded(format!("is ONNX Runtime {version}, and 1.{} or later is needed", ort::MINOR_VERSION)));
    };
    let providers = available_providers(api).map_err(Unusable::Loaded)?;
    Ok(Verdict::Usable { version, providers })
}

fn minor(version: &str) -> Option<u32> {
    version.split('.').nth(1)?.parse().ok()
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Gives the library to `ort` and starts it.
fn start(candidate: Candidate) -> Result<Runtime, RuntimeError> {
    let Candidate { origin, path, verdict } = candidate;
    let Verdict::Usable { version, .. } = verdict else { return Err(RuntimeError::Named { origin, verdict, path }) };
    let failed = |reason: String| RuntimeError::Start { version: version.clone(), reason: one_line(&reason), path: path.clone() };
    let builder = ort::init_from(&path).map_err(|error| failed(error.to_string()))?;
    let environment = builder.with_name("roentgen").with_telemetry(false).build().map_err(|error| failed(error.to_string()))?;
    let providers = available_providers(ort::api()).map_err(failed)?;
    let build = ort::info().to_owned();
    Ok(Runtime { environment, path, origin, version, build, providers })
}

/// The execution providers compiled into the library whose table of functions this is.
#[allow(unsafe_code)] // `ort` can only be asked about single providers, and about its own library
fn available_providers(api: &ort::sys::OrtApi) -> Result<Vec<String>, String> {
    let (mut names, mut count): (*mut *mut c_char, c_int) = (std::ptr::null_mut(), 0);
    let succeeded = |status: ort::sys::OrtStatusPtr| {
        if status.0.is_null() {
            return true;
        }
        // SAFETY: a status that is not null is ours to release, once.
        unsafe { (api.ReleaseStatus)(status.0) };
        false
    };
    // SAFETY: both pointers are to live variables; the list is the library's until it is released below.
    if !succeeded(unsafe { (api.GetAvailableProviders)(&mut names, &mut count) }) || names.is_null() {
        return Err("does not list its execution providers".into());
    }
    let count_usize = usize::try_from(count).unwrap_or(0);
    // SAFETY: the library says that `names` holds `count` strings, each ending with 0, until they are released.
    let list = (0..count_usize).map(|n| unsafe { CStr::from_ptr(*names.add(n)) }.to_string_lossy().into_owned()).collect();
    // SAFETY: the list and the count that the library gave, released once.
    succeeded(unsafe { (api.ReleaseAvailableProviders)(names, count) });
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::infer::Precision;

    fn candidate(origin: Origin, verdict: Verdict) -> Candidate {
        Candidate { origin, path: "lib".into(), verdict }
    }

    fn usable() -> Verdict {
        with(&[Provider::Cpu])
    }

    fn with(providers: &[Provider]) -> Verdict {
        Verdict::Usable { version: "1.31.1".into(), providers: providers.iter().map(|p| p.name().to_owned()).collect() }
    }

    #[test]
    fn the_first_usable_place_is_taken() {
        let places =
            [candidate(Origin::Executable, Verdict::Missing), candidate(Origin::UserData, usable()), candidate(Origin::System, usable())];
        let chosen = choose(places.into_iter(), Provider::Cpu).unwrap();
        assert_eq!((chosen.origin, chosen.verdict), (Origin::UserData, usable()));
    }

    #[test]
    fn a_named_place_is_never_passed_over() {
        for origin in [Origin::Explicit, Origin::Environment] {
            let error = choose([candidate(origin, Verdict::Missing), candidate(Origin::UserData, usable())].into_iter(), Provider::Cpu)
                .unwrap_err();
            assert_eq!(error.code(), "infer.runtime-refused");
            assert!(error.to_string().contains(&origin.to_string()), "{error}");
        }
    }

    #[test]
    fn without_a_library_the_message_names_setup_and_the_places() {
        let refused = Verdict::Refused { reason: "is ONNX Runtime 1.17.1".into() };
        let error =
            choose([candidate(Origin::Executable, Verdict::Missing), candidate(Origin::System, refused)].into_iter(), Provider::Cpu)
                .unwrap_err();
        assert_eq!(error.code(), "infer.no-runtime");
        let text = error.to_string();
        assert!(text.contains("roentgen setup") && text.contains("1.17.1") && text.contains("next to the program"), "{text}");
    }

    #[test]
    fn a_library_without_the_provider_is_passed_over_or_where_it_is_named_refused() {
        let open_vino = Provider::OpenVino(Precision::BFloat16);
        let places = || [candidate(Origin::Executable, usable()), candidate(Origin::UserData, with(&[open_vino, Provider::Cpu]))];
        assert_eq!(choose(places().into_iter(), open_vino).unwrap().origin, Origin::UserData);
        assert_eq!(choose(places().into_iter(), Provider::Cpu).unwrap().origin, Origin::Executable);
        let error = choose(places().into_iter(), Provider::Cuda).unwrap_err();
        assert_eq!(error.code(), "infer.no-runtime");
        assert!(error.to_string().contains("CUDAExecutionProvider") && !error.to_string().contains("setup"), "{error}");
        let named = [candidate(Origin::Environment, usable())].into_iter().chain(places());
        let error = choose(named, open_vino).unwrap_err();
        assert_eq!(error.code(), "infer.runtime-lacks-provider");
        assert!(error.to_string().contains("setup --provider openvino"), "{error}");
    }

    #[test]
    fn a_text_file_and_another_library_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("libonnxruntime.so.1.31.1");
        assert_eq!(judge(&path), Verdict::Missing);
        std::fs::write(&path, "not a library").unwrap();
        assert!(matches!(judge(&path), Verdict::Refused { .. }));
        #[cfg(target_os = "linux")]
        {
            let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
            std::fs::write(&path, &program[..program.len() / 2]).unwrap();
            assert!(matches!(judge(&path), Verdict::Refused { reason } if reason.contains("cut short")));
            assert!(matches!(probe(Path::new("libc.so.6")), Err(Unusable::Loaded(_))));
            assert!(matches!(probe(Path::new("libno-such-library.so")), Err(Unusable::NotLoaded(_))));
        }
    }

    #[test]
    fn an_explicit_place_comes_first_then_the_variable() {
        let dir = tempfile::tempdir().unwrap();
        let (flag, variable) = (dir.path().join("flag"), dir.path().join("variable"));
        let found: Vec<Candidate> = search(Some(&flag), Some(variable.clone()), Provider::Cpu).take(3).collect();
        assert_eq!((found[0].origin, &found[0].path, &found[0].verdict), (Origin::Explicit, &flag, &Verdict::Missing));
        assert_eq!((found[1].origin, &found[1].path), (Origin::Environment, &variable));
        assert_eq!(found[2].origin, Origin::Executable);
        assert_ne!(search(None, Some(PathBuf::new()), Provider::Cpu).next().unwrap().origin, Origin::Environment); // set but empty
    }

    #[test]
    fn in_a_folder_the_newest_library_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(library_at(dir.path()), dir.path().join(fetch::library_file_name()));
        assert_eq!(library_in(&dir.path().join("none")), dir.path().join("none").join(fetch::library_file_name()));
        for name in ["libonnxruntime.so", "libonnxruntime.so.1.9.0", "libonnxruntime.so.1.31.1", "libonnxruntime_providers_shared.so"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!(library_at(dir.path()), dir.path().join("libonnxruntime.so.1.31.1"));
    }

    #[test]
    fn loads_once_and_refuses_a_second_library() {
        if !locate(None, Provider::Cpu).iter().any(|candidate| matches!(candidate.verdict, Verdict::Usable { .. })) {
            eprintln!("skipped: no ONNX Runtime library (roentgen setup)");
            return;
        }
        let runtime = load(None, Provider::Cpu).unwrap();
        assert!(minor(&runtime.version) >= Some(ort::MINOR_VERSION), "{runtime:?}");
        assert!(runtime.providers.iter().any(|provider| provider == "CPUExecutionProvider"), "{runtime:?}");
        assert!(std::ptr::eq(load(None, Provider::Cpu).unwrap(), runtime));
        assert_eq!(load(None, Provider::DirectMl).unwrap_err().code(), "infer.runtime-lacks-provider");
        assert!(std::ptr::eq(loaded().unwrap(), runtime));
        let error = load(Some(Path::new("/no/such/library.so")), Provider::Cpu).unwrap_err();
        assert_eq!(error.code(), "infer.runtime-already-loaded");
    }
}
