//! NRRD headers ("Definition of NRRD File Format", teem.sourceforge.net/nrrd/format.html).

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use super::source::Source;
use super::{Coding, Data, Element, Format, LengthUnit, MAX_LINE_BYTES, Opened, ResearchError, Skip, Transform, VolumeHeader};
use super::{check_size, grid_of};
use crate::geometry::Affine;
use crate::volume::Rescale;

/// The longest header. Segmentations describe each segment in it.
const MAX_HEADER_BYTES: usize = 8 << 20;

/// Opens a file whose first four bytes, `NRRD`, are read.
pub(super) fn open(mut source: Source) -> Result<Opened, ResearchError> {
    let path = source.path.clone();
    if source.is_gzip() {
        return Err(ResearchError::unsupported("a gzipped NRRD file is", "unpack it, or write it with `encoding: gzip`", &path));
    }
    let version = source.line(MAX_LINE_BYTES)?.unwrap_or_default();
    if !matches!(version.as_slice(), [b'0', b'0', b'0', b'1'..=b'5']) {
        return Err(ResearchError::header("not a NRRD version of 1 to 5", &path));
    }
    let fields = Fields::read(&mut source)?;
    let mut notes = Vec::new();
    let element = element_of(&fields)?;
    let axes = Axes::of(&fields)?;
    check_size(axes.dims, element, &path)?;
    let (lps_from_voxel, unit) = place(&fields, &axes, &mut notes)?;
    let grid = grid_of(axes.dims, lps_from_voxel, &path)?;
    if ["old min", "old max"].iter().any(|name| fields.get(name).is_some()) {
        notes.push("`old min` and `old max` were ignored; the values are those stored".into());
    }
    let rescale = Rescale { slope: 1.0, intercept: 0.0 };
    let header = VolumeHeader { format: Format::Nrrd, element, grid, unit, rescale, transform: Transform::SpaceDirections, notes };
    Ok(Opened { header, source, data: data_of(&fields, element)? })
}

/// The fields of a header by their lower-case names. Key and value pairs (`:=`) and comments are left out.
struct Fields {
    values: BTreeMap<&'static str, String>,
    path: PathBuf,
}

/// Names of fields, as the definition has them, with those that mean the same.
const NAMES: [(&str, &str); 19] = [
    ("dimension", "dimension"),
    ("type", "type"),
    ("sizes", "sizes"),
    ("encoding", "encoding"),
    ("endian", "endian"),
    ("space", "space"),
    ("space dimension", "space dimension"),
    ("space directions", "space directions"),
    ("space origin", "space origin"),
    ("space units", "space units"),
    ("kinds", "kinds"),
    ("data file", "data file"),
    ("datafile", "data file"),
    ("line skip", "line skip"),
    ("lineskip", "line skip"),
    ("byte skip", "byte skip"),
    ("byteskip", "byte skip"),
    ("old min", "old min"),
    ("old max", "old max"),
];

impl Fields {
    fn read(source: &mut Source) -> Result<Self, ResearchError> {
        let path = source.path.clone();
        let mut values = BTreeMap::new();
        let mut bytes = 0;
        while let Some(line) = source.line(MAX_LINE_BYTES)? {
            bytes += line.len() + 1;
            if bytes > MAX_HEADER_BYTES {
                return Err(ResearchError::header(format!("more than {MAX_HEADER_BYTES} bytes of it"), &path));
            }
            let line = String::from_utf8_lossy(&line);
            let line = line.trim();
            if line.is_empty() {
                break;
            }
            let Some((name, value)) = line.split_once(':').filter(|(_, value)| !line.starts_with('#') && !value.starts_with('=')) else {
                // A comment, a key with its value, or, where it is neither, what every reader passes over.
                continue;
            };
            let name = name.trim().to_ascii_lowercase();
            let Some((_, name)) = NAMES.iter().find(|(known, _)| *known == name) else { continue };
            if values.insert(*name, value.trim().to_owned()).is_some() {
                return Err(ResearchError::header(format!("`{name}` stands there twice"), &path));
            }
        }
        Ok(Self { values, path })
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    fn need(&self, name: &str) -> Result<&str, ResearchError> {
        self.get(name).ok_or_else(|| self.wrong(format!("no `{name}`")))
    }

    fn wrong(&self, what: impl Into<String>) -> ResearchError {
        ResearchError::header(what, &self.path)
    }

    fn unsupported(&self, what: impl Into<String>, remedy: &'static str) -> ResearchError {
        ResearchError::unsupported(what, remedy, &self.path)
    }
}

fn element_of(fields: &Fields) -> Result<Element, ResearchError> {
    let name = fields.need("type")?.split_whitespace().collect::<Vec<_>>().join(" ").to_ascii_lowercase();
    Ok(match name.as_str() {
        "signed char" | "int8" | "int8_t" => Element::I8,
        "uchar" | "unsigned char" | "uint8" | "uint8_t" => Element::U8,
        "short" | "short int" | "signed short" | "signed short int" | "int16" | "int16_t" => Element::I16,
        "ushort" | "unsigned short" | "unsigned short int" | "uint16" | "uint16_t" => Element::U16,
        "int" | "signed int" | "int32" | "int32_t" => Element::I32,
        "uint" | "unsigned int" | "uint32" | "uint32_t" => Element::U32,
        "longlong" | "long long" | "long long int" | "signed long long" | "signed long long int" | "int64" | "int64_t" => Element::I64,
        "ulonglong" | "unsigned long long" | "unsigned long long int" | "uint64" | "uint64_t" => Element::U64,
        "float" => Element::F32,
        "double" => Element::F64,
        "block" => return Err(fields.unsupported("blocks of bytes are", "give a volume of numbers")),
        _ => return Err(fields.wrong("a `type` that the format does not have")),
    })
}

/// The axes that span space, and their directions in the file's space and unit.
struct Axes {
    dims: [u32; 3],
    directions: [[f64; 3]; 3],
}

impl Axes {
    fn of(fields: &Fields) -> Result<Self, ResearchError> {
        let rank: usize = fields.need("dimension")?.parse().map_err(|_| fields.wrong("`dimension` is no number"))?;
        if !(1..=16).contains(&rank) {
            return Err(fields.wrong(format!("{rank} dimensions, of 1 to 16")));
        }
        let sizes: Option<Vec<u64>> = fields.need("sizes")?.split_whitespace().map(|v| v.parse().ok().filter(|n| *n > 0)).collect();
        let sizes = sizes.filter(|s| s.len() == rank).ok_or_else(|| fields.wrong(format!("`sizes` are not {rank} numbers above 0")))?;
        let Some(directions) = fields.get("space directions") else {
            let what = "there are no `space directions`";
            return Err(ResearchError::NoOrientation { what, path: fields.path.clone() });
        };
        let directions = vectors(directions)
            .filter(|d| d.len() == rank)
            .ok_or_else(|| fields.wrong(format!("`space directions` are not {rank} vectors of 3 numbers or `none`")))?;
        let kinds: Vec<&str> = fields.get("kinds").map(|k| k.split_whitespace().collect()).unwrap_or_default();
        if !kinds.is_empty() && kinds.len() != rank {
            return Err(fields.wrong(format!("{} `kinds` for {rank} dimensions", kinds.len())));
        }
        let mut dims = Vec::new();
        let mut spanned = Vec::new();
        for (axis, (&size, direction)) in sizes.iter().zip(directions).enumerate() {
            let kind = kinds.get(axis).map(|k| k.to_ascii_lowercase());
            let domain = kind.as_deref().is_none_or(|k| matches!(k, "domain" | "space" | "???" | "none"));
            match direction {
                Some(direction) if domain => {
                    dims.push(u32::try_from(size).map_err(|_| fields.wrong(format!("an axis of {size} samples")))?);
                    spanned.push(direction);
                }
                None if size == 1 => {}
                None if matches!(kind.as_deref(), Some("time" | "list")) => {
                    return Err(ResearchError::Volumes { count: size, path: fields.path.clone() });
                }
                _ => {
                    let known = ["vector", "covariant-vector", "normal", "complex", "point", "rgb-color", "rgba-color", "hsv-color"];
                    let kind = kind.and_then(|kind| known.into_iter().find(|k| *k == kind)).unwrap_or("without a direction");
                    let what = format!("{size} values at each voxel (an axis of kind {kind}) are");
                    return Err(fields.unsupported(what, "give a volume of single values"));
                }
            }
        }
        let count = dims.len();
        let (Ok(dims), Ok(directions)) = (dims.try_into(), spanned.try_into()) else {
            return Err(fields.unsupported(format!("{count} axes in space are"), "give a volume of 3 axes"));
        };
        Ok(Self { dims, directions })
    }
}

/// `(1,0,0) none (0,0,1)` as vectors; `None` where it is no such text.
fn vectors(text: &str) -> Option<Vec<Option<[f64; 3]>>> {
    let mut rest = text.trim();
    let mut vectors = Vec::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("none") {
            vectors.push(None);
            rest = after.trim_start();
            continue;
        }
        let (inside, after) = rest.strip_prefix('(')?.split_once(')')?;
        let numbers: Option<Vec<f64>> = inside.split(',').map(|v| v.trim().parse().ok().filter(|n: &f64| n.is_finite())).collect();
        vectors.push(Some(numbers?.try_into().ok()?));
        rest = after.trim_start();
    }
    Some(vectors)
}

fn place(fields: &Fields, axes: &Axes, notes: &mut Vec<String>) -> Result<(Affine, LengthUnit), ResearchError> {
    let no_orientation = |what| ResearchError::NoOrientation { what, path: fields.path.clone() };
    let space = fields.get("space").ok_or_else(|| no_orientation("there is no `space`"))?.to_ascii_lowercase();
    let to_lps = match space.as_str() {
        "left-posterior-superior" | "lps" => [1.0, 1.0, 1.0],
        "right-anterior-superior" | "ras" => [-1.0, -1.0, 1.0],
        "left-anterior-superior" | "las" => [1.0, -1.0, 1.0],
        "scanner-xyz" | "scanner-xyz-time" | "3d-right-handed" | "3d-left-handed" | "3d-right-handed-time" | "3d-left-handed-time" => {
            return Err(no_orientation("`space` is that of a scanner or of nothing, not of a patient"));
        }
        "left-posterior-superior-time" | "lpst" | "right-anterior-superior-time" | "rast" | "left-anterior-superior-time" | "last" => {
            return Err(fields.unsupported("a space with time is", "give one volume"));
        }
        _ => return Err(fields.wrong("a `space` that the format does not have")),
    };
    let unit = unit_of(fields)?;
    if unit == LengthUnit::Unknown {
        notes.push("the file names no unit of length; millimetres were taken".into());
    }
    let origin = match fields.get("space origin") {
        Some(text) => {
            let [Some(origin)] = vectors(text).unwrap_or_default()[..] else {
                return Err(fields.wrong("`space origin` is no vector of 3 numbers"));
            };
            origin
        }
        None => {
            notes.push("the file has no `space origin`; the first voxel was put at 0".into());
            [0.0; 3]
        }
    };
    let lps = |v: [f64; 3]| std::array::from_fn(|n| v[n] * to_lps[n] * unit.mm());
    let [x, y, z] = axes.directions.map(lps);
    Ok((Affine::from_columns(x, y, z, lps(origin)), unit))
}

fn unit_of(fields: &Fields) -> Result<LengthUnit, ResearchError> {
    let Some(text) = fields.get("space units") else { return Ok(LengthUnit::Unknown) };
    let units: Vec<&str> = text.split('"').map(str::trim).filter(|u| !u.is_empty()).collect();
    let mut found = Vec::new();
    for unit in &units {
        found.push(match *unit {
            "mm" | "millimeter" | "millimetre" => LengthUnit::Millimetre,
            "m" | "meter" | "metre" => LengthUnit::Metre,
            "um" | "\u{b5}m" | "\u{3bc}m" | "micron" | "micrometer" | "micrometre" => LengthUnit::Micrometre,
            "???" | "none" => LengthUnit::Unknown,
            _ => return Err(fields.unsupported("a `space units` other than m, mm and um is", "write the file in mm")),
        });
    }
    match found[..] {
        [] => Ok(LengthUnit::Unknown),
        [a, b, c] if a == b && b == c => Ok(a),
        _ => Err(fields.wrong("`space units` are not one unit for 3 axes")),
    }
}

fn data_of(fields: &Fields, element: Element) -> Result<Data, ResearchError> {
    let (text, gzip) = match fields.need("encoding")?.to_ascii_lowercase().as_str() {
        "raw" => (false, false),
        "txt" | "text" | "ascii" => (true, false),
        "gz" | "gzip" => (false, true),
        "hex" => return Err(fields.unsupported("`encoding: hex` is", "write the file with `encoding: gzip`")),
        "bz2" | "bzip2" => return Err(fields.unsupported("`encoding: bzip2` is", "write the file with `encoding: gzip`")),
        _ => return Err(fields.wrong("an `encoding` that the format does not have")),
    };
    let big_endian = match fields.get("endian").map(str::to_ascii_lowercase).as_deref() {
        Some("little") => false,
        Some("big") => true,
        None if text || element.bytes() == 1 => false,
        None => return Err(fields.wrong("no `endian`")),
        Some(_) => return Err(fields.wrong("an `endian` other than little and big")),
    };
    let number = |name| fields.get(name).map_or(Ok(0), |v| v.parse::<i64>().map_err(|_| fields.wrong(format!("`{name}` is no number"))));
    let skip_lines = u64::try_from(number("line skip")?).map_err(|_| fields.wrong("`line skip` is below 0"))?;
    let skip_bytes = match number("byte skip")? {
        -1 if !text && !gzip => Skip::ToTheEnd,
        n => Skip::Bytes(u64::try_from(n).map_err(|_| fields.wrong(format!("`byte skip` of {n} with this encoding")))?),
    };
    let file = fields.get("data file").map(|name| beside(fields, name)).transpose()?;
    let coding = if text { Coding::Text } else { Coding::Binary { big_endian } };
    Ok(Data { coding, file, gzip, skip_lines, skip_bytes })
}

/// The data's file, which must lie in the header's folder: a header may come from anywhere and must not reach through the disk.
fn beside(fields: &Fields, name: &str) -> Result<PathBuf, ResearchError> {
    let several = name.split_whitespace().next() == Some("LIST") || name.contains('%');
    if several {
        return Err(fields.unsupported("data in several files is", "write the volume as one file"));
    }
    let mut components = Path::new(name).components().filter(|c| *c != Component::CurDir);
    match (components.next(), components.next()) {
        (Some(Component::Normal(file)), None) if !name.contains(['\\', '\0']) => Ok(fields.path.with_file_name(file)),
        _ => Err(fields.unsupported("data in another folder than its header is", "put both into one folder")),
    }
}
