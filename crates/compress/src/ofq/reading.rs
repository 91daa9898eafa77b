//! A quantised matrix as it stands at one step.

use super::Levels;

/// The weights of a matrix with their levels.
#[derive(Debug, Clone)]
pub struct Reading {
    /// Its name ("blocks.0.mlp.fc1").
    pub name: String,
    /// Weights, row by row.
    pub weights: Vec<f32>,
    /// Columns of a row.
    pub columns: usize,
    /// One scale a row, or one for all.
    pub scales: Vec<f32>,
    /// What they are rounded to.
    pub levels: Levels,
}

impl Reading {
    /// The scale of weight number `i`.
    #[inline]
    pub fn scale(&self, i: usize) -> f32 {
        self.scales[i / self.columns % self.scales.len()]
    }

    /// All codes.
    pub fn codes(&self) -> Vec<i8> {
        self.weights.iter().enumerate().map(|(i, &w)| self.levels.code(w, self.scale(i)) as i8).collect()
    }

    /// How far each weight is from the nearest boundary between two levels, in units of their distance.
    pub fn to_boundary(&self) -> impl Iterator<Item = f32> {
        self.weights.iter().enumerate().map(|(i, &w)| self.levels.to_boundary(self.levels.position(w, self.scale(i))))
    }

    /// Whether each weight lies within `margin` of a boundary: the weights that CGA trains.
    pub fn trainable(&self, margin: f64) -> Vec<bool> {
        self.to_boundary().map(|distance| f64::from(distance) <= margin).collect()
    }
}
