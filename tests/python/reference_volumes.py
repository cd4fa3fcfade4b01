#!/usr/bin/env python3
"""What other people's readers make of every file and series of the test data: the outside truth of tests/it/verdicts.rs.

usage: reference_volumes.py [--data FOLDER] [--only TEXT] [--quick] > facts.jsonl

One JSON line for each case and series, in a stable order, paths relative to the data folder, no text of a patient:

  case       file, folder or archive that is handed to a reader on its own
  modality, series, instances, frames    what tells the parts of a case apart: `series` counts them, instances and frames are of the part
  kind       volume | image | cine | nothing; with `samples` 1 (grey) or 3 (RGB, 8 bit)
  dims       columns, rows, slices (of a cine: frames)
  lps        4x4 voxel index -> patient LPS mm of a volume; `corners_mm`: LPS of the first and of the last voxel
  sha256     of the stored values as little-endian i32, masked to Bits Stored and sign-extended, column fastest, then row, slice;
             of RGB the bytes; of floats their little-endian f32. `lossy`: decoders may round apart, see `blocks` instead
  blocks     means of the stored values (or of R, G, B) over 4 x 4 blocks of the first and of the last slice
  physical   min, max, mean after the modality LUT, f64;  quantity: hounsfield | arbitrary
  readers    what SimpleITK (GDCM), highdicom, dcm2niix and a ground truth beside the data say of the same: `same`, or the difference
  geometry   why a stack would be wrong: uneven, missing, sheared, shared, orientations, single, none ...
  why        why nothing can be read, in the readers' words

The primary reader is pydicom with its decoders; geometry is computed here from Image Position and Orientation alone
(PS3.3 C.7.6.2.1.1), slices sorted along row x column, from the functional groups where the object is multi-frame.
"""
import argparse
import gzip
import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import warnings
from collections import defaultdict
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.pixels import apply_color_lut, apply_modality_lut, convert_color_space, pixel_array

warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)
sitk.ProcessObject.GlobalWarningDisplayOff()

# Folders that are one case; every other file is a case of its own.
FOLDERS = """
ct-abdomen-siemens/dicom
ct-odd-geometry/oblique-3-slices-simpleitk
ct-odd-geometry/two-orientations-mr-philips
ct-odd-geometry/two-slices-mr
mixed-folder
mr-small-series/compressed-4-ways/jpeg-lossless
mr-small-series/compressed-4-ways/jpeg-ls
mr-small-series/compressed-4-ways/jpeg2000
mr-small-series/compressed-4-ways/rle
mr-small-series/philips-intera
mr-small-series/pmod-non-square-pixels
mr-small-series/siemens-trio
reference_results/ct
seg-sr/dcmqi/24x38x3/image
seg-sr/dcmqi/ct-3slice
""".split()
# Archives that hold more than one thing to read on its own.
SPLIT_ARCHIVES = {"mr-enhanced/siemens-vida-original-and-agfa.tar.xz": ["Agfa", "Siemens"]}
GROUND_TRUTH = {
    "mr-small-series/compressed-4-ways/jpeg-lossless": "mr-small-series/compressed-4-ways/001_ground_truth.nii.gz",
    "mr-small-series/compressed-4-ways/jpeg-ls": "mr-small-series/compressed-4-ways/001_ground_truth.nii.gz",
    "mr-small-series/compressed-4-ways/jpeg2000": "mr-small-series/compressed-4-ways/001_ground_truth.nii.gz",
    "mr-small-series/compressed-4-ways/rle": "mr-small-series/compressed-4-ways/001_ground_truth.nii.gz",
    "mr-small-series/philips-intera": "mr-small-series/philips-intera/001_ground_truth.nii.gz",
    "mr-small-series/pmod-non-square-pixels": "mr-small-series/pmod-non-square-pixels/002_non_isotropic_ground_truth.nii.gz",
    "mr-small-series/siemens-trio": "mr-small-series/siemens-trio/001_ground_truth.nii.gz",
    "mr-enhanced/philips-8frames/IM-0001-0170-0001.dcm": "mr-enhanced/philips-8frames/001_ground_truth.nii.gz",
    "mr-enhanced/siemens-8frames/IM-0001-0001-0001.dcm": "mr-enhanced/siemens-8frames/001_ground_truth.nii.gz",
}
LOSSY = {"1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.53", "1.2.840.10008.1.2.4.55",
         "1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.4.203"}
NATIVE_LIKE = {pydicom.uid.RLELossless, pydicom.uid.DeflatedExplicitVRLittleEndian}
CT_CLASSES = {f"1.2.840.10008.5.1.4.1.1.{n}" for n in ("2", "2.1", "2.2")}
# JPEG extended, spectral selection and full progression, which pydicom's decoders know in part or not at all.
SEQUENTIAL_JPEG = {f"1.2.840.10008.1.2.4.{n}" for n in (51, 53, 55)}
# CT, MR, PET and parametric maps, single, enhanced and legacy converted: slices that must lie in the patient.
SLICE_CLASSES = CT_CLASSES | {f"1.2.840.10008.5.1.4.1.1.{n}" for n in ("4", "4.1", "4.3", "4.4", "128", "128.1", "130", "30")} | {""}
LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def cases(data):
    """(name, path) of every case, by name."""
    folders = [Path(f) for f in FOLDERS]
    found = {str(f) for f in folders if (data / f).is_dir()}
    for path in sorted(p for p in data.rglob("*") if p.is_file()):
        name = path.relative_to(data)
        if not any(f in name.parents for f in folders):
            found.add(str(name))
    for name in sorted(found):
        if name in SPLIT_ARCHIVES:
            for inner in SPLIT_ARCHIVES[name]:
                yield f"{name}:{inner}", data / name, inner
        else:
            yield name, data / name, None


# ------------------------------------------------------------------------------------------------ DICOM: reading
def read_dataset(path):
    """The data set, or None and the reader's words."""
    try:
        return pydicom.dcmread(path), ""
    except pydicom.errors.InvalidDicomError:
        pass
    except Exception as e:  # any reader error is a fact to report
        through = dcmtk_copy(path)
        return (through, "") if through is not None else (None, f"pydicom: {type(e).__name__}; DCMTK fails too")
    try:
        ds = pydicom.dcmread(path, force=True)
    except Exception as e:
        return None, f"pydicom (force): {type(e).__name__}"
    if not any(t in ds for t in ("SOPClassUID", "Modality", "Rows")):
        return None, "pydicom (force): no DICOM data set"
    if "TransferSyntaxUID" not in ds.file_meta:
        implicit, little = ds.original_encoding
        ds.file_meta.TransferSyntaxUID = (pydicom.uid.ImplicitVRLittleEndian if implicit else
                                          pydicom.uid.ExplicitVRLittleEndian if little else pydicom.uid.ExplicitVRBigEndian)
    return ds, ""


def dcmtk_copy(path):
    """The data set as DCMTK's dcmconv writes it anew, where that reads what pydicom does not."""
    if shutil.which("dcmconv") is None:
        return None
    with tempfile.TemporaryDirectory(prefix="reference-") as folder:
        out = Path(folder) / "copy"
        done = subprocess.run(["dcmconv", "-q", str(path), str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        if done.returncode or not out.exists():
            return None
        ds = pydicom.dcmread(out)
        ds.filename = str(path)
        return ds


def number(ds, name, default=None):
    try:
        v = ds.get(name)
        return default if v in (None, "") else float(v)
    except (TypeError, ValueError):
        return default


def stored_values(ds):
    """(frames, rows, columns) integers (masked, sign-extended), floats, or (frames, rows, columns, 3) bytes of RGB."""
    samples = int(ds.SamplesPerPixel)
    if samples == 3:
        rgb = pixel_array(ds, raw=False)
        if rgb.dtype != np.uint8:
            raise ValueError(f"RGB of {rgb.dtype}")
        return rgb.reshape(-1, int(ds.Rows), int(ds.Columns), 3)
    a = pixel_array(ds, raw=True)
    a = a.reshape(-1, int(ds.Rows), int(ds.Columns))
    if ds.PhotometricInterpretation == "PALETTE COLOR" and not str(ds.SOPClassUID).startswith("1.2.840.10008.5.1.4.1.1.66"):
        rgb = apply_color_lut(a, ds)
        return (rgb >> 8).astype(np.uint8) if rgb.dtype == np.uint16 else rgb.astype(np.uint8)
    if a.dtype.kind == "f":
        return a.astype(np.float64)
    if ds.file_meta.TransferSyntaxUID.is_compressed and ds.file_meta.TransferSyntaxUID not in NATIVE_LIKE:
        # What a decoder gives is the value; a lossy one may overshoot Bits Stored, and must not wrap round.
        return a.astype(np.int64)
    bits, high = int(ds.BitsStored), int(ds.get("HighBit", int(ds.BitsStored) - 1))
    a = (a.astype(np.int64) >> (high + 1 - bits)) & ((1 << bits) - 1)
    if int(ds.PixelRepresentation) == 1:
        a = np.where(a >= 1 << (bits - 1), a - (1 << bits), a)
    return a


def groups_of(ds, n, macro):
    """The functional group item of frame n: its own, else the shared one."""
    for holder in (ds.get("PerFrameFunctionalGroupsSequence") or [])[n:n + 1], ds.get("SharedFunctionalGroupsSequence") or []:
        for item in holder[:1]:
            found = item.get(macro)
            if found:
                return found[0]
    return pydicom.Dataset()


def frames_of(ds, enhanced):
    """What each frame says of itself: position, orientation, spacing, slope, intercept, rescale type, temporal position."""
    count = int(ds.get("NumberOfFrames") or 1)
    out = []
    for n in range(count):
        g = (lambda macro, n=n: groups_of(ds, n, macro)) if enhanced else (lambda macro: ds)
        content = groups_of(ds, n, "FrameContentSequence") if enhanced else ds
        get = lambda item, name: (None if item.get(name) in (None, "") else item.get(name))
        floats = lambda v, k: None if v is None or len(v) != k else [float(x) for x in v]
        value = g("PixelValueTransformationSequence")
        out.append({
            "ds": ds, "n": n,
            "position": floats(get(g("PlanePositionSequence"), "ImagePositionPatient"), 3),
            "orientation": floats(get(g("PlaneOrientationSequence"), "ImageOrientationPatient"), 6),
            "spacing": floats(get(g("PixelMeasuresSequence"), "PixelSpacing"), 2),
            "slope": number(value, "RescaleSlope"), "intercept": number(value, "RescaleIntercept"),
            "type": str(value.get("RescaleType", "")),
            "time": str(content.get("TemporalPositionIndex", "")) if enhanced else "",
            "stack": str(content.get("StackID", "")) if enhanced else "",
        })
    return out


# ------------------------------------------------------------------------------------------------ geometry
def lattice(frames):
    """(order, affine, problems) of frames that all have a place; the affine is None where there is a problem that forbids one."""
    problems = []
    orientation = np.array([f["orientation"] for f in frames])
    spacing = np.array([f["spacing"] for f in frames])
    if np.abs(orientation - orientation[0]).max() > 1e-4:
        normals = np.cross(orientation[:, :3], orientation[:, 3:])
        angle = np.degrees(np.arccos(np.clip(normals @ normals[0], -1, 1))).max()
        return None, None, [f"orientations: normals up to {angle:.1f} degrees apart"]
    if np.abs(spacing / spacing[0] - 1).max() > 1e-4:
        return None, None, ["pixel spacings differ"]
    row, column = orientation[0, :3], orientation[0, 3:]
    lengths = np.linalg.norm(row), np.linalg.norm(column), row @ column
    if abs(lengths[0] - 1) > 1e-4 or abs(lengths[1] - 1) > 1e-4 or abs(lengths[2]) > 1e-4:
        return None, None, [f"orientation vectors of lengths {lengths[0]:.6f}, {lengths[1]:.6f}, product {lengths[2]:.6f}"]
    row, column = row / lengths[0], column / lengths[1]
    normal = np.cross(row, column)
    position = np.array([f["position"] for f in frames])
    order = np.argsort(position @ normal, kind="stable")
    p = position[order]
    along = p @ normal
    if len(p) == 1:
        affine = np.eye(4)
        affine[:3, 0], affine[:3, 1], affine[:3, 2], affine[:3, 3] = row * spacing[0][1], column * spacing[0][0], normal, p[0]
        return order, affine, ["single slice: its distance to a neighbour is unknown"]
    gaps = np.diff(along)
    if (gaps < 0.01).any():
        problems.append(f"shared: {len(p)} slices at {1 + int((gaps >= 0.01).sum())} positions")
        return order, None, problems
    fit = np.polyfit(np.arange(len(p)), along, 1)
    off = np.abs(np.polyval(fit, np.arange(len(p))) - along).max()
    if off > max(0.01, 0.01 * fit[0]):
        median = np.sort(gaps)[(len(gaps) - 1) // 2]
        odd = gaps[np.abs(gaps - median) > 0.05 * median]
        whole = len(odd) and (np.round(odd / median) >= 2).all() and (np.abs(odd - np.round(odd / median) * median) <= 0.05 * median).all()
        word = "missing" if whole else "uneven"
        problems.append(f"{word}: slices {gaps.min():.3f} to {gaps.max():.3f} mm apart, median {median:.3f} mm")
    step = p[-1] - p[0]
    angle = np.degrees(np.arctan2(np.linalg.norm(np.cross(step, normal)), step @ normal))
    if angle > 0.0573:
        problems.append(f"sheared: slices advance {angle:.2f} degrees off their normal (gantry tilt)")
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = row * spacing[0][1], column * spacing[0][0]
    affine[:3, 2], affine[:3, 3] = step / (len(p) - 1), p[0]
    if 1e-4 < off and not problems:
        problems.append(f"note: positions rounded, up to {off:.4f} mm off a regular stack; affine from the first and last slice")
    return order, affine, problems


def off_lattice(frames):
    """How far slices lie from the regular stack between the first and the last, mm: what no grid can say better."""
    p = np.array([f["position"] for f in frames])
    ideal = p[0] + np.arange(len(p))[:, None] * (p[-1] - p[0]) / max(1, len(p) - 1)
    return float(np.linalg.norm(p - ideal, axis=1).max())


def corners(affine, dims):
    last = np.array([d - 1 for d in dims] + [1.0])
    return [affine[:3, 3].tolist(), (affine @ last)[:3].tolist()]


def farthest_corner(a, b, dims):
    """Largest distance of the same voxel by two affines, mm."""
    corner = np.array([[i, j, k, 1] for i in (0, dims[0] - 1) for j in (0, dims[1] - 1) for k in (0, dims[2] - 1)], float)
    return float(np.linalg.norm((corner @ (a - b).T)[:, :3], axis=1).max())


# ------------------------------------------------------------------------------------------------ facts of one set of voxels
def digest(values):
    if values.ndim == 4 or values.dtype == np.uint8:
        return hashlib.sha256(np.ascontiguousarray(values).astype("u1").tobytes()).hexdigest()
    kind = "<f4" if values.dtype.kind == "f" else "<i4"
    return hashlib.sha256(np.ascontiguousarray(values).astype(kind).tobytes()).hexdigest()


def blocks(values):
    """Means over 4 x 4 blocks of the first and last slice, row by row (R, G, B after each other): tells flips and swapped channels."""
    out = []
    for s in (values[0], values[-1]):
        rows, columns = np.array_split(np.arange(s.shape[0]), min(4, s.shape[0])), np.array_split(np.arange(s.shape[1]), min(4, s.shape[1]))
        for r in rows:
            for c in columns:
                mean = s[r[0]:r[-1] + 1, c[0]:c[-1] + 1].astype(np.float64).mean(axis=(0, 1))
                out += [round(float(m), 3) for m in np.atleast_1d(mean)]
    return out


def physical_values(frames, stored):
    """After the modality LUT, f64, and what the numbers are."""
    first = frames[0]["ds"]
    if stored.ndim == 4:
        return stored.astype(np.float64)
    if "ModalityLUTSequence" in first:
        return np.stack([np.asarray(apply_modality_lut(s, f["ds"]), np.float64) for s, f in zip(stored, frames)])
    one = lambda f, name, other: other if f[name] is None else f[name]
    slope = np.array([one(f, "slope", 1.0) for f in frames])[:, None, None]
    intercept = np.array([one(f, "intercept", 0.0) for f in frames])[:, None, None]
    return stored * slope + intercept


def quantity_of(frames, modality):
    # Thousandths of optical density; parametric maps state their unit in a real world value mapping.
    if all(f["type"].strip().startswith("OD") for f in frames) or str(frames[0]["ds"].get("SOPClassUID", "")).endswith(".30"):
        return "measured"
    hounsfield = modality == "CT" and str(frames[0]["ds"].get("SOPClassUID", "")) in CT_CLASSES | {""} and all(f["type"].strip() in ("", "HU") and f["slope"] is not None for f in frames)
    return "hounsfield" if hounsfield else "arbitrary"


def describe(stored, physical):
    return {
        "sha256": digest(stored), "blocks": blocks(stored),
        "physical": {"min": float(physical.min()), "max": float(physical.max()), "mean": float(physical.mean(dtype=np.float64))},
    }


# ------------------------------------------------------------------------------------------------ second readers
def difference(a, b):
    if a.shape != b.shape:
        return f"shape {list(b.shape)}, not {list(a.shape)}"
    d = np.abs(a.astype(np.float64) - b.astype(np.float64))
    # Readers that hold f32 round in the 7th digit.
    close = d.max() <= 1e-6 * max(1.0, np.abs(a).max())
    if not close and a.std() > 0 and np.corrcoef(a.ravel(), b.ravel())[0, 1] > 1 - 1e-9:
        return f"values scaled by {float(b.std() / a.std()):.6g}, else same"
    return "" if close else f"values differ by up to {d.max():.6g} in {100 * float((d > 0).mean()):.3g} % of the voxels"


def with_sitk(files, frames, stored, physical, affine, order):
    """SimpleITK on the same files: values in our order, and where it puts the corners."""
    try:
        if len(files) > 1:
            reader = sitk.ImageSeriesReader()
            reader.SetFileNames([str(f["ds"].filename) for f in frames])
            image = reader.Execute()
            theirs = sitk.GetArrayFromImage(image)
        else:
            image = sitk.ReadImage(str(files[0]))
            theirs = sitk.GetArrayFromImage(image)
            if theirs.ndim == physical.ndim - 1:
                theirs = theirs[None]
            if len(frames) > 1 and theirs.shape[0] >= len(frames):
                theirs = theirs[[f["n"] for f in frames]]
    except RuntimeError as e:
        return "cannot read: " + str(e).strip().splitlines()[-1].split(" for \"")[0].split("): ")[-1][:80]
    notes = []
    found = difference(physical, theirs)
    if found and frames[0]["ds"].get("PhotometricInterpretation") == "MONOCHROME1":
        bits = (1 << int(frames[0]["ds"].BitsStored)) - 1
        inverted = not difference(physical_values(frames, bits - stored), theirs)
        found = "values inverted (MONOCHROME1), else same" if inverted else found
    if found:
        notes.append(found)
    if affine is not None and image.GetDimension() == 3 and (len(files) > 1 or len(frames) > 1) and len(frames) == image.GetSize()[2]:
        m = np.eye(4)
        direction = np.array(image.GetDirection()).reshape(3, 3)
        m[:3, :3], m[:3, 3] = direction * np.array(image.GetSpacing()), image.GetOrigin()
        dims = [stored.shape[2], stored.shape[1], stored.shape[0]]
        off = farthest_corner(affine, m, dims)
        if off > 1e-4:
            notes.append(f"corners up to {off:.4f} mm away")
    return "; ".join(notes) or "same"


def with_highdicom(files, frames, physical, affine):
    """highdicom's volume: None where it is not made for such objects."""
    import highdicom as hd
    try:
        if len(files) > 1:
            volume = hd.get_volume_from_series([f["ds"] for f in frames], dtype=np.float64, apply_real_world_transform=False)
        else:
            if len(frames) < 2:
                return None
            volume = hd.imread(str(files[0])).get_volume(dtype=np.float64, apply_real_world_transform=False)
    except Exception as e:
        return f"refuses: {type(e).__name__}: {str(e).splitlines()[0][:110]}" if str(e) else f"refuses: {type(e).__name__}"
    m = np.asarray(volume.affine)          # index (slice, row, column)
    a = np.asarray(volume.array)
    swap = m[:, [2, 1, 0, 3]]
    step = swap[:3, 2] @ affine[:3, 2]
    if step < 0:                           # the same stack from its other end
        a = a[::-1]
        swap = swap.copy()
        swap[:3, 3] += swap[:3, 2] * (a.shape[0] - 1)
        swap[:3, 2] *= -1
    notes = [n for n in [difference(physical, a)] if n]
    off = farthest_corner(affine, swap, [a.shape[2], a.shape[1], a.shape[0]]) if a.shape == physical.shape else 0
    if off > 1e-4:
        notes.append(f"corners up to {off:.4f} mm away")
    return "; ".join(notes) or "same"


def on_grid(image, affine, dims):
    """A NIfTI image's voxels on the axes of our grid, as (slice, row, column), and its affine there; 3D only."""
    ours = nib.io_orientation(LPS_FROM_RAS @ affine)
    turned = image.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(image.affine), ours))
    return np.asarray(turned.dataobj, np.float64).transpose(2, 1, 0), LPS_FROM_RAS @ turned.affine


def with_nifti(images, physical, affine):
    """The one of `images` that has our shape and place, compared."""
    dims = [physical.shape[2], physical.shape[1], physical.shape[0]]
    best = None
    for image in images:
        parts = [image] if image.ndim == 3 else [image.slicer[..., t] for t in range(image.shape[3])] if image.ndim == 4 else []
        for part in parts:
            a, m = on_grid(part, affine, dims)
            if a.shape != physical.shape:
                continue
            off = farthest_corner(affine, m, dims)
            d = difference(physical, a)
            notes = [n for n in [d, f"corners up to {off:.4f} mm away" if off > 1e-3 else ""] if n]
            if best is None or len(notes) < len(best):
                best = notes
    if best is None:
        return "no volume of this shape: " + ", ".join(str(list(i.shape)) for i in images) if images else "made nothing"
    return "; ".join(best) or "same"


def run_dcm2niix(folder):
    """What dcm2niix writes for a folder, read into memory."""
    out = Path(tempfile.mkdtemp(prefix="reference-"))
    try:
        if shutil.which("dcm2niix") is None:
            return None
        subprocess.run(["dcm2niix", "-b", "n", "-z", "n", "-f", "%s_%j_%t_%e", "-o", str(out), str(folder)],
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=120, check=False)
        images = []
        for path in sorted(out.glob("*.nii")):
            image = nib.load(path)
            if image.get_data_dtype().fields is None:                  # not RGB
                images.append(nib.Nifti1Image(np.asarray(image.dataobj), image.affine))
        return images
    except subprocess.TimeoutExpired:
        return None
    finally:
        shutil.rmtree(out)


# ------------------------------------------------------------------------------------------------ one case
def is_enhanced(ds):
    return "PerFrameFunctionalGroupsSequence" in ds or "SharedFunctionalGroupsSequence" in ds


def image_facts(kind, frames, stored, modality, files, quick):
    """Facts of single images and cines: no patient geometry."""
    physical = physical_values(frames, stored)
    fact = {"kind": kind, "samples": 3 if stored.ndim == 4 else 1, "dims": [stored.shape[2], stored.shape[1], stored.shape[0]]}
    # A modality LUT takes whole numbers to whole numbers: what it gives is what is kept.
    kept = np.rint(physical).astype(np.int64) if "ModalityLUTSequence" in frames[0]["ds"] else stored
    fact.update(describe(kept, physical), quantity=quantity_of(frames, modality))
    fact["readers"] = {} if quick else {"SimpleITK": with_sitk(files, frames, stored, physical, None, None)}
    return fact


def is_localizer(f):
    """Image Type value 3 (PS3.3 C.8.2.1.1.1)."""
    types = f["ds"].get("ImageType") or []
    return not isinstance(types, str) and "LOCALIZER" in list(types)[2:]


def picture_spacing(ds):
    """Between rows and between columns of an image that lies nowhere, mm (PS3.3 10.7.1.3), and 0, 0 where none is stated."""
    imager = ds.get("ImagerPixelSpacing")
    if ds.get("PixelSpacing"):
        return [float(v) for v in ds.PixelSpacing]
    if imager:
        magnification = number(ds, "EstimatedRadiographicMagnificationFactor") or 1.0
        return [float(v) / max(1.0, magnification) for v in imager]
    regions = ds.get("SequenceOfUltrasoundRegions") or []
    if len(regions) == 1 and int(regions[0].get("PhysicalUnitsXDirection", 0)) == 3 == int(regions[0].get("PhysicalUnitsYDirection", 0)):
        return [abs(float(regions[0].PhysicalDeltaY)) * 10, abs(float(regions[0].PhysicalDeltaX)) * 10]
    return [0.0, 0.0]


def cine_facts(base, frames, values, modality, files, quick):
    """One place over time."""
    stored = np.stack([values[id(f["ds"])][f["n"]] for f in frames])
    return dict(base, instances=len({id(f["ds"]) for f in frames}), frames=len(frames), **image_facts("cine", frames, stored, modality, files, quick), geometry=["one position over time"])


def group_facts(files, datasets, nifti, truth, quick):
    """Facts of the instances of one series: one for each set of frames that belongs together."""
    first = datasets[0]
    modality = str(first.get("Modality", ""))
    frame_counts = [int(d.get("NumberOfFrames")) if str(d.get("NumberOfFrames", "")).isdigit() else 1 for d in datasets]
    base = {"modality": modality or "-", "instances": len(datasets), "frames": sum(max(1, n) for n in frame_counts), "sop_class": str(first.get("SOPClassUID", "")),
            "image_type": [str(v) for v in first.get("ImageType", []) or []] if not isinstance(first.get("ImageType"), str) else [],
            "photometric": str(first.get("PhotometricInterpretation", "")), "signed": str(first.get("PixelRepresentation", "")),
            "bits": [str(first.get(n, "")) for n in ("BitsAllocated", "BitsStored", "HighBit")],
            "syntax": sorted({str(d.file_meta.get("TransferSyntaxUID", "")) for d in datasets})}
    base["studies"] = len({str(d.get("StudyInstanceUID", "")) for d in datasets})
    base["patients"] = len({(str(d.get("PatientID", "")), str(d.get("PatientName", ""))) for d in datasets})
    base["twice"] = len(datasets) - len({str(d.get("SOPInstanceUID", "")) or id(d) for d in datasets})
    base["lossy"] = bool(set(base["syntax"]) & LOSSY) or str(first.get("PhotometricInterpretation", "")).startswith(("YBR_FULL", "YBR_PARTIAL"))
    if not any(n in d for d in datasets for n in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        yield dict(base, kind="nothing", why="no pixel data")
        return
    values = {}
    for d in datasets:
        try:
            values[id(d)] = stored_values(d)
        except Exception as e:
            if len(datasets) == 1 and d.file_meta.get("TransferSyntaxUID") in SEQUENTIAL_JPEG and (theirs := through_sitk(files[0], d)) is not None:
                values[id(d)] = theirs
                base["reader"] = "SimpleITK"
                continue
            yield dict(base, kind="nothing", why=f"pydicom: {type(e).__name__}: {' '.join(str(e).split())[:160]}",
                       readers={"SimpleITK": sitk_alone(files[0])} if len(files) == 1 else {})
            return
    enhanced = is_enhanced(first)
    frames = [f for d in datasets for f in frames_of(d, enhanced)]
    if any(len(values[id(d)]) != int(d.get("NumberOfFrames") or 1) for d in datasets):
        base["note"] = "another number of frames than the header says"
    scouts = [f for f in frames if is_localizer(f)]
    if scouts:
        yield dict(base, kind="nothing", instances=len({id(f["ds"]) for f in scouts}), frames=len(scouts), geometry=["localizer"],
                   why="localizers plan an examination and are no volume")
        frames = [f for f in frames if not is_localizer(f)]
        if not frames:
            return
    placed = [f for f in frames if f["position"] and f["orientation"] and f["spacing"]]
    if len(placed) < len(frames) or base["sop_class"] not in SLICE_CLASSES:
        # No patient geometry: each instance is an image or a cine by itself.
        for d, path in zip(datasets, files):
            own = [f for f in frames if f["ds"] is d]
            kind = "image" if len(own) == 1 else "cine"
            facts = image_facts(kind, own, values[id(d)], modality, [path], quick)
            yield dict(base, instances=1, frames=len(own), spacing_mm=picture_spacing(d), **facts, geometry=["none: no position and orientation"])
        return
    # Frames that belong together: one size and orientation, one point in time.
    sets = defaultdict(list)
    for f in placed:
        d = f["ds"]
        same = tuple(round(v, 3) + 0.0 for v in f["orientation"])
        sets[(int(d.Rows), int(d.Columns), same, f["stack"], f["time"])].append(f)
    if len(sets) == len(placed) > 1 and all(f["time"] for f in placed) and len({tuple(f["position"]) for f in placed}) == 1:
        yield cine_facts(base, sorted(placed, key=lambda f: float(f["time"])), values, modality, files, quick)
        return
    for group in sets.values():
        order, affine, problems = lattice(group)
        if order is None:
            order = range(len(group))
        ordered = [group[n] for n in order]
        stored = np.stack([values[id(f["ds"])][f["n"]] for f in ordered])
        physical = physical_values(ordered, stored)
        fact = dict(base, kind="volume" if len(ordered) > 1 else "image", samples=3 if stored.ndim == 4 else 1,
                    dims=[stored.shape[2], stored.shape[1], stored.shape[0]], geometry=problems, frames=len(ordered), instances=len({id(f["ds"]) for f in ordered}), off_mm=off_lattice(ordered) if affine is not None else 0.0,
                    quantity=quantity_of(ordered, modality), **describe(stored, physical))
        if affine is not None:
            fact["lps"], fact["corners_mm"] = affine.tolist(), corners(affine, fact["dims"])
        own_files = sorted({str(f["ds"].filename) for f in ordered})
        readers = {}
        if not quick:
            readers["SimpleITK"] = with_sitk(own_files, ordered, stored, physical, affine, order)
            if affine is not None and len(ordered) > 1 and stored.ndim == 3:
                readers["highdicom"] = with_highdicom(own_files, ordered, physical, affine)
                if nifti is not None:
                    readers["dcm2niix"] = with_nifti(nifti, physical, affine)
        if truth is not None and affine is not None:
            readers["ground truth"] = with_nifti([nib.load(truth)], physical, affine)
        fact["readers"] = {k: v for k, v in readers.items() if v is not None}
        yield fact


def through_sitk(path, ds):
    """Stored values of a JPEG that only GDCM decodes: SimpleITK's physical ones, the modality's line taken back."""
    try:
        a = sitk.GetArrayFromImage(sitk.ReadImage(str(path))).astype(np.float64)
    except RuntimeError:
        return None
    return np.rint((a - number(ds, "RescaleIntercept", 0.0)) / number(ds, "RescaleSlope", 1.0)).astype(np.int64)


def sitk_alone(path):
    try:
        a = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
        return f"reads {list(a.shape)} {a.dtype}, {a.min()} to {a.max()}, mean {a.mean():.3f}"
    except RuntimeError as e:
        return "cannot read: " + str(e).strip().splitlines()[-1].split(" for \"")[0].split("): ")[-1][:80]


def dicom_facts(root, files, truth, quick):
    """Facts of all DICOM files of a case."""
    series, skipped = defaultdict(list), []
    for path in files:
        ds, why = read_dataset(path)
        # A directory of a medium lists images and is none.
        if ds is not None and "DirectoryRecordSequence" in ds:
            ds, why = None, "DICOMDIR"
        if ds is None:
            skipped.append({"modality": "-", "instances": 0, "frames": 0, "file": path.name, "kind": "nothing", "why": why,
                            "readers": {} if quick else {"SimpleITK": sitk_alone(path)}})
        else:
            series[str(ds.get("SeriesInstanceUID", "")) or f"no UID, folder {path.parent}"].append((path, ds))
    nifti = None
    if not quick and any(len(s) > 1 or int(number(s[0][1], "NumberOfFrames", 1) or 1) > 1 for s in series.values()):
        nifti = run_dcm2niix(root if root.is_dir() else alone(root))
    for n, (_, members) in enumerate(sorted(series.items(), key=lambda s: str(s[1][0][0]))):
        for fact in group_facts([m[0] for m in members], [m[1] for m in members], nifti, truth, quick):
            yield {"series": n + 1, **fact}
    yield from skipped


def alone(path):
    """A file in a folder of its own, for programs that take folders."""
    folder = Path(tempfile.mkdtemp(prefix="reference-"))
    shutil.copy(path, folder)
    return folder


def nifti_facts(path):
    image = nib.load(path)
    raw = image.dataobj.get_unscaled()
    slope, inter = image.dataobj.slope, image.dataobj.inter
    if raw.ndim == 4 and raw.shape[3] == 1:
        raw = raw[..., 0]
    stored = raw.transpose(2, 1, 0)
    stored = stored.astype(np.float64 if stored.dtype.kind == "f" else np.int64)
    fact = grid_facts(stored, stored * slope + inter, LPS_FROM_RAS @ image.affine)
    theirs = sitk.ReadImage(str(path))
    fact["readers"] = {"SimpleITK": against(theirs, stored * slope + inter, np.array(fact["lps"]), fact["dims"])}
    fact["stored_type"] = str(raw.dtype)
    return dict(fact, modality="NIfTI", instances=1, frames=fact["dims"][2])


def nrrd_facts(path):
    voxels, header = nrrd.read(str(path))
    to_lps = {"left-posterior-superior": np.eye(3), "LPS": np.eye(3), "right-anterior-superior": LPS_FROM_RAS[:3, :3], "RAS": LPS_FROM_RAS[:3, :3]}
    space = header.get("space")
    if voxels.ndim != 3 or space not in to_lps:
        return {"modality": "NRRD", "instances": 1, "frames": 0, "kind": "nothing", "why": f"{voxels.ndim} axes, space {space}"}
    m = np.eye(4)
    m[:3, :3] = to_lps[space] @ np.array(header["space directions"], float).T
    m[:3, 3] = to_lps[space] @ np.array(header["space origin"], float)
    stored = voxels.transpose(2, 1, 0)
    stored = stored.astype(np.float64 if stored.dtype.kind == "f" else np.int64)
    fact = grid_facts(stored, stored.astype(np.float64), m)
    fact["readers"] = {"SimpleITK": against(sitk.ReadImage(str(path)), stored, m, fact["dims"])}
    fact["stored_type"] = str(voxels.dtype)
    return dict(fact, modality="NRRD", instances=1, frames=fact["dims"][2])


def against(image, physical, affine, dims):
    a = sitk.GetArrayFromImage(image)
    m = np.eye(4)
    m[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    m[:3, 3] = image.GetOrigin()
    notes = [n for n in [difference(physical, a)] if n]
    off = farthest_corner(affine, m, dims)
    if off > 1e-4:
        notes.append(f"corners up to {off:.4f} mm away")
    return "; ".join(notes) or "same"


def grid_facts(stored, physical, affine):
    dims = [stored.shape[2], stored.shape[1], stored.shape[0]]
    return {"kind": "volume", "samples": 1, "dims": dims, "lps": affine.tolist(), "corners_mm": corners(affine, dims),
            "quantity": "arbitrary", "lossy": False, "geometry": [], **describe(stored, physical)}


def facts_of(name, path, inner, data, quick):
    truth = data / GROUND_TRUTH[name] if name in GROUND_TRUTH else None
    if name.endswith((".nii", ".nii.gz")):
        yield nifti_facts(path)
    elif name.endswith(".nrrd"):
        yield nrrd_facts(path)
    elif path.name.endswith(".tar.xz"):
        folder = Path(tempfile.mkdtemp(prefix="reference-"))
        try:
            with tarfile.open(path) as archive:
                archive.extractall(folder, filter="data")
            root = next(p for p in folder.rglob(inner) if p.is_dir()) if inner else folder
            files = sorted(p for p in root.rglob("*") if p.is_file())
            for nii in [f for f in files if f.suffix == ".nii"]:
                yield dict(nifti_facts(nii), file=nii.name)
            rest = [f for f in files if f.suffix != ".nii"]
            if rest:
                yield from dicom_facts(root, rest, truth, quick)
        finally:
            shutil.rmtree(folder)
    else:
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        yield from dicom_facts(path, files, truth, quick)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(os.environ.get("ROENTGEN_TEST_DATA", Path(__file__).parents[2] / "../shared/data"))
    parser.add_argument("--data", type=Path, default=default)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--quick", action="store_true", help="no second readers")
    a = parser.parse_args()
    data = a.data.resolve()
    for name, path, inner in cases(data):
        if a.only not in name:
            continue
        for fact in facts_of(name, path, inner, data, a.quick):
            print(json.dumps({"case": name, **fact}), flush=True)


if __name__ == "__main__":
    main()
