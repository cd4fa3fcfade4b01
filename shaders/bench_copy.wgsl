// What memory can do at most: 16 bytes a thread, neighbours side by side. 256 threads a group; groups go on along y where x is full.

@group(0) @binding(0) var<storage, read> source: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> target_values: array<vec4<u32>>;

fn place(id: vec3<u32>, groups: vec3<u32>) -> u32 {
    return id.y * groups.x * 256u + id.x;
}

@compute @workgroup_size(256)
fn copy(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let n = place(id, groups);
    if n < arrayLength(&source) { target_values[n] = source[n]; }
}

@compute @workgroup_size(256)
fn fill(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let n = place(id, groups);
    // The source is named so that all entry points have the same bindings.
    if n < arrayLength(&source) { target_values[n] = vec4<u32>(n); }
}

// Writes what never happens in zeros, so that the reads cannot be left out.
@compute @workgroup_size(256)
fn read_all(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let n = place(id, groups);
    if n < arrayLength(&source) && any(source[n] == vec4<u32>(0x7fc12345u)) { target_values[n] = vec4<u32>(1u); }
}
