//! Papers on signals.

use offprint_core::Paper;

pub mod oodl;
pub mod spright;

/// The papers of this field.
pub fn papers() -> Vec<Paper> {
    vec![offprint_core::paper!("spright", spright::Spright), offprint_core::paper!("oodl", oodl::Oodl)]
}
