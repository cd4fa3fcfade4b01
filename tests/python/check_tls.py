#!/usr/bin/env python3
"""TLS with DCMTK, OpenSSL and pynetdicom on the other side; certificates and configuration replaced while it runs.

usage: check_tls.py ROENTGEN PACKAGE STUDY_DIR

Certificates of our authority are taken, none, another authority's and expired ones refused; so are TLS 1.0 and 1.1; plain DICOM, silence
and a handshake of one byte at a time are ended in time. Results go to a TLS destination, not to one of another name. SIGHUP: new
certificates, a new peer and a new destination count at once, an open association goes on, a wrong configuration is refused with its line.
Exit 0, or 1 with every reason.
"""
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pydicom
from pynetdicom.sop_class import Verification

from certificates import Authority
from programs import dcmtk
from requestor import Requestor
from serving import Node, Program, closed_within, ended, finish, free_port, need, until

binary, package, study = sys.argv[1], sys.argv[2], Path(sys.argv[3])


def echo(port, authority, identity):
    certificate, key = identity
    return dcmtk('echoscu', '-to', '5', '-ta', '5', '-td', '5', '-aet', 'CT1', '-aec', 'NODE', '+tls', str(key), str(certificate), '+cf',
                str(authority.ca), '127.0.0.1', str(port))


def handshake(port, *options):
    """Whether OpenSSL gets through, and is still welcome after its certificate was looked at."""
    command = ['openssl', 's_client', '-connect', f'127.0.0.1:{port}', '-verify_return_error', *map(str, options)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as client:
        try:
            client.wait(1.0)
            return False
        except subprocess.TimeoutExpired:
            client.kill()
            return b'Verify return code: 0 (ok)' in client.stdout.read()


def who_gets_in(node, port, good, bad):
    status, text = echo(port, good, good.sign('client'))
    need(status == 0, f'our own certificate is refused: {text}')
    alerts = len(node.audit('110113'))
    for name, identity in [('of another authority', bad.sign('client')), ('expired', good.sign('expired', days=-1))]:
        status, text = echo(port, good, identity)
        need(status != 0, f'a certificate that is {name} is taken: {text}')
    status, text = dcmtk('echoscu', '-aet', 'CT1', '-aec', 'NODE', '+tla', '+cf', str(good.ca), '127.0.0.1', str(port))
    need(status != 0, f'nobody asks for a certificate: {text}')
    need(until(lambda: len(node.audit('110113')) == alerts + 3, 5), f'each is audited: {node.audit("110113")}')
    certificate, key = good.sign('client')
    shown = ['-CAfile', good.ca, '-cert', certificate, '-key', key]
    for version, expected in [('-tls1', False), ('-tls1_1', False), ('-tls1_2', True), ('-tls1_3', True)]:
        weak = [] if expected else ['-cipher', 'ALL:@SECLEVEL=0']
        need(handshake(port, version, *weak, *shown) == expected, f'{version} is {"refused" if expected else "taken"}')
    started = time.monotonic()
    status, text = dcmtk('echoscu', '-to', '10', '-ta', '10', '-aet', 'CT1', '-aec', 'NODE', '127.0.0.1', str(port))
    need(status != 0 and time.monotonic() - started < 5, f'plain DICOM hangs or is taken: {text}')
    need(closed_within(5, port, lambda connection: None), 'silence is waited for')
    # The header of a handshake record of 512 bytes, then a byte at a time.
    slow = iter(b'\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03' + bytes(500))
    need(closed_within(5, port, lambda connection: connection.send(bytes([next(slow)]))), 'a slow handshake is waited for')


def sent_and_delivered(node, port, good):
    certificate, key = good.sign('client')
    paths = [str(path) for path in sorted(study.iterdir())]
    status, text = dcmtk('storescu', '-aet', 'CT1', '-aec', 'NODE', '+tls', str(key), str(certificate), '+cf', str(good.ca), '127.0.0.1',
                        str(port), *paths)
    need(status == 0, f'storescu: {text}')
    study_uid = str(pydicom.dcmread(paths[0], stop_before_pixels=True).StudyInstanceUID)
    need(until(lambda: sum(s['instances'] for s in node.trace(study_uid).get('series', [])) == len(paths), 5), 'not all that was sent is there')

    def states(name):
        return [(r['state'], r['remark']) for r in node.trace(study_uid).get('results', []) if r['destination'] == name]

    need(until(lambda: states('PACS') and all(state == 'stored' for state, _ in states('PACS')), 60), f'by TLS: {states("PACS")}')
    refused = until(lambda: states('STRANGER') and all(remark for _, remark in states('STRANGER')) and states('STRANGER'), 20) or []
    need(refused and all(state == 'due' and 'name' in remark for state, remark in refused), f'another name: {states("STRANGER")}')


def replaced(node, port, tables, good, bad, files):
    """What SIGHUP does."""
    def hang_up(message):
        seen = node.log().count(message)
        node.process.send_signal(signal.SIGHUP)
        need(until(lambda: node.log().count(message) > seen, 20), f'not in the log: {message}')

    context = ssl.create_default_context(cafile=good.ca)
    context.check_hostname = False
    old = good.sign('client')
    context.load_cert_chain(*old)
    ae = Requestor('CT1')
    ae.add_requested_context(Verification)
    open_one = ae.associate('127.0.0.1', port, ae_title='NODE', tls_args=(context, None))
    need(open_one.is_established, 'pynetdicom by TLS')

    changes = len(node.audit('110131'))
    node.configure(tables.replace('[[peer]]', '[[peers]]', 1))
    line = node.path.read_text().split('[[peers]]')[0].count('\n') + 1
    hang_up('the new configuration is refused')
    need(f'line {line}' in node.log(), f'no line {line} in the log')
    node.configure(tables.replace(str(files[0]), str(study)))
    hang_up('the new configuration is refused')
    node.configure(tables + '\n[worker]\ndevice = "gpu"\n')
    hang_up('needs a restart')
    need(echo(port, good, old)[0] == 0, 'a refused configuration counts')

    # The other authority from now on, one peer more, and a destination that results of the past do not go to.
    for target, source in zip(files, [*bad.sign('node'), bad.ca]):
        target.write_bytes(source.read_bytes())
    node.configure(tables.replace('"PACS", "STRANGER"', '"PACS", "LATER"').replace('name = "STRANGER"', 'name = "LATER"') + '''
[[peer]]
ae_title = "CT2"
from = ["127.0.0.1"]
''')
    hang_up('the configuration is replaced')
    need(open_one.send_c_echo().Status == 0, 'an open association does not survive')
    open_one.release()
    need(echo(port, good, old)[0] != 0, 'the old certificate is taken still')
    need(echo(port, bad, bad.sign('client'))[0] == 0, 'the new certificate is refused')
    need(dcmtk('echoscu', '-aet', 'CT2', '-aec', 'NODE', '127.0.0.1', str(node.port))[0] == 0, 'the new peer is refused')
    rows = until(lambda: len(node.audit('110131')) == changes + 4 and node.audit('110131'), 5) or []
    need([row[1] for row in rows[-4:]] == [4, 4, 4, 0], f'changes are audited: {node.audit("110131")}')


with tempfile.TemporaryDirectory() as folder:
    folder = Path(folder)
    good, bad, port, pacs_port = Authority(folder, 'good'), Authority(folder, 'bad'), free_port(), free_port()
    files = [folder / name for name in ['listener.crt', 'listener.key', 'listener-ca.pem']]
    for target, source in zip(files, [*good.sign('node'), good.ca]):
        target.write_bytes(source.read_bytes())
    certificate, key = good.sign('pacs')
    (folder / 'pacs').mkdir()
    pacs = Program(folder, 'storescp', 'storescp', '-aet', 'PACS', '-od', folder / 'pacs', '+tls', key, certificate, '+cf', good.ca, '-rc', pacs_port)
    our_certificate, our_key = good.sign('roentgen')
    ours = f'certificate = "{our_certificate}", key = "{our_key}", ca = "{good.ca}"'
    tables = f'''
[limits]
artim_s = 2
[study]
quiet_s = 1
[[tls_listen]]
address = "127.0.0.1:{port}"
certificate = "{files[0]}"
key = "{files[1].name}"
client_ca = "{files[2]}"
[[peer]]
ae_title = "CT1"
from = ["127.0.0.1"]
[[package]]
name = "{package}"
deliver = ["PACS", "STRANGER"]
[[destination]]
name = "PACS"
ae_title = "PACS"
address = "127.0.0.1:{pacs_port}"
tls = {{ {ours} }}
[[destination]]
name = "STRANGER"
ae_title = "PACS"
address = "127.0.0.1:{pacs_port}"
tls = {{ {ours}, name = "another.example" }}
'''
    node = Node(binary, folder, tables=tables)
    with ended(node, pacs):
        who_gets_in(node, port, good, bad)
        sent_and_delivered(node, port, good)
        replaced(node, port, tables, good, bad, files)

finish('TLS as it should be, with DCMTK, OpenSSL and pynetdicom; certificates and configuration replaced')
