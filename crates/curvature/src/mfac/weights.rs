//! The weights of a model as one vector, from a `.safetensors` file.

use ndarray::{ArrayD, IxDyn};
use offprint_core::artifact::{Arrays, read_safetensors};
use offprint_core::{Array, Error, Result};
use std::path::Path;

/// The tensors of a model that a method works on, one after the other in a flat vector.
#[derive(Debug, Clone, PartialEq)]
pub struct Weights {
    /// Name and shape of each, in the order in which they are laid out.
    pub tensors: Vec<(String, Vec<usize>)>,
    /// All elements, each tensor in C order.
    pub flat: Vec<f64>,
}

impl Weights {
    /// Reads `tensors` of the file in this order; if none are named, all with two axes or more (biases and norms stay
    /// out) in the alphabetical order of their names.
    ///
    /// # Errors
    /// A file that is no safetensors file; a tensor that it lacks, that does not hold reals, or is not finite.
    pub fn read(path: &Path, tensors: &[String]) -> Result<Self> {
        let bad = |problem: String| Error::input(path.display().to_string(), problem);
        let (arrays, _) = read_safetensors(path)?;
        let chosen: Vec<String> = if tensors.is_empty() {
            arrays.iter().filter(|(_, array)| array.shape().len() >= 2).map(|(name, _)| name.clone()).collect()
        } else {
            tensors.to_vec()
        };
        if chosen.is_empty() {
            return Err(bad("has no tensor with two axes or more".into()));
        }
        let mut weights = Self { tensors: Vec::new(), flat: Vec::new() };
        for name in chosen {
            let array = arrays.get(&name).ok_or_else(|| bad(missing(&name, &arrays)))?;
            let shape = array.shape().to_vec();
            let dtype = array.dtype();
            let values = array.clone().into_f64().ok_or_else(|| bad(format!("tensor \"{name}\" has dtype {dtype}")))?;
            if let Some(i) = values.iter().position(|x| !x.is_finite()) {
                return Err(bad(format!("tensor \"{name}\" is not finite at element {i} (counted from 0)")));
            }
            weights.flat.extend(values.iter());
            weights.tensors.push((name, shape));
        }
        Ok(weights)
    }

    /// Where each tensor lies in a flat vector.
    pub fn ranges(&self) -> Vec<std::ops::Range<usize>> {
        let mut start = 0;
        self.tensors
            .iter()
            .map(|(_, shape)| {
                let range = start..start + shape.iter().product::<usize>();
                start = range.end;
                range
            })
            .collect()
    }

    /// `values`, one an element of the flat vector, as named arrays of the tensors' shapes.
    pub fn unflatten<A: Clone>(&self, values: &[A]) -> Arrays
    where
        Array: From<ArrayD<A>>,
    {
        let named = self.tensors.iter().zip(self.ranges()).map(|((name, shape), range)| {
            let array = ArrayD::from_shape_vec(IxDyn(shape), values[range].to_vec());
            (name.clone(), array.expect("as many values as the shape says").into())
        });
        named.collect()
    }
}

/// One tensor of a file: the one called `name`, or the only one.
pub(super) fn tensor(path: &Path, name: Option<&str>) -> Result<Array> {
    let (mut arrays, _) = read_safetensors(path)?;
    let name = match name {
        Some(name) => name.to_owned(),
        None if arrays.len() == 1 => arrays.keys().next().expect("one").clone(),
        None => "grads".to_owned(),
    };
    arrays.remove(&name).ok_or_else(|| Error::input(path.display().to_string(), missing(&name, &arrays)))
}

fn missing(name: &str, arrays: &Arrays) -> String {
    let names: Vec<&str> = arrays.keys().map(String::as_str).collect();
    format!("has no tensor \"{name}\"; its tensors are {}", names.join(", "))
}
