//! A matrix of records, and its product with a vector by tasks of equal work.

use super::input::Input;
use super::instructions::Instructions;
use super::record::Record;
use ndarray::Array2;
use rayon::prelude::*;
use std::ops::Range;

/// How the rows of a matrix are shared out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// Equal numbers of records for each task, wherever rows end. Tasks are set by the size of the matrix, so the result
    /// does not depend on how many threads take them.
    Tasks,
    /// This many equal runs of rows: what a task-centric split is better than where rows differ in length.
    Rows(usize),
}

/// A matrix that multiplies vectors.
pub trait Gemv: Send + Sync {
    /// Rows and columns.
    fn shape(&self) -> (usize, usize);

    /// Bytes that a product reads of it, indices and row starts included.
    fn bytes(&self) -> usize;

    /// The matrix written out: what all products are measured by.
    fn dequant(&self) -> Array2<f32>;

    /// The same matrix in memory of its own.
    fn copy(&self) -> Box<dyn Gemv>;

    /// y = Ŵ x on the threads of the current pool.
    ///
    /// # Panics
    /// If `x` has not as many values as the matrix has columns, or `y` not as many as it has rows.
    fn multiply_by(&self, x: &Input, y: &mut [f32], split: Split, with: Instructions);

    /// y = Ŵ x with the widest instructions of this machine, in tasks of equal work.
    fn multiply(&self, x: &Input, y: &mut [f32]) {
        self.multiply_by(x, y, Split::Tasks, Instructions::best());
    }
}

/// Refuses vectors that do not fit.
pub(super) fn check_fits(shape: (usize, usize), x: &Input, y: &[f32]) {
    assert_eq!((y.len(), x.len()), shape, "a product needs as many results as rows and as many values as columns");
}

/// Rows of records.
#[derive(Debug, Clone)]
pub struct Records<R> {
    columns: usize,
    records: Vec<R>,
    /// Where each row starts, and where the last ends.
    starts: Vec<u32>,
    /// Whether row starts belong to the format because rows differ in length.
    indexed: bool,
    tasks: Vec<Task>,
}

/// A run of records, and the rows that start in it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Task {
    records: Range<usize>,
    rows: Range<usize>,
}

/// The most tasks that a product is cut into, and the least work worth a task of its own.
const MOST_TASKS: usize = 32;
const TASK_BYTES: usize = 1 << 16;

impl<R: Record> Records<R> {
    /// From the records of each row; `indexed` says whether rows may differ in length.
    pub(super) fn new(columns: usize, rows: impl IntoIterator<Item = Vec<R>>, indexed: bool) -> Self {
        let (mut records, mut starts) = (Vec::new(), vec![0]);
        for row in rows {
            records.extend(row);
            starts.push(records.len() as u32);
        }
        let count = (size_of_val(records.as_slice()) / TASK_BYTES).clamp(1, MOST_TASKS);
        let tasks = equal_tasks(&starts, count);
        Self { columns, records, starts, indexed, tasks }
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.starts.len() - 1
    }

    /// The records of row `row`.
    pub fn row(&self, row: usize) -> &[R] {
        &self.records[self.starts[row] as usize..self.starts[row + 1] as usize]
    }

    /// The inner product of `x` with the records of a task, row by row; gives the part that belongs to a row which
    /// started in an earlier task.
    fn run(&self, task: &Task, y: &mut [f32], x: &Input, with: Instructions) -> f32 {
        let first = self.starts[task.rows.start] as usize;
        let end = task.records.end;
        let head = task.records.start..first.min(end);
        for (row, y) in task.rows.clone().zip(y) {
            let records = self.starts[row] as usize..(self.starts[row + 1] as usize).min(end);
            *y = R::dot(&self.records[records], 0, x, with);
        }
        if head.is_empty() {
            return 0.0;
        }
        let place = head.start - self.starts[task.rows.start - 1] as usize;
        R::dot(&self.records[head], place, x, with)
    }
}

/// Cuts the records into `count` runs of equal length (or one more).
fn equal_tasks(starts: &[u32], count: usize) -> Vec<Task> {
    let rows = starts.len() - 1;
    let total = starts[rows] as usize;
    let at = |task: usize| task * total / count;
    // A row belongs to the task in which it starts; empty rows at the end to the last.
    let first_row = |task: usize| {
        if task == count { rows } else { starts[..rows].partition_point(|&start| (start as usize) < at(task)) }
    };
    (0..count)
        .map(|task| Task { records: at(task)..at(task + 1), rows: first_row(task)..first_row(task + 1) })
        .collect()
}

/// Cuts the rows into `count` runs of equal length (or one more).
fn equal_rows(starts: &[u32], count: usize) -> Vec<Task> {
    let rows = starts.len() - 1;
    let count = count.clamp(1, rows.max(1));
    let at = |task: usize| task * rows / count;
    (0..count)
        .map(|task| {
            let rows = at(task)..at(task + 1);
            Task { records: starts[rows.start] as usize..starts[rows.end] as usize, rows }
        })
        .collect()
}

impl<R: Record> Gemv for Records<R> {
    fn shape(&self) -> (usize, usize) {
        (self.rows(), self.columns)
    }

    fn bytes(&self) -> usize {
        let starts = if self.indexed { size_of_val(self.starts.as_slice()) } else { 0 };
        size_of_val(self.records.as_slice()) + starts
    }

    fn dequant(&self) -> Array2<f32> {
        let mut dense = Array2::zeros(self.shape());
        for (row, mut dense) in dense.rows_mut().into_iter().enumerate() {
            let dense = dense.as_slice_mut().expect("made in C order");
            self.row(row).iter().enumerate().for_each(|(place, record)| record.expand(place, dense));
        }
        dense
    }

    fn copy(&self) -> Box<dyn Gemv> {
        Box::new(self.clone())
    }

    fn multiply_by(&self, x: &Input, y: &mut [f32], split: Split, with: Instructions) {
        check_fits(self.shape(), x, y);
        let by_rows;
        let tasks = match split {
            Split::Tasks => &self.tasks,
            Split::Rows(count) => {
                by_rows = equal_rows(&self.starts, count);
                &by_rows
            }
        };
        if let [task] = tasks.as_slice() {
            self.run(task, y, x, with);
            return;
        }
        let mut rest = &mut *y;
        let mut parts: Vec<(&Task, &mut [f32], f32)> = tasks
            .iter()
            .map(|task| {
                let (own, others) = std::mem::take(&mut rest).split_at_mut(task.rows.len());
                rest = others;
                (task, own, 0.0)
            })
            .collect();
        parts.par_iter_mut().with_max_len(1).for_each(|(task, own, head)| *head = self.run(task, own, x, with));
        // A row that goes on in later tasks gets its parts in their order.
        let heads: Vec<(usize, f32)> = parts.iter().map(|(task, _, head)| (task.rows.start, *head)).collect();
        for (row, head) in heads.into_iter().filter(|&(_, head)| head != 0.0) {
            y[row - 1] += head;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn tasks_cover_records_and_rows_once_and_in_order(
            lengths in prop::collection::vec(0u32..9, 1..30),
            count in 1usize..40,
        ) {
            let starts: Vec<u32> = std::iter::once(0)
                .chain(lengths.iter().scan(0, |at, n| { *at += n; Some(*at) }))
                .collect();
            let total = starts[lengths.len()] as usize;
            for tasks in [equal_tasks(&starts, count), equal_rows(&starts, count)] {
                let (mut record, mut row) = (0, 0);
                for task in &tasks {
                    prop_assert_eq!((task.records.start, task.rows.start), (record, row));
                    // Every row of a task starts among its records (or, empty, at their end).
                    for r in task.rows.clone() {
                        prop_assert!((task.records.start..=task.records.end).contains(&(starts[r] as usize)));
                    }
                    (record, row) = (task.records.end, task.rows.end);
                }
                prop_assert_eq!((record, row), (total, lengths.len()));
            }
            let sizes: Vec<usize> = equal_tasks(&starts, count).iter().map(|t| t.records.len()).collect();
            prop_assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1);
        }
    }
}
