"""A node under test with its peers: `roentgen serve` and Orthanc on free ports, senders, destinations that refuse.

Used by check_node.py and node_soak.py. Everything lives in one temporary folder and ends with it.
"""
import contextlib
import copy
import hashlib
import io
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pydicom
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.sop_class import Verification

from programs import dcmtk
from requestor import Requestor

CT = '1.2.840.10008.5.1.4.1.1.2'
SECONDARY_CAPTURE = '1.2.840.10008.5.1.4.1.1.7'
RAW_DATA = '1.2.840.10008.5.1.4.1.1.66'
SR = '1.2.840.10008.5.1.4.1.1.88.34'
SEG = '1.2.840.10008.5.1.4.1.1.66.4'
MPEG2 = '1.2.840.10008.1.2.4.100'


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def until(what, condition, seconds=30.0, every=0.05):
    """The first true answer of `condition`; fails with `what` when there is none in time."""
    deadline = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f'not within {seconds:.0f} s: {what() if callable(what) else what}')
        time.sleep(every)


def fetch(url, data=None, seconds=30):
    with urllib.request.urlopen(urllib.request.Request(url, data=data), timeout=seconds) as answer:
        return answer.read()


# Studies

class Study:
    """Data sets of one study, in memory; `variant` makes another one of it."""

    def __init__(self, datasets):
        self.datasets = list(datasets)

    @classmethod
    def read(cls, folder):
        return cls(pydicom.dcmread(path) for path in sorted(Path(folder).iterdir()))

    @property
    def uid(self):
        return str(self.datasets[0].StudyInstanceUID)

    def variant(self, name, patient=None):
        """The same images as another study of another patient; `name` decides the UIDs."""
        def renamed(uid):
            digest = hashlib.sha256(f'{name}/{uid}'.encode()).digest()
            return f'2.25.{int.from_bytes(digest[:15], "big")}'
        made = []
        for dataset in self.datasets:
            dataset = copy.deepcopy(dataset)
            for keyword in ('StudyInstanceUID', 'SeriesInstanceUID', 'SOPInstanceUID', 'FrameOfReferenceUID'):
                if keyword in dataset:
                    setattr(dataset, keyword, renamed(dataset[keyword].value))
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
            dataset.PatientID = patient or f'ID-{name}'
            dataset.PatientName = f'Test^{patient or name}'
            dataset.AccessionNumber = f'A-{name}'[:16]
            made.append(dataset)
        return Study(made)

    def hashes(self):
        """SOP Instance UID to the hash of what counts of an instance."""
        return {str(d.SOPInstanceUID): content(d) for d in self.datasets}

    def write(self, folder):
        folder = Path(folder)
        folder.mkdir(parents=True)
        for n, dataset in enumerate(self.datasets):
            dataset.save_as(folder / f'{n:04}.dcm')
        return folder


def content(dataset):
    """A hash of a data set as Explicit VR Little Endian, whatever file it stands in."""
    dataset = copy.copy(dataset)
    buffer = io.BytesIO()
    with pydicom.filebase.DicomFileLike(buffer) as file:
        file.is_little_endian, file.is_implicit_VR = True, False
        pydicom.filewriter.write_dataset(file, dataset)
        return hashlib.sha256(buffer.getvalue()).hexdigest()


# The node

def waiting(data):
    """Names of the instances in the store `data` that are being received or wait to be entered; empty files wait for theirs."""
    return [path.name for path in (data / 'incoming').iterdir() if path.stat().st_size]


class Node:
    """`roentgen serve` with its data folder; can be killed and started again."""

    def __init__(self, binary, folder, config, orthanc=None):
        self.binary, self.folder, self.runs = binary, Path(folder), 0
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.config = config
        self.orthanc = orthanc
        self.process = None
        self.data = self.folder / 'data'

    def start(self, crash_at=None):
        """Starts it and waits until it listens."""
        toml = f'data = "{self.data}"\nae_title = "NODE"\nlisten = ["127.0.0.1:{self.port}"]\n'
        (self.folder / 'node.toml').write_text(toml + self.config)
        self.runs += 1
        self.log_path = self.folder / f'log-{self.runs}'
        environment = {**os.environ, **({'ROENTGEN_CRASH_AT': crash_at} if crash_at else {})}
        with open(self.log_path, 'wb') as log:
            command = [self.binary, 'serve', '--log-json', '--config', str(self.folder / 'node.toml')]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        started = time.monotonic()
        address = until(lambda: f'the node listens:\n{self.log_path.read_text()}', self._http_address, 30, 0.01)
        self.start_seconds = time.monotonic() - started
        self.http = f'http://{address}'
        return self

    def _http_address(self):
        if self.process.poll() is not None:
            raise AssertionError(f'the node ended with {self.process.returncode}:\n{self.log_path.read_text()}')
        return next((line['fields']['address'] for line in self.log() if line['fields'].get('message') == 'listening for HTTP'), None)

    def log(self):
        """What this run of the node has logged."""
        lines = []
        for line in self.log_path.read_text(errors='replace').splitlines():
            with contextlib.suppress(ValueError):
                lines.append(json.loads(line))
        return lines

    def logged(self, message):
        return [line['fields'] for line in self.log() if line['fields'].get('message') == message]

    def kill(self):
        """kill -9."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        """A clean stop; the exit status."""
        if self.process is None or self.process.poll() is not None:
            return None
        self.process.terminate()
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError('the node does not stop') from None

    def get(self, path):
        return json.loads(fetch(self.http + path))

    def post(self, path):
        return json.loads(fetch(self.http + path, b''))

    def jobs(self, study_uid=None):
        """The jobs, the oldest first."""
        return [job for job in reversed(self.get('/jobs')) if study_uid in (None, job['study_instance_uid'])]

    def trace(self, study_uid):
        """Everything that the node knows of a study; None where it knows none."""
        try:
            return self.get(f'/studies/{study_uid}/trace')
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise

    def received(self, study_uid):
        """How many instances of a study are entered."""
        return sum(series['instances'] for series in (self.trace(study_uid) or {'series': []})['series'])

    def job_done(self, study_uid, count=1, seconds=60):
        """Waits until that many jobs of a study have ended; the last one."""
        def ended():
            jobs = self.jobs(study_uid)
            return jobs if sum(job['state'] not in ('queued', 'running') for job in jobs) >= count else None
        return until(lambda: f'{count} jobs end: {self.jobs(study_uid)}', ended, seconds)[-1]

    def delivered(self, study_uid, states=('stored',), seconds=60):
        """Waits until every delivery of a study's results is in one of these states; the results of the trace."""
        def settled():
            results = (self.trace(study_uid) or {'results': []})['results']
            return results if results and all(one['state'] in states for one in results) else None
        return until(lambda: f'deliveries are {states}: {self.trace(study_uid)["results"]}', settled, seconds)

    def metrics(self):
        """Each metric's value by name with labels."""
        lines = fetch(self.http + '/metrics').decode().splitlines()
        return {line.rsplit(' ', 1)[0]: float(line.rsplit(' ', 1)[1]) for line in lines if not line.startswith('#')}

    def resources(self):
        """File descriptors, and resident memory in kB."""
        process = Path(f'/proc/{self.process.pid}')
        return len(list((process / 'fd').iterdir())), int(self._status('VmRSS'))

    def peak_kb(self):
        """The most resident memory since `forget_peak`."""
        return int(self._status('VmHWM'))

    def forget_peak(self):
        Path(f'/proc/{self.process.pid}/clear_refs').write_text('5')

    def _status(self, name):
        lines = Path(f'/proc/{self.process.pid}/status').read_text().splitlines()
        return next(line.split()[1] for line in lines if line.startswith(name + ':'))

    def alive(self):
        return self.process.poll() is None and self.echo()

    def echo(self, called='NODE', calling='ECHOSCU'):
        status, self.said = dcmtk('echoscu', '-aet', calling, '-aec', called, '127.0.0.1', str(self.port))
        return status == 0

    def kept(self):
        """Content hashes of all that lies in the store as taken, by SOP Instance UID."""
        found = {}
        for folder in ('instances', 'incoming'):
            for path in (self.data / folder).rglob('*.dcm'):
                with contextlib.suppress(Exception):  # an instance that is half received
                    dataset = pydicom.dcmread(path)
                    found[str(dataset.SOPInstanceUID)] = content(dataset)
        return found

    def waiting(self):
        """Instances that are being received or wait to be entered; empty files wait for theirs."""
        return waiting(self.data)

    # Senders

    def storescu(self, folder, calling='STORESCU', *options):
        """Sends a folder with DCMTK's storescu; the statuses of its responses."""
        status, text = dcmtk('storescu', '-v', '-aet', calling, '-aec', 'NODE', *options, '+sd', '127.0.0.1', str(self.port), str(folder))
        answers = [line.split('(', 1)[1].rstrip(')') for line in text.splitlines() if 'Received Store Response' in line]
        return status, answers, text

    def association(self, contexts=((CT, (ExplicitVRLittleEndian,)),), calling='PYNETDICOM', called='NODE', handlers=()):
        """An association by pynetdicom."""
        ae = Requestor(ae_title=calling)
        ae.dimse_timeout = ae.network_timeout = ae.acse_timeout = 30
        for abstract_syntax, transfer_syntaxes in contexts:
            ae.add_requested_context(abstract_syntax, list(transfer_syntaxes))
        return ae.associate('127.0.0.1', self.port, ae_title=called, evt_handlers=list(handlers))

    def send(self, study, calling='PYNETDICOM', pause=0.0):
        """Sends data sets over one association; the statuses, one each."""
        datasets = study.datasets if isinstance(study, Study) else list(study)
        contexts = sorted({(str(d.SOPClassUID), (str(d.file_meta.TransferSyntaxUID),)) for d in datasets})
        association = self.association(contexts, calling)
        assert association.is_established, 'no association'
        statuses = []
        for dataset in datasets:
            statuses.append(association.send_c_store(dataset))
            time.sleep(pause)
        association.release()
        return [int(getattr(status, 'Status', -1)) for status in statuses]

    def send_acknowledged(self, study, calling='PYNETDICOM', abort_after=None, pause=0.0):
        """Sends what it can; the SOP Instance UIDs that were acknowledged until the node went away or did not answer, or `abort_after`."""
        acknowledged = set()
        datasets = study.datasets if isinstance(study, Study) else list(study)
        association = self.association(calling=calling)
        if not association.is_established:
            return acknowledged
        for n, dataset in enumerate(datasets):
            if n == abort_after:
                association.abort()
                return acknowledged
            try:
                status = association.send_c_store(dataset)
            except RuntimeError:  # the association is gone
                break
            if getattr(status, 'Status', None) != 0:
                break
            acknowledged.add(str(dataset.SOPInstanceUID))
            time.sleep(pause)
        if association.is_established:
            association.release()
        return acknowledged


def item(kind, body):
    """An item of an association PDU."""
    return struct.pack('>BBH', kind, 0, len(body)) + body


def association_request(contexts, calling, called, *user):
    """An A-ASSOCIATE-RQ for pairs of abstract and transfer syntax, with more items of user information."""
    body = struct.pack('>HH', 1, 0) + called.ljust(16).encode() + calling.ljust(16).encode() + bytes(32)
    body += item(0x10, b'1.2.840.10008.3.1.1.1')
    for number, (abstract_syntax, transfer_syntax) in enumerate(contexts):
        syntaxes = item(0x30, abstract_syntax.encode()) + item(0x40, transfer_syntax.encode())
        body += item(0x20, bytes([2 * number + 1, 0, 0, 0]) + syntaxes)
    body += item(0x50, b''.join([item(0x51, struct.pack('>I', 16384)), item(0x52, b'2.25.1'), *user]))
    return struct.pack('>BBI', 1, 0, len(body)) + body


def raw_associate(port, contexts, calling='PYNETDICOM', called='NODE', seconds=10, window=None):
    """A socket with an A-ASSOCIATE-RQ sent, and the answer: for what no toolkit would send. `window` are operations invoked and performed."""
    asynchronous = [item(0x53, struct.pack('>HH', *window))] if window else []
    connection = socket.create_connection(('127.0.0.1', port), seconds)
    connection.sendall(association_request(contexts, calling, called, *asynchronous))
    return connection, read_pdu(connection)


def read_pdu(connection):
    """Type and body of the next PDU; None where the connection ends."""
    def exactly(count):
        read = b''
        while len(read) < count:
            more = connection.recv(count - len(read))
            if not more:
                return None
            read += more
        return read
    try:
        header = exactly(6)
        return header and (header[0], exactly(struct.unpack('>I', header[2:])[0]))
    except ConnectionResetError:
        return None


def command_set(**values):
    """A command set in Implicit VR Little Endian."""
    elements = b''
    tags = {'sop_class': 0x0002, 'field': 0x0100, 'message': 0x0110, 'priority': 0x0700, 'data_set': 0x0800, 'instance': 0x1000,
            'requested_class': 0x0003, 'requested_instance': 0x1001, 'event': 0x1002, 'action': 0x1008}
    for name, value in values.items():
        raw = struct.pack('<H', value) if isinstance(value, int) else value.encode() + b'\0' * (len(value) % 2)
        elements += struct.pack('<HHI', 0, tags[name], len(raw)) + raw
    return struct.pack('<HHII', 0, 0, 4, len(elements)) + elements


def pdata(context, is_command, is_last, body):
    value = struct.pack('>IBB', len(body) + 2, context, is_command | is_last << 1) + body
    return struct.pack('>BBI', 4, 0, len(value)) + value


def raw_store(connection, data_set, sop_class, instance, message=1, context=1):
    """A C-STORE with any bytes as its data set; status and comment of the answer."""
    raw_request(connection, data_set, sop_class, instance, message, context)
    return raw_answer(connection)[1:]


def raw_request(connection, data_set, sop_class, instance, message=1, context=1):
    """A C-STORE whose answer is not waited for."""
    command = command_set(sop_class=sop_class, field=1, message=message, priority=0, data_set=0, instance=instance)
    connection.sendall(pdata(context, 1, 1, command))
    pieces = [data_set[n:n + 16000] for n in range(0, len(data_set), 16000)] or [b'']
    for n, piece in enumerate(pieces):
        connection.sendall(pdata(context, 0, int(n + 1 == len(pieces)), piece))


def raw_answer(connection):
    """Message, status and comment of the next response."""
    answer = read_pdu(connection)
    assert answer and answer[0] == 4, f'an answer, not {answer}'
    elements, at = {}, 0
    body = answer[1][6:]
    while at + 8 <= len(body):
        _, element, length = struct.unpack('<HHI', body[at:at + 8])
        elements[element] = body[at + 8:at + 8 + length]
        at += 8 + length
    message, status = (struct.unpack('<H', elements[element])[0] for element in (0x0120, 0x0900))
    return message, status, elements.get(0x0902, b'').decode().strip()


# Destinations

class Orthanc:
    """Orthanc as the PACS, with a store of its own that stays when it is stopped."""

    def __init__(self, folder):
        self.program = shutil.which('Orthanc')
        if self.program is None:
            sys.exit('Orthanc is not installed: run the tests with tests/run')
        self.folder, self.process = Path(folder), None
        self.folder.mkdir(parents=True)
        self.http, self.port = free_port(), free_port()
        (self.folder / 'orthanc.json').write_text(json.dumps({
            'Name': 'pacs', 'StorageDirectory': f'{folder}/store', 'IndexDirectory': f'{folder}/store', 'HttpPort': self.http,
            'DicomPort': self.port, 'RemoteAccessAllowed': False, 'AuthenticationEnabled': False, 'DicomAet': 'ORTHANC',
            'UnknownSopClassAccepted': True, 'OverwriteInstances': False, 'StableAge': 1,
        }))

    def start(self):
        with open(self.folder / 'log', 'ab') as log:
            self.process = subprocess.Popen([self.program, str(self.folder / 'orthanc.json')], stdout=log, stderr=log)

        def up():
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                return self.get('/system')
        until('Orthanc starts', up)
        return self

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)

    def get(self, path):
        return json.loads(fetch(f'http://127.0.0.1:{self.http}{path}'))

    def study(self, study_uid):
        """What it has of a study: (modality, SOP Instance UID, Orthanc's name), sorted."""
        query = json.dumps({'Level': 'Instance', 'Query': {'StudyInstanceUID': study_uid}, 'Expand': True}).encode()
        found = json.loads(fetch(f'http://127.0.0.1:{self.http}/tools/find', query))
        series = {one['ParentSeries'] for one in found}
        modality = {name: self.get(f'/series/{name}')['MainDicomTags']['Modality'] for name in series}
        return sorted((modality[one['ParentSeries']], one['MainDicomTags']['SOPInstanceUID'], one['ID']) for one in found)

    def dataset(self, name):
        return pydicom.dcmread(io.BytesIO(fetch(f'http://127.0.0.1:{self.http}/instances/{name}/file')))


class Refusing:
    """A Storage SCP that answers as it is told: `answer` takes the data set's SOP class, gives a status or a data set with one."""

    def __init__(self, answer, classes=(SR, SEG)):
        self.answer, self.taken, self.asked = answer, [], 0
        self.ae = AE(ae_title='OTHER')
        for one in classes:
            self.ae.add_supported_context(one, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
        self.ae.add_supported_context(Verification)
        self.port = free_port()
        self.server = self.ae.start_server(('127.0.0.1', self.port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)])

    def _store(self, event):
        self.asked += 1
        status = self.answer(str(event.request.AffectedSOPClassUID))
        number = status if isinstance(status, int) else status.Status
        if number == 0:
            self.taken.append(str(event.request.AffectedSOPInstanceUID))
        return status

    def stop(self):
        self.server.shutdown()


class Forwarder:
    """A TCP connection through which bytes go slowly: a slow sender for any toolkit."""

    def __init__(self, port, bytes_per_second):
        self.to, self.rate = port, bytes_per_second
        self.listener = socket.create_server(('127.0.0.1', 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        client, _ = self.listener.accept()
        server = socket.create_connection(('127.0.0.1', self.to))
        threading.Thread(target=self._pump, args=(server, client, None), daemon=True).start()
        self._pump(client, server, self.rate)

    @staticmethod
    def _pump(source, sink, rate):
        with contextlib.suppress(OSError):
            while data := source.recv(16384):
                sink.sendall(data)
                if rate:
                    time.sleep(len(data) / rate)
            sink.shutdown(socket.SHUT_WR)


class Bench:
    """One temporary folder with a node, Orthanc, and what else a scenario starts."""

    def __init__(self, binary, package):
        self.binary, self.package = binary, package
        self.folder = Path(tempfile.mkdtemp(prefix='roentgen-node-'))
        self.stack, self.count = contextlib.ExitStack(), 0
        self.stack.callback(shutil.rmtree, self.folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.stack.close()

    def place(self, name):
        self.count += 1
        return self.folder / f'{self.count}-{name}'

    def orthanc(self):
        orthanc = Orthanc(self.place('orthanc'))
        self.stack.callback(orthanc.stop)
        return orthanc.start()

    def refusing(self, answer, classes=(SR, SEG)):
        refusing = Refusing(answer, classes)
        self.stack.callback(refusing.stop)
        return refusing

    def node(self, orthanc=None, others=(), quiet_s=1, cut_off_s=120, retry_s=1, attempts=1000, extra='', limits='', keep_free_mb=64,
             store='', data=None):
        """A node that runs the package on every study and sends SR and SEG to Orthanc and to the others."""
        peers = ''.join(f'[[peer]]\nae_title = "{title}"\nfrom = ["127.0.0.1"]\n'
                        for title in ('ECHOSCU', 'STORESCU', 'PYNETDICOM', 'CT1', 'CT2', 'CT3', 'CT4', 'SLOW'))
        destinations = [('PACS', 'ORTHANC', orthanc.port)] if orthanc else []
        destinations += [(f'OTHER{n}', 'OTHER', other.port) for n, other in enumerate(others)]
        names = ', '.join(f'"{name}"' for name, _, _ in destinations)
        config = f'{peers}{extra}[http]\nlisten = "127.0.0.1:0"\n[study]\nquiet_s = {quiet_s}\ncut_off_s = {cut_off_s}\n'
        config += f'[store]\nkeep_free_mb = {keep_free_mb}\n{store}[worker]\ndevice = "cpu"\n[limits]\n{limits}'
        config += f'[[package]]\nname = "{self.package}"\nresults = "sr,seg"\ndeliver = [{names}]\n'
        for name, title, port in destinations:
            config += f'[[destination]]\nname = "{name}"\nae_title = "{title}"\naddress = "127.0.0.1:{port}"\n'
            config += f'retry_s = {retry_s}\nattempts = {attempts}\n'
        node = Node(self.binary, self.place('node'), config, orthanc)
        if data:
            node.data = data
        self.stack.callback(node.stop)
        return node
