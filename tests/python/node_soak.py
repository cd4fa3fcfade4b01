#!/usr/bin/env python3
"""kill -9 at random moments under load: what was acknowledged is there with the right hash, each result in the PACS exactly once.

usage: node_soak.py BINARY PACKAGE STUDY_DIR [KILLS [SEED]]

Three senders send one study after the other, each under new UIDs, while the node is killed and started again KILLS times (50). A sender
whose association breaks sends the rest again until all is acknowledged and released, as a modality does. In the end the node finishes its
work, and everything is compared. Takes about three seconds a kill. Exit 0, or 1 with every reason.
"""
import contextlib
import hashlib
import random
import sqlite3
import sys
import threading
import time
from pathlib import Path

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


def main():
    binary, package, folder = sys.argv[1:4]
    kills, seed = int((sys.argv[4:5] or ['50'])[0]), int((sys.argv[5:6] or ['1'])[0])
    chance, study, problems = random.Random(seed), Study.read(folder), []
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
        retried = set()

        def idle():
            jobs = node.jobs()
            for job in jobs:
                if job['state'] == 'quarantined':
                    retried.add(job['id'])
                    node.post(f'/jobs/{job["id"]}/retry')
            return all(job['state'] not in ('queued', 'running', 'quarantined') for job in jobs) and node.metrics()['roentgen_deliveries_due'] == 0
        until(lambda: f'all is done: {[job for job in node.jobs() if job["state"] != "done"]}, {node.metrics()}', idle, 60 + 5 * len(studies), 0.5)

        kept = node.kept()
        lost = [uid for uid, hash in acknowledged.items() if kept.get(uid) != hash]
        if lost:
            problems.append(f'{len(lost)} of {len(acknowledged)} acknowledged instances are lost or changed: {lost[:5]}')
        if left := [path.name for path in (node.data / 'incoming').iterdir()]:
            problems.append(f'left in incoming: {left[:5]}')
        attempts = {}
        for uid in studies:
            jobs, trace, there = node.jobs(uid), node.trace(uid), orthanc.study(uid)
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
    print('\n'.join(problems) or (
        f'{kills} kills in {seconds:.0f} s (seed {seed}), {while_running} of them while a job ran; {sum(sender.breaks for sender in senders)} associations '
        f'broke; {len(studies)} studies: {len(acknowledged)} acknowledged instances, all there with the right hash; one job each, '
        f'studies by attempts {attempts}; one SR and one SEG each in the PACS; {len(told)} studies and {len(retried)} jobs needed a word; '
        f'listens again after at most {max(restart_s, default=0):.2f} s; {rows} rows of audit in an unbroken chain'))
    return 1 if problems else 0


if __name__ == '__main__':
    sys.exit(main())
