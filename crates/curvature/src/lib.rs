//! Curvature of losses: operators, consumers, inverses, and the papers on them.

use offprint_core::Paper;

/// The papers of this field.
pub fn papers() -> Vec<Paper> {
    vec![]
}
