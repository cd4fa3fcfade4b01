//! Connecting to a peer.

use std::io;
use std::net::{TcpStream, ToSocketAddrs};

use super::DimseError;
use super::association::{Association, Patience, TcpChannel};
use super::negotiation::{Associate, ProposedContext, Role};
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
    /// Where we are not the user of a class, or not only.
    pub roles: Vec<Role>,
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
        Associate {
            proposed: proposed.collect(),
            roles: self.roles.clone(),
            ..Associate::between(self.calling.clone(), self.called.clone())
        }
    }
}

/// Connects to `address` (`host:port`) by TCP and asks for an association.
///
/// # Errors
/// Where nobody is there, or nobody that wants to.
pub fn connect(address: &str, proposal: &Proposal, patience: Patience) -> Result<Association<TcpChannel>, DimseError> {
    Association::request(dial(address, patience)?, &proposal.associate(), patience)
}

/// A TCP connection to the first address of that name (`host:port`) that answers.
///
/// # Errors
/// Where nobody is there.
pub fn dial(address: &str, patience: Patience) -> Result<TcpChannel, DimseError> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for candidate in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&candidate, patience.artim) {
            Ok(stream) => return Ok(TcpChannel::new(stream, patience.pdu)?),
            Err(error) => last = error,
        }
    }
    Err(last.into())
}
