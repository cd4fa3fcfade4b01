//! Which finding of before is which of now: an assignment one to one with the least sum of distances, and where that is in doubt.
//!
//! A distance beyond the gate is no pair, and counts as the gate. A pair is in doubt where another assignment, in which one of the two
//! belongs to a third finding, costs hardly more: then nobody is guessed. Findings that no gate connects are solved apart.

/// Two assignments whose sums differ by less than this are as good as each other, mm: registrations of chests err by as much.
pub const DOUBT_MM: f64 = 3.0;
/// Findings of before and now that may be connected with each other; more are all in doubt.
const MOST_CONNECTED: usize = 64;

/// What became of one finding of now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Match {
    /// It is this one of before, so far away, mm.
    Same(usize, f64),
    /// It may be one of several.
    Doubtful,
    /// None of before is near.
    New,
}

/// What became of the findings.
#[derive(Debug, Clone, PartialEq)]
pub struct Matches {
    /// One for each finding of now.
    pub now: Vec<Match>,
    /// Findings of before that none of now is, in order.
    pub gone: Vec<usize>,
}

/// Matches `before` findings with `now` ones; `distance_mm(b, n)` is `None` where the two cannot be the same.
pub fn matches(before: usize, now: usize, gate_mm: f64, distance_mm: impl Fn(usize, usize) -> Option<f64>) -> Matches {
    let near: Vec<Vec<Option<f64>>> =
        (0..before).map(|b| (0..now).map(|n| distance_mm(b, n).filter(|mm| *mm <= gate_mm)).collect()).collect();
    let mut found = Matches { now: vec![Match::New; now], gone: Vec::new() };
    let mut is_open = vec![true; before];
    for (befores, nows) in connected(&near, now) {
        let mut doubtful = |befores: &[usize], nows: &[usize]| {
            nows.iter().for_each(|&n| found.now[n] = Match::Doubtful);
            befores.iter().for_each(|&b| is_open[b] = false);
        };
        if befores.len().max(nows.len()) > MOST_CONNECTED {
            doubtful(&befores, &nows);
            continue;
        }
        let cost: Vec<Vec<f64>> = befores.iter().map(|&b| nows.iter().map(|&n| near[b][n].unwrap_or(never(gate_mm))).collect()).collect();
        let is_pair = |b: usize, n: usize| near[befores[b]][nows[n]].is_some();
        let best = assigned(&cost, gate_mm);
        let of_best = sum(&cost, &best, gate_mm);
        let mut in_doubt = (vec![false; befores.len()], vec![false; nows.len()]);
        let pairs = || best.iter().enumerate().filter_map(|(b, n)| Some((b, (*n)?))).filter(|&(b, n)| is_pair(b, n));
        for (b, n) in pairs() {
            let mut without = cost.clone();
            without[b][n] = never(gate_mm);
            let other = assigned(&without, gate_mm);
            let third: Vec<(usize, usize)> = other
                .iter()
                .enumerate()
                .filter_map(|(other_b, other_n)| Some((other_b, (*other_n)?)))
                .filter(|&(other_b, other_n)| (other_b == b) != (other_n == n) && is_pair(other_b, other_n))
                .collect();
            if !third.is_empty() && sum(&without, &other, gate_mm) - of_best < DOUBT_MM {
                for (b, n) in third.into_iter().chain([(b, n)]) {
                    (in_doubt.0[b], in_doubt.1[n]) = (true, true);
                }
            }
        }
        for (b, n) in pairs() {
            if in_doubt.0[b] || in_doubt.1[n] {
                (in_doubt.0[b], in_doubt.1[n]) = (true, true);
            } else {
                found.now[nows[n]] = Match::Same(befores[b], cost[b][n]);
                is_open[befores[b]] = false;
            }
        }
        for (b, _) in in_doubt.0.iter().enumerate().filter(|(_, doubt)| **doubt) {
            is_open[befores[b]] = false;
        }
        for (n, _) in in_doubt.1.iter().enumerate().filter(|(_, doubt)| **doubt) {
            found.now[nows[n]] = Match::Doubtful;
        }
    }
    found.gone = (0..before).filter(|&b| is_open[b]).collect();
    found
}

/// Findings that pairs connect, of before and of now, each ascending; only those with a pair.
fn connected(near: &[Vec<Option<f64>>], now: usize) -> Vec<(Vec<usize>, Vec<usize>)> {
    let mut seen = vec![false; near.len()];
    let mut all = Vec::new();
    for first in 0..near.len() {
        if seen[first] || near[first].iter().all(Option::is_none) {
            continue;
        }
        seen[first] = true;
        let (mut befores, mut has_now) = (vec![first], vec![false; now]);
        let mut next = 0;
        while next < befores.len() {
            let b = befores[next];
            next += 1;
            for n in (0..now).filter(|&n| near[b][n].is_some()) {
                if std::mem::replace(&mut has_now[n], true) {
                    continue;
                }
                for other in 0..near.len() {
                    if near[other][n].is_some() && !std::mem::replace(&mut seen[other], true) {
                        befores.push(other);
                    }
                }
            }
        }
        befores.sort_unstable();
        all.push((befores, (0..now).filter(|&n| has_now[n]).collect()));
    }
    all
}

/// What a finding without a partner costs: two of them a little more than the longest pair.
fn alone(gate_mm: f64) -> f64 {
    gate_mm / 2.0 + 1e-6
}

/// What no pair costs that is chosen.
fn never(gate_mm: f64) -> f64 {
    4.0 * gate_mm + 1.0
}

/// The sum of an assignment; who has no partner costs half a gate.
fn sum(cost: &[Vec<f64>], assigned: &[Option<usize>], gate_mm: f64) -> f64 {
    let nows = cost.first().map_or(0, Vec::len);
    let pairs = assigned.iter().flatten().count();
    let paired: f64 = assigned.iter().enumerate().filter_map(|(b, n)| Some(cost[b][(*n)?])).sum();
    paired + (cost.len() + nows - 2 * pairs) as f64 * alone(gate_mm)
}

/// For each row its column in the assignment of the least sum, where who has no partner costs half a gate (the Hungarian method of Kuhn and
/// Munkres with potentials, on a square of both numbers).
fn assigned(cost: &[Vec<f64>], gate_mm: f64) -> Vec<Option<usize>> {
    let (rows, columns) = (cost.len(), cost.first().map_or(0, Vec::len));
    let size = rows + columns;
    let at = |r: usize, c: usize| match (r < rows, c < columns) {
        (true, true) => cost[r][c],
        (false, false) => 0.0,
        _ => alone(gate_mm),
    };
    // From 1; row_of[0] is the row that is being placed.
    let (mut row_price, mut column_price) = (vec![0.0; size + 1], vec![0.0; size + 1]);
    let (mut row_of, mut way) = (vec![0usize; size + 1], vec![0usize; size + 1]);
    for row in 1..=size {
        row_of[0] = row;
        let mut column = 0;
        let (mut least, mut used) = (vec![f64::INFINITY; size + 1], vec![false; size + 1]);
        loop {
            used[column] = true;
            let (from, mut step, mut next) = (row_of[column], f64::INFINITY, 0);
            for c in (1..=size).filter(|&c| !used[c]) {
                let reduced = at(from - 1, c - 1) - row_price[from] - column_price[c];
                if reduced < least[c] {
                    (least[c], way[c]) = (reduced, column);
                }
                if least[c] < step {
                    (step, next) = (least[c], c);
                }
            }
            for c in 0..=size {
                if used[c] {
                    row_price[row_of[c]] += step;
                    column_price[c] -= step;
                } else {
                    least[c] -= step;
                }
            }
            column = next;
            if row_of[column] == 0 {
                break;
            }
        }
        while column != 0 {
            row_of[column] = row_of[way[column]];
            column = way[column];
        }
    }
    let mut assigned = vec![None; rows];
    for c in 1..=columns {
        if row_of[c] <= rows {
            assigned[row_of[c] - 1] = Some(c - 1);
        }
    }
    assigned
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// On a line, mm.
    fn check(before: &[f64], now: &[f64], expected: &[Match], gone: &[usize]) {
        let found = matches(before.len(), now.len(), 15.0, |b, n| Some((before[b] - now[n]).abs()));
        assert_eq!(found, Matches { now: expected.to_vec(), gone: gone.to_vec() }, "{before:?} {now:?}");
    }

    #[test]
    fn near_ones_are_the_same() {
        use Match::{Doubtful, New, Same};
        check(&[], &[1.0], &[New], &[]);
        check(&[1.0], &[], &[], &[0]);
        check(&[0.0, 100.0], &[101.0, 3.0], &[Same(1, 1.0), Same(0, 3.0)], &[]);
        check(&[0.0], &[15.0], &[Same(0, 15.0)], &[]);
        check(&[0.0], &[15.5], &[New], &[0]);
        // Two close by, well told apart; and not.
        check(&[0.0, 7.0], &[0.5, 7.5], &[Same(0, 0.5), Same(1, 0.5)], &[]);
        check(&[0.0, 7.0], &[3.4], &[Doubtful], &[]);
        check(&[0.0], &[4.0, -5.0], &[Doubtful, Doubtful], &[]);
        check(&[0.0], &[1.0, -12.0], &[Same(0, 1.0), New], &[]);
        // The nearest first would leave one of each alone.
        check(&[0.0, 10.0], &[-9.0, 4.0], &[Same(0, 9.0), Same(1, 6.0)], &[]);
        // What is in doubt does not touch the others.
        check(&[0.0, 60.0, 64.0], &[1.0, 62.0], &[Same(0, 1.0), Doubtful], &[]);
    }

    #[test]
    fn other_kinds_are_never_the_same() {
        let found = matches(1, 1, 15.0, |_, _| None);
        assert_eq!(found, Matches { now: vec![Match::New], gone: vec![0] });
    }

    /// Every assignment of some of the rows.
    fn least(cost: &[Vec<f64>], gate_mm: f64) -> f64 {
        fn from(row: usize, cost: &[Vec<f64>], taken: &mut Vec<Option<usize>>, gate_mm: f64) -> f64 {
            if row == cost.len() {
                return sum(cost, taken, gate_mm);
            }
            let mut best = f64::INFINITY;
            for choice in (0..cost[0].len()).map(Some).chain([None]) {
                if choice.is_none() || !taken.contains(&choice) {
                    taken.push(choice);
                    best = best.min(from(row + 1, cost, taken, gate_mm));
                    taken.pop();
                }
            }
            best
        }
        from(0, cost, &mut Vec::new(), gate_mm)
    }

    proptest! {
        #[test]
        fn no_assignment_is_shorter(rows in 1..5usize, columns in 1..6usize, costs in prop::collection::vec(0.0..15.0f64, 20)) {
            let cost: Vec<Vec<f64>> = (0..rows).map(|r| (0..columns).map(|c| costs[(r * columns + c) % 20]).collect()).collect();
            let found = assigned(&cost, 15.0);
            let mut columns: Vec<usize> = found.iter().flatten().copied().collect();
            columns.sort_unstable();
            prop_assert!(columns.windows(2).all(|pair| pair[0] != pair[1]));
            prop_assert!((sum(&cost, &found, 15.0) - least(&cost, 15.0)).abs() < 1e-9);
        }
    }
}
