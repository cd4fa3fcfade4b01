// Stored values that are 16-bit integers, two a word.  Twin: src/kernels/voxel.rs, src/kernels/label_sums.rs
const SUMS: u32 = 3u;       // words of a sum: of values, and the low and high 16 bits of their squares
alias Sums = array<u32, 3>;

// The word that holds voxel n.
fn word_of(n: u32) -> u32 { return n >> 1u; }

fn integer_of(word: u32, n: u32) -> i32 { return extractBits(bitcast<i32>(word), (n & 1u) * 16u, 16u); }

fn number_of(word: u32, n: u32) -> f32 { return f32(integer_of(word, n)); }

// Values in their order, as whole numbers from 0.
fn rank_of(word: u32, n: u32) -> u32 { return u32(integer_of(word, n) + 32768); }

// What voxel n adds to the sums: below 2^16 each, but for the value itself.
fn sums_of(word: u32, n: u32, per_unit: f32) -> Sums {
    let value = integer_of(word, n);
    let square = u32(value * value);                                     // at most 2^30
    return Sums(bitcast<u32>(value), square & 0xffffu, square >> 16u);
}
