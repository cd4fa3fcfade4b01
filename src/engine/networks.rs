//! The networks of a package asked about one subject: the stages in order, each seeing the images and what the one before has labelled.

use std::sync::atomic::{AtomicBool, Ordering};

use super::EngineError;
use super::input::OpenedChannel;
use super::timings::{Stage, Timings};
use crate::infer::{Detected, InferError, Network, Scores};
use crate::kernels::{Backend, Interpolation};
use crate::model::{Manifest, MapOf, PreprocessStep};
use crate::postprocess::{self, Spread};
use crate::preprocess::{Plans, Previous, Seen};
use crate::volume::{ImageVolume, Volume};

/// What a network is asked about.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    /// The image that results lie on.
    pub(super) image: &'a ImageVolume,
    /// The other channels of a package with several.
    pub(super) others: &'a [OpenedChannel],
    /// What the stage before has found.
    pub(super) previous: Option<Previous<'a>>,
}

/// What goes with a run whatever is asked.
pub(super) struct Course<'a, 'b> {
    pub(super) backend: &'a Backend,
    pub(super) cancel: &'a AtomicBool,
    pub(super) timings: &'a mut Timings,
    pub(super) on_stage: &'a mut (dyn FnMut(Stage) + 'b),
}

/// The scores of `network`, which `manifest` describes, ready to go back to the grid of the image; what the reader of a result should know of
/// them; and what `beside` gave, which runs while the input is made. What each member of an ensemble says goes into `spreads`.
///
/// # Errors
/// What went wrong in which stage of the analysis.
pub(super) fn ask<T: Send>(
    manifest: &Manifest,
    network: &mut Network,
    subject: Subject<'_>,
    course: &mut Course<'_, '_>,
    spreads: &mut [Spread],
    beside: impl FnOnce() -> T + Send,
) -> Result<(Scores, Vec<String>, T), EngineError> {
    let placed = |scores: Scores, plans: &Plans<'_>| {
        let plan = plans.reference();
        let interpolation = match manifest.output.interpolation {
            Interpolation::Nearest => [Interpolation::Nearest; 3],
            _ => plan.scores_interpolation(),
        };
        Scores { interpolation, source_box: plan.source_box(), ..scores }
    };
    let (source, labels) = (subject.image.grid(), manifest.label_of_channel());
    let of_spreads = Spread::bytes(source.voxel_count() as u64) * spreads.len() as u64;
    let answer = |network: &mut Network, plans: &Plans<'_>, input: &[Volume<f32>], cancel: &AtomicBool| {
        network.run_each(input, cancel, |member| {
            let (Some(kind), false) = (manifest.score_kind(), spreads.is_empty()) else { return };
            let mut member = placed(member, plans);
            postprocess::activate(&mut member, &manifest.postprocess);
            spreads.iter_mut().for_each(|spread| spread.add(source, &member, &labels, kind));
        })
    };
    let (scores, plans, beside) = answered(manifest, network, subject, course, of_spreads, beside, answer)?;
    let of_empty = left_out_patches(scores.empty_patches, scores.patches, manifest.empty_patches());
    let notes = plans.notes().into_iter().chain(of_empty).collect();
    Ok((placed(scores, &plans), notes, beside))
}

/// As [`ask`], of a network that gives boxes: what `then` makes of them, which may ask it again about the same input.
///
/// # Errors
/// As [`ask`], and what `then` says.
pub(super) fn ask_for_boxes<T: Send, A>(
    manifest: &Manifest,
    network: &mut Network,
    subject: Subject<'_>,
    course: &mut Course<'_, '_>,
    beside: impl FnOnce() -> T + Send,
    then: impl FnOnce(Detected, &mut Network, &[Volume<f32>], &AtomicBool) -> Result<A, InferError>,
) -> Result<(A, Vec<String>, T), EngineError> {
    let answer = |network: &mut Network, _: &Plans<'_>, input: &[Volume<f32>], cancel: &AtomicBool| {
        let detected = network.detect(input, cancel)?;
        let of_empty = left_out_patches(detected.empty_patches, detected.patches, manifest.empty_patches());
        Ok((then(detected, network, input, cancel)?, of_empty))
    };
    let ((made, of_empty), plans, beside) = answered(manifest, network, subject, course, 0, beside, answer)?;
    Ok((made, plans.notes().into_iter().chain(of_empty).collect(), beside))
}

/// What `answer` makes of a network and its input, with `bytes` for what it makes meanwhile, and how that input was made.
fn answered<'a, T: Send, A>(
    manifest: &'a Manifest,
    network: &mut Network,
    subject: Subject<'a>,
    course: &mut Course<'_, '_>,
    bytes: u64,
    beside: impl FnOnce() -> T + Send,
    answer: impl FnOnce(&mut Network, &Plans<'a>, &[Volume<f32>], &AtomicBool) -> Result<A, InferError>,
) -> Result<(A, Plans<'a>, T), EngineError> {
    let Course { backend, cancel, timings, on_stage } = course;
    let seen = seen(manifest, subject)?;
    let one_hot = manifest.input.previous.as_ref().map_or(&[][..], |previous| &previous.one_hot);
    let preprocessed = || {
        let plans = Plans::new(seen, manifest.reference_channel(), subject.previous, backend)?;
        network.afford(plans.reference().network_grid().voxel_count() as u64, bytes)?;
        let input = plans.run(one_hot, subject.previous, backend)?;
        Ok::<_, EngineError>((plans, input))
    };
    let (beside, preprocessed) = timings.time(Stage::Preprocess, *on_stage, || rayon::join(beside, preprocessed));
    let (plans, input) = preprocessed?;
    let answer = timings.time(Stage::Infer, *on_stage, || answer(network, &plans, &input, cancel))?;
    drop(input);
    if cancel.load(Ordering::Relaxed) {
        return Err(InferError::Cancelled.into());
    }
    Ok((answer, plans, beside))
}

/// Of each map of the package that needs them, a spread over the members of its ensemble.
pub(super) fn spreads_of(manifest: &Manifest) -> Vec<Spread> {
    let spread = |of| match of {
        MapOf::Spread { channel } => Some(Spread::of(channel)),
        MapOf::Probability { .. } | MapOf::Uncertainty => None,
    };
    manifest.maps().filter_map(|(_, of, _)| spread(of)).collect()
}

/// The images in the order of the package's channels.
fn seen<'a>(manifest: &'a Manifest, Subject { image, others, .. }: Subject<'a>) -> Result<Vec<Seen<'a>>, EngineError> {
    let (channels, steps) = (&manifest.input.channel, manifest.steps_of_images());
    let wrong = || EngineError::Channels { needed: steps.len(), given: 1 + others.len() };
    let reference = manifest.reference_channel();
    let image_of = |channel: usize| {
        let other = || others.iter().find(|other| other.channel == channel).map(|other| other.voxels.image());
        if channel == reference { Some(image) } else { other() }
    };
    let one = |(n, steps): (usize, &&'a [PreprocessStep])| {
        Some(Seen { name: channels.get(n).map_or("image", |channel| &channel.name), image: image_of(n)?, steps })
    };
    let seen: Option<Vec<Seen<'a>>> = steps.iter().enumerate().map(one).collect();
    seen.filter(|seen| seen.len() == 1 + others.len()).ok_or_else(wrong)
}

/// How many patches the network was not asked about, for the reader of a result.
fn left_out_patches(empty_patches: usize, patches: usize, range: Option<[f64; 2]>) -> Option<String> {
    let [low, high] = range?;
    Some(format!(
        "{empty_patches} of {patches} patches hold nothing but values of {low} to {high}, after normalisation: the network was not asked about \
         them, and what they alone cover is background"
    ))
}
