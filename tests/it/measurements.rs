//! Every number that a package can ask for, computed again from the segmentation and the series, and the same in every form of the results.

use crate::packages::changed;
use crate::support::{python, roentgen, root, small_study};

const ALL: &str = r#"["volume", "mean", "standard-deviation", "minimum", "maximum", "median", "percentile-5", "percentile-10", "percentile-90",
    "percentile-95", "longest-diameter", "long-axis", "short-axis", "surface-area", "sphericity"]"#;

#[test]
fn other_peoples_libraries_measure_the_same() {
    let package = changed(|text| text.replace(r#"["volume", "mean", "standard-deviation"]"#, ALL));
    let (_, study) = small_study();
    let results = tempfile::tempdir().expect("a temporary folder");
    let text = |path: &std::path::Path| path.to_str().expect("ASCII").to_owned();
    let [package, input, output] = [package.path(), study.path(), results.path()].map(text);
    let ran = roentgen(&["run", "--device", "cpu", "--results", "sr,seg,json,csv,fhir", "--model", &package, "--output", &output, &input]);
    assert_eq!(ran.code, 0, "{}", ran.all());
    for script in ["check_reports.py", "check_measurements.py"] {
        let checked = python(&root().join("tests/python").join(script), &[study.path(), results.path()]);
        assert_eq!(checked.code, 0, "{script}: {}", checked.all());
        println!("{}", checked.stdout);
    }
}
