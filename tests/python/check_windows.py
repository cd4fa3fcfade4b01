#!/usr/bin/env python3
"""Networks applied to volumes patch by patch, as nnU-Net and MONAI apply them.

usage: check_windows.py make DIR     packages with made-up networks, and an input for each
       check_windows.py check DIR    the scores that roentgen found, against others'

The reference is written down here from the papers' rules; where `nnunetv2` or `monai` can be imported, they answer as well.
"""
import itertools
import json
import math
import sys
from pathlib import Path

import numpy as np

CHANNELS = 3
# Voxels (i, j, k), patch, overlap, blending, convention, axes turned round, graphs, rank of the network's space.
CASES = {
    'nnunet': ((70, 61, 45), (32, 32, 32), 0.5, 'gaussian', 'nnunet', 'ijk', 1, 3),
    'nnunet-folds-of-a-small-volume': ((20, 40, 19), (32, 24, 32), 0.5, 'gaussian', 'nnunet', 'ik', 2, 3),
    'nnunet-constant': ((40, 40, 33), (16, 32, 32), 0.25, 'constant', 'nnunet', '', 1, 3),
    'nnunet-slices': ((70, 61, 5), (32, 48, 1), 0.5, 'gaussian', 'nnunet', 'ij', 1, 2),
    'slices-by-four': ((70, 61, 9), (32, 48, 4), 0.5, 'constant', 'monai', 'i', 1, 2),
    'monai': ((70, 61, 45), (32, 32, 32), 0.25, 'gaussian', 'monai', '', 1, 3),
    'monai-constant-of-a-small-volume': ((20, 70, 17), (32, 24, 32), 0.5, 'constant', 'monai', '', 1, 3),
    'monai-edges-continued': ((20, 70, 17), (32, 24, 32), 0.5, 'gaussian', 'monai', '', 1, 3),
    'monai-edges-continued-and-turned': ((19, 21, 40), (32, 24, 24), 0.25, 'constant', 'monai', 'ik', 1, 3),
    'monai-half-precision': ((40, 33, 45), (32, 32, 32), 0.5, 'gaussian', 'monai', '', 2, 3),
}
# Those whose graph takes and gives half precision.
HALF = {'monai-half-precision'}
# Those where what lies beyond the volume is what is at its edge; 0 elsewhere.
EDGE = {'monai-edges-continued', 'monai-edges-continued-and-turned'}
MANIFEST = '''format = 1
[model]
name = "{name}"
version = "1.0.0"
task = "segmentation"
manufacturer = "roentgen"
licence = "MIT OR Apache-2.0"
intended_use = "A test."
regulatory_status = "none"
{files}
[select]
modality = ["CT"]
[input]
tensor = "image"
dtype = "{dtype}"
layout = "{layout}"
[inference.sliding-window]
patch = {patch}
overlap = {overlap}
blending = "{blending}"
convention = "{convention}"
beyond = "{beyond}"
mirror = {mirror}
[output]
tensor = "scores"
dtype = "{dtype}"
background = 1
[[finding]]
channel = 0
segment = 1
name = "one"
colour = [1, 2, 3]
category = {{ value = "85756007", scheme = "SCT", meaning = "Tissue" }}
type = {{ value = "87784001", scheme = "SCT", meaning = "Soft tissue" }}
measurements = ["volume"]
[[finding]]
channel = 2
segment = 2
name = "two"
colour = [1, 2, 3]
category = {{ value = "85756007", scheme = "SCT", meaning = "Tissue" }}
type = {{ value = "3138006", scheme = "SCT", meaning = "Bone" }}
measurements = ["volume"]
[[preprocess]]
step = "normalize"
subtract = 0.0
divide = 1.0
[[postprocess]]
step = "argmax"
'''


def graph(seed, rank, half):
    """Two convolutions that look farther to one side than to the other, so that patches and mirrors make a difference."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper
    rng = np.random.default_rng(seed)
    weights = [rng.normal(0, 0.3, shape).astype(np.float32) for shape in ((4, 1, *(5,) * rank), (4,), (CHANNELS, 4, *(3,) * rank), (CHANNELS,))]
    space = ['d', 'h', 'w'][-rank:]
    names = ['w0', 'b0', 'w1', 'b1']
    outer = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    nodes = [
        helper.make_node('Cast', ['image'], ['single'], to=TensorProto.FLOAT),
        helper.make_node('Conv', ['single', 'w0', 'b0'], ['a'], pads=[3] * rank + [1] * rank),
        helper.make_node('Relu', ['a'], ['b']),
        helper.make_node('Conv', ['b', 'w1', 'b1'], ['c'], pads=[1] * 2 * rank),
        helper.make_node('Cast', ['c'], ['scores'], to=outer),
    ]
    made = helper.make_graph(
        nodes, 'made up',
        [helper.make_tensor_value_info('image', outer, ['n', 1, *space])],
        [helper.make_tensor_value_info('scores', outer, ['n', CHANNELS, *space])],
        [numpy_helper.from_array(w, name) for w, name in zip(weights, names)])
    return helper.make_model(made, opset_imports=[helper.make_opsetid('', 17)], ir_version=8).SerializeToString()


def make(folder):
    import hashlib
    for seed, (name, (dims, patch, overlap, blending, convention, mirror, graphs, rank)) in enumerate(CASES.items()):
        case = folder / name
        case.mkdir(parents=True)
        files = ''
        for n in range(graphs):
            made = graph(10 * seed + n, rank, name in HALF)
            (case / f'{n}.onnx').write_bytes(made)
            files += f'[[file]]\npath = "{n}.onnx"\nsha256 = "{hashlib.sha256(made).hexdigest()}"\n'
        text = MANIFEST.format(name=name[:32], files=files, dtype='float16' if name in HALF else 'float32',
                               layout='NCDHW' if rank == 3 else 'NCHW', patch=list(patch), overlap=overlap,
                               blending=blending, convention=convention, beyond='edge' if name in EDGE else 'zero', mirror=json.dumps(list(mirror)))
        (case / 'model.toml').write_text(text)
        values = np.random.default_rng(seed).normal(size=dims[::-1]).astype(np.float32)
        values.tofile(case / 'input.raw')
        (case / 'dims.json').write_text(json.dumps(dims))


def networks(case, rank):
    """The mean over the graphs: [D, H, W] -> [C, D, H, W]."""
    import onnxruntime
    sessions = [onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider']) for path in sorted(case.glob('*.onnx'))]

    def run(patch):
        tensor = patch[None, None] if rank == 3 else patch[:, None]
        tensor = np.ascontiguousarray(tensor, np.float16 if case.name in HALF else np.float32)
        answers = [session.run(None, {'image': tensor})[0].astype(np.float32) for session in sessions]
        return np.mean([answer[0] if rank == 3 else answer.swapaxes(0, 1) for answer in answers], axis=0)
    return run


def starts(length, patch, overlap, convention):
    if patch == 1:
        return list(range(length))
    if convention == 'monai':
        interval = max(int(patch * (1 - overlap)), 1) if patch != length else patch
        count = next(n for n in range(length) if n * interval + patch >= length) + 1
        return [n * interval - max(n * interval + patch - length, 0) for n in range(count)]
    count = math.ceil((length - patch) / (patch * (1 - overlap))) + 1
    return [round((length - patch) / (count - 1) * n) if count > 1 else 0 for n in range(count)]


def weights(patch, blending, convention):
    """By place in a patch of (D, H, W)."""
    if blending == 'constant':
        return np.ones(patch)
    if convention == 'monai':
        lines = [np.exp(-0.5 * ((np.arange(n) - (n - 1) / 2) / (0.125 * n)) ** 2) for n in patch]
        product = np.einsum('i,j,k->ijk', *lines)
        return np.maximum(product, max(product[product != 0].min(), 1e-3))
    from scipy.ndimage import gaussian_filter
    point = np.zeros(patch)
    point[tuple(n // 2 for n in patch)] = 1
    smooth = gaussian_filter(point, [n / 8 for n in patch], mode='constant')
    smooth = (smooth * (10 / smooth.max())).astype(np.float16)
    return np.maximum(smooth, smooth[smooth > 0].min()).astype(float)


def reference(values, run, patch, overlap, blending, convention, mirror, padding):
    """All axes in the order k, j, i."""
    lacking = [max(p - n, 0) for n, p in zip(values.shape, patch)]
    padded = np.pad(values, [(n // 2, n - n // 2) for n in lacking], mode=padding)
    weight = weights(patch, blending, convention)
    sums, total = np.zeros((CHANNELS, *padded.shape)), np.zeros(padded.shape)
    axes = ['kji'.index(axis) for axis in mirror]
    turns = [turn for count in range(len(axes) + 1) for turn in itertools.combinations(axes, count)]
    for start in itertools.product(*(starts(n, p, overlap, convention) for n, p in zip(padded.shape, patch))):
        box = tuple(slice(s, s + p) for s, p in zip(start, patch))
        answers = [np.flip(run(np.flip(padded[box], turn)), [axis + 1 for axis in turn]) for turn in turns]
        sums[:, *box] += weight * np.mean(answers, axis=0)
        total[box] += weight
    whole = tuple(slice(n // 2, n // 2 + size) for n, size in zip(lacking, values.shape))
    return (sums / total)[:, *whole]


def by_monai(values, run, patch, overlap, blending, padding):
    import torch
    from monai.inferers import sliding_window_inference
    answer = sliding_window_inference(torch.from_numpy(values)[None, None], patch, 1, lambda x: torch.from_numpy(run(x[0, 0].numpy()))[None],
                                      overlap=overlap, mode=blending, padding_mode={'edge': 'replicate'}.get(padding, padding))
    return answer[0].numpy()


def by_nnunet(values, run, patch, overlap, blending, mirror, rank):
    from types import SimpleNamespace

    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    class Network(torch.nn.Module):
        def forward(self, x):
            patches = x[:, 0].numpy()
            answer = run(patches[0]) if rank == 3 else run(patches)[:, 0]
            return torch.from_numpy(np.ascontiguousarray(answer))[None].float()

    predictor = nnUNetPredictor(tile_step_size=1 - overlap, use_gaussian=blending == 'gaussian', use_mirroring=bool(mirror),
                                perform_everything_on_device=False, device=torch.device('cpu'), allow_tqdm=False)
    predictor.network = Network()
    predictor.configuration_manager = SimpleNamespace(patch_size=list(patch[-rank:]))
    predictor.label_manager = SimpleNamespace(num_segmentation_heads=CHANNELS)
    predictor.allowed_mirroring_axes = tuple('kji'[-rank:].index(axis) for axis in mirror) or None
    return predictor.predict_sliding_window_return_logits(torch.from_numpy(values)[None]).float().numpy()


def check(folder):
    bad = []
    for name, (dims, patch, overlap, blending, convention, mirror, _, rank) in CASES.items():
        case = folder / name
        shape, patch = dims[::-1], patch[::-1]
        values = np.fromfile(case / 'input.raw', '<f4').reshape(shape)
        found = np.fromfile(case / 'scores.raw', '<f4').reshape(CHANNELS, *shape)
        padding = 'edge' if name in EDGE else 'constant'
        run = networks(case, rank)
        others = {'reference': (reference(values, run, patch, overlap, blending, convention, mirror, padding), 1e-5)}
        try:
            if convention == 'monai' and not mirror:
                others['monai'] = (by_monai(values, run, patch, overlap, blending, padding), 1e-5)
            elif convention == 'nnunet':  # it adds up in half precision
                others['nnunetv2'] = (by_nnunet(values, run, patch, overlap, blending, mirror, rank), 5e-3)
        except ImportError:
            pass
        spread = found.max() - found.min()
        for other, (expected, limit) in others.items():
            off = np.abs(found - expected).max() / spread
            print(f'{name}: off by at most {off:.1e} of the range from {other}')
            if name in HALF:  # scores apart by their last bit may be rounded to two halves apart by a step of 1/1024
                limit = 1e-3
            if not off < limit or spread < 1:
                bad.append(f'{name} ({other})')
    sys.exit(f'{bad} differ' if bad else 0)


if __name__ == '__main__':
    {'make': make, 'check': check}[sys.argv[1]](Path(sys.argv[2]))
