#!/usr/bin/env python3
"""How well cxr-screen tells its findings on patients that the training never saw, and what it says of images of people.

usage: evaluate.py held-out WORK                       areas under the ROC, sensitivity and specificity
       evaluate.py images FILE..                      probabilities for pictures or DICOM files
Both take [--model FILE], before the command.

`held-out` renders TUNING patients, on which thresholds are chosen (the point of the ROC with the greatest sum of sensitivity and
specificity), and TEST others, on which everything is measured: one image a patient, so that images are independent. Intervals are from
2000 bootstrap samples of patients, 95 %.
"""
import argparse
from pathlib import Path

import numpy as np
import onnxruntime
from scipy import ndimage
from scipy.stats import rankdata

import radiographs
import train
from radiographs import FINDINGS, REPORTED, SIZE

SEED, TUNING, TEST = 7, 50, 100            # patients 10000 SEED and on, the first TUNING for thresholds
BOOTSTRAP = 2000


class Model:
    def __init__(self, path):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def probabilities(self, images):
        logits = self.session.run(None, {"image": np.stack(images)[:, None].astype(np.float32)})[0]
        return 1 / (1 + np.exp(-logits.astype(np.float64)))


def auc(truth, score):
    """Share of pairs of a positive and a negative that are in order; ties count half."""
    ranks, positives = rankdata(score), truth.sum()
    return (ranks[truth].sum() - positives * (positives + 1) / 2) / (positives * (~truth).sum())


def rates(truth, score, at):
    return np.array([(score[truth] >= at).mean(), (score[~truth] < at).mean()])


def best_threshold(truth, score):
    """The point of the ROC with the greatest sum, in the middle between two scores."""
    levels = np.unique(score)
    middles = (levels[1:] + levels[:-1]) / 2
    return float(max(middles, key=lambda at: rates(truth, score, at).sum()))


def interval(measure, truth, score, rng):
    found = []
    while len(found) < BOOTSTRAP:
        chosen = rng.integers(0, len(truth), len(truth))
        if 0 < truth[chosen].sum() < len(truth):
            found.append(measure(truth[chosen], score[chosen]))
    return np.percentile(found, [2.5, 97.5], 0)


def held_out_images(work, seeds):
    patients = train.render_all(work, seeds, 1)
    image = lambda seed, integrals: radiographs.prepared(radiographs.acquire(integrals.astype(np.float32), np.random.default_rng([seed, 60])))
    return [image(seed, one[0][0]) for seed, one in zip(seeds, patients)], np.array([one[1][0] for one in patients])


def held_out(model, work):
    first = 10_000 * SEED
    tuning, test = range(first, first + TUNING), range(first + TUNING, first + TUNING + TEST)
    images, truth = held_out_images(work, tuning)
    score = model.probabilities(images)
    thresholds = [best_threshold(truth[:, finding], score[:, n]) for n, finding in enumerate(REPORTED)]
    images, truth = held_out_images(work, test)
    score = model.probabilities(images)
    rng = np.random.default_rng([SEED, 61])
    print("| finding | with it, of " f"{TEST}" " | AUC (95 %) | threshold | sensitivity (95 %) | specificity (95 %) |\n|---|---|---|---|---|---|")
    for n, finding in enumerate(REPORTED):
        name, t, s, at = FINDINGS[finding], truth[:, finding], score[:, n], round(thresholds[n], 3)
        low, high = interval(auc, t, s, rng)
        both, ends = rates(t, s, at), interval(lambda a, b: rates(a, b, at), t, s, rng)
        cells = [f"{both[m]:.2f} ({ends[0][m]:.2f} to {ends[1][m]:.2f})" for m in range(2)]
        print(f"| {name} | {t.sum()} | {auc(t, s):.3f} ({low:.3f} to {high:.3f}) | {at:.3f} | {cells[0]} | {cells[1]} |")


def fitted(image):
    """A picture of any size as the network sees it."""
    low, high = np.percentile(image, [1, 99])
    image = np.clip((image - low) / max(high - low, 1e-8), 0, 1)
    scale = SIZE / max(image.shape)
    image = ndimage.zoom(ndimage.uniform_filter(image, max(1, round(1 / scale))), scale, order=1, grid_mode=True, mode="nearest")
    out = np.zeros((SIZE, SIZE), np.float32)
    top, left = [(SIZE - n) // 2 for n in image.shape]
    out[top:top + image.shape[0], left:left + image.shape[1]] = image
    return out


def read(path):
    if path.suffix.lower() in (".png", ".jpg", ".jpeg"):
        from PIL import Image
        return np.asarray(Image.open(path).convert("L"), np.float32)
    import pydicom
    data = pydicom.dcmread(path)
    pixels = data.pixel_array.astype(np.float32)
    return -pixels if data.PhotometricInterpretation == "MONOCHROME1" else pixels


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path(__file__).parent / "cxr-screen.onnx")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("held-out").add_argument("work", type=Path)
    commands.add_parser("images").add_argument("files", type=Path, nargs="+")
    options = parser.parse_args()
    model = Model(options.model)
    if options.command == "held-out":
        held_out(model, options.work)
    else:
        for path in options.files:
            print(path.name, dict(zip([FINDINGS[n] for n in REPORTED], model.probabilities([fitted(read(path))])[0].round(3).tolist())))


if __name__ == "__main__":
    main()
