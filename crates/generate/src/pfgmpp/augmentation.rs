//! D, the number of added dimensions, and what follows from it: the law of the noise and the alignment of r with σ.

use crate::{Kernel, Path};
use offprint_core::random::Rng;
use offprint_core::{Error, Result};
use offprint_math::special::ln_gamma;
use rand_distr::{Beta, Distribution};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::f64::consts::PI;
use std::fmt;
use std::str::FromStr;

/// D: data y of N components are charges in N + D dimensions, all at z = 0; r = |z| takes the place of time.
///
/// With r = σ√D the noise is Student's t with D degrees of freedom and scale σ. D = ∞ is diffusion, D = 1 the Poisson
/// flow; D need not be whole.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "Word", into = "Word")]
pub struct Augmentation(f64);

impl Augmentation {
    /// No limit to D: EDM's diffusion.
    pub const DIFFUSION: Self = Self(f64::INFINITY);

    /// D > 0, or infinite.
    pub fn new(d: f64) -> Result<Self> {
        Kernel::student_t(d).map(|_| Self(d))
    }

    /// D.
    pub fn get(self) -> f64 {
        self.0
    }

    /// Whether the noise is Gaussian.
    pub fn is_diffusion(self) -> bool {
        self.0 == f64::INFINITY
    }

    /// The law of the noise in the coordinates of the field's samplers, whose level is σ.
    pub fn kernel(self) -> Kernel {
        Kernel::student_t(self.0).expect("checked when it was made")
    }

    /// The path to train on.
    pub fn path(self) -> Path {
        Path::student_t(self.0).expect("checked when it was made")
    }

    /// r = σ√D, the distance from the data's plane at which the noise has scale σ (section 4). Infinite for diffusion.
    pub fn radius(self, sigma: f64) -> f64 {
        sigma * self.0.sqrt()
    }

    /// σ = r/√D, the way back. Zero for diffusion.
    pub fn sigma(self, radius: f64) -> f64 {
        radius / self.0.sqrt()
    }

    /// log p_r(x | y) in n dimensions, for |x − y|² = `square` and r = σ√D: the normalised
    /// (|x − y|² + r²)^−(n+D)/2.
    pub fn log_density(self, square: f64, sigma: f64, n: usize) -> f64 {
        let (dims, d) = (n as f64, self.0);
        let normaliser = if self.is_diffusion() {
            -0.5 * dims * (2.0 * PI * sigma * sigma).ln()
        } else {
            ln_gamma(0.5 * (dims + d)) - ln_gamma(0.5 * d) - 0.5 * dims * (PI * d * sigma * sigma).ln()
        };
        normaliser + self.kernel().log_weight(square, sigma, n)
    }

    /// E|x − y|² in n dimensions: σ² n D/(D − 2), infinite for D ≤ 2.
    pub fn mean_square(self, sigma: f64, n: usize) -> f64 {
        let gaussian = sigma * sigma * n as f64;
        match self.0 {
            f64::INFINITY => gaussian,
            d if d > 2.0 => gaussian * d / (d - 2.0),
            _ => f64::INFINITY,
        }
    }

    /// |x − y| in n dimensions as the paper draws it (appendix B): R = r √(B/(1 − B)), B ~ Beta(n/2, D/2).
    ///
    /// The field's samplers draw the same law as σ z √(D/χ²_D) ([`Kernel::noise`]), which needs no clipping of B near
    /// 1; this is the independent road that tests compare with.
    ///
    /// # Errors
    /// For diffusion, which has no r, and n = 0.
    pub fn draw_distance(self, sigma: f64, n: usize, rng: &mut Rng) -> Result<f64> {
        let law = Beta::new(0.5 * n as f64, 0.5 * self.0)
            .map_err(|_| Error::parameter("D", self, format!("finite, and n = {n} at least 1, for a Beta law")))?;
        let b: f64 = law.sample(rng);
        Ok(self.radius(sigma) * (b / (1.0 - b)).sqrt())
    }
}

impl fmt::Display for Augmentation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Augmentation {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::parameter("D", format!("\"{text}\""), "positive or 'inf'");
        Self::new(text.trim().parse().map_err(|_| wrong())?)
    }
}

/// JSON has no infinity: it is the word "inf" there.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Word {
    Number(f64),
    Text(String),
}

impl TryFrom<Word> for Augmentation {
    type Error = Error;

    fn try_from(word: Word) -> Result<Self> {
        match word {
            Word::Number(d) => Self::new(d),
            Word::Text(text) => text.parse(),
        }
    }
}

impl From<Augmentation> for Word {
    fn from(d: Augmentation) -> Self {
        if d.is_diffusion() { Self::Text("inf".into()) } else { Self::Number(d.0) }
    }
}

impl JsonSchema for Augmentation {
    fn schema_name() -> Cow<'static, str> {
        "Augmentation".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "number", "exclusiveMinimum": 0 }, { "const": "inf" }] })
    }
}
