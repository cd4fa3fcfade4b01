#!/usr/bin/env python3
"""Acceptance scenarios of the DICOM node, against DCMTK, Orthanc and pynetdicom as peers.

usage: check_node.py BINARY PACKAGE SCENARIOS STUDY_DIR [STUDY_DIR...]

SCENARIOS are function names below, with commas between: `A1,A2`. The first study is a CT that the package takes; `A21` sends the others, too.
A build with debug assertions has crash points (src/store/crash.rs), which `A10` uses when the environment has ROENTGEN_CRASH_POINTS=1.
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


def main():
    binary, package, names, *folders = sys.argv[1:]
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
