//! A page as text for a terminal.

use std::fmt::Write;

use super::{Node, Page, Table};

/// The page as text; codes are dim where `colour` is set.
pub fn text(page: &Page, colour: bool) -> String {
    let mut out = format!("{}: {}\n", page.file, page.title);
    let width = page.facts.iter().map(|fact| fact.name.chars().count()).max().unwrap_or(0);
    for fact in &page.facts {
        let _ = writeln!(out, "  {:<width$}  {}", fact.name, fact.value);
    }
    for table in &page.tables {
        out.push('\n');
        write_table(&mut out, table);
    }
    if let Some(content) = &page.content {
        out.push('\n');
        write_node(&mut out, content, 1, colour);
    }
    for note in &page.notes {
        let _ = write!(out, "\n  note: {note}");
    }
    if !page.notes.is_empty() {
        out.push('\n');
    }
    out
}

/// Columns as wide as their longest cell, those of numbers to the right.
fn write_table(out: &mut String, table: &Table) {
    let length = |cell: &str| cell.chars().count();
    let cells = |n: usize| table.rows.iter().map(move |row| row[n].as_str());
    let width = |n: usize| cells(n).map(length).chain([length(table.columns[n])]).max().unwrap_or(0);
    let columns: Vec<(usize, bool)> = (0..table.columns.len()).map(|n| (width(n), is_numeric(cells(n)))).collect();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for (cell, &(width, numeric)) in cells.zip(&columns) {
            let _ = if numeric { write!(text, "  {cell:>width$}") } else { write!(text, "  {cell:<width$}") };
        }
        out.push_str(text.trim_end());
        out.push('\n');
    };
    line(&mut table.columns.iter().copied());
    table.rows.iter().for_each(|row| line(&mut row.iter().map(String::as_str)));
}

/// Whether a column holds numbers and nothing else.
pub(super) fn is_numeric<'a>(mut cells: impl Iterator<Item = &'a str>) -> bool {
    cells.all(|cell| cell.is_empty() || cell == "(none)" || cell.parse::<f64>().is_ok())
}

fn write_node(out: &mut String, node: &Node, depth: usize, colour: bool) {
    let dim = |code: &Option<String>| match code {
        Some(code) if colour => format!(" \u{1b}[2m({code})\u{1b}[0m"),
        Some(code) => format!(" ({code})"),
        None => String::new(),
    };
    let value = if node.value.is_empty() { String::new() } else { format!(": {}{}", node.value, dim(&node.value_code)) };
    let _ = writeln!(out, "{:indent$}{}{}{value}", "", node.name, dim(&node.code), indent = 2 * depth);
    node.children.iter().for_each(|child| write_node(out, child, depth + 1, colour));
}
