//! The findings as JSON: for programs that read no DICOM. No patient text and no path of this machine.
//!
//! `docs/findings.schema.json` says what is in it; `tests/it/exchange.rs` holds every document against it.

use std::sync::Arc;

use serde::Serialize;

use super::envelope::ResultObject;
use super::{Context, Form, heat, map};
use crate::codes::Code;
use crate::dataset::Instance;
use crate::findings::{Compared, Finding, FollowUp, Predecessor, Priors, Provenance, Registration, SourceFile};
use crate::geometry::Grid;

/// Version of this layout; grows when a field changes its meaning or goes away, not when one is added.
pub const SCHEMA_VERSION: u32 = 1;

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    schema_version: u32,
    study_instance_uid: Option<&'a str>,
    series_instance_uid: Option<&'a str>,
    frame_of_reference_uid: Option<&'a str>,
    modality: Option<&'a str>,
    /// The NIfTI or NRRD file, where it was one: what belongs to DICOM is null then.
    #[serde(skip_serializing_if = "Option::is_none")]
    source_file: Option<&'a SourceFile>,
    source_instances: Vec<SourceInstance<'a>>,
    /// The other series or files that the network saw, where it sees several at once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    source_channels: Vec<Channel<'a>>,
    grid: GridDescription,
    findings: Vec<NumberedFinding<'a>>,
    provenance: &'a Provenance,
    package_version: String,
    warnings: Vec<&'a str>,
    maps: Vec<Map<'a>>,
    predecessors: &'a [Predecessor],
    priors: &'a Priors,
    #[serde(skip_serializing_if = "Option::is_none")]
    follow_up: Option<FollowUpDescription<'a>>,
    results: Vec<Object<'a>>,
    /// Holds each finding's `segment` as value.
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    picture: Option<&'static str>,
}

/// A series or file that the network saw beside the one that results lie on.
#[derive(Serialize)]
struct Channel<'a> {
    name: &'a str,
    series_instance_uid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_file: Option<&'a SourceFile>,
    source_instances: Vec<SourceInstance<'a>>,
}

#[derive(Serialize)]
struct SourceInstance<'a> {
    sop_instance_uid: &'a str,
    sha256: &'a str,
}

/// Where the label map lies; index (i, j, k) is (column, row, slice).
#[derive(Serialize)]
struct GridDescription {
    dims: [u32; 3],
    spacing_mm: [f64; 3],
    orientation: String,
    lps_mm_from_voxel: [[f64; 4]; 3],
}

#[derive(Serialize)]
struct NumberedFinding<'a> {
    #[serde(flatten)]
    finding: &'a Finding,
    /// Segment Number in the Segmentation, which numbers present findings without gaps.
    segment_number: Option<u32>,
}

/// The earlier study that the findings were compared with.
#[derive(Serialize)]
struct FollowUpDescription<'a> {
    study_instance_uid: &'a str,
    series_instance_uid: &'a str,
    days: i64,
    registration: Option<RegistrationDescription>,
    refused: Option<&'a str>,
    findings: &'a [Compared],
    earlier_sha256: &'a str,
}

/// Patient mm of the earlier images from those of these.
#[derive(Serialize)]
struct RegistrationDescription {
    earlier_mm_from_mm: [[f64; 4]; 3],
    correlation: f64,
    overlap: f64,
}

impl<'a> FollowUpDescription<'a> {
    fn of(followed: &'a FollowUp) -> Self {
        let described = |registration: Registration| RegistrationDescription {
            earlier_mm_from_mm: registration.earlier_from_later.rows(),
            correlation: registration.correlation,
            overlap: registration.overlap,
        };
        Self {
            study_instance_uid: &followed.study_instance_uid,
            series_instance_uid: &followed.series_instance_uid,
            days: followed.days,
            registration: followed.registration.map(described),
            refused: followed.refused.as_deref(),
            findings: &followed.findings,
            earlier_sha256: &followed.earlier_sha256,
        }
    }
}

/// Values for each voxel, whose object has the values.
#[derive(Serialize)]
struct Map<'a> {
    name: &'a str,
    quantity: &'a Code,
    unit: &'a Code,
    /// The Parametric Map or the Secondary Capture, where it is written.
    file: Option<&'a str>,
}

#[derive(Serialize)]
struct Object<'a> {
    file: &'a str,
    modality: &'static str,
    sop_class_uid: &'static str,
    sop_instance_uid: &'a str,
    series_instance_uid: &'a str,
}

impl<'a> Object<'a> {
    fn of(file: &'a str, object: &'a ResultObject) -> Self {
        Self {
            file,
            modality: object.modality,
            sop_class_uid: object.sop_class_uid,
            sop_instance_uid: &object.sop_instance_uid,
            series_instance_uid: &object.series_uid,
        }
    }
}

/// The findings as JSON text, UTF-8, ending in a line feed; `objects` are those written beside it, and `left_out` says why others are not.
pub(super) fn json_of(context: &Context<'_>, objects: &[(String, ResultObject)], left_out: &[String]) -> String {
    let Context { findings, segments, forms, .. } = context;
    let first = findings.source.instances.first();
    let uid = |of: fn(&Instance) -> &String| first.map(|i| of(i).as_str());
    let file = findings.source.file.as_ref();
    let is_map = |n: usize, object: &ResultObject| [map::reference_of(findings, n), heat::reference_of(findings, n)].contains(object);
    let map_file = |n: usize| objects.iter().find(|(_, object)| is_map(n, object)).map(|(file, _)| file.as_str());
    let document = Document {
        schema: "roentgen-findings",
        schema_version: SCHEMA_VERSION,
        study_instance_uid: uid(|i| &i.study_uid),
        series_instance_uid: uid(|i| &i.series_uid),
        frame_of_reference_uid: uid(|i| &i.frame_of_reference_uid),
        modality: uid(|i| &i.modality),
        source_file: file,
        source_instances: hashed(&findings.source.instances, &findings.source.content_sha256),
        source_channels: findings
            .source
            .channels
            .iter()
            .map(|channel| Channel {
                name: &channel.name,
                series_instance_uid: channel.instances.first().map(|first| first.series_uid.as_str()),
                source_file: channel.file.as_ref(),
                source_instances: hashed(&channel.instances, &channel.content_sha256),
            })
            .collect(),
        grid: description(findings.labels.grid()),
        findings: findings
            .findings
            .iter()
            .map(|finding| NumberedFinding { finding, segment_number: segments.number_of(finding) })
            .collect(),
        provenance: &findings.provenance,
        package_version: findings.provenance.package.version_string(),
        warnings: findings.warnings.iter().chain(left_out).map(String::as_str).collect(),
        maps: findings
            .maps
            .iter()
            .enumerate()
            .map(|(n, map)| Map { name: &map.name, quantity: &map.quantity, unit: &map.unit, file: map_file(n) })
            .collect(),
        predecessors: &findings.predecessors,
        priors: &findings.priors,
        follow_up: findings.follow_up.as_ref().map(FollowUpDescription::of),
        results: objects.iter().map(|(file, object)| Object::of(file, object)).collect(),
        labels: file.filter(|_| forms.contains(Form::Seg) && super::has_voxels(context)).map(|_| super::LABELS_FILE),
        picture: forms.contains(Form::Png).then_some(super::PNG_FILE),
    };
    let mut text = serde_json::to_string_pretty(&document).expect("the document has only string keys");
    text.push('\n');
    text
}

fn hashed<'a>(instances: &'a [Arc<Instance>], content_sha256: &'a [String]) -> Vec<SourceInstance<'a>> {
    let one = |(instance, sha256): (&'a Arc<Instance>, &'a String)| SourceInstance { sop_instance_uid: &instance.sop_instance_uid, sha256 };
    instances.iter().zip(content_sha256).map(one).collect()
}

fn description(grid: &Grid) -> GridDescription {
    GridDescription {
        dims: grid.dims(),
        spacing_mm: grid.spacing_mm(),
        orientation: grid.orientation().to_string(),
        lps_mm_from_voxel: grid.lps_from_voxel().rows(),
    }
}
