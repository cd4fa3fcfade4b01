#!/usr/bin/env python3
"""The node under load for long: killed at random moments, or for as many minutes as wanted under the traffic of a hospital.

usage: node_soak.py BINARY PACKAGE STUDY_DIR [--kills 50] [--seed 1]
       node_soak.py BINARY PACKAGE STUDY_DIR --minutes 30 [--per-hour 300] [--seed 1]

--kills: three senders send one study after the other, each under new UIDs, while the node is killed with SIGKILL and started again so many
times. A sender whose association breaks sends the rest again until all is acknowledged and released, as a modality does. In the end the node
finishes its work, and everything is compared: what was acknowledged is there with the right hash, each result in the PACS exactly once. Takes
about three seconds a kill.

--minutes: radiographs, ultrasound cines, CT, MR and others in the shares of MONAI's workload guide, at random moments. Every study has to come
to its end and every result to the PACS; memory and file descriptors must not grow after the first quarter.

Exit 0, or 1 with every reason.
"""
import argparse
import contextlib
import copy
import hashlib
import random
import sqlite3
import statistics
import sys
import threading
import time
from pathlib import Path

import numpy as np
from pydicom.uid import generate_uid

from node_bench import Bench, Study, until

QUIET_S = 1


class Sender(threading.Thread):
    """Sends studies until it is told to stop."""

    def __init__(self, node, study, name, stopping):
        super().__init__(daemon=True)
        self.node, self.study, self.title, self.stopping = node, study, name, stopping
        self.acknowledged, self.studies, self.breaks, self.failure = {}, [], 0, None

    def run(self):
        try:
            n = 0
            while not self.stopping.is_set():
                n += 1
                self.send(self.study.variant(f'{self.title}-{n}'))
        except Exception as error:
            self.failure = error

    def send(self, study):
        """All of a study, over as many associations as it takes."""
        hashes = study.hashes()
        self.studies.append(study.uid)
        while True:
            rest = [dataset for dataset in study.datasets if str(dataset.SOPInstanceUID) not in self.acknowledged]
            # Where all is acknowledged and the release was not, the last one goes again, so that the node hears of the end.
            association = self.attempt()
            released = False
            if association:
                for dataset in rest or study.datasets[-1:]:
                    with contextlib.suppress(RuntimeError):
                        if getattr(association.send_c_store(dataset), 'Status', None) == 0:
                            uid = str(dataset.SOPInstanceUID)
                            self.acknowledged[uid] = hashes[uid]
                            continue
                    break
                else:
                    association.release()
                    released = association.is_released
            if released:
                return
            self.breaks += 1
            time.sleep(0.1)

    def attempt(self):
        with contextlib.suppress(OSError, RuntimeError):
            association = self.node.association(calling=self.title)
            if association.is_established:
                return association
        return None


def chain_holds(path):
    """How many rows of the audit table follow from the one before; fails at the first that does not."""
    previous, count = '', 0
    with contextlib.closing(sqlite3.connect(f'file:{path}?mode=ro', uri=True)) as database:
        for row in database.execute('SELECT at_ms, event, action, outcome, peer, subject, detail, sha256 FROM audit ORDER BY id'):
            fields = [previous, *map(str, row[:-1])]
            previous = hashlib.sha256(''.join(f'{len(field.encode())}:{field}' for field in fields).encode()).hexdigest()
            assert previous == row[-1], f'row {count + 1} of the audit table does not follow from the one before'
            count += 1
    return count


def killed(binary, package, study, kills, seed):
    """Kills, and what must be true in the end; every problem."""
    chance, problems = random.Random(seed), []
    with Bench(binary, package) as bench:
        orthanc = bench.orthanc()
        node = bench.node(orthanc, quiet_s=QUIET_S, cut_off_s=3600).start()
        stopping = threading.Event()
        senders = [Sender(node, study, title, stopping) for title in ('CT1', 'CT2', 'CT3')]
        started, while_running, restart_s = time.monotonic(), 0, []
        for sender in senders:
            sender.start()
        for number in range(1, kills + 1):
            time.sleep(chance.uniform(0.05, 4.0))
            with contextlib.suppress(OSError):
                while_running += any(job['state'] == 'running' for job in node.jobs())
            node.kill()
            node.start()
            restart_s.append(node.start_seconds)
            if number % 10 == 0:
                print(f'{number} kills, {sum(len(sender.studies) for sender in senders)} studies', flush=True)
        stopping.set()
        for sender in senders:
            sender.join(120)
            if sender.is_alive() or sender.failure:
                problems.append(f'a sender did not end: {sender.failure}')
        studies = [uid for sender in senders for uid in sender.studies]
        acknowledged = {uid: hash for sender in senders for uid, hash in sender.acknowledged.items()}
        # The release of some was acknowledged and not entered: those wait for somebody to say that they are complete.
        time.sleep(QUIET_S + 2)
        told = [uid for uid in studies if node.trace(uid)['state'] == 'receiving']
        for uid in told:
            node.post(f'/studies/{uid}/complete')
        # Jobs that ran twice when the node was killed are suspects now, and wait for somebody to say that they are none.
        retried, unfinished = set(), set(studies)

        def idle():
            for uid in sorted(unfinished):
                jobs = node.trace(uid)['jobs']  # `/jobs` has the last thousand alone
                for job in jobs:
                    if job['state'] == 'quarantined':
                        retried.add(job['id'])
                        node.post(f'/jobs/{job["id"]}/retry')
                if jobs and all(job['state'] not in ('queued', 'running', 'quarantined') for job in jobs):
                    unfinished.discard(uid)
            return not unfinished and node.metrics()['roentgen_deliveries_due'] == 0
        until(lambda: f'all is done: {sorted(unfinished)}, {node.metrics()}', idle, 60 + 5 * len(studies), 0.5)

        kept = node.kept()
        lost = [uid for uid, hash in acknowledged.items() if kept.get(uid) != hash]
        if lost:
            problems.append(f'{len(lost)} of {len(acknowledged)} acknowledged instances are lost or changed: {lost[:5]}')
        if left := node.waiting():
            problems.append(f'left in incoming: {left[:5]}')
        attempts = {}
        for uid in studies:
            trace, there = node.trace(uid), orthanc.study(uid)
            jobs = trace['jobs']
            attempts[jobs[0]['attempt'] if jobs else None] = attempts.get(jobs[0]['attempt'] if jobs else None, 0) + 1
            if [(job['state'], job['generation']) for job in jobs] != [('done', 1)]:
                problems.append(f'{uid}: jobs {jobs}')
            if sum(series['instances'] for series in trace['series']) != len(study.datasets):
                problems.append(f'{uid}: {trace["series"]}')
            if [modality for modality, _, _ in there] != ['SEG', 'SR'] or {one for _, one, _ in there} != {row['sop_instance_uid'] for row in trace['results']}:
                problems.append(f'{uid}: in the PACS {there}, of the node {trace["results"]}')
        node.stop()
        rows = chain_holds(node.data / 'node.sqlite')
        seconds = time.monotonic() - started
    return problems, (
        f'{kills} kills in {seconds:.0f} s (seed {seed}), {while_running} of them while a job ran; {sum(sender.breaks for sender in senders)} associations '
        f'broke; {len(studies)} studies: {len(acknowledged)} acknowledged instances, all there with the right hash; one job each, '
        f'studies by attempts {attempts}; one SR and one SEG each in the PACS; {len(told)} studies and {len(retried)} jobs needed a word; '
        f'listens again after at most {max(restart_s, default=0):.2f} s; {rows} rows of audit in an unbroken chain')


# Traffic

SHARES = [('XR', 50), ('US', 22), ('CT', 15), ('MR', 8), ('OT', 5)]
DX, US_CINE, MR, CAPTURE = ('1.2.840.10008.5.1.4.1.1.1.1', '1.2.840.10008.5.1.4.1.1.3.1', '1.2.840.10008.5.1.4.1.1.4', '1.2.840.10008.5.1.4.1.1.7')


class Traffic:
    """Studies as they come in a hospital, made of one CT study."""

    def __init__(self, study, chance):
        self.study, self.chance, self.count = study, chance, 0
        self.noise = np.frombuffer(chance.randbytes(2 * 2048 * 2048), np.uint8)

    def next(self):
        """Kind and study."""
        kind = self.chance.choices([kind for kind, _ in SHARES], [share for _, share in SHARES])[0]
        self.count += 1
        study = self.study.variant(f'traffic-{self.count}')
        if kind == 'CT':
            return kind, study
        made = {'XR': lambda one: [self.image(one, 'DX', DX, 2048, 2048, n) for n in range(self.chance.randint(1, 3))],
                'US': lambda one: [self.image(one, 'US', US_CINE, 480, 640, n, frames=20) for n in range(self.chance.randint(2, 6))],
                'MR': lambda one: [self.image(one, 'MR', MR, 256, 256, n) for n in range(60)],
                'OT': lambda one: [self.image(one, 'OT', CAPTURE, 512, 512, n) for n in range(2)]}[kind](study.datasets[0])
        return kind, Study(made)

    def image(self, like, modality, sop_class, rows, columns, number, frames=None):
        made = copy.deepcopy(like)
        made.Modality, made.SOPClassUID, made.Rows, made.Columns, made.InstanceNumber = modality, sop_class, rows, columns, number + 1
        made.SOPInstanceUID = generate_uid()
        made.file_meta.MediaStorageSOPClassUID, made.file_meta.MediaStorageSOPInstanceUID = sop_class, made.SOPInstanceUID
        if frames:
            made.NumberOfFrames, made.FrameTime = frames, '33'
        if modality != 'MR':
            for keyword in ('ImagePositionPatient', 'ImageOrientationPatient', 'RescaleSlope', 'RescaleIntercept', 'RescaleType'):
                made.pop(keyword, None)
        size = rows * columns * 2 * (frames or 1)
        made.PixelData = np.resize(self.noise, size).tobytes()
        return made


def under_traffic(binary, package, study, minutes, per_hour, seed):
    """Traffic, and what must be true in the end; every problem."""
    chance, problems, sizes, sent, refused = random.Random(seed), [], [], {}, 0
    traffic = Traffic(study, chance)
    with Bench(binary, package) as bench:
        orthanc = bench.orthanc()
        node = bench.node(orthanc, quiet_s=5).start()
        started, kinds = time.monotonic(), {}
        due, told = started, started
        while time.monotonic() < started + 60 * minutes:
            due += chance.expovariate(per_hour / 3600)
            kind, one = traffic.next()
            while (now := time.monotonic()) < due:
                time.sleep(min(due - now, 1))
            statuses = node.send(one, calling=chance.choice(['CT1', 'CT2', 'CT3', 'CT4']))
            refused += sum(status != 0 for status in statuses)
            sent[one.uid] = (kind, len(one.datasets))
            kinds[kind] = kinds.get(kind, 0) + 1
            fds, rss_kb = node.resources()
            sizes.append(((time.monotonic() - started) / 60, rss_kb / 1024, fds))
            if time.monotonic() > told + 60:
                told = time.monotonic()
                print(f'{sizes[-1][0]:.0f} min: {len(sent)} studies, {sizes[-1][1]:.0f} MB, {fds} file descriptors', flush=True)

        def idle():
            return all(job['state'] not in ('queued', 'running') for job in node.jobs()) and node.metrics()['roentgen_deliveries_due'] == 0
        time.sleep(7)
        until(lambda: f'all is done: {node.metrics()}', idle, 120, 0.5)
        failed = 0
        for uid, (kind, count) in sent.items():
            trace, there = node.trace(uid), [modality for modality, _, _ in orthanc.study(uid)]
            expected = ['SEG', 'SR'] if kind == 'CT' else []
            states = [job['state'] for job in trace['jobs']]
            if states != ['done'] or there != expected or sum(series['instances'] for series in trace['series']) != count:
                failed += 1
                print(f'{kind} study: jobs {states}, in the PACS {there}, {trace["series"]}')
        metrics = node.metrics()
        fds, rss_kb = node.resources()
        node.stop()
    if failed or refused:
        problems.append(f'{failed} of {len(sent)} studies did not come to their end, {refused} instances were refused')
    first = [size for size in sizes if minutes / 4 <= size[0] <= minutes / 2]
    last = [size for size in sizes if size[0] >= 3 * minutes / 4]
    memory, files = ([statistics.median(size[n] for size in part) for part in (first, last)] for n in (1, 2))
    # The allocator keeps what a large study needed; a leak of a study's header alone would be more than this in an hour.
    if memory[1] > memory[0] * 1.1 + 8 or files[1] > files[0] + 8:
        problems.append(f'growth: {memory[0]:.0f} to {memory[1]:.0f} MB, {files[0]} to {files[1]} file descriptors')
    turnaround = metrics['roentgen_step_seconds_sum{step="turnaround"}'] / max(1, metrics['roentgen_step_seconds_count{step="turnaround"}'])
    return problems, (
        f'{minutes} min at {per_hour} studies per hour (seed {seed}): {len(sent)} studies {dict(sorted(kinds.items()))}, '
        f'{metrics["roentgen_received_bytes_total"] / 1e9:.1f} GB, none failed; memory {memory[0]:.0f} MB in the second quarter, {memory[1]:.0f} MB in the '
        f'last, {rss_kb / 1024:.0f} MB at the end; file descriptors {files[0]:.0f}, {files[1]:.0f}, {fds}; from the last instance to the archive {turnaround:.1f} s '
        f'in the mean, 5 s of that quiet time')


def main():
    parser = argparse.ArgumentParser(description='The node under load for long.')
    parser.add_argument('binary')
    parser.add_argument('package')
    parser.add_argument('study')
    parser.add_argument('--kills', type=int, default=50)
    parser.add_argument('--minutes', type=float)
    parser.add_argument('--per-hour', type=float, default=300)
    parser.add_argument('--seed', type=int, default=1)
    wanted = parser.parse_args()
    study = Study.read(wanted.study)
    if wanted.minutes:
        problems, text = under_traffic(wanted.binary, wanted.package, study, wanted.minutes, wanted.per_hour, wanted.seed)
    else:
        problems, text = killed(wanted.binary, wanted.package, study, wanted.kills, wanted.seed)
    print('\n'.join(problems) or text)
    return 1 if problems else 0


if __name__ == '__main__':
    sys.exit(main())
