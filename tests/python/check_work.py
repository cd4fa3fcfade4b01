#!/usr/bin/env python3
"""The node's queue, its worker and delivery, where things go wrong: runs that do not end, lost devices, rules, what is old, alerts,
DICOMweb servers, other forms instead, damaged files, another configuration while it works.

usage: check_work.py BINARY PACKAGE STUDY_DIR NAMES     NAMES: functions below, with commas between

Needs a build with fault points (src/store/crash.rs: one with debug assertions). Prints a line for each; exit 0, or 1 with every problem.
"""
import contextlib
import hashlib
import http.server
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

import onnx
import pydicom
from onnx import TensorProto, helper
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless
from pynetdicom import AE, evt

from node_bench import SEG, SR, Refusing, Study, waiting
from programs import dcmtk
from serving import Node, Orthanc, ended, fetch, finish, free_port, get_json, need, until

LABELMAP = '1.2.840.10008.5.1.4.1.1.66.7'
DICOMWEB_PLUGIN = '/usr/share/orthanc/plugins/libOrthancDicomWeb.so'
PEERS = ''.join(f'[[peer]]\nae_title = "{title}"\nfrom = ["127.0.0.1"]\n' for title in ('CT1', 'ER-CT'))


class Place:
    """A folder with a study and its variants, and nodes in it."""

    def __init__(self, binary, package, folder, study):
        self.binary, self.package, self.folder, self.study = binary, package, Path(folder), study
        self.count = 0

    def send(self, node, study, calling='CT1'):
        self.count += 1
        folder = study.write(self.folder / f'study-{self.count}')
        status, text = dcmtk('storescu', '-v', '-aet', calling, '-aec', 'NODE', '+sd', '127.0.0.1', str(node.port), str(folder))
        answers = [line.split('(', 1)[1].rstrip(')') for line in text.splitlines() if 'Received Store Response' in line]
        need(status == 0 and set(answers) == {'Success'}, f'sending: {status} {set(answers)}')

    def node(self, tables='', data='data', worker='', faults=None, packages=None, deliver=(), results='sr,seg'):
        """A node with 1 s of quiet time; `packages` by name beside the usual one, `faults` as src/store/crash.rs has them."""
        names = ', '.join(f'"{name}"' for name in deliver)
        for package in packages if packages is not None else [self.package]:
            tables += f'\n[[package]]\nname = "{package}"\nresults = "{results}"\ndeliver = [{names}]\n'
        config = f'{PEERS}[study]\nquiet_s = 1\n[worker]\ndevice = "cpu"\n{worker}\n'
        with environment(faults or {}):
            return Node(self.binary, self.folder, config, data, tables)


@contextlib.contextmanager
def environment(variables):
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def restarted(place, node, **more):
    """The same node again, without or with other faults."""
    with environment(more):
        again = Node.__new__(Node)
        again.__dict__.update(node.__dict__)
        super(Node, again).__init__(place.folder, node.log_path.stem, place.binary, 'serve', '--config', node.path)
    if not until(lambda: not again.alive() or ready(again), 60) or not again.alive():
        sys.exit(f'the node does not start again:\n{again.log()}')
    return again


def ready(node):
    with contextlib.suppress(OSError):
        return fetch(f'{node.http}/readyz')[0] == 200


def jobs_of(node, study):
    return node.trace(study.uid).get('jobs', [])


def job_in(node, study, states, seconds=60, package=''):
    """The job of a study once it is in one of these states."""
    def found():
        jobs = [job for job in jobs_of(node, study) if package in job['package']]
        return jobs and jobs[-1]['state'] in states and jobs[-1]
    job = until(found, seconds)
    need(job, f'no job is {states}: {jobs_of(node, study)}')
    return job or {'outcome': {}, 'attempt': None, 'state': None, 'crashes': None}


def post(node, path):
    return fetch(node.http + path, b'')[0]


def destination(name, port, more=''):
    return f'\n[[destination]]\nname = "{name}"\nae_title = "OTHER"\naddress = "127.0.0.1:{port}"\nretry_s = 1\n{more}\n'


def deliveries(node, study):
    """State of each delivery by destination and form."""
    return {(one['destination'], one['form']): one['state'] for one in node.trace(study.uid).get('results', []) if one['destination']}


# Runs that do not end

def endless_package(place):
    """The usual package with a network that counts for ever before it answers."""
    folder = place.folder / 'endless'
    shutil.copytree(place.package, folder, ignore=shutil.ignore_patterns('*.onnx', '*.py'))
    number = lambda name, kind: helper.make_tensor_value_info(name, kind, [])
    body = helper.make_graph(
        [helper.make_node('Identity', ['more'], ['more_out']), helper.make_node('Add', ['count', 'one'], ['count_out'])], 'body',
        [number('n', TensorProto.INT64), number('more', TensorProto.BOOL), number('count', TensorProto.FLOAT)],
        [number('more_out', TensorProto.BOOL), number('count_out', TensorProto.FLOAT)])
    constant = lambda name, kind, value: helper.make_tensor(name, kind, [], [value])
    tensor = lambda name, channels: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, 'D', 'H', 'W'])
    graph = helper.make_graph(
        [helper.make_node('ReduceMin', ['image'], ['start'], keepdims=0),
         helper.make_node('Loop', ['', 'true', 'start'], ['counted'], body=body),
         helper.make_node('Add', ['image', 'counted'], ['one_channel']),
         helper.make_node('Concat', ['one_channel'] * 5, ['scores'], axis=1)],
        'endless', [tensor('image', 1)], [tensor('scores', 5)],
        [constant('true', TensorProto.BOOL, True), constant('one', TensorProto.FLOAT, 1.0)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    name, = re.findall(r'path = "(.*\.onnx)"', (folder / 'model.toml').read_text())
    (folder / name).write_bytes(model.SerializeToString())
    digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    manifest = re.sub(r'sha256 = "[0-9a-f]+"', f'sha256 = "{digest}"', (folder / 'model.toml').read_text(), count=1)
    (folder / 'model.toml').write_text(manifest.replace('name = "ct-tissue"', 'name = "endless"', 1))
    return folder


def endless(place):
    packages = [endless_package(place), place.package]
    with ended(place.node(worker='attempts = 2\nlongest_s = 8\ngrace_s = 60', packages=packages)) as (node,):
        one = place.study.variant('endless')
        started = time.monotonic()
        place.send(node, one)
        job = job_in(node, one, ['failed'], package='endless')
        seconds = time.monotonic() - started
        need((job['outcome'].get('code'), job['attempt'], job['crashes']) == ('worker.too-long', 2, 0), f'the endless job: {job}')
        job = job_in(node, one, ['done'], package=Path(place.package).name)
        need(job['attempt'] == 1, f'the job beside it: {job}')
        # Somebody loses patience before the worker does.
        node.path.write_text(node.path.read_text().replace('longest_s = 8\n', 'longest_s = 300\n'))
        node.process.send_signal(signal.SIGHUP)
        until(lambda: 'the configuration is replaced' in node.log())
        two = place.study.variant('cancelled')
        place.send(node, two)
        job = job_in(node, two, ['running'], package='endless')
        need(post(node, f'/jobs/{job["id"]}/cancel') == 200, 'a job that runs is cancelled')
        began = time.monotonic()
        job_in(node, two, ['done'], package=Path(place.package).name)
        need(job_in(node, two, ['cancelled'], package='endless')['attempt'] == 1, 'it stays cancelled')
        need('its lane was given up' not in node.log(), 'a lane was given up')
        return f'an endless graph: stopped twice at 8 s, failed after {seconds:.1f} s; cancelled, the next job was done {time.monotonic() - began:.1f} s later'


def stuck(place):
    """A run that hears nothing costs its lane, a job that does it twice goes to quarantine, and the third lane the process."""
    faults = {'ROENTGEN_HANG_AT': 'job-running:every'}
    node = place.node(worker='longest_s = 1\ngrace_s = 1', faults=faults)
    with ended(node):
        one, two = place.study.variant('stuck-1'), place.study.variant('stuck-2')
        place.send(node, one)
        job = job_in(node, one, ['quarantined'])
        need((job['crashes'], job['attempt'], job['outcome'].get('code')) == (2, 2, 'worker.stuck'), f'the job: {job}')
        need(any(alert['code'] == 'job.quarantined' for alert in until(lambda: get_json(f'{node.http}/alerts'), 5) or []), 'no alert')
        place.send(node, two)
        node.process.wait(60)
        need(node.process.returncode == 2, f'the node ended with {node.process.returncode}')
        need('runs do not end' in node.log(), 'the log does not say why it ended')
    node.path.write_text(node.path.read_text().replace('longest_s = 1\n', 'longest_s = 300\n'))
    with ended(restarted(place, node)) as (node,):
        job = job_in(node, two, ['done'])
        need((job['crashes'], job['attempt']) == (1, 2), f'the job after the restart: {job}')
        job, = jobs_of(node, one)
        need(job['state'] == 'quarantined', f'what is in quarantine stays there: {job}')
        need(post(node, f'/jobs/{job["id"]}/retry') == 200, 'it is tried again by order')
        need(job_in(node, one, ['done'])['crashes'] == 0, 'by order it begins anew')
    return 'two lanes given up: quarantine; the third: the process ends with 2; after the restart all is done'


def killed(place):
    """A job that takes the process down twice goes to quarantine, and the rest goes on. Failures do not count."""
    node = place.node(faults={'ROENTGEN_CRASH_AT': 'job-running:1'})
    one, two = place.study.variant('killed-1'), place.study.variant('killed-2')
    place.send(node, one)
    node.process.wait(60)
    node = restarted(place, node, ROENTGEN_CRASH_AT='job-running:1')
    with contextlib.suppress(Exception):
        node.process.wait(60)
    with ended(restarted(place, node)) as (node,):
        job, = jobs_of(node, one)
        need((job['state'], job['crashes']) == ('quarantined', 2), f'the job: {job}')
        place.send(node, two)
        need(job_in(node, two, ['done'])['attempt'] == 1, 'the next one')
    return 'quarantined after two kills, the next study done'


def device(place):
    """The device is lost during a run: each policy, with the cause in the job."""
    said = []
    for policy, state, attempt, on in [('cpu', 'done', 1, True), ('retry', 'done', 2, False), ('fail', 'failed', 1, None)]:
        node = place.node(data=policy, worker=f'on_device_loss = "{policy}"', faults={'ROENTGEN_LOSE_AT': 'device:1'})
        with ended(node):
            one, two = place.study.variant(f'device-{policy}'), place.study.variant(f'device-{policy}-2')
            place.send(node, one)
            job = job_in(node, one, ['done', 'failed'])
            need((job['state'], job['attempt'], job['crashes']) == (state, attempt, 0), f'{policy}: {job}')
            cause = job['outcome'] if state == 'failed' else job['outcome'].get('device_loss', {})
            need((cause.get('code') == 'gpu.lost') == (on is not False), f'{policy}: cause {cause}')
            if state == 'done':
                need([series.get('device') for series in job['outcome']['series']] == ['cpu'], f'{policy}: {job["outcome"]}')
            place.send(node, two)
            need(job_in(node, two, ['done'])['attempt'] == 1, f'{policy}: the next study')
            need('the device is lost' in node.log(), f'{policy}: nothing in the log')
            said.append(f'{policy}: {state} at attempt {attempt}')
    return '; '.join(said)


# What is done otherwise

def rules(place):
    all_forms, reports = (Refusing(lambda _: 0) for _ in range(2))
    tables = destination('PACS', all_forms.port) + destination('ER', reports.port, 'forms = "sr"') + f'''
[[rule]]
name = "stroke"
when = [{{ tag = "StudyDescription", matches = "(?i)stroke" }}]
urgent = true
deliver = ["ER"]

[[rule]]
name = "from the ER"
calling = ["ER-CT"]
deliver = ["ER"]
'''
    with contextlib.ExitStack() as stack, ended(place.node(tables, deliver=['PACS'])) as (node,):
        stack.callback(all_forms.stop)
        stack.callback(reports.stop)
        plain, stroke, er = (place.study.variant(f'rules-{n}') for n in range(3))
        for dataset in stroke.datasets:
            dataset.StudyDescription = 'Head STROKE protocol'
        for study, calling in [(plain, 'CT1'), (stroke, 'CT1'), (er, 'ER-CT')]:
            place.send(node, study, calling)
        both = {('PACS', 'sr'): 'stored', ('PACS', 'seg'): 'stored'}
        for study, names, urgent, expected in [(plain, [], False, both), (stroke, ['stroke'], True, both | {('ER', 'sr'): 'stored'}),
                                               (er, ['from the ER'], False, both | {('ER', 'sr'): 'stored'})]:
            job = job_in(node, study, ['done'])
            need((job.get('rules'), job.get('urgent')) == (names, urgent), f'rules that held: {job}')
            need(until(lambda: deliveries(node, study) == expected), f'deliveries: {deliveries(node, study)}, expected {expected}')
        need('STROKE' not in node.log(), 'a description is in the log')
    return 'urgent by description, another destination by description and by sender, that one reports alone'


def retention(place):
    waiting_port = free_port()
    retain = '\n[retain]\nreceived_days = {0}\nresults_days = {0}\nquarantine_days = {0}\n'
    tables = destination('LATE', waiting_port)
    one = place.study.variant('old')
    node = place.node(tables + retain.format(4 / 86400), deliver=['LATE'])
    files = lambda kind: [path for path in (node.data / kind).rglob('*') if path.is_file()]
    with ended(node) as running:
        place.send(node, one)
        job_in(node, one, ['done'])
        time.sleep(14)  # two passes
        need(node.trace(one.uid).get('kept') and files('instances'), 'a study whose results are on their way was removed')
        late = at_port(waiting_port)
        need(until(lambda: set(deliveries(node, one).values()) == {'stored'}, 90), 'the results are delivered late')
        need(until(lambda: not node.trace(one.uid).get('kept') and not files('instances') and not files('results'), 40),
             f'what is old is here still: {len(files("instances"))} instances, {len(files("results"))} results')
        trace = node.trace(one.uid)
        need([job['kept'] for job in trace['jobs']] == [False] and trace['state'] == 'complete', 'the trace of what was removed')
        need(get_json(f'{node.http}/dicom-web/studies') in (None, []), 'QIDO still shows it')
        need(fetch(f'{node.http}/dicom-web/studies/{one.uid}')[0] == 404, 'WADO still has it')
        details = [row[4] for row in node.audit('110105')]
        need(any(detail.startswith(f'{len(one.datasets)} instances removed') for detail in details), f'audit: {details}')
        need(post(node, f'/jobs/{trace["jobs"][0]["id"]}/retry') == 409, 'a job without its study was taken')
        # It comes again: taken, and not run again.
        place.send(node, one)
        need(until(lambda: node.trace(one.uid).get('kept')), 'it is received again')
        until(lambda: node.trace(one.uid).get('state') == 'complete')
        need(len(jobs_of(node, one)) == 1 and node.trace(one.uid)['generation'] == 1, f'it was run again: {jobs_of(node, one)}')
        node.stop()
        # Down between database and disk.
        with environment({'ROENTGEN_CRASH_AT': 'after-remove:1'}):
            crashing = restarted(place, node)
        crashing.process.wait(60)
        need(files('instances'), 'nothing was left for the next start to remove')
        node = restarted(place, node)
        running[:] = [node]
        need(until(lambda: not files('instances'), 30), 'what a crash left was not removed')
        late.shutdown()
    return 'kept while a destination waits; then instances and results gone, from QIDO too; resent: taken, not run again; a kill in between leaves nothing'


def at_port(port, classes=(SR, SEG)):
    """A destination that takes all of these, on that port."""
    ae = AE(ae_title='OTHER')
    for one in classes:
        ae.add_supported_context(one, [ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless])
    server = ae.start_server(('127.0.0.1', port), block=False, evt_handlers=[(evt.EVT_C_STORE, lambda _: 0)])
    return server


def quota(place):
    """The oldest studies go where there are too many bytes."""
    one_size = sum(path.stat().st_size for path in place.study.write(place.folder / 'size').iterdir())
    with ended(place.node(f'\n[retain]\nreceived_gb = {2.5 * one_size / 1e9}\n')) as (node,):
        studies = [place.study.variant(f'quota-{n}') for n in range(3)]
        for study in studies:
            place.send(node, study)
            job_in(node, study, ['done'])
        need(until(lambda: not node.trace(studies[0].uid)['kept'], 40), 'the oldest is here still')
        time.sleep(1)
        need([node.trace(study.uid)['kept'] for study in studies] == [False, True, True], 'others went, too')
        found = {one['0020000D']['Value'][0] for one in get_json(f'{node.http}/dicom-web/studies')}
        need(found >= {study.uid for study in studies[1:]}, f'QIDO: {found}')
    return 'of three studies, the oldest went'


def alerts(place):
    told = place.folder / 'told'
    script = place.folder / 'tell'
    script.write_text(f'#!/bin/sh\ncat >> {told}\necho >> {told}\n')
    script.chmod(0o755)
    answer = [0x0122]
    never = Refusing(lambda _: answer[0])
    tables = destination('PACS', never.port) + f'\n[alert]\ncommand = ["{script}"]\nfree_mb = 1\n'
    with contextlib.ExitStack() as stack, ended(place.node(tables, deliver=['PACS'])) as (node,):
        stack.callback(never.stop)
        one = place.study.variant('alerts')
        place.send(node, one)
        job_in(node, one, ['done'])
        alert = until(lambda: next(iter(get_json(f'{node.http}/alerts')), None), 20) or {}
        need((alert.get('code'), alert.get('subject'), alert.get('count')) == ('delivery.dead', 'PACS', 2), f'alert: {alert}')
        metric = 'roentgen_alert{code="delivery.dead",subject="PACS"} 1'
        need(metric in fetch(f'{node.http}/metrics')[1].decode(), 'the alert is not in the metrics')
        dead = get_json(f'{node.http}/deliveries?state=dead') or []
        need({one['status'] for one in dead} == {0x0122} and len(dead) == 2, f'dead deliveries: {dead}')
        need(get_json(f'{node.http}/deliveries?state=dead&destination=ELSEWHERE') == [], 'of another destination')
        time.sleep(5)
        need(node.log().count(' alert ') <= 1 and told.read_text().count('begun') == 1, f'told more than once: {told.read_text()}')
        answer[0] = 0
        need(post(node, f'/deliveries/PACS/{dead[0]["sop_instance_uid"]}/retry') == 200, 'one is tried again')
        need(post(node, f'/deliveries/PACS/{dead[0]["sop_instance_uid"]}/retry') == 409, 'one that is not dead is not')
        need(until(lambda: sorted(deliveries(node, one).values()) == ['dead', 'stored']), f'{deliveries(node, one)}')
        need(post(node, '/deliveries/PACS/retry') == 200, 'all are tried again')
        need(until(lambda: set(deliveries(node, one).values()) == {'stored'}), f'{deliveries(node, one)}')
        need(until(lambda: get_json(f'{node.http}/alerts') == [] and 'over' in told.read_text(), 20), f'{told.read_text()}')
        messages = [json.loads(line) for line in told.read_text().splitlines() if line]
        need([message['state'] for message in messages] == ['begun', 'over'], f'{messages}')
        need(str(one.datasets[0].PatientID) not in told.read_text(), 'a patient is in a message')
    return 'dead deliveries: told once in log, program, metrics and /alerts; over when they were delivered by order'


# DICOMweb

class Server(http.server.ThreadingHTTPServer):
    """A DICOMweb server that answers as `answer` says: it takes SOP Instance UIDs, gives a status and reasons of failure by UID."""

    def __init__(self, answer):
        self.answer, self.requests, self.tokens = answer, [], []
        super().__init__(('127.0.0.1', 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def do_POST(self):
        body = self.rfile.read(int(self.headers['Content-Length']))
        boundary = self.headers['Content-Type'].split('boundary=')[1].encode()
        parts = [part.split(b'\r\n\r\n', 1)[1] for part in body.split(b'--' + boundary)[1:-1]]
        found = [pydicom.dcmread(pydicom.filebase.DicomBytesIO(part[:-2])) for part in parts]
        self.server.tokens.append(self.headers.get('Authorization'))
        self.server.requests.append([str(one.SOPClassUID) for one in found])
        status, reasons = self.server.answer(found)
        if reasons is None:
            answer = b''
        else:
            item = lambda one: {'00081150': {'vr': 'UI', 'Value': [one.SOPClassUID]}, '00081155': {'vr': 'UI', 'Value': [one.SOPInstanceUID]}}
            failed = [item(one) | {'00081197': {'vr': 'US', 'Value': [reasons[one.SOPClassUID]]}} for one in found if one.SOPClassUID in reasons]
            stored = [item(one) for one in found if one.SOPClassUID not in reasons]
            answer = json.dumps({'00081198': {'vr': 'SQ', 'Value': failed}, '00081199': {'vr': 'SQ', 'Value': stored}}).encode()
        self.send_response(status)
        self.send_header('Content-Length', str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


def stow(place):
    if not os.path.exists(DICOMWEB_PLUGIN):
        sys.exit('the DICOMweb plugin of Orthanc is not installed: run the tests with tests/run')
    pacs = Orthanc(place.folder, 'PACS', {}, Plugins=[DICOMWEB_PLUGIN], DicomWeb={'Enable': True, 'Root': '/dicom-web/'})
    no_seg = Server(lambda found: (202, {SEG: 0x0122}))
    busy = []

    def twice_busy(found):
        busy.append(1)
        return (503, None) if len(busy) <= 2 else (200, {})
    slow = Server(twice_busy)
    # What it cannot take, it refuses without a word of why: only one by one is it known which.
    picky = Server(lambda found: (400, None) if any(one.SOPClassUID == SEG for one in found) else (200, {}))
    silent = Server(lambda found: (200, None))
    token = place.folder / 'token'
    token.write_text('secret-1\n')
    web = lambda name, port, more='': f'\n[[destination]]\nname = "{name}"\nurl = "http://127.0.0.1:{port}/web"\nretry_s = 1\n{more}\n'
    servers = {'NOSEG': no_seg, 'SLOW': slow, 'PICKY': picky, 'SILENT': silent}
    tables = f'\n[[destination]]\nname = "PACS"\nurl = "{pacs.http}/dicom-web/"\nretry_s = 1\n'
    tables += ''.join(web(name, server.server_port, 'attempts = 3\n' + ('token_file = "token"' if name == 'SLOW' else '')) for name, server in servers.items())
    tables += web('DOWN', free_port(), 'attempts = 2')
    with ended(place.node(tables, deliver=['PACS', *servers, 'DOWN']), pacs) as (node, _):
        one = place.study.variant('stow')
        place.send(node, one)
        job_in(node, one, ['done'])
        need(until(lambda: 'due' not in deliveries(node, one).values()), f'{deliveries(node, one)}')
        rows = {(row['destination'], row['form']): row for row in node.trace(one.uid)['results']}
        found = {key: (row['state'], row['attempts'], row['status']) for key, row in rows.items()}
        expected = {
            ('PACS', 'sr'): ('stored', 1, 0), ('PACS', 'seg'): ('stored', 1, 0),
            ('NOSEG', 'sr'): ('stored', 1, 0), ('NOSEG', 'seg'): ('dead', 1, 0x0122),
            ('SLOW', 'sr'): ('stored', 3, 0), ('SLOW', 'seg'): ('stored', 3, 0),
            ('PICKY', 'sr'): ('stored', 1, 0), ('PICKY', 'seg'): ('dead', 1, None),
            ('SILENT', 'sr'): ('dead', 3, None), ('SILENT', 'seg'): ('dead', 3, None),
            ('DOWN', 'sr'): ('dead', 2, None), ('DOWN', 'seg'): ('dead', 2, None),
        }
        need(found == expected, f'deliveries: {found}, expected {expected}')
        need(set(slow.tokens) == {'Bearer secret-1'} and set(no_seg.tokens) == {None}, f'tokens: {slow.tokens} {no_seg.tokens}')
        need('400' in rows['PICKY', 'seg']['remark'] and 'does not name it' in rows['SILENT', 'sr']['remark'], f'{rows}')
        here = {str(one['SOPInstanceUID']) for row in pacs.get('/instances?expand') for one in [row['MainDicomTags']]}
        made = {uid for uid in (row['sop_instance_uid'] for row in rows.values())}
        need(here == made, f'in Orthanc: {here}, made: {made}')
        need('secret-1' not in node.log(), 'the token is in the log')
        for path in (node.data / 'results').rglob('*.dcm'):
            sent = pydicom.dcmread(path)
            name = next((row['ID'] for row in pacs.get('/instances?expand') if row['MainDicomTags']['SOPInstanceUID'] == sent.SOPInstanceUID), '')
            if not name:
                continue  # told above
            kept = pydicom.dcmread(pydicom.filebase.DicomBytesIO(fetch(f'{pacs.http}/instances/{name}/file')[1]))
            need(sent == kept, f'{path.name} is not what Orthanc has')
    return 'Orthanc has SR and SEG; 0122H for one, 503 twice, 400 for one, no answer, nobody there: each instance its own verdict'


def stow_tls(place):
    """By https: the server's certificate and ours are looked at."""
    import ssl

    from check_tls import Authority
    ours, others = Authority(place.folder, 'ours'), Authority(place.folder, 'others')
    server = Server(lambda found: (200, {}))
    certificate, key = ours.sign('server')
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(ours.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    server.socket = context.wrap_socket(server.socket, server_side=True)
    shown = ours.sign('node')
    tables = ''.join(f'\n[[destination]]\nname = "{name}"\nurl = "https://127.0.0.1:{server.server_port}/web"\nretry_s = 1\nattempts = 2\n'
                     f'tls = {{ ca = "{ca}"{identity} }}\n' for name, ca, identity in [
                         ('GOOD', ours.ca, f', certificate = "{shown[0]}", key = "{shown[1]}"'), ('WRONG', others.ca, ''), ('NOBODY', ours.ca, '')])
    with ended(place.node(tables, deliver=['GOOD', 'WRONG', 'NOBODY'])) as (node,):
        one = place.study.variant('stow-tls')
        place.send(node, one)
        job_in(node, one, ['done'])
        need(until(lambda: 'due' not in deliveries(node, one).values()), f'{deliveries(node, one)}')
        expected = {(name, form): state for name, state in [('GOOD', 'stored'), ('WRONG', 'dead'), ('NOBODY', 'dead')] for form in ('sr', 'seg')}
        need(deliveries(node, one) == expected, f'{deliveries(node, one)}')
        need(len(server.requests) == 1, f'{len(server.requests)} requests came through')
    return 'taken with both certificates; another authority, and none of ours: not a request came through'


def instead(place):
    """A label map is refused: the segmentation in bits goes instead, and only then."""
    new, old = free_port(), free_port()
    servers = at_port(new, (SR, SEG, LABELMAP)), at_port(old)
    more = 'instead = { labelmap = "seg" }'
    tables = destination('NEW', new, more) + destination('OLD', old, more)
    with contextlib.ExitStack() as stack, ended(place.node(tables, deliver=['NEW', 'OLD'], results='sr,labelmap,seg')) as (node,):
        for server in servers:
            stack.callback(server.shutdown)
        one = place.study.variant('instead')
        place.send(node, one)
        job_in(node, one, ['done'])
        expected = {('NEW', 'sr'): 'stored', ('NEW', 'labelmap'): 'stored', ('OLD', 'sr'): 'stored', ('OLD', 'labelmap'): 'replaced', ('OLD', 'seg'): 'stored'}
        need(until(lambda: deliveries(node, one) == expected), f'{deliveries(node, one)}')
        need(get_json(f'{node.http}/deliveries?state=dead') == [], 'what was replaced is no dead letter')
    return 'a destination without Label Map Segmentation got the Segmentation, the other one did not'


def damaged(place):
    """What the disk has damaged or lost is replaced by the same instance, and nothing is run again."""
    with ended(place.node()) as (node,):
        one = place.study.variant('damaged')
        place.send(node, one)
        job_in(node, one, ['done'])
        files = sorted((node.data / 'instances').rglob('*.dcm'))
        before = {path: path.read_bytes() for path in files}
        spoilt = bytearray(before[files[0]])
        spoilt[-1] ^= 1
        files[0].write_bytes(spoilt)
        files[1].write_bytes(before[files[1]][:1000])
        files[2].unlink()
        place.send(node, one)
        need(until(lambda: {path: path.read_bytes() for path in sorted((node.data / 'instances').rglob('*.dcm'))} == before, 10), 'not all is whole again')
        need(not waiting(node.data), 'left in incoming')
        need(node.log().count('has come again and is replaced') == 3, 'not three are told of')
        time.sleep(2.5)
        need(len(jobs_of(node, one)) == 1, 'it was run again')
    return 'one with another byte, a short one and a lost one: whole again, one job'


def reload(place):
    """A23: a rule, a destination and a package more, a package less, certificates renewed, while studies come; and a wrong one."""
    other = Refusing(lambda _: 0)
    more = destination('LATER', other.port) + '\n[[rule]]\nname = "all CT"\nwhen = [{ tag = "Modality", equals = ["CT"] }]\ndeliver = ["LATER"]\n'
    second = place.folder / 'second'
    shutil.copytree(place.package, second)
    package = lambda name: f'\n[[package]]\nname = "{name}"\nresults = "sr"\n'
    with contextlib.ExitStack() as stack, ended(place.node()) as (node,):
        stack.callback(other.stop)
        tables = node.path.read_text().removeprefix(node.head + node.tables)
        studies = [place.study.variant(f'reload-{n}') for n in range(8)]
        sender = threading.Thread(target=lambda: [place.send(node, study) for study in studies[:6]])
        sender.start()
        replaced = 0
        for n, change in enumerate([tables + more, tables + more + package(second), more + package(second), tables + more]):
            time.sleep(0.7)
            node.configure(change)
            node.process.send_signal(signal.SIGHUP)
            need(until(lambda: node.log().count('the configuration is replaced') == n + 1), f'configuration {n} was not taken:\n{node.log()[-800:]}')
            replaced += 1
        sender.join()
        for study in studies[:6]:
            jobs = until(lambda: (jobs := jobs_of(node, study)) and all(job['state'] not in ('queued', 'running') for job in jobs) and jobs)
            need(jobs, f'jobs under load: {jobs_of(node, study)}')
            # A package that was taken away before its turn is said to be; nothing else fails.
            wrong = [job for job in jobs or [] if job['state'] != 'done' and job['outcome'].get('code') != 'node.no-package']
            need(not wrong, f'jobs under load: {wrong}')
        for wrong, line in [('deliver = ["LATER"]', 'deliver = ["NOWHERE"]'), ('name = "all CT"', 'nome = "all CT"')]:
            node.configure((tables + more).replace(wrong, line))
            refused = node.log().count('the new configuration is refused')
            node.process.send_signal(signal.SIGHUP)
            need(until(lambda: node.log().count('the new configuration is refused') == refused + 1), f'{line} was taken')
        number = next(n for n, text in enumerate(node.path.read_text().splitlines(), 1) if 'nome' in text)
        need(re.search(rf'line {number}\b', node.log()), f'the line of `nome` ({number}) is not told:\n{node.log()[-600:]}')
        # What it goes by is the last that was taken.
        place.send(node, studies[6])
        job = job_in(node, studies[6], ['done'])
        need(job.get('rules') == ['all CT'], f'the old configuration does not hold: {job}')
        need(until(lambda: ('LATER', 'sr') in deliveries(node, studies[6]) and set(deliveries(node, studies[6]).values()) == {'stored'}), 'not delivered')
        outcomes = [row[1] for row in node.audit('110131')]
        need(outcomes == [0] * replaced + [4] * 2, f'audit: {outcomes}')
    return f'{replaced} configurations taken while 6 studies came, 2 refused with their line; each is in the audit table'


def main():
    binary, package, folder, names = sys.argv[1:]
    study = Study.read(folder)
    said = []
    for name in names.split(','):
        started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix='roentgen-work-') as place:
            text = globals()[name](Place(binary, package, place, study))
        said.append(f'{name}: {text} [{time.monotonic() - started:.1f} s]')
    finish('\n'.join(said))


if __name__ == '__main__':
    main()
