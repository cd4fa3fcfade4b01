#!/usr/bin/env python3
"""What models/ct-tissue must find in a CT series, computed independently: pydicom reads, SimpleITK resamples, NumPy and SciPy compute
the formula of MODEL_CARD.md in float64. Neither roentgen nor the ONNX file is used.

usage: ct_tissue_reference.py DICOM_DIR [--json] [--labels FILE.npy]

DICOM_DIR   a folder (searched recursively) with the instances of one CT series, one frame each
--json      one JSON object on standard output
--labels    also write the label map: uint8 [slice, row, column], slices in the order of their position along the slice normal

Prints per tissue: segment, name, voxels, ml, mean HU, standard deviation in HU. Voxels are those of the source grid; HU are the
source's, neither clipped nor resampled; the standard deviation is the population's (divided by n).

Grids: the network's has round(n * s / 1.5) voxels (at least 1; halves up) along each source axis and the same physical centre as the
source. Outside the outermost voxel centres the nearest value counts (edge clamp), there and back.
The image's axes are kept as stored: the formula is the same along every axis and in both directions, so turning to LPS changes nothing
but which axis comes first.
"""
import argparse
import json
import math
import sys
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

NAMES = ("air", "lung", "fat", "soft tissue", "bone")
THRESHOLDS_HU = (-930.0, -350.0, -30.0, 200.0)
SPACING_MM = 1.5


def sigmoid(x):
    return 0.5 * (1.0 + np.tanh(0.5 * x))


def scores(hu):
    """The network's definition: HU [D, H, W] -> scores [5, D, H, W], float64."""
    x = np.pad(np.asarray(hu, np.float64), 2, mode="edge")
    spread = ndimage.maximum_filter(x, 3) - ndimage.minimum_filter(x, 3)
    weight = sigmoid((350.0 - spread) / 40.0) + 0.02
    s = [sigmoid((x - b) / 20.0) for b in THRESHOLDS_HU]
    memberships = [1.0 - s[0], s[0] - s[1], s[1] - s[2], s[2] - s[3], s[3]]
    inner = (slice(2, -2),) * 3           # filters' own borders reach one voxel into the pad, which is two wide, so none is left
    result = []
    for p in memberships:
        v = weight * p
        for axis in range(3):
            v = ndimage.correlate1d(v, [0.25, 0.5, 0.25], axis=axis)
        result.append(v[inner])
    return np.stack(result)


def read_series(folder):
    """HU as a SimpleITK image (float64), slices by their position along the normal of Image Orientation (Patient)."""
    import pydicom
    from pydicom.errors import InvalidDicomError

    slices = []
    for path in sorted(p for p in Path(folder).rglob("*") if p.is_file()):
        try:
            data = pydicom.dcmread(path)
        except InvalidDicomError:
            continue
        if "PixelData" in data and "ImagePositionPatient" in data:
            slices.append(data)
    if len(slices) < 2:
        sys.exit(f"{len(slices)} instances with an image and a position found, at least 2 are needed")
    first = slices[0]
    shape = ("Rows", "Columns", "PixelSpacing", "ImageOrientationPatient")
    if any(s.get(k) != first.get(k) for s in slices for k in shape):
        sys.exit("the instances differ in size, spacing or orientation: more than one series?")
    row, column = (np.array(first.ImageOrientationPatient[i:i + 3], float) for i in (0, 3))
    normal = np.cross(row, column)
    along = [float(np.dot(normal, np.array(s.ImagePositionPatient, float))) for s in slices]
    order = np.argsort(along)
    slices, along = [slices[n] for n in order], np.array(along)[order]
    steps = np.diff(along)
    if steps.min() <= 0 or steps.max() - steps.min() > 0.01 * steps.mean():
        sys.exit(f"slice distances between {steps.min():.3f} and {steps.max():.3f} mm")
    positions = np.array([s.ImagePositionPatient for s in slices], float)
    sideways = np.linalg.norm(np.cross(np.diff(positions, axis=0), normal), axis=1)
    if sideways.max() > 0.01 * steps.mean():
        sys.exit(f"slices lie up to {sideways.max():.3f} mm beside each other (gantry tilt)")
    # The decoded stored values; pydicom masks to Bits Stored and extends the sign.
    hu = np.stack([s.pixel_array * float(s.get("RescaleSlope", 1)) + float(s.get("RescaleIntercept", 0)) for s in slices])
    between_rows, between_columns = (float(v) for v in first.PixelSpacing)
    image = sitk.GetImageFromArray(hu.astype(np.float64))
    image.SetSpacing((between_columns, between_rows, float((along[-1] - along[0]) / (len(slices) - 1))))
    image.SetOrigin([float(v) for v in slices[0].ImagePositionPatient])
    image.SetDirection([float(v) for v in np.stack([row, column, normal], axis=1).ravel()])
    return image


def network_grid(source):
    """(size, origin, spacing): 1.5 mm, the same physical centre."""
    size = [max(1, math.floor(n * s / SPACING_MM + 0.5)) for n, s in zip(source.GetSize(), source.GetSpacing())]
    direction = np.array(source.GetDirection()).reshape(3, 3)
    centre = np.array(source.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in source.GetSize()]))
    origin = centre - direction @ (np.array([(n - 1) / 2 for n in size]) * SPACING_MM)
    return size, origin.tolist(), [SPACING_MM] * 3


def resample(values, grid, target):
    """Linear interpolation from one (size, origin, spacing, direction) to another, the nearest value outside.

    The image gets a border of copies, so that no point lies outside it: ITK's own extrapolator would take the nearest voxel along all
    three axes, not only along the one where the point is outside.
    """
    size, origin, spacing, direction = grid
    padded = sitk.GetImageFromArray(np.pad(values, 1, mode="edge"))
    corner = np.array(origin) - np.array(direction).reshape(3, 3) @ np.array(spacing)
    padded.SetOrigin(corner.tolist())
    padded.SetSpacing(spacing)
    padded.SetDirection(direction)
    f = sitk.ResampleImageFilter()
    f.SetSize(target[0])
    f.SetOutputOrigin(target[1])
    f.SetOutputSpacing(target[2])
    f.SetOutputDirection(target[3])
    f.SetInterpolator(sitk.sitkLinear)
    f.SetDefaultPixelValue(math.nan)
    f.SetOutputPixelType(sitk.sitkFloat64)
    result = sitk.GetArrayFromImage(f.Execute(padded))
    assert not np.isnan(result).any(), "a point outside the border"
    return result


def scores_on_source(source):
    """The scores of each channel on the source grid, float64 [slice, row, column], one after the other."""
    here = (source.GetSize(), source.GetOrigin(), source.GetSpacing(), source.GetDirection())
    there = (*network_grid(source), source.GetDirection())
    hu = resample(sitk.GetArrayFromImage(source), here, there)
    for values in scores(np.clip(hu, -1024.0, 3071.0)):
        yield resample(values, there, here)


def label_map(source):
    """Labels 1..5 on the source grid, uint8 [slice, row, column]."""
    best = labels = None
    for channel, back in enumerate(scores_on_source(source)):
        if best is None:
            best, labels = back, np.ones(back.shape, np.uint8)
        else:
            higher = back > best                  # the first of equal scores wins
            best[higher], labels[higher] = back[higher], channel + 1
    return labels


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", metavar="DICOM_DIR")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--labels", metavar="FILE.npy")
    arguments = parser.parse_args()
    source = read_series(arguments.folder)
    hu, labels = sitk.GetArrayFromImage(source), label_map(source)
    if arguments.labels:
        np.save(arguments.labels, labels)
    voxel_ml = float(np.prod(source.GetSpacing())) / 1000.0
    tissues = []
    for segment, name in enumerate(NAMES, 1):
        values = hu[labels == segment]
        tissues.append({"segment": segment, "name": name, "voxels": int(values.size), "volume_ml": values.size * voxel_ml,
                        "mean_hu": float(values.mean()) if values.size else None,
                        "sd_hu": float(values.std()) if values.size else None})
    if arguments.json:
        print(json.dumps({"dims": source.GetSize(), "spacing_mm": source.GetSpacing(), "network_dims": network_grid(source)[0],
                          "tissues": tissues}))
        return
    print("segment  name            voxels          ml     mean HU       sd HU (population)")
    for t in tissues:
        mean, sd = (f"{t[k]:12.4f}" if t[k] is not None else f"{'-':>12}" for k in ("mean_hu", "sd_hu"))
        print(f"{t['segment']:7}  {t['name']:12}{t['voxels']:10}{t['volume_ml']:12.4f}{mean}{sd}")


if __name__ == "__main__":
    main()
