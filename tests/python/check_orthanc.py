#!/usr/bin/env python3
"""An archive of its own, Orthanc, takes a study and its results and gives each object back as it was sent.

usage: check_orthanc.py STUDY_DIR RESULT_DIR

Starts Orthanc on free ports with an empty store, sends everything with DCMTK's dcmsend, asks what it has indexed, fetches every object and
compares it attribute by attribute, and has previews drawn of all that have pixels. dciodvfy and dsrdump must find no error in any. Exit 0, or 1 with every reason.
"""
import io
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image

from programs import dciodvfy_errors, dsrdump_complaints, tool

study, results = Path(sys.argv[1]), Path(sys.argv[2])
problems = []


def need(holds, text):
    if not holds:
        problems.append(text)


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def fetch(path, accept=None):
    request = urllib.request.Request(f'http://127.0.0.1:{http}{path}', headers={'Accept': accept} if accept else {})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read()


def post(path, body):
    with urllib.request.urlopen(f'http://127.0.0.1:{http}{path}', json.dumps(body).encode(), timeout=30) as answer:
        return json.loads(answer.read())


def drawn(image):
    """Whether a preview shows more than one grey or colour."""
    pixels = np.asarray(Image.open(io.BytesIO(image)).convert('RGB'))
    return pixels.min() != pixels.max()


for path in sorted(results.glob('*.dcm')):
    for line in dciodvfy_errors(path):
        need(False, f'{path.name}: dciodvfy: {line}')
    if pydicom.dcmread(path, stop_before_pixels=True).Modality in ('SR', 'KO'):
        # It knows no template of key objects, and says so.
        lines = [line for line in dsrdump_complaints(path) if 'template constraints not yet supported' not in line]
        need(not lines, f'{path.name}: dsrdump: {lines}')

program = shutil.which('Orthanc')
if program is None:
    sys.exit('Orthanc is not installed: run the tests with tests/run')
http, dicom = free_port(), free_port()
with tempfile.TemporaryDirectory() as store:
    settings = Path(store) / 'orthanc.json'
    settings.write_text(json.dumps({
        'Name': 'test', 'StorageDirectory': f'{store}/store', 'IndexDirectory': f'{store}/store', 'HttpPort': http, 'DicomPort': dicom,
        'RemoteAccessAllowed': False, 'AuthenticationEnabled': False, 'DicomAet': 'ARCHIVE', 'StorageCompression': False,
        'UnknownSopClassAccepted': True, 'DicomCheckCalledAet': False,
    }))
    with open(Path(store) / 'log', 'wb') as log:
        orthanc = subprocess.Popen([program, str(settings)], stdout=log, stderr=log)
    try:
        for _ in range(300):
            try:
                fetch('/system')
                break
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.1)
        else:
            sys.exit('Orthanc does not start:\n' + (Path(store) / 'log').read_text(errors='replace')[-2000:])
        paths = sorted([*study.iterdir(), *results.glob('*.dcm')])
        sent = {str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID): path for path in paths}
        status, text = tool('dcmsend', '--decompress-never', '-aec', 'ARCHIVE', '127.0.0.1', str(dicom), *map(str, paths))
        need(status == 0, f'sending: {text}')
        stored = {one['MainDicomTags']['SOPInstanceUID']: one['ID'] for one in json.loads(fetch('/instances?expand'))}
        need(set(stored) == set(sent), f'{len(sent)} objects sent, {len(stored)} stored')
        previews = 0
        for uid, instance in stored.items():
            path = sent.get(uid)
            if path is None:
                continue
            back, there = pydicom.dcmread(io.BytesIO(fetch(f'/instances/{instance}/file'))), pydicom.dcmread(path)
            need(back == there, f'{path.name} came back otherwise than it was sent')
            need(back.file_meta.TransferSyntaxUID == there.file_meta.TransferSyntaxUID, f'{path.name} came back in another transfer syntax')
            if path.parent == results and 'PixelData' in there:
                try:
                    middle = int(there.get('NumberOfFrames', 1)) // 2
                    need(drawn(fetch(f'/instances/{instance}/frames/{middle}/preview')), f'{path.name}: the preview is blank')
                    previews += 1
                except urllib.error.HTTPError as error:
                    # Orthanc 1.10 draws no one-bit pixels.
                    need(there.BitsAllocated == 1, f'{path.name}: no preview: {error}')
        studies = json.loads(fetch('/studies?expand'))
        need(len(studies) == 1, f'{len(studies)} studies, all is of one')
        found = post('/tools/find', {'Level': 'Series', 'Query': {}, 'Expand': True})
        modalities = sorted({s['MainDicomTags']['Modality'] for s in found})
        for series in found:
            need(series['MainDicomTags'].get('SeriesDescription') or series['MainDicomTags']['Modality'] == 'CT', 'a series has no description')
    finally:
        orthanc.terminate()
        orthanc.wait(30)

print('\n'.join(problems) or f'{len(sent)} objects of {", ".join(modalities)} stored and returned unchanged, {previews} previews drawn')
sys.exit(1 if problems else 0)
