"""NIfTI and NRRD files as nibabel, pynrrd and SimpleITK write and read them.

    check_research.py make FOLDER       makes files: names starting with `refused.CODE.` must be refused with that code
    check_research.py compare FOLDER    compares FOLDER/read.json (see tests/it/research.rs) with what the others read
    check_research.py labels FOLDER     compares the label maps of FOLDER/written.json

World is patient LPS mm, as in the code under test; nibabel is RAS and knows no units.
"""

import contextlib
import io
import itertools
import json
import sys
from pathlib import Path

import nibabel
import nrrd
import numpy as np
import SimpleITK

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
NIFTI_TYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"]
rng = np.random.default_rng(20260726)


def values(dtype, shape, wide):
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        return (rng.normal(0, 1000, shape)).astype(dtype)
    info = np.iinfo(dtype)
    low, high = (info.min, info.max) if wide else (max(info.min, -1000), min(info.max, 3000))
    array = rng.integers(low, high, shape, dtype=dtype.newbyteorder("="), endpoint=True)
    array.flat[0], array.flat[-1] = low, high
    return array.astype(dtype)


def oblique():
    q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    return q


def affine(directions, spacing=(0.7, 1.25, 3.0), at=(-101.5, 33.0, 712.25)):
    matrix = np.eye(4)
    matrix[:3, :3] = directions @ np.diag(spacing)
    matrix[:3, 3] = at
    return matrix


def orientations():
    for order in itertools.permutations(range(3)):
        for signs in itertools.product([1, -1], repeat=3):
            yield np.eye(3)[:, order] * signs


def save(path, data, matrix, sform=1, qform=1, kind=nibabel.Nifti1Image, endian="<", units="mm", slope=None, change=None):
    header = kind.header_class(endianness=endian)
    header.set_data_dtype(np.dtype(data.dtype).newbyteorder("="))
    image = kind(data, matrix, header, dtype=np.dtype(data.dtype).newbyteorder("="))
    image.set_sform(matrix, sform)
    image.set_qform(matrix, qform, strip_shears=True)
    image.header.set_xyzt_units(units)
    if change:
        change(image.header)
    nibabel.save(image, path)
    if slope is not None:
        patch_slope(path, *slope)


def patch_slope(path, slope, inter):
    """Puts a scaling into a NIfTI-1 file that is not compressed."""
    content = bytearray(Path(path).read_bytes())
    content[112:120] = np.array([slope, inter], "<f4").tobytes()
    Path(path).write_bytes(content)


def make_nifti(folder):
    shape = (5, 4, 3)
    for dtype, endian, wide in itertools.product(NIFTI_TYPES, "<>", [False, True]):
        for kind, name in [(nibabel.Nifti1Image, "1"), (nibabel.Nifti2Image, "2")]:
            # Not the same stem twice: ITK would take the voxels of `a.nii` for those of `a.nii.gz`.
            for ending in [".nii", "-gzipped.nii.gz"]:
                stem = f"{dtype}-{'little' if endian == '<' else 'big'}-{'wide' if wide else 'small'}-{name}"
                save(folder / f"{stem}{ending}", values(dtype, shape, wide), affine(oblique()), kind=kind, endian=endian)
    for kind, name in [(nibabel.Nifti1Pair, "1"), (nibabel.Nifti2Pair, "2")]:
        save(folder / f"pair-{name}.img", values("i2", shape, True), affine(oblique()), kind=kind)
    for n, directions in enumerate(orientations()):
        save(folder / f"axes-{n}-both.nii", values("i2", shape, False), affine(directions))
        save(folder / f"axes-{n}-qform.nii", values("i2", shape, False), affine(directions), sform=0)
    for n in range(12):
        save(folder / f"oblique-{n}-sform.nii", values("i2", shape, False), affine(oblique()), qform=0, sform=1 + n % 5)
        save(folder / f"oblique-{n}-qform.nii", values("i2", shape, False), affine(oblique()), sform=0, qform=1 + n % 5)
    for n, (slope, inter) in enumerate([(2.5, -1024.0), (0.0, 7.0), (1.0, 0.0), (-0.001, 3.0), (float("nan"), 0.0)]):
        save(folder / f"scaled-{n}.nii", values("i2", shape, False), affine(oblique()), slope=(slope, inter))
        save(folder / f"scaled-u2-{n}.nii", values("u2", shape, True), affine(oblique()), slope=(slope, inter))
    for unit in ["meter", "mm", "micron", "unknown"]:
        save(folder / f"unit-{unit}.nii", values("i2", shape, False), affine(oblique()), units=unit)
    sheared = affine(np.array([[1, 0, 0.4], [0, 1, 0], [0, 0, 1.0]]))
    save(folder / "sheared.nii", values("i2", shape, False), sheared, qform=0)
    save(folder / "flat.nii", values("i2", (5, 4), False), affine(oblique()))
    save(folder / "four-axes.nii", values("i2", (*shape, 1), False), affine(oblique()))
    save(folder / "six-axes.nii", values("i2", (*shape, 1, 1, 1), False), affine(oblique()))
    refused = lambda code, name: folder / f"refused.research.{code}.{name}.nii"
    save(refused("no-orientation", "neither"), values("i2", shape, False), affine(oblique()), sform=0, qform=0)
    save(refused("volumes", "five"), values("i2", (*shape, 5), False), affine(oblique()))
    save(refused("unsupported", "vector"), values("f4", (*shape, 1, 3), False), affine(oblique()))
    save(refused("unsupported", "complex"), values("f4", shape, False).astype("c8"), affine(oblique()))
    colour = np.zeros(shape, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    nibabel.save(nibabel.Nifti1Image(colour, affine(oblique())), refused("unsupported", "colour"))
    holes = values("f4", shape, False)
    holes.flat[7] = np.nan
    save(refused("not-finite", "nan"), holes, affine(oblique()))
    # ITK takes the qform of these, nibabel the sform.
    other = affine(np.eye(3), at=(-99.5, 33.0, 712.25))
    save(refused("transforms-disagree", "two-places"), values("i2", shape, False), affine(np.eye(3)), sform=2,
         change=lambda header: header.set_qform(other, 1))
    mirrored = affine(np.diag([-1.0, 1, 1]))
    save(refused("transforms-disagree", "two-sides"), values("i2", shape, False), affine(np.eye(3)), sform=1,
         change=lambda header: header.set_qform(mirrored, 1))


def make_nrrd(folder):
    shape = (5, 4, 3)
    spaces = ["left-posterior-superior", "LPS", "right-anterior-superior", "RAS", "left-anterior-superior", "LAS"]
    for n, (dtype, endian, encoding) in enumerate(itertools.product(NIFTI_TYPES, "<>", ["raw", "gzip", "ascii"])):
        # As text pynrrd writes integers of 18 digits as rounded floats.
        data = values(endian + dtype, shape, n % 2 == 0 and (encoding != "ascii" or dtype[1] != "8"))
        header = nrrd_header(spaces[n % len(spaces)], encoding)
        name = f"{dtype}-{'little' if endian == '<' else 'big'}-{encoding}"
        nrrd.write(str(folder / f"{name}.nrrd"), data, header, index_order="F")
        if n % 3 < 2:
            nrrd.write(str(folder / f"{name}-detached.nhdr"), data, header, detached_header=True, index_order="F")
    for n, directions in enumerate(orientations()):
        header = nrrd_header("LPS", "raw", directions)
        nrrd.write(str(folder / f"axes-{n}.nrrd"), values("i2", shape, False), header, index_order="F")
    header = nrrd_header("RAS", "gzip", np.array([[1, 0, 0.4], [0, 1, 0], [0, 0, 1.0]]))
    nrrd.write(str(folder / "sheared.nrrd"), values("i2", shape, False), header, index_order="F")
    refused = lambda code, name: str(folder / f"refused.research.{code}.{name}.nrrd")
    nrrd.write(refused("no-orientation", "plain"), values("i2", shape, False), {"encoding": "raw"}, index_order="F")
    nrrd.write(refused("unsupported", "bzip2"), values("i2", shape, False), nrrd_header("LPS", "bzip2"), index_order="F")


def nrrd_header(space, encoding, directions=None):
    matrix = affine(oblique() if directions is None else directions)
    header = {"space": space, "encoding": encoding, "space directions": matrix[:3, :3].T, "space origin": matrix[:3, 3]}
    return header | {"kinds": ["domain"] * 3}


def make_itk(folder):
    for n, ending in enumerate(["nii", "nii.gz", "hdr", "nrrd", "nhdr"] * 4):
        array = values(["i2", "u1", "f4", "u2"][n // 5], (3, 4, 5), True)
        image = SimpleITK.GetImageFromArray(array)
        image.SetSpacing((0.7, 1.25, 3.0))
        image.SetOrigin((-101.5, 33.0, 712.25))
        image.SetDirection(oblique().ravel())
        SimpleITK.WriteImage(image, str(folder / f"itk-{n}.{ending}"), useCompression=n % 2 == 0)
    vector = SimpleITK.Compose(image, image)
    SimpleITK.WriteImage(vector, str(folder / "refused.research.unsupported.vector.nrrd"))


def make(folder):
    for name, function in [("nifti", make_nifti), ("nrrd", make_nrrd), ("itk", make_itk)]:
        (folder / name).mkdir()
        function(folder / name)


def of_nibabel(path, unit_mm):
    image = nibabel.load(path)
    stored = np.asanyarray(image.dataobj.get_unscaled())
    slope, inter = image.dataobj.slope, image.dataobj.inter
    scale = np.diag([unit_mm, unit_mm, unit_mm, 1.0])
    return stored, float(slope), float(inter), LPS @ scale @ image.affine


def of_pynrrd(path):
    stored, header = nrrd.read(str(path), index_order="F")
    to_lps = {"L": 1, "R": -1, "P": 1, "A": -1, "S": 1}
    space = header["space"]
    letters = space if len(space) == 3 else [word[0].upper() for word in space.split("-")]
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(header["space directions"], float).T
    matrix[:3, 3] = header["space origin"]
    return stored, 1.0, 0.0, np.diag([*(to_lps[letter] for letter in letters), 1.0]) @ matrix


def of_itk(path):
    image = SimpleITK.ReadImage(str(path))
    size = image.GetDimension()
    direction = np.array(image.GetDirection()).reshape(size, size)[:3, :3]
    matrix = np.eye(4)
    matrix[:3, :3] = direction @ np.diag(image.GetSpacing()[:3])
    matrix[:3, 3] = image.GetOrigin()[:3]
    return SimpleITK.GetArrayFromImage(image).T, matrix


def within_float(stored):
    """The stored values as 32-bit floats, or as they are where those are not needed."""
    return stored.astype(np.float32).astype(np.float64) if stored.dtype.kind == "f" or stored.dtype.itemsize > 2 else stored.astype(np.float64)


def compare_one(ours):
    path = Path(ours["file"])
    if path.name.startswith("refused."):
        expected = ".".join(path.name.split(".")[1:3])
        if ours.get("error") != expected:
            raise AssertionError(f"expected {expected}: {ours}")
        return
    if "error" in ours:
        raise AssertionError(f"refused: {ours['error']}: {ours['message']}")
    raw = np.fromfile(ours["raw"], "<" + ours["kind"]).reshape(ours["dims"], order="F")
    physical = ours["slope"] * raw.astype(np.float64) + ours["intercept"]
    matrix = np.vstack([ours["lps_from_voxel"], [0, 0, 0, 1]])
    is_nrrd = path.suffix in (".nrrd", ".nhdr")
    stored, slope, inter, expected = of_pynrrd(path) if is_nrrd else of_nibabel(path, ours["unit_mm"])
    values = (within_float(stored) * slope + inter).reshape(ours["dims"], order="F")
    # Scaled values are rounded in another order; stored ones are the same.
    tolerance = 0.0 if (slope, inter) == (1.0, 0.0) else 1e-12 * np.abs(values).max()
    worst = np.abs(physical - values).max()
    if not worst <= tolerance:
        raise AssertionError(f"values differ by {worst}")
    worst = np.abs(matrix - expected).max()
    if not worst <= 1e-4 * max(1.0, ours["unit_mm"]):
        raise AssertionError(f"affine differs by {worst}:\n{matrix}\n{expected}")
    if "sheared" in path.name or "flat" in path.name or path.name in ("scaled-1.nii", "scaled-u2-1.nii"):
        return  # ITK refuses the first, has two axes for the second, and adds scl_inter where scl_slope of 0 means no scaling
    try:
        array, itk = of_itk(path)
    except RuntimeError as error:
        print(f"SimpleITK does not read {path.name}: {str(error).splitlines()[-1][:150]}", file=sys.stderr)
        return
    worst = np.abs(matrix - itk).max()
    if not worst <= 1e-4 * max(1.0, ours["unit_mm"]):
        raise AssertionError(f"affine differs from ITK's by {worst}:\n{matrix}\n{itk}")
    array = array.astype(np.float64).reshape(ours["dims"], order="F")
    # ITK scales in 32-bit floats.
    tolerance = 0.0 if (slope, inter) == (1.0, 0.0) and raw.dtype.kind != "f" else 1e-6 * np.abs(values).max()
    worst = np.abs(physical - array).max()
    if not worst <= tolerance:
        raise AssertionError(f"values differ from ITK's by {worst}")


def compare(folder):
    failures, compared = [], 0
    for ours in json.loads((folder / "read.json").read_text()):
        try:
            compare_one(ours)
            compared += 1
        except Exception as error:  # each file is named
            failures.append(f"{ours['file']}: {type(error).__name__}: {error}")
    for failure in failures:
        print(failure, file=sys.stderr)
    print(json.dumps({"compared": compared, "failed": len(failures)}))
    return 1 if failures else 0


def labels(folder):
    for ours in json.loads((folder / "written.json").read_text()):
        image = nibabel.load(ours["file"])
        header = image.header
        matrix = np.vstack([ours["lps_from_voxel"], [0, 0, 0, 1]])
        count = int(np.prod(ours["dims"]))
        expected = (np.arange(count) * 2).astype(np.uint8).reshape(ours["dims"], order="F")
        assert image.get_data_dtype() == np.uint8 and np.array_equal(np.asanyarray(image.dataobj), expected), ours["file"]
        for code, name in [(int(header["sform_code"]), "sform"), (int(header["qform_code"]), "qform")]:
            assert code == 1, f"{name}_code {code}"
        for place in [image.get_sform(), image.get_qform()]:
            assert np.abs(LPS @ place - matrix).max() < 1e-4, f"{ours['file']}:\n{LPS @ place}\n{matrix}"
        assert np.allclose(header.get_zooms(), np.linalg.norm(matrix[:3, :3], axis=0), atol=1e-6)
        assert header.get_xyzt_units()[0] == "mm" and header.get_intent()[0] == "label"
        array, itk = of_itk(ours["file"])
        assert np.array_equal(array, expected) and np.abs(itk - matrix).max() < 1e-4, ours["file"]
    return 0


if __name__ == "__main__":
    command, folder = sys.argv[1], Path(sys.argv[2])
    if command == "make":
        make(folder)
    elif command == "compare":
        sys.exit(compare(folder))
    elif command == "labels":
        sys.exit(labels(folder))
    else:
        sys.exit(f"unknown command {command}")
