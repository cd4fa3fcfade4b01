#!/usr/bin/env python3
"""The page of a cohort of a classifier in Chromium: how certain it is of each finding, drawn, and sorted by.

usage: check_certainty.py OUTPUT_FOLDER
"""
import csv
import sys
from pathlib import Path

from browser import Browser

output = Path(sys.argv[1])
certain = {}
with open(output / 'findings.csv', newline='', encoding='utf-8') as file:
    for row in csv.DictReader(file):
        certain.setdefault(row['finding'], {})[row['series_instance_uid']] = float(row['certainty_percent'])
assert len(certain) > 1 and len({len(values) for values in certain.values()}) == 1
SHOWN = "[...document.querySelectorAll('#gallery .case')].filter(f => !f.hidden).map(f => f.querySelector('.uid').textContent)"

with Browser() as browser:
    browser.look(1200)
    browser.open(output / 'report.html')
    assert browser.value("[...document.querySelectorAll('.plot figcaption')].map(c => c.textContent)") == ['Probability of presence, %'] * len(certain)
    plots = browser.value("[...document.querySelectorAll('.histogram')].map(s => [...s.querySelectorAll('title')].map(t => Number(t.textContent)))")
    assert [sum(bars) for bars in plots] == [len(values) for values in certain.values()], plots
    # At first by the first finding, the most certain first; then by any.
    for n, (name, values) in enumerate(certain.items()):
        shown = [values[uid] for uid in browser.value(SHOWN)]
        assert shown == sorted(values.values(), reverse=True), (name, shown)
        nth = f"const s = document.getElementById('sort'); s.selectedIndex = {n + 2}; s.dispatchEvent(new Event('change'));"
        browser.value(f'(() => {{ {nth} }})()')
    assert not browser.requests and not browser.complaints, (browser.requests, browser.complaints)
print(f'certainty of {len(certain)} findings, drawn and sorted by')
