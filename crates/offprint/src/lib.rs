//! The catalogue: every field of Offprint under one name.
//!
//! A program that needs one method depends on its field's crate alone (`offprint-signal`, `offprint-transport`); this
//! crate lists them all, for the command line, the page and Python.

pub use offprint_compress as compress;
pub use offprint_core as core;
pub use offprint_curvature as curvature;
pub use offprint_generate as generate;
pub use offprint_nn as nn;
pub use offprint_signal as signal;
pub use offprint_transport as transport;

use offprint_core::{Comparison, Paper};

/// All papers, field by field.
pub fn papers() -> Vec<Paper> {
    [signal::papers(), transport::papers(), generate::papers(), compress::papers(), curvature::papers()]
        .into_iter()
        .flatten()
        .collect()
}

/// All comparisons, field by field.
pub fn comparisons() -> Vec<Comparison> {
    [generate::comparisons(), compress::comparisons()].into_iter().flatten().collect()
}
