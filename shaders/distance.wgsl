// Squared Euclidean distances to a target, one axis a pass: square(n) = min over m of (square before(m) + (spacing * (n - m))^2), mm2.
// The last pass takes roots.  Twin: src/kernels/distance.rs
// Largest grid: 4 bytes a voxel must fit a binding.
struct DistanceParams {
    dims: vec3<u32>,
    threads_a_row: u32,     // threads along x of the dispatch
    axis: u32,
    spacing_mm: f32,        // along the axis
    to_labelled: u32,
    pad0: u32,
}

@group(0) @binding(0) var<uniform> params: DistanceParams;
@group(0) @binding(1) var<storage, read> source: array<u32>;             // first pass: labels, four a word; then squares, as bits
@group(0) @binding(2) var<storage, read_write> squares: array<f32>;

override first: bool = false;
override last: bool = false;

const FAR: f32 = 3.40282347e+38;                                         // no target; adding the square of a step does not change it

fn square_before(n: u32) -> f32 {
    if first {
        let label = extractBits(source[n >> 2u], (n & 3u) * 8u, 8u);
        return select(FAR, 0.0, (label != 0u) == (params.to_labelled != 0u));
    }
    return bitcast<f32>(source[n]);
}

@compute @workgroup_size(64)
fn distance(@builtin(global_invocation_id) id: vec3<u32>) {
    let n = id.y * params.threads_a_row + id.x;
    let dims = params.dims;
    if n >= dims.x * dims.y * dims.z { return; }                         // dispatch rounds up
    let length = dims[params.axis];
    let stride = select(select(dims.x * dims.y, dims.x, params.axis == 1u), 1u, params.axis == 0u);
    let at = n / stride % length;
    var best = square_before(n);
    for (var steps = 1u; steps < length; steps++) {
        let along = f32(steps) * params.spacing_mm;
        let square = along * along;
        if square >= best { break; }                                     // nothing nearer can come
        if steps <= at { best = min(best, square_before(n - steps * stride) + square); }
        if at + steps < length { best = min(best, square_before(n + steps * stride) + square); }
    }
    if last && best < FAR { best = sqrt(best); }
    squares[n] = best;
}
