// Coefficients of cubic B-splines -> network input where no axes are parallel: 64 coefficients a voxel.  DICOM PS3.3 C.11.1
// The coefficients are those of clipped, normalised values (shaders/separable.wgsl makes them); out = limited(sum of weights * coefficients).
// Twin: src/kernels/spline.rs.  Needs: shared/lattice.wgsl
// Largest grid: 65535 target rows and slices a dispatch; one target slice, and all coefficients that it needs, must each fit a binding.
struct SplineParams {
    dims: vec3<u32>,            // of the coefficients: the source and a margin around it
    first_loaded: u32,          // slice that the bound coefficients start with
    target_dims: vec3<u32>,
    first_slice: u32,           // target slice that the output starts with
    margin: u32,
    low: f32,
    high: f32,
    outside: f32,               // where no source voxel is nearest, if padded
}

@group(0) @binding(0) var<uniform> params: SplineParams;
@group(0) @binding(1) var<storage, read> coefficients: array<f32>;
@group(0) @binding(2) var<storage, read> steps: array<Step>;        // in the grid of the coefficients: i, then j, then k
@group(0) @binding(3) var<storage, read_write> resampled: array<f32>;

override padded: bool = false;

// The cubic B-spline at its four places around a position, t beyond the second one.
fn b_spline(t: f32) -> vec4<f32> {
    let u = 1.0 - t;
    return vec4<f32>(u * u * u, (3.0 * t - 6.0) * t * t + 4.0, (3.0 * u - 6.0) * u * u + 4.0, t * t * t) / 6.0;
}

@compute @workgroup_size(64)
fn spline(@builtin(global_invocation_id) voxel: vec3<u32>) {
    if voxel.x >= params.target_dims.x { return; }                   // dispatch rounds up
    let x = steps[voxel.x];
    let y = steps[params.target_dims.x + voxel.y];
    let z = steps[params.target_dims.x + params.target_dims.y + params.first_slice + voxel.z];
    let cell = cell_at(x, y, z, params.dims);
    // The margin is flat towards its ends: there, four neighbours are as good as four others.
    let start = min(max(cell.lower, vec3<u32>(1u)) - 1u, params.dims - 4u);
    let wi = b_spline(cell.weight.x);
    let wj = b_spline(cell.weight.y);
    let wk = b_spline(cell.weight.z);
    var sum = 0.0;
    for (var k = 0u; k < 4u; k++) {
        var plane = 0.0;
        for (var j = 0u; j < 4u; j++) {
            let n = ((start.z + k - params.first_loaded) * params.dims.y + start.y + j) * params.dims.x + start.x;
            let row = vec4<f32>(coefficients[n], coefficients[n + 1u], coefficients[n + 2u], coefficients[n + 3u]) * wi;
            plane += wj[j] * ((row.x + row.z) + (row.y + row.w));
        }
        sum += wk[k] * plane;
    }
    var value = min(max(sum, params.low), params.high);
    if padded {
        let fraction = x.fraction + (y.fraction + z.fraction);
        let at = x.cell + y.cell + z.cell + vec3<i32>(floor(fraction + 0.5)) - i32(params.margin);
        let source_dims = vec3<i32>(params.dims) - 2 * i32(params.margin);
        if any((at < vec3<i32>(0)) | (at >= source_dims)) { value = params.outside; }
    }
    resampled[(voxel.z * params.target_dims.y + voxel.y) * params.target_dims.x + voxel.x] = value;
}
