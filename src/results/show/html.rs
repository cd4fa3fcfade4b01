//! Pages as one self-contained HTML document: no script, nothing from elsewhere.

use std::fmt::Write;

use super::text::is_numeric;
use super::{Node, Page, Table};
use crate::results::html::escaped;

/// What a page looks like; colours follow the reader's preference for light or dark.
const STYLE: &str = "\
:root{color-scheme:light dark;--line:#8884;--dim:#888}\
body{font:15px/1.45 system-ui,sans-serif;max-width:72rem;margin:1.5rem auto;padding:0 1rem}\
h1{font-size:1.3rem;margin:2rem 0 .5rem}h2{font-size:1rem;margin:1.2rem 0 .3rem}\
section+section{border-top:1px solid var(--line);margin-top:2rem}\
dl{display:grid;grid-template-columns:max-content 1fr;gap:.1rem 1rem;margin:0}dt{color:var(--dim)}dd{margin:0;overflow-wrap:anywhere}\
.wide{overflow-x:auto}table{border-collapse:collapse}th,td{text-align:left;padding:.2rem .8rem .2rem 0;border-bottom:1px solid var(--line);vertical-align:top}\
th{font-weight:600}.n{text-align:right;font-variant-numeric:tabular-nums}\
.colour{display:inline-block;width:.9em;height:.9em;border:1px solid var(--line);margin-right:.4em;vertical-align:-.1em}\
ul{list-style:none;margin:0;padding-left:1.2rem}summary{cursor:pointer}small{color:var(--dim)}.note{color:var(--dim)}";

/// The pages as one document, UTF-8.
pub fn html(pages: &[Page]) -> String {
    let title = pages.first().map_or_else(String::new, |page| escaped(&format!("{}: {}", page.file, page.title)));
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
    );
    pages.iter().for_each(|page| write_page(&mut out, page));
    out.push_str("</body>\n</html>\n");
    out
}

fn write_page(out: &mut String, page: &Page) {
    let _ = write!(out, "<section>\n<h1>{} <small>{}</small></h1>\n<dl>\n", escaped(&page.title), escaped(&page.file));
    for fact in &page.facts {
        let _ = writeln!(out, "<dt>{}</dt><dd>{}</dd>", escaped(fact.name), escaped(&fact.value));
    }
    out.push_str("</dl>\n");
    page.tables.iter().for_each(|table| write_table(out, table));
    if let Some(content) = &page.content {
        out.push_str("<h2>content</h2>\n<ul>\n");
        write_node(out, content);
        out.push_str("</ul>\n");
    }
    for note in &page.notes {
        let _ = writeln!(out, "<p class=\"note\">note: {}</p>", escaped(note));
    }
    out.push_str("</section>\n");
}

fn write_table(out: &mut String, table: &Table) {
    let numeric: Vec<bool> = (0..table.columns.len()).map(|n| is_numeric(table.rows.iter().map(|row| row[n].as_str()))).collect();
    let class = |n: usize| if numeric[n] { " class=\"n\"" } else { "" };
    let _ = write!(out, "<h2>{}</h2>\n<div class=\"wide\"><table>\n<tr>", escaped(table.title));
    for (n, column) in table.columns.iter().enumerate() {
        let _ = write!(out, "<th{}>{}</th>", class(n), escaped(column));
    }
    out.push_str("</tr>\n");
    for row in &table.rows {
        out.push_str("<tr>");
        for (n, cell) in row.iter().enumerate() {
            let swatch =
                if is_colour(cell) { format!("<span class=\"colour\" style=\"background:{cell}\"></span>") } else { String::new() };
            let _ = write!(out, "<td{}>{swatch}{}</td>", class(n), escaped(cell));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</table></div>\n");
}

fn is_colour(cell: &str) -> bool {
    cell.strip_prefix('#').is_some_and(|digits| digits.len() == 6 && digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn write_node(out: &mut String, node: &Node) {
    let small = |code: &Option<String>| code.as_ref().map_or_else(String::new, |code| format!(" <small>{}</small>", escaped(code)));
    let value = if node.value.is_empty() { String::new() } else { format!(": <b>{}</b>{}", escaped(&node.value), small(&node.value_code)) };
    let line = format!("{}{}{value}", escaped(&node.name), small(&node.code));
    if node.children.is_empty() {
        let _ = writeln!(out, "<li>{line}</li>");
        return;
    }
    let _ = writeln!(out, "<li><details open><summary>{line}</summary>\n<ul>");
    node.children.iter().for_each(|child| write_node(out, child));
    out.push_str("</ul></details></li>\n");
}
