//! What a layer sees: statistics of its inputs over the calibration samples, gathered part by part in f64.

use candle_core::Tensor;
use ndarray::{Array1, Array2, ArrayView2, Axis};
use offprint_core::random::{Rng, Stream};
use offprint_core::{Error, Result};
use offprint_math::linalg::gemm;
use offprint_nn::layers::LayerKind;
use offprint_nn::layers::substitute::{Chain, LayerUse, Operands, Substitute, substituting};
use offprint_nn::{LayerPlace, Network, computation};
use rand::RngExt;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::layer::matrix;

/// What a method must know of a layer's inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Needs {
    /// Least and greatest input, mean square of each column.
    pub statistics: bool,
    /// H = (2/N) Σ x xᵀ.
    pub hessian: bool,
    /// So many inputs as they are, drawn at random if there are more; 0 for none.
    pub rows: usize,
}

impl Needs {
    /// Weights only.
    pub const NOTHING: Self = Self { statistics: false, hessian: false, rows: 0 };
    /// Ranges and mean squares.
    pub const STATISTICS: Self = Self { statistics: true, ..Self::NOTHING };
    /// The second moments.
    pub const HESSIAN: Self = Self { statistics: true, hessian: true, rows: 0 };

    /// Inputs as they are.
    pub const fn rows(count: usize) -> Self {
        Self { statistics: true, hessian: false, rows: count }
    }

    /// Whether calibration samples are needed at all.
    pub fn any(&self) -> bool {
        *self != Self::NOTHING
    }
}

/// What a layer saw. A row of input is what one output place is made from: a token, or a convolution's patch.
#[derive(Debug, Clone)]
pub struct Calibration {
    /// Rows seen, N.
    pub count: u64,
    /// Least and greatest input.
    pub range: (f32, f32),
    /// Mean square of each column, ‖x_j‖²/N (in).
    pub mean_square: Array1<f64>,
    /// (2/N) Σ x xᵀ (in, in), if asked for.
    pub hessian: Option<Array2<f64>>,
    /// Some rows (≤ asked for, in), if asked for.
    pub rows: Option<Array2<f32>>,
}

impl Calibration {
    /// Of a layer with `inputs` columns that was not calibrated.
    pub fn none(inputs: usize) -> Self {
        Self { count: 0, range: (0.0, 0.0), mean_square: Array1::zeros(inputs), hessian: None, rows: None }
    }

    /// Of rows (N, in) that are given.
    ///
    /// # Errors
    /// No rows; values that are not finite.
    pub fn of_rows(name: &str, rows: ArrayView2<'_, f32>, needs: Needs, stream: Stream) -> Result<Self> {
        let mut gathered = Gathered::new(rows.ncols(), needs, stream.rng(0));
        gathered.add(rows);
        gathered.finish(name)
    }
}

/// Calibrates the layers at `places`: runs `network` on `inputs` in parts of `part` samples, with the operands that `within`
/// gives (for instance layers that are quantised already).
///
/// Memory: the statistics of all `places` and the activations of one part. Methods that ask for much go layer by layer,
/// one place a call.
///
/// # Errors
/// No samples; a layer that the forward pass does not reach, or whose inputs are all 0 or not finite, by name; embeddings
/// and grouped convolutions, whose inputs are no rows of numbers.
pub fn calibrate(
    network: &Network,
    places: &[&LayerPlace],
    inputs: &Tensor,
    part: usize,
    needs: Needs,
    within: Option<Rc<dyn Substitute>>,
    stream: Stream,
) -> Result<Vec<Calibration>> {
    let samples = inputs.dims().first().copied().unwrap_or(0);
    if samples == 0 {
        return Err(Error::input("calibration", "holds no sample"));
    }
    let gathered = places.iter().enumerate().map(|(i, place)| {
        if place.kind == LayerKind::Embedding {
            let problem = "is an embedding, which has no numbers for inputs to calibrate with";
            return Err(Error::input(format!("layer \"{}\"", place.name), problem));
        }
        Ok((place.weight.clone(), Gathered::new(place.inputs(), needs, stream.rng(i as u64))))
    });
    let gatherer = Rc::new(Gatherer(RefCell::new(gathered.collect::<Result<_>>()?)));
    let watched: Vec<Rc<dyn Substitute>> = within.into_iter().chain([gatherer.clone() as Rc<dyn Substitute>]).collect();
    let watched: Rc<dyn Substitute> = Rc::new(Chain(watched));
    for start in (0..samples).step_by(part.max(1)) {
        let part = inputs.narrow(0, start, part.max(1).min(samples - start)).map_err(computation)?;
        substituting(Some(watched.clone()), || network.forward(&part)).map_err(computation)?;
    }
    let mut gathered = gatherer.0.borrow_mut();
    let finish = |place: &&LayerPlace| gathered.remove(&place.weight).expect("made above").finish(&place.name);
    places.iter().map(finish).collect()
}

/// Input and output of the layer whose weight is `weight`, over all of `inputs`, without gradients.
///
/// # Errors
/// A layer that the forward pass does not reach.
pub fn record(
    network: &Network,
    weight: &str,
    inputs: &Tensor,
    within: Option<Rc<dyn Substitute>>,
) -> Result<(Tensor, Tensor)> {
    let recorder = Rc::new(Recorder { weight: weight.to_owned(), seen: RefCell::default() });
    let chain: Vec<Rc<dyn Substitute>> = within.into_iter().chain([recorder.clone() as Rc<dyn Substitute>]).collect();
    substituting(Some(Rc::new(Chain(chain))), || network.forward(inputs)).map_err(computation)?;
    match recorder.seen.take() {
        (Some(input), Some(output)) => Ok((input, output)),
        _ => Err(Error::input("model", format!("does not use the layer \"{weight}\""))),
    }
}

/// Remembers what goes in and out of one layer.
struct Recorder {
    weight: String,
    seen: RefCell<(Option<Tensor>, Option<Tensor>)>,
}

impl Substitute for Recorder {
    fn operands(&self, layer: LayerUse<'_>, own: Operands) -> candle_core::Result<Operands> {
        if layer.weight == self.weight {
            self.seen.borrow_mut().0 = Some(own.input.detach());
        }
        Ok(own)
    }

    fn output(&self, layer: LayerUse<'_>, output: Tensor) -> candle_core::Result<Tensor> {
        if layer.weight == self.weight {
            self.seen.borrow_mut().1 = Some(output.detach());
        }
        Ok(output)
    }
}

/// The input of a layer as rows (N, in): the last axis of a linear layer's, a convolution's patches, each channel by
/// channel and there row by row, as its kernels lie in memory.
///
/// # Errors
/// An embedding; a grouped convolution.
pub fn rows(kind: LayerKind, input: &Tensor) -> Result<Array2<f32>> {
    match kind {
        LayerKind::Linear => {
            let width = input.dims().last().copied().unwrap_or(1);
            input.reshape(((), width)).map_err(computation).and_then(|flat| matrix(&flat))
        }
        LayerKind::Conv2d { conv, kernel: (kh, kw) } => {
            if conv.groups != 1 {
                return Err(Error::Numerical("a grouped convolution has no one matrix of inputs".into()));
            }
            let (n, channels, height, width) = input.dims4().map_err(computation)?;
            let pixels = matrix(input)?;
            let (Some(oh), Some(ow)) = (conv.output(height, kh), conv.output(width, kw)) else {
                return Err(Error::Numerical(format!("a kernel of {kh} × {kw} does not fit into {height} × {width}")));
            };
            let mut patches = Array2::zeros((n * oh * ow, channels * kh * kw));
            for (place, mut patch) in patches.rows_mut().into_iter().enumerate() {
                let (image, y, x) = (place / (oh * ow), place / ow % oh, place % ow);
                let image = pixels.row(image);
                for (tap, value) in patch.iter_mut().enumerate() {
                    let (channel, ky, kx) = (tap / (kh * kw), tap / kw % kh, tap % kw);
                    let at = |start: usize, k: usize, end: usize| {
                        (start * conv.stride + k * conv.dilation).checked_sub(conv.padding).filter(|&at| at < end)
                    };
                    if let (Some(y), Some(x)) = (at(y, ky, height), at(x, kx, width)) {
                        *value = image[(channel * height + y) * width + x];
                    }
                }
            }
            Ok(patches)
        }
        LayerKind::Embedding => Err(Error::Numerical("the inputs of an embedding are no rows of numbers".into())),
    }
}

/// Gathers what the layers it knows see.
struct Gatherer(RefCell<BTreeMap<String, Gathered>>);

impl Substitute for Gatherer {
    fn operands(&self, layer: LayerUse<'_>, own: Operands) -> candle_core::Result<Operands> {
        if let Some(gathered) = self.0.borrow_mut().get_mut(layer.weight) {
            let rows = rows(layer.kind, &own.input).map_err(|e| candle_core::Error::Msg(e.to_string()))?;
            gathered.add(rows.view());
        }
        Ok(own)
    }
}

/// Sums under way.
struct Gathered {
    needs: Needs,
    count: u64,
    range: (f32, f32),
    square: Array1<f64>,
    products: Option<Array2<f64>>,
    kept: Vec<f32>,
    rng: Rng,
}

impl Gathered {
    fn new(inputs: usize, needs: Needs, rng: Rng) -> Self {
        Self {
            needs,
            count: 0,
            range: (f32::INFINITY, f32::NEG_INFINITY),
            square: Array1::zeros(inputs),
            products: needs.hessian.then(|| Array2::zeros((inputs, inputs))),
            kept: Vec::new(),
            rng,
        }
    }

    fn add(&mut self, rows: ArrayView2<'_, f32>) {
        let wide = rows.mapv(f64::from);
        self.range = rows.iter().fold(self.range, |(low, high), &x| (low.min(x), high.max(x)));
        self.square += &wide.map_axis(Axis(0), |column| column.dot(&column));
        if let Some(products) = &mut self.products {
            gemm(1.0, wide.t(), wide.view(), true, products.view_mut());
        }
        // Reservoir sampling (algorithm R): each row seen is kept with the same probability.
        let width = rows.ncols();
        for row in rows.rows() {
            let seen = self.count as usize;
            self.count += 1;
            if seen < self.needs.rows {
                self.kept.extend(row);
            } else if self.needs.rows > 0 {
                let slot = self.rng.random_range(0..=seen);
                if slot < self.needs.rows {
                    self.kept[slot * width..][..width].iter_mut().zip(row).for_each(|(kept, &x)| *kept = x);
                }
            }
        }
    }

    fn finish(self, name: &str) -> Result<Calibration> {
        let bad = |problem: &str| Err(Error::input(format!("calibration of layer \"{name}\""), problem));
        if self.count == 0 {
            return bad("saw no input: the forward pass does not reach the layer");
        }
        if self.square.iter().any(|x| !x.is_finite()) {
            return bad("saw inputs that are not finite");
        }
        if self.square.iter().all(|&x| x == 0.0) {
            return bad("saw only zeros");
        }
        let (n, width) = (self.count as f64, self.square.len());
        let rows = (self.needs.rows > 0).then(|| {
            Array2::from_shape_vec((self.kept.len() / width.max(1), width), self.kept).expect("whole rows are kept")
        });
        Ok(Calibration {
            count: self.count,
            range: self.range,
            mean_square: self.square / n,
            hessian: self.products.map(|products| products * (2.0 / n)),
            rows,
        })
    }
}
