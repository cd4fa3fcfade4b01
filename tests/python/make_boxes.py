#!/usr/bin/env python3
"""Graphs that give boxes, right and wrong ones, whose answers follow from the voxels, so that they can be computed again; and turned series.

usage: make_boxes.py graphs DIR
       make_boxes.py turn STUDY ORIENTATION      ORIENTATION: axial, oblique, flipped
       make_boxes.py nifti STUDY DIR             an axial series as DIR/volume.nii.gz

Input   image   float32 [1, 1, D, H, W], x = HU / 1000
An object is a block of x > 0.3 of at most 13 voxels along each axis with one brighter voxel in its middle, x > 0.55. For each such voxel of a
patch there is a row:
Output  boxes   float32 [N, 6]: the faces of the block as far as the patch shows it, k1, j1, i1, k2, j2, i2; the centre of the first voxel is 0
Output  scores  float32 [N]: x of that voxel, or 0.8 times that where the block reaches the edge of the patch
"""
import sys
from pathlib import Path

import numpy as np
import onnx
import pydicom
import SimpleITK as sitk
from onnx import TensorProto, helper, numpy_helper

LONGEST = 13


class Graph:
    def __init__(self):
        self.nodes, self.constants, self.count = [], {}, 0

    def constant(self, value, dtype=np.float32):
        value = np.asarray(value, dtype)
        name = f'c{len(self.constants)}'
        self.constants[name] = value
        return name

    def add(self, operator, *inputs, **attributes):
        self.count += 1
        self.nodes.append(helper.make_node(operator, list(inputs), [f't{self.count}'], **attributes))
        return f't{self.count}'

    def called(self, tensor, name):
        self.nodes.append(helper.make_node('Identity', [tensor], [name]))

    def shifted(self, x, axis, by):
        """The value one voxel further along an axis of [1, 1, D, H, W], 0 beyond the end; `by` is 1 or -1."""
        pads = np.zeros(10, np.int64)
        pads[axis + (5 if by > 0 else 0)] = 1
        padded = self.add('Pad', x, self.constant(pads, np.int64))
        start, end = (1, np.iinfo(np.int64).max) if by > 0 else (0, -1)
        of = [self.constant([v], np.int64) for v in (start, end, axis)]
        return self.add('Slice', padded, *of)

    def run(self, mask, axis, by):
        """How many voxels of the mask lie in a row from each one on, itself included."""
        run, one = mask, self.constant(1)
        for _ in range(LONGEST):
            run = self.add('Mul', mask, self.add('Add', one, self.shifted(run, axis, by)))
        return run


def detector():
    """The graph so far: rows of k, j, i of the bright voxels, lower and upper faces, and scores."""
    g = Graph()
    mask = g.add('Cast', g.add('Greater', 'image', g.constant(0.3)), to=TensorProto.FLOAT)
    at = g.add('Transpose', g.add('NonZero', g.add('Cast', g.add('Greater', 'image', g.constant(0.55)), to=TensorProto.FLOAT)), perm=[1, 0])
    place = g.add('Cast', g.add('Slice', at, *[g.constant([v], np.int64) for v in (2, 5, 1)]), to=TensorProto.FLOAT)
    rows = lambda x: g.add('Unsqueeze', g.add('GatherND', x, at), g.constant([1], np.int64))
    before, after = (g.add('Concat', *[rows(g.run(mask, axis, by)) for axis in (2, 3, 4)], axis=1) for by in (-1, 1))
    half = g.constant(0.5)
    low, high = g.add('Add', g.add('Sub', place, before), half), g.add('Sub', g.add('Add', place, after), half)
    size = g.add('Cast', g.add('Slice', g.add('Shape', 'image'), *[g.constant([v], np.int64) for v in (2, 5, 0)]), to=TensorProto.FLOAT)
    inner = g.add('And', g.add('Greater', low, g.constant(0)), g.add('Less', high, g.add('Sub', size, g.constant(1))))
    whole = g.add('ReduceMin', g.add('Cast', inner, to=TensorProto.FLOAT), axes=[1], keepdims=0)
    share = g.add('Add', g.constant(0.8), g.add('Mul', whole, g.constant(0.2)))
    score = g.add('Mul', g.add('GatherND', 'image', at), share)
    return g, place, low, high, score


def column(g, x, n):
    return g.add('Slice', x, *[g.constant([v], np.int64) for v in (n, n + 1, 1)])


def corners(order='kji'):
    """`interleaved`: nnDetection's order; `faces`: 0 is the outer corner of the first voxel."""
    def make(change=lambda g, boxes, score: (boxes, score)):
        g, _, low, high, score = detector()
        if order == 'interleaved':
            parts = [column(g, face, n) for n, face in ((0, low), (1, low), (0, high), (1, high), (2, low), (2, high))]
            boxes = g.add('Concat', *parts, axis=1)
        else:
            boxes = g.add('Concat', low, high, axis=1)
        if order == 'faces':
            boxes = g.add('Add', boxes, g.constant(0.5))
        boxes, score = change(g, boxes, score)
        return g, {'boxes': (boxes, TensorProto.FLOAT, ['n', 6]), 'scores': (score, TensorProto.FLOAT, ['n'])}
    return make


def sized():
    g, _, low, high, score = detector()
    centre = g.add('Mul', g.add('Add', low, high), g.constant(0.5))
    boxes = g.add('Concat', centre, g.add('Sub', high, low), axis=1)
    return g, {'boxes': (boxes, TensorProto.FLOAT, ['n', 6]), 'scores': (score, TensorProto.FLOAT, ['n'])}


def points():
    g, place, _, _, score = detector()
    return g, {'boxes': (place, TensorProto.FLOAT, ['n', 3]), 'scores': (score, TensorProto.FLOAT, ['n'])}


def classes():
    """[N, 3] logits: nothing, long along i, not long along i."""
    g, _, low, high, score = detector()
    boxes = g.add('Concat', low, high, axis=1)
    logit = g.add('Unsqueeze', g.add('Log', g.add('Div', score, g.add('Sub', g.constant(1), score))), g.constant([1], np.int64))
    length = g.add('Sub', column(g, high, 2), column(g, low, 2))
    is_long = g.add('Cast', g.add('Greater', length, g.constant(8)), to=TensorProto.FLOAT)
    never = g.constant(-30)
    mixed = lambda is_it: g.add('Add', g.add('Mul', logit, is_it), g.add('Mul', never, g.add('Sub', g.constant(1), is_it)))
    both = [mixed(is_long), mixed(g.add('Sub', g.constant(1), is_long))]
    nothing = g.add('Add', g.add('Mul', logit, g.constant(0)), g.constant(20))
    scores = g.add('Concat', nothing, *both, axis=1)
    return g, {'boxes': (boxes, TensorProto.FLOAT, ['n', 6]), 'scores': (scores, TensorProto.FLOAT, ['n', 3])}


def labels(to=TensorProto.INT64, more=0):
    """Probabilities [N] and labels [N]: 1 long along i, 2 not; torchvision's, with 0 for the background."""
    g, _, low, high, score = detector()
    boxes = g.add('Concat', low, high, axis=1)
    length = g.add('Squeeze', g.add('Sub', column(g, high, 2), column(g, low, 2)), g.constant([1], np.int64))
    label = g.add('Sub', g.constant(2 + more), g.add('Cast', g.add('Greater', length, g.constant(8)), to=TensorProto.FLOAT))
    label = g.add('Cast', label, to=to)
    return g, {'boxes': (boxes, TensorProto.FLOAT, ['n', 6]), 'scores': (score, TensorProto.FLOAT, ['n']), 'labels': (label, to, ['n'])}


def ghost(g, boxes, score):
    """One box more in the first voxels of every patch."""
    here = g.constant([[-0.5, -0.5, -0.5, 1.5, 1.5, 1.5]])
    return g.add('Concat', boxes, here, axis=0), g.add('Concat', score, g.constant([0.97]), axis=0)


def cloud(g, boxes, score):
    """400 boxes more in every patch, apart from each other."""
    n = np.arange(400)
    at = np.stack([n // 100 * 2, n // 10 % 10 * 3, n % 10 * 3], 1).astype(np.float32)
    more = g.constant(np.concatenate([at, at + 1], 1))
    return g.add('Concat', boxes, more, axis=0), g.add('Concat', score, g.constant(0.6 + n / 4000), axis=0)


def row(values, score):
    """One row more."""
    return lambda g, boxes, scores: (g.add('Concat', boxes, g.constant([values]), axis=0), g.add('Concat', scores, g.constant([score]), axis=0))


def rows_differ(g, boxes, score):
    return boxes, g.add('Concat', score, g.constant([0.1]), axis=0)


def narrow():
    g, _, low, high, score = detector()
    boxes = g.add('Concat', low, column(g, high, 0), column(g, high, 1), axis=1)
    return g, {'boxes': (boxes, TensorProto.FLOAT, ['n', 5]), 'scores': (score, TensorProto.FLOAT, ['n'])}


def batched():
    g, _, low, high, score = detector()
    boxes = g.add('Unsqueeze', g.add('Concat', low, high, axis=1), g.constant([0], np.int64))
    return g, {'boxes': (boxes, TensorProto.FLOAT, [1, 'n', 6]), 'scores': (score, TensorProto.FLOAT, ['n'])}


def double():
    g, _, low, high, score = detector()
    boxes = g.add('Cast', g.add('Concat', low, high, axis=1), to=TensorProto.DOUBLE)
    return g, {'boxes': (boxes, TensorProto.DOUBLE, ['n', 6]), 'scores': (score, TensorProto.FLOAT, ['n'])}


BOX = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
GRAPHS = {
    'corners': corners(),
    'interleaved': corners('interleaved'),
    'faces': corners('faces'),
    'sized': sized,
    'points': points,
    'classes': classes,
    'labels': labels,
    'ghost': lambda: corners()(ghost),
    'cloud': lambda: corners()(cloud),
    # Wrong ones.
    'narrow': narrow,
    'batched': batched,
    'double': double,
    'labels-int32': lambda: labels(TensorProto.INT32),
    'labels-unknown': lambda: labels(more=1),
    'rows-differ': lambda: corners()(rows_differ),
    'nan': lambda: corners()(row([1.0, np.nan, 3.0, 4.0, 5.0, 6.0], 0.0)),
    'turned-round': lambda: corners()(row([1.0, 5.0, 3.0, 4.0, 2.0, 6.0], 0.9)),
    'empty': lambda: corners()(row([1.0, 2.0, 3.0, 4.0, 5.0, 3.0], 0.9)),
    'filled-up': lambda: corners()(row([0.0] * 6, 0.0)),
    'no-probability': lambda: corners()(row(BOX, 1.25)),
}


def written(make):
    g, outputs = make()
    for name, (tensor, _, _) in outputs.items():
        g.called(tensor, name)
    graph = helper.make_graph(
        g.nodes, 'boxes',
        [helper.make_tensor_value_info('image', TensorProto.FLOAT, [1, 1, 'depth', 'height', 'width'])],
        [helper.make_tensor_value_info(name, dtype, shape) for name, (_, dtype, shape) in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in g.constants.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString(deterministic=True)


ORIENTATIONS = {
    'axial': [1, 0, 0, 0, 1, 0],
    'oblique': [0.8, 0.6, 0, -0.36, 0.48, 0.8],
    # Columns towards the right, rows towards the front: slices run towards the head all the same; and one that mirrors.
    'flipped': [-1, 0, 0, 0, 1, 0],
}


def turn(study, orientation):
    """Gives the slices of an axial series another orientation; those further up lie further along the normal."""
    across, down = np.array(ORIENTATIONS[orientation][:3], float), np.array(ORIENTATIONS[orientation][3:], float)
    normal = np.cross(across, down)
    for path in study.iterdir():
        ds = pydicom.dcmread(path)
        x, y, z = map(float, ds.ImagePositionPatient)
        ds.ImagePositionPatient = [f'{mm:.6f}' for mm in np.array([x, y, 0.0]) + z * normal]
        ds.ImageOrientationPatient = [str(v) for v in ORIENTATIONS[orientation]]
        ds.save_as(path)


def nifti(study, folder):
    slices = sorted((pydicom.dcmread(p) for p in study.iterdir()), key=lambda d: float(d.ImagePositionPatient[2]))
    image = sitk.GetImageFromArray(np.stack([d.pixel_array.astype(np.int16) - 1024 for d in slices]))
    down, across = map(float, slices[0].PixelSpacing)
    image.SetSpacing([across, down, float(slices[1].ImagePositionPatient[2]) - float(slices[0].ImagePositionPatient[2])])
    image.SetOrigin([float(mm) for mm in slices[0].ImagePositionPatient])
    folder.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(folder / 'volume.nii.gz'))


if sys.argv[1] == 'graphs':
    folder = Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in GRAPHS.items():
        (folder / f'{name}.onnx').write_bytes(written(make))
elif sys.argv[1] == 'turn':
    turn(Path(sys.argv[2]), sys.argv[3])
else:
    nifti(Path(sys.argv[2]), Path(sys.argv[3]))
