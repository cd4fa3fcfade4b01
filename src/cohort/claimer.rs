//! Before the first stage of the pipeline: which studies are this process's, in which order, and those of a PACS brought here ahead.

use std::collections::HashSet;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use super::error::{CohortError, io_at};
use super::journal::{Entry, History};
use super::pipeline::Room;
use super::record::StudyRecord;
use super::remote::{self, Here, MOST_IN_A_ROW};
use super::work::{Claims, Others};
use super::{Cohort, Event, timeline};
use crate::series::StudyFiles;

/// How often a process with nothing to do looks whether others have ended.
const LOOKS: Duration = Duration::from_secs(1);

/// A study that this process has claimed.
pub(super) struct Claimed {
    pub(super) study: usize,
    /// What is done of it.
    pub(super) known: Vec<Entry>,
    /// With its files; none where it did not come, with whether it may come another time.
    pub(super) files: Result<StudyFiles, (StudyRecord, bool)>,
}

/// Before the first stage.
pub(super) struct Claimer<'a> {
    pub(super) cohort: &'a Cohort<'a>,
    pub(super) history: History,
    pub(super) claims: Claims,
    pub(super) others: Others,
    /// Where studies of a PACS come.
    pub(super) here: Option<&'a Here<'a>>,
    /// Studies that did not come one after the other, for reasons that may pass.
    pub(super) in_a_row: u32,
    /// Studies that this process has handed on: the next stages have them in this order.
    pub(super) taken: HashSet<usize>,
    /// Whether the package follows findings over time.
    pub(super) follows: bool,
    pub(super) ends: &'a (dyn Fn() -> bool + Sync),
    pub(super) to_reader: SyncSender<Claimed>,
    pub(super) room: Room,
    pub(super) on: &'a (dyn Fn(Event) + Sync),
}

impl Claimer<'_> {
    pub(super) fn claim(&mut self) -> Result<(), CohortError> {
        let cohort = self.cohort;
        let failed = || io_at("claim studies in", &cohort.work);
        let mut claimed = Vec::new();
        for &study in &cohort.chosen {
            let files = &cohort.inventory.studies[study];
            if (self.ends)() {
                return Ok(());
            }
            if self.history.is_complete(&files.key, &files.stamp) {
                continue;
            }
            if !self.has_room(study) {
                return Ok(());
            }
            if !(self.is_ready(study) && self.claims.take(&files.key).map_err(failed())?) {
                claimed.push(study);
            } else if !self.hand_over(study)? {
                return Ok(());
            }
        }
        self.take_over(claimed)
    }

    /// Waits until the reader is free for a study; none is waited for where it is fetched first.
    fn has_room(&mut self, study: usize) -> bool {
        self.cohort.inventory.studies[study].files.is_empty() || self.room.wait()
    }

    /// Whether the earlier studies of the patient are done, or will be before this one in the stages that follow.
    fn is_ready(&self, study: usize) -> bool {
        self.cohort.timeline.earlier(study).iter().all(|n| {
            let files = &self.cohort.inventory.studies[*n];
            self.taken.contains(n) || self.history.is_complete(&files.key, &files.stamp)
        })
    }

    /// Fetches a study where it is not here, and hands it to the reader; false where the run ends.
    fn hand_over(&mut self, study: usize) -> Result<bool, CohortError> {
        let files = &self.cohort.inventory.studies[study];
        self.taken.insert(study);
        if self.follows && self.history.of(&files.key, &files.stamp).next().is_none() {
            timeline::forget(&self.cohort.work, files)?;
        }
        let known = self.history.of(&files.key, &files.stamp).filter(|entry| !matches!(entry, Entry::Study(_))).cloned().collect();
        let Some(files) = self.fetched(files) else { return Ok(false) };
        self.in_a_row = if matches!(files, Err((_, true))) { self.in_a_row + 1 } else { 0 };
        if self.to_reader.send(Claimed { study, known, files }).is_err() {
            return Ok(false);
        }
        self.room.fill();
        if self.in_a_row == MOST_IN_A_ROW {
            let text = format!("{MOST_IN_A_ROW} studies in a row did not come: the PACS is not asked for more, --resume goes on");
            (self.on)(Event::Say(text));
        }
        Ok(self.in_a_row < MOST_IN_A_ROW)
    }

    /// None where the run ends meanwhile.
    fn fetched(&self, files: &StudyFiles) -> Option<Result<StudyFiles, (StudyRecord, bool)>> {
        let (Some(remote), Some(here), true) = (&self.cohort.remote, self.here, files.files.is_empty()) else {
            return Some(Ok(files.clone()));
        };
        let say = |text| (self.on)(Event::Say(format!("study {}: {text}", files.study_uid)));
        Some(match here.fetch(remote, &files.study_uid, &|| !(self.ends)(), &say)? {
            Ok(paths) => Ok(files.with(paths)),
            Err(error) => {
                let record = StudyRecord {
                    study_instance_uid: files.study_uid.clone(),
                    accession_number: remote.found[&files.study_uid].accession_number.clone().unwrap_or_default(),
                    problem: remote::problem(&error),
                };
                Err((record, error.may_pass()))
            }
        })
    }

    /// Waits for those who have claimed these studies, and does what they leave.
    fn take_over(&mut self, mut claimed: Vec<usize>) -> Result<(), CohortError> {
        let cohort = self.cohort;
        let failed = || io_at("claim studies in", &cohort.work);
        let mut said = false;
        while !claimed.is_empty() && !(self.ends)() {
            // Claims first: who ends between the two has its last lines in the journal then.
            let last = self.claims.last().map_err(failed())?;
            let gone = |others: &mut Others, key: &str| {
                let (generation, owner) = last.get(key).copied().unwrap_or((0, 0));
                (!others.lives(&cohort.work, owner)).then_some(generation)
            };
            let free: Vec<Option<u32>> = claimed.iter().map(|&n| gone(&mut self.others, &cohort.inventory.studies[n].key)).collect();
            self.history = cohort.history().map_err(failed())?;
            let mut left = Vec::new();
            for (study, free) in std::mem::take(&mut claimed).into_iter().zip(free) {
                let files = &cohort.inventory.studies[study];
                if self.history.is_complete(&files.key, &files.stamp) {
                    (self.on)(Event::StudyDone);
                    continue;
                }
                match free.filter(|_| self.is_ready(study)) {
                    Some(generation)
                        if !(self.ends)() && self.has_room(study) && self.claims.take_over(&files.key, generation).map_err(failed())? =>
                    {
                        if !self.hand_over(study)? {
                            return Ok(());
                        }
                    }
                    _ => left.push(study),
                }
            }
            claimed = left;
            if !claimed.is_empty() && !(self.ends)() {
                if !said {
                    (self.on)(Event::Say(format!("waiting for {} studies that other processes have claimed", claimed.len())));
                    said = true;
                }
                std::thread::sleep(LOOKS);
            }
        }
        Ok(())
    }
}
