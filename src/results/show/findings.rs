//! `findings.json`: a row for each number.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::Value;

use super::{Page, ShowError, number};
use crate::results::SCHEMA_VERSION;

/// The largest document that is read.
const MAX_BYTES: u64 = 64 << 20;

pub(super) fn page(path: &Path) -> Result<Page, ShowError> {
    let wrong = |what| ShowError::Findings { what, path: path.to_owned() };
    let mut text = String::new();
    let file = File::open(path).map_err(|_| wrong("it cannot be read"))?;
    file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(|_| wrong("it is no UTF-8 text"))?;
    if text.len() as u64 > MAX_BYTES {
        return Err(wrong("it is larger than 64 MB"));
    }
    let document: Value = serde_json::from_str(&text).map_err(|_| wrong("it is no JSON"))?;
    if document["schema"] != "roentgen-findings" {
        return Err(wrong("`schema` is not roentgen-findings"));
    }
    if document["schema_version"] != SCHEMA_VERSION {
        return Err(wrong("`schema_version` is one that this version does not know"));
    }
    Ok(of(&document))
}

fn of(document: &Value) -> Page {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut page = Page { title: "Findings of roentgen".to_owned(), ..Page::default() };
    let provenance = &document["provenance"];
    page.fact("package", format!("{} {}", text(&provenance["package"]["name"]), text(&document["package_version"])));
    page.fact("status", "result of an AI model, not verified by a person");
    page.fact("intended use", text(&provenance["package"]["intended_use"]));
    page.fact("roentgen", text(&provenance["roentgen_version"]));
    page.fact("ran on", format!("{}, {}", text(&provenance["device"]), text(&provenance["provider"])));
    page.fact("started", text(&provenance["started"]));
    page.fact("study", text(&document["study_instance_uid"]));
    page.fact("series", text(&document["series_instance_uid"]));
    page.fact("source file", text(&document["source_file"]["sha256"]));
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();

    let mut rows = Vec::new();
    for finding in list(&document["findings"]) {
        let side = text(&finding["laterality"]["meaning"]).to_lowercase();
        let presence = if finding["present"] == true { "present" } else { "absent" };
        let certainty = finding["certainty_percent"].as_f64().map_or_else(String::new, number);
        let head = [text(&finding["name"]), side, presence.to_owned(), certainty];
        let row = |concept: String, value: String, unit: String| head.iter().cloned().chain([concept, value, unit]).collect::<Vec<_>>();
        let before = rows.len();
        // The numbers of a region that was not found mean nothing.
        let counted = finding["present"] == true || finding["segment"].is_null();
        for measured in list(&finding["measurements"]).iter().filter(|_| counted) {
            let derivation = text(&measured["derivation"]["meaning"]).to_lowercase();
            let concept = format!("{} {derivation}", text(&measured["concept"]["meaning"])).trim_end().to_owned();
            let value = measured["value"].as_f64().map_or_else(|| "(none)".to_owned(), number);
            rows.push(row(concept, value, unit(&measured["unit"]["value"])));
        }
        for evaluation in list(&finding["evaluations"]) {
            rows.push(row(text(&evaluation["question"]["meaning"]), text(&evaluation["answer"]["meaning"]), String::new()));
        }
        if rows.len() == before {
            rows.push(row(String::new(), String::new(), String::new()));
        }
    }
    page.table("findings", &["finding", "side", "presence", "probability of presence %", "measurement", "value", "unit"], rows);
    let object = |object: &Value| vec![text(&object["file"]), text(&object["modality"]), text(&object["sop_instance_uid"])];
    page.table("objects", &["file", "modality", "SOP instance"], list(&document["results"]).iter().map(object).collect());
    list(&document["warnings"]).iter().for_each(|warning| page.note(text(warning)));
    page
}

fn unit(value: &Value) -> String {
    super::unit(&crate::codes::Code {
        value: value.as_str().unwrap_or_default().to_owned().into(),
        scheme: "UCUM".into(),
        meaning: "".into(),
    })
}
