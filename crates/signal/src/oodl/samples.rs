//! Samples from the rows of a source: gaps filled, windows cut, in constant memory.

use offprint_core::{Error, Result, Rows, Source};
use std::collections::VecDeque;

/// Cuts the rows of a source into samples.
///
/// A sample is `window` consecutive rows of C columns (sensors), column after column: N = window · C numbers. The next
/// one starts `stride` rows later. With a window of 1 each row is a sample.
pub struct Samples {
    source: Source,
    rows: Filled,
    window: usize,
    stride: usize,
    /// The rows of the current window; at most max(window, stride) are held.
    held: VecDeque<Vec<f64>>,
    started: bool,
}

impl Samples {
    /// Opens `source`. `fill` is the longest gap of missing values per column that is bridged linearly.
    ///
    /// # Errors
    /// A source that cannot be opened; a window or stride of 0.
    pub fn open(source: &Source, window: usize, stride: usize, fill: usize) -> Result<Self> {
        for (name, value) in [("window", window), ("stride", stride)] {
            if value == 0 {
                return Err(Error::parameter(name, 0, "at least 1"));
            }
        }
        let rows = Filled {
            rows: source.rows()?,
            fill,
            ahead: VecDeque::new(),
            spare: Vec::new(),
            before: Vec::new(),
            gap: Vec::new(),
            given: 0,
        };
        Ok(Self { source: source.clone(), rows, window, stride, held: VecDeque::new(), started: false })
    }

    /// The columns' names, if the source tells them.
    pub fn names(&self) -> &[String] {
        self.rows.rows.names()
    }

    /// Reads the next sample into `sample`; `false` at the end. Rows that do not fill a last window are left out.
    ///
    /// # Errors
    /// Whatever the source says, and values that are missing beyond `fill` or infinite.
    pub fn next_sample(&mut self, sample: &mut Vec<f64>) -> Result<bool> {
        sample.clear();
        if self.started {
            let held = self.held.len();
            for row in self.held.drain(..self.stride.min(held)) {
                self.rows.spare.push(row);
            }
            for _ in held..self.stride {
                match self.rows.next_row(&self.source)? {
                    Some(row) => self.rows.spare.push(row),
                    None => return Ok(false),
                }
            }
        }
        self.started = true;
        while self.held.len() < self.window {
            match self.rows.next_row(&self.source)? {
                Some(row) => self.held.push_back(row),
                None => return Ok(false),
            }
        }
        for column in 0..self.held[0].len() {
            sample.extend(self.held.iter().map(|row| row[column]));
        }
        Ok(true)
    }
}

/// Rows with short gaps bridged: reads ahead as far as the longest gap and no farther.
struct Filled {
    rows: Rows,
    fill: usize,
    ahead: VecDeque<Vec<f64>>,
    /// Rows whose memory is used again.
    spare: Vec<Vec<f64>>,
    /// The last row given, gaps filled.
    before: Vec<f64>,
    /// How many values in a row were missing up to the last row given, per column.
    gap: Vec<usize>,
    given: usize,
}

impl Filled {
    fn read(&mut self) -> Result<bool> {
        let mut row = self.spare.pop().unwrap_or_default();
        let found = self.rows.next_row(&mut row)?;
        if found {
            self.ahead.push_back(row);
        } else {
            self.spare.push(row);
        }
        Ok(found)
    }

    fn next_row(&mut self, source: &Source) -> Result<Option<Vec<f64>>> {
        if self.ahead.is_empty() && !self.read()? {
            return Ok(None);
        }
        let here = self.given;
        if self.ahead[0].iter().any(|x| !x.is_finite()) {
            self.fill_front(source)?;
        } else {
            self.gap.clear();
        }
        let row = self.ahead.pop_front().expect("read above");
        self.before.clear();
        self.before.extend_from_slice(&row);
        self.given = here + 1;
        Ok(Some(row))
    }

    /// Fills the gaps of the front row on the straight lines between the values before and after them.
    fn fill_front(&mut self, source: &Source) -> Result<()> {
        let here = self.given;
        let columns = self.ahead[0].len();
        self.gap.resize(columns, 0);
        for column in 0..columns {
            let value = self.ahead[0][column];
            if value.is_finite() {
                self.gap[column] = 0;
                continue;
            }
            if value.is_infinite() || self.fill == 0 {
                return Err(source.not_finite(here, Some(column), value));
            }
            let named = self.rows.names().get(column).map_or(String::new(), |name| format!(" ({name})"));
            let bad = |problem: &str| {
                let gap =
                    format!("column {column}{named}: the gap of missing values around row {here} (counted from 0)");
                Err(Error::input(source.to_string(), format!("{gap} {problem}")))
            };
            if here == 0 {
                return bad("begins with the first row, so there is nothing to bridge it from");
            }
            // The gap so far counts too: bridging goes on from the values filled in before.
            let mut after = 1;
            loop {
                if self.gap[column] + after > self.fill {
                    return bad(&format!("is longer than {} rows", self.fill));
                }
                if after == self.ahead.len() && !self.read()? {
                    return bad("reaches the last row, so there is nothing to bridge it to");
                }
                if !self.ahead[after][column].is_nan() {
                    break;
                }
                after += 1;
            }
            let (from, to) = (self.before[column], self.ahead[after][column]);
            if to.is_infinite() {
                return Err(source.not_finite(here + after, Some(column), to));
            }
            self.ahead[0][column] = from + (to - from) / (after as f64 + 1.0);
            self.gap[column] += 1;
        }
        Ok(())
    }
}
