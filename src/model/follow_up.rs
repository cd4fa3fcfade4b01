//! `[follow-up]`: how objects of a patient's studies are matched.

use serde::{Deserialize, Serialize};

use super::manifest::{Manifest, Task};

/// Letters of an origin.
const MOST_ORIGIN: usize = 200;

/// How objects are matched with those of an earlier study of the patient, after that study's images were laid on these by a rigid
/// registration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FollowUp {
    /// Centres that lie farther apart are not of one object, mm: 1 to 100.
    pub gate_mm: f64,
    /// Images that correlate by less after registration are not compared: 0 to 1.
    pub min_correlation: f64,
    /// Where both come from. It is copied into every result.
    pub origin: String,
}

impl Manifest {
    /// What TOML's types cannot say of it.
    pub(super) fn check_follow_up(&self) -> Result<(), String> {
        let Some(follow_up) = &self.follow_up else { return Ok(()) };
        let wrong = |what: &str| Err(format!("`follow-up` {what}"));
        if self.model.task != Task::Detection {
            return wrong("is of objects: `task` must be \"detection\"");
        }
        if !(1.0..=100.0).contains(&follow_up.gate_mm) {
            return wrong("has a `gate_mm` outside 1 to 100");
        }
        if !(0.0..=1.0).contains(&follow_up.min_correlation) {
            return wrong("has a `min_correlation` outside 0 to 1");
        }
        let origin = &follow_up.origin;
        if !(1..=MOST_ORIGIN).contains(&origin.len()) || !origin.chars().all(|c| matches!(c, ' '..='~')) {
            return wrong("needs an `origin` of 1 to 200 ASCII characters: where its numbers come from");
        }
        Ok(())
    }
}
