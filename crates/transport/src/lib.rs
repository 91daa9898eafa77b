//! Papers on optimal transport.

pub mod exact;
pub mod plan;

use offprint_core::Paper;

/// The papers of this field.
pub fn papers() -> Vec<Paper> {
    vec![]
}
