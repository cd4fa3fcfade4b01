//! Shaders are valid and laid out as Rust says; what the tests of both kernels share.

use std::mem::offset_of;

use proptest::prelude::*;

use super::*;
use crate::geometry::{Affine, Grid};
use crate::volume::{ImageVolume, LabelMap, Quantity, Rescale, Stored, Volume};

/// The linear interpolation of `value` at `position`, from the formula: coordinates clamped, 8 corners weighted by products.
pub(super) fn interpolated(dims: [u32; 3], position: [f64; 3], value: impl Fn([usize; 3]) -> f64) -> f64 {
    let at: [f64; 3] = std::array::from_fn(|s| position[s].clamp(0.0, f64::from(dims[s] - 1)));
    let corners = (0..8).map(|corner| {
        let upper: [bool; 3] = std::array::from_fn(|s| corner >> s & 1 == 1);
        let voxel = std::array::from_fn(|s| ((at[s].floor() as usize) + usize::from(upper[s])).min(dims[s] as usize - 1));
        let weight = (0..3).map(|s| if upper[s] { at[s].fract() } else { 1.0 - at[s].fract() });
        weight.product::<f64>() * value(voxel)
    });
    corners.sum()
}

/// Voxels of a grid, `i` fastest.
pub(super) fn voxels(dims: [u32; 3]) -> impl Iterator<Item = [u32; 3]> {
    let [nx, ny, nz] = dims;
    (0..nz).flat_map(move |k| (0..ny).flat_map(move |j| (0..nx).map(move |i| [i, j, k])))
}

/// The n-th of a fixed sequence of numbers, 0 to 1.
pub(super) fn noise(n: usize) -> f64 {
    let mixed = (n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 11) as f64 / (1u64 << 53) as f64
}

/// Noise over the range of 12 bits, each slice with a rescale of its own.
pub(super) fn noisy_image(dims: [u32; 3], seed: usize) -> ImageVolume {
    let grid = Grid::new(dims, Affine::IDENTITY).expect("a grid");
    let stored = (0..grid.voxel_count()).map(|n| (noise(n + seed) * 4096.0) as i16 - 24).collect();
    let rescale = |k| Rescale { slope: 0.5 + noise(k as usize + seed), intercept: -1024.0 + 9.0 * noise(k as usize + seed + 77) };
    ImageVolume { stored: Volume::new(grid, stored).into(), rescale: (0..dims[2]).map(rescale).collect(), quantity: Quantity::Hounsfield }
}

/// The stored values of `image` as floats with a fraction: a 1024th of them, and a little more.
pub(super) fn as_floats(image: &ImageVolume) -> ImageVolume {
    let integers = image.stored.as_int16().expect("integers").voxels();
    let floats = integers.iter().enumerate().map(|(n, &v)| (f32::from(v) + noise(n) as f32) / 1024.0).collect();
    let rescale = image.rescale.iter().map(|r| Rescale { slope: r.slope * 1024.0, ..*r }).collect();
    let stored = Stored::float32(Volume::new(*image.grid(), floats)).expect("numbers");
    ImageVolume { stored, rescale, quantity: image.quantity }
}

/// Labels for about a third of the voxels of `image`, most of the last ones among them.
pub(super) fn masked_case(image: &ImageVolume) -> LabelMap {
    let count = image.grid().voxel_count();
    let label = |n: usize| if noise(n + 5) * (count as f64) < n as f64 * 0.7 { 1 + (n % 3) as u8 } else { 0 };
    Volume::new(*image.grid(), (0..count).map(label).collect())
}

/// Physical values of the voxels that `mask` keeps.
pub(super) fn kept_values(image: &ImageVolume, mask: Mask<'_>) -> Vec<f64> {
    let all = voxels(image.grid().dims()).enumerate().map(|(n, voxel)| (n, image.physical(voxel.map(|index| index as usize))));
    let kept = all.filter(|&(n, value)| match mask {
        Mask::All => true,
        Mask::Labelled(labels) => labels.voxels()[n] != 0,
        Mask::Above(threshold) => value > threshold,
        Mask::Nonzero => value != 0.0,
    });
    kept.map(|(_, value)| value).collect()
}

/// A map from target to source voxels that covers the source and a little more.
pub(super) fn covering(source: [u32; 3], target: [u32; 3], linear: [[f64; 3]; 3]) -> Affine {
    let [x, y, z] = linear;
    let about_zero = Affine::from_columns(x, y, z, [0.0; 3]);
    let middle = about_zero.apply(target.map(|n| (f64::from(n) - 1.0) / 2.0));
    Affine::from_columns(x, y, z, std::array::from_fn(|s| (f64::from(source[s]) - 1.0) / 2.0 - middle[s] + 0.07))
}

/// Columns of permutations with flips and spacings, of rotations with spacings, and of shears that leave i or nothing in its place.
pub(super) fn any_linear() -> impl Strategy<Value = [[f64; 3]; 3]> {
    let scales = prop::array::uniform3(prop_oneof![0.2..3.0f64, -3.0..-0.2f64, Just(1.0), Just(-1.0)]);
    let order = Just([0, 1, 2]).prop_shuffle();
    let parallel = (scales.clone(), order)
        .prop_map(|(scale, order)| std::array::from_fn(|t| std::array::from_fn(|s| if s == order[t] { scale[t] } else { 0.0 })));
    let sheared = (scales.clone(), prop::array::uniform3(-1.5..1.5f64), any::<bool>()).prop_map(|([x, y, z], [a, b, c], rows_stay)| {
        let tilt = if rows_stay { 0.0 } else { c };
        [[x, tilt, 0.0], [a, y, 0.0], [b, c, z]]
    });
    let turned = (scales, prop::array::uniform3(-3.0..3.0f64)).prop_map(|(scale, angles)| {
        let [(sa, ca), (sb, cb), (sc, cc)] = angles.map(f64::sin_cos);
        let rotation = [
            [ca * cb, sa * cb, -sb],
            [ca * sb * sc - sa * cc, sa * sb * sc + ca * cc, cb * sc],
            [ca * sb * cc + sa * sc, sa * sb * cc - ca * sc, cb * cc],
        ];
        std::array::from_fn(|t| rotation[t].map(|v| v * scale[t]))
    });
    prop_oneof![parallel, sheared, turned]
}

/// Linear parts that meet each path: parallel, permuted with flips (i along j, i along k), sheared with rows along rows, rotated.
pub(super) const LINEARS: [[[f64; 3]; 3]; 5] = [
    [[1.3, 0., 0.], [0., 0.7, 0.], [0., 0., 0.9]],
    [[0., -1.2, 0.], [0.8, 0., 0.], [0., 0., -1.1]],
    [[0., 0., 0.75], [0., 1.4, 0.], [-0.9, 0., 0.]],
    [[-1.1, 0., 0.], [0.3, 0.8, 0.], [-0.4, 0.6, 0.9]],
    [[0.9, -0.3, 0.2], [0.25, 0.8, -0.1], [-0.15, 0.2, 0.7]],
];

/// Name, size, and offset of each member.
type Layout<'a> = (&'a str, usize, &'a [(&'a str, usize)]);

/// Parses and validates `source`, and compares its structs with Rust's.
fn check(source: &str, entry: &str, structs: &[Layout<'_>]) {
    let module = naga::front::wgsl::parse_str(source).unwrap_or_else(|err| panic!("{}", err.emit_to_string(source)));
    // What every adapter has; the one capability is `pack2x16float`, which is plain WGSL.
    let capabilities = naga::valid::Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    naga::valid::Validator::new(naga::valid::ValidationFlags::all(), capabilities)
        .validate(&module)
        .unwrap_or_else(|err| panic!("{}", err.emit_to_string(source)));
    let entries: Vec<_> = module.entry_points.iter().map(|e| e.name.as_str()).collect();
    assert_eq!(entries, [entry]);
    for &(name, size, offsets) in structs {
        let (_, found) = module.types.iter().find(|(_, t)| t.name.as_deref() == Some(name)).expect("the struct is in the shader");
        let naga::TypeInner::Struct { members, span } = &found.inner else { panic!("{name} is no struct") };
        assert_eq!(*span as usize, size, "size of {name}");
        let members: Vec<_> = members.iter().map(|m| (m.name.as_deref().unwrap_or(""), m.offset as usize)).collect();
        assert_eq!(members, offsets, "offsets of {name}");
    }
}

macro_rules! layout {
    ($type:ty, $($member:ident),*) => {
        (stringify!($type), size_of::<$type>(), &[$((stringify!($member), offset_of!($type, $member))),*])
    };
}

#[test]
fn resample_shader() {
    for source in [resample_gpu::WGSL_I16, resample_gpu::WGSL_F32] {
        check(
            source,
            "resample",
            &[
                layout!(ResampleParams, source_dims, first_owned, target_dims, end_owned, first_slice, low, high, outside),
                layout!(SliceScale, slope, offset, pivot, pad),
                layout!(Step, cell, fraction),
            ],
        );
    }
}

#[test]
fn scores_to_labels_shader() {
    check(
        scores_to_labels::WGSL,
        "scores_to_labels",
        &[
            layout!(
                ScoresToLabelsParams,
                network_dims,
                first_owned,
                target_dims,
                end_owned,
                first_slice,
                slices,
                loaded_slices,
                channels,
                words_a_row,
                nearest,
                above,
                pad0
            ),
            layout!(Step, cell, fraction),
        ],
    );
}

#[test]
fn components_shaders() {
    for (source, entry) in [
        (components_gpu::INIT_WGSL, "components_init"),
        (components_gpu::MERGE_WGSL, "components_merge"),
        (components_gpu::FLATTEN_WGSL, "components_flatten"),
    ] {
        use components_gpu::ComponentsParams;
        check(source, entry, &[layout!(ComponentsParams, dims, threads_a_row, most_axes, pad0, pad1, pad2)]);
    }
}

#[test]
fn label_statistics_shader() {
    use label_statistics::LabelStatisticsParams;
    for source in [label_statistics::WGSL_I16, label_statistics::WGSL_F32] {
        check(source, "label_statistics", &[layout!(LabelStatisticsParams, plane, columns, labels, per_unit, slot_of_label)]);
    }
}

#[test]
fn surface_shader() {
    use surface::SurfaceParams;
    check(surface::WGSL, "surface", &[layout!(SurfaceParams, columns, rows, slices, before)]);
}

#[test]
fn histogram_shader() {
    use percentiles::{HistogramParams, SliceRanks};
    for source in [percentiles::WGSL_I16, percentiles::WGSL_F32] {
        check(
            source,
            "histogram",
            &[
                layout!(HistogramParams, plane, first_slice, shift, prefix_count, prefixes),
                layout!(SliceRanks, low, high, slope, intercept),
            ],
        );
    }
}

#[test]
fn bounding_box_shader() {
    use bounding_box::BoundingBoxParams;
    for source in [bounding_box::WGSL_I16, bounding_box::WGSL_F32] {
        check(source, "bounding_box", &[layout!(BoundingBoxParams, columns, plane, first_slice, pad0)]);
    }
}

#[test]
fn distance_shader() {
    use distance::DistanceParams;
    check(distance::WGSL, "distance", &[layout!(DistanceParams, dims, threads_a_row, axis, spacing_mm, to_labelled, pad0)]);
}

#[test]
fn morphology_shader() {
    use morphology::MorphologyParams;
    check(morphology::WGSL, "morphology", &[layout!(MorphologyParams, dims, threads_a_row, words_a_row, most_axes, outside, pad0)]);
}

#[test]
fn gaussian_shader() {
    use gaussian::GaussianParams;
    check(gaussian::WGSL, "gaussian", &[layout!(GaussianParams, dims, threads_a_row, axis, radius, constant, pad0)]);
}

#[test]
fn patch_shaders() {
    use patches::PatchParams;
    for (source, entry) in [(patches::GATHER_WGSL, "gather_patch"), (patches::SCATTER_WGSL, "scatter_patch")] {
        check(source, entry, &[layout!(PatchParams, volume_dims, threads_a_row, dims, channels, start, outside, mirror, pad0)]);
    }
}

#[test]
fn projection_shader() {
    use projection::ProjectionParams;
    for source in [projection::WGSL_I16, projection::WGSL_F32] {
        check(source, "projection", &[layout!(ProjectionParams, dims, first_slice, slices, axis, pad0, pad1)]);
    }
}

#[test]
fn probability_shaders() {
    use probabilities::ProbabilityParams;
    for (source, entry) in
        [(probabilities::SOFTMAX_WGSL, "softmax"), (probabilities::SIGMOID_WGSL, "sigmoid"), (probabilities::THRESHOLD_WGSL, "threshold")]
    {
        check(source, entry, &[layout!(ProbabilityParams, voxels, channels, threads_a_row, threshold)]);
    }
}

#[test]
fn half_shader() {
    use super::half::HalfParams;
    check(half::WGSL, "half", &[layout!(HalfParams, count, threads_a_row, pad0, pad1)]);
}

#[test]
fn area_shader() {
    use area::AreaParams;
    for source in [area::WGSL_I16, area::WGSL_F32] {
        check(
            source,
            "area",
            &[
                layout!(
                    AreaParams,
                    source_dims,
                    first_loaded,
                    target_dims,
                    first_slice,
                    along,
                    low,
                    first_span,
                    high,
                    outside,
                    pad0,
                    pad1,
                    pad2
                ),
                layout!(SliceScale, slope, offset, pivot, pad),
            ],
        );
    }
}

#[test]
fn alignment_shader() {
    use alignment::AlignmentParams;
    check(
        alignment::WGSL,
        "alignment",
        &[layout!(AlignmentParams, position, arm, gradient, fixed_dims, gain, moving_dims, offset, per_scale, threads, pad0, pad1)],
    );
}

#[test]
fn spline_shader() {
    use spline::SplineParams;
    check(spline::WGSL, "spline", &[layout!(SplineParams, dims, first_loaded, target_dims, first_slice, margin, low, high, outside)]);
}

#[test]
fn separable_shader() {
    use separable_gpu::SeparableParams;
    use source_values::SourceScale;
    for source in [separable_gpu::WGSL_I16, separable_gpu::WGSL_F32] {
        check(
            source,
            "separable",
            &[
                layout!(
                    SeparableParams,
                    input_dims,
                    axis,
                    output_dims,
                    first_loaded,
                    first_index,
                    limits_across,
                    strides,
                    low,
                    first_span,
                    high,
                    outside,
                    pad0,
                    pad1,
                    pad2
                ),
                layout!(SourceScale, slope, offset, pivot, least_kept, greatest_kept),
            ],
        );
    }
}
