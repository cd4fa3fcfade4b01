//! Naming what is sealed by its content, and entering it into the database, many instances a transaction.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::{Sqlite, Transaction};

use super::audit::{self, AuditRecord};
use super::receive::Announced;
use super::remove::{self, Old};
use super::seal::{self, Contents};
use super::{Shared, StoreError, namer, now_ms};
use crate::codes::Uid;

/// Instances that may wait; whoever brings more waits, too.
const QUEUE: usize = 4096;
/// Entries of one transaction at most.
pub(super) const BATCH: usize = 1024;
/// How long an entry may wait for others, unless an association ends or somebody asks. Its file is on disk by then, whatever happens, and what
/// is read for its name meanwhile need not be read while its sender waits.
const GATHER: Duration = Duration::from_millis(500);
/// How often it is looked for more meanwhile: whoever brings an entry need not wake anybody.
const LOOK: Duration = Duration::from_millis(5);
/// Between two attempts at a transaction that fails.
const RETRY: Duration = Duration::from_secs(1);

/// An instance as its header says.
#[derive(Debug, Clone)]
pub(super) struct Arrival {
    pub(super) path: PathBuf,
    pub(super) contents: OnceLock<Contents>,
    pub(super) sop_instance_uid: Uid,
    pub(super) sop_class_uid: Uid,
    pub(super) series_uid: Uid,
    pub(super) study_uid: Uid,
    pub(super) patient_key: String,
    pub(super) bytes: u64,
    pub(super) calling: String,
    pub(super) received_ms: i64,
    /// How many instances it says that its study and its series have.
    pub(super) of_study: Option<i64>,
    pub(super) of_series: Option<i64>,
    /// It came because we asked for it.
    pub(super) asked: bool,
}

impl Arrival {
    /// What the command says of the instance in that file: all that is known of one whose header cannot be read.
    pub(super) fn announced(path: PathBuf, announced: &Announced) -> Self {
        Self {
            path,
            contents: OnceLock::new(),
            sop_instance_uid: announced.sop_instance_uid.clone(),
            sop_class_uid: announced.sop_class_uid.clone(),
            series_uid: Uid::new(),
            study_uid: Uid::new(),
            patient_key: String::new(),
            bytes: 0,
            calling: announced.calling.clone(),
            received_ms: now_ms(),
            of_study: None,
            of_series: None,
            asked: announced.asked,
        }
    }

    /// What is in its file now.
    pub(super) fn read(&self) -> io::Result<Contents> {
        Ok(seal::read(&mut File::open(&self.path)?)?.ok_or(io::ErrorKind::InvalidData)?)
    }

    /// What is in its file, which is read when that is asked for first, after it is handed in.
    pub(super) fn contents(&self) -> io::Result<&Contents> {
        if let Some(known) = self.contents.get() {
            return Ok(known);
        }
        let contents = self.read()?;
        Ok(self.contents.get_or_init(|| contents))
    }

    fn content(&self) -> io::Result<&str> {
        Ok(&self.contents()?.name)
    }
}

/// What the indexer is to enter, in this order.
#[derive(Debug)]
pub(super) enum Entry {
    /// A sealed instance.
    Instance(Arc<Arrival>),
    /// One that is entered and lies in `incoming` still.
    Move(Arrival),
    /// One that is kept for people to look at, and why.
    Quarantine(Arrival, String),
    /// What is old, and the destinations that must have committed their results (JSON).
    Remove(Old, String),
    /// What is to be remembered.
    Audit(AuditRecord),
    /// An association that brought some of these studies has ended.
    Ended { studies: Vec<Uid>, released: bool },
    /// Somebody waits until this is reached.
    Flush(Sender<()>),
}

impl Entry {
    /// The instance that it is about.
    fn arrival(&self) -> Option<&Arrival> {
        match self {
            Self::Instance(arrival) => Some(arrival),
            Self::Move(arrival) | Self::Quarantine(arrival, _) => Some(arrival),
            _ => None,
        }
    }
}

/// Starts the indexer; it ends when the sender is dropped, after the last entry.
pub(super) fn start(shared: &Arc<Shared>) -> io::Result<(SyncSender<Entry>, JoinHandle<()>)> {
    let (sender, queue) = sync_channel(QUEUE);
    let shared = Arc::clone(shared);
    let namer = namer::start()?;
    let thread = thread::Builder::new().name("indexer".into()).spawn(move || run(&shared, &queue, &namer))?;
    Ok((sender, thread))
}

fn run(shared: &Shared, queue: &Receiver<Entry>, namer: &SyncSender<Arc<Arrival>>) {
    while let Ok(first) = queue.recv() {
        let batch: Vec<Entry> = gathered(first, queue, namer).into_iter().filter_map(|entry| named(shared, entry)).collect();
        // Nothing is lost by waiting: every file is in `incoming`, sealed.
        while let Err(error) = shared.runtime.block_on(enter(shared, &batch)) {
            tracing::error!(%error, "instances cannot be entered, trying again");
            thread::sleep(RETRY);
        }
        shared.sealed().batches += 1;
        batch.iter().for_each(|entry| done(shared, entry));
    }
}

/// What comes within [`GATHER`], or until somebody waits for it: a transaction has to be synced, and would hold up the files that are.
fn gathered(first: Entry, queue: &Receiver<Entry>, namer: &SyncSender<Arc<Arrival>>) -> Vec<Entry> {
    let deadline = Instant::now() + GATHER;
    let mut batch = vec![first];
    let mut handed_over = 0;
    while batch.len() < BATCH && !matches!(batch.last(), Some(Entry::Audit(_) | Entry::Ended { .. } | Entry::Flush(_))) {
        match queue.try_recv() {
            Ok(entry) => batch.push(entry),
            Err(TryRecvError::Empty) if Instant::now() < deadline => {
                for arrival in batch[handed_over..].iter().filter_map(instance) {
                    let _ = namer.try_send(Arc::clone(arrival));
                }
                handed_over = batch.len();
                thread::sleep(LOOK);
            }
            Err(_) => break,
        }
    }
    batch
}

/// The entry, once it is known what is in its file. One that was acknowledged and is no longer what was received goes to quarantine. What
/// cannot be read is told, and left in `incoming` for the next start; its sender may bring it once more.
fn named(shared: &Shared, entry: Entry) -> Option<Entry> {
    let Some(arrival) = entry.arrival() else { return Some(entry) };
    let is_sealed = match arrival.contents() {
        Ok(contents) => contents.is_sealed,
        Err(error) => {
            tracing::error!(%error, "an instance in `incoming` cannot be read again");
            waits_no_more(shared, &entry);
            return None;
        }
    };
    match &entry {
        Entry::Instance(arrival) if !is_sealed => {
            tracing::error!("an instance in `incoming` is no longer what was received");
            waits_no_more(shared, &entry);
            Some(Entry::Quarantine(Arrival::clone(arrival), "damaged on this disk before it was entered".into()))
        }
        _ => Some(entry),
    }
}

/// One transaction for all.
async fn enter(shared: &Shared, batch: &[Entry]) -> Result<(), StoreError> {
    let mut transaction = shared.pool.begin_with("BEGIN IMMEDIATE").await?;
    for entries in batch.chunk_by(|one, next| sent(one).is_some() && sent(next).is_some()) {
        match &entries[0] {
            Entry::Instance(arrival) if arrival.asked => enter_asked(&mut transaction, arrival).await?,
            Entry::Instance(_) => enter_sent(&mut transaction, entries.iter().filter_map(sent).collect()).await?,
            Entry::Move(_) | Entry::Flush(_) => {}
            Entry::Quarantine(arrival, reason) => quarantine(&mut transaction, arrival, reason).await?,
            Entry::Remove(old, committing) => remove::enter(shared, &mut transaction, old, committing).await?,
            Entry::Audit(record) => audit::append(&mut transaction, record).await?,
            Entry::Ended { studies, released } => {
                for study_uid in studies {
                    let query =
                        sqlx::query("UPDATE study SET cut_off = ?, last_arrival_ms = ? WHERE study_uid = ? AND state = 'receiving'");
                    query.bind(!released).bind(now_ms()).bind(study_uid).execute(&mut *transaction).await?;
                }
            }
        }
    }
    transaction.commit().await?;
    Ok(())
}

fn instance(entry: &Entry) -> Option<&Arc<Arrival>> {
    match entry {
        Entry::Instance(arrival) => Some(arrival),
        _ => None,
    }
}

/// An instance that we did not ask for.
fn sent(entry: &Entry) -> Option<&Arrival> {
    instance(entry).map(|arrival| &**arrival).filter(|arrival| !arrival.asked)
}

async fn enter_asked(transaction: &mut Transaction<'_, Sqlite>, arrival: &Arrival) -> Result<(), StoreError> {
    if !insert(transaction, &[arrival]).await?.is_empty() {
        keep(transaction, &arrival.study_uid).await?;
    }
    let query = sqlx::query(
        "INSERT INTO study (study_uid, patient_key, state, generation, cut_off, last_arrival_ms) VALUES (?, ?, 'held', 0, 0, ?)
         ON CONFLICT DO NOTHING",
    );
    let query = query.bind(&arrival.study_uid).bind(&arrival.patient_key).bind(arrival.received_ms);
    query.execute(&mut **transaction).await?;
    Ok(())
}

/// Together: a few statements for each instance take a quarter of the processor time of receiving it.
async fn enter_sent(transaction: &mut Transaction<'_, Sqlite>, arrivals: Vec<&Arrival>) -> Result<(), StoreError> {
    let mut entered = insert(transaction, &arrivals).await?;
    let mut studies: BTreeMap<&Uid, Vec<&Arrival>> = BTreeMap::new();
    for arrival in arrivals {
        // One that was damaged or lost and has come again is nothing new.
        if entered.remove(&arrival.sop_instance_uid) {
            studies.entry(&arrival.study_uid).or_default().push(arrival);
        }
    }
    for (study_uid, arrivals) in studies {
        keep(transaction, study_uid).await?;
        // A result of ours that comes back is nothing new of its study.
        let query = sqlx::query(
            "INSERT INTO study (study_uid, patient_key, state, generation, cut_off, last_arrival_ms) VALUES (?, ?, 'receiving', 0, 1, ?)
             ON CONFLICT (study_uid) DO UPDATE SET state = 'receiving', cut_off = 1, last_arrival_ms = excluded.last_arrival_ms
             WHERE EXISTS (SELECT 1 FROM json_each(?) AS here
                           WHERE NOT EXISTS (SELECT 1 FROM result WHERE sop_instance_uid = here.value))",
        );
        let last = arrivals[arrivals.len() - 1];
        let uids: Vec<&Uid> = arrivals.iter().map(|arrival| &arrival.sop_instance_uid).collect();
        let query = query.bind(study_uid).bind(&last.patient_key).bind(last.received_ms).bind(json!(uids).to_string());
        query.execute(&mut **transaction).await?;
    }
    Ok(())
}

/// The SOP Instance UIDs of those that were not here before.
async fn insert(transaction: &mut Transaction<'_, Sqlite>, arrivals: &[&Arrival]) -> Result<HashSet<Uid>, StoreError> {
    let row = |arrival: &&Arrival| -> io::Result<Value> {
        Ok(json!([
            arrival.content()?,
            arrival.sop_instance_uid,
            arrival.sop_class_uid,
            arrival.series_uid,
            arrival.study_uid,
            i64::try_from(arrival.bytes).unwrap_or(i64::MAX),
            arrival.calling,
            arrival.received_ms,
            arrival.of_study,
            arrival.of_series,
        ]))
    };
    let query = sqlx::query_scalar(
        "INSERT INTO instance (content, sop_instance_uid, sop_class_uid, series_uid, study_uid, bytes, calling, received_ms, of_study, of_series)
         SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7, value ->> 8, value ->> 9
         FROM json_each(?) WHERE true ON CONFLICT DO NOTHING RETURNING sop_instance_uid",
    );
    let rows = arrivals.iter().map(row).collect::<io::Result<Vec<Value>>>()?;
    let entered: Vec<Uid> = query.bind(json!(rows).to_string()).fetch_all(&mut **transaction).await?;
    Ok(entered.into_iter().collect())
}

/// Its instances are here, again where they were removed.
async fn keep(transaction: &mut Transaction<'_, Sqlite>, study_uid: &str) -> Result<(), StoreError> {
    let query = sqlx::query("UPDATE study SET kept = 1 WHERE study_uid = ? AND kept = 0");
    query.bind(study_uid).execute(&mut **transaction).await?;
    Ok(())
}

async fn quarantine(transaction: &mut Transaction<'_, Sqlite>, arrival: &Arrival, reason: &str) -> Result<(), StoreError> {
    let query = sqlx::query(
        "INSERT INTO quarantine (content, sop_instance_uid, study_uid, reason, calling, received_ms) VALUES (?, ?, ?, ?, ?, ?)
         ON CONFLICT DO UPDATE SET calling = calling || '\\' || excluded.calling
         WHERE instr('\\' || calling || '\\', '\\' || excluded.calling || '\\') = 0",
    );
    let entered = query
        .bind(arrival.content()?)
        .bind(&arrival.sop_instance_uid)
        .bind(&arrival.study_uid)
        .bind(reason)
        .bind(&arrival.calling)
        .bind(arrival.received_ms)
        .execute(&mut **transaction)
        .await?;
    if entered.rows_affected() > 0 {
        let detail = format!("in quarantine: {reason}");
        let record = AuditRecord { outcome: 4, ..AuditRecord::transferred("U", &arrival.calling, &arrival.study_uid, detail) };
        audit::append(transaction, &record).await?;
    }
    Ok(())
}

/// What an entry still asks for once it is in the database.
fn done(shared: &Shared, entry: &Entry) {
    match entry {
        Entry::Instance(arrival) => {
            super::crash_point("after-enter");
            moved(arrival, |content| shared.path_of(content));
            waits_no_more(shared, entry);
        }
        Entry::Move(arrival) => moved(arrival, |content| shared.path_of(content)),
        Entry::Quarantine(arrival, _) => moved(arrival, |content| shared.folder.join("quarantine").join(format!("{content}.dcm"))),
        Entry::Ended { studies, .. } => {
            let mut in_use = shared.in_use();
            studies.iter().for_each(|study_uid| in_use.let_go(study_uid));
        }
        Entry::Remove(old, _) => {
            super::crash_point("after-remove");
            if let Old::Study(study_uid) = old {
                shared.in_use().gone(study_uid);
            }
            if let Err(error) = shared.runtime.block_on(remove::sweep(&shared.folder, &shared.pool)) {
                tracing::error!(%error, "old files cannot be removed; that is tried again with the next ones");
            }
        }
        Entry::Flush(done) => done.send(()).unwrap_or_default(), // nobody waits any more
        Entry::Audit(_) => {}
    }
}

/// Moves a file to where the database says that it is. A failure leaves it in `incoming`, where the next start finds it.
fn moved(arrival: &Arrival, to: impl FnOnce(&str) -> PathBuf) {
    if let Err(error) = arrival.content().and_then(|content| fs::rename(&arrival.path, to(content))) {
        tracing::error!(%error, "an instance cannot be moved out of `incoming`");
    }
}

fn waits_no_more(shared: &Shared, entry: &Entry) {
    if let Entry::Instance(arrival) = entry {
        shared.sealed().remove(&arrival.sop_instance_uid, &arrival.study_uid);
    }
}
