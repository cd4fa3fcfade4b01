//! The cohort as one table, a row a finding; and as a list of what failed, a row a series or file.
//!
//! A table holds nothing that differs between two runs over the same input: no times, and no path of this machine.

use std::collections::HashSet;
use std::path::Path;

use csv::{Terminator, WriterBuilder};

use super::acquisition::Acquisition;
use super::paths;
use super::record::{Done, FindingRecord, Number, SeriesHead, Verdict};
use super::report::Report;
use crate::findings::Status;
use crate::results::spreadsheet_text;

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Integer,
    Number,
    Truth,
}

/// What stands in one place of a table.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cell {
    None,
    Text(String),
    Integer(i64),
    Number(f64),
    Truth(bool),
}

impl Cell {
    /// Empty texts are none.
    fn text(text: &str) -> Self {
        if text.is_empty() { Self::None } else { Self::Text(text.to_owned()) }
    }

    fn number(value: Option<f64>) -> Self {
        value.filter(|value| value.is_finite()).map_or(Self::None, Self::Number)
    }

    fn count(value: Option<impl TryInto<i64>>) -> Self {
        value.and_then(|value| value.try_into().ok()).map_or(Self::None, Self::Integer)
    }
}

/// Named columns, and rows that have a cell for each.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) columns: Vec<(String, Kind)>,
    pub(super) rows: Vec<Vec<Cell>>,
}

/// A measurement as a column: its name and unit in the findings, and its name in the table.
#[derive(Debug, PartialEq)]
pub(super) struct Measured {
    pub(super) name: String,
    pub(super) unit: String,
    pub(super) column: String,
}

impl Measured {
    /// The number in this column of a finding; none where it does not apply.
    pub(super) fn of(&self, finding: &FindingRecord) -> Option<f64> {
        let number = finding.measurements.iter().find(|m| m.name == self.name && m.unit == self.unit)?;
        // Of a region that does not exist there are no numbers: not 0 ml.
        let has_numbers = finding.present || finding.certainty_percent.is_some() || finding.status == Some(Status::NotFound);
        number.value.filter(|value| value.is_finite() && has_numbers)
    }
}

/// Every measurement that some finding has, in the order in which they come.
pub(super) fn measured(report: &Report) -> Vec<Measured> {
    let mut all: Vec<Measured> = Vec::new();
    let numbers = report.verdicts().filter_map(Verdict::done).flat_map(|done| &done.findings).flat_map(|finding| &finding.measurements);
    for Number { name, unit, .. } in numbers {
        if all.iter().any(|known| known.name == *name && known.unit == *unit) {
            continue;
        }
        let column = column_name(name, unit);
        let taken = all.iter().filter(|known| known.column == column).count();
        let column = if taken == 0 { column } else { format!("{column}_{}", taken + 1) };
        all.push(Measured { name: name.clone(), unit: unit.clone(), column });
    }
    all
}

/// `mean_hu`: what was measured and in which unit, in letters, digits and underscores.
fn column_name(name: &str, unit: &str) -> String {
    let unit = match unit {
        "[hnsf'U]" => "hu".to_owned(),
        "1" => String::new(),
        "%" => "percent".to_owned(),
        "10*-3" => "per_thousand".to_owned(),
        unit => unit.replace('/', " per "),
    };
    let words = format!("{name} {unit}").to_lowercase();
    words.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect::<Vec<_>>().join("_")
}

/// Columns of [`findings`] before the measurements.
const BEFORE: [(&str, Kind); 19] = [
    ("study_instance_uid", Kind::Text),
    ("series_instance_uid", Kind::Text),
    ("part", Kind::Integer),
    ("source_file_sha256", Kind::Text),
    ("patient", Kind::Text),
    ("modality", Kind::Text),
    ("manufacturer", Kind::Text),
    ("model", Kind::Text),
    ("kernel", Kind::Text),
    ("slice_thickness_mm", Kind::Number),
    ("spacing_i_mm", Kind::Number),
    ("spacing_j_mm", Kind::Number),
    ("spacing_k_mm", Kind::Number),
    ("columns", Kind::Integer),
    ("rows", Kind::Integer),
    ("slices", Kind::Integer),
    ("finding", Kind::Text),
    ("present", Kind::Truth),
    ("certainty_percent", Kind::Number),
];
/// .. where findings are boxes or points,
const PLACED: [(&str, Kind); 3] = [("centre_l_mm", Kind::Number), ("centre_p_mm", Kind::Number), ("centre_s_mm", Kind::Number)];
/// .. where a study was compared with an earlier one.
const FOLLOWED: [(&str, Kind); 5] = [
    ("tracking_uid", Kind::Text),
    ("follow_up", Kind::Text),
    ("earlier_study_instance_uid", Kind::Text),
    ("earlier_study_by_d", Kind::Integer),
    ("registration_correlation", Kind::Number),
];
/// .. and after them.
const AFTER: [(&str, Kind); 5] =
    [("package", Kind::Text), ("device", Kind::Text), ("provider", Kind::Text), ("results", Kind::Text), ("warnings", Kind::Text)];

/// A row for each finding of each series and volume that was analysed.
pub(super) fn findings(report: &Report) -> Table {
    let measured = measured(report);
    let all_done = || report.verdicts().filter_map(Verdict::done);
    let is_placed = all_done().flat_map(|done| &done.findings).any(|finding| finding.centre_lps_mm.is_some());
    let is_followed = all_done().any(|done| done.follow_up.is_some());
    let before = BEFORE.iter().chain(PLACED.iter().filter(|_| is_placed)).chain(FOLLOWED.iter().filter(|_| is_followed));
    let mut columns: Vec<(String, Kind)> = before.map(|&(name, kind)| (name.to_owned(), kind)).collect();
    columns.extend(measured.iter().map(|m| (m.column.clone(), Kind::Number)));
    columns.extend(AFTER.iter().map(|&(name, kind)| (name.to_owned(), kind)));
    let none = Acquisition::default();
    let series =
        report.series.iter().map(|series| (Some(&series.head), &series.head.acquisition, &series.verdict, series.head.warnings.as_slice()));
    let volumes = report.volumes.iter().map(|volume| (None, &none, &volume.verdict, &[][..]));
    let mut rows = Vec::new();
    for (head, acquisition, verdict, warnings) in series.chain(volumes) {
        let Verdict::Done(done) = verdict else { continue };
        let warnings = each_once(warnings.iter().chain(&done.result_warnings));
        let after = [
            report.package.as_str(),
            &done.device,
            &done.provider,
            &done.folder.file_name().unwrap_or_default().to_string_lossy(),
            &warnings,
        ]
        .map(Cell::text);
        for finding in &done.findings {
            let mut row = vec![
                Cell::text(head.map_or("", |head| &head.study_instance_uid)),
                Cell::text(head.map_or("", |head| &head.series_instance_uid)),
                Cell::count(head.and_then(|head| head.part.as_ref()).map(|part| part.number)),
                Cell::text(done.source_file_sha256.as_deref().unwrap_or_default()),
            ];
            row.extend(acquired(head, acquisition));
            row.extend([Cell::text(&finding.name), Cell::Truth(finding.present), Cell::number(finding.certainty_percent)]);
            if is_placed {
                row.extend(std::array::from_fn::<_, 3, _>(|n| Cell::number(finding.centre_lps_mm.map(|centre| centre[n]))));
            }
            if is_followed {
                row.extend(followed(done, finding));
            }
            row.extend(measured.iter().map(|m| Cell::number(m.of(finding))));
            row.extend(after.iter().cloned());
            rows.push(row);
        }
    }
    Table { columns, rows }
}

/// Warnings in one text. The results repeat what was known of the series.
fn each_once<'a>(warnings: impl Iterator<Item = &'a String>) -> String {
    let mut said = HashSet::new();
    warnings.map(String::as_str).filter(|text| said.insert(*text)).collect::<Vec<_>>().join("; ")
}

/// From `tracking_uid` to `registration_correlation`.
fn followed(done: &Done, finding: &FindingRecord) -> [Cell; 5] {
    let earlier = done.follow_up.as_ref();
    [
        Cell::text(&finding.tracking_uid),
        Cell::text(finding.status.map_or("", Status::word)),
        Cell::text(earlier.map_or("", |earlier| &earlier.study_instance_uid)),
        Cell::count(earlier.map(|earlier| earlier.days)),
        Cell::number(earlier.and_then(|earlier| earlier.correlation)),
    ]
}

/// From `patient` to `slices`.
fn acquired(head: Option<&SeriesHead>, acquisition: &Acquisition) -> [Cell; 12] {
    let spacing = |axis: usize| Cell::number(acquisition.spacing_mm.map(|mm| mm[axis]));
    let dims = |axis: usize| Cell::count(acquisition.dims.map(|dims| dims[axis]));
    [
        Cell::text(&acquisition.patient),
        Cell::text(head.map_or("", |head| &head.modality)),
        Cell::text(&acquisition.manufacturer),
        Cell::text(&acquisition.model),
        Cell::text(&acquisition.kernel),
        Cell::number(acquisition.slice_thickness_mm),
        spacing(0),
        spacing(1),
        spacing(2),
        dims(0),
        dims(1),
        dims(2),
    ]
}

/// A row for each series and volume, however it ended. `path` is of this machine, and the first one of a study that lies in several places.
pub(super) fn series(report: &Report) -> Table {
    let columns = [
        ("path", Kind::Text),
        ("study_instance_uid", Kind::Text),
        ("series_instance_uid", Kind::Text),
        ("part", Kind::Integer),
        ("modality", Kind::Text),
        ("instances", Kind::Integer),
        ("outcome", Kind::Text),
        ("code", Kind::Text),
        ("message", Kind::Text),
        ("accession_number", Kind::Text),
    ];
    let text = |text: &str| Cell::text(text);
    // From the root: a list of studies may lie anywhere.
    let path = |path: &Path| {
        if path.as_os_str().is_empty() {
            Cell::None
        } else {
            Cell::text(&paths::text_of(&std::path::absolute(path).unwrap_or_else(|_| path.to_owned())))
        }
    };
    let why = |verdict: &Verdict| {
        let all = |of: fn(&super::Problem) -> &String| verdict.reasons().iter().map(|r| of(r).as_str()).collect::<Vec<_>>().join("; ");
        [text(verdict.outcome()), text(&all(|reason| &reason.code)), text(&all(|reason| &reason.message)), Cell::None]
    };
    let mut rows = Vec::new();
    for series in &report.series {
        let head = &series.head;
        let place = report.places.get(&head.study_instance_uid).and_then(|places| places.first());
        let mut row = vec![
            text(place.map_or("", |place| &place.path)),
            text(&head.study_instance_uid),
            text(&head.series_instance_uid),
            Cell::count(head.part.as_ref().map(|part| part.number)),
            text(&head.modality),
            Cell::count(Some(head.instances)),
        ];
        row.extend(why(&series.verdict));
        rows.push(row);
    }
    for volume in &report.volumes {
        let mut row = vec![path(&volume.path), Cell::None, Cell::None, Cell::None, Cell::None, Cell::Integer(1)];
        row.extend(why(&volume.verdict));
        rows.push(row);
    }
    for file in report.files.iter().filter(|file| file.unreadable) {
        let mut row = vec![path(&file.path), Cell::None, Cell::None, Cell::None, Cell::None, Cell::None];
        row.extend([text("unreadable"), text(&file.problem.code), text(&file.problem.message), Cell::None]);
        rows.push(row);
    }
    for study in &report.missing {
        let mut row = vec![Cell::None, text(&study.study_instance_uid), Cell::None, Cell::None, Cell::None, Cell::None];
        row.extend([text("failed"), text(&study.problem.code), text(&study.problem.message), text(&study.accession_number)]);
        rows.push(row);
    }
    Table { columns: columns.map(|(name, kind)| (name.to_owned(), kind)).to_vec(), rows }
}

/// Those of [`series`] that should have been analysed and were not: a list of studies for `--only`, with a row for each place of a study.
pub(super) fn failures(report: &Report) -> Table {
    let mut table = series(report);
    let outcome = table.columns.iter().position(|(name, _)| name == "outcome").expect("a column of series");
    let failed = ["refused", "failed", "unreadable"].map(|word| Cell::Text(word.to_owned()));
    table.rows.retain(|row| failed.contains(&row[outcome]));
    let placed = |row: Vec<Cell>| {
        let places = match &row[1] {
            Cell::Text(study) => report.places.get(study).map(Vec::as_slice).unwrap_or_default(),
            _ => &[],
        };
        let mut rows = vec![row; places.len().max(1)];
        for (row, place) in rows.iter_mut().zip(places) {
            row[0] = Cell::text(&place.path);
            row[1] = Cell::text(&place.study_uid);
        }
        rows
    };
    table.rows = table.rows.into_iter().flat_map(placed).collect();
    table
}

impl Table {
    /// As CSV (RFC 4180, UTF-8, one header row). A text that a spreadsheet would run as a formula gets a `'` in front; numbers parse to the
    /// number that was computed.
    pub(super) fn csv(&self) -> Vec<u8> {
        let mut writer = WriterBuilder::new().terminator(Terminator::CRLF).from_writer(Vec::new());
        let field = |cell: &Cell| match cell {
            Cell::None => String::new(),
            Cell::Text(text) => spreadsheet_text(text),
            Cell::Integer(value) => value.to_string(),
            Cell::Number(value) => decimal(*value),
            Cell::Truth(value) => value.to_string(),
        };
        writer.write_record(self.columns.iter().map(|(name, _)| name)).expect("memory takes all");
        for row in &self.rows {
            writer.write_record(row.iter().map(field)).expect("memory takes all, and each row has all fields");
        }
        writer.into_inner().expect("memory takes all")
    }
}

/// As JSON writes it.
pub(super) fn decimal(value: f64) -> String {
    serde_json::Number::from_f64(value).map_or_else(String::new, |number| number.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_say_their_unit() {
        for (name, unit, column) in [
            ("Volume", "ml", "volume_ml"),
            ("Mean", "[hnsf'U]", "mean_hu"),
            ("5th percentile", "g/ml{SUVbw}", "5th_percentile_g_per_ml_suvbw"),
            ("Sphericity", "1", "sphericity"),
            ("Maximum Diameter", "mm", "maximum_diameter_mm"),
            ("Mean", "10*-3", "mean_per_thousand"),
        ] {
            assert_eq!(column_name(name, unit), column);
        }
    }

    #[test]
    fn a_warning_stands_once() {
        assert_eq!(each_once(["a", "b", "a"].map(str::to_owned).iter()), "a; b");
    }

    /// A series that failed, of a study without Study Instance UID, which lies in two places.
    #[test]
    fn failures_name_a_study_in_each_of_its_places_by_the_uid_that_lists_know() {
        use crate::cohort::journal::{Entry, History, Journal, Line};
        use crate::cohort::record::{Problem, SeriesRecord};
        let head = SeriesHead {
            study_instance_uid: "2.25.1".into(),
            series_instance_uid: "2.25.2".into(),
            part: None,
            modality: "CT".into(),
            series_number: None,
            instances: 3,
            warnings: Vec::new(),
            acquisition: Acquisition::default(),
        };
        let reasons = vec![Problem { code: "dataset.io".into(), message: "why".into() }];
        let entry = Entry::Series(Box::new(SeriesRecord { head, verdict: Verdict::Failed { reasons } }));
        let study_paths = ["/a/x", "/b.zip"].map(str::to_owned).to_vec();
        let folder = tempfile::tempdir().unwrap();
        let line = Line { study: "k".into(), stamp: "s".into(), study_uid: "2.25.1".into(), study_paths, entry };
        Journal::begin(folder.path()).unwrap().append(&line).unwrap();
        let settings = serde_json::json!({"package": "p", "package_sha256": "", "device": "cpu", "forms": "json", "parameters": []});
        let history = History::read(folder.path()).unwrap();
        let report = Report::past(&serde_json::from_value(settings).unwrap(), &history, folder.path());
        let named = |table: Table| table.rows.into_iter().map(|row| row[..2].to_vec()).collect::<Vec<_>>();
        let row = |path: &str| vec![Cell::text(path), Cell::text("2.25.1")];
        assert_eq!(named(failures(&report)), [row("/a/x"), row("/b.zip")]);
        assert_eq!(named(series(&report)), [row("/a/x")]);
        assert_eq!(report.failures(), [0, 1]);
    }
}
