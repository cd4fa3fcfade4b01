//! Taking associations: Verification and Storage (PS3.4 annex A and B).
//!
//! A thread an association. Invariants:
//! 1. A response of success follows [`Receiving::finish`](crate::store::Receiving::finish), and nothing else.
//! 2. Whatever a data set is, the association goes on; only a breach of the protocol or of a time limit ends it.
//! 3. Titles and addresses that are not listed are rejected before anything else is read.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use super::classes::{self, VERIFICATION};
use super::config::Config;
use super::metrics::Metrics;
use crate::codes::Uid;
use crate::dimse::{
    Associate, Association, Command, DimseError, Element, Message, Outcome, Pending, PresentationContext, ProposedContext, Rejection,
    Request, Status, TcpChannel,
};
use crate::store::{Announced, AuditRecord, Kept, Store, StoreError};

/// Connections beyond the associations that are open: those that ask, are rejected, or say nothing until ARTIM ends them.
const MAX_PENDING: usize = 512;
/// Enough for reading any header.
const STACK_BYTES: usize = 1 << 20;

/// What all associations share.
#[derive(Debug)]
pub(super) struct Scp {
    pub(super) config: Config,
    pub(super) store: Arc<Store>,
    pub(super) metrics: Arc<Metrics>,
    /// No more associations are taken.
    pub(super) stopping: AtomicBool,
    /// Connections, and of those associations that are open.
    connections: AtomicUsize,
    open: AtomicUsize,
}

/// One more of something until it is dropped.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    /// None where there are `most` already.
    fn below(most: usize, count: &'a AtomicUsize) -> Option<Self> {
        let counted = Self(count);
        (count.fetch_add(1, Ordering::SeqCst) < most).then_some(counted)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Scp {
    pub(super) fn new(config: Config, store: Arc<Store>, metrics: Arc<Metrics>) -> Self {
        Self { config, store, metrics, stopping: AtomicBool::new(false), connections: AtomicUsize::new(0), open: AtomicUsize::new(0) }
    }

    /// Associations that are open.
    pub(super) fn open_associations(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// Takes connections until [`Scp::stopping`].
    pub(super) fn listen(self: &Arc<Self>, listener: &TcpListener) {
        for connection in listener.incoming() {
            if self.stopping.load(Ordering::SeqCst) {
                return;
            }
            let started = connection.and_then(|stream| {
                let peer = stream.peer_addr()?;
                let scp = Arc::clone(self);
                thread::Builder::new().name("association".into()).stack_size(STACK_BYTES).spawn(move || scp.serve(stream, peer))
            });
            if let Err(error) = started {
                // Out of sockets or threads: what is open goes on.
                tracing::error!(%error, "a connection cannot be taken");
                thread::sleep(std::time::Duration::from_millis(50));
            }
        }
    }

    fn serve(&self, stream: TcpStream, peer: SocketAddr) {
        let most = self.config.limits.associations + MAX_PENDING;
        let Some(_connection) = Counted::below(most, &self.connections) else { return };
        if let Err(error) = self.associate(stream, peer) {
            tracing::warn!(%peer, %error, code = crate::geometry::Coded::code(&error), "an association ended early");
        }
    }

    fn associate(&self, stream: TcpStream, peer: SocketAddr) -> Result<(), DimseError> {
        let patience = self.config.patience();
        let pending = Pending::read(TcpChannel::new(stream, patience.pdu)?, patience)?;
        let admitted = self.admit(&pending.request, peer);
        // Who is not admitted takes no place.
        let open = admitted.is_ok().then(|| Counted::below(self.config.limits.associations, &self.open)).flatten();
        let rejection = match admitted {
            Err(rejection) => Some(rejection),
            Ok(()) if self.stopping.load(Ordering::SeqCst) => Some(Rejection::TEMPORARY_CONGESTION),
            Ok(()) if open.is_none() => Some(Rejection::LOCAL_LIMIT_EXCEEDED),
            Ok(()) => None,
        };
        let calling = pending.request.calling.clone();
        if let Some(rejection) = rejection {
            self.metrics.rejected.add(1);
            tracing::warn!(%peer, %calling, called = %pending.request.called, reason = rejection.meaning(), "an association is rejected");
            if !rejection.is_transient() {
                self.store.audit(AuditRecord::security_alert(&format!("{calling} at {peer}"), rejection.meaning()));
            }
            return pending.reject(rejection);
        }
        let contexts = pending.request.proposed.iter().map(|proposed| self.answer(proposed)).collect();
        let association = pending.accept(contexts, Vec::new(), (1, 1))?;
        self.metrics.associations.add(1);
        let mut session = Session { scp: self, association, peer, studies: BTreeMap::new() };
        let ended = session.serve();
        let Session { association, studies, .. } = session;
        if !studies.is_empty() {
            let (new, again) = studies.values().fold((0, 0), |sum, brought| (sum.0 + brought.new, sum.1 + brought.again));
            tracing::info!(%peer, %calling, new, again, released = ended.is_ok(), "an association brought instances");
        }
        for (study_uid, brought) in &studies {
            for (action, count) in [("C", brought.new), ("R", brought.again)].into_iter().filter(|(_, count)| *count > 0) {
                self.store.audit(AuditRecord::transferred(action, calling.as_str(), study_uid, format!("{count} instances received")));
            }
        }
        self.store.association_ended(studies.into_keys().collect(), ended.is_ok());
        match ended {
            Ok(()) => association.accept_release(),
            Err(error) => {
                association.abort(&error);
                Err(error)
            }
        }
    }

    fn admit(&self, request: &Associate, peer: SocketAddr) -> Result<(), Rejection> {
        if request.called != self.config.ae_title.0 {
            Err(Rejection::CALLED_AE_NOT_RECOGNIZED)
        } else if !self.config.admits(&request.calling, peer.ip()) {
            Err(Rejection::CALLING_AE_NOT_RECOGNIZED)
        } else {
            Ok(())
        }
    }

    /// The first transfer syntax of the proposal that we read.
    fn answer(&self, proposed: &ProposedContext) -> PresentationContext {
        let class = proposed.abstract_syntax.as_str();
        let takes = |syntax: &&Uid| match class {
            VERIFICATION => classes::is_native(syntax),
            _ => classes::is_readable(syntax),
        };
        let known = class == VERIFICATION || classes::is_storage(class, self.config.store.any_sop_class);
        let syntax = proposed.transfer_syntaxes.iter().find(takes);
        let outcome = match (known, syntax) {
            (false, _) => Outcome::AbstractSyntaxNotSupported,
            (true, None) => Outcome::TransferSyntaxesNotSupported,
            (true, Some(_)) => Outcome::Accepted,
        };
        let syntax = syntax.or(proposed.transfer_syntaxes.first()).cloned().unwrap_or_default();
        PresentationContext { id: proposed.id, abstract_syntax: proposed.abstract_syntax.clone(), transfer_syntax: syntax, outcome }
    }
}

/// An association at work.
struct Session<'a> {
    scp: &'a Scp,
    association: Association<TcpChannel>,
    peer: SocketAddr,
    /// Studies that it brought something of.
    studies: BTreeMap<Uid, Brought>,
}

/// What an association brought of a study.
#[derive(Debug, Clone, Copy, Default)]
struct Brought {
    /// Instances that were not here.
    new: u64,
    /// Instances that were.
    again: u64,
}

impl Session<'_> {
    /// Answers messages until the peer asks for a release.
    fn serve(&mut self) -> Result<(), DimseError> {
        loop {
            match self.association.receive()? {
                Message::Release => return Ok(()),
                Message::Command(context_id, command) => match command.requested() {
                    Some(Request::CEcho) => self.association.send(context_id, &command.response(Status::SUCCESS))?,
                    Some(Request::CStore) => self.store(context_id, &command)?,
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
    fn store(&mut self, context_id: u8, command: &Command) -> Result<(), DimseError> {
        let context = self.association.context(context_id).expect("a message has an accepted context");
        let peer = self.association.peer();
        let announced = Announced {
            sop_class_uid: command.text(Element::AffectedSopClassUid).to_owned(),
            sop_instance_uid: command.text(Element::AffectedSopInstanceUid).to_owned(),
            transfer_syntax_uid: context.transfer_syntax.clone(),
            calling: peer.calling.as_str().to_owned(),
        };
        let kept = if context.abstract_syntax == announced.sop_class_uid {
            self.keep(announced)?
        } else {
            self.association.skip_data_set()?;
            Err(StoreError::NotAsAnnounced { what: "SOP Class UID" })
        };
        let (status, comment) = answer_of(&kept);
        self.scp.metrics.stored(status);
        match kept {
            Ok(Kept::New { study_uid }) => self.brought(study_uid).new += 1,
            Ok(Kept::Again { study_uid }) => self.brought(study_uid).again += 1,
            Ok(Kept::Quarantined) => tracing::warn!(peer = %self.peer, "other content under a known SOP Instance UID is in quarantine"),
            Err(error) => tracing::warn!(peer = %self.peer, %status, code = crate::geometry::Coded::code(&error), "an instance is refused"),
        }
        let response = command.response(status);
        let response = if comment.is_empty() { response } else { response.with_text(Element::ErrorComment, &comment) };
        self.association.send(context_id, &response)
    }

    /// What was brought of a study before. From the first instance on, new or not, more of it may come until the association ends; where an
    /// earlier one was cut off, the end of this one says whether the rest came.
    fn brought(&mut self, study_uid: Uid) -> &mut Brought {
        let store = &self.scp.store;
        self.studies.entry(study_uid).or_insert_with_key(|study_uid| {
            store.study_opened(study_uid);
            Brought::default()
        })
    }

    /// Receives the data set. The inner error is for the peer, and the association goes on.
    fn keep(&mut self, announced: Announced) -> Result<Result<Kept, StoreError>, DimseError> {
        let mut receiving = match self.scp.store.receive(announced) {
            Ok(receiving) => receiving,
            Err(error) => {
                self.association.skip_data_set()?;
                return Ok(Err(error));
            }
        };
        while let Some(fragment) = self.association.next_fragment()? {
            self.scp.metrics.received_bytes.add(fragment.len() as u64);
            receiving.write(fragment);
        }
        Ok(receiving.finish())
    }
}

/// The status and comment for what became of an instance (PS3.4 table B.2-1). A comment has 64 characters.
fn answer_of(kept: &Result<Kept, StoreError>) -> (Status, String) {
    let (status, comment) = match kept {
        Ok(Kept::New { .. } | Kept::Again { .. }) => (Status::SUCCESS, String::new()),
        Ok(Kept::Quarantined) => (Status::COERCION, "known UID with other content: in quarantine, not used".into()),
        Err(StoreError::Full { .. }) => (Status::OUT_OF_RESOURCES, "disk of the store is nearly full".into()),
        Err(StoreError::Io(error)) if error.kind() == io::ErrorKind::StorageFull => {
            (Status::OUT_OF_RESOURCES, "disk of the store is full".into())
        }
        Err(StoreError::Io(_) | StoreError::Database(_) | StoreError::InUse) => (Status::PROCESSING_FAILURE, "the store fails".into()),
        Err(error @ StoreError::NotAsAnnounced { .. }) => (Status::DATA_SET_DOES_NOT_MATCH, error.shown()),
        Err(StoreError::OtherPatient) => (Status::CANNOT_UNDERSTAND, "study is here for another patient: in quarantine".into()),
        Err(error @ (StoreError::Dataset(_) | StoreError::NoUid { .. })) => (Status::CANNOT_UNDERSTAND, error.shown()),
    };
    (status, comment)
}
