#!/usr/bin/env python3
"""Graphs that do not fit the manifest of ct-tissue, or cannot run, and one that does both.

usage: make_graphs.py DIR
"""
import sys
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

CHANNELS = 5


def graph(before=('Identity', {}), image=('n', 1, 'd', 'h', 'w'), dtype=TensorProto.FLOAT, channels=CHANNELS, kernel=1):
    """An operator, and a convolution of its result; the graph's own claims on shapes are kept."""
    name, attributes = before
    weights = np.ones((channels, image[1], *(kernel,) * (len(image) - 2)), np.float32)
    nodes = [
        helper.make_node(name, ['image'], ['between'], **attributes),
        helper.make_node('Conv', ['between', 'weights'], ['scores']),
    ]
    made = helper.make_graph(
        nodes, 'made up',
        [helper.make_tensor_value_info('image', dtype, list(image))],
        [helper.make_tensor_value_info('scores', TensorProto.FLOAT, ['n', channels, 'p', 'q', 'r'][:len(image)])],
        [numpy_helper.from_array(weights, 'weights')])
    domains = [helper.make_opsetid('', 17), helper.make_opsetid('nobody', 1)]
    return helper.make_model(made, opset_imports=domains, ir_version=8).SerializeToString()


GRAPHS = {
    'fits': graph(),
    'dtype': graph(('Cast', {'to': TensorProto.FLOAT}), dtype=TensorProto.DOUBLE),
    'rank': graph(image=('n', 1, 'h', 'w')),
    'input-channels': graph(image=('n', 2, 'd', 'h', 'w')),
    'output-channels': graph(channels=CHANNELS + 1),
    'size': graph(kernel=3),
    'operator': graph(('Sharpen', {'domain': 'nobody'})),
    'cut-short': graph()[:-20],
    'not-finite': graph(('Sqrt', {})),
    # One that the CPU has, and OpenVINO has not.
    'hardmax': graph(('Hardmax', {'axis': 2})),
}

if __name__ == '__main__':
    for name, made in GRAPHS.items():
        (Path(sys.argv[1]) / f'{name}.onnx').write_bytes(made)
