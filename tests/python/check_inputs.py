"""One study in other files, and its results compared.

    check_inputs.py make STUDY FOLDER       the DICOM series of STUDY as volume.nii.gz, scaled.nii, volume.nrrd, pair.hdr with pair.img,
                                            sheared.nii.gz, shifted.nii.gz (its values 1024 higher)
    check_inputs.py compare STUDY DICOM FILE...
                                            compares labels.nii.gz in each folder FILE with the Segmentation in the folder DICOM:
                                            every voxel, and where the voxels lie

Read by pydicom and SimpleITK, written by nibabel and pynrrd. World is patient LPS mm here; nibabel's is RAS.
"""

import json
import sys
from pathlib import Path

import nibabel
import nrrd
import numpy as np
import pydicom
import SimpleITK

RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def series(folder):
    """Hounsfield units as (i, j, k), and the affine from voxel to LPS."""
    slices = [pydicom.dcmread(f) for f in sorted(folder.iterdir())]
    row, column = np.array(slices[0].ImageOrientationPatient, float).reshape(2, 3)
    normal = np.cross(row, column)
    slices.sort(key=lambda s: normal @ np.array(s.ImagePositionPatient, float))
    first, last = (np.array(s.ImagePositionPatient, float) for s in (slices[0], slices[-1]))
    between_rows, between_columns = map(float, slices[0].PixelSpacing)
    lps = np.eye(4)
    lps[:3] = np.column_stack([row * between_columns, column * between_rows, (last - first) / (len(slices) - 1), first])
    hu = np.stack([s.pixel_array * float(s.RescaleSlope) + float(s.RescaleIntercept) for s in slices], axis=-1)
    return hu.transpose(1, 0, 2), lps


def save(path, values, lps, kind=nibabel.Nifti1Image, slope=None, shear=False):
    matrix = RAS @ lps
    image = kind(values, matrix)
    image.header.set_xyzt_units("mm")
    image.set_sform(matrix, 1)
    image.set_qform(None if shear else matrix, 0 if shear else 1)
    if slope:
        image.header.set_slope_inter(*slope)
    nibabel.save(image, path)


def make(study, folder):
    hu, lps = series(study)
    assert (hu == hu.astype(np.int16)).all()
    hu = hu.astype(np.int16)
    save(folder / "volume.nii.gz", hu, lps)
    save(folder / "pair.hdr", hu, lps, kind=nibabel.Nifti1Pair)
    save(folder / "shifted.nii.gz", hu + 1024, lps)
    tilt = lps.copy()
    tilt[1, 2] += 1.0  # 6 degrees; still less than 10 mm from slice to slice
    save(folder / "sheared.nii.gz", hu, tilt, shear=True)
    # nibabel would scale again: written as it is, then the two numbers put into the header.
    save(folder / "scaled.nii", hu + 1024, lps)
    raw = bytearray((folder / "scaled.nii").read_bytes())
    raw[112:120] = np.array([1.0, -1024.0], "<f4").tobytes()
    (folder / "scaled.nii").write_bytes(raw)
    assert (nibabel.load(folder / "scaled.nii").get_fdata() == hu).all()
    header = {"space": "left-posterior-superior", "space directions": lps[:3, :3].T, "space origin": lps[:3, 3], "kinds": ["domain"] * 3}
    nrrd.write(str(folder / "volume.nrrd"), hu, header)


def segmentation(folder, lps, shape):
    """The Segmentation's segments as values of the package, on the lattice of the series."""
    findings = json.loads((folder / "findings.json").read_text())["findings"]
    label_of = {f["segment_number"]: f["segment"] for f in findings if f["segment_number"]}
    seg = pydicom.dcmread(folder / "seg.dcm")
    labels = np.zeros(shape, np.uint8)
    for plane, groups in zip(seg.pixel_array, seg.PerFrameFunctionalGroupsSequence, strict=True):
        position = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float)
        i, j, k = (np.linalg.inv(lps) @ [*position, 1])[:3]
        assert abs(i) < 1e-4 and abs(j) < 1e-4 and abs(k - round(k)) < 1e-4, (i, j, k)
        number = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        labels[..., round(k)][plane.T > 0] = label_of[number]
    return labels


def compare(study, dicom, files):
    hu, lps = series(study)
    expected = segmentation(dicom, lps, hu.shape)
    assert len(np.unique(expected)) > 3, "a study of several tissues"
    for folder in files:
        path = folder / "labels.nii.gz"
        image = nibabel.load(path)
        assert image.get_data_dtype() == np.uint8 and image.header.get_intent()[0] == "label", path
        labels = np.asarray(image.dataobj)
        off = np.abs(RAS @ image.affine - lps).max()
        assert off < 1e-4, f"{path}: {off} mm"
        different = int((labels != expected).sum())
        assert labels.shape == expected.shape and different == 0, f"{path}: {different} of {expected.size} voxels differ"
        read = SimpleITK.ReadImage(str(path))
        assert (SimpleITK.GetArrayFromImage(read).transpose(2, 1, 0) == expected).all()
        assert np.allclose(read.GetOrigin(), lps[:3, 3], atol=1e-4), path
    print(json.dumps({"compared": len(files)}))


if __name__ == "__main__":
    command, *paths = sys.argv[1:]
    paths = [Path(p) for p in paths]
    if command == "make":
        make(*paths)
    else:
        compare(paths[0], paths[1], paths[2:])
