//! Linear algebra over F₂: vectors are the bits of a `u64`.

/// The parity of ⟨a, b⟩: whether a and b have an odd number of bits in common.
pub fn odd(a: u64, b: u64) -> bool {
    (a & b).count_ones() & 1 == 1
}

/// The sign (−1)^{⟨a, b⟩}.
pub fn sign(a: u64, b: u64) -> f64 {
    if odd(a, b) { -1.0 } else { 1.0 }
}

/// The sum of the `vectors` whose bit is set in `bits`.
pub fn combine(vectors: &[u64], bits: u64) -> u64 {
    vectors.iter().enumerate().fold(0, |sum, (t, &v)| if bits >> t & 1 == 1 { sum ^ v } else { sum })
}

/// The 2^b sums of b vectors; entry ℓ is `combine(vectors, ℓ)`.
pub fn span(vectors: &[u64]) -> Vec<u64> {
    let mut sums = vec![0];
    for &v in vectors {
        sums.extend_from_within(..);
        let half = sums.len() / 2;
        sums[half..].iter_mut().for_each(|s| *s ^= v);
    }
    sums
}

/// A subspace that grows: its vectors in echelon form, by leading bit.
#[derive(Debug, Clone)]
pub struct Subspace {
    leading: [u64; 64],
    rank: usize,
}

impl Default for Subspace {
    fn default() -> Self {
        Self { leading: [0; 64], rank: 0 }
    }
}

impl Subspace {
    /// The span of `vectors`.
    pub fn of(vectors: &[u64]) -> Self {
        let mut space = Self::default();
        for &v in vectors {
            space.insert(v);
        }
        space
    }

    /// Adds a vector; `false` if it was in the subspace already.
    pub fn insert(&mut self, vector: u64) -> bool {
        let rest = self.reduce(vector);
        if rest != 0 {
            self.leading[63 - rest.leading_zeros() as usize] = rest;
            self.rank += 1;
        }
        rest != 0
    }

    /// Whether a vector lies in the subspace.
    pub fn contains(&self, vector: u64) -> bool {
        self.reduce(vector) == 0
    }

    /// The dimension.
    pub fn rank(&self) -> usize {
        self.rank
    }

    fn reduce(&self, mut vector: u64) -> u64 {
        while vector != 0 {
            match self.leading[63 - vector.leading_zeros() as usize] {
                0 => break,
                basis => vector ^= basis,
            }
        }
        vector
    }
}

/// The dual of a basis v₁ … vₙ of F₂ⁿ: vectors wₜ with ⟨v_s, wₜ⟩ = δ_st, so that the k with ⟨vₜ, k⟩ = aₜ is Σ aₜ wₜ.
///
/// # Panics
/// If the vectors are no basis of F₂ⁿ.
pub fn dual(basis: &[u64]) -> Vec<u64> {
    let n = basis.len();
    let mut rows = basis.to_vec();
    // Row i of the inverse, and what turned the basis into unit vectors.
    let mut inverse: Vec<u64> = (0..n).map(|i| 1 << i).collect();
    for i in 0..n {
        let pivot = (i..n).find(|&r| rows[r] >> i & 1 == 1).expect("a basis of F₂ⁿ");
        rows.swap(i, pivot);
        inverse.swap(i, pivot);
        for r in 0..n {
            if r != i && rows[r] >> i & 1 == 1 {
                rows[r] ^= rows[i];
                inverse[r] ^= inverse[i];
            }
        }
    }
    (0..n).map(|t| (0..n).fold(0, |w, i| w | (inverse[i] >> t & 1) << i)).collect()
}
