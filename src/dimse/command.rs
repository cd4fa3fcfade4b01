//! Command sets (PS3.7 6.3 and annex E): always implicit VR little endian, always group 0000.

use std::collections::BTreeMap;
use std::fmt;

use super::{DimseError, MAX_COMMAND_BYTES};

/// Elements of group 0000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names are those of PS3.7 table E.1-1")]
#[repr(u16)]
pub enum Element {
    AffectedSopClassUid = 0x0002,
    RequestedSopClassUid = 0x0003,
    CommandField = 0x0100,
    MessageId = 0x0110,
    MessageIdBeingRespondedTo = 0x0120,
    MoveDestination = 0x0600,
    Priority = 0x0700,
    CommandDataSetType = 0x0800,
    Status = 0x0900,
    ErrorComment = 0x0902,
    AffectedSopInstanceUid = 0x1000,
    RequestedSopInstanceUid = 0x1001,
    EventTypeId = 0x1002,
    ActionTypeId = 0x1008,
    RemainingSuboperations = 0x1020,
    CompletedSuboperations = 0x1021,
    FailedSuboperations = 0x1022,
    WarningSuboperations = 0x1023,
    MoveOriginatorTitle = 0x1030,
    MoveOriginatorMessageId = 0x1031,
}

/// What is asked for: Command Field (0000,0100) of a request. A response has the highest bit set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of PS3.7 table E.1-1")]
#[repr(u16)]
pub enum Request {
    CStore = 0x0001,
    CGet = 0x0010,
    CFind = 0x0020,
    CMove = 0x0021,
    CEcho = 0x0030,
    NEventReport = 0x0100,
    NAction = 0x0130,
    CCancel = 0x0FFF,
}

const ALL_REQUESTS: [Request; 8] = [
    Request::CStore,
    Request::CGet,
    Request::CFind,
    Request::CMove,
    Request::CEcho,
    Request::NEventReport,
    Request::NAction,
    Request::CCancel,
];

impl Request {
    /// As the standard calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::CStore => "C-STORE",
            Self::CGet => "C-GET",
            Self::CFind => "C-FIND",
            Self::CMove => "C-MOVE",
            Self::CEcho => "C-ECHO",
            Self::NEventReport => "N-EVENT-REPORT",
            Self::NAction => "N-ACTION",
            Self::CCancel => "C-CANCEL",
        }
    }
}

/// The bit of Command Field that makes a response of a request.
const RESPONSE: u16 = 0x8000;
/// Command Data Set Type without a data set.
const NO_DATA_SET: u16 = 0x0101;

/// Status (0000,0900) of a response (PS3.7 annex C, PS3.4 B.2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status(pub u16);

impl Status {
    /// Done.
    pub const SUCCESS: Self = Self(0x0000);
    /// Ended because that was asked for.
    pub const CANCELLED: Self = Self(0xFE00);
    /// The archive knows no application entity of that title.
    pub const MOVE_DESTINATION_UNKNOWN: Self = Self(0xA801);
    /// More answers follow.
    pub const PENDING: Self = Self(0xFF00);
    /// The request's SOP instance is here already, with other content.
    pub const COERCION: Self = Self(0xB000);
    /// No room: try again later.
    pub const OUT_OF_RESOURCES: Self = Self(0xA700);
    /// The data set is not of the class that it claims to be.
    pub const DATA_SET_DOES_NOT_MATCH: Self = Self(0xA900);
    /// The data set cannot be understood.
    pub const CANNOT_UNDERSTAND: Self = Self(0xC000);
    /// Something failed here.
    pub const PROCESSING_FAILURE: Self = Self(0x0110);
    /// There is no such SOP instance.
    pub const NO_SUCH_INSTANCE: Self = Self(0x0112);
    /// There is no such event.
    pub const NO_SUCH_EVENT_TYPE: Self = Self(0x0113);
    /// The data set does not say what it should.
    pub const INVALID_ARGUMENT: Self = Self(0x0115);
    /// The SOP instance is of another class.
    pub const CLASS_INSTANCE_CONFLICT: Self = Self(0x0119);
    /// There is no such action.
    pub const NO_SUCH_ACTION: Self = Self(0x0123);
    /// Not for this peer.
    pub const NOT_AUTHORIZED: Self = Self(0x0124);
    /// More than we take.
    pub const RESOURCE_LIMITATION: Self = Self(0x0213);
    /// We do no such operation.
    pub const UNRECOGNIZED_OPERATION: Self = Self(0x0211);
    /// This SOP class was not negotiated.
    pub const SOP_CLASS_NOT_SUPPORTED: Self = Self(0x0122);

    /// Done, in full.
    pub fn is_success(self) -> bool {
        self == Self::SUCCESS
    }

    /// Done, with a remark.
    pub fn is_warning(self) -> bool {
        matches!(self.0, 0x0001 | 0x0107 | 0x0116 | 0xB000..=0xBFFF)
    }

    /// More answers follow.
    pub fn is_pending(self) -> bool {
        matches!(self.0, 0xFF00 | 0xFF01)
    }

    /// Whether a failure may pass by itself: lack of resources and failures of the peer's own, not of what was sent.
    pub fn is_transient(self) -> bool {
        matches!(self.0, 0xA700..=0xA7FF | 0x0110 | 0x0213)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04X}H", self.0)
    }
}

/// A command set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Command {
    /// Values as they are on the wire, by element.
    elements: BTreeMap<u16, Vec<u8>>,
}

impl Command {
    /// A request without a data set.
    pub fn request(request: Request, message_id: u16) -> Self {
        Self::default()
            .with(Element::CommandField, request as u16)
            .with(Element::MessageId, message_id)
            .with(Element::CommandDataSetType, NO_DATA_SET)
    }

    /// A request that the peer ends what it does for this message (PS3.7 9.3.2.3).
    pub fn cancel(message_id: u16) -> Self {
        Self::default()
            .with(Element::CommandField, Request::CCancel as u16)
            .with(Element::MessageIdBeingRespondedTo, message_id)
            .with(Element::CommandDataSetType, NO_DATA_SET)
    }

    /// The response to this request: with its message, SOP class and instance, and no data set.
    #[must_use]
    pub fn response(&self, status: Status) -> Self {
        let mut response = Self::default()
            .with(Element::CommandField, self.number(Element::CommandField).unwrap_or_default() | RESPONSE)
            .with(Element::MessageIdBeingRespondedTo, self.message_id())
            .with(Element::CommandDataSetType, NO_DATA_SET)
            .with(Element::Status, status.0);
        for (requested, affected) in [
            (Element::AffectedSopClassUid, Element::AffectedSopClassUid),
            (Element::RequestedSopClassUid, Element::AffectedSopClassUid),
            (Element::AffectedSopInstanceUid, Element::AffectedSopInstanceUid),
            (Element::RequestedSopInstanceUid, Element::AffectedSopInstanceUid),
            (Element::EventTypeId, Element::EventTypeId),
            (Element::ActionTypeId, Element::ActionTypeId),
        ] {
            if let Some(value) = self.elements.get(&(requested as u16)) {
                response.elements.insert(affected as u16, value.clone());
            }
        }
        response
    }

    /// With a number (US).
    #[must_use]
    pub fn with(mut self, element: Element, value: u16) -> Self {
        self.elements.insert(element as u16, value.to_le_bytes().to_vec());
        self
    }

    /// With a text: padded to an even length, a UID with a zero, all else with a space; comments are cut to their 64 characters.
    #[must_use]
    pub fn with_text(mut self, element: Element, value: &str) -> Self {
        let limit = if element == Element::ErrorComment { 64 } else { usize::MAX };
        let mut bytes: Vec<u8> =
            value.chars().map(|c| if (' '..='~').contains(&c) && c != '\\' { c as u8 } else { b'?' }).take(limit).collect();
        if bytes.len() % 2 == 1 {
            let is_uid = matches!(element as u16, 0x0002 | 0x0003 | 0x1000 | 0x1001);
            bytes.push(if is_uid { 0 } else { b' ' });
        }
        self.elements.insert(element as u16, bytes);
        self
    }

    /// Followed by a data set.
    #[must_use]
    pub fn with_data_set(self) -> Self {
        self.with(Element::CommandDataSetType, 0)
    }

    /// What is asked for; none for a response and for what we do not know.
    pub fn requested(&self) -> Option<Request> {
        let field = self.number(Element::CommandField)?;
        ALL_REQUESTS.into_iter().find(|request| *request as u16 == field)
    }

    /// Whether it answers such a request.
    pub fn is_response_to(&self, request: Request) -> bool {
        self.number(Element::CommandField) == Some(request as u16 | RESPONSE)
    }

    /// Whether a data set follows.
    pub fn has_data_set(&self) -> bool {
        self.number(Element::CommandDataSetType).is_some_and(|kind| kind != NO_DATA_SET)
    }

    /// Message ID of a request.
    pub fn message_id(&self) -> u16 {
        self.number(Element::MessageId).unwrap_or_default()
    }

    /// Status of a response; a response without one has failed.
    pub fn status(&self) -> Status {
        Status(self.number(Element::Status).unwrap_or(Status::PROCESSING_FAILURE.0))
    }

    /// A number (US).
    pub fn number(&self, element: Element) -> Option<u16> {
        self.elements.get(&(element as u16))?.as_slice().try_into().ok().map(u16::from_le_bytes)
    }

    /// A text, padding taken off; empty where there is none, and where it is not ASCII.
    pub fn text(&self, element: Element) -> &str {
        let bytes = self.elements.get(&(element as u16)).map_or(&[] as &[u8], Vec::as_slice);
        std::str::from_utf8(bytes).ok().filter(|text| text.is_ascii()).map_or("", |text| text.trim_matches(['\0', ' ']))
    }

    /// On the wire, group length first.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut elements = Vec::new();
        for (element, value) in &self.elements {
            push_element(&mut elements, *element, value);
        }
        let mut bytes = Vec::with_capacity(12 + elements.len());
        push_element(&mut bytes, 0, &(elements.len() as u32).to_le_bytes());
        bytes.extend(elements);
        bytes
    }

    /// Reads a command set.
    pub(super) fn read(mut bytes: &[u8]) -> Result<Self, DimseError> {
        let mut command = Self::default();
        while !bytes.is_empty() {
            let wrong = DimseError::protocol("a command set is cut off");
            let Some((header, rest)) = bytes.split_at_checked(8) else { return Err(wrong) };
            let (group, element) = (u16::from_le_bytes([header[0], header[1]]), u16::from_le_bytes([header[2], header[3]]));
            let length = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
            if group != 0 {
                return Err(DimseError::protocol("a command set with elements of another group"));
            }
            let Some((value, rest)) = rest.split_at_checked(length).filter(|_| length <= MAX_COMMAND_BYTES) else { return Err(wrong) };
            if element != 0 {
                command.elements.insert(element, value.to_vec());
            }
            bytes = rest;
        }
        if command.number(Element::CommandField).is_none() {
            return Err(DimseError::protocol("a command set without a command"));
        }
        Ok(command)
    }
}

fn push_element(into: &mut Vec<u8>, element: u16, value: &[u8]) {
    into.extend(0u16.to_le_bytes());
    into.extend(element.to_le_bytes());
    into.extend((value.len() as u32).to_le_bytes());
    into.extend(value);
}
