//! Gaussian mixtures as JSON: `{"weights": [..], "means": [[..]], "covs": [..]}`.

use crate::exact::{Covariances, Mixture};
use ndarray::{Array1, Array2, Array3};
use offprint_core::{Error, Result};
use serde::Deserialize;
use std::path::Path;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    weights: Vec<f64>,
    means: Vec<Vec<f64>>,
    covs: Vec<Spread>,
}

/// The spread of one component, by the depth of its brackets.
#[derive(Deserialize)]
#[serde(untagged)]
enum Spread {
    /// One variance for all coordinates.
    Round(f64),
    /// A variance for each.
    Diagonal(Vec<f64>),
    /// A matrix.
    Full(Vec<Vec<f64>>),
}

/// Reads a mixture. A component's entry of `covs` is a number (round), a list (diagonal) or a list of lists (full).
///
/// # Errors
/// A file that cannot be read or is no such JSON, shapes that do not fit, and all that [`Mixture::new`] refuses.
pub fn read(file: &Path) -> Result<Mixture> {
    let text = std::fs::read_to_string(file).map_err(|e| Error::file("read", file, e))?;
    parse(&text, &file.display().to_string())
}

/// As [`read`], from text; `name` stands in errors.
pub fn parse(text: &str, name: &str) -> Result<Mixture> {
    let bad = |problem: String| Error::input(name, problem);
    let Document { weights, means, covs } = serde_json::from_str(text)
        .map_err(|e| bad(format!("is no mixture {{\"weights\", \"means\", \"covs\"}}: {e}")))?;
    let k = means.len();
    let d = means.first().map_or(0, Vec::len);
    if let Some(i) = means.iter().position(|m| m.len() != d) {
        return Err(bad(format!("means: entry {i} has {} numbers, but entry 0 has {d}", means[i].len())));
    }
    if covs.len() != k {
        return Err(bad(format!("covs: has {} entries, but there are {k} means", covs.len())));
    }
    let mut matrices = Array3::zeros((k, d, d));
    for (i, (spread, mut matrix)) in covs.iter().zip(matrices.outer_iter_mut()).enumerate() {
        match spread {
            Spread::Round(variance) => matrix.diag_mut().fill(*variance),
            Spread::Diagonal(variances) if variances.len() == d => {
                matrix.diag_mut().iter_mut().zip(variances).for_each(|(m, v)| *m = *v);
            }
            Spread::Full(rows) if rows.len() == d && rows.iter().all(|row| row.len() == d) => {
                matrix.iter_mut().zip(rows.iter().flatten()).for_each(|(m, v)| *m = *v);
            }
            _ => return Err(bad(format!("covs: entry {i} does not fit the dimension {d} of the means"))),
        }
    }
    let means = Array2::from_shape_vec((k, d), means.concat()).map_err(|e| bad(format!("means: {e}")))?;
    Mixture::new(Array1::from(weights), means, Covariances::Full(matrices)).map_err(|e| bad(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads_of_every_depth_are_read() {
        let text = r#"{"weights": [0.2, 0.3, 0.5], "means": [[0, 1], [2, 3], [4, 5]], "covs": [0.5, [1, 2], [[1, 0.1], [0.1, 3]]]}"#;
        let mixture = parse(text, "m.json").unwrap();
        assert_eq!(mixture.covariance(0), ndarray::array![[0.5, 0.0], [0.0, 0.5]]);
        assert_eq!(mixture.covariance(1), ndarray::array![[1.0, 0.0], [0.0, 2.0]]);
        assert_eq!(mixture.covariance(2), ndarray::array![[1.0, 0.1], [0.1, 3.0]]);
    }

    #[test]
    fn bad_files_say_what_is_wrong() {
        let message = |text: &str| parse(text, "m.json").unwrap_err().to_string();
        assert!(message("[1]").contains("m.json: is no mixture"));
        assert!(message(r#"{"weights": [1], "means": [[0, 1]], "covs": [[1, 2, 3]]}"#).contains("entry 0"));
        assert!(message(r#"{"weights": [1], "means": [[0]], "covs": []}"#).contains("1 means"));
        assert!(message(r#"{"weights": [0.5, 0.5], "means": [[0], [0, 1]], "covs": [1, 1]}"#).contains("entry 1"));
        assert!(message(r#"{"weights": [0.4], "means": [[0]], "covs": [1]}"#).contains("sum to 0.4"));
        assert!(message(r#"{"weights": [1], "means": [[0]], "covs": [-1]}"#).contains("positive definite"));
        assert!(message(r#"{"weights": [], "means": [], "covs": []}"#).contains("means"));
    }
}
