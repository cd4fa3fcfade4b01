// Sums over the voxels of up to 32 labels, one set for each piece of VOXELS_A_GROUP voxels of a slice: whole numbers, never rounded.
// Twin: src/kernels/label_statistics.rs.
// Largest grid: columns and rows up to 2^18, so that sums of i and j of a piece stay below 2^32; slices go through in slabs.
struct LabelStatisticsParams {
    plane: u32,                         // voxels of a slice
    columns: u32,
    labels: u32,                        // labels in use: slots
    pad: u32,
    slot_of_label: array<vec4<u32>, 64>,  // label l is at [l / 4][l % 4]; NO_SLOT where it is not asked for
}

@group(0) @binding(0) var<uniform> params: LabelStatisticsParams;
@group(0) @binding(1) var<storage, read> labels: array<u32>;             // four voxels a word
@group(0) @binding(2) var<storage, read> stored: array<u32>;             // two voxels a word, i16
@group(0) @binding(3) var<storage, read_write> partials: array<u32>;     // slice, piece, slot, field

const THREADS: u32 = 256u;
const VOXELS_A_GROUP: u32 = 16384u;
const NO_SLOT: u32 = 255u;
const SLOTS: u32 = 32u;
const FIELDS: u32 = 12u;    // voxels, sum, squares' low and high 16 bits, sums of i and j; least stored + 32768, i, j; greatest of them

var<workgroup> sums: array<atomic<u32>, 384>;                            // slot, field

// What one thread saw of one label since it last changed.
struct Seen {
    voxels: u32,
    sum: i32,
    squares_low: u32,
    squares_high: u32,
    index_sums: vec2<u32>,
    least: vec3<u32>,                   // stored + 32768, i, j
    greatest: vec3<u32>,
}

fn nothing() -> Seen {
    return Seen(0u, 0, 0u, 0u, vec2<u32>(0u), vec3<u32>(0xffffffffu), vec3<u32>(0u));
}

fn add(slot: u32, seen: Seen) {
    if slot == NO_SLOT || seen.voxels == 0u { return; }
    let at = slot * FIELDS;
    atomicAdd(&sums[at], seen.voxels);
    atomicAdd(&sums[at + 1u], bitcast<u32>(seen.sum));
    atomicAdd(&sums[at + 2u], seen.squares_low);
    atomicAdd(&sums[at + 3u], seen.squares_high);
    atomicAdd(&sums[at + 4u], seen.index_sums.x);
    atomicAdd(&sums[at + 5u], seen.index_sums.y);
    atomicMin(&sums[at + 6u], seen.least.x);
    atomicMin(&sums[at + 7u], seen.least.y);
    atomicMin(&sums[at + 8u], seen.least.z);
    atomicMax(&sums[at + 9u], seen.greatest.x);
    atomicMax(&sums[at + 10u], seen.greatest.y);
    atomicMax(&sums[at + 11u], seen.greatest.z);
}

@compute @workgroup_size(THREADS)
fn label_statistics(
    @builtin(workgroup_id) group: vec3<u32>,                             // piece, slice
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    for (var n = thread; n < SLOTS * FIELDS; n += THREADS) {
        let field = n % FIELDS;
        atomicStore(&sums[n], select(0u, 0xffffffffu, field >= 6u && field < 9u));
    }
    workgroupBarrier();

    var slot = NO_SLOT;
    var seen = nothing();
    let start = group.x * VOXELS_A_GROUP;
    let end = min(start + VOXELS_A_GROUP, params.plane);
    for (var in_slice = start + thread; in_slice < end; in_slice += THREADS) {
        let n = group.y * params.plane + in_slice;
        let label = extractBits(labels[n >> 2u], (n & 3u) * 8u, 8u);
        let its_slot = params.slot_of_label[label >> 2u][label & 3u];
        if its_slot != slot {
            add(slot, seen);
            slot = its_slot;
            seen = nothing();
        }
        if slot == NO_SLOT { continue; }
        let value = extractBits(bitcast<i32>(stored[n >> 1u]), (n & 1u) * 16u, 16u);
        let square = u32(value * value);                                 // at most 2^30
        let index = vec2<u32>(in_slice % params.columns, in_slice / params.columns);
        let found = vec3<u32>(u32(value + 32768), index);
        seen.voxels += 1u;
        seen.sum += value;
        seen.squares_low += square & 0xffffu;
        seen.squares_high += square >> 16u;
        seen.index_sums += index;
        seen.least = min(seen.least, found);
        seen.greatest = max(seen.greatest, found);
    }
    add(slot, seen);
    workgroupBarrier();

    let used = params.labels * FIELDS;
    let at = (group.y * groups.x + group.x) * used;
    for (var n = thread; n < used; n += THREADS) {
        partials[at + n] = atomicLoad(&sums[n]);
    }
}
