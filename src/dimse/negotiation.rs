//! What two application entities agree on (PS3.8 9.3.2 to 9.3.4, PS3.7 annex D).

use super::DimseError;
use super::pdu::{AeTitle, kind, pdu};
use crate::codes::Uid;
use crate::dataset::{IMPLEMENTATION_VERSION_NAME, implementation_class_uid};

/// The only application context there is.
const APPLICATION_CONTEXT: &str = "1.2.840.10008.3.1.1.1";
/// Context IDs are the odd numbers of a byte.
const MAX_CONTEXTS: usize = 128;
/// Transfer syntaxes that one context may propose.
const MAX_TRANSFER_SYNTAXES: usize = 64;

/// A presentation context as it is proposed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProposedContext {
    /// Odd.
    pub id: u8,
    /// The SOP class.
    pub abstract_syntax: Uid,
    /// In the order of the proposal.
    pub transfer_syntaxes: Vec<Uid>,
}

/// What became of a proposed context (PS3.8 table 9-18).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Outcome {
    /// It is accepted.
    Accepted = 0,
    /// Not now.
    UserRejection = 1,
    /// Without a reason.
    NoReason = 2,
    /// We know no such SOP class.
    AbstractSyntaxNotSupported = 3,
    /// We know none of its transfer syntaxes.
    TransferSyntaxesNotSupported = 4,
}

/// A negotiated presentation context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresentationContext {
    /// Odd.
    pub id: u8,
    /// The SOP class.
    pub abstract_syntax: Uid,
    /// The one that data sets are in; of no meaning where it is not accepted.
    pub transfer_syntax: Uid,
    /// Whether it may be used.
    pub outcome: Outcome,
}

/// Who may be which side of a SOP class (PS3.7 D.3.3.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    /// The SOP class.
    pub sop_class_uid: Uid,
    /// Whether the requestor may be the user.
    pub scu: bool,
    /// Whether the requestor may be the provider.
    pub scp: bool,
}

/// Who the requestor says it is (PS3.7 D.3.3.7). Kept as bytes, shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct UserIdentity {
    /// 1: user name, 2: with passcode, 3: Kerberos ticket, 4: SAML, 5: JSON web token.
    pub kind: u8,
    /// Whether an answer is asked for.
    pub response_requested: bool,
    /// User name, ticket or token.
    pub primary: Vec<u8>,
    /// Passcode.
    pub secondary: Vec<u8>,
}

impl std::fmt::Debug for UserIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "UserIdentity(kind {})", self.kind)
    }
}

/// A request for an association, or with contexts that were answered its acceptance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Associate {
    /// Who is called.
    pub called: AeTitle,
    /// Who calls.
    pub calling: AeTitle,
    /// Of a request.
    pub proposed: Vec<ProposedContext>,
    /// Of an acceptance.
    pub contexts: Vec<PresentationContext>,
    /// The longest P-DATA-TF PDU that its sender takes; 0 for any.
    pub max_pdu_bytes: u32,
    /// Role selection.
    pub roles: Vec<Role>,
    /// Operations that may be under way at once: invoked and performed; 0 for any number, (1, 1) where nothing is said.
    pub operations: (u16, u16),
    /// User identity negotiation.
    pub user: Option<UserIdentity>,
    /// Implementation Class UID of its sender.
    pub implementation_class_uid: Uid,
    /// Implementation Version Name of its sender.
    pub implementation_version_name: String,
}

impl Associate {
    /// Between these two, with nothing proposed, and our implementation's names.
    pub fn between(calling: AeTitle, called: AeTitle) -> Self {
        Self {
            called,
            calling,
            proposed: Vec::new(),
            contexts: Vec::new(),
            max_pdu_bytes: super::MAX_PDU_BYTES,
            roles: Vec::new(),
            operations: (1, 1),
            user: None,
            implementation_class_uid: implementation_class_uid(),
            implementation_version_name: IMPLEMENTATION_VERSION_NAME.to_owned(),
        }
    }

    /// Reads an A-ASSOCIATE-RQ or -AC PDU's body. Items of a kind that we do not know are passed over (PS3.8 9.3.1).
    pub(super) fn read(body: &[u8]) -> Result<Self, DimseError> {
        let wrong = DimseError::protocol;
        let fixed = body.get(..68).ok_or(wrong("an association PDU is cut off"))?;
        if u16::from_be_bytes([fixed[0], fixed[1]]) & 1 == 0 {
            return Err(wrong("another protocol version"));
        }
        let title = |bytes: &[u8]| AeTitle::read(bytes).ok_or(wrong("a title that is no AE title"));
        let mut read = Self {
            max_pdu_bytes: 0,
            implementation_class_uid: Uid::new(),
            implementation_version_name: String::new(),
            ..Self::between(title(&fixed[20..36])?, title(&fixed[4..20])?)
        };
        let mut application_context = "";
        for item in Items::of(&body[68..]) {
            let (kind, item) = item?;
            match kind {
                0x10 => application_context = text(item)?,
                0x20 => read.proposed.push(proposed(item)?),
                0x21 => read.contexts.push(answered(item)?),
                0x50 => read.read_user_information(item)?,
                _ => {}
            }
            if read.proposed.len().max(read.contexts.len()) > MAX_CONTEXTS {
                return Err(wrong("more than 128 presentation contexts"));
            }
        }
        if application_context != APPLICATION_CONTEXT {
            return Err(wrong("another application context"));
        }
        Ok(read)
    }

    fn read_user_information(&mut self, item: &[u8]) -> Result<(), DimseError> {
        let wrong = DimseError::protocol;
        let u16_at = |item: &[u8], at: usize| item.get(at..at + 2).map(|b| u16::from_be_bytes([b[0], b[1]]));
        for sub in Items::of(item) {
            let (kind, sub) = sub?;
            match kind {
                0x51 => {
                    let bytes = sub.try_into().map_err(|_| wrong("a maximum length that is no number"))?;
                    self.max_pdu_bytes = u32::from_be_bytes(bytes);
                }
                0x52 => self.implementation_class_uid = text(sub)?.to_owned(),
                0x53 => self.operations = u16_at(sub, 0).zip(u16_at(sub, 2)).ok_or(wrong("an operations window that is cut off"))?,
                0x54 => {
                    let length = u16_at(sub, 0).ok_or(wrong("a role selection that is cut off"))? as usize;
                    let (uid, roles) =
                        sub.get(2..2 + length).zip(sub.get(2 + length..4 + length)).ok_or(wrong("a role selection that is cut off"))?;
                    self.roles.push(Role { sop_class_uid: text(uid)?.to_owned(), scu: roles[0] == 1, scp: roles[1] == 1 });
                }
                0x55 => self.implementation_version_name = text(sub)?.to_owned(),
                0x58 => {
                    let cut = || wrong("a user identity that is cut off");
                    let primary = u16_at(sub, 2).ok_or_else(cut)? as usize;
                    let secondary = u16_at(sub, 4 + primary).ok_or_else(cut)? as usize;
                    self.user = Some(UserIdentity {
                        kind: sub[0],
                        response_requested: sub[1] == 1,
                        primary: sub.get(4..4 + primary).ok_or_else(cut)?.to_vec(),
                        secondary: sub.get(6 + primary..6 + primary + secondary).ok_or_else(cut)?.to_vec(),
                    });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// As an A-ASSOCIATE-RQ PDU.
    pub(super) fn request_pdu(&self) -> Vec<u8> {
        let contexts = self.proposed.iter().map(|context| {
            let mut body = vec![context.id, 0, 0, 0];
            push_item(&mut body, 0x30, context.abstract_syntax.as_bytes());
            context.transfer_syntaxes.iter().for_each(|uid| push_item(&mut body, 0x40, uid.as_bytes()));
            (0x20, body)
        });
        pdu(kind::ASSOCIATE_RQ, &self.body(contexts))
    }

    /// As an A-ASSOCIATE-AC PDU.
    pub(super) fn accept_pdu(&self) -> Vec<u8> {
        let contexts = self.contexts.iter().map(|context| {
            let mut body = vec![context.id, 0, context.outcome as u8, 0];
            push_item(&mut body, 0x40, context.transfer_syntax.as_bytes());
            (0x21, body)
        });
        pdu(kind::ASSOCIATE_AC, &self.body(contexts))
    }

    fn body(&self, contexts: impl Iterator<Item = (u8, Vec<u8>)>) -> Vec<u8> {
        let mut body = vec![0, 1, 0, 0];
        body.extend(self.called.padded());
        body.extend(self.calling.padded());
        body.extend([0; 32]);
        push_item(&mut body, 0x10, APPLICATION_CONTEXT.as_bytes());
        contexts.for_each(|(kind, item)| push_item(&mut body, kind, &item));
        let mut user = Vec::new();
        push_item(&mut user, 0x51, &self.max_pdu_bytes.to_be_bytes());
        push_item(&mut user, 0x52, self.implementation_class_uid.as_bytes());
        if self.operations != (1, 1) {
            push_item(&mut user, 0x53, &[self.operations.0.to_be_bytes(), self.operations.1.to_be_bytes()].concat());
        }
        for role in &self.roles {
            let mut item = (role.sop_class_uid.len() as u16).to_be_bytes().to_vec();
            item.extend(role.sop_class_uid.as_bytes());
            item.extend([u8::from(role.scu), u8::from(role.scp)]);
            push_item(&mut user, 0x54, &item);
        }
        push_item(&mut user, 0x55, self.implementation_version_name.as_bytes());
        push_item(&mut body, 0x50, &user);
        body
    }
}

/// An A-ASSOCIATE-RJ (PS3.8 table 9-21).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rejection {
    /// 1: permanent, 2: transient.
    pub result: u8,
    /// 1: the service user, 2: the service provider (ACSE), 3: the service provider (presentation).
    pub source: u8,
    /// Its meaning depends on the source.
    pub reason: u8,
}

impl Rejection {
    /// Nobody of that title is here.
    pub const CALLED_AE_NOT_RECOGNIZED: Self = Self { result: 1, source: 1, reason: 7 };
    /// We do not talk to that title, or not from there.
    pub const CALLING_AE_NOT_RECOGNIZED: Self = Self { result: 1, source: 1, reason: 3 };
    /// Too many associations.
    pub const LOCAL_LIMIT_EXCEEDED: Self = Self { result: 2, source: 3, reason: 2 };
    /// We are about to stop.
    pub const TEMPORARY_CONGESTION: Self = Self { result: 2, source: 3, reason: 1 };
    /// Of a kind that has no number.
    pub const NO_REASON: Self = Self { result: 1, source: 1, reason: 1 };

    /// Whether the peer invites to try again.
    pub fn is_transient(self) -> bool {
        self.result == 2
    }

    /// The standard's words.
    pub fn meaning(self) -> &'static str {
        match (self.source, self.reason) {
            (1, 2) => "application context name not supported",
            (1, 3) => "calling AE title not recognized",
            (1, 7) => "called AE title not recognized",
            (2, 2) => "protocol version not supported",
            (3, 1) => "temporary congestion",
            (3, 2) => "local limit exceeded",
            _ => "no reason given",
        }
    }

    pub(super) fn read(body: &[u8]) -> Result<Self, DimseError> {
        match body {
            [_, result, source, reason] => Ok(Self { result: *result, source: *source, reason: *reason }),
            _ => Err(DimseError::protocol("a rejection of another length")),
        }
    }

    pub(super) fn pdu(self) -> Vec<u8> {
        pdu(kind::ASSOCIATE_RJ, &[0, self.result, self.source, self.reason])
    }
}

fn proposed(item: &[u8]) -> Result<ProposedContext, DimseError> {
    let fixed = item.get(..4).ok_or(DimseError::protocol("a presentation context is cut off"))?;
    if fixed[0] % 2 == 0 {
        return Err(DimseError::protocol("a presentation context with an even number"));
    }
    let mut context = ProposedContext { id: fixed[0], abstract_syntax: Uid::new(), transfer_syntaxes: Vec::new() };
    for sub in Items::of(&item[4..]) {
        match sub? {
            (0x30, uid) => context.abstract_syntax = text(uid)?.to_owned(),
            (0x40, uid) if context.transfer_syntaxes.len() < MAX_TRANSFER_SYNTAXES => context.transfer_syntaxes.push(text(uid)?.to_owned()),
            _ => {}
        }
    }
    Ok(context)
}

fn answered(item: &[u8]) -> Result<PresentationContext, DimseError> {
    let fixed = item.get(..4).ok_or(DimseError::protocol("a presentation context is cut off"))?;
    let outcome = match fixed[2] {
        0 => Outcome::Accepted,
        1 => Outcome::UserRejection,
        3 => Outcome::AbstractSyntaxNotSupported,
        4 => Outcome::TransferSyntaxesNotSupported,
        _ => Outcome::NoReason,
    };
    let mut context = PresentationContext { id: fixed[0], abstract_syntax: Uid::new(), transfer_syntax: Uid::new(), outcome };
    for sub in Items::of(&item[4..]) {
        if let (0x40, uid) = sub? {
            context.transfer_syntax = text(uid)?.to_owned();
        }
    }
    Ok(context)
}

/// ASCII text, padding taken off.
fn text(bytes: &[u8]) -> Result<&str, DimseError> {
    let text = std::str::from_utf8(bytes).ok().filter(|text| text.is_ascii());
    text.map(|text| text.trim_matches(['\0', ' '])).ok_or(DimseError::protocol("text that is not ASCII"))
}

/// Items of an association PDU: type, reserved byte, length, value.
struct Items<'a>(&'a [u8]);

impl<'a> Items<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = Result<(u8, &'a [u8]), DimseError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let cut = Some(Err(DimseError::protocol("an item of an association PDU is cut off")));
        let Some(header) = self.0.get(..4) else {
            self.0 = &[];
            return cut;
        };
        let end = 4 + usize::from(u16::from_be_bytes([header[2], header[3]]));
        let Some(value) = self.0.get(4..end) else {
            self.0 = &[];
            return cut;
        };
        self.0 = &self.0[end..];
        Some(Ok((header[0], value)))
    }
}

fn push_item(into: &mut Vec<u8>, kind: u8, value: &[u8]) {
    into.extend([kind, 0]);
    into.extend((value.len() as u16).to_be_bytes());
    into.extend(value);
}
