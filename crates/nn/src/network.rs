//! Any of the models behind one type: made fresh, or loaded from a user's files.

use crate::checkpoint::{Checkpoint, save};
use crate::derivatives::{Loss, LossFunction};
use crate::error::computation;
use crate::layers::{LayerPlace, places};
use crate::models::{
    DigitsCnn, Gpt, GptConfig, Llama, LlamaConfig, Mlp, MlpConfig, ResNet, ResNetConfig, ViT, ViTConfig,
};
use crate::ops::Mode;
use crate::params::{Params, Weights};
use candle_core::{DType, Device, Tensor};
use offprint_core::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// Which model, and its shape. In JSON an object with the field `"architecture"` beside those of the shape:
/// `{"architecture": "mlp", "widths": [64, 32, 10], "activation": "relu"}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "architecture", rename_all = "snake_case")]
pub enum Architecture {
    /// Linear layers and activations.
    Mlp(MlpConfig),
    /// The small convolutional network for images with one channel.
    DigitsCnn {
        /// Number of classes.
        classes: usize,
    },
    /// A residual network.
    #[serde(rename = "resnet")]
    ResNet(ResNetConfig),
    /// A vision transformer.
    #[serde(rename = "vit")]
    ViT(ViTConfig),
    /// A decoder-only transformer with learned positions.
    Gpt(GptConfig),
    /// A LLaMA-like decoder.
    Llama(LlamaConfig),
}

/// What a model reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// Rows of this many numbers.
    Rows(usize),
    /// Images with this many channels; height and width where the model fixes them.
    Images {
        /// Channels.
        channels: usize,
        /// Height and width, if the model is made for one size only.
        side: Option<usize>,
    },
    /// Sequences of tokens.
    Tokens {
        /// Number of different tokens.
        vocabulary: usize,
        /// Longest sequence.
        context: usize,
    },
}

impl Architecture {
    /// From the text of a `config.json`: an object with the field `"architecture"`, or a Hugging Face one with
    /// `"model_type": "llama"`. `origin` is what errors call the text.
    pub fn from_json(text: &str, origin: &str) -> Result<Self> {
        let bad = |problem: String| Error::input(origin, problem);
        let value: Value = serde_json::from_str(text).map_err(|e| bad(format!("is not JSON: {e}")))?;
        if value.get("architecture").is_some() {
            return serde_json::from_value(value).map_err(|e| bad(format!("does not describe a model: {e}")));
        }
        match value.get("model_type").and_then(Value::as_str) {
            Some("llama") => {
                let config = serde_json::from_value(value);
                config.map(Self::Llama).map_err(|e| bad(format!("does not describe a LLaMA: {e}")))
            }
            Some(other) => Err(bad(format!("has the model_type \"{other}\"; llama is the one that is read here"))),
            None => {
                Err(bad("has neither \"architecture\" (mlp, digits_cnn, resnet, vit, gpt or llama) nor \"model_type\""
                    .into()))
            }
        }
    }

    /// What the model reads.
    pub fn reads(&self) -> Reads {
        match self {
            Self::Mlp(config) => Reads::Rows(config.widths.first().copied().unwrap_or(0)),
            Self::DigitsCnn { .. } => Reads::Images { channels: 1, side: None },
            Self::ResNet(config) => Reads::Images { channels: config.channels, side: None },
            Self::ViT(config) => Reads::Images { channels: config.channels, side: Some(config.image) },
            Self::Gpt(config) => Reads::Tokens { vocabulary: config.vocabulary, context: config.context },
            Self::Llama(config) => {
                Reads::Tokens { vocabulary: config.vocab_size, context: config.max_position_embeddings }
            }
        }
    }

    /// The number of outputs for a sample, or for a token: classes, vocabulary, or the width of the last layer.
    pub fn outputs(&self) -> usize {
        match self {
            Self::Mlp(config) => config.widths.last().copied().unwrap_or(0),
            Self::DigitsCnn { classes } => *classes,
            Self::ResNet(config) => config.classes,
            Self::ViT(config) => config.classes,
            Self::Gpt(config) => config.vocabulary,
            Self::Llama(config) => config.vocab_size,
        }
    }
}

#[derive(Debug, Clone)]
enum Model {
    Mlp(Mlp),
    DigitsCnn(Box<DigitsCnn>),
    ResNet(Box<ResNet>),
    ViT(Box<ViT>),
    Gpt(Gpt),
    Llama(Llama),
}

/// A model of any architecture with its parameters.
#[derive(Debug, Clone)]
pub struct Network {
    architecture: Architecture,
    model: Model,
    params: Params,
}

/// The word beside the weights in which a checkpoint of ours keeps its architecture.
const ARCHITECTURE: &str = "architecture";
/// The file of a directory that describes its model.
const CONFIG: &str = "config.json";

impl Network {
    /// Fresh weights, drawn from the streams of `seed`; `dtype` is F32 or F64.
    ///
    /// # Errors
    /// A shape that the model refuses.
    pub fn fresh(architecture: &Architecture, seed: u64, dtype: DType) -> Result<Self> {
        Self::from_weights(architecture, &Weights::fresh(seed, dtype)?)
    }

    /// The weights at `path`: a Hugging Face directory (`config.json` with `model.safetensors` or its shards), or one
    /// `.safetensors` file. The architecture is taken from `config` if given, else from the file's metadata (as
    /// [`Self::save`] writes it), else from `config.json` beside the weights.
    ///
    /// # Errors
    /// Files that cannot be read or describe no model; tensors that are missing, unknown, of another shape, or not
    /// finite.
    pub fn load(path: &Path, config: Option<&Path>, dtype: DType) -> Result<Self> {
        let checkpoint = Checkpoint::open(path)?;
        let beside = if path.is_dir() { path.join(CONFIG) } else { path.with_file_name(CONFIG) };
        let architecture = match (config, checkpoint.word(ARCHITECTURE)) {
            (None, Some(text)) => Architecture::from_json(text, &format!("\"architecture\" of {}", path.display()))?,
            (None, None) if !beside.is_file() => {
                let problem = format!("does not tell its architecture, and there is no {CONFIG} beside it");
                return Err(Error::input(path.display().to_string(), problem));
            }
            (given, _) => {
                let config = given.unwrap_or(&beside);
                let text = std::fs::read_to_string(config).map_err(|e| Error::file("read", config, e))?;
                Architecture::from_json(&text, &config.display().to_string())?
            }
        };
        let network = Self::from_weights(&architecture, &Weights::loaded(checkpoint, dtype)?)?;
        for param in network.params.trained().iter().chain(network.params.buffers()) {
            let sum = param.var.abs().and_then(|t| t.sum_all()?.to_dtype(DType::F64)?.to_scalar::<f64>());
            if !sum.map_err(computation)?.is_finite() {
                let problem = format!("tensor \"{}\" holds values that are not finite", param.name);
                return Err(Error::input(path.display().to_string(), problem));
            }
        }
        Ok(network)
    }

    fn from_weights(architecture: &Architecture, weights: &Weights) -> Result<Self> {
        let model = match architecture {
            Architecture::Mlp(config) => Model::Mlp(Mlp::new(config, weights)?),
            Architecture::DigitsCnn { classes } => Model::DigitsCnn(DigitsCnn::new(*classes, weights)?.into()),
            Architecture::ResNet(config) => Model::ResNet(ResNet::new(config, weights)?.into()),
            Architecture::ViT(config) => Model::ViT(ViT::new(config, weights)?.into()),
            Architecture::Gpt(config) => Model::Gpt(Gpt::new(config, weights)?),
            Architecture::Llama(config) => Model::Llama(Llama::new(config, weights)?),
        };
        // PyTorch counts the batches that a batch norm has seen; nothing here depends on it.
        let params = weights.finish(&["num_batches_tracked"])?;
        Ok(Self { architecture: architecture.clone(), model, params })
    }

    /// As [`Self::load`], from the bytes of a `.safetensors` file that [`Self::save`] wrote; `origin` is what errors call it.
    ///
    /// # Errors
    /// As there.
    pub fn from_bytes(bytes: &'static [u8], origin: &str, dtype: DType) -> Result<Self> {
        let checkpoint = Checkpoint::from_bytes(bytes, origin)?;
        let text =
            checkpoint.word(ARCHITECTURE).ok_or_else(|| Error::input(origin, "does not tell its architecture"))?;
        let architecture = Architecture::from_json(text, origin)?;
        Self::from_weights(&architecture, &Weights::loaded(checkpoint, dtype)?)
    }

    /// A network of `architecture` whose parameters and buffers are `tensors`, by name. The tensors are copied.
    ///
    /// # Errors
    /// A parameter without a tensor, or with one of another shape.
    pub fn with_tensors(architecture: &Architecture, tensors: &[(String, Tensor)], dtype: DType) -> Result<Self> {
        let network = Self::fresh(architecture, 0, dtype)?;
        for param in network.params.trained().iter().chain(network.params.buffers()) {
            let found = tensors.iter().find(|(name, _)| *name == param.name);
            let (_, tensor) = found.ok_or_else(|| Error::input("tensors", format!("hold no \"{}\"", param.name)))?;
            if tensor.dims() != param.var.dims() {
                let (have, want) = (tensor.dims(), param.var.dims());
                let problem = format!("\"{}\" has shape {have:?}, but the model needs {want:?}", param.name);
                return Err(Error::input("tensors", problem));
            }
            tensor.to_dtype(dtype).and_then(|t| param.var.set(&t)).map_err(computation)?;
        }
        Ok(network)
    }

    /// A network with the same values in tensors of its own. (A clone shares them.)
    ///
    /// # Errors
    /// None but those of the tensor library.
    pub fn copy(&self) -> Result<Self> {
        Self::with_tensors(&self.architecture, &self.params.snapshot()?, self.params.dtype())
    }

    /// The linear layers, convolutions and embeddings, in the order in which a forward pass uses them, on a sample of the
    /// smallest usual size: images of 8 × 8 pixels where the model leaves it open, one full context of tokens.
    ///
    /// # Errors
    /// As [`Self::layers_on`].
    pub fn layers(&self) -> Result<Vec<LayerPlace>> {
        let dtype = self.params.dtype();
        let sample = match self.architecture.reads() {
            Reads::Rows(width) => Tensor::zeros((1, width), dtype, &Device::Cpu),
            Reads::Images { channels, side } => {
                let side = side.unwrap_or(8);
                Tensor::zeros((1, channels, side, side), dtype, &Device::Cpu)
            }
            // A context may be of any length; more tokens would only cost.
            Reads::Tokens { context, .. } => Tensor::zeros((1, context.clamp(1, 64)), DType::U32, &Device::Cpu),
        };
        self.layers_on(&sample.map_err(computation)?)
    }

    /// [`Self::layers`] with the sizes that they have for `sample` (1, …).
    ///
    /// # Errors
    /// A sample that the model cannot read.
    pub fn layers_on(&self, sample: &Tensor) -> Result<Vec<LayerPlace>> {
        places(&self.params, sample, |x| self.forward(x))
    }

    /// Writes weights and architecture as one `.safetensors` file that [`Self::load`] reads.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string(&self.architecture).expect("a shape is plain data");
        save(path, &self.params.snapshot()?, &BTreeMap::from([(ARCHITECTURE.to_owned(), text)]))
    }

    /// Which model it is.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// Its parameters. Setting them changes the network.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Outputs for `x` in evaluation: rows (n, …, inputs), images (n, channels, height, width) or tokens (n, positions)
    /// to (n, …, outputs).
    pub fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        self.forward_in(x, Mode::Evaluation)
    }

    /// [`Self::forward`] in `mode`, which matters to batch norms.
    pub fn forward_in(&self, x: &Tensor, mode: Mode) -> candle_core::Result<Tensor> {
        match &self.model {
            Model::Mlp(model) => model.forward(x),
            Model::DigitsCnn(model) => model.forward(x, mode),
            Model::ResNet(model) => model.forward(x, mode),
            Model::ViT(model) => model.forward(x),
            Model::Gpt(model) => model.forward(x),
            Model::Llama(model) => model.forward(x),
        }
    }

    /// The loss of the network in evaluation, as a function of its parameters.
    pub fn loss(&self, loss: Loss) -> LossFunction<'_> {
        match &self.model {
            Model::Mlp(model) => LossFunction::of_perceptron(&self.params, model, loss),
            _ => LossFunction::new(&self.params, |x| self.forward(x), loss),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::Activation;
    use candle_core::Device;

    fn mlp() -> Architecture {
        Architecture::Mlp(MlpConfig { widths: vec![3, 4, 2], activation: Activation::Tanh })
    }

    #[test]
    fn what_is_saved_loads_with_its_architecture() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("net.safetensors");
        for architecture in [mlp(), Architecture::DigitsCnn { classes: 4 }] {
            let made = Network::fresh(&architecture, 5, DType::F64).unwrap();
            made.save(&path).unwrap();
            let loaded = Network::load(&path, None, DType::F64).unwrap();
            assert_eq!(loaded.architecture(), &architecture);
            assert_eq!(loaded.params().flat::<f64>().unwrap(), made.params().flat::<f64>().unwrap());
        }
    }

    #[test]
    fn a_config_beside_the_weights_or_given_tells_the_architecture() {
        let directory = tempfile::tempdir().unwrap();
        let network = Network::fresh(&mlp(), 1, DType::F32).unwrap();
        let weights = directory.path().join("model.safetensors");
        save(&weights, &network.params().snapshot().unwrap(), &BTreeMap::new()).unwrap();
        let error = Network::load(&weights, None, DType::F32).unwrap_err().to_string();
        assert!(error.contains("config.json"), "{error}");
        let text = r#"{"architecture": "mlp", "widths": [3, 4, 2], "activation": "tanh"}"#;
        std::fs::write(directory.path().join(CONFIG), text).unwrap();
        for path in [directory.path(), &weights] {
            assert_eq!(Network::load(path, None, DType::F32).unwrap().architecture(), &mlp());
        }
        let other = directory.path().join("other.json");
        std::fs::write(&other, text.replace("[3, 4, 2]", "[3, 5, 2]")).unwrap();
        let error = Network::load(&weights, Some(&other), DType::F32).unwrap_err().to_string();
        assert!(error.contains("layers.0.weight") && error.contains("[5, 3]"), "{error}");
    }

    #[test]
    fn what_describes_no_model_is_refused_by_name() {
        for (text, word) in [
            ("[", "not JSON"),
            ("{}", "architecture"),
            (r#"{"architecture": "mpl"}"#, "mpl"),
            (r#"{"architecture": "mlp", "widths": [1, 2]}"#, "activation"),
            (r#"{"model_type": "t5"}"#, "t5"),
        ] {
            let error = Architecture::from_json(text, "config.json").unwrap_err().to_string();
            assert!(error.contains(word) && error.contains("config.json"), "{error}");
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("net.safetensors");
        let network = Network::fresh(&mlp(), 1, DType::F32).unwrap();
        let bias = network.params().get("layers.1.bias").unwrap();
        bias.set(&Tensor::new(&[0f32, f32::NAN], &Device::Cpu).unwrap()).unwrap();
        network.save(&path).unwrap();
        let error = Network::load(&path, None, DType::F32).unwrap_err().to_string();
        assert!(error.contains("layers.1.bias") && error.contains("finite"), "{error}");
    }
}
