#!/usr/bin/env python3
"""Writes the graph of a detector whose answers follow from a voxel's own value, so that they can be computed again.

usage: make_detector.py GRAPH.onnx

Input   image   float32 [1, 1, D, H, W], x = HU / 1000
Output  scores  float32 [1, 3, D, H, W], probabilities of neither, vessel and nodule: max(1 - x, 0), max(x - 1, 0), max(1 - |x - 1|, 0).
        From 0 to 2000 HU their sum is 1; from 500 to 1500 HU that of the nodule is the greatest, 1 at 1000 HU.
"""
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SHAPE = ['batch', 1, 'depth', 'height', 'width']

nodes = [
    helper.make_node('Sub', ['image', 'one'], ['above']),
    helper.make_node('Sub', ['one', 'image'], ['below']),
    helper.make_node('Abs', ['above'], ['away']),
    helper.make_node('Sub', ['one', 'away'], ['near']),
    helper.make_node('Concat', ['below', 'above', 'near'], ['all'], axis=1),
    helper.make_node('Relu', ['all'], ['scores']),
]
graph = helper.make_graph(
    nodes, 'detector',
    [helper.make_tensor_value_info('image', TensorProto.FLOAT, SHAPE)],
    [helper.make_tensor_value_info('scores', TensorProto.FLOAT, [SHAPE[0], 3, *SHAPE[2:]])],
    [numpy_helper.from_array(np.ones(1, np.float32), 'one')],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)
onnx.checker.check_model(model)
Path(sys.argv[1]).write_bytes(model.SerializeToString(deterministic=True))
