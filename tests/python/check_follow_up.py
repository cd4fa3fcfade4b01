"""Two studies of one patient in a cohort: the growth of a nodule in table, JSON, SR and SEG as other people's programs read them, and on the page.

usage: check_follow_up.py OUTPUT_FOLDER TRUTH.json FINDINGS_SCHEMA.json [SCREENSHOT_FOLDER]
"""
import csv
import json
import math
import pathlib
import sys

import highdicom
import jsonschema
import pydicom

from browser import Browser

output, truth_file, schema_file = map(pathlib.Path, sys.argv[1:4])
keep = pathlib.Path(sys.argv[4]) if len(sys.argv) > 4 else None
truth = json.loads(truth_file.read_text(encoding='utf-8'))
schema = json.loads(schema_file.read_text(encoding='utf-8'))
days = truth['days']
WITHIN = 0.1


def near(found, expected, what):
    assert abs(found - expected) <= WITHIN * abs(expected), f'{what}: {found}, the truth is {expected}'


folder_of = {}
for file in output.glob('*/findings.json'):
    document = json.loads(file.read_text(encoding='utf-8'))
    jsonschema.validate(document, schema)
    folder_of[document['study_instance_uid']] = (file.parent, document)
(before_folder, before), (after_folder, after) = folder_of[truth['before']], folder_of[truth['after']]


def volume(finding, name='Volume'):
    return next(m['value'] for m in finding['measurements'] if m['concept']['meaning'] == name and m['unit']['value'] == 'ml')


def by_volume(document, expected_ml):
    """The nodule of this volume."""
    found = [f for f in document['findings'] if f['present'] and f['name'].startswith('nodule') and abs(volume(f) / expected_ml - 1) < WITHIN]
    assert len(found) == 1, (expected_ml, [(f['name'], volume(f)) for f in document['findings'] if f['measurements']])
    return found[0]


# The balls are told apart by their volumes, which are the truth's.
grew_then, grew_now = by_volume(before, truth['grows_ml'][0]), by_volume(after, truth['grows_ml'][1])
went = by_volume(before, truth['goes_ml'])
first, second = truth['grows_ml']
assert grew_then['tracking_uid'] == grew_now['tracking_uid']
near(volume(grew_now, 'Volume change'), second - first, 'growth, ml')
percent = next(m['value'] for m in grew_now['measurements'] if m['concept']['value'] == 'VOLUME-CHANGE' and m['unit']['value'] == '%')
near(percent, (second / first - 1) * 100, 'growth, %')
doubling = next(m['value'] for m in grew_now['measurements'] if m['concept']['value'] == 'DOUBLING-TIME')
near(doubling, days * math.log(2) / math.log(second / first), 'doubling time, d')
since = next(m['value'] for m in grew_now['measurements'] if m['concept']['value'] == 'EARLIER-BY')
assert since == days

status = {f['tracking_uid']: f['status'] for f in after['follow_up']['findings']}
assert status[grew_now['tracking_uid']] == 'matched'
assert status[went['tracking_uid']] == 'not-found'
assert sorted(status.values()) == ['matched', 'matched', 'new', 'not-found'], status
gone = [f for f in after['findings'] if f['tracking_uid'] == went['tracking_uid']]
assert len(gone) == 1 and not gone[0]['present'] and gone[0]['segment'] is None
assert volume(gone[0], 'Earlier volume') == volume(went)
new = next(uid for uid, word in status.items() if word == 'new')
assert new not in [f['tracking_uid'] for f in before['findings']]
near(volume(next(f for f in after['findings'] if f['tracking_uid'] == new)), truth['comes_ml'], 'what came, ml')


# The objects.
def groups(folder, file):
    report = highdicom.sr.srread(folder / file)
    content = report.content
    found = {}
    for group in (*content.get_volumetric_roi_measurement_groups(), *content.get_image_measurement_groups()):
        found[str(group.tracking_uid)] = group
    return report, found


def numbers(group):
    return {(m.name.value, m.unit.value): m.value for m in group.get_measurements()}


report_then, groups_then = groups(before_folder, 'sr.dcm')
report_now, groups_now = groups(after_folder, 'sr.dcm')
_, groups_gone = groups(after_folder, 'sr-study.dcm')
same = grew_now['tracking_uid']
assert same in groups_then and same in groups_now
told = numbers(groups_now[same])
near(told['VOLUME-CHANGE', 'ml'], second - first, 'growth in the report, ml')
assert told['EARLIER-VOLUME', 'ml'] == numbers(groups_then[same])['118565006', 'ml'], 'the earlier volume is that of the earlier report'
near(told['DOUBLING-TIME', 'd'], days * math.log(2) / math.log(second / first), 'doubling time in the report, d')
answers = {q.name.value: q.value.value for q in groups_now[same].get_qualitative_evaluations()}
assert answers['FOLLOW-UP'] == 'MATCHED', answers
assert went['tracking_uid'] in groups_gone, 'what went is absent in the report on the study'
schemes = [item.CodingSchemeDesignator for item in report_now.CodingSchemeIdentificationSequence]
assert '99ROENTGEN' in schemes
earlier = {series.StudyInstanceUID for series in report_now.PertinentOtherEvidenceSequence}
assert earlier == {truth['before']}, 'the report names the earlier study'
segments = {}
for name, folder in (('then', before_folder), ('now', after_folder)):
    segmentation = pydicom.dcmread(folder / 'seg.dcm')
    segments[name] = {str(s.TrackingUID): s.SegmentLabel for s in segmentation.SegmentSequence}
    assert segmentation.PatientID == 'ROENTGEN-PHANTOM'
shared = segments['then'].keys() & segments['now'].keys()
assert same in shared and len(shared) == 2 and went['tracking_uid'] not in segments['now']

# The table.
rows = list(csv.DictReader(open(output / 'findings.csv', encoding='utf-8')))
row = next(r for r in rows if r['study_instance_uid'] == truth['after'] and r['tracking_uid'] == same)
assert row['earlier_study_instance_uid'] == truth['before'] and row['earlier_study_by_d'] == str(days) and row['follow_up'] == 'matched'
near(float(row['volume_change_ml']), second - first, 'growth in the table, ml')
near(float(row['volume_doubling_time_d']), days * math.log(2) / math.log(second / first), 'doubling time in the table, d')
assert float(row['earlier_volume_ml']) == volume(grew_then)
assert all(r['follow_up'] == '' for r in rows if r['study_instance_uid'] != truth['after'])
correlation = float(row['registration_correlation'])

# The page.
page = output / 'report.html'
text = page.read_text(encoding='utf-8')
for secret in ('Phantom^Chest', 'ROENTGEN-PHANTOM', '19700101', '1970-01-01', '20260701', '2026-07-01'):
    assert secret not in text, f'{secret} in the page'
with Browser() as browser:
    browser.look(1200)
    browser.open(page)
    table = browser.value("[...document.querySelectorAll('#follow-up tbody tr')].map(r => [...r.cells].map(c => c.textContent))")
    assert len(table) == 6, table
    grown = next(cells for cells in table if cells[3] == 'matched' and float(cells[6]) > 50)
    near(float(grown[5]), second - first, 'growth on the page, ml')
    near(float(grown[7]), doubling, 'doubling time on the page, d')
    assert grown[2] == str(days) and [c[3] for c in table].count('not-found') == 1
    plots = browser.value("[...document.querySelectorAll('#follow-up .over-time')].map(s => [...s.querySelectorAll('circle')].map(c => [c.getAttribute('class'), Number(c.getAttribute('cx')), Number(c.getAttribute('cy'))]))")
    assert len(plots) == 3 and all(len(points) == 2 for points in plots), plots
    rising = [points for points in plots if points[1][0] == 'seen' and points[0][2] - points[1][2] > 20]
    ends = [points for points in plots if points[1][0] == 'gone']
    assert len(rising) == 1 and len(ends) == 1 and all(points[0][1] < points[1][1] for points in plots), plots
    for width in (1200, 400):
        browser.look(width)
        assert browser.value('document.documentElement.scrollWidth') <= width, f'wider than {width}'
    if keep:
        browser.look(1200)
        browser.screenshot(keep / 'follow-up.png')
    assert not browser.requests and not browser.complaints, (browser.requests, browser.complaints)
found = volume(grew_now) / volume(grew_then)
print(f'grew by {found:.3f}, truth {second / first:.3f}; doubling time {doubling:.1f} d; correlation {correlation:.4f}; {len(plots)} plots')
