"""The network of ct-lung-nodule: a small residual U-Net that works at half resolution, and its ONNX export.

The first convolution takes 4 x 4 x 4 voxels every 2, the last one gives them back, so no wide layer runs on the full grid: 28 000
floating point operations a voxel. Batch normalisation is folded into the convolutions, and weights are stored as float16.
"""
import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

CHANNELS = (24, 48, 96)
CLASSES = 3
STRIDE = 8                                                  # dimensions are multiples of it
CLIP_HU, SUBTRACT_HU, DIVIDE_HU = (-1024.0, 1024.0), -400.0, 500.0


def normalise(hu):
    """HU to the network's input."""
    return (np.clip(hu, *CLIP_HU) - np.float32(SUBTRACT_HU)) / np.float32(DIVIDE_HU)


def conv(cin, cout, kernel, stride=1, padding=0):
    return nn.Sequential(nn.Conv3d(cin, cout, kernel, stride, padding, bias=False), nn.BatchNorm3d(cout))


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.a, self.b = conv(channels, channels, 3, 1, 1), conv(channels, channels, 3, 1, 1)

    def forward(self, x):
        return torch.relu(x + self.b(torch.relu(self.a(x))))


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        c1, c2, c3 = CHANNELS
        self.stem, self.encode1 = conv(1, c1, 4, 2, 1), Block(c1)
        self.down2, self.encode2 = conv(c1, c2, 2, 2), Block(c2)
        self.down3, self.middle = conv(c2, c3, 2, 2), nn.Sequential(Block(c3), Block(c3))
        self.up2, self.decode2 = nn.ConvTranspose3d(c3, c2, 2, 2), Block(c2)
        self.up1, self.decode1 = nn.ConvTranspose3d(c2, c1, 2, 2), Block(c1)
        self.head = nn.ConvTranspose3d(c1, CLASSES, 4, 2, 1)

    def forward(self, x):
        one = self.encode1(torch.relu(self.stem(x)))
        two = self.encode2(torch.relu(self.down2(one)))
        three = self.middle(torch.relu(self.down3(two)))
        two = self.decode2(torch.relu(two + self.up2(three)))
        one = self.decode1(torch.relu(one + self.up1(two)))
        return self.head(one)


def take(network, path):
    """Gives `network` the weights of an exported file. Of batch normalisation, folded into them, only the product is known: each convolution's
    channels get the spread of fresh ones, and the variance that undoes it."""
    values = iter([torch.from_numpy(numpy_helper.to_array(c).astype(np.float32)) for c in onnx.load(path).graph.initializer])
    with torch.no_grad():
        for module in network.modules():        # in the order in which `export` writes them
            if isinstance(module, nn.Sequential) and isinstance(module[0], nn.Conv3d):
                c, bn = module
                weight = next(values)
                scale = (3 * weight[0].numel()) ** -0.5 / weight.flatten(1).std(1)
                c.weight.copy_(weight * scale.reshape(-1, 1, 1, 1, 1))
                bn.running_var.copy_(scale ** 2 - bn.eps)
                bn.bias.copy_(next(values))
            elif isinstance(module, nn.ConvTranspose3d):
                module.weight.copy_(next(values))
                module.bias.copy_(next(values))


def export(network, path):
    """Writes the ONNX file: `image` [1, 1, D, H, W] to `scores` [1, 3, D, H, W], float32 with float16 weights."""
    def folded(pair):
        c, bn = pair
        scale = bn.weight / torch.sqrt(bn.running_var + bn.eps)
        return c.weight * scale.reshape(-1, 1, 1, 1, 1), bn.bias - bn.running_mean * scale

    nodes, constants = [], []

    def weights(name, value):
        constants.append(numpy_helper.from_array(value.detach().numpy().astype(np.float16), name + "_half"))
        nodes.append(helper.make_node("Cast", [name + "_half"], [name], name=name, to=TensorProto.FLOAT))
        return name

    def node(op, inputs, output, **attributes):
        nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def convolve(name, x, pair):
        weight, bias = folded(pair)
        c = pair[0]
        return node("Conv", [x, weights(name + "_w", weight), weights(name + "_b", bias)], name, kernel_shape=c.kernel_size,
                    strides=c.stride, pads=c.padding * 2)

    def grow(name, x, c, output=None):
        return node("ConvTranspose", [x, weights(name + "_w", c.weight), weights(name + "_b", c.bias)], output or name,
                    kernel_shape=c.kernel_size, strides=c.stride, pads=c.padding * 2)

    def block(name, x, b):
        y = node("Relu", [convolve(name + "_a", x, b.a)], name + "_relu")
        y = convolve(name + "_b2", y, b.b)
        return node("Relu", [node("Add", [x, y], name + "_sum")], name)

    n = network
    stem = node("Relu", [convolve("stem", "image", n.stem)], "stem_relu")
    one = block("encode1", stem, n.encode1)
    two = block("encode2", node("Relu", [convolve("down2", one, n.down2)], "down2_relu"), n.encode2)
    three = node("Relu", [convolve("down3", two, n.down3)], "down3_relu")
    for i, b in enumerate(n.middle):
        three = block(f"middle{i}", three, b)
    two = node("Relu", [node("Add", [two, grow("up2", three, n.up2)], "skip2")], "skip2_relu")
    two = block("decode2", two, n.decode2)
    one = node("Relu", [node("Add", [one, grow("up1", two, n.up1)], "skip1")], "skip1_relu")
    one = block("decode1", one, n.decode1)
    grow("head", one, n.head, "scores")

    def tensor(name, channels):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, "D", "H", "W"])

    graph = helper.make_graph(nodes, "ct-lung-nodule", [tensor("image", 1)], [tensor("scores", CLASSES)], constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="roentgen",
                             producer_version="1.0.0", doc_string="Lungs and nodules on chest CT, trained on synthetic phantoms only. "
                                                                  "Engineering reference, not for diagnosis. Licence: MIT OR Apache-2.0")
    onnx.checker.check_model(made, full_check=True)
    path.write_bytes(made.SerializeToString(deterministic=True))
