"""`roentgen serve` and its peers on free ports, for the checks of its services. All of it lives in one folder and ends with it."""
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

problems = []


def need(holds, text):
    if not holds:
        problems.append(text)


def finish(text):
    """Ends the check: with `text`, or with every problem."""
    print('\n'.join(problems) or text)
    sys.exit(1 if problems else 0)


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def until(condition, seconds=30.0, every=0.05):
    """The first true answer of `condition`, or the last one when time is up."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()) and time.monotonic() < deadline:
        time.sleep(every)
    return answer


def closed_within(seconds, port, step, head=b''):
    """Whether the node ends a connection on which `head` comes, and then `step` is done again and again."""
    with socket.create_connection(('127.0.0.1', port)) as connection:
        connection.settimeout(0.2)
        connection.sendall(head)
        started = time.monotonic()
        while time.monotonic() < started + seconds:
            try:
                step(connection)
                if connection.recv(4096) == b'':
                    return True
            except TimeoutError:
                pass
            except OSError:
                return True
    return False


def fetch(url, data=None, headers=None, method=None):
    """Status and body, whatever the status is."""
    request = urllib.request.Request(url, data=data, headers=headers or {}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def get_json(url):
    status, body = fetch(url)
    return json.loads(body) if status == 200 else None


class Program:
    """A process with its log."""

    def __init__(self, folder, name, *command):
        self.log_path = Path(folder) / f'{name}.log'
        with open(self.log_path, 'ab') as log:
            self.process = subprocess.Popen([str(part) for part in command], stdout=log, stderr=log)

    def log(self):
        return self.log_path.read_text(errors='replace')

    def alive(self):
        return self.process.poll() is None

    def stop(self):
        if self.alive():
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Node(Program):
    """`roentgen serve`: `config` and `tables` are TOML beside data, ae_title, listen and http."""

    def __init__(self, binary, folder, config='', data='data', tables='', port=None, ready=None):
        self.folder, self.data = Path(folder), Path(folder) / data
        self.port, http = port or free_port(), free_port()
        self.http = f'http://127.0.0.1:{http}'
        self.path = self.folder / f'{data}.toml'
        self.head = f'data = "{self.data}"\nae_title = "NODE"\nlisten = ["127.0.0.1:{self.port}"]\n{config}\n'
        self.tables = f'\n[http]\nlisten = "127.0.0.1:{http}"\n'
        self.configure(tables)
        super().__init__(folder, data, binary, 'serve', '--config', self.path)
        ready = ready or (lambda node: fetch_quietly(f'{node.http}/readyz'))
        if not until(lambda: not self.alive() or ready(self), 60):
            sys.exit(f'the node is not ready:\n{self.log()}')
        if not self.alive():
            sys.exit(f'the node does not start:\n{self.log()}')

    def configure(self, tables):
        """Writes the configuration with these tables."""
        self.path.write_text(self.head + self.tables + tables)

    def trace(self, study_uid):
        return get_json(f'{self.http}/studies/{study_uid}/trace') or {}

    def audit(self, event):
        """Rows of the audit table."""
        import sqlite3
        with contextlib.closing(sqlite3.connect(f'file:{self.data}/node.sqlite?mode=ro', uri=True)) as db:
            return db.execute('SELECT action, outcome, peer, subject, detail FROM audit WHERE event = ?', (event,)).fetchall()


def fetch_quietly(url):
    try:
        return fetch(url)[0] == 200
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


class Orthanc(Program):
    """An archive with an empty store. `modalities`: name to [title, host, port] or an object."""

    def __init__(self, folder, title, modalities, **more):
        program = shutil.which('Orthanc') or '/usr/sbin/Orthanc'
        if not os.path.exists(program):
            sys.exit('Orthanc is not installed: run the tests with tests/run')
        store = Path(tempfile.mkdtemp(dir=folder))
        self.port, http = free_port(), free_port()
        self.http = f'http://127.0.0.1:{http}'
        settings = {
            'Name': title, 'StorageDirectory': str(store), 'IndexDirectory': str(store), 'HttpPort': http, 'DicomPort': self.port,
            'RemoteAccessAllowed': False, 'AuthenticationEnabled': False, 'DicomAet': title, 'UnknownSopClassAccepted': True,
            'DicomModalities': modalities, **more,
        }
        (store / 'orthanc.json').write_text(json.dumps(settings))
        super().__init__(store, 'orthanc', program, store / 'orthanc.json')
        if not until(lambda: fetch_quietly(f'{self.http}/system')):
            sys.exit(f'Orthanc does not start:\n{self.log()}')

    def get(self, path):
        return get_json(self.http + path)

    def post(self, path, value):
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        status, answer = fetch(self.http + path, body)
        return json.loads(answer) if status == 200 else {'HttpStatus': status, 'Body': answer.decode(errors='replace')}


@contextlib.contextmanager
def ended(*programs):
    """Stops these at the end; shows their logs where something is wrong."""
    running = list(programs)
    try:
        yield running
    except BaseException:
        print('\n'.join(problems))
        print('\n'.join(f'--- {program.log_path.name}\n{program.log()[-4000:]}' for program in running))
        raise
    finally:
        for program in running:
            program.stop()
        if problems:
            print('\n'.join(f'--- {program.log_path.name}\n{program.log()[-4000:]}' for program in running))
