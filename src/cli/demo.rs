//! `roentgen demo`: a phantom of our own through the whole path, beside its truth.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use serde::Serialize;

use super::{EngineArgs, Outcome, OutputArgs, ResultArgs, outcome, run, text};
use crate::cohort::{Done, FindingRecord, Report, Verdict};
use crate::engine::Engine;
use crate::infer::fetch;
use crate::infer::runtime::{self, RuntimeError};
use crate::model::select::Kind;
use crate::model::{ModelError, Package};
use crate::phantom::{self, NODULES, Phantom, Sampling, Tissue, Truth};
use crate::results;

/// Try it out: makes a chest CT study of its own, or for a package of radiographs a radiograph, analyses it, and holds the result against
/// the known truth.
///
/// The study is a phantom made of simple shapes: no patient, no download. Where ONNX Runtime is missing, it is fetched
/// first as `roentgen setup` does, and said so.
#[derive(Args)]
#[command(after_help = super::EXIT_CODES)]
pub(super) struct Demo {
    /// Folder for the study and the results; replaced when it is there from an earlier demo.
    #[arg(long, short, value_name = "DIR", default_value = "roentgen-demo")]
    output: PathBuf,

    /// The package: the name of an installed one, or a folder.
    #[arg(long, value_name = "NAME", default_value = "ct-tissue")]
    package: String,

    #[command(flatten)]
    results: ResultArgs,

    #[command(flatten)]
    engine: EngineArgs,

    #[command(flatten)]
    output_args: OutputArgs,
}

/// Found beside put in.
#[derive(Debug, Serialize)]
struct Comparison {
    tissue: String,
    found_ml: f64,
    truth_ml: f64,
    difference_percent: f64,
    found_mean_hu: Option<f64>,
    truth_hu: f64,
}

/// The largest difference from the truth that the demo calls a success, percent.
const TOLERANCE_PERCENT: f64 = 2.0;
/// The same for a nodule, which has few voxels.
const NODULE_TOLERANCE_PERCENT: f64 = 15.0;
/// What packages call one.
const NODULE: &str = "nodule";

impl Demo {
    pub(super) fn run(self) -> anyhow::Result<Outcome> {
        super::check_folder(&self.output)?;
        let package = super::packages().find(&self.package).map_err(|error| match &error {
            ModelError::NotFound { known, .. } if known.is_empty() => anyhow::Error::from(error).context(super::NO_PACKAGE),
            _ => error.into(),
        })?;
        if self.engine.ort_lib.is_none()
            && runtime::load(None, self.engine.provider).is_err_and(|e| matches!(e, RuntimeError::NotFound { .. }))
        {
            eprintln!("ONNX Runtime with {} is not here yet; fetching it as `roentgen setup` does:", self.engine.provider.name());
            fetch::fetch(self.engine.provider, &mut |line| eprintln!("  {line}"))?;
        }
        let mut engine = Engine::new(package, &self.engine.options(&self.results.results))?;

        let study = self.output.join("study");
        let phantom = write_study(engine.package(), &study)?;
        let report =
            run::run_all(&mut engine, &run::asked_anew(std::slice::from_ref(&study), &self.results.results, &self.output.join("results")))?;
        let [series] = report.series.as_slice() else { bail!("the demo's study gave {} series instead of one", report.series.len()) };
        let Verdict::Done(Done { folder, findings, stages_s, .. }) = &series.verdict else {
            outcome::print(&report, false);
            return Ok(Outcome::SomeFailed);
        };

        if engine.package().manifest.select.kind == Kind::Image {
            return self.print_radiograph(&report, findings, folder);
        }
        let mut comparisons: Vec<Comparison> = phantom.truth.iter().filter_map(|truth| compare(truth, findings)).collect();
        if engine.package().manifest.finding_named(NODULE).is_some_and(|finding| finding.instances.is_some()) {
            comparisons.extend(compare_nodules(findings));
        }
        if comparisons.is_empty() {
            bail!(
                "the package {} finds none of the phantom's tissues: {}",
                self.package,
                phantom.truth.iter().map(|t| t.tissue.name()).collect::<Vec<_>>().join(", ")
            );
        }
        if self.output_args.json {
            text::print_json(&comparisons)?;
        } else {
            print(&report, &comparisons);
            say!("\nstudy    {}\nresults  {}\npicture  {}", study.display(), folder.display(), folder.join(results::PNG_FILE).display());
            if self.output_args.timings {
                text::print(&format!("\n{}", text::timings(stages_s)));
                outcome::print_peak_memory(&report);
            }
        }
        let tolerance = |c: &Comparison| if c.tissue.starts_with(NODULE) { NODULE_TOLERANCE_PERCENT } else { TOLERANCE_PERCENT };
        let close = comparisons.iter().all(|c| c.difference_percent.abs() <= tolerance(c));
        Ok(if close { Outcome::AllDone } else { Outcome::SomeFailed })
    }
}

/// Writes the study that fits `package` into `folder`: the phantom as CT, or a radiograph of it.
///
/// # Errors
/// Where a file cannot be written.
pub(super) fn write_study(package: &Package, folder: &Path) -> anyhow::Result<Phantom> {
    let is_radiograph = package.manifest.select.kind == Kind::Image;
    let phantom = phantom::chest(&if is_radiograph { phantom::radiograph_sampling() } else { Sampling::default() });
    let written = if is_radiograph { phantom::write_radiograph(&phantom, folder) } else { phantom::write_series(&phantom, folder) };
    written.context("cannot write the phantom's study")?;
    Ok(phantom)
}

impl Demo {
    /// What a package finds on the phantom's radiograph, whose heart is of normal width, with four nodules and without fluid.
    fn print_radiograph(&self, report: &Report, findings: &[FindingRecord], folder: &Path) -> anyhow::Result<Outcome> {
        if self.output_args.json {
            text::print_json(&findings)?;
        } else {
            outcome::print(report, self.output_args.timings);
            say!("\nThe phantom has four nodules of 10 to 24 mm, no fluid and a heart of normal width.");
            say!("picture  {}", folder.join(results::PNG_FILE).display());
        }
        Ok(Outcome::AllDone)
    }
}

fn compare(truth: &Truth, findings: &[FindingRecord]) -> Option<Comparison> {
    let found = findings.iter().find(|f| f.name == truth.tissue.name())?;
    let found_ml = number(found, "Volume")?;
    Some(Comparison {
        tissue: truth.tissue.name().to_owned(),
        found_ml,
        truth_ml: truth.volume_ml,
        difference_percent: (found_ml / truth.volume_ml - 1.0) * 100.0,
        found_mean_hu: number(found, "Mean"),
        truth_hu: truth.tissue.hu(),
    })
}

/// Nodules found beside those put in, the largest first; where one is missing or there is one more, 0 ml stand beside it.
fn compare_nodules(findings: &[FindingRecord]) -> Vec<Comparison> {
    let named = |f: &&FindingRecord| f.present && f.name.starts_with(NODULE);
    let mut found: Vec<_> = findings.iter().filter(named).map(|f| (number(f, "Volume").unwrap_or(0.0), number(f, "Mean"))).collect();
    let mut truth_ml = NODULES.map(|(_, radius_mm)| 4.0 / 3.0 * std::f64::consts::PI * radius_mm.powi(3) / 1000.0).to_vec();
    found.sort_by(|a, b| b.0.total_cmp(&a.0));
    truth_ml.sort_by(|a, b| b.total_cmp(a));
    let pair = |n: usize| {
        let (found_ml, found_mean_hu) = found.get(n).copied().unwrap_or_default();
        let truth_ml = truth_ml.get(n).copied().unwrap_or_default();
        let difference_percent = if truth_ml > 0.0 { (found_ml / truth_ml - 1.0) * 100.0 } else { 100.0 };
        Comparison { tissue: NODULE.to_owned(), found_ml, truth_ml, difference_percent, found_mean_hu, truth_hu: Tissue::Soft.hu() }
    };
    (0..found.len().max(truth_ml.len())).map(pair).collect()
}

fn number(found: &FindingRecord, name: &str) -> Option<f64> {
    found.measurements.iter().find(|m| m.name == name)?.value
}

fn print(report: &Report, comparisons: &[Comparison]) {
    say!("{}\n", outcome::headline(report));
    let rows: Vec<_> = comparisons
        .iter()
        .map(|c| {
            let mean = c.found_mean_hu.map_or_else(|| "-".to_owned(), |hu| format!("{hu:.0}"));
            let difference = format!("{:+.2} %", c.difference_percent);
            let ml = |ml: f64| if ml < 100.0 { format!("{ml:.2}") } else { format!("{ml:.1}") };
            vec![c.tissue.clone(), ml(c.found_ml), ml(c.truth_ml), difference, mean, format!("{:.0}", c.truth_hu)]
        })
        .collect();
    text::print(&text::table(&["tissue", "found ml", "truth ml", "difference", "found HU", "truth HU"], &rows));
}
