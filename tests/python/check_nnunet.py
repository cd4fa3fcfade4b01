#!/usr/bin/env python3
"""Networks of nnU-Net imported into roentgen, against nnU-Net's own predictor, from the same file to the same file.

usage: check_nnunet.py ROENTGEN IMAGE.nii.gz DIR [CASE ...]

IMAGE is a CT; the phantom of `roentgen demo` where there is none of that name.
Needs nnunetv2, onnx, SimpleITK and torch. Networks are trained here for a minute each, to tell air, lung, soft tissue and bone by their
Hounsfield units: what they find is of no use, but decided. DIR gets results folders of nnU-Net, packages, and both tools' labels.
"""
import contextlib
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

for name in ('nnUNet_raw', 'nnUNet_preprocessed', 'nnUNet_results'):
    os.environ.setdefault(name, '/nowhere')
with contextlib.redirect_stdout(sys.stderr):
    import numpy as np
    import SimpleITK as sitk
    import torch
    from scipy import ndimage
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
    from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

LABELS = {'background': 0, 'lung': 1, 'soft tissue': 2, 'bone': 3}
INTENSITY = {'mean': -20.0, 'std': 300.0, 'percentile_00_5': -980.0, 'percentile_99_5': 900.0, 'min': -1024.0, 'max': 3071.0, 'median': 0.0}
# Each within the one before; what is left of them are the labels above.
REGIONS = {'background': 0, 'body': [1, 2, 3], 'dense': [2, 3], 'bone': 3}
# Added to Hounsfield units.
SHIFT = {'ct': 0, 'small ct': 0, 'mr': 1100, 'mr twice': 1100}


@dataclass
class Case:
    """Spacing and patch by the network's axes, slices first; of two axes where it sees slices."""
    spacing: list
    patch: list
    normalization: str | tuple = 'CTNormalization'
    mirror: tuple = ()
    folds: int = 1
    image: str = 'ct'
    masked: bool = False
    transpose: tuple = (0, 1, 2)
    regions: bool = False
    before: 'Case | None' = None
    lowres: bool = False

    @property
    def configuration(self):
        if self.before:
            return '3d_cascade_fullres'
        return '2d' if len(self.patch) == 2 else '3d_lowres' if self.lowres else '3d_fullres'

    @property
    def normalizations(self):
        return [self.normalization] if isinstance(self.normalization, str) else list(self.normalization)


CASES = {
    'isotropic-ct': Case([3.0, 3.0, 3.0], [48, 48, 48], mirror=(0, 1, 2), folds=2),
    'anisotropic-ct': Case([6.0, 1.8, 1.8], [16, 64, 64], mirror=(1, 2)),
    'z-score': Case([3.0, 2.4, 2.4], [48, 64, 64], 'ZScoreNormalization'),
    'masked': Case([4.0, 4.0, 4.0], [32, 32, 32], 'ZScoreNormalization', image='mr', masked=True),
    'cropped': Case([11.0, 3.0, 3.0], [12, 48, 48], 'RescaleTo01Normalization', image='mr'),
    'slices': Case([2.4, 2.4], [64, 64], mirror=(0, 1), image='small ct'),
    'turned': Case([4.0, 4.0, 3.5], [24, 32, 32], 'ZScoreNormalization', mirror=(2,), image='mr', masked=True, transpose=(1, 2, 0)),
    'turned-slices': Case([3.0, 2.4], [32, 64], mirror=(0,), image='small ct', transpose=(2, 0, 1)),
    'regions': Case([6.0, 4.0, 4.0], [16, 32, 32], mirror=(1,), image='small ct', regions=True),
    'two-channels': Case([5.0, 4.0, 4.0], [24, 32, 32], ('ZScoreNormalization', 'RescaleTo01Normalization'), image='mr twice', masked=True),
    'cascade': Case([5.0, 4.0, 4.0], [24, 32, 32], mirror=(2,), image='small ct',
                    before=Case([10.0, 8.0, 8.0], [24, 32, 32], image='small ct', lowres=True)),
}


def configuration_of(case):
    space = len(case.patch)
    deep = case.patch[0] > 20 or space == 2
    kernels = [[3] * space] * 3 if deep else [[1, 3, 3], [3, 3, 3], [3, 3, 3]]
    strides = [[1] * space, [2] * space, [2] * space] if deep else [[1, 1, 1], [1, 2, 2], [2, 2, 2]]
    image, back = [{'is_seg': False, 'order': order, 'order_z': 0, 'force_separate_z': None} for order in (3, 1)]
    resampling = 'resample_data_or_seg_to_shape'
    configuration = {
        'data_identifier': 'x', 'preprocessor_name': 'DefaultPreprocessor', 'batch_size': 2, 'patch_size': case.patch, 'spacing': case.spacing,
        'normalization_schemes': case.normalizations, 'use_mask_for_norm': [case.masked] + [False] * (len(case.normalizations) - 1),
        'batch_dice': False,
        'resampling_fn_data': resampling, 'resampling_fn_data_kwargs': image,
        'resampling_fn_seg': resampling, 'resampling_fn_seg_kwargs': dict(back, is_seg=True),
        'resampling_fn_probabilities': resampling, 'resampling_fn_probabilities_kwargs': back,
        'architecture': {
            'network_class_name': 'dynamic_network_architectures.architectures.unet.PlainConvUNet',
            'arch_kwargs': {
                'n_stages': 3, 'features_per_stage': [8, 16, 32], 'conv_op': f'torch.nn.modules.conv.Conv{space}d', 'kernel_sizes': kernels,
                'strides': strides, 'n_conv_per_stage': [2, 2, 2], 'n_conv_per_stage_decoder': [2, 2], 'conv_bias': True,
                'norm_op': f'torch.nn.modules.instancenorm.InstanceNorm{space}d', 'norm_op_kwargs': {'eps': 1e-5, 'affine': True},
                'dropout_op': None, 'dropout_op_kwargs': None, 'nonlin': 'torch.nn.LeakyReLU', 'nonlin_kwargs': {'inplace': True},
            },
            '_kw_requires_import': ['conv_op', 'norm_op', 'dropout_op', 'nonlin'],
        },
    }
    if case.before:
        configuration['previous_stage'] = case.before.configuration
    return configuration


def plans_of(name, case):
    configurations = {one.configuration: configuration_of(one) for one in (case, case.before) if one}
    return {
        'dataset_name': f'Dataset001_{name}', 'plans_name': 'nnUNetPlans', 'transpose_forward': list(case.transpose),
        'transpose_backward': [case.transpose.index(axis) for axis in range(3)],
        'original_median_spacing_after_transp': [1.0, 1.0, 1.0], 'original_median_shape_after_transp': [100, 100, 100],
        'image_reader_writer': 'SimpleITKIO', 'label_manager': 'LabelManager', 'experiment_planner_used': 'ExperimentPlanner',
        'foreground_intensity_properties_per_channel': {str(n): INTENSITY for n in range(len(case.normalizations))},
        'configurations': configurations,
    }


def trained(case, plans, dataset, image, properties, seed):
    """Weights of a network that tells tissues by their Hounsfield units."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    manager = PlansManager(plans)
    configuration = manager.get_configuration(case.configuration)
    heads = manager.get_label_manager(dataset).num_segmentation_heads
    inputs = determine_num_input_channels(manager, configuration, dataset)
    network = get_network_from_plans(configuration.network_arch_class_name, configuration.network_arch_init_kwargs,
                                     configuration.network_arch_init_kwargs_req_import, inputs, heads, deep_supervision=False)
    truth = np.digitize(image[:1], np.array([-930, -300, 200]) + SHIFT[case.image])
    data, labels, _ = DefaultPreprocessor(verbose=False).run_case_npy(image, truth.astype(np.int8), dict(properties), manager, configuration, dataset)
    if case.before:  # the stage before is a voxel off
        data = np.vstack([data, *(np.roll(labels, 1, 1) == label for label in (1, 2, 3))])
    patch, space = configuration.patch_size, len(case.patch)
    whole = [4] * (3 - space) + patch  # slices are trained on by fours
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(60 if space == 3 else 100):
        at = [rng.integers(0, max(n - p, 0) + 1) for n, p in zip(data.shape[1:], whole)]
        box = (slice(None), *(slice(a, a + p) for a, p in zip(at, whole)))
        x, y = (torch.from_numpy(np.ascontiguousarray(part[box])) for part in (data, labels))
        lacking = [n for size, p in zip(reversed(x.shape[1:]), reversed(whole)) for n in (0, p - size)]
        x, y = torch.nn.functional.pad(x.float(), lacking), torch.nn.functional.pad(y.long(), lacking)
        x, y = (x[None], y) if space == 3 else (x.swapaxes(0, 1), y[0])
        if case.regions:
            inside = torch.stack([y >= least for least in (1, 2, 3)], 1).float()
            loss = torch.nn.functional.binary_cross_entropy_with_logits(network(x), inside)
        else:
            loss = torch.nn.functional.cross_entropy(network(x), y.clamp(0, 3))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.state_dict(), loss.item()


def make(folder, name, case, image, properties, plans=None):
    plans = plans or plans_of(name, case)
    if case.before:
        make(folder, name, case.before, image, properties, plans)
    results = folder / name / f'nnUNetTrainer__nnUNetPlans__{case.configuration}'
    results.mkdir(parents=True)
    channels = ['early', 'late'] if case.image == 'mr twice' else ['MR' if case.image == 'mr' else 'CT']
    dataset = {'channel_names': {str(n): channel for n, channel in enumerate(channels)}, 'labels': REGIONS if case.regions else LABELS,
               'numTraining': 1, 'file_ending': '.nii.gz'}
    if case.regions:
        dataset['regions_class_order'] = [1, 2, 3]
    (results / 'plans.json').write_text(json.dumps(plans))
    (results / 'dataset.json').write_text(json.dumps(dataset))
    for fold in range(case.folds):
        weights, loss = trained(case, plans, dataset, image, properties, fold)
        print(f'{name}: fold {fold} trained, loss {loss:.3f}', flush=True)
        (results / f'fold_{fold}').mkdir()
        torch.save({'network_weights': weights, 'trainer_name': 'nnUNetTrainer', 'init_args': {'configuration': case.configuration},
                    'inference_allowed_mirroring_axes': case.mirror or None}, results / f'fold_{fold}' / 'checkpoint_final.pth')
    return results


def images_of(path, folder):
    """The CT; every second column and row of it; the same as an MR image might be: 0 around the body, and here and there in it; that with
    another one, which is 0 elsewhere. Of each the files, and what nnU-Net reads of them."""
    whole = sitk.ReadImage(str(path))
    small = whole[::2, ::2, :]
    hu = sitk.GetArrayFromImage(small)
    body = ndimage.binary_fill_holes(ndimage.binary_opening(hu > -300, iterations=2))
    holes = ndimage.binary_erosion(body & (ndimage.gaussian_filter(hu.astype(float), 1) < -860))
    mr = sitk.GetImageFromArray(np.where(body & ~holes, np.maximum(hu + SHIFT['mr'], 1), 0).astype(np.int16))
    mr.CopyInformation(small)
    late = sitk.GetImageFromArray(np.where(np.roll(body, 9, 2) & ~np.roll(holes, 3, 1), 200 + (hu + 1024) // 4, 0).astype(np.int16))
    late.CopyInformation(small)
    paths = {'ct': [path], 'small ct': [folder / 'small.nii.gz'], 'mr': [folder / 'mr.nii.gz'],
             'mr twice': [folder / 'case_0000.nii.gz', folder / 'case_0001.nii.gz']}
    for image, path in ((small, paths['small ct'][0]), (mr, paths['mr'][0]), (mr, paths['mr twice'][0]), (late, paths['mr twice'][1])):
        sitk.WriteImage(image, str(path))
    return {name: (files, *SimpleITKIO().read_images([str(file) for file in files])) for name, files in paths.items()}


def predicted(results, image, properties, before=None):
    predictor = nnUNetPredictor(device=torch.device('cpu'), perform_everything_on_device=False, allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(results), None, 'checkpoint_final.pth')
    return predictor.predict_single_npy_array(image, dict(properties), before)


def main(roentgen, path, folder, *only):
    torch.set_num_threads(os.cpu_count())
    if not path.exists():
        subprocess.run([roentgen, 'demo', '--device', 'cpu', '--output', folder / 'demo'], check=True, stdout=subprocess.DEVNULL)
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder / 'demo' / 'study')))
        sitk.WriteImage(sitk.Cast(reader.Execute(), sitk.sitkInt16), str(path))
    images = images_of(path, folder)
    bad = []
    for name, case in CASES.items():
        if only and name not in only:
            continue
        files, image, properties = images[case.image]
        results = make(folder, name, case, image, properties)
        package = folder / f'{name}-package'
        subprocess.run([roentgen, 'model', 'import', 'nnunet', results, '--output', package, '--python', sys.executable], check=True)
        began = time.perf_counter()
        output = folder / f'{name}-results'
        subprocess.run([roentgen, 'run', '--model', package, '--device', 'cpu', '--output', output, '--results', 'seg', *files], check=True,
                       stdout=subprocess.DEVNULL)
        ours_s = time.perf_counter() - began
        found = sitk.GetArrayFromImage(sitk.ReadImage(str(next(output.rglob('labels.nii.gz')))))
        with contextlib.redirect_stdout(sys.stderr):
            began = time.perf_counter()
            # nnU-Net adds scores up in half precision, which decides where classes nearly tie. Here it has single precision, so that what
            # differs is ours; and only here, since torch names what it saves by its types.
            with mock.patch.object(torch, 'half', torch.float32):
                before = results.with_name(results.name.replace(case.configuration, case.before.configuration)) if case.before else None
                found_before = before and predicted(before, image, properties)[None].astype(np.float32)  # as its reader gives them
                expected = predicted(results, image, properties, found_before)
            theirs_s = time.perf_counter() - began
        voxels = {label: (found == n).sum() + (expected == n).sum() for label, n in LABELS.items()}
        dice = {label: 2 * ((found == n) & (expected == n)).sum() / voxels[label] for label, n in LABELS.items() if voxels[label]}
        print(f'{name}: Dice {", ".join(f"{label} {value:.6f}" for label, value in dice.items())}; '
              f'{(found != expected).sum()} of {found.size} voxels differ; {ours_s:.1f} s, nnU-Net {theirs_s:.1f} s', flush=True)
        if len(dice) < 3 or min(dice.values()) < 0.9999:
            bad.append(name)
    sys.exit(f'{bad} differ' if bad else 0)


if __name__ == '__main__':
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), *sys.argv[4:])
