use super::*;
use crate::geometry::Coded;

#[test]
fn what_nobody_has_filled_in_is_named() {
    let shipped = include_str!("../../../models/ct-tissue/model.toml");
    let begun = shipped.replace("licence = \"MIT OR Apache-2.0\"", "licence = \"FILL IN: an SPDX expression\"");
    let begun = begun.replacen("name = \"lung\"", "name = \"FILL IN\"", 1);
    let error = Manifest::parse(&begun, Path::new("model.toml")).expect_err("it is refused");
    assert_eq!(error.code(), "model.unsupported");
    assert!(error.to_string().contains("`model.licence`") && error.to_string().contains("].name`"), "{error}");
}

#[test]
fn versions_and_hashes_look_like_such() {
    let shipped = include_str!("../../../models/ct-tissue/model.toml");
    let version = shipped.lines().find(|line| line.starts_with("version = ")).expect("it has a version");
    let with = |text: &str| Manifest::parse(text, Path::new("model.toml")).map_err(|error| error.to_string());
    for (text, fits) in [("1.0.0", true), ("0.3", true), ("1.2.0-rc.1+b7", true), ("latest", false), ("v1.0", false), ("1..0", false)] {
        assert_eq!(with(&shipped.replace(version, &format!("version = {text:?}"))).is_ok(), fits, "{text}");
    }
    for wrong in ["sha256 = \"0", "sha256 = \"0x", "sha256 = \"\"\n# \""] {
        assert!(with(&shipped.replacen("sha256 = \"", wrong, 1)).is_err_and(|e| e.contains("64 hexadecimal digits")), "{wrong}");
    }
}

#[test]
fn an_array_has_as_many_values_as_it_is_meant_to() {
    let shipped = include_str!("../../../models/ct-lung-nodule/model.toml");
    for name in ["coverage_mm", "spacing_mm", "patch", "colour"] {
        let line = shipped.lines().find(|line| line.starts_with(&format!("{name} = ["))).expect("it is there");
        let (begin, last) = line.split(']').next().and_then(|array| array.rsplit_once(", ")).expect("several values");
        for wrong in [format!("{begin}]"), format!("{begin}, 1, {last}]")] {
            let error = Manifest::parse(&shipped.replacen(line, &wrong, 1), Path::new("model.toml")).expect_err("it is refused");
            assert_eq!(error.code(), "model.manifest", "{wrong}: {error}");
        }
    }
}

#[test]
fn what_is_no_toml_is_shown_with_its_line() {
    let error = Manifest::parse("format = 1\n[model]\nname = nobody\n", Path::new("model.toml")).expect_err("it is refused");
    assert!(error.to_string().contains("\n3 | name = nobody\n"), "{error}");
}

/// The shipped manifest with these value steps in place of its own.
fn with_steps(steps: &str) -> Result<Manifest, ModelError> {
    let shipped = include_str!("../../../models/ct-tissue/model.toml");
    let clip = "[[preprocess]]\nstep = \"clip\"\nmin = -1024.0\nmax = 3071.0\n";
    let normalize = "[[preprocess]]\nstep = \"normalize\"\nsubtract = 0.0\ndivide = 1000.0\n";
    let bare = shipped.replace(clip, "").replace(normalize, "");
    assert_eq!(bare.matches("[[preprocess]]").count(), 2, "orient and resample are left");
    Manifest::parse(&bare.replace("[inference.tiles]", &format!("{steps}\n[inference.tiles]")), Path::new("model.toml"))
}

fn check(steps: &str, expected: &[PreprocessStep]) {
    let manifest = with_steps(steps).expect("a manifest");
    assert_eq!(manifest.preprocess[2..], *expected);
}

fn refused(steps: &str, code: &str) {
    let error = with_steps(steps).expect_err("it is refused");
    assert_eq!(error.code(), code, "{error}");
}

#[test]
fn an_image_may_normalise_itself() {
    let step = |fields: &str| format!("[[preprocess]]\nstep = {fields}\n");
    check(&step("\"z-score\""), &[PreprocessStep::ZScore { above: None, over: None, masked: false, nonzero: false, resampled: false }]);
    check(
        &step("\"z-score\"\nabove = 0"),
        &[PreprocessStep::ZScore { above: Some(0.0), over: None, masked: false, nonzero: false, resampled: false }],
    );
    check(
        &step("\"z-score\"\nover = \"nonzero\""),
        &[PreprocessStep::ZScore { above: None, over: Some(Foreground::Nonzero), masked: false, nonzero: false, resampled: false }],
    );
    refused(&step("\"z-score\"\nover = \"nonzero\"\nabove = 1.0"), "model.unsupported");
    refused(&step("\"z-score\"\nover = \"nonzero\"\nresampled = true"), "model.unsupported");
    let ends = "\"percentiles\"\nlow = 0.5\nhigh = 99.5";
    check(&step(ends), &[PreprocessStep::Percentiles { low: 0.5, high: 99.5, above: None, resampled: false }]);
    let clip = step("\"clip\"\nmin = 0.0\nmax = 1.0");
    refused(&(clip.clone() + &step("\"z-score\"")), "model.unsupported");
    refused(&(clip + &step(ends)), "model.unsupported");
    refused(&(step("\"z-score\"") + &step(ends)), "model.unsupported");
    refused(&step("\"percentiles\"\nlow = 5.0\nhigh = 5.0"), "model.unsupported");
    refused(&step("\"percentiles\"\nlow = 5.0\nhigh = 101.0"), "model.unsupported");
    refused(&step("\"z-score\"\nabove = inf"), "model.unsupported");
    refused(&step("\"z-score\"\nbelow = 1.0"), "model.manifest");
}

#[test]
fn regions_may_lie_within_each_other() {
    let shipped = include_str!("../../../models/ct-tissue/model.toml");
    let [argmax, softmax, regions] = ["argmax", "softmax", "regions"].map(|step| format!("step = \"{step}\"\n"));
    assert_eq!(shipped.matches(&argmax).count(), 1);
    let with = |steps: &str| Manifest::parse(&shipped.replace(&argmax, steps), Path::new("model.toml"));
    let first = |fields: &str| with(&format!("step = \"regions\"\n{fields}")).expect("a manifest").postprocess[0].clone();
    assert_eq!(first(""), PostprocessStep::Regions { above: 0.0 });
    assert_eq!(first("above = 0.5"), PostprocessStep::Regions { above: 0.5 });
    let two = |first: &str, second: &str| format!("{first}[[postprocess]]\n{second}");
    for refused in [regions.clone() + "above = nan", two(&regions, &argmax), two(&argmax, &regions), two(&softmax, &regions)] {
        assert_eq!(with(&refused).expect_err("it is refused").code(), "model.unsupported", "{refused}");
    }
    let background = shipped.replace(&argmax, "step = \"regions\"").replace("[output]\n", "[output]\nbackground = 9\n");
    assert_eq!(Manifest::parse(&background, Path::new("model.toml")).expect_err("it is refused").code(), "model.unsupported");
}

#[test]
fn what_was_resampled_may_be_measured() {
    let step = |fields: &str| format!("[[preprocess]]\nstep = {fields}\n");
    let range = "\"percentiles\"\nlow = 0.0\nhigh = 100.0\nresampled = true";
    let later = step("\"z-score\"\nnonzero = true\nmasked = true\nresampled = true")
        + &step(range)
        + &step("\"normalize\"\nsubtract = 0.5\ndivide = 0.5");
    let expected = [
        PreprocessStep::ZScore { above: None, over: None, masked: true, nonzero: true, resampled: true },
        PreprocessStep::Percentiles { low: 0.0, high: 100.0, above: None, resampled: true },
        PreprocessStep::Normalize { subtract: 0.5, divide: 0.5 },
    ];
    check(&later, &expected);
    let clip = step("\"clip\"\nmin = 0.0\nmax = 1.0");
    assert_eq!(with_steps(&(clip + &later)).expect("a manifest").preprocess.len(), 6);
    refused(&step("\"z-score\"\nnonzero = true"), "model.unsupported");
    refused(&step("\"z-score\"\nnonzero = true\nabove = 0.0\nresampled = true"), "model.unsupported");
    refused(&(step(range) + &step("\"z-score\"")), "model.unsupported");
    refused(&step(range).repeat(9), "model.unsupported");
}

#[test]
fn axes_faces_and_what_goes_back() {
    let with = |from: &str, to: &str| {
        let shipped = include_str!("../../../models/ct-tissue/model.toml");
        assert_eq!(shipped.matches(from).count(), 1, "{from}");
        Manifest::parse(&shipped.replace(from, to), Path::new("model.toml"))
    };
    let code = |from: &str, to: &str| with(from, to).expect_err("it is refused").code();
    for to in ["SAR", "kji", "jki", "ijk"] {
        let manifest = with("to = \"LPS\"", &format!("to = \"{to}\"")).expect("a manifest");
        assert!(matches!(manifest.preprocess[0], PreprocessStep::Orient { to: axes } if axes.to_string() == to));
    }
    for to in ["LPR", "kjj", "kj", "kjil", "KJI"] {
        assert_eq!(code("to = \"LPS\"", &format!("to = \"{to}\"")), "model.manifest", "{to}");
    }
    assert_eq!(code("step = \"resample\"", "step = \"resample\"\nwithin = true\nfrom_first = true"), "model.unsupported");
    let argmax = "step = \"argmax\"";
    let softmax = "step = \"softmax\"\n[[postprocess]]\nstep = \"argmax\"";
    // Its scores are probabilities already.
    assert_eq!(code(argmax, softmax), "model.unsupported");
    let logits = include_str!("../../../models/ct-tissue/model.toml").replace("scores = \"probabilities\"", "scores = \"logits\"");
    let manifest = Manifest::parse(&logits.replace(argmax, softmax), Path::new("model.toml")).expect("a manifest");
    assert!(manifest.has_softmax());
    assert_eq!(code(argmax, "step = \"softmax\""), "model.unsupported");
    assert_eq!(code(argmax, "step = \"argmax\"\n[[postprocess]]\nstep = \"softmax\""), "model.unsupported");
    let nearest = |how: &str| with("[output]\n", &format!("[output]\ninterpolation = \"{how}\"\n"));
    assert_eq!(nearest("nearest").expect("a manifest").output.interpolation, Interpolation::Nearest);
    assert_eq!(nearest("cubic").expect_err("it is refused").code(), "model.unsupported");
}

#[test]
fn patches_may_be_empty_where_that_is_background() {
    let shipped = include_str!("../../../models/ct-lung-nodule/model.toml");
    let with = |empty: &str, from: &str, to: &str| {
        assert!(shipped.contains(from), "{from}");
        let table = "[inference.sliding-window]\n";
        Manifest::parse(&shipped.replace(from, to).replace(table, &format!("{table}empty = {empty}\n")), Path::new("model.toml"))
    };
    let manifest = with("[-inf, -1.0]", "", "").expect("a manifest");
    assert_eq!(manifest.empty_patches(), Some([f64::NEG_INFINITY, -1.0]));
    let scores = manifest.background_scores().expect("it has a background");
    let background = manifest.output.background.expect("it has a background");
    assert!(scores.iter().enumerate().all(|(channel, &score)| score == if channel == background { 0.0 } else { LEAST_LOGIT }));
    assert!(with("[0.0, 0.0]", "", "").is_ok());
    for range in ["[1.0, -1.0]", "[-inf, inf]", "[nan, 1.0]"] {
        assert_eq!(with(range, "", "").expect_err("it is refused").code(), "model.unsupported", "{range}");
    }
}

#[test]
fn an_image_may_be_cropped() {
    let shipped = include_str!("../../../models/ct-tissue/model.toml");
    let resample = "[[preprocess]]\nstep = \"resample\"";
    let with = |fields: &str| {
        let crop = format!("[[preprocess]]\nstep = \"crop\"\n{fields}\n\n{resample}");
        Manifest::parse(&shipped.replace(resample, &crop), Path::new("model.toml"))
    };
    let check = |fields: &str, to, above, margin| {
        let manifest = with(fields).expect("a manifest");
        let crop = PreprocessStep::Crop { to, above, labelled: Vec::new(), margin, margin_mm: 0.0 };
        assert_eq!(manifest.preprocess[1], crop);
    };
    check("to = \"nonzero\"", Some(Foreground::Nonzero), None, 0);
    check("above = -500\nmargin = 3", None, Some(-500.0), 3);
    for fields in ["margin = 3", "to = \"nonzero\"\nabove = 0.0", "above = nan"] {
        assert_eq!(with(fields).expect_err("it is refused").code(), "model.unsupported", "{fields}");
    }
    assert_eq!(with("to = \"body\"").expect_err("it is refused").code(), "model.manifest");
}

#[test]
fn values_may_come_before_spacing() {
    let shipped = include_str!("../../../models/ct-tissue/model.toml");
    let step = |name: &str| {
        let start = shipped.find(&format!("[[preprocess]]\nstep = \"{name}\"")).expect("it has the step");
        let length = shipped[start + 1..].find("\n[").expect("more follows") + 2;
        &shipped[start..start + length]
    };
    let [resample, clip, normalize] = ["resample", "clip", "normalize"].map(step);
    let with = |steps: &str| {
        let bare = shipped.replace(resample, "").replace(clip, "").replace(normalize, "");
        Manifest::parse(&bare.replace("[inference.tiles]", &format!("{steps}\n[inference.tiles]")), Path::new("model.toml"))
    };
    let cubic = "[[preprocess]]\nstep = \"resample\"\nspacing_mm = [1.5, 1.5, 1.5]\ninterpolation = \"cubic\"\n";
    let masked = "[[preprocess]]\nstep = \"z-score\"\nabove = 0.0\nmasked = true\n";
    let last = |manifest: Manifest| manifest.preprocess.last().cloned();
    let nnunet = format!("{clip}{normalize}{cubic}within = true\nnearest_beyond = 3.0\n");
    let expected = PreprocessStep::Resample {
        spacing_mm: [1.5; 3],
        interpolation: Interpolation::Cubic,
        within: true,
        from_first: false,
        nearest_beyond: Some(3.0),
    };
    assert_eq!(last(with(&nnunet).expect("a manifest")), Some(expected));
    assert_eq!(with(&format!("{masked}{cubic}")).expect("a manifest").preprocess.len(), 3);
    let of_slices = cubic.replace("[1.5, 1.5, 1.5]", "[1.5, 1.5, 0.0]");
    assert!(matches!(last(with(&of_slices).expect("a manifest")), Some(PreprocessStep::Resample { spacing_mm: [_, _, 0.0], .. })));
    assert_eq!(with(&of_slices.replace("0.0]", "-1.0]")).expect_err("it is refused").code(), "model.unsupported");
    for refused in [format!("{clip}{cubic}{normalize}"), format!("{cubic}{masked}"), format!("{cubic}nearest_beyond = 0.5\n")] {
        assert_eq!(with(&refused).expect_err("it is refused").code(), "model.unsupported", "{refused}");
    }
}
