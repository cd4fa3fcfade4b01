//! A result laid beside that of an earlier study of the patient.

use super::{Analysis, Engine, EngineError};
use crate::findings::Predecessor;
use crate::followup::{self, Earlier, Known, Object, Reduced};
use crate::geometry::Coded;
use crate::measure;
use crate::model::{Finding, Manifest};

impl Engine {
    /// Lays an analysis beside an earlier study of the same patient, so many days before, and returns what a later one needs to know of
    /// it; `None` where the package follows nothing, or the images lie nowhere in a patient. See [`followup`]; who calls answers for the
    /// patient and the order of the studies.
    ///
    /// # Errors
    /// [`EngineError::Device`] where the device fails, [`EngineError::Measure`] where the objects cannot be measured.
    pub fn follow(&self, analysis: &mut Analysis, earlier: Option<(&Earlier, i64)>) -> Result<Option<Earlier>, EngineError> {
        let manifest = &self.package.manifest;
        if manifest.follow_up.is_none() || !analysis.findings.source.lies_in_patient() {
            return Ok(None);
        }
        let objects = objects(manifest, analysis)?;
        let image = Reduced::of(&self.backend, &analysis.image)?;
        let findings = &mut analysis.findings;
        let left = match earlier {
            Some(earlier) => followup::follow(&self.backend, manifest, findings, &objects, &image, earlier)?,
            None => Vec::new(),
        };
        let source = &findings.source;
        let Some(first) = source.instances.first() else { return Ok(None) };
        let instances = source.instances.iter().map(|instance| Predecessor {
            study_instance_uid: instance.study_uid.clone(),
            series_instance_uid: instance.series_uid.clone(),
            sop_class_uid: instance.sop_class_uid.clone(),
            sop_instance_uid: instance.sop_instance_uid.clone(),
        });
        let known = Known {
            study_instance_uid: first.study_uid.clone(),
            series_instance_uid: first.series_uid.clone(),
            instances: instances.collect(),
            content_sha256: source.content_sha256.clone(),
            voxel_mm3: analysis.image.grid().voxel_volume_mm3(),
            findings: followup::seen(findings, &objects, left),
            unusable: image.as_ref().err().map(|why| format!("{why} [{}]", why.code())),
        };
        Ok(Some(Earlier { known, image: image.ok() }))
    }
}

/// The objects that were found, with their centres.
fn objects(manifest: &Manifest, analysis: &Analysis) -> Result<Vec<Object>, EngineError> {
    let findings = &analysis.findings;
    let is_object = |name: &str| manifest.finding_named(name).filter(|described: &&Finding| described.instances.is_some());
    let present = findings.findings.iter().enumerate().filter(|(_, finding)| finding.present);
    let all: Vec<(usize, u8, &Finding)> =
        present.filter_map(|(n, finding)| Some((n, finding.segment?, is_object(&finding.name)?))).collect();
    let numbers =
        measure::measure_labels(&findings.labels, &analysis.image, &all.iter().map(|(_, segment, _)| *segment).collect::<Vec<u8>>())?;
    let object = |((finding, _, described), numbers): (&(usize, u8, &Finding), &measure::RegionNumbers)| {
        Some(Object { finding: *finding, class: described.name.clone(), centre_lps_mm: numbers.centroid_lps_mm? })
    };
    Ok(all.iter().zip(&numbers).filter_map(object).collect())
}
