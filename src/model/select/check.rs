//! One rule, what it wanted, and what it found.

use std::fmt;

use serde::Serialize;

/// One rule held against a series.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Check {
    /// What programs match on: `select.` and the rule.
    pub code: &'static str,
    /// What was looked at.
    pub rule: String,
    /// What the package takes.
    pub wanted: String,
    /// What the series has; of free text and patient data only that it is there.
    pub found: String,
    /// `None` where the series has no usable geometry to say it.
    pub passed: Option<bool>,
    /// The maker's reason for the rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
    /// It holds, since there was no value to hold it against, at least in some instances.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unchecked: bool,
    /// Free text that `found` does not repeat.
    #[serde(skip)]
    pub(super) text: Hidden,
}

impl Check {
    /// For people. With `show_text` free text is repeated: only for a person at the machine who asked for it.
    pub fn message(&self, show_text: bool) -> String {
        let found = self.text.0.as_ref().filter(|_| show_text).map_or_else(|| self.found.clone(), |text| format!("{text:?}"));
        let because = self.because.as_ref().map_or_else(String::new, |b| format!(" ({b})"));
        format!("{} is {found}, the package takes {}{because}", self.rule, self.wanted)
    }

    /// What a result says of a rule that holds, since there was nothing to hold it against.
    pub fn warning(&self) -> Option<String> {
        self.unchecked.then(|| format!("{} is absent: not checked", self.rule))
    }

    /// What was found, in short, for a rule that holds.
    pub fn short(&self) -> String {
        format!("{}: {}", self.rule, self.found)
    }
}

/// A text that no format of this program repeats by itself.
#[derive(Clone, PartialEq, Default)]
pub(super) struct Hidden(pub(super) Option<String>);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "(not shown)" } else { "None" })
    }
}
