//! Columns of text, aligned with blanks.

use crate::render::visible;

/// Returns a header and rows as lines; columns are `gap` blanks apart, and nothing follows the last word of a line.
pub(super) fn aligned(header: &[&str], rows: &[Vec<String>], gap: usize) -> String {
    let header = header.iter().map(|&title| title.to_owned()).collect();
    let lines: Vec<Vec<String>> = std::iter::once(header)
        .chain(
            rows.iter()
                .map(|row| row.iter().map(|cell| visible(cell)).collect()),
        )
        .collect();
    let n_columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..n_columns)
        .map(|column| {
            let cells = lines.iter().filter_map(|line| line.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let mut out = String::new();
    for line in &lines {
        let cells = line.iter().zip(&widths);
        let text: String = cells
            .map(|(cell, width)| format!("{cell:width$}{:gap$}", ""))
            .collect();
        out.push_str(text.trim_end());
        out.push('\n');
    }
    out
}
