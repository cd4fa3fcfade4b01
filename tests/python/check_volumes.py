#!/usr/bin/env python3
"""Segmentation, label map and map of values on sources of every geometry, as highdicom, pydicom, GDCM and DCMTK read them.

usage: check_volumes.py DIR

Each folder of DIR has `expected.json` (grid, source images), `numbers.raw` (Segment Numbers) and `map.raw` (float32), [slice, row, column],
and `results`. Regular volumes are put together by highdicom and compared voxel by voxel, each at its place in the patient;
all are compared frame by frame, by position or, where the source has none, by the image that a frame names. Exit 0, or 1 with every reason.
"""
import json
import sys
import tempfile
import warnings
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import SimpleITK as sitk

from programs import dciodvfy_errors, tool

warnings.simplefilter('ignore')
TOLERANCE_MM = 1e-4
problems, volumes, frames_compared = [], 0, 0


def affine_of(expected):
    return np.vstack([np.array(expected['lps_from_voxel'], float), [0, 0, 0, 1]])


def compare_volume(where, volume, expected, truth):
    """`truth` [slice, row, column] against a volume of highdicom; what the volume leaves out must be 0."""
    global volumes
    volumes += 1
    k, j, i = np.meshgrid(*(np.arange(n) for n in truth.shape), indexing='ij')
    voxels = np.stack([i, j, k, np.ones_like(i)], -1).reshape(-1, 4) @ affine_of(expected).T
    indices = voxels @ np.linalg.inv(volume.affine).T
    whole = np.rint(indices)
    off_mm = np.abs(voxels - whole @ np.asarray(volume.affine).T).max()
    if off_mm > expected['tolerance_mm']:
        problems.append(f'{where}: voxels lie {off_mm:.6f} mm off')
        return
    array = np.asarray(volume.array)
    whole = whole[:, :3].astype(int)
    inside = ((whole >= 0) & (whole < array.shape[:3])).all(axis=1)
    found = np.zeros(len(whole), array.dtype)
    found[inside] = array[tuple(whole[inside].T)]
    differ = int((found != truth.reshape(-1)).sum())
    if differ or inside.sum() != array.size:
        problems.append(f'{where}: {differ} of {truth.size} voxels differ, {inside.sum()} of {array.size} of the volume lie in the source')


def compare_frames(where, dataset, frames, expected, truth, segment_of=None):
    """Each frame against the slice of `truth` at its source image; every slice with something on it must have its frames."""
    global frames_compared
    images = {(image['uid'], image['frame']): image for image in expected['images']}
    seen = set()
    for n, groups in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        source = groups.DerivationImageSequence[0].SourceImageSequence[0]
        image = images.get((source.ReferencedSOPInstanceUID, source.get('ReferencedFrameNumber')))
        if image is None:
            problems.append(f'{where}: frame {n + 1} names no source image')
            continue
        position = groups.PlanePositionSequence[0].ImagePositionPatient if 'PlanePositionSequence' in groups else None
        if (position is None) != (image['position'] is None):
            problems.append(f'{where}: frame {n + 1} and its source image do not both lie in the patient')
        elif position is not None and np.abs(np.array(position, float) - image['position']).max() > TOLERANCE_MM:
            problems.append(f'{where}: frame {n + 1} lies at {position}, not {image["position"]}')
        segment = segment_of(groups) if segment_of else None
        slice_truth = truth[image['slice']]
        if segment is not None:
            slice_truth = slice_truth == segment
        if not np.array_equal(frames[n], slice_truth):
            problems.append(f'{where}: frame {n + 1} differs')
        seen.add((image['uid'], image['frame'], segment))
        frames_compared += 1
    wanted = set()
    for image in expected['images']:
        here = truth[image['slice']]
        if segment_of:
            wanted |= {(image['uid'], image['frame'], int(s)) for s in np.unique(here) if s}
        elif truth.dtype != np.uint8 or here.any():
            wanted.add((image['uid'], image['frame'], None))
    if seen != wanted:
        problems.append(f'{where}: frames of {len(seen - wanted)} images too many, {len(wanted - seen)} too few')


def pixels(dataset):
    array = dataset.pixel_array
    return array if array.ndim == 3 else array[None]


def check_geometry(where, dataset, expected):
    """The same size as the source; one distance between slices only where there is one, and then the right one."""
    if (dataset.Columns, dataset.Rows) != tuple(expected['dims'][:2]):
        problems.append(f'{where}: {dataset.Columns} x {dataset.Rows} pixels')
    measures = dataset.SharedFunctionalGroupsSequence[0].get('PixelMeasuresSequence', [pydicom.Dataset()])[0]
    spacing = measures.get('SpacingBetweenSlices')
    positions = [image['position'] for image in expected['images']]
    if positions[0] is None or len(positions) < 2:
        if spacing is not None:
            problems.append(f'{where}: slices of an image without neighbours lie {spacing} mm apart')
        return
    axes = affine_of(expected)[:3]
    normal = np.cross(axes[:, 0], axes[:, 1])
    distances = np.diff(np.array(positions) @ normal / np.linalg.norm(normal))
    even = np.ptp(distances) < 0.02 * distances.mean()
    if even != (spacing is not None) or (even and abs(spacing - distances.mean()) > 1e-3):
        problems.append(f'{where}: Spacing Between Slices {spacing}, but distances from {distances.min():.3f} to {distances.max():.3f}')


def check_run_lengths(where, path, expected):
    """GDCM and DCMTK decode our RLE; GDCM does not know the class yet and gets the same pixels as a Secondary Capture."""
    with tempfile.TemporaryDirectory() as scratch:
        capture, plain = Path(scratch) / 'capture.dcm', Path(scratch) / 'plain.dcm'
        dataset = pydicom.dcmread(path)
        for element in list(dataset):
            if element.tag.group not in (0x0008, 0x0028, 0x7FE0):
                del dataset[element.tag]
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = pydicom.uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage
        dataset.save_as(capture)
        if not np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(capture))).reshape(expected.shape), expected):
            problems.append(f'{where}: GDCM reads other pixels')
        status, text = tool('dcmdrle', str(path), str(plain))
        if status or not np.array_equal(pixels(pydicom.dcmread(plain)), expected):
            problems.append(f'{where}: DCMTK reads other pixels: {text}')


def check(folder):
    expected = json.loads((folder / 'expected.json').read_text())
    shape = tuple(expected['dims'][::-1])
    numbers = np.fromfile(folder / 'numbers.raw', np.uint8).reshape(shape)
    values = np.fromfile(folder / 'map.raw', '<f4').reshape(shape)
    results = folder / 'results'
    seg, label_map = (pydicom.dcmread(results / name) for name in ('seg.dcm', 'labelmap.dcm'))
    where = folder.name
    number = lambda groups: int(groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
    compare_frames(f'{where} SEG', seg, pixels(seg) != 0, expected, numbers, number)
    compare_frames(f'{where} label map', label_map, pixels(label_map), expected, numbers)
    files = ['seg.dcm', 'labelmap.dcm']
    for name, dataset in (('SEG', seg), ('label map', label_map)):
        check_geometry(f'{where} {name}', dataset, expected)
    in_patient = expected['images'][0]['position'] is not None
    of_map = pydicom.dcmread(results / 'map.dcm', stop_before_pixels=True).SOPClassUID
    if of_map != (pydicom.uid.ParametricMapStorage if in_patient else pydicom.uid.SecondaryCaptureImageStorage):
        problems.append(f'{where}: its map is of {of_map.name}')
    if in_patient:
        files.append('map.dcm')
        value_map = pydicom.dcmread(results / 'map.dcm')
        compare_frames(f'{where} map', value_map, pixels(value_map), expected, values)
        check_geometry(f'{where} map', value_map, expected)
    if expected['volume']:
        for name in ('seg.dcm', 'labelmap.dcm'):
            read = hd.seg.segread(results / name)
            compare_volume(f'{where} {name}', read.get_volume(combine_segments=True), expected, numbers)
        read = hd.imread(results / 'map.dcm')
        compare_volume(f'{where} map.dcm', read.get_volume(dtype=np.float32, apply_real_world_transform=True), expected, values)
    check_run_lengths(f'{where} label map', results / 'labelmap.dcm', pixels(label_map))
    for name in files:
        errors = dciodvfy_errors(results / name)
        if 'BodyPartExamined' not in seg:
            # It then takes any body part for a paired one.
            errors = [line for line in errors if '<Laterality>' not in line]
        problems.extend(f'{where} {name}: {line}' for line in errors)


for case in sorted(p for p in Path(sys.argv[1]).iterdir() if p.is_dir()):
    try:
        check(case)
    except Exception as error:
        problems.append(f'{case.name}: {type(error).__name__}: {error}')
for problem in problems:
    print(problem)
print(f'{volumes} volumes and {frames_compared} frames compared, {len(problems)} problems')
sys.exit(1 if problems or not volumes else 0)
