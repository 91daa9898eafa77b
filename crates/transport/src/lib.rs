//! Papers on optimal transport.

pub mod exact;
pub mod lightsb;
pub mod plan;
pub mod sinkhorn;
pub mod sparse_ot;

use offprint_core::Paper;

/// The papers of this field.
pub fn papers() -> Vec<Paper> {
    vec![offprint_core::paper!("lightsb", lightsb::LightSb), offprint_core::paper!("sparse_ot", sparse_ot::SparseOt)]
}
