// Voxels a bin: of ranks of stored or of physical values, shifted down; or of the lower halves of ranks with given upper halves.
// Ranks put values in order (stored_*.wgsl).  Twin: src/kernels/percentiles.rs.  Needs: shared/stored_i16.wgsl or shared/stored_f32.wgsl
// Largest slab: 65535 slices and 2^32 voxels a dispatch; stored values, labels and 65536 bins a histogram must each fit a binding.
struct HistogramParams {
    plane: u32,             // voxels of a slice
    first_slice: u32,       // of the bound ones
    shift: u32,
    prefix_count: u32,      // 0: one histogram of ranks shifted down
    prefixes: array<vec4<u32>, 4>,
}
struct SliceRanks { low: u32, high: u32, slope: f32, intercept: f32 }    // ranks of stored values from low to high count

@group(0) @binding(0) var<uniform> params: HistogramParams;
@group(0) @binding(1) var<storage, read> stored: array<u32>;             // from slice first_slice on
@group(0) @binding(2) var<storage, read> labels: array<u32>;             // four voxels a word; those of label 0 do not count
@group(0) @binding(3) var<storage, read> slices: array<SliceRanks>;      // of the whole volume
@group(0) @binding(4) var<storage, read_write> bins: array<atomic<u32>>; // 65536 a histogram

override labelled: bool = false;
override scaled: bool = false;                                           // ranks are those of physical values

const THREADS: u32 = 256u;
const VOXELS_A_GROUP: u32 = 16384u;
const BINS: u32 = 65536u;
const NO_BIN: u32 = 0xffffffffu;

fn rank_of_float(value: f32) -> u32 {
    let word = bitcast<u32>(value);
    return word ^ select(0x80000000u, 0xffffffffu, (word >> 31u) == 1u);
}

fn bin_of(n: u32, slice: SliceRanks) -> u32 {
    if labelled && extractBits(labels[n >> 2u], (n & 3u) * 8u, 8u) == 0u { return NO_BIN; }
    let word = stored[word_of(n)];
    var rank = rank_of(word, n);
    if rank - slice.low > slice.high - slice.low { return NO_BIN; }      // modulo 2^32: a range may go round
    if scaled { rank = rank_of_float(slice.slope * number_of(word, n) + slice.intercept); }
    if params.prefix_count == 0u { return rank >> params.shift; }
    for (var p = 0u; p < params.prefix_count; p++) {
        if params.prefixes[p >> 2u][p & 3u] == rank >> 16u { return p * BINS + (rank & 0xffffu); }
    }
    return NO_BIN;
}

@compute @workgroup_size(THREADS)
fn histogram(
    @builtin(workgroup_id) group: vec3<u32>,                             // piece, slice
    @builtin(local_invocation_index) thread: u32,
) {
    let slice = slices[params.first_slice + group.y];
    let start = group.x * VOXELS_A_GROUP;
    let end = min(start + VOXELS_A_GROUP, params.plane);
    // One addition for each stretch of voxels of one bin that a thread meets: air would else be one queue.
    var bin = NO_BIN;
    var voxels = 0u;
    for (var in_slice = start + thread; in_slice < end; in_slice += THREADS) {
        let its_bin = bin_of(group.y * params.plane + in_slice, slice);
        if its_bin != bin {
            if bin != NO_BIN { atomicAdd(&bins[bin], voxels); }
            bin = its_bin;
            voxels = 0u;
        }
        voxels += 1u;
    }
    if bin != NO_BIN { atomicAdd(&bins[bin], voxels); }
}
