//! Which studies may not be taken away at the moment.

use std::collections::{HashMap, HashSet};

use super::Store;
use crate::codes::Uid;

/// What holds a study, and what is about to take it away.
#[derive(Debug, Default)]
pub(super) struct InUse {
    /// Open associations that may bring more of a study, and instances of it that are held against what is here.
    holds: HashMap<Uid, usize>,
    /// Studies between the indexer's look at `holds` and the end of the transaction that takes them away.
    going: HashSet<Uid>,
}

impl InUse {
    pub(super) fn is_held(&self, study_uid: &str) -> bool {
        self.holds.contains_key(study_uid)
    }

    pub(super) fn hold(&mut self, study_uid: &str) {
        *self.holds.entry(study_uid.to_owned()).or_default() += 1;
    }

    pub(super) fn let_go(&mut self, study_uid: &str) {
        if let Some(count) = self.holds.get_mut(study_uid) {
            *count -= 1;
            if *count == 0 {
                self.holds.remove(study_uid);
            }
        }
    }

    /// Whether it may be taken away. Until [`InUse::gone`] nobody is told that it is here.
    pub(super) fn goes(&mut self, study_uid: &str) -> bool {
        let goes = !self.is_held(study_uid);
        if goes {
            self.going.insert(study_uid.to_owned());
        }
        goes
    }

    pub(super) fn gone(&mut self, study_uid: &str) {
        self.going.remove(study_uid);
    }
}

/// A study stays what it is as long as this is there.
pub(super) struct Hold<'s> {
    store: &'s Store,
    study_uid: Uid,
    handed_on: bool,
}

impl Store {
    /// Waits until a study is not being taken away, and holds it.
    pub(super) fn hold(&self, study_uid: &str) -> Hold<'_> {
        loop {
            {
                let mut in_use = self.shared.in_use();
                if !in_use.going.contains(study_uid) {
                    in_use.hold(study_uid);
                    return Hold { store: self, study_uid: study_uid.to_owned(), handed_on: false };
                }
            }
            self.flush();
        }
    }
}

impl Hold<'_> {
    /// Somebody else calls [`Store::study_closed`].
    pub(super) fn hand_on(mut self) {
        self.handed_on = true;
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        if !self.handed_on {
            self.store.shared.in_use().let_go(&self.study_uid);
        }
    }
}
