// Maximum, minimum or mean of slope * stored + intercept along an axis; lines along k go on from slab to slab.  DICOM PS3.3 C.11.1
// Twin: src/kernels/projection.rs.  Needs: shared/stored_i16.wgsl or shared/stored_f32.wgsl
// Largest slab: 65535 rows or slices a dispatch; stored values, and the projection, must each fit a binding.
struct ProjectionParams {
    dims: vec3<u32>,        // of the whole volume
    first_slice: u32,       // of the bound ones
    slices: u32,            // bound
    axis: u32,
    pad0: u32,
    pad1: u32,
}

@group(0) @binding(0) var<uniform> params: ProjectionParams;
@group(0) @binding(1) var<storage, read> stored: array<u32>;             // from slice first_slice on
@group(0) @binding(2) var<storage, read> rescale: array<vec2<f32>>;      // slope and intercept of each slice
@group(0) @binding(3) var<storage, read_write> projected: array<f32>;

override mode: u32 = 0u;                                                 // 0 maximum, 1 minimum, 2 mean

fn fold(a: f32, b: f32) -> f32 {
    if mode == 0u { return max(a, b); }
    if mode == 1u { return min(a, b); }
    return a + b;
}

fn physical(i: u32, j: u32, k: u32) -> f32 {
    let n = (k * params.dims.y + j) * params.dims.x + i;
    let scale = rescale[params.first_slice + k];
    return scale.x * number_of(stored[word_of(n)], n) + scale.y;
}

@compute @workgroup_size(64)
fn projection(@builtin(global_invocation_id) id: vec3<u32>) {
    let dims = params.dims;
    let across = select(dims.x, dims.y, params.axis == 0u);
    if id.x >= across { return; }                                        // dispatch rounds up
    let row = select(params.first_slice + id.y, id.y, params.axis == 2u);
    var value = 0.0;
    if params.axis == 0u {
        value = physical(0u, id.x, id.y);
        for (var i = 1u; i < dims.x; i++) { value = fold(value, physical(i, id.x, id.y)); }
    } else if params.axis == 1u {
        value = physical(id.x, 0u, id.y);
        for (var j = 1u; j < dims.y; j++) { value = fold(value, physical(id.x, j, id.y)); }
    } else {
        value = physical(id.x, id.y, 0u);
        for (var k = 1u; k < params.slices; k++) { value = fold(value, physical(id.x, id.y, k)); }
        if params.first_slice > 0u { value = fold(projected[row * across + id.x], value); }
    }
    let ends = params.axis != 2u || params.first_slice + params.slices == dims.z;
    if mode == 2u && ends { value /= f32(dims[params.axis]); }
    projected[row * across + id.x] = value;
}
