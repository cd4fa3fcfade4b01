#!/usr/bin/env python3
"""Networks of slices that see neighbouring slices as channels, against numpy.

usage: check_slices.py make DIR     packages with made-up networks, and an input for each
       check_slices.py check DIR    the scores that roentgen found, against numpy's

The networks of most cases write down what they saw: voxels are digits, and each channel is one digit of the answer.
"""
import hashlib
import itertools
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import check_windows


@dataclass
class Case:
    dims: tuple                     # i, j, k
    count: int                      # slices that the network sees
    patch: tuple                    # or tile: i, j, k
    images: int = 1
    beyond: str = 'edge'            # the ends of the volume
    order: str = 'by-image'
    kind: str = 'tiles'             # or a convention: nnunet, monai
    mirror: str = ''
    beyond_patch: str = 'zero'
    blending: str = 'constant'
    kernel: int = 1                 # 1: digits; 3: a convolution of random weights
    options: dict = field(default_factory=dict)


CASES = {
    'edge': Case((9, 7, 6), 5, (4, 4, 1)),
    'zero': Case((9, 7, 6), 5, (4, 4, 1), beyond='zero'),
    'more-slices-than-there-are': Case((8, 8, 2), 7, (8, 8, 2)),
    'one-slice': Case((5, 8, 1), 7, (8, 8, 1), beyond='zero'),
    'two-images': Case((9, 7, 6), 3, (16, 16, 4), images=2, beyond='zero'),
    'two-images-by-slice': Case((9, 7, 6), 3, (16, 4, 4), images=2, order='by-slice'),
    'two-images-by-slice-one-by-one': Case((9, 7, 6), 3, (16, 4, 1), images=2, order='by-slice', beyond='zero'),
    'windows': Case((11, 9, 5), 5, (6, 4, 1), kind='monai'),
    'windows-of-two-images': Case((11, 9, 5), 3, (6, 4, 1), images=2, kind='nnunet', order='by-slice', beyond='zero'),
    'windows-of-three-slices': Case((11, 9, 7), 5, (6, 5, 3), kind='nnunet'),
    'windows-beyond-the-volume': Case((11, 3, 2), 5, (6, 5, 4), kind='monai'),
    'turned': Case((9, 9, 7), 3, (8, 6, 2), kind='nnunet', mirror='ik', beyond='zero'),
    'turned-one-by-one': Case((8, 8, 6), 5, (8, 8, 1), kind='nnunet', mirror='k'),
    'turned-images-by-slice': Case((8, 8, 6), 3, (8, 8, 2), images=2, order='by-slice', kind='monai', mirror='k'),
    'weighted': Case((20, 9, 5), 5, (12, 10, 1), kind='nnunet', mirror='ij', blending='gaussian', beyond_patch='edge', kernel=3),
    'weighted-zeros-and-edges': Case((20, 9, 5), 3, (12, 10, 2), images=2, kind='monai', mirror='k', blending='gaussian', beyond='zero',
                                     beyond_patch='edge', kernel=3),
    'weighted-edges-and-zeros': Case((20, 9, 5), 3, (12, 10, 2), kind='monai', blending='gaussian', beyond='edge', kernel=3),
    'halo': Case((20, 19, 5), 3, (8, 8, 2), kernel=3, options={'halo': 1}),
    'empty': Case((8, 8, 7), 3, (8, 8, 1), kind='monai', options={'empty': [0.0, 0.0]}),
    # The same network with other batches: the same bits.
    **{f'batch-tiles-{k}': Case((23, 17, 7), 5, (32, 32, k), images=2, kernel=3) for k in (1, 2, 3, 7)},
    **{f'batch-windows-{k}': Case((23, 17, 7), 5, (32, 32, k), images=2, kernel=3, kind='nnunet') for k in (1, 2, 7)},
}
FEWEST = 4   # slices with nothing in the case of empty patches

MANIFEST = '''format = 1
[model]
name = "slices"
version = "1.0.0"
task = "segmentation"
manufacturer = "roentgen"
licence = "MIT OR Apache-2.0"
intended_use = "A test."
regulatory_status = "none"
[[file]]
path = "graph.onnx"
sha256 = "{sha256}"
[select]
modality = ["CT"]
[input]
tensor = "image"
dtype = "float32"
layout = "NCHW"
slices = {{ count = {count}, beyond = "{beyond}", order = "{order}" }}
{channels}
[inference.{inference}
[output]
tensor = "scores"
scores = "logits"
background = 1
[[finding]]
channel = 0
segment = 1
name = "one"
colour = [1, 2, 3]
category = {{ value = "85756007", scheme = "SCT", meaning = "Tissue" }}
type = {{ value = "87784001", scheme = "SCT", meaning = "Soft tissue" }}
measurements = ["volume"]
[[preprocess]]
step = "normalize"
subtract = 0.0
divide = 1.0
[[postprocess]]
step = "argmax"
'''


def weights(case):
    """[2, channels, kernel, kernel]: what was seen, and its negative."""
    channels = case.count * case.images
    if case.kernel == 1:
        seen = 10.0 ** np.arange(channels)[:, None, None]
    else:
        seen = np.random.default_rng(5).normal(0, 0.3, (channels, case.kernel, case.kernel))
    return np.stack([seen, -seen]).astype(np.float32)


def graph(case):
    from onnx import TensorProto, helper, numpy_helper
    node = helper.make_node('Conv', ['image', 'weights'], ['scores'], pads=[case.kernel // 2] * 4)
    made = helper.make_graph(
        [node], 'made up',
        [helper.make_tensor_value_info('image', TensorProto.FLOAT, ['n', case.count * case.images, 'h', 'w'])],
        [helper.make_tensor_value_info('scores', TensorProto.FLOAT, ['n', 2, 'h', 'w'])], [numpy_helper.from_array(weights(case), 'weights')])
    return helper.make_model(made, opset_imports=[helper.make_opsetid('', 17)], ir_version=8).SerializeToString()


def make(folder):
    for seed, (name, case) in enumerate(CASES.items()):
        to = folder / name
        to.mkdir(parents=True)
        made = graph(case)
        (to / 'graph.onnx').write_bytes(made)
        if case.kind == 'tiles':
            inference = f'tiles]\ntile = {list(case.patch)}\nhalo = {case.options.get("halo", 0)}'
        else:
            inference = f'sliding-window]\npatch = {list(case.patch)}\noverlap = 0.5\nblending = "{case.blending}"\nconvention = "{case.kind}"\n' \
                        f'beyond = "{case.beyond_patch}"\nmirror = {json.dumps(list(case.mirror))}'
            if 'empty' in case.options:
                inference += f'\nempty = {case.options["empty"]}'
        other = '[[input.channel]]\nname = "{0}"\n[input.channel.select]\nmodality = ["CT"]\ndescription = {{ any = ["{0}"] }}\n'
        channels = '' if case.images == 1 else '[[input.channel]]\nname = "first"\n' + ''.join(other.format(n) for n in range(1, case.images))
        text = MANIFEST.format(sha256=hashlib.sha256(made).hexdigest(), count=case.count, beyond=case.beyond, order=case.order, channels=channels,
                               inference=inference)
        (to / 'model.toml').write_text(text)
        rng = np.random.default_rng(99 if name.startswith('batch') else seed)
        shape = (case.images, *case.dims[::-1])
        values = rng.integers(1, 10, shape) if case.kernel == 1 else rng.normal(size=shape)
        if 'empty' in case.options:
            values[:, :FEWEST] = 0
        values.astype(np.float32).tofile(to / 'input.raw')
        (to / 'dims.json').write_text(json.dumps(case.dims))


def stacked(values, case):
    """[images, D, H, W] -> [channels, D, H, W]."""
    reach = case.count // 2
    padded = np.pad(values, [(0, 0), (reach, reach), (0, 0), (0, 0)], mode='edge' if case.beyond == 'edge' else 'constant')
    seen = np.stack([padded[:, s:s + values.shape[1]] for s in range(case.count)], axis=1)
    if case.order == 'by-slice':
        seen = seen.swapaxes(0, 1)
    return seen.reshape(-1, *values.shape[1:])


def turned(seen, case):
    """Along k, with what that makes of neighbours."""
    parts = (case.images, case.count) if case.order == 'by-image' else (case.count, case.images)
    seen = seen.reshape(*parts, *seen.shape[1:])
    seen = np.flip(seen, 1 if case.order == 'by-image' else 0)
    return np.flip(seen, 2).reshape(-1, *seen.shape[2:])


def network(seen, case):
    """[channels, D, H, W] -> [2, D, H, W], in double precision."""
    weight = weights(case).astype(float)
    reach = case.kernel // 2
    padded = np.pad(seen.astype(float), [(0, 0), (0, 0), (reach, reach), (reach, reach)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, weight.shape[2:], axis=(2, 3))
    return np.einsum('cdhwyx,ocyx->odhw', windows, weight)


def reference(values, case):
    seen = stacked(values, case)
    if case.kind == 'tiles':
        return network(seen, case)
    patch = case.patch[::-1]
    shape = values.shape[1:]
    lacking = [max(p - n, 0) for n, p in zip(shape, patch)]
    around = [(n // 2, n - n // 2) for n in lacking]
    # Slices beyond the volume are answered for by nobody.
    padded = np.pad(seen, [(0, 0), around[0], (0, 0), (0, 0)])
    padded = np.pad(padded, [(0, 0), (0, 0), *around[1:]], mode='edge' if case.beyond_patch == 'edge' else 'constant')
    weight = check_windows.weights(patch, case.blending, case.kind)
    sums, total = np.zeros((2, *padded.shape[1:])), np.zeros(padded.shape[1:])
    turns = [turn for count in range(len(case.mirror) + 1) for turn in itertools.combinations(case.mirror, count)]
    for start in itertools.product(*(check_windows.starts(n, p, 0.5, case.kind) for n, p in zip(padded.shape[1:], patch))):
        box = tuple(slice(s, s + p) for s, p in zip(start, patch))
        for turn in turns:
            part = padded[:, *box]
            axes = [1 + 'kji'.index(axis) for axis in turn]
            part = turned(part, case) if 'k' in turn else part
            answer = network(np.flip(part, [axis for axis in axes if axis > 1]), case)
            sums[:, *box] += weight * np.flip(answer, axes)
            total[box] += weight
    whole = tuple(slice(before, before + n) for (before, _), n in zip(around, shape))
    return (sums / total)[:, *whole]


def check(folder):
    bad = []
    for name, case in CASES.items():
        shape = case.dims[::-1]
        values = np.fromfile(folder / name / 'input.raw', '<f4').reshape(case.images, *shape)
        found = np.fromfile(folder / name / 'scores.raw', '<f4').reshape(2, *shape)
        expected = reference(values, case)
        if 'empty' in case.options:
            expected[0, :FEWEST - 1], expected[1, :FEWEST - 1] = -30.0, 0.0
        off = np.abs(found - expected).max()
        limit = 0.0 if case.kernel == 1 else 1e-5 * np.ptp(expected)
        print(f'{name}: {found.size} values, off by at most {off:.1e}')
        if not off <= limit:
            bad.append(name)
    sys.exit(f'{bad} differ' if bad else 0)


if __name__ == '__main__':
    {'make': make, 'check': check}[sys.argv[1]](Path(sys.argv[2]))
