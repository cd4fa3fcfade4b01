//! A researcher's volume held against the rules: those that its header can answer.
//!
//! NIfTI and NRRD have no modality, no body part and no descriptions, and do not say what their values are. Whoever gives such a file has
//! chosen it: rules that it cannot answer are named in a warning that every result repeats, and do not stop it.

use super::Check;
use super::answer::Ineligible;
use super::channels::{ChannelFile, ChannelProblem};
use super::evaluate::{check, named, normal_of};
use super::rules::{Contrast, Kind, Select, WantedQuantity};
use crate::geometry::MAX_SHEAR;
use crate::model::Package;
use crate::series::{GeometryPolicy, Reason, VolumeFile};
use crate::volume::Quantity;

/// A volume that a package takes.
#[derive(Debug, Clone)]
pub struct EligibleVolume {
    /// The file.
    pub file: VolumeFile,
    /// Every rule that it can be held against, each of which holds.
    pub checks: Vec<Check>,
    /// What its values are taken as.
    pub quantity: Quantity,
    /// What could not be checked and what was taken for granted, for the reader of a result.
    pub warnings: Vec<String>,
    /// The other channels of a package with several, in their order.
    pub others: Vec<ChannelFile>,
}

/// A volume held against the rules of a package.
#[derive(Debug, Clone)]
pub struct VolumeAssessment {
    /// Every rule that it can be held against.
    pub checks: Vec<Check>,
    /// Why its grid is not taken.
    pub geometry: Vec<Reason>,
    /// As of [`EligibleVolume`].
    pub warnings: Vec<String>,
    quantity: Quantity,
    file: VolumeFile,
    others: Result<Vec<ChannelFile>, ChannelProblem>,
}

impl VolumeAssessment {
    /// What follows from it.
    ///
    /// # Errors
    /// Every rule that the volume does not meet, and what is wrong with its grid.
    pub fn answer(self) -> Result<EligibleVolume, Vec<Ineligible>> {
        let Self { checks, geometry, warnings, quantity, file, others } = self;
        let rules = checks.iter().filter(|c| c.passed != Some(true)).cloned().map(Ineligible::Rule);
        let reasons: Vec<Ineligible> = rules.chain(geometry.into_iter().map(Ineligible::Geometry)).collect();
        match others {
            // What is another channel is held against its own rules with the reference.
            Err(problem) => Err(vec![Ineligible::Channel(problem)]),
            Ok(others) if reasons.is_empty() => Ok(EligibleVolume { file, checks, quantity, warnings, others }),
            Ok(_) => Err(reasons),
        }
    }
}

impl Package {
    /// Holds a volume against those of the package's rules that its header can answer, and against the package's policy on sheared grids.
    ///
    /// Values are taken as the Hounsfield units or the plain numbers that the package wants, with a warning; a package that wants any
    /// other quantity (an uptake, for one) does not take it.
    pub fn assess_volume(&self, file: &VolumeFile) -> VolumeAssessment {
        let select = &self.manifest.select;
        let grid = &file.header.grid;
        let slices = grid.dims()[2];
        let mut checks: Vec<Check> = select.orientation(Some(normal_of(grid))).into_iter().collect();
        checks.extend(select.slices(slices as usize));
        checks.extend(select.lengths(Some(grid), None));
        checks.push(select.kind(Some(if slices > 1 { Kind::Volume } else { Kind::Image })));
        let mut warnings =
            vec![format!("not checked, since no {} file has: {}", file.header.format.name(), select.unanswered().join(", "))];
        let quantity = match select.wanted_of_file() {
            wanted @ (Quantity::Hounsfield | Quantity::Arbitrary) => {
                let taken =
                    if wanted == Quantity::Hounsfield { "Hounsfield units, as the package wants" } else { "numbers without a unit" };
                warnings.push(format!("the file does not say what its values are; taken as {taken}"));
                wanted
            }
            wanted => {
                checks.push(check("select.quantity", "quantity of the values", named(wanted), "not said by the file", Some(false)));
                wanted
            }
        };
        let mut geometry = Vec::new();
        if !grid.is_straight() && select.geometry != GeometryPolicy::Resample {
            let degrees = |tangent: f64| tangent.atan().to_degrees();
            geometry.push(Reason::Sheared { angle_deg: degrees(grid.shear()), allowed_deg: degrees(MAX_SHEAR) });
        }
        VolumeAssessment { checks, geometry, warnings, quantity, file: file.clone(), others: self.channel_files(file) }
    }
}

impl Select {
    /// The quantity of a file that says nothing of it: what the package asks for; without a word on it, Hounsfield units where it takes
    /// nothing but CT.
    pub(super) fn wanted_of_file(&self) -> Quantity {
        match self.quantity {
            Some(WantedQuantity::Exactly(quantity)) => quantity,
            None if self.modality.iter().all(|m| m == "CT") => Quantity::Hounsfield,
            None | Some(WantedQuantity::Any) => Quantity::Arbitrary,
        }
    }

    /// The rules on attributes that only DICOM has, by name.
    fn unanswered(&self) -> Vec<String> {
        let given = [
            ("modality", true),
            ("body part", !self.body_part.is_empty()),
            ("image type", self.image_type.is_some()),
            ("description", self.description.is_some()),
            ("protocol name", self.protocol_name.is_some()),
            ("study description", self.study_description.is_some()),
            ("kernel", self.kernel.is_some()),
            ("contrast", self.contrast != Contrast::Any),
        ];
        let named = given.into_iter().filter(|(_, given)| *given).map(|(name, _)| name.to_owned());
        named.chain(self.rule.iter().map(|rule| rule.attribute.to_string())).collect()
    }
}
