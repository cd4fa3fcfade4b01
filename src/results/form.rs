//! The forms that findings can be written in, and what a site asks for.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// A form that findings can be written in. The report carries the meaning; all others are copies of it for programs that read no SR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Form {
    /// Structured reports: Comprehensive 3D SR with TID 1500, one document for each kind of group.
    Sr,
    /// One more report with outlines on key images, for viewers that draw SCOORD and no segments.
    SrOutlines,
    /// Segmentation, one bit a voxel and segment; of a researcher's file the label map as NIfTI.
    Seg,
    /// Label Map Segmentation: one byte a voxel.
    Labelmap,
    /// Parametric Map, one for each map of values that the package computes; of a radiograph a Secondary Capture of it over the image.
    Map,
    /// Secondary Capture of the key images with overlay.
    Sc,
    /// Grayscale Softcopy Presentation State with outlines on the key images; of colour images there is none, and no file.
    Gsps,
    /// Key Object Selection of the key images.
    Ko,
    /// RT Structure Set with contours; of unevenly spaced slices, and without a Frame of Reference, there is none, and no file.
    Rtstruct,
    /// Encapsulated PDF of the one-page report.
    Pdf,
    /// JSON with everything.
    Json,
    /// CSV, a row for each number.
    Csv,
    /// FHIR R4 bundle.
    Fhir,
    /// FHIR R5 bundle.
    FhirR5,
    /// Self-contained page.
    Html,
    /// Three planes with and without overlay.
    Png,
}

impl Form {
    /// All forms, in the order in which they are written.
    pub const ALL: [Self; 16] = [
        Self::Seg,
        Self::Labelmap,
        Self::Map,
        Self::Sr,
        Self::SrOutlines,
        Self::Gsps,
        Self::Ko,
        Self::Rtstruct,
        Self::Sc,
        Self::Pdf,
        Self::Json,
        Self::Csv,
        Self::Fhir,
        Self::FhirR5,
        Self::Html,
        Self::Png,
    ];

    /// As it is written on the command line and in configurations.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sr => "sr",
            Self::SrOutlines => "sr-outlines",
            Self::Seg => "seg",
            Self::Labelmap => "labelmap",
            Self::Map => "map",
            Self::Sc => "sc",
            Self::Gsps => "gsps",
            Self::Ko => "ko",
            Self::Rtstruct => "rtstruct",
            Self::Pdf => "pdf",
            Self::Json => "json",
            Self::Csv => "csv",
            Self::Fhir => "fhir",
            Self::FhirR5 => "fhir-r5",
            Self::Html => "html",
            Self::Png => "png",
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No form has this name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("no form of results is called `{0}`: there are {names}, and `all`", names = Form::ALL.map(Form::name).join(", "))]
pub struct UnknownForm(String);

impl FromStr for Form {
    type Err = UnknownForm;

    fn from_str(name: &str) -> Result<Self, UnknownForm> {
        Self::ALL.into_iter().find(|form| form.name() == name).ok_or_else(|| UnknownForm(name.to_owned()))
    }
}

/// Which forms a destination gets: `sr,seg,json`, or `all`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forms(BTreeSet<Form>);

impl Forms {
    /// Every form.
    pub fn all() -> Self {
        Self(Form::ALL.into())
    }

    /// Whether `form` is among them.
    pub fn contains(&self, form: Form) -> bool {
        self.0.contains(&form)
    }
}

impl Default for Forms {
    /// What a person at this machine can use: report, segmentation, JSON, page and picture.
    fn default() -> Self {
        Self([Form::Sr, Form::Seg, Form::Json, Form::Html, Form::Png].into())
    }
}

impl FromIterator<Form> for Forms {
    fn from_iter<I: IntoIterator<Item = Form>>(forms: I) -> Self {
        Self(forms.into_iter().collect())
    }
}

impl FromStr for Forms {
    type Err = UnknownForm;

    fn from_str(text: &str) -> Result<Self, UnknownForm> {
        match text.trim() {
            "all" => Ok(Self::all()),
            text => text.split(',').map(|name| name.trim().parse()).collect(),
        }
    }
}

impl fmt::Display for Forms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = Form::ALL.into_iter().filter(|form| self.contains(*form)).map(Form::name).collect();
        f.write_str(&names.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_named() {
        assert_eq!("sr, seg".parse::<Forms>().map(|f| f.to_string()), Ok("seg,sr".to_owned()));
        assert_eq!("all".parse(), Ok(Forms::all()));
        assert_eq!(Forms::default().to_string().parse(), Ok(Forms::default()));
        let error = "sr,word".parse::<Forms>().expect_err("there is no such form");
        assert!(error.to_string().starts_with("no form of results is called `word`: there are seg, "), "{error}");
    }
}
