//! Columns of text.

use super::message::plain;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    Left,
    Right,
}

/// Rows under a heading, each column as wide as its widest cell, two spaces apart.
pub fn text<const N: usize>(head: [(&str, Align); N], rows: impl Iterator<Item = [String; N]>) -> String {
    let names = head.map(|(name, _)| name.to_owned());
    let rows: Vec<_> = std::iter::once(names).chain(rows.map(|row| row.map(|cell| plain(&cell)))).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let gap = if column == 0 { "" } else { "  " };
            let width = widths[column];
            line.push_str(&match head[column].1 {
                Align::Left => format!("{gap}{cell:width$}"),
                Align::Right => format!("{gap}{cell:>width$}"),
            });
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_cells_stay_on_their_line() {
        let rows = [["a".into(), "1".into()], ["bü\n".into(), "100".into()]];
        let text = text([("NAME", Align::Left), ("N", Align::Right)], rows.into_iter());
        assert_eq!(text, "NAME    N\na       1\nbü\u{fffd}   100\n");
    }
}
