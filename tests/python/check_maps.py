#!/usr/bin/env python3
"""The maps of models/ct-tissue computed independently: the formula in float64, SciPy for the way back to the source grid.

usage: check_maps.py STUDY_DIR MAPS_DIR

MAPS_DIR holds 0.raw (lung probability) and 1.raw (tissue uncertainty): float32 [slice, row, column].
"""
import sys
from pathlib import Path

import numpy as np

import ct_tissue_reference as reference

study, maps = Path(sys.argv[1]), Path(sys.argv[2])
image = reference.read_series(study)
p = np.maximum(np.stack(list(reference.scores_on_source(image))), 0)
p /= p.sum(axis=0)
uncertainty = -(p * np.log(np.where(p > 0, p, 1))).sum(axis=0) / np.log(len(p))
bad = []
for n, (name, expected) in enumerate((('lung probability', p[1]), ('tissue uncertainty', uncertainty))):
    found = np.fromfile(maps / f'{n}.raw', '<f4').reshape(expected.shape)
    off = np.abs(found - expected)
    print(f'{name}: {off.size} values, off by at most {off.max():.2e}, in the mean by {off.mean():.2e}; {expected.min():.3f} to {expected.max():.3f}')
    # Single precision, with edges weighted as little as 0.02.
    if not (off.max() < 2e-5 and off.mean() < 1e-6) or expected.max() - expected.min() < 0.5:
        bad.append(name)
sys.exit(f'{bad} differ' if bad else 0)
