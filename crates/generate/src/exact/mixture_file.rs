//! Mixtures as JSON.

use super::{Covariances, Mixture};
use ndarray::{Array1, Array2, Array3};
use offprint_core::{Error, Result};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    weights: Vec<f64>,
    means: Vec<Vec<f64>>,
    covs: Vec<Covariance>,
}

/// A number is the variance of every coordinate, a list one variance a coordinate, a list of lists a matrix.
#[derive(Deserialize)]
#[serde(untagged)]
enum Covariance {
    Round(f64),
    Diagonal(Vec<f64>),
    Full(Vec<Vec<f64>>),
}

impl Mixture {
    /// The mixture in `text`: `{"weights": [K], "means": [K][d], "covs": [K]}`, each of `covs` a variance, d variances
    /// or a d × d matrix. `name` stands in errors.
    ///
    /// # Errors
    /// Other JSON, lists of different lengths, and what [`Mixture::new`] refuses.
    pub fn from_json(text: &str, name: &str) -> Result<Self> {
        let bad = |problem: String| Error::input(name, problem);
        let file: File = serde_json::from_str(text)
            .map_err(|e| bad(format!("is not a mixture {{\"weights\", \"means\", \"covs\"}}: {e}")))?;
        let (k, d) = (file.means.len(), file.means.first().map_or(0, Vec::len));
        let means = table("means", &file.means, (k, d)).map_err(&bad)?;
        if file.covs.len() != k {
            return Err(bad(format!("has {} covs for {k} means", file.covs.len())));
        }
        let covariances = if file.covs.iter().any(|c| matches!(c, Covariance::Full(_))) {
            let mut matrices = Array3::zeros((k, d, d));
            for (i, (cov, mut matrix)) in file.covs.iter().zip(matrices.outer_iter_mut()).enumerate() {
                match cov {
                    Covariance::Full(rows) => {
                        matrix.assign(&table(&format!("covs[{i}]"), rows, (d, d)).map_err(&bad)?);
                    }
                    other => matrix.diag_mut().assign(&other.variances(i, d).map_err(&bad)?),
                }
            }
            Covariances::Full(matrices)
        } else {
            let mut variances = Array2::zeros((k, d));
            for (i, (cov, mut row)) in file.covs.iter().zip(variances.outer_iter_mut()).enumerate() {
                row.assign(&cov.variances(i, d).map_err(&bad)?);
            }
            Covariances::Diagonal(variances)
        };
        Self::new(Array1::from(file.weights), means, covariances).map_err(|e| bad(e.to_string()))
    }
}

impl Covariance {
    fn variances(&self, i: usize, d: usize) -> Result<Array1<f64>, String> {
        match self {
            Self::Round(variance) => Ok(Array1::from_elem(d, *variance)),
            Self::Diagonal(variances) if variances.len() == d => Ok(Array1::from(variances.clone())),
            _ => Err(format!("covs[{i}] must be a number, {d} numbers, or {d} rows of {d} numbers")),
        }
    }
}

fn table(what: &str, rows: &[Vec<f64>], shape: (usize, usize)) -> Result<Array2<f64>, String> {
    if rows.len() != shape.0 {
        return Err(format!("{what} has {} rows, not {}", rows.len(), shape.0));
    }
    match rows.iter().position(|row| row.len() != shape.1) {
        Some(i) => Err(format!("row {i} of {what} has {} numbers, not {}", rows[i].len(), shape.1)),
        None => Ok(Array2::from_shape_vec(shape, rows.concat()).expect("counted above")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn covariances_of_every_kind_are_read() {
        let diagonal = r#"{"weights": [0.5, 0.5], "means": [[0, 1], [2, 3]], "covs": [0.5, [1, 2]]}"#;
        let mixture = Mixture::from_json(diagonal, "m.json").unwrap();
        assert_eq!(mixture.covariances(), &Covariances::Diagonal(array![[0.5, 0.5], [1.0, 2.0]]));
        let full = r#"{"weights": [0.5, 0.5], "means": [[0, 1], [2, 3]], "covs": [0.5, [[1, 0.2], [0.2, 2]]]}"#;
        let mixture = Mixture::from_json(full, "m.json").unwrap();
        assert_eq!(mixture.covariance(0), array![[0.5, 0.0], [0.0, 0.5]]);
        assert_eq!(mixture.covariance(1), array![[1.0, 0.2], [0.2, 2.0]]);
    }

    #[test]
    fn other_files_are_refused_in_words() {
        let message = |text: &str| Mixture::from_json(text, "m.json").unwrap_err().to_string();
        assert!(message("[]").starts_with("m.json: is not a mixture"));
        assert!(message(r#"{"weights": [1], "means": [[0], [1, 2]], "covs": [1, 1]}"#).contains("row 1 of means"));
        assert!(message(r#"{"weights": [1], "means": [[0]], "covs": []}"#).contains("0 covs for 1 means"));
        assert!(message(r#"{"weights": [1], "means": [[0]], "covs": [[1, 2]]}"#).contains("covs[0]"));
        assert!(message(r#"{"weights": [0.4], "means": [[0]], "covs": [1]}"#).contains("sum to 0.4"));
        assert!(message(r#"{"weights": [], "means": [], "covs": []}"#).contains("m.json"));
    }
}
