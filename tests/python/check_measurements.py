#!/usr/bin/env python3
"""Measure the segments of results again, on the series that they are of.

usage: check_measurements.py STUDY_DIR RESULTS_DIR

For every folder of RESULTS_DIR: each number of findings.json is what SciPy, scikit-image and numpy say of its segment, and each number
has its row in findings.csv and its Observation in FHIR. Exit 0, or 1 with every reason.
"""
import csv
import json
import sys
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist
from skimage.measure import marching_cubes, mesh_surface_area

study, results = Path(sys.argv[1]), Path(sys.argv[2])
source = sorted((pydicom.dcmread(p) for p in study.glob('*') if p.is_file()), key=lambda d: float(d.ImagePositionPatient[2]))
image = np.stack([d.pixel_array * float(d.RescaleSlope) + float(d.RescaleIntercept) for d in source])
between_slices = float(source[1].ImagePositionPatient[2]) - float(source[0].ImagePositionPatient[2])
spacing = np.array([between_slices, *map(float, source[0].PixelSpacing)])
position = {d.SOPInstanceUID: k for k, d in enumerate(source)}
problems, compared, worst = [], 0, 0.0


def longest(points):
    return pdist(points[ConvexHull(points).vertices]).max()


def widest(points):
    """Long axis of points of a plane, and the longest line across it within their hull, of which one end is a corner."""
    corners = points[ConvexHull(points).vertices]
    distances = np.linalg.norm(corners[:, None] - corners[None], axis=2)
    best = 0.0
    for a, b in np.argwhere(distances >= distances.max() * (1 - 1e-9)):
        along = (corners[b] - corners[a]) / distances[a, b]
        t, s = corners @ along, corners @ np.array([-along[1], along[0]])
        for at in t:
            ends = [s[p] + (s[q] - s[p]) * (at - t[p]) / (t[q] - t[p]) if t[q] > t[p] else s[p]
                    for p in range(len(t)) for q in (p - 1, (p + 1) % len(t)) if t[p] <= at <= t[q]]
            best = max(best, max(ends) - min(ends))
    return distances.max(), best


def measured(mask):
    values = image[mask]
    points = np.argwhere(mask) * spacing
    axes = [widest(points[points[:, 0] == height][:, 1:]) for height in np.unique(points[:, 0]) if np.ptp(points[points[:, 0] == height], axis=0)[1:].all()]
    long_mm = max(axis[0] for axis in axes)
    vertices, triangles, _, _ = marching_cubes(np.pad(mask, 1).astype(np.float32), 0.5)
    vertices = vertices.astype(np.float64) * spacing
    a, b, c = (vertices[triangles[:, corner]] for corner in range(3))
    volume, area = abs(np.sum(a * np.cross(b, c))) / 6, mesh_surface_area(vertices, triangles)
    intensity = ('112031', 'DCM')
    return {
        (('118565006', 'SCT'), None, 'ml'): len(values) * np.prod(spacing) / 1000,
        (intensity, '373098007', "[hnsf'U]"): values.mean(),
        (intensity, '386136009', "[hnsf'U]"): values.std(),
        (intensity, '255605001', "[hnsf'U]"): values.min(),
        (intensity, '56851009', "[hnsf'U]"): values.max(),
        (intensity, '373099004', "[hnsf'U]"): np.median(values),
        (intensity, '371888009', "[hnsf'U]"): np.percentile(values, 5),
        (intensity, '371890005', "[hnsf'U]"): np.percentile(values, 10),
        (intensity, '371887004', "[hnsf'U]"): np.percentile(values, 90),
        (intensity, '371889001', "[hnsf'U]"): np.percentile(values, 95),
        (('81827009', 'SCT'), '56851009', 'mm'): longest(points),
        (('103339001', 'SCT'), None, 'mm'): long_mm,
        (('103340004', 'SCT'), None, 'mm'): max(axis[1] for axis in axes if axis[0] >= long_mm * (1 - 1e-9)),
        (('C0JK', 'IBSI'), None, 'mm2'): area,
        (('QCFX', 'IBSI'), None, '1'): (36 * np.pi * volume ** 2) ** (1 / 3) / area,
    }


for folder in sorted(path.parent for path in results.rglob('findings.json')):
    findings = json.loads((folder / 'findings.json').read_text())['findings']
    seg = hd.seg.segread(folder / 'seg.dcm')
    rows = list(csv.DictReader((folder / 'findings.csv').open(newline='')))
    observed = [entry['resource'] for entry in json.loads(next(folder.glob('fhir-r4.json')).read_text())['entry']]
    frames = seg.get_pixels_by_source_instance([d.SOPInstanceUID for d in source], ignore_spatial_locations=True, assert_missing_frames_are_empty=True)
    for number, finding in enumerate((f for f in findings if f['present']), 1):
        expected = measured(frames[..., number - 1] != 0)
        if len(finding['measurements']) != len(expected):
            problems.append(f'{finding["name"]}: {len(finding["measurements"])} numbers')
        for m in finding['measurements']:
            key = ((m['concept']['value'], m['concept']['scheme']), m['derivation'] and m['derivation']['value'], m['unit']['value'])
            if key not in expected:
                problems.append(f'{finding["name"]}: {key} was not asked for')
                continue
            compared += 1
            off = abs(m['value'] - expected[key]) / max(abs(expected[key]), 1)
            worst = max(worst, off)
            if off > 1e-9:
                problems.append(f'{finding["name"]}: {key} is {m["value"]}, not {expected[key]}')
            row = [r for r in rows if r['finding'] == finding['name'] and (r['concept_value'], r['concept_scheme']) == key[0]
                   and r['derivation_value'] == (key[1] or '') and r['unit_value'] == key[2]]
            if len(row) != 1 or float(row[0]['value']) != m['value']:
                problems.append(f'{finding["name"]}: {key} in findings.csv')
            fhir = [o for o in observed if o['resourceType'] == 'Observation' and o.get('valueQuantity', {}).get('value') == m['value']
                    and o['code']['coding'][0]['code'] == key[0][0] and o['valueQuantity']['code'] == key[2]]
            if not fhir:
                problems.append(f'{finding["name"]}: {key} in FHIR')
if not compared:
    problems.append('nothing to compare')
print('\n'.join(problems[:60]) or f'{compared} numbers measured again, off by at most {worst:.1e}')
sys.exit(1 if problems else 0)
