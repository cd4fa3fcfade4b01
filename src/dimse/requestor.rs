//! Connecting to a peer.

use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use super::DimseError;
use super::association::{Association, Patience, TcpChannel};
use super::negotiation::{Associate, ProposedContext};
use super::pdu::AeTitle;
use crate::codes::Uid;

/// Whom to call, and with what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// Our title.
    pub calling: AeTitle,
    /// The peer's.
    pub called: AeTitle,
    /// SOP classes with the transfer syntaxes of each context; one context for each pair of a class and a list, at most 128.
    pub contexts: Vec<(Uid, Vec<Uid>)>,
}

impl Proposal {
    /// As a request for an association.
    ///
    /// # Panics
    /// With more than 128 contexts: a broken promise of the caller.
    pub fn associate(&self) -> Associate {
        assert!(self.contexts.len() <= 128, "an association has at most 128 presentation contexts");
        let proposed = self.contexts.iter().zip((1u8..).step_by(2));
        let proposed = proposed.map(|((class, syntaxes), id)| ProposedContext {
            id,
            abstract_syntax: class.clone(),
            transfer_syntaxes: syntaxes.clone(),
        });
        Associate { proposed: proposed.collect(), ..Associate::between(self.calling.clone(), self.called.clone()) }
    }
}

/// Connects to `address` (`host:port`) by TCP and asks for an association.
///
/// # Errors
/// Where nobody is there, or nobody that wants to.
pub fn connect(address: &str, proposal: &Proposal, patience: Patience) -> Result<Association<TcpChannel>, DimseError> {
    Association::request(TcpChannel::new(tcp(address, patience.artim)?, patience.pdu)?, &proposal.associate(), patience)
}

/// A TCP connection to the first address of that name that answers.
fn tcp(address: &str, limit: Duration) -> Result<TcpStream, DimseError> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for candidate in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&candidate, limit) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last.into())
}
