//! Tables for people: columns padded as docker pads them. And what `--format` may ask for instead of one.

use serde_json::{Map, Value};

use super::template::Template;
use crate::report::Failure;

/// Narrowest column and the gap between two; docker's tabwriter has the same.
const MIN_WIDTH: usize = 10;
const GAP: usize = 3;

/// Returns the rows as a table, the first one being the heading. The last column is not padded.
pub(crate) fn render(rows: &[Vec<String>]) -> String {
    let n_columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let longest = rows
            .iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max();
        (longest.unwrap_or(0) + GAP).max(MIN_WIDTH)
    };
    let widths: Vec<usize> = (0..n_columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            if column + 1 == row.len() {
                out.push_str(cell);
            } else {
                out.push_str(&format!("{cell:width$}", width = widths[column]));
            }
        }
        out.push('\n');
    }
    out
}

/// Returns a text cut to `max` characters, the last being an ellipsis where something is missing.
pub(crate) fn ellipsis(text: &str, max: usize) -> String {
    match text.chars().count() > max {
        true => text.chars().take(max - 1).chain(['…']).collect(),
        false => text.to_owned(),
    }
}

/// What a listing looks like.
#[derive(Debug)]
pub(crate) enum Format {
    /// The command's own table.
    Table,
    /// One JSON object a line.
    Json,
    /// A template for each row; with headings above, where `table` stands before it.
    Template {
        /// The template.
        template: Template,
        /// Whether columns are padded and have headings.
        table: bool,
    },
}

impl Format {
    /// Parses `--format`. In templates `\t` and `\n` stand for what they mean, as with docker.
    pub(crate) fn parse(text: Option<&str>) -> Result<Self, Failure> {
        match text {
            None | Some("" | "table") => Ok(Self::Table),
            Some("json") => Ok(Self::Json),
            Some(text) => {
                let (table, rest) = match text.strip_prefix("table ") {
                    Some(rest) => (true, rest.trim_start()),
                    None => (false, text),
                };
                let template = Template::parse(&rest.replace("\\t", "\t").replace("\\n", "\n"))?;
                Ok(Self::Template { template, table })
            }
        }
    }

    /// Returns the listing of `rows`, whose fields stand in a template's words; `columns` are the table's: heading and
    /// field name. A template's table gets its headings from `headings`: field name to heading.
    pub(crate) fn list(
        &self,
        rows: Vec<Map<String, Value>>,
        columns: &[(&str, &str)],
        headings: &[(&str, &str)],
    ) -> Result<String, Failure> {
        match self {
            Self::Table => {
                let cell = |row: &Map<String, Value>, field: &str| {
                    row.get(field)
                        .and_then(Value::as_str)
                        .unwrap_or_default()
                        .to_owned()
                };
                let head = columns.iter().map(|(heading, _)| (*heading).to_owned()).collect();
                let body = rows
                    .iter()
                    .map(|row| columns.iter().map(|(_, field)| cell(row, field)).collect());
                Ok(render(&std::iter::once(head).chain(body).collect::<Vec<_>>()))
            }
            Self::Json => Ok(rows
                .into_iter()
                .map(|row| format!("{}\n", Value::Object(row)))
                .collect()),
            Self::Template { template, table } => {
                let mut lines = Vec::new();
                if *table {
                    let head = headings
                        .iter()
                        .map(|(field, heading)| ((*field).to_owned(), Value::from(*heading)));
                    lines.push(template.render(&Value::Object(head.collect()))?);
                }
                for row in rows {
                    lines.push(template.render(&Value::Object(row))?);
                }
                match table {
                    true => Ok(render(
                        &lines
                            .iter()
                            .map(|line| line.split('\t').map(str::to_owned).collect())
                            .collect::<Vec<_>>(),
                    )),
                    false => Ok(lines.into_iter().map(|line| line + "\n").collect()),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_padded_but_the_last() {
        let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>();
        let table = render(&[row(&["A", "LONG HEADING", "C"]), row(&["größe", "x", "end"])]);
        assert_eq!(
            table,
            "A         LONG HEADING   C\ngröße     x              end\n"
        );
    }

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(ellipsis("abcd", 4), "abcd");
        assert_eq!(ellipsis("abcde", 4), "abc…");
    }
}
