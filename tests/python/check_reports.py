#!/usr/bin/env python3
"""Hold reports on random findings against findings.json, as highdicom reads them.

usage: check_reports.py STUDY_DIR RESULTS_DIR

For every folder of RESULTS_DIR: dciodvfy and dsrdump find no error; each finding is exactly one measurement group of the reports on regions
and on the study, with the same tracking, codes, numbers, units, certainty, presence and references. Exit 0, or 1 with every reason.
"""
import json
import math
import sys
from pathlib import Path

import highdicom as hd
import pydicom

from programs import dciodvfy_errors, dsrdump_complaints

study, results = Path(sys.argv[1]), Path(sys.argv[2])
problems, groups_read = [], 0
SOURCE = {pydicom.dcmread(p, stop_before_pixels=True).SOPInstanceUID for p in study.glob('*') if p.is_file()}


def code(c):
    return c and (c.value, c.scheme_designator, c.meaning)


def wanted(c):
    return c and (c['value'], c['scheme'], c['meaning'])


def children(group, name, value_type=None):
    return [i for i in group if i.name.value == name and (value_type is None or i.ValueType == value_type)]


def read(path):
    """The report. highdicom 0.28 fails on a number that could not be computed (an empty Measured Value Sequence, as PS3.3 C.18.1 has it):
    such numbers get a value here, and are known by their qualifier."""
    dataset = pydicom.dcmread(path)

    def fill(item):
        if item.get('ValueType') == 'NUM' and not item.MeasuredValueSequence:
            value = pydicom.Dataset()
            value.NumericValue = '0'
            value.MeasurementUnitsCodeSequence = [hd.sr.CodedConcept('1', 'UCUM', 'no units')]
            item.MeasuredValueSequence = [value]
        for child in item.get('ContentSequence', []):
            fill(child)

    fill(dataset)
    return hd.sr.Comprehensive3DSR.from_dataset(dataset, copy=False)


def number(item):
    """Value and unit; the value is the exact one."""
    if hasattr(item, 'NumericValueQualifierCodeSequence'):
        return None, None
    measured = item.MeasuredValueSequence
    exact = measured[0].FloatingPointValue
    decimal = float(measured[0].NumericValue)
    unit = measured[0].MeasurementUnitsCodeSequence[0]
    if not math.isclose(exact, decimal, rel_tol=1e-6, abs_tol=1e-300):
        problems.append(f'Numeric Value {decimal} is not {exact}')
    return exact, (unit.CodeValue, unit.CodingSchemeDesignator, unit.CodeMeaning)


def modifier(item, name):
    found = [c for c in getattr(item, 'ContentSequence', []) if c.ConceptNameCodeSequence[0].CodeValue == name]
    if not found:
        return None
    if found[0].RelationshipType != 'HAS CONCEPT MOD':
        problems.append(f'{name} is {found[0].RelationshipType}')
    c = found[0].ConceptCodeSequence[0]
    return c.CodeValue, c.CodingSchemeDesignator, c.CodeMeaning


def check_group(where, group, finding, kind, seg, segment_of):
    global groups_read
    groups_read += 1

    def same(what, got, want):
        if got != want:
            problems.append(f'{where}: {finding["name"]}: {what} is {got}, not {want}')

    same('tracking identifier', group.tracking_identifier, finding['name'])
    same('finding', code(group.finding_type), wanted(finding['finding_type']))
    same('category', code(group.finding_category), wanted(finding['category']))
    sites = group.finding_sites
    same('site', code(sites[0].value) if sites else None, wanted(finding['site']))
    if sites:
        same('laterality', code(sites[0].laterality), wanted(finding['laterality']))
    group_items = list(group[0].ContentSequence)
    numbers = [i for i in group_items if i.ValueType == 'NUM']
    certainty_code = '111012' if finding['present'] else 'PRESENCE-PROB'
    certainty = [i for i in numbers if i.name.value == certainty_code]
    same('certainty', [number(i)[0] for i in certainty], [finding['certainty_percent']] if finding['certainty_percent'] is not None else [])
    rest = [i for i in numbers if i.name.value != certainty_code]
    if kind != '1410':
        counted = finding['measurements'] if finding['present'] or finding['segment'] is None else []
        same('number of numbers', len(rest), len(counted))
        for item, want in zip(rest, counted):
            value, unit = number(item)
            same('concept', code(item.name), wanted(want['concept']))
            same('value', value, want['value'])
            if want['value'] is None:
                same('qualifier', item.NumericValueQualifierCodeSequence[0].CodeValue, '114006')
            else:
                same('unit', unit, wanted(want['unit']))
            same('derivation', modifier(item, '121401'), wanted(want['derivation']))
            same('method', modifier(item, '370129005'), wanted(want['method']))
    answers = {i.name.value: i.value.value for i in group_items if i.ValueType == 'CODE'}
    for evaluation in finding['evaluations']:
        same('answer', answers.get(evaluation['question']['value']), evaluation['answer']['value'])
    if kind == '1501':
        same('presence', answers.get('121052'), '52101004' if finding['present'] else '272519000')
    if kind == '1411' and 'place' in finding:
        same('kind of region', type(group.roi).__name__, 'VolumeSurface')
    elif kind == '1411':
        reference = group.referenced_segment
        same('segmentation', reference.referenced_sop_instance_uid, seg.SOPInstanceUID)
        same('segment', list(reference.referenced_segment_numbers), [finding['segment_number']])
        same('segment tracking', segment_of[finding['segment_number']].TrackingUID, finding['tracking_uid'])
    if kind == '1410':
        image = group.roi.ContentSequence[0].ReferencedSOPSequence[0]
        same('key image is a source image', image.ReferencedSOPInstanceUID in SOURCE, True)


for folder in sorted(p for p in results.iterdir() if (p / 'findings.json').is_file()):
    document = json.loads((folder / 'findings.json').read_text())
    findings = {f['tracking_uid']: f for f in document['findings']}
    seg = hd.seg.segread(folder / 'seg.dcm') if (folder / 'seg.dcm').exists() else None
    segment_of = {s.SegmentNumber: s for s in seg.SegmentSequence} if seg else {}
    seen = {'sr.dcm': [], 'sr-study.dcm': [], 'sr-outlines.dcm': []}
    for name in seen:
        path = folder / name
        if not path.exists():
            continue
        where = f'{folder.name}/{name}'
        problems += [f'{where}: dciodvfy: {line}' for line in dciodvfy_errors(path)]
        problems += [f'{where}: dsrdump: {line}' for line in dsrdump_complaints(path)]
        report = read(path)
        earlier = [i for s in report.get('PredecessorDocumentsSequence', []) for r in s.ReferencedSeriesSequence for i in r.ReferencedSOPSequence]
        if len(earlier) != len(document.get('predecessors', earlier)):
            problems.append(f'{where}: {len(earlier)} predecessors')
        content = report.content
        kinds = {'1411': content.get_volumetric_roi_measurement_groups(), '1410': content.get_planar_roi_measurement_groups(),
                 '1501': content.get_image_measurement_groups()}
        if sum(bool(groups) for groups in kinds.values()) != 1:
            problems.append(f'{where}: kinds of groups: { {k: len(g) for k, g in kinds.items()} }')
        for kind, groups in kinds.items():
            for group in groups:
                uid = group.tracking_uid
                seen[name].append(uid)
                check_group(where, group, findings[uid], kind, seg, segment_of)
    once = seen['sr.dcm'] + seen['sr-study.dcm']
    if sorted(once) != sorted(findings):
        problems.append(f'{folder.name}: {len(once)} groups for {len(findings)} findings')
    if (folder / 'sr-outlines.dcm').exists() and sorted(seen['sr-outlines.dcm']) != sorted(u for u, f in findings.items() if f['segment_number'] or 'place' in f):
        problems.append(f'{folder.name}: outlines of other findings than those with a segment or a place')

print('\n'.join(problems[:60]) or f'{groups_read} measurement groups read as the JSON says')
sys.exit(1 if problems else 0)
