#!/usr/bin/env python3
"""Holds the results of a classified radiograph (all forms) against the source, findings.json and other people's tools.

usage: check_classification.py SOURCE_DIR RESULT_DIR

dciodvfy and dsrdump must find no error; highdicom reads each group with its certainty, presence and codes; the captures of the maps lie on
the source, show it as it is meant (MONOCHROME1 turned round), and are coloured where the map is not 0.
"""
import json
import sys
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom

from programs import dciodvfy_errors, dsrdump_complaints

source_dir, folder = Path(sys.argv[1]), Path(sys.argv[2])
findings = json.loads((folder / "findings.json").read_text())
source = pydicom.dcmread(next(source_dir.glob("*.dcm")))
problems = []


def need(holds, text):
    if not holds:
        problems.append(text)


objects = {path.name: pydicom.dcmread(path) for path in sorted(folder.glob("*.dcm"))}
listed = findings["findings"]
need(set(objects) == {"sr-study.dcm", "pdf.dcm", "map-1.dcm", "map-2.dcm"}, f"there are {sorted(objects)}")
for name, data in objects.items():
    for line in dciodvfy_errors(folder / name):
        need(False, f"{name}: dciodvfy: {line}")
    for key in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate", "AccessionNumber"):
        need(data.get(key) == source.get(key), f"{name}: {key} is not that of the source")
for line in dsrdump_complaints(folder / "sr-study.dcm"):
    need(False, f"dsrdump: {line}")

groups = hd.sr.srread(folder / "sr-study.dcm").content.get_image_measurement_groups()
need(len(groups) == len(listed), f"{len(groups)} groups, {len(listed)} findings")
for group, finding in zip(groups, listed):
    name = finding["name"]
    need(finding["segment"] is None and not finding["measurements"], f"{name} has a region or numbers")
    need(group.tracking_identifier == name and group.tracking_uid == finding["tracking_uid"], f"{name}: tracked as another")
    need(group.finding_type.value == finding["finding_type"]["value"], f"{name}: another type")
    items = list(group[0].ContentSequence)
    numbers = [item for item in items if item.ValueType == "NUM"]
    code = "111012" if finding["present"] else "PRESENCE-PROB"
    certainty = [item.MeasuredValueSequence[0].FloatingPointValue for item in numbers if item.ConceptNameCodeSequence[0].CodeValue == code]
    need(len(certainty) == 1 and abs(certainty[0] - finding["certainty_percent"]) < 1e-6, f"{name}: certainty {certainty}")
    presence = [item.ConceptCodeSequence[0].CodeValue for item in items
                if item.ValueType == "CODE" and item.ConceptNameCodeSequence[0].CodeMeaning == "Presence of property"]
    need(presence == ["52101004" if finding["present"] else "272519000"], f"{name}: presence {presence}")
    need(finding["present"] == (finding["certainty_percent"] >= 60), f"{name}: present at {finding['certainty_percent']} %")

settings = {p["name"]: p["value"] for p in findings["provenance"]["parameters"]}
need(settings.get("finding.bright above.threshold.at") == "0.6", "the threshold is not among the settings")
need(settings.get("explanation.method") == "occlusion" and settings.get("explanation.patch") == "[8,8,1]", "nor the explanation")

pixels = source.pixel_array.astype(float)
shown = 4095 - pixels if source.PhotometricInterpretation == "MONOCHROME1" else pixels
for n, entry in enumerate(findings["maps"], 1):
    data = objects[f"map-{n}.dcm"]
    need(entry["file"] == f"map-{n}.dcm" and entry["name"] == f"occlusion: {listed[n - 1]['name']}", f"map {n} is {entry}")
    need(data.SOPClassUID == pydicom.uid.SecondaryCaptureImageStorage, f"map {n} is a {data.SOPClassUID.name}")
    need(data.SourceImageSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID, f"map {n} is of another image")
    need(data.LossyImageCompression == source.LossyImageCompression, f"map {n}: lossy {data.LossyImageCompression}")
    need("PixelSpacing" not in data, f"map {n} has a spacing")
    need(list(data.PatientOrientation or []) == list(source.PatientOrientation or []), f"map {n}: {data.PatientOrientation}")
    canvas = data.pixel_array.astype(float)
    factor = -(-512 // max(pixels.shape))
    size = [side * factor for side in pixels.shape]
    left = (canvas.shape[1] - size[1]) // 2
    enlarged = np.kron(shown, np.ones((factor, factor)))
    # Where the image lies: the row at which the brightness of the canvas is most like it.
    grey = canvas.mean(2)
    tops = range(canvas.shape[0] - size[0])
    fit = [np.corrcoef(grey[top:top + size[0]:7, left:left + size[1]:7].ravel(), enlarged[::7, ::7].ravel())[0, 1] for top in tops]
    need(max(fit) > 0.5, f"map {n} does not show the image: correlation {max(fit):.2f}")
    top = int(np.argmax(fit))
    part = canvas[top:top + size[0], left:left + size[1]]
    colour = (part.max(2) - part.min(2)).mean()
    need(colour > 3, f"map {n} has no colours: {colour:.1f}")

text = (folder / "report.html").read_text()
need(text.count("<figure>") >= 3 and "occlusion: bright below" in text, "the page does not show the maps")
need("50 mm" not in text, "the page has a length")
print("\n".join(problems) or f"{len(groups)} groups and {len(findings['maps'])} maps are as findings.json says")
sys.exit(bool(problems))
