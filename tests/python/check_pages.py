#!/usr/bin/env python3
"""Hold what people look at against findings.json: report.html in Chromium, sc-N.dcm and pdf.dcm through DCMTK, pydicom and Poppler.

usage: check_pages.py DIR        with DIR/CASE/study and DIR/CASE/results

Exit 0, or 1 with every reason.
"""
import json
import math
import re
import sys
import tempfile
from pathlib import Path

import numpy as np
import pydicom
from scipy.ndimage import map_coordinates

from browser import Browser
from programs import dciodvfy_errors, tool

problems, seen = [], {'numbers': 0, 'columns': 0, 'lists': 0, 'captures': 0, 'windows': 0, 'pages': 0}
UNITS = {"[hnsf'U]": 'HU', '1': ''}
ROWS = """Array.from(document.querySelectorAll('#findings tbody tr')).map(tr => Array.from(tr.children).map(td => {
    const lines = Array.from(td.querySelectorAll('div, span'), line => line.textContent);
    return lines.length ? lines : [td.textContent];
}))"""


def need(holds, text):
    if not holds:
        problems.append(text)
    return holds


def counted(finding):
    """The numbers that mean something."""
    return finding['measurements'] if finding['present'] or finding['segment'] is None else []


def is_number(text, value):
    """Whether a text is a number to four digits, and with all of those before its point."""
    if value is None:
        return text == 'not computable'
    seen['numbers'] += 1
    return math.isclose(float(text), value, rel_tol=5.0001e-4, abs_tol=0.0) and (abs(value) >= 1e9 or abs(float(text) - value) <= 0.5)


# ------------------------------------------------------------------ page
def check_table(where, headings, rows, findings):
    """The table of findings, cell by cell; gives the texts of all its numbers."""
    numbers = []
    if not need(len(rows) == len(findings), f'{where}: {len(rows)} rows, {len(findings)} findings'):
        return numbers
    place = {heading: n for n, heading in enumerate(headings)}
    for row, finding in zip(rows, findings):
        name = f'{where}: {finding["name"]}'
        need(row[0][0] == finding['name'], f'{name}: called {row[0]}')
        need(row[place['Presence']] == ['present' if finding['present'] else 'absent'], f'{name}: {row[place["Presence"]]}')
        if finding['certainty_percent'] is not None:
            text = row[place['Probability of presence']][0]
            need(text.endswith(' %') and is_number(text[:-2], finding['certainty_percent']), f'{name}: certainty {text}')
        if finding['site'] and finding['site'] != finding['finding_type']:
            need(row[place['Site']][0].startswith(finding['site']['meaning']), f'{name}: site {row[place["Site"]]}')
        if finding['laterality']:
            need(finding['laterality']['meaning'].lower() in row[place['Site']][0], f'{name}: side {row[place["Site"]]}')
        for evaluation in finding['evaluations']:
            text = f'{evaluation["question"]["meaning"]}: {evaluation["answer"]["meaning"]}'
            need(text in row[place['Assessment']], f'{name}: assessment {row[place["Assessment"]]}')
        if 'Measurements' in place:
            seen['lists'] += 1
            lines = row[place['Measurements']] if counted(finding) else []
            need(len(lines) == len(counted(finding)), f'{name}: numbers {lines}')
            for line, wanted in zip(lines, counted(finding)):
                unit = UNITS.get(wanted['unit']['value'], wanted['unit']['value'])
                found = re.fullmatch(r'(.*?) (not computable|-?\d[\d.]*(?:e-?\d+)?) ?(.*)', line)
                holds = found and found[1].startswith(wanted['concept']['meaning']) and is_number(found[2], wanted['value'])
                holds = holds and (wanted['value'] is None or found[3] == unit)
                need(holds, f'{name}: {line} for {wanted["value"]} {unit}')
                numbers += [found[2]] if found else []
        else:
            seen['columns'] += 1
            cells = {h: row[n][0] for h, n in place.items()}
            for wanted in counted(finding):
                unit = UNITS.get(wanted['unit']['value'], wanted['unit']['value'])
                mine = [h for h in cells if h.startswith(wanted['concept']['meaning']) and h.endswith(f', {unit}' if unit else '')]
                if wanted['derivation']:
                    mine = [h for h in mine if wanted['derivation']['meaning'].lower() in h]
                texts = [text for h in mine for text in cells[h].split('; ')]
                holds = any(text not in ('', '\u2013') and (wanted['value'] is None or text != 'not computable') and is_number(text, wanted['value'])
                            for text in texts)
                need(holds, f'{name}: {cells} for {wanted["value"]} {unit}')
                numbers += texts
    return numbers


def check_page(where, path, document, name):
    """The page in a browser; gives the texts of the numbers in its table, and the patient's name as it is shown."""
    with Browser() as page:
        page.look(1280)
        page.open(path)
        headings = page.value("Array.from(document.querySelectorAll('#findings thead th'), th => th.textContent)")
        numbers = check_table(where, headings, page.value(ROWS), document['findings'])
        facts = dict(page.value("Array.from(document.querySelectorAll('dl div'), d => [d.children[0].textContent, d.children[1].textContent])"))
        for group in (name.alphabetic, name.ideographic, name.phonetic):
            for part in filter(None, re.split(r'\^', group)):
                need(part in facts['Patient'], f'{where}: the name is shown as {facts["Patient"]}')
        need('not for diagnosis' in page.value("document.querySelector('.banner').textContent"), f'{where}: no banner')
        text = page.value('document.body.textContent')
        for part in (document['provenance']['package']['sha256'], document['provenance']['device'], *document['warnings']):
            need(part in text, f'{where}: the page lacks {part}')
        files = page.value("Array.from(document.querySelectorAll('#files th'), th => th.textContent)")
        need(set(files) == {p.name for p in path.parent.iterdir()} - {path.name}, f'{where}: it lists {files}')

        # The slider by keyboard, and the overlay by its box.
        loaded = "Array.from(document.images).every(i => i.complete && i.naturalWidth > 100)"
        need(page.value(loaded), f'{where}: an image does not load')
        shown = "[document.getElementById('slice-caption').textContent, document.getElementById('slice-image').src]"
        page.value("document.getElementById('slider').focus()")
        page.press('End')
        last = page.value(shown)
        page.press('ArrowLeft')
        before = page.value(shown)
        count = document['grid']['dims'][2]
        need(last[0] == f'axial, slice {count} of {count}' and before[0] == f'axial, slice {count - 1} of {count}', f'{where}: {last[0]}, {before[0]}')
        need(last[1] != before[1] and page.value(loaded), f'{where}: another slice shows no other image')
        visible = "Array.from(document.querySelectorAll('img.overlay')).map(i => getComputedStyle(i).visibility)"
        before = page.value(visible)
        page.value("document.getElementById('overlay').focus()")
        page.press(' ')
        after = page.value(visible)
        need(set(before) == {'visible'} and set(after) == {'hidden'} and len(after) == 4, f'{where}: overlay {before}, then {after}')
        for width in (390, 1280):
            page.look(width)
            wide = page.value('document.documentElement.scrollWidth')
            need(wide <= width, f'{where}: {wide} pixels wide in a window of {width}')
        need(not page.requests and not page.complaints, f'{where}: requests {page.requests}, complaints {page.complaints}')
        # Nothing can be loaded from elsewhere, even if some text became markup.
        page.value("""new Promise(done => {
            document.addEventListener('securitypolicyviolation', event => done(event.violatedDirective));
            document.body.append(Object.assign(new Image(), { src: 'http://127.0.0.1:9/x.png' }));
        }).then(directive => window.blocked = directive)""")
        need(page.value('window.blocked') == 'img-src', f'{where}: the page may load images')
    with Browser(scripts=False) as page:
        page.open(path)
        need(page.value('1') is None or page.value("document.getElementById('slices').hidden"), f'{where}: slices without a script')
        need(not page.requests and not page.complaints, f'{where}: without scripts: {page.requests}, {page.complaints}')
    return numbers, facts['Patient']


# ------------------------------------------------------------------ captures
def masks(folder):
    """Segment numbers with their masks and colours, by source instance."""
    if not (folder / 'seg.dcm').exists():
        return {}
    seg = pydicom.dcmread(folder / 'seg.dcm')
    planes = np.atleast_3d(seg.pixel_array).reshape(-1, seg.Rows, seg.Columns)
    found = {}
    for plane, frame in zip(planes, seg.PerFrameFunctionalGroupsSequence):
        uid = frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        found.setdefault(uid, []).append((frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber, plane > 0))
    return found


def rendered(path):
    """The image as DCMTK renders it."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / 'out.ppm'
        status, text = tool('dcm2pnm', '--write-raw-pnm', str(path), str(out))
        if status != 0:
            return None
        head, size, depth, data = out.read_bytes().split(b'\n', 3)
        columns, rows = map(int, size.split())
        assert (head, depth) == (b'P6', b'255')
        return np.frombuffer(data, np.uint8).reshape(rows, columns, 3)


def direction(vector):
    axis = int(np.argmax(np.abs(vector)))
    return ('LR', 'PA', 'HF')[axis][0 if vector[axis] > 0 else 1]


def check_capture(where, path, source, of_slice):
    seen['captures'] += 1
    for line in dciodvfy_errors(path):
        problems.append(f'{where}: dciodvfy: {line}')
    capture = pydicom.dcmread(path)
    pixels = capture.pixel_array
    picture = rendered(path)
    need(picture is not None and np.array_equal(picture, pixels), f'{where}: DCMTK renders other pixels')
    image = source[capture.SourceImageSequence[0].ReferencedSOPInstanceUID]
    need('PixelSpacing' not in capture and 'NominalScannedPixelSpacing' not in capture, f'{where}: a spacing')
    axes = np.array(image.ImageOrientationPatient, float).reshape(2, 3)
    need(list(capture.PatientOrientation) == [direction(axes[0]), direction(axes[1])], f'{where}: {capture.PatientOrientation}')
    need(capture.PatientName == image.PatientName, f'{where}: another patient')

    # Where the slice lies: pixels are coloured exactly where a segment is.
    row_mm, column_mm = map(float, image.PixelSpacing)
    multiple = -(-512 // max(image.Rows, image.Columns))
    height = round(image.Rows * multiple * row_mm / min(row_mm, column_mm))
    width = round(image.Columns * multiple * column_mm / min(row_mm, column_mm))
    rows = (2 * np.arange(height) + 1) * image.Rows // (2 * height)
    columns = (2 * np.arange(width) + 1) * image.Columns // (2 * width)
    mask = np.zeros((image.Rows, image.Columns), bool)
    for _, plane in of_slice.get(image.SOPInstanceUID, []):
        mask |= plane
    mask = mask[np.ix_(rows, columns)]
    left = (pixels.shape[1] - width) // 2
    coloured = np.ptp(pixels[:, left:left + width].astype(int), axis=2) > 4
    off = [np.count_nonzero(coloured[top:top + height] != mask) for top in range(60, pixels.shape[0] - height)]
    top = 60 + int(np.argmin(off))
    if not need(min(off) == 0, f'{where}: {min(off)} pixels are coloured outside a segment, or grey within one'):
        return
    # The image itself, interpolated by SciPy and then windowed: within a grey level.
    hu = image.pixel_array * float(image.RescaleSlope) + float(image.RescaleIntercept)
    down = np.clip((np.arange(height) + 0.5) * image.Rows / height - 0.5, 0, image.Rows - 1)
    across = np.clip((np.arange(width) + 0.5) * image.Columns / width - 0.5, 0, image.Columns - 1)
    hu = map_coordinates(hu, np.meshgrid(down, across, indexing='ij'), order=1)
    if 'WindowCenter' in image:
        grey = (hu - (float(image.WindowCenter) - 0.5)) / (float(image.WindowWidth) - 1) + 0.5
        seen['windows'] += 1
    else:
        grey = (hu - 40) / 400 + 0.5
    off = np.abs(pixels[top:top + height, left:left + width, 0] - np.clip(grey, 0, 1) * 255)[~mask].max()
    need(off < 1, f'{where}: up to {off:.1f} grey levels from the source')


# ------------------------------------------------------------------ document
def check_document(where, path, document, numbers, source, name):
    for line in dciodvfy_errors(path):
        problems.append(f'{where}: dciodvfy: {line}')
    dataset = pydicom.dcmread(path)
    data = dataset.EncapsulatedDocument[:dataset.EncapsulatedDocumentLength]
    need(data.startswith(b'%PDF-') and data.rstrip().endswith(b'%%EOF'), f'{where}: no whole PDF')
    need(len(dataset.EncapsulatedDocument) % 2 == 0, f'{where}: odd length')
    need({i.ReferencedSOPInstanceUID for i in dataset.SourceInstanceSequence} == set(source), f'{where}: other sources')
    with tempfile.TemporaryDirectory() as folder:
        pdf = Path(folder) / 'document.pdf'
        pdf.write_bytes(data)
        _, text = tool('pdftotext', '-layout', str(pdf), '-')
        _, information = tool('pdfinfo', str(pdf))
        _, fonts = tool('pdffonts', str(pdf))
        status, complaint = tool('pdftoppm', '-r', '40', '-gray', str(pdf), str(Path(folder) / 'page'))
        pages = sorted(Path(folder).glob('page*.pgm'))
        seen['pages'] += len(pages)
        need(status == 0 and not complaint.strip(), f'{where}: pdftoppm: {complaint}')
        for page in pages:
            grey = np.frombuffer(page.read_bytes().split(b'\n', 3)[3], np.uint8)
            need(0.0005 < np.mean(grey < 200) < 0.6, f'{where}: {page.name} is {np.mean(grey < 200):.4f} black')
    need(str(dataset.DocumentTitle) in information and 'A4' in information, f'{where}: pdfinfo: {information}')
    need(all(' yes ' in line for line in fonts.splitlines()[2:]) and len(fonts.splitlines()) == 4, f'{where}: fonts: {fonts}')
    need(text.count('AI result, not for diagnosis') == len(pages) + 1, f'{where}: not every page says what it is')
    words = text.split()
    for finding in document['findings']:
        need(all(part in words for part in finding['name'].split()), f'{where}: no finding {finding["name"]}')
    joined = ' '.join(words)
    lacking = {number for number in numbers if ' ' not in number and number not in joined}
    need(not lacking, f'{where}: numbers of the page that the document lacks: {sorted(lacking)[:5]}')
    latin = [part for part in re.split(r'\^', name.alphabetic) if part]
    if all(ord(c) < 0x500 for part in latin for c in part):
        # On every page, that none is taken for another patient's.
        need(all(joined.count(part) >= len(pages) + 1 for part in latin for part in part.split()), f'{where}: the name {latin}')
    else:
        need('name in a script that cannot be shown' in joined, f'{where}: nothing says that the name cannot be shown')
    if name.ideographic:
        need('another writing: see the header' in joined, f'{where}: nothing says that the name has another writing')


for folder in sorted(p for p in Path(sys.argv[1]).iterdir() if p.is_dir()):
    results = folder / 'results'
    found = json.loads((results / 'findings.json').read_text())
    files = [pydicom.dcmread(p) for p in (folder / 'study').glob('*')]
    source = {ds.SOPInstanceUID: ds for ds in files}
    numbers, _ = check_page(folder.name, results / 'report.html', found, files[0].PatientName)
    of_slice = masks(results)
    captures = sorted(results.glob('sc-*.dcm'))
    need(bool(captures) == bool(of_slice) and len(captures) <= 20, f'{folder.name}: {len(captures)} captures')
    for path in captures:
        check_capture(f'{folder.name}/{path.name}', path, source, of_slice)
    check_document(f'{folder.name}/pdf.dcm', results / 'pdf.dcm', found, numbers, source, files[0].PatientName)

need(seen['columns'] and seen['lists'] and seen['windows'] and seen['captures'] > 20, f'not all kinds were seen: {seen}')
print('\n'.join(problems[:60]) or f'pages, captures and documents are as the JSON says: {seen}')
sys.exit(1 if problems else 0)
