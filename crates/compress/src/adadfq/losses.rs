//! What the generator and the quantised network play for.
//!
//! P and Q are the logits (n, classes) of the float and of the quantised network. softmax(P − Q) is where they disagree,
//! softmax(P + Q) where they agree.

use candle_core::{D, DType, Result, Tensor};
use offprint_nn::ops::{self, Reduction, cross_entropy};

/// Below this span between the largest entropy and the least of a batch, the two networks agree on all of it.
const LEAST_SPAN: f64 = 1e-8;

/// What the generator's loss is made of. The defaults are the paper's for CIFAR.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GeneratorLoss {
    /// λ_l: adaptability below costs.
    pub lower: f64,
    /// λ_u: adaptability above costs.
    pub upper: f64,
    /// α_ds: weight of the class in P − Q.
    pub disagreement: f64,
    /// α_as: weight of the class in P + Q.
    pub agreement: f64,
    /// β: weight of both together.
    pub balance: f64,
    /// γ: weight of the distance from P's batch norm statistics.
    pub statistics: f64,
}

impl Default for GeneratorLoss {
    fn default() -> Self {
        Self { lower: 0.1, upper: 0.8, disagreement: 0.2, agreement: 0.1, balance: 1.0, statistics: 1.0 }
    }
}

impl GeneratorLoss {
    /// Without the part that bounds and shapes disagreement: λ_l = 0, α_ds = 0.
    #[must_use]
    pub fn without_disagreement(self) -> Self {
        Self { lower: 0.0, disagreement: 0.0, ..self }
    }

    /// Without the part that bounds and shapes agreement: λ_u = 1, α_as = 0.
    #[must_use]
    pub fn without_agreement(self) -> Self {
        Self { upper: 1.0, agreement: 0.0, ..self }
    }

    /// L_margin + β L_bal, without the statistics: mean max(λ_l − H′, 0) + mean max(H′ − λ_u, 0) +
    /// β (α_ds CE(P − Q, y) + α_as CE(P + Q, y)).
    pub fn game(&self, teacher: &Tensor, student: &Tensor, labels: &Tensor) -> Result<Tensor> {
        let difference = (teacher - student)?;
        let h = adaptability(&difference)?;
        let below = ops::relu(&h.affine(-1.0, self.lower)?)?.mean_all()?;
        let above = ops::relu(&h.affine(1.0, -self.upper)?)?.mean_all()?;
        let class = |logits: &Tensor| cross_entropy(logits, labels, 0.0, Reduction::Mean);
        let balance = (class(&difference)?.affine(self.disagreement, 0.0)?
            + class(&(teacher + student)?)?.affine(self.agreement, 0.0)?)?;
        (below + above)? + balance.affine(self.balance, 0.0)?
    }
}

/// H = −Σ p ln p of p = softmax of each row: (n, classes) to (n), between 0 and ln classes.
pub fn entropy(logits: &Tensor) -> Result<Tensor> {
    let log = ops::log_softmax(logits)?;
    (log.exp()? * log)?.sum(D::Minus1)?.neg()
}

/// H′ = (H − least H of the batch) / (ln classes − least H of the batch) of the differences P − Q: (n, classes) to (n).
///
/// 1 where P and Q agree up to a constant, near 0 where they disagree on one class. Gradients flow through the least entropy
/// too. Where all of a batch agrees, it is 1 with no gradient.
pub fn adaptability(difference: &Tensor) -> Result<Tensor> {
    let h = entropy(difference)?;
    let values = h.detach().to_dtype(DType::F64)?.to_vec1::<f64>()?;
    let largest = (difference.dim(D::Minus1)? as f64).ln();
    let Some(least) = (0..values.len()).min_by(|&a, &b| values[a].total_cmp(&values[b])) else { return Ok(h) };
    if largest - values[least] <= LEAST_SPAN {
        return h.ones_like();
    }
    let least = h.narrow(0, least, 1)?;
    h.broadcast_sub(&least)?.broadcast_div(&least.affine(-1.0, largest)?)
}

/// −T² mean H(softmax((P − Q)/T)): least where Q differs from P by a constant only.
pub fn disagreement(teacher: &Tensor, student: &Tensor, temperature: f64) -> Result<Tensor> {
    let softened = (teacher - student)?.affine(1.0 / temperature, 0.0)?;
    entropy(&softened)?.mean_all()?.affine(-temperature * temperature, 0.0)
}

/// T² mean KL(softmax(P/T) ‖ softmax(Q/T)): distillation (Hinton et al. 2015).
pub fn distillation(teacher: &Tensor, student: &Tensor, temperature: f64) -> Result<Tensor> {
    let log = |logits: &Tensor| ops::log_softmax(&logits.affine(1.0 / temperature, 0.0)?);
    let (p, q) = (log(teacher)?, log(student)?);
    (p.exp()? * (p - q)?)?.sum(D::Minus1)?.mean_all()?.affine(temperature * temperature, 0.0)
}
