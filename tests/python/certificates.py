"""Certificates for the tests, by OpenSSL."""
import sys
from pathlib import Path

from programs import tool


def openssl(*arguments):
    status, text = tool('openssl', *map(str, arguments))
    if status != 0:
        sys.exit(f'openssl {arguments[0]}: {text}')


class Authority:
    """A certificate authority in `folder` that signs for this machine."""

    def __init__(self, folder, name):
        self.folder, self.name = Path(folder), name
        self.ca = self.folder / f'{name}.pem'
        openssl('req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', 30, '-subj', f'/CN={name}', '-keyout', self.ca.with_suffix('.key'),
                '-out', self.ca)

    def sign(self, name, days=30, host='IP:127.0.0.1'):
        """Certificate and key."""
        certificate, key, request, names = (self.folder / f'{self.name}-{name}.{suffix}' for suffix in ['crt', 'key', 'csr', 'ext'])
        names.write_text(f'subjectAltName={host}\n')
        openssl('req', '-newkey', 'rsa:2048', '-nodes', '-subj', f'/CN={name}', '-keyout', key, '-out', request)
        openssl('x509', '-req', '-in', request, '-CA', self.ca, '-CAkey', self.ca.with_suffix('.key'), '-CAcreateserial', '-days', days,
                '-extfile', names, '-out', certificate)
        return certificate, key
