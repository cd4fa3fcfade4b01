#!/usr/bin/env python3
"""From what the reference readers say (reference_volumes.py) to what a safe reader should do: tests/it/verdicts.tsv.

usage: reference_volumes.py > facts.jsonl; verdict_table.py facts.jsonl > tests/it/verdicts.tsv

The rules below are a medical imaging engineer's, not a copy of any program's output. A volume needs at least two slices that lie in the
patient, in one orientation, evenly spaced and straight; a localizer is no volume; an image without a place in the patient is an image;
whatever contradicts itself is refused. Where several words for a refusal are equally right, the codes are joined by `|`.

Columns: case, policy (of roentgen's geometry gate), modality, instances, frames, verdict (volume, image, cine, rgb-image, rgb-cine, refused,
skipped), code, dims, first and last voxel's LPS mm (plane mm of an image), tolerance mm, quantity, physical min, max, mean, voxels
(`sha256:` of stored values, or `near:` block means where a lossy decoder may round apart; of a refused single instance what its pixels
decode to nevertheless; `-` nothing to compare), who read the same, and why.
"""
import json
import re
import sys
from collections import Counter

SOP = "1.2.840.10008.5.1.4.1.1."
SLICES = {SOP + n for n in ("2", "2.1", "2.2", "4", "4.1", "4.3", "4.4", "128", "128.1", "130", "30")}
PICTURES = {SOP + n for n in ("1", "1.1", "1.1.1", "1.2", "1.2.1", "1.3", "1.3.1", "12.1", "12.1.1", "12.2", "12.2.1", "3", "3.1", "6", "6.1", "7",
                              "7.1", "7.2", "7.3", "7.4")}

# Cases that no rule covers: (verdict, codes, why). Everything here is a broken or a retired file.
JUDGED = {
    "malformed/dcm4che/3gb-bulk-data-truncated":
        ("refused", "series.pixels|series.invalid-uid|dataset.truncated|dataset.malformed",
         "Rows, Columns, Samples and Bits have two values each, and one element claims 3 GB of a 100 KB file"),
    "malformed/dcm4che/no_preamble_dicm_in_data":
        ("refused", "series.pixels|series.not-a-slice", "a mammogram's header without preamble, no pixel data (`DICM` at byte 128 is text)"),
    "malformed/dwv/dwv-test_no-number-rows.dcm": ("refused", "series.pixels|series.not-a-slice", "no Rows, no SOP class"),
    "malformed/fo-dicom/GH1146.dcm": ("refused", "series.pixels|dataset.pixel-length|dataset.no-pixel-data", "Pixel Data of length 0"),
    "malformed/fo-dicom/GH340.dcm":
        ("refused", "series.pixels|series.not-a-slice", "ACR-NEMA 1.0 of 12 bits packed (SimpleITK unpacks it): 12 bits allocated is retired"),
    "malformed/fo-dicom/GH626.dcm": ("refused", "dataset.not-dicom|series.pixels|series.not-a-slice|dataset.malformed|dataset.truncated", "no reader finds pixel data"),
    "malformed/fo-dicom/Issue1097_FailToOpenDeflatedFileWithSQ.dcm": ("refused", "series.not-a-slice", "no SOP class that anyone knows"),
    "malformed/orthanc/2026-05-26-oob-monochrome-46341.dcm":
        ("refused", "series.pixels|dataset.pixel-length", "4 GB of pixels promised, 9 KB there"),
    "malformed/orthanc/2026-05-26-oob-monochrome-65535.dcm":
        ("refused", "series.pixels|dataset.pixel-length", "8 GB of pixels promised, 256 bytes there"),
    "malformed/orthanc/MultiframeWindowing.dcm":
        ("refused", "series.pixels|series.no-geometry", "MR without Samples per Pixel, Pixel Representation and any geometry"),
    "malformed/pydicom/JPEG2000-embedded-sequence-delimiter.dcm":
        ("refused", "dataset.decode|series.pixels", "FFFE,E0DD inside the frame's bytes stops both readers"),
    "malformed/pydicom/MR_truncated.dcm": ("refused", "series.pixels|series.too-few-slices", "pixel data cut off"),
    "malformed/pydicom/badVR.dcm": ("refused", "series.not-a-slice|series.frames", "a radiotherapy dose with `1A` frames"),
    "malformed/pydicom/meta_missing_tsyntax.dcm": ("refused", "series.not-a-slice|series.pixels|dataset.not-dicom|dataset.malformed|dataset.truncated", "no SOP class, no image"),
    "malformed/pydicom/nested_priv_SQ.dcm": ("refused", "series.not-a-slice|series.pixels|dataset.not-dicom|dataset.malformed|dataset.truncated", "no SOP class, no image"),
    "malformed/pydicom/rtplan_truncated.dcm":
        ("skipped", "dataset.truncated|dataset.malformed|series.not-a-slice", "cut off inside a sequence"),
    "malformed/pydicom/emri_small_jpeg_2k_lossless_too_short.dcm":
        ("skipped", "dataset.truncated|series.pixels|series.no-geometry|series.not-a-slice", "cut off inside the pixel data; no functional groups"),
}
HEADER = ["case", "policy", "modality", "instances", "frames", "verdict", "code", "dims", "first_mm", "last_mm", "tolerance_mm", "quantity",
          "min", "max", "mean", "voxels", "readers", "why"]


def numbers(values):
    return " ".join(f"{v:.9g}" for v in values)


def voxels_of(fact):
    if "sha256" not in fact:
        return "-"
    if fact["lossy"]:
        return "near:" + ",".join(f"{v:.6g}" for v in fact["blocks"])
    return "sha256:" + fact["sha256"]


def said(fact):
    """Who read the same, and what others said."""
    readers = {k: v for k, v in (fact.get("readers") or {}).items()}
    same = [] if fact.get("reader") else ["pydicom"] if "sha256" in fact and fact["modality"] not in ("NIfTI", "NRRD") else ["nibabel"] if fact["modality"] == "NIfTI" else \
        ["pynrrd"] if fact["modality"] == "NRRD" else []
    same += [k for k, v in readers.items() if v == "same"]
    other = [f"{k}: {v}" for k, v in readers.items() if v != "same" and "Unable to determine ImageIO reader" not in v]
    return "; ".join(([" = ".join(same)] if same else []) + other)


def judge(fact):
    """(verdict, codes, why) of one fact."""
    case, sop, geometry = fact["case"], fact.get("sop_class", ""), fact.get("geometry", [])
    if case in JUDGED:
        return JUDGED[case]
    if fact["modality"] in ("NIfTI", "NRRD"):
        return "volume", "", "a researcher's volume"
    if "file" in fact:
        return ("skipped", "dataset.dicomdir", "lists images, is none") if fact["why"] == "DICOMDIR" else ("skipped", "dataset.not-dicom", "no DICOM file")
    mixed = [(code, why) for name, code, why in (("patients", "series.mixed-patients", "patients in one series"),
                                                 ("studies", "series.mixed-studies", "studies in one series")) if fact.get(name, 1) > 1]
    if mixed:
        return "refused", " ".join(code for code, _ in mixed), "; ".join(f"several {why}" for _, why in mixed)
    if sop in PICTURES:
        if fact["kind"] == "nothing":
            return "refused", "series.pixels", fact["why"]
        colour = "rgb-" if fact["samples"] == 3 else ""
        return colour + fact["kind"], "", "no place in the patient: an image by itself" if fact["kind"] == "image" else "one image over time"
    if sop not in SLICES and sop:
        return "refused", "series.not-a-slice", "no image that is analysed"
    if geometry[:1] == ["localizer"]:
        return "refused", "series.localizer", fact["why"]
    if fact["kind"] == "nothing":
        return "refused", "series.pixels|series.not-a-slice" if not sop else "series.pixels", fact["why"]
    if "MOSAIC" in fact.get("image_type", []):
        return "refused", "series.mosaic", "a mosaic of slices in one image: its position is not that of its pixels"
    if fact["kind"] == "cine" and geometry == ["one position over time"]:
        return "refused", "series.shared-positions|series.too-few-slices", "one slice at one place over time: no volume"
    if any(g.startswith("none") for g in geometry):
        return "refused", "series.no-geometry", "no position and orientation: it lies nowhere in the patient"
    codes = {"single": "series.too-few-slices", "shared": "series.shared-positions|series.too-few-slices", "uneven": "series.uneven-spacing",
             "missing": "series.missing-slices", "sheared": "series.sheared", "orientations": "series.mixed-orientations"}
    found = [(codes[w], g) for g in geometry for w in codes if g.startswith(w)]
    if found:
        return "refused", " ".join(c for c, _ in found), "; ".join(g for _, g in found)
    return "volume", "", "; ".join(geometry) or "regular, straight stack"


def rows(facts):
    for fact in facts:
        verdict, codes, why = judge(fact)
        policies = [("split", verdict, codes, why)]
        only_sheared = [g for g in fact.get("geometry", []) if g.startswith("sheared")] == fact.get("geometry", []) != []
        if verdict == "refused" and only_sheared:
            policies.append(("resample", "volume", "", "gantry tilt as the sheared grid that it is: every voxel where the scanner saw it"))
        for policy, verdict, codes, why in policies:
            loaded = verdict not in ("refused", "skipped")
            physical = fact.get("physical", {})
            first, last, tolerance = "", "", ""
            if verdict == "volume" and "corners_mm" in fact:
                first, last = (numbers(c) for c in fact["corners_mm"])
                tolerance = f"{max(1e-4, fact.get('off_mm', 0.0)):.4g}"
            elif loaded:
                between_rows, between_columns = fact["spacing_mm"] if any(fact["spacing_mm"]) else (1.0, 1.0)
                i, j, k = fact["dims"]
                first, last, tolerance = "0 0 0", numbers([(i - 1) * between_columns, (j - 1) * between_rows, k - 1]), "0.0001"
            pixels = voxels_of(fact)
            # Objects that are no images are not decoded, nor series of several refused instances.
            if not loaded and (fact["instances"] != 1 or codes.startswith(("series.pixels", "series.not-a-slice"))):
                pixels = "-"
            grey = loaded and not verdict.startswith("rgb")
            yield [fact["case"], policy, fact["modality"], str(fact["instances"]), str(fact["frames"]), verdict, codes,
                   "x".join(map(str, fact["dims"])) if pixels != "-" else "", first, last, tolerance, fact["quantity"] if grey else "",
                   *(f"{physical[n]:.10g}" if grey else "" for n in ("min", "max", "mean")), pixels, said(fact), why]


def main():
    facts = [json.loads(line) for line in open(sys.argv[1])]
    print("\t".join(HEADER))
    count = Counter()
    for row in rows(facts):
        assert len(row) == len(HEADER)
        row = [re.sub(r"\s+", " ", cell) for cell in row]
        count[row[5]] += 1
        print("\t".join(row))
    print(dict(count), file=sys.stderr)


if __name__ == "__main__":
    main()
