//! Arbitrary bytes as the compressed pixel data of a small image: the first bytes choose the codec and the pixel description.

#![no_main]

use libfuzzer_sys::fuzz_target;

mod shared;

const SYNTAXES: [&str; 13] = [
    "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.51",
    "1.2.840.10008.1.2.4.55",
    "1.2.840.10008.1.2.4.57",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.81",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.91",
    "1.2.840.10008.1.2.4.201",
    "1.2.840.10008.1.2.4.110",
    "1.2.840.10008.1.2.8.1",
];

fn element(out: &mut Vec<u8>, tag: (u16, u16), vr: &[u8; 2], value: &[u8]) {
    out.extend(tag.0.to_le_bytes());
    out.extend(tag.1.to_le_bytes());
    out.extend(vr);
    out.extend((value.len().next_multiple_of(2) as u16).to_le_bytes());
    out.extend(value);
    if value.len() % 2 == 1 {
        out.push(0);
    }
}

fuzz_target!(|data: &[u8]| {
    let [syntax, rows, columns, format, stream @ ..] = data else { return };
    let syntax = SYNTAXES[usize::from(*syntax) % SYNTAXES.len()];
    let (samples, photometric): (u16, &[u8]) = [(1, &b"MONOCHROME2"[..]), (3, b"RGB"), (3, b"YBR_FULL"), (3, b"YBR_RCT")][usize::from(format >> 4 & 3)];
    let (allocated, stored): (u16, u16) = [(8, 8), (16, 12), (16, 16), (32, 32)][usize::from(format & 3)];
    let signed = u16::from(format >> 2 & 1);
    let mut out = vec![0; 128];
    out.extend(b"DICM");
    element(&mut out, (2, 0x10), b"UI", syntax.as_bytes());
    element(&mut out, (8, 0x16), b"UI", b"1.2.840.10008.5.1.4.1.1.7");
    element(&mut out, (8, 0x18), b"UI", b"1.2.3");
    element(&mut out, (8, 0x60), b"CS", b"OT");
    element(&mut out, (0x20, 0xD), b"UI", b"1.2.4");
    element(&mut out, (0x20, 0xE), b"UI", b"1.2.5");
    element(&mut out, (0x28, 2), b"US", &samples.to_le_bytes());
    element(&mut out, (0x28, 4), b"CS", photometric);
    element(&mut out, (0x28, 0x10), b"US", &(u16::from(*rows) + 1).to_le_bytes());
    element(&mut out, (0x28, 0x11), b"US", &(u16::from(*columns) + 1).to_le_bytes());
    element(&mut out, (0x28, 0x100), b"US", &allocated.to_le_bytes());
    element(&mut out, (0x28, 0x101), b"US", &stored.to_le_bytes());
    element(&mut out, (0x28, 0x102), b"US", &(stored - 1).to_le_bytes());
    element(&mut out, (0x28, 0x103), b"US", &signed.to_le_bytes());
    out.extend([0xE0, 0x7F, 0x10, 0, b'O', b'B', 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFE, 0xFF, 0, 0xE0, 0, 0, 0, 0, 0xFE, 0xFF, 0, 0xE0]);
    out.extend((stream.len() as u32).to_le_bytes());
    out.extend(stream);
    out.extend([0xFE, 0xFF, 0xDD, 0xE0, 0, 0, 0, 0]);
    shared::read(&shared::file("compressed", &out));
});
