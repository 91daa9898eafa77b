//! Tables: named columns of numbers or words, with units.

use serde::Serialize;
use std::fmt::Write;

/// A table of a report. All columns have the same number of rows.
#[derive(Debug, Clone, Serialize)]
pub struct Table {
    /// Short name, unique in its report; also the stem of its CSV file.
    pub name: String,
    /// One sentence: what a row is.
    pub caption: String,
    /// The columns, left to right.
    pub columns: Vec<Column>,
}

/// One column of a [`Table`].
#[derive(Debug, Clone, Serialize)]
pub struct Column {
    /// The quantity's name.
    pub name: String,
    /// Its unit; empty for pure numbers and words.
    pub unit: String,
    /// The values, top to bottom.
    pub values: Values,
}

/// The values of a [`Column`].
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Values {
    /// Real numbers; NaN is an empty cell.
    Numbers(Vec<f64>),
    /// Integers, exact to 64 bits.
    Integers(Vec<i64>),
    /// Words.
    Words(Vec<String>),
}

impl Table {
    /// An empty table.
    pub fn new(name: impl Into<String>, caption: impl Into<String>) -> Self {
        Self { name: name.into(), caption: caption.into(), columns: Vec::new() }
    }

    /// Adds a column of real numbers with a unit ("" for none).
    pub fn numbers(
        self,
        name: impl Into<String>,
        unit: impl Into<String>,
        values: impl IntoIterator<Item = f64>,
    ) -> Self {
        self.column(name, unit, Values::Numbers(values.into_iter().collect()))
    }

    /// Adds a column of integers with a unit ("" for none).
    pub fn integers(
        self,
        name: impl Into<String>,
        unit: impl Into<String>,
        values: impl IntoIterator<Item = i64>,
    ) -> Self {
        self.column(name, unit, Values::Integers(values.into_iter().collect()))
    }

    /// Adds a column of words.
    pub fn words<S: Into<String>>(self, name: impl Into<String>, values: impl IntoIterator<Item = S>) -> Self {
        self.column(name, "", Values::Words(values.into_iter().map(Into::into).collect()))
    }

    fn column(mut self, name: impl Into<String>, unit: impl Into<String>, values: Values) -> Self {
        self.columns.push(Column { name: name.into(), unit: unit.into(), values });
        self
    }

    /// The number of rows; zero for a table without columns.
    pub fn rows(&self) -> usize {
        self.columns.first().map_or(0, |c| c.values.len())
    }

    /// Whether every column has as many rows as the first.
    pub fn is_rectangular(&self) -> bool {
        self.columns.iter().all(|c| c.values.len() == self.rows())
    }

    /// The cell in `row` of `column` as text, numbers to `digits` significant digits.
    pub fn cell(&self, row: usize, column: usize, digits: usize) -> String {
        match &self.columns[column].values {
            Values::Numbers(v) => v.get(row).map_or(String::new(), |&x| significant(x, digits)),
            Values::Integers(v) => v.get(row).map_or(String::new(), i64::to_string),
            Values::Words(v) => v.get(row).cloned().unwrap_or_default(),
        }
    }

    /// The table as CSV: a header row `name (unit)`, then the values in full precision.
    pub fn to_csv(&self) -> String {
        let mut out = csv::Writer::from_writer(Vec::new());
        let header = self.columns.iter().map(Column::heading);
        out.write_record(header).expect("writing to memory");
        for row in 0..self.rows() {
            let cells = (0..self.columns.len()).map(|c| self.cell(row, c, 17));
            out.write_record(cells).expect("writing to memory");
        }
        String::from_utf8(out.into_inner().expect("writing to memory")).expect("CSV of UTF-8 cells")
    }
}

impl Column {
    /// The heading: `name (unit)`, or the bare name of a pure number.
    pub fn heading(&self) -> String {
        if self.unit.is_empty() { self.name.clone() } else { format!("{} ({})", self.name, self.unit) }
    }
}

impl Values {
    /// The number of values.
    pub fn len(&self) -> usize {
        match self {
            Self::Numbers(v) => v.len(),
            Self::Integers(v) => v.len(),
            Self::Words(v) => v.len(),
        }
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// `x` to `digits` significant digits as a person would write it: plain between 10⁻⁴ and 10⁶, with an exponent
/// elsewhere, no trailing zeros; whole numbers below a million exactly; NaN is empty.
pub fn significant(x: f64, digits: usize) -> String {
    if x.is_nan() {
        return String::new();
    }
    if x == 0.0 || x.is_infinite() {
        return format!("{x}");
    }
    if digits >= 17 {
        return format!("{x:?}");
    }
    // Counts are exact: 11814 values looked at are not 11810.
    if x.fract() == 0.0 && x.abs() < 1e6 {
        return format!("{x}");
    }
    let rounded = format!("{:.*e}", digits.max(1) - 1, x);
    let (mantissa, exponent) = rounded.split_once('e').expect("exponent form");
    let exponent: i32 = exponent.parse().expect("exponent form");
    if (-4..=5).contains(&exponent) {
        let decimals = (digits as i32 - 1 - exponent).max(0) as usize;
        let value: f64 = rounded.parse().expect("exponent form");
        let mut text = format!("{value:.decimals$}");
        trim_zeros(&mut text);
        text
    } else {
        let mut text = mantissa.to_owned();
        trim_zeros(&mut text);
        write!(text, "e{exponent}").expect("writing to memory");
        text
    }
}

fn trim_zeros(text: &mut String) {
    if text.contains('.') {
        text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn significant_writes_numbers_as_people_do() {
        for (x, text) in [
            (0.0, "0"),
            (1.0, "1"),
            (1234567.0, "1.235e6"),
            (999.96, "1000"),
            (11814.0, "11814"),
            (0.012346, "0.01235"),
            (-0.5, "-0.5"),
            (3.0e-9, "3e-9"),
            (100000.0, "100000"),
            (f64::NAN, ""),
        ] {
            assert_eq!(significant(x, 4), text, "{x}");
        }
    }

    #[test]
    fn csv_carries_units_and_quotes() {
        let table = Table::new("t", "").numbers("time", "s", [0.1, f64::NAN]).words("name", ["a,b", "c"]);
        assert_eq!(table.to_csv(), "time (s),name\n0.1,\"a,b\"\n,c\n");
        assert!(table.is_rectangular());
    }
}
