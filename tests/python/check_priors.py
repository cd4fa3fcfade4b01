#!/usr/bin/env python3
"""Earlier studies from an archive, and how many instances a study has: Orthanc, dcmqrscp and pynetdicom on the other side.

usage: check_priors.py ROENTGEN PACKAGE STUDY_DIR [SCENARIO,..]        all without: get, move, A801, patient, killed, late

C-GET and C-MOVE from Orthanc: the right study is retrieved, held, referred to, and no job of its own until it is sent to the node. dcmqrscp
that does not know the node (A801): a job that needs priors fails and goes on when it is tried again; one that does not goes without.
pynetdicom: an archive that names and sends another patient, is out of resources at first, or slow when the node is killed.
Exit 0, or 1 with every reason.
"""
import copy
import io
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind, StudyRootQueryRetrieveInformationModelGet

from programs import dciodvfy_errors, dsrdump_complaints
from requestor import Requestor
from serving import Node, Orthanc, Program, ended, fetch, finish, free_port, need, until

binary, package, source = sys.argv[1], sys.argv[2], Path(sys.argv[3])
CT = '1.2.840.10008.5.1.4.1.1.2'


def same(found, expected, what):
    need(found == expected, f'{what}: {found!r}, expected {expected!r}')


class Study:
    """The phantom as a study of its own: `date`, and what else differs."""

    def __init__(self, date, patient='P-1', count=None, **more):
        self.uid, series = generate_uid(), generate_uid()
        self.datasets = []
        for path in sorted(source.iterdir())[:count]:
            dataset = pydicom.dcmread(path)
            dataset.StudyInstanceUID, dataset.SeriesInstanceUID = self.uid, series
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
            dataset.PatientID, dataset.PatientBirthDate, dataset.StudyDate, dataset.StudyTime = patient, '19500203', date, '101500'
            for keyword, value in more.items():
                setattr(dataset, keyword, value)
            self.datasets.append(dataset)

    def uids(self):
        return sorted(str(dataset.SOPInstanceUID) for dataset in self.datasets)


def send(node, datasets, calling='CT1'):
    ae = Requestor(calling)
    ae.add_requested_context(CT, ExplicitVRLittleEndian)
    association = ae.associate('127.0.0.1', node.port, ae_title='NODE')
    need(association.is_established, 'the node takes no association')
    statuses = {association.send_c_store(dataset).Status for dataset in datasets}
    association.release()
    same(statuses, {0}, 'statuses of C-STORE')


def put(orthanc, *studies):
    for study in studies:
        for dataset in study.datasets:
            buffer = io.BytesIO()
            dataset.save_as(buffer)
            need('ID' in orthanc.post('/instances', buffer.getvalue()), 'Orthanc takes no instance')


def job_of(node, study, states=('done',), seconds=60):
    def found():
        jobs = node.trace(study.uid).get('jobs', [])
        return jobs and jobs[-1]['state'] in states and jobs[-1]
    job = until(found, seconds)
    need(job, f'no job that is {states}: {json.dumps({k: v for k, v in node.trace(study.uid).items() if k != "audit"}, indent=1)}')
    return job or {}


def results(node, job):
    """findings.json and the report of a job's one series."""
    folder = next(iter((node.data / 'results' / str(job['id'])).iterdir()))
    path, report = next((path, d) for path in folder.rglob('*.dcm') if (d := pydicom.dcmread(path)).Modality == 'SR')
    same((dciodvfy_errors(path), dsrdump_complaints(path)), ([], []), 'what validators say of the report')
    return json.loads((folder / 'findings.json').read_text()), report


def pertinent(report):
    """Study to its instances, as the Pertinent Other Evidence Sequence has them."""
    return {
        str(study.StudyInstanceUID): sorted(
            str(one.ReferencedSOPInstanceUID) for series in study.ReferencedSeriesSequence for one in series.ReferencedSOPSequence)
        for study in report.get('PertinentOtherEvidenceSequence', [])
    }


def configuration(port, title, retrieve, priors, more='', archive=''):
    return f'''
[study]
quiet_s = 1
{more}
[[peer]]
ae_title = "CT1"
from = ["127.0.0.1"]
[[peer]]
ae_title = "{title}"
from = ["127.0.0.1"]
query = "PACS"
[[package]]
name = "{package}"
results = "sr,json"
priors = {{ from = "PACS", {priors} }}
[[archive]]
name = "PACS"
ae_title = "{title}"
address = "127.0.0.1:{port}"
retrieve = "{retrieve}"
retry_s = 1
{archive}
'''


def from_orthanc(folder, retrieve):
    """The latest study that fits is retrieved, held and referred to."""
    node_port = free_port()
    orthanc = Orthanc(folder, 'ORTHANC', {'node': ['NODE', '127.0.0.1', node_port]}, DicomAlwaysAllowGet=True, DicomAlwaysAllowMove=True,
                      DicomAlwaysAllowFind=True)
    node = Node(binary, folder, f'# {retrieve}', data=retrieve, port=node_port,
                tables=configuration(orthanc.port, 'ORTHANC', retrieve, 'how_many = 1, within_days = 1000', more='cut_off_s = 4'))
    with ended(node, orthanc):
        study, fits, older = Study('20260101'), Study('20250601'), Study('20250101')
        late, ancient = Study('20260301', count=2), Study('20100101', count=2)
        namesake = Study('20251001', count=2, PatientBirthDate='19770707')
        magnetic = Study('20251101', count=2, Modality='MR')
        put(orthanc, study, fits, older, late, ancient, namesake, magnetic)
        begun = time.monotonic()
        send(node, study.datasets)
        job = job_of(node, study)
        waited = time.monotonic() - begun
        findings, report = results(node, job)
        same(pertinent(report), {fits.uid: fits.uids()}, f'{retrieve}: pertinent other evidence')
        same(sorted(p['sop_instance_uid'] for p in findings['priors']['instances']), fits.uids(), f'{retrieve}: priors in findings.json')
        same(findings['priors']['lacking'], None, f'{retrieve}: what lacks')
        evidence = {str(e.StudyInstanceUID) for e in report.CurrentRequestedProcedureEvidenceSequence}
        same(evidence, {study.uid}, f'{retrieve}: current evidence')
        trace = node.trace(study.uid)
        search = trace['priors'][0]
        same((search['state'], search['attempts'], search['remark']), ('done', 1, None), f'{retrieve}: the search')
        states = {s['study_instance_uid']: (s['state'], s['instances']) for s in search['studies']}
        same(states, {fits.uid: ('held', len(fits.datasets)), namesake.uid: ('refused', 0)}, f'{retrieve}: what was found')
        need('released and quiet for 1 s' in trace['complete'][0]['reason'], f'{retrieve}: {trace["complete"]}')
        queries = [(outcome, detail) for _, outcome, peer, subject, detail in node.audit('110112') if subject == study.uid]
        need(queries and queries[0][0] == 4 and '1 of another patient' in queries[0][1], f'{retrieve}: the query is audited: {queries}')
        prior = node.trace(fits.uid)
        same((prior['state'], prior['jobs']), ('held', []), f'{retrieve}: the prior')
        same(node.trace(namesake.uid), {}, f'{retrieve}: nothing of the other patient is here')
        need(any('retrieved' in row['detail'] for row in prior['audit']), f'{retrieve}: its retrieval is audited: {prior["audit"]}')
        # The prior is sent to the node: now it is run, with one of its own.
        send(node, fits.datasets)
        job = job_of(node, fits)
        same(set(pertinent(results(node, job)[1])), {older.uid}, f'{retrieve}: the prior of the prior')
        if retrieve == 'get':
            counted(node, orthanc)
    return f'{retrieve}: a job after {waited:.1f} s'


def counted(node, orthanc):
    """A study is complete when all is here that the archive names, or flagged incomplete."""
    whole, half = Study('20260202', patient='P-2'), Study('20260203', patient='P-3')
    put(orthanc, whole, half)
    count = len(whole.datasets)
    send(node, whole.datasets[:count // 2], calling='ORTHANC')
    time.sleep(2.5)
    same((node.trace(whole.uid)['state'], node.trace(whole.uid)['jobs']), ('receiving', []), 'half of a study, longer than quiet')
    send(node, whole.datasets[count // 2:], calling='ORTHANC')
    job_of(node, whole)
    complete = node.trace(whole.uid)['complete']
    same([c['missing'] for c in complete], [0], 'missing of the whole')
    need(f'all {count} of {count} instances that PACS names' in complete[0]['reason'], f'{complete}')
    send(node, half.datasets[1:], calling='ORTHANC')
    job = job_of(node, half)
    complete = node.trace(half.uid)['complete']
    same([c['missing'] for c in complete], [1], 'missing of a study without one')
    need(f'{count - 1} of {count} instances that PACS names: incomplete' in complete[0]['reason'], f'{complete}')
    need('incomplete' in (job.get('outcome') or {}).get('missing', ''), f'the job says so: {job}')
    # What a sender writes into the instances themselves.
    stated = Study('20260204', patient='P-4', NumberOfStudyRelatedInstances=count)
    send(node, stated.datasets[:-1])
    time.sleep(2.5)
    same(node.trace(stated.uid)['state'], 'receiving', 'one less than the instances say')
    send(node, stated.datasets[-1:])
    job_of(node, stated)
    complete = node.trace(stated.uid)['complete']
    need(f'all {count} of {count} instances that they name themselves' in complete[0]['reason'], f'{complete}')


class Dcmqrscp(Program):
    """An archive that knows the titles in `hosts`: title to port."""

    def __init__(self, folder, port, hosts):
        self.port, store = port, Path(folder) / 'dcmqrscp'
        store.mkdir(exist_ok=True)
        lines = '\n'.join(f'host{n} = ({title}, 127.0.0.1, {port})' for n, (title, port) in enumerate(hosts.items()))
        config = Path(folder) / 'dcmqrscp.cfg'
        config.write_text(f'''NetworkTCPPort = {port}
MaxPDUSize = 16384
MaxAssociations = 16
HostTable BEGIN
{lines}
HostTable END
VendorTable BEGIN
VendorTable END
AETable BEGIN
QRSCP {store} RW (200, 1024mb) ANY
AETable END
''')
        super().__init__(folder, 'dcmqrscp', shutil.which('dcmqrscp'), '-c', config)
        need(until(lambda: self.echoes(), 20), f'dcmqrscp does not start: {self.log()}')

    def echoes(self):
        ae = Requestor('TEST')
        ae.add_requested_context('1.2.840.10008.1.1')
        association = ae.associate('127.0.0.1', self.port, ae_title='QRSCP')
        if association.is_established:
            association.release()
            return True
        return False

    def put(self, study):
        ae = Requestor('TEST')
        ae.add_requested_context(CT, ExplicitVRLittleEndian)
        association = ae.associate('127.0.0.1', self.port, ae_title='QRSCP')
        statuses = {association.send_c_store(dataset).Status for dataset in study.datasets}
        association.release()
        same(statuses, {0}, 'dcmqrscp takes the study')


def unknown_destination(folder):
    """A801: the job fails, or goes without; it goes on when the archive knows the node."""
    node_port, archive_port = free_port(), free_port()
    archive = Dcmqrscp(folder, archive_port, {'SOMEBODY': 1})
    tables = configuration(archive_port, 'QRSCP', 'move', 'required = true')
    node = Node(binary, folder, '# A801', data='A801', port=node_port, tables=tables)
    programs = [node, archive]
    with ended(*programs):
        study, prior = Study('20260101'), Study('20250601')
        archive.put(prior)
        send(node, study.datasets)
        job = job_of(node, study, states=('failed',))
        outcome = job.get('outcome') or {}
        same(outcome.get('code'), 'dimse.move-destination-unknown', 'code of the job')
        need('A801H' in outcome.get('error', '') and 'title and address' in outcome.get('error', ''), f'the error says what to do: {outcome}')
        search = node.trace(study.uid)['priors'][0]
        same((search['state'], search['attempts'], search['code']), ('failed', 1, outcome.get('code')), 'the search')
        same(node.trace(prior.uid), {}, 'nothing came')
        archive.stop()
        archive = Dcmqrscp(folder, archive_port, {'NODE': node_port})
        try:
            same(fetch(f'{node.http}/jobs/{job["id"]}/retry', b'')[0], 200, 'the order to try again')
            job = job_of(node, study)
            same(pertinent(results(node, job)[1]), {prior.uid: prior.uids()}, 'the prior after the archive was told')
            # Not required, of an archive that does not know the node: a result without.
            archive.stop()
            archive = Dcmqrscp(folder, archive_port, {'SOMEBODY': 1})
            node.configure(configuration(archive_port, 'QRSCP', 'move', 'required = false'))
            os.kill(node.process.pid, signal.SIGHUP)
            need(until(lambda: node.audit('110131'), 20), 'the configuration is read again')
            other, earlier = Study('20260101', patient='P-9'), Study('20250601', patient='P-9')
            archive.put(earlier)
            send(node, other.datasets)
            job = job_of(node, other)
            findings, report = results(node, job)
            same(pertinent(report), {}, 'pertinent other evidence of a job without priors')
            need('A801H' in (findings['priors']['lacking'] or ''), f'the results say so: {findings["priors"]}')
            need(any('A801H' in warning for warning in findings['warnings']), f'and warn: {findings["warnings"]}')
            search = node.trace(other.uid)['priors'][0]
            same((search['state'], search['code']), ('without', 'dimse.move-destination-unknown'), 'the search that is done without')
        finally:
            archive.stop()
    return 'A801'


class Archive:
    """pynetdicom: names `studies`, sends `sent` of them, after `refusals` answers of A702, with `pause` between two instances."""

    def __init__(self, studies, sent, refusals=0, pause=0.0):
        self.studies, self.sent, self.refusals, self.pause = studies, sent, refusals, pause
        self.port, self.asked = free_port(), []
        ae = AE('FAKE')
        for model in [StudyRootQueryRetrieveInformationModelFind, StudyRootQueryRetrieveInformationModelGet]:
            ae.add_supported_context(model)
        ae.add_supported_context(CT, scu_role=True, scp_role=True)
        handlers = [(evt.EVT_C_FIND, self.find), (evt.EVT_C_GET, self.get)]
        self.server = ae.start_server(('127.0.0.1', self.port), block=False, evt_handlers=handlers)

    def find(self, event):
        keys = event.identifier
        for study in self.studies:
            first = study.datasets[0]
            answer = Dataset()
            answer.QueryRetrieveLevel = keys.QueryRetrieveLevel
            answer.StudyInstanceUID = study.uid
            if keys.QueryRetrieveLevel == 'SERIES':
                if keys.StudyInstanceUID != study.uid:
                    continue
                answer.SeriesInstanceUID, answer.Modality = first.SeriesInstanceUID, 'CT'
                answer.NumberOfSeriesRelatedInstances = len(study.datasets)
            else:
                answer.StudyDate, answer.StudyTime, answer.ModalitiesInStudy = first.StudyDate, first.StudyTime, 'CT'
                answer.PatientID, answer.PatientBirthDate, answer.PatientName = first.PatientID, first.PatientBirthDate, first.PatientName
            yield 0xFF00, answer
        yield 0x0000, None

    def get(self, event):
        self.asked.append(str(event.identifier.StudyInstanceUID))
        if self.refusals:
            self.refusals -= 1
            yield 1
            yield 0xA702, None
            return
        datasets = self.sent[self.asked[-1]]
        yield len(datasets)
        for dataset in datasets:
            time.sleep(self.pause)
            yield 0xFF00, dataset


def fake(folder, name, archive, priors, more=''):
    return Node(binary, folder, f'# {name}', data=name, tables=configuration(archive.port, 'FAKE', 'get', priors, archive=more))


def another_patient(folder):
    """What an archive names as this patient's and is another's never becomes a prior."""
    study, prior, wrong = Study('20260101'), Study('20250601', count=3), Study('20240601', count=3)
    lied = copy.deepcopy(wrong.datasets)
    lied[1].PatientBirthDate = '19770707'
    elsewhere = Study('20230601', count=1)
    archive = Archive([prior, wrong], {prior.uid: prior.datasets, wrong.uid: lied + elsewhere.datasets}, refusals=1)
    node = fake(folder, 'wrong', archive, 'how_many = 2')
    with ended(node):
        send(node, study.datasets)
        job = job_of(node, study)
        findings, report = results(node, job)
        same(pertinent(report), {prior.uid: prior.uids()}, 'what is referred to')
        trace = node.trace(study.uid)
        search = trace['priors'][0]
        same((search['state'], search['code'], search['attempts']), ('without', 'priors.other-patient', 2), 'the search')
        same({s['study_instance_uid']: s['state'] for s in search['studies']}, {prior.uid: 'held', wrong.uid: 'refused'}, 'what was found')
        # A702 at first, then both; the one that is here is not asked for again.
        same(archive.asked.count(prior.uid), 2, 'a study that could not be sent at first')
        quarantine = node.trace(wrong.uid)['quarantine']
        same([q['sop_instance_uid'] for q in quarantine], [str(lied[1].SOPInstanceUID)], 'quarantine')
        audited = [row for row in node.audit('110104') if row[3] == wrong.uid and row[1] == 4]
        same(len(audited), 1, 'audit of what is in quarantine')
        same(node.trace(elsewhere.uid).get('state'), None, 'a study that was not asked for')
        need(any('another patient' in warning for warning in findings['warnings']), f'the results say so: {findings["warnings"]}')
        names = [study.datasets[0].PatientName.family_name, 'P-1', '19500203', '19770707']
        need(not any(str(name) in node.log() for name in names), 'no patient text in the log')
    archive.server.shutdown()
    return 'another patient'


def killed(folder):
    """A kill in the middle of a retrieval: it goes on after the restart, and the prior is no job."""
    study, prior = Study('20260101'), Study('20250601')
    archive = Archive([prior], {prior.uid: prior.datasets}, pause=0.1)
    node = fake(folder, 'killed', archive, 'wait_s = 60')
    programs = [node]
    with ended(*programs):
        send(node, study.datasets)
        need(until(lambda: node.trace(prior.uid).get('series'), 20, 0.02), 'the prior begins to come')
        node.process.kill()
        node.process.wait()
        again = Node(binary, folder, '# killed', data='killed', port=node.port,
                     tables=configuration(archive.port, 'FAKE', 'get', 'wait_s = 60'))
        programs.append(again)
        try:
            here = again.trace(prior.uid)
            same(here.get('state'), 'held', 'the prior after the kill')
            need(sum(s['instances'] for s in here['series']) < len(prior.datasets), 'the kill came before its end')
            job = job_of(again, study)
            same(pertinent(results(again, job)[1]), {prior.uid: prior.uids()}, 'the prior at the end')
            same(again.trace(study.uid)['priors'][0]['attempts'], 2, 'attempts')
            same(again.trace(prior.uid)['jobs'], [], 'jobs of the prior')
        finally:
            again.stop()
    archive.server.shutdown()
    return 'killed'


def too_late(folder):
    """An archive that takes too long: the job goes on when its time is up."""
    study, prior = Study('20260101'), Study('20250601')
    archive = Archive([prior], {prior.uid: prior.datasets}, pause=1.0)
    node = fake(folder, 'slow', archive, 'wait_s = 4')
    with ended(node):
        send(node, study.datasets)
        job = job_of(node, study, seconds=40)
        search = node.trace(study.uid)['priors'][0]
        same((search['state'], search['code']), ('without', 'priors.too-late'), 'the search that took too long')
        same(pertinent(results(node, job)[1]), {}, 'a prior of which a part is here')
        same(node.trace(prior.uid)['jobs'], [], 'jobs of a prior that came late')
    archive.server.shutdown()
    return 'too late'


with tempfile.TemporaryDirectory() as folder:
    scenarios = {
        'get': lambda: from_orthanc(folder, 'get'), 'move': lambda: from_orthanc(folder, 'move'), 'A801': lambda: unknown_destination(folder),
        'patient': lambda: another_patient(folder), 'killed': lambda: killed(folder), 'late': lambda: too_late(folder),
    }
    said = []
    for name in sys.argv[4].split(',') if len(sys.argv) > 4 else scenarios:
        begun = time.monotonic()
        said.append(f'{scenarios[name]()} ({time.monotonic() - begun:.1f} s)')
        print(said[-1], flush=True)

finish('priors: ' + ', '.join(said))
