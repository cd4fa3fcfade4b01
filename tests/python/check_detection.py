#!/usr/bin/env python3
"""Hold the objects that a detector found against SciPy's components of the series, in every form of the result.

usage: check_detection.py SCHEMA FOLDER

For every case below FOLDER (study/, package/ with the graph of make_detector.py, results/): the objects are the components of what the formula
calls a nodule, with the formula's scores, those that reach the package's threshold in falling order, as many as it reports; findings.json,
SEG, Label Map, structure set, presentation states, SR, CSV and FHIR have each of them once, under its own name and tracking UID, with its
voxels, volume, diameters and certainty. dciodvfy finds no error in any object. Exit 0, or 1 with every reason.
"""
import csv
import json
import sys
import tomllib
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
from jsonschema import Draft202012Validator
from scipy import ndimage
from scipy.spatial.distance import pdist

from programs import dciodvfy_errors

validator = Draft202012Validator(json.loads(Path(sys.argv[1]).read_text()))
problems, counts = [], {'objects': 0, 'left out': 0, 'files': 0}


def need(holds, text):
    if not holds:
        problems.append(text)


class Study:
    def __init__(self, folder):
        self.slices = sorted((pydicom.dcmread(p) for p in folder.iterdir()), key=lambda d: float(d.ImagePositionPatient[2]))
        self.hu = np.stack([d.pixel_array * float(d.RescaleSlope) + float(d.RescaleIntercept) for d in self.slices])
        heights = [float(d.ImagePositionPatient[2]) for d in self.slices]
        self.spacing = np.array([heights[1] - heights[0], *map(float, self.slices[0].PixelSpacing)])
        self.place = {d.SOPInstanceUID: k for k, d in enumerate(self.slices)}


def objects_of(hu, instances):
    """Masks and scores of the components, in the order of a result: those that are reported, and how many others reach the threshold."""
    probability = np.maximum(1 - np.abs(hu / 1000 - 1), 0)
    numbers, count = ndimage.label((hu > 500) & (hu < 1500), np.ones((3, 3, 3)))
    score = np.max if instances['score'] == 'maximum-probability' else np.mean
    # Equal but for the rounding of a mean are equal: the first one in memory comes first.
    scored = [(-round(float(score(probability[numbers == n])), 9), n) for n in range(1, count + 1)]
    reached = sorted(s for s in scored if -s[0] >= instances['min_score'])
    counts['left out'] += count - len(reached)
    most = instances['max_count']
    return [(numbers == n, -s) for s, n in reached[:most]], len(reached[most:])


def planes(dataset, study):
    """Frames with the slice that each lies on, and its groups."""
    frames = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns)
    for frame, groups in zip(frames, dataset.PerFrameFunctionalGroupsSequence):
        source = groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        yield study.place[source], frame, groups


def segments_of(folder, study):
    """What each segment number covers, by SEG and by Label Map, which must agree; and the descriptions."""
    seg, label_map = (pydicom.dcmread(folder / name) for name in ('seg.dcm', 'labelmap.dcm'))
    masks = {int(s.SegmentNumber): np.zeros(study.hu.shape, bool) for s in seg.SegmentSequence}
    for k, frame, groups in planes(seg, study):
        masks[int(groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber)][k] = frame != 0
    labels = np.zeros(study.hu.shape, np.uint8)
    for k, frame, _ in planes(label_map, study):
        labels[k] = frame
    for number, mask in masks.items():
        need(np.array_equal(labels == number, mask), f'{folder}: segment {number} differs in the label map')
    return masks, {int(s.SegmentNumber): s for s in seg.SegmentSequence}


def check_numbers(where, finding, mask, study):
    values, points = study.hu[mask], np.argwhere(mask) * study.spacing
    flat = [points[points[:, 0] == z][:, 1:] for z in np.unique(points[:, 0])]
    far = lambda p: pdist(p).max() if len(p) > 1 else 0.0
    want = {
        ('118565006', None): mask.sum() * study.spacing.prod() / 1000, ('112031', '373098007'): values.mean(), ('112031', '386136009'): values.std(),
        ('81827009', '56851009'): far(points), ('103339001', None): max(map(far, flat)),
    }
    got = {(m['concept']['value'], m['derivation'] and m['derivation']['value']): m['value'] for m in finding['measurements']}
    short = got.pop(('103340004', None))
    need(0 <= short <= want[('103339001', None)] + 1e-9, f'{where}: a short axis of {short} mm')
    need(set(got) == set(want), f'{where}: numbers {set(got)}')
    for key, value in want.items():
        need(abs(got.get(key, np.nan) - value) <= 1e-6 * max(1, abs(value)), f'{where}: {key} is {got.get(key)}, not {value}')


def certainties(groups):
    """What SR groups say of certainty, by tracking UID."""
    return {g.tracking_uid: [float(m.value) for m in g.get_measurements() if m.name.value == '111012'] for g in groups}


def check_forms(where, folder, found):
    """Each object once under its name in the forms that name it."""
    names, uids = [f['name'] for f in found], [f['tracking_uid'] for f in found]
    percent = {f['tracking_uid']: f['certainty_percent'] for f in found}
    report = hd.sr.srread(folder / 'sr.dcm').content.get_volumetric_roi_measurement_groups()
    need(sorted(g.tracking_identifier for g in report) == sorted(names), f'{where}: names of SR groups')
    for uid, said in certainties(report).items():
        want = [] if percent[uid] is None else [percent[uid]]
        need(np.allclose(said, want, rtol=1e-9) if len(said) == len(want) else False, f'{where}: SR certainty {said}, not {want}')
    rois = pydicom.dcmread(folder / 'rtstruct.dcm')
    need(sorted(r.ROIName for r in rois.StructureSetROISequence) == sorted(names), f'{where}: names of regions of interest')
    layers = [l.GraphicLayerDescription for p in folder.glob('gsps*.dcm') for l in pydicom.dcmread(p).GraphicLayerSequence]
    need(sorted(layers) == sorted(names), f'{where}: layers of presentation states {layers}')
    outlines = hd.sr.srread(folder / 'sr-outlines.dcm').content.get_planar_roi_measurement_groups()
    need(sorted(g.tracking_uid for g in outlines) == sorted(uids), f'{where}: outlines')
    rows = list(csv.DictReader((folder / 'findings.csv').open(newline='')))
    for finding in found:
        own = [r for r in rows if r['tracking_uid'] == finding['tracking_uid']]
        said = {r['certainty_percent'] for r in own}
        want = '' if finding['certainty_percent'] is None else finding['certainty_percent']
        need(len(own) == len(finding['measurements']) and len(said) == 1 and (float(s) if (s := said.pop()) else '') == want, f'{where}: CSV')
    entries = [e['resource'] for e in json.loads((folder / 'fhir-r4.json').read_text())['entry']]
    observed = {i['value'].removeprefix('urn:oid:') for e in entries for i in e.get('identifier', [])}
    need(set(uids) <= observed, f'{where}: FHIR lacks {set(uids) - observed}')
    page = (folder / 'report.html').read_text()
    need(all(f'>{name}<' in page for name in names), f'{where}: names on the page')


def check(case):
    study, where = Study(case / 'study'), case.name
    manifest = tomllib.loads((case / 'package/model.toml').read_text())
    described = next(f for f in manifest['finding'] if 'instances' in f)
    folder = next((case / 'results').rglob('findings.json')).parent
    document = json.loads((folder / 'findings.json').read_text())
    problems.extend(f'{where}: {e.json_path}: {e.message}' for e in validator.iter_errors(document))
    want, beyond = objects_of(study.hu, described['instances'])
    found = [f for f in document['findings'] if f['present']]
    got = [f for f in found if f['finding_type']['value'] == described['type']['value']]
    absent = [f['name'] for f in document['findings'] if not f['present']]
    need([f['name'] for f in got] == [f'{described["name"]} {n + 1}' for n in range(len(want))], f'{where}: {[f["name"] for f in got]}')
    need((described['name'] in absent) == (not want), f'{where}: absent are {absent}')
    need([f['segment'] for f in got] == list(range(described['segment'], described['segment'] + len(want))), f'{where}: segments')
    need(len({f['tracking_uid'] for f in document['findings']}) == len(document['findings']), f'{where}: a tracking UID twice')
    told = [w for w in document['warnings'] if w.startswith(f'{len(want) + beyond} objects of `{described["name"]}`')]
    need(len(told) == bool(beyond), f'{where}: {beyond} objects are not reported: {document["warnings"]}')
    said = {p['name']: p['value'] for p in document['provenance']['parameters']}
    for key, value in described['instances'].items():
        text = said.get(f'finding.{described["name"]}.instances.{key}')
        need(text == str(value), f'{where}: parameter {key} is {text}')
    files = sorted(folder.glob('*.dcm'))
    counts['files'] += len(files)
    problems.extend(f'{where} {path.name}: {line}' for path in files for line in dciodvfy_errors(path))
    need((folder / 'seg.dcm').exists() == bool(found), f'{where}: a segmentation of nothing, or none')
    if not found:
        groups = hd.sr.srread(folder / 'sr-study.dcm').content.get_image_measurement_groups()
        need(sorted(g.tracking_identifier for g in groups) == sorted(absent), f'{where}: absent in the report')
        return
    masks, segments = segments_of(folder, study)
    for finding, (mask, score) in zip(got, want):
        counts['objects'] += 1
        at, number = f'{where}: {finding["name"]}', finding['segment_number']
        need(np.array_equal(masks[number], mask), f'{at}: {masks[number].sum()} voxels, not {mask.sum()}')
        need(abs(finding['certainty_percent'] - 100 * score) < 1e-4, f'{at}: {finding["certainty_percent"]} %, not {100 * score}')
        need((segments[number].SegmentLabel, segments[number].TrackingUID) == (finding['name'], finding['tracking_uid']), f'{at}: its segment')
        check_numbers(at, finding, mask, study)
    check_forms(where, folder, found)


for case in sorted(p for p in Path(sys.argv[2]).iterdir() if p.is_dir()):
    try:
        check(case)
    except Exception as error:
        problems.append(f'{case.name}: {type(error).__name__}: {error}')
need(counts['objects'] > 0, 'nothing to compare')
print('\n'.join(problems[:60]) or ', '.join(f'{value} {name}' for name, value in counts.items()) + ': as SciPy says')
sys.exit(1 if problems else 0)
