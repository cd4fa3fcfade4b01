"""Many small studies, 5 % of them broken, through `roentgen run`: once undisturbed, once killed three times and resumed.

usage: cohort_soak.py ROENTGEN FOLDER [STUDIES [FORMS]]

The studies are the demo's phantom at every second pixel, each with other slices of it and shifted by a few HU, with UIDs, scanners and kernels of
its own. Prints what was measured as JSON; exit code 0 only where both tables are the same, byte for byte.
"""
import copy
import json
import pathlib
import random
import signal
import subprocess
import sys
import time

import pydicom
from pydicom.uid import generate_uid

roentgen, folder = sys.argv[1], pathlib.Path(sys.argv[2])
count = int(sys.argv[3]) if len(sys.argv) > 3 else 200
forms = sys.argv[4] if len(sys.argv) > 4 else 'sr,seg,json,html,png'
chance = random.Random(7)
SCANNERS = [('ACME', 'One', 'B30f'), ('ACME', 'Two', 'B70f'), ('Example', 'CT 64', 'STANDARD')]


def make(studies):
    """`count` studies, of which every twentieth is broken in one of three ways."""
    demo = folder / 'demo'
    subprocess.run([roentgen, 'demo', '--device', 'cpu', '--output', demo], check=True, stdout=subprocess.DEVNULL)
    slices = [pydicom.dcmread(path) for path in sorted((demo / 'study').glob('*.dcm'))]
    pixels = [one.pixel_array[::2, ::2].astype('uint16') for one in slices]
    for one in slices:
        del one.PixelData
    for n in range(count):
        study = studies / f'{n:04}'
        study.mkdir(parents=True)
        uid = {name: generate_uid(entropy_srcs=[name, str(n)]) for name in ('study', 'series', 'frame')}
        manufacturer, model, kernel = SCANNERS[chance.randrange(3)]
        # Whole slices, and every second pixel: a coarse scanner.
        first, hu = chance.randrange(24), chance.randrange(-10, 11)
        for k in range(48):
            source, picture = slices[first + k], pixels[first + k]
            one = copy.deepcopy(source)
            one.Rows, one.Columns = picture.shape
            one.PixelSpacing = [float(mm) * 2 for mm in source.PixelSpacing]
            one.PixelData = picture.tobytes()
            one['PixelData'].VR = 'OW'
            one.RescaleIntercept = float(source.RescaleIntercept) + hu
            one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = uid['study'], uid['series'], uid['frame']
            one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(n), str(k)])
            one.PatientID, one.PatientName = f'P{n // 2}', f'Soak^{n // 2}'
            one.Manufacturer, one.ManufacturerModelName, one.ConvolutionKernel = manufacturer, model, kernel
            one.save_as(study / f'{k:03}.dcm', enforce_file_format=True)
        if n % 20 == 7:
            path = study / '020.dcm'
            match n // 20 % 3:
                case 0:
                    path.unlink()
                case 1:
                    path.write_bytes(path.read_bytes()[:-1000])
                case 2:
                    path.write_bytes(path.read_bytes()[:400])


def command(output, *more):
    return [roentgen, 'run', '--model', 'ct-tissue', '--device', 'cpu', folder / 'studies', '--output', output, '--results', forms, '--json', *more]


def memory_mb(pid):
    try:
        text = pathlib.Path(f'/proc/{pid}/status').read_text()
        return next(int(line.split()[1]) * 1024 / 1e6 for line in text.splitlines() if line.startswith('VmRSS'))
    except (OSError, StopIteration):
        return None


def undisturbed(output):
    start, samples = time.monotonic(), []
    with open(folder / 'undisturbed.json', 'w') as out:
        process = subprocess.Popen(command(output), stdout=out, stderr=subprocess.DEVNULL)
        while process.poll() is None:
            samples.append(memory_mb(process.pid))
            time.sleep(0.1)
    assert process.returncode == 1, process.returncode
    samples = [s for s in samples if s]
    third = len(samples) // 3
    return time.monotonic() - start, [round(max(part), 1) for part in (samples[:third], samples[third:2 * third], samples[2 * third:])]


def killed(output, seconds, kills=3):
    """Three kills at random moments, each of a run that resumes the last; then to the end."""
    done = []
    for _ in range(kills):
        process = subprocess.Popen(command(output, '--resume'), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(chance.uniform(0.1, 0.3) * seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
        lines = ''.join(p.read_text() for p in sorted((output / 'work').glob('journal-*.jsonl'))).count('"outcome":"done"')
        done.append(lines)
    code = subprocess.run(command(output, '--resume'), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
    assert code == 1, code
    journals = [p.read_text() for p in sorted((output / 'work').glob('journal-*.jsonl'))]
    return done, ''.join(journals).count('"outcome":"done"')


make(folder / 'studies')
seconds, thirds = undisturbed(folder / 'undisturbed')
report = json.load(open(folder / 'undisturbed.json'))
after_kills, in_all = killed(folder / 'killed', seconds)
same = {name: (folder / 'undisturbed' / name).read_bytes() == (folder / 'killed' / name).read_bytes() for name in ('findings.csv', 'failures.csv')}
outcomes = [series['outcome'] for series in report['series']]
engine = report['engine']
waited = engine['waited_for_reading_s'] + engine['waited_for_writing_s']
print(json.dumps({
    'studies': count, 'done': outcomes.count('done'), 'refused': outcomes.count('refused'), 'failed': outcomes.count('failed'),
    'unreadable_files': sum(f['unreadable'] for f in report['files']), 'seconds': round(seconds, 1),
    'studies_per_hour': round(count / seconds * 3600), 'engine_idle_percent': round(100 * waited / (waited + engine['busy_s']), 1),
    'engine': engine, 'largest_memory_mb_by_thirds': thirds, 'done_after_each_kill': after_kills, 'done_lines_in_all': in_all, 'same': same,
}, indent=2))
sys.exit(0 if all(same.values()) and in_all == outcomes.count('done') else 1)
