//! Numbers over many cases: quartiles, and what lies far from the others.

/// Fewest values that outliers are looked for among.
const FEWEST: usize = 8;
/// Robust standard deviations from the median (Iglewicz and Hoaglin 1993).
const FAR: f64 = 3.5;
/// From the median absolute deviation to the standard deviation of normal values.
const MAD_TO_SD: f64 = 1.4826;

/// Of at least one value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Summary {
    pub(super) count: usize,
    pub(super) median: f64,
    /// The first and the third, interpolated linearly between values (type 7 of Hyndman and Fan 1996, as numpy).
    pub(super) quartiles: [f64; 2],
    pub(super) range: [f64; 2],
}

pub(super) fn summary(values: &[f64]) -> Option<Summary> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (first, last) = (*sorted.first()?, *sorted.last()?);
    Some(Summary {
        count: sorted.len(),
        median: quantile(&sorted, 0.5),
        quartiles: [quantile(&sorted, 0.25), quantile(&sorted, 0.75)],
        range: [first, last],
    })
}

/// Of ascending values, at least one.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    low + (high - low) * place.fract()
}

/// Places of the values that lie far from the others, each with its distance in robust standard deviations.
pub(super) fn outliers(values: &[Option<f64>]) -> Vec<(usize, f64)> {
    let known: Vec<f64> = values.iter().copied().flatten().collect();
    let Some(all) = summary(&known).filter(|all| all.count >= FEWEST) else { return Vec::new() };
    let deviations: Vec<f64> = known.iter().map(|value| (value - all.median).abs()).collect();
    let spread = summary(&deviations).map_or(0.0, |deviations| deviations.median * MAD_TO_SD);
    // Where more than half of the values are equal there is no scale to measure by.
    if spread <= 0.0 {
        return Vec::new();
    }
    let distance = |(n, value): (usize, &Option<f64>)| Some((n, (((*value)? - all.median) / spread)));
    values.iter().enumerate().filter_map(distance).filter(|(_, distance)| distance.abs() > FAR).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `numpy.percentile([3, 1, 2, 10], [25, 50, 75])` of numpy 2.3: 1.75, 2.5, 4.75.
    #[test]
    fn quartiles_are_those_of_numpy() {
        let found = summary(&[3.0, 1.0, 2.0, 10.0]).unwrap();
        assert_eq!(found, Summary { count: 4, median: 2.5, quartiles: [1.75, 4.75], range: [1.0, 10.0] });
        assert_eq!(summary(&[]), None);
    }

    #[test]
    fn what_lies_far_off_is_found() {
        let mut values: Vec<Option<f64>> = (0..20).map(|n| Some(f64::from(n % 5))).collect();
        assert_eq!(outliers(&values), []);
        values[3] = None;
        values[7] = Some(40.0);
        let found = outliers(&values);
        assert_eq!(found.len(), 1);
        // Median 2, median absolute deviation 1.
        assert!(found[0].0 == 7 && (found[0].1 - 38.0 / MAD_TO_SD).abs() < 1e-9, "{found:?}");
        assert_eq!(outliers(&[Some(1.0); 9]), [], "no scale");
        assert_eq!(outliers(&[Some(1.0), Some(2.0), Some(90.0)]), [], "too few");
    }
}
