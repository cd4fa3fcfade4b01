#!/usr/bin/env python3
"""findings.parquet against findings.csv, cell by cell, as pyarrow reads it.

usage: check_parquet.py OUTPUT_FOLDER
"""
import csv
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet

output = Path(sys.argv[1])
table = pyarrow.parquet.read_table(output / 'findings.parquet')
with open(output / 'findings.csv', newline='', encoding='utf-8') as file:
    header, *rows = csv.reader(file)
assert table.column_names == header, (table.column_names, header)
assert table.num_rows == len(rows) > 0, (table.num_rows, len(rows))

INTEGERS, TRUTHS = {'part', 'columns', 'rows', 'slices'}, {'present'}
NUMBERS = {name for name in header if name.endswith(('_mm', '_ml', '_hu', '_percent'))}
TEXTS = {'study_instance_uid', 'series_instance_uid', 'patient', 'modality', 'finding', 'package', 'device', 'provider', 'results', 'warnings'}
kinds = {field.name: field.type for field in table.schema}
for names, kind in [(INTEGERS, pyarrow.int64()), (TRUTHS, pyarrow.bool_()), (NUMBERS, pyarrow.float64()), (TEXTS, pyarrow.string())]:
    assert names and {kinds[name] for name in names} == {kind}, (kind, {name: kinds[name] for name in names})

cells = nulls = 0
for n, name in enumerate(header):
    for row, value in zip(rows, table.column(name).to_pylist()):
        text = row[n]
        cells, nulls = cells + 1, nulls + (value is None)
        if value is None:
            assert text == '', (name, text)
        elif isinstance(value, bool):
            assert text == str(value).lower(), (name, text, value)
        elif isinstance(value, str):
            # Against spreadsheets the CSV has a ' before some texts.
            assert text == value or (text == f"'{value}" and value[0] in '=+-@\t\r'), (name, text, value)
        else:
            assert type(value)(text) == value, (name, text, value)
assert 0 < nulls < cells
# Columns alone are read, too, as analysts do.
assert pyarrow.parquet.read_table(output / 'findings.parquet', columns=['finding', 'present']).num_columns == 2
print(f'{cells} cells of {table.num_rows} rows, {nulls} of them empty: the same in both')
