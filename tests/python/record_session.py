#!/usr/bin/env python3
"""Makes docs/session.md and its pictures again: a new user's session from `roentgen inspect` to the report, with what it really prints.

usage: record_session.py ROENTGEN [DOCS_FOLDER]

Four chest CTs of models/ct-lung-nodule/phantoms.py as DICOM, one of which lacks a slice; the commands of the session on them; the page of
the cohort and that of one series in Chromium, as PNG of 64 colours. About three minutes on two processors.
"""
import copy
import io
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from pydicom.uid import generate_uid

from browser import Browser

roentgen, root = Path(sys.argv[1]).resolve(), Path(__file__).resolve().parents[2]
docs = Path(sys.argv[2]) if len(sys.argv) > 2 else root / 'docs'
sys.path.insert(0, str(root / 'models/ct-lung-nodule'))
import phantoms  # noqa: E402

DIMS, SPACING_MM = (126, 160, 224), phantoms.SPACING_MM  # slices, rows, columns
NODULES = [3, 0, 5, 2]
QUESTION = '''roentgen query out/ "select study_instance_uid, finding, round(certainty_percent, 1) as certainty, round(volume_ml, 2) as ml
                       from findings where finding like 'nodule%' and present order by 3 desc limit 8"'''


def make(folder, template):
    """A study for each of NODULES, with everything but pixels and places from the demo's."""
    uid = lambda *of: generate_uid(prefix='1.2.826.0.1.3680043.8.498.', entropy_srcs=['session', *map(str, of)])
    for n, nodules in enumerate(NODULES):
        hu, _, _ = phantoms.Chest(7 + n, nodules=nodules).render(DIMS, -(np.array(DIMS[::-1]) - 1) / 2 * SPACING_MM)
        hu = phantoms.acquire(hu, np.random.default_rng([n, 40]))
        stored = np.clip(np.rint(hu), -1024, 3071).astype(np.int16) + 1024
        place = folder / f'study-{n + 1}'
        place.mkdir(parents=True)
        for k, picture in enumerate(stored.astype(np.uint16)):
            one = copy.deepcopy(template)
            one.Rows, one.Columns, one.PixelSpacing, one.SliceThickness = *picture.shape, [SPACING_MM] * 2, SPACING_MM
            one.ImagePositionPatient = [-(DIMS[2] - 1) / 2 * SPACING_MM, -(DIMS[1] - 1) / 2 * SPACING_MM, (k - (DIMS[0] - 1) / 2) * SPACING_MM]
            one.RescaleIntercept, one.RescaleSlope, one.InstanceNumber = -1024, 1, k + 1
            one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = uid(n), uid(n, 'series'), uid(n, 'frame')
            one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = uid(n, k)
            one.PatientID, one.PatientName, one.AccessionNumber = f'PHANTOM-{n + 1}', f'Phantom^{n + 1}', ''
            one.PixelData = picture.tobytes()
            one['PixelData'].VR = 'OW'
            one.save_as(place / f'{k + 1:03}.dcm', enforce_file_format=True)
    return folder / 'study-4' / '060.dcm'


def session(folder, line, code=0, most=None):
    """A command and what it prints, as it stands in a document."""
    ran = subprocess.run(['bash', '-c', line], cwd=folder, capture_output=True, text=True, env={'PATH': f'{roentgen.parent}:/usr/bin:/bin', 'HOME': str(Path.home())})
    if ran.returncode != code:
        sys.exit(f'{line} ended with {ran.returncode}\n{ran.stdout}\n{ran.stderr}')
    text = (ran.stderr + ran.stdout).replace(f'{folder}/', '/data/').strip('\n').splitlines()
    if most and len(text) > most:
        text = [*text[:most], '...']
    return '```console\n$ ' + line + '\n' + '\n'.join(part.rstrip() for part in text) + '\n```'


def picture(browser, path, height):
    """The upper part of a page, small."""
    browser.screenshot(path)
    image = Image.open(io.BytesIO(path.read_bytes())).convert('RGB')
    image.crop((0, 0, image.width, min(height, image.height))).quantize(64, dither=Image.Dither.NONE).save(path, optimize=True)
    if path.stat().st_size > 300_000:
        sys.exit(f'{path.name} has {path.stat().st_size} bytes')


def look(browser, out, images):
    browser.look(1200)
    browser.open(out / 'report.html')
    browser.value("Promise.all([...document.images].map(i => { i.loading = 'eager'; return i.decode(); }))")
    picture(browser, images / 'session-report.png', 1500)
    link = browser.value("document.querySelector('#gallery .case.done a').getAttribute('href')")
    browser.open(out / link)
    browser.value("Promise.all([...document.images].map(i => i.decode()))")
    picture(browser, images / 'session-study.png', 2300)
    if browser.requests or browser.complaints:
        sys.exit(f'{browser.requests} {browser.complaints}')


def main():
    images = docs / 'images'
    images.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        subprocess.run([roentgen, 'demo', '--device', 'cpu', '--output', folder / 'demo'], check=True, stdout=subprocess.DEVNULL)
        template = pydicom.dcmread(next((folder / 'demo/study').glob('*.dcm')))
        lacking = make(folder / 'incoming', template)
        slice_of = lacking.read_bytes()
        lacking.unlink()
        run = 'roentgen run --model ct-lung-nodule incoming/ --output out/ --device cpu --results sr,seg,json,html'
        text = [
            f'''# A session

What a new user types and sees, from a folder of studies to the report. The studies are four phantoms (`models/ct-lung-nodule/phantoms.py`), one of
which lacks a slice. `tests/python/record_session.py` makes this page and its pictures again.

## What is there

{session(folder, 'roentgen inspect incoming/study-1 incoming/study-4')}

## What would be done

{session(folder, run + ' --dry-run')}

## Doing it

{session(folder, run, code=1)}

Stopped in the middle, `--resume` goes on. What was refused stays refused: `--resume` does not try it again. Here the slice that was lacking has
been sent again, and `--only` does that one study:
''']
        lacking.write_bytes(slice_of)
        text.append(session(folder, 'roentgen run --model ct-lung-nodule --output out/ --device cpu --results sr,seg,json,html --only out/failures.csv'))
        with Browser() as browser:
            look(browser, folder / 'out', images)
        text.append(f'''
## Asking

{session(folder, QUESTION)}

## Looking

`out/report.html` opens from disk and loads nothing. Its small pictures are sorted by the probability that the model gives a finding, or by any measurement, and filtered
by finding, outcome or scanner; each leads to the page of its series.

![The page of the cohort: counts, histograms, outliers, and small pictures of the series with their segments](images/session-report.png)

The page of a series has its findings, and slices to scroll with and without the segments:

![The page of a series: findings, and slices with segments](images/session-study.png)

`sr.dcm` and `seg.dcm` beside it are what a PACS takes (`results.md`). More on many studies: `cohorts.md`.
''')
    document = '\n'.join(text)
    (docs / 'session.md').write_text(document)
    print(f'{docs / "session.md"}, ' + ', '.join(f'{path.name} {path.stat().st_size} bytes' for path in sorted(images.glob('session-*.png'))))


main()
