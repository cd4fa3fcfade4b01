"""Random chest CTs as formulas, with their labels: what ct-lung-nodule is trained on.

A `Chest` is one patient, all of it drawn from one seed: body, lungs, vessels, airways, bones, nodules, disease. `render` evaluates it on
any box of a 1.5 mm grid, without noise and nearly sharp; `acquire` then makes of it what a scanner would: slice thickness,
reconstruction kernel, dose, errors of the HU scale, field of view. So one rendered box serves for many training samples.

Coordinates are patient LPS in mm around the middle of the chest: x to the left, y to the back, z to the head. Arrays are [k, j, i] =
[z, y, x], float32 HU and uint8 labels: 0 everything else, 1 lung (with its vessels and small airways), 2 nodule.

An organ is a signed distance (mm, negative inside); a voxel within half a voxel of its surface is partly covered.
"""
import math
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

F = np.float32
SPACING_MM = 1.5
BACKGROUND, LUNG, NODULE = 0, 1, 2
EDGE_MM = SPACING_MM            # width of a surface's partial volume


def ellipsoid(p, centre, radii, power=2.0):
    """Signed distance to a superellipsoid, exact on the surface and roughly right near it."""
    q = [np.abs((a - F(c)) * F(1 / r)) for a, c, r in zip(p, centre, radii)]
    if power == 2.0:
        return (np.sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2]) - F(1)) * F(min(radii))
    return ((q[0] ** F(power) + q[1] ** F(power) + q[2] ** F(power)) ** F(1 / power) - F(1)) * F(min(radii))


def capsule(p, a, b, r0, r1):
    """Signed distance to a rod from a to b whose radius goes from r0 to r1."""
    d = b - a
    rel = [x - F(c) for x, c in zip(p, a)]
    t = np.clip((rel[0] * F(d[0]) + rel[1] * F(d[1]) + rel[2] * F(d[2])) / F(max(d.dot(d), 1e-6)), 0, 1)
    square = sum((x - t * F(c)) ** 2 for x, c in zip(rel, d))
    return np.sqrt(square) - (F(r0) + t * F(r1 - r0))


def unit(v):
    return v / np.linalg.norm(v)


def smooth_noise(rng, shape, sigma_voxels):
    """Normal noise of standard deviation 1, smoothed over about `sigma_voxels`; coarse noise is interpolated from a coarser grid."""
    step = max(1, int(sigma_voxels / 1.5))
    small = rng.standard_normal([n // step + 4 for n in shape], dtype=F)
    small = ndimage.gaussian_filter(small, sigma_voxels / step)
    if step > 1:
        small = ndimage.zoom(small, [(n + step) / s for n, s in zip(shape, small.shape)], order=1, grid_mode=False)
    small = small[tuple(slice(0, n) for n in shape)]
    return (small - small.mean()) / F(max(small.std(), 1e-6))


class Waves:
    """A smooth random function of space: a few dozen plane waves, mean 0, standard deviation about 1."""

    def __init__(self, rng, length_mm, count=10):
        self.k = rng.normal(size=(count, 3)) * (2 * math.pi / length_mm) / math.sqrt(3)
        self.phase = rng.uniform(0, 2 * math.pi, count)
        self.scale = math.sqrt(2 / count)

    def __call__(self, p):
        return sum(np.cos(F(k[0]) * p[0] + F(k[1]) * p[1] + F(k[2]) * p[2] + F(f)) for k, f in zip(self.k, self.phase)) * F(self.scale)


@dataclass
class Nodule:
    """A lump in a lung. Radius in direction u: `radius` times 1 + bumps + spikes; squeezed along `axes`."""
    centre: np.ndarray
    radius: float
    kind: str
    hu: float
    core_hu: float = 30.0
    core: float = 0.0               # core's radius over the nodule's
    air: float = 0.0                # share of the lung's air that ground glass leaves
    edge_mm: float = EDGE_MM
    axes: np.ndarray = field(default_factory=lambda: np.eye(3))
    bumps: list = field(default_factory=list)       # (direction, amplitude, sharpness)
    reach: float = 0.0

    def distance(self, p):
        """(signed distance to the surface, distance from the centre in units of the surface's)."""
        d = np.stack(np.broadcast_arrays(*[a - F(c) for a, c in zip(p, self.centre)]), -1) @ self.axes.astype(F)
        q = np.sqrt((d * d).sum(-1))
        surface = np.ones_like(q)
        for direction, amplitude, sharpness in self.bumps:
            cosine = (d @ direction.astype(F)) / np.maximum(q, F(1e-3))
            surface += F(amplitude) * np.exp((cosine - F(1)) * F(sharpness))
        surface *= F(self.radius)
        return q - surface, q / surface


class Chest:
    """One random patient."""

    def __init__(self, seed, nodules=None):
        rng = self.rng = np.random.default_rng([seed, 20])
        u, chance = rng.uniform, lambda p: rng.random() < p
        self.seed = seed

        # The chest wall.
        self.half = np.array([u(135, 190), u(92, 135)])                 # of the body
        self.body_power = u(2.0, 2.9)
        self.fat_mm = u(2, 32) if chance(0.8) else u(32, 45)
        wall = self.fat_mm + u(12, 24)
        inner = self.half - wall
        self.muscle = self.half - self.fat_mm
        self.cage = inner + u(2, 7)
        self.wobble = [Waves(rng, u(90, 200), 6) for _ in range(3)]
        self.wobble_mm = u(0, 7)
        self.fine = [Waves(rng, u(30, 60), 6) for _ in range(3)]
        self.fine_mm = u(0, 1.8)
        self.rotation = rotation(rng.normal(0, 5, 3) if chance(0.8) else rng.normal(0, 14, 3))

        # Lungs: a superellipsoid for each side, out of which the other organs are cut.
        height = u(85, 150)
        self.lung = []
        for side in (1, -1):
            rx, ry, rz = inner[0] * u(0.36, 0.47), inner[1] * u(0.8, 1.0), height * u(0.9, 1.1)
            self.lung.append((np.array([side * (inner[0] - rx * u(0.97, 1.03)), u(-8, 8), u(-12, 12)]),
                              np.array([rx, ry, rz]), u(2.0, 2.7)))
        self.heart = (np.array([u(5, 28), u(-0.45, -0.15) * inner[1], u(-60, -25)]), np.array([u(38, 62), u(32, 55), u(40, 62)]))
        self.domes = [(np.array([side * u(45, 75), u(-10, 20), u(-190, -120)]), np.array([u(75, 110), u(70, 120), u(60, 95)]))
                      for side in (1, -1)]
        self.mediastinum = (u(8, 20), u(0, 18))
        self.lung_hu, self.gradient = u(-920, -740), u(0, 0.9)
        self.mottle, self.mottle_hu = Waves(rng, u(25, 90)), u(0, 40)
        self.grain_hu, self.grain_voxels = u(0, 28), u(0.5, 1.6)
        self.atelectasis = (u(3, 18), u(100, 500)) if chance(0.3) else None
        self.emphysema = (Waves(rng, u(8, 40), 14), u(0.6, 2.0), u(-1000, -950)) if chance(0.3) else None
        self.reticulation = (Waves(rng, u(8, 16), 14), u(100, 350), u(4, 25)) if chance(0.12) else None
        self.haze = (Waves(rng, u(40, 90)), u(0.9, 1.6), u(60, 300)) if chance(0.15) else None
        self.effusion = [u(0.2, 0.9) if chance(0.08) else None for _ in range(2)]
        self.fissures = []
        for side in (1, -1):
            c = self.lung[0 if side > 0 else 1][0]
            self.fissures.append((side, unit(np.array([rng.normal(0, 0.15), u(0.5, 0.9), u(-0.9, -0.5)])), c + rng.normal(0, 8, 3), u(0.2, 0.9)))
            if side < 0:
                self.fissures.append((side, unit(np.array([rng.normal(0, 0.15), rng.normal(0, 0.15), 1.0])), c + rng.normal(0, 10, 3), u(0.2, 0.9)))

        # Soft tissue and contrast agent.
        self.blood_hu = u(100, 450) if chance(0.4) else u(25, 65)
        self.vessel_hu = self.blood_hu * u(0.8, 1.1) if chance(0.8) else u(25, 400)
        self.muscle_hu, self.fat_hu, self.liver_hu = u(35, 75), u(-120, -75), u(40, 130)
        self.bone_hu, self.marrow_hu = u(350, 1100), u(80, 320)
        self.arms = [chance(0.15) for _ in range(2)]
        self.breasts = (u(25, 60), u(-70, 20)) if chance(0.4) else None
        self.bowel = [(np.array([u(-90, 100), u(-60, 50), u(-200, -110)]), u(8, 32, 3)) for _ in range(rng.integers(0, 8))]
        self.nodes = [(np.array([u(-26, 26), u(-20, 35), u(-40, 70)]), u(3, 9, 3)) for _ in range(rng.integers(0, 9))]
        self.bones()
        self.couch()

        # Trees and lumps.
        self.tubes = []         # (a, b, r0, r1, hu, wall mm or 0)
        self.trees()
        self.plaques = [self.on_pleura() + (u(6, 20), u(1.5, 4.0), u(30, 500)) for _ in range(rng.integers(1, 6) if chance(0.2) else 0)]
        self.scars = []
        for _ in range(rng.integers(1, 5) if chance(0.35) else 0):
            centre, normal = self.in_lung(4), unit(rng.normal(size=3))
            self.scars.append((centre, normal, u(5, 22), u(0.4, 1.5), u(-300, 60)))
        self.metal = []
        if chance(0.08):
            for _ in range(rng.integers(1, 4)):
                a = np.array([u(-80, 80), u(-70, 40), u(-80, 80)])
                self.metal.append((a, a + rng.normal(0, 25, 3), u(0.6, 2.5), u(1500, 3071)))
        self.nodules = []
        count = rng.integers(6, 26) if nodules is None else nodules
        for _ in range(40 * count):
            if len(self.nodules) == count:
                break
            self.add_nodule()

    # -- anatomy

    def bones(self):
        u = self.rng.uniform
        self.spine_y = self.cage[1] * u(0.66, 0.82)
        self.vertebra = (u(14, 21), u(11, 17), u(22, 32), u(0, 30))        # half width, half depth, period, phase; mm
        self.rib = (u(22, 34), u(0, 34), u(20, 55), u(3.0, 5.0), u(4.5, 8.0), u(0.9, 1.0))   # period, phase, drop, half thickness, half height
        self.rib_front = -u(0.55, 0.9) * self.cage[1]
        self.sternum = (u(12, 20), u(3, 7))
        self.scapula = [(np.array([s * self.cage[0] * u(0.7, 0.95), self.cage[1] * u(0.75, 1.0), u(40, 110)]), u(25, 45), u(0.3, 1.0))
                        for s in (1, -1)]
        self.clavicle = [(np.array([s * 15.0, -self.cage[1] * u(0.6, 0.9), u(85, 125)]),
                          np.array([s * u(110, 150), -self.cage[1] * u(0.1, 0.6), u(100, 150)]), u(4, 7)) for s in (1, -1)]

    def couch(self):
        u = self.rng.uniform
        self.table = (self.half[1] + u(-3, 25), u(0, 0.0015), u(1, 4), u(-400, 100), u(8, 30), u(-990, -800)) if self.rng.random() < 0.7 else None
        self.blanket = (u(2, 12), u(-980, -850)) if self.rng.random() < 0.3 else None

    def lung_distance(self, p):
        """Signed distances to the left and the right lung, without noise in shape."""
        cut = -ellipsoid(p, *self.heart)
        for centre, radii in self.domes:
            cut = np.maximum(cut, -ellipsoid(p, centre, radii))
        half, behind = self.mediastinum
        cut = np.maximum(cut, F(half) + F(behind) * np.clip((p[1] + F(20)) * F(1 / 60), 0, 1) - np.abs(p[0]))
        spine = np.sqrt(p[0] ** 2 + (p[1] - F(self.spine_y)) ** 2) - F(self.vertebra[0] + 4)
        cut = np.maximum(cut, -spine)
        out = []
        for side, (centre, radii, power), effusion in zip((1, -1), self.lung, self.effusion):
            d = np.maximum(ellipsoid(p, centre, radii, power), cut)
            d = np.maximum(d, F(2) - p[0] * F(side))
            if effusion is not None:                    # fluid lies behind and below
                d = np.maximum(d, (p[1] - F(centre[1])) - F(0.4) * (p[2] - F(centre[2])) - F(radii[1] * (1.25 - effusion)))
            out.append(d)
        return out

    def depth(self, point):
        """How far inside a lung a point lies, mm."""
        return -float(min(self.lung_distance([np.array([c], F) for c in point]), key=lambda d: d[0])[0])

    def in_lung(self, depth_mm):
        for _ in range(2000):
            centre, radii, _ = self.lung[self.rng.integers(2)]
            point = centre + self.rng.uniform(-1, 1, 3) * radii
            if self.depth(point) > depth_mm:
                return point
        return self.lung[0][0]

    def on_pleura(self):
        """(a point on a lung's surface, the direction inwards)."""
        inside, direction = self.in_lung(8), unit(self.rng.normal(size=3))
        near, far = 0.0, 150.0
        for _ in range(14):
            middle = (near + far) / 2
            near, far = (middle, far) if self.depth(inside + direction * middle) > 0 else (near, middle)
        return inside + direction * near, -direction

    def trees(self):
        """Arteries with airways beside them, and veins: rods that branch, bend and taper."""
        rng, u = self.rng, self.rng.uniform
        finest, bend = u(0.45, 0.8), u(0.05, 0.35)
        density = u(0.7, 1.15)

        def grow(a, d, r, depth, hu, airway, side):
            if r < finest or depth > 11:
                return
            length, pieces = (4 + 6.0 * r * u(0.6, 1.3)) * (1.4 - 0.3 * density), 1 if r < 1 else 2
            end = r * u(0.84, 0.97)
            for n in range(pieces):
                d = unit(d + rng.normal(0, bend, 3))
                b = a + d * length / pieces
                if depth > 1 and self.depth(b) < 1.5:
                    return
                r0, r1 = r + (end - r) * n / pieces, r + (end - r) * (n + 1) / pieces
                self.tubes.append((a, b, r0, r1, hu, 0.0))
                if airway and r > 0.9:
                    aside = beside * (r * 1.0 + airway * r + 1.0)
                    self.tubes.append((a + aside, b + aside, airway * r0, airway * r1, -985.0, max(0.5, 0.35 * r)))
                a = b
            v = rng.normal(size=3)
            v = unit(v - v.dot(d) * d)
            for sign, share in ((1, u(0.74, 0.9)), (-1, u(0.5, 0.8))):
                angle = u(0.2, 0.85)
                grow(a, math.cos(angle) * d + sign * math.sin(angle) * v, end * share, depth + 1, hu, airway, side)

        for side in (1, -1):
            for hu, airway, count in ((self.vessel_hu, u(0.6, 1.1), rng.integers(5, 9)),
                                      (self.vessel_hu * u(0.6, 1.1), 0.0, rng.integers(3, 7))):
                for n in range(count):
                    d = unit(np.array([side * u(0.5, 1.0), u(-0.9, 0.9), u(-1.1, 1.1)]))
                    beside = unit(np.cross(d, rng.normal(size=3)))
                    grow(np.array([side * u(16, 28), u(-12, 12), u(-12, 18)]), d, u(2.6, 5.5) * density, 0, hu, airway, side)
        self.carina = u(15, 45)
        self.trachea_r = u(6, 11)

    def add_nodule(self):
        rng, u = self.rng, self.rng.uniform
        radius = math.exp(u(math.log(4), math.log(30))) / 2 if rng.random() < 0.6 else u(3.5, 10) / 2
        kind = rng.choice(["solid", "ground-glass", "part-solid", "calcified", "cavity"], p=[0.55, 0.19, 0.14, 0.08, 0.04])
        site = rng.choice(["free", "pleura", "vessel"], p=[0.6, 0.22, 0.18])
        if site == "pleura":
            surface, inwards = self.on_pleura()
            centre = surface + inwards * radius * u(0.1, 1.0)
        elif site == "vessel" and self.tubes:
            a, b, r0, *_ = self.tubes[rng.integers(len(self.tubes))]
            centre = b + unit(rng.normal(size=3)) * (r0 + radius * u(0.3, 1.0))
        else:
            centre = self.in_lung(radius + 1)
        if self.depth(centre) < (radius * 0.05 if site == "pleura" else 1.0):
            return
        n = Nodule(centre, radius, kind, 0.0)
        local = self.lung_hu + self.gradient * centre[1]
        if kind == "solid":
            n.hu = u(-30, 100) if rng.random() < 0.85 else u(-150, 200)
        elif kind == "calcified":
            n.hu, n.core, n.core_hu = u(30, 400), u(0.3, 1.0), u(200, 1200)
        elif kind == "cavity":
            n.hu, n.core, n.core_hu = u(0, 60), u(0.3, 0.65), u(-1000, -700)
            n.radius = radius = max(radius, 5.0)
        else:
            n.air = 1 + u(140, 420) / local
            if kind == "part-solid":
                n.core, n.core_hu = u(0.3, 0.75), u(-100, 80)
        n.edge_mm = EDGE_MM * (u(1, 1.6) if kind in ("solid", "calcified") else u(1, 2.5))
        if rng.random() < 0.7:
            stretch = np.exp(rng.normal(0, 0.17, 3))
            n.axes = rotation(u(0, 360, 3)) @ np.diag(stretch / np.cbrt(stretch.prod()))
        shape = rng.random()
        if shape < 0.45:                                                # lobes
            n.bumps = [(unit(rng.normal(size=3)), u(-0.25, 0.35), u(2, 10)) for _ in range(rng.integers(2, 9))]
        elif shape < 0.7 and kind != "cavity":                          # spikes
            n.bumps = [(unit(rng.normal(size=3)), u(0.2, 1.0), u(15, 90)) for _ in range(rng.integers(5, 22))]
        n.reach = radius * 1.5 * (1 + max([0.0] + [b[1] for b in n.bumps])) + 3
        if any(np.linalg.norm(centre - m.centre) < 0.6 * (n.reach + m.reach) + 2 for m in self.nodules):
            return
        if rng.random() < 0.5:                                          # half of them stand clear of vessels
            self.tubes = [t for t in self.tubes if segment_distance(centre, t[0], t[1]) > radius + t[2] + 1.5]
        self.nodules.append(n)

    # -- voxels

    def render(self, dims, origin):
        """HU and labels of `dims` (nk, nj, ni) voxels whose first centre is at `origin` (x, y, z mm); and each nodule's voxels, by its
        index, a label map too."""
        nk, nj, ni = dims
        z, y, x = np.meshgrid(*[np.arange(n, dtype=F) * F(SPACING_MM) + F(o) for n, o in zip(dims, origin[::-1])], indexing="ij", sparse=True)
        r = self.rotation.astype(F)
        straight = [r[a, 0] * x + r[a, 1] * y + r[a, 2] * z for a in range(3)]          # patient turned in the scanner
        p = [straight[a] + self.displacement(straight, a, dims) for a in range(3)]
        x, y, z = p
        hu, label = np.full(dims, -1000, F), np.zeros(dims, np.uint8)
        which = np.zeros(dims, np.uint8)
        rng = np.random.default_rng([self.seed, 21, *[int(o) & 0xFFFF for o in origin]])

        def put(d, value, name=None, edge=EDGE_MM):
            c = np.clip(F(0.5) - d * F(1 / edge), 0, 1)
            hu.__iadd__(c * (value - hu))
            if name is not None:
                label[c >= 0.5] = name

        # Around and under the patient.
        outline = lambda h: ((np.abs(x * F(1 / h[0])) ** F(self.body_power) + np.abs(y * F(1 / h[1])) ** F(self.body_power))
                             ** F(1 / self.body_power) - F(1)) * F(min(h))
        body = outline(self.half)
        if self.breasts:
            for s in (1, -1):
                body = np.minimum(body, ellipsoid(p, (s * 75, -self.half[1] * 0.72, -20), (60, self.breasts[0] + 20, 60)))
        if self.blanket:
            put(np.maximum(np.abs(body - F(self.blanket[0])) - F(1.2), straight[1] - F(60)), self.blanket[1])
        if self.table:
            top, curve, skin, skin_hu, core, core_hu = self.table
            d = straight[1] - F(top) + F(curve) * straight[0] ** 2
            put(np.maximum(np.abs(d - F(core / 2)) - F(core / 2), np.abs(straight[0]) - F(230)), core_hu)
            put(np.maximum(np.minimum(np.abs(d), np.abs(d - F(core))) - F(skin), np.abs(straight[0]) - F(230)), skin_hu)
        for s, arm in zip((1, -1), self.arms):
            if arm:
                d = np.sqrt((x - F(s * (self.half[0] + 48))) ** 2 + (y - F(10)) ** 2)
                put(d - F(42), self.fat_hu); put(d - F(34), self.muscle_hu); put(d - F(11), self.bone_hu); put(d - F(7), self.marrow_hu)

        # Wall, abdomen, mediastinum.
        put(body, 20)
        put(body + F(2), self.fat_hu)
        if self.breasts:
            for s in (1, -1):
                put(ellipsoid(p, (s * 75, -self.half[1] * 0.72, -20), (35, self.breasts[0] * 0.7, 35)), self.breasts[1])
        put(outline(self.muscle), self.muscle_hu)
        put(np.abs(outline(self.muscle - 9)) - F(1.2), self.fat_hu)
        middle = np.maximum(outline(self.cage), p[2] - F(130))
        put(np.maximum(middle, np.abs(x) - F(38)), self.fat_hu)
        for n, (centre, radii) in enumerate(self.domes):
            put(np.maximum(ellipsoid(p, centre, radii), middle), self.liver_hu if n else self.muscle_hu)
        for centre, radii in self.bowel:
            d = np.maximum(ellipsoid(p, centre, radii), self.dome_distance(p) + F(3))
            put(d - F(2.5), self.muscle_hu); put(d, -980 if int(centre[0]) % 2 else 15)
        for centre, radii in self.nodes:
            put(ellipsoid(p, centre, radii), self.muscle_hu)

        # Lungs.
        left, right = self.lung_distance(p)
        lung = np.minimum(left, right)
        inside = lung < 2
        if inside.any():
            texture = F(self.lung_hu) + F(self.gradient) * y + F(self.mottle_hu) * self.mottle(p)
            if self.emphysema:
                waves, level, value = self.emphysema
                texture += np.clip((waves(p) - F(level)) * F(3), 0, 1) * (F(value) - texture)
            if self.haze:
                waves, level, rise = self.haze
                texture += np.clip((waves(p) - F(level)) * F(2), 0, 1) * F(rise)
            if self.reticulation:
                waves, rise, thick = self.reticulation
                texture += np.clip(1 - np.abs(waves(p)) * F(4), 0, 1) * F(rise) * np.exp(lung * F(1 / thick))
            if self.atelectasis:
                thick, rise = self.atelectasis
                texture += F(rise) * np.exp(lung * F(1 / thick)) * np.clip(y * F(1 / 60), 0, 1)
            if self.grain_hu > 1:
                texture += F(self.grain_hu) * smooth_noise(rng, dims, self.grain_voxels)
            texture = np.clip(texture, -1000, -150)
            for side, normal, through, thick in self.fissures:
                d = np.abs(sum(F(c) * (a - F(b)) for c, a, b in zip(normal, p, through)) + F(4) * self.wobble[0](p))
                c = np.clip(1 - d * F(1 / EDGE_MM), 0, 1) * F(thick / EDGE_MM) * (x * F(side) > 0)
                texture += c * (F(0) - texture)
            put(lung, texture, LUNG)

        # Heart, great vessels, windpipe.
        put(ellipsoid(p, *self.heart), self.blood_hu if self.blood_hu < 90 else 0.55 * self.blood_hu + 20)
        put(ellipsoid(p, self.heart[0] + F(8), self.heart[1] * 0.6), self.blood_hu)
        put(np.sqrt((x - F(12)) ** 2 + (y - F(self.spine_y - self.vertebra[1] - 12)) ** 2) - F(12), self.blood_hu)
        put(np.maximum(np.sqrt((x - F(3)) ** 2 + (y + F(18)) ** 2) - F(14), F(0) - z), self.blood_hu)
        put(np.maximum(np.sqrt((x + F(22)) ** 2 + (y + F(10)) ** 2) - F(8), F(0) - z), self.blood_hu)
        carina, radius = self.carina, self.trachea_r
        windpipe = np.maximum(np.sqrt(x ** 2 + (y - F(6)) ** 2) - F(radius), F(carina) - z)
        for s in (1, -1):
            windpipe = np.minimum(windpipe, capsule(p, np.array([0, 6.0, carina]), np.array([s * 34.0, 4.0, carina - 28]), radius * 0.8, radius * 0.55))
        put(windpipe - F(1.5), 25, BACKGROUND)
        put(windpipe, -990, BACKGROUND)

        # Vessels and airways, only inside lungs (their beginnings in the mediastinum are hidden in soft tissue).
        allowed = (label == LUNG)
        for a, b, r0, r1, value, wall in self.tubes:
            box, q = self.near(p, straight, a, b, max(r0, r1) + wall + 2.5, origin, dims)
            if box is None or not allowed[box].any():
                continue
            d = capsule(q, a, b, r0, r1)
            ok, sub = allowed[box], hu[box]
            thin = min(1.0, math.pi * r0 * r0 / EDGE_MM ** 2 / min(1.0, 0.5 + r0 / EDGE_MM))
            if wall:
                c = np.clip(F(0.5) - (d - F(wall)) * F(1 / EDGE_MM), 0, 1) * F(min(1, (wall + 0.4) / EDGE_MM))
                sub += np.where(ok, c * np.maximum(F(0) - sub, 0), 0)
                c = np.clip(F(0.5) - d * F(1 / EDGE_MM), 0, 1) * F(thin)
                sub += np.where(ok, c * (F(value) - sub), 0)
            else:
                c = np.clip(F(0.5) - d * F(1 / EDGE_MM), 0, 1) * F(thin)
                sub += np.where(ok, c * np.maximum(F(value) - sub, 0), 0)
        for centre, normal, size, thick, value in self.scars:
            box, q = self.near(p, straight, centre, centre, size + 3, origin, dims)
            if box is not None:
                rel = [a - F(c) for a, c in zip(q, centre)]
                across = np.abs(sum(F(n) * a for n, a in zip(normal, rel)))
                d = np.maximum(across - F(thick), np.sqrt(sum(a * a for a in rel)) - F(size))
                sub = hu[box]
                sub += np.clip(F(0.5) - d * F(1 / EDGE_MM), 0, 1) * np.maximum(F(value) - sub, 0) * allowed[box]

        # Bones.
        half_w, half_d, period, phase = self.vertebra
        along = np.mod(z + F(phase), F(period)) - F(period / 2)
        vertebra = (np.sqrt((x * F(1 / half_w)) ** 2 + ((y - F(self.spine_y)) * F(1 / half_d)) ** 2) - F(1)) * F(half_d)
        put(vertebra, 90, BACKGROUND)
        vertebra = np.maximum(vertebra, np.abs(along) - F(period * 0.38))
        put(vertebra, self.bone_hu, BACKGROUND); put(vertebra + F(1.8), self.marrow_hu, BACKGROUND)
        canal = np.sqrt(x ** 2 + (y - F(self.spine_y + half_d + 9)) ** 2)
        arch = np.maximum(np.abs(canal - F(11.5)) - F(2.5), np.abs(along) - F(period * 0.27))
        process = np.maximum(np.maximum(np.abs(x) - F(3), np.abs(y - F(self.spine_y + half_d + 28)) - F(9)), np.abs(along) - F(period * 0.25))
        put(np.maximum(np.minimum(arch, process), body + F(4)), self.bone_hu * 0.8)
        q = np.sqrt((x * F(1 / self.cage[0])) ** 2 + (y * F(1 / self.cage[1])) ** 2)
        period, phase, drop, thick, tall, _ = self.rib
        slope = F(1) - y * F(1 / self.cage[1]) / np.maximum(q, F(0.1))
        along = np.mod(z + F(drop / 2) * slope + F(phase), F(period)) - F(period / 2)
        rib = (np.sqrt(((q - F(1)) * F(min(self.cage) / thick)) ** 2 + (along * F(1 / tall)) ** 2) - F(1)) * F(thick)
        rib = np.maximum(rib, F(self.rib_front) - y)
        put(rib, self.bone_hu, BACKGROUND); put(rib + F(1.4), self.marrow_hu, BACKGROUND)
        half_w, half_d = self.sternum
        breast_bone = np.maximum(np.maximum(np.abs(x) - F(half_w), np.abs(y + F(self.cage[1])) - F(half_d)), np.abs(z) - F(90))
        put(breast_bone, self.bone_hu); put(breast_bone + F(1.4), self.marrow_hu)
        for (centre, size, tilt), (a, b, radius) in zip(self.scapula, self.clavicle):
            s = math.copysign(1, centre[0])
            d = np.abs((y - F(centre[1])) * F(math.cos(tilt)) + (x - F(centre[0])) * F(s * math.sin(tilt))) - F(2.5)
            d = np.maximum(d, np.sqrt((x - F(centre[0])) ** 2 + (z - F(centre[2])) ** 2) - F(size))
            put(np.maximum(d, body + F(3)), self.bone_hu)
            d = capsule(p, a, b, radius, radius)
            put(d, self.bone_hu, BACKGROUND); put(d + F(1.6), self.marrow_hu, BACKGROUND)

        # Plaques lie on the pleura and belong to no lung.
        for surface, inwards, size, thick, value in self.plaques:
            box, q = self.near(p, straight, surface, surface, size + 3, origin, dims)
            if box is not None:
                d = np.maximum(np.sqrt(sum((a - F(c)) ** 2 for a, c in zip(q, surface))) - F(size), -lung[box] - F(thick))
                c = np.clip(F(0.5) - d * F(1 / EDGE_MM), 0, 1) * allowed[box]
                hu[box] += c * (F(value) - hu[box])
                label[box][c >= 0.5] = BACKGROUND

        for index, n in enumerate(self.nodules):
            box, q = self.near(p, straight, n.centre, n.centre, n.reach, origin, dims)
            if box is None:
                continue
            d, relative = n.distance(q)
            d = np.maximum(d, lung[box])                                # what lies beyond the pleura is wall
            c = np.clip(F(0.5) - d * F(1 / n.edge_mm), 0, 1)
            sub = hu[box]
            value = np.where(sub < 0, sub * F(n.air), sub) if n.air else F(n.hu)    # what is dense shows through ground glass
            if n.core:
                value = np.where(relative < n.core, F(n.core_hu), value)
            sub += c * (value - sub)
            hit = c >= 0.5
            label[box][hit] = NODULE
            which[box][hit] = index + 1
        for a, b, radius, value in self.metal:
            put(capsule(p, a, b, radius, radius), value)
        return hu, label, which

    def dome_distance(self, p):
        return np.minimum(*[ellipsoid(p, centre, radii) for centre, radii in self.domes])

    def displacement(self, straight, axis, dims):
        """What bends everything a little: smooth, so computed on every fourth voxel and interpolated."""
        coarse = [np.ascontiguousarray(a[::4, ::4, ::4]) for a in np.broadcast_arrays(*straight)]
        d = F(self.wobble_mm) * self.wobble[axis](coarse) + F(self.fine_mm) * self.fine[axis](coarse)
        for n, size in enumerate(dims):                                 # linear interpolation, axis by axis
            at = np.arange(size) / 4
            low = np.minimum(at.astype(int), d.shape[n] - 1)
            high = np.minimum(low + 1, d.shape[n] - 1)
            t = (at - low).astype(F).reshape([-1 if m == n else 1 for m in range(3)])
            d = np.take(d, low, n) * (1 - t) + np.take(d, high, n) * t
        return d

    def near(self, p, straight, a, b, reach, origin, dims):
        """The voxels within `reach` mm of the rod a to b, and their coordinates; the bend moves points by less than 4 standard deviations."""
        slack = reach + 3.0 * (self.wobble_mm + self.fine_mm)
        ends = np.stack([a, b]) @ self.rotation                          # turned back: the inverse is the transpose
        low = np.floor((ends.min(0) - slack - origin) / SPACING_MM).astype(int)
        high = np.ceil((ends.max(0) + slack - origin) / SPACING_MM).astype(int) + 1
        low, high = np.maximum(low, 0), np.minimum(high, np.array(dims)[::-1])
        if (low >= high).any():
            return None, None
        box = tuple(slice(l, h) for l, h in zip(low[::-1], high[::-1]))
        return box, [c[box] for c in p]


def rotation(degrees):
    cx, cy, cz = np.cos(np.radians(degrees))
    sx, sy, sz = np.sin(np.radians(degrees))
    return (np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]]) @ np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
            @ np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]]))


def segment_distance(point, a, b):
    d = b - a
    t = np.clip((point - a).dot(d) / max(d.dot(d), 1e-6), 0, 1)
    return float(np.linalg.norm(point - a - t * d))


def acquire(hu, rng):
    """A scanner's image of rendered HU: slice thickness, kernel, noise of one dose, errors of the HU scale, field of view."""
    u = rng.uniform
    image = hu
    thickness = u(0, 1.0) if rng.random() < 0.6 else u(1.0, 5.0)                    # mm, of the profile
    sigma_k, sigma = thickness / 2.35 / SPACING_MM, u(0, 0.55) if rng.random() < 0.8 else u(0.55, 1.0)
    image = ndimage.gaussian_filter(image, (max(sigma_k, sigma * 0.7), sigma, sigma), truncate=2.5)
    if rng.random() < 0.25:                                                         # a sharp kernel
        image = image + F(u(0.2, 0.9)) * (image - ndimage.gaussian_filter(image, 0.8, truncate=2.5))
    level = 10 ** u(0.3, 1.75)                                                      # 2 to 56 HU
    grain = ndimage.gaussian_filter(rng.standard_normal(image.shape, dtype=F), (u(0, 0.8), *[u(0.2, 0.9)] * 2), truncate=2.5)
    image = image + grain * F(level / max(float(grain.std()), 1e-6))
    image = image * F(1 + rng.normal(0, 0.015)) + F(rng.normal(0, 12))
    if rng.random() < 0.15:                                                         # fields of view end in a circle or at a plane
        nj, ni = image.shape[1:]
        j, i = np.ogrid[:nj, :ni]
        out = (j - u(0, nj)) ** 2 + (i - u(0, ni)) ** 2 > (u(0.6, 1.2) * nj) ** 2
        image = np.where(out, F(-1024), image)
    return image
