//! What a caller chooses, and what follows from it.

use clap::ValueEnum;
use offprint_core::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The largest number of bits: indices are 64-bit words.
pub const MOST_BITS: u32 = 60;

/// How the spectrum is found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, ValueEnum, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// SPRIGHT without noise: single-tons are told by equal magnitudes (§4.2)
    Exact,
    /// SPRIGHT, near sample-optimal: each bit by majority over random delays (NSO)
    #[default]
    Nso,
    /// SPRIGHT, sample-optimal and sub-linear: the delays are words of an error-correcting code (SO)
    So,
    /// SPRIGHT, fewest samples: each bin tries every index that falls into it; time is nearly linear in 2ⁿ
    Ml,
    /// The older noiseless transform of Scheibler, Haghighatshoar and Vetterli
    SparseFht,
    /// Orthogonal matching pursuit on random samples
    Omp,
    /// LASSO on random samples, then least squares on its support
    Lasso,
    /// The full fast transform of all 2ⁿ values
    Full,
}

impl Algorithm {
    /// Whether it hashes into bins and peels.
    pub fn peels(self) -> bool {
        matches!(self, Self::Exact | Self::Nso | Self::So | Self::Ml | Self::SparseFht)
    }

    /// Whether it takes values as exact.
    pub fn is_noiseless(self) -> bool {
        matches!(self, Self::Exact | Self::SparseFht)
    }
}

/// Which indices fall into the same bin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Hashing {
    /// By random parities: safe for clustered supports such as functions of low degree
    #[default]
    Random,
    /// By windows of neighbouring bits spread evenly over the index: the paper's, for supports without structure
    Windows,
}

/// What is known of the noise on the values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Noise {
    /// Its standard deviation σ per value.
    Known(f64),
    /// Nothing; it is estimated from the bins.
    Estimated,
}

/// The choices for one transform.
#[derive(Debug, Clone)]
pub struct Settings {
    /// n: the function has 2ⁿ values.
    pub bits: u32,
    /// K: about how many coefficients to expect.
    pub sparsity: usize,
    /// How they are found.
    pub algorithm: Algorithm,
    /// C: how many ways of hashing.
    pub groups: usize,
    /// b: each way has 2ᵇ bins; `None` is ⌈log₂ K⌉.
    pub bin_bits: Option<u32>,
    /// Which indices share a bin.
    pub hashing: Hashing,
    /// Blocks of bits (first, last) that hash, in place of `groups`, `bin_bits` and `hashing`; empty for none.
    pub blocks: Vec<(u32, u32)>,
    /// P₁: random delays. By default 9 for NSO, n for SO (which only verify), 3 n for ML.
    pub delays: Option<usize>,
    /// P₂: coded delays of SO; by default 2 (n − b).
    pub coded_delays: Option<usize>,
    /// γ: a bin is empty if its energy per delay is below (1 + γ) ν².
    pub gamma: f64,
    /// What is known of the noise.
    pub noise: Noise,
    /// ρ, if all coefficients are known to be ±ρ.
    pub amplitude: Option<f64>,
    /// What counts as zero in noiseless variants, relative to the largest value; about the rounding of the values.
    pub tolerance: f64,
    /// Random samples of OMP and LASSO; by default 2 K n.
    pub samples: Option<usize>,
}

impl Settings {
    /// The defaults for K coefficients of a function on n bits.
    pub fn new(bits: u32, sparsity: usize) -> Self {
        Self {
            bits,
            sparsity,
            algorithm: Algorithm::default(),
            groups: 3,
            bin_bits: None,
            hashing: Hashing::default(),
            blocks: Vec::new(),
            delays: None,
            coded_delays: None,
            gamma: 0.5,
            noise: Noise::Estimated,
            amplitude: None,
            tolerance: 1e-12,
            samples: None,
        }
    }

    /// b: how many bits number the bins of a group.
    pub fn bin_bits(&self) -> u32 {
        // ⌈log₂ K⌉ = log₂ of the next power of two.
        self.bin_bits.unwrap_or(self.sparsity.next_power_of_two().trailing_zeros().max(1))
    }

    /// P₁: how many random delays.
    pub fn delays(&self) -> usize {
        let n = self.bits as usize;
        self.delays.unwrap_or(match self.algorithm {
            Algorithm::So => n,
            Algorithm::Ml => 3 * n,
            _ => 9,
        })
    }

    /// Rejects what cannot work.
    pub fn check(&self) -> Result<()> {
        let n = self.bits;
        if n > MOST_BITS {
            return Err(Error::parameter("bits", n, format!("at most {MOST_BITS}")));
        }
        if let Noise::Known(sigma) = self.noise
            && !(sigma.is_finite() && sigma >= 0.0)
        {
            return Err(Error::parameter("sigma", sigma, "a finite number, at least 0"));
        }
        if !(self.gamma.is_finite() && self.gamma > 0.0) {
            return Err(Error::parameter("gamma", self.gamma, "a finite number above 0"));
        }
        if !(self.tolerance > 0.0 && self.tolerance < 1.0) {
            return Err(Error::parameter("tolerance", self.tolerance, "above 0 and below 1"));
        }
        if let Some(amplitude) = self.amplitude
            && !(amplitude.is_finite() && amplitude > 0.0)
        {
            return Err(Error::parameter("amplitude", amplitude, "a finite number above 0"));
        }
        if self.sparsity == 0 {
            return Err(Error::parameter("sparsity", 0, "at least 1"));
        }
        if self.algorithm == Algorithm::Full {
            return Ok(());
        }
        let most = (1u64 << n) / 4;
        if self.sparsity as u64 > most {
            let allowed = format!("at most {most}, a quarter of the 2^{n} coefficients; use the full transform");
            return Err(Error::parameter("sparsity", self.sparsity, allowed));
        }
        if !self.algorithm.peels() {
            return Ok(());
        }
        if self.delays() == 0 {
            return Err(Error::parameter("delays", 0, "at least 1"));
        }
        if self.blocks.is_empty() {
            if self.groups == 0 {
                return Err(Error::parameter("groups", 0, "at least 1"));
            }
            let b = self.bin_bits();
            if b == 0 || b >= n || b > 30 {
                return Err(Error::parameter("bin_bits", b, format!("between 1 and {}", (n - 1).min(30))));
            }
        }
        for &(first, last) in &self.blocks {
            if first > last || last >= n || last - first + 1 >= n || last - first >= 30 {
                let allowed = format!("first-last with 0 ≤ first ≤ last < {n}, fewer bits than {n} and at most 30");
                return Err(Error::parameter("blocks", format!("{first}-{last}"), allowed));
            }
        }
        Ok(())
    }
}
