//! What the stored values of one label in one slice add up to, for each type of stored values and each implementation.
//!
//! - 16-bit integers, both implementations: sums in integers, exact, so the same numbers whatever the order.
//! - Floats on the CPU: `f64` sums of differences from the label's first value in the slice, in 8 lanes, always in the same order.
//! - Floats on a GPU, which has no `f64`: values as whole numbers of up to 31 bits (the largest of the slab is from 2^29 to 2^30), then exact
//!   integer sums. Values above a 64th of the largest are not rounded at all, smaller ones by half a unit: at most 2^-30 of it.
//!
//! Twins: `shaders/shared/stored_i16.wgsl`, `shaders/shared/stored_f32.wgsl`.

use super::simd::wide;
use super::voxel::{Voxel, float_of_rank};

/// Stored values of one label in one slice, in stored units.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SliceNumbers {
    /// The slice, from 0.
    pub k: u32,
    /// Number of voxels, at least 1.
    pub voxels: u64,
    /// Mean.
    pub mean: f64,
    /// Sum of squared deviations from the mean.
    pub deviations: f64,
    /// Least.
    pub least: f64,
    /// Greatest.
    pub greatest: f64,
}

/// Sums over some voxels of one label in one slice.
pub(super) trait Sums: Copy + Send {
    /// Adds the sums over other voxels.
    fn add(&mut self, other: &Self);

    /// What they come to for slice `k`, where they have voxels.
    fn numbers(&self, k: u32) -> SliceNumbers;
}

/// A type of stored values that can be summed.
pub(super) trait Summed: Voxel {
    /// Words of the shader's sums of values: `SUMS` there.
    const WORDS: usize;
    type OnCpu: Sums;
    type OnGpu: Sums;

    /// No voxels yet; `first` is the first value that will be added.
    fn none(first: Self) -> Self::OnCpu;

    /// Adds values.
    fn add(sums: &mut Self::OnCpu, values: &[Self]);

    /// What the shader multiplies `values` by: a power of two.
    fn per_unit(values: &[Self]) -> f32;

    /// The shader's sums.
    fn from_words(voxels: u64, words: &[u32], ranks: [u32; 2], per_unit: f32) -> Self::OnGpu;
}

/// Exact sums of integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct IntegerSums {
    pub(super) voxels: u64,
    pub(super) sum: i64,
    /// Below 2^62, as a slice has at most 2^32 voxels.
    pub(super) sum_of_squares: u64,
    least: i16,
    greatest: i16,
}

impl Sums for IntegerSums {
    fn add(&mut self, other: &Self) {
        self.voxels += other.voxels;
        self.sum += other.sum;
        self.sum_of_squares += other.sum_of_squares;
        self.least = self.least.min(other.least);
        self.greatest = self.greatest.max(other.greatest);
    }

    fn numbers(&self, k: u32) -> SliceNumbers {
        let (mean, deviations) = exact_moments(self.voxels, self.sum, self.sum_of_squares.into());
        SliceNumbers { k, voxels: self.voxels, mean, deviations, least: self.least.into(), greatest: self.greatest.into() }
    }
}

/// Mean and sum of squared deviations: `n * sum of squares - square of sum` is below 2^124 and never negative.
fn exact_moments(voxels: u64, sum: i64, sum_of_squares: u128) -> (f64, f64) {
    let spread = u128::from(voxels) * sum_of_squares - u128::from(sum.unsigned_abs()).pow(2);
    (sum as f64 / voxels as f64, spread as f64 / voxels as f64)
}

wide! {
    fn add_integers(sums: &mut IntegerSums, values: &[i16]) {
        // 32 Ki values: their sum fits i32, which the vectoriser likes.
        for some in values.chunks(1 << 15) {
            let (mut sum, mut squares, mut least, mut greatest) = (0i32, 0u64, sums.least, sums.greatest);
            for &v in some {
                sum += i32::from(v);
                squares += u64::from((i32::from(v) * i32::from(v)) as u32);
                least = least.min(v);
                greatest = greatest.max(v);
            }
            sums.sum += i64::from(sum);
            sums.sum_of_squares += squares;
            (sums.least, sums.greatest) = (least, greatest);
        }
    }
}

impl Summed for i16 {
    const WORDS: usize = 3;
    type OnCpu = IntegerSums;
    type OnGpu = IntegerSums;

    fn none(_: Self) -> IntegerSums {
        IntegerSums { voxels: 0, sum: 0, sum_of_squares: 0, least: i16::MAX, greatest: i16::MIN }
    }

    fn add(sums: &mut IntegerSums, values: &[Self]) {
        sums.voxels += values.len() as u64;
        add_integers(sums, values);
    }

    fn per_unit(_: &[Self]) -> f32 {
        1.0
    }

    fn from_words(voxels: u64, words: &[u32], ranks: [u32; 2], _: f32) -> IntegerSums {
        let [least, greatest] = ranks.map(|rank| (rank as i32 - 32768) as i16);
        let sum_of_squares = u64::from(words[1]) + (u64::from(words[2]) << 16);
        IntegerSums { voxels, sum: (words[0] as i32).into(), sum_of_squares, least, greatest }
    }
}

const LANES: usize = 8;

/// Sums of differences from `shift`, by lanes, which makes their order the same on every processor.
#[derive(Debug, Clone, Copy)]
pub(super) struct FloatSums {
    voxels: u64,
    shift: f64,
    sums: [f64; LANES],
    squares: [f64; LANES],
    least: [f32; LANES],
    greatest: [f32; LANES],
}

wide! {
    fn add_floats(all: &mut FloatSums, values: &[f32]) {
        let FloatSums { shift, sums, squares, least, greatest, .. } = all;
        let (chunks, rest) = values.as_chunks::<LANES>();
        for chunk in chunks {
            for lane in 0..LANES {
                let difference = f64::from(chunk[lane]) - *shift;
                sums[lane] += difference;
                squares[lane] += difference * difference;
                least[lane] = if chunk[lane] < least[lane] { chunk[lane] } else { least[lane] };
                greatest[lane] = if chunk[lane] > greatest[lane] { chunk[lane] } else { greatest[lane] };
            }
        }
        for (lane, &value) in rest.iter().enumerate() {
            let difference = f64::from(value) - *shift;
            sums[lane] += difference;
            squares[lane] += difference * difference;
            least[lane] = if value < least[lane] { value } else { least[lane] };
            greatest[lane] = if value > greatest[lane] { value } else { greatest[lane] };
        }
    }
}

impl Sums for FloatSums {
    fn add(&mut self, other: &Self) {
        let step = other.shift - self.shift;
        let sum: f64 = other.sums.iter().sum();
        self.sums[0] += sum + other.voxels as f64 * step;
        self.squares[0] += other.squares.iter().sum::<f64>() + 2.0 * step * sum + other.voxels as f64 * step * step;
        self.voxels += other.voxels;
        for lane in 0..LANES {
            self.least[lane] = self.least[lane].min(other.least[lane]);
            self.greatest[lane] = self.greatest[lane].max(other.greatest[lane]);
        }
    }

    fn numbers(&self, k: u32) -> SliceNumbers {
        let count = self.voxels as f64;
        let sum: f64 = self.sums.iter().sum();
        SliceNumbers {
            k,
            voxels: self.voxels,
            mean: self.shift + sum / count,
            deviations: (self.squares.iter().sum::<f64>() - sum * sum / count).max(0.0),
            least: self.least.into_iter().fold(f32::INFINITY, f32::min).into(),
            greatest: self.greatest.into_iter().fold(f32::NEG_INFINITY, f32::max).into(),
        }
    }
}

/// Exact sums of whole multiples of `unit`.
#[derive(Debug, Clone, Copy)]
pub(super) struct FixedSums {
    voxels: u64,
    unit: f64,
    sum: i64,
    sum_of_squares: u128,
    least: f32,
    greatest: f32,
}

impl Sums for FixedSums {
    fn add(&mut self, other: &Self) {
        self.voxels += other.voxels;
        self.sum += other.sum;
        self.sum_of_squares += other.sum_of_squares;
        self.least = self.least.min(other.least);
        self.greatest = self.greatest.max(other.greatest);
    }

    fn numbers(&self, k: u32) -> SliceNumbers {
        let (mean, deviations) = exact_moments(self.voxels, self.sum, self.sum_of_squares);
        SliceNumbers {
            k,
            voxels: self.voxels,
            mean: mean * self.unit,
            deviations: deviations * self.unit * self.unit,
            least: self.least.into(),
            greatest: self.greatest.into(),
        }
    }
}

impl Summed for f32 {
    const WORDS: usize = 6;
    type OnCpu = FloatSums;
    type OnGpu = FixedSums;

    fn none(first: Self) -> FloatSums {
        FloatSums {
            voxels: 0,
            shift: first.into(),
            sums: [0.0; LANES],
            squares: [0.0; LANES],
            least: [f32::INFINITY; LANES],
            greatest: [f32::NEG_INFINITY; LANES],
        }
    }

    fn add(sums: &mut FloatSums, values: &[Self]) {
        sums.voxels += values.len() as u64;
        add_floats(sums, values);
    }

    fn per_unit(values: &[Self]) -> f32 {
        let largest = values.iter().map(|v| v.to_bits() & (u32::MAX >> 1)).max().unwrap_or(0); // magnitudes ascend with their bits
        let above = (largest >> 23) as i32 - 126; // the largest is below 2^above
        f32::from_bits(((127 + (30 - above).clamp(-126, 126)) as u32) << 23)
    }

    fn from_words(voxels: u64, words: &[u32], ranks: [u32; 2], per_unit: f32) -> FixedSums {
        let [least, greatest] = ranks.map(float_of_rank);
        FixedSums {
            voxels,
            unit: 1.0 / f64::from(per_unit),
            sum: i64::from(words[0]) + (i64::from(words[1] as i32) << 16),
            sum_of_squares: (0..4).map(|n| u128::from(words[2 + n]) << (16 * n)).sum(),
            least,
            greatest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extreme_integers_do_not_overflow() {
        let mut sums = i16::none(0);
        i16::add(&mut sums, &vec![i16::MIN; 300_000]);
        assert_eq!((sums.sum, sums.sum_of_squares), (-32768 * 300_000, (1 << 30) * 300_000));
        let numbers = sums.numbers(4);
        assert_eq!((numbers.mean, numbers.deviations, numbers.least, numbers.k), (-32768.0, 0.0, -32768.0, 4));
    }

    #[test]
    fn floats_far_from_zero_keep_their_spread() {
        // 1e6 and 1e6 + 1 by turns: sums of squares alone would have 12 digits before the one that matters.
        let values: Vec<f32> = (0..100_001).map(|n| 1e6 + (n % 2) as f32).collect();
        let mut sums = f32::none(values[0]);
        values.chunks(37).for_each(|some| f32::add(&mut sums, some));
        let numbers = sums.numbers(0);
        let share = 50_000.0 / 100_001.0;
        assert!((numbers.mean - 1e6 - share).abs() < 1e-9, "{}", numbers.mean);
        assert!((numbers.deviations - 100_001.0 * share * (1.0 - share)).abs() < 1e-6, "{}", numbers.deviations);
        assert_eq!((numbers.least, numbers.greatest), (1e6, 1e6 + 1.0));
        // Halves added up are the whole.
        let [mut low, mut high] = [f32::none(values[1]), f32::none(values[40_000])];
        f32::add(&mut low, &values[..40_000]);
        f32::add(&mut high, &values[40_000..]);
        low.add(&high);
        let again = low.numbers(0);
        assert!((again.mean - numbers.mean).abs() < 1e-6 && (again.deviations - numbers.deviations).abs() < 1e-6, "{again:?}");
    }

    #[test]
    fn the_unit_makes_30_bits_of_the_largest() {
        for (largest, expected) in [(1.0f32, 29), (0.99, 30), (-1.5, 29), (1e30, -70), (0.0, 126), (1e-42, 126)] {
            assert_eq!(f32::per_unit(&[0.0, largest, largest / 3.0]), (expected as f32).exp2(), "{largest}");
        }
    }
}
