//! Storage Commitment, push model (PS3.4 annex J): asked of us by those who send, and by us of those that we send to.
//!
//! Invariants:
//! 1. We say that we hold an instance only after its file was read again and is what was acknowledged.
//! 2. What we were asked is on disk before we say that we will answer; the answer goes out until it is taken or given up.
//! 3. A result is committed only by an answer of its destination to the last transaction that asked for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::Link;
use super::classes::{COMMITMENT, COMMITMENT_INSTANCE, EXPLICIT, IMPLICIT};
use super::config::{Config, Peer, Reached};
use super::deliver::Sender;
use super::metrics::Metrics;
use super::scp::Session;
use super::settings::{Current, Settings};
use super::trail::next_id;
use crate::dataset::{Commitment, Reference};
use crate::dimse::{AeTitle, Command, DimseError, Element, Message, Proposal, Request, Role, Status};
use crate::geometry::Coded;
use crate::jobs::{self, Asked, Report, Retry};
use crate::store::{AuditRecord, Held, Store, StoreError};

/// The only action there is: to ask for commitment.
const ASK: u16 = 1;
/// The events: all is committed; something is not.
const ALL: u16 = 1;
const NOT_ALL: u16 = 2;
/// The longest data set that is taken: thirty thousand references.
const MAX_BYTES: usize = 4 << 20;
/// How long a peer that has asked may say nothing before it gets its answer on the same association. Who wants it on another one releases.
const SETTLE: Duration = Duration::from_millis(300);
/// How long the answer to our own request is waited for on the same association.
const WAIT: Duration = Duration::from_secs(3);
/// How often there is something new to look for.
const POLL: Duration = Duration::from_millis(200);
/// Answers to those who cannot be reached.
const REPORTS: Retry = Retry { first_ms: 2_000, attempts: 20 };

/// What the association of somebody who asks still owes him.
#[derive(Debug, Default)]
pub(super) struct Owed {
    /// With the presentation context of the question.
    reports: Vec<(u8, Report)>,
    /// The answer that is on its way, by its message.
    sent: Option<(u16, Report)>,
    next_message_id: u16,
}

impl Session<'_, '_> {
    /// Waits for the peer to say something, and sends an answer that is owed where he does not.
    pub(super) fn settle(&mut self) -> Result<(), DimseError> {
        while self.owed.sent.is_none() && !self.owed.reports.is_empty() && !self.association.speaks(SETTLE)? {
            let (context_id, report) = self.owed.reports.remove(0);
            self.owed.next_message_id += 1;
            let message_id = self.owed.next_message_id;
            let made = answer_to(&self.scp.store, &report);
            self.owed.sent = Some((message_id, report));
            match made {
                Ok(made) => send_report(&mut self.association, context_id, message_id, &made)?,
                Err(error) => {
                    tracing::error!(%error, "a storage commitment cannot be answered, trying again");
                    self.let_go();
                }
            }
        }
        Ok(())
    }

    /// N-ACTION (PS3.4 J.3.2): somebody asks whether we hold what he has sent.
    pub(super) fn action(&mut self, context_id: u8, command: &Command) -> Result<(), DimseError> {
        if self.association.context(context_id).is_none_or(|context| context.abstract_syntax != COMMITMENT) {
            self.association.skip_data_set()?;
            return self.association.send(context_id, &command.response(Status::SOP_CLASS_NOT_SUPPORTED));
        }
        let data = self.association.data_set(MAX_BYTES)?;
        let status = match (command.text(Element::RequestedSopInstanceUid), command.number(Element::ActionTypeId), data) {
            (COMMITMENT_INSTANCE, Some(ASK), Some(data)) => match Commitment::read(data) {
                Ok(asked) => self.asked(context_id, asked),
                Err(error) => {
                    tracing::warn!(code = error.code(), "a request for storage commitment cannot be read");
                    Status::INVALID_ARGUMENT
                }
            },
            (COMMITMENT_INSTANCE, Some(ASK), None) => Status::RESOURCE_LIMITATION,
            (COMMITMENT_INSTANCE, ..) => Status::NO_SUCH_ACTION,
            _ => Status::NO_SUCH_INSTANCE,
        };
        self.association.send(context_id, &command.response(status))
    }

    fn asked(&mut self, context_id: u8, asked: Commitment) -> Status {
        let Commitment { transaction_uid, instances, .. } = asked;
        let (calling, store) = (self.association.peer().calling.clone(), &self.scp.store);
        let instances = instances.into_iter().map(|one| (one.sop_class_uid, one.sop_instance_uid)).collect();
        let entered = jobs::enter_report(store.pool(), calling.as_str(), &transaction_uid, instances);
        match self.scp.runtime.block_on(entered) {
            Ok(report) => {
                self.owed.reports.push((context_id, report));
                Status::SUCCESS
            }
            Err(error) => {
                tracing::error!(%error, "a request for storage commitment cannot be entered");
                Status::PROCESSING_FAILURE
            }
        }
    }

    /// The peer has taken an answer, or not.
    pub(super) fn reported(&mut self, response: &Command) {
        let Some((_, report)) = self.owed.sent.take_if(|(id, _)| response.number(Element::MessageIdBeingRespondedTo) == Some(*id)) else {
            return;
        };
        if response.status().is_success() {
            entered(self.scp.runtime.block_on(jobs::report_sent(self.scp.store.pool(), report.id)));
        } else {
            tracing::warn!(status = %response.status(), "an answer to a request for storage commitment is not taken");
            entered(self.scp.runtime.block_on(jobs::let_go(self.scp.store.pool(), Some(report.id))));
        }
    }

    /// What is owed goes out over associations of its own.
    pub(super) fn let_go(&mut self) {
        let owed = self.owed.reports.drain(..).map(|(_, report)| report).chain(self.owed.sent.take().map(|(_, report)| report));
        for report in owed {
            entered(self.scp.runtime.block_on(jobs::let_go(self.scp.store.pool(), Some(report.id))));
        }
    }

    /// N-EVENT-REPORT (PS3.4 J.3.3): a destination answers us.
    pub(super) fn event(&mut self, context_id: u8, command: &Command) -> Result<(), DimseError> {
        let desk = Desk { config: self.settings, store: &self.scp.store, metrics: &self.scp.metrics, runtime: &self.scp.runtime };
        let calling = self.association.peer().calling.clone();
        desk.event(&mut self.association, &calling, context_id, command)
    }
}

/// What a file of ours says to a question; the entry of what came before is waited for.
fn answer_to(store: &Store, report: &Report) -> Result<Commitment, StoreError> {
    store.flush();
    let mut answer = Commitment { transaction_uid: report.transaction_uid.clone(), instances: Vec::new(), failed: Vec::new() };
    for (sop_class_uid, sop_instance_uid) in &report.instances {
        let reference = Reference { sop_class_uid: sop_class_uid.clone(), sop_instance_uid: sop_instance_uid.clone() };
        let reason = match store.held(sop_class_uid, sop_instance_uid, &report.calling)? {
            Held::Whole => {
                answer.instances.push(reference);
                continue;
            }
            Held::Absent => Status::NO_SUCH_INSTANCE,
            Held::OtherClass => Status::CLASS_INSTANCE_CONFLICT,
            Held::NotAsSent => Status::PROCESSING_FAILURE,
        };
        answer.failed.push((reference, reason.0));
    }
    let (held, not) = (answer.instances.len(), answer.failed.len());
    tracing::info!(calling = report.calling, held, not, "a request for storage commitment is answered");
    let detail = format!("storage commitment: {held} instances held, {not} not");
    store.audit(AuditRecord::commitment(u8::from(not > 0) * 4, &report.calling, &report.transaction_uid, detail));
    Ok(answer)
}

fn send_report(association: &mut Link, context_id: u8, message_id: u16, answer: &Commitment) -> Result<(), DimseError> {
    let command = Command::request(Request::NEventReport, message_id)
        .with_text(Element::AffectedSopClassUid, COMMITMENT)
        .with_text(Element::AffectedSopInstanceUid, COMMITMENT_INSTANCE)
        .with(Element::EventTypeId, if answer.failed.is_empty() { ALL } else { NOT_ALL })
        .with_data_set();
    association.send_with(context_id, &command, &mut data_set(association, context_id, answer).as_slice())
}

/// In the transfer syntax of the context.
fn data_set(association: &Link, context_id: u8, commitment: &Commitment) -> Vec<u8> {
    let syntax = &association.context(context_id).expect("the context is accepted").transfer_syntax;
    commitment.bytes(syntax).expect("only native transfer syntaxes are proposed and accepted for this class")
}

/// A failure to enter what became of something: it is done again, which changes nothing.
fn entered(result: Result<(), StoreError>) {
    if let Err(error) = result {
        tracing::error!(%error, "the outcome of a storage commitment cannot be entered");
    }
}

/// Sends answers to those who have asked and not waited.
pub(super) struct Reporter {
    pub(super) current: Arc<Current>,
    pub(super) store: Arc<Store>,
    pub(super) runtime: Handle,
}

impl Reporter {
    /// Sends what is owed until `stopping`.
    pub(super) fn run(&self, stopping: &AtomicBool) {
        while !stopping.load(Ordering::SeqCst) {
            match self.runtime.block_on(jobs::next_report(self.store.pool())) {
                Ok(Some(report)) => self.send(&report),
                Ok(None) => std::thread::sleep(POLL),
                Err(error) => {
                    tracing::error!(%error, "the answers to storage commitments cannot be read, trying again");
                    std::thread::sleep(Duration::from_secs(1));
                }
            }
        }
    }

    fn send(&self, report: &Report) {
        let _span = tracing::error_span!("commitment", delivery = next_id(), calling = report.calling).entered();
        let settings = self.current.get();
        let peer = settings.peer.iter().find(|peer| peer.ae_title.0.as_str() == report.calling && peer.address.is_some());
        let (sent, retry) = match peer.and_then(|peer| Some((peer, peer.address.as_ref()?))) {
            Some((peer, address)) => (self.send_to(&settings, peer, address, report), REPORTS),
            None => (Err("the configuration has no address of this peer".into()), Retry { attempts: 0, ..REPORTS }),
        };
        match sent {
            Ok(()) => entered(self.runtime.block_on(jobs::report_sent(self.store.pool(), report.id))),
            Err(why) => {
                tracing::warn!(why, attempt = report.attempts + 1, "an answer to a request for storage commitment is not taken");
                entered(self.runtime.block_on(jobs::report_failed(self.store.pool(), report, &why, retry)).map(|_| ()));
            }
        }
    }

    fn send_to(&self, settings: &Settings, peer: &Peer, address: &str, report: &Report) -> Result<(), String> {
        let answer = answer_to(&self.store, report).map_err(|error| error.to_string())?;
        let role = Role { sop_class_uid: COMMITMENT.into(), scu: false, scp: true };
        let proposal = proposal(settings.ae_title.0.clone(), peer.ae_title.0.clone(), vec![role]);
        let mut association = settings.link(address, peer.tls.as_ref(), &proposal).map_err(|error| error.to_string())?;
        let status = (|| {
            let context_id = context_of(&association)?;
            send_report(&mut association, context_id, 1, &answer)?;
            match association.receive()? {
                Message::Command(_, response) if response.is_response_to(Request::NEventReport) => Ok(response.status()),
                _ => Err(DimseError::Protocol { what: "no answer to an N-EVENT-REPORT", reason: 2 }),
            }
        })();
        match status {
            Ok(status) => {
                let _ = association.release(); // it has the answer, whatever becomes of the connection
                if status.is_success() { Ok(()) } else { Err(format!("status {status}")) }
            }
            Err(error) => {
                association.abort(&error);
                Err(error.to_string())
            }
        }
    }
}

fn proposal(calling: AeTitle, called: AeTitle, roles: Vec<Role>) -> Proposal {
    Proposal { calling, called, contexts: vec![(COMMITMENT.into(), vec![EXPLICIT.into(), IMPLICIT.into()])], roles }
}

fn context_of(association: &Link) -> Result<u8, DimseError> {
    let context = association.context_of(COMMITMENT).ok_or(DimseError::NoContext { sop_class_uid: COMMITMENT.into() })?;
    Ok(context.id)
}

/// Why a destination was not asked, or refuses to be.
enum NotAsked {
    Association(DimseError),
    Status(Status),
}

impl Sender {
    /// Asks for the commitment of what is stored and not committed, and waits a little for the answer. Whether there was something to ask.
    pub(super) fn commit(&self, stopping: &AtomicBool) -> bool {
        let (name, again) = (&self.destination.name, self.destination.commitment_retry());
        let asked = match self.runtime.block_on(jobs::ask(self.store.pool(), name, again)) {
            Ok(Some(asked)) => asked,
            Ok(None) => return false,
            Err(error) => {
                tracing::error!(%error, "the deliveries cannot be read, trying again");
                return false;
            }
        };
        let _span = tracing::error_span!("commitment", delivery = next_id(), destination = name, study = asked.study_uid).entered();
        self.metrics.asked(&asked.transaction_uid);
        let why = match self.request(&asked, stopping) {
            Ok(()) => return true,
            Err(NotAsked::Association(error)) => error.to_string(),
            Err(NotAsked::Status(status)) => format!("status {status} to the request for storage commitment"),
        };
        self.metrics.settled(&asked.transaction_uid, false);
        tracing::warn!(why, "a destination cannot be asked for storage commitment, trying again");
        let wait_ms = self.destination.retry().first_ms.min(again.first_ms);
        entered(self.runtime.block_on(jobs::not_asked(self.store.pool(), name, &asked, &why, wait_ms)));
        true
    }

    fn request(&self, asked: &Asked, stopping: &AtomicBool) -> Result<(), NotAsked> {
        let Reached::Dimse(title, address) = self.destination.reached() else { return Ok(()) }; // a configuration does not ask others
        let proposal = proposal(self.calling(), title.clone(), Vec::new());
        let mut association = self.link(address, &proposal).map_err(NotAsked::Association)?;
        match n_action(&mut association, asked) {
            Ok(status) if status.is_success() => {}
            Ok(status) => {
                let _ = association.release(); // it has said what it has to say
                return Err(NotAsked::Status(status));
            }
            Err(error) => {
                association.abort(&error);
                return Err(NotAsked::Association(error));
            }
        }
        // Whatever becomes of the association now: the answer can come over another one.
        match self.wait(&mut association, title, asked, stopping) {
            Ok(true) => drop(association.accept_release()),
            Ok(false) => drop(association.release()),
            Err(error) => {
                tracing::info!(%error, "the association ended before an answer came");
                association.abort(&error);
            }
        }
        Ok(())
    }

    /// Waits for the answer, here or anywhere. True where the peer asks for a release first.
    fn wait(&self, association: &mut Link, title: &AeTitle, asked: &Asked, stopping: &AtomicBool) -> Result<bool, DimseError> {
        let desk = Desk { config: &self.settings, store: &self.store, metrics: &self.metrics, runtime: &self.runtime };
        let until = Instant::now() + WAIT;
        let open =
            || self.runtime.block_on(jobs::unanswered(self.store.pool(), &self.destination.name, &asked.transaction_uid)).unwrap_or(false);
        while Instant::now() < until && !stopping.load(Ordering::SeqCst) && open() {
            if !association.speaks(POLL)? {
                continue;
            }
            match association.receive()? {
                Message::Release => return Ok(true),
                Message::Command(id, command) if command.requested() == Some(Request::NEventReport) => {
                    desk.event(association, title, id, &command)?;
                }
                Message::Command(..) => return Err(DimseError::Protocol { what: "neither an N-EVENT-REPORT nor a release", reason: 2 }),
            }
        }
        Ok(false)
    }
}

fn n_action(association: &mut Link, asked: &Asked) -> Result<Status, DimseError> {
    let context_id = context_of(association)?;
    let references =
        asked.instances.iter().map(|(class, instance)| Reference { sop_class_uid: class.clone(), sop_instance_uid: instance.clone() });
    let question = Commitment { transaction_uid: asked.transaction_uid.clone(), instances: references.collect(), failed: Vec::new() };
    let command = Command::request(Request::NAction, 1)
        .with_text(Element::RequestedSopClassUid, COMMITMENT)
        .with_text(Element::RequestedSopInstanceUid, COMMITMENT_INSTANCE)
        .with(Element::ActionTypeId, ASK)
        .with_data_set();
    association.send_with(context_id, &command, &mut data_set(association, context_id, &question).as_slice())?;
    match association.receive()? {
        Message::Command(_, response) if response.is_response_to(Request::NAction) => {
            association.skip_data_set()?;
            Ok(response.status())
        }
        _ => Err(DimseError::Protocol { what: "no answer to an N-ACTION", reason: 2 }),
    }
}

/// Where answers of destinations come in, whichever association they come over.
struct Desk<'a> {
    config: &'a Config,
    store: &'a Store,
    metrics: &'a Metrics,
    runtime: &'a Handle,
}

impl Desk<'_> {
    /// Takes an N-EVENT-REPORT of `from`, enters it, and answers.
    fn event(&self, association: &mut Link, from: &AeTitle, context_id: u8, command: &Command) -> Result<(), DimseError> {
        let data = association.data_set(MAX_BYTES)?;
        let status = match (command.text(Element::AffectedSopInstanceUid), command.number(Element::EventTypeId), data) {
            (COMMITMENT_INSTANCE, Some(ALL | NOT_ALL), Some(data)) => match Commitment::read(data) {
                Ok(answer) => self.enter(from, answer),
                Err(error) => {
                    tracing::warn!(%from, code = error.code(), "an answer to a storage commitment cannot be read");
                    Status::INVALID_ARGUMENT
                }
            },
            (COMMITMENT_INSTANCE, Some(ALL | NOT_ALL), None) => Status::RESOURCE_LIMITATION,
            (COMMITMENT_INSTANCE, ..) => Status::NO_SUCH_EVENT_TYPE,
            _ => Status::NO_SUCH_INSTANCE,
        };
        association.send(context_id, &command.response(status))
    }

    fn enter(&self, from: &AeTitle, answer: Commitment) -> Status {
        let committed: Vec<_> = answer.instances.into_iter().map(|one| one.sop_instance_uid).collect();
        let failed: Vec<_> = answer.failed.into_iter().map(|(one, reason)| (one.sop_instance_uid, reason)).collect();
        let mut known = false;
        for destination in
            self.config.destination.iter().filter(|d| d.commitment && d.ae_title.as_ref().is_some_and(|title| title.0 == *from))
        {
            known = true;
            let name = &destination.name;
            let entered = jobs::answered(self.store.pool(), name, &answer.transaction_uid, &committed, &failed, destination.retry());
            let entered = match self.runtime.block_on(entered) {
                Ok(entered) => entered,
                Err(error) => {
                    tracing::error!(%error, "an answer to a storage commitment cannot be entered");
                    return Status::PROCESSING_FAILURE;
                }
            };
            self.metrics.committed.add(entered.committed);
            self.metrics.settled(&answer.transaction_uid, entered.study_uid.is_some());
            let Some(study_uid) = entered.study_uid else {
                tracing::info!(destination = name, "an answer to a storage commitment that is waited for no more");
                continue;
            };
            let (committed, failed) = (entered.committed, entered.again + entered.dead);
            tracing::info!(destination = name, committed, failed, "a destination answers to a storage commitment");
            let detail = format!("storage commitment: {committed} results committed, {failed} not");
            self.store.audit(AuditRecord::commitment(u8::from(failed > 0) * 4, name, &study_uid, detail));
        }
        if known { Status::SUCCESS } else { Status::NOT_AUTHORIZED }
    }
}
