//! Findings become objects and files, in the [`Form`]s that a site asks for. Touches no GPU and no model.
//!
//! Invariants: the same findings give the same bytes; the source's patient and study values are never changed; segment numbers
//! come from `segments.rs` alone; a result folder holds all of a result or is not there.

mod bits;
mod canvas;
mod capture;
mod check;
mod colour;
mod content;
mod csv;
mod envelope;
mod error;
mod fhir;
mod folder;
mod form;
mod heat;
mod html;
mod json;
mod key;
mod key_objects;
mod keyhole;
mod map;
mod multiframe;
mod outline;
mod pdf;
mod picture;
mod placed;
mod plane;
mod presentation;
mod raster;
mod rendered;
mod rtstruct;
mod seg;
mod segments;
pub mod show;
mod sr;
mod typeface;
mod voi;
mod window;
mod wording;
#[cfg(test)]
mod read_back;
#[cfg(test)]
mod tests;

use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

pub(crate) use self::csv::safe as spreadsheet_text;
pub use error::ResultsError;
pub use form::{Form, Forms, UnknownForm};
pub(crate) use html::{Markup, PAGE_STYLE, base64, document, escaped};
pub use json::SCHEMA_VERSION;
pub use picture::{picture, thumbnail};
pub use rendered::{RenderError, rendered, to_jpeg, to_png};
pub use seg::segmentation;
pub use window::Window;

use crate::codes::sop_class;
use crate::dataset::{Writable, WriteError, write_atomically, write_object};
use crate::findings::{Findings, Provenance};
use crate::research::write_label_nifti;
use crate::volume::ImageVolume;
use envelope::ResultObject;
use fhir::Release;
use key::KeyImage;
use segments::Segments;

/// The report.
pub const SR_FILE: &str = "sr.dcm";
/// The report on what has no segment.
pub const STUDY_SR_FILE: &str = "sr-study.dcm";
/// The report with outlines.
pub const OUTLINES_SR_FILE: &str = "sr-outlines.dcm";
/// Outlines on the key images; `gsps-1.dcm` and so on where those differ in their Modality LUT.
pub const GSPS_FILE: &str = "gsps.dcm";
/// The key images.
pub const KO_FILE: &str = "ko.dcm";
/// The contours.
pub const RTSTRUCT_FILE: &str = "rtstruct.dcm";
/// The segmentation.
pub const SEG_FILE: &str = "seg.dcm";
/// The segmentation as a label map.
pub const LABELMAP_FILE: &str = "labelmap.dcm";
/// The map of values; of several, `map-1.dcm`, `map-2.dcm` and so on.
pub const MAP_FILE: &str = "map.dcm";
/// The captures: `sc-1.dcm` and so on.
pub const SC_FILE: &str = "sc.dcm";
/// The label map of a researcher's volume.
pub const LABELS_FILE: &str = "labels.nii.gz";
/// The report to read.
pub const PDF_FILE: &str = "pdf.dcm";
/// The findings for programs.
pub const JSON_FILE: &str = "findings.json";
/// The findings for spreadsheets.
pub const CSV_FILE: &str = "findings.csv";
/// The findings as a FHIR R4 bundle.
pub const FHIR_FILE: &str = "fhir-r4.json";
/// The findings as a FHIR R5 bundle.
pub const FHIR_R5_FILE: &str = "fhir-r5.json";
/// The page.
pub const HTML_FILE: &str = "report.html";
/// The picture.
pub const PNG_FILE: &str = "overview.png";

/// What every form is made from.
struct Context<'a> {
    findings: &'a Findings,
    image: &'a ImageVolume,
    segments: Segments<'a>,
    /// None for a researcher's volume.
    key_images: Vec<KeyImage>,
    /// What is asked for: an object refers to others only where they are written, too.
    forms: &'a Forms,
    window: Window,
}

impl<'a> Context<'a> {
    fn of(findings: &'a Findings, image: &'a ImageVolume, forms: &'a Forms) -> Result<Self, ResultsError> {
        let segments = Segments::of(findings)?;
        if forms.contains(Form::Map) {
            map::check_values(findings)?;
        }
        let is_file = findings.source.file.is_some();
        let key_images = if is_file { Vec::new() } else { key::key_images(findings, &segments) };
        Ok(Self { findings, image, segments, key_images, forms, window: Window::of(image) })
    }
}

/// A DICOM object to be written.
struct Object<'a> {
    /// Name of its file.
    file: String,
    reference: ResultObject,
    data: Writable<'a>,
}

impl<'a> Object<'a> {
    fn new(file: impl Into<String>, reference: ResultObject, data: impl Into<Writable<'a>>) -> Self {
        Self { file: file.into(), reference, data: data.into() }
    }
}

/// The object whose segments others refer to: the Segmentation, or the Label Map Segmentation where only that is written.
fn labels_object(context: &Context<'_>) -> Option<ResultObject> {
    let slot = if context.forms.contains(Form::Seg) {
        &envelope::SEGMENTATION
    } else if context.forms.contains(Form::Labelmap) {
        &envelope::LABEL_MAP
    } else {
        return None;
    };
    (!context.segments.all().is_empty()).then(|| ResultObject::of(context.findings, slot))
}

/// A report on regions or on the study: what its groups refer to, and which of the two they stand in, goes by the object with the segments.
fn report_object(context: &Context<'_>, slot: &envelope::Slot) -> ResultObject {
    let refers_to = match labels_object(context).map(|labels| labels.sop_class_uid) {
        Some(sop_class::SEGMENTATION) => slot.name.to_owned(),
        Some(_) => format!("{}/labelmap", slot.name),
        None => format!("{}/alone", slot.name),
    };
    ResultObject::named(context.findings, slot, 1, &refers_to)
}

/// What was written of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Every file with its form.
    pub files: Vec<(Form, PathBuf)>,
}

impl Written {
    /// The first file of a form.
    pub fn first(&self, form: Form) -> Option<&Path> {
        self.files.iter().find(|(of, _)| *of == form).map(|(_, path)| path.as_path())
    }
}

/// Writes a result into the folder `dir` in each of `forms`: all of them, or none. A form that has nothing to show (a segmentation where
/// nothing was found) has no file; `findings.json` says why where there is something. Every DICOM object is read again and held against the findings before the folder is there. Of a
/// researcher's volume come no DICOM objects; in place of [`Form::Seg`] the label map as NIfTI.
///
/// Files are written to a folder beside `dir`, which is then renamed. An empty folder or one that holds only earlier results is replaced;
/// the moment between the two renames is the only one at which `dir` is not there. Folders above `dir` are made.
///
/// # Errors
/// [`ResultsError`]; `dir` is then as it was before.
///
/// # Panics
/// Where image and label map do not lie on one grid: a broken promise of the caller.
pub fn write_all(findings: &Findings, image: &ImageVolume, forms: &Forms, dir: &Path) -> Result<Written, ResultsError> {
    let context = Context::of(findings, image, forms)?;
    let staging = folder::Staging::beside(dir)?;
    // Pictures take as long as the objects, and need none of them.
    let draw = || forms.contains(Form::Png).then(|| png_of(&picture(context.image, context.findings, context.window)));
    let illustrate = || forms.contains(Form::Html).then(|| html::Pictures::of(&context));
    let (written, (png, pictures)) = rayon::join(|| write_objects(&context, staging.path()), || rayon::join(draw, illustrate));
    let (mut files, objects) = written?;
    let json = forms.contains(Form::Json).then(|| json::json_of(&context, &objects, &left_out(&context, &files)));
    let csv = forms.contains(Form::Csv).then(|| csv::csv_of(&context, &objects));
    let bundle = |release| fhir::bundle_of(&context, &objects, release);
    let r4 = forms.contains(Form::Fhir).then(|| bundle(Release::R4)).flatten();
    let r5 = forms.contains(Form::FhirR5).then(|| bundle(Release::R5)).flatten();
    let texts = [(Form::Json, JSON_FILE, json), (Form::Csv, CSV_FILE, csv), (Form::Fhir, FHIR_FILE, r4), (Form::FhirR5, FHIR_R5_FILE, r5)];
    let texts = texts.map(|(form, name, text)| (form, name, text.map(String::into_bytes)));
    for (form, name, bytes) in texts.into_iter().chain([(Form::Png, PNG_FILE, png)]) {
        if let Some(bytes) = bytes {
            write_bytes(&staging.path().join(name), &bytes)?;
            files.push((form, name.to_owned()));
        }
    }
    if let Some(pictures) = pictures {
        write_bytes(&staging.path().join(HTML_FILE), html::page(&context, &pictures, &files).as_bytes())?;
        files.push((Form::Html, HTML_FILE.to_owned()));
    }
    staging.replace(dir)?;
    Ok(Written { files: files.into_iter().map(|(form, name)| (form, dir.join(name))).collect() })
}

/// Removes a folder that [`write_all`] has made, as a whole; false where there is none.
///
/// # Errors
/// [`ResultsError::Occupied`] where it holds something else, too; [`ResultsError::Folder`].
pub fn remove_all(dir: &Path) -> Result<bool, ResultsError> {
    folder::remove(dir)
}

/// What is to be said above every result of a package, that it must not be used for diagnosis or is not verified.
pub(crate) fn banner(package: &crate::findings::PackageId) -> &'static str {
    wording::banner(package)
}

/// A number for people, 4 significant digits.
pub(crate) fn number_for_people(value: f64) -> String {
    wording::number(value)
}

/// Files with their forms, and the DICOM objects among them.
type WrittenObjects = (Vec<(Form, String)>, Vec<(String, ResultObject)>);

/// Writes the DICOM forms into `folder` and reads them again; of a researcher's volume the label map.
fn write_objects(context: &Context<'_>, folder: &Path) -> Result<WrittenObjects, ResultsError> {
    let (mut files, mut objects) = (Vec::new(), Vec::new());
    if context.findings.source.file.is_some() {
        if context.forms.contains(Form::Seg) && has_voxels(context) {
            write_label_nifti(&folder.join(LABELS_FILE), &context.findings.labels)?;
            files.push((Form::Seg, LABELS_FILE.to_owned()));
        }
        return Ok((files, objects));
    }
    for form in Form::ALL.into_iter().filter(|form| context.forms.contains(*form)) {
        for Object { file, reference, data } in dicom_objects(form, context) {
            write_object(&folder.join(&file), data)?;
            files.push((form, file.clone()));
            objects.push((file, reference));
        }
    }
    check::check(context, folder, &objects)?;
    Ok((files, objects))
}

/// The objects of a DICOM form.
fn dicom_objects<'a>(form: Form, context: &Context<'a>) -> Vec<Object<'a>> {
    match form {
        Form::Sr => sr::objects(context),
        Form::SrOutlines => sr::outlines(context),
        Form::Seg => seg::objects(context),
        Form::Labelmap => seg::label_maps(context),
        Form::Map => map::objects(context).into_iter().chain(heat::objects(context)).collect(),
        Form::Gsps => presentation::objects(context),
        Form::Ko => key_objects::objects(context),
        Form::Rtstruct => rtstruct::objects(context),
        Form::Sc => capture::objects(context),
        Form::Pdf => pdf::objects(context),
        _ => Vec::new(),
    }
}

/// Why forms that were asked for have no file, though there is something to show.
fn left_out(context: &Context<'_>, files: &[(Form, String)]) -> Vec<String> {
    let is_file = context.findings.source.file.is_some();
    let lacks = |form| context.forms.contains(form) && (!is_file || form == Form::Seg) && files.iter().all(|(of, _)| *of != form);
    let reasons = [
        (Form::Seg, no_voxels as fn(&Context<'_>) -> Option<String>),
        (Form::Labelmap, no_voxels),
        (Form::Gsps, presentation::left_out),
        (Form::Rtstruct, |context| no_voxels(context).or_else(|| rtstruct::left_out(context))),
    ];
    let mut reasons: Vec<String> = reasons.into_iter().filter(|(form, _)| lacks(*form)).filter_map(|(_, why)| why(context)).collect();
    reasons.dedup();
    reasons
}

/// Why what was found has no voxels.
fn no_voxels(context: &Context<'_>) -> Option<String> {
    let none = placed::placed(context.findings).next().is_some() && context.segments.all().is_empty();
    none.then(|| {
        "no segmentation, label map or contours: the network gives boxes or points, and which voxels they are of nobody has said".into()
    })
}

/// Whether some finding may have voxels: those of a network that gives boxes have none.
fn has_voxels(context: &Context<'_>) -> bool {
    no_voxels(context).is_none()
}

/// Whether a result of ours may have a file of this name.
fn is_result_file(name: &str) -> bool {
    const NAMES: [&str; 17] = [
        SR_FILE,
        STUDY_SR_FILE,
        OUTLINES_SR_FILE,
        SEG_FILE,
        LABELMAP_FILE,
        MAP_FILE,
        GSPS_FILE,
        KO_FILE,
        RTSTRUCT_FILE,
        LABELS_FILE,
        PDF_FILE,
        JSON_FILE,
        CSV_FILE,
        FHIR_FILE,
        FHIR_R5_FILE,
        HTML_FILE,
        PNG_FILE,
    ];
    let is_one_of = |file: &str| {
        let (stem, end) = file.rsplit_once('.').unwrap_or((file, ""));
        let number = name.strip_prefix(stem).and_then(|rest| rest.strip_prefix('-')?.strip_suffix(end)?.strip_suffix('.'));
        number.is_some_and(|number| number.parse::<u32>().is_ok())
    };
    NAMES.contains(&name) || [MAP_FILE, GSPS_FILE, SC_FILE].into_iter().any(is_one_of)
}

fn write_bytes(path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    write_atomically(path, |writer| writer.write_all(bytes).map_err(|source| WriteError::Io { file, source }))
}

fn png_of(picture: &image::RgbImage) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, image::ImageFormat::Png).expect("an RGB image in memory becomes a PNG");
    bytes.into_inner()
}

/// `name=value` of everything that decided the result beside inputs and package.
fn parameters(provenance: &Provenance) -> impl Iterator<Item = String> {
    provenance.parameters.iter().map(|p| format!("{}={}", p.name, p.value))
}
