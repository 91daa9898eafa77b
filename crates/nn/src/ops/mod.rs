//! Fused operations on CPU tensors of `f32` and `f64`, each with its exact gradient.
//!
//! Candle's element-wise steps allocate and walk memory once each; a function here does a whole block (an
//! activation, a norm, attention, a convolution) in one custom operation whose backward pass is written out. Tensors of
//! other types or devices go through candle's own operations.
//!
//! A fused operation can be differentiated once. For gradients of gradients build the function inside [`unfused`]:
//! the same calls then give candle's graph of primitive operations.
//!
//! Gathering and scattering are candle's own `Tensor::gather`, `index_select`, `scatter_add` and `index_add`, which
//! already are one pass with an exact gradient; [`embedding`] is here for its backward pass.

mod activation;
mod attention;
mod batch_norm;
mod conv;
mod cross_entropy;
pub(crate) mod element;
mod embedding;
pub(crate) mod gradient;
mod linear;
mod matrix;
mod norm;
mod primitive;
mod product;
mod quantise;
pub(crate) mod rows;
mod softmax;

pub use activation::Activation;
pub use gradient::backward;
pub use quantise::Beyond;

use attention::Hidden;
use element::is_fusible;
use std::sync::{Arc, OnceLock};

use candle_core::{DType, Result, Tensor, Var, bail};
use std::cell::Cell;

thread_local! {
    static UNFUSED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `f` with every operation of this module built from candle's primitive operations, on this thread.
///
/// What `f` builds can be differentiated any number of times. Candle keeps gradients on the graph only if the
/// environment variable `CANDLE_GRAD_DO_NOT_DETACH` is `1` when a thread first runs a backward pass.
pub fn unfused<R>(f: impl FnOnce() -> R) -> R {
    // Restores the switch also if `f` panics.
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            UNFUSED.set(self.0);
        }
    }
    let _restore = Restore(UNFUSED.replace(true));
    f()
}

/// Whether this thread is inside [`unfused`].
pub fn is_unfused() -> bool {
    UNFUSED.get()
}

/// Whether an operation on `x` is to be fused.
fn fuses(x: &Tensor) -> bool {
    !is_unfused() && is_fusible(x)
}

/// `x wᵀ + b`: `x` (…, in), `w` (out, in), `b` (out), result (…, out).
pub fn linear(x: &Tensor, w: &Tensor, b: Option<&Tensor>) -> Result<Tensor> {
    check_linear(x, w, b)?;
    match b {
        _ if !fuses(x) => primitive::linear(x, w, b),
        Some(b) => x.apply_op3(w, b, linear::Linear::default()),
        None => x.apply_op2(w, linear::Linear::default()),
    }
}

/// The activation of [`linear`], as one operation.
pub fn linear_activated(x: &Tensor, w: &Tensor, b: Option<&Tensor>, activation: Activation) -> Result<Tensor> {
    check_linear(x, w, b)?;
    match b {
        _ if !fuses(x) => activation.apply(&primitive::linear(x, w, b)?),
        Some(b) => x.apply_op3(w, b, linear::Linear::with(activation)),
        None => x.apply_op2(w, linear::Linear::with(activation)),
    }
}

fn check_linear(x: &Tensor, w: &Tensor, b: Option<&Tensor>) -> Result<()> {
    let (outputs, inputs) = w.dims2()?;
    if x.rank() == 0 || x.dims()[x.rank() - 1] != inputs {
        bail!("linear: x has shape {:?}, but its last axis must be the {inputs} columns of w", x.dims());
    }
    if let Some(b) = b {
        check_shape("linear", "b", b, &[outputs])?;
    }
    check_dtypes("linear", x, &[("w", Some(w)), ("b", b)])
}

/// `x Φ(x)` with the normal distribution function Φ, as `torch.nn.functional.gelu`.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    if fuses(x) { x.apply_op1(Activation::Gelu) } else { primitive::gelu(x) }
}

/// The tanh approximation of [`gelu`], as GPT-2 uses it.
pub fn gelu_tanh(x: &Tensor) -> Result<Tensor> {
    if fuses(x) { x.apply_op1(Activation::GeluTanh) } else { primitive::gelu_tanh(x) }
}

/// `max(x, 0)`; its derivative at 0 is 0.
pub fn relu(x: &Tensor) -> Result<Tensor> {
    if fuses(x) { x.apply_op1(Activation::Relu) } else { primitive::relu(x) }
}

/// `x σ(x)`.
pub fn silu(x: &Tensor) -> Result<Tensor> {
    if fuses(x) { x.apply_op1(Activation::Silu) } else { primitive::silu(x) }
}

/// The hyperbolic tangent.
pub fn tanh(x: &Tensor) -> Result<Tensor> {
    if fuses(x) { x.apply_op1(Activation::Tanh) } else { x.tanh() }
}

/// `σ(x) = 1 / (1 + e⁻ˣ)`.
pub fn sigmoid(x: &Tensor) -> Result<Tensor> {
    if fuses(x) { x.apply_op1(Activation::Sigmoid) } else { primitive::sigmoid(x) }
}

/// Soft-max over the last axis.
pub fn softmax(x: &Tensor) -> Result<Tensor> {
    check_has_last_axis("softmax", x)?;
    if fuses(x) { x.apply_op1(softmax::Softmax { log: false }) } else { primitive::softmax(x) }
}

/// Logarithm of the soft-max over the last axis.
pub fn log_softmax(x: &Tensor) -> Result<Tensor> {
    check_has_last_axis("log_softmax", x)?;
    if fuses(x) { x.apply_op1(softmax::Softmax { log: true }) } else { primitive::log_softmax(x) }
}

/// Layer norm over the last axis: `(x − mean) / √(variance + eps) · weight + bias`; `x` (…, d), `weight` and `bias` (d).
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let width = check_has_last_axis("layer_norm", x)?;
    check_shape("layer_norm", "weight", weight, &[width])?;
    check_shape("layer_norm", "bias", bias, &[width])?;
    check_dtypes("layer_norm", x, &[("weight", Some(weight)), ("bias", Some(bias))])?;
    if !fuses(x) {
        return primitive::layer_norm(x, weight, bias, eps);
    }
    x.apply_op3(weight, bias, norm::LayerNorm { eps })
}

/// Root-mean-square norm over the last axis: `x / √(mean x² + eps) · weight`; `x` (…, d), `weight` (d).
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    let width = check_has_last_axis("rms_norm", x)?;
    check_shape("rms_norm", "weight", weight, &[width])?;
    check_dtypes("rms_norm", x, &[("weight", Some(weight))])?;
    if !fuses(x) {
        return primitive::rms_norm(x, weight, eps);
    }
    x.apply_op2(weight, norm::RmsNorm { eps })
}

/// Running mean and variance of a batch norm's channels, named as in PyTorch (`running_mean`, `running_var`).
#[derive(Debug, Clone)]
pub struct RunningStatistics {
    /// Running mean (channels).
    pub mean: Var,
    /// Running unbiased variance (channels).
    pub var: Var,
    /// Weight of a new batch: `running = (1 − momentum) running + momentum batch`. PyTorch's default is 0.1.
    pub momentum: f64,
}

impl RunningStatistics {
    /// Mean 0 and variance 1 of `channels` channels, momentum 0.1.
    pub fn new(channels: usize, dtype: DType, device: &candle_core::Device) -> Result<Self> {
        Ok(Self { mean: Var::zeros(channels, dtype, device)?, var: Var::ones(channels, dtype, device)?, momentum: 0.1 })
    }

    fn moments(&self) -> Result<batch_norm::Moments> {
        let read = |running: &Var| running.as_detached_tensor().to_dtype(DType::F64)?.to_vec1();
        Ok(batch_norm::Moments { mean: read(&self.mean)?, var: read(&self.var)? })
    }
}

/// Whether a batch norm normalises with the batch's statistics (and updates the running ones) or with the running ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Statistics of the batch; running statistics are updated in place.
    Training,
    /// Running statistics.
    Evaluation,
}

/// Batch norm: `x` (n, channels, …), `weight` and `bias` (channels).
///
/// In training at least two values a channel are needed.
pub fn batch_norm(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    running: &RunningStatistics,
    eps: f64,
    mode: Mode,
) -> Result<Tensor> {
    any_batch_norm(x, weight, bias, running, eps, mode, false)
}

/// The [`relu`] of [`batch_norm`], as one operation.
pub fn batch_norm_relu(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    running: &RunningStatistics,
    eps: f64,
    mode: Mode,
) -> Result<Tensor> {
    any_batch_norm(x, weight, bias, running, eps, mode, true)
}

fn any_batch_norm(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    running: &RunningStatistics,
    eps: f64,
    mode: Mode,
    relu: bool,
) -> Result<Tensor> {
    let channels = check_has_channels("batch_norm", x)?;
    check_shape("batch_norm", "weight", weight, &[channels])?;
    check_shape("batch_norm", "bias", bias, &[channels])?;
    check_shape("batch_norm", "running_mean", &running.mean, &[channels])?;
    check_shape("batch_norm", "running_var", &running.var, &[channels])?;
    let (mean, var) = (running.mean.as_tensor(), running.var.as_tensor());
    let others = [("weight", weight), ("bias", bias), ("running_mean", mean), ("running_var", var)];
    check_dtypes("batch_norm", x, &others.map(|(name, t)| (name, Some(t))))?;
    if mode == Mode::Training && x.elem_count() / channels.max(1) < 2 {
        bail!("batch_norm: x has shape {:?}, but training needs at least 2 values a channel", x.dims());
    }
    if !fuses(x) {
        let y = primitive::batch_norm(x, weight, bias, running, eps, mode)?;
        return if relu { primitive::relu(&y) } else { Ok(y) };
    }
    let moments = Arc::new(OnceLock::new());
    if mode == Mode::Evaluation {
        // The cell was just made, so it is empty.
        let _ = moments.set(running.moments()?);
    }
    let of_batch = mode == Mode::Training;
    let y = x.apply_op3(weight, bias, batch_norm::BatchNorm { eps, moments: moments.clone(), of_batch, relu })?;
    if let Some(batch) = moments.get().filter(|_| of_batch) {
        let count = (x.elem_count() / channels) as f64;
        let mean = Tensor::new(batch.mean.as_slice(), x.device())?.to_dtype(x.dtype())?;
        let var = (Tensor::new(batch.var.as_slice(), x.device())? * (count / (count - 1.0)))?.to_dtype(x.dtype())?;
        running.update(&mean, &var)?;
    }
    Ok(y)
}

/// Group norm: `x` (n, channels, …) is normalised over each of `groups` groups of channels; `weight`, `bias` (channels).
pub fn group_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, groups: usize, eps: f64) -> Result<Tensor> {
    let channels = check_has_channels("group_norm", x)?;
    if groups == 0 || !channels.is_multiple_of(groups) {
        bail!("group_norm: groups is {groups}, but it must divide the {channels} channels of x");
    }
    check_shape("group_norm", "weight", weight, &[channels])?;
    check_shape("group_norm", "bias", bias, &[channels])?;
    check_dtypes("group_norm", x, &[("weight", Some(weight)), ("bias", Some(bias))])?;
    if !fuses(x) {
        return primitive::group_norm(x, weight, bias, groups, eps);
    }
    x.apply_op3(weight, bias, batch_norm::GroupNorm { groups, eps })
}

/// How the losses of the rows of a batch become the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduction {
    /// Their mean, a scalar.
    Mean,
    /// Their sum, a scalar.
    Sum,
    /// Each for itself, (n).
    None,
}

/// Cross-entropy of `logits` (n, classes) against class numbers `targets` (n) of type `u32`.
///
/// With label smoothing ε a row's loss is `−(1 − ε) log p[target] − ε mean(log p)`.
pub fn cross_entropy(logits: &Tensor, targets: &Tensor, label_smoothing: f64, reduction: Reduction) -> Result<Tensor> {
    let (rows, classes) = logits.dims2()?;
    check_shape("cross_entropy", "targets", targets, &[rows])?;
    if targets.dtype() != DType::U32 {
        bail!("cross_entropy: targets have type {:?}, but they must be U32", targets.dtype());
    }
    if !(0.0..=1.0).contains(&label_smoothing) {
        bail!("cross_entropy: label_smoothing is {label_smoothing}, but it must be in [0, 1]");
    }
    if rows == 0 && reduction == Reduction::Mean {
        bail!("cross_entropy: logits have no rows, but a mean needs at least one");
    }
    let numbers = targets.to_vec1::<u32>()?;
    if let Some(wrong) = numbers.iter().find(|&&t| t as usize >= classes) {
        bail!("cross_entropy: targets hold {wrong}, but logits have {classes} classes");
    }
    if !fuses(logits) || rows == 0 {
        return primitive::cross_entropy(logits, targets, label_smoothing, reduction);
    }
    logits.apply_op1(cross_entropy::CrossEntropy { targets: numbers, label_smoothing, reduction })
}

/// Which keys a query may look at.
#[derive(Debug, Clone, Copy)]
pub enum Mask<'a> {
    /// All.
    None,
    /// Query `i` of `n` sees key `j` of `m` if `j ≤ i + m − n`: the last query sees all keys.
    Causal,
    /// A constant that is added to the scores, broadcast from (batch or 1, heads or 1, queries or 1, keys): 0 where a
    /// key is seen and −∞ where it is padding. A query that sees no key gives NaN.
    Additive(&'a Tensor),
}

impl Mask<'_> {
    fn hidden(self) -> Hidden {
        match self {
            Self::None => Hidden::Nothing,
            Self::Causal => Hidden::Future,
            Self::Additive(mask) => Hidden::Masked(mask.detach()),
        }
    }
}

fn check_mask(like: &Tensor, mask: &Tensor, (batch, heads, queries, keys): (usize, usize, usize, usize)) -> Result<()> {
    let (mb, mh, mq, mk) = mask.dims4()?;
    let fits = |have: usize, want: usize| have == want || have == 1;
    if !fits(mb, batch) || !fits(mh, heads) || !fits(mq, queries) || mk != keys {
        bail!(
            "attention: the mask has shape {:?}, but it must broadcast to ({batch}, {heads}, {queries}, {keys})",
            mask.dims()
        );
    }
    check_dtypes("attention", like, &[("mask", Some(mask))])
}

/// Scaled dot-product attention `softmax(q kᵀ / √d + mask) v`.
///
/// `q` (batch, heads, queries, d), `k` (batch, heads, keys, d), `v` (batch, heads, keys, e); result (batch, heads,
/// queries, e).
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, mask: Mask<'_>) -> Result<Tensor> {
    let (batch, heads, queries, d) = q.dims4()?;
    let (_, _, keys, e) = v.dims4()?;
    check_shape("attention", "k", k, &[batch, heads, keys, d])?;
    check_shape("attention", "v", v, &[batch, heads, keys, e])?;
    check_dtypes("attention", q, &[("k", Some(k)), ("v", Some(v))])?;
    if keys == 0 || d == 0 {
        bail!("attention: k has shape {:?}, but keys and their width must not be empty", k.dims());
    }
    match mask {
        Mask::Causal if queries > keys => {
            bail!("attention: {queries} queries and {keys} keys, but a causal mask needs at least as many keys")
        }
        Mask::None | Mask::Causal => {}
        Mask::Additive(m) => check_mask(q, m, (batch, heads, queries, keys))?,
    }
    if !fuses(q) || v.elem_count() == 0 || queries == 0 {
        return primitive::attention(q, k, v, mask);
    }
    q.apply_op3(k, v, attention::Attention { hidden: mask.hidden() })
}

/// [`attention`] of every row of a sequence to the others, from queries, keys and values that lie side by side, as the
/// one linear layer `qkv` or `c_attn` of ViT and GPT-2 gives them.
///
/// `qkv` (batch, rows, 3 · heads · d) holds, row by row, the queries of all heads, then the keys, then the values; result
/// (batch, rows, heads · d). Saves the copies that splitting and transposing cost.
pub fn self_attention(qkv: &Tensor, heads: usize, mask: Mask<'_>) -> Result<Tensor> {
    let (batch, rows, columns) = qkv.dims3()?;
    if heads == 0 || columns == 0 || !columns.is_multiple_of(3 * heads) {
        bail!("self_attention: qkv has {columns} columns, but they must be 3 · {heads} heads · d");
    }
    if let Mask::Additive(m) = mask {
        check_mask(qkv, m, (batch, heads, rows, rows))?;
    }
    if fuses(qkv) && qkv.elem_count() > 0 {
        return qkv.apply_op1(attention::SelfAttention { heads, hidden: mask.hidden() });
    }
    let split = qkv.reshape((batch, rows, 3, heads, columns / 3 / heads))?;
    let part = |i: usize| split.narrow(2, i, 1)?.squeeze(2)?.transpose(1, 2)?.contiguous();
    let y = primitive::attention(&part(0)?, &part(1)?, &part(2)?, mask)?;
    y.transpose(1, 2)?.reshape((batch, rows, columns / 3))
}

/// How a convolution's kernel moves over its input; the same in both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv2d {
    /// Step of the kernel, at least 1.
    pub stride: usize,
    /// Zeros added on each side.
    pub padding: usize,
    /// Distance of the kernel's taps, at least 1.
    pub dilation: usize,
    /// Groups of channels that are convolved separately; divides both channel counts.
    pub groups: usize,
}

impl Default for Conv2d {
    fn default() -> Self {
        Self { stride: 1, padding: 0, dilation: 1, groups: 1 }
    }
}

impl Conv2d {
    /// Stride 1 and the padding under which an odd kernel of `size` keeps height and width.
    pub fn same(size: usize) -> Self {
        Self { padding: size / 2, ..Self::default() }
    }

    /// The output's length along an axis of `length` under a kernel of `size`; `None` if the kernel does not fit.
    pub fn output(&self, length: usize, size: usize) -> Option<usize> {
        let span = self.dilation.checked_mul(size.checked_sub(1)?)?.checked_add(1)?;
        let padded = self.padding.checked_mul(2)?.checked_add(length)?;
        Some(padded.checked_sub(span)? / self.stride + 1)
    }
}

/// Convolution (cross-correlation, as everywhere in the field): `x` (n, in, height, width), `w` (out, in / groups, kh,
/// kw), `b` (out).
pub fn conv2d(x: &Tensor, w: &Tensor, b: Option<&Tensor>, conv: &Conv2d) -> Result<Tensor> {
    let (_, channels, height, width) = x.dims4()?;
    let (out_channels, group_channels, kh, kw) = w.dims4()?;
    let Conv2d { stride, dilation, groups, .. } = *conv;
    if stride == 0 || dilation == 0 || groups == 0 {
        bail!("conv2d: stride is {stride}, dilation {dilation}, groups {groups}, but each must be at least 1");
    }
    if group_channels.checked_mul(groups) != Some(channels) || !out_channels.is_multiple_of(groups) {
        bail!(
            "conv2d: x has {channels} channels and w shape {:?}, which do not fit {groups} groups: w must be (out, {}, \
             kh, kw) with out a multiple of groups",
            w.dims(),
            channels / groups
        );
    }
    if conv.output(height, kh).is_none() || conv.output(width, kw).is_none() {
        bail!("conv2d: a kernel of {kh} × {kw} does not fit into {height} × {width} under {conv:?}");
    }
    if let Some(b) = b {
        check_shape("conv2d", "b", b, &[out_channels])?;
    }
    check_dtypes("conv2d", x, &[("w", Some(w)), ("b", b)])?;
    match b {
        _ if !fuses(x) => primitive::conv2d(x, w, b, conv),
        Some(b) => x.apply_op3(w, b, conv::Convolution(*conv)),
        None => x.apply_op2(w, conv::Convolution(*conv)),
    }
}

/// Twice the height and width of `x` (n, channels, height, width), each value four times: by broadcasting, so that it can be
/// differentiated any number of times.
pub fn upsample(x: &Tensor) -> Result<Tensor> {
    let (n, c, h, w) = x.dims4()?;
    x.reshape((n, c, h, 1, w, 1))?.broadcast_as((n, c, h, 2, w, 2))?.reshape((n, c, 2 * h, 2 * w))
}

/// Rows of `table` (rows, d) by number: `ids` (…) of type `u32`, result (…, d).
pub fn embedding(table: &Tensor, ids: &Tensor) -> Result<Tensor> {
    let (rows, width) = table.dims2()?;
    if ids.dtype() != DType::U32 {
        bail!("embedding: ids have type {:?}, but they must be U32", ids.dtype());
    }
    let numbers = ids.flatten_all()?.to_vec1::<u32>()?;
    if let Some(wrong) = numbers.iter().find(|&&id| id as usize >= rows) {
        bail!("embedding: ids hold {wrong}, but the table has {rows} rows");
    }
    if !fuses(table) {
        return primitive::embedding(table, ids);
    }
    let mut shape = ids.dims().to_vec();
    shape.push(width);
    table.apply_op1(embedding::Embedding { ids: numbers, shape: shape.into() })
}

/// `x` rounded to the levels of a quantiser: with the code q = clip(round(x/s) + z, first, last), ties to even, the value
/// (q − z) s. A zero z that is no whole number is added before rounding.
///
/// `scale` and `zero` hold as many numbers as there are runs of `run` consecutive elements in `x`, or a divisor of that:
/// they are used in turn. A matrix (out, in) has one scale a row with `run` = in and one a group with `run` = its length;
/// (n, channels, h, w) one a channel with `run` = h w; one number serves all.
///
/// The gradient is straight through: with respect to x it is 1 up to the last level and `beyond` tells what further out;
/// with respect to s it is round(x/s) − x/s inside and q − z beyond (LSQ, Esser et al. 2020, eq. 3); with respect to z 0
/// inside and −s beyond.
pub fn fake_quantise(
    x: &Tensor,
    scale: &Tensor,
    zero: &Tensor,
    codes: (i32, i32),
    run: usize,
    beyond: Beyond,
) -> Result<Tensor> {
    check_dtypes("fake_quantise", x, &[("scale", Some(scale)), ("zero", Some(zero))])?;
    let runs = x.elem_count().checked_div(run).unwrap_or(0);
    if run == 0 || runs * run != x.elem_count() {
        bail!("fake_quantise: runs of {run} do not divide the {} elements of x", x.elem_count());
    }
    for (name, tensor) in [("scale", scale), ("zero", zero)] {
        let count = tensor.elem_count();
        if count == 0 || !runs.is_multiple_of(count) {
            bail!("fake_quantise: {name} holds {count} numbers, but it must be a divisor of the {runs} runs of x");
        }
    }
    let codes = (f64::from(codes.0), f64::from(codes.1));
    x.apply_op3(scale, zero, quantise::FakeQuantise { codes, run, beyond })
}

/// The nearest whole numbers, ties to even; the gradient passes as if nothing had been rounded.
pub fn round_straight_through(x: &Tensor) -> Result<Tensor> {
    x.apply_op1(quantise::Round)
}

/// `x` itself, with a gradient multiplied by `factor`: a step of its own length for one parameter (LSQ's 1/√(N Q)).
pub fn scale_gradient(x: &Tensor, factor: f64) -> Result<Tensor> {
    x.apply_op1(quantise::ScaleGradient(factor))
}

fn check_has_last_axis(operation: &str, x: &Tensor) -> Result<usize> {
    match x.dims().last() {
        Some(&width) if width > 0 => Ok(width),
        _ => bail!("{operation}: x has shape {:?}, but its last axis must not be empty", x.dims()),
    }
}

fn check_has_channels(operation: &str, x: &Tensor) -> Result<usize> {
    match x.dims() {
        &[_, channels, ..] if channels > 0 => Ok(channels),
        dims => bail!("{operation}: x has shape {dims:?}, but it must be (n, channels, …) with channels"),
    }
}

fn check_shape(operation: &str, name: &str, tensor: &Tensor, allowed: &[usize]) -> Result<()> {
    if tensor.dims() != allowed {
        bail!("{operation}: {name} has shape {:?}, but it must be {allowed:?}", tensor.dims());
    }
    Ok(())
}

fn check_dtypes(operation: &str, x: &Tensor, others: &[(&str, Option<&Tensor>)]) -> Result<()> {
    for (name, other) in others {
        if let Some(other) = other.filter(|t| t.dtype() != x.dtype()) {
            bail!("{operation}: {name} has type {:?}, but it must be {:?} as the first", other.dtype(), x.dtype());
        }
    }
    Ok(())
}
