#!/usr/bin/env python3
"""Graphs that do not fit the manifest of ct-tissue, or cannot run, and one that does both; and graphs of several channels.

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


def made_of(nodes, channels, constants=(), space='dhw'):
    """A graph of `nodes` from `image` with so many channels to `scores` with two."""
    made = helper.make_graph(
        nodes, 'made up',
        [helper.make_tensor_value_info('image', TensorProto.FLOAT, ['n', channels, *space])],
        [helper.make_tensor_value_info('scores', TensorProto.FLOAT, ['n', 2, *space])], list(constants))
    return helper.make_model(made, opset_imports=[helper.make_opsetid('', 17)], ir_version=8).SerializeToString()


def least(channels, space='dhw'):
    """The least of all channels, and what is turned round of it for the background."""
    return made_of([
        helper.make_node('ReduceMin', ['image'], ['least'], axes=[1], keepdims=1),
        helper.make_node('Neg', ['least'], ['not']),
        helper.make_node('Concat', ['not', 'least'], ['scores'], axis=1),
    ], channels, space=space)


def slow():
    """`least` of one channel, after convolutions that cost time and change nothing."""
    rng = np.random.default_rng(1)
    weights = [rng.normal(0, 0.1, (16, inputs, 3, 3, 3)).astype(np.float32) for inputs in (1, 16)] + [np.zeros((1, 16, 1, 1, 1), np.float32)]
    names = [f'weights{n}' for n in range(3)]
    nodes = [
        helper.make_node('Conv', ['image', names[0]], ['a'], pads=[1] * 6),
        helper.make_node('Conv', ['a', names[1]], ['b'], pads=[1] * 6),
        helper.make_node('Conv', ['b', names[2]], ['nothing']),
        helper.make_node('Add', ['image', 'nothing'], ['same']),
        helper.make_node('ReduceMin', ['same'], ['least'], axes=[1], keepdims=1),
        helper.make_node('Neg', ['least'], ['not']),
        helper.make_node('Concat', ['not', 'least'], ['scores'], axis=1),
    ]
    return made_of(nodes, 1, [numpy_helper.from_array(value, name) for value, name in zip(weights, names)])


GRAPHS = {
    'slow-least-of-one': slow(),
    'least-of-one': least(1),
    'least-of-two': least(2),
    'least-of-two-slices': least(2, 'hw'),
    'least-of-six-slices': least(6, 'hw'),
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
