//! The findings of a package as they were found: each once, or once for each of its objects.

use crate::model::{Finding, Instances};

/// A finding of the package, or one of its objects.
pub(super) struct Found<'a> {
    pub(super) described: &'a Finding,
    pub(super) name: String,
    /// Its label.
    pub(super) segment: u8,
    /// Of an object: 0 to 1.
    pub(super) score: Option<f32>,
}

/// In the order of the package, objects by falling score; a finding of which there are no objects once, as a class without voxels. With a
/// warning for each of which there are more than are reported. `objects` are those of [`objects_on`](crate::postprocess::objects_on).
pub(super) fn found<'a>(findings: &'a [Finding], objects: &[Option<Vec<f32>>]) -> (Vec<Found<'a>>, Vec<String>) {
    let (mut all, mut warnings) = (Vec::new(), Vec::new());
    for (described, scores) in findings.iter().zip(objects) {
        let one = |name: String, segment, score| Found { described, name, segment, score };
        let Some((instances, scores)) = described.instances.as_ref().zip(scores.as_ref()).filter(|(_, scores)| !scores.is_empty()) else {
            all.push(one(described.name.clone(), described.segment, None));
            continue;
        };
        let numbered = (1..=usize::from(instances.max_count)).zip(described.segment..=u8::MAX).zip(scores);
        all.extend(numbered.map(|((n, segment), &score)| one(Instances::name(&described.name, n), segment, Some(score))));
        if let Some(highest) = scores.get(usize::from(instances.max_count)) {
            warnings.push(format!(
                "{} objects of `{}` reach the score {}; the {} with the highest scores are reported, and the others have up to {highest:.3}",
                scores.len(),
                described.name,
                instances.min_score,
                instances.max_count
            ));
        }
    }
    (all, warnings)
}
