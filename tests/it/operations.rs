//! What operators install: the unit for systemd, the image, the example of a configuration, the description of the HTTP interface.

use std::collections::BTreeSet;
use std::process::Command;

use roentgen::node::Config;
use serde_json::Value;

use crate::support::root;

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn the_example_of_a_configuration_is_one() {
    let config: Config = read("examples/node.toml").parse().expect("a configuration");
    assert_eq!(config.package.len(), 1);
}

#[test]
fn the_unit_is_one_for_systemd() {
    let unit = read("examples/roentgen.service");
    assert!(unit.contains("serve --config /etc/roentgen/node.toml"));
    // Without the program in /usr/local/bin that it is for, systemd would complain of that alone.
    let folder = tempfile::tempdir().expect("a folder");
    let here = folder.path().join("roentgen.service");
    std::fs::write(&here, unit.replace("/usr/local/bin/roentgen", env!("CARGO_BIN_EXE_roentgen"))).expect("written");
    let Ok(verified) = Command::new("systemd-analyze").arg("verify").arg(&here).output() else {
        return println!("skipped: no systemd-analyze");
    };
    let said = String::from_utf8_lossy(&verified.stderr);
    let said: Vec<&str> = said.lines().filter(|line| line.contains("roentgen.service")).collect();
    assert!(verified.status.success() && said.is_empty(), "{}", said.join("\n"));
}

#[test]
fn the_image_is_built_of_what_is_here() {
    let dockerfile = read("examples/Dockerfile");
    let (mut copied, mut stages) = (BTreeSet::new(), Vec::new());
    for line in dockerfile.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["FROM", _, "AS", name] => stages.push(name),
            ["COPY", from, ..] if from.starts_with("--from=") => assert!(stages.contains(&&from[7..]), "{line}"),
            ["COPY", ref sources @ .., _] => copied.extend(sources.iter().map(|source| source.to_string())),
            _ => {}
        }
    }
    for source in &copied {
        assert!(root().join(source).exists(), "COPY {source}: there is none");
    }
    // Whatever cargo or the sources read at build time must be copied.
    let manifest: toml::Table = read("Cargo.toml").parse().expect("TOML");
    assert!(manifest.contains_key("package") && copied.contains("Cargo.lock"));
    for needed in ["src", "shaders", "assets", "docs", "benches", "examples", "tests"] {
        assert!(copied.contains(needed), "the build needs {needed}");
    }
    let user = dockerfile.lines().find(|line| line.starts_with("USER ")).expect("a user");
    assert_ne!(user, "USER root");
    for command in ["\"roentgen\", \"serve\"", "/readyz", "target/release/roentgen setup"] {
        assert!(dockerfile.contains(command), "{command}");
    }
}

#[test]
fn every_route_is_described_and_nothing_else() {
    let described: Value = serde_json::from_str(&read("docs/openapi.json")).expect("JSON");
    let operations = described["paths"].as_object().expect("paths").iter();
    let operations =
        operations.flat_map(|(path, item)| item.as_object().expect("operations").keys().map(move |method| format!("{method} {path}")));
    let mut routed = BTreeSet::new();
    for (file, below) in [("src/node/http.rs", ""), ("src/node/dicomweb/mod.rs", "/dicom-web")] {
        for route in read(file).split(".route(").skip(1) {
            let route = route.split('\n').next().unwrap_or_default();
            let path = route.trim().trim_start_matches('"').split('"').next().unwrap_or_default();
            for method in ["get", "post", "put", "delete", "patch"] {
                if route.contains(&format!(" {method}(")) || route.contains(&format!(").{method}(")) {
                    routed.insert(format!("{method} {below}{path}"));
                }
            }
        }
    }
    assert_eq!(routed, operations.collect());
    assert_eq!(described["info"]["version"], env!("CARGO_PKG_VERSION"));
}
