//! One instance from the wire to the disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};

use super::index::{Arrival, Entry};
use super::{Contradiction, Store, StoreError, crash_point, now_ms, seal};
use crate::codes::{Uid, hex, is_uid};
use crate::dataset::Instance;

/// What a command says of the data set that follows, and who sends it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Announced {
    /// SOP Class UID.
    pub sop_class_uid: Uid,
    /// SOP Instance UID.
    pub sop_instance_uid: Uid,
    /// Of the presentation context.
    pub transfer_syntax_uid: Uid,
    /// AE title of the sender.
    pub calling: String,
    /// Study Instance UID, where the sender says it beside the data set.
    pub study_uid: Option<Uid>,
    /// The sender says that we asked for it.
    pub asked: bool,
}

/// What became of an instance. In each case it is on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// It is new, and of this study.
    New {
        /// Study Instance UID.
        study_uid: Uid,
    },
    /// The same data set was here before.
    Again {
        /// Study Instance UID.
        study_uid: Uid,
    },
    /// It came because we asked for it, and is held without being anything new of its study.
    Asked {
        /// Study Instance UID.
        study_uid: Uid,
    },
    /// The UID is known with other content: it is in quarantine, what was here stays.
    Quarantined,
}

/// Number of the next file in `incoming` in this process.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// An instance that is being received. Dropped before the end, it leaves nothing behind.
#[derive(Debug)]
pub struct Receiving<'s> {
    store: &'s Store,
    announced: Announced,
    file: File,
    path: Option<PathBuf>,
    hash: Sha256,
    /// The first failure of the disk; the peer is heard out before it is told.
    failed: Option<io::Error>,
}

impl Store {
    /// Begins to receive an instance.
    ///
    /// # Errors
    /// [`StoreError::Full`] before the disk is full, and where it fails.
    pub fn receive(&self, announced: Announced) -> Result<Receiving<'_>, StoreError> {
        self.space.check()?;
        // The title is needed where the file is recovered; it may hold any printable character.
        let title = hex(announced.calling.as_bytes());
        let name = format!("{:016x}-{}-{:08}-{title}.dcm", now_ms(), std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = self.folder().join("incoming").join(name);
        let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        let hash = seal::hasher(&announced.transfer_syntax_uid);
        let failed = file.write_all(&seal::beginning(&announced)).err();
        Ok(Receiving { store: self, announced, file, path: Some(path), hash, failed })
    }
}

impl Receiving<'_> {
    /// The next piece of the data set.
    pub fn write(&mut self, fragment: &[u8]) {
        if self.failed.is_none() {
            self.hash.update(fragment);
            self.failed = self.file.write_all(fragment).err();
        }
    }

    /// The data set is complete: checks it, and puts it on disk.
    ///
    /// # Errors
    /// Where it cannot be kept as what it claims to be. What was understood to be wrong in itself goes to quarantine.
    pub fn finish(mut self) -> Result<Kept, StoreError> {
        if let Some(error) = self.failed.take() {
            return Err(error.into());
        }
        let sha256: [u8; 32] = std::mem::take(&mut self.hash).finalize().into();
        let content = hex(&sha256);
        let path = self.path.clone().expect("the file is here until it is handed on");
        let mut arrival = match understood(&path, &self.announced, &content) {
            Ok(arrival) => arrival,
            Err(error) => {
                let arrival = Arrival::unknown(path, content, &self.announced);
                self.hand_on(Entry::Quarantine(arrival, error.shown()));
                return Err(error);
            }
        };
        let kept = |arrival: &Arrival, new| {
            let study_uid = arrival.study_uid.clone();
            match (arrival.asked, new) {
                (true, _) => Kept::Asked { study_uid },
                (false, true) => Kept::New { study_uid },
                (false, false) => Kept::Again { study_uid },
            }
        };
        match self.store.standing(&mut arrival)? {
            Standing::Entered => return Ok(kept(&arrival, false)),
            Standing::New => {}
            Standing::Against(contradiction) => {
                seal::seal(&mut self.file, &sha256)?;
                self.file.sync_data()?;
                self.hand_on(Entry::Quarantine(arrival, contradiction.reason().into()));
                return match contradiction {
                    Contradiction::Content => Ok(Kept::Quarantined),
                    Contradiction::Patient => Err(StoreError::OtherPatient),
                    Contradiction::NotAsked => Err(StoreError::NotAsAsked),
                };
            }
        }
        let kept = kept(&arrival, true);
        if let Err(error) = seal::seal(&mut self.file, &sha256).and_then(|()| self.file.sync_data()) {
            self.store.shared.sealed().remove(&arrival.sop_instance_uid, &arrival.study_uid);
            return Err(error.into());
        }
        crash_point("after-seal");
        self.hand_on(Entry::Instance(arrival));
        Ok(kept)
    }

    fn hand_on(&mut self, entry: Entry) {
        self.path = None;
        self.store.enter(entry);
    }
}

impl Drop for Receiving<'_> {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = fs::remove_file(path); // unsealed, it is thrown away at the next start at the latest
        }
    }
}

/// Reads the header of a file and holds it against the command.
fn understood(path: &Path, announced: &Announced, content: &str) -> Result<Arrival, StoreError> {
    let instance = Instance::read(path)?;
    instance.check_whole()?;
    // The data set's own: where it has none, the instance has that of the file's meta group, which is the command's.
    let [own_class_uid, own_instance_uid] = instance.uids_of_data_set();
    for (what, found, expected) in [
        ("SOP Class UID", own_class_uid, &announced.sop_class_uid),
        ("SOP Instance UID", own_instance_uid, &announced.sop_instance_uid),
        ("Study Instance UID", instance.study_uid.clone(), announced.study_uid.as_ref().unwrap_or(&instance.study_uid)),
    ] {
        if found.is_empty() {
            return Err(StoreError::NoUid { what });
        }
        if found != *expected {
            return Err(StoreError::NotAsAnnounced { what });
        }
    }
    for (what, uid) in [
        ("SOP Instance UID", &instance.sop_instance_uid),
        ("Study Instance UID", &instance.study_uid),
        ("Series Instance UID", &instance.series_uid),
    ] {
        if !is_uid(uid) {
            return Err(StoreError::NoUid { what });
        }
    }
    let [of_study, of_series] = instance.stated_counts();
    Ok(Arrival {
        of_study,
        of_series,
        asked: announced.asked,
        path: path.to_owned(),
        content: content.to_owned(),
        sop_instance_uid: instance.sop_instance_uid,
        sop_class_uid: instance.sop_class_uid,
        series_uid: instance.series_uid,
        study_uid: instance.study_uid,
        patient_key: instance.patient_key,
        bytes: fs::metadata(path)?.len(),
        calling: announced.calling.clone(),
        received_ms: now_ms(),
    })
}

/// How an instance stands to what is here.
enum Standing {
    /// It is noted as waiting to be entered.
    New,
    /// The same data set is entered.
    Entered,
    /// It differs from what is entered or waits.
    Against(Contradiction),
}

impl Store {
    fn is_waiting(&self, sop_instance_uid: &str) -> bool {
        self.shared.sealed().instances.contains_key(sop_instance_uid)
    }

    fn standing(&self, arrival: &mut Arrival) -> Result<Standing, StoreError> {
        let query = sqlx::query_as(
            "SELECT (SELECT content FROM instance WHERE sop_instance_uid = ?1), (SELECT patient_key FROM study WHERE study_uid = ?2),
                (SELECT state FROM study WHERE study_uid = ?2), EXISTS (SELECT 1 FROM prior WHERE study_uid = ?2 AND title = ?3)",
        );
        let query = query.bind(&arrival.sop_instance_uid).bind(&arrival.study_uid).bind(&arrival.calling).fetch_one(self.pool());
        type Known = (Option<String>, Option<String>, Option<String>, bool);
        let (content, patient, state, prior): Known = self.shared.runtime.block_on(query)?;
        if (arrival.asked || prior) && !self.is_as_asked(arrival)? {
            return Ok(Standing::Against(Contradiction::NotAsked));
        }
        if !arrival.asked && content.as_ref() == Some(&arrival.content) && state.as_deref() == Some("held") {
            self.sent_unasked(arrival)?;
        }
        match content {
            // What waits to be moved is whole, and not yet where it will be.
            Some(known) if known == arrival.content && (self.is_waiting(&arrival.sop_instance_uid) || self.is_whole(&known)?) => {
                return Ok(Standing::Entered);
            }
            Some(known) if known == arrival.content => {
                // It goes the way of a new one, and takes the place of what the disk has damaged or lost.
                tracing::warn!(content = known, "a damaged or lost instance has come again and is replaced");
            }
            Some(_) => return Ok(Standing::Against(Contradiction::Content)),
            None if patient.is_some_and(|known| known != arrival.patient_key) => return Ok(Standing::Against(Contradiction::Patient)),
            None => {}
        }
        // The same data set that waits already is kept beside it: it, too, must be on disk before it is acknowledged.
        let noted = self.shared.sealed().add(&arrival.sop_instance_uid, &arrival.content, &arrival.study_uid, &arrival.patient_key);
        Ok(noted.map_or_else(Standing::Against, |()| Standing::New))
    }

    /// Enters what a crash left sealed in `incoming`, and throws away what it left unfinished: that was never acknowledged. Returns when all
    /// of it is in the database.
    pub(super) fn recover(&self) -> Result<(), StoreError> {
        let (mut entered, mut unfinished) = (0, 0);
        for found in fs::read_dir(self.folder().join("incoming"))? {
            let path = found?.path();
            let mut file = File::open(&path)?;
            let Some(content) = seal::sealed(&mut file)? else {
                fs::remove_file(&path)?;
                unfinished += 1;
                continue;
            };
            let mut announced = Announced { calling: calling_of(&path), ..Announced::default() };
            let understood = Instance::read(&path).map_err(StoreError::from).and_then(|instance| {
                announced.sop_class_uid = instance.sop_class_uid;
                announced.sop_instance_uid = instance.sop_instance_uid;
                announced.transfer_syntax_uid = instance.transfer_syntax_uid;
                understood(&path, &announced, &content)
            });
            let arrival = match understood {
                Ok(arrival) => arrival,
                // Acknowledged by a version that read more than this one: kept, and no reason not to start.
                Err(error) => {
                    self.enter(Entry::Quarantine(Arrival::unknown(path, content, &announced), error.shown()));
                    continue;
                }
            };
            let mut arrival = arrival;
            match self.standing(&mut arrival)? {
                // A crash between the transaction and the move; what is there already is the same.
                Standing::Entered => self.enter(Entry::Move(arrival)),
                Standing::New => self.enter(Entry::Instance(arrival)),
                Standing::Against(contradiction) => self.enter(Entry::Quarantine(arrival, contradiction.reason().into())),
            }
            entered += 1;
        }
        if entered + unfinished > 0 {
            tracing::info!(entered, unfinished, "instances of before the last stop were recovered");
        }
        self.flush();
        Ok(())
    }
}

/// The AE title in a file's name.
fn calling_of(path: &Path) -> String {
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let digits = name.rsplit('-').next().unwrap_or_default().as_bytes();
    let byte = |pair: &[u8]| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok());
    digits.chunks(2).filter_map(byte).map(char::from).collect()
}
