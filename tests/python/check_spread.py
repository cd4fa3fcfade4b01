#!/usr/bin/env python3
"""The spread over an ensemble of made-up networks, against numpy.

usage: check_spread.py make DIR      0.onnx, 1.onnx and 2.onnx
       check_spread.py check DIR     image.json (dims), image.raw (physical values), spread.raw, labels.raw: float32 [slice, row, column], uint8
"""
import json
import sys
from pathlib import Path

import numpy as np

CHANNELS = 3
MEMBERS = 3


def make(folder):
    from onnx import TensorProto, helper, numpy_helper
    for n in range(MEMBERS):
        rng = np.random.default_rng(n)
        constants = [
            numpy_helper.from_array(rng.normal(0, 0.6, (CHANNELS, 1, 3, 3, 3)).astype(np.float32), 'weights'),
            numpy_helper.from_array(rng.normal(0, 0.5, CHANNELS).astype(np.float32), 'bias'),
        ]
        made = helper.make_graph(
            [helper.make_node('Conv', ['image', 'weights', 'bias'], ['scores'], pads=[1] * 6)], 'made up',
            [helper.make_tensor_value_info('image', TensorProto.FLOAT, ['n', 1, 'd', 'h', 'w'])],
            [helper.make_tensor_value_info('scores', TensorProto.FLOAT, ['n', CHANNELS, 'd', 'h', 'w'])], constants)
        model = helper.make_model(made, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)
        (folder / f'{n}.onnx').write_bytes(model.SerializeToString())


def check(folder):
    import onnxruntime
    shape = json.loads((folder / 'image.json').read_text())[::-1]
    image = np.fromfile(folder / 'image.raw', '<f4').reshape(shape) / np.float32(500)   # as the manifest normalises
    found = np.fromfile(folder / 'spread.raw', '<f4').reshape(shape)
    labels = np.fromfile(folder / 'labels.raw', 'u1').reshape(shape)
    sessions = [onnxruntime.InferenceSession(str(folder / f'{n}.onnx'), providers=['CPUExecutionProvider']) for n in range(MEMBERS)]
    logits = np.stack([session.run(None, {'image': image[None, None]})[0][0] for session in sessions]).astype(float)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected = (powers / powers.sum(axis=1, keepdims=True))[:, 2].std(axis=0)
    off = np.abs(found - expected)
    mean = np.sort(logits.mean(axis=0), axis=0)
    clear = mean[-1] - mean[-2] > 1e-4
    wrong = (labels != logits.mean(axis=0).argmax(axis=0)) & clear
    print(f'{found.size} voxels: spread {expected.min():.4f} to {expected.max():.4f}, off by at most {off.max():.1e}; '
          f'{wrong.sum()} of {clear.sum()} labels are not those of the mean')
    sys.exit('they differ' if off.max() > 2e-6 or np.ptp(expected) < 0.2 or wrong.any() else 0)


if __name__ == '__main__':
    {'make': make, 'check': check}[sys.argv[1]](Path(sys.argv[2]))
