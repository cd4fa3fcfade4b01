//! Coded concepts (PS3.16), SOP class and transfer syntax UIDs, and new UIDs by name.

mod concepts;
mod uids;

pub use concepts::{dcm, ibsi, other, sct, ucum};
pub use uids::{Uid, hex, is_uid, sha256_hex, sop_class, transfer_syntax, uid_by_name, urn_by_name};

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

/// A coded concept: value, coding scheme designator, meaning (PS3.3 table 8.8-1).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Code {
    /// Code Value (0008,0100), at most 16 characters; what is longer is written as Long Code Value (0008,0119).
    pub value: Cow<'static, str>,
    /// Coding Scheme Designator (0008,0102): `SCT`, `DCM`, `UCUM`, `LN`, `IBSI` or a private `99...`.
    pub scheme: Cow<'static, str>,
    /// Code Meaning (0008,0104) as PS3.16 gives it, at most 64 characters.
    pub meaning: Cow<'static, str>,
}

impl Code {
    /// A concept known when the program is compiled.
    pub const fn new(value: &'static str, scheme: &'static str, meaning: &'static str) -> Self {
        Self { value: Cow::Borrowed(value), scheme: Cow::Borrowed(scheme), meaning: Cow::Borrowed(meaning) }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({}, {}, \"{}\")", self.value, self.scheme, self.meaning)
    }
}
