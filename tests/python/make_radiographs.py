#!/usr/bin/env python3
"""Makes radiographs, and packages with a classifier whose right answer is a formula, for tests/it/classification.rs.

usage: make_radiographs.py FOLDER

FOLDER/packages/NAME: the graph takes images [N, 1, 32, 32] of 0 to 1 and gives 12 * (mean of a quadrant - 0.5) for the upper left and the
lower right one. FOLDER/studies/NAME: one radiograph each. FOLDER/expected.json: the probabilities of each in percent, by NumPy alone.
"""
import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

SIDE = 32
FACTOR, MIDDLE = 12.0, 0.5
DX, CR = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.840.10008.5.1.4.1.1.1"

MANIFEST = """format = 1

[model]
name = "quadrants"
version = "1.0.0"
task = "classification"
manufacturer = "roentgen"
licence = "MIT OR Apache-2.0"
intended_use = "For tests, not for diagnosis."
regulatory_status = "none"

[[file]]
path = "quadrants.onnx"
sha256 = "{sha256}"

[select]
modality = ["DX", "CR"]
kind = "image"

[input]
tensor = "image"
dtype = "float32"
layout = "NCHW"

[[preprocess]]
step = "resize"
to = [32, 32, 1]
interpolation = "area"

[[preprocess]]
step = "percentiles"
low = 0.0
high = 100.0

[inference.whole]

[output]
tensor = "scores"
scores = "{scores}"

[[finding]]
channel = 0
name = "bright above"
category = {{ value = "49755003", scheme = "SCT", meaning = "Morphologically Abnormal Structure" }}
type = {{ value = "125147003", scheme = "SCT", meaning = "Opacity" }}
site = {{ value = "39607008", scheme = "SCT", meaning = "Lung" }}
laterality = {{ value = "24028007", scheme = "SCT", meaning = "Right" }}
threshold = {{ at = 0.6, origin = "a test" }}

[[finding]]
channel = 1
name = "bright below"
category = {{ value = "49755003", scheme = "SCT", meaning = "Morphologically Abnormal Structure" }}
type = {{ value = "125147003", scheme = "SCT", meaning = "Opacity" }}
threshold = {{ at = 0.6, origin = "a test" }}

[explanation]
method = "occlusion"
patch = [8, 8, 1]
stride = [4, 8, 1]
fill = "mean"
"""


def graph(batch, output_channels=2, probabilities=False):
    """The formula as an ONNX graph; `batch` is a number, or a name where it is open."""
    half = SIDE // 2
    ints = lambda name, values: numpy_helper.from_array(np.array(values, np.int64), name)
    number = lambda name, value: numpy_helper.from_array(np.array(value, np.float32), name)
    nodes, means = [], []
    constants = [ints("axes", [2, 3]), number("factor", FACTOR), number("middle", MIDDLE)]
    for n, start in enumerate((0, half)):
        constants += [ints(f"start{n}", [start, start]), ints(f"end{n}", [start + half, start + half])]
        nodes.append(helper.make_node("Slice", ["image", f"start{n}", f"end{n}", "axes"], [f"quadrant{n}"]))
        nodes.append(helper.make_node("GlobalAveragePool", [f"quadrant{n}"], [f"mean{n}"]))
        means.append(f"mean{n}")
    nodes += [helper.make_node("Concat", (means * 2)[:output_channels], ["means"], axis=1), helper.make_node("Flatten", ["means"], ["flat"], axis=1)]
    nodes += [helper.make_node("Sub", ["flat", "middle"], ["centred"]),
              helper.make_node("Mul", ["centred", "factor"], ["logits" if probabilities else "scores"])]
    if probabilities:
        nodes.append(helper.make_node("Sigmoid", ["logits"], ["scores"]))
    tensor = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
    made = helper.make_graph(nodes, "quadrants", [tensor("image", [batch, 1, SIDE, SIDE])], [tensor("scores", [batch, output_channels])], constants)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def package(folder, graph_bytes, scores="independent-logits"):
    folder.mkdir(parents=True)
    (folder / "quadrants.onnx").write_bytes(graph_bytes)
    digest = hashlib.sha256(graph_bytes).hexdigest()
    (folder / "model.toml").write_text(MANIFEST.format(sha256=digest, scores=scores))
    (folder / "MODEL_CARD.md").write_text("# quadrants\n\nA formula, for tests.\n")


def radiograph(folder, stored, **changed):
    """One DX of these stored values; `changed` replaces attributes, and takes those that are None away."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    uid = lambda what: generate_uid(entropy_srcs=["roentgen radiograph", folder.name, what])
    attributes = dict(
        SpecificCharacterSet="ISO_IR 100", ImageType=["ORIGINAL", "PRIMARY", ""], SOPClassUID=DX, SOPInstanceUID=uid("instance"),
        StudyDate="20260101", SeriesDate="20260101", AcquisitionDate="20260101", ContentDate="20260101", StudyTime="120000",
        ContentTime="120000", AccessionNumber="", Modality="DX", PresentationIntentType="FOR PRESENTATION", Manufacturer="Synthetic",
        ReferringPhysicianName="", StudyDescription="Chest", PatientName="Phantom^Radiograph", PatientID="PHANTOM-DX",
        PatientBirthDate="19600229", PatientSex="F", BodyPartExamined="CHEST", ViewPosition="PA", ImagerPixelSpacing=[0.2, 0.2],
        StudyInstanceUID=uid("study"), SeriesInstanceUID=uid("series"), StudyID="1", SeriesNumber=1, InstanceNumber=1,
        PatientOrientation=["L", "F"], ImageLaterality="U", SamplesPerPixel=1, PhotometricInterpretation="MONOCHROME2",
        Rows=stored.shape[0], Columns=stored.shape[1], BitsAllocated=16, BitsStored=12, HighBit=11, PixelRepresentation=0,
        PixelIntensityRelationship="LOG", PixelIntensityRelationshipSign=-1, RescaleIntercept="0", RescaleSlope="1", RescaleType="US",
        WindowCenter="2048", WindowWidth="4096", PresentationLUTShape="IDENTITY", LossyImageCompression="00", BurnedInAnnotation="NO")
    for name, value in {**attributes, **changed}.items():
        if value is not None:
            setattr(data, name, value)
    data.PixelData = stored.astype("<u2").tobytes()
    folder.mkdir(parents=True)
    data.save_as(folder / "image.dcm", enforce_file_format=True)


def expected(image):
    """Probabilities of an image whose pixels are square, percent: the mean over boxes, 0 beside the image."""
    low, high = image.min(), image.max()
    normal = (image.astype(float) - low) / (high - low)
    side = max(image.shape)
    square = np.zeros((side, side))
    top, left = [(side - n) // 2 for n in image.shape]
    square[top:top + image.shape[0], left:left + image.shape[1]] = normal
    boxes = square.reshape(SIDE, side // SIDE, SIDE, side // SIDE).mean((1, 3))
    half = SIDE // 2
    logits = [FACTOR * (q.mean() - MIDDLE) for q in (boxes[:half, :half], boxes[half:, half:])]
    return [100 / (1 + np.exp(-logit)) for logit in logits]


def main():
    folder = Path(sys.argv[1])
    package(folder / "packages/quadrants", graph("N"))
    package(folder / "packages/one-at-a-time", graph(1))
    package(folder / "packages/probabilities", graph("N", probabilities=True), "probabilities")
    package(folder / "packages/no-probabilities", graph("N"), "probabilities")
    package(folder / "packages/three-channels", graph("N", 3))

    rng = np.random.default_rng(20260101)
    square = rng.integers(200, 1800, (128, 128))
    square[:64, :64] += 2000
    tall = square[:, 32:96].copy()
    small = np.kron(rng.integers(0, 4096, (32, 32)), np.ones((1, 1), int))
    small[:16, :16] |= 2048
    studies = {
        "square": (square, {}),
        "inverted": (square, dict(PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE")),
        "tall": (tall, {}),
        "small": (small, {}),
        "no-spacing": (square, dict(SOPClassUID=CR, Modality="CR", ImagerPixelSpacing=None, PresentationLUTShape=None, PresentationIntentType=None,
                                    PatientOrientation="")),
        "lossy": (square, dict(LossyImageCompression="01", LossyImageCompressionRatio="12.5", LossyImageCompressionMethod="ISO_10918_1")),
        "contradicted": (square, dict(PhotometricInterpretation="MONOCHROME1")),
    }
    answers = {}
    for name, (image, changed) in studies.items():
        stored = 4095 - image if changed.get("PhotometricInterpretation") == "MONOCHROME1" else image
        radiograph(folder / "studies" / name, stored, **changed)
        answers[name] = expected(image)
    (folder / "expected.json").write_text(json.dumps(answers))


if __name__ == "__main__":
    main()
