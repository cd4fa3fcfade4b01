// Stored values -> network input: (clip(interpolated(slope * stored + intercept)) - subtract) / divide.  DICOM PS3.3 C.11.1
// The host folds subtract and divide into scale and clip: out = clip(interpolated(slope * (stored - pivot) + offset)).
// Twin: src/kernels/resample.rs.  Needs: shared/lattice.wgsl, shared/stored_i16.wgsl or shared/stored_f32.wgsl
// Largest grid: 65535 target rows and slices a dispatch; one target slice and two source slices must each fit a binding.
struct ResampleParams {
    source_dims: vec3<u32>,
    first_owned: u32,       // this pass writes target voxels whose lower corner lies in source slices [first_owned, end_owned)
    target_dims: vec3<u32>,
    end_owned: u32,
    first_slice: u32,       // target slice that the output starts with
    low: f32,
    high: f32,
    outside: f32,           // where no source voxel is nearest, if padded
}
struct SliceScale { slope: f32, offset: f32, pivot: f32, pad: u32 }

@group(0) @binding(0) var<uniform> params: ResampleParams;
@group(0) @binding(1) var<storage, read> stored: array<u32>;        // from source slice first_owned on
@group(0) @binding(2) var<storage, read> scales: array<SliceScale>; // one a source slice
@group(0) @binding(3) var<storage, read> steps: array<Step>;        // i, then j, then k
@group(0) @binding(4) var<storage, read_write> resampled: array<f32>;

override nearest: bool = false;
override padded: bool = false;

fn scaled(i: u32, j: u32, k: u32) -> f32 {
    let n = ((k - params.first_owned) * params.source_dims.y + j) * params.source_dims.x + i;
    let scale = scales[k];
    return scale.slope * (number_of(stored[word_of(n)], n) - scale.pivot) + scale.offset;
}

@compute @workgroup_size(64)
fn resample(@builtin(global_invocation_id) voxel: vec3<u32>) {
    if voxel.x >= params.target_dims.x { return; }                   // dispatch rounds up
    let row = params.target_dims.x + voxel.y;
    let slice = params.target_dims.x + params.target_dims.y + params.first_slice + voxel.z;
    let cell = cell_at(steps[voxel.x], steps[row], steps[slice], params.source_dims);
    let a = cell.lower;
    if a.z < params.first_owned || a.z >= params.end_owned { return; }
    var value = 0.0;
    if nearest {
        value = scaled(a.x, a.y, a.z);
    } else {
        let b = cell.upper;
        let w = cell.weight;
        let front = lerp(lerp(scaled(a.x, a.y, a.z), scaled(b.x, a.y, a.z), w.x), lerp(scaled(a.x, b.y, a.z), scaled(b.x, b.y, a.z), w.x), w.y);
        let back = lerp(lerp(scaled(a.x, a.y, b.z), scaled(b.x, a.y, b.z), w.x), lerp(scaled(a.x, b.y, b.z), scaled(b.x, b.y, b.z), w.x), w.y);
        value = lerp(front, back, w.z);
    }
    let n = (voxel.z * params.target_dims.y + voxel.y) * params.target_dims.x + voxel.x;
    resampled[n] = min(max(value, params.low), params.high);
    if padded {
        let half = select(0.5, 0.0, nearest);                        // the steps have it where the nearest voxel is asked for
        if nearest_is_outside(steps[voxel.x], steps[row], steps[slice], half, params.source_dims) { resampled[n] = params.outside; }
    }
}
