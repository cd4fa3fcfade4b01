//! What a model found in one series, or in a researcher's volume: the one value that every result object is a view of.

mod follow_up;
mod place;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::codes::{Code, Uid, dcm, other};
use crate::dataset::{Frame, Instance};
use crate::model;
pub use crate::model::PackageId;
use crate::research::Format;
use crate::volume::{LabelMap, Volume};
pub use follow_up::{Compared, FollowUp, Registration, Seen, Status};
pub use place::{Extent, Place};

/// What a model found in one series, with everything that is needed to trust and to trace it.
#[derive(Debug, Clone)]
pub struct Findings {
    /// The series that was analysed.
    pub source: Source,
    /// Segment numbers on the source grid.
    pub labels: LabelMap,
    /// In the order of the package.
    pub findings: Vec<Finding>,
    /// Where the numbers come from.
    pub provenance: Provenance,
    /// What a reader of the result should know; no patient text.
    pub warnings: Vec<String>,
    /// Values for each voxel that the package computes beside labels.
    pub maps: Vec<ValueMap>,
    /// Earlier reports on the same study that this result replaces (PS3.3 C.17.2, Predecessor Documents).
    pub predecessors: Vec<Predecessor>,
    /// Earlier studies of the same patient that this result refers to.
    pub priors: Priors,
    /// What became of the findings since an earlier study of the patient, where there is one and the package follows them.
    pub follow_up: Option<FollowUp>,
}

impl Findings {
    /// UID of the result object in `slot` ("sr", "seg", "sr-series", ...): the same inputs, package, parameters and
    /// format give the same UID, anything else another.
    pub fn result_uid(&self, slot: &str) -> Uid {
        let Source { instances, content_sha256, file, channels, .. } = &self.source;
        let mut parts = vec!["result", RESULT_FORMAT, slot, &self.provenance.package.sha256];
        parts.extend(read(instances, content_sha256, file.as_ref()));
        for SourceChannel { name, instances, content_sha256, file } in channels {
            parts.extend(["channel", name]);
            parts.extend(read(instances, content_sha256, file.as_ref()));
        }
        // Two parts of one multi-frame instance are two inputs.
        let numbers: Vec<String> = self.source.frames.iter().filter(|f| !f.is_whole_instance()).map(|f| f.number.to_string()).collect();
        parts.extend(numbers.iter().map(String::as_str));
        parts.extend(self.priors.instances.iter().flat_map(|prior| ["prior", &prior.sop_instance_uid]));
        parts.extend(self.priors.lacking.iter().flat_map(|why| ["without priors", why]));
        parts.extend(self.follow_up.iter().flat_map(|followed| ["follow-up", &followed.earlier_sha256]));
        parts.extend(self.provenance.parameters.iter().flat_map(|p| [p.name.as_str(), &p.value]));
        crate::codes::uid_by_name(&parts)
    }
}

/// What was read, by name and content, in an order of its own.
fn read<'a>(instances: &'a [Arc<Instance>], content_sha256: &'a [String], file: Option<&'a SourceFile>) -> impl Iterator<Item = &'a str> {
    let mut inputs: Vec<_> = instances.iter().zip(content_sha256).collect();
    inputs.sort_by(|a, b| a.0.sop_instance_uid.cmp(&b.0.sop_instance_uid));
    let of_instances = inputs.into_iter().flat_map(|(instance, sha256)| [instance.sop_instance_uid.as_str(), sha256]);
    of_instances.chain(file.into_iter().flat_map(|file| ["file", &file.sha256]))
}

/// Changes whenever the same findings would be written as other bytes.
pub const RESULT_FORMAT: &str = "4";

/// The analysed images.
#[derive(Debug, Clone)]
pub struct Source {
    /// What was read, in the order of the first frame of each.
    pub instances: Vec<Arc<Instance>>,
    /// SHA-256 of each instance as it was read, hex.
    pub content_sha256: Vec<String>,
    /// Every image, in the order of the slices.
    pub frames: Vec<Frame>,
    /// For each frame the slice k of the label map that lies at it: its own, unless unevenly spaced slices were interpolated.
    pub slice_of_frame: Vec<u32>,
    /// The file, where a researcher's volume was analysed: there are neither instances nor frames then, and no DICOM objects are written.
    pub file: Option<SourceFile>,
    /// The other series or files that the network saw, where it sees several at once; what is above is the reference then.
    pub channels: Vec<SourceChannel>,
}

/// A series or file that the network saw beside the reference.
#[derive(Debug, Clone)]
pub struct SourceChannel {
    /// What it was, in the package's words: "FLAIR".
    pub name: String,
    /// What was read, in the order of the first frame of each.
    pub instances: Vec<Arc<Instance>>,
    /// SHA-256 of each instance as it was read, hex.
    pub content_sha256: Vec<String>,
    /// The file, where it was one.
    pub file: Option<SourceFile>,
}

impl Source {
    /// The instances of every series that was analysed, series by series and each once, the reference's first. Nothing of files.
    pub fn series(&self) -> Vec<Vec<&Instance>> {
        let mut all: Vec<Vec<&Instance>> = Vec::new();
        for instance in self.instances.iter().chain(self.channels.iter().flat_map(|channel| &channel.instances)) {
            let instance: &Instance = instance;
            match all.iter_mut().find(|series| series[0].series_uid == instance.series_uid) {
                // Parts of a series may share instances of several frames.
                Some(series) if series.iter().any(|known| known.sop_instance_uid == instance.sop_instance_uid) => {}
                Some(series) => series.push(instance),
                None => all.push(vec![instance]),
            }
        }
        all
    }

    /// Whether its images lie in the patient: slices do, radiographs and ultrasound do not.
    pub fn lies_in_patient(&self) -> bool {
        self.frames.first().is_some_and(|frame| frame.position_mm.is_some())
    }
}

/// A NIfTI or NRRD file that was analysed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SourceFile {
    /// Its format.
    pub format: Format,
    /// SHA-256 of its bytes as they were read, hex; of a pair of files, of header and data one after the other.
    pub sha256: String,
}

/// One coded finding, with its region and its numbers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// For people, and as Tracking Identifier: "lung".
    pub name: String,
    /// Stable across runs of the same job.
    pub tracking_uid: Uid,
    /// Its label in the label map; none for a finding without voxels.
    pub segment: Option<SegmentNumber>,
    /// Where it lies, where it is a box or a point.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// Recommended display colour, sRGB.
    pub colour: [u8; 3],
    /// Segmented property category (CID 7150).
    pub category: Code,
    /// Segmented property type, and the SR's Finding.
    pub finding_type: Code,
    /// Where in the body.
    pub site: Option<Code>,
    /// Which side.
    pub laterality: Option<Code>,
    /// Whether it was found: a segment without voxels is absent.
    pub present: bool,
    /// The model's output for *present*, 0 to 100 %; not turned round when it is absent.
    pub certainty_percent: Option<f64>,
    /// Coded answers to coded questions.
    pub evaluations: Vec<Evaluation>,
    /// Numbers with units.
    pub measurements: Vec<Measurement>,
}

impl Finding {
    /// What a package says of one of its findings: present, and so far without a region, a certainty and numbers.
    pub fn of(described: &model::Finding, name: String, tracking_uid: Uid) -> Self {
        Self {
            name,
            tracking_uid,
            segment: None,
            place: None,
            colour: described.colour.unwrap_or_default(),
            category: described.category.clone(),
            finding_type: described.finding_type.clone(),
            site: described.site.clone(),
            laterality: described.laterality.clone(),
            present: true,
            certainty_percent: None,
            evaluations: Vec::new(),
            measurements: Vec::new(),
        }
    }

    /// The numbers that mean something: those of a region that does not exist are none, not 0 ml, and no mean of nothing.
    pub fn numbers(&self) -> &[Measurement] {
        if self.present || self.segment.is_none() { &self.measurements } else { &[] }
    }

    /// Whether pictures show it: where it is there, and somewhere.
    pub fn is_drawn(&self) -> bool {
        self.present && (self.segment.is_some() || self.place.is_some())
    }

    /// What [`Finding::certainty_percent`] is: of a finding that is there, the certainty of that; of one that is not, the probability that it is.
    pub fn certainty_concept(&self) -> Code {
        if self.present { dcm::CERTAINTY_OF_FINDING } else { other::PROBABILITY_OF_PRESENCE }
    }
}

/// A coded question with its coded answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Evaluation {
    /// What was asked.
    pub question: Code,
    /// What the model says.
    pub answer: Code,
}

/// Values on the source grid: a heat map, an uncertainty.
#[derive(Debug, Clone, PartialEq)]
pub struct ValueMap {
    /// For people: "lung probability".
    pub name: String,
    /// What the values are.
    pub quantity: Code,
    /// UCUM unit.
    pub unit: Code,
    /// The values, finite.
    pub values: Volume<f32>,
}

/// Earlier studies of the same patient, as they were held when the result was made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Priors {
    /// Every instance of them.
    pub instances: Vec<Predecessor>,
    /// Why there are none although there should be.
    pub lacking: Option<String>,
}

/// An object of before: a report that is replaced, an instance of an earlier study.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Predecessor {
    /// Its study.
    pub study_instance_uid: Uid,
    /// Its series.
    pub series_instance_uid: Uid,
    /// Its class.
    pub sop_class_uid: Uid,
    /// Itself.
    pub sop_instance_uid: Uid,
}

/// Value in the label map and Segment Number (0062,0004): 1 to 255.
pub type SegmentNumber = u8;

/// One number with its unit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// What was measured.
    pub concept: Code,
    /// How it was derived from the voxels: mean, standard deviation.
    pub derivation: Option<Code>,
    /// By which method, where that has a name (SCT 370129005).
    pub method: Option<Code>,
    /// The number; none where it cannot be computed.
    pub value: Option<f64>,
    /// UCUM unit.
    pub unit: Code,
}

/// Where the numbers come from.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Provenance {
    /// Version of this program.
    pub roentgen_version: String,
    /// The model package.
    pub package: PackageId,
    /// The compute device that ran the kernels.
    pub device: String,
    /// The ONNX Runtime execution provider that ran the network.
    pub provider: String,
    /// Version of the ONNX Runtime library.
    pub onnxruntime_version: String,
    /// Everything that decides the result beside inputs and package, in order: steps with their values,
    /// device class, provider, versions of ONNX Runtime and of this program. Part of the name of every result UID.
    pub parameters: Vec<Parameter>,
    /// What the geometry gate decided, and why.
    pub geometry: Vec<String>,
    /// When the analysis began, local time, RFC 3339.
    pub started: jiff::ZonedDateTime,
}

/// One named setting that decided the result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Parameter {
    /// `preprocess.1.resample`, for one.
    pub name: String,
    /// Its value as text.
    pub value: String,
}
