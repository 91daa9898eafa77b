//! The kernel of the method: K quadratic functions of a point, for many points at once, as one matrix product.
//!
//! log c, log v and the log-weights of the drift are all log-sum-exps of quadratics q_k(x) = x'M_k x + b_k'x + a_k. A
//! quadratic is linear in the statistics φ(x) = (1, x, x²), or (1, x, x x') where M_k is full, so the values of all K at n
//! points are one product of φ (n, F) with the coefficients (F, K), and the means of φ under the K weights, from which
//! gradients are made, are another.

use ndarray::{Array1, Array2, ArrayView2, ArrayViewMut2, Axis};
use offprint_math::{linalg, vector};
use rayon::prelude::*;

/// Points that are worked on together: large enough for the products, small enough for the caches.
const CHUNK: usize = 256;

/// Which statistics of a point φ holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Statistics {
    /// 1, then x_i, then x_i².
    Diagonal {
        /// Dimension of a point.
        dim: usize,
    },
    /// 1, then x_i, then x_i x_j for j ≤ i, row by row.
    Full {
        /// Dimension of a point.
        dim: usize,
    },
}

impl Statistics {
    /// The number F of statistics.
    pub fn count(self) -> usize {
        match self {
            Self::Diagonal { dim } => 1 + 2 * dim,
            Self::Full { dim } => 1 + dim + dim * (dim + 1) / 2,
        }
    }

    /// The dimension d of a point.
    pub fn dim(self) -> usize {
        match self {
            Self::Diagonal { dim } | Self::Full { dim } => dim,
        }
    }

    /// Writes φ(x) (n, F) for the rows of `x` (n, d).
    pub fn fill(self, x: ArrayView2<'_, f64>, mut phi: ArrayViewMut2<'_, f64>) {
        let d = self.dim();
        for (x, mut phi) in x.rows().into_iter().zip(phi.rows_mut()) {
            let phi = phi.as_slice_mut().expect("statistics are contiguous");
            let (one, rest) = phi.split_at_mut(1);
            let (linear, quadratic) = rest.split_at_mut(d);
            one[0] = 1.0;
            linear.iter_mut().zip(x).for_each(|(l, &x)| *l = x);
            match self {
                Self::Diagonal { .. } => quadratic.iter_mut().zip(&*linear).for_each(|(q, x)| *q = x * x),
                Self::Full { .. } => {
                    let mut start = 0;
                    for i in 0..d {
                        let row = &mut quadratic[start..=start + i];
                        row.iter_mut().zip(&*linear).for_each(|(q, x)| *q = x * linear[i]);
                        start += i + 1;
                    }
                }
            }
        }
    }

    /// Writes the coefficients of x'M x for a symmetric M (d, d) behind the constant and the d linear ones.
    pub fn set_matrix(self, matrix: ArrayView2<'_, f64>, coefficients: &mut [f64]) {
        let d = self.dim();
        let mut place = 1 + d;
        for i in 0..d {
            for j in 0..=i {
                coefficients[place] = if i == j { matrix[[i, i]] } else { matrix[[i, j]] + matrix[[j, i]] };
                place += 1;
            }
        }
    }

    /// The symmetric matrix (d, d) whose lower triangle stands behind the linear statistics.
    pub fn matrix(self, statistics: &[f64], mut matrix: ArrayViewMut2<'_, f64>) {
        let d = self.dim();
        let mut place = 1 + d;
        for i in 0..d {
            for j in 0..=i {
                matrix[[i, j]] = statistics[place];
                matrix[[j, i]] = statistics[place];
                place += 1;
            }
        }
    }
}

/// K quadratics.
#[derive(Debug, Clone)]
pub struct Quadratics {
    /// What the coefficients belong to.
    pub statistics: Statistics,
    /// Coefficients of φ, (K, F).
    pub coefficients: Array2<f64>,
}

/// Weights of K quadratics summed over a batch, in the terms that gradients need.
#[derive(Debug, Clone)]
pub struct Moments {
    /// Σ over points of log Σ_k exp q_k.
    pub log_sum: f64,
    /// Σ over points of w_k φ (K, F), with the weight w_k = exp q_k / Σ exp q; the first column is Σ w_k.
    pub statistics: Array2<f64>,
}

/// Memory for a batch, kept from one step to the next.
#[derive(Debug, Clone)]
pub struct Workspace {
    phi: Array2<f64>,
    values: Array2<f64>,
    /// What [`Quadratics::moments`] found.
    pub moments: Moments,
}

impl Workspace {
    /// Memory for batches of up to `batch` points and K quadratics in `statistics`.
    pub fn new(batch: usize, components: usize, statistics: Statistics) -> Self {
        Self {
            phi: Array2::zeros((batch, statistics.count())),
            values: Array2::zeros((batch, components)),
            moments: Moments { log_sum: 0.0, statistics: Array2::zeros((components, statistics.count())) },
        }
    }
}

impl Quadratics {
    /// K quadratics that are zero.
    pub fn zeros(components: usize, statistics: Statistics) -> Self {
        Self { statistics, coefficients: Array2::zeros((components, statistics.count())) }
    }

    /// The number K.
    fn components(&self) -> usize {
        self.coefficients.nrows()
    }

    /// log Σ_k exp q_k (n) and the weights exp q_k / Σ exp q (n, K) at the rows of `x` (n, d).
    pub fn weights(&self, x: ArrayView2<'_, f64>) -> (Array1<f64>, Array2<f64>) {
        let mut weights = Array2::zeros((x.nrows(), self.components()));
        let mut log_sums = Array1::zeros(x.nrows());
        let chunks = weights.axis_chunks_iter_mut(Axis(0), CHUNK).zip(log_sums.axis_chunks_iter_mut(Axis(0), CHUNK));
        let chunks: Vec<_> = chunks.zip(x.axis_chunks_iter(Axis(0), CHUNK)).collect();
        chunks.into_par_iter().for_each(|((mut weights, log_sums), x)| {
            let mut phi = Array2::zeros((x.nrows(), self.statistics.count()));
            self.statistics.fill(x, phi.view_mut());
            self.values(phi.view(), weights.view_mut());
            vector::softmax_rows(weights, log_sums);
        });
        (log_sums, weights)
    }

    /// log Σ_k exp q_k (n) at the rows of `x` (n, d).
    pub fn log_sum(&self, x: ArrayView2<'_, f64>) -> Array1<f64> {
        let mut log_sums = Array1::zeros(x.nrows());
        let chunks = log_sums.axis_chunks_iter_mut(Axis(0), CHUNK).zip(x.axis_chunks_iter(Axis(0), CHUNK));
        let chunks: Vec<_> = chunks.collect();
        chunks.into_par_iter().for_each(|(mut log_sums, x)| {
            let mut phi = Array2::zeros((x.nrows(), self.statistics.count()));
            let mut values = Array2::zeros((x.nrows(), self.components()));
            self.statistics.fill(x, phi.view_mut());
            self.values(phi.view(), values.view_mut());
            for (log_sum, row) in log_sums.iter_mut().zip(values.rows()) {
                *log_sum = vector::log_sum_exp(row.as_slice().expect("values are contiguous"));
            }
        });
        log_sums
    }

    /// Sums over the batch `x` (n, d) what the gradient needs. O(n K F), without allocating.
    pub fn moments(&self, x: ArrayView2<'_, f64>, workspace: &mut Workspace) {
        let n = x.nrows();
        let Workspace { phi, values, moments } = workspace;
        let mut phi = phi.slice_mut(ndarray::s![..n, ..]);
        let mut values = values.slice_mut(ndarray::s![..n, ..]);
        self.statistics.fill(x, phi.view_mut());
        self.values(phi.view(), values.view_mut());
        moments.log_sum = 0.0;
        for mut row in values.rows_mut() {
            moments.log_sum += vector::softmax(row.as_slice_mut().expect("values are contiguous"));
        }
        linalg::gemm(1.0, values.t(), phi.view(), false, moments.statistics.view_mut());
    }

    /// All K values at n points, (n, K), from φ (n, F).
    fn values(&self, phi: ArrayView2<'_, f64>, values: ArrayViewMut2<'_, f64>) {
        linalg::gemm(1.0, phi, self.coefficients.t(), false, values);
    }
}
