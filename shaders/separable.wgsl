// Stored values -> network input axis by axis: weighted sums along one axis a dispatch. The first converts stored values (and clips them, and
// makes 0 of those that are not kept), the last limits what comes out and writes the target's order of axes.  DICOM PS3.3 C.11.1
// Twin: src/kernels/separable.rs.  Needs: shared/stored_i16.wgsl or shared/stored_f32.wgsl
// Largest grid: 65535 rows and slices a dispatch; target slices with all that is made on the way to them must each fit a binding.
struct SeparableParams {
    input_dims: vec3<u32>,      // in the source's order of axes, as all others
    axis: u32,
    output_dims: vec3<u32>,
    first_loaded: u32,          // source slice that the input starts with
    first_index: vec3<u32>,     // target index that the output starts with
    limits_across: u32,         // the axis across which limits change; 3: none
    strides: vec3<u32>,         // of the output
    low: f32,                   // before interpolation
    first_span: vec3<u32>,      // of each axis
    high: f32,
    outside: f32,               // where no source voxel is nearest, if padded
    pad0: u32,
    pad1: u32,
    pad2: u32,
}
struct SourceScale { slope: f32, offset: f32, pivot: f32, least_kept: f32, greatest_kept: f32 }

@group(0) @binding(0) var<uniform> params: SeparableParams;
@group(0) @binding(1) var<storage, read> values: array<u32>;            // stored values, or what the dispatch before made
@group(0) @binding(2) var<storage, read> scales: array<SourceScale>;    // one a source slice
@group(0) @binding(3) var<storage, read> spans: array<vec2<u32>>;       // first source index, first weight; the next one's weight is the end
@group(0) @binding(4) var<storage, read> weights: array<f32>;
@group(0) @binding(5) var<storage, read> limits: array<vec2<f32>>;      // of all, or of each source plane
@group(0) @binding(6) var<storage, read_write> sums: array<f32>;
@group(0) @binding(7) var<storage, read> labels: array<u32>;            // of stored values, four a word; those of label 0 become 0

override first: bool = false;
override last: bool = false;
override padded: bool = false;
override labelled: bool = false;

fn value_at(n: u32, k: u32) -> f32 {
    let number = number_of(values[word_of(n)], n);
    if !first { return number; }
    let scale = scales[params.first_loaded + k];
    var kept = number >= scale.least_kept && number <= scale.greatest_kept;
    if labelled { kept = kept && extractBits(labels[n >> 2u], (n & 3u) * 8u, 8u) != 0u; }
    let value = min(max(scale.slope * (number - scale.pivot) + scale.offset, params.low), params.high);
    return select(0.0, value, kept);
}

@compute @workgroup_size(64)
fn separable(@builtin(global_invocation_id) at: vec3<u32>) {
    if at.x >= params.output_dims.x { return; }                         // dispatch rounds up
    let span_of = params.first_span + params.first_index + at;          // along an axis that is not the target's yet, unused
    let from_span = spans[span_of[params.axis]];
    let end = spans[span_of[params.axis] + 1u].y;
    var input = at;
    // Along k the input starts with slice first_loaded.
    input[params.axis] = from_span.x - select(0u, params.first_loaded, params.axis == 2u);
    let step = vec3<u32>(1u, params.input_dims.x, params.input_dims.x * params.input_dims.y)[params.axis];
    var n = (input.z * params.input_dims.y + input.y) * params.input_dims.x + input.x;
    var sum = 0.0;
    for (var w = from_span.y; w < end; w++) {
        sum += weights[w] * value_at(n, at.z);
        n += step;
    }
    if last {
        var plane = 0u;
        if params.limits_across < 3u { plane = spans[span_of[params.limits_across]].x; }
        sum = min(max(sum, limits[plane].x), limits[plane].y);
        if padded {
            let ends = vec3<u32>(spans[span_of.x + 1u].y, spans[span_of.y + 1u].y, spans[span_of.z + 1u].y);
            if any(vec3<u32>(spans[span_of.x].y, spans[span_of.y].y, spans[span_of.z].y) == ends) { sum = params.outside; }
        }
    }
    sums[dot(at, params.strides)] = sum;
}
