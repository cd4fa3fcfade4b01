//! The VOI that a presentation state shows an image with.

use super::Context;
use super::key::KeyImage;
use crate::dataset::{Attributes, Frame, Item, StoredAs, items, tags};
use crate::volume::Stored;

/// VOI LUT attributes (PS3.3 C.11.2): the image's own table or first window, as its makers want it seen; where it has none, the window of the
/// picture.
pub(super) fn voi_of(context: &Context<'_>, image: &KeyImage) -> Item {
    let frame = &context.findings.source.frames[image.frame as usize];
    own_voi(frame).unwrap_or_else(|| picture_window(context, image, frame))
}

fn own_voi(frame: &Frame) -> Option<Item> {
    let groups = frame.context().ok()?;
    if let Some(table) = groups.holder(tags::VOILUT_SEQUENCE).and_then(|holder| items(holder, tags::VOILUT_SEQUENCE).first()) {
        return Some(Item::new().sequence(tags::VOILUT_SEQUENCE, [Item::from(table.clone())]));
    }
    let holder = groups.holder(tags::WINDOW_CENTER)?;
    // A linear window is at least 1 wide (C.11.2.1.2); one that says nothing is no window.
    holder.all_numbers(tags::WINDOW_CENTER)?;
    holder.all_numbers(tags::WINDOW_WIDTH).filter(|widths| widths[0] >= 1.0)?;
    let first = |item: Item, tag| match holder.texts(tag).into_iter().next() {
        Some(value) => item.decimals_of(tag, &[value]),
        None => item,
    };
    let item = first(first(Item::new(), tags::WINDOW_CENTER), tags::WINDOW_WIDTH);
    Some(item.copied(tags::VOILUT_FUNCTION, holder))
}

/// The window of the picture is of physical values; a VOI is of what the Modality LUT gives, which may be others: Bq/ml where the values
/// are SUV, stored values where they are real-world values.
fn picture_window(context: &Context<'_>, image: &KeyImage, frame: &Frame) -> Item {
    let (window, values) = (context.window, context.image);
    let physical = values.rescale[image.slice as usize];
    let own = [tags::RESCALE_SLOPE, tags::RESCALE_INTERCEPT].map(|tag| frame.texts(tag).first().and_then(|v| v.parse::<f64>().ok()));
    let tabled = frame.context().is_ok_and(|groups| groups.holder(tags::MODALITY_LUT_SEQUENCE).is_some());
    let (mut centre, mut width) = (window.centre, window.width);
    if !tabled {
        let instances = context.findings.source.instances.iter().map(AsRef::as_ref);
        let offset = if matches!(values.stored, Stored::Int16(_)) { StoredAs::for_series(instances).offset() } else { 0.0 };
        let (slope, intercept) = (own[0].unwrap_or(1.0), own[1].unwrap_or(0.0));
        let stored = (window.centre - physical.intercept) / physical.slope + offset;
        let mapped = [slope * stored + intercept, (window.width / physical.slope * slope).abs()];
        if mapped.iter().all(|v| v.is_finite()) && mapped[1] > 0.0 {
            [centre, width] = mapped;
        }
    }
    Item::new().decimal(tags::WINDOW_CENTER, centre).decimal(tags::WINDOW_WIDTH, width).text(tags::VOILUT_FUNCTION, "LINEAR_EXACT")
}
