//! SOP classes and transfer syntaxes that are taken.

use crate::codes::transfer_syntax;

pub(super) const VERIFICATION: &str = "1.2.840.10008.1.1";
pub(super) const STORAGE_COMMITMENT: &str = "1.2.840.10008.1.20.1";
/// What the UIDs of all standard storage SOP classes begin with (PS3.4 B.5).
const STORAGE: &str = "1.2.840.10008.5.1.4.1.1.";
