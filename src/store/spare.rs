//! Files that are made before the instances that will fill them.
//!
//! The sync of a new file waits until its name, its inode and the blocks that the file system finds for it are on disk, and where others
//! write to that disk, for what they were given, too: 0.36 ms, and 10 ms beside a build (ext4). One that was there before, with blocks of its
//! own, takes 0.25 ms either way.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use super::now_ms;
use crate::codes::hex;

/// Files that wait.
const AHEAD: usize = 16;
/// Of the blocks of one: what is longer finds the rest while it arrives.
const BYTES: u64 = 4 << 20;
/// Bytes of a block, where they are not fewer.
const BLOCK: u64 = 4096;

/// Files of `incoming` that are empty and nobody's yet. Those that are left go when it is dropped.
#[derive(Debug)]
pub(super) struct Spares {
    shelf: Arc<Shelf>,
    maker: Option<JoinHandle<()>>,
}

/// A file for one instance.
#[derive(Debug)]
pub(super) struct Spare {
    pub(super) file: File,
    pub(super) path: PathBuf,
    calling: String,
    /// Bytes that it has blocks for.
    blocks: u64,
}

#[derive(Debug)]
struct Shelf {
    incoming: PathBuf,
    state: Mutex<State>,
    wanted: Condvar,
}

#[derive(Debug, Default)]
struct State {
    spares: VecDeque<Spare>,
    /// AE title of the last sender, and the bytes of its instance: the next one is like it.
    last: Option<(String, u64)>,
    ended: bool,
}

impl Spares {
    /// None yet: what is like the first instance is made when that is there.
    pub(super) fn in_folder(incoming: PathBuf) -> io::Result<Self> {
        let shelf = Arc::new(Shelf { incoming, state: Mutex::default(), wanted: Condvar::new() });
        let makes = Arc::clone(&shelf);
        let maker = thread::Builder::new().name("spares".into()).spawn(move || makes.run())?;
        Ok(Self { shelf, maker: Some(maker) })
    }

    /// A file for an instance of that sender.
    pub(super) fn take(&self, calling: &str) -> io::Result<Spare> {
        let taken = {
            let mut state = self.shelf.state();
            let own = state.spares.iter().position(|spare| spare.calling == calling);
            state.spares.remove(own.unwrap_or(0))
        };
        match taken {
            Some(spare) if spare.calling == calling => Ok(spare),
            Some(spare) => spare.renamed(&self.shelf.incoming, calling),
            None => Spare::new(&self.shelf.incoming, calling),
        }
    }

    /// An instance of that sender has that many bytes.
    pub(super) fn came(&self, calling: &str, bytes: u64) {
        let mut state = self.shelf.state();
        state.last = Some((calling.to_owned(), bytes.next_multiple_of(BLOCK).min(BYTES)));
        if state.spares.len() <= AHEAD / 2 {
            self.shelf.wanted.notify_one();
        }
    }
}

impl Drop for Spares {
    fn drop(&mut self) {
        self.shelf.state().ended = true;
        self.shelf.wanted.notify_one();
        if let Some(maker) = self.maker.take() {
            let _ = maker.join(); // a panic there was told there
        }
        for spare in &self.shelf.state().spares {
            let _ = fs::remove_file(&spare.path); // the next start throws it away
        }
    }
}

impl Shelf {
    fn run(&self) {
        let mut state = self.state();
        while !state.ended {
            match state.last.clone() {
                Some((calling, bytes)) if state.spares.len() < AHEAD => {
                    drop(state);
                    let made = Spare::new(&self.incoming, &calling).map(|spare| spare.with_blocks(bytes));
                    state = self.state();
                    match made {
                        Ok(spare) => state.spares.push_back(spare),
                        Err(_) => state.last = None, // an instance that comes is told why
                    }
                }
                _ => {
                    state.last = None;
                    state = self.wanted.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner) // it is whole between any two statements
    }
}

impl Spare {
    fn new(incoming: &Path, calling: &str) -> io::Result<Self> {
        let path = incoming.join(name(calling));
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        Ok(Self { file, path, calling: calling.to_owned(), blocks: 0 })
    }

    fn renamed(self, incoming: &Path, calling: &str) -> io::Result<Self> {
        let path = incoming.join(name(calling));
        fs::rename(&self.path, &path)?;
        Ok(Self { path, calling: calling.to_owned(), ..self })
    }

    fn with_blocks(mut self, bytes: u64) -> Self {
        if reserve(&self.file, bytes) {
            self.blocks = bytes;
        }
        self
    }

    /// Gives back the blocks beyond its end. That takes 0.05 ms, so it is not done where there are none.
    pub(super) fn trim(&self, bytes: u64) -> io::Result<()> {
        if self.blocks > bytes.next_multiple_of(BLOCK) { self.file.set_len(bytes) } else { Ok(()) }
    }
}

/// Number of the next file in `incoming` in this process.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Of a file in `incoming`. The title is needed where the file is recovered; it may hold any printable character.
fn name(calling: &str) -> String {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{:016x}-{}-{number:08}-{}.dcm", now_ms(), std::process::id(), hex(calling.as_bytes()))
}

/// The AE title in a file's name.
pub(super) fn calling_of(path: &Path) -> String {
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let digits = name.rsplit('-').next().unwrap_or_default().as_bytes();
    let byte = |pair: &[u8]| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok());
    digits.chunks(2).filter_map(byte).map(char::from).collect()
}

/// Whether the file has blocks for that many bytes now; it is not longer for it.
#[cfg(target_os = "linux")]
fn reserve(file: &File, bytes: u64) -> bool {
    rustix::fs::fallocate(file, rustix::fs::FallocateFlags::KEEP_SIZE, 0, bytes).is_ok() // it finds them while it arrives otherwise
}

#[cfg(not(target_os = "linux"))]
fn reserve(_: &File, _: u64) -> bool {
    false
}
