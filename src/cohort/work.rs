//! Which process does which study, where several work on one cohort: no server, and no locks of the file system.
//!
//! 1. `work/claims/KEY.G` says who has the G-th claim on a study: the number of its journal. The file appears with its content or not at
//!    all, and never twice: one process has it.
//! 2. The highest G counts. The next one is only claimed where the owner of the last has ended or died, and the study is not complete.
//! 3. A process lives as long as `work/alive-N.json` is there and changes. On its own machine the system says whether it runs; of one on
//!    another machine, or of before the machine started anew, that was silent for [`SILENCE`], by the clock of who looks, it is taken that it
//!    died.
//! 4. Who was taken for dead and lives does a study that another does, too. Both write the same results, and the journal counts one.
//!
//! ```text
//!   free --KEY.1--> claimed --complete in the journal--> done
//!                    |   ^
//!                    owner gone, KEY.G+1
//! ```

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// How often a process says that it lives.
const BEAT: Duration = Duration::from_secs(5);
/// How long one on another machine may say nothing.
const SILENCE: Duration = Duration::from_secs(60);
/// How often one looks for a sign of another.
const LOOKS: Duration = Duration::from_millis(500);
const CLAIMS: &str = "claims";

/// What a process says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Sign {
    /// Which machine, since when it runs, and which numbering of processes: empty where the system does not say.
    machine: String,
    pid: u32,
    /// When the process began, by that machine's clock; empty where the system does not say.
    began: String,
    beat: u64,
}

impl Sign {
    fn of_this_process() -> Self {
        let pid = std::process::id();
        Self { machine: machine(), pid, began: began(pid).unwrap_or_default(), beat: 0 }
    }

    /// Whether the process runs; none where this machine cannot know.
    fn runs(&self) -> Option<bool> {
        let known = !self.machine.is_empty() && self.machine == machine() && !self.began.is_empty();
        known.then(|| began(self.pid).as_ref() == Some(&self.began))
    }
}

/// Boot and namespace of processes: two containers on one machine do not see each other's.
fn machine() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let namespace = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    if boot.is_empty() { String::new() } else { format!("{} {}", boot.trim(), namespace.display()) }
}

/// Field 22 of `/proc/PID/stat`, counted behind the name, which may hold anything; none for a process that has ended.
fn began(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    (!matches!(*fields.first()?, "Z" | "X")).then(|| fields.get(19).map(|began| (*began).to_owned())).flatten()
}

/// Says that this process lives, until it is dropped.
#[derive(Debug)]
pub(super) struct Alive {
    path: PathBuf,
    _end: Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Alive {
    /// `number` is that of the journal.
    pub(super) fn begin(work: &Path, number: u32) -> io::Result<Self> {
        let path = sign_of(work, number);
        let mut sign = Sign::of_this_process();
        fs::write(&path, serde_json::to_vec(&sign)?)?;
        let (end, ended) = mpsc::channel();
        let beaten = path.clone();
        let beat = move || {
            while ended.recv_timeout(BEAT) == Err(RecvTimeoutError::Timeout) {
                sign.beat += 1;
                // A beat that cannot be written is missed: others wait for several.
                let _ = serde_json::to_vec(&sign).map(|text| fs::write(&beaten, text));
            }
        };
        Ok(Self { path, _end: end, thread: Some(std::thread::spawn(beat)) })
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        let (end, _) = mpsc::channel();
        self._end = end; // the other end goes: the thread hears of it
        self.thread.take().map(JoinHandle::join);
        let _ = fs::remove_file(&self.path);
    }
}

fn sign_of(work: &Path, number: u32) -> PathBuf {
    work.join(format!("alive-{number:04}.json"))
}

/// Numbers of the processes that have not said that they ended, dead ones among them.
fn signs(work: &Path) -> io::Result<Vec<u32>> {
    let entries = match fs::read_dir(work) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let number = |name: &str| name.strip_prefix("alive-")?.strip_suffix(".json")?.parse::<u32>().ok();
    let mut numbers = Vec::new();
    for entry in entries {
        numbers.extend(entry?.file_name().to_str().and_then(number));
    }
    Ok(numbers)
}

/// What can be told of another process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    AtWork,
    /// It has said nothing since it was looked at first, which is not long ago.
    Silent,
    Gone,
}

/// What a process said last.
#[derive(Debug)]
struct Said {
    text: Vec<u8>,
    since: Instant,
    /// Whether it said something else before.
    has_beaten: bool,
}

/// Who else is there.
#[derive(Debug)]
pub(super) struct Others {
    seen: HashMap<u32, Said>,
    silence: Duration,
}

impl Default for Others {
    fn default() -> Self {
        Self { seen: HashMap::new(), silence: SILENCE }
    }
}

impl Others {
    /// Whether the process with this number may still be at work.
    pub(super) fn lives(&mut self, work: &Path, number: u32) -> bool {
        self.look_at(work, number) != Life::Gone
    }

    fn look_at(&mut self, work: &Path, number: u32) -> Life {
        let Ok(text) = fs::read(sign_of(work, number)) else { return Life::Gone };
        if let Some(runs) = serde_json::from_slice::<Sign>(&text).ok().and_then(|sign| sign.runs()) {
            return if runs { Life::AtWork } else { Life::Gone };
        }
        let new = |text, has_beaten| Said { text, since: Instant::now(), has_beaten };
        let said = self.seen.entry(number).or_insert_with(|| new(text.clone(), false));
        if said.text != text {
            *said = new(text, true);
        }
        match said.since.elapsed() < self.silence {
            true if said.has_beaten => Life::AtWork,
            true => Life::Silent,
            false => Life::Gone,
        }
    }

    /// Whether any other than `own` may still be at work.
    pub(super) fn any_lives(&mut self, work: &Path, own: Option<u32>) -> io::Result<bool> {
        Ok(signs(work)?.into_iter().any(|number| Some(number) != own && self.lives(work, number)))
    }

    /// Whether any is at work. Where only time can tell, waits until one says something, or all were silent for long enough, and `say`s so;
    /// where `go_on` ends that, who is silent counts.
    pub(super) fn any_at_work(&mut self, work: &Path, go_on: &dyn Fn() -> bool, say: &dyn Fn(String)) -> io::Result<bool> {
        let mut has_said = false;
        loop {
            let lives: Vec<Life> = signs(work)?.into_iter().map(|number| self.look_at(work, number)).collect();
            if lives.contains(&Life::AtWork) {
                return Ok(true);
            }
            if !lives.contains(&Life::Silent) || !go_on() {
                return Ok(lives.contains(&Life::Silent));
            }
            if !std::mem::replace(&mut has_said, true) {
                say(format!(
                    "a process of another machine, or of before this one started anew, has not said that it ended: waiting up to {} s for a \
                     sign of it",
                    self.silence.as_secs()
                ));
            }
            std::thread::sleep(LOOKS.min(self.silence));
        }
    }

    /// Takes the signs of those away that are gone.
    pub(super) fn remove_signs(&mut self, work: &Path) -> io::Result<()> {
        for number in signs(work)? {
            if !self.lives(work, number) {
                match fs::remove_file(sign_of(work, number)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

/// The claims of one process.
#[derive(Debug)]
pub(super) struct Claims {
    folder: PathBuf,
    number: u32,
}

impl Claims {
    pub(super) fn of(work: &Path, number: u32) -> io::Result<Self> {
        let folder = work.join(CLAIMS);
        fs::create_dir_all(&folder)?;
        Ok(Self { folder, number })
    }

    /// Claims a study that nobody has claimed yet.
    pub(super) fn take(&self, study: &str) -> io::Result<bool> {
        self.claim(study, 1)
    }

    /// Claims a study whose last claim was the `generation`-th.
    pub(super) fn take_over(&self, study: &str, generation: u32) -> io::Result<bool> {
        self.claim(study, generation + 1)
    }

    fn claim(&self, study: &str, generation: u32) -> io::Result<bool> {
        let mut file = tempfile::Builder::new().prefix(".claim-").tempfile_in(&self.folder)?;
        write!(file, "{}", self.number)?;
        match file.persist_noclobber(self.folder.join(format!("{study}.{generation}"))) {
            Ok(_) => Ok(true),
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error.error),
        }
    }

    /// The last claim on each study: its generation, and the number of its owner.
    pub(super) fn last(&self) -> io::Result<BTreeMap<String, (u32, u32)>> {
        let mut last: BTreeMap<String, (u32, u32)> = BTreeMap::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some((study, generation)) = name.to_str().and_then(|n| n.split_once('.')).filter(|(study, _)| !study.is_empty()) else {
                continue;
            };
            let Ok(generation) = generation.parse() else { continue };
            if last.get(study).is_none_or(|(known, _)| *known < generation) {
                let owner = fs::read_to_string(entry.path())?.trim().parse().unwrap_or(0);
                last.insert(study.to_owned(), (generation, owner));
            }
        }
        Ok(last)
    }
}

/// Takes the claims on these studies away, while nobody is at work.
pub(super) fn release<'k>(work: &Path, studies: impl Iterator<Item = &'k str>) -> io::Result<()> {
    let released: BTreeSet<&str> = studies.collect();
    let entries = match fs::read_dir(work.join(CLAIMS)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_str().and_then(|name| name.split_once('.')).is_some_and(|(study, _)| released.contains(study)) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Set when the run is to end after what is at hand.
pub(super) fn is_set(stop: &AtomicBool) -> bool {
    stop.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_study_has_one_owner_at_a_time() {
        let work = tempfile::tempdir().unwrap();
        let [one, two] = [1, 2].map(|number| Claims::of(work.path(), number).unwrap());
        assert!(one.take("a").unwrap());
        assert!(!two.take("a").unwrap());
        assert!(two.take("b").unwrap());
        assert_eq!(two.last().unwrap()["a"], (1, 1));
        assert!(two.take_over("a", 1).unwrap());
        assert!(!one.take_over("a", 1).unwrap());
        assert_eq!(one.last().unwrap()["a"], (2, 2));
    }

    #[test]
    fn who_has_ended_or_died_is_known() {
        let work = tempfile::tempdir().unwrap();
        let mut others = Others::default();
        assert!(!others.lives(work.path(), 1), "no sign");
        let alive = Alive::begin(work.path(), 1).unwrap();
        assert!(others.lives(work.path(), 1) && others.any_lives(work.path(), None).unwrap());
        assert!(!others.any_lives(work.path(), Some(1)).unwrap());
        drop(alive);
        assert!(!others.lives(work.path(), 1), "it said so");
        let mut killed = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let sign = Sign { pid: killed.id(), began: began(killed.id()).unwrap_or_default(), ..Sign::of_this_process() };
        fs::write(sign_of(work.path(), 2), serde_json::to_vec(&sign).unwrap()).unwrap();
        assert!(others.lives(work.path(), 2));
        killed.kill().unwrap();
        killed.wait().unwrap();
        if sign.runs().is_some() {
            assert!(!others.lives(work.path(), 2), "killed");
        }
        let elsewhere = Sign { machine: "another".into(), ..sign };
        fs::write(sign_of(work.path(), 3), serde_json::to_vec(&elsewhere).unwrap()).unwrap();
        assert!(others.lives(work.path(), 3), "not silent for long");
    }

    #[test]
    fn a_sign_that_a_power_failure_left_is_waited_for_once() {
        let work = tempfile::tempdir().unwrap();
        let left = Sign { machine: "before the power failed".into(), ..Sign::of_this_process() };
        fs::write(sign_of(work.path(), 1), serde_json::to_vec(&left).unwrap()).unwrap();
        let said = std::cell::Cell::new(0);
        let say = |_: String| said.set(said.get() + 1);
        let mut others = Others { silence: Duration::from_millis(50), ..Others::default() };
        assert!(others.any_at_work(work.path(), &|| false, &say).unwrap(), "nobody knows yet");
        assert!(!others.any_at_work(work.path(), &|| true, &say).unwrap());
        assert_eq!(said.get(), 1);
        others.remove_signs(work.path()).unwrap();
        assert!(signs(work.path()).unwrap().is_empty());
        // One that beats is at work, wherever.
        let beats = |beat| fs::write(sign_of(work.path(), 2), serde_json::to_vec(&Sign { beat, ..left.clone() }).unwrap()).unwrap();
        let mut others = Others::default();
        beats(1);
        assert!(others.lives(work.path(), 2));
        beats(2);
        assert!(others.any_at_work(work.path(), &|| true, &say).unwrap());
        others.remove_signs(work.path()).unwrap();
        assert_eq!((signs(work.path()).unwrap(), said.get()), (vec![2], 1));
    }
}
