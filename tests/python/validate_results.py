#!/usr/bin/env python3
"""Hold a result folder of roentgen against other people's tools.

usage: validate_results.py SOURCE_DIR RESULT_DIR

dciodvfy (dicom3tools) and dsrdump (DCMTK) must find no error in SR and SEG; highdicom must read both, and what it reads must be
what findings.json says: every measurement with its value and unit, every segment's voxels, the source's geometry.
Exit 0, or 1 with every reason.
"""
import json
import sys
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom

from programs import dciodvfy_errors, dsrdump_complaints

source_dir, folder = Path(sys.argv[1]), Path(sys.argv[2])
findings = json.loads((folder / 'findings.json').read_text())
problems = []


def need(holds, text):
    if not holds:
        problems.append(text)


for name in ('sr.dcm', 'seg.dcm'):
    for line in dciodvfy_errors(folder / name):
        need(False, f'{name}: dciodvfy: {line}')
for line in dsrdump_complaints(folder / 'sr.dcm'):
    need(False, f'dsrdump: {line}')

source = {}
for path in source_dir.rglob('*'):
    if path.is_file():
        try:
            ds = pydicom.dcmread(path)
        except pydicom.errors.InvalidDicomError:
            continue
        if 'PixelData' in ds:
            source[ds.SOPInstanceUID] = ds
listed = {i['sop_instance_uid'] for i in findings['source_instances']}
need(listed == set(source), f'provenance lists {len(listed)} source instances, there are {len(source)}')

present = [f for f in findings['findings'] if f['present']]
groups = hd.sr.srread(folder / 'sr.dcm').content.get_volumetric_roi_measurement_groups()
need(len(groups) == len(present), f'{len(groups)} groups in the SR, {len(present)} findings in the JSON')
seg = hd.seg.segread(folder / 'seg.dcm')
for group, finding in zip(groups, present):
    need(group.tracking_identifier == finding['name'], f'{group.tracking_identifier} is not {finding["name"]}')
    need(group.finding_type.value == finding['finding_type']['value'], f'{finding["name"]}: another finding type')
    got = [(m.name.value, m.derivation.value if m.derivation is not None else None, float(m.value), m.unit.value)
           for m in group.get_measurements()]
    want = [(m['concept']['value'], m['derivation'] and m['derivation']['value'], m['value'], m['unit']['value'])
            for m in finding['measurements']]
    if finding['certainty_percent'] is not None:
        want.append(('111012', None, finding['certainty_percent'], '%'))
    need(len(got) == len(want), f'{finding["name"]}: {got} is not {want}')
    for g, w in zip(got, want):
        same = g[:2] == w[:2] and g[3] == w[3] and abs(g[2] - w[2]) <= 1e-6 * max(1.0, abs(w[2]))
        need(same, f'{finding["name"]}: SR has {g}, JSON has {w}')
    number = group.referenced_segment.referenced_segment_numbers[0]
    volume = seg.get_volume(segment_numbers=[number], combine_segments=False, allow_missing_positions=True)
    ml = float(volume.array.sum()) * float(np.prod(volume.spacing)) / 1000
    need(abs(ml - finding['measurements'][0]['value']) <= 1e-6 * ml, f'{finding["name"]}: {ml} ml in the SEG')

positions = [np.array(ds.ImagePositionPatient, float) for ds in source.values()]
for frame in seg.PerFrameFunctionalGroupsSequence:
    at = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
    need(min(np.linalg.norm(at - p) for p in positions) < 1e-6, f'a frame lies at {at}, where no source slice is')

first = next(iter(source.values()))
for name in ('sr.dcm', 'seg.dcm'):
    ds = pydicom.dcmread(folder / name)
    for key in ('PatientName', 'PatientID', 'PatientBirthDate', 'PatientSex', 'StudyInstanceUID', 'StudyDate', 'AccessionNumber'):
        need(ds.get(key) == first.get(key), f'{name}: {key} is not that of the source')
    equipment = ds.ContributingEquipmentSequence[0]
    version = findings['provenance']['package']['version']
    need(version in equipment.SoftwareVersions, f'{name}: Contributing Equipment does not name version {version}')

print('\n'.join(problems) or f'{len(groups)} groups and {len(seg.SegmentSequence)} segments are as findings.json says')
sys.exit(1 if problems else 0)
