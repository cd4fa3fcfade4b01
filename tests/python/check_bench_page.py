#!/usr/bin/env python3
"""Hold the page of `roentgen bench --html` in Chromium against the report of --json.

usage: check_bench_page.py PAGE REPORT

Exit 0, or 1 with every reason.
"""
import json
import sys
from pathlib import Path

from browser import Browser

problems = []


def need(holds, text):
    if not holds:
        problems.append(text)


def main():
    page, report = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text())
    with Browser() as browser:
        for width in (400, 1200):
            browser.look(width)
            browser.open(page)
            need(browser.requests == [] and browser.complaints == [], f'the page asks or complains: {browser.requests + browser.complaints}')
            need(browser.value('document.documentElement.scrollWidth') <= width, f'wider than {width} pixels')
        rows = browser.value("Array.from(document.querySelectorAll('tbody tr'), tr => Array.from(tr.children, td => td.textContent.trim()))")
        need(len(rows) == len(report['kernels']), f'{len(rows)} rows')
        for row, kernel in zip(rows, report['kernels']):
            need(row[:3] == [kernel['kernel'], kernel['variant'], f'{kernel["size"]}³'], row)
            need(abs(float(row[3]) - kernel['median_ms']) <= 0.005 * kernel['median_ms'] + 0.0005, f'{row}: {kernel["median_ms"]} ms')
        points = browser.value("Array.from(document.querySelectorAll('circle'), c => [+c.getAttribute('cx'), +c.getAttribute('cy')])")
        inside = browser.value("document.querySelector('svg').viewBox.baseVal.width")
        need(len(points) == sum(kernel['operations'] > 0 for kernel in report['kernels']), f'{len(points)} points in the roofline')
        need(all(0 <= x <= inside and y >= 0 for x, y in points), f'points outside the picture: {points}')
        # Under the roof: y grows downwards.
        roof = browser.value("""(() => { const path = document.querySelector('.roof');
            const points = Array.from({length: 200}, (_, n) => path.getPointAtLength(path.getTotalLength() * n / 199));
            return points.map(p => [p.x, p.y]); })()""")
        need(min(y for _, y in roof) > 0 and len({round(x) for x, _ in roof}) > 50, 'no roof')
        stages = browser.value("Array.from(document.querySelectorAll('.stages b'), b => b.textContent)")
        need(stages == [stage['stage'] for run in report['runs'] for stage in run['stages']], f'stages {stages}')
    print('\n'.join(map(str, problems)) or f'{len(rows)} kernels, {len(points)} points, {len(stages)} stages as in the report')
    return 1 if problems else 0


if __name__ == '__main__':
    sys.exit(main())
