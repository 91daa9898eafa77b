//! The door: which training rows shaped the answers to a user's queries, or stand out by shaping their own.

use super::inputs::{Rows, Words};
use super::{
    Detail, DiagonalFisher, Directions, Exact, Examples, FactorFiles, Fit, Identity, Influence, Lissa, Model,
    Preconditioner, Scores, Track, TrackedLayers, demonstration, report, tracin,
};
use crate::{Damping, KroneckerInverse};
use offprint_core::{Error, Method, Params, Progress, Result, Run, Source};
use offprint_nn::derivatives::Loss;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Instant;

/// What to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Scores of every training row for every query.
    Scores,
    /// Each training row's influence on itself, which is large for wrong labels.
    SelfInfluence,
}

/// What stands for the inverse curvature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Curvature {
    /// Kronecker factors with refitted eigenvalues.
    Ekfac,
    /// Kronecker factors.
    Kfac,
    /// Mean squares of gradients.
    Diagonal,
    /// None: inner products of gradients.
    Dot,
    /// A series of mini-batch products for every query.
    Lissa,
    /// The Gauss–Newton matrix itself, for small models.
    Exact,
    /// Inner products summed over checkpoints.
    Tracin,
}

/// What the model was trained to make small.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Objective {
    /// −log of the soft-max of the right class or token.
    CrossEntropy,
    /// Half the squared distance.
    SquaredError,
    /// −log of the logistic function of right answers 0 or 1.
    Logistic,
}

impl Objective {
    pub(super) fn loss(self) -> Loss {
        match self {
            Self::CrossEntropy => Loss::CrossEntropy,
            Self::SquaredError => Loss::SquaredError,
            Self::Logistic => Loss::Logistic,
        }
    }
}

/// Which targets gradients are taken for when the curvature is fitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Fisher {
    /// Drawn from the model's prediction.
    Sampled,
    /// Those of the data.
    Empirical,
}

/// Parameters of `influence`.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct InfluenceParams {
    /// What to compute: scores of training rows for queries, or each row's influence on itself
    #[arg(long, value_enum, default_value_t = Task::Scores)]
    pub task: Task,
    /// The trained model: a .safetensors file or a directory with config.json; built in is a digits classifier that was
    /// trained with one label in ten wrong
    #[arg(long)]
    pub model: Option<PathBuf>,
    /// JSON that describes the model, such as {"architecture": "mlp", "widths": [10, 64, 1], "activation": "tanh"}, where
    /// the weights do not bring it along
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// What the model was trained to make small
    #[arg(long, value_enum, default_value_t = Objective::CrossEntropy)]
    pub objective: Objective,
    /// Training rows (n, …) as the model reads them: .npy, .npz:NAME, .csv; without --targets the last column is the target
    #[arg(long, default_value = "builtin")]
    pub train: Source,
    /// Targets of the training rows
    #[arg(long)]
    pub targets: Option<Source>,
    /// Query rows, read as the training rows are
    #[arg(long, default_value = "builtin")]
    pub queries: Source,
    /// Targets of the query rows
    #[arg(long)]
    pub query_targets: Option<Source>,
    /// Training texts for a language model, JSON lines {"text": …} or {"prompt": …, "completion": …}, instead of rows
    #[arg(long)]
    pub texts: Option<PathBuf>,
    /// Query texts, in the form of the training texts: what is asked is the completion
    #[arg(long)]
    pub query_texts: Option<PathBuf>,
    /// The tokenizer.json of the language model
    #[arg(long)]
    pub tokenizer: Option<PathBuf>,
    /// What stands for the inverse curvature
    #[arg(long, value_enum, default_value_t = Curvature::Ekfac)]
    pub curvature: Curvature,
    /// Targets for which the curvature is fitted: drawn from the model (the Fisher matrix) or those of the data
    #[arg(long, value_enum, default_value_t = Fisher::Sampled)]
    pub fisher: Fisher,
    /// Damping λ of every layer; if none is given it is a share of the layer's mean eigenvalue
    #[arg(long)]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub damping: Option<f64>,
    /// Damping of a layer as a share of its mean eigenvalue
    #[arg(long, default_value_t = 0.1)]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub damping_share: f64,
    /// Layers through which influence is measured: usual (the perceptrons of a transformer, all of another model), all, or
    /// names separated by commas
    #[arg(long, default_value = "usual")]
    pub track: String,
    /// Rank to which each query's direction is compressed; if none is given it is kept whole
    #[arg(long)]
    #[schemars(range(min = 1))]
    pub rank: Option<usize>,
    /// Diagonal blocks into which each Kronecker factor is cut to save memory
    #[arg(long, default_value_t = 1)]
    #[schemars(range(min = 1, max = 64))]
    pub blocks: usize,
    /// Directory of Kronecker factors in the layout of kronfluence: what is there is used, what is missing is computed and
    /// written
    #[arg(long)]
    pub factors: Option<PathBuf>,
    /// Layers whose factors are held in memory at once; if none is given, all
    #[arg(long)]
    #[schemars(range(min = 1))]
    pub layers_at_once: Option<usize>,
    /// Most training samples from which the curvature is fitted: the first ones
    #[arg(long, default_value_t = 100_000)]
    #[schemars(range(min = 1))]
    pub fit_samples: usize,
    /// Checkpoints for tracin, PATH@RATE separated by commas: weights during training and the learning rate there
    #[arg(long)]
    pub checkpoints: Option<String>,
    /// Steps of lissa for each query; if none are given, as many as training rows
    #[arg(long)]
    #[schemars(range(min = 1))]
    pub lissa_steps: Option<usize>,
    /// Samples in a batch of lissa
    #[arg(long, default_value_t = 32)]
    #[schemars(range(min = 1))]
    pub lissa_batch: usize,
    /// Score only this many training texts, those that share the rarest tokens with a query
    #[arg(long)]
    #[schemars(range(min = 1))]
    pub keep: Option<usize>,
    /// Training rows listed for each query, and rows listed by self-influence
    #[arg(long, default_value_t = 10)]
    #[schemars(range(min = 1, max = 10000))]
    pub top: usize,
    /// Save the part of each layer too
    #[arg(long)]
    pub by_layer: bool,
    /// Save the part of each token of the training texts too
    #[arg(long)]
    pub by_token: bool,
    /// Samples that go through the model at once
    #[arg(long, default_value_t = 128)]
    #[schemars(range(min = 1, max = 65536))]
    pub chunk: usize,
    /// Compute the model in double precision
    #[arg(long)]
    pub double: bool,
}
offprint_core::defaults_from_flags!(InfluenceParams);

impl Params for InfluenceParams {
    fn check(&self) -> Result<()> {
        let text = self.texts.is_some();
        let given: [(&str, bool); 6] = [
            ("train", !self.train.is_builtin()),
            ("targets", self.targets.is_some()),
            ("queries", !self.queries.is_builtin()),
            ("query-targets", self.query_targets.is_some()),
            ("query-texts", self.query_texts.is_some()),
            ("tokenizer", self.tokenizer.is_some()),
        ];
        if self.model.is_none() {
            let extra = given.iter().find(|(_, given)| *given).map(|(name, _)| *name).or(text.then_some("texts"));
            if let Some(name) = extra {
                return Err(Error::parameter("model", "none", format!("given: {name} is what a model of yours reads")));
            }
            if self.curvature == Curvature::Tracin || self.checkpoints.is_some() {
                return Err(Error::parameter("model", "none", "given for tracin, with its checkpoints"));
            }
            return Ok(());
        }
        let needed: &[&str] = match (text, self.task) {
            (false, Task::Scores) => &["train", "queries"],
            (false, Task::SelfInfluence) => &["train"],
            (true, Task::Scores) => &["query-texts", "tokenizer"],
            (true, Task::SelfInfluence) => &["tokenizer"],
        };
        for (name, given) in given {
            let rows = ["train", "targets", "queries", "query-targets"].contains(&name);
            if !given && needed.contains(&name) {
                return Err(Error::parameter(name, "none", "given with a model"));
            }
            if given && rows == text {
                let allowed = if text { "left out beside texts" } else { "given with texts" };
                return Err(Error::parameter(name, "given", allowed));
            }
        }
        if (self.curvature == Curvature::Tracin) != self.checkpoints.is_some() {
            let given = self.checkpoints.as_deref().unwrap_or("none");
            return Err(Error::parameter("checkpoints", given, "given for tracin, and for tracin only"));
        }
        if self.task == Task::SelfInfluence && self.curvature == Curvature::Tracin {
            return Err(Error::parameter("curvature", "tracin", "another one for self-influence"));
        }
        if self.keep.is_some() && !text {
            return Err(Error::parameter("keep", "given", "used with texts"));
        }
        let detailed = [("by-token", self.by_token), ("by-layer", self.by_layer), ("rank", self.rank.is_some())];
        if self.curvature == Curvature::Tracin
            && let Some((name, _)) = detailed.iter().find(|(_, given)| *given)
        {
            return Err(Error::parameter(*name, "given", "left out for tracin, which sums over checkpoints"));
        }
        if self.factors.is_some() && !self.is_kronecker() {
            return Err(Error::parameter("factors", "given", "used by ekfac and kfac"));
        }
        self.tracking().map(|_| ())
    }
}

impl InfluenceParams {
    /// Whether the curvature is made of Kronecker factors.
    pub fn is_kronecker(&self) -> bool {
        matches!(self.curvature, Curvature::Ekfac | Curvature::Kfac)
    }

    pub(super) fn tracking(&self) -> Result<Track> {
        match self.track.trim() {
            "usual" => Ok(Track::Usual),
            "all" => Ok(Track::All),
            "" => Err(Error::parameter("track", "nothing", "usual, all, or names of layers")),
            names => Ok(Track::Named(names.split(',').map(|name| name.trim().to_owned()).collect())),
        }
    }

    fn damping(&self) -> Damping {
        self.damping.map_or(Damping::OfMean(self.damping_share), Damping::Fixed)
    }
}

impl Method for Influence {
    type Params = InfluenceParams;

    fn run(params: &InfluenceParams, run: &mut Run) -> Result<()> {
        if params.model.is_none() {
            return demonstration::run(params, run);
        }
        let rows = Rows::read(params)?;
        let loss = rows.network.loss(rows.loss);
        let tracked = TrackedLayers::of(&loss, &rows.train, &params.tracking()?)?;
        let model = Model { loss: &loss, tracked: &tracked, chunk: params.chunk };
        run.metric("training rows", rows.train.len() as f64, "");
        run.metric("tracked layers", tracked.layers().len() as f64, "");
        run.metric("tracked parameters", tracked.dim() as f64, "");
        match params.task {
            Task::Scores => {
                run.metric("queries", rows.queries.len() as f64, "");
                let scores = scores(params, &model, &rows, run)?;
                report::scores(params, &model, &scores, &rows, run)
            }
            Task::SelfInfluence => {
                let scores = self_influence(params, &model, &rows.train, run)?;
                report::self_influence(params, &scores, &rows.words, run)
            }
        }
    }
}

/// The samples from which the curvature is fitted, with the targets that are asked for.
fn fit_samples(params: &InfluenceParams, model: &Model<'_>, train: &Examples, run: &Run) -> Result<Examples> {
    let some = train.range(0..params.fit_samples)?;
    match params.fisher {
        Fisher::Sampled => model.drawn(&some, run.stream("targets of the curvature")),
        Fisher::Empirical => Ok(some),
    }
}

/// K-FAC or EK-FAC, from files or fitted.
pub(super) fn kronecker(
    params: &InfluenceParams,
    model: &Model<'_>,
    train: &Examples,
    run: &mut Run,
) -> Result<KroneckerInverse> {
    let start = Instant::now();
    let fit = Fit {
        sampled: (params.fisher == Fisher::Sampled).then(|| run.stream("targets of the curvature")),
        blocks: params.blocks,
        refit: params.curvature == Curvature::Ekfac,
        layers_at_once: params.layers_at_once.unwrap_or(usize::MAX),
    };
    let files = params.factors.as_ref().map(FactorFiles::open).transpose()?;
    let layers = fit.layers(model, &train.range(0..params.fit_samples)?, files.as_ref(), &run.progress())?;
    let inverse = KroneckerInverse::new(layers, model.tracked.dim(), params.damping())?;
    run.metric("fitting the curvature", start.elapsed().as_secs_f64(), "s");
    Ok(inverse)
}

/// The preconditioner that is asked for; not for tracin.
fn preconditioner<'a>(
    params: &InfluenceParams,
    model: &Model<'a>,
    train: &'a Examples,
    run: &mut Run,
) -> Result<Box<dyn Preconditioner + 'a>> {
    let progress = run.progress();
    let diagonal = |run: &Run| {
        let samples = fit_samples(params, model, train, run)?;
        DiagonalFisher::fit(model, &samples, params.damping(), &progress)
    };
    Ok(match params.curvature {
        Curvature::Ekfac | Curvature::Kfac => Box::new(kronecker(params, model, train, run)?),
        Curvature::Diagonal => Box::new(diagonal(run)?),
        Curvature::Dot | Curvature::Tracin => Box::new(Identity { dim: model.tracked.dim() }),
        Curvature::Exact => {
            let damping = diagonal(run)?.damping().to_vec();
            Box::new(Exact::fit(model, &train.range(0..params.fit_samples)?, damping, &progress)?)
        }
        Curvature::Lissa => {
            let damping = diagonal(run)?.damping().to_vec();
            let (stream, batch) = (run.stream("batches of lissa"), params.lissa_batch.min(train.len()));
            let scale = Lissa::scale(model.loss, model.tracked, train, &damping, batch, stream)?;
            let steps = params.lissa_steps.unwrap_or(train.len());
            Box::new(Lissa { loss: model.loss, tracked: model.tracked, train, damping, scale, steps, batch, stream })
        }
    })
}

/// Scores of all training rows for all queries.
pub(super) fn scores(params: &InfluenceParams, model: &Model<'_>, rows: &Rows, run: &mut Run) -> Result<Scores> {
    let progress = run.progress();
    if params.curvature == Curvature::Tracin {
        let checkpoints = rows.checkpoints(params)?;
        return tracin(model, &checkpoints, &rows.queries, &rows.train, &progress);
    }
    let preconditioner = preconditioner(params, model, &rows.train, run)?;
    let directions = directions(params, model, preconditioner.as_ref(), &rows.queries, &progress)?;
    let start = Instant::now();
    let detail = Detail { layers: params.by_layer, tokens: params.by_token };
    let scores = model.scores(&directions, &rows.train, detail, &progress)?;
    run.metric("scoring", start.elapsed().as_secs_f64(), "s");
    Ok(scores)
}

/// Preconditioned gradients of the queries, compressed if that is asked for.
pub(super) fn directions(
    params: &InfluenceParams,
    model: &Model<'_>,
    preconditioner: &dyn Preconditioner,
    queries: &Examples,
    progress: &Progress,
) -> Result<Directions> {
    let gradients = model.gradients(queries, progress)?;
    let directions = preconditioner.precondition(gradients.view(), progress)?;
    let directions = Directions::new(model.tracked, directions.view())?;
    match params.rank {
        Some(rank) => directions.compressed(model.tracked, rank),
        None => Ok(directions),
    }
}

/// Self-influence of every training row.
pub(super) fn self_influence(
    params: &InfluenceParams,
    model: &Model<'_>,
    train: &Examples,
    run: &mut Run,
) -> Result<Vec<f64>> {
    let progress = run.progress();
    if params.is_kronecker() {
        let inverse = kronecker(params, model, train, run)?;
        return Ok(model.kronecker_self_influence(&inverse, train, &progress)?.to_vec());
    }
    let preconditioner = preconditioner(params, model, train, run)?;
    Ok(model.self_influence(preconditioner.as_ref(), train, &progress)?.to_vec())
}

/// What stands in place of texts where the user gave rows.
pub(super) const NO_WORDS: Words = Words { train: Vec::new(), queries: Vec::new() };
