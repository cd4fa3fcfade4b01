//! An association: PDUs become messages, messages PDUs.
//!
//! States, as few of PS3.8 table 9-10 as are visible here: a request is `Pending` until it is accepted or rejected; an `Association` is open
//! until it is released or aborted, both of which consume it, or a method fails, after which only `abort` is of use.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::LazyLock;
use std::sync::atomic::AtomicUsize;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::command::Command;
use super::counted::Counted;
use super::negotiation::{Associate, Outcome, PresentationContext, Rejection, Role};
use super::pdu::{AbortReason, HEADER_BYTES, Pdu, PduReader, kind, pdu, pdv};
use super::{DimseError, MAX_COMMAND_BYTES, MAX_PDU_BYTES};

/// A byte stream to a peer: TCP, or TLS over it.
pub trait Channel: Read + Write + Send {
    /// How long a single read may take; then it fails with `WouldBlock` or `TimedOut`.
    ///
    /// # Errors
    /// Where the socket refuses.
    fn set_read_timeout(&mut self, limit: Duration) -> io::Result<()>;

    /// Whether a read has something to give at once: bytes, or the end of the stream.
    ///
    /// # Errors
    /// Where the connection fails.
    fn is_readable(&mut self) -> io::Result<bool>;

    /// Ends both directions.
    fn close(&mut self);
}

/// How long a read looks for bytes without sleeping, where the last ones came as soon: a fast sender's next are there in less, and to put a
/// thread to sleep and wake it costs both sides more than that looking, on virtual machines most of all.
const SOON: Duration = Duration::from_micros(200);
/// Threads that look so, and how many may: the other processors are the senders'.
static LOOKING: AtomicUsize = AtomicUsize::new(0);
static MAY_LOOK: LazyLock<usize> = LazyLock::new(|| thread::available_parallelism().map_or(0, |processors| processors.get() / 2));

/// A TCP connection set up for messages: nothing waits for more bytes, what comes is acknowledged at once.
///
/// A sender with Nagle's algorithm on (Debian's storescu) holds the end of each PDU back until what came before is acknowledged; with
/// delayed acknowledgement that costs 40 ms a PDU.
#[derive(Debug)]
pub struct TcpChannel {
    stream: TcpStream,
    read_timeout: Duration,
    /// The last read took no longer than [`SOON`].
    is_fast: bool,
}

impl TcpChannel {
    /// Over this connection; a write may take `write_timeout`.
    ///
    /// # Errors
    /// Where the socket refuses an option.
    pub fn new(stream: TcpStream, write_timeout: Duration) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(write_timeout))?;
        Ok(Self { stream, read_timeout: Duration::ZERO, is_fast: false })
    }

    /// Waits for bytes without sleeping.
    fn look(&mut self, deadline: Instant) {
        let Some(_looking) = Counted::below(*MAY_LOOK, &LOOKING) else { return };
        // What fails here fails in the read that follows.
        while matches!(self.is_readable(), Ok(false)) && Instant::now() < deadline {
            thread::yield_now(); // the sender may need this processor
        }
    }

    /// The connection itself.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }
}

impl Read for TcpChannel {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let began = Instant::now();
        if self.is_fast {
            self.look(began + SOON);
        }
        let count = self.stream.read(buffer)?;
        self.is_fast = began.elapsed() < SOON;
        // The kernel forgets this option by itself. Elsewhere it does not exist, and nothing is lost but time.
        #[cfg(target_os = "linux")]
        socket2::SockRef::from(&self.stream).set_tcp_quickack(true)?;
        Ok(count)
    }
}

impl Write for TcpChannel {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.stream.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

impl Channel for TcpChannel {
    fn set_read_timeout(&mut self, limit: Duration) -> io::Result<()> {
        let limit = limit.max(Duration::from_millis(1)); // zero would mean for ever
        if limit != self.read_timeout {
            self.stream.set_read_timeout(Some(limit))?;
            self.read_timeout = limit;
        }
        Ok(())
    }

    fn is_readable(&mut self) -> io::Result<bool> {
        let mut polled = [PollFd::new(&self.stream, PollFlags::IN)];
        Ok(poll(&mut polled, Some(&Timespec::default()))? > 0)
    }

    fn close(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both); // the peer may have gone before
    }
}

impl Channel for Box<dyn Channel> {
    fn set_read_timeout(&mut self, limit: Duration) -> io::Result<()> {
        (**self).set_read_timeout(limit)
    }

    fn is_readable(&mut self) -> io::Result<bool> {
        (**self).is_readable()
    }

    fn close(&mut self) {
        (**self).close();
    }
}

/// How long a peer may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For a request after the connection, for the end of it after a release (ARTIM, PS3.8 9.1.5).
    pub artim: Duration,
    /// Between two messages.
    pub idle: Duration,
    /// For the rest of a PDU of which something has come, and for the next one within a message.
    pub pdu: Duration,
}

/// Reads that fail when a point in time has passed, however small the steps in which bytes come.
struct Until<'a, C> {
    channel: &'a mut C,
    /// For the first byte, and from it for the others.
    first: Duration,
    others: Duration,
    deadline: Option<Instant>,
}

impl<C: Channel> Read for Until<'_, C> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = match self.deadline {
            None => self.first,
            Some(deadline) => deadline.checked_duration_since(Instant::now()).ok_or(io::ErrorKind::TimedOut)?,
        };
        self.channel.set_read_timeout(left)?;
        let count = self.channel.read(buffer)?;
        self.deadline.get_or_insert_with(|| Instant::now() + self.others);
        Ok(count)
    }
}

/// The next PDU, its first byte within `first`, the rest within `others`.
fn next_pdu<C: Channel>(channel: &mut C, reader: &mut PduReader, first: Duration, others: Duration) -> Result<Option<Pdu>, DimseError> {
    let read = reader.next(&mut Until { channel, first, others, deadline: None });
    read.map_err(|error| match error {
        DimseError::Io(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
            DimseError::Silent { seconds: first.max(others).as_secs() }
        }
        DimseError::Io(e) if matches!(e.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof) => DimseError::Closed,
        other => other,
    })
}

/// A request for an association that waits for an answer.
#[derive(Debug)]
pub struct Pending<C> {
    /// What the peer asks for.
    pub request: Associate,
    channel: C,
    reader: PduReader,
    patience: Patience,
}

impl<C: Channel> Pending<C> {
    /// Reads the A-ASSOCIATE-RQ that a new connection begins with.
    ///
    /// # Errors
    /// Where none comes in time or what comes is none; the peer is told so by an A-ABORT, and the connection closed.
    pub fn read(mut channel: C, patience: Patience) -> Result<Self, DimseError> {
        let mut reader = PduReader::new();
        let read = next_pdu(&mut channel, &mut reader, patience.artim, patience.artim).and_then(|found| {
            let found = found.ok_or(DimseError::Closed)?;
            match found.kind {
                kind::ASSOCIATE_RQ => Associate::read(reader.body(found)),
                _ => Err(DimseError::Protocol { what: "no request for an association", reason: 2 }),
            }
        });
        match read {
            Ok(request) => Ok(Self { request, channel, reader, patience }),
            Err(error) => {
                abort(&mut channel, &error);
                Err(error)
            }
        }
    }

    /// Accepts it with these contexts, one for each that was proposed.
    ///
    /// # Errors
    /// Where the peer is gone or takes PDUs too short for anything.
    pub fn accept(
        mut self,
        contexts: Vec<PresentationContext>,
        roles: Vec<Role>,
        operations: (u16, u16),
    ) -> Result<Association<C>, DimseError> {
        let ours =
            Associate { contexts, roles, operations, ..Associate::between(self.request.calling.clone(), self.request.called.clone()) };
        self.channel.write_all(&ours.accept_pdu())?;
        let peer = Associate { contexts: ours.contexts, ..self.request };
        Association::open(self.channel, self.reader, peer, self.patience)
    }

    /// Rejects it, and waits for the peer to close.
    ///
    /// # Errors
    /// Where the peer is gone.
    pub fn reject(mut self, rejection: Rejection) -> Result<(), DimseError> {
        self.channel.write_all(&rejection.pdu())?;
        drain(&mut self.channel, self.patience.artim.min(MAX_LINGER));
        Ok(())
    }
}

/// How long a peer may take to close a connection that is over.
const MAX_LINGER: Duration = Duration::from_secs(2);

/// Waits until the peer has closed, so that what was written last arrives, and closes.
fn drain<C: Channel>(channel: &mut C, limit: Duration) {
    let mut until = Until { channel, first: limit, others: limit, deadline: None };
    let mut rest = [0; 1024];
    while matches!(until.read(&mut rest), Ok(count) if count > 0) {}
    channel.close();
}

/// Tells the peer that it is over, and closes.
fn abort<C: Channel>(channel: &mut C, error: &DimseError) {
    let reason = match error {
        DimseError::Protocol { reason, .. } => AbortReason { source: 2, reason: *reason },
        DimseError::Closed | DimseError::Aborted(_) => return channel.close(),
        _ => AbortReason { source: 0, reason: 0 },
    };
    let _ = channel.write_all(&pdu(kind::ABORT, &[0, 0, reason.source, reason.reason])); // the peer may have gone before
    drain(channel, MAX_LINGER);
}

/// What comes from the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A command, with its presentation context. Its data set, if it has one, is read by [`Association::next_fragment`].
    Command(u8, Command),
    /// A request to release the association.
    Release,
}

/// An open association.
#[derive(Debug)]
pub struct Association<C> {
    channel: C,
    reader: PduReader,
    patience: Patience,
    /// What the peer said of itself, with the contexts as they were answered.
    peer: Associate,
    /// The P-DATA-TF PDU that is being taken apart, and how far.
    current: Option<(Pdu, usize)>,
    /// The context of the data set that is being received.
    data_set_of: Option<u8>,
    /// PDUs to be written.
    out: Vec<u8>,
    max_data_bytes: usize,
}

impl<C: Channel> Association<C> {
    fn open(channel: C, reader: PduReader, peer: Associate, patience: Patience) -> Result<Self, DimseError> {
        let max_pdu_bytes = match peer.max_pdu_bytes {
            0 => MAX_PDU_BYTES,
            1..128 => return Err(DimseError::protocol("the peer takes PDUs of less than 128 bytes")),
            bytes => bytes.min(MAX_PDU_BYTES),
        };
        // Data of even length in each fragment: some readers want that.
        let max_data_bytes = (max_pdu_bytes as usize - 6) & !1;
        Ok(Self { channel, reader, patience, peer, current: None, data_set_of: None, out: Vec::new(), max_data_bytes })
    }

    /// Asks for an association over a connection that is there.
    ///
    /// # Errors
    /// [`DimseError::Rejected`] where the peer does not want to, and what else goes wrong.
    pub fn request(mut channel: C, ours: &Associate, patience: Patience) -> Result<Self, DimseError> {
        channel.write_all(&ours.request_pdu())?;
        let mut reader = PduReader::new();
        let found = next_pdu(&mut channel, &mut reader, patience.artim, patience.artim)?.ok_or(DimseError::Closed)?;
        let body = reader.body(found);
        let read = match found.kind {
            kind::ASSOCIATE_AC => Associate::read(body),
            kind::ASSOCIATE_RJ => Err(Rejection::read(body).map_or_else(|e| e, DimseError::Rejected)),
            kind::ABORT => Err(DimseError::Aborted(abort_reason(body))),
            _ => Err(DimseError::Protocol { what: "no answer to a request for an association", reason: 2 }),
        };
        let mut peer = match read {
            Ok(peer) => peer,
            Err(error) => {
                if matches!(error, DimseError::Protocol { .. }) {
                    abort(&mut channel, &error);
                }
                return Err(error);
            }
        };
        // An answer names no SOP classes; those of the request with its number.
        for context in &mut peer.contexts {
            match ours.proposed.iter().find(|proposed| proposed.id == context.id) {
                Some(proposed) => context.abstract_syntax = proposed.abstract_syntax.clone(),
                None => context.outcome = Outcome::NoReason,
            }
        }
        Self::open(channel, reader, peer, patience)
    }

    /// What the peer said of itself, with the contexts as they were answered.
    pub fn peer(&self) -> &Associate {
        &self.peer
    }

    /// The accepted context of that number.
    pub fn context(&self, id: u8) -> Option<&PresentationContext> {
        self.peer.contexts.iter().find(|context| context.id == id && context.outcome == Outcome::Accepted)
    }

    /// The first accepted context for a SOP class.
    pub fn context_of(&self, sop_class_uid: &str) -> Option<&PresentationContext> {
        self.peer.contexts.iter().find(|c| c.outcome == Outcome::Accepted && c.abstract_syntax == sop_class_uid)
    }

    /// The accepted context for a SOP class in a transfer syntax.
    pub fn context_for(&self, sop_class_uid: &str, transfer_syntax: &str) -> Option<u8> {
        let usable = |c: &&PresentationContext| {
            c.outcome == Outcome::Accepted && c.abstract_syntax == sop_class_uid && c.transfer_syntax == transfer_syntax
        };
        self.peer.contexts.iter().find(usable).map(|context| context.id)
    }

    /// Whether the peer has said something that was not taken yet.
    ///
    /// # Errors
    /// Where the connection fails.
    pub fn has_spoken(&mut self) -> Result<bool, DimseError> {
        Ok(self.current.is_some() || !self.reader.is_empty() || self.channel.is_readable()?)
    }

    /// Whether the peer says something within `limit`: a message, a release, the end. [`Association::receive`] tells what.
    ///
    /// # Errors
    /// Where the connection fails.
    pub fn speaks(&mut self, limit: Duration) -> Result<bool, DimseError> {
        if self.current.is_some() {
            return Ok(true);
        }
        self.channel.set_read_timeout(limit)?;
        Ok(self.reader.look(&mut self.channel)?)
    }

    /// Waits for the next message.
    ///
    /// # Errors
    /// Where none comes in time, the peer goes, aborts or breaks the protocol.
    pub fn receive(&mut self) -> Result<Message, DimseError> {
        debug_assert!(self.data_set_of.is_none(), "the data set of the last message was not read");
        let mut bytes = Vec::new();
        loop {
            let wait = if bytes.is_empty() { self.patience.idle } else { self.patience.pdu };
            let Some((pdu, at)) = self.current_data(wait)? else {
                return if bytes.is_empty() { Ok(Message::Release) } else { Err(DimseError::protocol("a release within a message")) };
            };
            let body = self.reader.body(pdu);
            let value = pdv(body, at)?;
            if !value.is_command {
                return Err(DimseError::protocol("a data set without its command"));
            }
            if bytes.len() + value.end - value.start > MAX_COMMAND_BYTES {
                return Err(DimseError::protocol("a command set of more than 64 KiB"));
            }
            bytes.extend(&body[value.start..value.end]);
            self.take(pdu, value.end);
            if value.is_last {
                let command = Command::read(&bytes)?;
                if self.context(value.context_id).is_none() {
                    return Err(DimseError::protocol("a presentation context that was not accepted"));
                }
                self.data_set_of = command.has_data_set().then_some(value.context_id);
                return Ok(Message::Command(value.context_id, command));
            }
        }
    }

    /// The next piece of the data set that the last command announced; `None` after the last one.
    ///
    /// # Errors
    /// As [`Association::receive`].
    pub fn next_fragment(&mut self) -> Result<Option<&[u8]>, DimseError> {
        let Some(context_id) = self.data_set_of else { return Ok(None) };
        let Some((pdu, at)) = self.current_data(self.patience.pdu)? else {
            return Err(DimseError::protocol("a release within a data set"));
        };
        let value = pdv(self.reader.body(pdu), at)?;
        if value.is_command || value.context_id != context_id {
            return Err(DimseError::protocol("another message within a data set"));
        }
        self.take(pdu, value.end);
        if value.is_last {
            self.data_set_of = None;
        }
        Ok(Some(&self.reader.body(pdu)[value.start..value.end]))
    }

    /// The data set that the last command announced, as a whole; none where it has more than `limit` bytes, and then all of it is passed over.
    ///
    /// # Errors
    /// As [`Association::receive`].
    pub fn data_set(&mut self, limit: usize) -> Result<Option<Vec<u8>>, DimseError> {
        let (mut bytes, mut fits) = (Vec::new(), true);
        while let Some(fragment) = self.next_fragment()? {
            fits &= bytes.len() + fragment.len() <= limit;
            if fits {
                bytes.extend(fragment);
            }
        }
        Ok(fits.then_some(bytes))
    }

    /// Passes over what is left of a data set.
    ///
    /// # Errors
    /// As [`Association::receive`].
    pub fn skip_data_set(&mut self) -> Result<(), DimseError> {
        while self.next_fragment()?.is_some() {}
        Ok(())
    }

    /// The P-DATA-TF PDU that is being read and how far it was, or the next one; `None` where the peer wants to release.
    fn current_data(&mut self, wait: Duration) -> Result<Option<(Pdu, usize)>, DimseError> {
        if let Some(current) = self.current {
            return Ok(Some(current));
        }
        let pdu = next_pdu(&mut self.channel, &mut self.reader, wait, self.patience.pdu)?.ok_or(DimseError::Closed)?;
        match pdu.kind {
            kind::DATA => Ok(Some((pdu, 0))),
            kind::RELEASE_RQ => Ok(None),
            kind::ABORT => Err(DimseError::Aborted(abort_reason(self.reader.body(pdu)))),
            _ => Err(DimseError::Protocol { what: "a PDU that is not expected now", reason: 2 }),
        }
    }

    /// Marks the current PDU as read up to `end`.
    fn take(&mut self, pdu: Pdu, end: usize) {
        self.current = (end < self.reader.body(pdu).len()).then_some((pdu, end));
    }

    /// Sends a command without a data set, in one write.
    ///
    /// # Errors
    /// Where the peer is gone.
    pub fn send(&mut self, context_id: u8, command: &Command) -> Result<(), DimseError> {
        self.out.clear();
        self.push_data(context_id, true, &command.bytes());
        self.channel.write_all(&self.out)?;
        Ok(())
    }

    /// Sends a command with the data set that `data` gives. The command must say that it has one.
    ///
    /// # Errors
    /// Where the peer is gone; [`DimseError::Source`] where `data` fails, after which the association can only be aborted.
    pub fn send_with(&mut self, context_id: u8, command: &Command, data: &mut impl Read) -> Result<(), DimseError> {
        self.out.clear();
        self.push_data(context_id, true, &command.bytes());
        let mut next = self.read_piece(data)?;
        loop {
            let piece = next;
            next = if piece.len() < self.max_data_bytes { Vec::new() } else { self.read_piece(data)? };
            let is_last = next.is_empty();
            self.push_value(context_id, u8::from(is_last) << 1, &piece);
            self.channel.write_all(&self.out)?;
            self.out.clear();
            if is_last {
                return Ok(());
            }
        }
    }

    fn read_piece(&self, data: &mut impl Read) -> Result<Vec<u8>, DimseError> {
        let mut piece = Vec::with_capacity(self.max_data_bytes);
        data.take(self.max_data_bytes as u64).read_to_end(&mut piece).map_err(DimseError::Source)?;
        Ok(piece)
    }

    /// Puts bytes into `out` as PDUs, the last of which ends them.
    fn push_data(&mut self, context_id: u8, is_command: bool, bytes: &[u8]) {
        let mut pieces = bytes.chunks(self.max_data_bytes).peekable();
        while let Some(piece) = pieces.next() {
            let is_last = pieces.peek().is_none();
            self.push_value(context_id, u8::from(is_command) | u8::from(is_last) << 1, piece);
        }
    }

    /// Puts a P-DATA-TF PDU with one value into `out`.
    fn push_value(&mut self, context_id: u8, header: u8, piece: &[u8]) {
        self.out.reserve(HEADER_BYTES + 6 + piece.len());
        self.out.extend([kind::DATA, 0]);
        self.out.extend((piece.len() as u32 + 6).to_be_bytes());
        self.out.extend((piece.len() as u32 + 2).to_be_bytes());
        self.out.extend([context_id, header]);
        self.out.extend(piece);
    }

    /// Answers the peer's request to release, and closes.
    ///
    /// # Errors
    /// Where the peer is gone.
    pub fn accept_release(mut self) -> Result<(), DimseError> {
        self.channel.write_all(&pdu(kind::RELEASE_RP, &[0; 4]))?;
        drain(&mut self.channel, self.patience.artim.min(MAX_LINGER));
        Ok(())
    }

    /// Asks for a release, waits for the answer, and closes.
    ///
    /// # Errors
    /// Where the peer does not answer as it should.
    pub fn release(mut self) -> Result<(), DimseError> {
        self.channel.write_all(&pdu(kind::RELEASE_RQ, &[0; 4]))?;
        loop {
            let found = next_pdu(&mut self.channel, &mut self.reader, self.patience.artim, self.patience.pdu)?;
            match found.map(|pdu| (pdu.kind, pdu)) {
                // Both sides may ask at once (PS3.8 table 9-10, Sta9): the requestor of the association answers, too.
                Some((kind::RELEASE_RQ, _)) => self.channel.write_all(&pdu(kind::RELEASE_RP, &[0; 4]))?,
                Some((kind::RELEASE_RP, _)) | None => break,
                Some((kind::DATA, _)) => {} // a late answer
                Some((kind::ABORT, pdu)) => return Err(DimseError::Aborted(abort_reason(self.reader.body(pdu)))),
                Some(_) => return Err(DimseError::Protocol { what: "no answer to a release", reason: 2 }),
            }
        }
        self.channel.close();
        Ok(())
    }

    /// Ends the association because of `error`: a peer that breaks the protocol is told so.
    pub fn abort(mut self, error: &DimseError) {
        abort(&mut self.channel, error);
    }
}

fn abort_reason(body: &[u8]) -> AbortReason {
    match body {
        [_, _, source, reason] => AbortReason { source: *source, reason: *reason },
        _ => AbortReason { source: 0, reason: 0 },
    }
}
