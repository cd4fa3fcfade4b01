#!/usr/bin/env python3
"""Kernels computed again with SciPy, SimpleITK, numpy and Pillow, on the arrays that `tests/it/kernels.rs` wrote.

usage: check_kernels.py FOLDER

FOLDER/cases.json says what each array is; arrays are raw, [slice, row, column]. Floats are held to 1e-4 of their range (what was reached
is printed), single numbers to 1e-4, labels to every voxel.
"""
import json
import sys
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from PIL import Image
from scipy import ndimage, special

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
    """nnU-Net's compute_gaussian(sigma_scale=1/8, value_scaling_factor=10), which has half precision."""
    size = dims[::-1]
    point = np.zeros(size)
    point[tuple(n // 2 for n in size)] = 1
    weights = ndimage.gaussian_filter(point, [n / 8 for n in size], 0, mode='constant', cval=0)
    weights = (weights / (weights.max() / 10)).astype(np.float16)
    weights[weights == 0] = weights[weights != 0].min()
    return weights


def threshold(threshold):
    return np.where(scores.max(axis=0) >= threshold, scores.argmax(axis=0) + 1, 0)


compute = {
    'statistics': statistics, 'percentiles': percentiles, 'bounding box': bounding_box, 'projection': projection, 'reslice': reslice,
    'downsample': downsample, 'spline': spline, 'nnU-Net': nnunet, 'half': half, 'distance': distance, 'morphology': morphology, 'holes': holes, 'gaussian': gaussian,
    'patch weights': patch_weights, 'softmax': lambda: special.softmax(scores, axis=0), 'sigmoid': lambda: special.expit(scores),
    'threshold': threshold,
}
EXACT = {'bounding box', 'morphology', 'holes', 'threshold', 'half'}
NUMBERS = {'statistics', 'percentiles'}
worst, bad = {}, []
for case in cases:
    name, arguments = case['case'], case['arguments']
    if name == 'image':
        continue
    expected = np.asarray(compute[name](**arguments))
    if 'file' in case:
        kind = np.uint8 if expected.dtype == bool or name == 'threshold' else np.float16 if name == 'half' else np.float32
        found = np.fromfile(folder / case['file'], kind).reshape(expected.shape)
    else:
        found = np.array(case['answer'])
    if name in EXACT:
        off = np.count_nonzero(found != expected)
        limit = 0
    else:
        off = np.abs(found - expected).max() / (1 if name in NUMBERS else np.ptp(expected))
        limit = 1e-4
    if not off <= limit or np.ptp(expected.astype(float)) == 0:
        bad.append(f'{name} {arguments}: {off}')
    count, most = worst.get(name, (0, 0))
    worst[name] = count + 1, max(most, off)
for name, (count, off) in worst.items():
    print(f'{name}: {count} cases, ' + (f'{off} voxels differ' if name in EXACT else f'off by at most {off:.1e}' + (' of the range' if name not in NUMBERS else '')))
sys.exit('\n'.join(bad) if bad else 0)
