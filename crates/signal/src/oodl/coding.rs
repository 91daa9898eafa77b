//! Codes, reconstructions, and what they are compared with: DCT-II and principal components.

use super::Preprocessing;
use ndarray::{Array1, Array2, ArrayView2, Axis, Zip};
use offprint_core::{Error, Result};
use offprint_math::linalg;
use std::f64::consts::PI;

/// A linear transform with its inverse: codes z = (y − mean) · analysis, samples y = mean + z · synthesisᵀ.
#[derive(Debug, Clone)]
pub struct Transform {
    mean: Array1<f64>,
    analysis: Array2<f64>,
    synthesis: Array2<f64>,
}

impl Transform {
    /// Coding with `dictionary` (r, r) in the coordinates of `preprocessing`: z = D⁻¹x, which is Dᵀx if D is
    /// orthogonal.
    ///
    /// # Errors
    /// A dictionary that is singular or of another size.
    pub fn new(preprocessing: &Preprocessing, dictionary: ArrayView2<'_, f64>) -> Result<Self> {
        let r = preprocessing.rank();
        if dictionary.dim() != (r, r) {
            let shape = dictionary.shape();
            return Err(Error::input("dictionary", format!("has shape {shape:?}; ({r}, {r}) is needed")));
        }
        let gram = linalg::matmul(dictionary.t(), dictionary);
        let orthogonal = gram.indexed_iter().all(|((i, j), &x)| (x - f64::from(i == j)).abs() < 1e-9);
        let dual = if orthogonal { dictionary.to_owned() } else { linalg::inverse(dictionary)?.reversed_axes() };
        Ok(Self {
            mean: preprocessing.mean.clone(),
            analysis: linalg::matmul(preprocessing.forward.view(), dual.view()),
            synthesis: linalg::matmul(preprocessing.backward.view(), dictionary),
        })
    }

    /// Coding with a fixed `basis` (N, K) of orthonormal columns around `mean` (N).
    pub fn orthonormal(mean: Array1<f64>, basis: Array2<f64>) -> Self {
        Self { mean, analysis: basis.clone(), synthesis: basis }
    }

    /// The atoms in the space of samples (N, r): columns, in units of the samples.
    pub fn atoms(&self) -> ArrayView2<'_, f64> {
        self.synthesis.view()
    }

    /// The atoms (N, r) scaled to unit length.
    pub fn unit_atoms(&self) -> Array2<f64> {
        let mut atoms = self.synthesis.clone();
        for mut atom in atoms.axis_iter_mut(Axis(1)) {
            let norm = atom.dot(&atom).sqrt();
            if norm > 0.0 {
                atom /= norm;
            }
        }
        atoms
    }

    /// Codes (B, r) of `samples` (B, N).
    pub fn codes(&self, samples: ArrayView2<'_, f64>) -> Array2<f64> {
        linalg::matmul((&samples - &self.mean).view(), self.analysis.view())
    }

    /// Samples (B, N) from `codes` (B, r).
    pub fn reconstruct(&self, codes: ArrayView2<'_, f64>) -> Array2<f64> {
        linalg::matmul(codes, self.synthesis.t()) + &self.mean
    }

    /// `codes` (B, r) with all but the `kept` entries of each row set to zero whose atoms contribute the longest
    /// vectors, |zᵢ| ‖aᵢ‖: the largest |zᵢ| where atoms have one length. Ties go to the earlier atom.
    pub fn keep_largest(&self, codes: ArrayView2<'_, f64>, kept: usize) -> Array2<f64> {
        let lengths: Vec<f64> = self.synthesis.axis_iter(Axis(1)).map(|a| a.dot(&a).sqrt()).collect();
        let mut sparse = codes.to_owned();
        let mut order: Vec<usize> = (0..lengths.len()).collect();
        for mut row in sparse.outer_iter_mut() {
            order.sort_by(|&i, &j| (row[j].abs() * lengths[j]).total_cmp(&(row[i].abs() * lengths[i])).then(i.cmp(&j)));
            for &i in order.iter().skip(kept) {
                row[i] = 0.0;
            }
        }
        sparse
    }

    /// ‖Y − Ŷ‖ / ‖Y − mean‖ over `samples` (B, N) when each keeps `kept` coefficients; NaN if the samples do not vary.
    pub fn error_with_kept(&self, samples: ArrayView2<'_, f64>, kept: usize) -> f64 {
        let sparse = self.keep_largest(self.codes(samples).view(), kept);
        let restored = self.reconstruct(sparse.view());
        let lost = Zip::from(samples).and(&restored).fold(0.0, |sum, y, r| sum + (y - r).powi(2));
        let whole = (&samples - &self.mean).iter().map(|y| y * y).sum::<f64>();
        (lost / whole).sqrt()
    }
}

/// The orthonormal DCT-II basis of vectors of length `n`: columns are the cosines, lowest frequency first.
pub fn dct(n: usize) -> Array2<f64> {
    Array2::from_shape_fn((n, n), |(i, k)| {
        let scale = if k == 0 { 1.0 } else { 2.0 };
        (scale / n as f64).sqrt() * (PI * (i as f64 + 0.5) * k as f64 / n as f64).cos()
    })
}

/// The separable DCT-II basis of images stored row by row, (height · width, height · width).
pub fn dct_images(height: usize, width: usize) -> Array2<f64> {
    let (down, across) = (dct(height), dct(width));
    Array2::from_shape_fn((height * width, height * width), |(pixel, atom)| {
        down[[pixel / width, atom / width]] * across[[pixel % width, atom % width]]
    })
}

/// The principal axes of `samples` (p, N) around `mean`: orthonormal columns (N, N), largest variance first.
pub fn principal_axes(samples: ArrayView2<'_, f64>, mean: &Array1<f64>) -> Result<Array2<f64>> {
    let centred = &samples - mean;
    let (_, vectors) = linalg::eigh(linalg::matmul(centred.t(), centred.view()).view())?;
    Ok(vectors.slice(ndarray::s![.., ..;-1]).to_owned())
}

/// Kurtosis of each code, pooled: Σz⁴ p / (Σz²)² averaged over the columns of `codes` (p, r) that are not all zero.
///
/// It is 3 for Gaussian codes, for which the objective is the same in every direction so that nothing can be learned,
/// and 3/θ for Bernoulli–Gaussian ones. NaN if all codes are zero.
pub fn kurtosis(codes: ArrayView2<'_, f64>) -> f64 {
    let p = codes.nrows() as f64;
    let each = codes.axis_iter(Axis(1)).filter_map(|z| {
        let largest = z.iter().fold(0.0f64, |m, x| m.max(x.abs()));
        let (m2, m4) = z.iter().fold((0.0, 0.0), |(m2, m4), x| {
            let square = (x / largest).powi(2);
            (m2 + square, m4 + square * square)
        });
        (largest > 0.0).then(|| m4 * p / (m2 * m2))
    });
    let values: Vec<f64> = each.collect();
    offprint_math::stats::mean(&values)
}

/// Whether codes (p, r) of this [`kurtosis`] are beyond what Gaussian ones show by chance.
pub fn is_sparse(kurtosis: f64, codes: (usize, usize)) -> bool {
    let (p, r) = codes;
    // The sample kurtosis of a Gaussian has variance 24/p; learning picks directions, hence the generous margin.
    kurtosis > 3.0 + (6.0 * (24.0 / (p as f64 * r as f64)).sqrt()).max(0.1)
}
