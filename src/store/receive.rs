//! One instance from the wire to the disk.

use std::fs::{self, File};
use std::io::{self, Write};

use sha2::{Digest, Sha256};

use super::early::{Early, Known, Lookup};
use super::index::{Arrival, Entry};
use super::spare::{self, Spare};
use super::write_out::WriteOut;
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

/// An instance that is being received. Dropped before the end, it leaves nothing behind.
#[derive(Debug)]
pub struct Receiving<'s> {
    store: &'s Store,
    announced: Announced,
    spare: Spare,
    handed_on: bool,
    write_out: WriteOut,
    early: Early,
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
        let mut spare = self.spares.take(&announced.calling)?;
        let hash = seal::hasher(&announced.transfer_syntax_uid);
        let beginning = seal::beginning(&announced);
        let failed = spare.file.write_all(&beginning).err();
        let write_out = WriteOut::after(beginning.len() as u64);
        let early = Early::after(&beginning);
        Ok(Receiving { store: self, announced, spare, handed_on: false, write_out, early, hash, failed })
    }
}

impl Receiving<'_> {
    /// The next piece of the data set.
    pub fn write(&mut self, fragment: &[u8]) {
        if self.failed.is_none() {
            self.hash.update(fragment);
            self.failed = self.spare.file.write_all(fragment).err();
            self.write_out.more(&self.spare.file, fragment.len() as u64);
            self.early.more(self.store, &self.announced, fragment);
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
        self.write_out.ended(&self.spare.file);
        self.spare.trim(self.write_out.written())?;
        self.store.spares.came(&self.announced.calling, self.write_out.written());
        let sha256: [u8; 32] = std::mem::take(&mut self.hash).finalize().into();
        let content = hex(&sha256);
        let (instance, lookup) = std::mem::take(&mut self.early).ended(&self.spare.path);
        let mut arrival = match instance.and_then(|instance| understood(instance, &self.announced, &content)) {
            Ok(arrival) => arrival,
            Err(error) => {
                let arrival = Arrival::unknown(self.spare.path.clone(), content, &self.announced);
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
        match self.store.standing(&mut arrival, lookup)? {
            Standing::Entered => return Ok(kept(&arrival, false)),
            Standing::New => {}
            Standing::Against(contradiction) => {
                seal::seal(&mut self.spare.file, &sha256)?;
                self.spare.file.sync_data()?;
                self.hand_on(Entry::Quarantine(arrival, contradiction.reason().into()));
                return match contradiction {
                    Contradiction::Content => Ok(Kept::Quarantined),
                    Contradiction::Patient => Err(StoreError::OtherPatient),
                    Contradiction::NotAsked => Err(StoreError::NotAsAsked),
                };
            }
        }
        let kept = kept(&arrival, true);
        if let Err(error) = seal::seal(&mut self.spare.file, &sha256).and_then(|()| self.spare.file.sync_data()) {
            self.store.shared.sealed().remove(&arrival.sop_instance_uid, &arrival.study_uid);
            return Err(error.into());
        }
        crash_point("after-seal");
        self.hand_on(Entry::Instance(arrival));
        Ok(kept)
    }

    fn hand_on(&mut self, entry: Entry) {
        self.handed_on = true;
        self.store.enter(entry);
    }
}

impl Drop for Receiving<'_> {
    fn drop(&mut self) {
        if !self.handed_on {
            let _ = fs::remove_file(&self.spare.path); // unsealed, it is thrown away at the next start at the latest
        }
    }
}

/// Holds an instance against the command.
fn understood(instance: Instance, announced: &Announced, content: &str) -> Result<Arrival, StoreError> {
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
        bytes: instance.file_bytes(),
        path: instance.path,
        content: content.to_owned(),
        sop_instance_uid: instance.sop_instance_uid,
        sop_class_uid: instance.sop_class_uid,
        series_uid: instance.series_uid,
        study_uid: instance.study_uid,
        patient_key: instance.patient_key,
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

    fn standing(&self, arrival: &mut Arrival, early: Option<Lookup>) -> Result<Standing, StoreError> {
        let mut lookup = early.unwrap_or_else(|| self.look_up(&arrival.sop_instance_uid, &arrival.study_uid, &arrival.calling));
        loop {
            let (known, batches) = self.shared.runtime.block_on(lookup.answer())?;
            if let Some(standing) = self.standing_to(&known, arrival)? {
                return Ok(standing);
            }
            if let Some(standing) = self.noted(arrival, batches) {
                return Ok(standing);
            }
            lookup = self.look_up(&arrival.sop_instance_uid, &arrival.study_uid, &arrival.calling);
        }
    }

    /// Notes that it waits to be entered; `None` where the database has more than it had before `batches`.
    fn noted(&self, arrival: &Arrival, batches: u64) -> Option<Standing> {
        let mut sealed = self.shared.sealed();
        // The same data set that waits already is kept beside it: it, too, must be on disk before it is acknowledged.
        if sealed.batches != batches {
            return None;
        }
        let noted = sealed.add(&arrival.sop_instance_uid, &arrival.content, &arrival.study_uid, &arrival.patient_key);
        Some(noted.map_or_else(Standing::Against, |()| Standing::New))
    }

    /// How it stands to what is entered; `None`: it is nothing there.
    fn standing_to(&self, known: &Known, arrival: &mut Arrival) -> Result<Option<Standing>, StoreError> {
        if (arrival.asked || known.prior) && !self.is_as_asked(arrival)? {
            return Ok(Some(Standing::Against(Contradiction::NotAsked)));
        }
        let is_same = known.content.as_ref() == Some(&arrival.content);
        if !arrival.asked && is_same && known.state.as_deref() == Some("held") {
            self.sent_unasked(arrival)?;
        }
        let standing = match &known.content {
            // What waits to be moved is whole, and not yet where it will be.
            Some(content) if is_same && (self.is_waiting(&arrival.sop_instance_uid) || self.is_whole(content)?) => Some(Standing::Entered),
            Some(content) if is_same => {
                // It goes the way of a new one, and takes the place of what the disk has damaged or lost.
                tracing::warn!(content, "a damaged or lost instance has come again and is replaced");
                None
            }
            Some(_) => Some(Standing::Against(Contradiction::Content)),
            None if known.patient.as_ref().is_some_and(|patient| *patient != arrival.patient_key) => {
                Some(Standing::Against(Contradiction::Patient))
            }
            None => None,
        };
        Ok(standing)
    }

    /// Enters what a crash left sealed in `incoming`, and throws away what it left unfinished: that was never acknowledged. Returns when all
    /// of it is in the database.
    pub(super) fn recover(&self) -> Result<(), StoreError> {
        let (mut entered, mut unfinished) = (0, 0);
        for found in fs::read_dir(self.folder().join("incoming"))? {
            let path = found?.path();
            let mut file = File::open(&path)?;
            let Some(content) = seal::sealed(&mut file)? else {
                unfinished += usize::from(file.metadata()?.len() > 0);
                fs::remove_file(&path)?;
                continue;
            };
            let mut announced = Announced { calling: spare::calling_of(&path), ..Announced::default() };
            let understood = Instance::read(&path).map_err(StoreError::from).and_then(|instance| {
                announced.sop_class_uid.clone_from(&instance.sop_class_uid);
                announced.sop_instance_uid.clone_from(&instance.sop_instance_uid);
                announced.transfer_syntax_uid.clone_from(&instance.transfer_syntax_uid);
                understood(instance, &announced, &content)
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
            match self.standing(&mut arrival, None)? {
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
