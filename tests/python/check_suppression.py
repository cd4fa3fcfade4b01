#!/usr/bin/env python3
"""Hold non-maximum suppression against a greedy one in numpy, written as torchvision's `nms`: boxes in mm, class by class.

usage: check_suppression.py CASES.json

Each case has `boxes` and those that were `kept`, rows of class, score, lower and upper faces along i, j, k in voxels. Exit 0, or 1.
"""
import json
import sys
from pathlib import Path

import numpy as np


def nms(faces, order, most):
    """Places of the rows that stay; `order` is by falling score."""
    volume = np.prod(faces[:, 3:] - faces[:, :3], axis=1)
    kept = []
    while len(order):
        first, order = order[0], order[1:]
        kept.append(first)
        shared = np.clip(np.minimum(faces[order, 3:], faces[first, 3:]) - np.maximum(faces[order, :3], faces[first, :3]), 0, None).prod(axis=1)
        iou = shared / (volume[order] + volume[first] - shared)
        order = order[iou <= most]
    return kept


wrong, counts = 0, [0, 0]
for case in json.loads(Path(sys.argv[1]).read_text()):
    spacing = np.array(case['spacing_mm'])
    rows = case['boxes']
    faces = np.array([[*(np.array(low) * spacing), *(np.array(high) * spacing)] for _, _, low, high in rows])
    # Falling score, equals by place along k, then j, then i.
    order = sorted(range(len(rows)), key=lambda n: (-rows[n][1], rows[n][2][::-1], rows[n][3][::-1], rows[n][0]))
    kept = {n for channel in (0, 1) for n in nms(faces, np.array([n for n in order if rows[n][0] == channel], int), case['max_iou'])}
    wrong += [rows[n] for n in order if n in kept] != case['kept']
    counts = [counts[0] + len(rows), counts[1] + len(kept)]
print(f'{wrong} cases differ' if wrong else f'{counts[1]} of {counts[0]} boxes stay, as numpy says')
sys.exit(wrong > 0)
