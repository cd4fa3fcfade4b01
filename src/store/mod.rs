//! What the node has received and made: files named by their content, and one SQLite database that knows them.
//!
//! ```text
//! incoming/     instances that are being received or wait to be entered, and empty files for the next ones
//! instances/    ab/abcdef...dcm: by the SHA-256 of transfer syntax and data set
//! quarantine/   the same, of what is kept and not used
//! results/      a folder a job
//! node.sqlite   WAL, synchronous FULL
//! lock          held by the process that works here
//! ```
//!
//! Invariants:
//! 1. An instance is acknowledged only after its file is sealed and synced ([`Receiving::finish`]). The file is its own journal entry: its
//!    preamble holds a checksum of what follows, so that after a crash it is entered or, unfinished, thrown away. Its SHA-256 is of its
//!    name: whoever enters it reads it for that, and the sender does not wait.
//! 2. A file leaves `incoming` only after the transaction that enters it is on disk.
//! 3. A file in `instances` never changes; one that the disk has damaged is replaced when the same data set comes again. The same data
//!    set is the same file, whoever sends it, and whenever.
//! 4. A SOP Instance UID names one content. Other content under it goes to quarantine, and so does another patient's in a known study.
//! 5. What came because we asked for it is held and makes no job, unless it is sent to us as well. It goes to quarantine where it is not
//!    beyond doubt of the patient that it was asked for (`asked.rs`).

mod asked;
mod audit;
mod crash;
mod database;
mod early;
mod error;
mod held;
mod in_use;
mod index;
mod known;
mod namer;
mod objects;
mod receive;
mod remove;
mod seal;
mod space;
mod spare;
#[cfg(test)]
mod tests;
mod write_out;

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use sqlx::SqlitePool;
use tokio::runtime::Handle;

pub use audit::{AuditRecord, Broken, verify};
pub use crash::{crash_point, loses_device};
pub use error::StoreError;
pub use held::Held;
pub use objects::Object;
pub use receive::{Announced, Kept, Receiving};
pub use remove::Old;
pub use seal::PREAMBLE_BYTES;

use crate::codes::Uid;
use crate::dataset::Identity;
use in_use::InUse;
use index::Entry;
use known::Reader;
use space::Space;
use spare::Spares;

/// The store of one node.
#[derive(Debug)]
pub struct Store {
    shared: Arc<Shared>,
    space: Space,
    spares: Spares,
    reader: Reader,
    /// What the indexer is to enter; it ends when this does.
    queue: Option<SyncSender<Entry>>,
    indexer: Option<JoinHandle<()>>,
    _lock: File,
}

/// What store and indexer both use.
#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    pool: SqlitePool,
    runtime: Handle,
    sealed: Mutex<Sealed>,
    /// The patient of the study that earlier ones were asked for last.
    patient: Mutex<Option<(Uid, Identity)>>,
    in_use: Mutex<InUse>,
}

/// What is on disk and not yet in the database, so that nothing contradicts it meanwhile.
#[derive(Debug, Default)]
struct Sealed {
    /// SOP Instance UIDs. One that comes again waits until the first is entered.
    instances: HashSet<Uid>,
    /// Study Instance UID to the hash of its patient, and how many of its instances wait.
    patients: HashMap<Uid, (String, usize)>,
    /// Batches that are in the database: what was asked of it before the last one may say less than it and these maps do together.
    batches: u64,
}

impl Store {
    /// Opens the store in `folder`, which is made where it is not there, and recovers what a crash left in `incoming`. `keep_free_mb` is what
    /// the disk must have left for an instance to be taken.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn open(folder: &Path, keep_free_mb: u64) -> Result<Arc<Self>, StoreError> {
        for name in ["incoming", "quarantine", "results"] {
            fs::create_dir_all(folder.join(name))?;
        }
        for first_byte in 0..=u8::MAX {
            fs::create_dir_all(folder.join("instances").join(format!("{first_byte:02x}")))?;
        }
        let lock = File::create(folder.join("lock"))?;
        lock.try_lock().map_err(|_| StoreError::InUse)?;
        let database = folder.join("node.sqlite");
        let pool = database::open(&database).await?;
        let reader = Reader::open(&database)?;
        remove::sweep(folder, &pool).await?;
        let shared = Arc::new(Shared {
            folder: folder.to_owned(),
            pool,
            runtime: Handle::current(),
            sealed: Mutex::default(),
            patient: Mutex::default(),
            in_use: Mutex::default(),
        });
        let (queue, indexer) = index::start(&shared)?;
        let space = Space::of(folder, keep_free_mb);
        let spares = Spares::in_folder(folder.join("incoming"))?;
        let store = Arc::new(Self { shared, space, spares, reader, queue: Some(queue), indexer: Some(indexer), _lock: lock });
        let recovered = Arc::clone(&store);
        tokio::task::spawn_blocking(move || recovered.recover()).await.map_err(std::io::Error::other)??;
        Ok(store)
    }

    /// The database.
    pub fn pool(&self) -> &SqlitePool {
        &self.shared.pool
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.shared.folder
    }

    /// Where an instance of that content lies, once it is entered.
    pub fn path_of(&self, content: &str) -> PathBuf {
        self.shared.path_of(content)
    }

    /// Free space on its disk, MB.
    ///
    /// # Errors
    /// Where the system does not say.
    pub fn free_mb(&self) -> Result<u64, StoreError> {
        self.space.free_mb()
    }

    /// The files of a study's instances.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn files_of_study(&self, study_uid: &str) -> Result<Vec<PathBuf>, StoreError> {
        let query = sqlx::query_as("SELECT content FROM instance WHERE study_uid = ? ORDER BY sop_instance_uid");
        let contents: Vec<(String,)> = query.bind(study_uid).fetch_all(self.pool()).await?;
        Ok(contents.iter().map(|(content,)| self.path_of(content)).collect())
    }

    /// An association has brought the first of a study: it is neither complete nor taken away before that has ended.
    pub fn study_opened(&self, study_uid: &str) {
        self.shared.in_use().hold(study_uid);
    }

    /// One time of those that it was opened is over.
    pub fn study_closed(&self, study_uid: &str) {
        self.shared.in_use().let_go(study_uid);
    }

    /// Whether an open association may bring more of a study.
    pub fn is_open(&self, study_uid: &str) -> bool {
        self.shared.in_use().is_held(study_uid)
    }

    /// An association that brought instances of these studies has ended: `released`, or cut off.
    pub fn association_ended(&self, studies: Vec<Uid>, released: bool) {
        if !studies.is_empty() {
            self.enter(Entry::Ended { studies, released });
        }
    }

    /// Remembers it; on disk a moment later, after what was handed in before.
    pub fn audit(&self, record: AuditRecord) {
        self.enter(Entry::Audit(record));
    }

    /// Waits until all that was handed in is entered.
    pub fn flush(&self) {
        let (done, wait) = std::sync::mpsc::channel();
        self.enter(Entry::Flush(done));
        let _ = wait.recv(); // the indexer drops it in any case
    }

    /// Hands something to the indexer; waits where it is behind.
    fn enter(&self, entry: Entry) {
        let queue = self.queue.as_ref().expect("the queue is there until the store is dropped");
        queue.send(entry).expect("the indexer runs as long as there is a queue");
    }
}

impl Drop for Store {
    /// Waits until all that is sealed is entered.
    fn drop(&mut self) {
        self.queue = None;
        if let Some(indexer) = self.indexer.take() {
            let _ = indexer.join(); // a panic there was told there, and the files are still in `incoming`
        }
    }
}

impl Shared {
    fn path_of(&self, content: &str) -> PathBuf {
        self.folder.join("instances").join(&content[..2]).join(format!("{content}.dcm"))
    }

    fn sealed(&self) -> MutexGuard<'_, Sealed> {
        self.sealed.lock().unwrap_or_else(PoisonError::into_inner) // its maps are whole between any two statements
    }

    fn in_use(&self) -> MutexGuard<'_, InUse> {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner) // as above
    }
}

impl Sealed {
    /// Notes what waits, unless it is of another patient than what waits of its study already.
    fn add(&mut self, sop_instance_uid: &str, study_uid: &str, patient_key: &str) -> Result<(), Contradiction> {
        let (patient, count) = self.patients.entry(study_uid.to_owned()).or_insert_with(|| (patient_key.to_owned(), 0));
        if patient != patient_key {
            return Err(Contradiction::Patient);
        }
        *count += 1;
        self.instances.insert(sop_instance_uid.to_owned());
        Ok(())
    }

    /// Forgets what waits no more.
    fn remove(&mut self, sop_instance_uid: &str, study_uid: &str) {
        self.instances.remove(sop_instance_uid);
        if let Some((_, count)) = self.patients.get_mut(study_uid) {
            *count -= 1;
            if *count == 0 {
                self.patients.remove(study_uid);
            }
        }
    }
}

/// How something that comes differs from what is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Contradiction {
    /// Other content under a known SOP Instance UID.
    Content,
    /// Another patient in a known study.
    Patient,
    /// Another patient than it was asked for, or not asked for at all.
    NotAsked,
}

impl Contradiction {
    fn reason(self) -> &'static str {
        match self {
            Self::Content => "other content under the same SOP Instance UID",
            Self::Patient => "another patient in the same study",
            Self::NotAsked => "of another patient than it was asked for, or not asked for",
        }
    }
}

/// Milliseconds since 1970, UTC.
pub fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
