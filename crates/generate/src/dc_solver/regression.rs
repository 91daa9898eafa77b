//! Cascade polynomial regression: ratios of settings that were never searched.

use super::Ratios;
use ndarray::{Array1, Array2, Array3, Axis};
use offprint_core::{Error, Result};
use offprint_math::linalg;

/// A polynomial in the number of calls, the guidance and the place of the step that gives the ratio.
///
/// With u = NFE/50, g = w/12 and y = k/NFE, ratio(w, NFE, k) = Σ_i c_i yⁱ for i = 0 … 3, where
/// c_i = Σ_j c_ij g^(2−j) and c_ij = Σ_l C_ijl u^(2−l): a cascade of quadratics, linear in its 36 numbers C.
#[derive(Debug, Clone, PartialEq)]
pub struct CascadePolynomial {
    coefficients: Array3<f64>,
}

/// Searched ratios of one setting.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Guidance w.
    pub guidance: f64,
    /// The ratios, as many as calls of the model.
    pub ratios: Ratios,
}

/// Degree of the compensation that the regression was made for: two ratios stay 1.
const DEGREE: usize = 2;
/// Numbers of a [`CascadePolynomial`].
const COUNT: usize = 36;
/// Ridge of the least squares: only what the settings do not determine feels it.
const RIDGE: f64 = 1e-8;

impl CascadePolynomial {
    /// From its 36 numbers in C order: (4, 3, 3) over the powers of y, the falling powers of g and those of u.
    pub fn new(coefficients: &[f64]) -> Result<Self> {
        if coefficients.len() != COUNT {
            let problem = format!("has {} numbers; {COUNT} are needed, shape (4, 3, 3)", coefficients.len());
            return Err(Error::input("coefficients", problem));
        }
        if let Some(i) = coefficients.iter().position(|c| !c.is_finite()) {
            return Err(Error::input("coefficients", format!("number {i} is {}", coefficients[i])));
        }
        let coefficients = Array3::from_shape_vec((4, 3, 3), coefficients.to_vec()).expect("counted above");
        Ok(Self { coefficients })
    }

    /// The 36 numbers (4, 3, 3).
    pub fn coefficients(&self) -> &Array3<f64> {
        &self.coefficients
    }

    /// Least squares on searched ratios: the settings should span at least three values of w and of NFE.
    ///
    /// # Errors
    /// No ratio that was searched, guidance that is not finite, ratios of another degree than 2.
    pub fn fit(settings: &[Setting]) -> Result<Self> {
        let mut rows = Vec::new();
        let mut targets = Vec::new();
        for setting in settings {
            guided(setting.guidance)?;
            if setting.ratios.degree() != DEGREE {
                let degree = setting.ratios.degree();
                return Err(Error::parameter("degree", degree, "2, for which the regression was made"));
            }
            let values = setting.ratios.values();
            for k in DEGREE + 1..=values.len() {
                rows.extend(monomials(setting.guidance, values.len(), k));
                targets.push(values[k - 1]);
            }
        }
        if targets.is_empty() {
            return Err(Error::input("settings", "hold no ratio that was searched: NFE of at least 3 is needed"));
        }
        let design = Array2::from_shape_vec((targets.len(), COUNT), rows).expect("36 a row");
        // Σ_i s_i/(s_i² + ridge) v_i u_iᵀ: the ridge in the basis in which it is exact.
        let (u, s, v) = linalg::svd(design.view())?;
        let along = u.t().dot(&Array1::from(targets));
        let scaled = (&along * &s.mapv(|s| s / (s * s + RIDGE))).insert_axis(Axis(1));
        Self::new(linalg::matmul(v.view(), scaled.view()).as_slice().expect("own memory"))
    }

    /// The ratios for guidance `w` and `steps` calls of the model.
    pub fn ratios(&self, w: f64, steps: usize) -> Result<Ratios> {
        guided(w)?;
        let ratio = |k: usize| {
            if k <= DEGREE {
                return 1.0;
            }
            self.coefficients.iter().zip(monomials(w, steps, k)).map(|(c, m)| c * m).sum()
        };
        Ratios::new((1..=steps).map(ratio).collect(), DEGREE)
    }
}

fn guided(w: f64) -> Result<()> {
    if w.is_finite() { Ok(()) } else { Err(Error::parameter("guidance", w, "a finite number")) }
}

/// yⁱ g^(2−j) u^(2−l) in C order over (i, j, l).
fn monomials(w: f64, steps: usize, k: usize) -> impl Iterator<Item = f64> {
    let (u, g, y) = (steps as f64 / 50.0, w / 12.0, k as f64 / steps as f64);
    (0..4).flat_map(move |i| (0..3).flat_map(move |j| (0..3).map(move |l| y.powi(i) * g.powi(2 - j) * u.powi(2 - l))))
}
