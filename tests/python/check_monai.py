#!/usr/bin/env python3
"""MONAI bundles imported into roentgen, against MONAI's own run of them, from the same file to the same labels.

usage: check_monai.py ROENTGEN IMAGE.nii.gz DIR [CASE ...]

IMAGE is a CT; the phantom of `roentgen demo` where there is none of that name.
Needs monai, onnx, onnxruntime, nibabel, pyyaml, SimpleITK and torch. Networks are trained here for a minute, to tell air, lung, soft tissue
and bone by their Hounsfield units: what they find is of no use, but decided. DIR gets bundles, packages, and both tools' labels.
"""
import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

with contextlib.redirect_stdout(sys.stderr):
    import nibabel
    import numpy as np
    import scipy.ndimage
    import SimpleITK as sitk
    import torch
    import yaml
    from monai.bundle import ConfigParser
    from monai.transforms import Compose

LABELS = {'background': 0, 'lung': 1, 'soft tissue': 2, 'bone': 3}
EDGES_HU = [-930, -300, 200]
LOAD = [{'_target_': 'LoadImaged', 'keys': '@key'}, {'_target_': 'EnsureChannelFirstd', 'keys': '@key'}]
ARGMAX = {'_target_': 'AsDiscreted', 'keys': 'pred', 'argmax': True}
SOFTMAX = {'_target_': 'Activationsd', 'keys': 'pred', 'softmax': True}


def step(target, **arguments):
    return {'_target_': target, 'keys': '@key', **arguments}


def invert(nearest):
    return {'_target_': 'Invertd', 'keys': 'pred', 'transform': '@preprocessing', 'orig_keys': '@key', 'nearest_interp': nearest}


def window(roi_size, overlap, mode, padding_mode='constant'):
    return {'_target_': 'SlidingWindowInferer', 'roi_size': roi_size, 'sw_batch_size': 2, 'overlap': overlap, 'mode': mode,
            'padding_mode': padding_mode}


# Network, geometry, values, inferer, from scores to labels, form of the weights and of the configuration, whether the file's axes are turned.
CASES = {
    'ct-probabilities-back': (
        {'_target_': 'UNet', 'spatial_dims': 3, 'in_channels': 1, 'out_channels': 4, 'channels': [8, 16, 32], 'strides': [2, 2], 'num_res_units': 1},
        [step('Orientationd', axcodes='RAS'), step('Spacingd', pixdim=[2.3, 2.1, 2.9], mode='bilinear')],
        [step('ScaleIntensityRanged', a_min=-1000, a_max=600, b_min=-1, b_max=1, clip=True)],
        window([64, 48, 32], 0.5, 'gaussian'), [SOFTMAX, invert(False), ARGMAX], 'pt', 'json', False),
    'statistics-after-spacing': (
        {'_target_': 'SegResNet', 'spatial_dims': 3, 'in_channels': 1, 'out_channels': 4, 'init_filters': 8, 'blocks_down': [1, 1, 1],
         'blocks_up': [1, 1]},
        [step('Orientationd', axcodes='PIR'), step('Spacingd', pixdim=[2.7, 3.1, 2.3], mode='bilinear')],
        [step('NormalizeIntensityd', nonzero=True), step('ScaleIntensityd', minv=-1.0, maxv=1.0)],
        window([32, 48, 48], 0.25, 'constant', 'replicate'),
        [SOFTMAX, ARGMAX, invert(True), {'_target_': 'KeepLargestConnectedComponentd', 'keys': 'pred', 'independent': True}], 'pt', 'yaml', True),
    'as-it-is-stored': (
        {'_target_': 'UNet', 'spatial_dims': 3, 'in_channels': 1, 'out_channels': 4, 'channels': [8, 16], 'strides': [1], 'num_res_units': 0,
         'norm': 'batch'},
        [], [step('ScaleIntensityRangePercentilesd', lower=1, upper=99.5, b_min=0, b_max=2, clip=True)],
        {'_target_': 'SimpleInferer'}, [ARGMAX], 'ts', 'json', True),
    'two-channels': (
        {'_target_': 'UNet', 'spatial_dims': 3, 'in_channels': 2, 'out_channels': 4, 'channels': [8, 16, 32], 'strides': [2, 2], 'num_res_units': 1},
        [step('Orientationd', axcodes='RAS'), step('Spacingd', pixdim=[2.5, 2.2, 2.7], mode='bilinear')],
        [step('NormalizeIntensityd', nonzero=True, channel_wise=True)],
        window([48, 48, 32], 0.5, 'gaussian'), [SOFTMAX, invert(False), ARGMAX], 'pt', 'json', False),
}


def bundle_of(folder, name, network, geometry, values, inferer, post, form):
    bundle = folder / f'{name}-bundle'
    (bundle / 'configs').mkdir(parents=True)
    (bundle / 'models').mkdir()
    config = {
        'key': 'image',
        'device': '$torch.device("cpu")',
        'network_def': network,
        'network': '$@network_def.to(@device)',
        'preprocessing': {'_target_': 'Compose', 'transforms': LOAD + geometry + values + [step('EnsureTyped')]},
        'inferer': inferer,
        'postprocessing': {'_target_': 'Compose', 'transforms': post},
    }
    path = bundle / 'configs' / f'inference.{form}'
    path.write_text(json.dumps(config, indent=4) if form == 'json' else yaml.safe_dump(config, sort_keys=False))
    metadata = {'name': name, 'version': '0.1.0', 'monai_version': '1.6.1', 'network_data_format': {
        'inputs': {'image': {'type': 'image', 'modality': 'CT', 'num_channels': network['in_channels'], 'spatial_shape': [32, 32, 32]}},
        'outputs': {'pred': {'type': 'image', 'num_channels': 4, 'channel_def': {str(n): label for label, n in LABELS.items()}}}}}
    (bundle / 'configs' / 'metadata.json').write_text(json.dumps(metadata, indent=4))
    parser = ConfigParser()
    parser.read_config(str(path))
    parser['bundle_root'] = str(bundle)
    return bundle, parser


def trained(parser, image, geometry, steps=120):
    """A network that tells tissues by their Hounsfield units."""
    torch.manual_seed(1)
    rng = np.random.default_rng(1)
    network = parser.get_parsed_content('network_def')
    data = parser.get_parsed_content('preprocessing')({'image': image})['image'].as_tensor()
    places = ConfigParser({'key': 'image', 'placed': {'_target_': 'Compose', 'transforms': LOAD + geometry}}).get_parsed_content('placed')
    truth = torch.bucketize(places({'image': image})['image'].as_tensor()[0], torch.tensor(EDGES_HU, dtype=torch.float32))
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    network.train()
    for _ in range(steps):
        box = tuple(slice(at, at + 32) for at in (rng.integers(0, max(n - 32, 0) + 1) for n in truth.shape))
        x, y = data[(slice(None), *box)][None], truth[box][None]
        even = [n // 4 * 4 for n in y.shape[1:]]
        x, y = x[..., :even[0], :even[1], :even[2]], y[:, :even[0], :even[1], :even[2]]
        loss = torch.nn.functional.cross_entropy(network(x), y, weight=torch.tensor([1.0, 1.0, 1.0, 10.0]))  # there is little bone
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval(), loss.item()


def by_monai(parser, network, image):
    """Labels on the grid of the file: [x, y, z]."""
    data = parser.get_parsed_content('preprocessing')({'image': image})
    with torch.no_grad():
        data['pred'] = parser.get_parsed_content('inferer')(data['image'][None], network)[0]
    post: Compose = parser.get_parsed_content('postprocessing')
    return post(data)['pred'][0].numpy().astype(np.uint8)


def turned(path, folder):
    """The same image with its axes in another order, two of them flipped, and every other voxel left out."""
    image = nibabel.load(path)
    flipped = image.slicer[::2, ::2, :].as_reoriented(np.array([[2, -1], [0, 1], [1, -1]]))
    other = folder / 'turned.nii.gz'
    nibabel.save(flipped, other)
    return other


def with_another(path, folder):
    """The image as the first channel of two; the other one is dark where it is bright, smoother, and empty around the patient."""
    image = nibabel.load(path)
    values = np.asarray(image.dataobj, np.float32)
    other = np.where(values > -900, 1500 - scipy.ndimage.gaussian_filter(values, 1.5), 0)
    channels = folder / 'channels'
    channels.mkdir(exist_ok=True)
    for n, channel in enumerate((values, other)):
        nibabel.save(nibabel.Nifti1Image(channel.astype(np.int16), image.affine), channels / f'image_{n:04}.nii.gz')
    return sorted(channels.iterdir())


def main(roentgen, path, folder, wanted):
    torch.set_num_threads(os.cpu_count())
    if not path.exists():
        subprocess.run([roentgen, 'demo', '--device', 'cpu', '--output', folder / 'demo'], check=True, stdout=subprocess.DEVNULL)
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder / 'demo' / 'study')))
        sitk.WriteImage(sitk.Cast(reader.Execute(), sitk.sitkInt16), str(path))
    bad = []
    for name, (network, geometry, values, inferer, post, weights, form, turn) in CASES.items():
        if wanted and name not in wanted:
            continue
        image = with_another(path, folder) if network['in_channels'] > 1 else turned(path, folder) if turn else path
        with contextlib.redirect_stdout(sys.stderr):
            bundle, parser = bundle_of(folder, name, network, geometry, values, inferer, post, form)
            network, loss = trained(parser, image, geometry)
        print(f'{name}: trained, loss {loss:.3f}', flush=True)
        if weights == 'pt':
            torch.save({'model': network.state_dict()}, bundle / 'models/model.pt')
        else:
            torch.jit.script(network).save(bundle / 'models/model.ts')
        package = folder / name
        subprocess.run([roentgen, 'model', 'import', 'monai', bundle, '--output', package, '--python', sys.executable], check=True)
        began = time.perf_counter()
        output = folder / f'{name}-results'
        subprocess.run([roentgen, 'run', '--model', package, '--device', 'cpu', '--output', output, '--results', 'seg', image[0] if isinstance(image, list) else image], check=True,
                       stdout=subprocess.DEVNULL)
        ours_s = time.perf_counter() - began
        found = np.asarray(nibabel.load(next(output.rglob('labels.nii.gz'))).dataobj)
        with contextlib.redirect_stdout(sys.stderr):
            began = time.perf_counter()
            expected = by_monai(parser, network, image)
            theirs_s = time.perf_counter() - began
        voxels = {label: (found == n).sum() + (expected == n).sum() for label, n in LABELS.items()}
        dice = {label: 2 * ((found == n) & (expected == n)).sum() / voxels[label] for label, n in LABELS.items() if voxels[label]}
        print(f'{name}: Dice {", ".join(f"{label} {value:.6f}" for label, value in dice.items())}; '
              f'{(found != expected).sum()} of {found.size} voxels differ; {ours_s:.1f} s, MONAI {theirs_s:.1f} s', flush=True)
        if len(dice) < len(LABELS) or min(dice.values()) < 0.9999:
            bad.append(name)
    sys.exit(f'{bad} differ' if bad else 0)


if __name__ == '__main__':
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
