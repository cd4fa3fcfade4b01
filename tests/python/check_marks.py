#!/usr/bin/env python3
"""Hold marks for viewers and planning systems against the labels that they were made from, as other people's programs read them.

usage: check_marks.py FOLDER

For every case below FOLDER (study/, results/, labels.raw, frames.json: see tests/it/marks.rs):
dciodvfy finds no error in any object; dsrdump and highdicom read the Key Object Selection, which selects the images that show most of each
segment; outlines of the presentation states, filled at pixel centres, are the labels of every segment on every image that they show, and
DCMTK renders the images through the states with the right grey values; contours of the structure set, filled in the planes of their images,
are the labels voxel by voxel, and so are, in axial series, the masks that plastimatch makes of them.
Exit 0, or 1 with every reason.
"""
import json
import sys
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import SimpleITK as sitk
from PIL import Image
from pydicom.uid import ImplicitVRLittleEndian

from programs import dciodvfy_errors, dsrdump_complaints, tool

problems = []
counts = {'key images': 0, 'outlines': 0, 'renderings': 0, 'contours': 0, 'plastimatch masks': 0}
syntaxes = set()


def need(holds, text):
    if not holds:
        problems.append(text)


def filled(outlines, shape):
    """Pixels (row, column) whose centre lies in an odd number of closed outlines; (column, row) with 0.0 at the outer corner."""
    mask = np.zeros(shape, bool)
    centres = np.arange(shape[1]) + 0.5
    for points in outlines:
        for (ax, ay), (bx, by) in zip(points, np.roll(points, -1, axis=0)):
            if ay == by:
                continue
            lines = np.arange(max(int(np.ceil(min(ay, by) - 0.5)), 0), min(int(np.ceil(max(ay, by) - 0.5)), shape[0]))
            for row in lines:
                mask[row] ^= centres > ax + (row + 0.5 - ay) / (by - ay) * (bx - ax)
    return mask


class Case:
    def __init__(self, folder):
        self.name, self.folder = folder.name, folder
        about = json.loads((folder / 'frames.json').read_text())
        self.frames = [tuple(f) for f in about['frames']]
        columns, rows, slices = about['dims']
        self.labels = np.fromfile(folder / 'labels.raw', np.uint8).reshape(slices, rows, columns)
        self.source = {d.SOPInstanceUID: d for d in map(pydicom.dcmread, sorted((folder / 'study').iterdir()))}
        self.path = {d.SOPInstanceUID: d.filename for d in self.source.values()}
        findings = json.loads((folder / 'results' / 'findings.json').read_text())['findings']
        self.findings = {f['segment_number']: f for f in findings if f['segment_number']}

    def results(self, pattern):
        return sorted((self.folder / 'results').glob(pattern))

    def slices(self, reference):
        """Where in the label map the images are that a reference names."""
        uid = reference.ReferencedSOPInstanceUID
        if 'NumberOfFrames' not in self.source[uid]:
            need('ReferencedFrameNumber' not in reference, f'{self.name}: frame number of a single-frame image')
            return [self.frames.index((uid, 1))]
        numbers = reference.ReferencedFrameNumber
        return [self.frames.index((uid, int(n))) for n in (numbers if isinstance(numbers, pydicom.multival.MultiValue) else [numbers])]

    def value(self, k, keyword):
        """An attribute of a frame, wherever it stands."""
        uid, number = self.frames[k]
        ds = self.source[uid]
        if 'NumberOfFrames' in ds:
            for groups in (ds.PerFrameFunctionalGroupsSequence[number - 1], ds.SharedFunctionalGroupsSequence[0]):
                for element in groups:
                    if keyword in element.value[0]:
                        return element.value[0][keyword].value
        return ds.get(keyword)

    def stored(self, k):
        uid, number = self.frames[k]
        pixels = self.source[uid].pixel_array
        return pixels[number - 1] if pixels.ndim == 3 else pixels


def check_key_objects(case):
    [path] = case.results('ko.dcm')
    for line in dsrdump_complaints(path):
        need('template constraints' in line, f'{case.name}: dsrdump: {line}')
    _, text = tool('dsrdump', str(path))
    document = hd.ko.KeyObjectSelectionDocument.from_dataset(pydicom.dcmread(path))
    references = document.content.get_references(value_type=hd.sr.ValueTypeValues.IMAGE)
    need(text.count('<contains IMAGE:=') == len(references), f'{case.name}: dsrdump reads another number of images')
    selected = []
    for item in references:
        reference = item.ReferencedSOPSequence[0]
        study, series, instance = document.resolve_reference(reference.ReferencedSOPInstanceUID)
        source = case.source[reference.ReferencedSOPInstanceUID]
        need((study, series) == (source.StudyInstanceUID, source.SeriesInstanceUID), f'{case.name}: evidence of another series')
        selected += case.slices(reference)
    need(len(set(selected)) == len(selected), f'{case.name}: an image is selected twice')
    counts['key images'] += len(selected)
    best = set()
    for finding in case.findings.values():
        area = (case.labels == finding['segment']).sum(axis=(1, 2))
        largest = set(np.flatnonzero(area == area.max()).tolist())
        need(largest & set(selected), f'{case.name}: no image shows most of {finding["name"]}')
        best |= largest
    need(set(selected) <= best, f'{case.name}: an image that shows nothing best')
    return selected


def check_states(case, key_images):
    shown = []
    for path in case.results('gsps*.dcm'):
        ds = pydicom.dcmread(path)
        here = [k for s in ds.ReferencedSeriesSequence for r in s.ReferencedImageSequence for k in case.slices(r)]
        shown += here
        layers = {layer.GraphicLayer: layer for layer in ds.GraphicLayerSequence}
        marked = []
        for annotation in ds.GraphicAnnotationSequence:
            [k] = case.slices(annotation.ReferencedImageSequence[0])
            layer = layers[annotation.GraphicLayer]
            finding = case.findings[int(layer.GraphicLayerOrder)]
            where = f'{case.name}: {finding["name"]} on image {k}'
            marked.append((k, finding['segment']))
            wanted = hd.color.CIELabColor.from_rgb(*finding['colour']).value  # by Pillow's profile, which is 2 % off D50
            need(np.abs(np.array(layer.GraphicLayerRecommendedDisplayCIELabValue, int) - wanted).max() < 1500, f'{where}: {layer.GraphicLayerRecommendedDisplayCIELabValue} is not {wanted}')
            need(annotation.TextObjectSequence[0].UnformattedTextValue.startswith(finding['name']), f'{where}: another text')
            outlines = [np.array(o.GraphicData, float).reshape(-1, 2) for o in annotation.GraphicObjectSequence]
            need(all((o[0] == o[-1]).all() for o in outlines), f'{where}: an outline is open')
            need((filled(outlines, case.labels[k].shape) == (case.labels[k] == finding['segment'])).all(), f'{where}: other pixels')
            counts['outlines'] += len(outlines)
        there = sorted((k, f['segment']) for k in here for f in case.findings.values() if (case.labels[k] == f['segment']).any())
        need(sorted(marked) == there, f'{case.name}: {len(marked)} of {len(there)} segments are outlined')
        for k in here:
            check_rendering(case, ds, path, k)
    need(sorted(shown) == sorted(key_images), f'{case.name}: states show other images than the key images')


def check_rendering(case, ds, path, k):
    """DCMTK's grey values against those of the attributes: half a value of rounding, and one for its own lookup tables."""
    uid, number = case.frames[k]
    out = case.folder / f'{path.stem}-{k}.pgm'
    status, text = tool('dcmp2pgm', '-p', str(path), '-f', str(number), case.path[uid], str(out))
    if status != 0 or not out.exists():
        return need(False, f'{case.name}: dcmp2pgm: {text}')
    rendered = np.asarray(Image.open(out), float)
    modality = case.stored(k) * float(ds.get('RescaleSlope', 1)) + float(ds.get('RescaleIntercept', 0))
    need(float(ds.get('RescaleSlope', 1)) == float(case.value(k, 'RescaleSlope') or 1), f'{case.name}: another slope')
    [voi] = [v for v in ds.SoftcopyVOILUTSequence if 'ReferencedImageSequence' not in v
             or any(k in case.slices(r) for r in v.ReferencedImageSequence)]
    own = case.value(k, 'WindowCenter')
    if own is not None:
        own = own[0] if isinstance(own, pydicom.multival.MultiValue) else own
        need(float(own) == float(voi.WindowCenter), f'{case.name}: another window')
    # DCMTK takes LINEAR_EXACT for LINEAR.
    share = np.clip((modality - (float(voi.WindowCenter) - 0.5)) / (float(voi.WindowWidth) - 1) + 0.5, 0, 1)
    if ds.PresentationLUTShape == 'INVERSE':
        share = 1 - share
    need(case.source[uid].PhotometricInterpretation == ('MONOCHROME1' if ds.PresentationLUTShape == 'INVERSE' else 'MONOCHROME2'),
         f'{case.name}: another Presentation LUT')
    # Marks are not in the bitmap.
    need(rendered.shape == case.labels[k].shape, f'{case.name}: {rendered.shape} is rendered')
    off = np.abs(rendered - share * 255).max()
    need(off <= 1.5, f'{case.name}: grey values of image {k} are up to {off:.1f} off')
    need(np.ptp(share) > 0.1, f'{case.name}: image {k} is of one grey')
    counts['renderings'] += 1


def check_structure_set(case):
    if case.value(0, 'ImagePositionPatient') is None:
        return need(not case.results('rtstruct.dcm'), f'{case.name}: a structure set of what lies nowhere')
    [path] = case.results('rtstruct.dcm')
    ds = pydicom.dcmread(path)
    syntaxes.add(ds.file_meta.TransferSyntaxUID)
    regions = {int(r.ROINumber): r for r in ds.StructureSetROISequence}
    need(set(regions) == set(case.findings), f'{case.name}: other regions than segments')
    observed = {int(o.ReferencedROINumber): o for o in ds.RTROIObservationsSequence}
    for drawn in ds.ROIContourSequence:
        number = int(drawn.ReferencedROINumber)
        finding = case.findings[number]
        where = f'{case.name}: {finding["name"]}'
        need(regions[number].ROIName == finding['name'], f'{where}: another name')
        need(list(drawn.ROIDisplayColor) == finding['colour'], f'{where}: another colour')
        kind = observed[number].RTROIIdentificationCodeSequence[0]
        need((kind.CodeValue, kind.CodeMeaning) == (finding['finding_type']['value'], finding['finding_type']['meaning']), f'{where}: other code')
        outlines = {k: [] for k in range(len(case.labels))}
        for contour in drawn.ContourSequence:
            [k] = case.slices(contour.ContourImageSequence[0])
            points = np.array(contour.ContourData, float).reshape(-1, 3)
            need(len(points) == contour.NumberOfContourPoints, f'{where}: another number of points')
            orientation = np.array(case.value(k, 'ImageOrientationPatient'), float)
            down, across = map(float, case.value(k, 'PixelSpacing'))
            axes = np.stack([orientation[:3] * across, orientation[3:] * down, np.cross(orientation[:3], orientation[3:])], axis=1)
            pixels = np.linalg.solve(axes, (points - np.array(case.value(k, 'ImagePositionPatient'), float)).T).T
            need(np.abs(pixels[:, 2]).max() < 0.002, f'{where}: image {k}: a contour leaves its plane')
            outlines[k].append(pixels[:, :2] + 0.5)
            counts['contours'] += 1
        for k, of_slice in outlines.items():
            there = case.labels[k] == finding['segment']
            need((filled(of_slice, there.shape) == there).all(), f'{where}: image {k}: other voxels')
    orientation = np.array(case.value(0, 'ImageOrientationPatient'), float)
    # Plastimatch 1.9 takes every contour for an axial one, and no multi-frame image for its grid.
    if np.array_equal(orientation, [1, 0, 0, 0, 1, 0]) and len(case.source) > 1:
        check_plastimatch(case, path)


def check_plastimatch(case, path):
    """Its masks on the grid of the source, which it has to be told: else it makes one of 512 x 512 pixels of its own."""
    out, grid = case.folder / 'plastimatch', sitk.GetImageFromArray(case.labels)
    down, across = map(float, case.value(0, 'PixelSpacing'))
    [first, second] = [np.array(case.value(k, 'ImagePositionPatient'), float) for k in (0, 1)]
    grid.SetOrigin(first.tolist())
    grid.SetSpacing([across, down, float(second[2] - first[2])])
    sitk.WriteImage(grid, str(case.folder / 'grid.nrrd'))
    status, text = tool('plastimatch', 'convert', '--input', str(path), '--fixed', str(case.folder / 'grid.nrrd'),
                        '--output-prefix', str(out), '--prefix-format', 'nrrd')
    need(status == 0, f'{case.name}: plastimatch: {text}')
    for finding in case.findings.values():
        mask = sitk.GetArrayFromImage(sitk.ReadImage(str(next(out.parent.glob(f'plastimatch*/{finding["name"]}.nrrd')))))
        there = case.labels == finding['segment']
        off = int((mask.astype(bool) != there).sum())
        need(off == 0, f'{case.name}: {finding["name"]}: {off} of {int(there.sum())} voxels differ from those of plastimatch')
        counts['plastimatch masks'] += 1


for folder in sorted(p for p in Path(sys.argv[1]).iterdir() if p.is_dir()):
    case = Case(folder)
    for path in case.results('*.dcm'):
        problems += [f'{case.name}: {path.name}: dciodvfy: {line}' for line in dciodvfy_errors(path)]
    key_images = check_key_objects(case)
    check_states(case, key_images)
    check_structure_set(case)

need(ImplicitVRLittleEndian in syntaxes, 'no contour is long enough for Implicit VR')
print('\n'.join(problems[:60]) or ', '.join(f'{n} {what}' for what, n in counts.items()) + ' as the labels say')
sys.exit(1 if problems else 0)
