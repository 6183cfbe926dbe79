//! What a statement answers: columns and rows, as data and as text for people. Knows no statement.

use serde_json::Value;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    pub columns: Vec<String>,
    pub rows: Vec<Vec<Value>>,
}

impl Table {
    /// A JSON object on a line for each row.
    pub fn to_json_lines(&self) -> String {
        let mut text = String::new();
        for row in &self.rows {
            let cells = self.columns.iter().cloned().zip(row.iter().cloned());
            text.push_str(&Value::Object(cells.collect()).to_string());
            text.push('\n');
        }
        text
    }

    /// With lines around the cells, as MySQL's client draws it.
    pub fn to_text(&self) -> String {
        let header: Vec<String> = self.columns.iter().map(|name| printable(name)).collect();
        let rows: Vec<Vec<String>> =
            self.rows.iter().map(|row| row.iter().map(cell).collect()).collect();
        let widths: Vec<usize> = (0..header.len())
            .map(|at| {
                let cells = rows.iter().filter_map(|row| row.get(at)).chain(header.get(at));
                cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
            })
            .collect();
        let mut text = String::new();
        let line = widths.iter().map(|width| "-".repeat(width + 2)).collect::<Vec<_>>().join("+");
        let line = format!("+{line}+\n");
        text.push_str(&line);
        push_row(&mut text, &header, &widths);
        text.push_str(&line);
        for row in &rows {
            push_row(&mut text, row, &widths);
        }
        if !rows.is_empty() {
            text.push_str(&line);
        }
        text
    }
}

fn push_row(text: &mut String, cells: &[String], widths: &[usize]) {
    for (cell, width) in cells.iter().zip(widths) {
        text.push_str("| ");
        text.push_str(cell);
        text.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count()) + 1));
    }
    text.push_str("|\n");
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::String(text) => printable(text),
        other => other.to_string(),
    }
}

/// On one line, and without what a terminal would obey.
fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|c| match c {
            '\n' => vec!['\\', 'n'],
            '\t' => vec!['\\', 't'],
            c if c.is_control() => vec!['\u{fffd}'],
            c => vec![c],
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_table_is_drawn_with_lines() {
        let columns = ["id", "text"].map(str::to_owned).to_vec();
        let rows = vec![vec![json!(1), json!("größe\nx")], vec![json!(22), Value::Null]];
        let table = Table { columns: columns.clone(), rows };
        let lines = "{\"id\":1,\"text\":\"größe\\nx\"}\n{\"id\":22,\"text\":null}\n";
        assert_eq!(table.to_json_lines(), lines);
        insta::assert_snapshot!(table.to_text(), @r#"
        +----+----------+
        | id | text     |
        +----+----------+
        | 1  | größe\nx |
        | 22 | NULL     |
        +----+----------+
        "#);
        insta::assert_snapshot!(Table { columns, rows: vec![] }.to_text(), @r#"
        +----+------+
        | id | text |
        +----+------+
        "#);
    }
}
