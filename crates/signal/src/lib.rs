//! Papers on signals.

use offprint_core::Paper;

pub mod oodl;

/// The papers of this field.
pub fn papers() -> Vec<Paper> {
    vec![offprint_core::paper!("oodl", oodl::Oodl)]
}
