//! Every way that a grid can lie in the patient: what the network sees, and where its labels come back.

use proptest::prelude::*;
use roentgen::geometry::{Affine, Coded, Grid, dot, norm, sub};
use roentgen::infer::Scores;
use roentgen::kernels::components::{ComponentRuns, Connectivity};
use roentgen::kernels::{Backend, Interpolation};
use roentgen::measure::measure_labels;
use roentgen::model::{Axes, Axis, Foreground, PostprocessStep, PreprocessStep};
use roentgen::postprocess::labels_on;
use roentgen::preprocess::{Plan, source_box};
use roentgen::volume::{ImageVolume, LabelMap, Quantity, Rescale, Stored, Volume};

fn orient() -> PreprocessStep {
    PreprocessStep::Orient { to: Axes::LPS }
}

/// The three columns of a rotation, from angles about L, P and S.
fn rotation(angles: [f64; 3]) -> [[f64; 3]; 3] {
    let [(sa, ca), (sb, cb), (sc, cc)] = angles.map(f64::sin_cos);
    [
        [cb * cc, cb * sc, -sb],
        [sa * sb * cc - ca * sc, sa * sb * sc + ca * cc, sa * cb],
        [ca * sb * cc + sa * sc, ca * sb * sc - sa * cc, ca * cb],
    ]
}

/// All 48 ways to lay three axes along the patient's: column `n` is the signed patient axis of voxel axis `n`.
fn orientations() -> Vec<[[f64; 3]; 3]> {
    let mut all = Vec::new();
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        for signs in 0..8 {
            all.push(std::array::from_fn(|n| {
                let mut column = [0.0; 3];
                column[order[n]] = if signs >> n & 1 == 1 { -1.0 } else { 1.0 };
                column
            }));
        }
    }
    all
}

/// A grid with axes along `directions`, turned by `turn`.
fn grid(dims: [u32; 3], spacing_mm: [f64; 3], directions: [[f64; 3]; 3], turn: [[f64; 3]; 3], first_mm: [f64; 3]) -> Grid {
    let turn = Affine::from_columns(turn[0], turn[1], turn[2], [0.0; 3]);
    let [x, y, z] = std::array::from_fn(|n| turn.apply(directions[n].map(|v| v * spacing_mm[n])));
    Grid::new(dims, Affine::from_columns(x, y, z, first_mm)).expect("axes span space")
}

fn indices(dims: [u32; 3]) -> impl Iterator<Item = [u32; 3]> {
    let [nx, ny, nz] = dims;
    (0..nz).flat_map(move |k| (0..ny).flat_map(move |j| (0..nx).map(move |i| [i, j, k])))
}

/// Stored values as integers or floats, physical value as stored.
fn image(grid: Grid, values: &[i16], floats: bool) -> ImageVolume {
    let stored = if floats {
        Stored::float32(Volume::new(grid, values.iter().map(|&v| v.into()).collect())).expect("numbers")
    } else {
        Volume::new(grid, values.to_vec()).into()
    };
    let rescale = vec![Rescale { slope: 1.0, intercept: 0.0 }; grid.dims()[2] as usize];
    ImageVolume { stored, rescale, quantity: Quantity::Hounsfield }
}

/// What a network gives that answers class `c` where its input is `c`.
fn identity_network(input: &Volume<f32>, classes: u8) -> Scores {
    let values = (0..classes).flat_map(|c| input.voxels().iter().map(move |v| -(v - f32::from(c)).abs())).collect();
    Scores::linear(*input.grid(), values)
}

/// The network sees at each place of the patient what the source has there, along `axes`, and its labels come back to where they were.
fn check_round_trip(source: Grid, floats: bool, axes: &[Axes]) {
    let values: Vec<i16> = (0..source.voxel_count()).map(|n| (n * 7919 % 101 % 5) as i16).collect();
    let image = image(source, &values, floats);
    for to in axes.iter().copied().map(Some).chain([None]) {
        let steps: Vec<_> = to.iter().map(|&to| PreprocessStep::Orient { to }).collect();
        let plan = Plan::new(&steps, &source, None).expect("a plan");
        assert_eq!(plan.note(), None, "nothing is resampled");
        let input = plan.run(&Backend::Cpu, &image).expect("the CPU works");
        let network = *input.grid();
        match to {
            // Each axis has its largest part along its own patient axis, forwards, unless two compete for one.
            Some(Axes::Patient(to)) => assert_eq!(network.orientation(), to, "{network:?}"),
            Some(Axes::Stored(axes)) => assert_eq!(network.dims(), axes.map(|axis| source.dims()[axis as usize])),
            None => assert_eq!(network, source),
        }
        let source_from_lps = source.voxel_from_lps();
        for (voxel, &value) in indices(network.dims()).zip(input.voxels()) {
            let at = source_from_lps.apply(network.lps_from_voxel().apply(voxel.map(f64::from)));
            let [i, j, k] = at.map(|v| v.round() as usize);
            assert!(norm(sub(at, [i, j, k].map(|v| v as f64))) < 1e-9, "no voxel moves: {at:?}");
            // Composed affines are off by 1e-12 voxels, and values differ by at most 4 between neighbours.
            assert!((f64::from(value) - image.physical([i, j, k])).abs() < 1e-9, "{value} at {voxel:?} of {source:?}");
        }
        let labels = labels_on(&source, &identity_network(&input, 5), &[0, 1, 2, 3, 4], &[PostprocessStep::Argmax], &Backend::Cpu);
        let labels = labels.expect("the CPU works");
        assert!(labels.voxels().iter().zip(&values).all(|(&label, &value)| i16::from(label) == value), "{source:?}");
    }
}

#[test]
fn all_48_orientations_come_back_exactly() {
    let placed = |directions| grid([7, 6, 5], [0.7, 0.9, 2.5], directions, rotation([0.0; 3]), [-30.1, 12.7, 99.3]);
    let mut axes: Vec<Axes> = orientations().into_iter().map(|to| Axes::Patient(placed(to).orientation())).collect();
    axes.extend([Axes::REVERSED, Axes::Stored([Axis::J, Axis::K, Axis::I]), Axes::Stored([Axis::K, Axis::I, Axis::J])]);
    for (n, directions) in orientations().into_iter().enumerate() {
        check_round_trip(placed(directions), n % 2 == 1, &axes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn oblique_grids_come_back_exactly(
        angles in prop::array::uniform3(-3.2..3.2f64),
        orientation in 0..48usize,
        dims in prop::array::uniform3(1..9u32),
        spacing_mm in prop::array::uniform3(0.3..6.0f64),
        first_mm in prop::array::uniform3(-900.0..900.0f64),
        floats in any::<bool>(),
    ) {
        check_round_trip(grid(dims, spacing_mm, orientations()[orientation], rotation(angles), first_mm), floats, &[Axes::LPS]);
    }
}

/// Signed distance to a ball off the centre, mm: positive inside.
fn inside_mm(point: [f64; 3], centre: [f64; 3]) -> f64 {
    RADIUS_MM - norm(sub(point, centre))
}
const RADIUS_MM: f64 = 24.0;

/// A ball in air, as a field whose zero is its surface: 10 units a mm, from -900 outside on. `tilt` is how far a slice lies beyond
/// the one before it along rows and columns, mm.
fn check_sheared(directions: [[f64; 3]; 3], turn: [[f64; 3]; 3], tilt: [f64; 2], steps: &[PreprocessStep], floats: bool) {
    let dims = [40, 44, 30];
    let spacing_mm = [2.0, 1.8, 2.4];
    let straight = grid(dims, spacing_mm, directions, turn, [11.0, -7.0, 40.0]);
    let [x, y, z] = std::array::from_fn(|n| straight.lps_from_voxel().column(n));
    let lean = |axis: [f64; 3], mm: f64| axis.map(|v| v / norm(axis) * mm);
    let leaning: [f64; 3] = std::array::from_fn(|n| z[n] + lean(x, tilt[0])[n] + lean(y, tilt[1])[n]);
    let first = straight.lps_from_voxel().column(3);
    let source = Grid::new(dims, Affine::from_columns(x, y, leaning, first)).expect("axes span space");
    let centre = source.lps_from_voxel().apply([18.3, 22.9, 14.2]);

    let places: Vec<[f64; 3]> = indices(dims).map(|v| source.lps_from_voxel().apply(v.map(f64::from))).collect();
    let field = |p: [f64; 3]| (10.0 * inside_mm(p, centre)).max(-900.0);
    let stored: Vec<f32> = places.iter().map(|&p| field(p) as f32).collect();
    let stored = if floats {
        Stored::float32(Volume::new(source, stored)).expect("numbers")
    } else {
        Volume::new(source, stored.iter().map(|v| v.round() as i16).collect()).into()
    };
    let rescale = vec![Rescale { slope: 1.0, intercept: 0.0 }; dims[2] as usize];
    let image = ImageVolume { stored, rescale, quantity: Quantity::Hounsfield };

    let plan = Plan::new(steps, &source, None).expect("a plan");
    let angle_deg = (tilt[0].hypot(tilt[1]) / spacing_mm[2]).atan().to_degrees();
    assert!(plan.note().expect("it says so").contains(&format!("{angle_deg:.2} degrees")), "{:?} is not {angle_deg}", plan.note());
    let input = plan.run(&Backend::Cpu, &image).expect("the CPU works");
    let network = *input.grid();
    assert!(network.shear() < 1e-9, "the network sees boxes");

    // What the network sees: the field where the source has voxels, air where it has none.
    let clip = steps.iter().find_map(|s| if let PreprocessStep::Clip { min, .. } = s { Some(*min) } else { None });
    let air = clip.unwrap_or(image.range()[0]);
    let source_from_lps = source.voxel_from_lps();
    let (mut seen, mut empty) = (0, 0);
    for (voxel, &value) in indices(network.dims()).zip(input.voxels()) {
        let place = network.lps_from_voxel().apply(voxel.map(f64::from));
        let at = source_from_lps.apply(place);
        let beyond = (0..3).map(|n| (-at[n]).max(at[n] - f64::from(dims[n] - 1))).fold(f64::MIN, f64::max);
        let expected = field(place).max(air);
        if beyond > 0.501 {
            assert!((f64::from(value) - air).abs() < 1e-3, "{value} outside");
            empty += 1;
        } else if beyond <= 0.0 && norm(sub(place, centre)) > 10.0 {
            // Second order of the distance's curvature, and rounding to integers.
            assert!((f64::from(value) - expected).abs() < 3.5, "{value} is not {expected} at {voxel:?}");
            seen += 1;
        }
    }
    assert!(seen > 20_000 && empty > 5_000, "{seen} seen, {empty} empty");

    // A network that finds the surface; its labels come back to the sheared grid.
    let values = input.voxels().iter().map(|v| -v).chain(input.voxels().iter().copied()).collect();
    let labels = labels_on(&source, &Scores::linear(network, values), &[0, 1], &[PostprocessStep::Argmax], &Backend::Cpu);
    let labels = labels.expect("the CPU works");
    assert_eq!(labels.grid(), &source);
    for (&label, &place) in labels.voxels().iter().zip(&places) {
        let depth_mm = inside_mm(place, centre);
        assert!(depth_mm.abs() < 0.4 || (label == 1) == (depth_mm > 0.0), "label {label} {depth_mm} mm inside");
    }
    let found = measure_labels(&labels, &image, &[1]).expect("one grid")[0];
    let truth_ml = 4.0 / 3.0 * std::f64::consts::PI * RADIUS_MM.powi(3) / 1000.0;
    assert!((found.volume_ml / truth_ml - 1.0).abs() < 0.015, "{} ml is not {truth_ml}", found.volume_ml);
    let off_mm = norm(sub(found.centroid_lps_mm.expect("it has voxels"), centre));
    assert!(off_mm < 0.1, "centroid {off_mm} mm off");
}

#[test]
fn tilted_gantries_are_straightened_and_come_back() {
    let untouched = rotation([0.0; 3]);
    let axial = orientations()[0];
    let finer = PreprocessStep::Resample {
        spacing_mm: [1.5, 2.0, 2.0],
        interpolation: Interpolation::Linear,
        within: false,
        from_first: false,
        nearest_beyond: None,
    };
    let clip = PreprocessStep::Clip { min: -500.0, max: 500.0 };
    for tilt in [[0.0, 0.8], [0.0, -0.9], [0.7, 0.0], [-0.6, 0.5]] {
        check_sheared(axial, untouched, tilt, &[], false);
        check_sheared(axial, untouched, tilt, &[orient(), finer.clone(), clip.clone()], true);
    }
    for (n, directions) in orientations().into_iter().enumerate() {
        check_sheared(directions, untouched, [-0.4, 0.8], &[orient()], n % 2 == 0);
    }
    for angles in [[0.3, -0.2, 0.1], [1.2, 0.4, -2.0], [-0.5, 0.7, 0.9]] {
        check_sheared(axial, rotation(angles), [0.3, 0.9], &[orient(), finer.clone()], true);
    }
}

/// The network sees the foreground's box alone, whichever way it is turned, and labels come back on the whole series.
#[test]
fn what_is_cropped_and_turned_comes_back() {
    let dims = [9, 8, 7];
    let source = grid(dims, [0.7, 0.9, 2.5], orientations()[11], rotation([0.2, 0.0, 0.1]), [1.0, 2.0, 3.0]);
    let is_inside = |[i, j, k]: [u32; 3]| (2..7).contains(&i) && (1..8).contains(&j) && (3..5).contains(&k);
    let values: Vec<i16> = indices(dims).enumerate().map(|(n, v)| if is_inside(v) { (n * 7919 % 4) as i16 + 1 } else { 0 }).collect();
    let crop = |to, above, margin| PreprocessStep::Crop { to, above, labelled: Vec::new(), margin, margin_mm: 0.0 };
    let nonzero = crop(Some(Foreground::Nonzero), None, 0);
    let turn = PreprocessStep::Orient { to: Axes::Stored([Axis::K, Axis::I, Axis::J]) };
    let backends = [Some(Backend::Cpu), roentgen::gpu::for_tests().map(|gpu| Backend::Gpu(Box::new(gpu)))];
    for (backend, floats) in backends.into_iter().flatten().map(|backend| (backend, false)).chain([(Backend::Cpu, true)]) {
        let image = image(source, &values, floats);
        for (steps, network_dims) in [
            (vec![nonzero.clone()], [5, 7, 2]),
            (vec![turn.clone(), nonzero.clone()], [2, 5, 7]),
            (vec![crop(None, Some(0.5), 2)], [9, 8, 6]),
            (vec![turn.clone()], [7, 9, 8]),
        ] {
            let found = source_box(&steps, &backend, &image).expect("there is something");
            let plan = Plan::new(&steps, &source, found).expect("a plan");
            let input = plan.run(&backend, &image).expect("the device works");
            assert_eq!(input.grid().dims(), network_dims);
            assert_eq!(plan.note().is_some(), found.is_some());
            let scores = Scores { source_box: plan.source_box(), ..identity_network(&input, 5) };
            // Outside of the box even a network that finds nothing but label 6 has no say.
            for label_of_background in [0, 6] {
                let label_of_channel = [label_of_background, 1, 2, 3, 4];
                let labels =
                    labels_on(&source, &scores, &label_of_channel, &[PostprocessStep::Argmax], &backend).expect("the device works");
                let in_box = |voxel: [u32; 3]| found.is_none_or(|[low, high]| (0..3).all(|s| (low[s]..=high[s]).contains(&voxel[s])));
                for ((voxel, &label), &value) in indices(dims).zip(labels.voxels()).zip(&values) {
                    let expected = if in_box(voxel) { label_of_channel[value as usize] } else { 0 };
                    assert_eq!(label, expected, "{voxel:?} of {steps:?}");
                }
            }
        }
        let empty = self::image(source, &[0; 9 * 8 * 7], floats);
        assert_eq!(source_box(std::slice::from_ref(&nonzero), &backend, &empty).expect_err("it is empty").code(), "preprocess.all-zero");
        let error = source_box(&[crop(None, Some(4.0), 0)], &backend, &image).expect_err("4 is the highest");
        assert_eq!(error.code(), "preprocess.nothing-above");
    }
}

/// A 2D image goes through every kernel.
#[test]
fn one_slice_is_a_volume() {
    let source = grid([9, 8, 1], [0.5, 0.5, 5.0], orientations()[0], rotation([0.0; 3]), [1.0, 2.0, 3.0]);
    let values: Vec<i16> = indices([9, 8, 1]).map(|[i, j, _]| i16::from(i > 2 && i < 7 && j > 1 && j < 6)).collect();
    let backends = [Some(Backend::Cpu), roentgen::gpu::for_tests().map(|gpu| Backend::Gpu(Box::new(gpu)))];
    for backend in backends.into_iter().flatten() {
        for floats in [false, true] {
            let image = image(source, &values, floats);
            let halved = PreprocessStep::Resample {
                spacing_mm: [0.25, 0.25, 5.0],
                interpolation: Interpolation::Linear,
                within: false,
                from_first: false,
                nearest_beyond: None,
            };
            for (steps, dims) in [(vec![orient()], [9, 8, 1]), (vec![orient(), halved], [18, 16, 1])] {
                let plan = Plan::new(&steps, &source, None).expect("a plan");
                let input = plan.run(&backend, &image).expect("the device works");
                assert_eq!(input.grid().dims(), dims);
                let scores = identity_network(&input, 2);
                let keep = PostprocessStep::Components { min_ml: 0.001, keep_largest: true };
                let labels = labels_on(&source, &scores, &[0, 1], &[PostprocessStep::Argmax, keep], &backend).expect("the device works");
                assert!(labels.voxels().iter().zip(&values).all(|(&l, &v)| i16::from(l) == v), "{:?}", labels.voxels());
                check_square(&labels, &image);
            }
        }
    }
}

fn check_square(labels: &LabelMap, image: &ImageVolume) {
    assert_eq!(ComponentRuns::of(labels.voxels(), labels.grid().dims(), Connectivity::TwentySix).components().len(), 1);
    let found = measure_labels(labels, image, &[1]).expect("one grid")[0];
    assert_eq!((found.voxels, found.mean, found.standard_deviation), (16, Some(1.0), Some(0.0)));
    assert!((found.volume_ml - 16.0 * 0.5 * 0.5 * 5.0 / 1000.0).abs() < 1e-12);
    let centroid = found.centroid_lps_mm.expect("it has voxels");
    assert!(norm(sub(centroid, [1.0 + 4.5 * 0.5, 2.0 + 3.5 * 0.5, 3.0])) < 1e-12, "{centroid:?}");
}

/// Volumes are determinants: the same box of tissue on a sheared grid has as many millilitres.
#[test]
fn millilitres_do_not_depend_on_shear() {
    let axes = |tilt: f64| Affine::from_columns([0.0, 0.5, 0.0], [0.0, tilt, -0.8], [2.5, 0.0, 3.0 * tilt], [4.0, 5.0, 6.0]);
    for tilt in [0.0, 0.6, -2.0] {
        let sheared = Grid::new([4, 3, 2], axes(tilt)).expect("axes span space");
        let labels = Volume::new(sheared, vec![1u8; 24]);
        let found = measure_labels(&labels, &image(sheared, &[7; 24], true), &[1]).expect("one grid")[0];
        assert!((found.volume_ml - 24.0 * 0.5 * 0.8 * 2.5 / 1000.0).abs() < 1e-12, "{} ml", found.volume_ml);
        let middle = sheared.lps_from_voxel().apply([1.5, 1.0, 0.5]);
        let off = sub(found.centroid_lps_mm.expect("it has voxels"), middle);
        assert!(dot(off, off) < 1e-20, "{off:?}");
        assert_eq!((found.mean, found.least, found.greatest), (Some(7.0), Some(7.0), Some(7.0)));
    }
}
