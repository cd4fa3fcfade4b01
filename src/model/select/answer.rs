//! Whether a package takes a series, and if not, every reason why.

use thiserror::Error;

use super::channels::{ChannelProblem, ChannelSeries};
use super::{Check, Kind, Select};
use crate::geometry::Coded;
use crate::model::Package;
use crate::series::{Kind as StackKind, Part, Reason, Stack};

/// One rule of the package, or of geometry, that a series does not meet.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum Ineligible {
    /// A rule of the package.
    #[error("{}", .0.message(false))]
    Rule(Check),
    /// The geometry gate refused it.
    #[error("{0}")]
    Geometry(Reason),
    /// The package takes one series of a study, and another one fits better.
    #[error("{series} fits better: {why}")]
    Outranked {
        /// The other one: number and UID.
        series: String,
        /// The first rule of ranking that differs, with both values.
        why: String,
    },
    /// The package sees several series of a study at once, and this one is another channel, or lacks others.
    #[error(transparent)]
    Channel(ChannelProblem),
}

/// Whether a part of a series is taken, and if not, every reason why.
pub type Answer = Result<Eligible, Vec<Ineligible>>;

impl Coded for Ineligible {
    fn code(&self) -> &'static str {
        match self {
            Self::Rule(check) => check.code,
            Self::Geometry(reason) => reason.code(),
            Self::Outranked { .. } => "select.outranked",
            Self::Channel(problem) => problem.code(),
        }
    }
}

impl Ineligible {
    /// Whether the series is one that the package wants, in a state that is not safe to analyse. A series of nothing but localizers or
    /// of objects that are no slices is no such series.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Geometry(Reason::Localizer { count, total } | Reason::NotASlice { count, total, .. }) => count < total,
            Self::Geometry(_) => true,
            Self::Rule(check) => matches!(check.code, "select.not-hounsfield" | "select.quantity"),
            Self::Outranked { .. } => false,
            Self::Channel(problem) => problem.is_refusal(),
        }
    }
}

/// A series that a package takes.
#[derive(Debug, Clone)]
pub struct Eligible {
    /// Its instances as a regular stack.
    pub stack: Stack,
    /// Every rule, each of which holds.
    pub checks: Vec<Check>,
    /// Number and UID of the series, for people.
    pub name: String,
    /// Why it was taken before other series of its study; empty where it was not compared.
    pub preferred: Vec<String>,
    /// The other channels of a package with several, in their order.
    pub others: Vec<ChannelSeries>,
}

/// A series held against all rules of a package and the geometry gate.
#[derive(Debug, Clone)]
pub struct Assessment {
    /// Every rule, in the order of the documentation.
    pub checks: Vec<Check>,
    /// The stack, or why it is none.
    pub geometry: Result<Stack, Vec<Reason>>,
    name: String,
}

impl Assessment {
    /// What follows from it.
    ///
    /// # Errors
    /// Every rule that the series does not meet, and every reason of the gate.
    pub fn answer(self) -> Result<Eligible, Vec<Ineligible>> {
        let Self { checks, geometry, name } = self;
        // A rule that could not be evaluated blocks, unless the geometry that it lacks is itself among the reasons.
        let fails = |c: &&Check| c.passed == Some(false) || (geometry.is_ok() && c.passed.is_none());
        let mut reasons: Vec<Ineligible> = checks.iter().filter(fails).cloned().map(Ineligible::Rule).collect();
        match geometry {
            Ok(mut stack) if reasons.is_empty() => {
                stack.warnings.extend(checks.iter().filter_map(Check::warning));
                Ok(Eligible { stack, checks, name, preferred: Vec::new(), others: Vec::new() })
            }
            Ok(_) => Err(reasons),
            Err(refused) => {
                reasons.extend(refused.into_iter().map(Ineligible::Geometry));
                Err(reasons)
            }
        }
    }
}

impl Package {
    /// Holds a part of a series against the package's rules and the geometry gate.
    ///
    /// # Errors
    /// Every rule that it does not meet, not only the first.
    pub fn eligible(&self, part: &Part<'_>) -> Result<Eligible, Vec<Ineligible>> {
        self.assess(part).answer()
    }

    /// As [`Package::eligible`], with the rules that hold where others do not.
    pub fn assess(&self, part: &Part<'_>) -> Assessment {
        self.manifest.select.assess(part)
    }
}

impl Select {
    /// Holds a part of a series, taken apart by the same policy, against all rules and the geometry gate.
    pub(super) fn assess(&self, part: &Part<'_>) -> Assessment {
        assert_eq!(part.policy, self.geometry, "series are taken apart by the package's policy");
        let geometry = part.gate_for(self.computed_quantity()).map_err(|refusal| refusal.reasons);
        Assessment { checks: self.evaluate(part, geometry.as_ref().ok()), geometry, name: name_of(part) }
    }
}

/// What a stack is.
pub(super) fn kind_of(stack: &Stack) -> Kind {
    match stack.kind {
        StackKind::Volume => Kind::Volume,
        StackKind::Image => Kind::Image,
        StackKind::Cine => Kind::Cine,
    }
}

pub(super) fn name_of(part: &Part<'_>) -> String {
    let number = part.series.series_number.map_or_else(String::new, |n| format!("{n} "));
    let of_several = if part.of > 1 { format!(", part {}", part.number) } else { String::new() };
    format!("series {number}({}){of_several}", part.series.series_uid)
}
