// Stored values -> network input where target voxels are wider than source voxels: weighted sums along each axis, then clip.
// The host folds subtract and divide into scale and clip, as for resample.wgsl.  DICOM PS3.3 C.11.1
// Twin: src/kernels/area.rs.  Needs: shared/stored_i16.wgsl or shared/stored_f32.wgsl
// Largest grid: 65535 target rows and slices a dispatch; one target slice, and the source slices in its reach, must each fit a binding.
struct AreaParams {
    source_dims: vec3<u32>,
    first_loaded: u32,      // first source slice of the bound ones
    target_dims: vec3<u32>,
    first_slice: u32,       // target slice that the output starts with
    along: vec3<u32>,       // target axis along which each source axis runs
    low: f32,
    first_span: vec3<u32>,  // of each source axis
    high: f32,
    outside: f32,           // where no source voxel is nearest, if padded
    pad0: u32,
    pad1: u32,
    pad2: u32,
}
struct SliceScale { slope: f32, offset: f32, pivot: f32, pad: u32 }

@group(0) @binding(0) var<uniform> params: AreaParams;
@group(0) @binding(1) var<storage, read> stored: array<u32>;        // from source slice first_loaded on
@group(0) @binding(2) var<storage, read> scales: array<SliceScale>; // one a source slice
@group(0) @binding(3) var<storage, read> spans: array<vec2<u32>>;   // first source index, first weight; the next one's weight is the end
@group(0) @binding(4) var<storage, read> weights: array<f32>;
@group(0) @binding(5) var<storage, read_write> resampled: array<f32>;

override padded: bool = false;

@compute @workgroup_size(64)
fn area(@builtin(global_invocation_id) voxel: vec3<u32>) {
    if voxel.x >= params.target_dims.x { return; }                   // dispatch rounds up
    var target_index = array<u32, 3>(voxel.x, voxel.y, params.first_slice + voxel.z);
    let at = params.first_span + vec3<u32>(target_index[params.along.x], target_index[params.along.y], target_index[params.along.z]);
    let x = spans[at.x];
    let y = spans[at.y];
    let z = spans[at.z];
    let ends = vec3<u32>(spans[at.x + 1u].y, spans[at.y + 1u].y, spans[at.z + 1u].y);
    var sum = 0.0;
    for (var wk = z.y; wk < ends.z; wk++) {
        let k = z.x + wk - z.y;
        let scale = scales[k];
        var in_slice = 0.0;
        for (var wj = y.y; wj < ends.y; wj++) {
            let row = ((k - params.first_loaded) * params.source_dims.y + y.x + wj - y.y) * params.source_dims.x;
            var in_row = 0.0;
            for (var wi = x.y; wi < ends.x; wi++) {
                let n = row + x.x + wi - x.y;
                in_row += weights[wi] * (number_of(stored[word_of(n)], n) - scale.pivot);
            }
            in_slice += weights[wj] * in_row;
        }
        sum += weights[wk] * (scale.slope * in_slice + scale.offset);
    }
    var value = min(max(sum, params.low), params.high);
    if padded && any(vec3<u32>(x.y, y.y, z.y) == ends) { value = params.outside; }
    resampled[(voxel.z * params.target_dims.y + voxel.y) * params.target_dims.x + voxel.x] = value;
}
