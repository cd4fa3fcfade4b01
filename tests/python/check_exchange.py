#!/usr/bin/env python3
"""Hold the forms for programs against each other and against their definitions.

usage: check_exchange.py SCHEMA RESULTS_DIR

Each folder in RESULTS_DIR is a result. findings.json must be valid by SCHEMA, and must not be when it is spoilt. findings.csv must have a row
for each number, answer and bare finding of findings.json, with the same values to the last bit.
Exit 0, or 1 with every reason.
"""
import copy
import csv
import json
import math
import re
import sys
from pathlib import Path

import pydicom
from jsonschema import Draft202012Validator

schema_path, results = Path(sys.argv[1]), Path(sys.argv[2])
problems = []
counts = {'documents': 0, 'spoilt': 0, 'rows': 0}


def need(holds, text):
    if not holds:
        problems.append(text)


# findings.json and its schema

def at(document, path):
    for step in path[:-1]:
        document = document[step]
    return document, path[-1]


def put(value, *path):
    def spoil(document):
        holder, key = at(document, path)
        holder[key] = value
    return spoil


def drop(*path):
    def spoil(document):
        holder, key = at(document, path)
        del holder[key]
    return spoil


F = ('findings', 0)
M = ('findings', 0, 'measurements', 0)
SPOIL = [
    put('findings', 'schema'), put(2, 'schema_version'), put('1', 'schema_version'), put('1.2.', 'study_instance_uid'),
    put('1' * 65, 'series_instance_uid'), put(0, 'modality'), put({}, 'source_instances'), put('abc', 'source_instances', 0, 'sha256'),
    put('Doe^John', 'source_instances', 0, 'sop_instance_uid'), put([0, 1, 1], 'grid', 'dims'), put([1, 1], 'grid', 'spacing_mm'),
    put([0, 1, 1], 'grid', 'spacing_mm'), put('XYZ', 'grid', 'orientation'), put([[1, 0, 0, 0]] * 2, 'grid', 'lps_mm_from_voxel'),
    put(0, *F, 'segment'), put(256, *F, 'segment'), put('1', *F, 'segment_number'), put([1, 2], *F, 'colour'), put([1, 2, 256], *F, 'colour'),
    put('liver', *F, 'category'), put({'value': '', 'scheme': 'SCT', 'meaning': 'x'}, *F, 'finding_type'),
    put({'value': '1', 'scheme': 'SCT'}, *F, 'site'), put('left', *F, 'laterality'), put('yes', *F, 'present'), put(101, *F, 'certainty_percent'),
    put(-1, *F, 'certainty_percent'), put({}, *F, 'evaluations'), put('nodule', *F, 'patient_name'), put('12.5', *M, 'value'),
    put({'value': 'ml', 'scheme': 'SCT', 'meaning': 'ml'}, *M, 'unit'), put(1, *M, 'error'), put('today', 'provenance', 'started'),
    put('1', 'provenance', 'package', 'sha256'), put('a/b', 'results', 0, 'file'), put('sr', 'results', 0, 'modality'), put([1], 'warnings'),
    put('../map.dcm', 'maps', 0, 'file'), put('x', 'predecessors', 0, 'sop_instance_uid'), put('1.0.0', 'package_version'), put('x', 'patient'),
    drop('schema'), drop('findings'), drop('grid'), drop('provenance'), drop('maps'), drop('predecessors'), drop('results'),
    drop(*F, 'tracking_uid'), drop(*F, 'present'), drop(*F, 'measurements'), drop(*M, 'unit'), drop(*M, 'value'), drop('provenance', 'started'),
]


def check_schema(where, document, validator):
    counts['documents'] += 1
    problems.extend(f'{where}: {error.json_path}: {error.message}' for error in validator.iter_errors(document))
    for n, spoil in enumerate(SPOIL):
        spoilt = copy.deepcopy(document)
        try:
            spoil(spoilt)
        except LookupError:
            continue  # that part is not in this document
        counts['spoilt'] += 1
        applied.add(n)
        need(not validator.is_valid(spoilt), f'{where}: spoilt in way {n}, and valid all the same')
    if 'source_file' in document:
        need(not validator.is_valid(document | {'study_instance_uid': '1.2.3'}), f'{where}: a file with a study is valid')
    else:
        need(not validator.is_valid(document | {'study_instance_uid': None}), f'{where}: a series without study is valid')


# findings.csv

NUMBERS = ('value', 'certainty_percent', 'centre_l_mm', 'centre_p_mm', 'centre_s_mm')


def text(value):
    """As a field holds it: on one line, and no formula."""
    value = ''.join(' ' if ord(c) < 32 or 127 <= ord(c) < 160 else c for c in value)
    return "'" + value if value.lstrip()[:1] in '=+-@' and value.strip() else value


def code(prefix, value):
    value = value or {'scheme': '', 'value': '', 'meaning': ''}
    return {f'{prefix}_{part}': text(value[part]) for part in ('scheme', 'value', 'meaning')}


def number(value):
    return '' if value is None else repr(float(value))


def rows_of(document, folder):
    uid_of = {o['file']: o['sop_instance_uid'] for o in document['results']}
    for finding in document['findings']:
        with_segment = finding['segment_number'] is not None and 'source_file' not in document
        centre = finding['place']['centre_lps_mm'] if 'place' in finding else [None] * 3
        in_space = 'place' in finding and 'source_file' not in document
        head = {
            'study_instance_uid': document['study_instance_uid'] or '', 'series_instance_uid': document['series_instance_uid'] or '',
            'source_file_sha256': document.get('source_file', {}).get('sha256', ''), 'package': document['provenance']['package']['name'],
            'package_version': document['package_version'],
            'started': re.sub(r'\.\d+', '', document['provenance']['started'].split('[')[0]),  # to the second
            'finding': text(finding['name']), 'tracking_uid': finding['tracking_uid'], 'present': str(finding['present']).lower(),
            'certainty_percent': number(finding['certainty_percent']), 'segment_number': str(finding['segment_number']) if with_segment else '',
            'sr_sop_instance_uid': uid_of.get('sr.dcm' if in_space or (with_segment and 'seg.dcm' in uid_of) else 'sr-study.dcm', ''),
            'centre_l_mm': number(centre[0]), 'centre_p_mm': number(centre[1]), 'centre_s_mm': number(centre[2]),
            'seg_sop_instance_uid': uid_of.get('seg.dcm', '') if with_segment else '',
        }
        for prefix, key in (('category', 'category'), ('type', 'finding_type'), ('site', 'site'), ('laterality', 'laterality')):
            head |= code(prefix, finding[key])
        empty = code('concept', None) | code('derivation', None) | code('method', None) | code('unit', None) | code('answer', None) | {'value': ''}
        counted = finding['measurements'] if finding['present'] or finding['segment'] is None else []
        for m in counted:
            parts = {p: code(p, m[p]) for p in ('concept', 'derivation', 'method', 'unit')}
            yield head | empty | {'row': 'number', 'value': number(m['value'])} | {k: v for p in parts.values() for k, v in p.items()}
        for e in finding['evaluations']:
            yield head | empty | {'row': 'answer'} | code('concept', e['question']) | code('answer', e['answer'])
        if not counted and not finding['evaluations']:
            yield head | empty | {'row': 'finding'}


def check_csv(where, document, folder):
    data = (folder / 'findings.csv').read_bytes()
    lines = data.decode('utf-8').split('\r\n')
    need(lines.pop() == '', f'{where}: the last line does not end')
    need(all('\n' not in line and '\r' not in line for line in lines), f'{where}: a line break within a row')
    with open(folder / 'findings.csv', newline='', encoding='utf-8') as file:
        got = list(csv.DictReader(file, strict=True))
    need(len(got) + 1 == len(lines), f'{where}: {len(got)} rows in {len(lines)} lines')
    want = list(rows_of(document, folder))
    need(len(got) == len(want), f'{where}: {len(got)} rows, not {len(want)}')
    for n, (g, w) in enumerate(zip(got, want)):
        counts['rows'] += 1
        need(set(g) == set(w), f'{where}: columns differ: {set(g) ^ set(w)}')
        for key in w:
            same = g[key] == w[key]
            if key in NUMBERS and w[key]:
                same = bool(g[key]) and float(g[key]) == float(w[key]) and math.isfinite(float(g[key]))
            need(same, f'{where}: row {n}: {key} is {g[key]!r}, not {w[key]!r}')
        for key, value in g.items():
            need(key in NUMBERS or value[:1] not in tuple('=+-@\t\r') or not value, f'{where}: row {n}: {key} is a formula')
    for name in ('sr_sop_instance_uid', 'seg_sop_instance_uid'):
        for uid in {row[name] for row in got} - {''}:
            need(any(pydicom.dcmread(p, stop_before_pixels=True).SOPInstanceUID == uid for p in folder.glob('*.dcm')), f'{where}: no object {uid}')


schema = json.loads(schema_path.read_text())
Draft202012Validator.check_schema(schema)
validator = Draft202012Validator(schema)
applied = set()
folders = sorted(p for p in results.iterdir() if (p / 'findings.json').is_file())
for folder in folders:
    document = json.loads((folder / 'findings.json').read_text())
    check_schema(folder.name, document, validator)
    check_csv(folder.name, document, folder)
need(applied == set(range(len(SPOIL))), f'never spoilt in ways {set(range(len(SPOIL))) - applied}')
# Files of several series are put together line by line.
joined = [line for n, folder in enumerate(folders) for line in (folder / 'findings.csv').read_bytes().decode().split('\r\n')[n > 0:-1]]
need(sum(1 for _ in csv.DictReader(joined)) == counts['rows'], 'files put together have another number of rows')

print('\n'.join(problems[:60]) or ', '.join(f'{value} {name}' for name, value in counts.items()) + ' are right')
sys.exit(1 if problems else 0)
