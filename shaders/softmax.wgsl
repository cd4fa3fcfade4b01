// Class scores to probabilities in place: exp(score(c) - highest) / sum over classes.  Twin: src/kernels/probabilities.rs
// Largest grid: scores of all channels must fit a binding.
@group(0) @binding(1) var<storage, read_write> scores: array<f32>;       // channel, then voxel

@compute @workgroup_size(64)
fn softmax(@builtin(global_invocation_id) id: vec3<u32>) {
    let n = id.y * params.threads_a_row + id.x;
    if n >= params.voxels { return; }                                    // dispatch rounds up
    var highest = scores[n];
    for (var c = 1u; c < params.channels; c++) { highest = max(highest, scores[c * params.voxels + n]); }
    var sum = 0.0;
    for (var c = 0u; c < params.channels; c++) {
        let part = exp(scores[c * params.voxels + n] - highest);
        scores[c * params.voxels + n] = part;
        sum += part;
    }
    for (var c = 0u; c < params.channels; c++) { scores[c * params.voxels + n] /= sum; }
}
