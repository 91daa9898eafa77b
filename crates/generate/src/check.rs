//! What every method of the field refuses, in one wording.

use ndarray::ArrayView2;
use offprint_core::{Error, Result};

/// Refuses an empty table and one with a value that is not finite; the error names the first such row.
pub fn rows(name: &str, x: ArrayView2<'_, f64>) -> Result<()> {
    if x.is_empty() {
        return Err(Error::input(name, format!("has shape {:?}: there is nothing in it", x.shape())));
    }
    match first_bad_row(x) {
        Some(row) => Err(Error::input(name, format!("row {row} holds a value that is not finite"))),
        None => Ok(()),
    }
}

/// Refuses points whose dimension is not that of the model (or data) they meet; the error names both shapes.
pub fn dimension(name: &str, x: ArrayView2<'_, f64>, of: &str, d: usize) -> Result<()> {
    if x.ncols() == d {
        return Ok(());
    }
    Err(Error::input(name, format!("has shape {:?}, but {of} has dimension {d}: (n, {d}) is needed", x.shape())))
}

/// The first row with a value that is not finite.
pub fn first_bad_row(x: ArrayView2<'_, f64>) -> Option<usize> {
    // Without branches within a piece: the usual answer costs one pass at the speed of the memory.
    let fine = |piece: &[f64]| piece.iter().fold(true, |fine, v| fine & v.is_finite());
    if x.as_slice().is_some_and(|all| all.chunks(256).all(fine)) {
        return None;
    }
    x.outer_iter().position(|row| row.iter().any(|v| !v.is_finite()))
}

/// Refuses a number that is not positive and finite.
pub fn positive(name: &str, value: f64) -> Result<()> {
    if value > 0.0 && value.is_finite() { Ok(()) } else { Err(Error::parameter(name, value, "a positive number")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array2, array};

    #[test]
    fn messages_name_rows_and_shapes() {
        let message = rows("x0", array![[0.0], [f64::NAN], [f64::INFINITY]].view()).unwrap_err().to_string();
        assert!(message.contains("x0: row 1"), "{message}");
        assert!(rows("x0", Array2::zeros((0, 3)).view()).unwrap_err().to_string().contains("[0, 3]"));
        let message = dimension("x", array![[1.0, 2.0]].view(), "the model", 3).unwrap_err().to_string();
        assert!(message.contains("[1, 2]") && message.contains("dimension 3"), "{message}");
        assert!(positive("tau", 0.0).is_err() && positive("tau", f64::INFINITY).is_err());
    }
}
