//! What goes wrong between two application entities.

use std::io;

use thiserror::Error;

use super::command::{Request, Status};
use super::pdu::AbortReason;
use crate::geometry::Coded;

/// Why an association failed. Messages hold no text of the peer but AE titles and UIDs.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DimseError {
    /// The network failed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// Nothing came in time.
    #[error("the peer was silent for {seconds} s")]
    Silent {
        /// How long was waited.
        seconds: u64,
    },
    /// The connection ended where a message should come.
    #[error("the peer closed the connection without a release")]
    Closed,
    /// A-ABORT came.
    #[error("the peer aborted the association (source {source}, reason {reason})", source = .0.source, reason = .0.reason)]
    Aborted(AbortReason),
    /// A-ASSOCIATE-RJ came.
    #[error("the peer rejected the association: {meaning} (result {result}, source {source}, reason {reason})",
        meaning = .0.meaning(), result = .0.result, source = .0.source, reason = .0.reason)]
    Rejected(super::Rejection),
    /// What came is no DICOM, or not now.
    #[error("the peer breaks the protocol: {what}")]
    Protocol {
        /// What is wrong.
        what: &'static str,
        /// What the standard has as a reason for A-ABORT.
        reason: u8,
    },
    /// No presentation context was accepted for it.
    #[error("the peer takes no {sop_class_uid} in this transfer syntax")]
    NoContext {
        /// The SOP class.
        sop_class_uid: String,
    },
    /// A query or a retrieval was answered with a failure.
    #[error("the peer refuses {} with {status}: {}", .request.name(), meaning(.request, .status))]
    Refused {
        /// What was asked for.
        request: Request,
        /// The answer.
        status: Status,
    },
    /// We ended it: it took longer than it may, or the node stops.
    #[error("{} was ended before the peer had done it: it takes too long, or this node stops", .request.name())]
    Ended {
        /// What was asked for.
        request: Request,
    },
    /// The data that was to be sent could not be read.
    #[error("the data to be sent cannot be read: {0}")]
    Source(io::Error),
}

impl DimseError {
    /// An unexpected PDU or parameter.
    pub(super) fn protocol(what: &'static str) -> Self {
        Self::Protocol { what, reason: 6 }
    }

    /// Whether the same may succeed later: what depends on network and load, not on what was asked.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Io(_) | Self::Silent { .. } | Self::Closed | Self::Aborted(_) => true,
            Self::Rejected(rejection) => rejection.is_transient(),
            Self::Refused { status, .. } => status.is_transient(),
            Self::Ended { .. } => true,
            Self::Protocol { .. } | Self::NoContext { .. } | Self::Source(_) => false,
        }
    }
}

impl Coded for DimseError {
    fn code(&self) -> &'static str {
        match self {
            Self::Io(_) => "dimse.io",
            Self::Silent { .. } => "dimse.silent",
            Self::Closed => "dimse.closed",
            Self::Aborted(_) => "dimse.aborted",
            Self::Rejected(_) => "dimse.rejected",
            Self::Protocol { .. } => "dimse.protocol",
            Self::NoContext { .. } => "dimse.no-context",
            Self::Refused { status: Status::MOVE_DESTINATION_UNKNOWN, .. } => "dimse.move-destination-unknown",
            Self::Refused { status: Status(0xA700..=0xA7FF), .. } => "dimse.out-of-resources",
            Self::Refused { .. } => "dimse.refused",
            Self::Ended { .. } => "dimse.ended",
            Self::Source(_) => "dimse.source",
        }
    }
}

/// What a failure means for a query or a retrieval, and what to do (PS3.4 C.4.1 to C.4.3, PS3.7 annex C).
fn meaning(request: &Request, status: &Status) -> &'static str {
    match (request, status.0) {
        (_, 0xA801) => "move destination unknown: enter this node's title and address at the archive, or retrieve by C-GET",
        (Request::CFind, 0xA700..=0xA7FF) => "out of resources",
        (_, 0xA701) => "out of resources: it cannot count the matches",
        (_, 0xA702) => "out of resources: it cannot do the sub-operations",
        (_, 0xA900) => "identifier does not match SOP class",
        (_, 0x0122) => "SOP class not supported",
        (_, 0x0124) => "not authorized: allow this node's title to query and retrieve at the archive",
        (_, 0x0211) => "unrecognized operation",
        (Request::CMove, 0xC000..=0xCFFF) => "unable to process: see whether the archive knows this node's title and address",
        (_, 0xC000..=0xCFFF) => "unable to process",
        _ => "failed",
    }
}
