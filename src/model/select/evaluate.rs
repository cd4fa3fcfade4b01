//! Rules held against a series.

use super::answer::kind_of;
use super::check::{Check, Hidden};
use super::rules::{Absent, BodyPart, Condition, Contrast, Kind, Plane, Range, Select, TagRule, TextRule, ValueRule, WantedQuantity};
use crate::dataset::{Attribute, Frame};
use crate::geometry::{Grid, cross, norm};
use crate::series::{Part, Stack};
use crate::volume::Quantity;

/// Different values of one attribute that a message names.
const MAX_NAMED: usize = 3;
/// What stands in Contrast/Bolus Agent where none was given.
const NO_AGENT: [&str; 12] =
    ["NONE", "NO", "N", "NO CONTRAST", "WITHOUT", "WITHOUT CONTRAST", "NIL", "N/A", "-", "0", "NATIVE", "UNENHANCED"];

impl Select {
    /// The quantity that values are brought into where they can be: uptakes and concentrations, and what a Real World Value Mapping
    /// gives. Hounsfield units are there or are not.
    pub(super) fn computed_quantity(&self) -> Option<Quantity> {
        match self.quantity {
            Some(WantedQuantity::Exactly(q @ (Quantity::Suv(_) | Quantity::ActivityConcentration | Quantity::RealWorld { .. }))) => Some(q),
            _ => None,
        }
    }

    /// Every rule that is given, held against `part` and, where the gate let it pass, its `stack`.
    pub(super) fn evaluate(&self, part: &Part<'_>, stack: Option<&Stack>) -> Vec<Check> {
        let mut checks = vec![self.modality(part)];
        checks.extend((!self.body_part.is_empty()).then(|| self.body_part(part)));
        checks.extend(self.image_type.as_ref().map(|rule| image_type(part, rule)));
        checks.extend(self.orientation(stack.map_or_else(|| common_normal(part), |s| Some(normal_of(&s.grid)))));
        // Without a grid: the frames that there are, so that a localizer is told apart from a broken volume.
        checks.extend(self.slices(stack.map_or(part.frames.len(), |s| s.grid.dims()[2] as usize)));
        let pixels = || part.frames.first()?.pixel_spacing_mm.map(|[y, x]| [x, y]);
        checks.extend(self.lengths(stack.map(|s| &s.grid), pixels()));
        for (code, keyword, rule) in [
            ("select.description", "SeriesDescription", &self.description),
            ("select.protocol-name", "ProtocolName", &self.protocol_name),
            ("select.study-description", "StudyDescription", &self.study_description),
            ("select.kernel", "ConvolutionKernel", &self.kernel),
        ] {
            checks.extend(rule.as_ref().map(|rule| text(part, code, &Attribute::known(keyword), rule)));
        }
        checks.extend((self.contrast != Contrast::Any).then(|| self.contrast(part)));
        checks.push(self.kind(stack.map(kind_of)));
        checks.extend((self.kind == Kind::Image).then(|| polarity(part)));
        checks.extend(self.quantity(part, stack));
        checks.extend(self.rule.iter().map(|rule| tag_rule(part, rule)));
        checks
    }

    fn modality(&self, part: &Part<'_>) -> Check {
        let modality = &part.first().modality;
        let found = if modality.is_empty() { "absent".to_owned() } else { modality.clone() };
        let passed = self.modality.contains(modality);
        check("select.modality", "Modality", listed(&self.modality, "or"), found, Some(passed))
    }

    fn body_part(&self, part: &Part<'_>) -> Check {
        let (named, region) = (Attribute::known("BodyPartExamined"), Attribute::known("AnatomicRegionSequence"));
        let (parts, regions) = (Observed::of(part, &named), Observed::of(part, &region));
        let is_part = |values: &[String]| values.iter().any(|v| self.body_part.contains(&BodyPart::Term(v.to_ascii_uppercase())));
        let is_region = |values: &[String]| values.iter().any(|v| self.body_part.contains(&BodyPart::Code(v.clone())));
        let passed = parts.all(is_part) || regions.all(is_region);
        let mut found = parts.describe(&named).0;
        if !regions.absent() {
            found = format!("{found}, Anatomic Region {}", regions.describe(&region).0);
        }
        check("select.body-part", "Body Part Examined", listed(&self.body_part, "or"), found, Some(passed))
    }

    /// From the normal of the slices.
    pub(super) fn orientation(&self, normal: Option<[f64; 3]>) -> Option<Check> {
        if self.orientation.is_empty() {
            return None;
        }
        let plane = normal.map(|n| plane_of(n, self.orientation_tolerance_deg));
        let found = plane.map_or_else(unknown, |(plane, nearest, off_deg)| match plane {
            Plane::Oblique => format!("oblique, {off_deg:.1} degrees off {nearest}"),
            _ => format!("{plane}, {off_deg:.1} degrees off"),
        });
        let wanted = format!("{} within {} degrees", listed(&self.orientation, "or"), self.orientation_tolerance_deg);
        Some(check("select.orientation", "slice plane", wanted, found, plane.map(|p| self.orientation.contains(&p.0))))
    }

    pub(super) fn slices(&self, found: usize) -> Option<Check> {
        let wanted = match (self.min_slices, self.max_slices) {
            (None, None) => return None,
            (Some(min), None) => format!("{min} or more"),
            (None, Some(max)) => format!("up to {max}"),
            (Some(min), Some(max)) => format!("{min} to {max}"),
        };
        let passed = (self.min_slices.unwrap_or(0)..=self.max_slices.unwrap_or(usize::MAX)).contains(&found);
        Some(check("select.slices", "number of slices", wanted, found.to_string(), Some(passed)))
    }

    /// From the grid; without one, from the distances between columns and rows that images state.
    pub(super) fn lengths(&self, grid: Option<&Grid>, stated: Option<[f64; 2]>) -> Vec<Check> {
        let spacing = grid.map(Grid::spacing_mm);
        let pixels = spacing.map(|[x, y, _]| [x, y]).or(stated);
        let measured = |code, rule, range: Option<Range>, found: Option<f64>| {
            let text = found.map_or_else(unknown, |mm| format!("{mm:.2} mm"));
            range.map(|r| check(code, rule, format!("{r} mm"), text, found.map(|mm| r.holds(mm))))
        };
        let slices = measured("select.spacing", "distance between slices", self.slice_spacing_mm(), spacing.map(|s| s[2]));
        let pixel = self.pixel_spacing_mm.map(|range| {
            let found = pixels.map_or_else(unknown, |[x, y]| format!("{x:.3} x {y:.3} mm"));
            let passed = pixels.map(|p| p.iter().all(|&mm| range.holds(mm)));
            check("select.pixel-spacing", "distance between pixels", format!("{range} mm"), found, passed)
        });
        let extent = grid.map(coverage_mm);
        let coverage = measured("select.coverage", "extent along the normal", self.coverage_mm, extent);
        [slices, pixel, coverage].into_iter().flatten().collect()
    }

    pub(super) fn kind(&self, kind: Option<Kind>) -> Check {
        check("select.kind", "kind", self.kind, kind.map_or_else(unknown, |k| k.to_string()), kind.map(|k| k == self.kind))
    }

    fn contrast(&self, part: &Part<'_>) -> Check {
        let total = part.frames.len();
        let given = part.frames.iter().filter(|f| has_agent(f)).count();
        let found = match given {
            0 => "not named".to_owned(),
            n if n == total => "named".to_owned(),
            n => format!("named in {n} of {total} images"),
        };
        let (wanted, passed) = match self.contrast {
            Contrast::Forbidden => ("images without", given == 0),
            _ => ("images with one", given == total),
        };
        let agent = Attribute::known("ContrastBolusAgent");
        let mut check = check("select.contrast", "Contrast/Bolus Agent", wanted, found, Some(passed));
        check.text = Hidden(Observed::of(part, &agent).describe(&agent).1);
        check
    }

    fn quantity(&self, part: &Part<'_>, stack: Option<&Stack>) -> Option<Check> {
        let wanted = match self.quantity {
            Some(WantedQuantity::Any) => return None,
            Some(WantedQuantity::Exactly(quantity)) => quantity,
            None if part.first().modality == "CT" => Quantity::Hounsfield,
            None => return None,
        };
        let code = if wanted == Quantity::Hounsfield { "select.not-hounsfield" } else { "select.quantity" };
        let found = stack.map(|s| s.quantity);
        let text = found.map_or_else(unknown, named);
        Some(check(code, "quantity of the values (Rescale Type)", named(wanted), text, found.map(|f| f == wanted)))
    }
}

/// Slices times their distance: the extent from the outer face of the first to that of the last.
pub(super) fn coverage_mm(grid: &Grid) -> f64 {
    f64::from(grid.dims()[2]) * grid.spacing_mm()[2]
}

/// The normal of the slices, of any length.
pub(super) fn normal_of(grid: &Grid) -> [f64; 3] {
    cross(grid.lps_from_voxel().column(0), grid.lps_from_voxel().column(1))
}

pub(super) fn check(code: &'static str, rule: impl ToString, wanted: impl ToString, found: impl ToString, passed: Option<bool>) -> Check {
    let (rule, wanted, found) = (rule.to_string(), wanted.to_string(), found.to_string());
    Check { code, rule, wanted, found, passed, because: None, unchecked: false, text: Hidden(None) }
}

fn unknown() -> String {
    "not known without a regular geometry".to_owned()
}

/// The name that manifests use.
pub(super) fn named(quantity: Quantity) -> String {
    serde_json::to_value(quantity).ok().and_then(|v| Some(v.as_str()?.to_owned())).unwrap_or_default()
}

fn listed<T: ToString>(items: &[T], last: &str) -> String {
    let texts: Vec<String> = items.iter().map(T::to_string).collect();
    match texts.split_last() {
        Some((end, rest)) if !rest.is_empty() => format!("{} {last} {end}", rest.join(", ")),
        _ => texts.concat(),
    }
}

/// The plane within the tolerance, the nearest one, and how far the normal is from it, degrees.
fn plane_of(normal: [f64; 3], tolerance_deg: f64) -> (Plane, Plane, f64) {
    let length = norm(normal);
    let angles = [(Plane::Sagittal, normal[0]), (Plane::Coronal, normal[1]), (Plane::Axial, normal[2])]
        .map(|(plane, along)| (plane, (along.abs() / length).min(1.0).acos().to_degrees()));
    let (nearest, off_deg) = angles.into_iter().min_by(|a, b| a.1.total_cmp(&b.1)).expect("three axes");
    (if off_deg <= tolerance_deg { nearest } else { Plane::Oblique }, nearest, off_deg)
}

/// The normal of the slices of a series that is no grid, where all of them agree on it to a degree.
fn common_normal(part: &Part<'_>) -> Option<[f64; 3]> {
    let normal = |[a, b, c, d, e, f]: [f64; 6]| {
        let normal = cross([a, b, c], [d, e, f]);
        let length = norm(normal);
        (length > 0.5).then(|| normal.map(|v| v / length))
    };
    let first = normal(part.frames.first()?.orientation?)?;
    let agrees = |o: [f64; 6]| normal(o).is_some_and(|n| norm(cross(first, n)) < 1f64.to_radians().sin());
    part.frames.iter().all(|f| f.orientation.is_some_and(agrees)).then_some(first)
}

fn has_agent(frame: &Frame) -> bool {
    let values = |keyword| Attribute::known(keyword).values(frame);
    let is_agent = |text: &String| !NO_AGENT.contains(&text.to_ascii_uppercase().as_str());
    if values("ContrastBolusAgent").iter().any(is_agent) {
        return true;
    }
    // Enhanced images: the agents of the series, and for each frame whether they had been given by then.
    let administered = values("ContrastBolusUsageSequence.ContrastBolusAgentAdministered");
    let none_given = !administered.is_empty() && administered.iter().all(|v| v == "NO");
    !values("ContrastBolusAgentSequence").is_empty() && !none_given
}

/// What an attribute is in the instances of a series: different values, and in how many instances or frames.
struct Observed(Vec<(Vec<String>, usize)>);

impl Observed {
    fn of(part: &Part<'_>, attribute: &Attribute) -> Self {
        Self::counted(part.frames.iter().map(|frame| attribute.values(frame)))
    }

    fn counted(all: impl Iterator<Item = Vec<String>>) -> Self {
        let mut different: Vec<(Vec<String>, usize)> = Vec::new();
        let mut places = std::collections::HashMap::new();
        for values in all {
            let place = *places.entry(values.clone()).or_insert(different.len());
            match different.get_mut(place) {
                Some(known) => known.1 += 1,
                None => different.push((values, 1)),
            }
        }
        Self(different)
    }

    fn all(&self, holds: impl Fn(&[String]) -> bool) -> bool {
        !self.0.is_empty() && self.0.iter().all(|(values, _)| holds(values))
    }

    fn absent(&self) -> bool {
        self.all(<[String]>::is_empty)
    }

    /// What may be said everywhere, and what only to a person who asked.
    fn describe(&self, attribute: &Attribute) -> (String, Option<String>) {
        let mut hides = false;
        let mut public = |values: &[String]| {
            if values.is_empty() {
                return "absent".to_owned();
            }
            let shown: Option<Vec<&str>> = values.iter().map(|v| attribute.shown(v)).collect();
            hides |= shown.is_none();
            shown.map_or_else(|| "a value that is not shown".to_owned(), |values| values.join("\\"))
        };
        let found = self.joined(&mut public);
        let text = hides && !attribute.is_patient_data();
        (found, text.then(|| self.joined(&mut |values| if values.is_empty() { "absent".to_owned() } else { values.join("\\") })))
    }

    fn joined(&self, text_of: &mut dyn FnMut(&[String]) -> String) -> String {
        if let [(values, _)] = self.0.as_slice() {
            return text_of(values);
        }
        let named: Vec<String> =
            self.0.iter().take(MAX_NAMED).map(|(values, count)| format!("{} ({count} times)", text_of(values))).collect();
        let more = self.0.len().saturating_sub(MAX_NAMED);
        if more > 0 { format!("{}; and {more} others", named.join("; ")) } else { named.join("; ") }
    }
}

fn image_type(part: &Part<'_>, rule: &ValueRule) -> Check {
    let attribute = Attribute::known("ImageType");
    let observed = Observed::of(part, &attribute);
    let holds = |values: &[String]| {
        let has = |wanted: &String| values.iter().any(|v| v.eq_ignore_ascii_case(wanted));
        rule.all.iter().all(has) && (rule.any.is_empty() || rule.any.iter().any(has)) && !rule.none.iter().any(has)
    };
    let parts = [("", &rule.all, "and"), ("", &rule.any, "or"), ("not ", &rule.none, "or")];
    let wanted: Vec<String> =
        parts.iter().filter(|(_, list, _)| !list.is_empty()).map(|(word, list, last)| format!("{word}{}", listed(list, last))).collect();
    let (found, text) = observed.describe(&attribute);
    let mut check = check("select.image-type", "Image Type", wanted.join("; "), found, Some(observed.all(holds)));
    check.text = Hidden(text);
    check
}

/// Whether black and white are told apart without contradiction: MONOCHROME1 is shown with a Presentation LUT Shape of INVERSE, MONOCHROME2
/// with IDENTITY (PS3.3 C.8.11.3.1.2); either may be shown without one.
fn polarity(part: &Part<'_>) -> Check {
    let shape = Attribute::known("PresentationLUTShape");
    let agrees = |frame: &Frame| match shape.values(frame).first().map_or("", String::as_str) {
        "" => true,
        "INVERSE" => frame.instance.pixels.is_monochrome1(),
        _ => !frame.instance.pixels.is_monochrome1(),
    };
    let passed = part.frames.iter().all(agrees);
    let found = if passed { "not contradicted" } else { "contradicted" };
    check("select.polarity", "Photometric Interpretation", "one that Presentation LUT Shape does not contradict", found, Some(passed))
}

fn text(part: &Part<'_>, code: &'static str, attribute: &Attribute, rule: &TextRule) -> Check {
    let observed = Observed::of(part, attribute);
    let holds = |values: &[String]| {
        let matched = |p: &super::Pattern| values.iter().any(|v| p.matches(v));
        (rule.any.is_empty() || rule.any.iter().any(matched)) && !rule.none.iter().any(matched)
    };
    let quoted = |list: &[super::Pattern]| listed(&list.iter().map(|p| format!("`{p}`")).collect::<Vec<_>>(), "or");
    let mut wanted = Vec::new();
    if !rule.any.is_empty() {
        wanted.push(format!("what matches {}", quoted(&rule.any)));
    }
    if !rule.none.is_empty() {
        wanted.push(format!("what does not match {}", quoted(&rule.none)));
    }
    let (found, text) = observed.describe(attribute);
    let mut check = check(code, attribute, wanted.join(" and "), found, Some(observed.all(holds)));
    check.text = Hidden(text);
    check
}

impl TagRule {
    /// Whether it holds of one frame.
    pub fn holds(&self, frame: &Frame) -> bool {
        self.holds_of(&self.attribute.values(frame))
    }

    fn holds_of(&self, values: &[String]) -> bool {
        if let Some(absent) = self.absent.filter(|_| values.is_empty()) {
            return absent != Absent::Refuse;
        }
        let same = |value: &String, wanted: &String| match (self.attribute.number(value), wanted.parse::<f64>()) {
            (Some(a), Ok(b)) => a == b,
            _ => value.eq_ignore_ascii_case(wanted),
        };
        let is_one_of = |list: &[String]| values.iter().any(|v| list.iter().any(|w| same(v, w)));
        match &self.condition {
            Condition::Equals(list) => is_one_of(list),
            Condition::NotEquals(list) => !is_one_of(list),
            Condition::Matches(pattern) => values.iter().any(|v| pattern.matches(v)),
            Condition::NotMatches(pattern) => !values.iter().any(|v| pattern.matches(v)),
            Condition::Range(range) => {
                !values.is_empty() && values.iter().all(|v| self.attribute.number(v).is_some_and(|n| range.holds(n)))
            }
            Condition::Present(wanted) => values.is_empty() != *wanted,
        }
    }
}

fn tag_rule(part: &Part<'_>, rule: &TagRule) -> Check {
    let TagRule { attribute, condition, absent, because } = rule;
    let observed = Observed::of(part, attribute);
    let passed = observed.all(|values| rule.holds_of(values));
    let wanted = match condition {
        Condition::Equals(list) => listed(list, "or"),
        Condition::NotEquals(list) => format!("anything but {}", listed(list, "or")),
        Condition::Matches(pattern) => format!("what matches `{pattern}`"),
        Condition::NotMatches(pattern) => format!("what does not match `{pattern}`"),
        Condition::Range(range) => range.to_string(),
        Condition::Present(true) => "any value".to_owned(),
        Condition::Present(false) => "no value".to_owned(),
    };
    let (found, text) = observed.describe(attribute);
    let mut check = check("select.rule", attribute, wanted, found, Some(passed));
    check.because.clone_from(because);
    check.unchecked = *absent == Some(Absent::Warn) && observed.0.iter().any(|(values, _)| values.is_empty());
    check.text = Hidden(text);
    check
}
