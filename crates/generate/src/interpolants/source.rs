//! From what the user gives to fields and pairs.

use super::run::{CouplingName, Example, InterpolantsParams, PathName};
use super::{
    Coupling, ExactFields, Fields, Interpolant, Joint, LearnedFields, NetworkFields, Pairs, Recipe, Shape, examples,
    view,
};
use crate::exact::Mixture;
use crate::network::{Digits8, DigitsData, Expected, Network, open};
use clap::ValueEnum;
use ndarray::{Array2, Axis};
use offprint_core::random::Stream;
use offprint_core::{Error, Picture, Result, Run};
use offprint_nn::models::Activation;
use std::time::Instant;

/// Fields, exact or learnt.
pub(super) enum Model {
    Exact(Box<ExactFields>),
    Learned(LearnedFields),
    Shared(NetworkFields),
}

impl Model {
    pub(super) fn fields(&self) -> &dyn Fields {
        match self {
            Self::Exact(exact) => &**exact,
            Self::Learned(learned) => learned,
            Self::Shared(shared) => shared,
        }
    }
}

/// All that a run stands on.
pub(super) struct Setup {
    pub model: Model,
    /// Pairs to start from and to compare with.
    pub pairs: Pairs,
    /// The law of x₀, where it is known.
    pub start_law: Option<Mixture>,
    /// Whether there is a score, so that diffusions can run.
    pub has_score: bool,
    /// Whether it is the default example.
    pub is_line_example: bool,
    /// The times that processes run between.
    pub span: (f64, f64),
    /// How a point is a picture, where that is known.
    pub picture: Option<Picture>,
}

/// What is bridged.
enum Given {
    Laws(Box<[Mixture; 2]>),
    FromNoise(Array2<f64>),
    Tables(Array2<f64>, Array2<f64>),
    Digits8,
}

impl Setup {
    pub(super) fn new(params: &InterpolantsParams, run: &mut Run) -> Result<Self> {
        let (given, picture) = Given::read(params, run)?;
        let is_line_example = params.model.is_none()
            && params.example == Example::Line
            && params.mixture1.is_none()
            && params.x1.is_builtin();
        let trained = match &params.model {
            Some(file) if !is_onnx(file) && LearnedFields::is_in(file)? => {
                Some(Model::Learned(LearnedFields::load(file)?))
            }
            Some(file) => Some(shared(params, open(file, params.onnx.as_ref(), &Expected::default())?)?),
            None if matches!(given, Given::Digits8) => Some(shared(params, Digits8::shipped()?.network)?),
            None => None,
        };
        let path = match &trained {
            Some(trained) => trained.fields().path().clone(),
            None => given.path(params)?,
        };
        let (pairs, start_law) = given.pairs(params, run)?;
        let model = match (trained, &pairs) {
            (Some(trained), _) => {
                let d = trained.fields().dim();
                if d != pairs.dim() {
                    let file = params.model.as_ref().map_or(String::new(), |file| file.display().to_string());
                    let problem = format!("is a model of dimension {d}, but the data have {}: give x1", pairs.dim());
                    return Err(Error::input(file, problem));
                }
                trained
            }
            (None, Pairs::Law(joint)) => Model::Exact(Box::new(ExactFields::new(path, Joint::clone(joint))?)),
            (None, _) => Model::Learned(train(params, run, path, &pairs)?),
        };
        let has_score = match &model {
            Model::Exact(_) | Model::Shared(_) => true,
            Model::Learned(learned) => learned.shape().second.is_some(),
        };
        let span = span(&model)?;
        let picture = picture.or(match &model {
            Model::Shared(shared) => shared.picture(),
            _ => None,
        });
        Ok(Self { model, pairs, start_law, has_score, is_line_example, span, picture })
    }
}

/// The times that processes of `model` run between: all for exact fields.
fn span(model: &Model) -> Result<(f64, f64)> {
    Ok(match model {
        Model::Exact(exact) if !matches!(exact.path(), Interpolant::Diffusion(_)) => (0.0, 1.0),
        // A denoiser needs some signal at the start.
        Model::Shared(shared) => Interpolant::of_diffusion(shared.path().schedule()?)?.learnable(),
        model => model.fields().path().learnable(),
    })
}

impl Given {
    /// What is given, and how its points are pictures.
    fn read(params: &InterpolantsParams, run: &Run) -> Result<(Self, Option<Picture>)> {
        if let Some(file) = &params.mixture1 {
            let end = Mixture::read(file)?;
            let start = match &params.mixture0 {
                Some(file) => Mixture::read(file)?,
                None => examples::standard_normal(end.means().ncols())?,
            };
            return Ok((Self::Laws(Box::new([start, end])), None));
        }
        let stream = run.stream("built-in samples");
        match (params.x0.is_builtin(), params.x1.is_builtin()) {
            (false, false) => {
                let (starts, ends) = (params.x0.points()?, params.x1.points()?);
                Ok((Self::Tables(starts.values, ends.values), ends.picture))
            }
            (true, false) => {
                let ends = params.x1.points()?;
                Ok((Self::FromNoise(ends.values), ends.picture))
            }
            (false, true) => Err(Error::parameter("x1", "nothing", "given with x0: the samples to compare with")),
            (true, true) => Self::example(params.example, stream).map(|given| (given, None)),
        }
    }

    fn example(example: Example, stream: Stream) -> Result<Self> {
        Ok(match example {
            Example::Line => {
                let (start, end) = examples::line()?;
                Self::Laws(Box::new([start, end]))
            }
            Example::Plane => {
                let (start, end) = examples::plane(stream)?;
                Self::Laws(Box::new([start, end]))
            }
            Example::Checkerboard => Self::FromNoise(examples::checkerboard(20_000, stream)),
            Example::Digits8 => Self::Digits8,
            Example::Digits => {
                let (images, labels) = offprint_data::digits();
                // Ink from −1 to 1.
                let points = images / 8.0 - 1.0;
                let of = |digit: u8| {
                    let rows: Vec<usize> = (0..labels.len()).filter(|&i| labels[i] == digit).collect();
                    points.select(Axis(0), &rows)
                };
                Self::Tables(of(3), of(8))
            }
        })
    }

    /// The path asked for, or the simplest that fits.
    fn path(&self, params: &InterpolantsParams) -> Result<Interpolant> {
        let name = params.path.unwrap_or(match self {
            Self::FromNoise(_) | Self::Digits8 => PathName::OneSidedLinear,
            _ => PathName::Linear,
        });
        let path = named(params, name)?;
        if path.is_one_sided() && matches!(self, Self::Tables(..)) {
            return Err(Error::parameter("path", path.name(), "two-sided, because x0 is given"));
        }
        Ok(path)
    }

    /// Pairs to draw, and the law of x₀ where it is known.
    fn pairs(self, params: &InterpolantsParams, run: &Run) -> Result<(Pairs, Option<Mixture>)> {
        let is_mirror = params.path == Some(PathName::Mirror);
        Ok(match self {
            Self::Laws(laws) => {
                let [start, end] = *laws;
                let joint = match params.coupling {
                    CouplingName::Independent => Joint::independent(&start, &end)?,
                    CouplingName::Entropic => Joint::entropic(&start, &end, params.gamma_scale)?,
                    _ => return Err(Error::parameter("coupling", "of rows", "independent or entropic for mixtures")),
                };
                (Pairs::Law(Box::new(joint)), Some(start))
            }
            // A mirror leads from the data to themselves.
            Self::FromNoise(ends) if is_mirror => {
                (Pairs::tables(ends.clone(), ends, Coupling::Paired, &run.progress())?, None)
            }
            Self::Digits8 => (Pairs::from_noise(DigitsData::new().train)?, Some(examples::standard_normal(64)?)),
            Self::FromNoise(ends) => {
                let law = examples::standard_normal(ends.ncols())?;
                (Pairs::from_noise(ends)?, Some(law))
            }
            Self::Tables(starts, ends) => {
                let coupling = match params.coupling {
                    CouplingName::Independent => Coupling::Independent,
                    CouplingName::Paired => Coupling::Paired,
                    CouplingName::MinibatchTransport => Coupling::MinibatchTransport,
                    CouplingName::Entropic => Coupling::Entropic { epsilon: params.gamma_scale },
                };
                (Pairs::tables(starts, ends, coupling, &run.progress())?, None)
            }
        })
    }
}

fn is_onnx(file: &std::path::Path) -> bool {
    file.extension().is_some_and(|e| e.eq_ignore_ascii_case("onnx"))
}

/// A network of the field, along the one-sided path asked for.
fn shared(params: &InterpolantsParams, network: Network) -> Result<Model> {
    let path = named(params, params.path.unwrap_or(PathName::OneSidedLinear))?;
    Ok(Model::Shared(NetworkFields::new(network, path)?))
}

fn named(params: &InterpolantsParams, name: PathName) -> Result<Interpolant> {
    let value = name.to_possible_value().expect("no path is skipped");
    Interpolant::named(value.get_name(), params.gamma())
}

/// Trains networks, and leaves them as `model.safetensors`.
fn train(params: &InterpolantsParams, run: &mut Run, path: Interpolant, pairs: &Pairs) -> Result<LearnedFields> {
    let recipe = Recipe::new(path, pairs.dim());
    let shape = Shape {
        width: params.width,
        depth: params.depth,
        activation: Activation::Silu,
        second: recipe.shape.second.map(|_| params.second()),
        ..recipe.shape
    };
    let (steps, batch, learning_rate) = (params.train_steps, params.batch, params.learning_rate);
    let recipe = Recipe { shape, steps, batch, learning_rate, ..recipe };
    let begun = Instant::now();
    let (learned, losses) = LearnedFields::fit(&recipe, pairs, run.seed(), &run.progress())?;
    let seconds = begun.elapsed().as_secs_f64();
    run.metric("training time", seconds, "s");
    run.metric("training steps per second", steps as f64 / seconds, "1/s");
    run.figure("loss", view::loss(&losses));
    let (arrays, words) = learned.to_arrays()?;
    run.save_arrays("model.safetensors", arrays, words)?;
    Ok(learned)
}
