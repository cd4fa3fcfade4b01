#!/usr/bin/env python3
"""Acceptance scenarios of the DICOM node, against DCMTK, Orthanc and pynetdicom as peers.

usage: check_node.py BINARY PACKAGE SCENARIOS STUDY_DIR [STUDY_DIR...] [--crash-points]

SCENARIOS are function names below, with commas between: `A1,A2`. The first study is a CT that the package takes; `A21` sends the others, too.
With --crash-points (src/store/crash.rs: a build with debug assertions has them), `A9` and `A10` take the node down at each of them, too.
Prints a line for each scenario. Exit 0, or 1 with every reason.
"""
import contextlib
import copy
import io
import os
import resource
import socket
import sqlite3
import struct
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path

import numpy as np
import pydicom
from pydicom.uid import ExplicitVRLittleEndian

from node_bench import (CT, MPEG2, RAW_DATA, SECONDARY_CAPTURE, SEG, SR, Bench, Forwarder, Study, command_set, content, pdata, raw_associate,
                        raw_answer, raw_request, raw_store, read_pdu, until)
from programs import dciodvfy_errors, dcmtk

CRASH_POINTS = '--crash-points' in sys.argv
EXPLICIT = str(ExplicitVRLittleEndian)
QUIET_S = 1
OWN_FDS = 12 + 16  # a node opens connections to its database when it first needs them, and files for the instances to come


def need(holds, text):
    if not holds:
        raise AssertionError(text)


def same(found, expected, what):
    need(found == expected, f'{what}: {found}, expected {expected}')


def audit(node, **wanted):
    """Rows of the audit table that have these values."""
    with contextlib.closing(sqlite3.connect(f'file:{node.data}/node.sqlite?mode=ro', uri=True)) as database:
        database.row_factory = sqlite3.Row
        rows = [dict(row) for row in database.execute('SELECT * FROM audit ORDER BY id')]
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def results(orthanc, study, count=2, seconds=60):
    """The SR and SEG that Orthanc has of a study, as data sets by modality; fails where there are others."""
    found = until(lambda: f'{count} results in the PACS, not {orthanc.study(study.uid)}',
                  lambda: (one := orthanc.study(study.uid)) and len(one) >= count and one, seconds)
    same([modality for modality, _, _ in found], ['SEG'] * (count // 2) + ['SR'] * (count // 2), 'results in the PACS')
    return {modality: orthanc.dataset(name) for modality, _, name in found}


def belongs(results, study):
    """Every result names this study, its patient and its images, and no others."""
    source = study.datasets[0]
    own = {str(dataset.SOPInstanceUID) for dataset in study.datasets}
    for modality, dataset in results.items():
        for keyword in ('StudyInstanceUID', 'PatientID', 'PatientName', 'PatientBirthDate', 'PatientSex', 'AccessionNumber', 'StudyID',
                        'StudyDate', 'StudyTime'):
            same(dataset.get(keyword, ''), source.get(keyword, ''), f'{keyword} of {modality}')
    named = {str(one.ReferencedSOPInstanceUID) for series in results['SEG'].ReferencedSeriesSequence for one in series.ReferencedInstanceSequence}
    need(named and named <= own, f'SEG refers to {len(named - own)} images of other studies')
    for evidence in results['SR'].CurrentRequestedProcedureEvidenceSequence:
        same(evidence.StudyInstanceUID, study.uid, 'study of the SR evidence')


# A1 to A6: associations, one study, several at once

def A1(bench, study):
    node = bench.node().start()
    need(node.echo(), node.said)

    def associations(count):
        for _ in range(count):
            connection, answer = raw_associate(node.port, [('1.2.840.10008.1.1', EXPLICIT)], 'ECHOSCU')
            same(answer[0], 2, 'A-ASSOCIATE-AC')
            connection.sendall(struct.pack('>BBI', 5, 0, 4) + bytes(4))
            same(read_pdu(connection)[0], 6, 'A-RELEASE-RP')
            connection.close()
    status, text = dcmtk('echoscu', '-aet', 'ECHOSCU', '-aec', 'NODE', '--repeat', '1000', '127.0.0.1', str(node.port))
    same(status, 0, text)
    associations(100)
    time.sleep(0.2)
    fds, kb = node.resources()
    status, text = dcmtk('echoscu', '-aet', 'ECHOSCU', '-aec', 'NODE', '--repeat', '1000', '127.0.0.1', str(node.port))
    same(status, 0, text)
    associations(100)
    until('file descriptors are as before', lambda: node.resources()[0] <= fds, 5)
    fds_now, kb_now = node.resources()
    need(kb_now - kb < 2048, f'memory grew from {kb} to {kb_now} kB')
    return f'2 x 1000 echoes, 2 x 100 associations; {fds} -> {fds_now} file descriptors, {kb} -> {kb_now} kB; listens after {node.start_seconds:.2f} s'


def A2(bench, study):
    orthanc = bench.orthanc()
    node = bench.node(orthanc, quiet_s=QUIET_S).start()
    study = study.variant('A2')
    status, answers, text = node.storescu(study.write(bench.place('study')))
    released = time.monotonic()
    same((status, answers), (0, ['Success'] * len(study.datasets)), text)
    found = results(orthanc, study)
    seconds = time.monotonic() - released
    belongs(found, study)
    job = node.job_done(study.uid)
    same((job['state'], job['attempt'], len(node.jobs())), ('done', 1, 1), 'the job')
    series, = job['outcome']['series']
    same((series['outcome'], series['instances']), ('done', len(study.datasets)), 'the series')
    node.delivered(study.uid)
    for modality, dataset in found.items():
        path = bench.folder / f'{modality}.dcm'
        dataset.save_as(path)
        same(dciodvfy_errors(path), [], f'dciodvfy on {modality}')
    metrics = node.metrics()
    same(metrics['roentgen_instances_total{status="success"}'], len(study.datasets), 'instances counted')
    same((metrics['roentgen_delivered_total'], metrics['roentgen_deliveries_due']), (2, 0), 'deliveries counted')
    same([row['detail'] for row in audit(node, event='110104', action='C', subject=study.uid)], [f'{len(study.datasets)} instances received'], 'audit')
    stages = ', '.join(f'{stage} {time:.2f}' for stage, time in series['stages_s'].items())
    need(seconds - QUIET_S < 10, f'{seconds:.1f} s from release to the PACS')
    return f'{len(answers)} x 0000H, one job, SR and SEG in the PACS {seconds:.2f} s after the release ({QUIET_S} s quiet time; {stages} s)'


def A3(bench, study):
    orthanc = bench.orthanc()
    node = bench.node(orthanc, quiet_s=QUIET_S).start()
    fast = {f'CT{n}': study.variant(f'A3-{n}') for n in range(1, 5)}
    slow = study.variant('A3-slow')
    folders = {title: one.write(bench.place('study')) for title, one in fast.items()}
    slow_folder = bench.place('study')
    slow.write(slow_folder)
    bytes_of_study = sum(path.stat().st_size for path in slow_folder.iterdir())
    forwarder = Forwarder(node.port, bytes_of_study / 8)
    outcomes = {}

    def send(title, folder):
        outcomes[title] = node.storescu(folder, title)

    def send_slowly():
        outcomes['SLOW'] = dcmtk('storescu', '-v', '-aet', 'SLOW', '-aec', 'NODE', '+sd', '127.0.0.1', str(forwarder.port), str(slow_folder))
    slow_thread = threading.Thread(target=send_slowly)
    slow_thread.start()
    threads = [threading.Thread(target=send, args=one) for one in folders.items()]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sent = time.monotonic() - started
    for title, one in fast.items():
        same(outcomes[title][:2], (0, ['Success'] * len(one.datasets)), f'what {title} sent')
        belongs(results(orthanc, one), one)
    done = time.monotonic() - started
    need(slow_thread.is_alive(), 'the slow sender was done before the four results were in the PACS')
    slow_thread.join()
    same(outcomes['SLOW'][0], 0, outcomes['SLOW'][1])
    belongs(results(orthanc, slow), slow)
    for one in [*fast.values(), slow]:
        job = node.job_done(one.uid)
        same((job['state'], [series['instances'] for series in job['outcome']['series']]), ('done', [len(one.datasets)]), 'a job')
    same(len(node.jobs()), 5, 'jobs')
    return f'4 studies at once sent in {sent:.1f} s, their results in the PACS after {done:.1f} s, while a slow fifth one was being sent; none mixed'


def A4(bench, study):
    node = bench.node().start()
    need(not node.echo(called='NOPE'), 'a wrong called title was accepted')
    need('Called AE Title Not Recognized' in node.said, node.said)
    connection, answer = raw_associate(node.port, [('1.2.840.10008.1.1', EXPLICIT)], called='NOPE')
    same(answer, (3, bytes([0, 1, 1, 7])), 'A-ASSOCIATE-RJ')
    connection.close()
    row, = until('it is audited', lambda: (rows := audit(node, event='110113')) and len(rows) == 2 and rows[:1], 5)
    need('ECHOSCU at 127.0.0.1' in row['peer'] and row['detail'] == 'called AE title not recognized' and row['outcome'] == 4, row)
    need(node.alive(), node.said)
    return 'rejected with result 1, source 1, reason 7; two rows of audit 110113'


def A5(bench, study):
    node = bench.node(extra='[[peer]]\nae_title = "FAR"\nfrom = ["192.0.2.0/24"]\n').start()
    for calling in ('STRANGER', 'FAR'):
        connection, answer = raw_associate(node.port, [(CT, EXPLICIT)], calling=calling)
        same(answer, (3, bytes([0, 1, 1, 3])), f'A-ASSOCIATE-RJ for {calling}')
        with contextlib.suppress(OSError):
            connection.sendall(pdata(1, 1, 1, bytes(1000)))
        same(read_pdu(connection), None, 'what follows a rejection')
    rows = until('it is audited', lambda: (rows := audit(node, event='110113')) and len(rows) == 2 and rows, 5)
    need(all(row['detail'] == 'calling AE title not recognized' for row in rows), rows)
    same(node.metrics()['roentgen_received_bytes_total'], 0, 'bytes received')
    need(node.alive(), node.said)
    return 'unknown title, and known title from elsewhere: rejected with reason 3, audited, no data read'


def A6(bench, study):
    node = bench.node().start()
    proposed = [(RAW_DATA, EXPLICIT), (CT, MPEG2), (CT, EXPLICIT)]
    connection, answer = raw_associate(node.port, proposed)
    same(answer[0], 2, 'A-ASSOCIATE-AC')
    contexts, at = {}, 68
    while at < len(answer[1]):
        kind, _, length = struct.unpack('>BBH', answer[1][at:at + 4])
        if kind == 0x21:
            contexts[answer[1][at + 4]] = answer[1][at + 6]
        at += 4 + length
    same(contexts, {1: 3, 3: 4, 5: 0}, 'results of the contexts')
    connection.close()
    study = study.variant('A6')
    raw = copy.deepcopy(study.datasets[0])
    raw.SOPClassUID = raw.file_meta.MediaStorageSOPClassUID = RAW_DATA
    raw.SOPInstanceUID = raw.file_meta.MediaStorageSOPInstanceUID = '2.25.6'
    folder = study.write(bench.place('study'))
    path = bench.folder / 'raw.dcm'
    raw.save_as(path)
    status, text = dcmtk('storescu', '-v', '-R', '-aet', 'STORESCU', '-aec', 'NODE', '127.0.0.1', str(node.port), str(path))
    need(status != 0 and 'No Acceptable Presentation Contexts' in text, text)
    association = node.association([(RAW_DATA, (EXPLICIT,)), (CT, (EXPLICIT,))])
    same(int(association.send_c_store(study.datasets[0]).Status), 0, 'status on the other context')
    association.release()
    status, answers, text = node.storescu(folder)
    same((status, len(answers)), (0, len(study.datasets)), text)
    return f'Raw Data: context rejected with 3, MPEG2: with 4; storescu says "No Acceptable Presentation Contexts"'


COMPRESSED = {  # by the sender's option of storescu: the program that makes it, and its transfer syntax
    '-xs': (('dcmcjpeg', '+e1'), '1.2.840.10008.1.2.4.70'),
    '-xt': (('dcmcjpls', '+el'), '1.2.840.10008.1.2.4.80'),
    '-xv': (('gdcmconv', '--j2k', '--lossless'), '1.2.840.10008.1.2.4.90'),
    '-xr': (('dcmcrle',), '1.2.840.10008.1.2.5'),
}


def A7(bench, study):
    orthanc = bench.orthanc()
    node = bench.node(orthanc, quiet_s=QUIET_S).start()

    def outcome(one):
        """What the results say, without the UIDs and times in which they differ."""
        found = results(orthanc, one)
        belongs(found, one)
        numbers = [str(item.MeasuredValueSequence[0].NumericValue) for item in everything(found['SR']) if item.get('ValueType') == 'NUM']
        series, = node.job_done(one.uid)['outcome']['series']
        same((series['outcome'], series['instances']), ('done', len(one.datasets)), 'the series')
        return found['SEG'].pixel_array.tobytes(), numbers

    def everything(item):
        for child in item.get('ContentSequence', []):
            yield child
            yield from everything(child)

    native = study.variant('A7')
    same(set(node.send(native)), {0}, 'statuses')
    expected = outcome(native)
    need(len(expected[1]) > 3, 'measurements in the SR')
    for option, (encoder, syntax) in COMPRESSED.items():
        folder, encoded = study.variant(f'A7{option}').write(bench.place('native')), bench.place('encoded')
        encoded.mkdir()
        for path in sorted(folder.iterdir()):
            status, text = dcmtk(*encoder, str(path), str(encoded / path.name))
            same(status, 0, text)
        compressed = Study.read(encoded)
        same({str(d.file_meta.TransferSyntaxUID) for d in compressed.datasets}, {syntax}, encoder[0])
        status, answers, text = node.storescu(encoded, 'STORESCU', option)
        same((status, answers), (0, ['Success'] * len(study.datasets)), text)
        need(outcome(compressed) == expected, f'{encoder[0]}: another result')
        kept = {str(d.SOPInstanceUID): d for d in map(pydicom.dcmread, (node.data / 'instances').rglob('*.dcm'))}
        for dataset in compressed.datasets:
            one = kept[str(dataset.SOPInstanceUID)]
            same((one.file_meta.TransferSyntaxUID, one.PixelData), (syntax, dataset.PixelData), f'{encoder[0]}: what is kept')
    return f'JPEG lossless, JPEG-LS, JPEG 2000 and RLE: kept as they came, the same segmentation and {len(expected[1])} measurements as uncompressed'


# A8 to A12: cut off, killed, sent again

def A8(bench, study):
    orthanc = bench.orthanc()
    node = bench.node(orthanc, quiet_s=QUIET_S, cut_off_s=4).start()
    half = len(study.datasets) // 2

    # The rest comes before the time is over: one run, on all of it.
    soon = study.variant('A8-soon')
    acknowledged = node.send_acknowledged(soon, abort_after=half)
    same(len(acknowledged), half, 'acknowledged before the abort')
    until('what was acknowledged is entered', lambda: node.received(soon.uid) == half)
    time.sleep(QUIET_S + 1)
    trace = node.trace(soon.uid)
    same((trace['state'], trace['cut_off'], trace['jobs']), ('receiving', True, []), 'a study that was cut off')
    same(set(node.send(soon)), {0}, 'statuses of the resend')
    belongs(results(orthanc, soon), soon)
    jobs = node.jobs(soon.uid)
    same([(job['state'], job['outcome']['cut_off'], job['outcome']['series'][0]['instances']) for job in jobs], [('done', False, 2 * half)], 'jobs')
    same({row['action']: row['detail'] for row in audit(node, event='110104', subject=soon.uid) if 'received' in row['detail']},
         {'C': f'{half} instances received', 'R': f'{half} instances received'}, 'audit')

    # It comes later: the run on the half says so, and the result of all replaces it.
    late = study.variant('A8-late')
    node.send_acknowledged(late, abort_after=half)
    job = node.job_done(late.uid)
    same((job['state'], job['outcome']['cut_off'], job['outcome']['series'][0]['instances']), ('done', True, half), 'the job on half of it')
    first = results(orthanc, late)['SR']
    same(set(node.send(late)), {0}, 'statuses of the resend')
    until('the second report arrives', lambda: len(orthanc.study(late.uid)) == 4)
    reports = [orthanc.dataset(name) for modality, _, name in orthanc.study(late.uid) if modality == 'SR']
    second, = (one for one in reports if one.SOPInstanceUID != first.SOPInstanceUID)
    named = [str(one.ReferencedSOPSequence[0].ReferencedSOPInstanceUID) for one in second.PredecessorDocumentsSequence[0].ReferencedSeriesSequence]
    same(named, [str(first.SOPInstanceUID)], 'predecessor documents')
    need('PredecessorDocumentsSequence' not in first, 'the first report has predecessors')
    job = node.job_done(late.uid, 2)
    same((job['generation'], job['outcome']['cut_off'], job['outcome']['series'][0]['instances']), (2, False, 2 * half), 'the job on all of it')
    return f'{half} of {2 * half} acknowledged and kept; resent at once: one run; resent later: a second report that names the first as its predecessor'


def A9(bench, study):
    node = bench.node(quiet_s=QUIET_S).start()
    seen = []
    points = ['kill -9'] + (['after-seal:9', 'after-enter:3', 'after-enter:1'] if CRASH_POINTS else [])
    for point in points:
        one = study.variant(f'A9-{point}')
        if point == 'kill -9':
            threading.Timer(0.25, node.kill).start()
            acknowledged = node.send_acknowledged(one, pause=0.02)
        else:
            node.stop()
            node.start(crash_at=point)
            acknowledged = node.send_acknowledged(one)
        node.process.wait(10)
        need(len(acknowledged) < len(one.datasets), f'{point}: the node was not taken down in time')
        node.start()
        expected = {uid: hash for uid, hash in one.hashes().items() if uid in acknowledged}
        kept = node.kept()
        same({uid: kept.get(uid) for uid in expected}, expected, f'{point}: hashes of what was acknowledged')
        trace = node.trace(one.uid)
        if acknowledged:
            same((trace['state'], trace['cut_off']), ('receiving', True), f'{point}: the study after the restart')
        need(len(acknowledged) <= node.received(one.uid) <= len(acknowledged) + 1, f'{point}: {node.received(one.uid)} instances of {len(acknowledged)}')
        same(node.waiting(), [], f'{point}: left in incoming')
        time.sleep(QUIET_S + 0.5)
        same(node.jobs(one.uid), [], f'{point}: jobs before the rest came')
        rest = [dataset for dataset in one.datasets if str(dataset.SOPInstanceUID) not in acknowledged]
        same(set(node.send(rest)), {0}, f'{point}: statuses of the rest')
        job = node.job_done(one.uid)
        same((job['state'], job['attempt'], job['outcome']['series'][0]['instances']), ('done', 1, len(one.datasets)), f'{point}: the job')
        kept = node.kept()
        same({uid: kept.get(uid) for uid in one.hashes()}, one.hashes(), f'{point}: hashes at the end')
        same(len(node.jobs(one.uid)), 1, f'{point}: jobs')
        seen.append(f'{point} {len(acknowledged)}')
    one = study.variant('A9-released')
    same(set(node.send(one)), {0}, 'statuses')
    until('the release is entered', lambda: (node.trace(one.uid) or {}).get('cut_off') is False, 5, 0.01)
    node.kill()
    node.start()
    same(node.job_done(one.uid, seconds=QUIET_S + 10)['outcome']['cut_off'], False, 'a study that was released before')
    return f'acknowledged when the node went down: {", ".join(seen)}; all kept with the right hash, each study one job after the rest'


def A10(bench, study):
    orthanc = bench.orthanc()
    holds, holding = threading.Event(), threading.Event()

    def hold(_):
        holding.set()
        holds.wait(20)
        return 0
    other = bench.refusing(hold)
    holds.set()
    node = bench.node(orthanc, [other], quiet_s=QUIET_S)
    seen = []

    def staging():
        return [path for path in (node.data / 'results').glob('*/.roentgen-*') if any(path.iterdir())]
    # What to wait for before kill -9, and the attempt that the job ends with.
    moments = {
        'inference': (lambda: node.logged('a job begins'), 2),
        'result write': (lambda: staging() or node.logged('a job is done'), None),
        'send': (holding.is_set, 1),
    }
    points = {'job-running': 2, 'series-written': 2, 'after-finish': 1, 'before-settle:1': 1, 'before-settle:2': 1}
    for name in [*moments, *(points if CRASH_POINTS else {})]:
        one = study.variant(f'A10-{name}')
        if name in moments:
            node.start()
            condition, attempt = moments[name]
            if name == 'send':
                holds.clear()
                holding.clear()
            same(set(node.send(one)), {0}, 'statuses')
            until(f'the moment of {name}', condition, 30, 0.001)
            node.kill()
            holds.set()
        else:
            attempt = points[name]
            node.start(crash_at=name)
            same(set(node.send(one)), {0}, 'statuses')
            node.process.wait(30)
        node.start()
        results(orthanc, one)
        job = node.job_done(one.uid)
        need(job['state'] == 'done' and job['attempt'] in ([attempt] if attempt else [1, 2]), f'{name}: {job}')
        node.delivered(one.uid)
        same([modality for modality, _, _ in orthanc.study(one.uid)], ['SEG', 'SR'], f'{name}: results in the PACS')
        sent = {row['sop_instance_uid'] for row in node.trace(one.uid)['results']}
        same({uid for _, uid, _ in orthanc.study(one.uid)}, sent, f'{name}: UIDs in the PACS')
        need(sent <= set(other.taken), f'{name}: the other destination lacks some')
        same(len(node.jobs(one.uid)), 1, f'{name}: jobs')
        same(list((node.data / 'results').glob('*/.roentgen-*')), [], f'{name}: left of the attempt that ended')
        seen.append(f'{name} {job["attempt"]}')
        node.stop()
    same(len(set(other.taken)), 2 * len(seen), 'UIDs at the other destination')
    return f'attempts after going down at: {", ".join(seen)}; one SR and one SEG each in the PACS'


def A11(bench, study):
    orthanc = bench.orthanc()
    node = bench.node(orthanc, quiet_s=QUIET_S).start()
    study = study.variant('A11')
    folder = study.write(bench.place('study'))
    statuses = []
    for time_sent in range(3):
        if time_sent == 2:
            node.stop()  # as it may well be a week later
            node.start()
        status, answers, text = node.storescu(folder)
        same((status, set(answers)), (0, {'Success'}), text)
        statuses += answers
        if time_sent == 0:
            results(orthanc, study)
            node.delivered(study.uid)
    time.sleep(QUIET_S + 1)
    same([(job['state'], job['attempt']) for job in node.jobs(study.uid)], [('done', 1)], 'jobs')
    same([modality for modality, _, _ in orthanc.study(study.uid)], ['SEG', 'SR'], 'results in the PACS')
    same([row['attempts'] for row in node.trace(study.uid)['results']], [1, 1], 'attempts at delivery')
    rows = [row['action'] for row in audit(node, event='110104', subject=study.uid) if 'received' in row['detail']]
    same(rows, ['C', 'R', 'R'], 'audit')
    return f'{len(statuses)} x 0000H, audited as C, R, R; one job, one SR, one SEG'


def A12(bench, study):
    orthanc = bench.orthanc()
    node = bench.node(orthanc, quiet_s=QUIET_S).start()
    study = study.variant('A12')
    same(set(node.send(study)), {0}, 'statuses')
    results(orthanc, study)
    other = copy.deepcopy(study.datasets[5])
    other.PixelData = bytes(len(other.PixelData))
    association = node.association()
    answer = association.send_c_store(other)
    association.release()
    same(int(answer.Status), 0xB000, 'status of other content')
    need('quarantine' in str(answer.get('ErrorComment', '')), answer)
    trace = until('it is in the trace', lambda: (trace := node.trace(study.uid)) and trace['quarantine'] and trace)
    same([row['sop_instance_uid'] for row in trace['quarantine']], [str(other.SOPInstanceUID)], 'quarantine')
    same(node.kept(), study.hashes(), 'what is kept')
    quarantined, = (node.data / 'quarantine').iterdir()
    same(pydicom.dcmread(quarantined), other, 'the instance in quarantine')
    rows = audit(node, event='110104', action='U', subject=study.uid)
    same([row['outcome'] for row in rows], [4], 'audit')
    time.sleep(QUIET_S + 0.5)
    same(len(node.jobs(study.uid)), 1, 'jobs')
    return 'B000H with a comment; what was there stays, the other is in quarantine, in the trace and audited as U; no second run'


# A13 to A15: a full disk, a PACS that is down, one that refuses

def A13(bench, study):
    orthanc = bench.orthanc()
    place = bench.place('small')
    place.mkdir()
    mounted = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=40m', 'tmpfs', str(place)], capture_output=True).returncode == 0
    if not mounted:
        return 'skipped: no tmpfs can be mounted here'
    bench.stack.callback(subprocess.run, ['umount', '-l', str(place)])
    node = bench.node(orthanc, quiet_s=QUIET_S, keep_free_mb=16, data=place / 'data').start()
    first, second, third = (study.variant(f'A13-{n}') for n in range(3))
    same(set(node.send(first)), {0}, 'statuses while there is room')
    ballast = place / 'ballast'
    free = os.statvfs(place).f_bavail * os.statvfs(place).f_frsize
    ballast.write_bytes(bytes(free - 17 * 2**20 - 40 * 2**10))
    # What fills the last megabyte above the mark, and what comes below it.
    for dataset in second.datasets:
        dataset.add_new((0x0009, 0x0010), 'LO', 'TEST')
        dataset.add_new((0x0009, 0x1001), 'OB', os.urandom(100_000))
    association = node.association()
    answers = []
    for dataset in second.datasets:
        answers.append(association.send_c_store(dataset))
        time.sleep(0.12)  # free space is asked for ten times a second
    association.release()
    statuses = [int(answer.Status) for answer in answers]
    taken = statuses.count(0)
    same(statuses, [0] * taken + [0xA700] * (len(statuses) - taken), 'statuses while the disk fills')
    need(0 < taken < len(statuses), f'{taken} of {len(statuses)} taken')
    need(answers[-1].get('ErrorComment'), 'A700H without a comment')
    free = os.statvfs(place).f_bavail * os.statvfs(place).f_frsize
    need(free > 14 * 2**20, f'only {free} bytes were left')
    same(node.waiting(), [], 'files left in incoming')
    same(set(node.kept()), set(first.hashes()) | {str(d.SOPInstanceUID) for d in second.datasets[:taken]}, 'what is kept')
    belongs(results(orthanc, first), first)  # the job that ran came to its end
    ballast.unlink()
    time.sleep(0.2)
    same(set(node.send(second)), {0}, 'statuses when there is room again')
    results(orthanc, second)
    # No mark, and no room at all: still no stub, and still an answer.
    node.stop()
    node.config = node.config.replace('keep_free_mb = 16', 'keep_free_mb = 0')
    node.start()
    free = os.statvfs(place).f_bavail * os.statvfs(place).f_frsize
    ballast.write_bytes(bytes(free - 2 * 2**20))
    before = set(node.kept())
    large = copy.deepcopy(third.datasets[0])
    large.add_new((0x0009, 0x0010), 'LO', 'TEST')
    large.add_new((0x0009, 0x1001), 'OB', bytes(4 * 2**20))
    same(node.send([large]), [0xA700], 'status of what does not fit')
    same((node.waiting(), set(node.kept())), ([], before), 'what is there after it')
    ballast.unlink()
    same(set(node.send(third)), {0}, 'statuses when there is room again')
    results(orthanc, third)
    return f'{taken} taken, then {len(statuses) - taken} x A700H with 16 MB free; nothing left behind; the running job ended; goes on by itself'


def A14(bench, study):
    orthanc = bench.orthanc()
    other = bench.refusing(lambda _: 0)
    node = bench.node(orthanc, [other], quiet_s=QUIET_S).start()
    orthanc.stop()
    study = study.variant('A14')
    same(set(node.send(study)), {0}, 'statuses')
    job = node.job_done(study.uid)
    same(job['state'], 'done', 'the job')
    until('the other destination has both', lambda: len(other.taken) == 2)
    waiting = until('two attempts failed', lambda: [row for row in node.trace(study.uid)['results'] if row['destination'] == 'PACS' and row['attempts'] >= 2])
    need(all(row['state'] == 'due' and 'refused' in row['remark'] for row in waiting), waiting)
    same(node.metrics()['roentgen_deliveries_due'], 2, 'deliveries due in the metrics')
    orthanc.start()
    started = time.monotonic()
    node.delivered(study.uid)
    seconds = time.monotonic() - started
    time.sleep(1)
    same([modality for modality, _, _ in orthanc.study(study.uid)], ['SEG', 'SR'], 'results in the PACS')
    same(len(other.taken), 2, 'instances at the other destination')
    attempts = sorted({row['attempts'] for row in node.trace(study.uid)['results'] if row['destination'] == 'PACS'})
    return f'due with its reason while the PACS was down, delivered {seconds:.1f} s after it came up at attempt {attempts}; the other destination had both before'


def A15(bench, study):
    from pydicom.dataset import Dataset

    def answered(number, comment):
        status = Dataset()
        status.Status, status.ErrorComment = number, comment
        return status
    orthanc = bench.orthanc()
    counts = {}

    def twice_full(sop_class):
        counts[sop_class] = counts.get(sop_class, 0) + 1
        return answered(0xA700, 'no room') if counts[sop_class] <= 2 else 0
    full = bench.refusing(twice_full)
    never = bench.refusing(lambda _: answered(0x0122, 'not that class here'))
    no_sr = bench.refusing(lambda _: 0, [SEG])
    half = bench.refusing(lambda sop_class: 0 if sop_class == SR else answered(0xC123, 'not understood'))
    always_full = bench.refusing(lambda _: answered(0xA700, 'no room'))
    others = [full, never, no_sr, half, always_full]
    node = bench.node(orthanc, others, quiet_s=QUIET_S, attempts=3).start()
    study = study.variant('A15')
    same(set(node.send(study)), {0}, 'statuses')
    belongs(results(orthanc, study), study)
    rows = node.delivered(study.uid, ('stored', 'dead'))
    found = {(row['destination'], row['form']): (row['state'], row['attempts'], row['status'], row['remark']) for row in rows}
    expected = {
        ('PACS', 'sr'): ('stored', 1, 0, ''), ('PACS', 'seg'): ('stored', 1, 0, ''),
        ('OTHER0', 'sr'): ('stored', 3, 0, ''), ('OTHER0', 'seg'): ('stored', 3, 0, ''),
        ('OTHER1', 'sr'): ('dead', 1, 0x0122, 'not that class here'), ('OTHER1', 'seg'): ('dead', 1, 0x0122, 'not that class here'),
        ('OTHER2', 'sr'): ('dead', 1, None, f'takes no {SR}'), ('OTHER2', 'seg'): ('stored', 1, 0, ''),
        ('OTHER3', 'sr'): ('stored', 1, 0, ''), ('OTHER3', 'seg'): ('dead', 1, 0xC123, 'not understood'),
        ('OTHER4', 'sr'): ('dead', 3, 0xA700, 'no room'), ('OTHER4', 'seg'): ('dead', 3, 0xA700, 'no room'),
    }
    for name, (state, attempts, status, remark) in expected.items():
        same(found[name][:3], (state, attempts, status), f'delivery {name}')
        need(remark in (found[name][3] or ''), f'delivery {name}: {found[name]}')
    same(node.metrics()['roentgen_deliveries_dead'], 6, 'dead deliveries in the metrics')
    same([len(one.taken) for one in others], [2, 0, 1, 1, 0], 'what the destinations took')
    return 'A700H: tried again, stored at attempt 3, dead after the last; 0122H, C123H and a rejected SR context: dead at once with the comment; PACS unaffected'


def window(bench, study):
    """Asynchronous operations (PS3.7 D.3.3.3): instances are answered while the next ones come, each once, and only when they are on disk."""
    node = bench.node(quiet_s=60, limits='operations = 4\n').start()
    encoded = [(data_set_bytes(dataset), str(dataset.SOPInstanceUID)) for dataset in study.datasets]
    agreed = {}
    for offered in ((0, 1), (3, 1), (9, 9)):
        connection, (_, answer) = raw_associate(node.port, [(CT, EXPLICIT)], window=offered)
        at = answer.index(b'\x53\0\0\x04') + 4
        agreed[offered] = struct.unpack('>HH', answer[at:at + 4])
        connection.close()
    same(agreed, {(0, 1): (4, 1), (3, 1): (3, 1), (9, 9): (4, 1)}, 'windows agreed on')
    connection, (_, answer) = raw_associate(node.port, [(CT, EXPLICIT)])
    need(b'\x53\0\0\x04' not in answer, 'a window that nobody offered')
    connection.close()
    # All at once, more than was agreed on: the node reads no further than it may, and answers all.
    connection, _ = raw_associate(node.port, [(CT, EXPLICIT)], seconds=60, window=(0, 1))
    sender = threading.Thread(target=lambda: [raw_request(connection, *request) for request in
                                              ((data, CT, uid, number) for number, (data, uid) in enumerate(encoded, 1))])
    sender.start()
    answers = [raw_answer(connection) for _ in encoded]
    sender.join()
    same(sorted(message for message, _, _ in answers), list(range(1, len(encoded) + 1)), 'messages answered')
    same({status for _, status, _ in answers}, {0}, 'statuses')
    connection.sendall(struct.pack('>BBI', 5, 0, 4) + bytes(4))
    same(read_pdu(connection)[0], 6, 'A-RELEASE-RP')
    connection.close()
    until('all are kept', lambda: node.kept() == study.hashes())
    # Bad ones among good ones, the same one twice, and an echo that waits for its turn.
    connection, _ = raw_associate(node.port, [(CT, EXPLICIT), ('1.2.840.10008.1.1', EXPLICIT)], seconds=60, window=(0, 1))
    (first, uid), other = encoded[0], encoded[1][1]
    for number, (data, instance) in enumerate([(first, uid), (first[:400], '2.25.19'), (first, uid), (first, other)], 1):
        raw_request(connection, data, CT, instance, number)
    connection.sendall(pdata(3, 1, 1, command_set(sop_class='1.2.840.10008.1.1', field=0x30, message=5, data_set=0x0101)))
    seen = {message: status for message, status, _ in (raw_answer(connection) for _ in range(5))}
    need(seen[1] == seen[3] == seen[5] == 0 and seen[2] >= 0xA900 and seen[4] == 0xA900, f'statuses {seen}')
    connection.close()
    # Killed in the middle: what was answered is there.
    node = bench.node(quiet_s=60, cut_off_s=60).start()
    connection, _ = raw_associate(node.port, [(CT, EXPLICIT)], window=(0, 1))
    for number, (data, uid) in enumerate(encoded, 1):
        raw_request(connection, data, CT, uid, number)
        if number >= 16:
            break
    acknowledged = {encoded[raw_answer(connection)[0] - 1][1] for _ in range(9)}
    node.kill()
    node.start()
    need(acknowledged <= set(node.kept()), 'an instance that was acknowledged is gone')
    return f'{len(encoded)} instances at once, 4 under way: all kept; bad, double and other messages among them answered; {len(acknowledged)} acknowledged before a kill are there'


# A17 to A21: what comes

def A17(bench, study):
    node = bench.node(quiet_s=QUIET_S).start()
    dataset = copy.deepcopy(study.variant('A17').datasets[0])
    frames, rows, columns = 400, 512, 512
    for keyword in ('ImagePositionPatient', 'ImageOrientationPatient', 'SliceLocation'):
        if keyword in dataset:
            delattr(dataset, keyword)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = f'{SECONDARY_CAPTURE}.3'
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = frames, rows, columns
    dataset.PixelData = np.arange(frames * rows * columns, dtype=np.uint16).tobytes()
    folder = bench.place('large')
    folder.mkdir()
    path = folder / 'large.dcm'
    dataset.save_as(path)
    size_mb = path.stat().st_size / 1e6
    _, idle_kb = node.resources()
    node.forget_peak()
    started = time.monotonic()
    status, answers, text = node.storescu(folder, 'STORESCU', '-R')
    seconds = time.monotonic() - started
    same((status, answers), (0, ['Success']), text)
    peak_kb = node.peak_kb()
    need(peak_kb - idle_kb < 64 * 1024, f'{(peak_kb - idle_kb) / 1024:.0f} MB above idle')
    job = node.job_done(str(dataset.StudyInstanceUID))
    after_kb = node.peak_kb()
    need(after_kb - idle_kb < 64 * 1024, f'{(after_kb - idle_kb) / 1024:.0f} MB above idle in the job: {job}')
    same(node.kept().get(str(dataset.SOPInstanceUID)), content(dataset), 'the hash of the object')
    return (f'{size_mb:.0f} MB in {seconds:.2f} s ({size_mb / seconds:.0f} MB/s); memory {(peak_kb - idle_kb) / 1024:.1f} MB above {idle_kb / 1024:.0f} MB '
            f'while receiving, {(after_kb - idle_kb) / 1024:.1f} MB with its job ({job["outcome"]["series"][0]["outcome"]})')


def A18(bench, study):
    orthanc = bench.orthanc()
    node = bench.node(orthanc, quiet_s=QUIET_S).start()
    two = [study.variant('A18-a'), study.variant('A18-b')]
    mixed = [dataset for pair in zip(*(one.datasets for one in two), strict=True) for dataset in pair]
    same(set(node.send(mixed)), {0}, 'statuses of two patients in one association')
    for one in two:
        belongs(results(orthanc, one), one)
        same([job['outcome']['series'][0]['instances'] for job in node.jobs(one.uid)], [len(one.datasets)], 'a job')
    # The same study with another patient, first in one association, then later.
    third = study.variant('A18-c')
    strangers = Study([copy.deepcopy(dataset) for dataset in third.datasets[:4]])
    for n, dataset in enumerate(strangers.datasets):
        dataset.PatientID, dataset.PatientName = 'SOMEBODY-ELSE', 'Else^Somebody'
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f'2.25.18{n}'
    statuses = node.send([*third.datasets, *strangers.datasets])
    same(statuses, [0] * len(third.datasets) + [0xC000] * 4, 'statuses')
    found = results(orthanc, third)
    belongs(found, third)
    same(set(node.send(strangers)), {0xC000}, 'statuses later')
    trace = node.trace(third.uid)
    same(sorted(row['sop_instance_uid'] for row in trace['quarantine']), sorted(str(d.SOPInstanceUID) for d in strangers.datasets), 'quarantine')
    need(all('patient' in row['reason'] for row in trace['quarantine']), trace['quarantine'])
    same([row['outcome'] for row in audit(node, action='U', subject=third.uid)], [4] * 4, 'audit')
    time.sleep(QUIET_S + 0.5)
    same([job['outcome']['series'][0]['instances'] for job in node.jobs(third.uid)], [len(third.datasets)], 'jobs')
    same(len(orthanc.study(third.uid)), 2, 'results in the PACS')
    text = '\n'.join(path.read_text(errors='replace') for path in node.folder.glob('log-*')) + str(node.get('/jobs')) + str(trace)
    need('SOMEBODY' not in text and 'A18-a' not in text, 'patient text in the log')
    return 'two patients in one association: two studies, two results; another patient in a known study: C000H, quarantine, audited as U, no part of any result'


def A19(bench, study):
    node = bench.node(quiet_s=QUIET_S).start()
    study = study.variant('A19')

    def encoded(change=lambda dataset: None):
        dataset = copy.deepcopy(study.datasets[0])
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = '2.25.19'
        change(dataset)
        return data_set_bytes(dataset)
    whole = encoded()
    element = b'\x09\x00\x10\x00LO\x04\x00TEST' + b'\x09\x00\x01\x10'  # a private block, and an element of it to be finished
    sequences = element + b'SQ\0\0\xff\xff\xff\xff'
    for _ in range(10_000):
        sequences += b'\xfe\xff\x00\xe0\xff\xff\xff\xff' + b'\x09\x00\x01\x10SQ\0\0\xff\xff\xff\xff'
    before_group_9, after_group_9 = whole[:whole.index(b'\x10\x00\x10\x00PN')], whole[whole.index(b'\x10\x00\x10\x00PN'):]
    cases = {
        'truncated in the pixels': (whole[:-500], CT, '2.25.19'),
        'truncated in the header': (whole[:300], CT, '2.25.19'),
        'empty': (b'', CT, '2.25.19'),
        'random bytes': (os.urandom(20_000), CT, '2.25.19'),
        'no SOP Instance UID': (encoded(lambda d: d.__delattr__('SOPInstanceUID')), CT, '2.25.19'),
        'no SOP Class UID': (encoded(lambda d: d.__delattr__('SOPClassUID')), CT, '2.25.19'),
        'no Study Instance UID': (encoded(lambda d: d.__delattr__('StudyInstanceUID')), CT, '2.25.19'),
        'UID that is none': (encoded(lambda d: d.__setitem__(0x0020000D, pydicom.DataElement(0x0020000D, 'UI', '../../etc'))), CT, '2.25.19'),
        'another SOP Instance UID in the command': (whole, CT, '2.25.20'),
        'another SOP class in the command': (whole, SR, '2.25.19'),
        'no SOP Instance UID in the command': (whole, CT, ''),
        'a length beyond the end': (before_group_9 + element + b'OB\0\0' + struct.pack('<I', 0x7ffffff0) + after_group_9, CT, '2.25.19'),
        'a VR that is none': (before_group_9 + element + b'ZZ\x04\x00abcd' + after_group_9, CT, '2.25.19'),
        '10000 nested sequences': (before_group_9 + sequences + after_group_9, CT, '2.25.19'),
    }
    connection, answer = raw_associate(node.port, [(CT, EXPLICIT)], seconds=30)
    same(answer[0], 2, 'A-ASSOCIATE-AC')
    fds, kb = node.resources()
    seen = {}
    for number, (name, (data, sop_class, instance)) in enumerate(cases.items(), 1):
        status, comment = raw_store(connection, data, sop_class, instance, number)
        need(0xA900 <= status <= 0xA9FF or 0xC000 <= status <= 0xCFFF, f'{name}: status {status:04X}H')
        need(comment and str(node.data) not in comment and len(comment) <= 64, f'{name}: comment {comment!r}')
        seen[name] = f'{status:04X}'
    # A string of 100 MB in the header: refused or kept, in bounded memory.
    node.forget_peak()
    status, comment = raw_store(connection, before_group_9 + element + b'UT\0\0' + struct.pack('<I', 100_000_000) + b'x' * 100_000_000 + after_group_9, CT, '2.25.19', 99)
    seen['a string of 100 MB'] = f'{status:04X}'
    need(status == 0 or 0xA900 <= status <= 0xCFFF, f'a string of 100 MB: status {status:04X}H')
    peak_mb = (node.peak_kb() - kb) / 1024
    need(peak_mb < 256, f'a string of 100 MB: {peak_mb:.0f} MB above idle')
    status, comment = raw_store(connection, encoded(lambda d: d.__setattr__('SOPInstanceUID', '2.25.191')), CT, '2.25.191', 100)
    same(status, 0, f'status of a good instance on the same association ({comment})')
    connection.sendall(struct.pack('>BBI', 5, 0, 4) + bytes(4))
    same(read_pdu(connection)[0], 6, 'A-RELEASE-RP')
    connection.close()
    quarantined = lambda: len(list((node.data / 'quarantine').iterdir()))
    until(lambda: f'{quarantined()} in quarantine', lambda: quarantined() >= len(cases) - 4, 5)
    # PDUs that are none: the connection ends, nothing else does.
    garbage = [os.urandom(200), b'GET / HTTP/1.1\r\n\r\n', struct.pack('>BBI', 1, 0, 0xffffffff), struct.pack('>BBI', 4, 0, 10) + bytes(10),
               struct.pack('>BBI', 1, 0, 68) + bytes(68), struct.pack('>BBI', 7, 0, 4) + bytes(4), bytes(5)]
    for bytes_sent in garbage:
        with socket.create_connection(('127.0.0.1', node.port), 10) as connection:
            connection.sendall(bytes_sent)
            connection.shutdown(socket.SHUT_WR)
            answer = read_pdu(connection)
            need(answer is None or answer[0] in (3, 7), f'{bytes_sent[:8]}: {answer}')
    inside = [pdata(1, 0, 1, b'data without a command'), pdata(3, 1, 1, bytes(20)), struct.pack('>BBI', 4, 0, 8) + struct.pack('>IBB', 100, 1, 3) + bytes(2),
              pdata(1, 1, 1, os.urandom(40)), struct.pack('>BBI', 9, 0, 0)]
    for bytes_sent in inside:
        connection, _ = raw_associate(node.port, [(CT, EXPLICIT)])
        connection.sendall(bytes_sent)
        same((read_pdu(connection) or [7])[0], 7, f'answer to {bytes_sent[:12]}')
        connection.close()
    need(node.alive(), node.said)
    until('file descriptors are as before', lambda: node.resources()[0] <= fds + OWN_FDS, 10)
    same(set(node.send(study)), {0}, 'statuses of a whole study afterwards')
    need('panicked' not in node.log_path.read_text(errors='replace'), 'a panic in the log')
    statuses = ', '.join(sorted(set(seen.values())))
    return f'{len(seen)} bad data sets on one association: {statuses}; {quarantined()} in quarantine; 100 MB string: {peak_mb:.0f} MB; {len(garbage) + len(inside)} bad PDUs'


def data_set_bytes(dataset):
    """A data set as it goes over the wire in Explicit VR Little Endian."""
    buffer = io.BytesIO()
    with pydicom.filebase.DicomFileLike(buffer) as file:
        file.is_little_endian, file.is_implicit_VR = True, False
        pydicom.filewriter.write_dataset(file, dataset)
        return buffer.getvalue()


def A20(bench, study):
    orthanc = bench.orthanc()
    node = bench.node(orthanc, quiet_s=QUIET_S).start()
    middle = len(study.datasets) // 2

    def with_scout(one):
        scout = copy.deepcopy(one.datasets[0])
        scout.SOPInstanceUID = scout.file_meta.MediaStorageSOPInstanceUID = '2.25.20'
        scout.ImageType = ['ORIGINAL', 'PRIMARY', 'LOCALIZER']
        scout.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
        return Study([scout, *one.datasets])

    def moved(one):
        x, y, z = one.datasets[middle].ImagePositionPatient
        one.datasets[middle].ImagePositionPatient = [x, y, float(z) + 2]
        return one

    def doubled(one):
        one.datasets[middle].ImagePositionPatient = one.datasets[middle - 1].ImagePositionPatient
        return one

    def tilted(one):
        for n, dataset in enumerate(one.datasets):
            x, y, z = dataset.ImagePositionPatient
            dataset.ImagePositionPatient = [x, float(y) + 2.0 * n, z]
        return one

    def two_phases(one):
        second = Study([copy.deepcopy(dataset) for dataset in one.datasets])
        for n, dataset in enumerate(second.datasets):
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f'2.25.200{n}'
            dataset.AcquisitionNumber = 2
            dataset.ContentTime = '235900'
        return Study([*one.datasets, *second.datasets])
    cases = {
        'missing slice': lambda one: Study(one.datasets[:middle] + one.datasets[middle + 1:]),
        'duplicate position': doubled, 'uneven spacing': moved, 'tilt': tilted, 'scout inside': with_scout, 'two phases': two_phases,
    }
    made = {name: change(study.variant(f'A20-{name}')) for name, change in cases.items()}
    for one in made.values():
        same(set(node.send(one)), {0}, 'statuses')
    decisions = {}
    for name, one in made.items():
        job = node.job_done(one.uid)
        same(job['state'], 'done', f'{name}: the job')
        decisions[name] = [(series['outcome'], *(reason['code'] for reason in series.get('reasons', []))) for series in job['outcome']['series']]
        need(all(reason['message'] for series in job['outcome']['series'] for reason in series.get('reasons', [])), 'a reason without words')
        done = sum(decision[0] == 'done' for decision in decisions[name])
        if done:
            node.delivered(one.uid)
        same(len(orthanc.study(one.uid)), 2 * done, f'{name}: results in the PACS for {decisions[name]}')
    expected = {
        'missing slice': ('refused', 'series.missing-slices'), 'duplicate position': ('refused', 'series.shared-positions'),
        'uneven spacing': ('refused', 'series.uneven-spacing'), 'tilt': ('refused', 'series.sheared'), 'scout inside': ('done',),
        'two phases': ('refused', 'series.shared-positions'),
    }
    for name, decision in expected.items():
        same(decisions[name][0][:2], decision, name)
    need(decisions['scout inside'][1][0] == 'not-eligible' and 'series.localizer' in decisions['scout inside'][1], decisions)
    return '; '.join(f'{name}: {" ".join(decision)}' for name, decision in expected.items())


def A21(bench, study):
    orthanc = bench.orthanc()
    node = bench.node(orthanc, quiet_s=QUIET_S).start()
    need(bench.others, 'no studies with other character sets were given')
    seen = []
    for one in bench.others:
        same(set(node.send(one)), {0}, 'statuses')
    for one in bench.others:
        found, source = results(orthanc, one), one.datasets[0]
        for modality, dataset in found.items():
            same(dataset.get('SpecificCharacterSet'), source.get('SpecificCharacterSet'), f'character set of {modality}')
            for keyword in ('PatientName', 'PatientID', 'PatientBirthDate', 'AccessionNumber', 'ReferringPhysicianName'):
                tag = pydicom.datadict.tag_for_keyword(keyword)
                bytes_of = [raw_bytes(one, tag) for one in (dataset, source)]
                same(bytes_of[0] or b'', bytes_of[1] or b'', f'{keyword} of {modality}')
        seen.append(f'{source.get("SpecificCharacterSet", "default")} ({"with" if source.get("AccessionNumber") else "no"} accession number)')
    return f'copied byte by byte into SR and SEG: {"; ".join(map(str, seen))}'


def raw_bytes(dataset, tag):
    """The bytes of a value, padding taken off, read before anything decodes them."""
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    buffer.seek(0)
    element = pydicom.dcmread(buffer).get_item(tag)
    return element and bytes(element.value or b'').rstrip(b' \0')


# A25: those who connect and do nothing

def A25(bench, study):
    node = bench.node(limits='associations = 8\nartim_s = 3\nidle_s = 60\npdu_s = 3\n').start()
    fds, kb = node.resources()
    need(resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 700, 'too few file descriptors for this test')
    idle = [socket.create_connection(('127.0.0.1', node.port), 10) for _ in range(500)]
    started = time.monotonic()
    need(node.echo(), f'an echo beside 500 idle connections: {node.said}')
    echo_s = time.monotonic() - started
    _, kb_now = node.resources()
    # Half a PDU, then one byte at a time.
    halves = [socket.create_connection(('127.0.0.1', node.port), 10) for _ in range(20)]
    for connection in halves:
        connection.sendall(b'\x01\x00\x00\x00\x00\xd0half')
    dripping = time.monotonic()
    with contextlib.suppress(OSError):
        while time.monotonic() - dripping < 10:
            halves[0].sendall(b'.')
            time.sleep(0.3)
            halves[0].settimeout(0.01)
            with contextlib.suppress(TimeoutError):
                if not halves[0].recv(100):
                    break
    dripped_s = time.monotonic() - dripping
    need(dripped_s < 6, f'a request of one byte at a time was read for {dripped_s:.0f} s')
    closed = 0
    for connection in [*idle, *halves[1:]]:
        connection.settimeout(8)
        closed += read_pdu(connection) in (None, (7, bytes(4))) or 0
        connection.close()
    same(closed, 519, 'connections that ARTIM ended')
    # Associations up to the limit, and one more.
    open_ones = [raw_associate(node.port, [(CT, EXPLICIT)]) for _ in range(8)]
    same([answer[0] for _, answer in open_ones], [2] * 8, 'associations up to the limit')
    extra, answer = raw_associate(node.port, [(CT, EXPLICIT)])
    same(answer, (3, bytes([0, 2, 3, 2])), 'A-ASSOCIATE-RJ above the limit')
    extra.close()
    # Half a data set: the association ends after pdu_s, and the instance is not there.
    command = pdata(1, 1, 1, command_set(sop_class=CT, field=1, message=1, priority=0, data_set=0, instance='2.25.25'))
    open_ones[0][0].sendall(command + pdata(1, 0, 0, bytes(100)))
    began = time.monotonic()
    open_ones[0][0].settimeout(10)
    need((read_pdu(open_ones[0][0]) or (7,))[0] == 7, 'no abort for half a data set')
    half_s = time.monotonic() - began
    for connection, _ in open_ones:
        connection.close()
    until('an echo after all', node.echo, 5)
    until('file descriptors are as before', lambda: node.resources()[0] <= fds + OWN_FDS, 10)
    same(node.waiting(), [], 'left in incoming')
    return (f'echo in {echo_s:.2f} s beside 500 idle connections ({(kb_now - kb) / 1024:.0f} MB for them); ARTIM of 3 s ended 520, the slow one after {dripped_s:.1f} s; '
            f'half a data set ended after {half_s:.1f} s; the ninth association: result 2, source 3, reason 2')


def main():
    binary, package, names, *folders = [argument for argument in sys.argv[1:] if argument != '--crash-points']
    study = Study.read(folders[0])
    others = [Study.read(folder) for folder in folders[1:]]
    failed = 0
    for name in names.split(','):
        scenario, started = globals()[name], time.monotonic()
        with Bench(binary, package) as bench:
            bench.others = others
            try:
                print(f'{name}: {scenario(bench, study)} [{time.monotonic() - started:.1f} s]', flush=True)
            except Exception as error:
                failed += 1
                logs = ''.join(f'{path}:\n{path.read_text(errors="replace")[-4000:]}\n' for path in sorted(bench.folder.rglob('log-*')))
                print(f'{name}: FAILED: {error}\n{traceback.format_exc()}\n{logs}', flush=True)
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
