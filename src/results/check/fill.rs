//! Closed outlines filled again: which pixels they enclose.

use std::collections::BTreeMap;

/// Pixels of a row, from the first to before the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) row: usize,
    pub(super) columns: std::ops::Range<usize>,
}

/// The pixels with their centre inside, by the even-odd rule, of an image of `columns` x `rows`. Points are (column, row), 0.0 the outer corner
/// of the first pixel; each outline closes from its last point to its first. None where a point lies outside of the image.
pub(super) fn filled(outlines: &[Vec<[f64; 2]>], [columns, rows]: [usize; 2]) -> Option<Vec<Run>> {
    // What is written is rounded, and pixels may be small.
    let inside = |value: f64, most: usize| (-0.1..=most as f64 + 0.1).contains(&value);
    if !outlines.iter().flatten().all(|p| inside(p[0], columns) && inside(p[1], rows)) {
        return None;
    }
    let mut crossings: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for outline in outlines {
        for (a, b) in outline.iter().zip(outline.iter().cycle().skip(1)) {
            let (upper, lower) = if a[1] <= b[1] { (a, b) } else { (b, a) };
            for row in first_centre(upper[1])..first_centre(lower[1]) {
                let share = (row as f64 + 0.5 - upper[1]) / (lower[1] - upper[1]);
                crossings.entry(row).or_default().push(first_centre(upper[0] + share * (lower[0] - upper[0])));
            }
        }
    }
    let mut runs = Vec::new();
    for (row, mut along) in crossings {
        along.sort_unstable();
        runs.extend(along.chunks_exact(2).filter(|c| c[0] < c[1]).map(|c| Run { row, columns: c[0]..c[1] }));
    }
    Some(runs)
}

/// The first pixel whose centre does not lie before `place`.
fn first_centre(place: f64) -> usize {
    (place - 0.5).ceil().max(0.0) as usize
}

/// Whether the outlines enclose all pixels of a slice that have the label, and no others.
pub(super) fn encloses(outlines: &[Vec<[f64; 2]>], slice: &[u8], columns: usize, label: u8) -> bool {
    let Some(runs) = filled(outlines, [columns, slice.len() / columns]) else { return false };
    let all = slice.iter().filter(|&&l| l == label).count();
    let pixels = |run: &Run| &slice[run.row * columns..][run.columns.clone()];
    runs.iter().all(|run| pixels(run).iter().all(|&l| l == label)) && runs.iter().map(|run| run.columns.len()).sum::<usize>() == all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn centres_decide() {
        let square = |x: f64, y: f64, side: f64| vec![[x, y], [x + side, y], [x + side, y + side], [x, y + side]];
        let slice = [0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 0, 0];
        for outline in [square(1.0, 1.0, 2.0), square(1.4, 1.4, 1.2), square(0.6, 0.6, 2.8)] {
            assert!(!encloses(std::slice::from_ref(&outline), &slice.map(|_| 0), 4, 1));
            let slice = [0, 0, 0, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 0, 0, 0];
            assert!(encloses(&[outline], &slice, 4, 1));
        }
        assert!(!encloses(&[square(0.0, 1.0, 2.0)], &slice, 4, 1));
        assert_eq!(filled(&[square(3.0, 3.0, 2.0)], [4, 4]), None);
        // A hole, in either direction.
        let ring = [1, 1, 1, 1, 0, 1, 1, 1, 1];
        let mut hole = square(1.0, 1.0, 1.0);
        assert!(encloses(&[square(0.0, 0.0, 3.0), hole.clone()], &ring, 3, 1));
        hole.reverse();
        assert!(encloses(&[square(0.0, 0.0, 3.0), hole], &ring, 3, 1));
    }
}
