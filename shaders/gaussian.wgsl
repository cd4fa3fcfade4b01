// Gaussian smoothing along one axis: out(n) = weight(0) in(n) + sum over t of weight(t) (in(n - t) + in(n + t)).
// Twin: src/kernels/gaussian.rs
// Largest grid: 4 bytes a voxel must fit a binding.
struct GaussianParams {
    dims: vec3<u32>,
    threads_a_row: u32,     // threads along x of the dispatch
    axis: u32,
    radius: u32,            // voxels on each side that have a weight
    constant: f32,
    pad0: u32,
}

@group(0) @binding(0) var<uniform> params: GaussianParams;
@group(0) @binding(1) var<storage, read> weights: array<f32>;            // at 0 to radius voxels
@group(0) @binding(2) var<storage, read> places: array<i32>;             // voxel at -radius, .. length + radius - 1; -1 is the constant
@group(0) @binding(3) var<storage, read> source: array<f32>;
@group(0) @binding(4) var<storage, read_write> smoothed: array<f32>;

@compute @workgroup_size(64)
fn gaussian(@builtin(global_invocation_id) id: vec3<u32>) {
    let n = id.y * params.threads_a_row + id.x;
    let dims = params.dims;
    if n >= dims.x * dims.y * dims.z { return; }                         // dispatch rounds up
    let stride = select(select(dims.x * dims.y, dims.x, params.axis == 1u), 1u, params.axis == 0u);
    let at = n / stride % dims[params.axis];
    let line = n - at * stride;
    let middle = at + params.radius;
    var sum = weights[0] * source[n];
    for (var t = 1u; t <= params.radius; t++) {
        let before = places[middle - t];
        let after = places[middle + t];
        var pair = params.constant;
        if before >= 0 { pair = source[line + u32(before) * stride]; }
        if after >= 0 { pair += source[line + u32(after) * stride]; } else { pair += params.constant; }
        sum += weights[t] * pair;
    }
    smoothed[n] = sum;
}
