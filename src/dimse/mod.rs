//! The DICOM upper layer and DIMSE messages over any byte stream (PS3.7, PS3.8): knows no store and no policy.
//!
//! Everything that a peer sends is bounded before it is kept: PDUs by the length that we announce, command sets by [`MAX_COMMAND_BYTES`],
//! presentation contexts by their number. Data sets are handed on fragment by fragment and never kept.

mod association;
mod command;
mod counted;
mod error;
mod negotiation;
mod pdu;
mod query;
mod requestor;
#[cfg(test)]
mod tests;

pub use association::{Association, Channel, Message, Patience, Pending, TcpChannel};
pub use command::{Command, Element, Request, Status};
pub use counted::Counted;
pub use error::DimseError;
pub use negotiation::{Associate, Outcome, PresentationContext, ProposedContext, Rejection, Role, UserIdentity};
pub use pdu::{AbortReason, AeTitle};
pub use query::{Bounds, Matches, Retrieval, Retrieved, Taking, find, retrieve};
pub use requestor::{Proposal, connect, dial};

/// The largest P-DATA-TF PDU that we take, which peers are told; enough for wire speed, little enough for hundreds of associations.
pub const MAX_PDU_BYTES: u32 = 128 * 1024;
/// A command set is a few hundred bytes; error comments and offending elements come on top.
pub const MAX_COMMAND_BYTES: usize = 64 * 1024;
