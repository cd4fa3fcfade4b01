#!/usr/bin/env python3
"""How long results take, and what the node takes when it does nothing: start to listening, idle memory, from the last instance to the archive.

usage: node_latency.py ROENTGEN PACKAGE [--instances 300] [--rounds 3]

A chest phantom of 512 x 512 x INSTANCES voxels is sent by DCMTK's storescu to a node with the package; SR and SEG go to Orthanc. The table is
the node's own, in its log; beside it what is seen from outside, from the end of the sender to both results in Orthanc. Exit 0, or 1 where a bound
is missed: 3 s beside inference and quiet time, 150 MB idle without a package, 1 s to listening.
"""
import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import scipy.ndimage
from pydicom.uid import generate_uid

from node_bench import Bench, Node, Study, until

QUIET_S = 2


def chest(binary, folder, instances):
    """The phantom of the demo, on the grid of a usual CT."""
    ran = subprocess.run([binary, 'demo', '--output', str(folder)], capture_output=True, text=True)
    if ran.returncode != 0:
        sys.exit(f'roentgen demo: {ran.stderr}')
    datasets = sorted(Study.read(folder / 'study').datasets, key=lambda d: float(d.ImagePositionPatient[2]))
    volume = np.stack([d.pixel_array for d in datasets])
    zoom = [instances / volume.shape[0], 512 / volume.shape[1], 512 / volume.shape[2]]
    volume = scipy.ndimage.zoom(volume, zoom, order=1, grid_mode=True, mode='nearest')
    step = float(datasets[1].ImagePositionPatient[2]) - float(datasets[0].ImagePositionPatient[2])
    made, one = [], datasets[0]
    for k, plane in enumerate(volume):
        d = Study([one]).variant('latency').datasets[0]
        d.SOPInstanceUID = d.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        d.Rows, d.Columns, d.InstanceNumber = 512, 512, k + 1
        d.PixelSpacing = [float(one.PixelSpacing[0]) / zoom[1], float(one.PixelSpacing[1]) / zoom[2]]
        x, y, z = map(float, one.ImagePositionPatient)
        d.ImagePositionPatient = [x, y, round(z + k * step / zoom[0], 4)]
        d.SliceThickness = abs(step / zoom[0])
        d.PixelData = plane.astype(volume.dtype).tobytes()
        made.append(d)
    return Study(made)


def idle(bench, config, name):
    """Seconds to listening and MB of a node that does nothing."""
    seconds, megabytes = [], []
    for n in range(3):
        node = Node(bench.binary, bench.place(f'idle-{name}-{n}'), config).start()
        time.sleep(2)
        seconds.append(node.start_seconds)
        megabytes.append(node.resources()[1] / 1024)
        node.stop()
    return statistics.median(seconds), statistics.median(megabytes)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('binary')
    parser.add_argument('package')
    parser.add_argument('--instances', type=int, default=300)
    parser.add_argument('--rounds', type=int, default=3)
    wanted = parser.parse_args()
    problems, tables, outside = [], [], []
    with Bench(wanted.binary, wanted.package) as bench, tempfile.TemporaryDirectory() as folder:
        http = '[http]\nlisten = "127.0.0.1:0"\n'
        bare_s, bare_mb = idle(bench, http, 'bare')
        loaded_s, loaded_mb = idle(bench, f'{http}[worker]\ndevice = "cpu"\n[[package]]\nname = "{wanted.package}"\n', 'loaded')
        orthanc = bench.orthanc()
        node = bench.node(orthanc, quiet_s=QUIET_S).start()
        phantom = chest(wanted.binary, Path(folder) / 'demo', wanted.instances)
        for number in range(wanted.rounds):
            study = phantom.variant(f'round-{number}')
            at = study.write(Path(folder) / f'round-{number}')
            status, _, text = node.storescu(at, 'CT1')
            ended = time.monotonic()
            if status != 0:
                sys.exit(f'storescu: {text}')
            until('SR and SEG in Orthanc', lambda: len(orthanc.study(study.uid)) == 2, 120, 0.02)
            outside.append(time.monotonic() - ended)
            until('the table in the log', lambda: len(node.logged('the results of a job are at a destination')) > number, 10)
            tables.append(node.logged('the results of a job are at a destination')[-1])
    columns = [name for name in tables[0] if name.endswith('_s') and name != 'total_s'] + ['total_s']
    print('| stage | ' + ' | '.join(f'round {n + 1}, s' for n in range(len(tables))) + ' |\n| --- |' + ' --- |' * len(tables))
    for name in columns:
        print(f'| {name[:-2]} | ' + ' | '.join(f'{table[name]:.3f}' for table in tables) + ' |')
    print('| seen from outside | ' + ' | '.join(f'{seconds:.3f}' for seconds in outside) + ' |')
    beside = statistics.median(table['total_s'] - table['infer_s'] - QUIET_S for table in tables)
    print(f'\n{wanted.instances} instances, quiet time {QUIET_S} s: {beside:.2f} s beside inference and quiet time (median)')
    print(f'without a package: listens after {bare_s:.2f} s, {bare_mb:.0f} MB idle; with one: {loaded_s:.2f} s, {loaded_mb:.0f} MB')
    for text, value, most in [('s beside inference and quiet time', beside, 3), ('s to listening', max(bare_s, loaded_s), 1), ('MB idle', bare_mb, 150)]:
        if value >= most:
            problems.append(f'{value:.2f} {text}, {most} are allowed')
    print('\n'.join(problems), end='\n' if problems else '')
    return 1 if problems else 0


if __name__ == '__main__':
    sys.exit(main())
