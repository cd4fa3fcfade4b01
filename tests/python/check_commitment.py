#!/usr/bin/env python3
"""Storage commitment with Orthanc and pynetdicom on the other side, in both roles.

usage: check_commitment.py ROENTGEN PACKAGE STUDY_DIR

Asked of the node: all is held; something is unknown, of another class, damaged on disk; the answer on the same association, on a new one,
on a new one that cannot be opened at first; Orthanc asks. Asked by the node: Orthanc commits; an archive that denies one reference gets it
again; one that says nothing is asked again. Exit 0, or 1 with every reason.
"""
import io
import sys
import tempfile
import threading
import time
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import JPEGLossless, generate_uid
from pynetdicom import AE, evt
from pynetdicom.presentation import build_role
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance

from requestor import Requestor
from serving import Node, Orthanc, ended, finish, free_port, need, until

binary, package, study = sys.argv[1], sys.argv[2], Path(sys.argv[3])
CT = '1.2.840.10008.5.1.4.1.1.2'
SC = '1.2.840.10008.5.1.4.1.1.7'


def question(instances, transaction):
    request = Dataset()
    request.TransactionUID = transaction
    request.ReferencedSOPSequence = []
    for sop_class, instance in instances:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, instance
        request.ReferencedSOPSequence.append(item)
    return request


class Answers:
    """N-EVENT-REPORTs that came, by transaction."""

    def __init__(self):
        self.of = {}

    def take(self, event):
        report = event.event_information
        failed = {str(f.ReferencedSOPInstanceUID): f.FailureReason for f in report.get('FailedSOPSequence', [])}
        committed = sorted(str(r.ReferencedSOPInstanceUID) for r in report.get('ReferencedSOPSequence', []))
        self.of.setdefault(str(report.TransactionUID), []).append((event.event_type, committed, failed))
        return 0x0000, None

    def wait(self, transaction, seconds=15):
        return until(lambda: self.of.get(transaction), seconds) or []


def ask(node, instances, answers, stay):
    """Asks the node; stays for the answer, or releases at once."""
    ae = Requestor('MODALITY')
    ae.add_requested_context(StorageCommitmentPushModel)
    association = ae.associate('127.0.0.1', node.port, ae_title='NODE', evt_handlers=[(evt.EVT_N_EVENT_REPORT, answers.take)])
    need(association.is_established, 'no association for storage commitment')
    transaction = generate_uid()
    status, _ = association.send_n_action(question(instances, transaction), 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance)
    need(status.get('Status') == 0, f'N-ACTION is answered with {status}')
    if stay:
        answers.wait(transaction)
    association.release()
    return transaction


def ask_in_the_context_of_another_class(node):
    """Compressed CT: no answer could be written in that transfer syntax."""
    ae = Requestor('MODALITY')
    ae.add_requested_context(CT, JPEGLossless)
    association = ae.associate('127.0.0.1', node.port, ae_title='NODE')
    need(association.is_established, 'no association for compressed CT')
    status, _ = association.send_n_action(
        question([], generate_uid()), 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance, meta_uid=CT)
    need(status.get('Status') == 0x0122, f'N-ACTION in a context for CT is answered with {status}')
    time.sleep(0.5)
    association.release()
    need(not association.is_aborted, 'the association ends in order')


def asked_of_the_node(node, orthanc, modality_port):
    datasets = [pydicom.dcmread(path) for path in sorted(study.iterdir())]
    ae = Requestor('MODALITY')
    ae.add_requested_context(CT)
    association = ae.associate('127.0.0.1', node.port, ae_title='NODE')
    need(all(association.send_c_store(d).Status == 0 for d in datasets), 'not every instance is taken')
    association.release()
    held = [(CT, str(d.SOPInstanceUID)) for d in datasets[:6]]
    uids = sorted(uid for _, uid in held)

    ask_in_the_context_of_another_class(node)
    answers = Answers()
    transaction = ask(node, held, answers, stay=True)
    need(answers.wait(transaction) == [(1, uids, {})], f'all is held: {answers.of.get(transaction)}')

    doubtful = [held[0], (CT, '1.2.3.4.5'), (SC, held[1][1])]
    expected = [(2, [held[0][1]], {'1.2.3.4.5': 0x0112, held[1][1]: 0x0119})]
    transaction = ask(node, doubtful, answers, stay=True)
    need(answers.wait(transaction) == expected, f'two are not: {answers.of.get(transaction)}')

    # Nobody listens at first; then somebody does.
    late = Answers()
    transaction = ask(node, held, late, stay=False)
    time.sleep(1.5)
    need(not late.of, 'an answer over an association that is released')
    listener = AE('MODALITY')
    listener.add_supported_context(StorageCommitmentPushModel, scu_role=False, scp_role=True)
    server = listener.start_server(('127.0.0.1', modality_port), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, late.take)])
    need(late.wait(transaction, 30) == [(1, uids, {})], f'the answer comes over a new association: {late.of.get(transaction)}')
    transaction = ask(node, doubtful, late, stay=False)
    need(late.wait(transaction, 30) == expected, f'and so does this one: {late.of.get(transaction)}')

    files = {str(pydicom.dcmread(f, stop_before_pixels=True).SOPInstanceUID): f for f in (node.data / 'instances').rglob('*.dcm')}
    need(len(files) == len(datasets), f'{len(files)} files of {len(datasets)} instances')
    damaged = uids[0]
    whole = files[damaged].read_bytes()
    files[damaged].write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    transaction = ask(node, held, answers, stay=True)
    expected = [(2, [uid for uid in uids if uid != damaged], {damaged: 0x0110})]
    need(answers.wait(transaction) == expected, f'one is damaged: {answers.of.get(transaction)}')
    files[damaged].write_bytes(whole)
    server.shutdown()

    # Secondary captures of another study, which no package takes.
    resources = []
    for dataset in datasets[:3]:
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = SC
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.StudyInstanceUID, dataset.Modality = '1.2.3.4', 'OT'
        buffer = io.BytesIO()
        dataset.save_as(buffer)
        resources.append(orthanc.post('/instances', buffer.getvalue())['ID'])
    sent = orthanc.post('/modalities/node/store', {'Resources': resources, 'Synchronous': True})
    need(sent.get('FailedInstancesCount') == 0, f'Orthanc sends: {sent}')
    started = orthanc.post('/modalities/node/storage-commitment', {'Resources': resources})
    need('Path' in started, f'Orthanc asks: {started}')
    state = until(lambda: (report := orthanc.get(started['Path'])) and report['Status'] != 'Pending' and report, 30) or {}
    need(state.get('Status') == 'Success' and len(state.get('Success', [])) == 3, f'Orthanc is told: {state}')
    return str(datasets[-1].StudyInstanceUID)


class Archive:
    """Takes all, denies one reference of the first transaction, says nothing to the second, commits to the third."""

    def __init__(self, port):
        self.port, self.stored, self.transactions, self.node_port = port, [], [], None
        ae = AE('FUSSY')
        ae.supported_contexts = [c for c in AE().supported_contexts]
        for sop_class in ['1.2.840.10008.5.1.4.1.1.88.34', '1.2.840.10008.5.1.4.1.1.66.4']:
            ae.add_supported_context(sop_class)
        ae.add_supported_context(StorageCommitmentPushModel)
        handlers = [(evt.EVT_C_STORE, self.store), (evt.EVT_N_ACTION, self.action)]
        self.server = ae.start_server(('127.0.0.1', port), block=False, evt_handlers=handlers)

    def store(self, event):
        self.stored.append(str(event.request.AffectedSOPInstanceUID))
        return 0x0000

    def action(self, event):
        request = event.action_information
        self.transactions.append(request)
        if len(self.transactions) != 2:
            threading.Thread(target=self.report, args=(request, len(self.transactions) == 1)).start()
        return 0x0000, None

    def report(self, request, deny):
        time.sleep(0.5)
        answer = Dataset()
        answer.TransactionUID = request.TransactionUID
        references = list(request.ReferencedSOPSequence)
        if deny:
            refused = references.pop(0)
            refused.FailureReason = 0x0112
            answer.FailedSOPSequence = [refused]
        answer.ReferencedSOPSequence = references
        ae = Requestor('FUSSY')
        ae.add_requested_context(StorageCommitmentPushModel)
        roles = [build_role(StorageCommitmentPushModel, scu_role=False, scp_role=True)]
        association = ae.associate('127.0.0.1', self.node_port, ae_title='NODE', ext_neg=roles)
        need(association.is_established, 'the archive cannot call the node')
        status, _ = association.send_n_event_report(answer, 2 if deny else 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance)
        need(status.get('Status') == 0, f'N-EVENT-REPORT is answered with {status}')
        association.release()


def asked_by_the_node(node, archive, study_uid):
    def states():
        results = node.trace(study_uid).get('results', [])
        return {name: sorted(r['state'] for r in results if r['destination'] == name) for name in ['PACS', 'FUSSY']}

    need(until(lambda: (s := states())['PACS'] and set(s['PACS']) == {'committed'}, 60), f'Orthanc commits: {states()}')
    need(until(lambda: (s := states())['FUSSY'] and set(s['FUSSY']) == {'committed'}, 60), f'the archive commits in the end: {states()}')
    uids = [[str(r.ReferencedSOPInstanceUID) for r in t.ReferencedSOPSequence] for t in archive.transactions]
    need(len(uids) == 3, f'three times of asking: {uids}')
    if len(uids) == 3:
        denied = uids[0][0]
        need(sorted(archive.stored) == sorted([*uids[0], denied]), f'what was denied is sent again, and nothing else: {archive.stored}')
        need(uids[1] == uids[2] == [denied], f'and asked for again, alone: {uids}')
        transactions = {str(t.TransactionUID) for t in archive.transactions}
        need(len(transactions) == 3, 'each time is a transaction of its own')
    audited = [row for row in node.audit('110103') if row[3] == study_uid and 'storage commitment' in row[4]]
    need(len(audited) >= 3, f'commitments are audited: {audited}')


def results_come_back(node, orthanc, study_uid):
    """An archive that sends everything on: our own results are nothing new of their study."""
    found = orthanc.post('/tools/find', {'Level': 'Study', 'Query': {'StudyInstanceUID': study_uid}})
    sent = orthanc.post('/modalities/node/store', {'Resources': found, 'Synchronous': True})
    need(len(found) == 1 and sent.get('FailedInstancesCount') == 0, f'results are sent back: {found} {sent}')
    time.sleep(3)
    trace = node.trace(study_uid)
    need((trace['state'], len(trace['jobs'])) == ('complete', 1), f'{trace["state"]}, {len(trace["jobs"])} jobs')


with tempfile.TemporaryDirectory() as folder:
    modality_port, archive, node_port = free_port(), Archive(free_port()), free_port()
    orthanc = Orthanc(folder, 'ORTHANC', {
        'node': {'AET': 'NODE', 'Host': '127.0.0.1', 'Port': node_port, 'AllowStorageCommitment': True, 'AllowNEventReport': True},
    })
    node = Node(binary, folder, '', port=node_port, tables=f'''
[study]
quiet_s = 2
[[peer]]
ae_title = "MODALITY"
from = ["127.0.0.1"]
address = "127.0.0.1:{modality_port}"
[[peer]]
ae_title = "ORTHANC"
from = ["127.0.0.1"]
address = "127.0.0.1:{orthanc.port}"
[[peer]]
ae_title = "FUSSY"
from = ["127.0.0.1"]
[[package]]
name = "{package}"
deliver = ["PACS", "FUSSY"]
[[destination]]
name = "PACS"
ae_title = "ORTHANC"
address = "127.0.0.1:{orthanc.port}"
commitment = true
[[destination]]
name = "FUSSY"
ae_title = "FUSSY"
address = "127.0.0.1:{archive.port}"
commitment = true
commitment_timeout_s = 5
retry_s = 1
''')
    archive.node_port = node.port
    with ended(node, orthanc):
        study_uid = asked_of_the_node(node, orthanc, modality_port)
        asked_by_the_node(node, archive, study_uid)
        results_come_back(node, orthanc, study_uid)
        archive.server.shutdown()

finish('commitment asked for and given, by and to Orthanc and pynetdicom')
