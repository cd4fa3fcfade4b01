#!/usr/bin/env python3
"""Writes what examples/results.rs writes, with highdicom: a BINARY SEG and a TID 1500 SR with the volume of each segment.

usage: cargo run --release --example results -- --keep DIR; results_peer.py DIR

Prints `RESULT {"times": [..], ..}`: seconds from label map to synced files, without reading the images.
"""
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
from pydicom.sr.codedict import codes

folder = Path(sys.argv[1])
sources = [pydicom.dcmread(p) for p in sorted((folder / 'series').iterdir())]
labels = np.fromfile(folder / 'labels.raw', np.uint8).reshape(len(sources), sources[0].Rows, sources[0].Columns)
count = int(labels.max())
algorithm = hd.AlgorithmIdentificationSequence(name='example', version='1.0.0', family=codes.DCM.ArtificialIntelligence)


def write(out):
    described = [hd.seg.SegmentDescription(
        segment_number=n, segment_label=f'structure {n}', segmented_property_category=codes.SCT.AnatomicalStructure,
        segmented_property_type=codes.SCT.AnatomicalStructure, algorithm_type='AUTOMATIC', algorithm_identification=algorithm)
        for n in range(1, count + 1)]
    seg = hd.seg.Segmentation(sources, labels, 'BINARY', described, hd.UID(), 100, hd.UID(), 1, 'peer', 'peer', '1', '1')
    seg.save_as(out / 'seg.dcm')
    groups = [hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(hd.UID(), f'structure {n}'),
        referenced_segment=hd.sr.ReferencedSegment(
            seg.SOPClassUID, seg.SOPInstanceUID, n,
            source_series=hd.sr.SourceSeriesForSegmentation(hd.UID(sources[0].SeriesInstanceUID))),
        finding_type=codes.SCT.AnatomicalStructure,
        measurements=[hd.sr.Measurement(codes.SCT.Volume, float(n), hd.sr.CodedConcept('ml', 'UCUM', 'ml'))]) for n in range(1, count + 1)]
    observer = hd.sr.ObserverContext(codes.DCM.Device, hd.sr.DeviceObserverIdentifyingAttributes(hd.UID()))
    report = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=observer), procedure_reported=codes.LN.CTUnspecifiedBodyRegion,
        imaging_measurements=groups, title=codes.DCM.ImagingMeasurementReport)
    hd.sr.Comprehensive3DSR([*sources, seg], report[0], hd.UID(), 101, hd.UID(), 1, 'peer').save_as(out / 'sr.dcm')
    for name in ('seg.dcm', 'sr.dcm'):
        descriptor = os.open(out / name, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    return {'segments': count, 'frames': int(seg.NumberOfFrames), 'bytes': sum((out / name).stat().st_size for name in ('seg.dcm', 'sr.dcm'))}


times = []
for _ in range(3):
    with tempfile.TemporaryDirectory() as scratch:
        start = time.perf_counter()
        check = write(Path(scratch))
        times.append(time.perf_counter() - start)
print('RESULT', json.dumps({'times': times, 'voxels': labels.size, 'check': check}))
