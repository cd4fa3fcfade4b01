#!/usr/bin/env python3
"""Kernels computed again with SciPy, SimpleITK, scikit-image, numpy, Pillow, nnU-Net and MONAI, on the arrays that `tests/it/kernels.rs` wrote.

usage: check_kernels.py FOLDER

FOLDER/cases.json says what each array is; arrays are raw, [slice, row, column]. Floats are held to 1e-4 of their range (what was reached
is printed), single numbers to 1e-4, those of shapes to 1e-9, labels to every voxel.
"""
import json
import sys
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from PIL import Image
from scipy import ndimage, special
from scipy.spatial import ConvexHull, QhullError
from scipy.spatial.distance import pdist, squareform
from skimage.measure import marching_cubes, mesh_surface_area

import check_windows

try:
    from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg
    print('nnU-Net: its own code')
except ImportError:
    print('nnU-Net: not installed; the calls that version 2.8.1 makes')

    def resize(image, output_shape):
        """skimage.transform.resize(order=3, mode='edge', anti_aliasing=False), version 0.26: clip=True is its default."""
        zoomed = ndimage.zoom(image, np.divide(output_shape, image.shape), order=3, mode='nearest', grid_mode=True)
        return np.clip(zoomed, image.min(), image.max())

    def resample_data_or_seg(data, new_shape, axis, order, do_separate_z, order_z):
        if not do_separate_z:
            return np.stack([resize(channel, new_shape) for channel in data])
        assert (order, order_z) == (3, 0)
        in_plane = [n for a, n in enumerate(new_shape) if a != axis]
        planes = np.stack([np.stack([resize(p, in_plane) for p in np.moveaxis(c, axis, 0)], axis) for c in data])
        scale = np.divide(planes.shape[1:], new_shape)
        at = [s * (m + 0.5) - 0.5 for s, m in zip(scale, np.mgrid[tuple(slice(n) for n in new_shape)])]
        return np.stack([ndimage.map_coordinates(c, at, order=0, mode='nearest') for c in planes])

try:
    from nnunetv2.preprocessing.cropping.cropping import crop_to_nonzero
except ImportError:
    def crop_to_nonzero(data):
        """That of version 2.8.1."""
        mask = ndimage.binary_fill_holes(data[0] != 0)
        (box,) = ndimage.find_objects(mask.astype(int))
        return data[:, *box], np.where(mask[box], 0, -1)[None], [[side.start, side.stop] for side in box]

try:
    from monai.data import MetaTensor
    from monai.transforms import CropForeground, NormalizeIntensity, Orientation, ScaleIntensity, ScaleIntensityRange, Spacing
    print('MONAI: its own code')

    def monai_prepared(volume, affine, axcodes, pixdim, how):
        values = {'range': ScaleIntensityRange(-300, 400, -1, 1, clip=True), 'all': NormalizeIntensity(), 'nonzero': NormalizeIntensity(nonzero=True),
                  'minimum and maximum': ScaleIntensity(-1, 1)}
        image = MetaTensor(volume[None].astype(np.float32), affine=affine)
        return values[how](Spacing(pixdim)(Orientation(axcodes)(image)))[0].numpy()
except ImportError:
    print('MONAI: not installed; the rules of version 1.6.1')
    CropForeground = None

    def monai_prepared(volume, affine, axcodes, pixdim, how):
        """For axes along the patient's, as here."""
        spacing = np.abs(np.diag(affine)[:3])
        signs = np.sign(np.diag(affine)[:3])
        axes = [next(axis for axis, pair in enumerate(('LR', 'PA', 'IS')) if code in pair) for code in axcodes]
        volume = volume.transpose(axes)
        wanted = [1 if code in 'RAS' else -1 for code in axcodes]
        volume = np.flip(volume, [n for n, axis in enumerate(axes) if signs[axis] != wanted[n]])
        step = np.divide(pixdim, spacing[axes])
        size = np.round((np.array(volume.shape) - 1) / step + 1).astype(int)
        at = np.meshgrid(*(s * np.arange(n) for s, n in zip(step, size)), indexing='ij')
        values = ndimage.map_coordinates(volume, at, order=1, mode='nearest')
        if how == 'range':
            return np.clip((values + 300) / 700 * 2 - 1, -1, 1)
        if how == 'minimum and maximum':
            return (values - values.min()) / np.ptp(values) * 2 - 1
        counts = values != 0 if how == 'nonzero' else np.ones(values.shape, bool)
        values[counts] = (values[counts] - values[counts].mean()) / values[counts].std()
        return values

folder = Path(sys.argv[1])
description = json.loads((folder / 'cases.json').read_text())
cases = description['cases']
shape = tuple(description['dims'][::-1])
spacing_mm = np.array(description['spacing_mm'])
labels = np.fromfile(folder / 'labels.raw', np.uint8).reshape(shape)
scores = np.fromfile(folder / 'scores.raw', '<f4').reshape(5, -1).astype(np.float64)
images = {}
for case in cases:
    if case['case'] == 'image':
        name = case['arguments']['name']
        slope, intercept = np.array(case['answer']).T[:, :, None, None]
        images[name] = slope * np.fromfile(folder / f'{name}.raw', '<i2').reshape(shape) + intercept


def kept(image, mask):
    return {'all': np.ones(shape, bool), 'labelled': labels != 0, 'above': images[image] > 50}[mask]


def statistics(image, mask):
    values = images[image][kept(image, mask)]
    return [len(values), values.mean(), values.std(), values.min(), values.max()]


def percentiles(image, mask):
    return np.percentile(images[image][kept(image, mask)], [0.5, 5, 33.3, 50, 99, 99.5])


def bounding_box(image, mask):
    (box,) = ndimage.find_objects(kept(image, mask).astype(int))
    return [[side.start for side in box[::-1]], [side.stop - 1 for side in box[::-1]]]


def projection(image, axis, how):
    return getattr(images[image], how)(axis=2 - axis)


def reslice(image, first_mm):
    volume = sitk.GetImageFromArray(images[image])
    volume.SetSpacing(spacing_mm.tolist())
    volume.SetOrigin(description['first_voxel_mm'])
    sin, cos = np.sin(0.4), np.cos(0.4)
    directions = np.array([[cos, sin, 0], [0, 0, 1], np.cross([cos, sin, 0], [0, 0, 1])]).T
    plane = sitk.Resample(volume, [45, 30, 1], sitk.Transform(), sitk.sitkLinear, first_mm, [0.8, 1.1, 1],
                          directions.ravel().tolist(), -7.5, sitk.sitkFloat64)
    return sitk.GetArrayFromImage(plane)


def downsample(image, dims, interpolation):
    """Area: differences of the running sum at the edges of target voxels. Antialiased: Pillow, two axes at a time."""
    values = images[image]
    for axis, length in enumerate(dims[::-1]):
        lines = np.moveaxis(values, axis, -1)
        flat = lines.reshape(-1, lines.shape[-1])
        if interpolation == 'area':
            running = np.concatenate([np.zeros((len(flat), 1)), flat.cumsum(axis=1)], axis=1)
            edges = np.linspace(0, flat.shape[1], length + 1)
            at = np.minimum(edges.astype(int), flat.shape[1] - 1)
            sums = running[:, at] + (edges - at) * flat[:, at]
            flat = np.diff(sums, axis=1) * length / flat.shape[1]
        else:
            flat = np.asarray(Image.fromarray(flat.astype(np.float32)).resize((length, len(flat)), Image.Resampling.BILINEAR), np.float64)
        values = np.moveaxis(flat.reshape(*lines.shape[:-1], length), -1, axis)
    return (np.clip(values, -300, 400) - 20) / 250


def spline(image, dims):
    zoomed = ndimage.zoom(images[image], np.array(dims[::-1]) / shape, order=3, mode='nearest', grid_mode=True)
    return (np.clip(zoomed, -300, 400) - 20) / 250


def nnunet(image, dims, along, clip, above):
    """As nnU-Net's preprocessing: normalisation (CTNormalization, or ZScoreNormalization within a mask), then resampling."""
    values = (images[image] if clip is None else np.clip(images[image], *clip)) - 20
    values /= 250
    if above is not None:
        values[images[image] <= above] = 0
    axis = None if along is None else 2 - along
    return resample_data_or_seg(values[None], dims[::-1], axis=axis, order=3, do_separate_z=axis is not None, order_z=0)[0]


def monai(image, axcodes, pixdim, how, dims):
    """The image's axes run to L, P and S; MONAI's arrays are [x, y, z], and its world is RAS."""
    expected = monai_prepared(images[image].transpose(2, 1, 0), np.diag([-spacing_mm[0], -spacing_mm[1], spacing_mm[2], 1]), axcodes, pixdim, how)
    assert expected.shape == tuple(dims[::-1]), f'{axcodes} {pixdim}: {dims[::-1]} voxels, MONAI has {expected.shape}'
    assert how != 'nonzero' or axcodes != 'LPS' or np.count_nonzero(expected == 0) > 10, 'nothing is 0'
    return expected


def nnunet_cropped(steps):
    """As DefaultPreprocessor of nnU-Net: crop, normalisation (its default schemes), then resampling."""
    crop, normalize, resample = steps
    data, seg, _ = crop_to_nonzero(images['body'][None].copy())
    data, mask = data[0], seg[0] >= 0
    if normalize['step'] == 'percentiles':
        data = (data - data.min()) / (data.max() - data.min())
    elif normalize.get('masked'):
        data[mask] = (data[mask] - data[mask].mean()) / data[mask].std()
    else:
        data = (data - data.mean()) / data.std()
    spacing, wanted = spacing_mm[::-1], np.array(resample['spacing_mm'][::-1])
    new_shape = [round(old / new * count) for old, new, count in zip(spacing, wanted, data.shape)]
    thick = max(spacing) / min(spacing) > resample.get('nearest_beyond', np.inf)
    return resample_data_or_seg(data[None], new_shape, axis=0 if thick else None, order=3, do_separate_z=thick, order_z=0)[0]


def monai_cropped(steps):
    crop, normalize = steps
    values = images['body']
    if CropForeground:
        cropper = CropForeground(select_fn=lambda x: x > crop['above'], margin=crop['margin'], allow_smaller=True)
        values = np.asarray(cropper(values.transpose(2, 1, 0)[None]))[0].transpose(2, 1, 0)
    else:
        (box,) = ndimage.find_objects((values > crop['above']).astype(int))
        values = values[tuple(slice(max(s.start - crop['margin'], 0), s.stop + crop['margin']) for s in box)]
    return (values - normalize['subtract']) / normalize['divide']


def half(of):
    return np.fromfile(folder / cases[of]['file'], '<f4').astype(np.float16)


def distance(to):
    inside = labels == 0 if to == 'Labelled' else labels != 0
    return ndimage.distance_transform_edt(inside, sampling=spacing_mm[::-1])


def morphology(operation, rank=None, times=1, radius_mm=None):
    if radius_mm is None:
        structure = ndimage.generate_binary_structure(3, rank)
    else:
        z, y, x = np.mgrid[-5:6, -5:6, -5:6]
        structure = (x * spacing_mm[0]) ** 2 + (y * spacing_mm[1]) ** 2 + (z * spacing_mm[2]) ** 2 <= radius_mm ** 2
    work = {'Dilate': ndimage.binary_dilation, 'Erode': ndimage.binary_erosion,
            'Open': ndimage.binary_opening, 'Close': ndimage.binary_closing}[operation]
    # On an unbounded grid, as it were: SciPy's closing loses what its dilation would have put outside.
    return work(np.pad(labels, 16), structure, times)[16:-16, 16:-16, 16:-16]


def holes(each_slice):
    return np.stack([ndimage.binary_fill_holes(s) for s in labels]) if each_slice else ndimage.binary_fill_holes(labels)


def gaussian(sigma_mm, mode, constant):
    stored = np.fromfile(folder / 'shared.raw', '<i2').reshape(shape).astype(np.float64)
    return ndimage.gaussian_filter(stored, (sigma_mm / spacing_mm)[::-1], mode=mode, cval=constant)


def patch_weights(dims):
    return check_windows.weights(dims[::-1], 'gaussian', 'nnunet')


def components():
    return ndimage.label(labels, np.ones((3, 3, 3)))


def hull(points):
    """Corners of the hull of points of a plane, in their order; the points where they are few or on a line."""
    try:
        return points[ConvexHull(points).vertices]
    except (QhullError, ValueError):
        return points


def axes(points):
    """Slice, long and short axis of voxels (k, j, i)."""
    slices = [(k, hull(points[points[:, 0] == k][:, 1:] * spacing_mm[1::-1])) for k in np.unique(points[:, 0])]
    long_mm = max(pdist(corners).max(initial=0) for _, corners in slices)
    best = (0, long_mm, -1.0)
    for k, corners in slices:
        for a, b in np.argwhere(squareform(pdist(corners)) >= long_mm * (1 - 1e-9)) if long_mm else [(0, 0)]:
            short_mm = 0.0
            if long_mm:
                along = (corners[b] - corners[a]) / np.linalg.norm(corners[b] - corners[a])
                t, s = corners @ along, corners @ [-along[1], along[0]]
                for at in t:
                    ends = [s[p] + (s[q] - s[p]) * (at - t[p]) / (t[q] - t[p]) if t[q] > t[p] else s[p]
                            for p in range(len(t)) for q in range(len(t)) if t[p] <= at <= t[q]]
                    short_mm = max(short_mm, max(ends) - min(ends))
            if short_mm > best[2] + 1e-9:
                best = (k, long_mm, short_mm)
    return best


def shapes():
    """Longest diameter by pairs of hull corners, axes, area and volume of the surface: of each component."""
    numbers, count = components()
    spacing = spacing_mm[::-1]
    rows = []
    for n, box in enumerate(ndimage.find_objects(numbers), 1):
        mask = np.pad(numbers[box] == n, 1)
        points = np.argwhere(mask)
        vertices, triangles, _, _ = marching_cubes(mask.astype(np.float32), 0.5)
        vertices = vertices.astype(np.float64) * spacing
        k, long_mm, short_mm = axes(points)
        a, b, c = (vertices[triangles[:, corner]] for corner in range(3))
        volume = abs(np.sum(a * np.cross(b, c))) / 6
        area = mesh_surface_area(vertices, triangles)
        sphericity = np.pi ** (1 / 3) * (6 * volume) ** (2 / 3) / area
        rows.append([pdist(hull(points) * spacing).max(initial=0), k + box[0].start - 1, long_mm, short_mm, area, volume, sphericity])
    return rows


def feret():
    """As ITK measures it."""
    volume = sitk.GetImageFromArray(components()[0].astype(np.uint32))
    volume.SetSpacing(spacing_mm.tolist())
    measure = sitk.LabelShapeStatisticsImageFilter()
    measure.ComputeFeretDiameterOn()
    measure.Execute(volume)
    return [measure.GetFeretDiameter(label) for label in measure.GetLabels()]


def intensities(image):
    numbers, count = components()
    rows = []
    for n in range(1, count + 1):
        values = images[image][numbers == n]
        rows.append([len(values), values.mean(), values.std(), values.min(), values.max(), *np.percentile(values, [5, 50, 95])])
    return rows


def threshold(threshold):
    return np.where(scores.max(axis=0) >= threshold, scores.argmax(axis=0) + 1, 0)


compute = {
    'statistics': statistics, 'percentiles': percentiles, 'bounding box': bounding_box, 'projection': projection, 'reslice': reslice,
    'downsample': downsample, 'spline': spline, 'nnU-Net': nnunet, 'nnU-Net, cropped': nnunet_cropped, 'MONAI': monai,
    'MONAI, cropped': monai_cropped, 'half': half, 'distance': distance, 'morphology': morphology, 'holes': holes, 'gaussian': gaussian,
    'patch weights': patch_weights, 'softmax': lambda: special.softmax(scores, axis=0), 'sigmoid': lambda: special.expit(scores),
    'threshold': threshold, 'shapes': shapes, 'Feret diameters': feret, 'intensities of components': intensities,
}
EXACT = {'bounding box', 'morphology', 'holes', 'threshold', 'half'}
NUMBERS = {'statistics', 'percentiles', 'shapes', 'Feret diameters', 'intensities of components'}
LIMITS = {'shapes': 1e-9, 'Feret diameters': 1e-9}
worst, bad = {}, []
for case in cases:
    name, arguments = case['case'], case['arguments']
    if name == 'image':
        continue
    expected = np.asarray(compute[name](**arguments))
    if 'file' in case:
        kind = np.uint8 if expected.dtype == bool or name == 'threshold' else np.float16 if name == 'half' else np.float32
        found = np.fromfile(folder / case['file'], kind)
        if found.size != expected.size:
            bad.append(f'{name} {arguments}: another shape, {expected.shape}')
            continue
        found = found.reshape(expected.shape)
    else:
        found = np.array(case['answer'])
    if name in EXACT:
        off = np.count_nonzero(found != expected)
        limit = 0
    else:
        off = np.abs(found - expected).max() / (1 if name in NUMBERS else np.ptp(expected))
        limit = LIMITS.get(name, 1e-4)
    if not off <= limit or np.ptp(expected.astype(float)) == 0:
        bad.append(f'{name} {arguments}: {off}')
    count, most = worst.get(name, (0, 0))
    worst[name] = count + 1, max(most, off)
for name, (count, off) in worst.items():
    print(f'{name}: {count} cases, ' + (f'{off} voxels differ' if name in EXACT else f'off by at most {off:.1e}' + (' of the range' if name not in NUMBERS else '')))
sys.exit('\n'.join(bad) if bad else 0)
