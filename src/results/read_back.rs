//! Segmentations and maps that we write, read by our own reader: the same voxels on the same grid.

use super::tests::{Phantom, findings};
use super::*;
use crate::dataset::write_object;
use crate::geometry::{norm, sub};
use crate::series::{AlgorithmType, GeometryPolicy, SegmentationType, discover};

/// Writes both kinds of segmentation of a phantom's findings, reads them, and puts them back on the source grid.
fn check(phantom: &Phantom) {
    check_one(phantom, Form::Seg, SegmentationType::Binary);
    check_one(phantom, Form::Labelmap, SegmentationType::LabelMap { background: 0 });
}

/// The object of a form, in a file of its own.
fn written(findings: &Findings, image: &ImageVolume, form: Form) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("object.dcm");
    let forms = [form].into_iter().collect();
    let context = Context::of(findings, image, &forms).expect("consistent");
    let object = dicom_objects(form, &context).swap_remove(0);
    write_object(&path, object.data).expect("writable");
    (folder, path)
}

fn check_one(phantom: &Phantom, form: Form, kind: SegmentationType) {
    let (findings, image) = findings(phantom);
    let (_folder, path) = written(&findings, &image, form);
    let found = discover(&[path]);
    let parts = found.series[0].parts(GeometryPolicy::Refuse);
    let read = parts[0].segmentation().unwrap_or_else(|refusal| panic!("{refusal}"));
    assert_eq!(read.kind, kind);

    // The same lattice: its slices are those of the source from the first with a voxel to the last.
    let labels = &findings.labels;
    let source = labels.grid();
    let used: Vec<usize> = (0..source.dims()[2] as usize).filter(|&k| labels.slice(k).iter().any(|&label| label != 0)).collect();
    assert_eq!(read.grid.dims()[2] as usize, used[used.len() - 1] - used[0] + 1);
    for corner in [[0.0; 3], [79.0, 0.0, 0.0], [0.0, 63.0, 0.0], [79.0, 63.0, (read.grid.dims()[2] - 1) as f64]] {
        let there = [corner[0], corner[1], corner[2] + used[0] as f64];
        let off_mm = norm(sub(read.grid.lps_from_voxel().apply(corner), source.lps_from_voxel().apply(there)));
        assert!(off_mm < 1e-6, "{off_mm} mm at {corner:?}: positions have 16 characters");
    }

    let loaded = read.load().expect("frames decode");
    let mut again = vec![0u8; source.voxel_count()];
    for segment in &read.segments {
        let finding = findings.findings.iter().find(|f| Some(&f.tracking_uid) == segment.tracking_uid.as_ref()).expect("a finding");
        assert_eq!((&segment.label, segment.algorithm_type), (&finding.name, AlgorithmType::Automatic));
        assert_eq!((segment.category.as_ref(), segment.property_type.as_ref()), (Some(&finding.category), Some(&finding.finding_type)));
        assert_eq!(segment.modifiers.first(), finding.laterality.as_ref());
        let mask = loaded.mask_on(segment.number, source).expect("it lies on the source grid");
        assert_eq!(mask.grid(), source);
        again.iter_mut().zip(mask.voxels()).filter(|(_, m)| **m == 1).for_each(|(out, _)| {
            assert_eq!(*out, 0, "our segments do not overlap");
            *out = finding.segment.expect("it has a region");
        });
    }
    assert!(again == labels.voxels(), "{}: the label map is another one", phantom.name);
}

#[test]
fn our_segmentations_come_back_voxel_by_voxel() {
    check(&Phantom::OBLIQUE);
    check(&Phantom { name: "read-back-coronal", coronal: true, ..Phantom::OBLIQUE });
    // Not all slices have frames, and those of each segment others.
    check(&Phantom { name: "read-back-two", present: &[2, 3], ..Phantom::OBLIQUE });
    check(&Phantom { name: "read-back-one", present: &[3], ..Phantom::OBLIQUE });
}

#[test]
fn our_maps_come_back_value_by_value() {
    for phantom in [Phantom::OBLIQUE, Phantom { name: "read-back-coronal", coronal: true, ..Phantom::OBLIQUE }] {
        let (findings, image) = findings(&phantom);
        let (_folder, path) = written(&findings, &image, Form::Map);
        let found = discover(&[path]);
        let parts = found.series[0].parts(GeometryPolicy::Refuse);
        let read = parts[0].gate().unwrap_or_else(|refusal| panic!("{refusal}")).load().expect("decodes").image;
        let source = findings.labels.grid();
        assert_eq!(read.grid().dims(), source.dims());
        let last = source.dims().map(|d| f64::from(d - 1));
        for corner in [[0.0; 3], last] {
            let off_mm = norm(sub(read.grid().lps_from_voxel().apply(corner), source.lps_from_voxel().apply(corner)));
            assert!(off_mm < 1e-6, "{off_mm} mm at {corner:?}");
        }
        let [columns, rows, _] = source.dims().map(|d| d as usize);
        let values = findings.maps[0].values.voxels().iter().enumerate();
        for (n, &value) in values {
            let there = read.physical([n % columns, n / columns % rows, n / (columns * rows)]);
            assert!(there == f64::from(value), "voxel {n}: {there} for {value}");
        }
    }
}

#[test]
fn another_grid_is_an_error() {
    let (findings, _) = findings(&Phantom::OBLIQUE);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("seg.dcm");
    write_object(&path, seg::segmentation(&findings).expect("consistent").expect("something")).expect("writable");
    let found = discover(&[path]);
    let loaded = found.series[0].parts(GeometryPolicy::Refuse)[0].segmentation().expect("regular").load().expect("decodes");
    let source = *findings.labels.grid();
    let moved = |shift: [f64; 3]| {
        let a = source.lps_from_voxel();
        let start = std::array::from_fn(|n| a.column(3)[n] + shift[n]);
        let affine = crate::geometry::Affine::from_columns(a.column(0), a.column(1), a.column(2), start);
        crate::geometry::Grid::new(source.dims(), affine).expect("a grid")
    };
    // 1 % of 4 mm is 0.04 mm.
    assert!(loaded.mask_on(1, &moved([0.03, 0.0, 0.0])).is_ok());
    for shift in [[0.05, 0.0, 0.0], [0.0, 0.0, 2.0], [0.0, 400.0, 0.0]] {
        use crate::geometry::Coded;
        let error = loaded.mask_on(1, &moved(shift)).expect_err("off the grid");
        assert_eq!(error.code(), "segmentation.other-grid", "{error}");
    }
}
