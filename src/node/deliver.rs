//! Sending results to their destinations (C-STORE SCU, PS3.4 annex B; `post.rs` has STOW-RS): a thread a destination, so that one that is
//! down holds up no other.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::Link;
use super::config::{Destination, Reached};
use super::metrics::{Metrics, Step};
use super::settings::{Current, Settings};
use super::trail::{Times, between, next_id};
use crate::codes::Uid;
use crate::dataset::DataSetFile;
use crate::dimse::{AeTitle, Command, DimseError, Element, Message, Proposal, Request, Status};
use crate::geometry::Coded;
use crate::jobs::{self, Due, Verdict};
use crate::store::{AuditRecord, Store, crash_point, now_ms};

/// Objects of one association at most.
const BATCH: u32 = 100;
/// How often the queue is looked at.
const POLL: Duration = Duration::from_millis(200);

/// What all senders share.
#[derive(Clone)]
pub(super) struct Senders {
    pub(super) current: Arc<Current>,
    pub(super) store: Arc<Store>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) runtime: Handle,
}

impl Senders {
    /// Keeps a thread for each destination of the settings, until `stopping` and until the last has ended.
    pub(super) fn run(&self, stopping: &Arc<AtomicBool>) {
        let mut threads: HashMap<String, JoinHandle<()>> = HashMap::new();
        while !stopping.load(Ordering::SeqCst) {
            for Destination { name, .. } in &self.current.get().destination {
                if threads.get(name).is_some_and(|thread| !thread.is_finished()) {
                    continue;
                }
                let (senders, stopping, of) = (self.clone(), Arc::clone(stopping), name.clone());
                match thread::Builder::new().name("sender".into()).spawn(move || senders.send_to(&of, &stopping)) {
                    Ok(thread) => drop(threads.insert(name.clone(), thread)),
                    Err(error) => tracing::error!(%error, destination = name, "a sender cannot be started, trying again"),
                }
            }
            thread::sleep(POLL);
        }
        for (_, thread) in threads {
            let _ = thread.join(); // a panic there was told there
        }
    }

    /// Sends to one destination as long as the settings have it.
    fn send_to(&self, name: &str, stopping: &AtomicBool) {
        while !stopping.load(Ordering::SeqCst) {
            let settings = self.current.get();
            let Some(destination) = settings.destination.iter().find(|d| d.name == name).cloned() else { return };
            let Self { store, metrics, runtime, .. } = self.clone();
            Sender { settings, destination, store, metrics, runtime }.turn(stopping);
        }
    }
}

/// What sends to one destination, once.
pub(super) struct Sender {
    pub(super) settings: Arc<Settings>,
    pub(super) destination: Destination,
    pub(super) store: Arc<Store>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) runtime: Handle,
}

impl Sender {
    /// Sends what is due, or asks for commitment, or waits a little.
    fn turn(&self, stopping: &AtomicBool) {
        match self.runtime.block_on(jobs::due(self.store.pool(), &self.destination.name, BATCH)) {
            Ok(due) if due.is_empty() => {
                if !(self.destination.commitment && self.commit(stopping)) {
                    thread::sleep(POLL);
                }
            }
            Ok(due) => self.send(&due, stopping),
            Err(error) => {
                tracing::error!(%error, "the deliveries cannot be read, trying again");
                thread::sleep(Duration::from_secs(1));
            }
        }
    }

    /// Sends these over one association. Each that was tried has a verdict of its own afterwards; what was not is due as before.
    fn send(&self, due: &[Due], stopping: &AtomicBool) {
        let _span = tracing::error_span!("delivery", delivery = next_id(), destination = self.destination.name).entered();
        let (title, address) = match self.destination.reached() {
            Reached::Dimse(title, address) => (title, address),
            Reached::Web(url) => return self.post(url, due),
        };
        let mut association = match self.associate(title, address, due) {
            Ok(association) => association,
            Err(error) => {
                // Nobody has seen an instance: nothing is wrong with any of them, and somebody will put the destination right.
                tracing::warn!(%error, code = error.code(), "a destination takes no association");
                return due.iter().for_each(|one| self.settle(one, &Verdict::Again(None, error.to_string())));
            }
        };
        for (one, message_id) in due.iter().zip(1..) {
            match self.store_one(&mut association, one, message_id) {
                Ok(verdict) => self.settle(one, &verdict),
                Err(error) => {
                    tracing::warn!(%error, code = error.code(), "a delivery failed");
                    self.settle(one, &Verdict::Again(None, error.to_string()));
                    return association.abort(&error);
                }
            }
            if stopping.load(Ordering::SeqCst) {
                break;
            }
        }
        if let Err(error) = association.release() {
            tracing::info!(%error, "an association did not end well; each instance has its answer");
        }
    }

    /// Where all results of a job are at the destination: where the time went since the last instance came.
    fn tell_times(&self, job: i64, at_ms: i64) {
        match self.runtime.block_on(jobs::taken(self.store.pool(), &self.destination.name, job)) {
            Ok(Some(taken)) => {
                let Some(times) = Times::of(&taken.outcome, between(taken.ended_ms, at_ms)) else { return };
                self.metrics.took(Step::Turnaround, Duration::from_secs_f64(times.total()));
                tracing::error_span!("job", job, study = taken.study_uid).in_scope(|| times.log());
            }
            Ok(None) => {}
            Err(error) => tracing::error!(%error, job, "the times of a job cannot be read"),
        }
    }

    /// The title that the destination knows us by.
    pub(super) fn calling(&self) -> AeTitle {
        self.destination.calling.as_ref().unwrap_or(&self.settings.ae_title).0.clone()
    }

    /// An association with the destination.
    pub(super) fn link(&self, address: &str, proposal: &Proposal) -> Result<Link, DimseError> {
        self.settings.link(address, self.destination.tls.as_ref(), proposal)
    }

    fn associate(&self, title: &AeTitle, address: &str, due: &[Due]) -> Result<Link, DimseError> {
        let pairs: BTreeSet<(&Uid, &Uid)> = due.iter().map(|one| (&one.sop_class_uid, &one.transfer_syntax_uid)).collect();
        let proposal = Proposal {
            calling: self.calling(),
            called: title.clone(),
            contexts: pairs.into_iter().map(|(class, syntax)| (class.clone(), vec![syntax.clone()])).take(128).collect(),
            roles: Vec::new(),
        };
        self.link(address, &proposal)
    }

    /// Sends one object and waits for the answer.
    fn store_one(&self, association: &mut Link, one: &Due, message_id: u16) -> Result<Verdict, DimseError> {
        let Some(context_id) = association.context_for(&one.sop_class_uid, &one.transfer_syntax_uid) else {
            let why = format!("the destination takes no {} in {}", one.sop_class_uid, one.transfer_syntax_uid);
            return Ok(Verdict::Dead(None, why));
        };
        let mut file = match DataSetFile::open(&self.store.folder().join(&one.path)) {
            Ok(file) => file,
            Err(error) => return Ok(Verdict::Dead(None, format!("the result cannot be read: {}", error.code()))),
        };
        let command = Command::request(Request::CStore, message_id)
            .with_text(Element::AffectedSopClassUid, &one.sop_class_uid)
            .with_text(Element::AffectedSopInstanceUid, &one.sop_instance_uid)
            .with(Element::Priority, 0)
            .with_data_set();
        let (began, mut counted) = (Instant::now(), Counting { inner: &mut file.data_set, bytes: 0 });
        association.send_with(context_id, &command, &mut counted)?;
        let bytes = counted.bytes;
        let answer = association.receive()?;
        self.metrics.took(Step::Deliver, began.elapsed());
        match answer {
            Message::Command(_, answer) if answer.is_response_to(Request::CStore) => {
                if answer.number(Element::MessageIdBeingRespondedTo) != Some(message_id) {
                    return Err(DimseError::Protocol { what: "an answer to another message", reason: 2 });
                }
                let verdict = verdict(answer.status(), answer.text(Element::ErrorComment));
                if matches!(verdict, Verdict::Stored(_)) {
                    self.metrics.delivered_bytes.add(bytes);
                }
                Ok(verdict)
            }
            _ => Err(DimseError::Protocol { what: "no answer to a C-STORE", reason: 2 }),
        }
    }

    pub(super) fn settle(&self, one: &Due, verdict: &Verdict) {
        let (name, retry) = (&self.destination.name, self.destination.retry());
        crash_point("before-settle");
        match verdict {
            Verdict::Stored(status) => {
                self.metrics.delivered.add(1);
                let detail = format!("{} stored with {}", one.sop_instance_uid, Status(*status));
                self.store.audit(AuditRecord::transferred("R", name, &one.study_uid, detail));
            }
            Verdict::Again(..) => self.metrics.delivery_failures.add(1),
            Verdict::Dead(_, why) => {
                self.metrics.delivery_failures.add(1);
                tracing::error!(job = one.job, instance = one.sop_instance_uid, why, "a delivery is dead");
            }
        }
        // What cannot be entered is due still: it is sent again, as the same object.
        let instead = self.destination.instead.iter().find(|(refused, _)| refused.0.name() == one.form).map(|(_, other)| other.0.name());
        match self.runtime.block_on(jobs::settle(self.store.pool(), name, one, verdict, retry, instead)) {
            Ok(0) if matches!(verdict, Verdict::Stored(_)) => self.tell_times(one.job, now_ms()),
            Ok(0) => {}
            Ok(count) => tracing::warn!(refused = one.form, sent = instead, count, "another form is sent instead"),
            Err(error) => tracing::error!(%error, "a delivery cannot be entered"),
        }
    }
}

/// Counts what is read.
struct Counting<R> {
    inner: R,
    bytes: u64,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.bytes += count as u64;
        Ok(count)
    }
}

/// What a status says of the delivery (PS3.4 table B.2-1).
pub(super) fn verdict(status: Status, comment: &str) -> Verdict {
    let why = || format!("status {status}{}{comment}", if comment.is_empty() { "" } else { ": " });
    if status.is_success() || status.is_warning() {
        Verdict::Stored(status.0)
    } else if status.is_transient() {
        Verdict::Again(Some(status.0), why())
    } else {
        Verdict::Dead(Some(status.0), why())
    }
}
