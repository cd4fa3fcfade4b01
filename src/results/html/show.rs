//! The part of the page with pictures.

use serde::Serialize;

use super::markup::{Markup, escaped};
use super::pictures::{Picture, Pictures};
use super::swatch;
use crate::results::{Context, window};

/// Colours, three planes, and slices to go through. The overlay goes with its box, by style alone.
pub(super) fn pictures(page: &mut Markup, context: &Context<'_>, pictures: &Pictures) {
    page.raw("<input type=\"checkbox\" id=\"overlay\" class=\"control\" checked>\n");
    page.element("label for=\"overlay\" class=\"control\"", "Overlay");
    page.within("ul class=\"legend\" aria-label=\"Colours\"", |page| {
        for finding in context.findings.findings.iter().filter(|f| f.is_drawn()) {
            page.within("li", |page| {
                page.raw(&swatch(finding)).element("span", &finding.name);
            });
        }
    });
    let window = window::caption(&context.window.greys(), context.image.quantity);
    let letters = "R, L, A, P, H and F are the patient's right, left, front, back, head and feet";
    page.element("p class=\"note\"", &format!("For orientation only: compressed with loss. {window}. {letters}."));
    page.within("div class=\"planes\"", |page| {
        for picture in &pictures.planes {
            page.within("figure", |page| {
                page.within("div class=\"picture\"", |page| layers(page, picture, None));
                page.element("figcaption", &picture.plane.caption());
            });
        }
    });
    if !pictures.maps.is_empty() {
        page.element(
            "p class=\"note\"",
            "What the probabilities rest on. Orange: it falls where the image is covered there; blue: it rises.",
        );
        page.within("div class=\"planes\"", |page| {
            for picture in &pictures.maps {
                page.within("figure", |page| {
                    page.within("div class=\"picture\"", |page| layers(page, picture, None));
                    page.element("figcaption", &picture.description);
                });
            }
        });
    }
    slices(page, pictures);
}

/// The image, the overlay on it and the directions of the patient; `id` begins the identifiers of the two images.
fn layers(page: &mut Markup, picture: &Picture, id: Option<&str>) {
    let [width, height] = picture.size;
    let id_of = |what: &str| id.map_or_else(String::new, |id| format!(" id=\"{id}-{what}\""));
    let size = format!("width=\"{width}\" height=\"{height}\"");
    let (image, overlay) = (&picture.image, &picture.overlay);
    let description = escaped(&picture.description);
    page.raw(&format!("<img{} {size} src=\"data:image/jpeg;base64,{image}\" alt=\"{description}\">\n", id_of("image")));
    page.raw(&format!("<img{} {size} class=\"overlay\" src=\"data:image/png;base64,{overlay}\" alt=\"\">\n", id_of("overlay")));
    let [start, end] = picture.plane.across.letters;
    let [top, bottom] = picture.plane.down.letters;
    for (place, letter) in [("start", start), ("end", end), ("top", top), ("bottom", bottom)] {
        page.element(&format!("span class=\"edge {place}\" aria-hidden=\"true\""), &letter.to_string());
    }
}

/// A slice as the script reads it.
#[derive(Serialize)]
struct Slice<'a> {
    image: &'a str,
    overlay: &'a str,
    caption: String,
    description: &'a str,
}

impl<'a> Slice<'a> {
    fn of(picture: &'a Picture) -> Self {
        Self { image: &picture.image, overlay: &picture.overlay, caption: picture.plane.caption(), description: &picture.description }
    }
}

/// The slices to go through, hidden where no script shows them.
fn slices(page: &mut Markup, pictures: &Pictures) {
    if let Some(first) = pictures.slices.get(pictures.first) {
        let count = pictures.slices.len();
        let range = format!("min=\"0\" max=\"{}\" value=\"{}\"", count - 1, pictures.first);
        page.within("section id=\"slices\" aria-label=\"Axial slices\" hidden", |page| {
            page.within("figure", |page| {
                page.within("div class=\"picture\" id=\"slice-picture\"", |page| layers(page, first, Some("slice")));
                page.raw(&format!("<input type=\"range\" id=\"slider\" {range} aria-label=\"Axial slice\">\n"));
                page.within("figcaption", |page| {
                    page.element("span id=\"slice-caption\" aria-live=\"polite\"", &first.plane.caption());
                    if count < first.plane.count as usize {
                        page.element("span", &format!("({count} of {} slices are in this page)", first.plane.count));
                    }
                });
            });
        });
    }
    let data: Vec<Slice<'_>> = pictures.slices.iter().map(Slice::of).collect();
    // Within a script element only `<` could end the data too early.
    let data = serde_json::to_string(&data).expect("slices are text").replace('<', "\\u003c");
    page.raw("<script type=\"application/json\" id=\"slice-data\">").raw(&data).raw("</script>\n");
}
