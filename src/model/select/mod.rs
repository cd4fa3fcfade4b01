//! Which series a package takes: its rules, every one of them held against a series, and the best of several that fit.
//!
//! 1. All rules are evaluated, not only up to the first that fails; each is a [`Check`] with what was wanted and what was found.
//! 2. What rules found in free text or patient data is in no message, report or JSON (`dataset::Attribute`).
//! 3. A rule on attributes holds when every instance of the series meets it.

mod answer;
mod channels;
mod check;
mod evaluate;
mod rank;
mod rules;
mod volume;
#[cfg(test)]
mod tests;

pub use answer::{Answer, Assessment, Eligible, Ineligible};
pub use channels::{ChannelFile, ChannelProblem, ChannelSeries};
pub use check::Check;
pub use rank::Ranking;
pub use rules::{
    Absent, BodyPart, Contrast, Kind, Pattern, Plane, Range, Rank, Select, TagRule, Take, TextRule, ValueRule, WantedQuantity,
};
pub use volume::{EligibleVolume, VolumeAssessment};
