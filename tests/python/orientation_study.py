#!/usr/bin/env python3
"""One phantom, sampled on grids of every orientation, as DICOM; and what became of it in our segmentations.

usage: orientation_study.py write FOLDER                  FOLDER/<case>/... the DICOM files, FOLDER/cases.json the cases
       orientation_study.py read FOLDER SEGMENTATIONS     reads SEGMENTATIONS/<case>.dcm with highdicom and compares; 1 where any differs

The phantom is three bodies of different shapes and sizes at places without any symmetry, given in patient LPS mm: a box, an ellipsoid and an
L of two boxes. A voxel has the number of the body at its centre, so that the truth of a grid (voxels, centroid of their centres) comes from
the grid's own affine and the formulas, before anything is written as DICOM. A flip, a swap of axes or a shift moves a centroid by millimetres.

Row and column directions of a DICOM image may be any two perpendicular ones: 6 x 4 = 24 axis-aligned pairs, and the normal is their cross
product, so a grid along it is right-handed. The other 24 of the 48 axis orientations are those whose slices come in the opposite order:
Instance Number (or the frame's number) descends along the normal, and a reader that stacks by number sees a left-handed, mirrored volume.
All 48 are written, and random oblique rotations, each as single-frame CT with shuffled names, and as Enhanced CT.
"""
import itertools
import json
import sys
import warnings
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence

warnings.simplefilter("ignore")
SEED = 20240305
OBLIQUE = 12
# Columns, rows, slices, and their spacings, mm: all different, so that no two axes can be swapped unseen.
DIMS = (26, 22, 14)
SPACING = (2.25, 2.0, 3.75)
CENTRE = np.array([17.5, -42.25, 311.0])
HU = {0: -1000, 1: 100, 2: 200, 3: 300}


def body(p):
    """Number of the body at points (..., 3), mm from the phantom's centre; 0 outside all."""
    x, y, z = np.moveaxis(p, -1, 0)
    out = np.zeros(p.shape[:-1], np.uint8)
    out[(np.abs(x + 7) < 6) & (np.abs(y - 5) < 3.6) & (np.abs(z + 9) < 8)] = 1                                     # box
    out[((x - 9) / 7.5) ** 2 + ((y + 6) / 5.5) ** 2 + ((z - 6) / 9.5) ** 2 < 1] = 2                                # ellipsoid
    leg = (np.abs(x + 10) < 3.4) & (np.abs(y + 9) < 7) & (np.abs(z - 12) < 3.3)
    foot = (np.abs(x + 4) < 9.4) & (np.abs(y + 13) < 3) & (np.abs(z - 12) < 3.3)
    out[(leg | foot) & (out == 0)] = 3                                                                             # L
    return out


def grids():
    """(name, row direction, column direction) of 24 axis-aligned and OBLIQUE random pairs."""
    axes = [s * np.eye(3)[a] for a in range(3) for s in (1, -1)]
    letters = {tuple(a): l for a, l in zip((tuple(a) for a in axes), "LRPASI")}
    for row, column in itertools.product(axes, axes):
        if row @ column == 0:
            yield f"{letters[tuple(row)]}{letters[tuple(column)]}", row, column
    random = np.random.default_rng(SEED)
    for n in range(OBLIQUE):
        q = random.normal(size=4)
        w, x, y, z = q / np.linalg.norm(q)
        r = np.array([[1 - 2 * (y * y + z * z), 2 * (x * y - z * w)], [2 * (x * y + z * w), 1 - 2 * (x * x + z * z)],
                      [2 * (x * z - y * w), 2 * (y * z + x * w)]])
        yield f"oblique{n:02}", r[:, 0], r[:, 1]


def decimal(values):
    """Decimal Strings of at most 16 characters."""
    return [pydicom.valuerep.DSfloat(v, auto_format=True) for v in values]


def uid(*parts):
    return pydicom.uid.generate_uid(prefix="2.25.", entropy_srcs=["orientations", *map(str, parts)])


def common(case, sop_class, number):
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = sop_class
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = uid(case, "instance", number)
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = uid(case, "study"), uid(case, "series"), uid(case, "frame")
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "Phantom^Orientation", "ORIENTATION", "", "O"
    ds.StudyDate = ds.SeriesDate = ds.ContentDate = ds.AcquisitionDate = "20240305"
    ds.StudyTime = ds.SeriesTime = ds.ContentTime = ds.AcquisitionTime = "091500"
    ds.AccessionNumber = ds.ReferringPhysicianName = ds.StudyID = ds.PositionReferenceIndicator = ""
    ds.Modality, ds.Manufacturer, ds.ManufacturerModelName = "CT", "Synthetic", "Synthetic"
    ds.DeviceSerialNumber, ds.SoftwareVersions = "1", "1"
    ds.SeriesNumber, ds.InstanceNumber, ds.AcquisitionNumber = 1, number, 1
    ds.PatientPosition, ds.KVP = "HFS", "120"
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = DIMS[1], DIMS[0]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.BurnedInAnnotation, ds.LossyImageCompression = "NO", "00"
    return ds


def write_single(folder, case, affine, row, column, stored, order, random):
    """One file a slice; `order`: Instance Number of slice k; names in no order at all."""
    names = random.permutation(DIMS[2])
    for k in range(DIMS[2]):
        ds = common(case, pydicom.uid.CTImageStorage, int(order[k]) + 1)
        ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.ImagePositionPatient = decimal((affine @ [0, 0, k, 1])[:3])
        ds.ImageOrientationPatient = decimal([*row, *column])
        ds.PixelSpacing, ds.SliceThickness = decimal([SPACING[1], SPACING[0]]), "1.0"
        ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = "1", "-1024", "HU"
        ds.PixelData = stored[k].astype("<u2").tobytes()
        ds.save_as(folder / f"f{names[k]:02}", enforce_file_format=True)


def item(**attributes):
    ds = Dataset()
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return Sequence([ds])


def write_enhanced(folder, case, affine, row, column, stored, order):
    """One multi-frame file; `order`: place in the file of slice k."""
    ds = common(case, pydicom.uid.EnhancedCTImageStorage, 1)
    frame_type = {"FrameType": ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"], "PixelPresentation": "MONOCHROME",
                  "VolumetricProperties": "VOLUME", "VolumeBasedCalculationTechnique": "NONE"}
    ds.ImageType = frame_type["FrameType"]
    ds.PixelPresentation, ds.VolumetricProperties, ds.VolumeBasedCalculationTechnique = "MONOCHROME", "VOLUME", "NONE"
    ds.ContentQualification, ds.AcquisitionDateTime = "RESEARCH", "20240305091500"
    ds.NumberOfFrames, ds.PresentationLUTShape = DIMS[2], "IDENTITY"
    organization = uid(case, "dimensions")
    ds.DimensionOrganizationSequence = item(DimensionOrganizationUID=organization)
    pointers = [(0x00209056, 0x00209111), (0x00209057, 0x00209111)]                # Stack ID, In-Stack Position Number
    ds.DimensionIndexSequence = Sequence(
        [item(DimensionOrganizationUID=organization, DimensionIndexPointer=p, FunctionalGroupPointer=g)[0] for p, g in pointers])
    shared = Dataset()
    shared.CTImageFrameTypeSequence = item(**frame_type)
    shared.PlaneOrientationSequence = item(ImageOrientationPatient=decimal([*row, *column]))
    shared.PixelMeasuresSequence = item(PixelSpacing=decimal([SPACING[1], SPACING[0]]), SliceThickness="1.0")
    shared.PixelValueTransformationSequence = item(RescaleSlope="1", RescaleIntercept="-1024", RescaleType="HU")
    ds.SharedFunctionalGroupsSequence = Sequence([shared])
    frames, pixels = [None] * DIMS[2], [None] * DIMS[2]
    for k in range(DIMS[2]):
        n = int(order[k])
        frame = Dataset()
        frame.FrameContentSequence = item(StackID="1", InStackPositionNumber=n + 1, DimensionIndexValues=[1, n + 1],
                                          FrameAcquisitionNumber=1)
        frame.PlanePositionSequence = item(ImagePositionPatient=decimal((affine @ [0, 0, k, 1])[:3]))
        frames[n], pixels[n] = frame, stored[k].astype("<u2").tobytes()
    ds.PerFrameFunctionalGroupsSequence = Sequence(frames)
    ds.PixelData = b"".join(pixels)
    ds.save_as(folder / "enhanced", enforce_file_format=True)


def write(folder):
    random = np.random.default_rng(SEED + 1)
    cases = {}
    for name, row, column in grids():
        normal = np.cross(row, column)
        affine = np.eye(4)
        for n, direction in enumerate((row, column, normal)):
            affine[:3, n] = direction * SPACING[n]
        # Off the phantom's centre by part of a voxel, so that no symmetry of the sampling hides a shift.
        affine[:3, 3] = CENTRE - affine[:3, :3] @ ((np.array(DIMS) - 1) / 2 + [0.3, -0.2, 0.4])
        k, j, i = np.meshgrid(*(np.arange(n) for n in DIMS[::-1]), indexing="ij")
        centres = np.stack([i, j, k, np.ones_like(i)], -1) @ affine.T
        labels = body(centres[..., :3] - CENTRE)
        truth = {int(n): {"voxels": int((labels == n).sum()), "centroid_mm": centres[labels == n][:, :3].mean(axis=0).tolist()} for n in (1, 2, 3)}
        hu = np.vectorize(HU.get)(labels)
        for ascending in (True, False):
            order = np.arange(DIMS[2]) if ascending else np.arange(DIMS[2])[::-1]
            for kind in ("single", "enhanced"):
                case = f"{name}-{'up' if ascending else 'down'}-{kind}"
                place = folder / case
                place.mkdir(parents=True)
                if kind == "single":
                    write_single(place, case, affine, row, column, hu + 1024, order, random)
                else:
                    write_enhanced(place, case, affine, row, column, hu + 1024, order)
                cases[case] = {"labels": truth, "corners_mm": [affine[:3, 3].tolist(), (affine @ [*(d - 1 for d in DIMS), 1])[:3].tolist()]}
    (folder / "cases.json").write_text(json.dumps(cases))
    print(f"{len(cases)} cases")


def read(folder, results):
    """Every segmentation against the truth: voxels exactly, centroids to 0.01 mm; and against the images that its frames refer to."""
    import highdicom as hd
    cases = json.loads((folder / "cases.json").read_text())
    bad, worst = [], 0.0
    for case, expected in cases.items():
        try:
            seg = hd.seg.segread(results / f"{case}.dcm")
        except Exception as e:
            bad.append(f"{case}: highdicom does not read it: {type(e).__name__}: {e}")
            continue
        for number, truth in expected["labels"].items():
            volume = seg.get_volume(segment_numbers=[int(number)], combine_segments=True, rescale_fractional=False)
            mask = np.asarray(volume.array) != 0
            indices = np.argwhere(mask)
            if len(indices) != truth["voxels"]:
                bad.append(f"{case}: segment {number} has {len(indices)} voxels, not {truth['voxels']}")
                continue
            centroid = (np.asarray(volume.affine) @ [*indices.mean(axis=0), 1])[:3]
            off = float(np.linalg.norm(centroid - truth["centroid_mm"]))
            worst = max(worst, off)
            if not off < 0.01:
                bad.append(f"{case}: segment {number} lies {off:.4f} mm off, at {centroid.round(3).tolist()}, not {np.round(truth['centroid_mm'], 3).tolist()}")
        bad += references(case, folder / case, seg)
    for line in bad:
        print(line)
    print(f"{len(cases)} cases, {len(bad)} differences, centroids off by at most {worst:.6f} mm")
    return 1 if bad else 0


def references(case, folder, seg):
    """Each frame must refer to the source image at its own place."""
    place = {}
    for path in folder.iterdir():
        ds = pydicom.dcmread(path, stop_before_pixels=True)
        if "PerFrameFunctionalGroupsSequence" in ds:
            for n, frame in enumerate(ds.PerFrameFunctionalGroupsSequence):
                place[ds.SOPInstanceUID, n + 1] = frame.PlanePositionSequence[0].ImagePositionPatient
        else:
            place[ds.SOPInstanceUID, 0] = ds.ImagePositionPatient
    for n, frame in enumerate(seg.PerFrameFunctionalGroupsSequence):
        mine = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
        for source in frame.DerivationImageSequence[0].SourceImageSequence:
            numbers = source.get("ReferencedFrameNumber", 0)
            key = source.ReferencedSOPInstanceUID, int(numbers or 0)
            if key not in place:
                return [f"{case}: frame {n + 1} refers to no image of the source: frame {key[1]}"]
            if np.abs(mine - np.array(place[key], float)).max() > 1e-6:
                return [f"{case}: frame {n + 1} refers to an image at another place"]
    return []


if __name__ == "__main__":
    if sys.argv[1:2] == ["write"] and len(sys.argv) == 3:
        write(Path(sys.argv[2]))
    elif sys.argv[1:2] == ["read"] and len(sys.argv) == 4:
        sys.exit(read(Path(sys.argv[2]), Path(sys.argv[3])))
    else:
        sys.exit(__doc__)
