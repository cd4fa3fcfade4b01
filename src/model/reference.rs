//! What a package must find in an image that comes with it, or that everybody can make.

use serde::Deserialize;

use super::InstanceScore;
use super::manifest::{Finding, MeasurementKind};

/// A case with known result.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reference {
    /// The image.
    pub input: ReferenceInput,
    /// What must be found in it.
    pub expect: Vec<Expected>,
}

/// The image of a reference case.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReferenceInput {
    /// The chest CT that `roentgen demo` makes; for a package of radiographs, that of it.
    Phantom,
    /// A NIfTI or NRRD file of the package.
    File(super::manifest::File),
}

/// A number that must come out.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    /// Name of the finding, or of one of its objects.
    pub finding: String,
    /// One of its measurements; none: the probability of a classification's finding or the score of a box, 0 to 1, or the number of a
    /// regression's.
    pub measurement: Option<MeasurementKind>,
    /// In the measurement's unit.
    pub value: f64,
    /// How far off it may be on any device and provider, in the measurement's unit.
    pub tolerance: f64,
}

impl Reference {
    pub(super) fn check(&self, findings: &[Finding]) -> Result<(), String> {
        if self.expect.is_empty() {
            return Err("`reference` has no `expect`".to_owned());
        }
        for expected in &self.expect {
            let Some(finding) = findings.iter().find(|finding| finding.is_named(&expected.finding)) else {
                return Err(format!("`reference.expect` names `{}`, which is no finding", expected.finding));
            };
            let is_box = finding.instances.as_ref().is_some_and(|instances| instances.score == InstanceScore::Box);
            let has_it = expected
                .measurement
                .map_or(finding.threshold.is_some() || finding.estimate.is_some() || is_box, |kind| finding.measurements.contains(&kind));
            if !has_it {
                return Err(format!(
                    "`reference.expect` names a measurement, or without one a probability or estimate, that `{}` does not have",
                    expected.finding
                ));
            }
            if !(expected.value.is_finite() && expected.tolerance >= 0.0 && expected.tolerance.is_finite()) {
                return Err("`reference.expect` has a value or tolerance that is no number".to_owned());
            }
        }
        Ok(())
    }
}
