"""Chest radiographs as projections of random chests: what cxr-screen is trained on.

A chest of ../ct-lung-nodule/phantoms.py is drawn from a seed, its heart made as wide as its label says, and rendered once at 3 mm. `view`
draws nodules and fluid into the lungs and projects the volume through a point source onto a detector: line integrals of attenuation.
`acquire` then makes of them what a detector and its processing would: field, contrast, blur, noise, markers, position of the patient.

Coordinates are patient LPS in mm: x to the left, y to the back, z to the head; volumes are [k, j, i] = [z, y, x]. An image has the
patient's left on its right and the head above, high values where much was absorbed, as MONOCHROME2 images for presentation have.
"""
import importlib.util
from pathlib import Path

import numpy as np
from scipy import ndimage

F = np.float32
FINDINGS = ("nodule or mass", "pleural effusion", "cardiomegaly")
NODULE, EFFUSION, HEART = range(3)
REPORTED = (EFFUSION, HEART)                    # what the package reports: the nodules were not learned (MODEL_CARD.md)
SIZE = 192                                      # pixels along a side that the network sees
DETECTOR, DETECTOR_MM = 256, 1.65               # pixels along a side of a cached projection, and the size of one
VOXEL_MM = 3.0
DIMS = (122, 94, 136)                           # voxels along z, y, x
ORIGIN = np.array([-(n - 1) / 2 * VOXEL_MM for n in DIMS[::-1]])    # of the first voxel's centre, x, y, z
NORMAL_RATIO, LARGE_RATIO = (0.34, 0.46), (0.54, 0.66)              # of the heart's width to the chest's; none lies between
WATER_PER_MM = 0.02                             # attenuation

_spec = importlib.util.spec_from_file_location("phantoms", Path(__file__).parent.parent / "ct-lung-nodule" / "phantoms.py")
phantoms = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(phantoms)
phantoms.SPACING_MM = phantoms.EDGE_MM = VOXEL_MM


def body(seed):
    """(HU float32, lung bool, whether the heart is enlarged): one patient, upright, without nodules and fluid."""
    rng = np.random.default_rng([seed, 40])
    chest = phantoms.Chest(seed, nodules=0)
    chest.table = chest.blanket = None
    chest.arms, chest.effusion = [False, False], [None, None]
    large = bool(rng.random() < 0.5)
    half = rng.uniform(*(LARGE_RATIO if large else NORMAL_RATIO)) * chest.cage[0]
    centre, radii = chest.heart
    grown = np.sqrt(half / radii[0])                            # a wide heart is a deep and tall one, less so
    chest.heart = (np.array([min(centre[0], 0.9 * (chest.cage[0] - half)), *centre[1:]]), np.array([half, *(radii[1:] * grown)]))
    hu, label, _ = chest.render(DIMS, ORIGIN)
    return hu, label == phantoms.LUNG, large


def axes():
    """z, y, x of the voxels, mm, to broadcast."""
    return np.meshgrid(*[np.arange(n, dtype=F) * F(VOXEL_MM) + F(o) for n, o in zip(DIMS, ORIGIN[::-1])], indexing="ij", sparse=True)


def add_nodule(hu, lung, rng):
    """A lump of 12 to 45 mm across, wherever there is lung."""
    radii = np.exp(rng.uniform(np.log(6), np.log(22.5))) * rng.uniform(0.8, 1.2, 3)
    inner = np.argwhere(lung[2:-2:2, ::2, ::2]) * 2 + (2, 0, 0)
    centre = inner[rng.integers(len(inner))][::-1] * VOXEL_MM + ORIGIN
    z, y, x = axes()
    d = phantoms.ellipsoid((x, y, z), centre, radii)
    cover = np.clip(F(0.5) - d / F(VOXEL_MM), 0, 1) * lung
    hu += cover * np.maximum(F(rng.uniform(0, 120)) - hu, 0)


def add_effusion(hu, lung, side, rng):
    """Fluid in one half of the chest, with a surface that rises towards the wall."""
    z, y, x = axes()
    half = lung & (x * F(side) > 0)
    places = np.argwhere(half)
    if len(places) < 500:
        return False
    low, high = np.percentile(places, 2, 0), np.percentile(places, 98, 0)
    middle, reach = (low + high) / 2, np.maximum((high - low) / 2, 1)
    k, j, i = np.ogrid[tuple(slice(0, n) for n in DIMS)]
    rise = rng.uniform(8, 30) / VOXEL_MM
    surface = low[0] + rng.uniform(0.10, 0.5) * (high[0] - low[0]) + rise * (((i - middle[2]) / reach[2]) ** 2 + ((j - middle[1]) / reach[1]) ** 2 - 0.7)
    cover = np.clip(surface - k + 0.5, 0, 1).astype(F) * half
    hu += cover * (F(rng.uniform(0, 30)) - hu)
    return True


def view(chest, seed, number):
    """(line integrals [DETECTOR, DETECTOR] float32, truth of FINDINGS): the `number`-th image of a patient, with findings of its own."""
    rng = np.random.default_rng([seed, 41, number])
    hu, lung, large = chest
    hu, truth = hu.copy(), [False, False, large]
    if rng.random() < 0.5:
        truth[NODULE] = True
        for _ in range(1 if rng.random() < 0.7 else rng.integers(2, 5)):
            add_nodule(hu, lung, rng)
    if rng.random() < 0.45:
        sides = [1, -1] if rng.random() < 0.25 else [rng.choice([1, -1])]
        truth[EFFUSION] = any([add_effusion(hu, lung, side, rng) for side in sides])
    if rng.random() < 0.3:                                      # another energy: bones absorb more or less
        hu = np.where(hu > 150, 150 + (hu - 150) * F(rng.uniform(0.5, 2.0)), hu)
    return project(hu, rng), truth


def project(hu, rng):
    """Line integrals through a volume, from a point source in front of the patient or behind. The volume is taken apart into slabs,
    each of which is projected along y and magnified as its middle is."""
    attenuation = F(WATER_PER_MM * VOXEL_MM) * np.maximum(1 + hu * F(1e-3), 0)
    distance, gap = rng.uniform(1000, 2000), rng.uniform(10, 60)            # source to detector, body to detector
    behind = rng.random() < 0.7                                             # of the patient: posterior-anterior
    shift = rng.normal(0, 12, 2)
    slabs, total = 12, np.zeros((DETECTOR, DETECTOR), F)
    edges = np.linspace(0, DIMS[1], slabs + 1).astype(int)
    for first, last in zip(edges, edges[1:]):
        flat = attenuation[:, first:last].sum(1)
        y = (first + last - 1) / 2 * VOXEL_MM + ORIGIN[1]
        to_detector = gap + (y - ORIGIN[1] if behind else -ORIGIN[1] - y)
        magnification = distance / (distance - to_detector)
        step = DETECTOR_MM / magnification / VOXEL_MM
        middle = (DETECTOR - 1) / 2
        # The row runs from head to feet: against z.
        offset = [(DIMS[0] - 1) / 2 + step * middle + shift[0] / VOXEL_MM, (DIMS[2] - 1) / 2 - step * middle + shift[1] / VOXEL_MM]
        total += ndimage.affine_transform(flat, [-step, step], offset, output_shape=total.shape, order=1, mode="nearest")
    return total


def acquire(integrals, rng):
    """What a detector and its processing make of line integrals: an image of any size and scale, values above 0 and below 4096."""
    u = rng.uniform
    height, width = u(300, 360) / DETECTOR_MM, u(300, 400) / DETECTOR_MM
    scale = np.array([height, width]).max() / SIZE
    shape = (np.array([height, width]) / scale).round().astype(int)
    angle = np.radians(rng.normal(0, 3))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * scale
    middle = (DETECTOR - 1) / 2 + rng.normal(0, 5, 2)
    x = ndimage.affine_transform(integrals, turn, middle - turn @ ((shape - 1) / 2), output_shape=tuple(shape), order=1, mode="nearest")
    scatter = ndimage.gaussian_filter(x, SIZE / 12)
    x = x + F(u(-0.15, 0.3)) * (x - scatter)                                # more or less contrast of what is small
    low, high = np.percentile(x, [1, 99])
    x = (x - low) / max(high - low, 1e-3)
    x = np.clip(x, -0.2, 1.2)
    x = np.sign(x) * np.abs(x) ** F(u(0.6, 1.6))
    if rng.random() < 0.5:                                                  # a sigmoid curve
        slope = u(3, 7)
        x = 1 / (1 + np.exp(-slope * (x - u(0.35, 0.65))))
    if rng.random() < 0.6:
        x = ndimage.gaussian_filter(x, u(0.2, 1.1))
    if rng.random() < 0.4:                                                  # sharpened
        x = x + F(u(0.2, 1.5)) * (x - ndimage.gaussian_filter(x, u(1, 4)))
    grain = ndimage.gaussian_filter(rng.standard_normal(x.shape).astype(F), u(0.1, 0.8))
    x = x + grain * F(0.04 * rng.random() ** 2 / max(grain.std(), 1e-6))
    for _ in range(rng.integers(0, 4)):                                     # buttons, electrodes, letters
        j, i = rng.integers(0, shape[0] - 8), rng.integers(0, shape[1] - 8)
        if rng.random() < 0.5:
            x[j:j + rng.integers(2, 8), i:i + rng.integers(2, 8)] += F(u(0.2, 0.8))
        else:
            jj, ii = np.ogrid[: shape[0], : shape[1]]
            ring = np.hypot(jj - j, ii - i)
            x += F(u(0.1, 0.5)) * (np.abs(ring - u(1, 3)) < 0.8)
    for axis in (0, 1):                                                     # collimated
        if rng.random() < 0.25:
            edge = rng.integers(1, 14)
            place = [slice(None), slice(None)]
            place[axis] = slice(0, edge) if rng.random() < 0.5 else slice(-edge, None)
            x[tuple(place)] = x.min() if rng.random() < 0.6 else x.max()
    return x.astype(F)


def prepared(image):
    """An image of any size as the network sees it: fitted into SIZE x SIZE with its proportions, its percentiles 1 and 99 at 0 and 1, 0
    beside it. What model.toml's steps do; `image` has its longer side at SIZE already."""
    low, high = np.percentile(image, [1, 99])
    image = np.clip((image - low) / max(high - low, 1e-8), 0, 1)
    out = np.zeros((SIZE, SIZE), F)
    top, left = [(SIZE - n) // 2 for n in image.shape]
    out[top:top + image.shape[0], left:left + image.shape[1]] = image
    return out
