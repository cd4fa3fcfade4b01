//! The bundles of `tests/python/check_monai.py` as `export_monai.py` describes them (MONAI 1.6.1), but for arguments that decide nothing.

use serde_json::json;

use super::*;
use crate::model::Model;

const EXPORTED: &str = include_str!("bundles.json");

fn exported(bundle: &str, change: impl FnOnce(&mut Value)) -> Exported {
    let mut all: Value = serde_json::from_str(EXPORTED).expect("JSON");
    let mut one = all[bundle].take();
    change(&mut one);
    serde_json::from_value(one).expect("what the script prints")
}

/// The manifest of a bundle of which nothing is lost.
fn manifest(bundle: &str, change: impl FnOnce(&mut Value)) -> Manifest {
    let exported = exported(bundle, change);
    let carried = exported.carried();
    assert_eq!(carried.lost.lines, Vec::<String>::new());
    let text = exported.manifest("bundle", &carried, b"graph");
    Manifest::parse(&text, Path::new("model.toml")).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

fn orient(to: &str) -> PreprocessStep {
    PreprocessStep::Orient { to: Axes::try_from(to.to_owned()).expect("an orientation") }
}

fn spacing(spacing_mm: [f64; 3]) -> PreprocessStep {
    PreprocessStep::Resample { spacing_mm, interpolation: Interpolation::Linear, within: false, from_first: true, nearest_beyond: None }
}

fn window(patch: [u32; 3], overlap: f64, blending: Blending, beyond: Beyond) -> Inference {
    Inference::SlidingWindow(SlidingWindow {
        patch,
        overlap,
        blending,
        convention: Convention::Monai,
        beyond,
        mirror: Vec::new(),
        empty: None,
    })
}

#[test]
fn a_range_and_probabilities_that_go_back() {
    let manifest = manifest("ct-probabilities-back", |_| {});
    let values = [PreprocessStep::Clip { min: -1000.0, max: 600.0 }, PreprocessStep::Normalize { subtract: -200.0, divide: 800.0 }];
    assert_eq!(manifest.preprocess, [&[orient("SAR"), spacing([2.9, 2.1, 2.3])], &values[..]].concat());
    assert_eq!(manifest.inference, window([32, 48, 64], 0.5, Blending::Gaussian, Beyond::Zero));
    assert_eq!(manifest.postprocess, [PostprocessStep::Softmax, PostprocessStep::Argmax]);
    assert_eq!((manifest.output.interpolation, manifest.output.background), (Interpolation::Linear, Some(0)));
    let names: Vec<_> = manifest.finding.iter().map(|finding| (finding.channel, finding.name.as_str())).collect();
    assert_eq!(names, [(1, "lung"), (2, "soft tissue"), (3, "bone")]);
    let Model { name, version, .. } = manifest.model;
    assert_eq!((name.as_str(), version.as_str()), ("bundle", "0.1.0"));
    assert_eq!(manifest.select.modality, ["CT"]);
}

#[test]
fn statistics_of_the_resampled_image_and_labels_that_go_back() {
    let found = manifest("statistics-after-spacing", |_| {});
    let expected = [
        orient("RIP"),
        spacing([2.3, 3.1, 2.7]),
        PreprocessStep::ZScore { above: None, over: None, masked: true, nonzero: true, resampled: true },
        PreprocessStep::Percentiles { low: 0.0, high: 100.0, above: None, resampled: true },
        PreprocessStep::Normalize { subtract: 0.5, divide: 0.5 },
    ];
    assert_eq!(found.preprocess, expected);
    assert_eq!(found.inference, window([48, 48, 32], 0.25, Blending::Constant, Beyond::Edge));
    assert_eq!(found.output.interpolation, Interpolation::Nearest);
    assert_eq!(found.postprocess, [PostprocessStep::Argmax, PostprocessStep::Components { min_ml: 0.0, keep_largest: true }]);
    // The same values before Spacingd: those of the source.
    let swapped = |bundle: &mut Value| {
        let transforms = bundle["preprocessing"].as_array_mut().expect("a list");
        transforms.remove(5);
        transforms.swap(3, 4);
        transforms[3]["arguments"]["nonzero"] = false.into();
    };
    let found = manifest("statistics-after-spacing", swapped);
    let z_score = PreprocessStep::ZScore { above: None, over: None, masked: false, nonzero: false, resampled: false };
    assert_eq!(found.preprocess, [orient("RIP"), z_score, spacing([2.3, 3.1, 2.7])]);
}

#[test]
fn a_whole_volume_as_it_is_stored() {
    let found = manifest("as-it-is-stored", |_| {});
    let percentiles = PreprocessStep::Percentiles { low: 1.0, high: 99.5, above: None, resampled: true };
    assert_eq!(found.preprocess, [orient("kji"), percentiles, PreprocessStep::Normalize { subtract: 0.0, divide: 0.5 }]);
    assert_eq!(found.inference, Inference::Tiles(Tiles { tile: [4096; 3], halo: 0 }));
    assert_eq!(found.postprocess, [PostprocessStep::Argmax]);
    let fixed = exported("as-it-is-stored", |bundle| bundle["dynamic"] = false.into()).carried();
    assert!(fixed.lost.vital && fixed.lost.lines[0].contains("one size"), "{:?}", fixed.lost);
}

#[test]
fn channels_are_told_by_the_bundles_names() {
    let found = manifest("statistics-after-spacing", |b| {
        b["channels"] = 3.into();
        b["modality"] = "MR".into();
        b["input_channel_def"] = json!({ "0": "T1c", "1": "FLAIR", "2": "T1c" });
        for n in [4, 5] {
            b["preprocessing"][n]["arguments"]["channel_wise"] = true.into();
        }
    });
    assert_eq!(found.input.channel.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["channel 0", "FLAIR", "channel 2"]);
    assert_eq!((found.reference_channel(), found.input_channels()), (0, 3));
    assert!(found.steps_of_images().iter().all(|steps| *steps == found.preprocess));
    assert_eq!(found.input.channel[1].select.as_ref().expect("rules").modality, ["MR"]);
}

fn check(change: impl FnOnce(&mut Value), expected: &str, vital: bool) {
    let lost = exported("ct-probabilities-back", change).carried().lost;
    assert!(lost.lines.iter().any(|line| line.contains(expected)), "{expected}: {lost:?}");
    assert_eq!(lost.vital, vital, "{lost:?}");
}

#[test]
fn what_is_lost_is_named() {
    check(|b| b["channels"] = 17.into(), "17 channels", true);
    let together = |b: &mut Value| {
        b["channels"] = 2.into();
        b["preprocessing"][4] = json!({ "name": "NormalizeIntensityd", "arguments": { "nonzero": true } });
    };
    check(together, "without channel_wise", true);
    check(|b| b["output"] = json!([1, 4]), "segmentation", true);
    check(|b| b["output"][1] = 1.into(), "1 channels", true);
    check(|b| b["patch"] = json!([64, 64]), "2 dimensions", true);
    check(|b| b["inferer"]["name"] = "SliceInferer".into(), "SliceInferer", true);
    check(|b| b["inferer"]["arguments"]["roi_size"] = json!([64, -1, 64]), "whole axes", true);
    check(|b| b["inferer"]["arguments"]["padding_mode"] = "reflect".into(), "padding_mode", false);
    check(|b| b["inferer"]["arguments"]["cval"] = 1.0.into(), "cval", false);
    check(|b| b["inferer"]["arguments"]["sigma_scale"] = 0.25.into(), "sigma_scale", false);
    let transform = |n: usize, key: &'static str, value: Value| move |b: &mut Value| b["preprocessing"][n]["arguments"][key] = value;
    check(transform(2, "axcodes", "RAX".into()), "Orientationd to \"RAX\"", true);
    check(transform(3, "pixdim", json!([1.5, -1.0, 1.5])), "pixdim [1.5,-1.0,1.5]", true);
    check(transform(3, "mode", 3.into()), "mode 3", false);
    check(transform(3, "scale_extent", true.into()), "scale_extent", false);
    check(transform(3, "padding_mode", "zeros".into()), "padding_mode", false);
    check(|b| b["preprocessing"][4]["name"] = "CropForegroundd".into(), "CropForegroundd", false);
    check(|b| b["preprocessing"][4]["name"] = "Resized".into(), "the transform Resized", true);
    check(|b| b["preprocessing"][4]["name"] = "DivisiblePadd".into(), "the transform DivisiblePadd", false);
    check(|b| b["preprocessing"][4]["arguments"] = Value::Null, "not made from the configuration", true);
    let post = |n: usize, value: Value| move |b: &mut Value| b["postprocessing"][n] = value;
    check(post(0, json!({ "name": "Activationsd", "arguments": { "sigmoid": true } })), "exclude each other", true);
    check(post(2, json!({ "name": "AsDiscreted", "arguments": { "threshold": 0.5 } })), "no AsDiscreted with argmax", true);
    check(post(1, json!({ "name": "EnsureTyped", "arguments": {} })), "no Invertd", false);
    check(post(0, json!({ "name": "Lambdad", "arguments": null })), "the transform Lambdad", false);
    check(|b| b["postprocessing"].as_array_mut().expect("a list").swap(1, 2), "between the numbers of labels", false);
}
