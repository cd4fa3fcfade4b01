//! Taking associations: Verification, Storage, Storage Commitment (PS3.4 annexes A, B and J).
//!
//! A thread an association; where the peer has negotiated asynchronous operations (PS3.7 D.3.3.3), one more for each instance that waits
//! for the disk while the next ones are received. Invariants:
//! 1. A response of success follows [`Receiving::finish`](crate::store::Receiving::finish), and nothing else.
//! 2. Whatever a data set is, the association goes on; only a breach of the protocol or of a time limit ends it.
//! 3. Titles and addresses that are not listed are rejected before anything else is read.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::Instant;

use tokio::runtime::Handle;

use super::Link;
use super::arrivals::Arrivals;
use super::classes::{self, COMMITMENT, VERIFICATION};
use super::commitment::Owed;
use super::metrics::{Metrics, Step};
use super::settings::{Current, Settings};
use super::tls::TlsChannel;
use super::trail::next_id;
use crate::codes::Uid;
use crate::dataset::is_decodable;
use crate::dimse::{
    AeTitle, Associate, Channel, Command, Counted, DimseError, Element, Message, Outcome, Pending, PresentationContext, ProposedContext,
    Rejection, Request, Role, Status, TcpChannel,
};
use crate::store::{Announced, AuditRecord, Kept, Receiving, Store, StoreError};

/// Connections beyond the associations that are open: those that ask, are rejected, or say nothing until ARTIM ends them.
const MAX_PENDING: usize = 512;
/// Enough for reading any header.
const STACK_BYTES: usize = 1 << 20;

/// What all associations share.
#[derive(Debug)]
pub(super) struct Scp {
    pub(super) current: Arc<Current>,
    pub(super) store: Arc<Store>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) runtime: Handle,
    /// No more associations are taken.
    pub(super) stopping: AtomicBool,
    /// Connections, and of those associations that are open.
    connections: AtomicUsize,
    open: AtomicUsize,
}

impl Scp {
    pub(super) fn new(current: Arc<Current>, store: Arc<Store>, metrics: Arc<Metrics>, runtime: Handle) -> Self {
        Self {
            current,
            store,
            metrics,
            runtime,
            stopping: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
        }
    }

    /// Where the instances of an association go.
    fn intake<'a>(&self, arrivals: &'a mut Arrivals) -> Intake<'_, 'a> {
        Intake { store: &self.store, metrics: &self.metrics, arrivals }
    }

    /// Associations that are open.
    pub(super) fn open_associations(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// Takes connections until [`Scp::stopping`]; by TLS as the settings have it for the listener of number `tls`.
    pub(super) fn listen(self: &Arc<Self>, listener: &TcpListener, tls: Option<usize>) {
        for connection in listener.incoming() {
            if self.stopping.load(Ordering::SeqCst) {
                return;
            }
            let started = connection.and_then(|stream| {
                let peer = stream.peer_addr()?;
                let scp = Arc::clone(self);
                thread::Builder::new().name("association".into()).stack_size(STACK_BYTES).spawn(move || scp.serve(stream, peer, tls))
            });
            if let Err(error) = started {
                // Out of sockets or threads: what is open goes on.
                tracing::error!(%error, "a connection cannot be taken");
                thread::sleep(std::time::Duration::from_millis(50));
            }
        }
    }

    fn serve(&self, stream: TcpStream, peer: SocketAddr, tls: Option<usize>) {
        let _span = tracing::error_span!("association", association = next_id(), %peer).entered();
        let settings = self.current.get();
        let most = settings.limits.associations + MAX_PENDING;
        let Some(_connection) = Counted::below(most, &self.connections) else { return };
        let ended = self.channel(stream, peer, tls, &settings).and_then(|channel| self.associate(channel, peer, &settings));
        if let Err(error) = ended {
            tracing::warn!(%error, code = crate::geometry::Coded::code(&error), "an association ended early");
        }
    }

    /// The connection, by TLS after its handshake.
    fn channel(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        tls: Option<usize>,
        settings: &Settings,
    ) -> Result<Box<dyn Channel>, DimseError> {
        let patience = settings.patience();
        let tcp = TcpChannel::new(stream, patience.pdu)?;
        let Some(tls) = tls else { return Ok(Box::new(tcp)) };
        match TlsChannel::accept(tcp, settings.server(tls), patience.artim) {
            Ok(channel) => Ok(Box::new(channel)),
            Err(error) => {
                // Who goes away in the middle is no danger; who shows what we do not trust may be one.
                if error.kind() == io::ErrorKind::InvalidData {
                    self.metrics.rejected.add(1);
                    self.store.audit(AuditRecord::security_alert(&peer.to_string(), &format!("TLS: {error}")));
                }
                Err(error.into())
            }
        }
    }

    fn associate(&self, channel: Box<dyn Channel>, peer: SocketAddr, settings: &Settings) -> Result<(), DimseError> {
        let pending = Pending::read(channel, settings.patience())?;
        let admitted = admit(settings, &pending.request, peer);
        // Who is not admitted takes no place.
        let open = admitted.is_ok().then(|| Counted::below(settings.limits.associations, &self.open)).flatten();
        let rejection = match admitted {
            Err(rejection) => Some(rejection),
            Ok(()) if self.stopping.load(Ordering::SeqCst) => Some(Rejection::TEMPORARY_CONGESTION),
            Ok(()) if open.is_none() => Some(Rejection::LOCAL_LIMIT_EXCEEDED),
            Ok(()) => None,
        };
        let calling = pending.request.calling.clone();
        if let Some(rejection) = rejection {
            self.metrics.rejected.add(1);
            tracing::warn!(%calling, called = %pending.request.called, reason = rejection.meaning(), "an association is rejected");
            if !rejection.is_transient() {
                self.store.audit(AuditRecord::security_alert(&format!("{calling} at {peer}"), rejection.meaning()));
            }
            return pending.reject(rejection);
        }
        let contexts = pending.request.proposed.iter().map(|proposed| answer(settings, proposed)).collect();
        // Who answers to our requests for commitment is the provider of that class, although he calls.
        let roles: Vec<Role> = pending.request.roles.iter().filter(|role| role.sop_class_uid == COMMITMENT).cloned().collect();
        let window = window(pending.request.operations.0, settings.limits.operations);
        let association = pending.accept(contexts, roles, (window, 1))?;
        self.metrics.associations.add(1);
        let arrivals = Arrivals::new(&self.store, calling.as_str());
        let (ended, association, arrivals) = thread::scope(|scope| {
            let mut session =
                Session { scp: self, settings, association, arrivals, owed: Owed::default(), scope, window, storing: VecDeque::new() };
            let ended = session.serve();
            session.let_go();
            session.end_stored();
            (ended, session.association, session.arrivals)
        });
        let (new, again) = arrivals.end(ended.is_ok());
        if new + again > 0 {
            tracing::info!(%calling, new, again, released = ended.is_ok(), "an association brought instances");
        }
        match ended {
            Ok(()) => association.accept_release(),
            Err(error) => {
                association.abort(&error);
                Err(error)
            }
        }
    }
}

fn admit(settings: &Settings, request: &Associate, peer: SocketAddr) -> Result<(), Rejection> {
    if request.called != settings.ae_title.0 {
        Err(Rejection::CALLED_AE_NOT_RECOGNIZED)
    } else if !settings.admits(&request.calling, peer.ip()) {
        Err(Rejection::CALLING_AE_NOT_RECOGNIZED)
    } else {
        Ok(())
    }
}

/// The first transfer syntax of the proposal that we read.
fn answer(settings: &Settings, proposed: &ProposedContext) -> PresentationContext {
    let class = proposed.abstract_syntax.as_str();
    let takes = |syntax: &&Uid| match class {
        VERIFICATION | COMMITMENT => classes::is_native(syntax),
        _ => is_decodable(syntax),
    };
    let known = [VERIFICATION, COMMITMENT].contains(&class) || classes::is_storage(class, settings.store.any_sop_class);
    let syntax = proposed.transfer_syntaxes.iter().find(takes);
    let outcome = match (known, syntax) {
        (false, _) => Outcome::AbstractSyntaxNotSupported,
        (true, None) => Outcome::TransferSyntaxesNotSupported,
        (true, Some(_)) => Outcome::Accepted,
    };
    let syntax = syntax.or(proposed.transfer_syntaxes.first()).cloned().unwrap_or_default();
    PresentationContext { id: proposed.id, abstract_syntax: proposed.abstract_syntax.clone(), transfer_syntax: syntax, outcome }
}

/// How many operations a requestor that offers `offered` may have under way: 0 offers any number.
fn window(offered: u16, most: u16) -> u16 {
    if offered == 0 { most } else { offered.min(most) }
}

/// An association at work.
pub(super) struct Session<'scope, 'env> {
    pub(super) scp: &'env Scp,
    pub(super) settings: &'env Settings,
    pub(super) association: Link,
    arrivals: Arrivals,
    /// Answers to requests for commitment.
    pub(super) owed: Owed,
    /// Where instances wait for the disk beside what is received.
    scope: &'scope Scope<'scope, 'env>,
    /// Operations that may be under way.
    window: u16,
    /// Those that are, in the order in which they came.
    storing: VecDeque<Storing<'scope>>,
}

/// An instance that was received and is being put on disk.
struct Storing<'scope> {
    context_id: u8,
    command: Command,
    finishing: ScopedJoinHandle<'scope, Result<Kept, StoreError>>,
}

impl Session<'_, '_> {
    /// Answers messages until the peer asks for a release.
    fn serve(&mut self) -> Result<(), DimseError> {
        loop {
            self.answer_stored()?;
            self.settle()?;
            match self.association.receive()? {
                Message::Release => return Ok(()),
                Message::Command(context_id, command) => match command.requested() {
                    Some(Request::CEcho) => self.association.send(context_id, &command.response(Status::SUCCESS))?,
                    Some(Request::CStore) => self.store(context_id, command)?,
                    Some(Request::NAction) => self.action(context_id, &command)?,
                    Some(Request::NEventReport) => self.event(context_id, &command)?,
                    None if command.is_response_to(Request::NEventReport) => {
                        self.association.skip_data_set()?;
                        self.reported(&command);
                    }
                    Some(Request::CCancel) => {} // nothing here takes long enough
                    _ => {
                        self.association.skip_data_set()?;
                        self.association.send(context_id, &command.response(Status::UNRECOGNIZED_OPERATION))?;
                    }
                },
            }
        }
    }

    /// C-STORE (PS3.4 B.2).
    fn store(&mut self, context_id: u8, command: Command) -> Result<(), DimseError> {
        let (scp, association) = (self.scp, &mut self.association);
        let calling = &association.peer().calling;
        let sender = Sender { title: calling.as_str().to_owned(), asked: asked_by_us(self.settings, calling, &command) };
        let mut intake = scp.intake(&mut self.arrivals);
        if self.window == 1 {
            return intake.store(association, &sender, context_id, &command);
        }
        let receiving = match intake.receive(association, &sender, context_id, &command)? {
            Ok(receiving) => receiving,
            Err(error) => return intake.answer(association, context_id, &command, &Err(error)),
        };
        let finishing = thread::Builder::new().name("finish".into()).stack_size(STACK_BYTES);
        let finishing = finishing.spawn_scoped(self.scope, || finish(receiving, &scp.metrics))?;
        self.storing.push_back(Storing { context_id, command, finishing });
        Ok(())
    }

    /// Answers for instances that are on disk: for all where the peer says nothing more before, for the first ones where it has as many
    /// operations under way as it may.
    fn answer_stored(&mut self) -> Result<(), DimseError> {
        while self.storing.len() >= usize::from(self.window) || !self.storing.is_empty() && !self.association.has_spoken()? {
            let Some(storing) = self.storing.pop_front() else { break };
            let kept = storing.finishing.join().unwrap_or_else(|panic| resume_unwind(panic));
            self.scp.intake(&mut self.arrivals).answer(&mut self.association, storing.context_id, &storing.command, &kept)?;
        }
        Ok(())
    }

    /// What was whole when it was cut off is kept, and nobody hears of it.
    fn end_stored(&mut self) {
        while let Some(storing) = self.storing.pop_front() {
            self.scp.intake(&mut self.arrivals).count(&storing.finishing.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
    }
}

/// Whether an instance comes because of a C-MOVE of ours, as its sender says (PS3.7 9.1.1.1.6).
fn asked_by_us(settings: &Settings, calling: &AeTitle, command: &Command) -> bool {
    let originator = command.text(Element::MoveOriginatorTitle);
    let mut of_sender = settings.archive.iter().filter(|archive| archive.ae_title.0 == *calling);
    of_sender.any(|archive| archive.calling(settings).as_str() == originator)
}

/// Who sends an instance, and why.
pub(super) struct Sender {
    pub(super) title: String,
    /// Because we asked for it.
    pub(super) asked: bool,
}

/// Where instances go, whichever association brings them.
pub(super) struct Intake<'s, 'a> {
    pub(super) store: &'s Store,
    pub(super) metrics: &'s Metrics,
    pub(super) arrivals: &'a mut Arrivals,
}

impl<'s> Intake<'s, '_> {
    /// Takes the instance of a C-STORE request, and answers when it is on disk.
    pub(super) fn store(&mut self, association: &mut Link, sender: &Sender, context_id: u8, command: &Command) -> Result<(), DimseError> {
        let received = self.receive(association, sender, context_id, command)?;
        let kept = received.and_then(|receiving| finish(receiving, self.metrics));
        self.answer(association, context_id, command, &kept)
    }

    /// Receives the data set. The inner error is for the peer, and the association goes on.
    fn receive(
        &self,
        association: &mut Link,
        sender: &Sender,
        context_id: u8,
        command: &Command,
    ) -> Result<Result<Receiving<'s>, StoreError>, DimseError> {
        let began = Instant::now();
        let context = association.context(context_id).expect("a message has an accepted context");
        let announced = Announced {
            sop_class_uid: command.text(Element::AffectedSopClassUid).to_owned(),
            sop_instance_uid: command.text(Element::AffectedSopInstanceUid).to_owned(),
            transfer_syntax_uid: context.transfer_syntax.clone(),
            calling: sender.title.clone(),
            study_uid: None,
            asked: sender.asked,
        };
        let receiving = if context.abstract_syntax == announced.sop_class_uid {
            self.store.receive(announced)
        } else {
            Err(StoreError::NotAsAnnounced { what: "SOP Class UID" })
        };
        let mut receiving = match receiving {
            Ok(receiving) => receiving,
            Err(error) => {
                association.skip_data_set()?;
                return Ok(Err(error));
            }
        };
        while let Some(fragment) = association.next_fragment()? {
            self.metrics.received_bytes.add(fragment.len() as u64);
            receiving.write(fragment);
        }
        self.metrics.took(Step::Receive, began.elapsed());
        Ok(Ok(receiving))
    }

    /// Says what became of an instance.
    fn answer(
        &mut self,
        association: &mut Link,
        context_id: u8,
        command: &Command,
        kept: &Result<Kept, StoreError>,
    ) -> Result<(), DimseError> {
        let (status, comment) = self.count(kept);
        let response = command.response(status);
        let response = if comment.is_empty() { response } else { response.with_text(Element::ErrorComment, &comment) };
        association.send(context_id, &response)
    }

    /// Notes what became of an instance; the status and comment for it.
    fn count(&mut self, kept: &Result<Kept, StoreError>) -> (Status, String) {
        let (status, comment) = answer_of(kept);
        self.metrics.stored(status);
        match kept {
            Ok(Kept::New { .. } | Kept::Again { .. } | Kept::Asked { .. }) => {}
            Ok(Kept::Quarantined) => tracing::warn!("other content under a known SOP Instance UID is in quarantine"),
            Err(error) => tracing::warn!(%status, code = crate::geometry::Coded::code(error), "an instance is refused"),
        }
        if let Ok(kept) = kept {
            self.arrivals.add(kept);
        }
        (status, comment)
    }
}

/// Puts an instance on disk.
fn finish(receiving: Receiving<'_>, metrics: &Metrics) -> Result<Kept, StoreError> {
    let came = Instant::now();
    let kept = receiving.finish();
    metrics.took(Step::Seal, came.elapsed());
    kept
}

/// The status and comment for what became of an instance (PS3.4 table B.2-1). A comment has 64 characters.
pub(super) fn answer_of(kept: &Result<Kept, StoreError>) -> (Status, String) {
    let (status, comment) = match kept {
        Ok(Kept::New { .. } | Kept::Again { .. } | Kept::Asked { .. }) => (Status::SUCCESS, String::new()),
        Ok(Kept::Quarantined) => (Status::COERCION, "known UID with other content: in quarantine, not used".into()),
        Err(StoreError::Full { .. }) => (Status::OUT_OF_RESOURCES, "disk of the store is nearly full".into()),
        Err(StoreError::Io(error)) if error.kind() == io::ErrorKind::StorageFull => {
            (Status::OUT_OF_RESOURCES, "disk of the store is full".into())
        }
        Err(StoreError::Io(_) | StoreError::Database(_) | StoreError::Lookup(_) | StoreError::InUse) => {
            (Status::PROCESSING_FAILURE, "the store fails".into())
        }
        Err(error @ StoreError::NotAsAnnounced { .. }) => (Status::DATA_SET_DOES_NOT_MATCH, error.shown()),
        Err(StoreError::NotAsAsked) => (Status::CANNOT_UNDERSTAND, "of another patient than asked for: in quarantine".into()),
        Err(StoreError::OtherPatient) => (Status::CANNOT_UNDERSTAND, "study is here for another patient: in quarantine".into()),
        Err(error @ (StoreError::Dataset(_) | StoreError::NoUid { .. })) => (Status::CANNOT_UNDERSTAND, error.shown()),
    };
    (status, comment)
}
