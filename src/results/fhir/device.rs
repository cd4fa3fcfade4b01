//! Devices: the model, and the program that ran it.

use serde_json::{Value, json};

use super::{Job, Release, value};
use crate::codes::{dcm, uid_by_name};
use crate::results::envelope::{EQUIPMENT, known};

/// The model; its identifier is the Device UID that DICOM objects name, one for each set of weights.
pub(super) fn model(job: &Job<'_>) -> Value {
    let package = &job.findings.provenance.package;
    let kind = value::concept(&dcm::ARTIFICIAL_INTELLIGENCE);
    let mut device = device(job.release, &package.name, &package.version_string(), kind);
    device["identifier"] = json!([value::uid(&uid_by_name(&["package", &package.sha256]))]);
    device["manufacturer"] = known(&package.manufacturer).into();
    device["modelNumber"] = package.name.as_str().into();
    device["parent"] = value::reference(&job.node);
    device
}

/// The program.
pub(super) fn node(job: &Job<'_>) -> Value {
    let kind = value::concept(&dcm::PROCESSING_EQUIPMENT);
    let mut device = device(job.release, EQUIPMENT, &job.findings.provenance.roentgen_version, kind);
    device["identifier"] = json!([value::name(&job.node)]);
    device["manufacturer"] = EQUIPMENT.into();
    device
}

fn device(release: Release, name: &str, version: &str, kind: Value) -> Value {
    let versions = json!([{ "value": version }]);
    match release {
        Release::R4 => json!({
            "resourceType": "Device",
            "deviceName": [{ "name": name, "type": "model-name" }],
            "type": kind,
            "version": versions,
        }),
        Release::R5 => json!({
            "resourceType": "Device",
            "displayName": name,
            "name": [{ "value": name, "type": "registered-name", "display": true }],
            "type": [kind],
            "version": versions,
        }),
    }
}
