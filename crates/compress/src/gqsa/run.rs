//! The door: compresses a decoder and says what it costs and what it saves.

use super::engine::timing::{Regime, Timing, random_vector, random_weights};
use super::engine::{Format, GROUP, Gemv, Input, Precision};
use super::{
    CompressedLayer, Decoder, Form, Gqsa, Pruning, Recipe, Saliency, Stage, Training, assembled, block_layers,
    group_pruned, perplexity,
};
use crate::examples::Example;
use crate::export::{Format as File, export};
use crate::methods::Scope;
use crate::model::windows;
use crate::{Subject, open_network};
use ndarray::Array2;
use offprint_core::figure::{Axis, Figure, HeatMap, Plot};
use offprint_core::{Error, Method, Params, Result, Run, Source, Table};
use offprint_nn::data::read_sequences;
use offprint_nn::{Architecture, Reads};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Among which groups saliencies are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Compared {
    /// Those of a row: all rows keep equally many
    Row,
    /// All of a layer: rows keep what they need, at least one
    Layer,
}

/// Parameters of `gqsa`.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GqsaParams {
    /// Decoder to compress: a Hugging Face directory of a LLaMA, or a .safetensors file of a gpt or llama with its
    /// architecture; built in is a character model of Hamlet and Macbeth
    #[arg(long)]
    pub model: Option<PathBuf>,
    /// Token numbers, one after the other, to train on (the last tenth to test on), or JSON lines {"text": …} for a
    /// directory with a tokenizer.json; needed with a model
    #[arg(long, default_value = "builtin")]
    pub tokens: Source,
    /// Share of groups that are pruned
    #[arg(long, default_value_t = 0.5)]
    #[schemars(range(min = 0, max = 0.95))]
    pub sparsity: f64,
    /// Bits of a code
    #[arg(long, default_value_t = 4)]
    #[schemars(range(min = 2, max = 4))]
    pub bits: u32,
    /// Score that decides which groups go
    #[arg(long, value_enum, default_value_t = Saliency::Hessian)]
    pub saliency: Saliency,
    /// Among which groups scores are compared
    #[arg(long, value_enum, default_value_t = Compared::Row)]
    pub compared: Compared,
    /// Windows of tokens that the saliency looks at
    #[arg(long, default_value_t = 128)]
    #[schemars(range(min = 1, max = 65536))]
    pub calibration: usize,
    /// Longest window of tokens
    #[arg(long, default_value_t = 64)]
    #[schemars(range(min = 2, max = 8192))]
    pub context: usize,
    /// Steps of stage one, for each block; 0 leaves it out
    #[arg(long, default_value_t = 60)]
    #[schemars(range(min = 0, max = 1000000))]
    pub block_steps: u64,
    /// Steps of stage two; 0 leaves it out
    #[arg(long, default_value_t = 60)]
    #[schemars(range(min = 0, max = 1000000))]
    pub end_steps: u64,
    /// Windows of a step
    #[arg(long, default_value_t = 32)]
    #[schemars(range(min = 1, max = 65536))]
    pub batch: usize,
    /// Rate of the weights in stage one; scales and zeros take 0.3 of it
    #[arg(long, default_value_t = 1e-3)]
    #[schemars(extend("exclusiveMinimum" = 0), range(max = 1))]
    pub rate: f64,
    /// Rate of the scales in stage two
    #[arg(long, default_value_t = 1e-4)]
    #[schemars(extend("exclusiveMinimum" = 0), range(max = 1))]
    pub end_rate: f64,
    /// Refreshes of the mask over the first half of stage one, at a sparsity that rises; 0 keeps the first mask
    #[arg(long, default_value_t = 0)]
    #[schemars(range(min = 0, max = 100))]
    pub refreshes: u64,
    /// Rows and columns of the random matrix whose products are timed; 0 times none
    #[arg(long, default_value_t = 1024)]
    #[schemars(range(min = 0, max = 16384))]
    pub size: usize,
    /// How the vector enters products
    #[arg(long, value_enum, default_value_t = Precision::Int8)]
    pub precision: Precision,
    /// Tokens that a LLaMA makes through the engine, to time it; the built-in model is none
    #[arg(long, default_value_t = 16)]
    #[schemars(range(min = 1, max = 4096))]
    pub generate: usize,
}
offprint_core::defaults_from_flags!(GqsaParams);

impl Params for GqsaParams {
    fn check(&self) -> Result<()> {
        if self.model.is_some() == self.tokens.is_builtin() {
            let (field, given) = if self.model.is_some() { ("tokens", "builtin") } else { ("model", "none") };
            return Err(Error::parameter(field, given, "given too: a model and its tokens come together"));
        }
        if !self.size.is_multiple_of(32) {
            return Err(Error::parameter("size", self.size, "a multiple of 32"));
        }
        Ok(())
    }
}

impl GqsaParams {
    fn recipe(&self) -> Recipe {
        Recipe {
            block_steps: self.block_steps,
            end_steps: self.end_steps,
            batch: self.batch,
            rate: self.rate,
            end_rate: self.end_rate,
            refreshes: self.refreshes,
            ..Recipe::small()
        }
    }

    /// The tokens of the file: numbers, or texts through the model's tokenizer.
    fn token_numbers(&self, model: &Path, vocabulary: usize) -> Result<Vec<u32>> {
        let tokenizer = model.join("tokenizer.json");
        let lines = self.tokens.path().filter(|path| path.extension().is_some_and(|ending| ending == "jsonl"));
        let tokens: Vec<f64> = match lines {
            Some(lines) if tokenizer.is_file() => {
                read_sequences(lines, &tokenizer)?.into_iter().flat_map(|text| text.tokens).map(f64::from).collect()
            }
            _ => self.tokens.vector()?.to_vec(),
        };
        let whole = |(i, &token): (usize, &f64)| -> Result<u32> {
            if token.fract() == 0.0 && (0.0..vocabulary as f64).contains(&token) {
                return Ok(token as u32);
            }
            let problem = format!("token {i} is {token}; the model knows whole numbers below {vocabulary}");
            Err(Error::input(self.tokens.to_string(), problem))
        };
        tokens.iter().enumerate().map(whole).collect()
    }

    fn subject(&self) -> Result<Subject> {
        let Some(path) = &self.model else { return Example::CharLm.load() };
        let network = open_network(path)?;
        let Reads::Tokens { vocabulary, context } = network.architecture().reads() else {
            return Err(Error::input(path.display().to_string(), "does not read tokens; decoders are compressed here"));
        };
        let tokens = self.token_numbers(path, vocabulary)?;
        let context = self.context.min(context);
        let (train, test) = tokens.split_at(tokens.len() / 10 * 9);
        if test.len() <= context {
            let problem = format!("has {} tokens; a tenth must be more than a window of {context}", tokens.len());
            return Err(Error::input(self.tokens.to_string(), problem));
        }
        Ok(Subject { network, train: windows(train, context)?, test: windows(test, context)? })
    }
}

impl Method for Gqsa {
    type Params = GqsaParams;

    fn run(params: &GqsaParams, run: &mut Run) -> Result<()> {
        let subject = params.subject()?;
        let layers = compress(params, &subject, run)?;
        if matches!(subject.network.architecture(), Architecture::Llama(_)) {
            decode(params, &subject, &layers, run)?;
        }
        if params.size > 0 {
            products(params, run)?;
        }
        if let Some(out) = run.out().map(|out| out.join("model")) {
            export(&assembled(&subject.network, &layers)?, &packed(&layers), File::Bsr, &out)?;
        }
        Ok(())
    }
}

fn packed(layers: &[CompressedLayer]) -> Vec<crate::Packed> {
    layers.iter().map(CompressedLayer::packed).collect()
}

/// Prunes, rounds and trains, and reports perplexity and size.
fn compress(params: &GqsaParams, subject: &Subject, run: &mut Run) -> Result<Vec<CompressedLayer>> {
    let (network, progress) = (&subject.network, run.progress());
    let places = block_layers(network)?;
    let scope = if params.compared == Compared::Row { Scope::Row } else { Scope::Layer };
    let pruning = Pruning { share: params.sparsity, scope };
    let seen = params.calibration.min(subject.train.len());
    let inputs = subject.train.inputs.narrow(0, 0, seen).map_err(offprint_nn::computation)?;
    let starts =
        group_pruned(network, &places, &inputs, params.saliency, pruning, run.stream("calibration"), &progress)?;
    let mut stages = vec![("as it was", perplexity(network, &[], &subject.test)?)];
    let form = Form::Codes { bits: params.bits, group: GROUP };
    let training = Training {
        network,
        data: &subject.train,
        form,
        pruning: Some(pruning),
        recipe: params.recipe(),
        streams: run.streams(),
        progress,
    };
    let layers = training.run(&starts, |stage, layers| {
        let name = match stage {
            Stage::Rounded => "pruned and rounded",
            Stage::Blocks => "block by block",
            Stage::End => "end to end",
        };
        stages.push((name, perplexity(network, layers, &subject.test)?));
        Ok(())
    })?;
    for (name, perplexity) in &stages {
        run.metric(&format!("perplexity, {name}"), *perplexity, "");
    }
    let records = layers.iter().map(CompressedLayer::records).collect::<Result<Vec<_>>>()?;
    let weights: usize = layers.iter().map(|layer| layer.place.weights()).sum();
    let bytes: usize = records.iter().map(Gemv::bytes).sum();
    let stored: usize = layers.iter().map(CompressedLayer::stored_bytes).sum();
    run.metric("bits a weight, stored", 8.0 * stored as f64 / weights as f64, "bit");
    run.metric("bits a weight, in the engine", 8.0 * bytes as f64 / weights as f64, "bit");
    run.metric(
        "sparsity",
        layers.iter().map(|l| l.sparsity() * l.place.weights() as f64).sum::<f64>() / weights as f64,
        "",
    );
    let vanishing: usize = layers.iter().map(CompressedLayer::vanishing_groups).sum();
    if vanishing > 0 {
        run.warn(format!(
            "{vanishing} groups have a range below the least scale of 1e-4; their smallest weights vanish"
        ));
    }
    run.table(
        Table::new(
            "layers",
            "The layers of the blocks, compressed; bits as the engine reads them, rows filled up to four groups.",
        )
        .words("layer", layers.iter().map(|layer| layer.place.name.clone()))
        .integers("rows", "", layers.iter().map(|layer| layer.place.outputs() as i64))
        .integers("columns", "", layers.iter().map(|layer| layer.place.inputs() as i64))
        .numbers("sparsity", "", layers.iter().map(CompressedLayer::sparsity))
        .numbers(
            "bits a weight",
            "bit",
            records.iter().map(|r| 8.0 * r.bytes() as f64 / (r.shape().0 * r.shape().1) as f64),
        ),
    )?;
    run.figure("stages", stages_figure(&stages, &layers));
    Ok(layers)
}

/// Perplexity by stage, beside the groups that one layer keeps.
fn stages_figure(stages: &[(&str, f64)], layers: &[CompressedLayer]) -> Figure {
    let caption = "Left: perplexity a token on text that was not trained on. Right: the groups of 16 weights that the \
                   last layer keeps (light), each a cell.";
    let bars = Plot::new(Axis::categories("stage", stages.iter().map(|(name, _)| *name)), Axis::new("perplexity"))
        .titled("Perplexity")
        .bars("", stages.iter().map(|(_, perplexity)| *perplexity).collect());
    let figure = Figure::new("Groups of 16 weights go, training brings the model back", caption).columns(2).panel(bars);
    let Some(layer) = layers.last() else { return figure };
    let kept: Array2<bool> = super::group_mask(&layer.keep);
    let (rows, columns) = kept.dim();
    figure.panel(offprint_core::figure::Panel::HeatMap(HeatMap {
        title: layer.place.name.clone(),
        values: kept.iter().map(|&kept| f64::from(u8::from(kept))).collect(),
        rows,
        columns,
        x: Axis::new("group").limits(0.0, columns as f64),
        y: Axis::new("row").limits(rows as f64, 0.0),
        colour: Axis::new("kept").limits(0.0, 1.0),
        palette: Default::default(),
    }))
}

/// Makes tokens through the engine, compressed and not.
fn decode(params: &GqsaParams, subject: &Subject, layers: &[CompressedLayer], run: &mut Run) -> Result<()> {
    let start = subject.test.inputs.get(0).and_then(|row| row.to_vec1::<u32>()).map_err(offprint_nn::computation)?;
    let start = &start[..1];
    let Reads::Tokens { context, .. } = subject.network.architecture().reads() else { return Ok(()) };
    let count = params.generate.min(context.saturating_sub(1)).max(1);
    let plain = |_: &str, weights: &Array2<f32>| Format::F32.rounded(weights);
    let half = |_: &str, weights: &Array2<f32>| Format::F16.rounded(weights);
    let sparse = |name: &str, weights: &Array2<f32>| -> Result<Box<dyn Gemv>> {
        match layers.iter().find(|layer| layer.place.name == name) {
            Some(layer) => Ok(Box::new(layer.records()?)),
            None => Format::F16.rounded(weights),
        }
    };
    let decoders = [
        ("f32", Decoder::new(&subject.network, Precision::Single, plain)?),
        ("f16", Decoder::new(&subject.network, Precision::Single, half)?),
        ("compressed", Decoder::new(&subject.network, params.precision, sparse)?),
    ];
    let mut rows = Vec::new();
    for (name, decoder) in &decoders {
        let begun = Instant::now();
        let tokens = decoder.generate(start, count)?;
        let seconds = begun.elapsed().as_secs_f64() / tokens.len() as f64;
        run.metric(&format!("time a token, {name}"), 1e3 * seconds, "ms");
        rows.push((name.to_string(), seconds, decoder.bytes(), tokens));
    }
    run.table(
        Table::new("decoding", "Tokens made one after the other, each the likeliest.")
            .words("matrices", rows.iter().map(|row| row.0.clone()))
            .numbers("tokens a second", "1/s", rows.iter().map(|row| 1.0 / row.1))
            .integers("bytes a token", "", rows.iter().map(|row| row.2 as i64))
            .integers(
                "tokens as f32",
                "",
                rows.iter().map(|row| row.3.iter().zip(&rows[0].3).take_while(|(a, b)| a == b).count() as i64),
            ),
    )
}

/// Times the products of all formats on a random matrix.
fn products(params: &GqsaParams, run: &mut Run) -> Result<()> {
    let weights = random_weights(params.size, params.size, run.stream("weights"));
    let x = random_vector(params.size, run.stream("x"));
    let timing = Timing::new(Regime::Cache, params.precision);
    let progress = run.progress();
    progress.begin("products", Format::ALL.len() as u64);
    let mut rows = Vec::new();
    for format in Format::ALL {
        let matrix = format.rounded(&weights)?;
        let seconds = timing.of(&*matrix, &x)?;
        let mut y = vec![0f32; params.size];
        matrix.multiply(&Input::new(&x, params.precision)?, &mut y);
        let exact = matrix.dequant().dot(&ndarray::aview1(&x));
        let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|v| f64::from(v).powi(2)).sum::<f64>().sqrt();
        let error = norm(&mut y.iter().zip(&exact).map(|(a, b)| a - b)) / norm(&mut exact.iter().copied());
        rows.push((format, matrix.bytes(), seconds, error));
        progress.advance(1)?;
    }
    progress.finish();
    let sparse = rows.iter().find(|row| row.0 == Format::W4S50).expect("one of all").2;
    run.metric("product, W4 S50 g16", 1e6 * sparse, "µs");
    run.metric("error of the product from the vector's precision", rows.last().map_or(0.0, |row| row.3), "");
    run.table(
        Table::new("products", format!("A random matrix of {0} × {0}, from cache.", params.size))
            .words("format", rows.iter().map(|row| row.0.name()))
            .numbers("bits a weight", "bit", rows.iter().map(|row| 8.0 * row.1 as f64 / weights.len() as f64))
            .numbers("time", "µs", rows.iter().map(|row| 1e6 * row.2))
            .numbers("rate", "GB/s", rows.iter().map(|row| row.1 as f64 / row.2 / 1e9))
            .numbers("time / W4 S50", "", rows.iter().map(|row| row.2 / sparse)),
    )?;
    run.figure(
        "products",
        Figure::new(
            "Time of a product with a vector",
            "Fewer bytes help as long as the memory is the limit; in cache it is the instructions that unpack them.",
        )
        .panel(
            Plot::new(Axis::categories("format", rows.iter().map(|row| row.0.name())), Axis::new("time").unit("µs"))
                .bars("", rows.iter().map(|row| 1e6 * row.2).collect()),
        ),
    );
    Ok(())
}
