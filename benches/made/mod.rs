//! A series and findings on it, made up for measuring how results are written.

use std::path::Path;

use anyhow::ensure;
use dicom::object::InMemDicomObject;
use roentgen::codes::{Code, dcm, sct, ucum, uid_by_name};
use roentgen::dataset::{Item, tags, write_object};
use roentgen::findings::{Finding, Findings, Measurement, PackageId, Provenance, Source};
use roentgen::series::{GeometryPolicy, Loaded, Stack, discover};
use roentgen::volume::{LabelMap, Volume};

/// A series of CT images without structure.
pub(crate) fn write_series(folder: &Path, [columns, rows, slices]: [u32; 3]) -> anyhow::Result<()> {
    let uid = |what: &str| uid_by_name(&["example", "results", what]);
    for k in 0..slices {
        let pixels: Vec<u16> = (0..columns * rows).map(|n| (n % 251 + k) as u16).collect();
        let position = [-250.0, -250.0, f64::from(k)].map(|mm| mm.to_string());
        let image = Item::of_study(&InMemDicomObject::new_empty())
            .texts(tags::IMAGE_TYPE, &["ORIGINAL", "PRIMARY", "AXIAL"])
            .text(tags::SOP_CLASS_UID, roentgen::codes::sop_class::CT_IMAGE)
            .text(tags::SOP_INSTANCE_UID, &uid(&format!("instance {k}")))
            .text(tags::STUDY_INSTANCE_UID, &uid("study"))
            .text(tags::SERIES_INSTANCE_UID, &uid("series"))
            .text(tags::FRAME_OF_REFERENCE_UID, &uid("frame of reference"))
            .text(tags::MODALITY, "CT")
            .text(tags::PATIENT_ID, "SYNTHETIC")
            .text(tags::BODY_PART_EXAMINED, "CHEST")
            .integer(tags::INSTANCE_NUMBER, k + 1)
            .texts(tags::IMAGE_ORIENTATION_PATIENT, &["1", "0", "0", "0", "1", "0"])
            .decimals_of(tags::IMAGE_POSITION_PATIENT, &position)
            .texts(tags::PIXEL_SPACING, &["0.75", "0.75"])
            .text(tags::SLICE_THICKNESS, "1")
            .integer(tags::SAMPLES_PER_PIXEL, 1)
            .text(tags::PHOTOMETRIC_INTERPRETATION, "MONOCHROME2")
            .integer(tags::ROWS, rows)
            .integer(tags::COLUMNS, columns)
            .integer(tags::BITS_ALLOCATED, 16)
            .integer(tags::BITS_STORED, 16)
            .integer(tags::HIGH_BIT, 15)
            .integer(tags::PIXEL_REPRESENTATION, 1)
            .text(tags::RESCALE_INTERCEPT, "-1024")
            .text(tags::RESCALE_SLOPE, "1")
            .words(tags::PIXEL_DATA, pixels);
        write_object(&folder.join(format!("{k:04}.dcm")), image)?;
    }
    Ok(())
}

/// The series in a folder.
pub(crate) fn load(folder: &Path) -> anyhow::Result<(Stack, Loaded)> {
    let found = discover(&[folder.to_owned()]);
    ensure!(found.series.len() == 1, "{} series in {}", found.series.len(), folder.display());
    let parts = found.series[0].parts(GeometryPolicy::Refuse);
    let stack = parts[0].gate()?;
    let loaded = stack.load()?;
    Ok((stack, loaded))
}

/// Boxes, one beside the other in rows and columns, each through nearly all slices: the most frames that so many segments can have.
pub(crate) fn findings(stack: &Stack, loaded: &Loaded, segments: u8) -> Findings {
    let [columns, rows, slices] = stack.grid.dims().map(|d| d as usize);
    let across = f64::from(segments).sqrt().ceil() as usize;
    let mut labels = vec![0u8; columns * rows * slices];
    for (k, slice) in labels.chunks_exact_mut(columns * rows).enumerate() {
        for (n, label) in slice.iter_mut().enumerate() {
            let (i, j) = (n % columns, n / columns);
            let of = (j * across / rows) * across + i * across / columns;
            // A gap around each box, and an edge that moves from slice to slice.
            let inside = i * across % columns > columns / 8 + k % 7 * 4 && j * across % rows > rows / 8;
            if inside && of < usize::from(segments) {
                *label = of as u8 + 1;
            }
        }
    }
    let labels: LabelMap = Volume::new(stack.grid, labels);
    let finding = |n: u8| Finding {
        name: format!("structure {n}"),
        tracking_uid: uid_by_name(&["example", "tracking", &n.to_string()]),
        segment: Some(n),
        place: None,
        colour: [n.wrapping_mul(37), 120, 200],
        category: Code::new("91723000", "SCT", "Anatomical Structure"),
        finding_type: Code::new("91723000", "SCT", "Anatomical Structure"),
        site: None,
        laterality: None,
        present: true,
        certainty_percent: None,
        evaluations: Vec::new(),
        measurements: vec![Measurement {
            concept: sct::VOLUME,
            derivation: None,
            method: Some(dcm::SUM_OF_VOXELS),
            value: Some(f64::from(n)),
            unit: ucum::MILLILITRE,
        }],
    };
    let findings = (1..=segments).map(finding).collect();
    let source = Source {
        content_sha256: loaded.content_sha256(),
        instances: loaded.instances.clone(),
        frames: stack.frames.clone(),
        slice_of_frame: stack.slice_of_frame.clone(),
        file: None,
        channels: Vec::new(),
    };
    let provenance = Provenance {
        roentgen_version: env!("CARGO_PKG_VERSION").into(),
        package: PackageId {
            name: "example".into(),
            version: "1.0.0".into(),
            sha256: "0123456789abcdef".repeat(4),
            manufacturer: "roentgen".into(),
            intended_use: "Made up by an example, not for diagnosis.".into(),
            licence: "MIT OR Apache-2.0".into(),
            regulatory_status: "none".into(),
            card: None,
        },
        device: "CPU".into(),
        provider: "none".into(),
        onnxruntime_version: "none".into(),
        parameters: Vec::new(),
        geometry: Vec::new(),
        started: "2026-03-04T05:06:07+01:00[Europe/Berlin]".parse().expect("a time"),
    };
    Findings {
        source,
        labels,
        findings,
        provenance,
        warnings: Vec::new(),
        maps: Vec::new(),
        predecessors: Vec::new(),
        follow_up: None,
        priors: Default::default(),
    }
}
