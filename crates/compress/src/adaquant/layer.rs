//! One layer calibrated: weights, ranges and bias that give back the float layer's outputs.

use super::ranges::Ranges;
use crate::calibration::rows;
use crate::layer::{Layer, matrix};
use crate::packed::{Packed, Values};
use crate::quantiser::Affine;
use candle_core::{DType, Device, Tensor, Var};
use ndarray::{Array1, Array2, Axis, concatenate};
use offprint_core::random::Stream;
use offprint_core::{Error, Progress, Result};
use offprint_math::linalg::gemm;
use offprint_math::nelder_mead::nelder_mead;
use offprint_nn::layers::LayerKind;
use offprint_nn::optim::{Adam, AdamSettings, Optimizer};
use offprint_nn::{LayerPlace, Network, computation, ops};
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
    /// With inputs left as floats, take the loss from the second moments of inputs and outputs, gathered once, in place of
    /// batches: a step then costs in² out, whatever the number of samples.
    pub moments: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { steps: 100, batch: 50, rates: None, moments: true }
    }
}

/// A float layer: a linear one or a convolution.
#[derive(Debug, Clone, Copy)]
pub struct FloatLayer<'a> {
    /// What it is.
    pub place: &'a LayerPlace,
    /// Its weight, in the shape of `place`.
    pub weight: &'a Tensor,
    /// Where its bias begins; without one the layer has none.
    pub bias: Option<&'a Tensor>,
}

/// What a layer reads and what it should give.
#[derive(Debug, Clone)]
pub struct Pairs {
    /// Inputs (n, in) or (n, …, in), or images (n, in, height, width).
    pub inputs: Tensor,
    /// What the layer should give (n, …).
    pub outputs: Tensor,
}

impl Pairs {
    /// The samples with these numbers.
    fn pick(&self, samples: &[u32]) -> Result<(Tensor, Tensor)> {
        let of = |tensor: &Tensor| tensor.index_select(&Tensor::new(samples, &Device::Cpu)?, 0);
        of(&self.inputs).and_then(|x| Ok((x, of(&self.outputs)?))).map_err(computation)
    }

    /// Outputs of a channel over the weights that make them.
    fn equations(&self, place: &LayerPlace) -> f64 {
        self.outputs.elem_count() as f64 / (place.outputs() * place.inputs()).max(1) as f64
    }
}

/// Pairs that are trained on, and the fifth that is held out.
struct Split {
    used: Vec<u32>,
    held: Vec<u32>,
}

impl Split {
    fn of(pairs: &Pairs, batch: usize, stream: Stream) -> Result<Self> {
        let n = pairs.inputs.dims().first().copied().unwrap_or(0);
        if n < 2 {
            let problem = format!("holds {n} samples; a fifth is held out, so that two are needed");
            return Err(Error::input("calibration", problem));
        }
        if batch == 0 {
            return Err(Error::parameter("batch", 0, "at least 1"));
        }
        let mut held: Vec<u32> = (0..n as u32).collect();
        held.shuffle(&mut stream.rng(0));
        let used = held.split_off((n / 5).max(1));
        Ok(Self { used, held })
    }
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
    /// Mean squared error of outputs on the fifth of the pairs that was held out, if one was: rounded to nearest, and now.
    pub held_out: Option<(f64, f64)>,
    /// Equations (samples × places) for each unknown weight of an output channel, if they were used: below 1 they do not
    /// determine it.
    pub equations: Option<f64>,
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

/// Second moments of a layer's inputs x, with a 1 at their end for the bias, and outputs y, over N rows.
struct Moments {
    /// (1/N) Σ x xᵀ (in + 1, in + 1).
    inputs: Tensor,
    /// (1/N) Σ y xᵀ (out, in + 1).
    cross: Tensor,
    /// (1/N) Σ ‖y‖²
    outputs: f64,
}

impl Moments {
    fn of(place: &LayerPlace, pairs: &Pairs, samples: &[u32]) -> Result<Self> {
        let (out, columns) = (place.outputs(), place.inputs());
        let (mut inputs, mut cross) =
            (Array2::<f64>::zeros((columns + 1, columns + 1)), Array2::zeros((out, columns + 1)));
        let (mut outputs, mut count) = (0.0, 0);
        // In parts, because patches of a convolution are many times its images.
        for part in samples.chunks(64) {
            let part = Tensor::new(part, &Device::Cpu).map_err(computation)?;
            let of = |tensor: &Tensor| tensor.index_select(&part, 0).map_err(computation);
            let x = rows(place.kind, &of(&pairs.inputs)?)?;
            let ones = Array2::ones((x.nrows(), 1));
            let x = concatenate(Axis(1), &[x.mapv(f64::from).view(), ones.view()]).expect("as many rows");
            let y = output_rows(place.kind, &of(&pairs.outputs)?)?.mapv(f64::from);
            gemm(1.0, x.t(), x.view(), true, inputs.view_mut());
            gemm(1.0, y.t(), x.view(), true, cross.view_mut());
            outputs += y.iter().map(|y| y * y).sum::<f64>();
            count += x.nrows();
        }
        let n = count as f64;
        let tensor = |of: Array2<f64>| {
            let values: Vec<f32> = of.iter().map(|&x| (x / n) as f32).collect();
            Tensor::from_vec(values, of.dim(), &Device::Cpu).map_err(computation)
        };
        Ok(Self { inputs: tensor(inputs)?, cross: tensor(cross)?, outputs: outputs / n })
    }

    /// The mean squared error of the outputs, per output.
    fn loss(&self, parameters: &Parameters<'_>) -> candle_core::Result<Tensor> {
        let out = parameters.place.outputs();
        let weight = parameters.rows.fake(parameters.weight.as_tensor())?.reshape((out, ()))?.to_dtype(DType::F32)?;
        let bias = match &parameters.bias {
            Some(bias) => bias.as_tensor().to_dtype(DType::F32)?.reshape((out, 1))?,
            None => Tensor::zeros((out, 1), DType::F32, &Device::Cpu)?,
        };
        let own = Tensor::cat(&[weight, bias], 1)?;
        // ‖y − W x‖² = ⟨W, W X⟩ − 2 ⟨W, Y⟩ + ‖y‖²
        let pull = (own.matmul(&self.inputs)? - self.cross.affine(2.0, 0.0)?)?;
        (own * pull)?.sum_all()?.affine(1.0 / out as f64, self.outputs / out as f64)
    }
}

/// Outputs (n, …, out), or (n, out, height, width) of a convolution, as rows (N, out).
fn output_rows(kind: LayerKind, outputs: &Tensor) -> Result<Array2<f32>> {
    let rows = || match kind {
        LayerKind::Conv2d { .. } => outputs.permute((0, 2, 3, 1))?.flatten_to(2),
        _ => outputs.reshape(((), outputs.dim(candle_core::D::Minus1)?)),
    };
    matrix(&rows().and_then(|rows| rows.contiguous()).map_err(computation)?)
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
/// nearest if none was better (AdaQuant, eq. 1).
///
/// Costs three products of matrices a step and batch.
///
/// # Errors
/// Fewer than two pairs, `settings.batch` = 0, bits outside 1 to 8, operands that do not fit the layer, a stop by `progress`.
pub fn calibrate_layer(
    FloatLayer { place, weight, bias }: FloatLayer<'_>,
    pairs: &Pairs,
    bits: Bits,
    settings: &Settings,
    stream: Stream,
    progress: &Progress,
) -> Result<Calibrated> {
    let Split { used, held } = Split::of(pairs, settings.batch, stream)?;
    let (held_x, held_y) = pairs.pick(&held)?;
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
    let moments = (settings.moments && bits.input.is_none()).then(|| Moments::of(place, pairs, &used)).transpose()?;
    // Looked at twenty times on the way.
    let look = (settings.steps / 20).max(1);
    for step in 0..settings.steps {
        let batch_loss = || match &moments {
            Some(moments) => moments.loss(&parameters),
            None => {
                let mut rows = used.clone();
                let (batch, _) = rows.partial_shuffle(&mut stream.rng(step as u64 + 1), settings.batch);
                let batch = Tensor::new(&*batch, &Device::Cpu)?;
                loss(&pairs.inputs.index_select(&batch, 0)?, &pairs.outputs.index_select(&batch, 0)?)
            }
        };
        let gradients = batch_loss().and_then(|loss| ops::backward(&loss)).map_err(computation)?;
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
    Ok(Calibrated {
        weight: Packed::coded(&place.name, &place.shape, trained.view(), parameters.rows.grid(columns)?, None),
        input: parameters.inputs.as_ref().map(|inputs| Ok::<_, Error>(inputs.affines()?[0])).transpose()?,
        bias: parameters.bias.as_ref().map_or_else(|| Ok(Array1::zeros(out)), |bias| vector(bias))?,
        held_out: Some((nearest, best)),
        equations: Some(pairs.equations(place)),
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

/// Searches r_w p₀, m_w + p₁, r_x p₂ and m_x + p₃ for the least mean squared error of the layer's outputs, by Nelder and
/// Mead on each batch of `pairs`; the mean over batches is kept if it is better than ranges from least to greatest on the
/// fifth that is held out (the authors' variant without gradients; with it, ranges as LAPQ finds them).
///
/// # Errors
/// As [`calibrate_layer`].
pub fn search_layer(
    FloatLayer { place, weight, bias }: FloatLayer<'_>,
    pairs: &Pairs,
    bits: Bits,
    batch: usize,
    stream: Stream,
) -> Result<Calibrated> {
    let Split { used, held } = Split::of(pairs, batch, stream)?;
    let start =
        (Ranges::of_weight(weight, bits.weight)?, bits.input.map(|b| Ranges::of_inputs(&pairs.inputs, b)).transpose()?);
    let moved = |p: &[f64]| -> Result<(Ranges, Option<Ranges>)> {
        Ok((start.0.moved(p[0], p[1])?, start.1.as_ref().map(|inputs| inputs.moved(p[2], p[3])).transpose()?))
    };
    let error = |p: &[f64], x: &Tensor, y: &Tensor| -> Result<f64> {
        let (rows, inputs) = moved(p)?;
        let own = || {
            let x = inputs.as_ref().map_or_else(|| Ok(x.clone()), |inputs| inputs.fake(x))?;
            let y = (apply(place.kind, &x, &rows.fake(weight)?, bias)? - y)?;
            y.sqr()?.mean_all()?.to_dtype(DType::F64)?.to_scalar()
        };
        own().map_err(computation)
    };
    let span = start.1.as_ref().map_or(Ok(1.0), Ranges::mean_range)?;
    let steps = [-0.1, 0.02 * start.0.mean_range()?, -0.1, 0.02 * span];
    let variables = if start.1.is_some() { 4 } else { 2 };
    let neutral = [1.0, 0.0, 1.0, 0.0];
    let (mut mean, parts) = ([0.0; 4], used.len().div_ceil(batch) as f64);
    for part in used.chunks(batch) {
        let (x, y) = pairs.pick(part)?;
        let full = |p: &[f64]| -> [f64; 4] { std::array::from_fn(|i| p.get(i).copied().unwrap_or(neutral[i])) };
        // A failure of the tensor library would be the same at every point: it is met again below.
        let found = nelder_mead(
            |p| error(&full(p), &x, &y).unwrap_or(f64::INFINITY),
            &neutral[..variables],
            &steps[..variables],
            1e-4,
            80 * variables,
        );
        mean.iter_mut().zip(full(&found.x)).for_each(|(mean, p)| *mean += p / parts);
    }
    let (x, y) = pairs.pick(&held)?;
    let (nearest, found) = (error(&neutral, &x, &y)?, error(&mean, &x, &y)?);
    let (rows, inputs) = moved(if found < nearest { &mean } else { &neutral })?;
    let layer = Calibrated::with(FloatLayer { place, weight, bias }, &rows, inputs.as_ref())?;
    Ok(Calibrated { held_out: Some((nearest, found.min(nearest))), equations: Some(pairs.equations(place)), ..layer })
}

/// Rounds to nearest and moves each channel's bias by the mean difference of its outputs on `pairs` (bias correction).
///
/// # Errors
/// As [`Calibrated::nearest`]; operands that do not fit the layer.
pub fn correct_bias(layer: FloatLayer<'_>, pairs: &Pairs, bits: Bits) -> Result<Calibrated> {
    let FloatLayer { place, weight, bias } = layer;
    let mut layer = Calibrated::nearest(layer, &pairs.inputs, bits)?;
    let rows = Ranges::of_weight(weight, bits.weight)?;
    let inputs = bits.input.map(|bits| Ranges::of_inputs(&pairs.inputs, bits)).transpose()?;
    let outputs = || {
        let x = inputs.as_ref().map_or_else(|| Ok(pairs.inputs.clone()), |inputs| inputs.fake(&pairs.inputs))?;
        apply(place.kind, &x, &rows.fake(weight)?, bias)
    };
    let own = output_rows(place.kind, &outputs().map_err(computation)?)?;
    let missing = (output_rows(place.kind, &pairs.outputs)? - own).mean_axis(Axis(0));
    layer.bias += &missing.ok_or_else(|| Error::input("calibration", "holds no sample"))?;
    Ok(layer)
}

impl Calibrated {
    /// The layer rounded to nearest, with the ranges that calibration starts from: the baseline of everything here.
    ///
    /// # Errors
    /// Bits outside 1 to 8; no sample.
    pub fn nearest(layer: FloatLayer<'_>, inputs: &Tensor, bits: Bits) -> Result<Self> {
        let rows = Ranges::of_weight(layer.weight, bits.weight)?;
        let ranges = bits.input.map(|bits| Ranges::of_inputs(inputs, bits)).transpose()?;
        Self::with(layer, &rows, ranges.as_ref())
    }

    /// `weight` rounded to nearest by `rows`, inputs by `inputs`.
    fn with(
        FloatLayer { place, weight, bias }: FloatLayer<'_>,
        rows: &Ranges,
        inputs: Option<&Ranges>,
    ) -> Result<Self> {
        let weight = matrix(weight)?;
        Ok(Self {
            weight: Packed::coded(&place.name, &place.shape, weight.view(), rows.grid(place.inputs())?, None),
            input: inputs.map(|inputs| Ok::<_, Error>(inputs.affines()?[0])).transpose()?,
            bias: bias.map_or_else(|| Ok(Array1::zeros(place.outputs())), vector)?,
            held_out: None,
            equations: None,
        })
    }

    /// The layer at `place` as `network` holds it, its rows rounded from least to greatest and its inputs by `inputs`.
    pub(super) fn trained(network: &Network, place: &LayerPlace, bits: &Bits, inputs: Option<&Ranges>) -> Result<Self> {
        let layer = Layer::of(network, place)?;
        let weight = crate::layer::tensor(layer.weight.view(), &place.shape)?;
        let bias = layer.bias.map(|bias| Tensor::new(bias.to_vec(), &Device::Cpu)).transpose().map_err(computation)?;
        let rows = Ranges::of_weight(&weight, bits.weight)?;
        Self::with(FloatLayer { place, weight: &weight, bias: bias.as_ref() }, &rows, inputs)
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
