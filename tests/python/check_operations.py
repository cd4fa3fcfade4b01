#!/usr/bin/env python3
"""What an operator sees of the node: metrics, the log with its ids and times, what systemd is told; and no patient anywhere in it.

usage: check_operations.py ROENTGEN PACKAGE STUDY_DIR

A study whose every text is distinctive goes through to an archive, beside one that is refused and one that cannot be read. The metrics are
read by Prometheus's own parser. Exit 0, or 1 with every reason.
"""
import copy
import json
import os
import re
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path

import pydicom
from prometheus_client.parser import text_string_to_metric_families
from pydicom.uid import generate_uid

from programs import dcmtk
from serving import Node, Orthanc, ended, fetch, finish, get_json, need, until

binary, package, study = sys.argv[1], sys.argv[2], Path(sys.argv[3])
# Words that stand nowhere else, for every attribute that may hold a patient's.
WORDS = {'PatientName': 'Zyxwquark^Ottilie', 'PatientID': 'QZX-771-PATID', 'AccessionNumber': 'ACCQZX4711', 'StudyDescription': 'Studyquibble',
         'SeriesDescription': 'Seriesquibble', 'ReferringPhysicianName': 'Refphysquark^Doc', 'PatientBirthDate': '19010203',
         'PatientComments': 'Commentquibble', 'InstitutionName': 'Institutquibble', 'StationName': 'Stationquibble', 'StudyID': 'SIDQZX9',
         'ProtocolName': 'Protocolquibble', 'PatientAddress': 'Addressquibble', 'OperatorsName': 'Opquark^Erna'}
SECRETS = [part for word in WORDS.values() for part in word.split('^') if len(part) > 3]


def named(datasets, uid):
    made, series = [], generate_uid()
    for dataset in datasets:
        dataset = copy.deepcopy(dataset)
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID = uid, series, generate_uid()
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        for keyword, word in WORDS.items():
            setattr(dataset, keyword, word)
        made.append(dataset)
    return made


def send(node, folder, datasets):
    folder.mkdir()
    for n, dataset in enumerate(datasets):
        dataset.save_as(folder / f'{n:03}.dcm')
    return dcmtk('storescu', '-aet', 'CT1', '-aec', 'NODE', '-nh', '+sd', '127.0.0.1', str(node.port), str(folder))


def families(node):
    """Families by name; fails where the text is not what Prometheus reads."""
    status, body = fetch(f'{node.http}/metrics')
    need(status == 200, f'/metrics: {status}')
    found = {}
    for family in text_string_to_metric_families(body.decode()):
        need(family.name not in found, f'{family.name} comes twice')
        need(bool(family.documentation), f'{family.name} has no help')
        found[family.name] = family
    return found


def value(found, family, name=None, **labels):
    samples = [s.value for s in found[family].samples if s.name == (name or family) and all(s.labels.get(k) == v for k, v in labels.items())]
    need(len(samples) == 1, f'{len(samples)} samples of {name or family} {labels}')
    return samples[0] if samples else None


def histograms_hold(found):
    for family in found.values():
        if family.type != 'histogram':
            continue
        rows = {}
        for sample in family.samples:
            key = tuple(sorted((k, v) for k, v in sample.labels.items() if k != 'le'))
            rows.setdefault(key, []).append(sample)
        for key, samples in rows.items():
            buckets = sorted((float(s.labels['le']), s.value) for s in samples if s.name.endswith('_bucket'))
            counts = [count for _, count in buckets]
            total = next(s.value for s in samples if s.name.endswith('_count'))
            need(counts == sorted(counts) and buckets[-1] == (float('inf'), total), f'{family.name} {key}: {buckets}, {total}')
            spent = next(s.value for s in samples if s.name.endswith('_sum'))
            need((spent == 0) == (total == 0) and spent <= 3600 * total, f'{family.name} {key}: {spent} s of {total}')


def metrics_say(node, instances, size):
    found = families(node)
    histograms_hold(found)
    steps = {step: value(found, 'roentgen_step_seconds', 'roentgen_step_seconds_count', step=step)
             for step in ('receive', 'seal', 'quiet', 'queue', 'job', 'deliver', 'turnaround')}
    need(steps == {'receive': instances, 'seal': instances, 'quiet': 3, 'queue': 3, 'job': 3, 'deliver': 2, 'turnaround': 1}, f'steps: {steps}')
    quiet = value(found, 'roentgen_step_seconds', 'roentgen_step_seconds_sum', step='quiet')
    need(3 <= quiet < 9, f'three quiet waits of 1 s are {quiet} s')
    for stage in ('load', 'preprocess', 'infer', 'postprocess', 'measure', 'write'):
        need(value(found, 'roentgen_stage_seconds', 'roentgen_stage_seconds_count', stage=stage, package=package, device='cpu') == 1, f'stage {stage}')
    need(value(found, 'roentgen_received_bytes', 'roentgen_received_bytes_total') > size, 'bytes received')
    need(value(found, 'roentgen_delivered_bytes', 'roentgen_delivered_bytes_total') > 1000, 'bytes delivered')
    need(value(found, 'roentgen_destination_instances', destination='PACS', state='stored') == 2, 'results at their destination')
    status = Path(f'/proc/{node.process.pid}/status').read_text()
    rss = int(re.search(r'VmRSS:\s+(\d+)', status)[1]) * 1024
    need(abs(value(found, 'process_resident_memory_bytes') - rss) < 0.2 * rss, 'resident memory')
    need(value(found, 'roentgen_store_free_bytes') > 1e6 and value(found, 'roentgen_jobs_queued') == 0, 'space and queue')


def lines_of(node):
    lines = []
    for line in node.log().splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            need(False, f'no JSON in the log: {line[:200]}')
    return lines


def ids(line):
    return {key: value for span in line.get('spans', []) for key, value in span.items() if key != 'name'}


def log_tells(node, uid):
    lines = lines_of(node)
    message = {}
    for line in lines:
        message.setdefault(line['fields']['message'], []).append(line)
    brought = message['an association brought instances']
    need(len({ids(line)['association'] for line in brought}) == len(brought) == 3, f'ids of associations: {[ids(line) for line in brought]}')
    need(all(ids(line).get('job') and ids(line).get('attempt') == 1 and ids(line).get('study') for line in message['a job begins'] + message['a job is done']),
         'every line of a job carries its number')
    refusals = [line for line in lines if line['fields']['message'] == 'an instance is refused']
    need(len(refusals) == 1 and ids(refusals[0]).get('association'), f'the refusal is within its association: {refusals}')
    [table] = message['the results of a job are at a destination']
    fields, about = table['fields'], ids(table)
    need(about.get('study') == uid and about.get('destination') == 'PACS' and about.get('delivery') and about.get('job'), f'ids of the table: {about}')
    parts = [v for k, v in fields.items() if k.endswith('_s') and k != 'total_s']
    need(len(parts) == 10 and abs(sum(parts) - fields['total_s']) < 0.01, f'the times make up the whole: {fields}')
    need(1 <= fields['quiet_s'] < 3 and fields['infer_s'] > 0, f'times: {fields}')
    return fields


def nowhere(node, texts):
    for what, text in texts.items():
        for secret in SECRETS:
            need(secret.lower() not in text.lower(), f'patient text in {what}: {secret}')
    # What is written of results and not DICOM, a page or data to be delivered has none either.
    for path in node.data.rglob('*'):
        need(not any(secret.lower() in path.name.lower() for secret in SECRETS), f'patient text in a file name: {path}')
    for name in ('node.sqlite', 'node.sqlite-wal'):
        raw = (node.data / name).read_bytes() if (node.data / name).exists() else b''
        need(not any(secret.encode() in raw for secret in SECRETS), f'patient text in {name}')


class Systemd:
    """The socket that a service tells its state to."""

    def __init__(self, folder):
        self.path = str(Path(folder) / 'notify')
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.setblocking(False)

    def told(self):
        messages = []
        while True:
            try:
                messages.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return messages


with tempfile.TemporaryDirectory() as folder:
    folder = Path(folder)
    systemd = Systemd(folder)
    os.environ['NOTIFY_SOCKET'] = systemd.path
    orthanc = Orthanc(folder, 'ORTHANC', {})
    tables = f'''
[study]
quiet_s = 1
[worker]
device = "cpu"
[[peer]]
ae_title = "CT1"
from = ["127.0.0.1"]
[[package]]
name = "{package}"
deliver = ["PACS"]
[[destination]]
name = "PACS"
ae_title = "ORTHANC"
address = "127.0.0.1:{orthanc.port}"
'''
    node = Node(binary, folder, config='log = "json"', tables=tables)
    with ended(node, orthanc):
        need(until(lambda: 'READY=1' in systemd.told(), 5), 'systemd is not told that the node is ready')
        datasets = [pydicom.dcmread(path) for path in sorted(study.iterdir())]
        uid = generate_uid()
        whole = named(datasets, uid)
        need(send(node, folder / 'whole', whole)[0] == 0, 'the study is sent')
        # Every other slice is missing somewhere: no volume.
        refused = generate_uid()
        need(send(node, folder / 'refused', [d for n, d in enumerate(named(datasets, refused)) if n not in (3, 4)])[0] == 0, 'the other one, too')
        # And one whose second instance is of no series.
        broken = named(datasets[:2], generate_uid())
        del broken[1].SeriesInstanceUID
        send(node, folder / 'broken', broken)
        need(until(lambda: [r['state'] for r in node.trace(uid).get('results', [])] == ['stored'] * 2, 60), f'results: {node.trace(uid)}')
        need(until(lambda: [job['state'] for job in get_json(f'{node.http}/jobs')] == ['done'] * 3, 30), 'every job ends')
        need(node.trace(refused)['jobs'][0]['outcome']['series'][0]['outcome'] == 'refused', 'the series with a gap is refused')
        until(lambda: 'the results of a job are at a destination' in node.log(), 5)
        metrics_say(node, 2 * len(whole), sum(len(d.PixelData) for d in whole))
        times = log_tells(node, uid)
        metrics = fetch(f'{node.http}/metrics')[1].decode()
        nowhere(node, {
            'the log': node.log(), 'the metrics': metrics, '/jobs': fetch(f'{node.http}/jobs')[1].decode(),
            'the trace': json.dumps(node.trace(uid)) + json.dumps(node.trace(refused)),
        })
        need(uid not in metrics and refused not in metrics, 'a study is named in the metrics')
        node.process.send_signal(signal.SIGHUP)
        told = []
        need(until(lambda: told.extend(systemd.told()) or 'READY=1' in told, 20), f'a reload: {told}')
        need(told[:1] == ['RELOADING=1'], f'a reload: {told}')
        before = time.monotonic()
        node.stop()
        need('STOPPING=1' in systemd.told(), 'systemd is not told of the end')
        need(time.monotonic() - before < 15, 'the stop takes too long')
        need(node.process.returncode == 0, f'exit code {node.process.returncode}')

    # Text for people, by default.
    plain = Node(binary, folder, data='plain')
    with ended(plain):
        need(until(lambda: 'INFO' in plain.log(), 5) and not plain.log().startswith('{'), 'the log is text by default')

finish(f'metrics as Prometheus reads them, a log with ids and no patient, systemd told; {times}')
