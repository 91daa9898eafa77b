//! A user's rows with their targets, as a batch that a network can read.

use crate::batch::Batch;
use crate::derivatives::Loss;
use crate::error::computation;
use crate::network::{Architecture, Reads};
use candle_core::{DType, Device, Tensor};
use ndarray::{ArrayD, Axis, Slice};
use offprint_core::{Error, Result, Source};

/// The samples in `inputs` with their targets in `dtype` (F32 or F64), as `architecture` reads them under `loss`.
///
/// - Networks over rows take a matrix (n, numbers). Without `targets` its last column holds the targets.
/// - Networks over images take (n, channels, height, width), or a matrix whose rows are square images laid out so.
/// - Networks over tokens take whole numbers (n, positions); without `targets` each position's target is the next token.
/// - Targets are class numbers from 0 for [`Loss::CrossEntropy`]; numbers (n) or (n, outputs) for
///   [`Loss::SquaredError`]; 0 or 1 for [`Loss::Logistic`].
///
/// # Errors
/// Shapes that do not fit the network or each other; a value that is not finite, or no class, by its row.
pub fn labelled(
    architecture: &Architecture,
    loss: Loss,
    inputs: &Source,
    targets: Option<&Source>,
    dtype: DType,
) -> Result<Batch> {
    let mut values = reals(inputs)?;
    let own = |values: ArrayD<f64>, (start, end)| values.slice_each_axis(|axis| last_axis(axis, start, end)).to_owned();
    let targets = match (targets, architecture.reads()) {
        (Some(source), _) => (reals(source)?, source),
        (None, Reads::Tokens { .. }) if values.ndim() == 2 && values.shape()[1] >= 2 => {
            let next = own(values.clone(), (1, None));
            values = own(values, (0, Some(-1)));
            (next, inputs)
        }
        (None, _) if values.ndim() == 2 && values.shape()[1] >= 2 => {
            let last = own(values.clone(), (-1, None));
            values = own(values, (0, Some(-1)));
            (last, inputs)
        }
        (None, _) => {
            let problem = format!("has shape {:?}, which leaves no column for the targets; give them", values.shape());
            return Err(Error::input(inputs.to_string(), problem));
        }
    };
    let n = values.shape()[0];
    if targets.0.shape()[0] != n {
        let problem = format!("holds {} targets, but there are {n} samples", targets.0.shape()[0]);
        return Err(Error::input(targets.1.to_string(), problem));
    }
    let inputs = self::inputs(architecture, values, inputs, dtype)?;
    let positions = match architecture.reads() {
        Reads::Tokens { .. } => Some(inputs.dims()[1]),
        _ => None,
    };
    let targets = self::targets(architecture.outputs(), positions, loss, targets.0, targets.1, dtype)?;
    Ok(Batch { inputs, targets })
}

/// Samples without targets, as `architecture` reads them; see [`labelled`].
///
/// # Errors
/// As there.
pub fn unlabelled(architecture: &Architecture, inputs: &Source, dtype: DType) -> Result<Tensor> {
    self::inputs(architecture, reals(inputs)?, inputs, dtype)
}

fn last_axis(axis: ndarray::AxisDescription, start: isize, end: Option<isize>) -> Slice {
    if axis.axis == Axis(1) { Slice::new(start, end, 1) } else { Slice::from(..) }
}

/// An array of finite reals with a sample on its first axis.
fn reals(source: &Source) -> Result<ArrayD<f64>> {
    let array = source.array()?;
    let dtype = array.dtype();
    let bad = |problem: String| Error::input(source.to_string(), problem);
    let values = array.into_f64().ok_or_else(|| bad(format!("has dtype {dtype}; real numbers are needed")))?;
    if values.ndim() == 0 || values.is_empty() {
        return Err(bad(format!("is empty (shape {:?})", values.shape())));
    }
    for (i, row) in values.axis_iter(Axis(0)).enumerate() {
        if let Some(&x) = row.iter().find(|x| !x.is_finite()) {
            return Err(source.not_finite(i, None, x));
        }
    }
    Ok(values)
}

fn inputs(architecture: &Architecture, values: ArrayD<f64>, source: &Source, dtype: DType) -> Result<Tensor> {
    let bad = |problem: String| Error::input(source.to_string(), problem);
    let shape = values.shape().to_vec();
    let (n, size) = (shape[0], shape[1..].iter().product::<usize>());
    let tensor = |shape: &[usize]| {
        let flat: Vec<f64> = values.iter().copied().collect();
        Tensor::from_vec(flat, shape, &Device::Cpu).and_then(|t| t.to_dtype(dtype)).map_err(computation)
    };
    match architecture.reads() {
        Reads::Rows(width) if size == width => tensor(&[n, width]),
        Reads::Rows(width) => Err(bad(format!("has shape {shape:?}, but the network reads rows of {width} numbers"))),
        Reads::Images { channels, side } => {
            let (height, width) = match shape[..] {
                [_, c, height, width] if c == channels => (height, width),
                [_, height, width] if channels == 1 => (height, width),
                [_, pixels] if pixels.is_multiple_of(channels) && square(pixels / channels).is_some() => {
                    let side = square(pixels / channels).expect("just tested");
                    (side, side)
                }
                _ => {
                    let problem = format!(
                        "has shape {shape:?}, but the network reads images (n, {channels}, height, width) or rows of \
                         square images"
                    );
                    return Err(bad(problem));
                }
            };
            match side {
                Some(side) if (height, width) != (side, side) => {
                    Err(bad(format!("holds images of {height} × {width}, but the network reads {side} × {side}")))
                }
                _ => tensor(&[n, channels, height, width]),
            }
        }
        Reads::Tokens { vocabulary, context } => {
            let [n, positions] = shape[..] else {
                return Err(bad(format!("has shape {shape:?}, but the network reads tokens (n, positions)")));
            };
            if positions > context {
                return Err(bad(format!("holds sequences of {positions} tokens; the network's context is {context}")));
            }
            let ids = whole_below(&values, vocabulary, "a token", source)?;
            Tensor::from_vec(ids, (n, positions), &Device::Cpu).map_err(computation)
        }
    }
}

fn targets(
    outputs: usize,
    positions: Option<usize>,
    loss: Loss,
    values: ArrayD<f64>,
    source: &Source,
    dtype: DType,
) -> Result<Tensor> {
    let shape = values.shape().to_vec();
    let n = shape[0];
    let per_sample: usize = shape[1..].iter().product();
    let each = match (loss, positions) {
        (Loss::CrossEntropy, positions) => positions.unwrap_or(1),
        (_, positions) => outputs * positions.unwrap_or(1),
    };
    if per_sample != each {
        let problem = format!("has shape {shape:?}, but each of the {n} samples needs {each} for a target");
        return Err(Error::input(source.to_string(), problem));
    }
    if loss == Loss::CrossEntropy {
        let ids = whole_below(&values, outputs, "a class", source)?;
        let shape: Vec<usize> = std::iter::once(n).chain(positions).collect();
        return Tensor::from_vec(ids, shape, &Device::Cpu).map_err(computation);
    }
    if loss == Loss::Logistic {
        whole_below(&values, 2, "0 or 1", source)?;
    }
    let shape: Vec<usize> = std::iter::once(n).chain(positions).chain([outputs]).collect();
    Tensor::from_vec(values.into_iter().collect::<Vec<_>>(), shape, &Device::Cpu)
        .and_then(|t| t.to_dtype(dtype))
        .map_err(computation)
}

/// The values as whole numbers from 0 to below `end`.
fn whole_below(values: &ArrayD<f64>, end: usize, what: &str, source: &Source) -> Result<Vec<u32>> {
    let per_row = values.len() / values.shape()[0];
    let whole = values.iter().enumerate().map(|(i, &x)| {
        if x.fract() == 0.0 && x >= 0.0 && x < end as f64 {
            return Ok(x as u32);
        }
        let row = i / per_row.max(1);
        let problem =
            format!("row {row} (counted from 0) holds {x}, which is not {what}: they go from 0 to {}", end - 1);
        Err(Error::input(source.to_string(), problem))
    });
    whole.collect()
}

/// The side of a square of `n` places.
fn square(n: usize) -> Option<usize> {
    let side = n.isqrt();
    (side * side == n && n > 0).then_some(side)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::{Activation, GptConfig, MlpConfig};
    use ndarray::arr2;

    fn source<D: ndarray::Dimension>(values: ndarray::Array<f64, D>) -> Source {
        Source::Memory(std::sync::Arc::new(values.into_dyn().into()))
    }

    fn mlp(widths: &[usize]) -> Architecture {
        Architecture::Mlp(MlpConfig { widths: widths.to_vec(), activation: Activation::Relu })
    }

    #[test]
    fn the_last_column_is_the_target_unless_targets_are_given() {
        let table = arr2(&[[1., 2., 0.], [3., 4., 1.]]);
        let batch = labelled(&mlp(&[2, 2]), Loss::CrossEntropy, &source(table.clone()), None, DType::F64).unwrap();
        assert_eq!(batch.inputs.to_vec2::<f64>().unwrap(), [[1., 2.], [3., 4.]]);
        assert_eq!(batch.targets.to_vec1::<u32>().unwrap(), [0, 1]);
        let targets = source(ndarray::arr1(&[0.5, -1.0]));
        let batch = labelled(&mlp(&[3, 1]), Loss::SquaredError, &source(table), Some(&targets), DType::F64).unwrap();
        assert_eq!(batch.targets.to_vec2::<f64>().unwrap(), [[0.5], [-1.0]]);
    }

    #[test]
    fn rows_become_images_and_tokens_predict_the_next() {
        let cnn = Architecture::DigitsCnn { classes: 3 };
        let rows = ndarray::Array2::from_shape_fn((2, 16), |(i, j)| (i + j) as f64);
        let targets = source(ndarray::arr1(&[0., 2.]));
        let batch = labelled(&cnn, Loss::CrossEntropy, &source(rows), Some(&targets), DType::F32).unwrap();
        assert_eq!(batch.inputs.dims(), [2, 1, 4, 4]);
        let gpt = Architecture::Gpt(GptConfig::characters(5));
        let ids = arr2(&[[0., 1., 2.], [4., 3., 2.]]);
        let batch = labelled(&gpt, Loss::CrossEntropy, &source(ids), None, DType::F32).unwrap();
        assert_eq!(batch.inputs.to_vec2::<u32>().unwrap(), [[0, 1], [4, 3]]);
        assert_eq!(batch.targets.to_vec2::<u32>().unwrap(), [[1, 2], [3, 2]]);
    }

    #[test]
    fn what_does_not_fit_is_named_by_its_row() {
        let table = |bad: f64| source(arr2(&[[1., 2., 0.], [3., 4., bad]]));
        let read = |bad, loss| labelled(&mlp(&[2, 2]), loss, &table(bad), None, DType::F64).unwrap_err().to_string();
        assert!(read(2.0, Loss::CrossEntropy).contains("row 1"));
        assert!(read(0.5, Loss::CrossEntropy).contains("0.5"));
        assert!(read(f64::NAN, Loss::CrossEntropy).contains("row 1"));
        assert!(read(1.0, Loss::SquaredError).contains("needs 2"));
        let error = labelled(&mlp(&[5, 2]), Loss::CrossEntropy, &table(0.0), None, DType::F64).unwrap_err().to_string();
        assert!(error.contains("rows of 5"), "{error}");
        let few = source(ndarray::arr1(&[1.0]));
        let error = labelled(&mlp(&[3, 2]), Loss::CrossEntropy, &table(0.0), Some(&few), DType::F64).unwrap_err();
        assert!(error.to_string().contains("2 samples"), "{error}");
    }
}
