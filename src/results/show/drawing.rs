//! Presentation states: layers, and what is drawn on which image (PS3.3 C.10.5, C.10.7).

use std::collections::BTreeMap;

use dicom::object::InMemDicomObject;

use super::segments::colour;
use super::{Page, View, clean};
use crate::dataset::{Attributes, CharacterSet, items, tags};

pub(super) fn drawing(header: &InMemDicomObject, view: &View<'_>, page: &mut Page) {
    let charset = CharacterSet::of(header);
    page.fact("label", header.text(tags::CONTENT_LABEL));
    let layers = items(header, tags::GRAPHIC_LAYER_SEQUENCE).iter();
    let row = |layer: &InMemDicomObject| {
        let description = charset.within(layer).texts(layer, tags::GRAPHIC_LAYER_DESCRIPTION).join(", ");
        let shown = [tags::GRAPHIC_LAYER, tags::GRAPHIC_LAYER_ORDER].map(|tag| layer.text(tag));
        let colour = colour(layer, tags::GRAPHIC_LAYER_RECOMMENDED_DISPLAY_CIE_LAB_VALUE);
        shown.into_iter().chain([view.private(&description), colour]).collect()
    };
    page.table("layers", &["layer", "order", "description", "colour"], layers.map(row).collect());

    let mut rows = Vec::new();
    for annotation in items(header, tags::GRAPHIC_ANNOTATION_SEQUENCE) {
        let charset = charset.within(annotation);
        let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
        for object in items(annotation, tags::GRAPHIC_OBJECT_SEQUENCE) {
            *kinds.entry(clean(&object.text(tags::GRAPHIC_TYPE))).or_default() += 1;
        }
        let graphics: Vec<String> = kinds.into_iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        let texts = items(annotation, tags::TEXT_OBJECT_SEQUENCE);
        let texts: Vec<String> = texts.iter().flat_map(|text| charset.within(text).texts(text, tags::UNFORMATTED_TEXT_VALUE)).collect();
        let layer = annotation.text(tags::GRAPHIC_LAYER);
        let images = items(annotation, tags::REFERENCED_IMAGE_SEQUENCE);
        let image = |image: &InMemDicomObject| {
            let (class, uid) = (image.text(tags::REFERENCED_SOP_CLASS_UID), image.text(tags::REFERENCED_SOP_INSTANCE_UID));
            (view.names.instance(&class, &uid), image.texts(tags::REFERENCED_FRAME_NUMBER).join(", "))
        };
        let mut on: Vec<(String, String)> = images.iter().map(image).collect();
        if on.is_empty() {
            on.push(("all images".to_owned(), String::new()));
        }
        let (graphics, texts) = (graphics.join(", "), view.private(&texts.join("; ")));
        rows.extend(on.into_iter().map(|(image, frames)| vec![image, frames, layer.clone(), graphics.clone(), texts.clone()]));
    }
    page.table("graphics", &["image", "frames", "layer", "graphics", "text"], rows);
}
