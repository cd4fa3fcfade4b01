#!/usr/bin/env python3
"""The HTTP interface from outside: its description, TLS, its bounds, frames and pictures, and what is audited of reading.

usage: check_http.py ROENTGEN PACKAGE STUDY_DIR

Every operation of docs/openapi.json answers as it says. Certificates are asked for and replaced. Who is slow, long or many is ended. Frames
and pictures are held against pydicom. Exit 0, or 1 with every reason.
"""
import io
import json
import re
import signal
import socket
import ssl
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import jsonschema
import numpy as np
import pydicom
from openapi_spec_validator import validate
from PIL import Image

from certificates import Authority
from programs import dcmtk
from serving import Node, closed_within, ended, fetch, finish, get_json, need, until

binary, package, study = sys.argv[1], sys.argv[2], Path(sys.argv[3])
datasets = [pydicom.dcmread(path) for path in sorted(study.iterdir())]
one = datasets[0]
UIDS = {'study': str(one.StudyInstanceUID), 'series': str(one.SeriesInstanceUID), 'instance': str(one.SOPInstanceUID)}
OCTETS = 'multipart/related; type="application/octet-stream"'


def file_of(dataset):
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def body_of(*parts):
    return b''.join(b'\r\n--B\r\nContent-Type: application/dicom\r\n\r\n' + part for part in parts) + b'\r\n--B--'


STOW = {'Content-Type': 'multipart/related; type="application/dicom"; boundary=B'}


def described(node):
    """Each operation answers with a status, a type and, where that is JSON, a shape of the description."""
    status, raw = fetch(f'{node.http}/openapi.json')
    api = json.loads(raw)
    need(status == 200 and raw == Path(__file__).parents[2].joinpath('docs/openapi.json').read_bytes(), 'the description is not docs/openapi.json')
    validate(api)
    jobs = json.loads(fetch(f'{node.http}/jobs')[1])
    places = {**UIDS, 'uid': UIDS['study'], 'id': jobs[0]['id'], 'frames': '1', 'destination': 'PACS'}
    # Orders that find nothing to do here.
    idle = ('/jobs/{id}/retry', '/jobs/{id}/cancel', '/studies/{uid}/complete', '/studies/{uid}/deliver', '/deliveries/{destination}')
    count = 0
    for path, item in api['paths'].items():
        for method, operation in item.items():
            url = node.http + re.sub(r'\{(\w+)\}', lambda m: str(places[m[1]]), path)
            asked = [p for p in operation.get('parameters', []) if p['in'] == 'query' and p.get('required')]
            url += '?' + '&'.join(f'{p["name"]}={p["schema"]["const"]}' for p in asked) if asked else ''
            data, headers = (body_of(file_of(one)), STOW) if 'requestBody' in operation else (b'' if method == 'post' else None, {})
            request = urllib.request.Request(url, data=data, headers=headers, method=method.upper())
            try:
                answer = urllib.request.urlopen(request, timeout=30)
            except urllib.error.HTTPError as error:
                answer = error
            with answer:
                status, body, kind = answer.status, answer.read(), answer.headers.get_content_type()
                need(bool(answer.headers.get('x-request-id')), f'{method} {path}: no id')
            response = operation['responses'].get(str(status))
            need(response is not None and status != 405, f'{method} {path}: {status} is not described')
            if response is None:
                continue
            response = api['components']['responses']['Error'] if '$ref' in response else response
            need(kind in response.get('content', {}), f'{method} {path}: {kind} is not described')
            if kind.endswith('json') and kind in response.get('content', {}):
                schema = {**response['content'][kind]['schema'], 'components': api['components']}
                try:
                    jsonschema.validate(json.loads(body), schema)
                except jsonschema.ValidationError as error:
                    need(False, f'{method} {path}: {error.message}')
            need(status < 300 or path.startswith(idle), f'{method} {path}: {status} {body[:200]}')
            count += 1
    for path, data in [('/none', None), ('/jobs/999999', None), ('/jobs/999999/retry', b''), ('/jobs/999999/cancel', b'')]:
        status, body = fetch(node.http + path, data)
        need(status == 404 and 'error' in json.loads(body), f'{path}, which is not there: {status} {body[:100]}')
    return count


def frames_and_pictures(node):
    base = f'{node.http}/dicom-web/studies/{UIDS["study"]}/series/{UIDS["series"]}/instances/{UIDS["instance"]}'
    status, body = fetch(f'{base}/frames/1', headers={'Accept': OCTETS})
    boundary, rest = body.split(b'\r\n', 1)
    part = rest.split(b'\r\n\r\n', 1)[1].split(b'\r\n' + boundary)[0]
    need(status == 200 and part == one.PixelData, f'a frame: {status}, {len(part)} bytes')
    for path, accept, expected in [('frames/2', OCTETS, 404), ('frames/0', OCTETS, 400), ('frames/1', 'multipart/related; type="image/jp2"', 406),
                                   ('rendered', 'application/dicom', 406), ('frames/1,2/rendered', '*/*', 400), ('frames/2/rendered', '*/*', 404),
                                   ('rendered?window=1,2', '*/*', 400)]:
        status, body = fetch(f'{base}/{path}', headers={'Accept': accept})
        need(status == expected, f'{path} as {accept}: {status} {body[:100]}')
    values = one.pixel_array.astype(float) * float(one.RescaleSlope) + float(one.RescaleIntercept)
    for query, centre, width in [('window=40,400,linear', 40, 400), ('window=-600,1500,linear', -600, 1500)]:
        expected = np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0, 1) * 255
        for path, accept, most in [('rendered', 'image/png', 0.5001), ('frames/1/rendered', 'image/jpeg', 40)]:
            status, body = fetch(f'{base}/{path}?{query}', headers={'Accept': accept})
            need(status == 200, f'{path}?{query}: {status} {body[:200]}')
            picture = np.asarray(Image.open(io.BytesIO(body)).convert('L'), dtype=float)
            # PNG is exact to rounding; JPEG of quality 90 is not, edges of noise least of all.
            off = np.abs(picture - expected)
            need(picture.shape == values.shape and off.max() <= most and off.mean() < 4, f'{path}?{query}: off by {off.max():.1f}, {off.mean():.2f} in the mean')
    # A compressed one comes as its code stream.
    with tempfile.TemporaryDirectory() as folder:
        source, packed = Path(folder) / 'a.dcm', Path(folder) / 'b.dcm'
        other = pydicom.dcmread(sorted(study.iterdir())[1])
        other.SOPInstanceUID = other.file_meta.MediaStorageSOPInstanceUID = '1.2.3.4.99'
        other.StudyInstanceUID, other.SeriesInstanceUID = '1.2.3.4', '1.2.3.4.5'
        other.save_as(source)
        need(dcmtk('dcmcjpls', str(source), str(packed))[0] == 0, 'dcmcjpls')
        need(fetch(f'{node.http}/dicom-web/studies', body_of(packed.read_bytes()), STOW)[0] == 200, 'JPEG-LS is stored')
        stream = next(pydicom.encaps.generate_frames(pydicom.dcmread(packed).PixelData, number_of_frames=1))
    base = f'{node.http}/dicom-web/studies/1.2.3.4/series/1.2.3.4.5/instances/1.2.3.4.99'
    status, body = fetch(f'{base}/frames/1', headers={'Accept': 'multipart/related; type="image/jls"; transfer-syntax=*'})
    need(status == 200 and stream in body and b'Content-Type: image/jls; transfer-syntax=1.2.840.10008.1.2.4.80' in body, f'a code stream: {status}')
    need(fetch(f'{base}/frames/1', headers={'Accept': OCTETS})[0] == 406, 'nothing is decoded for that')
    status, body = fetch(f'{base}/rendered', headers={'Accept': 'image/png'})
    need(status == 200 and Image.open(io.BytesIO(body)).size == (other.Columns, other.Rows), 'a compressed one is rendered')


def audited(node):
    read = until(lambda: [row for row in node.audit('110103') if 'WADO-RS' in row[4]], 5) or []
    details = ' '.join(row[4] for row in read)
    for what in ['instances', 'metadata', 'frames', 'rendered']:
        need(what in details, f'{what} is not audited: {details[:300]}')
    need(all(row[0] == 'R' and row[2].startswith('127.0.0.1:') and row[3] in (UIDS['study'], '1.2.3.4') for row in read), f'who read what: {read[:3]}')
    fetch(f'{node.http}/dicom-web/studies?PatientName=Nobodyquark*')
    searched = until(lambda: [row for row in node.audit('110112') if row[4] == 'QIDO-RS: 0 answers'], 5) or []
    need(searched and 'Nobodyquark' not in str(node.audit('110112')) + node.log(), f'a search is audited without what it was for: {searched}')


def dripped(seconds, port, head, drip):
    """Whether the node ends a connection on which `head` comes, and then `drip` again and again."""
    return closed_within(seconds, port, lambda connection: connection.sendall(drip), head)


def bounded(node):
    port = int(node.http.rsplit(':', 1)[1])
    need(dripped(6, port, b'', b''), 'silence is waited for')
    need(dripped(6, port, b'GET / HTTP/1.1\r\nX: ', b'a'), 'a slow head is waited for')
    need(dripped(6, port, b'GET / HTTP/1.1\r\nX: ' + b'a' * 200_000, b'a'), 'a long head is read')
    head = b'POST /dicom-web/studies HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/related; type="application/dicom"; boundary=B\r\n'
    need(dripped(8, port, head + b'Content-Length: 1000000\r\nConnection: close\r\n\r\n', b'a'), 'a slow body is waited for')
    with socket.create_connection(('127.0.0.1', port)) as connection:
        connection.settimeout(5)
        connection.sendall(head + b'Content-Length: 2000000\r\n\r\n')
        said = connection.recv(4096)
        need(said.startswith(b'HTTP/1.1 413'), f'a body that is too long: {said[:80]}')
    chunk = b'10000\r\n' + bytes(0x10000) + b'\r\n'
    with socket.create_connection(('127.0.0.1', port)) as connection:
        connection.settimeout(5)
        connection.sendall(head + b'Transfer-Encoding: chunked\r\n\r\n')
        said = b''
        try:
            for _ in range(200):
                connection.sendall(chunk)
            said = connection.recv(4096)
        except OSError:
            said = said or b'HTTP/1.1 4'
        need(said.startswith(b'HTTP/1.1 4'), f'a long body without a length: {said[:80]}')
    # Four connections are taken, the next is closed at once; and when they end there is room again.
    held = [socket.create_connection(('127.0.0.1', port)) for _ in range(4)]
    time.sleep(0.3)
    with socket.create_connection(('127.0.0.1', port)) as extra:
        extra.settimeout(1)
        try:
            need(extra.recv(1) == b'', 'a connection too many is answered')
        except TimeoutError:
            need(False, 'a connection too many is held')
        except ConnectionResetError:
            pass
    for connection in held:
        connection.close()
    need(until(lambda: quiet_get(node), 5), 'there is no room afterwards')


def quiet_get(node):
    try:
        return fetch(f'{node.http}/healthz')[0] == 200
    except (urllib.error.URLError, ConnectionError):
        return False


def tls(folder):
    good, bad = Authority(folder, 'good'), Authority(folder, 'bad')
    files = [folder / name for name in ['http.crt', 'http.key', 'http-ca.pem']]

    def install(authority):
        for target, source in zip(files, [*authority.sign('node'), authority.ca]):
            target.write_bytes(source.read_bytes())
    install(good)

    def context(authority, identity=None):
        made = ssl.create_default_context(cafile=authority.ca)
        if identity:
            made.load_cert_chain(*identity)
        return made

    def ask(path, context, at=None):
        try:
            request = urllib.request.Request((at or node).http.replace('http:', 'https:') + path)
            with urllib.request.urlopen(request, timeout=10, context=context) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, b''
        except (urllib.error.URLError, ssl.SSLError, ConnectionError) as error:
            return 0, str(error).encode()

    table = f'tls = {{ certificate = "{files[0]}", key = "{files[1]}", client_ca = "{files[2]}" }}\nhead_s = 2\n'
    client, stranger = good.sign('client'), bad.sign('client')
    node = Node(binary, folder, data='tls', tables=table, ready=lambda started: ask('/readyz', context(good, client), started)[0] == 200)
    with ended(node):
        need(ask('/jobs', context(good, client))[0] == 200, 'our certificate')
        alerts = len(node.audit('110113'))
        need(ask('/jobs', context(good, stranger))[0] == 0, "another authority's certificate is taken")
        need(ask('/healthz', context(good))[0] == 0, 'nobody asks for a certificate')
        need(until(lambda: len(node.audit('110113')) == alerts + 2, 5), f'each is audited: {node.audit("110113")}')
        port = int(node.http.rsplit(':', 1)[1])
        need(dripped(6, port, b'', b'\x16'), 'a slow handshake is waited for')
        need(dripped(6, port, b'GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n', b''), 'plain HTTP is waited for')
        status, answer = put(context(good, client), port)
        url = json.loads(answer)['00081190']['Value'][0] if status == 200 else answer
        need(str(url).startswith(f'https://127.0.0.1:{port}/'), f'the URL of what was stored: {status} {url}')
        install(bad)
        node.process.send_signal(signal.SIGHUP)
        need(until(lambda: 'the configuration is replaced' in node.log(), 20), 'certificates are not read again')
        need(ask('/jobs', context(bad, stranger))[0] == 200 and ask('/jobs', context(good, client))[0] == 0, 'the new certificates do not count')


def put(context, port):
    request = urllib.request.Request(f'https://127.0.0.1:{port}/dicom-web/studies/{UIDS["study"]}', data=body_of(file_of(one)), headers=STOW)
    with urllib.request.urlopen(request, timeout=10, context=context) as answer:
        return answer.status, answer.read()


def forwarded(folder):
    """A proxy's word counts where it is configured, and only there."""
    for data, table, expected in [('alone', '', 'http://127.0.0.1'), ('proxied', 'forwarded = true\n', 'https://pacs.example/dicom-web')]:
        node = Node(binary, folder, data=data, tables=table)
        with ended(node):
            headers = {**STOW, 'X-Forwarded-Proto': 'https', 'X-Forwarded-Host': 'pacs.example'}
            _, answer = fetch(f'{node.http}/dicom-web/studies/{UIDS["study"]}', body_of(file_of(one)), headers)
            url = json.loads(answer)['00081190']['Value'][0]
            need(url.startswith(expected), f'{data}: {url}')


with tempfile.TemporaryDirectory() as folder:
    folder = Path(folder)
    node = Node(binary, folder, tables=f'[study]\nquiet_s = 1\n[worker]\ndevice = "cpu"\n[[package]]\nname = "{package}"\n')
    with ended(node):
        need(fetch(f'{node.http}/dicom-web/studies', body_of(*map(file_of, datasets)), STOW)[0] == 200, 'the study is stored')
        need(until(lambda: [job['state'] for job in get_json(f'{node.http}/jobs')] == ['done'], 60), 'the job ends')
        count = described(node)
        frames_and_pictures(node)
        audited(node)
    limited = Node(binary, folder, data='limited', tables='head_s = 2\nconnections = 4\nbody_mb = 1\n[limits]\npdu_s = 2\n')
    with ended(limited):
        bounded(limited)
    tls(folder)
    forwarded(folder)

finish(f'{count} operations as they are described, by HTTP and HTTPS, within their bounds')
