//! Papers on optimal transport.

use offprint_core::Paper;

/// The papers of this field.
pub fn papers() -> Vec<Paper> {
    vec![]
}
