#!/usr/bin/env python3
"""DICOMweb with dicomweb-client and Orthanc's plugin on the other side: what is stored is found, and comes back as it was.

usage: check_dicomweb.py ROENTGEN PACKAGE STUDY_DIR

Storing: all, again, other content, other classes, another study than the URL says, garbage, a body that is cut off, 100 MB in one part.
Searching by UIDs, names in any character set, dates, modalities, page by page. Retrieving what came and what was made. Without the token
there is nothing. Exit 0, or 1 with every reason.
"""
import copy
import io
import json
import sys
import tempfile
from pathlib import Path

import pydicom
from dicomweb_client import DICOMwebClient
from pydicom.uid import generate_uid

from serving import Node, Orthanc, ended, fetch, finish, get_json, need, until

binary, package, study = sys.argv[1], sys.argv[2], Path(sys.argv[3])
PLUGIN = Path('/usr/share/orthanc/plugins')
WADO = 'multipart/related; type="application/dicom"'


def file_of(dataset):
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def body_of(*parts, end=b'--'):
    return b''.join(b'\r\n--B\r\nContent-Type: application/dicom\r\n\r\n' + part for part in parts) + b'\r\n--B' + end


def post(node, body, path='/studies', kind='multipart/related; type="application/dicom"; boundary=B'):
    """Status and answer."""
    status, answer = fetch(f'{node.http}/dicom-web{path}', body, {'Content-Type': kind})
    return status, json.loads(answer) if answer else None


def reasons(answer, sequence='00081198', reason='00081197'):
    return [item.get(reason, {'Value': [None]})['Value'][0] for item in answer.get(sequence, {'Value': []})['Value']]


def with_uids(dataset, **changes):
    """Another instance."""
    dataset = copy.deepcopy(dataset)
    dataset.SOPInstanceUID = generate_uid()
    for keyword, value in changes.items():
        setattr(dataset, keyword, value)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    return dataset


def storing(node, client, datasets):
    answer = client.store_instances(datasets)
    need(len(answer.ReferencedSOPSequence) == len(datasets) and 'FailedSOPSequence' not in answer, f'all are stored: {answer}')
    one = datasets[0]
    status, answer = post(node, body_of(file_of(one)), f'/studies/{one.StudyInstanceUID}')
    need(status == 200 and len(reasons(answer, '00081199')) == 1, f'the same again: {status} {answer}')
    # dicomweb-client names no port in its Host header, so its URLs are of no use on this one.
    url = answer['00081199']['Value'][0]['00081190']['Value'][0]
    need(url.startswith(node.http) and fetch(url, headers={'Accept': WADO})[0] == 200, f'nothing at {url}')
    other = copy.deepcopy(one)
    other.PixelData = bytes(len(one.PixelData))
    status, answer = post(node, body_of(file_of(other)))
    need(status == 202 and reasons(answer, '00081199', '00081196') == [0xB000], f'other content: {status} {answer}')
    plan = with_uids(one, SOPClassUID='1.2.840.10008.5.1.4.1.1.481.5')
    status, answer = post(node, body_of(file_of(plan)))
    need(status == 409 and reasons(answer) == [0x0122], f'another class: {status} {answer}')
    status, answer = post(node, body_of(file_of(one), file_of(plan), b'garbage', b''))
    need(status == 202 and reasons(answer) == [0x0122] and reasons(answer, '0008119A') == [0xC000] * 2, f'a mixture: {status} {answer}')
    status, answer = post(node, body_of(file_of(with_uids(one))), '/studies/1.2.3')
    need(status == 409 and reasons(answer) == [0xA900], f'another study than the URL: {status} {answer}')
    movie = with_uids(one)
    movie.file_meta.TransferSyntaxUID = '1.2.840.10008.1.2.4.100'
    buffer = file_of(one).replace(b'1.2.840.10008.1.2.1\0', b'1.2.840.10008.1.2.9\0', 1)
    status, answer = post(node, body_of(buffer))
    need(status == 409 and reasons(answer) == [0xC122], f'an unknown transfer syntax: {status} {answer}')
    need(post(node, b'{}', kind='application/json')[0] == 415, 'JSON is no DICOM file')
    need(post(node, body_of(file_of(with_uids(one)))[:5000])[0] == 400, 'a body that is cut off')
    need(post(node, b'no boundary at all')[0] == 400, 'a body without a boundary')
    instances = sum(s['instances'] for s in node.trace(one.StudyInstanceUID)['series'])
    need(instances == len(datasets), f'{instances} instances of {len(datasets)}')


def size_of(node, what):
    lines = Path(f'/proc/{node.process.pid}/status').read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(what))


def large(node, dataset):
    """100 MB in one part, in bounded memory."""
    frames = 100_000_000 // (dataset.Rows * dataset.Columns * 2)
    one = with_uids(dataset, SOPClassUID='1.2.840.10008.5.1.4.1.1.7.3', StudyInstanceUID='1.2.3.4.5', SeriesInstanceUID='1.2.3.4.5.6', Modality='OT')
    one.NumberOfFrames = frames
    one.PixelData = bytes(frames * dataset.Rows * dataset.Columns * 2)
    # An analysis meanwhile would count.
    def idle():
        quiet = b'roentgen_studies_receiving 0\n' in fetch(f'{node.http}/metrics')[1]
        return quiet and all(job['state'] in ('done', 'failed') for job in get_json(f'{node.http}/jobs'))
    need(until(idle, 60), 'jobs do not end')
    Path(f'/proc/{node.process.pid}/clear_refs').write_text('5')  # the peak counts from now on
    before = size_of(node, 'VmRSS')
    status, answer = post(node, body_of(file_of(one)))
    grown = size_of(node, 'VmHWM') - before
    need(status == 200, f'100 MB: {status} {answer}')
    need(grown < 64, f'{grown:.0f} MB of memory for an object of 100 MB')
    status, back = fetch(f'{node.http}/dicom-web/studies/1.2.3.4.5', headers={'Accept': WADO})
    need(status == 200 and len(back) > len(one.PixelData), f'100 MB back: {status}, {len(back)} bytes')
    grown_back = size_of(node, 'VmHWM') - before
    need(grown_back < 64, f'{grown_back:.0f} MB of memory for giving it back')
    return max(grown, grown_back)


def names_of(found):
    return sorted(s['00100010']['Value'][0].get('Ideographic') or s['00100010']['Value'][0]['Alphabetic'] for s in found)


def searching(node, client, datasets):
    one = datasets[0]
    for name, charset, spelled in [('Yamada^Tarou=山田^太郎', ['', 'ISO 2022 IR 87'], '山田^太郎'), ('Müller^Jörg', 'ISO_IR 100', 'Müller^Jörg')]:
        other = with_uids(one, StudyInstanceUID=generate_uid(), SpecificCharacterSet=charset, PatientName=name, PatientID=f'P-{len(name)}',
                          StudyDate='20200229', SOPClassUID='1.2.840.10008.5.1.4.1.1.7', Modality='OT', SeriesInstanceUID=generate_uid())
        status, answer = post(node, body_of(file_of(other)))
        need(status == 200, f'{name}: {status} {answer}')

    def studies(**filters):
        return client.search_for_studies(search_filters=filters)

    mine = studies(StudyInstanceUID=one.StudyInstanceUID)
    need(len(mine) == 1 and mine[0]['00201208']['Value'][0] >= len(datasets), f'by UID: {mine}')
    need('CT' in mine[0]['00080061']['Value'], f'its modalities: {mine}')
    for filters, expected in [
        ({'PatientID': one.PatientID}, 2), ({'00100020': 'P-*'}, 2), ({'PatientName': '*山田*'}, 1), ({'PatientName': 'müller^*'}, 1),
        ({'StudyDate': '20200101-20201231'}, 2), ({'StudyDate': '-20191231'}, 0), ({'ModalitiesInStudy': 'OT', 'PatientID': 'P-*'}, 2),
        ({'AccessionNumber': 'there is none'}, 0),
    ]:
        found = studies(**filters)
        need(len(found) == expected, f'{filters}: {len(found)} studies, not {expected}')
    need(names_of(studies(StudyDate='20200229')) == ['Müller^Jörg', '山田^太郎'], f'names: {names_of(studies(StudyDate="20200229"))}')
    pages = [client.search_for_studies(limit=2, offset=offset) for offset in (0, 2)]
    uids = {s['0020000D']['Value'][0] for page in pages for s in page}
    need([len(page) for page in pages] == [2, 2] and len(uids) == 4, f'pages: {[len(page) for page in pages]}, {len(uids)} studies')
    instances = client.search_for_instances(one.StudyInstanceUID, one.SeriesInstanceUID, search_filters={'InstanceNumber': '2'})
    need(len(instances) == 1 and instances[0]['00280010']['Value'] == [one.Rows], f'an instance by its number: {instances}')
    need(fetch(f'{node.http}/dicom-web/studies?PatientsShoeSize=44')[0] == 400, 'no attribute')
    need(fetch(f'{node.http}/dicom-web/studies?fuzzymatching=true')[0] == 400, 'fuzzy matching')


def retrieving(node, client, datasets):
    one = datasets[0]
    back = {d.SOPInstanceUID: d for d in client.retrieve_series(one.StudyInstanceUID, one.SeriesInstanceUID)}
    need(all(back.get(d.SOPInstanceUID) == d for d in datasets) and len(back) == len(datasets), 'a series comes back otherwise than it was stored')
    told = client.retrieve_instance_metadata(one.StudyInstanceUID, one.SeriesInstanceUID, one.SOPInstanceUID)
    expected = json.loads(one.to_json(bulk_data_threshold=1, bulk_data_element_handler=lambda _: 'none'))
    expected.pop('7FE00010')
    for attributes in (told, expected):
        attributes.pop('00080005', None)
    differing = {tag for tag in told.keys() | expected.keys() if told.get(tag) != expected.get(tag)}
    need(not differing, f'metadata: {[(tag, told.get(tag), expected.get(tag)) for tag in differing]}')
    need(len(client.retrieve_study_metadata(one.StudyInstanceUID)) >= len(datasets), 'metadata of a study')
    # What was made of it.
    made = until(lambda: [r for r in node.trace(one.StudyInstanceUID)['results'] if r['form'] in ('sr', 'seg')], 60) or []
    series = client.search_for_series(one.StudyInstanceUID)
    modalities = {s['00080060']['Value'][0]: s['0020000E']['Value'][0] for s in series}
    need({'CT', 'SR', 'SEG'} == set(modalities) and len(made) == 2, f'series: {modalities}')
    files = {str(pydicom.dcmread(p, stop_before_pixels=True).SOPInstanceUID): p for p in (node.data / 'results').rglob('*.dcm')}
    for modality in {'SR', 'SEG'} & set(modalities):
        for result in client.retrieve_series(one.StudyInstanceUID, modalities[modality]):
            need(result == pydicom.dcmread(files[str(result.SOPInstanceUID)]), f'the {modality} comes back otherwise than it was made')
    path = f'{node.http}/dicom-web/studies/{one.StudyInstanceUID}'
    for accept, expected in [('image/png', 406), (f'{WADO}; transfer-syntax=1.2.840.10008.1.2.4.90', 406), ('*/*', 200),
                             (f'{WADO}; transfer-syntax=1.2.840.10008.1.2.1', 200)]:
        status, _ = fetch(path, headers={'Accept': accept})
        need(status == expected, f'Accept: {accept}: {status}')
    need(fetch(f'{node.http}/dicom-web/studies/9.9.9', headers={'Accept': WADO})[0] == 404, 'a study that is not here')


def with_orthanc(node, orthanc, datasets):
    """Orthanc stores here, and retrieves from here."""
    one = with_uids(datasets[0], StudyInstanceUID=generate_uid(), SOPClassUID='1.2.840.10008.5.1.4.1.1.7', Modality='OT')
    instance = orthanc.post('/instances', file_of(one))['ID']
    sent = orthanc.post('/dicom-web/servers/node/stow', {'Resources': [instance], 'Synchronous': True})
    need(node.trace(one.StudyInstanceUID).get('series'), f'Orthanc stores: {sent}')
    wanted = [{'Study': str(datasets[0].StudyInstanceUID), 'Series': str(datasets[0].SeriesInstanceUID)}]
    got = orthanc.post('/dicom-web/servers/node/retrieve', {'Resources': wanted, 'Synchronous': True})
    there = orthanc.post('/tools/find', {'Level': 'Instance', 'Query': {'StudyInstanceUID': str(datasets[0].StudyInstanceUID)}})
    need(len(there) == len(datasets), f'Orthanc retrieves {len(there)} of {len(datasets)}: {got}')


with tempfile.TemporaryDirectory() as folder:
    (Path(folder) / 'token').write_text('a secret')
    locked = Node(binary, folder, data='locked', tables='token_file = "token"\n')
    with ended(locked):
        for headers, expected in [({}, 401), ({'Authorization': 'Bearer a guess'}, 401), ({'Authorization': 'Bearer a secret'}, 200)]:
            for path in ['/studies', '/instances?limit=1']:
                status, _ = fetch(f'{locked.http}/dicom-web{path}', headers=headers)
                need(status == expected, f'{path} with {headers}: {status}')

    node = Node(binary, folder, tables=f'[study]\nquiet_s = 1\n[[package]]\nname = "{package}"\n')
    orthanc = Orthanc(folder, 'ORTHANC', {}, Plugins=[str(PLUGIN)], DicomWeb={'Enable': True, 'Servers': {'node': {'Url': f'{node.http}/dicom-web/'}}})
    with ended(node, orthanc):
        datasets = [pydicom.dcmread(path) for path in sorted(study.iterdir())]
        client = DICOMwebClient(url=f'{node.http}/dicom-web')
        storing(node, client, datasets)
        grown = large(node, datasets[0])
        searching(node, client, datasets)
        retrieving(node, client, datasets)
        with_orthanc(node, orthanc, datasets)

finish(f'DICOMweb with dicomweb-client and Orthanc; {grown:.0f} MB of memory for 100 MB at most')
