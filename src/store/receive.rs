//! One instance from the wire to the disk.

use std::fs::{self, File};
use std::io;

use super::early::Early;
use super::index::{Arrival, Entry};
use super::known::Known;
use super::seal::{self, Checksum};
use super::spare::{self, Spare};
use super::write_out::WriteOut;
use super::{Contradiction, Store, StoreError, crash_point};
use crate::codes::{Uid, is_uid};
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
    /// The same data set was here before. Its study is open until [`Store::study_closed`], so that it stays.
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
    checksum: Checksum,
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
        let spare = self.spares.take(&announced.calling)?;
        let beginning = seal::beginning(&announced);
        let write_out = WriteOut::after(&beginning);
        let early = Early::after(&beginning);
        let checksum = Checksum::after(&beginning);
        Ok(Receiving { store: self, announced, spare, handed_on: false, write_out, early, checksum, failed: None })
    }
}

impl Receiving<'_> {
    /// The next piece of the data set.
    pub fn write(&mut self, fragment: &[u8]) {
        if self.failed.is_none() {
            self.checksum.more(fragment);
            self.failed = self.write_out.more(&mut self.spare.file, fragment).err();
            self.early.more(fragment);
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
        let bytes = self.write_out.bytes();
        self.write_out.end(&mut self.spare.file)?;
        self.spare.trim(bytes)?;
        self.store.spares.came(&self.announced.calling, bytes);
        let instance = std::mem::take(&mut self.early).ended(&self.spare.path);
        let mut arrival = match instance.and_then(|instance| understood(instance, &self.announced)) {
            Ok(arrival) => arrival,
            Err(error) => {
                let arrival = Arrival::announced(self.spare.path.clone(), &self.announced);
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
        let study = self.store.hold(&arrival.study_uid);
        match self.store.standing(&mut arrival)? {
            Standing::Entered => {
                if !arrival.asked {
                    study.hand_on();
                }
                return Ok(kept(&arrival, false));
            }
            Standing::New => {}
            Standing::Against(contradiction) => {
                self.seal()?;
                self.hand_on(Entry::Quarantine(arrival, contradiction.reason().into()));
                return match contradiction {
                    Contradiction::Content => Ok(Kept::Quarantined),
                    Contradiction::Patient => Err(StoreError::OtherPatient),
                    Contradiction::NotAsked => Err(StoreError::NotAsAsked),
                };
            }
        }
        let kept = kept(&arrival, true);
        if let Err(error) = self.seal() {
            self.store.shared.sealed().remove(&arrival.sop_instance_uid, &arrival.study_uid);
            return Err(error.into());
        }
        crash_point("after-seal");
        self.hand_on(Entry::Instance(arrival.into()));
        Ok(kept)
    }

    fn seal(&mut self) -> io::Result<()> {
        seal::seal(&mut self.spare.file, &self.checksum)?;
        self.spare.file.sync_data()
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
fn understood(instance: Instance, announced: &Announced) -> Result<Arrival, StoreError> {
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
        bytes: instance.file_bytes(),
        sop_class_uid: instance.sop_class_uid,
        series_uid: instance.series_uid,
        study_uid: instance.study_uid,
        patient_key: instance.patient_key,
        ..Arrival::announced(instance.path, announced)
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
    /// How it stands to what is here, once nothing of its SOP Instance UID waits to be entered.
    fn standing(&self, arrival: &mut Arrival) -> Result<Standing, StoreError> {
        loop {
            let batches = self.shared.sealed().batches;
            let known = self.reader.known(&arrival.sop_instance_uid, &arrival.study_uid, &arrival.calling)?;
            if self.shared.sealed().instances.contains(&arrival.sop_instance_uid) {
                self.flush();
            } else if let Some(standing) = self.standing_to(&known, arrival, batches)? {
                return Ok(standing);
            }
        }
    }

    /// How it stands to what is entered; `None` where that has become more since `batches`. What is new is noted as waiting.
    fn standing_to(&self, known: &Known, arrival: &mut Arrival, batches: u64) -> Result<Option<Standing>, StoreError> {
        let against = |contradiction| Ok(Some(Standing::Against(contradiction)));
        if (arrival.asked || known.prior) && !self.is_as_asked(arrival)? {
            return against(Contradiction::NotAsked);
        }
        if let Some(content) = &known.content {
            if *content != arrival.read()?.name {
                return against(Contradiction::Content);
            }
            if !arrival.asked && known.state.as_deref() == Some("held") {
                self.sent_unasked(arrival)?;
            }
            if self.is_whole(content)? {
                return Ok(Some(Standing::Entered));
            }
            // It goes the way of a new one, and takes the place of what the disk has damaged or lost.
            tracing::warn!(content, "a damaged or lost instance has come again and is replaced");
        } else if known.patient.as_ref().is_some_and(|patient| *patient != arrival.patient_key) {
            return against(Contradiction::Patient);
        }
        let mut sealed = self.shared.sealed();
        if sealed.batches != batches || sealed.instances.contains(&arrival.sop_instance_uid) {
            return Ok(None);
        }
        let noted = sealed.add(&arrival.sop_instance_uid, &arrival.study_uid, &arrival.patient_key);
        Ok(Some(noted.map_or_else(Standing::Against, |()| Standing::New)))
    }

    /// Enters what a crash left sealed in `incoming`, and throws away what it left unfinished: that was never acknowledged. Returns when all
    /// of it is in the database.
    pub(super) fn recover(&self) -> Result<(), StoreError> {
        let (mut entered, mut unfinished) = (0, 0);
        for found in fs::read_dir(self.folder().join("incoming"))? {
            let path = found?.path();
            let mut file = File::open(&path)?;
            let Some(contents) = seal::read(&mut file)?.filter(|contents| contents.is_sealed) else {
                unfinished += usize::from(file.metadata()?.len() > 0);
                fs::remove_file(&path)?;
                continue;
            };
            let mut announced = Announced { calling: spare::calling_of(&path), ..Announced::default() };
            let understood = Instance::read(&path).map_err(StoreError::from).and_then(|instance| {
                announced.sop_class_uid.clone_from(&instance.sop_class_uid);
                announced.sop_instance_uid.clone_from(&instance.sop_instance_uid);
                announced.transfer_syntax_uid.clone_from(&instance.transfer_syntax_uid);
                understood(instance, &announced)
            });
            let mut arrival = match understood {
                Ok(arrival) => arrival,
                // Acknowledged by a version that read more than this one: kept, and no reason not to start.
                Err(error) => {
                    let arrival = Arrival { contents: contents.into(), ..Arrival::announced(path, &announced) };
                    self.enter(Entry::Quarantine(arrival, error.shown()));
                    continue;
                }
            };
            arrival.contents = contents.into();
            match self.standing(&mut arrival)? {
                // A crash between the transaction and the move; what is there already is the same.
                Standing::Entered => self.enter(Entry::Move(arrival)),
                Standing::New => self.enter(Entry::Instance(arrival.into())),
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
