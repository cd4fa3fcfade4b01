"""DICOM segmentations as pydicom and highdicom read them.

    check_segmentations.py make FOLDER       makes files; prints which must be read, and which refused with what code
    check_segmentations.py maps FOLDER       makes parametric maps; prints them with the files of their physical values
    check_segmentations.py compare FOLDER    compares FOLDER/read.json (see tests/it/segmentations.rs) with what the others read
"""

import hashlib
import json
import sys
from pathlib import Path

import highdicom
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, RLELossless, generate_uid

rng = np.random.default_rng(20261125)
ORIENTATION = [0.8, 0.6, 0.0, -0.36, 0.48, 0.8]
SPACING = [0.75, 1.25]  # between rows, between columns


def normal(orientation):
    return np.cross(orientation[:3], orientation[3:])


# ---- make


def code(value, scheme, meaning):
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def described(number):
    item = Dataset()
    item.SegmentNumber = number
    item.SegmentLabel = f"Segment {number}"
    item.SegmentAlgorithmType = ["MANUAL", "AUTOMATIC", "SEMIAUTOMATIC"][number % 3]
    item.SegmentedPropertyCategoryCodeSequence = Sequence([code("91723000", "SCT", "Anatomical Structure")])
    item.SegmentedPropertyTypeCodeSequence = Sequence([code(str(1000 + number), "99TEST", f"Structure {number}")])
    if number % 2:
        item.TrackingUID = f"1.2.3.{number}"
    return item


def position(k, step):
    return list(np.round(np.array([-31.5, 12.25, 140.0]) + k * step * normal(ORIENTATION), 9))


def make(kind, frames, rows=5, columns=7, spacing_mm=2.5, step=2.5, bits=None, numbers=None, **more):
    """`frames`: (segment or None, k, array). `spacing_mm`: what is stated; `step`: what is true."""
    bits = bits or (1 if kind == "BINARY" else 8)
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.66.7" if kind == "LABELMAP" else "1.2.840.10008.5.1.4.1.1.66.4"
    ds.SOPInstanceUID = generate_uid()
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    ds.PatientName, ds.PatientID, ds.Modality = "Made^By", "TEST", "SEG"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = generate_uid(), generate_uid(), generate_uid()
    ds.SeriesNumber = ds.InstanceNumber = 1
    ds.ImageType = ["DERIVED", "PRIMARY"]
    ds.SegmentationType = kind
    if kind == "FRACTIONAL":
        ds.SegmentationFractionalType, ds.MaximumFractionalValue = "OCCUPANCY", 200
    numbers = numbers if numbers is not None else sorted({n for n, _, _ in frames if n is not None})
    ds.SegmentSequence = Sequence([described(n) for n in numbers])
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
    ds.Rows, ds.Columns, ds.NumberOfFrames = rows, columns, len(frames)
    ds.BitsAllocated = ds.BitsStored = bits
    ds.HighBit = bits - 1
    measures, orientation, shared = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = SPACING, 9.0
    if spacing_mm is not None:
        measures.SpacingBetweenSlices = spacing_mm
    orientation.ImageOrientationPatient = ORIENTATION
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = Sequence([measures]), Sequence([orientation])
    ds.SharedFunctionalGroupsSequence = Sequence([shared])
    pointers = [(0x00200032, 0x00209113)] if kind == "LABELMAP" else [(0x0062000B, 0x0062000A), (0x00200032, 0x00209113)]
    ds.DimensionOrganizationSequence, ds.DimensionIndexSequence = Sequence([Dataset()]), Sequence()
    ds.DimensionOrganizationSequence[0].DimensionOrganizationUID = generate_uid()
    for attribute, functional_group in pointers:
        index = Dataset()
        index.DimensionOrganizationUID = ds.DimensionOrganizationSequence[0].DimensionOrganizationUID
        index.DimensionIndexPointer, index.FunctionalGroupPointer = attribute, functional_group
        ds.DimensionIndexSequence.append(index)
    groups = []
    for number, k, _ in frames:
        group, plane, content = Dataset(), Dataset(), Dataset()
        content.DimensionIndexValues = [*([number or 1] if len(pointers) > 1 else []), int(k) + 1]
        group.FrameContentSequence = Sequence([content])
        plane.ImagePositionPatient = position(k, step)
        group.PlanePositionSequence = Sequence([plane])
        if number is not None:
            segment = Dataset()
            segment.ReferencedSegmentNumber = number
            group.SegmentIdentificationSequence = Sequence([segment])
        groups.append(group)
    ds.PerFrameFunctionalGroupsSequence = Sequence(groups)
    pixels = np.stack([array for _, _, array in frames])
    if bits == 1:
        data = np.packbits(pixels.astype(np.uint8).ravel(), bitorder="little").tobytes()
    else:
        data = pixels.astype(f"<u{bits // 8}").tobytes()
    ds.add_new(0x7FE00010, "OW" if bits == 16 else "OB", data + b"\0" * (len(data) % 2))
    for keyword, value in more.items():
        setattr(ds, keyword, value)
    return ds


def mask(rows=5, columns=7):
    return rng.integers(0, 2, (rows, columns))


def made(folder):
    good, bad = {}, {}

    # 35 bits a frame; frames in no order, gaps, overlap, numbers that do not fit a byte.
    frames = [(n, k, mask()) for n, ks in ((2, (0, 1, 5)), (300, (5, 6, 3, 0)), (65535, (9,))) for k in ks]
    rng.shuffle(frames := [tuple(f) for f in frames])
    good["straddling.dcm"] = make("BINARY", frames)
    good["described-but-empty.dcm"] = make("BINARY", frames, numbers=[1, 2, 7, 300, 65535])
    fractions = [(n, k, rng.integers(0, 201, (6, 9))) for n in (1, 2) for k in (4, 0, 1)]
    good["occupancy.dcm"] = make("FRACTIONAL", fractions, rows=6, columns=9, spacing_mm=None, step=1.1)
    good["occupancy-rle.dcm"] = make("FRACTIONAL", fractions, rows=6, columns=9)
    good["occupancy-rle.dcm"].compress(RLELossless)
    labels = [(None, k, rng.choice([0, 1, 300, 65535], (5, 7))) for k in (3, 0, 1)]
    good["labels-16.dcm"] = make("LABELMAP", labels, bits=16, numbers=[1, 300, 65535], PixelPaddingValue=0)
    low = [(None, k, rng.choice([0, 3, 200], (5, 7))) for k in (0, 7)]
    good["labels-16-small.dcm"] = make("LABELMAP", low, bits=16, numbers=[3, 200])
    other = [(None, k, rng.choice([0, 3, 255], (5, 7))) for k in (0, 2)]
    good["background-255.dcm"] = make("LABELMAP", other, numbers=[0, 3], PixelPaddingValue=255)
    good["one-slice.dcm"] = make("BINARY", [(1, 0, mask()), (2, 0, mask())])
    good["spacing-off.dcm"] = make("BINARY", [(1, k, mask()) for k in (0, 1, 4)], spacing_mm=2.4)

    twice = [(1, 0, mask()), (1, 1, mask()), (1, 1, mask())]
    plain = twice[:2]
    bad["twice.dcm"] = make("BINARY", twice), "segmentation.shared-frames"
    bad["undescribed.dcm"] = make("BINARY", [(1, 0, mask()), (2, 1, mask())], numbers=[1]), "segmentation.unknown-segment"
    bad["unnamed.dcm"] = make("BINARY", [(None, 0, mask()), (1, 1, mask())]), "segmentation.unknown-segment"
    above = [(1, k, np.full((5, 7), 201)) for k in (0, 1)]
    bad["above.dcm"] = make("FRACTIONAL", above), "segmentation.value"
    bad["stray-label.dcm"] = make("LABELMAP", other, numbers=[0, 3], PixelPaddingValue=0), "segmentation.value"
    bad["one-position.dcm"] = make("BINARY", [(1, 0, mask())], spacing_mm=None), "segmentation.one-position"
    bad["too-close.dcm"] = make("BINARY", plain, spacing_mm=5.0), "segmentation.stated-spacing"
    bad["no-multiple.dcm"] = make("BINARY", plain, spacing_mm=1.0), "segmentation.stated-spacing"
    bad["uneven.dcm"] = make("BINARY", [(1, k, mask()) for k in (0, 1, 2.4)], spacing_mm=None), "series.uneven-spacing"
    bad["bytes.dcm"] = make("BINARY", plain, bits=8), "segmentation.pixel-format"
    bad["no-segments.dcm"] = make("BINARY", plain, numbers=[]), "segmentation.segment-count"
    bad["same-number.dcm"] = make("BINARY", plain, numbers=[1, 1]), "segmentation.segment-numbers"
    bad["type.dcm"] = make("BINARY", plain, SegmentationType="PAINTED"), "segmentation.unknown-type"
    bad["maximum.dcm"] = make("FRACTIONAL", fractions, rows=6, columns=9, MaximumFractionalValue=0), "segmentation.fractions"
    bad["short.dcm"] = make("BINARY", plain), "series.pixels"
    bad["short.dcm"][0].PixelData = b"\0\0"
    displaced = make("BINARY", [(1, k, mask()) for k in range(5)])
    at = displaced.PerFrameFunctionalGroupsSequence[2].PlanePositionSequence[0]
    at.ImagePositionPatient = list(np.array(at.ImagePositionPatient, float) + 0.5 * np.array(ORIENTATION[:3]))
    bad["displaced.dcm"] = displaced, "series.displaced"
    turned = make("BINARY", [(1, k, mask()) for k in range(3)])
    group = Dataset()
    group.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    turned.PerFrameFunctionalGroupsSequence[1].PlaneOrientationSequence = Sequence([group])
    bad["turned.dcm"] = turned, "series.mixed-orientations"

    for name, ds in [*good.items(), *((name, ds) for name, (ds, _) in bad.items())]:
        ds.save_as(folder / name, enforce_file_format=True)
    print(json.dumps({"good": list(good), "bad": {name: expected for name, (_, expected) in bad.items()}}))


# ---- parametric maps


def mapped(first, last, slope, intercept):
    item = Dataset()
    item.LUTLabel, item.LUTExplanation = "T", "test"
    item.DoubleFloatRealWorldValueFirstValueMapped, item.DoubleFloatRealWorldValueLastValueMapped = first, last
    item.RealWorldValueSlope, item.RealWorldValueIntercept = slope, intercept
    item.MeasurementUnitsCodeSequence = Sequence([code("um2/s", "UCUM", "um2/s")])
    quantity = Dataset()
    quantity.ValueType = "CODE"
    quantity.ConceptNameCodeSequence = Sequence([code("246205007", "SCT", "Quantity")])
    quantity.ConceptCodeSequence = Sequence([code("113041", "DCM", "Apparent Diffusion Coefficient")])
    item.QuantityDefinitionSequence = Sequence([quantity])
    return item


def maps(folder):
    """Parametric maps of floats, doubles and integers; prints name and the file of the physical values, slice by slice, as f8."""
    answer = {}
    for name, dtype, per_frame in [("float", "<f4", False), ("double", "<f8", False), ("float-frames", "<f4", True), ("double-frames", "<f8", True), ("integer-frames", "<u2", True)]:
        order = [2, 0, 3, 1]
        pixels = rng.integers(0, 60000, (4, 5, 7)).astype(dtype) if dtype == "<u2" else rng.normal(0, 3, (4, 5, 7)).astype(dtype)
        ds = make("BINARY", [(None, k, np.zeros((5, 7), int)) for k in order], numbers=[])
        for keyword in ("SegmentationType", "SegmentSequence", "PixelData", "PixelRepresentation", "BitsStored", "HighBit"):
            delattr(ds, keyword)
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.30"
        ds.Modality, ds.ContentLabel = "OT", "MAP"
        ds.BitsAllocated = np.dtype(dtype).itemsize * 8
        if dtype == "<f4":
            ds.FloatPixelData = pixels.tobytes()
        elif dtype == "<f8":
            ds.DoubleFloatPixelData = pixels.tobytes()
        else:
            ds.PixelData, ds.PixelRepresentation, ds.BitsStored, ds.HighBit = pixels.tobytes(), 0, 16, 15
            ds["PixelData"].VR = "OW"
        frame_type = Dataset()
        frame_type.FrameType = ["DERIVED", "PRIMARY", "", ""]
        shared = ds.SharedFunctionalGroupsSequence[0]
        shared.ParametricMapFrameTypeSequence = Sequence([frame_type])
        del ds.DimensionIndexSequence
        truth = np.zeros((4, 5, 7))
        for f, k in enumerate(order):
            slope, intercept = (0.5 + f, 10.0 * f) if per_frame else (2.5, -1.0)
            ends = (0, 65535) if dtype == "<u2" else (-1e6, 1e6)
            if per_frame:
                ds.PerFrameFunctionalGroupsSequence[f].RealWorldValueMappingSequence = Sequence([mapped(*ends, slope, intercept)])
            else:
                shared.RealWorldValueMappingSequence = Sequence([mapped(*ends, slope, intercept)])
            truth[k] = slope * pixels[f].astype("f8") + intercept
        ds.save_as(folder / f"{name}.dcm", enforce_file_format=True)
        truth.astype("<f8").tofile(folder / f"{name}.raw")
        answer[f"{name}.dcm"] = f"{name}.raw"
    print(json.dumps(answer))


# ---- compare


def group_of(ds, frame, keyword):
    for groups in (ds.PerFrameFunctionalGroupsSequence[frame], ds.SharedFunctionalGroupsSequence[0]):
        if keyword in groups:
            return groups[keyword][0]
    return None


def compare(read):
    path = read["file"]
    ds = pydicom.dcmread(path)
    pixels = ds.pixel_array.reshape(ds.NumberOfFrames, ds.Rows, ds.Columns)
    columns, rows, slices = read["dims"]
    assert [columns, rows] == [ds.Columns, ds.Rows]
    assert read["type"] == ds.SegmentationType and read["sha256"] == [hashlib.sha256(Path(path).read_bytes()).hexdigest()]
    assert read["maximum"] == (ds.MaximumFractionalValue if read["type"] == "FRACTIONAL" else None)
    background = ds.get("PixelPaddingValue", 0) if read["type"] == "LABELMAP" else None
    assert read["background"] == background

    # Geometry from the attributes alone.
    orientation = np.array(group_of(ds, 0, "PlaneOrientationSequence").ImageOrientationPatient, float)
    measures = group_of(ds, 0, "PixelMeasuresSequence")
    between_rows, between_columns = map(float, measures.PixelSpacing)
    affine = np.array(read["lps_from_voxel"])
    positions = np.array([group_of(ds, f, "PlanePositionSequence").ImagePositionPatient for f in range(len(pixels))], float)
    along = positions @ normal(orientation)
    assert np.allclose(affine[:, 0], orientation[:3] * between_columns, atol=1e-6)
    assert np.allclose(affine[:, 1], orientation[3:] * between_rows, atol=1e-6)
    assert np.allclose(affine[:, 3], positions[along.argmin()], atol=1e-3), (affine[:, 3], positions[along.argmin()])
    step = affine[:, 2] @ normal(orientation)
    assert step > 0 and np.linalg.norm(affine[:, 2] - step * normal(orientation)) < 1e-3
    places = np.unique(np.round(along, 3))
    if len(places) > 1:
        assert abs(step * (slices - 1) - (places[-1] - places[0])) < 1e-2
        assert np.abs(places - places[0] - step * np.round((places - places[0]) / step)).max() < 1e-2
    stated = measures.get("SpacingBetweenSlices")
    if stated is not None and "spacing-off" not in path:
        assert abs(step - float(stated)) < 1e-3 * step, (step, stated)
    if stated is None:
        assert abs(step - np.diff(places).min()) < 2e-3
    k = np.round((along - along.min()) / step).astype(int)
    assert k.max() == slices - 1

    def volume(name):
        return np.fromfile(name, np.uint8).reshape(slices, rows, columns)

    expected = {s.SegmentNumber: s for s in ds.SegmentSequence}
    assert [s["number"] for s in read["segments"]] == sorted(expected)
    stack = np.full((slices, rows, columns), background or 0, np.uint16)
    if read["type"] == "LABELMAP":
        stack[k] = pixels
        if stack.max() <= 255:
            assert (volume(read["labels"]) == stack).all()
        else:
            assert read["labels"] is None
    for segment in read["segments"]:
        item = expected[segment["number"]]
        assert segment["label"] == item.SegmentLabel and segment["algorithm_type"] == item.SegmentAlgorithmType
        assert segment["tracking_uid"] == item.get("TrackingUID")
        for name, sequence in (
            ("category", item.SegmentedPropertyCategoryCodeSequence),
            ("property_type", item.SegmentedPropertyTypeCodeSequence),
        ):
            c = sequence[0]
            value = c.get("CodeValue") or c.get("LongCodeValue") or c.get("URNCodeValue")
            assert segment[name] == [value, c.get("CodingSchemeDesignator", ""), c.CodeMeaning], (segment[name], c)
        truth = np.zeros((slices, rows, columns), np.uint16)
        if read["type"] == "LABELMAP":
            truth = stack == segment["number"]
        else:
            for f, frame in enumerate(pixels):
                if group_of(ds, f, "SegmentIdentificationSequence").ReferencedSegmentNumber == segment["number"]:
                    truth[k[f]] = frame
        assert (volume(segment["raw"]) == truth).all(), f"segment {segment['number']}"
    return by_highdicom(read, affine)


def by_highdicom(read, affine):
    """Whether highdicom makes the same volume of it; not all that is right passes its constructor."""
    numbers = [s["number"] for s in read["segments"] if s["number"] != 0]
    if read["type"] == "LABELMAP" and max(numbers) > 255:
        # highdicom 0.28.2 gives empty volumes for numbers beyond 255 of label maps, whose pixels hold them.
        print(f"highdicom is not asked for {Path(read['file']).name}: numbers beyond 255", file=sys.stderr)
        return 0
    try:
        seg = highdicom.seg.segread(read["file"])
        got = seg.get_volume(segment_numbers=numbers, rescale_fractional=False, allow_missing_positions=True)
    except Exception as error:  # its checks are stricter than the objects of others
        print(f"highdicom does not read {Path(read['file']).name}: {type(error).__name__}: {str(error)[:90]}", file=sys.stderr)
        return 0
    ours = np.stack([np.fromfile(s["raw"], np.uint8) for s in read["segments"] if s["number"] != 0], axis=-1)
    columns, rows, slices = read["dims"]
    ours = ours.reshape(slices, rows, columns, len(numbers))
    # Its index is (slice, row, column), its slices may run the other way.
    array, matrix = got.array, got.affine
    if matrix[:3, 0] @ affine[:, 2] < 0:
        matrix = matrix.copy()
        matrix[:3, 3] += matrix[:3, 0] * (array.shape[0] - 1)
        matrix[:3, 0] *= -1
        array = array[::-1]
    assert array.shape == ours.shape, (array.shape, ours.shape)
    assert np.allclose(matrix[:3, [2, 1, 0, 3]], affine, atol=1e-3), (matrix, affine)
    assert (array == ours).all()
    return 1


def main():
    what, folder = sys.argv[1], Path(sys.argv[2])
    if what == "make":
        return made(folder)
    if what == "maps":
        return maps(folder)
    read = json.loads((folder / "read.json").read_text())
    both = 0
    for one in read:
        try:
            both += compare(one)
        except AssertionError as error:
            raise AssertionError(one["file"]) from error
    print(f"{len(read)} segmentations compared with pydicom, {both} of them with highdicom too", file=sys.stderr)
    print(json.dumps({"compared": len(read)}))


if __name__ == "__main__":
    main()
