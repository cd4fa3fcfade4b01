// Joins each voxel with its neighbours of the same label in the same and in earlier rows.
// A pair is skipped where its neighbours along i join the same two runs. Twin: src/kernels/components.rs.  Needs: shared/components.wgsl
@group(0) @binding(0) var<uniform> params: ComponentsParams;
@group(0) @binding(1) var<storage, read> labels: array<u32>;             // four voxels a word
@group(0) @binding(2) var<storage, read_write> parents: array<atomic<u32>>;

fn label_at(n: u32) -> u32 {
    return extractBits(labels[n >> 2u], (n & 3u) * 8u, 8u);
}

// The root above `start`, and a short way there for the next thread: a voxel with a parent never becomes a root again.
fn root(start: u32) -> u32 {
    let first = atomicLoad(&parents[start]);
    var n = first;
    var parent = atomicLoad(&parents[n]);
    if parent == n { return n; }
    while parent != n {
        n = parent;
        parent = atomicLoad(&parents[n]);
    }
    atomicMin(&parents[start], n);
    return n;
}

// Another thread may move a root meanwhile: atomicMin says so, and then its new parent has to be joined too.
fn join(first: u32, second: u32) {
    var a = root(first);
    var b = root(second);
    while a != b {
        let high = max(a, b);
        let low = min(a, b);
        let was = atomicMin(&parents[high], low);
        if was == high { return; }
        a = root(was);
        b = root(low);
    }
}

// What voxel n, in column i, has to be joined with in the row whose voxel of that column is `other`; BACKGROUND if nothing.
// Two may be needed: across both edges, on the left (or straight) and on the right.
fn partner(i: u32, label: u32, left_same: bool, right_same: bool, other: u32, diagonal: bool, on_right: bool) -> u32 {
    let straight = label_at(other) == label;
    if on_right {
        if straight || !diagonal || right_same || i + 1u >= params.dims.x { return BACKGROUND; }
        return select(BACKGROUND, other + 1u, label_at(other + 1u) == label);
    }
    var other_left = false;
    if i > 0u { other_left = label_at(other - 1u) == label; }
    if left_same && other_left { return BACKGROUND; }
    if straight { return other; }
    return select(BACKGROUND, other - 1u, diagonal && other_left);
}

@compute @workgroup_size(64)
fn components_merge(@builtin(global_invocation_id) id: vec3<u32>) {
    let n = id.y * params.threads_a_row + id.x;
    let dims = params.dims;
    if id.x >= params.threads_a_row || n >= dims.x * dims.y * dims.z { return; }             // dispatch rounds up
    let label = label_at(n);
    if label == 0u { return; }
    let i = n % dims.x;
    let j = n / dims.x % dims.y;
    let k = n / dims.x / dims.y;
    var left_same = false;
    var right_same = false;
    if i > 0u { left_same = label_at(n - 1u) == label; }
    if i + 1u < dims.x { right_same = label_at(n + 1u) == label; }
    let plane = dims.x * dims.y;
    let edges = params.most_axes >= 2u;
    let corners = params.most_axes >= 3u;
    for (var step = 0u; step < 9u; step++) {                             // one place to join: drivers inline it
        var other = BACKGROUND;
        let row = step / 2u;
        var row_voxel = BACKGROUND;
        switch row {
            case 0u: { if j > 0u { row_voxel = n - dims.x; } }
            case 1u: { if k > 0u { row_voxel = n - plane; } }
            case 2u: { if k > 0u && j > 0u && edges { row_voxel = n - plane - dims.x; } }
            case 3u: { if k > 0u && j + 1u < dims.y && edges { row_voxel = n - plane + dims.x; } }
            default: { if left_same && i % PIECE == 0u { other = n - 1u; } }
        }
        if row_voxel != BACKGROUND {
            other = partner(i, label, left_same, right_same, row_voxel, select(corners, edges, row < 2u), step % 2u == 1u);
        }
        if other != BACKGROUND { join(n, other); }
    }
}
