//! The `[select]` part of the manifest, as types. `docs/package-format.md` is its description for the makers of packages.

use std::fmt;

use regex::{Regex, RegexBuilder};
use serde::de::value::StrDeserializer;
use serde::{Deserialize, Deserializer};

use crate::dataset::Attribute;
use crate::series::GeometryPolicy;
use crate::volume::Quantity;

/// Angle between the normal of the slices and a patient axis up to which a series counts as axial, sagittal or coronal.
const ORIENTATION_TOLERANCE_DEG: f64 = 30.0;
/// Longest regular expression, and the most memory that one may take when compiled.
const MAX_PATTERN: usize = 512;
const MAX_PATTERN_BYTES: usize = 1 << 20;
/// Modalities of single images that are projections.
const RADIOGRAPHS: [&str; 5] = ["CR", "DX", "MG", "IO", "PX"];

/// Which series the package takes. Every rule that is given must hold.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Select {
    /// Modality (0008,0060), one of these.
    #[serde(deserialize_with = "some_of")]
    pub modality: Vec<String>,
    /// Body Part Examined (0018,0015) or a code of Anatomic Region Sequence (0008,2218), any of these.
    #[serde(default, deserialize_with = "some_of")]
    pub body_part: Vec<BodyPart>,
    /// Values of Image Type (0008,0008).
    pub image_type: Option<ValueRule>,
    /// How the slices lie, any of these.
    #[serde(default, deserialize_with = "some_of")]
    pub orientation: Vec<Plane>,
    /// Largest angle between the normal and a patient axis for `orientation`, degrees.
    #[serde(default = "orientation_tolerance")]
    pub orientation_tolerance_deg: f64,
    /// Fewest slices.
    pub min_slices: Option<usize>,
    /// Most slices.
    pub max_slices: Option<usize>,
    /// Distance between slices, mm.
    pub slice_spacing_mm: Option<Range>,
    /// Largest distance between slices, mm: `slice_spacing_mm` without a lower end.
    pub max_slice_spacing_mm: Option<f64>,
    /// Distance between pixels, along rows and along columns, mm.
    pub pixel_spacing_mm: Option<Range>,
    /// Number of slices times their distance, mm.
    pub coverage_mm: Option<Range>,
    /// Series Description (0008,103E).
    pub description: Option<TextRule>,
    /// Protocol Name (0018,1030).
    pub protocol_name: Option<TextRule>,
    /// Study Description (0008,1030).
    pub study_description: Option<TextRule>,
    /// Convolution Kernel (0018,1210), any of its values.
    pub kernel: Option<TextRule>,
    /// Contrast/Bolus Agent (0018,0010).
    #[serde(default)]
    pub contrast: Contrast,
    /// What the instances make up.
    #[serde(default)]
    pub kind: Kind,
    /// What the values are. Without it: Hounsfield units for CT, anything for the rest.
    pub quantity: Option<WantedQuantity>,
    /// What to do with a stack that is no regular grid.
    #[serde(default)]
    pub geometry: GeometryPolicy,
    /// Rules on any attribute.
    #[serde(default)]
    pub rule: Vec<TagRule>,
    /// What decides among several series of a study that fit, first to last.
    #[serde(default)]
    pub rank: Vec<Rank>,
    /// How many of them are analysed.
    #[serde(default)]
    pub take: Take,
}

fn orientation_tolerance() -> f64 {
    ORIENTATION_TOLERANCE_DEG
}

/// A list with something in it: an empty one would take no series at all, or look as if it took every one.
fn some_of<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    let list = Vec::<T>::deserialize(deserializer)?;
    if list.is_empty() {
        return Err(serde::de::Error::custom("an empty list takes nothing: name at least one, or leave the key out"));
    }
    Ok(list)
}

/// A body part by defined term (PS3.16 annex L) or by code.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum BodyPart {
    /// Compared with Body Part Examined, whatever the case.
    Term(String),
    /// `scheme:value`, compared with the codes of Anatomic Region Sequence.
    Code(String),
}

impl TryFrom<String> for BodyPart {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.split_once(':') {
            Some((scheme, value)) if !scheme.is_empty() && !value.is_empty() => Ok(Self::Code(text)),
            None if (1..=16).contains(&text.len()) => Ok(Self::Term(text.to_ascii_uppercase())),
            _ => Err(format!("`{text}` is neither a Body Part Examined (1 to 16 characters) nor a code as \"SCT:51185008\"")),
        }
    }
}

impl fmt::Display for BodyPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Term(text) | Self::Code(text)) = self;
        f.write_str(text)
    }
}

/// Values that must or must not be among those of a multi-valued attribute, whatever the case.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValueRule {
    /// Each must be there.
    #[serde(default)]
    pub all: Vec<String>,
    /// At least one must be there.
    #[serde(default)]
    pub any: Vec<String>,
    /// None may be there.
    #[serde(default)]
    pub none: Vec<String>,
}

/// Patterns that a text must or must not match.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextRule {
    /// At least one must match.
    #[serde(default)]
    pub any: Vec<Pattern>,
    /// None may match.
    #[serde(default)]
    pub none: Vec<Pattern>,
}

/// A regular expression of the `regex` crate: no look-around, no back references, time linear in the text. It may match anywhere.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct Pattern(Regex);

impl Pattern {
    /// Whether it matches anywhere in `text`.
    pub fn matches(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.is_empty() || text.len() > MAX_PATTERN {
            return Err(format!("a regular expression takes 1 to {MAX_PATTERN} characters, this one has {}", text.len()));
        }
        let built = RegexBuilder::new(&text).size_limit(MAX_PATTERN_BYTES).dfa_size_limit(MAX_PATTERN_BYTES).nest_limit(32).build();
        let reason = |e: regex::Error| match e {
            regex::Error::CompiledTooBig(limit) => format!("it takes more than {limit} bytes"),
            // The last line says what is wrong; those before draw where.
            other => other.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned(),
        };
        built.map(Self).map_err(|e| format!("`{text}` is no regular expression that can be used: {}", reason(e)))
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

/// Numbers from the first to the second, both included; `inf` leaves it open.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(try_from = "Vec<f64>")]
pub struct Range {
    /// Lowest that is taken.
    pub from: f64,
    /// Highest that is taken.
    pub to: f64,
}

impl Range {
    /// Whether `value` lies in it. A thousandth of a unit beyond an end is rounding of a header, and lies in it.
    pub fn holds(&self, value: f64) -> bool {
        (self.from - 1e-3..=self.to + 1e-3).contains(&value)
    }
}

impl TryFrom<Vec<f64>> for Range {
    type Error = String;

    fn try_from(ends: Vec<f64>) -> Result<Self, String> {
        let [from, to] = ends[..] else { return Err(format!("a range is two numbers, not {}", ends.len())) };
        let open = from == f64::NEG_INFINITY && to == f64::INFINITY;
        if from <= to && !open {
            Ok(Self { from, to })
        } else {
            Err(format!("[{from}, {to}] is no range: lowest first, then highest; inf leaves it open"))
        }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.from, self.to) {
            (from, f64::INFINITY) => write!(f, "{from} or more"),
            (from, to) if from <= 0.0 && from.is_infinite() => write!(f, "up to {to}"),
            (from, to) => write!(f, "{from} to {to}"),
        }
    }
}

/// How slices lie in the patient, from the normal of the grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Plane {
    /// The normal runs along the S axis.
    Axial,
    /// Along L.
    Sagittal,
    /// Along P.
    Coronal,
    /// None of these within the tolerance.
    Oblique,
}

impl fmt::Display for Plane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Axial => "axial",
            Self::Sagittal => "sagittal",
            Self::Coronal => "coronal",
            Self::Oblique => "oblique",
        })
    }
}

/// Whether a contrast agent was given, as far as the header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Contrast {
    /// Does not matter.
    #[default]
    Any,
    /// Named in every instance.
    Required,
    /// Named in none.
    Forbidden,
}

/// What the instances make up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Slices of a volume.
    #[default]
    Volume,
    /// One two-dimensional image.
    Image,
    /// Frames of one place in time.
    Cine,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Volume => "volume",
            Self::Image => "image",
            Self::Cine => "cine",
        })
    }
}

/// What the values must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum WantedQuantity {
    /// Does not matter.
    Any,
    /// This one.
    Exactly(Quantity),
}

impl TryFrom<String> for WantedQuantity {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text == "any" {
            return Ok(Self::Any);
        }
        let named = Quantity::deserialize(StrDeserializer::<serde::de::value::Error>::new(&text));
        named.map(Self::Exactly).map_err(|e| format!("{e}, or `any`"))
    }
}

/// A rule on any attribute.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "RawTagRule")]
pub struct TagRule {
    /// Which.
    pub attribute: Attribute,
    /// What must hold of its values in every instance.
    pub condition: Condition,
    /// What becomes of an instance without a value; `None`: what the condition says of none.
    pub absent: Option<Absent>,
    /// The maker's reason, for people.
    pub because: Option<String>,
}

/// What becomes of an instance in which an attribute has no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Absent {
    /// The rule does not hold.
    Refuse,
    /// It holds, and the result says that nothing was checked.
    Warn,
    /// It holds.
    Take,
}

/// What must hold of the values of an attribute.
#[derive(Debug, Clone, PartialEq)]
pub enum Condition {
    /// One value is one of these: texts whatever the case, numbers by value.
    Equals(Vec<String>),
    /// No value is one of these.
    NotEquals(Vec<String>),
    /// One value matches.
    Matches(Pattern),
    /// No value matches.
    NotMatches(Pattern),
    /// There are values, and each is a number in this range.
    Range(Range),
    /// There are values, or there are none.
    Present(bool),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTagRule {
    tag: String,
    creator: Option<String>,
    equals: Option<Vec<Scalar>>,
    not_equals: Option<Vec<Scalar>>,
    matches: Option<Pattern>,
    not_matches: Option<Pattern>,
    range: Option<Range>,
    present: Option<bool>,
    absent: Option<Absent>,
    because: Option<String>,
}

/// A text or a number.
#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Text(String),
    Integer(i64),
    Number(f64),
}

impl TryFrom<RawTagRule> for TagRule {
    type Error = String;

    fn try_from(raw: RawTagRule) -> Result<Self, String> {
        let attribute = Attribute::parse(&raw.tag, raw.creator.as_deref()).map_err(|e| format!("`tag`: {e}"))?;
        let texts = |list: Vec<Scalar>| {
            let text = |scalar| match scalar {
                Scalar::Text(text) => text,
                Scalar::Integer(n) => n.to_string(),
                Scalar::Number(n) => n.to_string(),
            };
            list.into_iter().map(text).collect::<Vec<_>>()
        };
        let mut given = [
            raw.equals.map(|l| Condition::Equals(texts(l))),
            raw.not_equals.map(|l| Condition::NotEquals(texts(l))),
            raw.matches.map(Condition::Matches),
            raw.not_matches.map(Condition::NotMatches),
            raw.range.map(Condition::Range),
            raw.present.map(Condition::Present),
        ]
        .into_iter()
        .flatten();
        let (Some(condition), None) = (given.next(), given.next()) else {
            return Err(format!(
                "the rule on {attribute} needs exactly one of `equals`, `not_equals`, `matches`, `not_matches`, `range`, `present`"
            ));
        };
        if matches!(&condition, Condition::Equals(list) | Condition::NotEquals(list) if list.is_empty()) {
            return Err(format!("the rule on {attribute} compares with an empty list"));
        }
        if attribute.is_sequence() && matches!(condition, Condition::Range(_)) {
            return Err(format!("{attribute} is a sequence, `range` needs a number: name an attribute within it, as Sequence.Attribute"));
        }
        if raw.absent.is_some() && matches!(condition, Condition::Present(_)) {
            return Err(format!("the rule on {attribute} has `present`, which says already what becomes of an absent value"));
        }
        if raw.because.as_ref().is_some_and(|b| b.is_empty() || b.len() > 200) {
            return Err(format!("`because` of the rule on {attribute} takes 1 to 200 characters"));
        }
        Ok(Self { attribute, condition, absent: raw.absent, because: raw.because })
    }
}

/// What makes one series better than another one that fits as well.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "prefer", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Rank {
    /// Least distance between slices.
    Thinnest {},
    /// Smallest pixels.
    FinestPixels {},
    /// Most slices.
    MostSlices {},
    /// Largest extent along the normal.
    LargestCoverage {},
    /// Acquired last.
    Newest {},
    /// Convolution Kernel matches the earliest of these.
    Kernel {
        /// Best first; a series that matches none comes last.
        patterns: Vec<Pattern>,
    },
    /// Series Description matches the earliest of these.
    Description {
        /// Best first; a series that matches none comes last.
        patterns: Vec<Pattern>,
    },
    /// A value of the attribute matches the earliest of these.
    Matching {
        /// Tag or keyword.
        tag: RankedAttribute,
        /// Best first; a series that matches none comes last.
        patterns: Vec<Pattern>,
    },
    /// Highest number; a series without comes last.
    Highest {
        /// Tag or keyword.
        tag: RankedAttribute,
    },
    /// Lowest number; a series without comes last.
    Lowest {
        /// Tag or keyword.
        tag: RankedAttribute,
    },
}

/// An attribute to rank by.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub struct RankedAttribute(pub Attribute);

impl TryFrom<String> for RankedAttribute {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let attribute = Attribute::parse(&text, None)?;
        if attribute.is_sequence() || attribute.is_patient_data() {
            return Err(format!("{attribute} is nothing to rank series by"));
        }
        Ok(Self(attribute))
    }
}

/// How many of the series of a study that fit are analysed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Take {
    /// Each.
    #[default]
    All,
    /// The best one, by `rank`.
    Best,
}

impl Select {
    /// The range of distances between slices, whichever key gives it.
    pub fn slice_spacing_mm(&self) -> Option<Range> {
        self.slice_spacing_mm.or(self.max_slice_spacing_mm.map(|to| Range { from: f64::NEG_INFINITY, to }))
    }

    /// What TOML's types cannot say.
    ///
    /// # Errors
    /// Which key contradicts which, and what is allowed.
    pub(in crate::model) fn check(&self) -> Result<(), String> {
        let require = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
        match self.kind {
            Kind::Volume => require(
                self.modality.iter().all(|m| m == "CT" || m == "MR"),
                "`select.modality` has another modality than CT or MR, whose values this version cannot name",
            )?,
            Kind::Image => require(
                self.modality.iter().all(|m| RADIOGRAPHS.contains(&m.as_str())),
                "`select.modality` of a `kind` of \"image\" has another modality than those of radiographs: CR, DX, MG, IO, PX",
            )?,
            Kind::Cine => require(
                false,
                "`select.kind` takes \"volume\", or \"image\" for radiographs: cines are read, and not analysed by this version",
            )?,
        }
        require(
            self.orientation_tolerance_deg > 0.0 && self.orientation_tolerance_deg <= 45.0,
            "`select.orientation_tolerance_deg` is outside 0 to 45 degrees (beyond 45 one series would be of two orientations)",
        )?;
        require(
            self.min_slices.unwrap_or(0) <= self.max_slices.unwrap_or(usize::MAX),
            "`select.min_slices` is larger than `select.max_slices`",
        )?;
        require(
            self.slice_spacing_mm.is_none() || self.max_slice_spacing_mm.is_none(),
            "`select.slice_spacing_mm` and `select.max_slice_spacing_mm` say the same thing twice: give one of them",
        )?;
        require(self.max_slice_spacing_mm.is_none_or(|mm| mm > 0.0), "`select.max_slice_spacing_mm` is not above 0 mm")?;
        for (key, range) in
            [("slice_spacing_mm", self.slice_spacing_mm), ("pixel_spacing_mm", self.pixel_spacing_mm), ("coverage_mm", self.coverage_mm)]
        {
            require(range.is_none_or(|r| r.to > 0.0), &format!("`select.{key}` has no length above 0 mm in it"))?;
        }
        let empty_values = self.image_type.as_ref().is_some_and(|r| r.all.is_empty() && r.any.is_empty() && r.none.is_empty());
        require(!empty_values, "`select.image_type` needs `all`, `any` or `none` with values")?;
        for (key, rule) in [
            ("description", &self.description),
            ("protocol_name", &self.protocol_name),
            ("study_description", &self.study_description),
            ("kernel", &self.kernel),
        ] {
            let empty = rule.as_ref().is_some_and(|r| r.any.is_empty() && r.none.is_empty());
            require(!empty, &format!("`select.{key}` needs `any` or `none` with regular expressions"))?;
        }
        for rank in &self.rank {
            let (Rank::Kernel { patterns } | Rank::Description { patterns } | Rank::Matching { patterns, .. }) = rank else { continue };
            require(!patterns.is_empty(), "`select.rank` has an empty list of `patterns`")?;
        }
        match self.take {
            Take::Best => require(!self.rank.is_empty(), "`select.take = \"best\"` needs a [[select.rank]] that says which series is best"),
            Take::All => require(self.rank.is_empty(), "`select.rank` decides nothing unless `select.take = \"best\"`"),
        }
    }
}
