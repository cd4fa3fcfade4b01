"""The network of cxr-screen: a small residual network, and its ONNX export.

Five stages of halving resolution; of the last one the mean and the greatest value of each channel, since fluid is large and a nodule
small. Batch normalisation is folded into the convolutions, and weights are stored as float16.
"""
import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from radiographs import FINDINGS, REPORTED, SIZE

CHANNELS = (12, 24, 48, 80, 112)


def conv(cin, cout, stride=1):
    return nn.Sequential(nn.Conv2d(cin, cout, 3, stride, 1, bias=False), nn.BatchNorm2d(cout))


class Block(nn.Module):
    """Halves resolution, and adds what a second convolution says of it."""
    def __init__(self, cin, cout):
        super().__init__()
        self.down, self.refine = conv(cin, cout, 2), conv(cout, cout)

    def forward(self, x):
        x = torch.relu(self.down(x))
        return torch.relu(x + self.refine(x))


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([Block(a, b) for a, b in zip((1, *CHANNELS), CHANNELS)])
        self.head = nn.Linear(2 * CHANNELS[-1], len(FINDINGS))

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        x = torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1)
        return self.head(torch.dropout(x, 0.2, self.training))


def export(network, path):
    """Writes the ONNX file: `image` [N, 1, SIZE, SIZE] to `logits` [N, REPORTED], float32 with float16 weights."""
    nodes, constants = [], []

    def weights(name, value):
        constants.append(numpy_helper.from_array(value.detach().numpy().astype(np.float16), name + "_half"))
        nodes.append(helper.make_node("Cast", [name + "_half"], [name], name=name, to=TensorProto.FLOAT))
        return name

    def node(op, inputs, output, **attributes):
        nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def convolve(name, x, pair):
        c, bn = pair
        scale = bn.weight / torch.sqrt(bn.running_var + bn.eps)
        weight, bias = c.weight * scale.reshape(-1, 1, 1, 1), bn.bias - bn.running_mean * scale
        return node("Conv", [x, weights(name + "_w", weight), weights(name + "_b", bias)], name, kernel_shape=c.kernel_size,
                    strides=c.stride, pads=c.padding * 2)

    x = "image"
    for n, block in enumerate(network.blocks):
        x = node("Relu", [convolve(f"down{n}", x, block.down)], f"down{n}_relu")
        x = node("Relu", [node("Add", [x, convolve(f"refine{n}", x, block.refine)], f"sum{n}")], f"block{n}")
    both = node("Concat", [node("GlobalAveragePool", [x], "mean"), node("GlobalMaxPool", [x], "greatest")], "both", axis=1)
    flat = node("Flatten", [both], "flat", axis=1)
    node("Gemm", [flat, weights("head_w", network.head.weight[list(REPORTED)]), weights("head_b", network.head.bias[list(REPORTED)])], "logits", transB=1)

    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, SIZE, SIZE])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", len(REPORTED)])
    graph = helper.make_graph(nodes, "cxr-screen", [image], [logits], constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="roentgen",
                             producer_version="1.0.0", doc_string="Findings on chest radiographs, trained on projections of phantoms only. "
                                                                  "Engineering reference, not for diagnosis. Licence: MIT OR Apache-2.0")
    onnx.checker.check_model(made, full_check=True)
    path.write_bytes(made.SerializeToString(deterministic=True))
