#!/usr/bin/env python3
"""`roentgen run --from`: a list of accession numbers and a PACS. Orthanc by C-GET, C-MOVE and DICOMweb, pynetdicom where one misbehaves.

usage: check_pacs.py ROENTGEN PACKAGE STUDY_DIR [SCENARIO,..]        all without: get, move, web, broken, down, stopped

Each way gives the table of a run over the same studies in a folder, byte for byte; what is not there or not surely is a failure with its
reason; nothing that was fetched stays on disk. Exit 0, or 1 with every reason.
"""
import contextlib
import csv
import io
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind, StudyRootQueryRetrieveInformationModelGet

from serving import Orthanc, ended, finish, free_port, need, until

binary, package, source = sys.argv[1], sys.argv[2], Path(sys.argv[3])
CT = '1.2.840.10008.5.1.4.1.1.2'
DICOMWEB = '/usr/share/orthanc/plugins/libOrthancDicomWeb.so'
ALLOW = {'DicomAlwaysAllowGet': True, 'DicomAlwaysAllowMove': True, 'DicomAlwaysAllowFind': True}


def same(found, expected, what):
    need(found == expected, f'{what}: {short(found)}, expected {short(expected)}')


def short(value):
    text = value.decode(errors='replace') if isinstance(value, bytes) else repr(value)
    return text if len(text) < 1500 else f'{text[:1500]}..'


class Study:
    """The phantom as a study of its own, some units denser than the last."""
    made = 0

    def __init__(self, accession, **more):
        Study.made += 1
        self.accession, self.uid, series = accession, generate_uid(), generate_uid()
        self.datasets = []
        for path in sorted(source.iterdir()):
            dataset = pydicom.dcmread(path)
            dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.AccessionNumber = self.uid, series, accession
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
            dataset.PatientID = f'P-{Study.made}'
            dataset.RescaleIntercept = float(dataset.RescaleIntercept) + Study.made
            for keyword, value in more.items():
                setattr(dataset, keyword, value)
            self.datasets.append(dataset)

    def save(self, folder):
        folder.mkdir(parents=True)
        for n, dataset in enumerate(self.datasets):
            dataset.save_as(folder / f'{n}.dcm')
        return folder


def put(orthanc, *studies):
    for dataset in (dataset for study in studies for dataset in study.datasets):
        buffer = io.BytesIO()
        dataset.save_as(buffer)
        need('ID' in orthanc.post('/instances', buffer.getvalue()), 'Orthanc takes no instance')


def write_list(path, rows):
    with open(path, 'w', newline='') as file:
        writer = csv.DictWriter(file, ['path', 'accession_number', 'study_instance_uid'])
        writer.writeheader()
        writer.writerows(rows)
    return path


def command(inputs, output, *more):
    return [binary, 'run', '--model', package, '--device', 'cpu', '--results', 'json', '--output', output, *more, *inputs]


def run(inputs, output, *more, code=0):
    ran = subprocess.run([str(part) for part in command(inputs, output, *more)], capture_output=True, text=True, timeout=300)
    need(ran.returncode == code, f'exit code {ran.returncode}, expected {code}: {more}\n{ran.stdout[-3000:]}\n{ran.stderr[-3000:]}')
    return ran


def rows(output, name='failures.csv'):
    with open(output / name, newline='') as file:
        return list(csv.DictReader(file))


def nothing_stays(output):
    same([str(path) for path in (output / 'work').glob('fetched-*')], [], 'what was fetched and is still here')


def source_file(folder, text):
    path = folder / 'source.toml'
    path.write_text(f'[source]\nretry_s = 1\nattempts = 2\n{text}\n')
    return path


def from_orthanc(folder, way):
    """All of it, by one of the three ways."""
    port = free_port()
    more = {'Plugins': [DICOMWEB], 'DicomWeb': {'Enable': True, 'Root': '/dicom-web/'}} if way == 'web' else ALLOW
    orthanc = Orthanc(folder, 'PACS', {'us': ['COHORT', '127.0.0.1', port]}, **more)
    with ended(orthanc):
        # Orthanc's plugin of 2022 does not decode what is encoded in a URL, as a space must be.
        gap = '' if way == 'web' else ' '
        studies = [Study(f'A{gap}{n}/x') for n in range(4)]
        by_uid, local, twice, late = Study(''), Study('L1'), [Study('T1'), Study('T1')], Study('M1')
        # PACS match case in this or that way; a number that is longer is another.
        put(orthanc, *studies, by_uid, *twice, Study(f'a{gap}0/X'), Study(f'A{gap}0/x2'))
        listed = [{'accession_number': study.accession} for study in studies]
        listed += [{'study_instance_uid': by_uid.uid}, {'accession_number': 'T1'}, {'accession_number': 'M1'}]
        listed += [{'path': local.save(folder / 'local' / way)}]
        inputs = [write_list(folder / f'{way}.csv', listed)]
        address = f'ae_title = "PACS"\naddress = "127.0.0.1:{orthanc.port}"\ncalling = "COHORT"\n'
        settings = {
            'get': address,
            'move': f'{address}retrieve = "move"\nlisten = "127.0.0.1:{port}"',
            'web': f'url = "{orthanc.http}/dicom-web"\nahead = 1',
        }
        pacs = source_file(folder, settings[way])
        output = folder / way

        plan = json.loads(run(inputs, output, '--from', pacs, '--dry-run', '--json').stdout)
        need(not output.exists(), 'a plan writes')
        planned = {study['fetch']['accession_number']: study for study in plan['studies'] if 'fetch' in study}
        same({number: study['study_instance_uid'] for number, study in planned.items()},
             {None: by_uid.uid} | {study.accession: study.uid for study in studies}, f'{way}: studies that would be fetched')
        same({study['fetch']['instances'] for study in planned.values()}, {len(local.datasets)}, f'{way}: instances')
        same(sorted((one['accession_number'], one['code']) for one in plan['missing']),
             [('M1', 'source.not-found'), ('T1', 'source.several')], f'{way}: what is missing')
        text = run(inputs, output, '--from', pacs, '--dry-run').stdout
        need('5 studies would be fetched; 2 are not there' in text and f'accession number A{gap}0/x' in text, f'{way}: {text}')

        ran = run(inputs, output, '--from', pacs, code=1)
        nothing_stays(output)
        same([(row['accession_number'], row['code'], row['outcome']) for row in rows(output)],
             [('M1', 'source.not-found', 'failed'), ('T1', 'source.several', 'failed')], f'{way}: failures')
        need(not any(study.accession in ran.stdout + ran.stderr for study in [*studies, twice[0]]), f'{way}: an accession number is told')
        folders = [study.save(folder / f'{way}-files' / str(n)) for n, study in enumerate([*studies, by_uid, local])]
        run(folders, folder / f'{way}-plain')
        for name in ['findings.csv', 'findings.parquet']:
            if (output / name).exists() or name == 'findings.csv':
                same((output / name).read_bytes(), (folder / f'{way}-plain' / name).read_bytes(), f'{way}: {name}')

        # Nothing is fetched again, and the PACS is asked for the list alone.
        journals = len(list((output / 'work').glob('journal-*')))
        run(inputs, output, '--from', pacs, '--resume', code=1)
        same([path.stat().st_size for path in sorted((output / 'work').glob('journal-*'))][journals:], [0], f'{way}: what a resumed run does')
        # What failed, when the PACS was put right.
        put(orthanc, late)
        again = run(inputs, output, '--from', pacs, '--only', output / 'failures.csv', code=1)
        same([row['accession_number'] for row in rows(output)], ['T1'], f'{way}: failures that are left: {again.stderr}')
        same(len(list(csv.DictReader(open(output / 'findings.csv')))) % 7, 0, f'{way}: rows of seven studies')
        # A study that has more instances than it had is done again.
        added = Study('')
        for dataset in added.datasets:
            dataset.StudyInstanceUID, dataset.PatientID, dataset.AccessionNumber = studies[0].uid, studies[0].datasets[0].PatientID, studies[0].accession
        put(orthanc, added)
        ran = run(inputs, output, '--from', pacs, '--resume', code=1)
        need('the files of 1 studies have changed' in ran.stderr, f'{way}: {ran.stderr}')
        # In shares.
        if way == 'get':
            shared = folder / 'shared'
            for shard in ['1/2', '2/2']:
                run(inputs, shared, '--from', pacs, '--shard', shard, code=1)
            same((shared / 'findings.csv').read_bytes(), (output / 'findings.csv').read_bytes(), 'the table of two shares')
            # As a recurring batch: the same file names the PACS.
            batch = folder / 'batch.toml'
            batch.write_text(f'model = "{package}"\ninputs = ["{inputs[0]}"]\noutput = "batch"\ndevice = "cpu"\nresults = ["json"]\n\n' + pacs.read_text())
            ran = subprocess.run([binary, 'run', '--config', batch], capture_output=True, text=True, timeout=300)
            same((ran.returncode, (folder / 'batch/findings.csv').read_bytes()), (1, (output / 'findings.csv').read_bytes()), ran.stderr)
            # Without a PACS the list says what it lacks.
            need('--from' in run(inputs, folder / 'none', code=2).stderr, 'what a list without paths needs')


class Archive:
    """A Query/Retrieve SCP that answers as it is told. `fails`: by study, statuses that retrievals get before they are carried out."""

    def __init__(self, studies, fails=None, sends=None, slow=0.0, port=None):
        self.studies = {study.uid: study for study in studies}
        self.fails, self.sends, self.slow, self.asked = fails or {}, sends or {}, slow, 0
        ae = AE('PACS')
        ae.supported_contexts = []
        for model in [StudyRootQueryRetrieveInformationModelFind, StudyRootQueryRetrieveInformationModelGet]:
            ae.add_supported_context(model)
        ae.add_supported_context(CT, ExplicitVRLittleEndian, scu_role=True, scp_role=True)
        handlers = [(evt.EVT_C_FIND, self.find), (evt.EVT_C_GET, self.get)]
        self.port = port or free_port()
        self.server = ae.start_server(('127.0.0.1', self.port), block=False, evt_handlers=handlers)

    def stop(self):
        self.server.shutdown()

    def find(self, event):
        asked = event.identifier
        for study in self.studies.values():
            answer = Dataset()
            answer.QueryRetrieveLevel, answer.StudyInstanceUID = asked.QueryRetrieveLevel, study.uid
            if asked.QueryRetrieveLevel == 'SERIES':
                if asked.StudyInstanceUID != study.uid:
                    continue
                answer.SeriesInstanceUID = study.datasets[0].SeriesInstanceUID
                answer.Modality, answer.NumberOfSeriesRelatedInstances = 'CT', len(study.datasets)
            else:
                # All of its studies, whatever the key: they are held against what was asked.
                answer.AccessionNumber, answer.NumberOfStudyRelatedInstances = study.accession, len(study.datasets)
            yield 0xFF00, answer
        yield 0x0000, None

    def get(self, event):
        self.asked += 1
        study = self.studies[event.identifier.StudyInstanceUID]
        if self.fails.get(study.uid):
            yield 1
            yield self.fails[study.uid].pop(0), None
            return
        datasets = self.sends.get(study.uid, study.datasets)
        yield len(datasets)
        for dataset in datasets:
            time.sleep(self.slow)
            if event.is_cancelled:
                yield 0xFE00, None
                return
            yield 0xFF00, dataset


@contextlib.contextmanager
def archive(folder, studies, **more):
    pacs = Archive(studies, **more)
    try:
        yield pacs, source_file(folder, f'ae_title = "PACS"\naddress = "127.0.0.1:{pacs.port}"'), \
            [write_list(folder / 'list.csv', [{'accession_number': study.accession} for study in studies])]
    finally:
        pacs.stop()


def broken(folder):
    """What a PACS sends that it was not asked for, too little of, or later."""
    right, other, lacks, empty, mixed = (Study(name) for name in ['B1', 'B2', 'B3', 'B4', 'B5'])

    def changed(study, **values):
        datasets = [pydicom.dcmread(io.BytesIO(saved(dataset))) for dataset in study.datasets]
        for dataset in datasets:
            for keyword, value in values.items():
                setattr(dataset, keyword, value)
        return datasets

    sends = {
        other.uid: changed(other, AccessionNumber='B9'),
        lacks.uid: lacks.datasets[:-1],
        empty.uid: changed(empty, AccessionNumber=''),
        mixed.uid: mixed.datasets[:8] + changed(mixed, PatientID='SOMEBODY', PatientName='Else^Somebody')[8:],
    }
    with archive(folder, [right, other, lacks, empty, mixed], fails={right.uid: [0xA702]}, sends=sends) as (pacs, file, inputs):
        output = folder / 'broken'
        ran = run(inputs, output, '--from', file, code=3)
        nothing_stays(output)
        same({row['accession_number']: row['code'] for row in rows(output)},
             {'B2': 'source.other-accession', 'B3': 'source.lacking', 'B4': 'source.no-accession', 'B5': 'source.several-patients'}, 'failures')
        same({row['study_instance_uid'] for row in rows(output, 'findings.csv')}, {right.uid}, 'studies with findings')
        need(ran.stderr.count('attempt 1 of 2, again in 1 s') == 2, f'what failed at first was not said, or not tried again: {ran.stderr}')
        need('instances of the study did not come' in ran.stderr and 'A702' in ran.stderr, ran.stderr)
        # What may pass is left to --resume, and what does not is not asked for again.
        pacs.sends.pop(lacks.uid)
        before = pacs.asked
        run(inputs, output, '--from', file, '--resume', code=1)
        same(pacs.asked - before, 1, 'studies that are fetched again')
        same(sorted(row['accession_number'] for row in rows(output)), ['B2', 'B4', 'B5'], 'failures that are left')
        same({row['study_instance_uid'] for row in rows(output, 'findings.csv')}, {right.uid, lacks.uid}, 'studies with findings at the end')
        # By its UID, where the accession number is the PACS's affair.
        named = [write_list(folder / 'named.csv', [{'study_instance_uid': empty.uid}])]
        run(named, folder / 'named', '--from', file)


def saved(dataset):
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def down(folder):
    """A PACS that is not there: from the beginning, or from some moment on."""
    file = source_file(folder, f'ae_title = "PACS"\naddress = "127.0.0.1:{free_port()}"')
    inputs = [write_list(folder / 'list.csv', [{'accession_number': 'D0'}])]
    ran = run(inputs, folder / 'never', '--from', file, code=2)
    need('attempt 1 of 2, again in 1 s' in ran.stderr and 'connection failed' in ran.stderr, f'what is said: {ran.stderr}')
    need(not (folder / 'never').exists(), 'a run that cannot start writes')
    web = source_file(folder, f'url = "http://127.0.0.1:{free_port()}/dicom-web"')
    ran = run(inputs, folder / 'never', '--from', web, code=2)
    need('attempt 1 of 2' in ran.stderr and 'cannot be reached' in ran.stderr and 'D0' not in ran.stderr, f'what is said: {ran.stderr}')

    studies = [Study(f'D{n}') for n in range(6)]
    with archive(folder, studies) as (pacs, file, inputs):
        output = folder / 'down'
        # Two are carried out, then all retrievals fail.
        retrieve, given = pacs.get, []

        def failing(event):
            given.append(event)
            if len(given) > 2:
                yield 1
                yield 0xA702, None
            else:
                yield from retrieve(event)

        pacs.server.unbind(evt.EVT_C_GET, pacs.get)
        pacs.server.bind(evt.EVT_C_GET, failing)
        ran = run(inputs, output, '--from', file, code=3)
        need('3 studies in a row did not come' in ran.stderr, ran.stderr)
        same(len(given), 2 + 3 * 2, 'retrievals: two, and three studies twice')
        same(len({row['study_instance_uid'] for row in rows(output, 'findings.csv')}), 2, 'studies that came')
        same({row['code'] for row in rows(output)}, {'dimse.out-of-resources'}, 'failures')
        given.clear()
        pacs.server.unbind(evt.EVT_C_GET, failing)
        pacs.server.bind(evt.EVT_C_GET, pacs.get)
        run(inputs, output, '--from', file, '--resume')
        same(len({row['study_instance_uid'] for row in rows(output, 'findings.csv')}), 6, 'studies at the end')
        same(rows(output), [], 'failures at the end')
        nothing_stays(output)


def stopped(folder):
    """Ctrl-C while a study comes, and a kill: both go on, and nothing is left."""
    studies = [Study(f'S{n}') for n in range(5)]
    with archive(folder, studies, slow=0.05) as (pacs, file, inputs):
        for name, how, code in [('interrupted', signal.SIGINT, 3), ('killed', signal.SIGKILL, -9)]:
            output, begun = folder / name, pacs.asked
            child = subprocess.Popen([str(part) for part in command(inputs, output, '--from', file)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            until(lambda: pacs.asked >= begun + 3, 120)
            child.send_signal(how)
            same(child.wait(60), code, f'{name}: exit code')
            same(len(list((output / 'work').glob('fetched-*'))), int(how == signal.SIGKILL), f'{name}: folders of what was fetched')
            run(inputs, output, '--from', file, '--resume')
            nothing_stays(output)
            same(len({row['study_instance_uid'] for row in rows(output, 'findings.csv')}), 5, f'{name}: studies at the end')


SCENARIOS = {
    'get': lambda folder: from_orthanc(folder, 'get'),
    'move': lambda folder: from_orthanc(folder, 'move'),
    'web': lambda folder: from_orthanc(folder, 'web'),
    'broken': broken,
    'down': down,
    'stopped': stopped,
}

for name in sys.argv[4].split(',') if len(sys.argv) > 4 else SCENARIOS:
    with tempfile.TemporaryDirectory() as place:
        SCENARIOS[name](Path(place))
finish(f'a list and a PACS: {", ".join(sys.argv[4].split(",") if len(sys.argv) > 4 else SCENARIOS)}')
