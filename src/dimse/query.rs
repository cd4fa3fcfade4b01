//! Query and retrieve as a user (PS3.4 annex C, PS3.7 9.1.2 to 9.1.4), over an association that is open.
//!
//! Identifiers are bytes in the transfer syntax of their context, going in and coming out. One operation at a time, so each is message 1.

use std::time::{Duration, Instant};

use super::association::{Association, Channel, Message};
use super::command::{Command, Element, Request, Status};
use super::pdu::AeTitle;
use super::{DimseError, PresentationContext};

/// The longest identifier that is taken.
const MAX_IDENTIFIER_BYTES: usize = 1 << 20;
/// How often it is seen whether to go on.
const POLL: Duration = Duration::from_millis(200);
/// How long a peer may take to end what it was asked to end. It may send what was on its way meanwhile.
const CANCELLING: Duration = Duration::from_secs(5);
const MESSAGE_ID: u16 = 1;

/// How long an operation may take.
pub struct Bounds<'a> {
    /// Without a word of the peer. A C-MOVE may be silent for as long as its sub-operations take.
    pub silent: Duration,
    /// As a whole.
    pub until: Instant,
    /// False ends it now.
    pub go_on: &'a dyn Fn() -> bool,
}

/// What a query found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matches {
    /// Their identifiers, as they came.
    pub identifiers: Vec<Vec<u8>>,
    /// There are more than were wanted: the query was cancelled.
    pub more: bool,
}

/// How instances are retrieved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retrieval<'a> {
    /// Sent to the Storage SCP of this title.
    Move(&'a AeTitle),
    /// Over the same association.
    Get,
}

/// What a retrieval came to, in sub-operations: instances.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retrieved {
    /// Sent without a remark; none where the peer does not count.
    pub completed: Option<u16>,
    /// Sent with a warning.
    pub warnings: u16,
    /// Not sent, or not taken.
    pub failed: u16,
}

/// C-FIND: the first `most` matches, after which it is cancelled.
///
/// # Errors
/// [`DimseError::Refused`] for a failure, [`DimseError::Ended`] past the bounds, and what goes wrong with the association.
pub fn find<C: Channel>(
    association: &mut Association<C>,
    context: &PresentationContext,
    identifier: &[u8],
    most: usize,
    bounds: &Bounds<'_>,
) -> Result<Matches, DimseError> {
    let mut found = Matches { identifiers: Vec::new(), more: false };
    let mut operation = Operation::begin(association, context, Request::CFind, None, identifier, bounds)?;
    loop {
        let (_, response) = operation.next(association)?;
        if !response.is_response_to(Request::CFind) {
            return Err(DimseError::Protocol { what: "no answer to a C-FIND", reason: 2 });
        }
        let match_identifier = if response.has_data_set() { association.data_set(MAX_IDENTIFIER_BYTES)? } else { None };
        let status = response.status();
        if !status.is_pending() {
            let ended = status.is_success() || (found.more && status == Status::CANCELLED);
            return if ended { Ok(found) } else { Err(operation.failure(status)) };
        }
        match match_identifier {
            Some(identifier) if found.identifiers.len() < most => found.identifiers.push(identifier),
            _ => {
                found.more = true;
                operation.cancel(association)?;
            }
        }
    }
}

/// What takes an instance that comes: its presentation context and command; the data set is to be read, and answered.
pub type Taking<'a, C> = dyn FnMut(&mut Association<C>, u8, &Command) -> Result<(), DimseError> + 'a;

/// C-MOVE or C-GET. Each C-STORE that comes meanwhile is handed to `store`, which reads its data set and answers it.
///
/// # Errors
/// As [`find`]. Failed sub-operations are none: see [`Retrieved::failed`].
pub fn retrieve<C: Channel>(
    association: &mut Association<C>,
    context: &PresentationContext,
    how: Retrieval<'_>,
    identifier: &[u8],
    bounds: &Bounds<'_>,
    store: &mut Taking<'_, C>,
) -> Result<Retrieved, DimseError> {
    let (request, destination) = match how {
        Retrieval::Move(destination) => (Request::CMove, Some(destination)),
        Retrieval::Get => (Request::CGet, None),
    };
    let mut operation = Operation::begin(association, context, request, destination, identifier, bounds)?;
    loop {
        let (context_id, message) = operation.next(association)?;
        if request == Request::CGet && message.requested() == Some(Request::CStore) {
            store(association, context_id, &message)?;
            continue;
        }
        if !message.is_response_to(request) {
            return Err(DimseError::Protocol { what: "neither an answer to a retrieval nor an instance", reason: 2 });
        }
        association.skip_data_set()?; // UIDs that failed; which are here is known better here
        let status = message.status();
        if status.is_pending() {
            continue;
        }
        if !status.is_success() && !status.is_warning() {
            return Err(operation.failure(status));
        }
        let count = |element| message.number(element);
        return Ok(Retrieved {
            completed: count(Element::CompletedSuboperations),
            warnings: count(Element::WarningSuboperations).unwrap_or_default(),
            failed: count(Element::FailedSuboperations).unwrap_or_default(),
        });
    }
}

/// One that waits for its last answer.
struct Operation<'a> {
    request: Request,
    context_id: u8,
    bounds: &'a Bounds<'a>,
    /// It was cancelled, and must have ended then.
    cancelled: Option<Instant>,
}

impl<'a> Operation<'a> {
    fn begin<C: Channel>(
        association: &mut Association<C>,
        context: &PresentationContext,
        request: Request,
        destination: Option<&AeTitle>,
        mut identifier: &[u8],
        bounds: &'a Bounds<'a>,
    ) -> Result<Self, DimseError> {
        let mut command = Command::request(request, MESSAGE_ID)
            .with_text(Element::AffectedSopClassUid, &context.abstract_syntax)
            .with(Element::Priority, 0)
            .with_data_set();
        if let Some(destination) = destination {
            command = command.with_text(Element::MoveDestination, destination.as_str());
        }
        association.send_with(context.id, &command, &mut identifier)?;
        Ok(Self { request, context_id: context.id, bounds, cancelled: None })
    }

    /// The next message. Past the bounds the peer is asked to end it, and has a little time for that.
    fn next<C: Channel>(&mut self, association: &mut Association<C>) -> Result<(u8, Command), DimseError> {
        let silent_until = Instant::now() + self.bounds.silent;
        loop {
            let now = Instant::now();
            match self.cancelled {
                Some(until) if now >= until => return Err(DimseError::Ended { request: self.request }),
                None if now >= silent_until => return Err(DimseError::Silent { seconds: self.bounds.silent.as_secs() }),
                None if now >= self.bounds.until || !(self.bounds.go_on)() => self.cancel(association)?,
                _ => {}
            }
            if association.speaks(POLL)? {
                break;
            }
        }
        match association.receive()? {
            Message::Command(context_id, command) => Ok((context_id, command)),
            Message::Release => Err(DimseError::Protocol { what: "a release before the last answer", reason: 2 }),
        }
    }

    /// Asks the peer to end it (C-CANCEL), once.
    fn cancel<C: Channel>(&mut self, association: &mut Association<C>) -> Result<(), DimseError> {
        if self.cancelled.is_none() {
            self.cancelled = Some(Instant::now() + CANCELLING);
            association.send(self.context_id, &Command::cancel(MESSAGE_ID))?;
        }
        Ok(())
    }

    fn failure(&self, status: Status) -> DimseError {
        match status {
            Status::CANCELLED if self.cancelled.is_some() => DimseError::Ended { request: self.request },
            _ => DimseError::Refused { request: self.request, status },
        }
    }
}
