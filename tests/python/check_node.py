#!/usr/bin/env python3
"""Acceptance scenarios of the DICOM node, against DCMTK, Orthanc and pynetdicom as peers.

usage: check_node.py BINARY PACKAGE SCENARIOS STUDY_DIR [STUDY_DIR...] [--crash-points]

SCENARIOS are function names below, with commas between: `A1,A2`. The first study is a CT that the package takes; `A21` sends the others, too.
With --crash-points (src/store/crash.rs: a build with debug assertions has them), `A9` and `A10` take the node down at each of them, too.
Prints a line for each scenario. Exit 0, or 1 with every reason.
"""
import contextlib
import copy
import os
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

from node_bench import (CT, MPEG2, RAW_DATA, SECONDARY_CAPTURE, SEG, SR, Bench, Forwarder, Study, fetch, pdata, raw_associate, raw_store,
                        read_pdu, until)
from programs import dciodvfy_errors, dcmtk

CRASH_POINTS = '--crash-points' in sys.argv
EXPLICIT = str(ExplicitVRLittleEndian)
QUIET_S = 1


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
            acknowledged = sent_slowly(node, one.datasets, 0.02)
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
        same(list((node.data / 'incoming').iterdir()), [], f'{point}: left in incoming')
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
    return f'acknowledged when the node went down: {", ".join(seen)}; all kept with the right hash, each study one job after the rest'


def sent_slowly(node, datasets, pause):
    """As Node.send_acknowledged, with pauses."""
    acknowledged = set()
    association = node.association()
    for dataset in datasets:
        with contextlib.suppress(RuntimeError):
            if getattr(association.send_c_store(dataset), 'Status', None) == 0:
                acknowledged.add(str(dataset.SOPInstanceUID))
                time.sleep(pause)
    return acknowledged


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
