// Sums over the voxels of up to 32 labels, one set for each piece of VOXELS_A_GROUP voxels of a slice: whole numbers, which no
// order of threads changes.  Twin: src/kernels/label_statistics.rs, src/kernels/label_sums.rs.
// Needs: shared/stored_i16.wgsl or shared/stored_f32.wgsl
// Largest grid: columns and rows up to 2^18, so that sums of i and j of a piece stay below 2^32; slices go through in slabs.
struct LabelStatisticsParams {
    plane: u32,                         // voxels of a slice
    columns: u32,
    labels: u32,                        // labels in use: slots
    per_unit: f32,                      // what floats are multiplied by to become whole numbers
    slot_of_label: array<vec4<u32>, 64>,  // label l is at [l / 4][l % 4]; NO_SLOT where it is not asked for
}

@group(0) @binding(0) var<uniform> params: LabelStatisticsParams;
@group(0) @binding(1) var<storage, read> labels: array<u32>;             // four voxels a word
@group(0) @binding(2) var<storage, read> stored: array<u32>;             
@group(0) @binding(3) var<storage, read_write> partials: array<u32>;     // slice, piece, slot, field

const THREADS: u32 = 256u;
const VOXELS_A_GROUP: u32 = 16384u;
const NO_SLOT: u32 = 255u;
const SLOTS: u32 = 32u;
const LEAST: u32 = SUMS + 3u;
const FIELDS: u32 = SUMS + 9u;  // voxels, the SUMS of values, sums of i and j; from LEAST on the least rank, i, j; the greatest of them

var<workgroup> sums: array<atomic<u32>, SLOTS * FIELDS>;                 // slot, field

// What one thread saw of one label since it last changed.
struct Seen {
    voxels: u32,
    sums: Sums,
    index_sums: vec2<u32>,
    least: vec3<u32>,                   // rank, i, j
    greatest: vec3<u32>,
}

fn nothing() -> Seen {
    return Seen(0u, Sums(), vec2<u32>(0u), vec3<u32>(0xffffffffu), vec3<u32>(0u));
}

fn add(slot: u32, what: Seen) {
    var seen = what;                                                     // sums are indexed
    if slot == NO_SLOT || seen.voxels == 0u { return; }
    let at = slot * FIELDS;
    atomicAdd(&sums[at], seen.voxels);
    for (var n = 0u; n < SUMS; n++) { atomicAdd(&sums[at + 1u + n], seen.sums[n]); }
    atomicAdd(&sums[at + SUMS + 1u], seen.index_sums.x);
    atomicAdd(&sums[at + SUMS + 2u], seen.index_sums.y);
    atomicMin(&sums[at + LEAST], seen.least.x);
    atomicMin(&sums[at + LEAST + 1u], seen.least.y);
    atomicMin(&sums[at + LEAST + 2u], seen.least.z);
    atomicMax(&sums[at + LEAST + 3u], seen.greatest.x);
    atomicMax(&sums[at + LEAST + 4u], seen.greatest.y);
    atomicMax(&sums[at + LEAST + 5u], seen.greatest.z);
}

@compute @workgroup_size(THREADS)
fn label_statistics(
    @builtin(workgroup_id) group: vec3<u32>,                             // piece, slice
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    for (var n = thread; n < SLOTS * FIELDS; n += THREADS) {
        let field = n % FIELDS;
        atomicStore(&sums[n], select(0u, 0xffffffffu, field >= LEAST && field < LEAST + 3u));
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
        let word = stored[word_of(n)];
        let index = vec2<u32>(in_slice % params.columns, in_slice / params.columns);
        let found = vec3<u32>(rank_of(word, n), index);
        seen.voxels += 1u;
        var its_sums = sums_of(word, n, params.per_unit);
        for (var s = 0u; s < SUMS; s++) { seen.sums[s] += its_sums[s]; }
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
