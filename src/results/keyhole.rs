//! Outlines with holes as single contours, by the keyhole technique (PS3.3 C.8.8.6.3): a channel of no width leads to each hole and back.

use std::collections::HashMap;

use super::outline::Outline;

/// One closed contour for each island of a slice of `columns` x `rows`, its holes within it; `all` are the outlines of one label in that slice.
///
/// A channel runs up a border between two columns of pixels of the label, from the left end of the hole's uppermost edge to the nearest edge
/// above: to the border of the island, or to another hole that begins higher up.
pub(super) fn contours(all: &[Outline], [columns, rows]: [usize; 2]) -> Vec<Vec<[u32; 2]>> {
    let holes: Vec<usize> = (0..all.len()).filter(|&n| all[n].hole).collect();
    let mut channels: HashMap<Edge, Vec<Channel>> = HashMap::new();
    if !holes.is_empty() {
        let upper = upper_edges(all, columns, rows);
        for hole in holes {
            let [x, y] = all[hole].corners[first(&all[hole])];
            let above = |y: usize| [x as usize, x as usize - 1].into_iter().find_map(|x| upper[y * columns + x]);
            let edge = (0..y as usize).rev().find_map(above).expect("a hole lies below an edge of what it is in");
            channels.entry(edge).or_default().push(Channel { column: x, hole });
        }
    }
    channels.values_mut().for_each(|along| along.sort_unstable_by_key(|channel| (channel.column, channel.hole)));
    (0..all.len()).filter(|&n| !all[n].hole).map(|island| traced(all, island, &channels)).collect()
}

/// An outline, and the place of the corner that the edge begins at.
type Edge = (usize, usize);

/// A way to a hole.
struct Channel {
    column: u32,
    hole: usize,
}

/// The corner where a hole's channel begins: the left end of its uppermost edge.
fn first(outline: &Outline) -> usize {
    let at = |n: &usize| (outline.corners[*n][1], outline.corners[*n][0]);
    (0..outline.corners.len()).min_by_key(at).expect("an outline has corners")
}

/// For each pixel the edge along its upper side, with the label below; these run to the right.
fn upper_edges(all: &[Outline], columns: usize, rows: usize) -> Vec<Option<Edge>> {
    let mut edges = vec![None; columns * rows];
    for (n, outline) in all.iter().enumerate() {
        for (corner, (a, b)) in outline.corners.iter().zip(outline.corners.iter().cycle().skip(1)).enumerate() {
            if a[1] == b[1] && a[0] < b[0] {
                edges[a[1] as usize * columns..][a[0] as usize..b[0] as usize].fill(Some((n, corner)));
            }
        }
    }
    edges
}

/// A walk around an outline.
struct Walk {
    outline: usize,
    /// The corner it starts from.
    start: usize,
    /// Corners passed.
    passed: usize,
    /// Channels taken from the edge behind the last of them.
    taken: usize,
    /// Where the channel begins that led here.
    gate: Option<[u32; 2]>,
}

/// The border of an island, with a walk around each hole where its channel begins. Holes may lead to further holes, in any number, so the
/// walks are a stack and no recursion.
fn traced(all: &[Outline], island: usize, channels: &HashMap<Edge, Vec<Channel>>) -> Vec<[u32; 2]> {
    let mut path: Vec<[u32; 2]> = Vec::new();
    let mut walks = vec![Walk { outline: island, start: 0, passed: 0, taken: 0, gate: None }];
    let put = |path: &mut Vec<[u32; 2]>, point| {
        if path.last() != Some(&point) {
            path.push(point);
        }
    };
    while let Some(walk) = walks.last_mut() {
        let corners = &all[walk.outline].corners;
        if walk.passed == corners.len() {
            if let Some(gate) = walk.gate {
                put(&mut path, corners[walk.start]);
                put(&mut path, gate);
            }
            walks.pop();
            continue;
        }
        let corner = (walk.start + walk.passed) % corners.len();
        if walk.taken == 0 {
            put(&mut path, corners[corner]);
        }
        match channels.get(&(walk.outline, corner)).and_then(|along| along.get(walk.taken)) {
            Some(channel) => {
                walk.taken += 1;
                let gate = [channel.column, corners[corner][1]];
                put(&mut path, gate);
                walks.push(Walk { outline: channel.hole, start: first(&all[channel.hole]), passed: 0, taken: 0, gate: Some(gate) });
            }
            None => (walk.passed, walk.taken) = (walk.passed + 1, 0),
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::outline::outlines;

    /// Twice the area that a closed path encloses, what is left of it counted as negative.
    fn twice_area(path: &[[u32; 2]]) -> i64 {
        let next = path.iter().cycle().skip(1);
        path.iter().zip(next).map(|(a, b)| i64::from(a[0]) * i64::from(b[1]) - i64::from(b[0]) * i64::from(a[1])).sum()
    }

    /// Pixels that a path goes around an odd number of times.
    fn fill(path: &[[u32; 2]], columns: usize, mask: &mut [u8]) {
        for (a, b) in path.iter().zip(path.iter().cycle().skip(1)) {
            assert!(a[0] == b[0] || a[1] == b[1], "a step aside from {a:?} to {b:?}");
            for y in a[1].min(b[1])..a[1].max(b[1]) {
                mask[y as usize * columns..][a[0] as usize..columns].iter_mut().for_each(|pixel| *pixel ^= 1);
            }
        }
    }

    #[test]
    fn a_ring_is_one_contour() {
        let found = contours(&outlines(&[1, 1, 1, 1, 0, 1, 1, 1, 1], 3, 1), [3, 3]);
        assert_eq!(found.len(), 1);
        assert_eq!(twice_area(&found[0]), 16);
        assert!(found[0].windows(2).any(|w| w == [[1, 0], [1, 1]]) && found[0].windows(2).any(|w| w == [[1, 1], [1, 0]]), "{found:?}");
    }

    #[test]
    fn any_mask_comes_back() {
        let mut state = 3u32;
        for (columns, rows) in [(1, 1), (5, 4), (17, 13), (40, 1), (64, 64)] {
            for share in [1u32, 4, 8, 12, 15] {
                let mask: Vec<u8> = (0..columns * rows)
                    .map(|_| {
                        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        u8::from(state >> 28 < share)
                    })
                    .collect();
                let all = outlines(&mask, columns, 1);
                let found = contours(&all, [columns, rows]);
                assert_eq!(found.len(), all.iter().filter(|o| !o.hole).count());
                let mut again = vec![0; mask.len()];
                let mut area = 0;
                for path in &found {
                    // An island at a time: contours that enclose others do not count what is in their holes.
                    let mut alone = vec![0; mask.len()];
                    fill(path, columns, &mut alone);
                    area += twice_area(path);
                    again.iter_mut().zip(&alone).for_each(|(all, one)| *all += one);
                }
                assert_eq!(again, mask, "{columns} x {rows}, {share} of 16");
                assert_eq!(area, 2 * mask.iter().map(|&m| i64::from(m)).sum::<i64>(), "areas are signed alike");
            }
        }
    }
}
