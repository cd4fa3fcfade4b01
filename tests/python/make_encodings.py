"""One small image in every encoding, made by other people's tools, with what it must decode to.

usage: make_encodings.py made OUT          images made here
       make_encodings.py real OUT FILE..   the decoders' answers for real files

Written: OUT/NAME.dcm, OUT/NAME.raw (stored values as little endian int32, row by row; or RGB bytes) and OUT/cases.json: a list of
{name, file, raw, kind: stored | rgb, bound, tool, frame, cell}. `bound` is the largest difference allowed: 0 unless the reason stands beside
the case. `cell` is what docs/encodings.md lists.

Lossless: the expected values are those that the encoder was given, and pydicom's decoders must agree here, or this script fails.
Lossy: what the reference decoder makes of the same stream.
"""

import io
import json
import pathlib
import subprocess
import sys
import zlib

import gdcm  # noqa: F401  registers pydicom's GDCM decoders
import imagecodecs
import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import apply_color_lut, convert_color_space, pixel_array
from pydicom.uid import generate_uid

TS = {
    "implicit": "1.2.840.10008.1.2",
    "explicit": "1.2.840.10008.1.2.1",
    "deflated": "1.2.840.10008.1.2.1.99",
    "big endian": "1.2.840.10008.1.2.2",
    "encapsulated": "1.2.840.10008.1.2.1.98",
    "deflated frame": "1.2.840.10008.1.2.8.1",
    "rle": "1.2.840.10008.1.2.5",
}
JPEG = "1.2.840.10008.1.2.4."
RNG = np.random.default_rng(20)
ROWS, COLUMNS = 61, 78
cases = []


def mono(bits, signed, rows=ROWS, columns=COLUMNS):
    """Waves, noise, a flat square (runs) and both ends of the range."""
    y, x = np.mgrid[:rows, :columns]
    top = 2**bits - 1
    a = top / 2 + top * 0.3 * np.sin(x / 9.0) * np.cos(y / 7.0) + RNG.normal(0, top / 200 + 0.5, (rows, columns))
    a[20:40, 10:40] = top // 3
    a[5, :8] = [0, top] * 4
    a = np.clip(np.round(a), 0, top).astype(np.int64)
    return a - 2 ** (bits - 1) if signed else a


def colour(rows=ROWS, columns=COLUMNS, bits=8):
    y, x = np.mgrid[:rows, :columns]
    top = 2**bits - 1
    a = np.stack([top * (0.5 + 0.4 * np.sin(x / (8.0 + 3 * n)) * np.cos(y / 11.0)) for n in range(3)], -1)
    a += RNG.normal(0, top / 200, a.shape)
    a[20:40, 10:40] = [top * 4 // 5, top // 4, top // 8]
    return np.clip(np.round(a), 0, top).astype(np.int64)


def dtype(allocated, signed):
    return np.dtype(f"<{'i' if signed else 'u'}{allocated // 8}")


def dataset(values, allocated, stored, signed, photometric="MONOCHROME2", planar=0):
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = TS["explicit"]
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(len(cases)), photometric])
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.3", "1.2.3.4"
    ds.Modality, ds.PatientID, ds.PatientName = "OT", "ENCODINGS", "Encodings^Made"
    ds.StudyID, ds.SeriesNumber, ds.InstanceNumber, ds.ConversionType = "1", 1, 1, "SYN"
    ds.Rows, ds.Columns = values.shape[:2]
    ds.SamplesPerPixel = 3 if values.ndim == 3 else 1
    ds.PhotometricInterpretation = photometric
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = allocated, stored, stored - 1
    ds.PixelRepresentation = int(signed)
    if values.ndim == 3:
        ds.PlanarConfiguration = planar
    data = values.astype(dtype(allocated, signed))
    if planar:
        data = np.moveaxis(data, -1, 0)
    data = data.tobytes()
    ds.PixelData = data + b"\0" * (len(data) % 2)
    ds["PixelData"].VR = "OW" if allocated > 8 else "OB"
    return ds


def put(name, ds, expected, tool, cell, kind="stored", bound=0, frame=0):
    """Writes the data set, the expected values and the case."""
    path = OUT / f"{name}.dcm"
    uid = str(ds.file_meta.TransferSyntaxUID)
    # pydicom does not know these yet; another encapsulated syntax has a UID of the same padded length.
    stand_in = {TS["deflated frame"]: TS["encapsulated"], JPEG + "110": JPEG + "201", JPEG + "111": JPEG + "201", JPEG + "112": JPEG + "201"}.get(uid)
    if stand_in:
        ds.file_meta.TransferSyntaxUID = stand_in
    ds.save_as(path, enforce_file_format=True)
    if stand_in:
        size = len(stand_in) + len(stand_in) % 2
        path.write_bytes(path.read_bytes().replace(*(u.encode().ljust(size, b"\0") for u in (stand_in, uid)), 1))
    note(name, path, expected, tool, cell, kind, bound, frame)


def note(name, path, expected, tool, cell, kind="stored", bound=0, frame=0):
    raw = OUT / f"{name}.raw"
    raw.write_bytes(expected.astype("<i4" if kind == "stored" else np.uint8).tobytes())
    cases.append(dict(name=name, file=str(path), raw=str(raw), kind=kind, bound=bound, tool=tool, frame=frame, cell=cell))


def native(name):
    """A base file for command-line tools."""
    return OUT / f"{name}.base.dcm"


def run(*command):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{command}: {done.stdout} {done.stderr}")


def encoded(stream, values, allocated, stored, signed, uid, photometric="MONOCHROME2", planar=0):
    """A data set around a code stream."""
    ds = dataset(values, allocated, stored, signed, photometric, 0)
    ds.file_meta.TransferSyntaxUID = uid
    ds.PixelData = encapsulate([stream])
    ds["PixelData"].VR = "OB"
    if planar:
        ds.PlanarConfiguration = planar
    return ds


def agreed(path, values):
    """pydicom's decoders must give `values`."""
    found = pixel_array(path, raw=True)
    if not np.array_equal(found.astype(np.int64), values):
        sys.exit(f"{path}: pydicom decodes other values than were encoded")


FORMATS = [("u8", 8, 8, False), ("u12", 16, 12, False), ("s12", 16, 12, True), ("u16", 16, 16, False), ("s16", 16, 16, True)]


def cell(uid, photometric, allocated, stored, signed):
    return [uid, photometric, f"{allocated}/{stored}/{'signed' if signed else 'unsigned'}"]


def uncompressed():
    for short, allocated, stored, signed in FORMATS + [("u10", 16, 10, False), ("s8", 8, 8, True)]:
        values = mono(stored, signed)
        for ts in ("implicit", "explicit", "deflated", "big endian", "encapsulated"):
            ds = dataset(values, allocated, stored, signed)
            ds.file_meta.TransferSyntaxUID = TS[ts]
            if ts == "big endian":
                ds.PixelData = values.astype(dtype(allocated, signed).newbyteorder(">")).tobytes()
                ds.PixelData += b"\0" * (len(ds.PixelData) % 2)
            if ts == "encapsulated":
                ds.PixelData = encapsulate([ds.PixelData])
            name = f"native-{short}-{ts.replace(' ', '-')}"
            if ts == "big endian":
                path = OUT / f"{name}.dcm"
                ds.save_as(path, enforce_file_format=True)
                note(name, path, values, "pydicom", cell(TS[ts], "MONOCHROME2", allocated, stored, signed))
            else:
                put(name, ds, values, "pydicom", cell(TS[ts], "MONOCHROME2", allocated, stored, signed))
        ds = dataset(values, allocated, stored, signed)
        deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
        stream = deflater.compress(ds.PixelData) + deflater.flush()
        put(
            f"deflated-frame-{short}",
            encoded(stream, values, allocated, stored, signed, TS["deflated frame"]),
            values,
            "zlib",
            cell(TS["deflated frame"], "MONOCHROME2", allocated, stored, signed),
        )
    # Bits above Bits Stored that are neither zero nor sign: overlays of old, dirt.
    for signed in (False, True):
        values = mono(12, signed)
        dirty = (values & 0xFFF) | (RNG.integers(0, 16, values.shape) << 12)
        ds = dataset(dirty, 16, 12, False)
        ds.PixelRepresentation = int(signed)
        put(f"native-dirty-{signed}", ds, values, "pydicom", cell(TS["explicit"], "MONOCHROME2, dirty high bits", 16, 12, signed))


def rle():
    for short, allocated, stored, signed in FORMATS:
        values = mono(stored, signed)
        ds = dataset(values, allocated, stored, signed)
        where = cell(TS["rle"], "MONOCHROME2", allocated, stored, signed)
        for plugin in ("pydicom", "pylibjpeg", "gdcm"):
            copy = dataset(values, allocated, stored, signed)
            copy.compress(TS["rle"], encoding_plugin=plugin, generate_instance_uid=False)
            put(f"rle-{short}-{plugin}", copy, values, f"pydicom/{plugin}", where)
        ds.save_as(native(f"rle-{short}"), enforce_file_format=True)
        tools(f"rle-{short}", values, where, [("dcmcrle", ["dcmcrle"]), ("gdcmconv", ["gdcmconv", "--rle"])])
    values = colour()
    ds = dataset(values, 8, 8, False, "RGB")
    ds.compress(TS["rle"], encoding_plugin="pydicom", generate_instance_uid=False)
    put("rle-rgb", ds, values, "pydicom", cell(TS["rle"], "RGB", 8, 8, False), "rgb")
    ds = dataset(values, 8, 8, False, "RGB")
    ds.save_as(native("rle-rgb"), enforce_file_format=True)
    tools("rle-rgb", values, cell(TS["rle"], "RGB", 8, 8, False), [("dcmcrle", ["dcmcrle"]), ("gdcmconv", ["gdcmconv", "--rle"])], "rgb")
    ybr = convert_color_space(values.astype(np.uint8), "RGB", "YBR_FULL")
    ds = dataset(ybr, 8, 8, False, "YBR_FULL")
    ds.compress(TS["rle"], encoding_plugin="pydicom", generate_instance_uid=False)
    # Fixed-point against float arithmetic: the last place may round otherwise.
    put("rle-ybr", ds, convert_color_space(ybr, "YBR_FULL", "RGB"), "pydicom", cell(TS["rle"], "YBR_FULL", 8, 8, False), "rgb", 1)
    wide = colour(bits=16)
    ds = dataset(wide, 16, 16, False, "RGB")
    ds.compress(TS["rle"], encoding_plugin="pydicom", generate_instance_uid=False)
    put("rle-rgb16", ds, wide >> 8, "pydicom", cell(TS["rle"], "RGB", 16, 16, False), "rgb")


def tools(name, values, where, commands, kind="stored", bound=0, decoder=None):
    """Runs command-line encoders on the base file; `decoder` makes the expected values of a lossy stream."""
    for n, (tool, command) in enumerate(commands):
        path = OUT / f"{name}-{tool.replace(' ', '')}.dcm"
        run(*command, native(name), path)
        if decoder is None:
            if kind == "stored":
                agreed(path, values)
            note(path.stem, path, values, tool, where, kind, bound)
        else:
            note(path.stem, path, decoder(path), tool, where, kind, bound)


def by_dcmdjpeg(path):
    """DCMTK's answer to a lossy JPEG: the samples, or RGB."""
    plain = path.with_suffix(".plain.dcm")
    run("dcmdjpeg", path, plain)
    ds = pydicom.dcmread(plain)
    return ds.pixel_array.astype(np.int64)


def by_pydicom(path):
    return pixel_array(opened(path), raw=True).astype(np.int64)


def opened(path):
    ds = pydicom.dcmread(path, force=True)
    if "TransferSyntaxUID" not in ds.file_meta:
        ds.file_meta.TransferSyntaxUID = TS["implicit"]
    return ds


def by_pydicom_rgb(path):
    return pixel_array(path)


def jpeg_lossless():
    for short, allocated, stored, signed in FORMATS + [("u10", 16, 10, False)]:
        values = mono(stored, signed)
        name = f"jpegll-{short}"
        dataset(values, allocated, stored, signed).save_as(native(name), enforce_file_format=True)
        # Bits chosen by what the values need would clip other images of the series; 16 says so, too.
        commands = [(f"dcmcjpeg el sv{n}", ["dcmcjpeg", "+el", "+sv", n]) for n in range(1, 8)]
        tools(name, values, cell(JPEG + "57", "MONOCHROME2", allocated, stored, signed), commands)
        commands = [("dcmcjpeg e1", ["dcmcjpeg", "+e1"]), ("gdcmconv", ["gdcmconv", "--jpeg"])]
        tools(name, values, cell(JPEG + "70", "MONOCHROME2", allocated, stored, signed), commands)
    values = mono(12, False)
    dataset(values, 16, 12, False).save_as(native("jpegll-pt"), enforce_file_format=True)
    # A point transform drops low bits; the values come back shifted up.
    tools(
        "jpegll-pt",
        values >> 2 << 2,
        cell(JPEG + "57", "MONOCHROME2, point transform", 16, 12, False),
        [("dcmcjpeg pt", ["dcmcjpeg", "+el", "+sv", 4, "+pt", 2])],
    )
    values = colour()
    dataset(values, 8, 8, False, "RGB").save_as(native("jpegll-rgb"), enforce_file_format=True)
    commands = [("dcmcjpeg e1", ["dcmcjpeg", "+e1"]), ("gdcmconv", ["gdcmconv", "--jpeg"])]
    tools("jpegll-rgb", values, cell(JPEG + "70", "RGB", 8, 8, False), commands, "rgb")
    tools("jpegll-rgb", values, cell(JPEG + "57", "RGB", 8, 8, False), [("dcmcjpeg el", ["dcmcjpeg", "+el"])], "rgb")


def jpeg_lossy():
    values = mono(8, False)
    dataset(values, 8, 8, False).save_as(native("jpeg-u8"), enforce_file_format=True)
    where = cell(JPEG + "50", "MONOCHROME2", 8, 8, False)
    tools("jpeg-u8", values, where, [("dcmcjpeg eb", ["dcmcjpeg", "+eb"]), ("gdcmconv", ["gdcmconv", "--jpeg", "--lossy"])], decoder=by_dcmdjpeg)
    for letter, uid in (("ee", "51"), ("es", "53"), ("ep", "55")):
        where = cell(JPEG + uid, "MONOCHROME2", 8, 8, False)
        tools("jpeg-u8", values, where, [(f"dcmcjpeg {letter}", ["dcmcjpeg", f"+{letter}"])], decoder=by_dcmdjpeg)
    values = mono(12, False)
    dataset(values, 16, 12, False).save_as(native("jpeg-u12"), enforce_file_format=True)
    for letter, uid in (("ee", "51"), ("es", "53"), ("ep", "55")):
        where = cell(JPEG + uid, "MONOCHROME2", 16, 12, False)
        tools("jpeg-u12", values, where, [(f"dcmcjpeg {letter}", ["dcmcjpeg", f"+{letter}", "+bt"])], decoder=by_dcmdjpeg)
    stream = imagecodecs.jpeg_encode(values.astype(np.uint16), level=90, bitspersample=12)
    expected = imagecodecs.jpeg_decode(stream, bitspersample=12)
    where = cell(JPEG + "51", "MONOCHROME2", 16, 12, False)
    put("jpeg-u12-imagecodecs", encoded(stream, values, 16, 12, False, JPEG + "51"), expected, "imagecodecs", where)
    # Colour: Pillow decodes to RGB with the same fixed-point arithmetic, so nothing may differ.
    values = colour().astype(np.uint8)
    for sub, photometric in ((0, "YBR_FULL"), (1, "YBR_FULL_422"), (2, "YBR_FULL_422")):
        for progressive, uid in ((False, "50"), (True, "55")):
            stream = io.BytesIO()
            Image.fromarray(values).save(stream, "JPEG", quality=88, subsampling=sub, progressive=progressive)
            expected = np.asarray(Image.open(io.BytesIO(stream.getvalue())).convert("RGB"))
            ds = encoded(stream.getvalue(), values, 8, 8, False, JPEG + uid, photometric)
            # Pillow writes a JFIF marker: YCbCr, whatever the attribute says.
            for said in (photometric, "RGB"):
                ds.PhotometricInterpretation = said
                name = f"jpeg-colour-{sub}-{uid}-{said}"
                put(name, ds, expected, "Pillow", cell(JPEG + uid, f"{said} (YCbCr inside)" if said == "RGB" else said, 8, 8, False), "rgb")
    dataset(values, 8, 8, False, "RGB").save_as(native("jpeg-colour"), enforce_file_format=True)
    commands = [("dcmcjpeg s2", ["dcmcjpeg", "+eb", "+s2"]), ("dcmcjpeg s4", ["dcmcjpeg", "+eb", "+s4"])]
    # Without its own colour conversion, dcmdjpeg upsamples as we do and converts with the same tables; 1 for the last place.
    for n, photometric in enumerate(("YBR_FULL_422", "YBR_FULL")):
        tools("jpeg-colour", values, cell(JPEG + "50", photometric, 8, 8, False), commands[n : n + 1], "rgb", 1, by_dcmdjpeg)
    tools("jpeg-colour", values, cell(JPEG + "50", "RGB", 8, 8, False), [("dcmcjpeg cr", ["dcmcjpeg", "+eb", "+cr"])], "rgb", 0, by_dcmdjpeg)


def jpeg_ls():
    for short, allocated, stored, signed in FORMATS + [("u10", 16, 10, False)]:
        values = mono(stored, signed)
        name = f"jpegls-{short}"
        dataset(values, allocated, stored, signed).save_as(native(name), enforce_file_format=True)
        where = cell(JPEG + "80", "MONOCHROME2", allocated, stored, signed)
        tools(name, values, where, [("dcmcjpls", ["dcmcjpls", "+el"]), ("gdcmconv", ["gdcmconv", "--jpegls"])])
        commands = [("dcmcjpls t", ["dcmcjpls", "+el", "+pc", "+t1", 5, "+t2", 12, "+t3", 40, "+rs", 31])]
        if not signed and stored <= 12:  # an assertion of DCMTK's fails for others
            tools(name, values, where, commands)
        ds = dataset(values, allocated, stored, signed)
        ds.compress(JPEG + "80", encoding_plugin="pyjpegls", generate_instance_uid=False)
        put(f"{name}-pyjpegls", ds, values, "pyjpegls", where)
        # Near-lossless decoding is exact arithmetic: every decoder gives the same values. Signed ones wrap around at the ends.
        if not signed:
            for near in (1, 2, 7):
                where = cell(JPEG + "81", "MONOCHROME2", allocated, stored, signed)
                command = ["dcmcjpls", "+en", "+md", near]
                tools(name, values, where, [(f"dcmcjpls near{near}", command)], decoder=by_pydicom)
    values = colour()
    dataset(values, 8, 8, False, "RGB").save_as(native("jpegls-rgb"), enforce_file_format=True)
    for letter in ("il", "is", "in"):
        where = cell(JPEG + "80", f"RGB, interleaved +{letter}", 8, 8, False)
        tools("jpegls-rgb", values, where, [(f"dcmcjpls {letter}", ["dcmcjpls", "+el", f"+{letter}"])], "rgb")
        where = cell(JPEG + "81", f"RGB, interleaved +{letter}", 8, 8, False)
        command = ["dcmcjpls", "+en", "+md", 3, f"+{letter}"]
        tools("jpegls-rgb", values, where, [(f"dcmcjpls near {letter}", command)], "rgb", 0, by_pydicom_rgb)


def jpeg_2000():
    for short, allocated, stored, signed in FORMATS + [("u10", 16, 10, False)]:
        values = mono(stored, signed)
        name = f"j2k-{short}"
        ds = dataset(values, allocated, stored, signed)
        ds.save_as(native(name), enforce_file_format=True)
        where = cell(JPEG + "90", "MONOCHROME2", allocated, stored, signed)
        ds.compress(JPEG + "90", encoding_plugin="pylibjpeg", generate_instance_uid=False)
        put(f"{name}-openjpeg", ds, values, "pylibjpeg-openjpeg", where)
        agreed(OUT / f"{name}-openjpeg.dcm", values)
        commands = [("gdcmconv", ["gdcmconv", "--j2k"]), ("gdcmconv tiles", ["gdcmconv", "--j2k", "--tile", "32,32"])]
        tools(name, values, where, commands)
        # The irreversible transform is in float: other orders of summation move a value over a rounding edge here and there, and
        # OpenJPEG's 2/K is 1.625732422, not 1.625786132 (ISO 15444-1 table F.4): 3e-5 of the high frequencies of 16 bits are one more.
        ds = dataset(values, allocated, stored, signed)
        ds.compress(JPEG + "91", encoding_plugin="pylibjpeg", generate_instance_uid=False, j2k_cr=[8])
        path = OUT / f"{name}-lossy.dcm"
        ds.save_as(path, enforce_file_format=True)
        note(path.stem, path, by_pydicom(path), "pylibjpeg-openjpeg", cell(JPEG + "91", "MONOCHROME2", allocated, stored, signed), bound=1 + (stored == 16))
    values = colour().astype(np.uint8)
    for mct, photometric in ((True, "YBR_RCT"), (False, "RGB")):
        for uid, reversible in (("90", True), ("91", False)):
            options = dict(codecformat="J2K", reversible=reversible, mct=mct, colorspace="SRGB")
            stream = imagecodecs.jpeg2k_encode(values, level=0 if reversible else 40, **options)
            said = "YBR_ICT" if mct and not reversible else photometric
            expected = imagecodecs.jpeg2k_decode(stream)
            if reversible:
                assert np.array_equal(expected, values)
            ds = encoded(stream, values, 8, 8, False, JPEG + uid, said)
            put(f"j2k-{said}-{uid}", ds, expected, "imagecodecs (OpenJPEG)", cell(JPEG + uid, said, 8, 8, False), "rgb", 0 if reversible else 1)
    # Other numbers of wavelet levels.
    for n, resolutions in enumerate((1, 3, 6)):
        values = mono(12, False, 100, 131)
        stream = imagecodecs.jpeg2k_encode(values.astype(np.uint16), level=0, bitspersample=12, codecformat="J2K", resolutions=resolutions)
        ds = encoded(stream, values, 16, 12, False, JPEG + "90")
        put(f"j2k-layout-{n}", ds, values, "imagecodecs (OpenJPEG)", cell(JPEG + "90", "MONOCHROME2", 16, 12, False))


def htj2k():
    for short, allocated, stored, signed in FORMATS:
        values = mono(stored, signed)
        stream = imagecodecs.htj2k_encode(values.astype(dtype(allocated, signed)), reversible=True)
        assert np.array_equal(imagecodecs.htj2k_decode(stream), values)
        for uid in ("201", "202"):
            # .202 asks for RPCL progression, which matters to servers and not to decoders.
            ds = encoded(stream, values, allocated, stored, signed, JPEG + uid)
            put(f"htj2k-{short}-{uid}", ds, values, "imagecodecs (OpenJPH)", cell(JPEG + uid, "MONOCHROME2", allocated, stored, signed))
    for short, allocated, stored, signed in FORMATS[:2]:
        values = mono(stored, signed)
        stream = imagecodecs.htj2k_encode(values.astype(dtype(allocated, signed)), level=0.002, reversible=False)
        ds = encoded(stream, values, allocated, stored, signed, JPEG + "203")
        # The stream says 16 bits where 12 are stored, and overshoots: what is beyond them must not come round the other end.
        expected = np.minimum(imagecodecs.htj2k_decode(stream), 2**stored - 1)
        put(f"htj2k-{short}-203", ds, expected, "imagecodecs (OpenJPH)", cell(JPEG + "203", "MONOCHROME2", allocated, stored, signed), bound=1)
    values = colour().astype(np.uint8)
    stream = imagecodecs.htj2k_encode(values, reversible=True, rgb=True)
    ds = encoded(stream, values, 8, 8, False, JPEG + "201", "YBR_RCT")
    put("htj2k-rgb", ds, values, "imagecodecs (OpenJPH)", cell(JPEG + "201", "YBR_RCT", 8, 8, False), "rgb")


def jpeg_xl():
    for short, allocated, stored, signed in FORMATS + [("u10", 16, 10, False)]:
        if signed:
            continue
        values = mono(stored, signed)
        data = values.astype(dtype(allocated, signed))
        stream = imagecodecs.jpegxl_encode(data, lossless=True, bitspersample=stored)
        for uid in ("110", "112"):
            ds = encoded(stream, values, allocated, stored, signed, JPEG + uid)
            put(f"jxl-{short}-{uid}", ds, values, "imagecodecs (libjxl)", cell(JPEG + uid, "MONOCHROME2", allocated, stored, signed))
    values = colour().astype(np.uint8)
    stream = imagecodecs.jpegxl_encode(values, lossless=True)
    ds = encoded(stream, values, 8, 8, False, JPEG + "110", "RGB")
    put("jxl-rgb", ds, values, "imagecodecs (libjxl)", cell(JPEG + "110", "RGB", 8, 8, False), "rgb")
    stream = imagecodecs.jpegxl_encode(values, distance=1.0)
    ds = encoded(stream, values, 8, 8, False, JPEG + "112", "XYB")
    # Lossy JPEG XL is defined within tolerances of float arithmetic (ISO 18181-3).
    put("jxl-lossy-rgb", ds, imagecodecs.jpegxl_decode(stream), "imagecodecs (libjxl)", cell(JPEG + "112", "XYB", 8, 8, False), "rgb", 2)
    values = mono(8, False).astype(np.uint8)
    stream = imagecodecs.jpegxl_encode(values, distance=1.0)
    ds = encoded(stream, values, 8, 8, False, JPEG + "112")
    put("jxl-lossy-u8", ds, imagecodecs.jpegxl_decode(stream), "imagecodecs (libjxl)", cell(JPEG + "112", "MONOCHROME2", 8, 8, False), bound=2)


def native_colour():
    values = colour().astype(np.uint8)
    for ts in ("implicit", "explicit", "deflated", "encapsulated", "deflated frame"):
        for planar in (0, 1):
            ds = dataset(values, 8, 8, False, "RGB", planar)
            ds.file_meta.TransferSyntaxUID = TS[ts]
            if ts == "encapsulated":
                ds.PixelData = encapsulate([ds.PixelData])
            if ts == "deflated frame":
                deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
                ds.PixelData = encapsulate([deflater.compress(ds.PixelData) + deflater.flush()])
            put(f"rgb-{ts.replace(' ', '-')}-{planar}", ds, values, "pydicom", cell(TS[ts], f"RGB, planar {planar}", 8, 8, False), "rgb")
    wide = colour(bits=16)
    for planar in (0, 1):
        put(f"rgb16-{planar}", dataset(wide, 16, 16, False, "RGB", planar), wide >> 8, "pydicom", cell(TS["explicit"], f"RGB, planar {planar}", 16, 16, False), "rgb")
    ybr = convert_color_space(values, "RGB", "YBR_FULL")
    for planar in (0, 1):
        ds = dataset(ybr, 8, 8, False, "YBR_FULL", planar)
        # Fixed-point against float arithmetic: the last place may round otherwise.
        put(f"ybr-{planar}", ds, convert_color_space(ybr, "YBR_FULL", "RGB"), "pydicom", cell(TS["explicit"], f"YBR_FULL, planar {planar}", 8, 8, False), "rgb", 1)
    # 4:2:2: Y Y Cb Cr.
    for photometric in ("YBR_FULL_422", "YBR_PARTIAL_422"):
        half = ybr[:, ::2, 1:]
        pairs = np.concatenate([ybr[:, ::2, :1], ybr[:, 1::2, :1], half], -1)
        ds = dataset(ybr, 8, 8, False, photometric)
        ds.PixelData = pairs.tobytes()
        full = np.stack([ybr[..., 0], half[..., 0].repeat(2, 1), half[..., 1].repeat(2, 1)], -1)
        if photometric == "YBR_FULL_422":
            expected = convert_color_space(full, "YBR_FULL", "RGB")
        else:
            # PS3.3 C.7.6.3.1.2: the forward matrix, inverted.
            matrix = np.array([[0.2568, 0.5041, 0.0979], [-0.1482, -0.2910, 0.4392], [0.4392, -0.3678, -0.0714]])
            inverse = np.linalg.inv(matrix)
            expected = np.clip(np.round((full.astype(float) - [16, 128, 128]) @ inverse.T), 0, 255).astype(np.uint8)
        put(photometric.lower(), ds, expected, "pydicom", cell(TS["explicit"], photometric, 8, 8, False), "rgb", 1)
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        grey = mono(8, False)
        shown = 255 - grey if photometric == "MONOCHROME1" else grey
        put(photometric.lower(), dataset(grey, 8, 8, False, photometric), np.repeat(shown[..., None], 3, -1), "pydicom", cell(TS["explicit"], photometric, 8, 8, False), "rgb")


def palettes():
    index = mono(8, False)
    for bits, entries, first in ((16, 256, 0), (8, 256, 0), (16, 200, 20)):
        ds = dataset(index, 8, 8, False, "PALETTE COLOR")
        for n, name in enumerate(("Red", "Green", "Blue")):
            setattr(ds, f"{name}PaletteColorLookupTableDescriptor", [entries, first, bits])
            lut = RNG.integers(0, 2**bits, entries).astype("<u2" if bits == 16 else "u1")
            setattr(ds, f"{name}PaletteColorLookupTableData", lut.tobytes())
        expected = apply_color_lut(index.astype(np.uint8), ds)
        put(f"palette-{bits}-{entries}", ds, expected >> (bits - 8), "pydicom", cell(TS["explicit"], f"PALETTE COLOR of {bits} bits", 8, 8, False), "rgb")
    # Segments: 4 discrete values, a line of 100 to 60000, one of 150 to 0, the first again.
    ds = dataset(index, 8, 8, False, "PALETTE COLOR")
    for n, name in enumerate(("Red", "Green", "Blue")):
        setattr(ds, f"{name}PaletteColorLookupTableDescriptor", [258, 0, 16])
        segments = [0, 4, 10, 20000 + n, 30, 40000, 1, 100, 60000, 1, 150, 0, 2, 1, 0, 0]
        setattr(ds, f"Segmented{name}PaletteColorLookupTableData", np.array(segments, "<u2").tobytes())
    # A line's values are rounded by us and cut off by pydicom; 1 in the upper byte at most.
    expected = apply_color_lut(index.astype(np.uint8), ds) >> 8
    put("palette-segmented", ds, expected, "pydicom", cell(TS["explicit"], "PALETTE COLOR, segmented", 8, 8, False), "rgb", 1)
    ds = dataset(index, 8, 8, False, "PALETTE COLOR")
    for name in ("Red", "Green", "Blue"):
        setattr(ds, f"{name}PaletteColorLookupTableDescriptor", [256, 0, 16])
        setattr(ds, f"{name}PaletteColorLookupTableData", (np.arange(256) * 257).astype("<u2").tobytes())
    ds.compress(TS["rle"], encoding_plugin="pydicom", generate_instance_uid=False)
    put("palette-rle", ds, np.repeat(index[..., None], 3, -1), "pydicom", cell(TS["rle"], "PALETTE COLOR", 8, 8, False), "rgb")


def real(files):
    """Other people's files, as pydicom with its decoders reads them."""
    for n, path in enumerate(map(pathlib.Path, files)):
        ds = opened(path)
        uid = str(ds.file_meta.TransferSyntaxUID)
        where = cell(uid, ds.PhotometricInterpretation, ds.BitsAllocated, ds.BitsStored, bool(ds.PixelRepresentation))
        dct = uid in (JPEG + "50", JPEG + "51", JPEG + "53", JPEG + "55")
        # Decoders of lossy streams round otherwise than ours: pylibjpeg's JPEG by one, JPEG 2000 in float by one.
        if ds.SamplesPerPixel == 1 and ds.PhotometricInterpretation != "PALETTE COLOR":
            bound = 1 if dct or uid in (JPEG + "91", JPEG + "203") else 0
            values = by_dcmdjpeg_or_pydicom(path, dct, n)
            frames = values if int(ds.get("NumberOfFrames", 1) or 1) > 1 else values[None]
            for frame, values in enumerate(frames[:1]):
                note(f"real-{n}-{path.stem}", path, values, "pydicom", where, "stored", bound, frame)
        else:
            rgb = pixel_array(ds, raw=False)
            if ds.PhotometricInterpretation == "PALETTE COLOR":
                rgb = apply_color_lut(rgb, ds)
                rgb = rgb >> 8 if rgb.dtype == np.uint16 else rgb
            frames = rgb if int(ds.get("NumberOfFrames", 1) or 1) > 1 else rgb[None]
            for frame in sorted({0, len(frames) - 1}):
                note(f"real-{n}-{path.stem}-{frame}", path, frames[frame], "pydicom", where, "rgb", 2 if dct else 1, frame)


def by_dcmdjpeg_or_pydicom(path, dct, n):
    if not dct:
        return by_pydicom(path)
    plain = OUT / f"real-{n}.plain.dcm"
    run("dcmdjpeg", path, plain)
    return pixel_array(plain, raw=True).astype(np.int64)


what, OUT = sys.argv[1], pathlib.Path(sys.argv[2])
if what == "real":
    real(sys.argv[3:])
else:
    for make in (uncompressed, rle, jpeg_lossless, jpeg_lossy, jpeg_ls, jpeg_2000, htj2k, jpeg_xl, native_colour, palettes):
        make()
(OUT / "cases.json").write_text(json.dumps(cases, indent=1))
