#!/usr/bin/env python3
"""Copy a series whose data sets lack UIDs, with the UIDs that roentgen used for it filled in.

usage: fill_uids.py SERIES_DIR FINDINGS_JSON OUT_DIR

SOP Class and Instance UID come from each file's meta group, Study and Series Instance UID from the result.
For tools that look instances up by the UIDs of their data sets. Nothing else is changed.
"""
import json
import sys
from pathlib import Path

import pydicom

series, findings, out = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()), Path(sys.argv[3])
for path in sorted(series.iterdir()):
    ds = pydicom.dcmread(path)
    ds.SOPClassUID = ds.get('SOPClassUID') or ds.file_meta.MediaStorageSOPClassUID
    ds.SOPInstanceUID = ds.get('SOPInstanceUID') or ds.file_meta.MediaStorageSOPInstanceUID
    ds.StudyInstanceUID = ds.get('StudyInstanceUID') or findings['study_instance_uid']
    ds.SeriesInstanceUID = ds.get('SeriesInstanceUID') or findings['series_instance_uid']
    ds.save_as(out / path.name)
