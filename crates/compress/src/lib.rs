//! Making models small: quantisers and pruners behind one interface, and the papers on them.

pub mod gqsa;

use offprint_core::{Comparison, Paper};

/// The papers of this field.
pub fn papers() -> Vec<Paper> {
    vec![]
}

/// The comparisons of this field.
pub fn comparisons() -> Vec<Comparison> {
    vec![]
}
