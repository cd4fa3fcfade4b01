#!/usr/bin/env python3
"""Hold the boxes and points that a network gave against the blocks in the pixels of the series, in every form of the result.

usage: check_boxes.py SCHEMA FOLDER

For every case below FOLDER (study/, package/ with a graph of make_boxes.py, results/): the findings are the blocks that SciPy finds in the stored
pixels, placed by the slices' own positions and orientations: scores in falling order, as many as the package reports; centres, sides and corners;
findings.json, both reports, key objects, presentation states, captures, CSV, FHIR and the picture have each of them where it is. There is no
segmentation. dciodvfy finds no error in any object. Exit 0, or 1 with every reason.
"""
import csv
import itertools
import json
import sys
import tomllib
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
from jsonschema import Draft202012Validator
from PIL import Image
from scipy import ndimage

from programs import dciodvfy_errors, dsrdump_complaints

validator = Draft202012Validator(json.loads(Path(sys.argv[1]).read_text()))
problems, counts = [], {'boxes': 0, 'points': 0, 'rectangles': 0, 'files': 0}
worst = {'centre mm': 0.0, 'corner mm': 0.0}
# Positions in the files have three digits after the point.
TOLERANCE_MM = 0.01


def need(holds, text):
    if not holds:
        problems.append(text)


def near(what, got, want, where, tolerance=TOLERANCE_MM):
    off = float(np.abs(np.asarray(got, float) - np.asarray(want, float)).max())
    if what in worst:
        worst[what] = max(worst[what], off)
    need(off <= tolerance, f'{where}: {what}: {np.round(got, 3).tolist()}, not {np.round(want, 3).tolist()}')


class Study:
    def __init__(self, folder):
        slices = [pydicom.dcmread(p) for p in folder.iterdir()]
        iop = np.array(slices[0].ImageOrientationPatient, float)
        self.across, self.down, self.normal = iop[:3], iop[3:], np.cross(iop[:3], iop[3:])
        self.slices = sorted(slices, key=lambda d: self.normal @ np.array(d.ImagePositionPatient, float))
        self.first = np.array(self.slices[0].ImagePositionPatient, float)
        row_mm, column_mm = map(float, self.slices[0].PixelSpacing)
        step = np.array(self.slices[1].ImagePositionPatient, float) - self.first
        self.step = [step, self.down * row_mm, self.across * column_mm]
        self.spacing = np.array([np.linalg.norm(step), row_mm, column_mm])
        self.hu = np.stack([d.pixel_array * float(d.RescaleSlope) + float(d.RescaleIntercept) for d in self.slices])
        self.place = {d.SOPInstanceUID: k for k, d in enumerate(self.slices)}
        self.frame_of_reference = self.slices[0].FrameOfReferenceUID

    def lps(self, kji):
        return self.first + sum(v * step for v, step in zip(kji, self.step))


class Block:
    def __init__(self, study, where, hu):
        self.low = np.array([s.start for s in where], float) - 0.5
        self.high = np.array([s.stop for s in where], float) - 0.5
        self.middle = (self.low + self.high) / 2
        self.centre = study.lps(self.middle)
        self.sides = (self.high - self.low) * study.spacing
        self.corners = np.array([study.lps(c) for c in itertools.product(*zip(self.low, self.high))])
        self.score = hu / 1000
        # The class of two: long along the columns' axis, or not.
        self.is_long = self.high[2] - self.low[2] > 8


def blocks_of(study):
    labelled, _ = ndimage.label(study.hu > 300)
    return [Block(study, where, study.hu[where].max()) for where in ndimage.find_objects(labelled)]


def corner_set(points):
    points = np.asarray(points, float).round(2)
    return points[np.lexsort(points.T)]


def check_place(where, finding, block, study, is_point):
    place = finding['place']
    near('centre mm', place['centre_lps_mm'], block.centre, where)
    if is_point:
        counts['points'] += 1
        need(place['box'] is None and finding['measurements'] == [], f'{where}: a point with a size')
        return
    counts['boxes'] += 1
    axes, sides = np.array(place['box']['axes_lps']), np.array(place['box']['sides_mm'])
    near('axes', axes @ axes.T, np.eye(3), where, 1e-5)
    corners = [place['centre_lps_mm'] + np.array(signs) * sides / 2 @ axes for signs in itertools.product((-1, 1), repeat=3)]
    near('corner mm', corner_set(corners), corner_set(block.corners), where, 0.02)
    near('sides', sorted(sides), sorted(block.sides), where)
    numbers = {m['concept']['value']: m['value'] for m in finding['measurements']}
    want = dict(zip(('BOX-EXTENT-I', 'BOX-EXTENT-J', 'BOX-EXTENT-K'), sides)) | {'BOX-LONGEST-SIDE': sides.max()}
    need(numbers == want and {m['unit']['value'] for m in finding['measurements']} == {'mm'}, f'{where}: numbers {numbers}')


def check_report(where, folder, expected, study, is_point):
    """TID 1411: the surface in the patient; TID 1410: the rectangle, or point, on the image nearest to the centre."""
    groups = {g.tracking_uid: g for g in hd.sr.srread(folder / 'sr.dcm').content.get_volumetric_roi_measurement_groups()}
    planar = {g.tracking_uid: g for g in hd.sr.srread(folder / 'sr-outlines.dcm').content.get_planar_roi_measurement_groups()}
    need(set(groups) == set(planar) == {f['tracking_uid'] for f, _ in expected}, f'{where}: groups of other findings')
    frames = set()
    for finding, block in expected:
        at = f'{where}: {finding["name"]}'
        surface, group = groups[finding['tracking_uid']].roi, groups[finding['tracking_uid']]
        need(surface.frame_of_reference_uid == study.frame_of_reference, f'{at}: frame of reference')
        said = [float(m.value) for g in (group, planar[finding['tracking_uid']]) for m in g.get_measurements() if m.name.value == '111012']
        near('certainty', said, [100 * block.score] * 2, at, 1e-3)
        region = planar[finding['tracking_uid']].roi
        image = region.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        k = study.place[image]
        frames.add(k)
        need(abs(k - block.middle[0]) <= 0.5 + 1e-6, f'{at}: slice {k}, and its centre lies at {block.middle[0]}')
        points = np.asarray(region.value, float)
        if is_point:
            near('point mm', surface.graphic_data[0].reshape(-1), block.centre, at)
            need(region.graphic_type.value == 'POINT', f'{at}: {region.graphic_type}')
            near('point', points.reshape(-1), block.middle[:0:-1] + 0.5, at)
            continue
        faces = [np.asarray(g) for g in surface.graphic_data]
        need(len(faces) == 6 and all(len(f) == 5 and (f[0] == f[-1]).all() for f in faces), f'{at}: faces')
        for face in faces:
            edges = np.diff(face, axis=0)
            need(abs(np.linalg.det(edges[:3])) < 1e-2 and abs(edges[0] @ edges[1]) < 1e-2, f'{at}: a face is no rectangle')
        corners = np.concatenate([f[:4] for f in faces])
        need(all(np.linalg.norm(corners - c, axis=1).min() < 0.02 for c in block.corners), f'{at}: a corner is not there')
        need(all(np.linalg.norm(block.corners - c, axis=1).min() < 0.02 for c in corners), f'{at}: a corner is none')
        counts['rectangles'] += 1
        rectangle = [points[:, 0].min(), points[:, 0].max(), points[:, 1].min(), points[:, 1].max()]
        need(len(points) == 5 and (points[0] == points[-1]).all(), f'{at}: an open outline')
        near('rectangle', rectangle, np.array([block.low[2], block.high[2], block.low[1], block.high[1]]) + 0.5, at)
    return frames


def check_marks(where, folder, expected, study, frames):
    selection = pydicom.dcmread(folder / 'ko.dcm')
    selected = {study.place[i.ReferencedSOPSequence[0].ReferencedSOPInstanceUID] for i in selection.ContentSequence if i.ValueType == 'IMAGE'}
    need(selected == frames, f'{where}: key images {selected}, not {frames}')
    need(len(list(folder.glob('sc-*.dcm'))) == min(len(frames), 20), f'{where}: captures')
    seen = {}
    for path in folder.glob('gsps*.dcm'):
        state = pydicom.dcmread(path)
        names = {l.GraphicLayer: l.GraphicLayerDescription for l in state.GraphicLayerSequence}
        for annotation in state.GraphicAnnotationSequence:
            [drawn] = annotation.GraphicObjectSequence
            points = np.array(drawn.GraphicData, float).reshape(-1, 2)
            seen.setdefault(names[annotation.GraphicLayer], []).append((study.place[annotation.ReferencedImageSequence[0].ReferencedSOPInstanceUID], points))
    need(set(seen) == {f['name'] for f, _ in expected}, f'{where}: marked are {sorted(seen)}')
    for finding, block in expected:
        for k, points in seen.get(finding['name'], []):
            need(block.low[0] - 0.5 <= k <= block.high[0] + 0.5, f'{where}: {finding["name"]} marked on slice {k}')
            near('mark', points.mean(axis=0) if len(points) == 1 else points[:4].mean(axis=0), block.middle[:0:-1] + 0.5, where)


def check_others(where, folder, document, expected):
    rows = list(csv.DictReader((folder / 'findings.csv').open(newline='')))
    of_all = list(csv.DictReader((folder.parent / 'findings.csv').open(newline='')))
    report = {r['file']: r['sop_instance_uid'] for r in document['results']}['sr.dcm']
    entries = [e['resource'] for e in json.loads((folder / 'fhir-r4.json').read_text())['entry']]
    page = (folder / 'report.html').read_text()
    picture = np.asarray(Image.open(folder / 'overview.png').convert('RGB')).reshape(-1, 3)
    for finding, block in expected:
        at = f'{where}: {finding["name"]}'
        own = [r for r in rows if r['tracking_uid'] == finding['tracking_uid']]
        need(len(own) == max(len(finding['measurements']), 1) and {r['sr_sop_instance_uid'] for r in own} == {report}, f'{at}: CSV')
        one_of_all = of_all[document['findings'].index(finding)]
        for row in [own[0], one_of_all]:
            near('CSV', [float(row[f'centre_{axis}_mm']) for axis in 'lps'], block.centre, at)
        need(not own[0]['segment_number'] and not own[0]['seg_sop_instance_uid'], f'{at}: CSV names a segment')
        observed = [e for e in entries if any(i['value'] == f'urn:oid:{finding["tracking_uid"]}' for i in e.get('identifier', []))]
        parts = {c['code']['coding'][0]['code']: c['valueQuantity']['value'] for e in observed for c in e['component']}
        near('FHIR', [parts.get(f'CENTRE-{axis}', np.nan) for axis in 'LPS'], block.centre, at)
        near('FHIR certainty', [parts.get('111012', np.nan)], [100 * block.score], at, 1e-3)
        need(f'>{finding["name"]}<' in page, f'{at}: not on the page')
    for colour in {tuple(f['colour']) for f, _ in expected[:1]}:
        need((picture == colour).all(axis=1).sum() > 30, f'{where}: nothing is drawn in {colour}')


def check(case):
    study, where = Study(case / 'study'), case.name
    manifest = tomllib.loads((case / 'package/model.toml').read_text())
    is_point = len(manifest['output']['boxes']['columns']) == 3
    folder = next((case / 'results').rglob('findings.json')).parent
    document = json.loads((folder / 'findings.json').read_text())
    problems.extend(f'{where}: {e.json_path}: {e.message}' for e in validator.iter_errors(document))
    blocks = sorted(blocks_of(study), key=lambda b: -b.score)
    expected = []
    names = []
    for described in manifest['finding']:
        own = [b for b in blocks if len(manifest['finding']) == 1 or b.is_long == (described['channel'] == 1)]
        counted = [b for b in own if b.score >= described['instances']['min_score'] - 1e-6]
        reported = counted[:described['instances']['max_count']]
        told = [w for w in document['warnings'] if w.startswith(f'{len(counted)} objects of `{described["name"]}`')]
        need(len(told) == (len(reported) < len(counted)), f'{where}: warnings {document["warnings"]}')
        if where == 'padding':
            continue
        by_name = {f['name']: f for f in document['findings']}
        wanted = [f'{described["name"]} {n + 1}' for n in range(len(reported))] or [described['name']]
        names += wanted
        need(set(wanted) <= set(by_name), f'{where}: {sorted(by_name)}')
        for name, block in zip(wanted, reported):
            finding = by_name[name]
            need(finding['present'] and finding['segment'] is None and finding['segment_number'] is None, f'{where}: {name} has voxels')
            near('score', [finding['certainty_percent']], [100 * block.score], f'{where}: {name}', 1e-3)
            check_place(f'{where}: {name}', finding, block, study, is_point)
            expected.append((finding, block))
        if not reported:
            need(not by_name[wanted[0]]['present'] and 'place' not in by_name[wanted[0]], f'{where}: what is absent has a place')
    if where == 'padding':
        # Ghosts at the start of each patch, none of them in what the patch is filled up with.
        ghosts = [f for f in document['findings'] if abs(f['certainty_percent'] - 97) < 1e-3]
        heights = {round(float((np.array(f['place']['centre_lps_mm']) - study.first) @ study.normal), 3) for f in ghosts}
        need(not ghosts, f'{where}: {len(ghosts)} ghosts at {heights}')
        need([round(f['certainty_percent']) for f in document['findings']] == [90, 80, 70, 64], f'{where}: other findings')
        return
    need([f['name'] for f in document['findings']] == names, f'{where}: {[f["name"] for f in document["findings"]]}')
    said = {p['name']: p['value'] for p in document['provenance']['parameters']}
    need(json.loads(said['output.boxes.columns']) == manifest['output']['boxes']['columns'], f'{where}: parameters')
    files = sorted(folder.glob('*.dcm'))
    counts['files'] += len(files)
    problems.extend(f'{where} {path.name}: {line}' for path in files for line in dciodvfy_errors(path))
    problems.extend(f'{where} {path.name}: {line}' for path in folder.glob('sr*.dcm') for line in dsrdump_complaints(path))
    voxels = [f.name for f in folder.iterdir() if f.name in ('seg.dcm', 'labelmap.dcm', 'rtstruct.dcm', 'labels.nii.gz')]
    need(not voxels, f'{where}: {voxels} of boxes')
    need(any(w.startswith('no segmentation') for w in document['warnings']) == bool(expected), f'{where}: {document["warnings"]}')
    if not expected:
        groups = hd.sr.srread(folder / 'sr-study.dcm').content.get_image_measurement_groups()
        need([g.tracking_identifier for g in groups] == names and not (folder / 'sr.dcm').exists(), f'{where}: absent in the report')
        return
    frames = check_report(where, folder, expected, study, is_point)
    check_marks(where, folder, expected, study, frames)
    check_others(where, folder, document, expected)


for case in sorted(p for p in Path(sys.argv[2]).iterdir() if p.is_dir()):
    try:
        check(case)
    except Exception as error:
        problems.append(f'{case.name}: {type(error).__name__}: {error}')
need(counts['boxes'] > 0 and counts['points'] > 0, 'nothing to compare')
told = ', '.join(f'{value} {name}' for name, value in counts.items()) + f': as SciPy says, to {worst}'
print('\n'.join(problems[:60]) or told)
sys.exit(1 if problems else 0)
