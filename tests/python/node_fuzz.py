#!/usr/bin/env python3
"""Damaged PDUs and DIMSE messages over sockets: no panic, no hang, bounded memory, and nothing that was acknowledged is lost.

usage: node_fuzz.py BINARY PACKAGE STUDY_DIR [MINUTES [SEED]]

Eight senders (20 minutes) begin from conversations that are right: an echo, instances with and without asynchronous operations, a request
for storage commitment, an answer to one, queries that we do not do, a C-MOVE, role selection and user identity. Each is damaged before it
is sent: bits, bytes, lengths, PDUs and fragments left out, doubled, swapped, joined, cut or made up; written whole, in small pieces, or cut
off by a reset. Meanwhile an echo must be answered within five seconds, and whole instances keep coming. Exit 0, or 1 with every reason.
"""
import collections
import contextlib
import random
import socket
import struct
import sys
import threading
import time

from check_node import OWN_FDS, data_set_bytes
from node_bench import CT, Bench, Study, association_request, command_set, item, pdata, raw_associate, raw_store, read_pdu

EXPLICIT = '1.2.840.10008.1.2.1'
VERIFICATION, COMMITMENT, FIND, MOVE = '1.2.840.10008.1.1', '1.2.840.10008.1.20.1', '1.2.840.10008.5.1.4.1.2.2.1', '1.2.840.10008.5.1.4.1.2.2.2'
SENDERS = 8
MAX_GROWTH_MB = 64


def associate(contexts, *user):
    return association_request([(syntax, EXPLICIT) for syntax in contexts], 'CT1', 'NODE', *user)


RELEASE = struct.pack('>BBI', 5, 0, 4) + bytes(4)
ABORT = struct.pack('>BBI', 7, 0, 4) + bytes(4)


def element(group, number, vr, value):
    value += (b'\0' if vr in (b'UI', b'OB') else b' ') * (len(value) % 2)
    length = struct.pack('<HI', 0, len(value)) if vr in (b'SQ', b'OB') else struct.pack('<H', len(value))
    return struct.pack('<HH', group, number) + vr + length + value


def message(data_set, context=1, **command):
    pieces = [data_set[n:n + 8000] for n in range(0, len(data_set), 8000)]
    parts = [pdata(context, 1, 1, command_set(**command, data_set=0 if pieces else 0x0101))]
    return parts + [pdata(context, 0, int(n + 1 == len(pieces)), piece) for n, piece in enumerate(pieces)]


def conversations(instances):
    """Lists of PDUs."""
    role = item(0x54, struct.pack('>H', len(COMMITMENT)) + COMMITMENT.encode() + b'\x00\x01')
    reference = struct.pack('<HHI', 0xFFFE, 0xE000, 54) + element(8, 0x1150, b'UI', CT.encode()) + element(8, 0x1155, b'UI', b'2.25.19')
    asked = element(8, 0x1195, b'UI', b'2.25.77') + element(8, 0x1199, b'SQ', reference)
    stores = [part for number, (data, uid) in enumerate(instances, 1)
              for part in message(data, sop_class=CT, field=1, message=number, priority=0, instance=uid)]
    echo = message(b'', sop_class=VERIFICATION, field=0x30, message=1)
    query = element(8, 0x52, b'CS', b'STUDY') + element(0x20, 0xD, b'UI', b'')
    well_known = '1.2.840.10008.1.20.1.1'
    return [
        [associate([VERIFICATION]), *echo, RELEASE],
        [associate([CT]), *stores, RELEASE],
        [associate([CT], item(0x53, struct.pack('>HH', 0, 1))), *stores, RELEASE],
        [associate([COMMITMENT]), *message(asked, requested_class=COMMITMENT, field=0x130, message=1, requested_instance=well_known, action=1), RELEASE],
        [associate([COMMITMENT], role), *message(asked, sop_class=COMMITMENT, field=0x100, message=1, instance=well_known, event=1), RELEASE],
        [associate([FIND, MOVE, VERIFICATION]), *message(query, sop_class=FIND, field=0x20, message=1, priority=0),
         *message(query, context=3, sop_class=MOVE, field=0x21, message=2, priority=0), *message(b'', context=5, field=0x0FFF, message=1), RELEASE],
        [associate([VERIFICATION, CT, COMMITMENT], item(0x58, b'\x02\x01' + struct.pack('>H', 4) + b'user' + struct.pack('>H', 4) + b'pass')), *echo, ABORT],
    ]


INTERESTING = [0, 1, 2, 3, 5, 6, 7, 0x7f, 0x80, 0xff, 0xffff, 0x10000, 0x20000, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff]


def damage(rng, pdus):
    """The bytes of a conversation with one to four things wrong; sometimes none."""
    pdus = list(pdus)
    for _ in range(rng.randrange(5)):
        at = rng.randrange(len(pdus))
        body = bytearray(pdus[at])
        place = rng.randrange(len(body)) if body else 0
        kind = rng.randrange(11)
        if kind == 0 and body:
            body[place] ^= 1 << rng.randrange(8)
        elif kind == 1 and body:
            body[place] = rng.randrange(256)
        elif kind == 2:  # a length, of the PDU, of a value, or of an element in it
            width, order = rng.choice([(2, '>H'), (4, '>I'), (2, '<H'), (4, '<I')])
            place = rng.choice([2, 6, 12 + rng.randrange(60), place])
            body[place:place + width] = struct.pack(order, rng.choice(INTERESTING) & (256 ** width - 1))
        elif kind == 3:
            del body[place:place + rng.randrange(1, 200)]
        elif kind == 4:
            body[place:place] = rng.randbytes(rng.randrange(1, 200))
        elif kind == 5:
            pdus.insert(at, pdus[rng.randrange(len(pdus))])
        elif kind == 6 and len(pdus) > 1:
            del pdus[at]
            continue
        elif kind == 7:
            other = rng.randrange(len(pdus))
            pdus[at], pdus[other] = pdus[other], pdus[at]
            continue
        elif kind == 8:  # right outside, anything inside
            body = bytearray(pdata(rng.choice([1, 1, 3, 255]), rng.randrange(2), rng.randrange(2), rng.randbytes(rng.randrange(400))))
        elif kind == 9:
            junk = rng.randbytes(rng.randrange(200))
            body = bytearray(struct.pack('>BBI', rng.randrange(1, 8), 0, len(junk)) + junk)
        elif kind == 10 and len(body) > 6:  # several values in one PDU
            body += pdus[rng.randrange(len(pdus))][6:]
            body[2:6] = struct.pack('>I', len(body) - 6)
        pdus[at] = bytes(body)
    sent = b''.join(pdus)
    return sent[:rng.randrange(len(sent) + 1)] if rng.randrange(6) == 0 else sent


class Sender(threading.Thread):
    def __init__(self, node, conversations, seed, until):
        super().__init__(daemon=True)
        self.node, self.conversations, self.rng, self.until = node, conversations, random.Random(seed), until
        self.seen, self.slowest, self.failure = collections.Counter(), 0.0, None

    def run(self):
        try:
            while time.monotonic() < self.until:
                self.one()
        except Exception as error:
            self.failure = error

    def one(self):
        rng = self.rng
        sent = damage(rng, rng.choice(self.conversations))
        connection = socket.create_connection(('127.0.0.1', self.node.port), 10)
        with connection:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                step = rng.choice([len(sent), len(sent), 4096, 977, 64])
                for at in range(0, min(len(sent), 200 * step), max(step, 1)):
                    connection.sendall(sent[at:at + step])
            if rng.randrange(8) == 0:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
                self.seen['reset'] += 1
                return
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_WR)
            # The end must come: ARTIM and the other limits of the node are two seconds here.
            started = time.monotonic()
            connection.settimeout(20)
            with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                while answer := read_pdu(connection):
                    self.seen[f'PDU {answer[0]:02X}'] += 1
            self.slowest = max(self.slowest, time.monotonic() - started)
            self.seen['conversations'] += 1


def main():
    binary, package, folder, *rest = sys.argv[1:]
    minutes, seed = float(rest[0]) if rest else 20.0, int(rest[1]) if len(rest) > 1 else random.randrange(1 << 32)
    print(f'seed {seed}', flush=True)
    problems = []
    with Bench(binary, package) as bench:
        node = bench.node(quiet_s=3600, cut_off_s=3600, limits='artim_s = 2\nidle_s = 2\npdu_s = 2\n').start()
        study = Study.read(folder)
        encoded = [(data_set_bytes(dataset), str(dataset.SOPInstanceUID)) for dataset in study.datasets]
        base = conversations([(data[:data.index(b'\xe0\x7f\x10\x00')] + element(0x7FE0, 0x10, b'OB', bytes(64)), f'2.25.{n}')
                              for n, (data, _) in enumerate(encoded[:3])])
        node.echo()
        until = time.monotonic() + 60 * minutes
        senders = [Sender(node, base, f'{seed}-{n}', until) for n in range(SENDERS)]
        fds, idle_kb = node.resources()
        peak_kb, slowest_echo, acknowledged, rounds = idle_kb, 0.0, set(), 0
        warm_kb = None
        for sender in senders:
            sender.start()
        while time.monotonic() < until:
            started = time.monotonic()
            if not node.alive():
                problems.append(f'no echo: {node.said}')
                break
            slowest_echo = max(slowest_echo, time.monotonic() - started)
            data, uid = encoded[rounds % len(encoded)]
            connection, _ = raw_associate(node.port, [(CT, EXPLICIT)], 'CT2', seconds=20)
            with connection:
                status, comment = raw_store(connection, data, CT, uid)
                if status == 0:
                    acknowledged.add(uid)
                else:
                    problems.append(f'a whole instance beside it: {status:04X}H {comment}')
                connection.sendall(RELEASE)
                read_pdu(connection)
            peak_kb = max(peak_kb, node.resources()[1])
            if warm_kb is None and time.monotonic() > until - 60 * minutes * 0.75:
                warm_kb = node.resources()[1]
            rounds += 1
            time.sleep(0.5)
        for sender in senders:
            sender.join(60)
            if sender.is_alive() or sender.failure:
                problems.append(f'a sender hangs or fails: {sender.failure}')
        time.sleep(5)
        fds_now, kb_now = node.resources()
        seen = sum((sender.seen for sender in senders), collections.Counter())
        slowest = max(sender.slowest for sender in senders)
        for holds, text in [
            (node.alive(), f'no echo in the end: {node.said}'),
            (slowest_echo < 5, f'an echo took {slowest_echo:.1f} s'),
            (slowest < 15, f'the end of a conversation took {slowest:.1f} s'),
            ('panicked' not in node.log_path.read_text(errors='replace'), 'a panic in the log'),
            ((peak_kb - idle_kb) / 1024 < MAX_GROWTH_MB, f'memory grew from {idle_kb} to {peak_kb} kB'),
            (fds_now <= fds + OWN_FDS, f'{fds} file descriptors became {fds_now}'),
            (acknowledged <= set(node.kept()), 'an instance that was acknowledged is gone'),
            (seen['conversations'] > 100 and seen['PDU 02'] > 50 and seen['PDU 07'] > 20, f'too little happened: {dict(seen)}'),
        ]:
            if not holds:
                problems.append(text)
        print(f'{minutes:g} minutes: {dict(seen)}; {rounds} whole instances beside; slowest echo {slowest_echo:.2f} s, slowest end {slowest:.1f} s; '
              f'{idle_kb} kB idle, {warm_kb} after a quarter, {peak_kb} at most, {kb_now} in the end; {fds} -> {fds_now} file descriptors')
    print('\n'.join(problems) or 'no panic, no hang, nothing lost')
    return 1 if problems else 0


if __name__ == '__main__':
    sys.exit(main())
