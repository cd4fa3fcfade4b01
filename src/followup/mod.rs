//! Findings over time: the objects of one study laid beside those of an earlier study of the same patient.
//!
//! 1. The images of both are registered (`rigid.rs`). Where that fails nothing is matched, and the result says why.
//! 2. Objects of one class are matched by the distance of their centres (`matching.rs`). What is in doubt is called so and not guessed.
//! 3. A matched object has the Tracking UID of the earlier one, which is that of the study in which it was first found. It follows from
//!    the inputs alone: the same studies in the same order have the same UIDs.
//! 4. Who calls answers for the patient: both studies are of one beyond doubt, and the earlier one is earlier.

mod change;
pub mod matching;
pub mod rigid;

use std::io::{self, Read, Write};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};

pub use change::doubling_time_days;
use matching::{Match, matches};
pub use rigid::{Reduced, Unregistered, register};

use crate::codes::{Uid, other, sha256_hex};
use crate::findings::{Compared, Evaluation, Finding, Findings, FollowUp, Measurement, Predecessor, Registration, Seen, Status};
use crate::geometry::{Affine, Coded, Grid, norm, sub};
use crate::gpu::GpuError;
use crate::kernels::Backend;
use crate::model::Manifest;

/// Findings that are carried on although they are not found any more, at most.
const MOST_SEEN: usize = 1024;
/// Bytes of what a file of an earlier study says, at most.
const MOST_TEXT: usize = 64 << 20;

/// What a later study of the patient needs to know of this one.
#[derive(Debug, Clone, PartialEq)]
pub struct Earlier {
    /// What was found.
    pub known: Known,
    /// The image; none where it cannot be registered.
    pub image: Option<Reduced>,
}

/// What is known of an earlier result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Known {
    /// Study Instance UID.
    pub study_instance_uid: Uid,
    /// Series Instance UID.
    pub series_instance_uid: Uid,
    /// The images that were analysed.
    pub instances: Vec<Predecessor>,
    /// SHA-256 of each as it was read, hex.
    pub content_sha256: Vec<String>,
    /// Volume of a voxel, mm³.
    pub voxel_mm3: f64,
    /// Objects of this study, and those of before that were not found in it.
    pub findings: Vec<Seen>,
    /// Why there is no image, where there is none.
    pub unusable: Option<String>,
}

/// An object of the study at hand.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// Its place among the findings.
    pub finding: usize,
    /// The package's finding that it is an object of.
    pub class: String,
    /// Its centre, patient mm.
    pub centre_lps_mm: [f64; 3],
}

impl Known {
    /// SHA-256 of all of it, hex.
    pub fn sha256(&self) -> String {
        sha256_hex(&serde_json::to_vec(self).expect("texts and finite numbers"))
    }
}

/// Lays `findings`, whose objects are `objects`, beside an earlier study of `days` before: sets Tracking UIDs, adds what has changed and what is
/// not found any more. Returns what a still later study needs to know: each object, and those that were not found.
///
/// # Errors
/// Where the device fails. That the images cannot be registered is told in the findings.
pub fn follow(
    backend: &Backend,
    manifest: &Manifest,
    findings: &mut Findings,
    objects: &[Object],
    image: &Result<Reduced, Unregistered>,
    (earlier, days): (&Earlier, i64),
) -> Result<Vec<Seen>, GpuError> {
    let Some(settings) = &manifest.follow_up else { return Ok(Vec::new()) };
    let known = &earlier.known;
    let registered = match (&earlier.image, image) {
        (None, _) => Err(format!("the earlier study: {}", known.unusable.as_deref().unwrap_or("its image is not known"))),
        (_, Err(unusable)) => Err(format!("{unusable} [{}]", unusable.code())),
        (Some(earlier), Ok(later)) => {
            register(backend, earlier, later, settings.min_correlation)?.map_err(|why| format!("{why} [{}]", why.code()))
        }
    };
    let mut followed = FollowUp {
        study_instance_uid: known.study_instance_uid.clone(),
        series_instance_uid: known.series_instance_uid.clone(),
        days,
        registration: registered.as_ref().ok().copied(),
        refused: None,
        findings: Vec::new(),
        earlier_sha256: known.sha256(),
    };
    findings.priors.instances.extend(known.instances.iter().cloned());
    let mut left = Vec::new();
    match (registered, &earlier.image, image) {
        (Ok(registration), Some(then), Ok(now)) => {
            let fields = Fields { registration, then: &then.grid, now: &now.grid };
            left = matched(manifest, settings.gate_mm, findings, objects, (known, days), &fields, &mut followed.findings);
        }
        (registered, ..) => {
            let why = registered.err().unwrap_or_default();
            findings.warnings.push(format!("findings were not matched with those of the study {days} days before: {why}"));
            followed.refused = Some(why);
        }
    }
    findings.follow_up = Some(followed);
    Ok(left)
}

/// The objects of a result as a later study needs to know them; those that `left` has are added.
pub fn seen(findings: &Findings, objects: &[Object], left: Vec<Seen>) -> Vec<Seen> {
    let of = |object: &Object| {
        let finding = &findings.findings[object.finding];
        Seen {
            name: finding.name.clone(),
            class: object.class.clone(),
            tracking_uid: finding.tracking_uid.clone(),
            centre_lps_mm: object.centre_lps_mm,
            measurements: change::followed(&finding.measurements),
            days_before: 0,
        }
    };
    objects.iter().map(of).chain(left).take(MOST_SEEN).collect()
}

/// Where both images lie.
struct Fields<'a> {
    registration: Registration,
    then: &'a Grid,
    now: &'a Grid,
}

impl Fields<'_> {
    fn now_from_then(&self) -> Affine {
        self.registration.earlier_from_later.inverse().expect("a turn and a shift have an inverse")
    }
}

/// Whether a point lies in the voxels of a grid.
fn covers(grid: &Grid, lps_mm: [f64; 3]) -> bool {
    grid.has(grid.voxel_from_lps().apply(lps_mm), 0.0)
}

/// Returns the findings of before that are not found now, where they lie now.
fn matched(
    manifest: &Manifest,
    gate_mm: f64,
    findings: &mut Findings,
    objects: &[Object],
    (known, days): (&Known, i64),
    fields: &Fields<'_>,
    told: &mut Vec<Compared>,
) -> Vec<Seen> {
    let moved: Vec<[f64; 3]> = objects.iter().map(|o| fields.registration.earlier_from_later.apply(o.centre_lps_mm)).collect();
    let distance = |b: usize, n: usize| {
        let same_class = known.findings[b].class == objects[n].class;
        same_class.then(|| norm(sub(known.findings[b].centre_lps_mm, moved[n])))
    };
    let found = matches(known.findings.len(), objects.len(), gate_mm, distance);
    for (n, (object, what)) in objects.iter().zip(&found.now).enumerate() {
        let finding = &mut findings.findings[object.finding];
        let (status, same) = match *what {
            Match::Same(b, distance_mm) => (Status::Matched, Some((&known.findings[b], distance_mm))),
            Match::Doubtful => (Status::Ambiguous, None),
            Match::New if covers(fields.then, moved[n]) => (Status::New, None),
            Match::New => (Status::NotCovered, None),
        };
        if let Some((then, _)) = same {
            finding.tracking_uid.clone_from(&then.tracking_uid);
            let changes = change::change(then, &finding.measurements, days);
            finding.measurements.extend(change::earlier(then, days));
            finding.measurements.extend(changes);
        }
        finding.evaluations.push(answer(status));
        told.push(Compared {
            tracking_uid: finding.tracking_uid.clone(),
            status,
            earlier_name: same.map(|(then, _)| then.name.clone()),
            distance_mm: same.map(|(_, distance_mm)| distance_mm),
        });
    }
    let now_from_then = fields.now_from_then();
    let mut left = Vec::new();
    for then in found.gone.into_iter().map(|b| &known.findings[b]) {
        let centre_lps_mm = now_from_then.apply(then.centre_lps_mm);
        let status = if covers(fields.now, centre_lps_mm) { Status::NotFound } else { Status::NotCovered };
        if status == Status::NotFound
            && let Some(gone) = not_found(manifest, &findings.findings, then, change::earlier(then, days))
        {
            findings.findings.push(gone);
        }
        told.push(Compared { tracking_uid: then.tracking_uid.clone(), status, earlier_name: Some(then.name.clone()), distance_mm: None });
        left.push(Seen { centre_lps_mm, days_before: then.days_before + days, ..then.clone() });
    }
    left
}

fn answer(status: Status) -> Evaluation {
    Evaluation { question: other::FOLLOW_UP, answer: status.code() }
}

/// A finding of before that is not there now: absent, with what it was.
fn not_found(manifest: &Manifest, others: &[Finding], then: &Seen, measurements: Vec<Measurement>) -> Option<Finding> {
    let described = manifest.finding_named(&then.class)?;
    let mut name = format!("earlier {}", then.name);
    for n in 2..=others.len() + 1 {
        if others.iter().all(|other| other.name != name) {
            break;
        }
        name = format!("earlier {} ({n})", then.name);
    }
    Some(Finding {
        present: false,
        evaluations: vec![answer(Status::NotFound)],
        measurements,
        ..Finding::of(described, name, then.tracking_uid.clone())
    })
}

impl Earlier {
    /// Writes it, compressed: what is known as a line of JSON, then the image's grid as another, then its values.
    ///
    /// # Errors
    /// The writer's.
    pub fn write(&self, writer: impl Write) -> io::Result<()> {
        let mut writer = GzEncoder::new(writer, Compression::fast());
        serde_json::to_writer(&mut writer, &self.known)?;
        writer.write_all(b"\n")?;
        serde_json::to_writer(&mut writer, &self.image.as_ref().map(|image| image.grid))?;
        writer.write_all(b"\n")?;
        let values = self.image.as_ref().map_or(&[][..], |image| &image.values);
        writer.write_all(&values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())?;
        writer.finish()?.flush()
    }

    /// Reads it again.
    ///
    /// # Errors
    /// The reader's, and where it is not what was written.
    pub fn read(reader: impl Read) -> io::Result<Self> {
        let mut bytes = Vec::new();
        let most = MOST_TEXT + 2 * rigid::MOST_REDUCED;
        GzDecoder::new(reader).take(most as u64 + 1).read_to_end(&mut bytes)?;
        let broken = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let mut parts = bytes.splitn(3, |&byte| byte == b'\n');
        let [Some(known), Some(grid), Some(values)] = [parts.next(), parts.next(), parts.next()] else {
            return Err(broken("it is cut off"));
        };
        let known = serde_json::from_slice(known)?;
        let grid: Option<Grid> = serde_json::from_slice(grid)?;
        let Some(grid) = grid else { return Ok(Self { known, image: None }) };
        let grid = Grid::new(grid.dims(), grid.lps_from_voxel()).map_err(|_| broken("its grid is none"))?;
        let values: Vec<i16> = values.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect();
        if values.len() != grid.voxel_count() {
            return Err(broken("it has another number of values than its grid"));
        }
        Ok(Self { known, image: Some(Reduced { grid, values }) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn earlier(image: Option<Reduced>) -> Earlier {
        let seen = |name: &str, days_before| Seen {
            name: name.to_owned(),
            class: "nodule".to_owned(),
            tracking_uid: "2.25.7".to_owned(),
            centre_lps_mm: [1.5, -2.25, 0.1],
            measurements: Vec::new(),
            days_before,
        };
        let known = Known {
            study_instance_uid: "1.2".to_owned(),
            series_instance_uid: "1.2.3".to_owned(),
            instances: Vec::new(),
            content_sha256: vec!["00".repeat(32)],
            voxel_mm3: 0.7,
            findings: vec![seen("nodule 1", 0), seen("nodule 2", 90)],
            unusable: image.is_none().then(|| "too small".to_owned()),
        };
        Earlier { known, image }
    }

    fn written(earlier: &Earlier) -> Vec<u8> {
        let mut bytes = Vec::new();
        earlier.write(&mut bytes).expect("memory takes all");
        bytes
    }

    #[test]
    fn what_is_kept_comes_back() {
        let grid = Grid::new([10, 9, 8], Affine::scale_then_shift([4.0; 3], [-20.0, 3.0, 0.1])).expect("a grid");
        // Line feeds among the values are values.
        let values = (0..720).map(|n| if n % 7 == 0 { 0x0a0a } else { (n * 91 % 6000) as i16 - 3000 }).collect();
        for image in [Some(Reduced { grid, values }), None] {
            let earlier = earlier(image);
            assert_eq!(Earlier::read(written(&earlier).as_slice()).expect("as it was written"), earlier);
            assert_eq!(written(&earlier), written(&earlier));
        }
        let whole = written(&earlier(Some(Reduced { grid, values: vec![7; 720] })));
        for length in [0, 10, whole.len() / 2, whole.len() - 1] {
            assert!(Earlier::read(&whole[..length]).is_err(), "{length} of {} bytes", whole.len());
        }
        let short = written(&earlier(Some(Reduced { grid, values: vec![7; 719] })));
        assert!(Earlier::read(short.as_slice()).is_err(), "a value is missing");
    }

    #[test]
    fn places_are_covered_to_the_faces() {
        let grid = Grid::new([4, 4, 4], Affine::scale_then_shift([2.0; 3], [10.0; 3])).expect("a grid");
        assert!(covers(&grid, [9.0, 17.0, 12.0]) && !covers(&grid, [8.9, 12.0, 12.0]) && !covers(&grid, [12.0, 12.0, 17.1]));
    }
}
