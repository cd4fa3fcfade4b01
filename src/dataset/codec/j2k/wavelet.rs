//! Inverse wavelet transforms (ISO 15444-1 annex F): 5/3 on whole numbers, 9/7 on floats.

/// A rectangle of coefficients or samples of one resolution, row by row.
#[derive(Default)]
pub(super) struct Grid<T> {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) values: Vec<T>,
}

impl<T: Copy + Default> Grid<T> {
    pub(super) fn new(width: usize, height: usize) -> Self {
        Self { width, height, values: vec![T::default(); width * height] }
    }

    fn row(&self, y: usize) -> &[T] {
        &self.values[y * self.width..][..self.width]
    }
}

/// A kind of number, with its lifting steps.
pub(super) trait Transform: Copy + Default + 'static {
    /// From low and high frequencies, to samples at even and at odd places.
    const STEPS: &'static [Step<Self>];
    /// Gains of low and high before the steps.
    fn scale(low: &mut [Self], high: &mut [Self]);
    /// A line of one sample at an odd place.
    fn single_odd(value: Self) -> Self;
}

/// `target += f(left + right)`, on the low or the high half.
pub(super) struct Step<T> {
    on_low: bool,
    lift: fn(&mut [T], &[T], &[T]),
}

fn lift<T: Copy>(target: &mut [T], left: &[T], right: &[T], f: impl Fn(T, T, T) -> T) {
    for ((t, &l), &r) in target.iter_mut().zip(left).zip(right) {
        *t = f(*t, l, r);
    }
}

impl Transform for i32 {
    const STEPS: &'static [Step<i32>] = &[
        Step { on_low: true, lift: |t, l, r| lift(t, l, r, |t, l, r| t.wrapping_sub(l.wrapping_add(r).wrapping_add(2) >> 2)) },
        Step { on_low: false, lift: |t, l, r| lift(t, l, r, |t, l, r| t.wrapping_add(l.wrapping_add(r) >> 1)) },
    ];

    fn scale(_: &mut [i32], _: &mut [i32]) {}

    fn single_odd(value: i32) -> i32 {
        value >> 1
    }
}

impl Transform for f32 {
    const STEPS: &'static [Step<f32>] = &[
        Step { on_low: true, lift: |t, l, r| lift(t, l, r, |t, l, r| t - 0.443_506_85 * (l + r)) },
        Step { on_low: false, lift: |t, l, r| lift(t, l, r, |t, l, r| t - 0.882_911_1 * (l + r)) },
        Step { on_low: true, lift: |t, l, r| lift(t, l, r, |t, l, r| t + 0.052_980_12 * (l + r)) },
        Step { on_low: false, lift: |t, l, r| lift(t, l, r, |t, l, r| t + 1.586_134_3 * (l + r)) },
    ];

    fn scale(low: &mut [f32], high: &mut [f32]) {
        const K: f32 = 1.230_174_1;
        low.iter_mut().for_each(|v| *v *= K);
        high.iter_mut().for_each(|v| *v *= 1.0 / K);
    }

    fn single_odd(value: f32) -> f32 {
        value / 2.0
    }
}

/// The four subbands of one level, and whether the first column and row of what comes out of them have odd coordinates.
pub(super) struct Level<T> {
    pub(super) ll: Grid<T>,
    pub(super) hl: Grid<T>,
    pub(super) lh: Grid<T>,
    pub(super) hh: Grid<T>,
    pub(super) odd_x: bool,
    pub(super) odd_y: bool,
}

/// One level up.
pub(super) fn inverse<T: Transform>(level: &Level<T>) -> Grid<T> {
    let (width, height) = (level.ll.width + level.hl.width, level.ll.height + level.lh.height);
    let mut out = Grid::new(width, height);
    let mut line = Line::new(level.ll.width, level.hl.width, level.odd_x);
    for y in 0..level.ll.height.max(level.lh.height) {
        let place = |odd: bool| (2 * y + usize::from(odd != level.odd_y)) * width;
        if y < level.ll.height {
            line.run(level.ll.row(y), level.hl.row(y), &mut out.values[place(false)..][..width]);
        }
        if y < level.lh.height {
            line.run(level.lh.row(y), level.hh.row(y), &mut out.values[place(true)..][..width]);
        }
    }
    columns(&mut out, level.odd_y);
    out
}

/// Rows: low and high halves apart, with a neighbour more at each end, so that the steps are plain loops.
struct Line<T> {
    low: Vec<T>,
    high: Vec<T>,
    odd: bool,
}

impl<T: Transform> Line<T> {
    fn new(low: usize, high: usize, odd: bool) -> Self {
        Self { low: vec![T::default(); low + 2], high: vec![T::default(); high + 2], odd }
    }

    fn run(&mut self, low: &[T], high: &[T], out: &mut [T]) {
        match (low, high) {
            (&[one], []) => out[0] = one,
            ([], &[one]) => out[0] = T::single_odd(one),
            _ => self.long(low, high, out),
        }
    }

    fn long(&mut self, low: &[T], high: &[T], out: &mut [T]) {
        let (lows, highs) = (low.len(), high.len());
        self.low[1..=lows].copy_from_slice(low);
        self.high[1..=highs].copy_from_slice(high);
        T::scale(&mut self.low[1..=lows], &mut self.high[1..=highs]);
        let odd = usize::from(self.odd);
        for step in T::STEPS {
            // Neighbours beyond an end are those within (F.3.1).
            if step.on_low {
                extend(&mut self.high, highs);
                (step.lift)(&mut self.low[1..=lows], &self.high[odd..], &self.high[odd + 1..]);
            } else {
                extend(&mut self.low, lows);
                (step.lift)(&mut self.high[1..=highs], &self.low[1 - odd..], &self.low[2 - odd..]);
            }
        }
        let (first, second) = if self.odd { (&self.high, &self.low) } else { (&self.low, &self.high) };
        let mut pairs = out.chunks_exact_mut(2);
        let mut n = 1;
        for pair in &mut pairs {
            pair[0] = first[n];
            pair[1] = second[n];
            n += 1;
        }
        if let [last] = pairs.into_remainder() {
            *last = first[n];
        }
    }
}

fn extend<T: Copy>(half: &mut [T], count: usize) {
    half[0] = half[1];
    half[count + 1] = half[count];
}

/// Columns, all at once: each step on whole rows.
fn columns<T: Transform>(grid: &mut Grid<T>, odd: bool) {
    let (width, height) = (grid.width, grid.height);
    if height == 1 {
        if odd {
            grid.values.iter_mut().for_each(|v| *v = T::single_odd(*v));
        }
        return;
    }
    if width == 0 || height == 0 {
        return;
    }
    for (y, row) in grid.values.chunks_exact_mut(width).enumerate() {
        if y.is_multiple_of(2) == odd { T::scale(&mut [], row) } else { T::scale(row, &mut []) }
    }
    for step in T::STEPS {
        let start = usize::from(step.on_low == odd);
        for y in (start..height).step_by(2) {
            let (above, rest) = grid.values.split_at_mut(y * width);
            let (target, below) = rest.split_at_mut(width);
            let above = above.len().checked_sub(width).map(|from| &above[from..]);
            let below = below.get(..width);
            // There are two rows at least, so there is one neighbour at least.
            if let (Some(above), Some(below)) = (above.or(below), below.or(above)) {
                (step.lift)(target, above, below);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One line, forward by the formula of F.4.8.1, on places `odd`, `odd` + 1 and so on.
    fn forward(samples: &[i32], odd: usize) -> (Vec<i32>, Vec<i32>) {
        let n = samples.len() as i64;
        let mirror = |place: i64| {
            let mut p = place;
            while p < 0 || p >= n {
                p = if p < 0 { -p } else { 2 * (n - 1) - p };
            }
            samples[p as usize]
        };
        let high = |p: i64| mirror(p) - ((mirror(p - 1) + mirror(p + 1)) >> 1);
        let is_high = |p: i64| (p + odd as i64) % 2 == 1;
        let (mut lows, mut highs) = (Vec::new(), Vec::new());
        for p in 0..n {
            if is_high(p) {
                highs.push(high(p));
            } else {
                lows.push(mirror(p) + ((high(p - 1) + high(p + 1) + 2) >> 2));
            }
        }
        (lows, highs)
    }

    #[test]
    fn five_three_comes_back() {
        for length in 2..12 {
            for odd in [0, 1] {
                let samples: Vec<i32> = (0..length).map(|n| (n * n * 37 + 11 * n) % 101 - 50).collect();
                let (low, high) = forward(&samples, odd);
                let mut out = vec![0; samples.len()];
                Line::new(low.len(), high.len(), odd == 1).run(&low, &high, &mut out);
                assert_eq!(out, samples, "{length} {odd}");
                let mut grid = Grid { width: 1, height: samples.len(), values: vec![0; samples.len()] };
                let place = |n: usize, is_high: usize| 2 * n + usize::from(is_high != odd);
                low.iter().enumerate().for_each(|(n, &v)| grid.values[place(n, 0)] = v);
                high.iter().enumerate().for_each(|(n, &v)| grid.values[place(n, 1)] = v);
                columns(&mut grid, odd == 1);
                assert_eq!(grid.values, samples, "{length} {odd}, down");
            }
        }
    }
}
