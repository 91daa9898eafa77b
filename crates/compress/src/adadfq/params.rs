//! The parameters of a run.

use super::generator::Conditioning;
use super::losses::GeneratorLoss;
use super::recipe::Recipe;
use super::settings::Settings;
use super::student::Bits;
use offprint_core::{Error, Params, Result, Source};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Parameters of `adadfq`.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdaDfqParams {
    /// Classifier to quantise: a directory with config.json and model.safetensors, or one .safetensors file that tells its
    /// architecture (resnet, digits_cnn, or vit without statistics); built in is a classifier of handwritten digits
    #[arg(long)]
    pub model: Option<PathBuf>,
    /// The config.json that describes the model, if it does not lie beside the weights
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Number of classes, to check that the model is the one that is meant
    #[arg(long)]
    #[schemars(range(min = 2))]
    pub classes: Option<usize>,
    /// Height of the images that the model reads, unless it is made for one size
    #[arg(long)]
    #[schemars(range(min = 1, max = 1024), extend("unit" = "pixels"))]
    pub height: Option<usize>,
    /// Width of the images; as the height unless given
    #[arg(long)]
    #[schemars(range(min = 1, max = 1024), extend("unit" = "pixels"))]
    pub width: Option<usize>,
    /// Mean of each channel of the images as the model reads them, separated by commas: 0 if it was trained on standardised
    /// images
    #[arg(long, allow_hyphen_values = true)]
    pub mean: Option<String>,
    /// Standard deviation of each channel of the images as the model reads them: 1 if it was trained on standardised images
    #[arg(long)]
    pub deviation: Option<String>,
    /// How the network is quantised
    #[arg(long, value_enum, default_value_t = Recipe::AdaDfq)]
    pub recipe: Recipe,
    /// Bits of a weight; 2 for the built-in model and 3 for others unless given
    #[arg(long)]
    #[schemars(range(min = 2, max = 8), extend("unit" = "bit"))]
    pub weight_bits: Option<u32>,
    /// Bits of a rectifier's output; 2 for the built-in model and 3 for others unless given
    #[arg(long)]
    #[schemars(range(min = 2, max = 8), extend("unit" = "bit"))]
    pub activation_bits: Option<u32>,
    /// Steps of training, warm-up included; the paper takes 80000 for CIFAR
    #[arg(long, default_value_t = 700)]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub steps: usize,
    /// First steps, in which only the generator learns
    #[arg(long, default_value_t = 80)]
    pub warmup: usize,
    /// First steps, in which the ranges of activations follow the images
    #[arg(long, default_value_t = 80)]
    #[schemars(range(min = 1))]
    pub observed: usize,
    /// Images of a step
    #[arg(long, default_value_t = 16)]
    #[schemars(range(min = 2, max = 4096))]
    pub batch: usize,
    /// Step length of the quantised network; the paper takes 1e-4 for CIFAR and 80000 steps
    #[arg(long, default_value_t = 3e-3)]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub student_rate: f64,
    /// Step length of the generator
    #[arg(long, default_value_t = 1e-3)]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub generator_rate: f64,
    /// Shares of all steps after which both step lengths fall to a tenth, separated by commas
    #[arg(long, default_value = "0.6")]
    pub decays: String,
    /// Temperature T of what the quantised network learns; the paper takes 20 for CIFAR and 5 for ImageNet
    #[arg(long, default_value_t = 20.0)]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub temperature: f64,
    /// Adaptability λ_l below which an image costs the generator
    #[arg(long, default_value_t = 0.1)]
    #[schemars(range(min = 0, max = 1))]
    pub lower: f64,
    /// Adaptability λ_u above which an image costs the generator
    #[arg(long, default_value_t = 0.8)]
    #[schemars(range(min = 0, max = 1))]
    pub upper: f64,
    /// Weight α_ds of the class in the disagreement of both networks
    #[arg(long, default_value_t = 0.2)]
    #[schemars(range(min = 0))]
    pub disagreement: f64,
    /// Weight α_as of the class in the agreement of both networks
    #[arg(long, default_value_t = 0.1)]
    #[schemars(range(min = 0))]
    pub agreement: f64,
    /// Weight β of both classes together
    #[arg(long, default_value_t = 1.0)]
    #[schemars(range(min = 0))]
    pub balance: f64,
    /// Weight γ of the distance from the batch norm statistics; 0 for a network without batch norm
    #[arg(long, default_value_t = 1.0)]
    #[schemars(range(min = 0))]
    pub statistics: f64,
    /// How the generator learns of classes
    #[arg(long, value_enum, default_value_t = Conditioning::Product)]
    pub conditioning: Conditioning,
    /// Track ranges as the published code does, whose correction compounds
    #[arg(long)]
    pub compat: bool,
    /// Images with labels to measure the accuracy with, never to train: .npy (n, channels, height, width), or rows of square
    /// images; built in are the test digits for the built-in model, nothing for others
    #[arg(long, default_value = "builtin")]
    pub data: Source,
    /// Labels of the data (n); without, they are its last column
    #[arg(long)]
    pub targets: Option<Source>,
    /// Real images that only the recipe "real" looks at; built in are the training digits for the built-in model
    #[arg(long, default_value = "builtin")]
    pub images: Source,
    /// Also keep the generator and the float shadow weights
    #[arg(long)]
    pub keep: bool,
}
offprint_core::defaults_from_flags!(AdaDfqParams);

impl Params for AdaDfqParams {
    fn check(&self) -> Result<()> {
        numbers("decays", &self.decays)?;
        if self.model.is_none() {
            let given = [
                ("config", self.config.is_some()),
                ("mean", self.mean.is_some()),
                ("deviation", self.deviation.is_some()),
                ("height", self.height.is_some()),
                ("width", self.width.is_some()),
            ];
            if let Some((name, _)) = given.into_iter().find(|(_, given)| *given) {
                return Err(Error::parameter(name, "a value", "given with a model of your own only"));
            }
        }
        self.settings(2).check()
    }
}

impl AdaDfqParams {
    /// As the loop takes them, with `bits` where none are given.
    pub(super) fn settings(&self, bits: u32) -> Settings {
        Settings {
            bits: Bits { weights: self.weight_bits.unwrap_or(bits), activations: self.activation_bits.unwrap_or(bits) },
            batch: self.batch,
            warmup: self.warmup,
            observed: self.observed,
            steps: self.steps,
            student_rate: self.student_rate,
            generator_rate: self.generator_rate,
            decays: numbers("decays", &self.decays).unwrap_or_default(),
            temperature: self.temperature,
            loss: GeneratorLoss {
                lower: self.lower,
                upper: self.upper,
                disagreement: self.disagreement,
                agreement: self.agreement,
                balance: self.balance,
                statistics: self.statistics,
            },
            conditioning: self.conditioning,
            compounded: self.compat,
        }
    }
}

/// The numbers in a list.
pub(super) fn numbers(name: &str, list: &str) -> Result<Vec<f64>> {
    let number = |word: &str| word.trim().parse::<f64>().ok().filter(|x| x.is_finite());
    let words = list.split(',').filter(|word| !word.trim().is_empty());
    let numbers =
        words.map(|word| number(word).ok_or_else(|| Error::parameter(name, list, "numbers with commas between")));
    numbers.collect()
}
