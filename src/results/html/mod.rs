//! A page for people: one file that needs nothing else, with the findings, pictures, and where everything comes from.
//!
//! It holds the patient's name and identifiers, as the DICOM objects do. It loads nothing: its Content Security Policy allows its own style and
//! script, by their hashes, and images that are part of it. Without scripts there are the pictures of three planes; the script only adds slices
//! to go through.

mod markup;
mod pictures;
mod show;

pub(crate) use markup::{Markup, base64, escaped};
pub(super) use pictures::Pictures;

use sha2::{Digest, Sha256};

use super::wording::{self, Fact, Row, Table};
use super::{Context, Form};
use crate::findings::{Finding, Findings};

/// What pages of ours look like.
pub(crate) const PAGE_STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The page; `files` are those of the result beside it.
pub(super) fn page(context: &Context<'_>, pictures: &Pictures, files: &[(Form, String)]) -> String {
    let package = &context.findings.provenance.package;
    let title = format!("AI result: {}", wording::package(package));
    document(&title, wording::banner(package), PAGE_STYLE, SCRIPT, |page| {
        result(page, context, pictures);
        origin(page, context.findings, &wording::provenance(context), files);
    })
}

/// A page of ours: `banner` stays in sight, `fill` adds what comes below the title. Nothing from elsewhere is loaded, no other style and no
/// other script run than those given.
pub(crate) fn document(title: &str, banner: &str, style: &str, script: &str, fill: impl FnOnce(&mut Markup)) -> String {
    let mut page = Markup::default();
    page.raw("<!DOCTYPE html>\n<html lang=\"en\">\n");
    page.within("head", |page| {
        page.raw("<meta charset=\"utf-8\">\n");
        page.raw(&format!("<meta http-equiv=\"Content-Security-Policy\" content=\"{}\">\n", policy(style, script)));
        page.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
        page.raw("<meta name=\"referrer\" content=\"no-referrer\">\n");
        page.element("title", title);
        page.raw("<style>").raw(style).raw("</style>\n");
    });
    page.within("body", |page| {
        page.within("p class=\"banner\" role=\"note\"", |page| {
            page.element("strong", banner).element("span", wording::UNVERIFIED);
        });
        page.within("main", |page| {
            page.element("h1", title);
            fill(page);
        });
        page.raw("<script>").raw(script).raw("</script>\n");
    });
    page.raw("</html>\n");
    page.into_string()
}

fn policy(style: &str, script: &str) -> String {
    let hash = |text: &str| base64(&Sha256::digest(text.as_bytes()));
    let (style, script) = (hash(style), hash(script));
    let allowed = format!("img-src data:; style-src 'sha256-{style}'; script-src 'sha256-{script}'");
    format!("default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'")
}

/// Whom it is about and what was found.
fn result(page: &mut Markup, context: &Context<'_>, pictures: &Pictures) {
    let findings = context.findings;
    page.element("p", &findings.provenance.package.intended_use);
    facts(page, &wording::study(findings, |_| true));
    list(page, "Warnings", "ul class=\"warnings\"", &findings.warnings);
    section(page, "findings", "Findings", |page| table(page, &Table::of(&findings.findings)));
    section(page, "pictures", "Pictures", |page| show::pictures(page, context, pictures));
}

/// Where it comes from.
fn origin(page: &mut Markup, findings: &Findings, provenance: &[Fact], files: &[(Form, String)]) {
    section(page, "provenance", "How this result came about", |page| {
        plain(page, provenance.iter().map(|Fact { name, value }| (*name, value.as_str())));
    });
    list(page, "Geometry", "ul", &findings.provenance.geometry);
    section(page, "settings", "Settings", |page| {
        plain(page, findings.provenance.parameters.iter().map(|p| (p.name.as_str(), p.value.as_str())));
    });
    section(page, "files", "Files of this result", |page| {
        plain(page, files.iter().map(|(form, file)| (file.as_str(), wording::form(*form))));
    });
    if let Some(card) = &findings.provenance.package.card {
        section(page, "model", "Model card", |page| {
            page.within("details class=\"sheet card\"", |page| {
                page.element("summary", "What the maker of the model says of it").element("pre", card);
            });
        });
    }
    let patient = if findings.source.file.is_some() { "" } else { " This page holds patient data." };
    let started = wording::started(&findings.provenance.started);
    page.element("footer", &format!("roentgen {}, analysis of {started}.{patient}", findings.provenance.roentgen_version));
}

fn section(page: &mut Markup, id: &str, title: &str, fill: impl FnOnce(&mut Markup)) {
    page.within(&format!("section id=\"{id}\" aria-labelledby=\"{id}-title\""), |page| {
        page.element(&format!("h2 id=\"{id}-title\""), title);
        fill(page);
    });
}

/// A section with a list; none where there is nothing to list.
fn list(page: &mut Markup, title: &str, tag: &str, lines: &[String]) {
    if !lines.is_empty() {
        section(page, &title.to_lowercase(), title, |page| {
            page.within(tag, |page| each(page, "li", lines));
        });
    }
}

/// An element for each text.
fn each(page: &mut Markup, tag: &str, texts: &[String]) {
    for text in texts {
        page.element(tag, text);
    }
}

/// Names above their values, which may be patient text and run from right to left.
fn facts(page: &mut Markup, facts: &[Fact]) {
    page.within("dl class=\"facts\"", |page| {
        for Fact { name, value } in facts {
            let value = if value.is_empty() { wording::NONE } else { value };
            page.within("div", |page| {
                page.element("dt", name).element("dd dir=\"auto\"", value);
            });
        }
    });
}

/// Names beside their values.
fn plain<'a>(page: &mut Markup, rows: impl Iterator<Item = (&'a str, &'a str)>) {
    page.within("div class=\"sheet\"", |page| {
        page.within("table class=\"plain\"", |page| {
            for (name, value) in rows {
                page.within("tr", |page| {
                    page.element("th scope=\"row\"", name).element("td", value);
                });
            }
        });
    });
}

fn table(page: &mut Markup, table: &Table<'_>) {
    let number = "th scope=\"col\" class=\"number\"";
    page.within("div class=\"scroll sheet\" role=\"region\" aria-labelledby=\"findings-title\" tabindex=\"0\"", |page| {
        page.within("table", |page| {
            page.within("thead", |page| {
                page.raw("<tr>\n").element("th scope=\"col\"", "Finding");
                if table.has_site {
                    page.element("th scope=\"col\"", "Site");
                }
                page.element("th scope=\"col\"", "Presence");
                if table.has_certainty {
                    page.element(number, "Probability of presence");
                }
                for [name, unit] in &table.columns {
                    page.element(number, &if unit.is_empty() { name.clone() } else { format!("{name}, {unit}") });
                }
                if table.columns.is_empty() {
                    page.element("th scope=\"col\"", "Measurements");
                }
                if table.has_answers {
                    page.element("th scope=\"col\"", "Assessment");
                }
                page.raw("</tr>\n");
            });
            page.within("tbody", |page| table.rows.iter().for_each(|row| finding(page, table, row)));
        });
    });
}

fn finding(page: &mut Markup, table: &Table<'_>, row: &Row<'_>) {
    page.within(if row.finding.present { "tr" } else { "tr class=\"absent\"" }, |page| {
        page.within("th scope=\"row\"", |page| {
            page.raw(&swatch(row.finding)).element("span", &row.finding.name);
            if let Some(kind) = row.kind {
                page.element("span class=\"kind\"", kind);
            }
        });
        if table.has_site {
            page.element("td", if row.site.is_empty() { wording::NONE } else { &row.site });
        }
        page.element("td", row.presence);
        if table.has_certainty {
            page.element("td class=\"number\"", &row.certainty);
        }
        if table.columns.is_empty() {
            cell(page, &row.numbers);
        } else {
            each(page, "td class=\"number\"", &row.numbers);
        }
        if table.has_answers {
            cell(page, &row.answers);
        }
    });
}

/// A cell with a line for each text.
fn cell(page: &mut Markup, lines: &[String]) {
    if lines.is_empty() {
        page.element("td", wording::NONE);
    } else {
        page.within("td", |page| each(page, "div", lines));
    }
}

/// The colour of a finding that is drawn, as a square.
fn swatch(finding: &Finding) -> String {
    if !finding.is_drawn() {
        return String::new();
    }
    let [r, g, b] = finding.colour;
    let square = format!("<rect width=\"10\" height=\"10\" rx=\"2\" fill=\"#{r:02x}{g:02x}{b:02x}\"/>");
    format!("<svg class=\"swatch\" viewBox=\"0 0 10 10\" aria-hidden=\"true\">{square}</svg>")
}
