//! Factors on disk in the layout of kronfluence, so that either program reads what the other wrote.
//!
//! A directory holds one `.safetensors` file for each kind of factor, with a tensor for each layer: the sums
//! `activation_covariance` and `gradient_covariance` with their counts, eigenvectors and eigenvalues of their means, and
//! `lambda_matrix`, a sum over `num_lambda_processed` samples.

use crate::{KroneckerFactors, KroneckerLayer, KroneckerParts, LayerPlace};
use ndarray::{Array1, Array2, Ix1, Ix2};
use offprint_core::artifact::{Arrays, Artifact, read_safetensors};
use offprint_core::{Array, Error, Result};
use std::path::{Path, PathBuf};

const ACTIVATION_VECTORS: &str = "activation_eigenvectors";
const ACTIVATION_VALUES: &str = "activation_eigenvalues";
const GRADIENT_VECTORS: &str = "gradient_eigenvectors";
const GRADIENT_VALUES: &str = "gradient_eigenvalues";
const LAMBDA: &str = "lambda_matrix";
const LAMBDA_COUNT: &str = "num_lambda_processed";

/// Sums of outer products, and their counts.
const COVARIANCES: [&str; 4] = [
    "activation_covariance",
    "gradient_covariance",
    "num_activation_covariance_processed",
    "num_gradient_covariance_processed",
];
/// What a decomposed layer consists of.
const PARTS: [&str; 6] =
    [ACTIVATION_VECTORS, ACTIVATION_VALUES, GRADIENT_VECTORS, GRADIENT_VALUES, LAMBDA, LAMBDA_COUNT];

/// A directory of factors.
#[derive(Debug, Clone)]
pub struct FactorFiles {
    directory: PathBuf,
}

impl FactorFiles {
    /// The directory at `path`, made if it is not there.
    ///
    /// # Errors
    /// A directory that cannot be made.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let directory = path.into();
        std::fs::create_dir_all(&directory).map_err(|e| Error::file("create", &directory, e))?;
        Ok(Self { directory })
    }

    fn path(&self, stem: &str) -> PathBuf {
        self.directory.join(format!("{stem}.safetensors"))
    }

    fn load(&self, stem: &str) -> Result<Arrays> {
        let path = self.path(stem);
        if path.is_file() { Ok(read_safetensors(&path)?.0) } else { Ok(Arrays::new()) }
    }

    /// Puts one array a layer into the file `stem`, beside those of other layers.
    fn add(&self, stem: &str, arrays: impl IntoIterator<Item = (String, Array)>) -> Result<()> {
        let mut all = self.load(stem)?;
        all.extend(arrays);
        Artifact::Arrays(all, Default::default()).write(&self.path(stem))
    }

    /// Writes the sums of `factors` and their counts.
    ///
    /// # Errors
    /// Files that cannot be read or written.
    pub fn write_covariances(&self, factors: &[KroneckerFactors]) -> Result<()> {
        for (number, stem) in COVARIANCES.into_iter().enumerate() {
            let arrays = factors.iter().map(|factors| {
                let count = factors.positions() as f64;
                let array: Array = match number {
                    0 => single(&(factors.activation_covariance() * count)),
                    1 => single(&(factors.gradient_covariance() * count)),
                    _ => vec![factors.positions() as i64].into(),
                };
                (factors.place().name.clone(), array)
            });
            self.add(stem, arrays)?;
        }
        Ok(())
    }

    /// Writes eigenvectors, eigenvalues and, where they were refitted, Λ.
    ///
    /// # Errors
    /// Files that cannot be read or written.
    pub fn write_layers(&self, layers: &[KroneckerLayer]) -> Result<()> {
        let mut arrays: [Vec<(String, Array)>; 6] = Default::default();
        for layer in layers {
            let parts = layer.parts();
            let name = &layer.place().name;
            let mut add = |file: usize, array: Array| arrays[file].push((name.clone(), array));
            add(0, single(&parts.activation_eigenvectors));
            add(1, parts.activation_eigenvalues.mapv(|x| x as f32).into());
            add(2, single(&parts.gradient_eigenvectors));
            add(3, parts.gradient_eigenvalues.mapv(|x| x as f32).into());
            if let Some((lambda, samples)) = parts.refitted {
                add(4, single(&(lambda * samples as f64)));
                add(5, vec![samples as i64].into());
            }
        }
        for (stem, arrays) in PARTS.into_iter().zip(arrays).filter(|(_, arrays)| !arrays.is_empty()) {
            self.add(stem, arrays)?;
        }
        Ok(())
    }

    /// The layers at `places` as far as the files hold them; with `refit`, only those whose eigenvalues were refitted.
    ///
    /// # Errors
    /// Files that cannot be read; factors of another shape than the layer's, or that are not finite.
    pub fn read_layers(&self, places: &[LayerPlace], refit: bool) -> Result<Vec<Option<KroneckerLayer>>> {
        let load = |stem| self.load(stem);
        let (mut vectors_a, mut values_a) = (load(ACTIVATION_VECTORS)?, load(ACTIVATION_VALUES)?);
        let (mut vectors_s, mut values_s) = (load(GRADIENT_VECTORS)?, load(GRADIENT_VALUES)?);
        let (mut lambda, mut counts) = (load(LAMBDA)?, load(LAMBDA_COUNT)?);
        let mut layers = Vec::new();
        for place in places {
            let name = place.name.as_str();
            let found = [&mut vectors_a, &mut values_a, &mut vectors_s, &mut values_s].map(|file| file.remove(name));
            let refitted = (lambda.remove(name), counts.remove(name));
            let [Some(vectors_a), Some(values_a), Some(vectors_s), Some(values_s)] = found else {
                layers.push(None);
                continue;
            };
            let refitted = match refitted {
                (Some(sum), Some(count)) => {
                    let count = numbers(count, &self.path(LAMBDA_COUNT), name)?.sum().max(1.0);
                    Some((matrix(sum, &self.path(LAMBDA), name)? / count, count as usize))
                }
                _ if refit => {
                    layers.push(None);
                    continue;
                }
                _ => None,
            };
            let parts = KroneckerParts {
                activation_eigenvectors: matrix(vectors_a, &self.path(ACTIVATION_VECTORS), name)?,
                activation_eigenvalues: numbers(values_a, &self.path(ACTIVATION_VALUES), name)?,
                gradient_eigenvectors: matrix(vectors_s, &self.path(GRADIENT_VECTORS), name)?,
                gradient_eigenvalues: numbers(values_s, &self.path(GRADIENT_VALUES), name)?,
                refitted: if refit { refitted } else { None },
            };
            let layer = KroneckerLayer::from_parts(place.clone(), parts)
                .map_err(|e| Error::input(self.directory.display().to_string(), e.to_string()))?;
            layers.push(Some(layer));
        }
        Ok(layers)
    }
}

/// As kronfluence keeps them: single precision.
fn single(matrix: &Array2<f64>) -> Array {
    matrix.mapv(|x| x as f32).into()
}

fn matrix(array: Array, path: &Path, name: &str) -> Result<Array2<f64>> {
    let shape = array.shape().to_vec();
    let matrix = array.into_f64().and_then(|array| array.into_dimensionality::<Ix2>().ok());
    matrix.ok_or_else(|| bad(path, name, &shape, "a matrix"))
}

fn numbers(array: Array, path: &Path, name: &str) -> Result<Array1<f64>> {
    let shape = array.shape().to_vec();
    let numbers = array.into_f64().and_then(|array| array.into_dimensionality::<Ix1>().ok());
    numbers.ok_or_else(|| bad(path, name, &shape, "a vector"))
}

fn bad(path: &Path, name: &str, shape: &[usize], needed: &str) -> Error {
    Error::input(
        path.display().to_string(),
        format!("tensor \"{name}\" has shape {shape:?}; {needed} of reals is needed"),
    )
}
