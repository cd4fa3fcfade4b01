//! Asking an archive: Query/Retrieve as a user, study root (PS3.4 annex C). An association for each question.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use super::Link;
use super::classes::{EXPLICIT, IMPLICIT, STUDY_ROOT_FIND, STUDY_ROOT_GET, STUDY_ROOT_MOVE, retrieved};
use super::config::{Archive, Retrieve};
use super::scp::{Intake, Sender};
use super::settings::Settings;
use crate::codes::Uid;
use crate::dataset::{DatasetError, Item, SeriesMatch, identifier, series_of_study, whole_study};
use crate::dimse::{self, Bounds, DimseError, Matches, PresentationContext, Proposal, Retrieval, Retrieved, Role};

/// Series of one study that are looked at.
const MAX_SERIES: usize = 2000;
/// Modalities of series without images: archives make such themselves, and not everybody sends them on.
const WITHOUT_IMAGES: [&str; 18] = [
    "AU", "DOC", "ECG", "EPS", "FID", "HD", "KO", "PLAN", "PR", "REG", "RESP", "RTDOSE", "RTPLAN", "RTRECORD", "RTSTRUCT", "RWV", "SEG",
    "SR",
];

/// Whether series of a modality have images.
pub(super) fn has_images(modality: &str) -> bool {
    !WITHOUT_IMAGES.contains(&modality)
}

/// An archive, and how long it may take.
pub(super) struct Asked<'a> {
    pub(super) settings: &'a Settings,
    pub(super) archive: &'a Archive,
    /// Nothing is waited for after this.
    pub(super) until: Instant,
    /// False ends what goes on.
    pub(super) go_on: &'a dyn Fn() -> bool,
}

impl Asked<'_> {
    fn bounds(&self) -> Bounds<'_> {
        Bounds { silent: Duration::from_secs(self.archive.silent_s), until: self.until, go_on: self.go_on }
    }

    /// C-FIND: the first `most` matches.
    pub(super) fn find(&self, keys: Item, most: usize) -> Result<Matches, DimseError> {
        self.with(STUDY_ROOT_FIND, Vec::new(), Vec::new(), |association, context| {
            let identifier = in_context(keys, context)?;
            dimse::find(association, context, &identifier, most, &self.bounds())
        })
    }

    /// Brings a study here, by C-GET or C-MOVE, as configured. What comes over the same association goes to `intake`; `as_prior`: to be held
    /// beside the study that it was asked for, and to be of the same patient.
    pub(super) fn retrieve(&self, study_uid: &str, intake: &mut Intake<'_, '_>, as_prior: bool) -> Result<Retrieved, DimseError> {
        let sender = Sender { title: self.archive.ae_title.0.as_str().to_owned(), asked: as_prior };
        let ours = &self.settings.ae_title.0;
        let (class, how, contexts): (_, _, Vec<(Uid, Vec<Uid>)>) = match self.archive.retrieve {
            Retrieve::Get => (STUDY_ROOT_GET, Retrieval::Get, retrieved().collect()),
            Retrieve::Move => (STUDY_ROOT_MOVE, Retrieval::Move(ours), Vec::new()),
        };
        // The archive is the user of storage here, although we call.
        let classes: HashSet<&Uid> = contexts.iter().map(|(class, _)| class).collect();
        let roles = classes.into_iter().map(|class| Role { sop_class_uid: class.clone(), scu: false, scp: true }).collect();
        self.with(class, contexts, roles, |association, context| {
            let identifier = in_context(whole_study(study_uid), context)?;
            dimse::retrieve(association, context, how, &identifier, &self.bounds(), &mut |association, context_id, command| {
                intake.store(association, &sender, context_id, command)
            })
        })
    }

    /// An association for `class`, and more contexts, for one operation.
    fn with<T>(
        &self,
        class: &str,
        more: Vec<(Uid, Vec<Uid>)>,
        roles: Vec<Role>,
        operation: impl FnOnce(&mut Link, &PresentationContext) -> Result<T, DimseError>,
    ) -> Result<T, DimseError> {
        let own = (class.to_owned(), vec![EXPLICIT.into(), IMPLICIT.into()]);
        let proposal = Proposal {
            calling: self.archive.calling(self.settings).clone(),
            called: self.archive.ae_title.0.clone(),
            contexts: std::iter::once(own).chain(more).collect(),
            roles,
        };
        let mut association = self.settings.link(&self.archive.address, self.archive.tls.as_ref(), &proposal)?;
        let Some(context) = association.context_of(class).cloned() else {
            let _ = association.release(); // it has nothing for us
            return Err(DimseError::NoContext { sop_class_uid: class.into() });
        };
        match operation(&mut association, &context) {
            Ok(done) => {
                let _ = association.release(); // we have what we wanted, whatever becomes of the connection
                Ok(done)
            }
            // It answered; the association is as good as before.
            Err(error @ DimseError::Refused { .. }) => {
                let _ = association.release();
                Err(error)
            }
            Err(error) => {
                association.abort(&error);
                Err(error)
            }
        }
    }

    /// The series with images that a study has there.
    pub(super) fn series(&self, study_uid: &str) -> Result<Vec<SeriesMatch>, DimseError> {
        let found = self.find(series_of_study(study_uid), MAX_SERIES)?;
        let series = found.identifiers.into_iter().map(SeriesMatch::read).collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
        Ok(series.into_iter().filter(|series| has_images(&series.modality)).collect())
    }
}

/// How many instances each series has; nothing where the archive does not say it of each.
pub(super) fn census(series: &[SeriesMatch]) -> BTreeMap<Uid, u32> {
    let numbers: Option<BTreeMap<Uid, u32>> = series.iter().map(|one| Some((one.series_uid.clone(), one.instances?))).collect();
    numbers.unwrap_or_default()
}

/// An answer that is no identifier.
pub(super) fn unreadable(_: DatasetError) -> DimseError {
    DimseError::Protocol { what: "an answer to a query that cannot be read, or names no study or series", reason: 6 }
}

/// In the transfer syntax of the context.
fn in_context(keys: Item, context: &PresentationContext) -> Result<Vec<u8>, DimseError> {
    let wrong = "a transfer syntax for queries that was not proposed";
    identifier(keys, &context.transfer_syntax).map_err(|_| DimseError::Protocol { what: wrong, reason: 6 })
}
