//! Annealing, products of experts and guidance: Π q_i^{β_i}.

use super::Expert;
use super::target::{Flow, Leg, Target};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Zip};
use offprint_core::{Error, Result};

/// p̃ = Π_i q_i^{β_i} (propositions 3.1 to 3.4 in one).
///
/// With S = Σ β_i s_i: drift S and rate ½ (|S|² − Σ β_i |s_i|²). One expert gives annealing, ½ β(β − 1)|s|²; two with
/// β = 1 the product, s_1·s_2; exponents 1 − w and w guidance, ½ w(w − 1)|s_u − s_c|². Exponents may be negative as long
/// as their sum B is positive. O(experts · n d) beside the models.
#[derive(Clone)]
pub struct Product<'a> {
    experts: Vec<Expert<'a>>,
    exponent: f64,
    centre: Array1<f64>,
}

impl<'a> Product<'a> {
    /// The product of `experts`.
    ///
    /// # Errors
    /// No expert, different dimensions, exponents whose sum is not positive.
    pub fn new(experts: Vec<Expert<'a>>) -> Result<Self> {
        let Some(first) = experts.first() else {
            return Err(Error::parameter("experts", "none", "at least one"));
        };
        let d = first.dim();
        if let Some((i, other)) = experts.iter().enumerate().find(|(_, e)| e.dim() != d) {
            let given = format!("{} dimensions in expert {i}", other.dim());
            return Err(Error::parameter("experts", given, format!("of {d} dimensions, as expert 0")));
        }
        let exponent: f64 = experts.iter().map(Expert::exponent).sum();
        if exponent <= 0.0 || exponent.is_nan() {
            let allowed = format!("of a positive sum: these sum to {exponent}, and the start law does not exist");
            let given: Vec<String> = experts.iter().map(|e| e.exponent().to_string()).collect();
            return Err(Error::parameter("exponents", given.join(", "), allowed));
        }
        let mut centre = Array1::zeros(d);
        for expert in &experts {
            centre.scaled_add(expert.exponent() / exponent, expert.mean());
        }
        Ok(Self { experts, exponent, centre })
    }

    /// q^β.
    pub fn annealed(expert: Expert<'a>) -> Result<Self> {
        Self::new(vec![expert])
    }

    /// q_u^{1−w} q_c^w: what classifier-free guidance of weight w means to sample.
    pub fn guided(unconditional: Expert<'a>, conditional: Expert<'a>, w: f64) -> Result<Self> {
        if !w.is_finite() {
            return Err(Error::parameter("guidance", w, "a finite number"));
        }
        Self::new(vec![unconditional.raised_to(1.0 - w), conditional.raised_to(w)])
    }
}

impl Target for Product<'_> {
    fn dim(&self) -> usize {
        self.experts[0].dim()
    }

    fn exponent(&self) -> f64 {
        self.exponent
    }

    fn centre(&self) -> ArrayView1<'_, f64> {
        self.centre.view()
    }

    fn flow(&self, y: ArrayView2<'_, f64>, leg: Leg) -> Result<Flow> {
        let mut drift = Array2::zeros(y.dim());
        // −½ Σ β_i |s_i|², then + ½ |S|².
        let mut rate = Array1::zeros(y.nrows());
        for expert in &self.experts {
            let score = expert.score(y, leg.tau)?;
            drift.scaled_add(expert.exponent(), &score);
            add_squares(&mut rate, -0.5 * expert.exponent(), &score);
        }
        add_squares(&mut rate, 0.5, &drift);
        Ok(Flow { drift, score: None, rate, change: None })
    }

    fn log_density(&self, y: ArrayView2<'_, f64>, tau: f64, _fraction: f64) -> Result<Option<Array1<f64>>> {
        let mut total = Array1::zeros(y.nrows());
        for expert in &self.experts {
            let Some(log) = expert.log_density(y, tau)? else { return Ok(None) };
            total.scaled_add(expert.exponent(), &log);
        }
        Ok(Some(total))
    }

    fn models(&self) -> u64 {
        self.experts.len() as u64
    }
}

/// total += factor · |row|², row by row.
pub(super) fn add_squares(total: &mut Array1<f64>, factor: f64, rows: &Array2<f64>) {
    Zip::from(total).and(rows.rows()).for_each(|t, row| *t += factor * row.dot(&row));
}
