//! One layer calibrated: weights, ranges and bias that give back the float layer's outputs.

use super::ranges::Ranges;
use crate::layer::matrix;
use crate::packed::{Packed, Values};
use crate::quantiser::Affine;
use candle_core::{DType, Device, Tensor, Var};
use ndarray::Array1;
use offprint_core::random::Stream;
use offprint_core::{Error, Progress, Result};
use offprint_nn::layers::LayerKind;
use offprint_nn::optim::{Adam, AdamSettings, Optimizer};
use offprint_nn::{LayerPlace, computation, ops};
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

/// Bits of a layer's operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bits {
    /// Of a weight, one scale an output channel.
    pub weight: u32,
    /// Of an input, one scale for all; none leaves them floats.
    pub input: Option<u32>,
}

/// Learning rates of the four optimisers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// Of weights.
    pub weight: f64,
    /// Of the weights' ranges and minima.
    pub weight_range: f64,
    /// Of the inputs' range and minimum.
    pub input_range: f64,
    /// Of the bias.
    pub bias: f64,
}

impl Rates {
    /// Those of the authors' code, in absolute units; they were tuned for large folded networks on ImageNet.
    pub const AUTHORS: Self = Self { weight: 1e-5, weight_range: 1e-3, input_range: 1e-1, bias: 1e-3 };
}

/// How a layer is calibrated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// Steps of the four optimisers.
    pub steps: usize,
    /// Samples of a batch.
    pub batch: usize,
    /// Learning rates; none takes 0.003 of the weights' deviation, 0.01 of the ranges' mean, of the inputs' range and of
    /// the bias' deviation.
    pub rates: Option<Rates>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { steps: 100, batch: 50, rates: None }
    }
}

/// What a layer reads and what it should give.
#[derive(Debug, Clone)]
pub struct Pairs {
    /// Inputs (n, in) or (n, …, in), or images (n, in, height, width).
    pub inputs: Tensor,
    /// What the layer should give (n, …).
    pub outputs: Tensor,
}

/// What became of a layer.
#[derive(Debug, Clone)]
pub struct Calibrated {
    /// Codes and scales of its weights.
    pub weight: Packed,
    /// The quantiser of its inputs.
    pub input: Option<Affine>,
    /// Its bias (out).
    pub bias: Array1<f32>,
    /// Mean squared error of outputs on the fifth of the pairs that was held out: rounded to nearest, and now.
    pub held_out: (f64, f64),
    /// Equations (samples × places) for each unknown weight of an output channel: below 1 they do not determine it.
    pub equations: f64,
}

/// What is trained.
struct Parameters<'a> {
    place: &'a LayerPlace,
    weight: Var,
    bias: Option<Var>,
    rows: Ranges,
    inputs: Option<Ranges>,
}

impl Parameters<'_> {
    /// Outputs of the quantised layer.
    fn outputs(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let weight = self.rows.fake(self.weight.as_tensor())?;
        let x = self.inputs.as_ref().map_or_else(|| Ok(x.clone()), |inputs| inputs.fake(x))?;
        apply(self.place.kind, &x, &weight, self.bias.as_ref().map(|bias| bias.as_tensor()))
    }

    /// All variables, as copies.
    fn kept(&self) -> candle_core::Result<Vec<Tensor>> {
        self.vars().into_iter().map(|var| var.as_detached_tensor().copy()).collect()
    }

    fn restore(&self, kept: &[Tensor]) -> candle_core::Result<()> {
        self.vars().into_iter().zip(kept).try_for_each(|(var, kept)| var.set(kept))
    }

    fn vars(&self) -> Vec<&Var> {
        let mut vars = vec![&self.weight, &self.rows.range, &self.rows.minimum];
        vars.extend(&self.bias);
        if let Some(inputs) = &self.inputs {
            vars.extend([&inputs.range, &inputs.minimum]);
        }
        vars
    }
}

/// A linear layer or a convolution by its operands.
pub(super) fn apply(kind: LayerKind, x: &Tensor, w: &Tensor, b: Option<&Tensor>) -> candle_core::Result<Tensor> {
    match kind {
        LayerKind::Linear => ops::linear(x, w, b),
        LayerKind::Conv2d { conv, .. } => ops::conv2d(x, w, b, &conv),
        LayerKind::Embedding => Err(candle_core::Error::Msg("an embedding has no numbers for inputs".into())),
    }
}

/// Minimises ‖y − Q_w(W) Q_x(x) − b‖² over W, the ranges of both quantisers and b, on four fifths of `pairs`, from W and b
/// as they are and ranges from least to greatest; the parameters that were best on the last fifth are kept, rounding to
/// nearest if none was better (AdaQuant, eq. 1). `bias` is where the bias begins; without one the layer
/// has none.
///
/// Costs three products of matrices a step and batch.
///
/// # Errors
/// Fewer than two pairs, `settings.batch` = 0, bits outside 1 to 8, operands that do not fit the layer, a stop by `progress`.
pub fn calibrate_layer(
    place: &LayerPlace,
    weight: &Tensor,
    bias: Option<&Tensor>,
    pairs: &Pairs,
    bits: Bits,
    settings: &Settings,
    stream: Stream,
    progress: &Progress,
) -> Result<Calibrated> {
    let n = pairs.inputs.dims().first().copied().unwrap_or(0);
    if n < 2 {
        return Err(Error::input(
            "calibration",
            format!("holds {n} samples; AdaQuant holds a fifth out and needs two"),
        ));
    }
    if settings.batch == 0 {
        return Err(Error::parameter("batch", 0, "at least 1"));
    }
    let mut order: Vec<u32> = (0..n as u32).collect();
    order.shuffle(&mut stream.rng(0));
    let (held, used) = order.split_at((n / 5).max(1));
    let pick = |tensor: &Tensor, rows: &[u32]| tensor.index_select(&Tensor::new(rows, &Device::Cpu)?, 0);
    let (held_x, held_y) =
        pick(&pairs.inputs, held).and_then(|x| Ok((x, pick(&pairs.outputs, held)?))).map_err(computation)?;

    let out = place.outputs();
    let parameters = Parameters {
        place,
        weight: Var::from_tensor(weight).map_err(computation)?,
        bias: bias.map(Var::from_tensor).transpose().map_err(computation)?,
        rows: Ranges::of_weight(weight, bits.weight)?,
        inputs: bits.input.map(|bits| Ranges::of_inputs(&pairs.inputs, bits)).transpose()?,
    };
    let loss = |x: &Tensor, y: &Tensor| (parameters.outputs(x)? - y)?.sqr()?.mean_all();
    let held_loss = || -> Result<f64> {
        loss(&held_x, &held_y).and_then(|l| l.to_dtype(DType::F64)?.to_scalar()).map_err(computation)
    };
    let rates = match settings.rates {
        Some(rates) => rates,
        None => relative(&parameters, weight, &pairs.outputs)?,
    };
    let mut optimisers = optimisers(&parameters, rates)?;
    let nearest = held_loss()?;
    let (mut best, mut kept) = (nearest, parameters.kept().map_err(computation)?);
    // Looked at twenty times on the way.
    let look = (settings.steps / 20).max(1);
    for step in 0..settings.steps {
        let mut rows = used.to_vec();
        let (batch, _) = rows.partial_shuffle(&mut stream.rng(step as u64 + 1), settings.batch);
        let gradients = pick(&pairs.inputs, batch)
            .and_then(|x| ops::backward(&loss(&x, &pick(&pairs.outputs, batch)?)?))
            .map_err(computation)?;
        for optimiser in &mut optimisers {
            optimiser.step(&gradients).map_err(computation)?;
        }
        parameters.rows.constrain().map_err(computation)?;
        parameters.inputs.as_ref().map_or(Ok(()), Ranges::constrain).map_err(computation)?;
        if (step + 1) % look == 0 || step + 1 == settings.steps {
            let error = held_loss()?;
            if error < best {
                (best, kept) = (error, parameters.kept().map_err(computation)?);
            }
        }
        progress.check()?;
    }
    parameters.restore(&kept).map_err(computation)?;
    let columns = place.inputs();
    let trained = matrix(&parameters.weight)?;
    let places = pairs.outputs.elem_count() / (n * out).max(1);
    Ok(Calibrated {
        weight: Packed::coded(&place.name, &place.shape, trained.view(), parameters.rows.grid(columns)?, None),
        input: parameters.inputs.as_ref().map(|inputs| Ok::<_, Error>(inputs.affines()?[0])).transpose()?,
        bias: parameters.bias.as_ref().map_or_else(|| Ok(Array1::zeros(out)), |bias| vector(bias))?,
        held_out: (nearest, best),
        equations: (n * places) as f64 / columns.max(1) as f64,
    })
}

fn vector(tensor: &Tensor) -> Result<Array1<f32>> {
    Ok(matrix(tensor)?.column(0).to_owned())
}

/// Rates in proportion to what they move.
fn relative(parameters: &Parameters<'_>, weight: &Tensor, outputs: &Tensor) -> Result<Rates> {
    let deviation = |tensor: &Tensor| -> Result<f64> {
        let values = matrix(tensor)?;
        Ok(f64::from(values.std(0.0)).max(1e-8))
    };
    Ok(Rates {
        weight: 0.003 * deviation(weight)?,
        weight_range: 0.01 * parameters.rows.mean_range()?,
        input_range: 0.01 * parameters.inputs.as_ref().map_or(Ok(1.0), Ranges::mean_range)?,
        // The bias moves in units of the outputs.
        bias: 0.01 * deviation(outputs)?,
    })
}

fn optimisers(parameters: &Parameters<'_>, rates: Rates) -> Result<Vec<Adam>> {
    let adam = |rate: f64, vars: &[(&str, &Var)]| {
        let named = vars.iter().map(|(name, var)| ((*name).to_owned(), (*var).clone()));
        Adam::new(named, AdamSettings { learning_rate: rate, ..AdamSettings::default() }).map_err(computation)
    };
    let ranges = |rate: f64, of: &Ranges| adam(rate, &[("range", &of.range), ("minimum", &of.minimum)]);
    let mut all =
        vec![adam(rates.weight, &[("weight", &parameters.weight)])?, ranges(rates.weight_range, &parameters.rows)?];
    if let Some(bias) = &parameters.bias {
        all.push(adam(rates.bias, &[("bias", bias)])?);
    }
    if let Some(inputs) = &parameters.inputs {
        all.push(ranges(rates.input_range, inputs)?);
    }
    Ok(all)
}

impl Calibrated {
    /// The layer rounded to nearest, with the ranges that calibration starts from: the baseline of everything here.
    ///
    /// # Errors
    /// Bits outside 1 to 8; no sample.
    pub fn nearest(
        place: &LayerPlace,
        weight: &Tensor,
        bias: Option<&Tensor>,
        inputs: &Tensor,
        bits: Bits,
    ) -> Result<Self> {
        let rows = Ranges::of_weight(weight, bits.weight)?;
        let input =
            bits.input.map(|bits| Ok::<_, Error>(Ranges::of_inputs(inputs, bits)?.affines()?[0])).transpose()?;
        let matrix = matrix(weight)?;
        Ok(Self {
            weight: Packed::coded(&place.name, &place.shape, matrix.view(), rows.grid(place.inputs())?, None),
            input,
            bias: bias.map_or_else(|| Ok(Array1::zeros(place.outputs())), vector)?,
            held_out: (f64::NAN, f64::NAN),
            equations: f64::INFINITY,
        })
    }

    /// Moves the scales of output channel c by `factors[c]`: the codes stay.
    pub fn rescale(&mut self, factors: &[f32]) {
        if let Values::Codes { grid, .. } = &mut self.weight.values {
            for (mut row, factor) in grid.scales.rows_mut().into_iter().zip(factors) {
                row.mapv_inplace(|s| s * factor);
            }
        }
    }
}
