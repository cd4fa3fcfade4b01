//! A report as one HTML page: rooflines, shares of the bandwidth, stages of runs. It opens from disk and loads nothing.

use super::{Adapter, KernelReport, Report, RunReport};
use crate::gpu::AdapterKind;
use crate::results::Markup;

const CSS: &str = include_str!("page.css");
/// Inner size of a roofline, units of its view box.
const WIDTH: f64 = 620.0;
const HEIGHT: f64 = 300.0;
/// Room for its labels, left and below.
const LEFT: f64 = 60.0;
const BELOW: f64 = 44.0;

/// The page.
pub fn page(report: &Report) -> String {
    let mut page = Markup::default();
    page.raw("<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">");
    page.element("title", "roentgen bench").raw(&format!("<style>{CSS}</style></head>\n<body><main>\n"));
    page.element("h1", "roentgen bench");
    let machine = &report.machine;
    let memory = machine.memory_mb.map(|mb| format!(", {mb} MB")).unwrap_or_default();
    page.element("p", &format!("roentgen {}, {}, {} threads{memory}, {}", report.roentgen, machine.cpu, machine.threads, machine.system));
    for device in &report.devices {
        of_device(&mut page, report, device);
    }
    if !report.runs.is_empty() {
        page.element("h2", "Whole runs");
        report.runs.iter().for_each(|run| stages(&mut page, run));
    }
    if !report.left_out.is_empty() {
        page.element("h2", "Left out");
        page.within("ul", |list| {
            for what in &report.left_out {
                list.element("li", what);
            }
        });
    }
    page.raw("</main></body></html>\n");
    page.into_string()
}

fn of_device(page: &mut Markup, report: &Report, device: &Adapter) {
    let kernels: Vec<&KernelReport> = report.kernels.iter().filter(|kernel| kernel.device == device.name).collect();
    let Some(largest) = kernels.iter().map(|kernel| kernel.size).max() else { return };
    let limits = &device.limits;
    let software = if device.adapter == Some(AdapterKind::Software) { " (software)" } else { "" };
    page.element("h2", &format!("{}{software}", device.name));
    let transfers = limits.upload_gb_s.zip(limits.download_gb_s);
    let transfers = transfers.map(|(up, down)| format!("; upload {up:.1}, download {down:.1} GB/s")).unwrap_or_default();
    page.element(
        "p",
        &format!(
            "Measured limits: copy {:.1} GB/s, read {:.1}, fill {:.1}; {:.0} GFLOP/s{transfers}.",
            limits.copy_gb_s, limits.read_gb_s, limits.fill_gb_s, limits.compute_gflop_s
        ),
    );
    let shown: Vec<&KernelReport> = kernels.iter().filter(|kernel| kernel.size == largest).copied().collect();
    roofline(page, device, &shown);
    table(page, &kernels);
}

/// Attainable GFLOP/s over operations a byte, both logarithmic, and the kernels under that roof.
fn roofline(page: &mut Markup, device: &Adapter, kernels: &[&KernelReport]) {
    let (bandwidth, compute) = (device.limits.copy_gb_s, device.limits.compute_gflop_s);
    let points: Vec<(f64, f64, &KernelReport)> = kernels
        .iter()
        .filter(|kernel| kernel.operations > 0)
        .map(|kernel| (kernel.operations as f64 / kernel.bytes as f64, kernel.operations as f64 / 1e6 / kernel.median_ms, *kernel))
        .collect();
    if points.is_empty() {
        return;
    }
    let knee = compute / bandwidth;
    let low = points.iter().map(|(intensity, ..)| *intensity).fold(knee, f64::min) / 4.0;
    let high = points.iter().map(|(intensity, ..)| *intensity).fold(knee, f64::max) * 4.0;
    let floor = points.iter().map(|(_, speed, _)| *speed).fold(low * bandwidth, f64::min) / 2.0;
    let ceiling = compute * 2.0;
    let x = |intensity: f64| LEFT + WIDTH * (intensity / low).ln() / (high / low).ln();
    let y = |speed: f64| HEIGHT * (1.0 - (speed / floor).ln() / (ceiling / floor).ln());
    page.raw(&format!(
        "<figure><svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"roofline\">\n",
        LEFT + WIDTH + 10.0,
        HEIGHT + BELOW
    ));
    for power in -2..7 {
        let value = 10f64.powi(power);
        if (floor..ceiling).contains(&value) {
            let at = y(value);
            page.raw(&format!("<path class=\"grid\" d=\"M{LEFT} {at:.1}h{WIDTH}\"/><text x=\"{:.1}\" y=\"{:.1}\" class=\"end\">{value}</text>\n", LEFT - 6.0, at + 4.0));
        }
        if (low..high).contains(&value) {
            let at = x(value);
            page.raw(&format!("<path class=\"grid\" d=\"M{at:.1} 0v{HEIGHT}\"/><text x=\"{at:.1}\" y=\"{:.1}\" class=\"middle\">{value}</text>\n", HEIGHT + 16.0));
        }
    }
    page.raw(&format!(
        "<path class=\"roof\" d=\"M{:.1} {:.1}L{:.1} {:.1}L{:.1} {:.1}\"/>\n",
        x(low),
        y(low * bandwidth),
        x(knee),
        y(compute),
        x(high),
        y(compute)
    ));
    page.raw(&format!("<text x=\"{:.1}\" y=\"{:.1}\" class=\"middle\">operations a byte</text>\n", LEFT + WIDTH / 2.0, HEIGHT + 36.0));
    page.raw("<text x=\"4\" y=\"12\">GFLOP/s</text>\n");
    for (number, (intensity, speed, _)) in points.iter().enumerate() {
        let (x, y) = (x(*intensity), y(*speed));
        page.raw(&format!(
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5\"/><text x=\"{:.1}\" y=\"{:.1}\">{}</text>\n",
            x + 8.0,
            y + 4.0,
            number + 1
        ));
    }
    page.raw("</svg><figcaption><ol>\n");
    for (_, speed, kernel) in &points {
        page.element("li", &format!("{}, {}, {}³: {speed:.1} GFLOP/s", kernel.kernel, kernel.variant, kernel.size));
    }
    page.raw("</ol></figcaption></figure>\n");
}

fn table(page: &mut Markup, kernels: &[&KernelReport]) {
    let header = ["kernel", "on", "size", "median ms", "± %", "cold ms", "call ms", "Mvoxel/s", "GB/s", "of copy bandwidth"];
    page.raw("<div class=\"scroll\"><table><thead><tr>\n");
    for name in header {
        page.element("th", name);
    }
    page.raw("</tr></thead><tbody>\n");
    for kernel in kernels {
        page.raw("<tr>");
        page.element("th scope=\"row\"", &kernel.kernel).element("td", &kernel.variant).element("td", &format!("{}³", kernel.size));
        for number in [kernel.median_ms, kernel.spread_percent, kernel.cold_ms, kernel.call_ms, kernel.mvoxel_s, kernel.gb_s] {
            page.element("td class=\"number\"", &short(number));
        }
        let percent = kernel.bandwidth_percent;
        page.raw(&format!("<td class=\"number\"><span class=\"bar\" style=\"width:{:.1}%\"></span>{percent:.0} %</td></tr>\n", percent.min(100.0)));
    }
    page.raw("</tbody></table></div>\n");
}

fn stages(page: &mut Markup, run: &RunReport) {
    let [i, j, k] = run.dims;
    let total: f64 = run.stages.iter().map(|stage| stage.median_ms).sum();
    page.element(
        "p",
        &format!(
            "{} on {}, network by {}, {i} x {j} x {k}: {} ms warm; opening took {} ms.",
            run.package,
            run.device,
            run.provider,
            short(total),
            short(run.open_ms)
        ),
    );
    page.raw("<div class=\"stages\">");
    for (n, stage) in run.stages.iter().enumerate() {
        let percent = 100.0 * stage.median_ms / total.max(1e-9);
        page.raw(&format!("<span class=\"stage{}\" style=\"flex-grow:{percent:.2}\">", n % 6));
        page.element("b", &stage.stage).raw(&format!("{} ms</span>\n", short(stage.median_ms)));
    }
    page.raw("</div>\n");
}

/// Three figures.
pub(crate) fn short(number: f64) -> String {
    match number {
        n if n >= 100.0 => format!("{n:.0}"),
        n if n >= 10.0 => format!("{n:.1}"),
        n if n >= 1.0 => format!("{n:.2}"),
        n => format!("{n:.3}"),
    }
}
