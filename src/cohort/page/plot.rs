//! Histograms, and volumes over time, as SVG. Colours come from the style of the page.

use super::numbers::Summary;
use crate::results::{escaped, number_for_people};

const WIDTH: f64 = 300.0;
const HEIGHT: f64 = 96.0;
/// Room below for the numbers.
const BELOW: f64 = 16.0;

/// Bars over equal parts of the range, as many as the square root of the count, 5 to 24; a line at the median.
pub(super) fn histogram(values: &[f64], all: &Summary, label: &str) -> String {
    let counts = counts(values, all.range, ((values.len() as f64).sqrt().ceil() as usize).clamp(5, 24));
    let most = counts.iter().copied().max().unwrap_or(1).max(1) as f64;
    let bar = WIDTH / counts.len() as f64;
    let mut svg =
        format!("<svg class=\"histogram\" viewBox=\"0 0 {WIDTH} {:.0}\" role=\"img\" aria-label=\"{}\">", HEIGHT + BELOW, escaped(label));
    for (n, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let height = *count as f64 / most * (HEIGHT - 4.0);
        let (x, y, width) = (n as f64 * bar + 0.5, HEIGHT - height, bar - 1.0);
        svg += &format!(
            "<rect class=\"bar\" x=\"{x:.2}\" y=\"{y:.2}\" width=\"{width:.2}\" height=\"{height:.2}\"><title>{count}</title></rect>"
        );
    }
    let at = share(all.median, all.range) * WIDTH;
    svg += &format!("<path class=\"median\" d=\"M{at:.2} 0V{HEIGHT}\"/><path class=\"axis\" d=\"M0 {HEIGHT}H{WIDTH}\"/>");
    let text = |x: f64, anchor: &str, value: f64| {
        let y = HEIGHT + BELOW - 4.0;
        format!("<text x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\">{}</text>", number_for_people(value))
    };
    svg += &text(0.0, "start", all.range[0]);
    svg += &text(WIDTH, "end", all.range[1]);
    svg + "</svg>\n"
}

/// Volumes over days, from 0 up, joined by a line; a ring on the axis where there is none any more.
pub(super) fn over_time(points: &[(i64, Option<f64>)], label: &str) -> String {
    const SIDE: f64 = 8.0;
    let days = [points.first().map_or(0, |p| p.0), points.last().map_or(0, |p| p.0)];
    let most = points.iter().filter_map(|p| p.1).fold(f64::MIN_POSITIVE, f64::max);
    let place = |(day, volume): &(i64, Option<f64>)| {
        let x = SIDE + share(*day as f64, days.map(|day| day as f64)) * (WIDTH - 2.0 * SIDE);
        (x, HEIGHT - volume.unwrap_or(0.0) / most * (HEIGHT - 24.0))
    };
    let mut svg =
        format!("<svg class=\"over-time\" viewBox=\"0 0 {WIDTH} {:.0}\" role=\"img\" aria-label=\"{}\">", HEIGHT + BELOW, escaped(label));
    let line: Vec<String> = points.iter().map(place).map(|(x, y)| format!("{x:.2} {y:.2}")).collect();
    svg += &format!("<path class=\"axis\" d=\"M0 {HEIGHT}H{WIDTH}\"/><path class=\"line\" d=\"M{}\"/>", line.join("L"));
    for point in points {
        let (x, y) = place(point);
        let (class, text) = point.1.map_or(("gone", "not found".to_owned()), |ml| ("seen", format!("{} ml", number_for_people(ml))));
        svg += &format!("<circle class=\"{class}\" cx=\"{x:.2}\" cy=\"{y:.2}\" r=\"4\"><title>day {}: {text}</title></circle>", point.0);
        let anchor = if x < WIDTH / 3.0 {
            "start"
        } else if x > WIDTH * 2.0 / 3.0 {
            "end"
        } else {
            "middle"
        };
        svg += &format!("<text x=\"{x:.2}\" y=\"{:.2}\" text-anchor=\"{anchor}\">{text}</text>", y - 8.0);
        svg += &format!("<text x=\"{x:.2}\" y=\"{}\" text-anchor=\"{anchor}\">day {}</text>", HEIGHT + BELOW - 4.0, point.0);
    }
    svg + "</svg>\n"
}

/// Where in the range a value lies, 0 to 1; in its middle where it has no width.
fn share(value: f64, [least, greatest]: [f64; 2]) -> f64 {
    if greatest > least { (value - least) / (greatest - least) } else { 0.5 }
}

fn counts(values: &[f64], range: [f64; 2], bins: usize) -> Vec<usize> {
    let mut counts = vec![0; bins];
    for value in values {
        counts[((share(*value, range) * bins as f64) as usize).min(bins - 1)] += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_a_bar() {
        assert_eq!(counts(&[0.0, 1.0, 2.0, 9.9, 10.0], [0.0, 10.0], 5), [2, 1, 0, 0, 2]);
        assert_eq!(counts(&[3.0; 4], [3.0, 3.0], 5), [0, 0, 4, 0, 0]);
    }
}
