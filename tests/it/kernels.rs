//! Kernels against SciPy, SimpleITK, scikit-image, numpy and Pillow on the same arrays, and against what nnU-Net and MONAI do with them:
//! `tests/python/check_kernels.py` computes each case again.

use std::path::Path;

use roentgen::geometry::{Affine, Grid};
use roentgen::kernels::bounding_box::bounding_box_cpu;
use roentgen::kernels::components::Connectivity;
use roentgen::kernels::distance::{Target, distance_mm_cpu};
use roentgen::kernels::gaussian::{Boundary, Gaussian, gaussian_cpu};
use roentgen::kernels::holes::fill_holes_cpu;
use roentgen::kernels::morphology::{Element, Operation, morphology_cpu};
use roentgen::kernels::patches::Weighting;
use roentgen::kernels::percentiles::percentiles_cpu;
use roentgen::kernels::plane::Plane;
use roentgen::kernels::probabilities::{sigmoid_cpu, softmax_cpu, threshold_cpu};
use roentgen::kernels::projection::{Project, project_cpu};
use roentgen::kernels::statistics::statistics_cpu;
use roentgen::kernels::{Backend, Background, Interpolation, Mask, Resample, resample_cpu, resample_half_cpu};
use roentgen::measure::{ComponentNumbers, measure_components};
use roentgen::model::{Axes, Foreground, PreprocessStep};
use roentgen::preprocess::{Plan, source_box};
use roentgen::volume::{ImageVolume, LabelMap, Quantity, Rescale, Volume};
use serde_json::{Value, json};

use crate::support::{python, root};

const DIMS: [u32; 3] = [60, 47, 33];
const SPACING_MM: [f64; 3] = [0.7, 0.9, 2.5];
/// What the picture's plane goes through; see `check_kernels.py`.
const FIRST_MM: [f64; 3] = [-13.0, 2.0, 9.0];

/// Numbers from 0 to 255, always the same.
fn noise(count: usize, mut state: u32) -> Vec<u8> {
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..count).map(next).collect()
}

fn grid() -> Grid {
    Grid::new(DIMS, Affine::scale_then_shift(SPACING_MM, [-20.0, -15.0, -30.0])).expect("a grid")
}

/// Waves and noise; each slice with a rescale of its own where `varied`.
fn image(varied: bool) -> ImageVolume {
    let [nx, ny, _] = DIMS.map(|n| n as usize);
    let noise = noise(grid().voxel_count(), 1);
    let value = |(n, &noise): (usize, &u8)| {
        let [i, j, k] = [n % nx, n / nx % ny, n / nx / ny].map(|index| index as f64);
        (600.0 * (0.21 * i).sin() * (0.17 * j).cos() + 15.0 * k + f64::from(noise)) as i16
    };
    let rescale = |k: u32| Rescale { slope: 0.5 + f64::from(k % 5) / 4.0, intercept: -100.0 - 3.5 * f64::from(k) };
    let shared = Rescale { slope: 0.75, intercept: -300.0 };
    ImageVolume {
        stored: Volume::new(grid(), noise.iter().enumerate().map(value).collect::<Vec<i16>>()).into(),
        rescale: (0..DIMS[2]).map(|k| if varied { rescale(k) } else { shared }).collect(),
        quantity: Quantity::Arbitrary,
    }
}

/// Blobs with holes in them and speckles.
fn labels() -> LabelMap {
    let [nx, ny, _] = DIMS.map(|n| n as usize);
    let noise = noise(grid().voxel_count(), 9);
    let label = |(n, &noise): (usize, &u8)| {
        let [i, j, k] = [n % nx, n / nx % ny, n / nx / ny].map(|index| index as f64);
        let wave = (0.3 * i).sin() + (0.35 * j).sin() + (0.5 * k).sin();
        u8::from((wave > 0.9 && noise > 2) || noise > 253)
    };
    Volume::new(grid(), noise.iter().enumerate().map(label).collect())
}

/// Cases written so far.
struct Cases<'a> {
    folder: &'a Path,
    cases: Vec<Value>,
}

impl Cases<'_> {
    /// A case whose answer is an array: `{"case": .., "file": ..}` and what `check_kernels.py` needs to know.
    fn array(&mut self, case: &str, arguments: Value, bytes: &[u8]) {
        let file = format!("{}.raw", self.cases.len());
        std::fs::write(self.folder.join(&file), bytes).expect("a temporary folder can be written");
        self.cases.push(json!({ "case": case, "arguments": arguments, "file": file }));
    }

    fn numbers(&mut self, case: &str, arguments: Value, answer: Value) {
        self.cases.push(json!({ "case": case, "arguments": arguments, "answer": answer }));
    }
}

#[test]
fn other_peoples_libraries_say_the_same() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let labels = labels();
    let mut cases = Cases { folder: folder.path(), cases: Vec::new() };
    std::fs::write(folder.path().join("labels.raw"), labels.voxels()).expect("a temporary folder can be written");
    for (name, image) in [("shared", image(false)), ("varied", image(true))] {
        let stored = image.stored.as_int16().expect("integers").voxels();
        std::fs::write(folder.path().join(format!("{name}.raw")), bytes_of(stored)).expect("a temporary folder can be written");
        let rescale: Vec<_> = image.rescale.iter().map(|rescale| [rescale.slope, rescale.intercept]).collect();
        cases.numbers("image", json!({ "name": name }), json!(rescale));
        for (mask_name, mask) in [("all", Mask::All), ("labelled", Mask::Labelled(&labels)), ("above", Mask::Above(50.0))] {
            let about = json!({ "image": name, "mask": mask_name });
            let found = statistics_cpu(&image, mask).expect("voxels");
            let physical = found.physical;
            let numbers = [physical.mean, physical.standard_deviation, physical.least, physical.greatest];
            cases.numbers("statistics", about.clone(), json!([found.voxels as f64, numbers[0], numbers[1], numbers[2], numbers[3]]));
            let percents = [0.5, 5.0, 33.3, 50.0, 99.0, 99.5];
            cases.numbers("percentiles", about.clone(), json!(percentiles_cpu(&image, mask, &percents)));
            cases.numbers("bounding box", about, json!(bounding_box_cpu(&image, mask)));
        }
        let components = measure_components(&labels, &image, Connectivity::TwentySix, &[5.0, 50.0, 95.0]).expect("one grid");
        assert!(components.len() > 50, "{} components", components.len());
        let intensities = |c: &ComponentNumbers| {
            let mut row =
                vec![Some(c.numbers.voxels as f64), c.numbers.mean, c.numbers.standard_deviation, c.numbers.least, c.numbers.greatest];
            row.extend(c.percentiles.iter().copied().map(Some));
            row
        };
        cases.numbers("intensities of components", json!({ "image": name }), json!(components.iter().map(intensities).collect::<Vec<_>>()));
        if name == "shared" {
            let shape = |ComponentNumbers { shape: s, .. }: &ComponentNumbers| {
                let lengths = [s.longest_diameter_mm, f64::from(s.axes_slice), s.long_axis_mm, s.short_axis_mm];
                json!([lengths[0], lengths[1], lengths[2], lengths[3], s.surface_area_mm2, s.mesh_volume_ml * 1000.0, s.sphericity])
            };
            cases.numbers("shapes", json!({}), json!(components.iter().map(shape).collect::<Vec<_>>()));
            let longest: Vec<f64> = components.iter().map(|c| c.shape.longest_diameter_mm).collect();
            cases.numbers("Feret diameters", json!({}), json!(longest));
        }
        for (axis, project, how) in [(0, Project::Maximum, "max"), (1, Project::Mean, "mean"), (2, Project::Minimum, "min")] {
            cases.array("projection", json!({ "image": name, "axis": axis, "how": how }), bytes_of(&project_cpu(&image, axis, project)));
        }
        let (sin, cos) = 0.4f64.sin_cos();
        let plane = Plane { first_mm: FIRST_MM, directions: [[cos, sin, 0.0], [0.0, 0.0, 1.0]], spacing_mm: [0.8, 1.1], dims: [45, 30] };
        let reslice = plane.reslice(image.grid(), -7.5).expect("a plane");
        cases.array("reslice", json!({ "image": name, "first_mm": FIRST_MM }), bytes_of(&resample_cpu(&image, &reslice)));
        for (interpolation, target_dims) in [
            (Interpolation::Area, [30, 47, 11]),
            (Interpolation::Area, [25, 19, 10]),
            (Interpolation::Antialiased, [25, 19, 10]),
            (Interpolation::Antialiased, [60, 20, 33]),
        ] {
            let step: [f64; 3] = std::array::from_fn(|s| f64::from(DIMS[s]) / f64::from(target_dims[s]));
            let source_from_target = Affine::scale_then_shift(step, step.map(|step| 0.5 * step - 0.5));
            let resample = Resample {
                interpolation,
                clip: Some([-300.0, 400.0]),
                subtract: 20.0,
                divide: 250.0,
                ..Resample::new(target_dims, source_from_target)
            };
            let about = json!({ "image": name, "dims": target_dims, "interpolation": interpolation });
            cases.array("downsample", about.clone(), bytes_of(&resample_cpu(&image, &resample)));
            let whole: Vec<u16> = resample_half_cpu(&image, &resample);
            cases.array("half", json!({ "of": cases.cases.len() - 1 }), bytes_of(&whole));
        }
    }
    resampled_by_splines(&mut cases);
    prepared_as_in_monai(&mut cases);
    cropped(&mut cases);
    for target in [Target::Background, Target::Labelled] {
        let about = json!({ "to": format!("{target:?}") });
        cases.array("distance", about, bytes_of(&distance_mm_cpu(labels.voxels(), DIMS, SPACING_MM, target)));
    }
    let operations = [Operation::Dilate, Operation::Erode, Operation::Open, Operation::Close];
    for (connectivity, rank) in [(Connectivity::Six, 1), (Connectivity::Eighteen, 2), (Connectivity::TwentySix, 3)] {
        for (operation, times) in operations.into_iter().flat_map(|operation| [(operation, 1), (operation, 3)]) {
            let mut mask = labels.voxels().to_vec();
            morphology_cpu(&mut mask, DIMS, operation, Element::Neighbours(connectivity, times));
            cases.array("morphology", json!({ "operation": format!("{operation:?}"), "rank": rank, "times": times }), &mask);
        }
    }
    for operation in operations {
        let mut mask = labels.voxels().to_vec();
        morphology_cpu(&mut mask, DIMS, operation, Element::Ball { radius_mm: 3.1, spacing_mm: SPACING_MM });
        cases.array("morphology", json!({ "operation": format!("{operation:?}"), "radius_mm": 3.1 }), &mask);
    }
    for each_slice in [false, true] {
        let mut filled = labels.voxels().to_vec();
        assert!(fill_holes_cpu(&mut filled, DIMS, 1, each_slice) > 100, "there are holes");
        cases.array("holes", json!({ "each_slice": each_slice }), &filled);
    }
    for (boundary, mode) in [(Boundary::Nearest, "nearest"), (Boundary::Reflect, "reflect"), (Boundary::Constant(-40.0), "constant")] {
        let mut values: Vec<f32> = image(false).stored.as_int16().expect("integers").voxels().iter().copied().map(f32::from).collect();
        let gaussian = Gaussian::of_mm(2.2, SPACING_MM, boundary);
        gaussian_cpu(&mut values, DIMS, &gaussian);
        cases.array("gaussian", json!({ "sigma_mm": 2.2, "mode": mode, "constant": -40.0 }), bytes_of(&values));
    }
    for dims in [[64, 48, 30], [7, 1, 128]] {
        cases.array("patch weights", json!({ "dims": dims }), bytes_of(&Weighting::NnunetGaussian.weights(dims)));
    }
    let scores: Vec<f32> = noise(5 * 4000, 3).iter().map(|&v| (f32::from(v) - 128.0) * 0.11).collect();
    std::fs::write(folder.path().join("scores.raw"), bytes_of(&scores)).expect("a temporary folder can be written");
    let [mut softmax, mut sigmoid] = [scores.clone(), scores.clone()];
    softmax_cpu(&mut softmax, 5);
    sigmoid_cpu(&mut sigmoid);
    cases.array("softmax", json!({}), bytes_of(&softmax));
    cases.array("sigmoid", json!({}), bytes_of(&sigmoid));
    cases.array("threshold", json!({ "threshold": 7.0 }), &threshold_cpu(&scores, &[1, 2, 3, 4, 5], 7.0));

    let description = json!({ "dims": DIMS, "spacing_mm": SPACING_MM, "first_voxel_mm": [-20.0, -15.0, -30.0], "cases": cases.cases });
    std::fs::write(folder.path().join("cases.json"), description.to_string()).expect("a temporary folder can be written");
    let checked = python(&root().join("tests/python/check_kernels.py"), &[folder.path()]);
    println!("{}", checked.stdout);
    assert_eq!(checked.code, 0, "{}", checked.all());
}

/// SciPy's `zoom` of order 3, and nnU-Net's order of things: values clipped and normalised, perhaps within a mask, then resampled, with
/// the nearest slice across thick ones.
fn resampled_by_splines(cases: &mut Cases<'_>) {
    for (name, target_dims) in [("shared", [28, 22, 50]), ("varied", [60, 91, 20]), ("shared", [133, 47, 33])] {
        let step: [f64; 3] = std::array::from_fn(|s| f64::from(DIMS[s]) / f64::from(target_dims[s]));
        let map = Affine::scale_then_shift(step, step.map(|step| 0.5 * step - 0.5));
        let image = image(name == "varied");
        let spline = Resample { interpolation: Interpolation::Cubic, subtract: 20.0, divide: 250.0, ..Resample::new(target_dims, map) };
        let about = json!({ "image": name, "dims": target_dims });
        let after = Resample { clip: Some([-300.0, 400.0]), ..spline.clone() };
        cases.array("spline", about, bytes_of(&resample_cpu(&image, &after)));
        let clips = [(Some([-300.0, 400.0]), None), (None, None), (None, Some(50.0))];
        for (nearest_along, (clip, background)) in [None, Some(0), Some(1), Some(2)].into_iter().flat_map(|axis| clips.map(|c| (axis, c))) {
            let masked = background.map(Background::NotAbove);
            let first = Resample { nearest_along, clip, background: masked, values_first: true, ..spline.clone() };
            let about = json!({ "image": name, "dims": target_dims, "along": nearest_along, "clip": clip, "above": background });
            cases.array("nnU-Net", about, bytes_of(&resample_cpu(&image, &first)));
        }
    }
}

/// MONAI's `Orientation` and `Spacing`, and then `ScaleIntensityRange`, `NormalizeIntensity` of all or of what is not 0, and `ScaleIntensity`.
fn prepared_as_in_monai(cases: &mut Cases<'_>) {
    let z_score = |nonzero| PreprocessStep::ZScore { above: None, over: None, masked: nonzero, nonzero, resampled: true };
    let range = [PreprocessStep::Clip { min: -300.0, max: 400.0 }, PreprocessStep::Normalize { subtract: 50.0, divide: 350.0 }];
    let least_to_greatest = PreprocessStep::Percentiles { low: 0.0, high: 100.0, above: None, resampled: true };
    let values = [
        ("range", range.to_vec()),
        ("all", vec![z_score(false)]),
        ("nonzero", vec![z_score(true)]),
        ("minimum and maximum", vec![least_to_greatest, PreprocessStep::Normalize { subtract: 0.5, divide: 0.5 }]),
    ];
    // Along k, j, i of the network's grid, which are MONAI's x, y, z. The last one has the spacing of the image, and zeros that stay zeros.
    for (name, axcodes, pixdim) in [
        ("shared", "RAS", [1.1, 0.8, 1.9]),
        ("varied", "PIL", [0.5, 3.1, 1.3]),
        ("shared", "SLA", [2.3, 0.61, 0.93]),
        ("shared", "LPS", SPACING_MM),
    ] {
        let [x, y, z] = pixdim;
        let reversed: String = axcodes.chars().rev().collect();
        let geometry = [
            PreprocessStep::Orient { to: Axes::try_from(reversed).expect("an orientation") },
            PreprocessStep::Resample {
                spacing_mm: [z, y, x],
                interpolation: Interpolation::Linear,
                within: false,
                from_first: true,
                nearest_beyond: None,
            },
        ];
        for (how, values) in &values {
            let image = image(name == "varied");
            let plan = Plan::new(&[&geometry[..], values].concat(), image.grid(), None).expect("a plan");
            let prepared = plan.run(&Backend::Cpu, &image).expect("the CPU works");
            let about = json!({ "image": name, "axcodes": axcodes, "pixdim": pixdim, "how": how, "dims": prepared.grid().dims() });
            cases.array("MONAI", about, bytes_of(prepared.voxels()));
        }
    }
}

/// A body with a cavity of 0 in a margin of 0: cropped and normalised, as nnU-Net and MONAI do it.
fn cropped(cases: &mut Cases<'_>) {
    let [nx, ny, _] = DIMS.map(|n| n as usize);
    let noise = noise(grid().voxel_count(), 5);
    let value = |(n, &noise): (usize, &u8)| {
        let [i, j, k] = [n % nx, n / nx % ny, n / nx / ny].map(|index| index as f64);
        let from_middle = ((i - 33.0) / 22.0).powi(2) + ((j - 20.0) / 17.0).powi(2) + ((k - 18.0) / 11.0).powi(2);
        let is_cavity = ((i - 30.0) / 5.0).powi(2) + ((j - 22.0) / 6.0).powi(2) + ((k - 17.0) / 4.0).powi(2) < 1.0;
        if from_middle > 1.0 || is_cavity { 0 } else { (250.0 * (0.3 * i).sin() * (0.2 * j).cos() + 3.0 * k) as i16 + i16::from(noise) }
    };
    let stored: Vec<i16> = noise.iter().enumerate().map(value).collect();
    std::fs::write(cases.folder.join("body.raw"), bytes_of(&stored)).expect("a temporary folder can be written");
    let rescale = vec![Rescale { slope: 1.0, intercept: 0.0 }; DIMS[2] as usize];
    cases.numbers("image", json!({ "name": "body" }), json!(rescale.iter().map(|r| [r.slope, r.intercept]).collect::<Vec<_>>()));
    let body = ImageVolume { stored: Volume::new(grid(), stored).into(), rescale, quantity: Quantity::Arbitrary };
    let nonzero = PreprocessStep::Crop { to: Some(Foreground::Nonzero), above: None, labelled: Vec::new(), margin: 0, margin_mm: 0.0 };
    let above = PreprocessStep::Crop { to: None, above: Some(200.0), labelled: Vec::new(), margin: 2, margin_mm: 0.0 };
    let spline = |spacing_mm, nearest_beyond| PreprocessStep::Resample {
        spacing_mm,
        interpolation: Interpolation::Cubic,
        within: true,
        from_first: false,
        nearest_beyond,
    };
    let z_score = |over, masked| PreprocessStep::ZScore { above: None, over, masked, nonzero: false, resampled: false };
    let masked = z_score(Some(Foreground::Nonzero), true);
    let rescaled = PreprocessStep::Percentiles { low: 0.0, high: 100.0, above: None, resampled: false };
    let normalize = PreprocessStep::Normalize { subtract: 10.0, divide: 250.0 };
    for (case, steps) in [
        ("nnU-Net, cropped", vec![nonzero.clone(), masked.clone(), spline([1.1, 0.6, 2.0], None)]),
        ("nnU-Net, cropped", vec![nonzero.clone(), masked, spline([1.1, 0.6, 3.0], Some(2.6))]),
        ("nnU-Net, cropped", vec![nonzero.clone(), z_score(None, false), spline([0.7, 0.9, 2.0], None)]),
        ("nnU-Net, cropped", vec![nonzero, rescaled, spline([1.1, 0.9, 2.5], None)]),
        ("MONAI, cropped", vec![above, normalize]),
    ] {
        let source_box = source_box(&steps, &Backend::Cpu, &body).expect("it is not empty");
        let plan = Plan::new(&steps, body.grid(), source_box).expect("a plan");
        let input = plan.run(&Backend::Cpu, &body).expect("the CPU works");
        cases.array(case, json!({ "steps": steps }), bytes_of(input.voxels()));
    }
}

/// Little-endian, as every machine here is.
fn bytes_of<T: bytemuck::Pod>(values: &[T]) -> &[u8] {
    bytemuck::cast_slice(values)
}
