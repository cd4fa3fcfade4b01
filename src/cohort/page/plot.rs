//! Histograms as SVG. Colours come from the style of the page.

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
