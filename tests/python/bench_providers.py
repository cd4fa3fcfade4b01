#!/usr/bin/env python3
"""How fast execution providers run a network of nnU-Net's kind, beside nnU-Net itself, in turn, from the same file to the same file.

usage: bench_providers.py ROENTGEN DIR [--series FOLDER] [--rounds N] [--providers cpu,openvino,openvino:bfloat16]

The network has 4 stages of 16 to 128 features and patches of 96 x 96 x 96, 95 GFLOP each, no mirrors. Its weights are random save the
last ones, which are fitted to tell tissues apart by their Hounsfield units. The image is the CT series in FOLDER, or the phantom of `roentgen
demo`. nnU-Net is timed within its process, its imports left out; roentgen as a process, from start to end. Probabilities are compared on the
grid of the series, nnU-Net's sums in single precision for once. Needs what check_nnunet.py needs, and pydicom. DIR gets everything that is made.
"""
import argparse
import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

FEATURES = [16, 32, 64, 128]
SPACING, PATCH = [2.5, 2.5, 2.5], [96, 96, 96]


def nnunet(results, image, output):
    """What users of nnU-Net run, in this process; prints what timed() reads. Probabilities instead where the output is a file of NumPy."""
    for name in ('nnUNet_raw', 'nnUNet_preprocessed', 'nnUNet_results'):
        os.environ.setdefault(name, '/nowhere')
    with contextlib.redirect_stdout(sys.stderr):
        import torch
        from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
        torch.set_num_threads(os.cpu_count())
        began, began_processor = time.perf_counter(), time.process_time()
        predictor = nnUNetPredictor(device=torch.device('cpu'), perform_everything_on_device=False, allow_tqdm=False)
        predictor.initialize_from_trained_model_folder(results, None, 'checkpoint_final.pth')
        values, properties = SimpleITKIO().read_images([image])
        if output.endswith('.npy'):
            import numpy as np
            torch.half = torch.float32
            np.save(output, predictor.predict_single_npy_array(values, properties, save_or_return_probabilities=True)[1])
            return
        SimpleITKIO().write_seg(predictor.predict_single_npy_array(values, properties), output, properties)
    wall, processor = time.perf_counter() - began, time.process_time() - began_processor
    peak = next(line.split()[1] for line in Path('/proc/self/status').read_text().splitlines() if line.startswith('VmHWM'))
    print(f'took {wall} s, {processor} s, peak memory {int(peak) // 1024} MB')


def fitted(plans, dataset, image, properties):
    """Weights of a network whose last layer is fitted, by least squares on one patch, to tissues by their Hounsfield units."""
    import numpy as np
    import torch
    from check_nnunet import LABELS, DefaultPreprocessor, PlansManager, get_network_from_plans
    torch.manual_seed(0)
    manager = PlansManager(plans)
    configuration = manager.get_configuration('3d_fullres')
    network = get_network_from_plans(configuration.network_arch_class_name, configuration.network_arch_init_kwargs,
                                     configuration.network_arch_init_kwargs_req_import, 1, len(LABELS), deep_supervision=False)
    truth = np.digitize(image, [-930, -300, 200]).astype(np.int8)
    data, labels, _ = DefaultPreprocessor(verbose=False).run_case_npy(image, truth, dict(properties), manager, configuration, dataset)
    middle = tuple(slice(max((n - p) // 2, 0), max((n - p) // 2, 0) + p // 2) for n, p in zip(data.shape[1:], PATCH))
    last, seen = network.decoder.seg_layers[-1], []
    last.register_forward_hook(lambda module, given, answer: seen.append(given[0]))
    with torch.inference_mode():
        network(torch.from_numpy(np.ascontiguousarray(np.asarray(data[(slice(None), *middle)])))[None].float())
        features = seen[0][0].flatten(1).double()
        features = torch.cat([features, torch.ones_like(features[:1])])
        wanted = torch.nn.functional.one_hot(torch.from_numpy(np.asarray(labels[0][middle])).long().clamp(0, 3).flatten(), len(LABELS)).double().T
        solved = 10 * torch.linalg.solve(features @ features.T + 1e-3 * torch.eye(len(features)).double(), features @ wanted.T).T
        last.weight.copy_(solved[:, :-1].reshape(last.weight.shape))
        last.bias.copy_(solved[:, -1])
    return network.state_dict()


def make(roentgen, folder, series):
    """A results folder of nnU-Net, the package of it, and the image as a file."""
    import torch
    from check_nnunet import LABELS, Case, SimpleITKIO, plans_of, sitk
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(series)))
    path = folder / 'image.nii.gz'
    sitk.WriteImage(sitk.Cast(reader.Execute(), sitk.sitkInt16), str(path))
    image, properties = SimpleITKIO().read_images([str(path)])

    def plans(patch):
        made = plans_of('bench', Case(SPACING, patch))
        made['configurations']['3d_fullres']['architecture']['arch_kwargs'].update(
            n_stages=4, features_per_stage=FEATURES, kernel_sizes=[[3] * 3] * 4, strides=[[1] * 3] + [[2] * 3] * 3,
            n_conv_per_stage=[2] * 4, n_conv_per_stage_decoder=[2] * 3)
        return made

    dataset = {'channel_names': {'0': 'CT'}, 'labels': LABELS, 'numTraining': 1, 'file_ending': '.nii.gz'}
    weights = fitted(plans(PATCH), dataset, image, properties)
    results = folder / 'bench' / 'nnUNetTrainer__nnUNetPlans__3d_fullres'
    (results / 'fold_0').mkdir(parents=True)
    (results / 'plans.json').write_text(json.dumps(plans(PATCH)))
    (results / 'dataset.json').write_text(json.dumps(dataset))
    torch.save({'network_weights': weights, 'trainer_name': 'nnUNetTrainer', 'init_args': {'configuration': '3d_fullres'},
                'inference_allowed_mirroring_axes': None}, results / 'fold_0' / 'checkpoint_final.pth')
    package = folder / 'package'
    subprocess.run([roentgen, 'model', 'import', 'nnunet', results, '--output', package, '--python', sys.executable], check=True,
                   stdout=subprocess.DEVNULL)
    manifest = (package / 'model.toml').read_text()
    maps = ''.join(f'\n[[map]]\nname = "{label}"\nof = "probability"\nfinding = "{label}"\n' for label in list(LABELS)[1:])
    (package / 'model.toml').write_text(manifest + maps)
    return results, package, path


def timed(command):
    """Wall seconds, processor seconds, peak memory in MB as the program says it, and what it printed."""
    began = time.perf_counter()
    child = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True)
    said = child.stdout.read()
    _, status, used = os.wait4(child.pid, 0)
    if status:
        sys.exit(f'{command} ended with {status}')
    wall, processor = time.perf_counter() - began, used.ru_utime + used.ru_stime
    if within := re.search(r'took ([\d.]+) s, ([\d.]+) s', said):
        wall, processor = map(float, within.groups())
    peak = re.search(r'peak memory (\d+) MB', said)
    return wall, processor, int(peak[1]) if peak else 0, said


def probabilities(roentgen, package, folder, series, provider):
    """The package's maps of the series, by name."""
    import numpy as np
    import pydicom
    output = folder / 'maps' / provider.replace(':', '-')
    timed([roentgen, 'run', '--model', package, '--device', 'cpu', '--provider', provider, '--output', output, '--results', 'map',
           series])
    found = sorted(file for file in output.rglob('*.dcm'))
    return [np.frombuffer(pydicom.dcmread(file).FloatPixelData, '<f4') for file in found]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('roentgen')
    parser.add_argument('folder', type=Path)
    parser.add_argument('--series', type=Path)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--providers', default='cpu,openvino,openvino:bfloat16')
    given = parser.parse_args()
    import numpy as np
    import SimpleITK as sitk
    roentgen, folder, providers = given.roentgen, given.folder, given.providers.split(',')
    folder.mkdir(parents=True, exist_ok=True)
    series = given.series
    if not series:
        subprocess.run([roentgen, 'demo', '--device', 'cpu', '--output', folder / 'demo'], check=True, stdout=subprocess.DEVNULL)
        series = folder / 'demo' / 'study'
    results, package, image = make(roentgen, folder, series)
    taken = {name: [] for name in ['nnunetv2', *providers]}
    labels = {}
    for n in range(given.rounds):
        for name in taken:
            output = folder / 'runs' / f'{name.replace(":", "-")}-{n}'
            if name == 'nnunetv2':
                output.mkdir(parents=True)
                command = [sys.executable, __file__, 'nnunet', results, image, output / 'labels.nii.gz']
            else:
                command = [roentgen, 'run', '--model', package, '--device', 'cpu', '--provider', name, '--output', output,
                           '--results', 'seg', '--timings', image]
            wall, processor, peak, said = timed(command)
            taken[name].append((wall, processor, peak))
            print(f'round {n}, {name}: {wall:.2f} s, processor {processor:.1f} s, peak {peak:.0f} MB', flush=True)
            if name != 'nnunetv2' and n == 0:
                print(said, flush=True)
            labels[name] = sitk.GetArrayFromImage(sitk.ReadImage(str(next(output.rglob('labels.nii.gz')))))
    middle = {name: [statistics.median(column) for column in zip(*rows)] for name, rows in taken.items()}
    expected = labels['nnunetv2']
    for name, (wall, processor, peak) in middle.items():
        found = [n for n in (1, 2, 3) if (expected == n).any()]
        dice = [2 * ((labels[name] == n) & (expected == n)).sum() / ((labels[name] == n).sum() + (expected == n).sum()) for n in found]
        print(f'{name}: {wall:.2f} s, {middle["nnunetv2"][0] / wall:.2f} times as fast as nnunetv2; processor {processor:.1f} s, '
              f'{middle["nnunetv2"][1] / processor:.2f} times less; peak {peak:.0f} MB, '
              f'{peak / middle["nnunetv2"][2]:.2f} of nnunetv2; Dice with nnunetv2 {", ".join(f"{d:.6f}" for d in dice)}')
    subprocess.run([sys.executable, __file__, 'nnunet', results, image, folder / 'probabilities.npy'], check=True)
    theirs = np.load(folder / 'probabilities.npy')
    for name in providers:
        ours = probabilities(roentgen, package, folder, series, name)
        off = [float(np.abs(a - b.ravel()).max()) for a, b in zip(ours, theirs[1:], strict=True)]
        print(f'{name}: {(labels[name] != expected).sum()} of {expected.size} labels differ from nnunetv2, {(labels[name] != labels["cpu"]).sum()} '
              f'from cpu; probabilities from nnunetv2 by at most {", ".join(f"{d:.1e}" for d in off)}')


if __name__ == '__main__':
    if sys.argv[1] == 'nnunet':
        nnunet(*sys.argv[2:5])
    else:
        main()
