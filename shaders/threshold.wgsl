// Class scores to labels: of the channels whose score is at least the threshold the highest, the lower one of equals; else 0.
// Twin: src/kernels/probabilities.rs
// Largest grid: scores of all channels must fit a binding.
@group(0) @binding(1) var<storage, read> scores: array<f32>;             // channel, then voxel
@group(0) @binding(2) var<storage, read> label_of_channel: array<u32>;
@group(0) @binding(3) var<storage, read_write> labels: array<u32>;       // four voxels a word

@compute @workgroup_size(64)
fn threshold(@builtin(global_invocation_id) id: vec3<u32>) {
    let word = id.y * params.threads_a_row + id.x;
    if word * 4u >= params.voxels { return; }                            // dispatch rounds up
    var packed = 0u;
    for (var byte = 0u; byte < 4u; byte++) {
        let n = word * 4u + byte;
        if n >= params.voxels { break; }
        var best = 0.0;
        var label = 0u;
        var found = false;
        for (var c = 0u; c < params.channels; c++) {
            let score = scores[c * params.voxels + n];
            if score >= params.threshold && (!found || score > best) {
                best = score;
                label = label_of_channel[c];
                found = true;
            }
        }
        packed = insertBits(packed, label, byte * 8u, 8u);
    }
    labels[word] = packed;
}
