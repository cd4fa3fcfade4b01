#!/usr/bin/env python3
"""Studies an hour: `roentgen run` beside a script of MONAI, ONNX Runtime and highdicom that does the same, in turn, in one call.

usage: bench_cohort.py ROENTGEN PACKAGE PEER_PYTHON FOLDER [STUDIES [ROUNDS [NICE]]]

PEER_PYTHON has torch, monai, itk, onnxruntime, highdicom, pydicom, scipy and connected-components-3d. The studies are the demo's phantom,
224 x 168 x 96, each with UIDs of its own and some HU denser (6 of them; 3 rounds). Both read DICOM folders, orient, resample linearly,
clip and scale as the package says, run the package's ONNX file part by part on the CPU, bring scores back to the grid of the series
linearly, take the arg-max, measure volume, mean and standard deviation of each segment, and write a DICOM SEG and a TID 1500 SR. The
script begins each round with its imports, as `roentgen run` begins with its own; both have all processors, and the same niceness.

Prints JSON: seconds of each round, processor seconds (which hold on a busy machine), studies an hour (medians), the ratios, and how far the volumes of the segments differ.
"""
import csv
import json
import os
import resource
import statistics
import subprocess
import sys
import time
import tomllib
from pathlib import Path


def peer(package, studies, output):
    """One process over all studies, as a laboratory's script does it."""
    import cc3d
    import highdicom as hd
    import numpy as np
    import onnxruntime
    import pydicom
    import torch
    from monai.inferers import sliding_window_inference
    from monai.transforms import Compose, EnsureChannelFirst, Invert, LoadImage, Orientation, ScaleIntensityRange, Spacing
    from pydicom.sr.codedict import codes
    from pydicom.sr.coding import Code

    manifest = tomllib.loads((package / 'model.toml').read_text())
    step = {one['step']: one for one in manifest['preprocess'] + manifest['postprocess']}
    low, high = step['clip']['min'], step['clip']['max']
    scaled = [(value - step['normalize']['subtract']) / step['normalize']['divide'] for value in (low, high)]
    if 'tiles' in manifest['inference']:
        roi = manifest['inference']['tiles']['tile']
        overlap, mode = 2 * manifest['inference']['tiles']['halo'] / roi[0], 'constant'
    else:
        roi = manifest['inference']['sliding-window']['patch']
        overlap, mode = manifest['inference']['sliding-window']['overlap'], 'gaussian'
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = os.cpu_count()
    session = onnxruntime.InferenceSession(str(package / manifest['file'][0]['path']), options, providers=['CPUExecutionProvider'])
    # The package's axes are k, j, i; MONAI's are i, j, k.
    turned = lambda x: x.permute(0, 1, 4, 3, 2).contiguous()
    network = lambda x: turned(torch.from_numpy(session.run(None, {manifest['input']['tensor']: turned(x).numpy()})[0]))
    load = Compose([LoadImage(reader='ITKReader', image_only=True), EnsureChannelFirst()])
    before = Compose([
        Orientation(axcodes='LPS', labels=(('R', 'L'), ('A', 'P'), ('I', 'S'))),
        Spacing(pixdim=step['resample']['spacing_mm'], mode='bilinear'),
        ScaleIntensityRange(low, high, *scaled, clip=True),
    ])
    back = Invert(before, nearest_interp=False)
    algorithm = hd.AlgorithmIdentificationSequence(name=manifest['model']['name'], version=manifest['model']['version'],
                                                   family=codes.DCM.ArtificialIntelligence)
    concept = lambda of: Code(of['value'], of['scheme'], of['meaning'])
    background = manifest['output'].get('background')
    found = {}
    for study in sorted(studies.iterdir()):
        files = sorted(study.iterdir())
        image = load(study)
        with torch.inference_mode():
            x = before(image)
            scores = sliding_window_inference(x[None], roi, 1, network, overlap=overlap, mode=mode)[0]
            if manifest['output']['scores'] == 'logits':
                scores = scores.softmax(0)
            scores.applied_operations = x.applied_operations
            labels = back(scores).argmax(0).numpy().astype(np.uint8).transpose(2, 1, 0)
        channels = labels if background is not None else labels + 1  # segment numbers, 0 is none
        values = image[0].numpy().transpose(2, 1, 0)
        # ITK sorts slices along the normal; the sources must come in that order.
        sources = sorted((pydicom.dcmread(file, stop_before_pixels=True) for file in files), key=lambda one: one.ImagePositionPatient[2])
        voxel_ml = float(np.prod([*sources[0].PixelSpacing, image.pixdim[2]])) / 1000
        segments = np.zeros_like(channels)
        descriptions, groups = [], []
        seg_uid = hd.UID()
        for finding in manifest['finding']:
            mask = channels == finding['segment']
            if 'components' in step:
                pieces, count = cc3d.connected_components(mask, connectivity=26, return_N=True)
                sizes = cc3d.statistics(pieces)['voxel_counts']
                mask = (sizes * voxel_ml >= step['components'].get('min_ml', 0))[pieces] & (pieces > 0)
            segments[mask] = finding['segment']
            number = len(descriptions) + 1
            descriptions.append(hd.seg.SegmentDescription(
                segment_number=number, segment_label=finding['name'], segmented_property_category=concept(finding['category']),
                segmented_property_type=concept(finding['type']), algorithm_type='AUTOMATIC', algorithm_identification=algorithm))
            inside = values[mask]
            found[f'{sources[0].SeriesInstanceUID} {finding["name"]}'] = float(inside.size * voxel_ml)
            if inside.size == 0:
                continue
            first = sources[int(np.flatnonzero(mask.any(axis=(1, 2)))[0])]
            reference = hd.sr.ReferencedSegment('1.2.840.10008.5.1.4.1.1.66.4', seg_uid, number, source_images=[
                hd.sr.SourceImageForSegmentation(first.SOPClassUID, first.SOPInstanceUID)])
            unit = Code("[hnsf'U]", 'UCUM', 'Hounsfield unit')
            groups.append(hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
                tracking_identifier=hd.sr.TrackingIdentifier(hd.UID(), finding['name']), referenced_segment=reference,
                finding_type=concept(finding['type']), measurements=[
                    hd.sr.Measurement(codes.SCT.Volume, float(inside.size * voxel_ml), Code('ml', 'UCUM', 'milliliter')),
                    hd.sr.Measurement(codes.SCT.Mean, float(inside.mean()), unit),
                    hd.sr.Measurement(codes.SCT.StandardDeviation, float(inside.std()), unit)]))
        place = output / study.name
        place.mkdir(parents=True)
        seg = hd.seg.Segmentation(sources, segments, 'BINARY', descriptions, hd.UID(), 100, seg_uid, 1, 'bench', 'bench', '1', '1')
        seg.save_as(place / 'seg.dcm')
        report = hd.sr.MeasurementReport(
            observation_context=hd.sr.ObservationContext(observer_device_context=hd.sr.ObserverContext(
                codes.DCM.Device, hd.sr.DeviceObserverIdentifyingAttributes(hd.UID()))),
            procedure_reported=codes.LN.CTUnspecifiedBodyRegion, imaging_measurements=groups, title=codes.DCM.ImagingMeasurementReport)
        hd.sr.Comprehensive3DSR([*sources, seg], report[0], hd.UID(), 101, hd.UID(), 1, 'bench').save_as(place / 'sr.dcm')
    (output / 'volumes.json').write_text(json.dumps(found))


def make(roentgen, folder, count):
    """`count` studies of the demo's phantom."""
    import pydicom
    from pydicom.uid import generate_uid
    demo = folder / 'demo'
    subprocess.run([roentgen, 'demo', '--device', 'cpu', '--output', demo], check=True, stdout=subprocess.DEVNULL)
    slices = [pydicom.dcmread(path) for path in sorted((demo / 'study').glob('*.dcm'))]
    intercept = float(slices[0].RescaleIntercept)
    for n in range(count):
        study, series, frame = generate_uid(), generate_uid(), generate_uid()
        place = folder / 'studies' / f'{n:02}'
        place.mkdir(parents=True)
        for k, one in enumerate(slices):
            one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = study, series, frame
            one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = generate_uid()
            one.RescaleIntercept = intercept + n
            one.save_as(place / f'{k:03}.dcm', enforce_file_format=True)
    return folder / 'studies'


def timed(command, nice):
    began, used = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    ran = subprocess.run(['nice', '-n', str(nice), *(str(part) for part in command)], capture_output=True, text=True)
    if ran.returncode != 0:
        sys.exit(f'{command[0]} ended with {ran.returncode}:\n{ran.stdout[-2000:]}\n{ran.stderr[-4000:]}')
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.monotonic() - began, ended.ru_utime + ended.ru_stime - used.ru_utime - used.ru_stime


def main():
    roentgen, package, python, folder = sys.argv[1], Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
    count, rounds, nice = ([int(text) for text in sys.argv[5:8]] + [6, 3, 0][len(sys.argv[5:8]):])[:3]
    folder.mkdir(parents=True)
    studies = make(roentgen, folder, count)
    seconds = {'roentgen': [], 'monai-highdicom': []}
    for n in range(rounds):
        ours, theirs = folder / f'ours-{n}', folder / f'theirs-{n}'
        seconds['roentgen'].append(timed(
            [roentgen, 'run', '--model', package, '--device', 'cpu', '--results', 'sr,seg', studies, '--output', ours], nice))
        seconds['monai-highdicom'].append(timed([python, __file__, '--peer', package, studies, theirs], nice))
    wall, cpu = ({name: statistics.median(one[n] for one in times) for name, times in seconds.items()} for n in (0, 1))
    hour = {name: count * 3600 / value for name, value in wall.items()}
    theirs = json.loads((theirs / 'volumes.json').read_text())
    ours = {}
    for row in csv.DictReader(open(folder / f'ours-{rounds - 1}' / 'findings.csv', encoding='utf-8')):
        # A package may make a finding of each object of a segment: they are summed.
        name = f'{row["series_instance_uid"]} {row["finding"].rstrip("0123456789").strip()}'
        ours[name] = ours.get(name, 0.0) + float(row['volume_ml'] or 0)
    differ = {name: (ours.get(name, 0.0), theirs[name]) for name in theirs}
    furthest = max(differ.items(), key=lambda pair: abs(pair[1][0] - pair[1][1]) / max(pair[1][1], 1.0))
    print(json.dumps({
        'package': package.name, 'studies': count, 'rounds': rounds, 'nice': nice, 'processors': os.cpu_count(),
        'seconds': {name: [round(one[0], 2) for one in times] for name, times in seconds.items()},
        'processor_seconds': {name: round(value, 2) for name, value in cpu.items()},
        'studies_per_hour': {name: round(value) for name, value in hour.items()},
        'ratio': round(hour['roentgen'] / hour['monai-highdicom'], 2),
        'ratio_of_processor_seconds': round(cpu['monai-highdicom'] / cpu['roentgen'], 2),
        'furthest_volumes_ml': {furthest[0].split(' ', 1)[1]: [round(v, 3) for v in furthest[1]]},
    }, indent=1))


if sys.argv[1] == '--peer':
    peer(*(Path(text) for text in sys.argv[2:5]))
else:
    main()
