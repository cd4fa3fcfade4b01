#!/usr/bin/env python3
"""Builds ct-tissue.onnx: five tissues of a CT by their Hounsfield units. No training, no data: the network is a formula.

usage: build_model.py [OUTPUT]        (default: ct-tissue.onnx next to this script)

With onnx 1.23.2 and protobuf 7.36.2 (tests/python/requirements.txt) every run writes the same bytes, and their SHA-256 is in
model.toml; tests/python/test_model.py holds both, and compares the network with the formula below.

Input   image   float32 [1, 1, D, H, W], HU / 1000, on a 1.5 mm isotropic grid; D, H, W of any size from 1
Output  scores  float32 [1, 5, D, H, W], at least 0 (up to rounding, about 1e-8) and at most 1.02; channels air, lung, fat, soft tissue, bone

With X the image in HU, extended by two voxels on every side with copies of the nearest voxel:

    s_b   = sigmoid((X - b) / 20)  for b = -930, -350, -30, 200             soft thresholds between the tissues
    p     = (1 - s_-930, s_-930 - s_-350, s_-350 - s_-30, s_-30 - s_200, s_200)       memberships, their sum is 1
    w     = sigmoid((350 - (max X - min X)) / 40) + 0.02                    max and min over the 3 x 3 x 3 neighbours
    score = sum over 3 x 3 x 3 neighbours of k w p,  k = (1, 2, 1)/4 along each axis

Why w: where two tissues meet, voxels hold part of both, and on the way from one HU to the other they pass through the band of a
third (from air to bone through lung, fat and soft tissue). Such voxels are distrusted and take the vote of their neighbours.

The border: X is extended once, before anything else. So w and p outside the image are those of the extended image, which is not
the same as extending w p. numpy.pad(X, 2, mode="edge") and then only complete neighbourhoods is the same rule.
What a voxel gets depends on neighbours at most 2 away: 1 for max and min, 1 for the smoothing. A tile that carries 2 voxels of its
neighbours on its inner sides, cut off afterwards, gives what the whole image gives.

How it is laid out for speed (ONNX Runtime 1.31.1, CPU, 2 threads, 128 x 128 x 128; nine layouts were measured):
  - the thresholds and the constant 1 are one pointwise convolution 1 -> 5 and one sigmoid (sigmoid(100) is 1 in float32);
  - smoothing with (1, 2, 1)/4 along three axes is two averages over 2 x 2 x 2 (a 3 x 3 x 3 convolution takes 1.5 times as long in all);
  - smoothing is linear, so the differences that turn thresholds into memberships come last, as a pointwise convolution 5 -> 5.
"""
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ONNX_VERSION = "1.23.2"
OPSET, IR_VERSION = 17, 8
THRESHOLDS_HU = (-930.0, -350.0, -30.0, 200.0)
WIDTH_HU = 20.0
RANGE_HU, RANGE_WIDTH_HU, FLOOR = 350.0, 40.0, 0.02
HU_PER_UNIT = 1000.0
HALO = 2


def model():
    """The ONNX model."""
    nodes, constants = [], []

    def constant(name, value, dtype=np.float32):
        constants.append(numpy_helper.from_array(np.asarray(value, dtype=dtype), name))
        return name

    def node(op, inputs, output, **attributes):
        nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def scalar(name, value):
        return constant(name, np.full((1, 1, 1, 1, 1), value))

    pads = constant("pads", [0, 0, HALO, HALO, HALO, 0, 0, HALO, HALO, HALO], np.int64)
    extended = node("Pad", ["image", pads], "extended", mode="edge")

    # Edge confidence w, on the image extended by 1 (what complete neighbourhoods leave).
    highest = node("MaxPool", [extended], "highest", kernel_shape=[3, 3, 3])
    negative = node("Neg", [extended], "negative")
    lowest = node("MaxPool", [negative], "minus_lowest", kernel_shape=[3, 3, 3])
    spread = node("Add", [highest, lowest], "range")
    scaled = node("Mul", [spread, scalar("range_slope", -HU_PER_UNIT / RANGE_WIDTH_HU)], "range_scaled")
    logit = node("Add", [scaled, scalar("range_offset", RANGE_HU / RANGE_WIDTH_HU)], "confidence_logit")
    trust = node("Sigmoid", [logit], "confidence")
    weight = node("Add", [trust, scalar("floor", FLOOR)], "weight")

    # (1, s_-930, s_-350, s_-30, s_200) on the same grid.
    starts, ends = constant("starts", [1, 1, 1], np.int64), constant("ends", [-1, -1, -1], np.int64)
    centre = node("Slice", [extended, starts, ends, constant("axes", [2, 3, 4], np.int64)], "centre")
    slopes = constant("threshold_slopes", np.reshape([0.0] + [HU_PER_UNIT / WIDTH_HU] * 4, (5, 1, 1, 1, 1)))
    offsets = constant("threshold_offsets", [100.0] + [-b / WIDTH_HU for b in THRESHOLDS_HU])
    logits = node("Conv", [centre, slopes, offsets], "threshold_logits")
    steps = node("Sigmoid", [logits], "steps")

    # Smoothed steps, then memberships: each step less the next one.
    votes = node("Mul", [steps, weight], "votes")
    half = node("AveragePool", [votes], "smoothed_once", kernel_shape=[2, 2, 2])
    smooth = node("AveragePool", [half], "smoothed", kernel_shape=[2, 2, 2])
    differences = constant("differences", (np.eye(5) - np.eye(5, k=1)).reshape(5, 5, 1, 1, 1))
    node("Conv", [smooth, differences], "scores")

    def tensor(name, channels):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, "D", "H", "W"])

    graph = helper.make_graph(nodes, "ct-tissue", [tensor("image", 1)], [tensor("scores", 5)], constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION,
                             producer_name="roentgen", producer_version="1.0.0",
                             doc_string="Five tissues of a CT by Hounsfield units. Engineering reference, not for diagnosis. "
                                        "Licence: MIT OR Apache-2.0")
    onnx.checker.check_model(made, full_check=True)
    return made


def main():
    if onnx.__version__ != ONNX_VERSION:
        sys.exit(f"onnx {ONNX_VERSION} is needed for the same bytes, here is {onnx.__version__}")
    output = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "ct-tissue.onnx"
    output.write_bytes(model().SerializeToString(deterministic=True))


if __name__ == "__main__":
    main()
