#!/usr/bin/env python3
"""Checks models/ct-tissue: build_model.py writes the committed bytes, model.toml has their SHA-256, and ONNX Runtime computes the
formula of MODEL_CARD.md (here in NumPy, float64) on random images, flat ones, one voxel, and tile by tile.

usage: test_model.py        prints the largest difference; exit 0: all well, 1: not
"""
import hashlib
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import numpy as np
import onnxruntime

from ct_tissue_reference import scores

PACKAGE = Path(__file__).resolve().parents[2] / "models" / "ct-tissue"
TOLERANCE = 1e-5        # float32: a threshold's logit is at most 200, so about 1e-5 off, and moves a score by at most a quarter of that


def main():
    failed = False

    def check(name, good, text):
        nonlocal failed
        failed |= not good
        print(f"{'ok  ' if good else 'FAIL'}  {name}: {text}")

    committed = (PACKAGE / "ct-tissue.onnx").read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder) / "ct-tissue.onnx"
        subprocess.run([sys.executable, PACKAGE / "build_model.py", built], check=True)
        check("build_model.py", built.read_bytes() == committed, "writes the committed bytes")
    manifest = tomllib.loads((PACKAGE / "model.toml").read_text(encoding="utf-8"))
    digest = hashlib.sha256(committed).hexdigest()
    check("model.toml", manifest["file"][0]["sha256"] == digest, f"sha256 {digest}")

    options = onnxruntime.SessionOptions()
    options.enable_mem_pattern = False
    session = onnxruntime.InferenceSession(committed, options, providers=["CPUExecutionProvider"])

    def network(hu):
        return session.run(None, {"image": (hu / 1000)[None, None].astype(np.float32)})[0][0]

    random = np.random.default_rng(20240601)
    blocks = np.kron(random.choice([-1000.0, -850.0, -100.0, 45.0, 900.0], (7, 6, 5)), np.ones((5, 6, 7)))
    images = {
        "noise around 0 HU": random.normal(0, 300, (33, 40, 37)),
        "whole range": random.uniform(-1024, 3071, (20, 31, 18)),
        "blocks of tissue": blocks + random.normal(0, 15, blocks.shape),
        "flat at a threshold": np.full((4, 5, 6), -930.0),
        "one voxel": np.array([[[47.0]]]),
        "one slice": random.normal(-200, 400, (1, 50, 41)),
    }
    for name, hu in images.items():
        hu = hu.astype(np.float32).astype(np.float64)
        difference = np.abs(network(hu) - scores(hu)).max()
        check(name, difference <= TOLERANCE, f"max abs difference {difference:.2e} (allowed {TOLERANCE:.0e})")

    # Tiles of 16 with a halo of 2 give what the whole image gives.
    hu, halo = images["blocks of tissue"], manifest["inference"]["tiles"]["halo"]
    whole, tiled, step = network(hu), np.empty((5, *hu.shape), np.float32), 16 - 2 * halo
    for corner in np.ndindex(*(-(-n // step) for n in hu.shape)):
        keep = [(c * step, min((c + 1) * step, n)) for c, n in zip(corner, hu.shape)]
        read = [(max(a - halo, 0), min(b + halo, n)) for (a, b), n in zip(keep, hu.shape)]
        part = network(hu[tuple(slice(*r) for r in read)])
        inner = tuple(slice(a - r, b - r) for (a, b), (r, _) in zip(keep, read))
        tiled[(slice(None), *(slice(*k) for k in keep))] = part[(slice(None), *inner)]
    difference = np.abs(tiled - whole).max()
    check("tiles", difference <= 1e-6, f"max abs difference to the whole image {difference:.2e} (allowed 1e-06)")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
