#!/usr/bin/env python3
"""Compute again what the scores of boxes and points rest on, and hold the maps against it.

usage: check_explained_boxes.py FOLDER

For every case below FOLDER (study/, package/ with a graph of make_boxes.py and an `[explanation]`, results/): ONNX Runtime is asked about the
patch around each object, whole and with each place covered; how far the object's score falls is the mean over the places that cover a voxel, and
of several objects the largest. The Parametric Map has these values, slice by slice. Exit 0, or 1 with every reason.
"""
import itertools
import json
import sys
import tomllib
from pathlib import Path

import numpy as np
import onnxruntime
import pydicom

from programs import dciodvfy_errors

problems = []
told = []


def need(holds, text):
    if not holds:
        problems.append(text)


class Patches:
    """All axes in the order k, j, i."""

    def __init__(self, case, manifest):
        slices = sorted((pydicom.dcmread(path) for path in (case / 'study').iterdir()), key=lambda d: float(d.ImagePositionPatient[2]))
        hu = np.stack([d.pixel_array.astype(np.float32) * float(d.RescaleSlope) + float(d.RescaleIntercept) for d in slices])
        self.x = np.clip(hu, 0, 2000).astype(np.float32) / np.float32(1000)
        down, across = map(float, slices[0].PixelSpacing)
        gap = float(slices[1].ImagePositionPatient[2]) - float(slices[0].ImagePositionPatient[2])
        self.spacing = np.array([gap, down, across])
        self.origin = np.array([float(v) for v in slices[0].ImagePositionPatient])[::-1]
        self.uids = [d.SOPInstanceUID for d in slices]
        self.session = onnxruntime.InferenceSession(str(case / 'package/boxes.onnx'), providers=['CPUExecutionProvider'])
        self.size = np.array(manifest['inference']['sliding-window']['patch'][::-1])
        self.boxes = manifest['output']['boxes']
        self.explanation = manifest['explanation']

    def around(self, centre):
        shape = np.array(self.x.shape)
        first = np.where(self.size >= shape, -((self.size - shape) // 2), 0)
        last = np.where(self.size >= shape, first, shape - self.size)
        return np.clip(np.floor(centre + 0.5 - self.size / 2 + 0.5).astype(int), first, last)

    def score(self, seen, start, low, high):
        boxes, scores = self.session.run(['boxes', 'scores'], {'image': seen[None, None]})
        best = 0.0
        for box, score in zip(boxes.astype(float), scores):
            if 'min_distance_mm' in self.boxes:
                same = np.linalg.norm((box + start - low) * self.spacing) < self.boxes['min_distance_mm']
            else:
                a, b = box[:3] + start, box[3:] + start
                shared = np.prod(np.clip(np.minimum(b, high) - np.maximum(a, low), 0, None))
                same = shared / (np.prod(b - a) + np.prod(high - low) - shared) > self.boxes['max_iou']
            best = max(best, float(score)) if same else best
        return best

    def falls(self, low, high):
        """The part of the volume that is covered, and how far the score falls at each of its voxels."""
        shape = np.array(self.x.shape)
        start = self.around((low + high) / 2)
        seen = np.zeros(self.size, np.float32)
        inner = [slice(max(0, -s), min(n, length - s)) for s, n, length in zip(start, self.size, shape)]
        seen[tuple(inner)] = self.x[tuple(slice(i.start + s, i.stop + s) for i, s in zip(inner, start))]
        whole = self.score(seen, start, low, high)
        patch, stride = (np.array(self.explanation[name][::-1]) for name in ('patch', 'stride'))
        fill = self.x.mean(dtype=np.float64) if self.explanation['fill'] == 'mean' else self.explanation['fill']
        part, places = [], []
        for n in range(3):
            reach = [np.floor(low[n] + 0.5) - start[n] - patch[n], np.ceil(high[n] + 0.5) - start[n] + patch[n]]
            first, end = int(max(reach[0], inner[n].start)), int(min(reach[1], inner[n].stop))
            part.append(slice(first, end))
            last = end - first - min(patch[n], end - first)
            places.append([first + min(m * stride[n], last) for m in range(-(-last // stride[n]) + 1)])
        sums, times = np.zeros(self.size), np.zeros(self.size)
        for place in itertools.product(*places):
            box = tuple(slice(p, min(p + n, s.stop)) for p, n, s in zip(place, patch, part))
            covered = seen.copy()
            covered[box] = fill
            sums[box] += whole - self.score(covered, start, low, high)
            times[box] += 1
        need((times[tuple(part)] > 0).all() and times.sum() == times[tuple(part)].sum(), 'not each voxel of the part is covered')
        return tuple(slice(p.start + s, p.stop + s) for p, s in zip(part, start)), (sums / np.maximum(times, 1))[tuple(part)]


def check(case):
    manifest = tomllib.loads((case / 'package/model.toml').read_text())
    folder = next((case / 'results').rglob('findings.json')).parent
    document = json.loads((folder / 'findings.json').read_text())
    patches = Patches(case, manifest)
    expected = np.zeros(patches.x.shape)
    present = [f for f in document['findings'] if f['present']]
    most = manifest['explanation'].get('objects', 5)
    for finding in sorted(present, key=lambda f: -f['certainty_percent'])[:most]:
        centre = (np.array(finding['place']['centre_lps_mm'])[::-1] - patches.origin) / patches.spacing
        half = np.zeros(3)
        if finding['place']['box']:
            half = np.array(finding['place']['box']['sides_mm'])[::-1] / patches.spacing / 2
        part, falls = patches.falls(centre - half, centre + half)
        expected[part] = np.maximum(expected[part], falls)
    [entry] = document['maps']
    need(entry['name'] == 'occlusion: nodule', f'{case.name}: {entry}')
    need(not dciodvfy_errors(folder / entry['file']), f'{case.name}: {dciodvfy_errors(folder / entry["file"])}')
    data = pydicom.dcmread(folder / entry['file'])
    values = np.frombuffer(data.FloatPixelData, '<f4').reshape(-1, *expected.shape[1:])
    found = np.zeros(expected.shape)
    for frame, group in zip(values, data.PerFrameFunctionalGroupsSequence):
        z = float(group.PlanePositionSequence[0].ImagePositionPatient[2])
        found[round((z - patches.origin[0]) / patches.spacing[0])] = frame
    off = np.abs(found - expected).max()
    need(off < 1e-5 and expected.max() > 0.3, f'{case.name}: off by {off}, up to {expected.max():.2f}')
    left_out = [note for note in document['provenance']['geometry'] if 'are explained' in note]
    need(len(left_out) == (len(present) > most), f'{case.name}: {document["provenance"]["geometry"]}')
    need('occlusion: nodule' in (folder / 'report.html').read_text(), f'{case.name}: the page has no map')
    told.append(f'{case.name}: {(expected != 0).sum()} voxels of {min(len(present), most)} objects, off by at most {off:.1e}')


for case in sorted(p for p in Path(sys.argv[1]).iterdir() if p.is_dir()):
    check(case)
print('\n'.join(problems or told))
sys.exit(bool(problems) or not told)
