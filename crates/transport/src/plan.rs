//! Transport plans as sparse columns.

use ndarray::{Array1, Array2, ArrayView1, ArrayView2};

/// A plan `T ≥ 0` of shape (rows, columns) that keeps only its non-zeros, column by column (compressed sparse columns).
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    rows: usize,
    /// Where each column begins in `indices` and `masses`; one more than there are columns.
    starts: Vec<usize>,
    indices: Vec<usize>,
    masses: Vec<f64>,
}

impl Plan {
    /// A plan of `rows` rows without columns yet, with room for `entries` non-zeros.
    pub fn with_rows(rows: usize, entries: usize) -> Self {
        Self { rows, starts: vec![0], indices: Vec::with_capacity(entries), masses: Vec::with_capacity(entries) }
    }

    /// Appends a column of (row, mass) in ascending row order; masses of zero are left out.
    pub fn push_column(&mut self, entries: impl IntoIterator<Item = (usize, f64)>) {
        for (row, mass) in entries {
            debug_assert!(row < self.rows);
            if mass != 0.0 {
                self.indices.push(row);
                self.masses.push(mass);
            }
        }
        self.starts.push(self.indices.len());
    }

    /// The non-zeros of a dense matrix (rows, columns).
    pub fn from_dense(dense: ArrayView2<'_, f64>) -> Self {
        let mut plan = Self::with_rows(dense.nrows(), 0);
        for column in dense.columns() {
            plan.push_column(column.iter().copied().enumerate());
        }
        plan
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn columns(&self) -> usize {
        self.starts.len() - 1
    }

    /// Number of non-zeros.
    pub fn nnz(&self) -> usize {
        self.indices.len()
    }

    /// The non-zeros of column `j` as (row, mass), in ascending row order.
    pub fn column(&self, j: usize) -> impl ExactSizeIterator<Item = (usize, f64)> + Clone + '_ {
        let range = self.starts[j]..self.starts[j + 1];
        self.indices[range.clone()].iter().copied().zip(self.masses[range].iter().copied())
    }

    /// All non-zeros as (row, column, mass), column by column.
    pub fn entries(&self) -> impl Iterator<Item = (usize, usize, f64)> + '_ {
        (0..self.columns()).flat_map(move |j| self.column(j).map(move |(i, mass)| (i, j, mass)))
    }

    /// Non-zeros of each column.
    pub fn column_nnz(&self) -> Vec<usize> {
        self.starts.windows(2).map(|w| w[1] - w[0]).collect()
    }

    /// The largest number of non-zeros in one column.
    pub fn max_column_nnz(&self) -> usize {
        self.column_nnz().into_iter().max().unwrap_or(0)
    }

    /// Mass of each row, `T 1` (rows).
    pub fn row_sums(&self) -> Array1<f64> {
        let mut sums = Array1::zeros(self.rows);
        for (&i, &mass) in self.indices.iter().zip(&self.masses) {
            sums[i] += mass;
        }
        sums
    }

    /// Mass of each column, `Tᵀ 1` (columns).
    pub fn column_sums(&self) -> Array1<f64> {
        (0..self.columns()).map(|j| self.column(j).map(|(_, mass)| mass).sum()).collect()
    }

    /// The largest violation of the marginals, as (rows, columns).
    pub fn marginal_errors(&self, a: ArrayView1<'_, f64>, b: ArrayView1<'_, f64>) -> (f64, f64) {
        let largest = |sums: Array1<f64>, wanted: ArrayView1<'_, f64>| {
            sums.iter().zip(wanted).fold(0.0f64, |worst, (s, w)| worst.max((s - w).abs()))
        };
        (largest(self.row_sums(), a), largest(self.column_sums(), b))
    }

    /// The transport cost ⟨T, C⟩ for a cost (rows, columns).
    pub fn cost(&self, cost: ArrayView2<'_, f64>) -> f64 {
        self.entries().map(|(i, j, mass)| mass * cost[[i, j]]).sum()
    }

    /// The plan with its rows as columns.
    pub fn transposed(&self) -> Self {
        let mut starts = vec![0; self.rows + 1];
        for &i in &self.indices {
            starts[i + 1] += 1;
        }
        for i in 0..self.rows {
            starts[i + 1] += starts[i];
        }
        let (mut indices, mut masses) = (vec![0; self.nnz()], vec![0.0; self.nnz()]);
        let mut next = starts.clone();
        for (i, j, mass) in self.entries() {
            (indices[next[i]], masses[next[i]]) = (j, mass);
            next[i] += 1;
        }
        Self { rows: self.columns(), starts, indices, masses }
    }

    /// The plan as a dense matrix (rows, columns).
    pub fn to_dense(&self) -> Array2<f64> {
        let mut dense = Array2::zeros((self.rows, self.columns()));
        for (i, j, mass) in self.entries() {
            dense[[i, j]] = mass;
        }
        dense
    }

    /// The sum of `weights[l] · plans[l]`; all plans have the same shape, and there is at least one.
    pub fn combination(plans: &[&Self], weights: &[f64]) -> Self {
        let (rows, columns) = (plans[0].rows, plans[0].columns());
        let mut sum = Self::with_rows(rows, plans[0].nnz());
        let mut dense = vec![0.0; rows];
        let mut touched: Vec<usize> = Vec::new();
        for j in 0..columns {
            for (plan, &weight) in plans.iter().zip(weights) {
                for (i, mass) in plan.column(j) {
                    dense[i] += weight * mass;
                    touched.push(i);
                }
            }
            touched.sort_unstable();
            touched.dedup();
            sum.push_column(touched.drain(..).map(|i| (i, std::mem::take(&mut dense[i]))));
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn dense_and_back_with_sums_and_transpose() {
        let dense = array![[0.0, 2.0, 0.0], [1.0, 0.5, 0.0]];
        let plan = Plan::from_dense(dense.view());
        assert_eq!((plan.rows(), plan.columns(), plan.nnz(), plan.max_column_nnz()), (2, 3, 3, 2));
        assert_eq!(plan.to_dense(), dense);
        assert_eq!(plan.transposed().to_dense(), dense.t());
        assert_eq!(plan.row_sums(), array![2.0, 1.5]);
        assert_eq!(plan.column_sums(), array![1.0, 2.5, 0.0]);
        assert_eq!(plan.cost(array![[9.0, 1.0, 9.0], [2.0, 4.0, 9.0]].view()), 6.0);
        assert_eq!(plan.marginal_errors(array![2.0, 1.0].view(), array![1.0, 2.0, 0.0].view()), (0.5, 0.5));
    }

    #[test]
    fn combinations_add_entry_by_entry() {
        let (p, q) = (array![[1.0, 0.0], [0.0, 1.0]], array![[0.0, 3.0], [1.0, 1.0]]);
        let sum = Plan::combination(&[&Plan::from_dense(p.view()), &Plan::from_dense(q.view())], &[0.5, 0.25]);
        assert_eq!(sum.to_dense(), &p * 0.5 + &q * 0.25);
    }
}
