//! The door: products with the inverse, its diagonal, and pruning, on the user's files.

use super::digits::{DigitsNet, Score};
use super::{
    Compensation, Criterion, Gradients, GradientsView, Mfac, MfacBlocks, MfacFactored, MfacStatic, Pruner, Weights,
};
use crate::{Inverse, LinearOperator, Real, Shifted, vector, wide};
use ndarray::ArrayView2;
use offprint_core::figure::{Axis, Figure, Plot};
use offprint_core::{Error, Method, Params, Result, Run, Source, Table};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Instant;

/// What to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Prune weights.
    Prune,
    /// Multiply a vector by the inverse.
    Solve,
    /// The diagonal of the inverse.
    Diagonal,
}

/// What tells which weights to drop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    /// M-FAC, in blocks if a block size is given.
    Mfac,
    /// The size of the weight.
    Magnitude,
    /// The weight's square times the mean squared gradient.
    DiagonalFisher,
    /// Blocks of the inverse written out.
    WoodFisher,
}

/// Parameters of `mfac`.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MfacParams {
    /// What to compute: pruned weights, a product with the inverse, or the inverse's diagonal
    #[arg(long, value_enum, default_value_t = Task::Prune)]
    pub task: Task,
    /// Gradient matrix (m, d), one gradient a row: a .npy of f32 or f64 is read in place and may exceed the memory, a
    /// tensor of a .safetensors file is named as PATH:NAME; built in is a digits classifier
    #[arg(long, default_value = "builtin")]
    pub grads: Source,
    /// Vector (d) to multiply by the inverse; built in is the mean of the gradients, which gives the natural gradient
    #[arg(long, default_value = "builtin")]
    pub x: Source,
    /// Weights to prune, a .safetensors file: its tensors, one after the other, are the columns of the gradients
    #[arg(long)]
    pub weights: Option<PathBuf>,
    /// Names of the tensors to prune, separated by commas, in the order of the gradients' columns; if none are named,
    /// all with two axes or more in alphabetical order
    #[arg(long)]
    pub tensors: Option<String>,
    /// Damping λ, added to the diagonal of the Fisher matrix
    #[arg(long, default_value_t = 1e-5)]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub damp: f64,
    /// Size of diagonal blocks; if none is given the inverse is that of the whole matrix
    #[arg(long)]
    #[schemars(range(min = 1))]
    pub block: Option<usize>,
    /// Pages in which the rows are turned into directions, which are then kept in memory, as published; if none are
    /// given the gradients are read where they lie
    #[arg(long)]
    #[schemars(range(min = 1))]
    pub pages: Option<usize>,
    /// Share of weights that are zero after pruning
    #[arg(long, default_value_t = 0.9)]
    #[schemars(range(min = 0, max = 1))]
    pub sparsity: f64,
    /// Sub-steps of pruning; the built-in network computes fresh gradients for each, given gradients are used again
    #[arg(long, default_value_t = 8)]
    #[schemars(range(min = 1, max = 1000))]
    pub recompute: usize,
    /// What tells which weights to drop
    #[arg(long, value_enum, default_value_t = By::Mfac)]
    pub by: By,
    /// Adjust the kept weights to all dropped ones together rather than to each by itself
    #[arg(long)]
    pub joint: bool,
    /// Gradients m of the built-in network, each of 16 images
    #[arg(long, default_value_t = 128)]
    #[schemars(range(min = 1, max = 4096))]
    pub ngrads: usize,
}
offprint_core::defaults_from_flags!(MfacParams);

impl Params for MfacParams {
    fn check(&self) -> Result<()> {
        if self.task == Task::Prune && self.weights.is_none() && !self.grads.is_builtin() {
            return Err(Error::parameter("weights", "none", "the file whose gradients are given"));
        }
        if self.joint && (self.by != By::Mfac || self.block.is_some()) {
            return Err(Error::parameter("joint", true, "used by M-FAC without blocks"));
        }
        if self.by == By::WoodFisher && self.block.is_none() {
            return Err(Error::parameter("block", "none", "given for WoodFisher: the whole inverse would be d × d"));
        }
        Ok(())
    }
}

impl MfacParams {
    fn criterion(&self) -> Criterion {
        match (self.by, self.block) {
            (By::Magnitude, _) => Criterion::Magnitude,
            (By::DiagonalFisher, _) => Criterion::DiagonalFisher,
            (By::WoodFisher, Some(size)) => Criterion::WoodFisher(size),
            (_, Some(size)) => Criterion::MfacBlocks(size),
            (_, None) => Criterion::Mfac,
        }
    }

    fn pruner(&self) -> Pruner {
        let compensation = if self.joint { Compensation::Joint } else { Compensation::Single };
        Pruner { criterion: self.criterion(), compensation, damp: self.damp, steps: self.recompute }
    }
}

/// Epochs in which the built-in network is trained.
const EPOCHS: u64 = 30;

impl Method for Mfac {
    type Params = MfacParams;

    fn run(params: &MfacParams, run: &mut Run) -> Result<()> {
        match (params.task, &params.weights) {
            (Task::Prune, None) => prune_builtin(params, run),
            (Task::Prune, Some(path)) => prune_file(params, path, run),
            _ => {
                let gradients = if params.grads.is_builtin() {
                    let net = DigitsNet::trained(run.streams(), EPOCHS, &run.progress())?;
                    Gradients::F32(net.gradients(params.ngrads, 16, 0)?)
                } else {
                    Gradients::open(&params.grads)?
                };
                match gradients.view() {
                    GradientsView::F32(view) => inverse(params, view, run),
                    GradientsView::F64(view) => inverse(params, view, run),
                }
            }
        }
    }
}

/// A product with the inverse, or its diagonal.
fn inverse<T: Real>(params: &MfacParams, gradients: ArrayView2<'_, T>, run: &mut Run) -> Result<()> {
    let (m, d) = gradients.dim();
    run.metric("gradients m", m as f64, "");
    run.metric("dimension d", d as f64, "");
    let progress = run.progress();
    progress.begin("setup", 1);
    let start = Instant::now();
    let (mut factored, mut kept): (Option<MfacFactored<'_, T>>, Option<Box<dyn Inverse>>) = (None, None);
    let inverse: &dyn Inverse = match (params.block, params.pages) {
        (Some(size), _) => &**kept.insert(Box::new(MfacBlocks::new(gradients, params.damp, size)?)),
        (None, Some(pages)) => {
            &**kept.insert(Box::new(MfacStatic::paged(gradients.to_owned(), params.damp, m.div_ceil(pages))?))
        }
        (None, None) => factored.insert(MfacFactored::new(gradients, params.damp)?),
    };
    run.metric("setup", start.elapsed().as_secs_f64(), "s");
    progress.advance(1)?;
    progress.finish();
    if params.task == Task::Diagonal {
        let diagonal = inverse.diag_inverse()?;
        let mut sorted = diagonal.clone();
        sorted.sort_by(f64::total_cmp);
        run.metric("smallest element", sorted[0], "");
        run.metric("median element", sorted[d / 2], "");
        run.metric("largest element", sorted[d - 1], "");
        let (rank, value) = thinned(&sorted);
        run.figure(
            "diagonal",
            Figure::new(
                "Diagonal of the inverse Fisher matrix",
                "Sorted. Elements at 1/λ belong to coordinates that no gradient touches; the lower an element, the more \
                 the loss resists when that coordinate moves.",
            )
            .panel(
                Plot::new(Axis::new("share of coordinates"), Axis::log("(F̂⁻¹)_kk"))
                    .curve("", rank, value)
                    .horizontal("1/λ", 1.0 / params.damp),
            ),
        );
        return run.save_array("diag.npy", diagonal);
    }
    let x = if params.x.is_builtin() {
        let mut mean = vec![0.0; d];
        wide::add_transposed_times(&mut mean, gradients, &vec![1.0 / m as f64; m]);
        mean
    } else {
        params.x.vector()?.to_vec()
    };
    let start = Instant::now();
    let y = inverse.apply_inverse(&x)?;
    run.metric("product", start.elapsed().as_secs_f64(), "s");
    if params.block.is_none() {
        // The answer is checked by multiplying back, which costs as much as the product.
        let fisher = Shifted { operator: crate::EmpiricalFisher::new(gradients)?, shift: params.damp };
        let mut back = vec![0.0; d];
        fisher.apply(&y, &mut back)?;
        vector::add_scaled(&mut back, -1.0, &x);
        run.metric("residual ‖F̂y − x‖/‖x‖", vector::norm(&back) / vector::norm(&x).max(f64::MIN_POSITIVE), "");
    }
    run.metric("‖x‖", vector::norm(&x), "");
    run.metric("‖F̂⁻¹x‖", vector::norm(&y), "");
    let values = match factored {
        Some(factored) => factored.eigenvalues()?,
        None => MfacFactored::new(gradients, params.damp)?.eigenvalues()?,
    };
    let rank: Vec<f64> = (1..=values.len()).map(|i| i as f64).collect();
    run.figure(
        "spectrum",
        Figure::new(
            "Eigenvalues of the damped Fisher matrix",
            "The largest m; all others equal λ. In the directions above λ the inverse takes the gradients' word, in all \
             others it multiplies by 1/λ.",
        )
        .panel(
            Plot::new(Axis::new("rank"), Axis::log("eigenvalue of F̂"))
                .line("", rank, values)
                .horizontal("λ", params.damp),
        ),
    );
    run.save_array("ihvp.npy", y)
}

/// At most 512 points of a sorted curve, over the share of elements below.
fn thinned(sorted: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let last = sorted.len() - 1;
    let places: Vec<usize> = (0..512).map(|i| i * last / 511).collect();
    (places.iter().map(|&k| k as f64 / last.max(1) as f64).collect(), places.iter().map(|&k| sorted[k]).collect())
}

/// Prunes the user's weights with the user's gradients.
fn prune_file(params: &MfacParams, path: &std::path::Path, run: &mut Run) -> Result<()> {
    let names: Vec<String> =
        params.tensors.iter().flat_map(|list| list.split(',')).map(|name| name.trim().to_owned()).collect();
    let weights = Weights::read(path, &names)?;
    let count = weights.flat.len();
    let gradients = match params.by {
        By::Magnitude => None,
        _ if params.grads.is_builtin() => {
            return Err(Error::parameter(
                "grads",
                "builtin",
                "the gradients of the weights; without, prune by magnitude",
            ));
        }
        _ => Some(Gradients::open(&params.grads)?),
    };
    if let Some(d) = gradients.as_ref().map(|g| g.view().dim().1).filter(|&d| d != count) {
        let tensors: Vec<String> = weights.tensors.iter().map(|(name, shape)| format!("{name} {shape:?}")).collect();
        let problem =
            format!("has {d} columns, but the tensors to prune have {count} elements: {}", tensors.join(", "));
        return Err(Error::input(params.grads.to_string(), problem));
    }
    if gradients.is_some() && params.recompute > 1 {
        run.warn("the same gradients serve all sub-steps; recompute them between runs for the full effect");
    }
    let mut pruned = weights.flat.clone();
    let all: Vec<usize> = (0..count).collect();
    let given = |_: &[f64]| match &gradients {
        Some(gradients) => Ok(gradients.view().columns(&all)),
        None => Err(Error::input("grads", "are needed")),
    };
    params.pruner().prune(&mut pruned, params.sparsity, given, &run.progress())?;
    if let Some(gradients) = &gradients {
        let change: Vec<f64> = pruned.iter().zip(&weights.flat).map(|(new, old)| new - old).collect();
        let along = match gradients.view() {
            GradientsView::F32(view) => wide::times(view, &change),
            GradientsView::F64(view) => wide::times(view, &change),
        };
        let predicted = along.iter().map(|a| a * a).sum::<f64>() / (2.0 * along.len() as f64);
        run.metric("predicted rise of the loss", predicted, "");
    }
    let layers: Vec<(String, f64, usize)> = weights
        .tensors
        .iter()
        .zip(weights.ranges())
        .map(|((name, _), range)| (name.clone(), share_of_zeros(&pruned[range.clone()]), range.len()))
        .collect();
    report_sparsity(&pruned, layers, run)?;
    let mask: Vec<u8> = pruned.iter().map(|&w| u8::from(w != 0.0)).collect();
    let single: Vec<f32> = pruned.iter().map(|&w| w as f32).collect();
    run.save_arrays("pruned.safetensors", weights.unflatten(&single), Default::default())?;
    run.save_arrays("mask.safetensors", weights.unflatten(&mask), Default::default())
}

fn share_of_zeros(weights: &[f64]) -> f64 {
    weights.iter().filter(|&&w| w == 0.0).count() as f64 / weights.len().max(1) as f64
}

fn report_sparsity(pruned: &[f64], layers: Vec<(String, f64, usize)>, run: &mut Run) -> Result<()> {
    run.metric("weights", pruned.len() as f64, "");
    run.metric("sparsity", share_of_zeros(pruned), "");
    run.figure(
        "layers",
        Figure::new("Sparsity of each tensor", "One ranking over all weights decides: tensors that matter keep more.")
            .panel(
                Plot::new(
                    Axis::categories("tensor", layers.iter().map(|l| l.0.as_str())),
                    Axis::new("share of zeros").limits(0.0, 1.0),
                )
                .bars("", layers.iter().map(|l| l.1).collect()),
            ),
    );
    run.table(
        Table::new("layers", "What pruning left of each tensor.")
            .words("tensor", layers.iter().map(|l| l.0.clone()))
            .integers("weights", "", layers.iter().map(|l| l.2 as i64))
            .numbers("sparsity", "", layers.iter().map(|l| l.1)),
    )
}

/// Prunes the built-in digits classifier and compares the ways to do so.
fn prune_builtin(params: &MfacParams, run: &mut Run) -> Result<()> {
    let progress = run.progress();
    let net = DigitsNet::trained(run.streams(), EPOCHS, &progress)?;
    let dense = net.score()?;
    let (pruned, score) = net.pruned(params.pruner(), params.sparsity, params.ngrads, &progress)?;
    run.metric("accuracy, dense", dense.accuracy, "");
    run.metric("accuracy, pruned", score.accuracy, "");
    run.metric("training loss, dense", dense.loss, "nat");
    run.metric("training loss, pruned", score.loss, "nat");
    let sparsities = [0.5, 0.7, 0.8, 0.9, 0.95];
    let ways = [
        ("magnitude", Pruner { criterion: Criterion::Magnitude, ..params.pruner() }, 1),
        ("blocks of 128", Pruner { criterion: Criterion::MfacBlocks(128), ..params.pruner() }, 1),
        ("full", Pruner { criterion: Criterion::Mfac, ..params.pruner() }, 1),
        ("full, recomputed", Pruner { criterion: Criterion::Mfac, ..params.pruner() }, params.recompute),
    ];
    let mut plot = Plot::new(Axis::new("sparsity"), Axis::new("test accuracy"));
    for (name, pruner, steps) in ways {
        let pruner = Pruner { steps, compensation: Compensation::Single, ..pruner };
        let scores = net.prune(pruner, &sparsities, params.ngrads, &progress)?;
        plot = plot.line(name, sparsities.to_vec(), scores.iter().map(|s: &Score| s.accuracy).collect());
    }
    run.figure(
        "sparsity",
        Figure::new(
            "Accuracy after pruning without retraining",
            "A digits classifier with 17 024 weights. The inverse curvature tells which weights can go and how the rest \
             must move; fresh gradients in between keep the quadratic model true.",
        )
        .panel(plot.horizontal("dense", dense.accuracy)),
    );
    let mut start = 0;
    let layers = net
        .matrices()
        .into_iter()
        .map(|block| {
            let part = start..start + block.range.len();
            start = part.end;
            (block.name, share_of_zeros(&pruned[part.clone()]), part.len())
        })
        .collect();
    report_sparsity(&pruned, layers, run)?;
    let mask: Vec<u8> = pruned.iter().map(|&w| u8::from(w != 0.0)).collect();
    let single: Vec<f32> = pruned.iter().map(|&w| w as f32).collect();
    run.save_arrays("pruned.safetensors", net.named(&single), Default::default())?;
    run.save_arrays("mask.safetensors", net.named(&mask), Default::default())
}
