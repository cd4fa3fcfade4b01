//! Unevenly spaced slices onto even distances.

use rayon::prelude::*;

use crate::geometry::Grid;
use crate::volume::{ImageVolume, Rescale, Stored, Volume};

/// `image`, whose slices lie at `places` (ascending, in slices of `grid`, the first at 0), linearly interpolated onto `grid`.
///
/// 16-bit values stay so, rounded to the nearest, where all slices have one rescale; otherwise physical values are computed as `f32`.
pub(super) fn evened(image: &ImageVolume, places: &[f64], grid: Grid) -> ImageVolume {
    let plane = grid.slice_voxels();
    let slices = grid.dims()[2] as usize;
    let cells: Vec<(usize, usize, f64)> = (0..slices).map(|k| cell(places, k as f64)).collect();
    let one_rescale = image.rescale.iter().all(|r| *r == image.rescale[0]);
    if let (true, Some(stored)) = (one_rescale, image.stored.as_int16()) {
        let mut out = vec![0i16; plane * slices];
        out.par_chunks_mut(plane).zip(&cells).for_each(|(out, &(a, b, weight))| {
            let values = stored.slice(a).iter().zip(stored.slice(b));
            let between = |(&a, &b): (&i16, &i16)| (f64::from(a) + weight * (f64::from(b) - f64::from(a))).round() as i16;
            out.iter_mut().zip(values).for_each(|(out, pair)| *out = between(pair));
        });
        let rescale = vec![image.rescale[0]; slices];
        return ImageVolume { stored: Stored::Int16(Volume::new(grid, out)), rescale, quantity: image.quantity };
    }
    let physical = |k: usize, n: usize| image.rescale[k].slope * image.stored.value(k * plane + n) + image.rescale[k].intercept;
    let mut out = vec![0f32; plane * slices];
    out.par_chunks_mut(plane).zip(&cells).for_each(|(out, &(a, b, weight))| {
        out.iter_mut().enumerate().for_each(|(n, out)| *out = (physical(a, n) + weight * (physical(b, n) - physical(a, n))) as f32);
    });
    let rescale = vec![Rescale { slope: 1.0, intercept: 0.0 }; slices];
    let stored = Stored::Float32(Volume::new(grid, out));
    ImageVolume { stored, rescale, quantity: image.quantity }
}

/// The source slices before and after `k`, and the weight of the second.
fn cell(places: &[f64], k: f64) -> (usize, usize, f64) {
    let last = places.len() - 1;
    let after = places.partition_point(|&place| place <= k).min(last);
    let before = after.saturating_sub(1);
    if after == before {
        return (before, after, 0.0);
    }
    (before, after, ((k - places[before]) / (places[after] - places[before])).clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_lie_between_their_slices() {
        let places = [0.0, 1.0, 3.5, 4.0];
        assert_eq!(cell(&places, 0.0), (0, 1, 0.0));
        assert_eq!(cell(&places, 1.0), (1, 2, 0.0));
        assert_eq!(cell(&places, 2.0), (1, 2, 0.4));
        assert_eq!(cell(&places, 4.0), (2, 3, 1.0));
    }
}
