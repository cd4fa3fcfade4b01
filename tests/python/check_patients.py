#!/usr/bin/env python3
"""Every result of a study carries the patient and the study as the source does, byte for byte.

usage: check_patients.py DIR

DIR/names.json: for each case the patient's name in Unicode. DIR/CASE/study and DIR/CASE/results: source and results of it.
Exit 0, or 1 with every reason.
"""
import html
import json
import sys
from pathlib import Path

import pydicom
from pydicom.datadict import keyword_for_tag

folder = Path(sys.argv[1])
problems = []
objects = pages = 0

# Patient and study, PS3.3 C.7.1.1 and C.7.2.1: the type 2 ones are there even where the source lacks them.
TYPE_2 = (0x00100010, 0x00100020, 0x00100030, 0x00100040, 0x00080020, 0x00080030, 0x00080050, 0x00080090, 0x00200010)
OTHERS = (0x00080201, 0x00081030, 0x00100021, 0x00101010, 0x00101020, 0x00101030, 0x0020000d)


def raw(ds, tag):
    """The bytes of a value as they are in the file, padding aside; none where the attribute is absent."""
    if tag not in ds:
        return None
    return (ds.get_item(tag).value or b'').rstrip(b' \0')


def charset(ds):
    """Specific Character Set, which pydicom reads in any case."""
    terms = ds.get('SpecificCharacterSet') or ''
    return terms if isinstance(terms, str) else '\\'.join(terms)


for case, name in json.loads((folder / 'names.json').read_text()).items():
    def need(holds, text):
        if not holds:
            problems.append(f'{case}: {text}')

    source = pydicom.dcmread(next(p for p in sorted((folder / case / 'study').iterdir())), stop_before_pixels=True)
    results = folder / case / 'results'
    for path in sorted(results.glob('*.dcm')):
        ds = pydicom.dcmread(path, stop_before_pixels=True, defer_size=None)
        objects += 1
        for tag in TYPE_2:
            found = raw(ds, tag)
            need(found == (raw(source, tag) or b''), f'{path.name}: {keyword_for_tag(tag)} is {found!r}, not {raw(source, tag)!r}')
        for tag in OTHERS:
            need(raw(ds, tag) == raw(source, tag), f'{path.name}: {keyword_for_tag(tag)} is not that of the source')
        ascii_only = all((raw(source, tag) or b'').isascii() for tag in TYPE_2 + OTHERS)
        declared = charset(source) or ('' if ascii_only else 'ISO_IR 100')
        need(charset(ds) == declared, f'{path.name}: Specific Character Set is {charset(ds)!r}, not {declared!r}')
    # For people and programs the name is in Unicode.
    for shown in ('report.html', 'fhir-r4.json', 'fhir-r5.json'):
        path = results / shown
        if path.exists():
            pages += 1
            text = path.read_text(encoding='utf-8')
            parts = [part for group in name.split('=') for part in group.split('^') if part]
            missing = [part for part in parts if part not in text and html.escape(part) not in text]
            need(not missing, f'{shown}: {missing} of the name is missing')
    for silent in ('findings.json', 'findings.csv'):
        if (results / silent).exists():
            need(name.split('^')[0] not in (results / silent).read_text(encoding='utf-8'), f'{silent} names the patient')

print('\n'.join(problems) or f'{objects} objects have patient and study as their source has them; {pages} pages show the name')
sys.exit(1 if problems else 0)
