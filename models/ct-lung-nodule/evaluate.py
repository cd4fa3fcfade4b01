#!/usr/bin/env python3
"""What ct-lung-nodule finds: free-response ROC and volumes on held-out phantoms, and lungs and findings on a real CT.

usage: evaluate.py make-phantom WORK --tool make_phantom.py     40 phantoms of that generator, which the training never saw
       evaluate.py own WORK                                     20 whole chests of phantoms.py, of other seeds than the training's
       evaluate.py ct INPUT [--lobes FILE] [--picture FILE.png]
                                                                a NIfTI file or a folder of one DICOM series; a label map of
                                                                TotalSegmentator on its grid, whose labels 10 to 14 are lung lobes
All take [--model FILE] [--score mean | maximum], and [--overlap 0.5 | 0.25] for tiles of 96^3 blended by a Gaussian in place of the whole volume in one run.
The first two take [--first SEED] [--count N] and [--min-score S], a score at which sensitivity and false positives are printed too.

A finding is a 26-connected component of at least 0.035 ml of voxels whose largest score is the nodule's; its score is the mean of their
softmax probabilities, or with --score maximum the greatest. It hits a nodule if its centre of mass lies within the nodule's radius of the nodule's centre (LUNA16's rule), and only the best
scored hit of a nodule counts. What hits none is a false positive. Nodules below 5 mm and what hits them count neither way.
"""
import argparse
import importlib.util
import json
from pathlib import Path

import numpy as np
import onnxruntime
from scipy import ndimage

import phantoms
from phantoms import LUNG, NODULE, SPACING_MM

CLIP_HU, SUBTRACT_HU, DIVIDE_HU = (-1024.0, 1024.0), -400.0, 500.0
STRIDE = 8
TILE = 96
SMALLEST_MM = 5.0
LEAST_MM3 = 35.0                    # of a finding: a ball of 4 mm
FALSE_POSITIVES = (0.125, 0.25, 0.5, 1, 2, 4, 8)


class Model:
    def __init__(self, path, overlap=None):
        options = onnxruntime.SessionOptions()
        options.enable_mem_pattern = False
        options.intra_op_num_threads = 2
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.overlap = overlap

    def scores(self, hu):
        """Logits [3, k, j, i] of HU [k, j, i] on the 1.5 mm grid."""
        unit = STRIDE if self.overlap is None else TILE
        pads = [(0, -n % STRIDE if n > unit else unit - n) for n in hu.shape]
        image = (np.clip(np.pad(hu, pads, constant_values=CLIP_HU[0]), *CLIP_HU).astype(np.float32) - SUBTRACT_HU) / DIVIDE_HU
        image = image.astype(np.float32)
        run = lambda part: self.session.run(None, {"image": np.ascontiguousarray(part[None, None])})[0][0]
        if self.overlap is None:
            out = run(image)
        else:
            at = np.exp(-0.5 * ((np.arange(TILE) - (TILE - 1) / 2) / (TILE / 8)) ** 2)
            weight = np.maximum(at[:, None, None] * at[:, None] * at, 1e-4).astype(np.float32)
            out, total = np.zeros((3, *image.shape), np.float32), np.zeros(image.shape, np.float32)
            starts = [np.unique(np.round(np.linspace(0, n - TILE, 1 + int(np.ceil((n - TILE) / (TILE * (1 - self.overlap)))))).astype(int))
                      for n in image.shape]
            for start in np.stack(np.meshgrid(*starts, indexing="ij"), -1).reshape(-1, 3):
                box = tuple(slice(s, s + TILE) for s in start)
                out[(slice(None), *box)] += weight * run(image[box])
                total[box] += weight
            out /= total
        return out[(slice(None), *[slice(0, n) for n in hu.shape])]


def findings(scores):
    """(label map, findings): each with centre (k, j, i), volume in mm3 and score."""
    label = scores.argmax(0).astype(np.uint8)
    which, count = ndimage.label(label == NODULE, np.ones((3, 3, 3)))
    found = []
    for n, box in enumerate(ndimage.find_objects(which), 1):
        inside = which[box] == n
        if inside.sum() * SPACING_MM ** 3 < LEAST_MM3:
            continue
        logits = scores[(slice(None), *box)][:, inside].astype(np.float64)
        p = np.exp(logits[NODULE] - logits.max(0)) / np.exp(logits - logits.max(0)).sum(0)
        centre = np.array([w.mean() for w in np.nonzero(inside)]) + [s.start for s in box]
        found.append({"centre": centre, "volume": float(inside.sum()) * SPACING_MM ** 3, "maximum": float(p.max()), "mean": float(p.mean())})
    return label, found


def make_phantom_case(tool, seed, cache):
    """One phantom of the other generator, 1 x 1 x 1.5 mm with 20 HU of noise, resampled to 1.5 mm; and its nodules."""
    file = cache / f"make-phantom-{seed:03}.npz"
    if not file.exists():
        a = argparse.Namespace(rows=256, cols=320, slices=200, dx=1.0, dy=1.0, dz=1.5, oblique=(0., 0., 0.), tilt=0.0,
                               offset=(12.5, -160.0, -620.0), seed=seed, noise=20.0, nodules=8, nodule=None, diameters=None,
                               no_vessels=False, emphysema=0.0, calcium=0, modality="CT", signed=False)
        grid = tool.Grid(a)
        scene = tool.Scene(a, grid)
        scene.index_segments()
        hu, lung = np.zeros((a.slices, a.rows, a.cols), np.int16), np.zeros((a.slices, a.rows, a.cols), np.uint8)
        for k in range(a.slices):
            clean, label, _, _ = scene.render(k)
            hu[k] = tool.stored_values(a, clean + tool.noise(a, k, clean.shape)).astype(np.int16) - 1024
            lung[k] = np.isin(label, tool.LUNG_SET)
        dims = [int(n * s / SPACING_MM) for n, s in zip(hu.shape, (a.dz, a.dy, a.dx))]
        scale = np.array([SPACING_MM / s for s in (a.dz, a.dy, a.dx)])
        shift = (np.array(hu.shape) - 1) / 2 - scale * (np.array(dims) - 1) / 2          # same centre
        image = ndimage.affine_transform(hu.astype(np.float32), scale, shift, dims, order=1)
        lung = ndimage.affine_transform(lung, scale, shift, dims, order=0)
        nodules = [{"centre": (((grid.Li[:3, :3] @ m.c + grid.Li[:3, 3])[::-1] - shift) / scale).tolist(), "volume": m.volume, "kind": m.kind}
                   for m in scene.nodules]
        np.savez_compressed(file, hu=np.rint(image).astype(np.int16), lung=lung, nodules=json.dumps(nodules))
    return load(file)


def own_case(seed, cache):
    """One whole chest of phantoms.py, acquired, and its nodules of at least ten voxels."""
    file = cache / f"own-{seed:03}.npz"
    if not file.exists():
        dims = (208, 176, 240)
        hu, label, which = phantoms.Chest(seed, nodules=8).render(dims, -(np.array(dims[::-1]) - 1) / 2 * SPACING_MM)
        hu = phantoms.acquire(hu, np.random.default_rng([seed, 40]))
        chest = phantoms.Chest(seed, nodules=8)
        nodules = [{"centre": np.argwhere(which == n).mean(0).tolist(), "volume": int((which == n).sum()) * SPACING_MM ** 3,
                    "kind": str(chest.nodules[n - 1].kind)} for n in np.unique(which[which > 0]) if (which == n).sum() >= 10]
        np.savez_compressed(file, hu=np.clip(np.rint(hu), -1024, 3071).astype(np.int16), lung=(label != 0).astype(np.uint8),
                            nodules=json.dumps(nodules))
    return load(file)


def load(file):
    with np.load(file) as f:
        nodules = json.loads(str(f["nodules"]))
        for n in nodules:
            n["centre"], n["diameter"] = np.array(n["centre"]), (6 * n["volume"] / np.pi) ** (1 / 3)
        return f["hu"], f["lung"], nodules


def froc(cases, key, least):
    """Prints the curve for `cases` = [(nodules, findings)] and the point of a `least` score, then volume errors and kinds at one false positive a volume."""
    hits, false = [], []        # (score, nodule, finding), score
    for nodules, found in cases:
        best = {}
        for f in found:
            away = [np.linalg.norm(f["centre"] - n["centre"]) * SPACING_MM / (n["diameter"] / 2) for n in nodules]
            near = int(np.argmin(away)) if away else -1
            if near < 0 or away[near] > 1:
                false.append(f[key])
            elif near not in best or best[near][key] < f[key]:
                best[near] = f
        hits += [(f[key], nodules[n], f) for n, f in best.items() if nodules[n]["diameter"] >= SMALLEST_MM]
    wanted = [n for nodules, _ in cases for n in nodules if n["diameter"] >= SMALLEST_MM]
    false = np.sort(false)[::-1]
    print(f"{len(cases)} volumes, {len(wanted)} nodules of at least {SMALLEST_MM:g} mm, {len(false)} false positives in all")
    for rate in FALSE_POSITIVES:
        allowed = int(rate * len(cases))
        threshold = false[allowed] if len(false) > allowed else 0.0
        print(f"  {rate:5g} false positives a volume: sensitivity {sum(s > threshold for s, *_ in hits) / len(wanted):.3f}, score above {threshold:.4f}")
        if rate == 1:
            kept = [(n, f) for s, n, f in hits if s > threshold]
    if least is not None:
        print(f"  score above {least:g}: {sum(false > least) / len(cases):.2f} false positives a volume, "
              f"sensitivity {sum(s > least for s, *_ in hits) / len(wanted):.3f}")
    error = np.array([f["volume"] / n["volume"] - 1 for n, f in kept])
    print(f"  volume at 1: median of absolute errors {np.median(abs(error)):.3f}, of errors {np.median(error):+.3f}, "
          f"10th to 90th percentile {np.percentile(error, 10):+.3f} to {np.percentile(error, 90):+.3f}")
    groups = [(k, lambda n, k=k: n["kind"] == k) for k in sorted({n["kind"] for n in wanted})]
    groups += [(f"{a} to {b} mm", lambda n, a=a, b=b: a <= n["diameter"] < b) for a, b in ((5, 8), (8, 12), (12, 20), (20, 60))]
    for name, belongs in groups:
        e = np.array([f["volume"] / n["volume"] - 1 for n, f in kept if belongs(n)])
        if len(e):
            print(f"    {name}: {len(e)} of {sum(map(belongs, wanted))} found, median volume error {np.median(e):+.3f}, "
                  f"absolute {np.median(abs(e)):.3f}")


def phantoms_of(options):
    options.work.mkdir(parents=True, exist_ok=True)
    model, cases, overlaps, ratios = Model(options.model, options.overlap), [], [], []
    if options.command == "make-phantom":
        spec = importlib.util.spec_from_file_location("make_phantom", options.tool)
        tool = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(tool)
    for seed in range(options.first, options.first + options.count):
        hu, lung, nodules = make_phantom_case(tool, seed, options.work) if options.command == "make-phantom" else own_case(seed, options.work)
        label, found = findings(model.scores(hu))
        cases.append((nodules, found))
        mine = label != 0
        overlaps.append(2 * (mine & (lung != 0)).sum() / max(1, mine.sum() + (lung != 0).sum()))
        ratios.append(mine.sum() / max(1, lung.sum()) - 1)
    print(f"lungs with nodules: Dice median {np.median(overlaps):.4f}, least {min(overlaps):.4f}; "
          f"volume error median {np.median(ratios):+.4f}, from {min(ratios):+.4f} to {max(ratios):+.4f}")
    froc(cases, options.score, options.min_score)


def ct(options):
    """Lungs against a threshold, findings, and a picture: three planes through the largest findings or the middle."""
    import SimpleITK as sitk
    if options.input.is_dir():
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(options.input)))
        image = reader.Execute()
    else:
        image = sitk.ReadImage(str(options.input))
    image = sitk.DICOMOrient(sitk.Cast(image, sitk.sitkFloat32), "LPS")
    size = [max(1, round(n * s / SPACING_MM)) for n, s in zip(image.GetSize(), image.GetSpacing())]
    middle = image.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in image.GetSize()])
    axes = np.array(image.GetDirection()).reshape(3, 3)
    origin = np.array(middle) - axes @ ((np.array(size) - 1) / 2 * SPACING_MM)

    def resample(image, interpolator, outside):
        return sitk.GetArrayFromImage(sitk.Resample(image, size, sitk.Transform(), interpolator, origin.tolist(), [SPACING_MM] * 3,
                                                    axes.ravel().tolist(), outside))

    hu = resample(image, sitk.sitkLinear, CLIP_HU[0])
    label, found = findings(Model(options.model, options.overlap).scores(hu))
    ml = SPACING_MM ** 3 / 1000
    print(f"{options.input.name}: {hu.shape[::-1]} voxels of {SPACING_MM} mm, lung {(label != 0).sum() * ml:.1f} ml")
    by_hu = threshold_lungs(hu)
    dice = 2 * (by_hu & (label != 0)).sum() / max(1, by_hu.sum() + (label != 0).sum())
    print(f"  by threshold {by_hu.sum() * ml:.1f} ml, Dice {dice:.3f}")
    if options.lobes:
        lobes = resample(sitk.DICOMOrient(sitk.ReadImage(str(options.lobes)), "LPS"), sitk.sitkNearestNeighbor, 0.0)
        lobes = (lobes >= 10) & (lobes <= 14)
        dice = 2 * (lobes & (label != 0)).sum() / max(1, lobes.sum() + (label != 0).sum())
        print(f"  by TotalSegmentator {lobes.sum() * ml:.1f} ml, Dice {dice:.3f}")
    found.sort(key=lambda f: -f[options.score] * f["volume"])
    for f in found[:12]:
        print(f"  finding at (k, j, i) {np.rint(f['centre']).astype(int).tolist()}: {f['volume']:.0f} mm3, score {f[options.score]:.3f}")
    if options.picture:
        draw(options.picture, hu, label, [int(round(f["centre"][0])) for f in found[:2]])


def draw(path, hu, label, planes):
    """Axial planes (the given ones and four others) and two coronal ones, each without and with labels: lung blue, nodule red."""
    from PIL import Image
    cells = [(hu[k], label[k]) for k in planes + [hu.shape[0] * n // 8 for n in (1, 3, 5, 7)]]
    cells += [(hu[::-1, j], label[::-1, j]) for j in (hu.shape[1] * 2 // 5, hu.shape[1] * 3 // 5)]
    tall = max(h.shape[0] for h, _ in cells)
    pictures = []
    for h, l in cells:
        grey = np.stack([np.clip((h + 1000) / 1400 * 255, 0, 255)] * 3, -1)
        colour = grey.copy()
        colour[l == LUNG, 2] = np.minimum(255, colour[l == LUNG, 2] + 90)
        colour[l == NODULE, 0] = 255
        pictures.append(np.pad(np.hstack([grey, colour]), ((0, tall - h.shape[0]), (0, 0), (0, 0))))
    pictures += [np.zeros_like(pictures[0])] * (-len(pictures) % 3)
    rows = [np.hstack(pictures[n:n + 3]) for n in range(0, len(pictures), 3)]
    Image.fromarray(np.vstack(rows).astype(np.uint8)).save(path)


def threshold_lungs(hu):
    """Lungs as a threshold finds them: -950 to -350 HU (smoothed, so that noise makes no holes), without what touches the sides of the
    image, closed by 4.5 mm so that small vessels belong to them, components of at least 20 ml."""
    smooth = ndimage.gaussian_filter(hu.astype(np.float32), 0.7)
    low = smooth < -350
    which, count = ndimage.label(low)
    sides = np.concatenate([which[:, [0, -1]].ravel(), which[:, :, [0, -1]].ravel()])
    sizes = np.bincount(which.ravel(), minlength=count + 1)
    means = ndimage.mean(hu, which, np.arange(count + 1)) if count else np.zeros(1)
    good = (sizes * SPACING_MM ** 3 >= 20000) & (means > -950) & (means < -500)
    good[np.unique(sides)] = False
    good[0] = False
    return ndimage.binary_closing(np.pad(good[which], 4, mode="edge"), iterations=3)[4:-4, 4:-4, 4:-4]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, count in (("make-phantom", 40), ("own", 20)):
        c = commands.add_parser(name)
        c.add_argument("work", type=Path)
        c.add_argument("--first", type=int, default=1)
        c.add_argument("--count", type=int, default=count)
        c.add_argument("--min-score", type=float)
        if name == "make-phantom":
            c.add_argument("--tool", type=Path, required=True)
        c.set_defaults(run=phantoms_of)
    c = commands.add_parser("ct")
    c.add_argument("input", type=Path)
    c.add_argument("--lobes", type=Path)
    c.add_argument("--picture", type=Path)
    c.set_defaults(run=ct)
    for c in commands.choices.values():
        c.add_argument("--model", type=Path, default=Path(__file__).parent / "ct-lung-nodule.onnx")
        c.add_argument("--overlap", type=float)
        c.add_argument("--score", choices=("mean", "maximum"), default="mean")
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
