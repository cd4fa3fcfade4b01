// Stored values that are floats, one a word, none of them NaN or infinite.  Twin: src/kernels/voxel.rs, src/kernels/label_sums.rs
const SUMS: u32 = 6u;       // words of a sum: low 16 bits and the rest of values, four times 16 bits of their squares
alias Sums = array<u32, 6>;

// The word that holds voxel n.
fn word_of(n: u32) -> u32 { return n; }

fn number_of(word: u32, n: u32) -> f32 { return bitcast<f32>(word); }

// Values in their order, as whole numbers: the bits of floats ascend, those of negative ones turned round.
fn rank_of(word: u32, n: u32) -> u32 { return word ^ select(0x80000000u, 0xffffffffu, (word >> 31u) == 1u); }

// What voxel n adds to the sums, in units that make the largest value up to 2^30: below 2^16 each, but for the high half of the value.
fn sums_of(word: u32, n: u32, per_unit: f32) -> Sums {
    let value = i32(round(number_of(word, n) * per_unit));               // exact but for values below a 64th of the largest
    let size = u32(abs(value));
    // The square, at most 2^60, from halves of 15 bits: (high * 2^15 + low)^2.
    let high = size >> 15u;
    let low = size & 0x7fffu;
    let middle = 2u * high * low;                                        // at most 2^31
    let sum = low * low + (middle << 15u);
    let carry = select(0u, 1u, sum < low * low);
    let bottom = sum + ((high * high) << 30u);
    let top = ((high * high) >> 2u) + (middle >> 17u) + carry + select(0u, 1u, bottom < sum);
    return Sums(
        bitcast<u32>(value) & 0xffffu, bitcast<u32>(value >> 16u),
        bottom & 0xffffu, bottom >> 16u, top & 0xffffu, top >> 16u,
    );
}
