//! Words on the terminal: styles only where somebody looks, and no panic when nobody reads on.

use console::Style;
use serde_json::Value;
use std::fmt::Display;
use std::io::{self, Write};

/// Writes to standard output. A reader that went away (`offprint papers | head`) is no error.
pub fn out(text: &str) {
    let mut stdout = io::stdout().lock();
    if stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Writes one JSON document to standard output.
pub fn json(value: &Value) {
    out(&format!("{value:#}\n"));
}

/// Width of the terminal in characters, within what reads well.
pub fn width() -> usize {
    let (_, columns) = console::Term::stdout().size();
    usize::from(columns).clamp(40, 110)
}

/// Styles for standard output, or for standard error.
pub fn style(error: bool) -> Styles {
    Styles { error, on: if error { console::colors_enabled_stderr() } else { console::colors_enabled() } }
}

/// Text styles; plain where colours are not wanted.
#[derive(Clone, Copy)]
pub struct Styles {
    error: bool,
    /// Whether control codes are printed at all.
    pub on: bool,
}

impl Styles {
    fn apply(self, style: Style, text: impl Display) -> String {
        let style = if self.error { style.for_stderr() } else { style };
        style.apply_to(text).to_string()
    }

    /// Names, headings.
    pub fn bold(self, text: impl Display) -> String {
        self.apply(Style::new().bold(), text)
    }

    /// Side remarks.
    pub fn dim(self, text: impl Display) -> String {
        self.apply(Style::new().dim(), text)
    }

    /// What holds.
    pub fn green(self, text: impl Display) -> String {
        self.apply(Style::new().green(), text)
    }

    /// What needs attention.
    pub fn yellow(self, text: impl Display) -> String {
        self.apply(Style::new().yellow(), text)
    }

    /// What failed.
    pub fn red(self, text: impl Display) -> String {
        self.apply(Style::new().red().bold(), text)
    }
}

/// `text` in lines of at most `width` characters, each but the first behind `indent` spaces.
pub fn wrap(text: &str, width: usize, indent: usize) -> String {
    let (mut lines, mut line) = (Vec::new(), String::new());
    for word in text.split_whitespace() {
        if !line.is_empty() && indent + line.chars().count() + 1 + word.chars().count() > width {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines.join(&format!("\n{}", " ".repeat(indent)))
}

/// Rows of cells in aligned columns, two spaces apart; numbers to the right where `right` says so.
pub fn columns(rows: &[Vec<String>], right: &[bool], indent: usize) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let length = |cell: &str| console::measure_text_width(cell);
    let widths: Vec<usize> =
        (0..columns).map(|c| rows.iter().filter_map(|r| r.get(c)).map(|s| length(s)).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = " ".repeat(indent);
        for (c, cell) in row.iter().enumerate() {
            let padding = " ".repeat(widths[c] - length(cell));
            if right.get(c).copied().unwrap_or(false) {
                line += &padding;
                line += cell;
            } else {
                line += cell;
                line += &padding;
            }
            line += "  ";
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrapped_lines_fit_and_keep_every_word() {
        let text = "one two three four five six seven";
        let wrapped = wrap(text, 14, 2);
        assert!(wrapped.lines().all(|l| l.chars().count() <= 14), "{wrapped}");
        assert_eq!(wrapped.split_whitespace().collect::<Vec<_>>(), text.split_whitespace().collect::<Vec<_>>());
    }

    #[test]
    fn columns_align() {
        let rows = vec![vec!["a".into(), "1".into()], vec!["long".into(), "22".into()]];
        assert_eq!(columns(&rows, &[false, true], 1), " a      1\n long  22\n");
    }
}
