//! Outlines of a label in one slice.

/// A closed outline along the edges of pixels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outline {
    /// Its corners, (column, row) of pixel corners: (0, 0) is the outer corner of the first pixel, as in SCOORD (PS3.3 C.18.6). Not repeated at
    /// the end. The label lies on the right of each edge, seen in its direction with rows running down.
    pub(super) corners: Vec<[u32; 2]>,
    /// Whether it is the edge of a hole.
    pub(super) hole: bool,
}

impl Outline {
    /// Pixels that it encloses.
    pub(super) fn area(&self) -> u64 {
        let next = self.corners.iter().cycle().skip(1);
        let twice: i64 =
            self.corners.iter().zip(next).map(|(a, b)| i64::from(a[0]) * i64::from(b[1]) - i64::from(b[0]) * i64::from(a[1])).sum();
        twice.unsigned_abs() / 2
    }
}

/// Points that an FL element of Explicit VR holds: of its 65 534 bytes each point takes 8.
pub(super) const MOST_POINTS: usize = 8191;

/// A corner as SCOORD and GSPS write it.
pub(super) fn point([column, row]: [u32; 2]) -> [f32; 2] {
    [column as f32, row as f32]
}

/// The outlines of `label` as [`outlines`] gives them, each with fewer corners than `most`: where one has more, the slice is cut in two
/// between two rows, and its halves too, until none has. They enclose the same pixels.
pub(super) fn short_outlines(slice: &[u8], columns: usize, label: u8, most: usize) -> Vec<Outline> {
    let rows = slice.len() / columns;
    let found = outlines(slice, columns, label);
    if rows == 1 || found.iter().all(|outline| outline.corners.len() < most) {
        return found;
    }
    let (upper, lower) = slice.split_at(rows / 2 * columns);
    let mut found = short_outlines(upper, columns, label, most);
    let below = short_outlines(lower, columns, label, most).into_iter().map(|mut outline| {
        outline.corners.iter_mut().for_each(|corner| corner[1] += (rows / 2) as u32);
        outline
    });
    found.extend(below);
    found
}

/// The outlines of `label` in a slice of `columns`: a pixel lies inside exactly where its centre does, by the even-odd rule.
///
/// Pixels that touch at a corner alone are parted, so that no outline meets itself along an edge.
pub(super) fn outlines(slice: &[u8], columns: usize, label: u8) -> Vec<Outline> {
    let rows = slice.len() / columns;
    let inside = |x: i64, y: i64| {
        (0..columns as i64).contains(&x) && (0..rows as i64).contains(&y) && slice[y as usize * columns + x as usize] == label
    };
    // Upper edges of pixels that some outline has followed: every outline has one.
    let mut followed = vec![false; slice.len()];
    let mut found = Vec::new();
    for start in 0..slice.len() {
        let (x0, y0) = ((start % columns) as i64, (start / columns) as i64);
        if followed[start] || slice[start] != label || inside(x0, y0 - 1) {
            continue;
        }
        let mut corners = Vec::new();
        let (mut x, mut y) = (x0, y0);
        let (mut dx, mut dy) = (1i64, 0i64);
        let mut area = 0;
        loop {
            if (dx, dy) == (1, 0) {
                followed[y as usize * columns + x as usize] = true;
            }
            area += x * (y + dy) - (x + dx) * y;
            (x, y) = (x + dx, y + dy);
            // The pixels ahead, on the right and on the left of the direction.
            let ahead = |side: i64| {
                let (px, py) = (2 * x + dx - side * dy, 2 * y + dy + side * dx);
                inside((px - 1) / 2, (py - 1) / 2)
            };
            let turned = match (ahead(1), ahead(-1)) {
                (false, _) => (-dy, dx),
                (true, false) => (dx, dy),
                (true, true) => (dy, -dx),
            };
            if turned != (dx, dy) {
                corners.push([x as u32, y as u32]);
            }
            (dx, dy) = turned;
            if (x, y, dx, dy) == (x0, y0, 1, 0) {
                break;
            }
        }
        found.push(Outline { corners, hole: area < 0 });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The mask again, by the even-odd rule at pixel centres.
    fn filled(outlines: &[Outline], columns: usize, rows: usize) -> Vec<u8> {
        let mut mask = vec![0; columns * rows];
        for (n, pixel) in mask.iter_mut().enumerate() {
            let (x, y) = ((n % columns) as u32, (n / columns) as u32);
            let crossings =
                outlines.iter().flat_map(|o| (0..o.corners.len()).map(|i| (o.corners[i], o.corners[(i + 1) % o.corners.len()])));
            let left = crossings.filter(|([ax, ay], [bx, by])| ax == bx && *ax <= x && (*ay.min(by)..*ay.max(by)).contains(&y)).count();
            *pixel = (left % 2) as u8;
        }
        mask
    }

    #[test]
    fn a_square_has_four_corners() {
        let found = outlines(&[0, 0, 0, 0, 1, 1, 0, 1, 1], 3, 1);
        assert_eq!(found, [Outline { corners: vec![[3, 1], [3, 3], [1, 3], [1, 1]], hole: false }]);
    }

    #[test]
    fn any_mask_comes_back() {
        let mut state = 7u32;
        for (columns, rows) in [(1, 1), (5, 4), (17, 13), (40, 1), (64, 64)] {
            for share in [1u32, 4, 8, 15] {
                let mask: Vec<u8> = (0..columns * rows)
                    .map(|_| {
                        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        u8::from(state >> 28 < share)
                    })
                    .collect();
                let found = outlines(&mask, columns, 1);
                assert_eq!(filled(&found, columns, rows), mask, "{columns} x {rows}");
            }
        }
        let comb: Vec<u8> = (0..200 * 90).map(|n| u8::from(n % 200 % 2 == 0 || n / 200 == 40)).collect();
        assert_eq!(outlines(&comb, 200, 1).len(), 1);
        let short = short_outlines(&comb, 200, 1, 100);
        assert!(short.len() > 4 && short.iter().all(|o| o.corners.len() < 100), "{} outlines", short.len());
        assert_eq!(filled(&short, 200, 90), comb);
        let ring = outlines(&[1, 1, 1, 1, 0, 1, 1, 1, 1], 3, 1);
        assert_eq!(ring.iter().map(Outline::area).collect::<Vec<_>>(), [9, 1]);
        assert_eq!(ring.iter().map(|o| o.hole).collect::<Vec<_>>(), [false, true]);
    }
}
