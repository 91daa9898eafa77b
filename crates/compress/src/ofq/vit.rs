//! A vision transformer with timm's names, whose weights and activations are quantised.

use super::activation::{Sharing, Shifted, quantised};
use super::attention::{Attention, Form};
use super::site::{Origin, Site};
use super::{Reading, Rule};
use candle_core::{Tensor, Var};
use offprint_core::{Error, Result};
use offprint_nn::models::{ViT, ViTConfig};
use offprint_nn::ops::{self, Conv2d};
use offprint_nn::{Architecture, Network, computation};
use serde::{Deserialize, Serialize};
use std::cell::Cell;

/// Bits of the first layer's and the head's weights and inputs.
pub const EDGE_BITS: u32 = 8;

/// What is quantised, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Precision {
    /// Bits of the blocks' weights; none leaves all weights floats.
    pub weights: Option<u32>,
    /// Bits of the blocks' activations; none leaves all activations floats.
    pub activations: Option<u32>,
    /// What sets the scales of the blocks' weights.
    pub rule: Rule,
    /// How attention is computed.
    pub form: Form,
}

impl Precision {
    /// `weights` bits by StatsQ and `activations` bits, with reparametrised attention: the paper's.
    pub fn ofq(weights: u32, activations: Option<u32>) -> Self {
        let form = Form::Qkr { keep_query_bias: false };
        Self { weights: Some(weights), activations, rule: Rule::StatsQ, form }
    }

    /// The same with attention as it was.
    #[must_use]
    pub fn plain(self) -> Self {
        Self { form: Form::Plain, ..self }
    }

    /// The same under another rule.
    #[must_use]
    pub fn by(self, rule: Rule) -> Self {
        Self { rule, ..self }
    }
}

/// A quantised linear layer: input, weight, bias.
#[derive(Debug)]
pub(super) struct Layer {
    pub input: Option<Shifted>,
    pub site: Site,
    pub bias: Var,
}

impl Layer {
    pub fn forward(&self, x: &Tensor, margin: Option<f64>) -> candle_core::Result<Tensor> {
        ops::linear(&quantised(self.input.as_ref(), x)?, &self.site.weight(margin)?, Some(&self.bias))
    }
}

#[derive(Debug)]
struct Block {
    norm1: [Var; 2],
    attention: Attention,
    norm2: [Var; 2],
    fc1: Layer,
    fc2: Layer,
}

/// A vision transformer in training for, or with, weights and activations of a few bits.
///
/// The first layer and the head have weights (LSQ) and inputs of eight bits. Everything else is in single precision.
#[derive(Debug)]
pub struct QuantisedViT {
    config: ViTConfig,
    precision: Precision,
    network: Network,
    patches: Layer,
    blocks: Vec<Block>,
    head: Layer,
    /// Within which distance of a boundary a weight gets a gradient.
    margin: Cell<Option<f64>>,
}

/// Makes the parts of a transformer from its tensors.
pub(super) struct Parts<'a> {
    pub network: &'a Network,
    pub config: &'a ViTConfig,
    pub precision: Precision,
}

impl Parts<'_> {
    pub fn var(&self, name: &str) -> Result<Var> {
        let var = self.network.params().get(name).cloned();
        var.ok_or_else(|| Error::input("model", format!("has no tensor \"{name}\"")))
    }

    fn norm(&self, name: &str) -> Result<[Var; 2]> {
        Ok([self.var(&format!("{name}.weight"))?, self.var(&format!("{name}.bias"))?])
    }

    /// A quantiser of a block's activations.
    pub fn activation(
        &self,
        name: String,
        channels: usize,
        sharing: Sharing,
        unsigned: bool,
    ) -> Result<Option<Shifted>> {
        let bits = self.precision.activations;
        bits.map(|bits| Shifted::new(name, channels, sharing, bits, unsigned)).transpose()
    }

    /// A matrix of a block.
    pub fn site(&self, name: String, origin: Origin) -> Result<Site> {
        Site::new(name, origin, self.precision.weights.map(|bits| (self.precision.rule, bits)))
    }

    /// A linear layer of a block with `inputs` channels.
    pub fn layer(&self, name: String, inputs: usize, unsigned: bool) -> Result<Layer> {
        let weight = self.var(&format!("{name}.weight"))?;
        let rows = 0..weight.dims()[0];
        Ok(Layer {
            input: self.activation(name.clone(), inputs, Sharing::Token(self.config.tokens()), unsigned)?,
            bias: self.var(&format!("{name}.bias"))?,
            site: self.site(name, Origin::Rows(weight, rows))?,
        })
    }

    /// The first layer or the head: eight bits. `quantiser` makes that of its inputs.
    fn edge(&self, name: &str, quantiser: impl FnOnce(String) -> Result<Shifted>) -> Result<Layer> {
        let weight = self.var(&format!("{name}.weight"))?;
        let rows = 0..weight.dims()[0];
        let levels = self.precision.weights.map(|_| (Rule::Lsq, EDGE_BITS));
        Ok(Layer {
            input: self.precision.activations.map(|_| quantiser(name.to_owned())).transpose()?,
            bias: self.var(&format!("{name}.bias"))?,
            site: Site::new(name.to_owned(), Origin::Rows(weight, rows), levels)?,
        })
    }
}

impl QuantisedViT {
    /// Begins with the weights of `network`, a vision transformer in single precision, which stays as it is.
    ///
    /// # Errors
    /// Another architecture; bits outside 1 to 8 for weights (2 to 8 under LSQ) or 2 to 8 for activations.
    pub fn new(network: &Network, precision: Precision) -> Result<Self> {
        let Architecture::ViT(config) = network.architecture() else {
            let problem = "is no vision transformer; its config.json must say \"architecture\": \"vit\"";
            return Err(Error::input("model", problem));
        };
        let (network, config) = (network.copy()?, config.clone());
        let parts = Parts { network: &network, config: &config, precision };
        let block = |i: usize| -> Result<Block> {
            let at = |name: &str| format!("blocks.{i}.{name}");
            Ok(Block {
                norm1: parts.norm(&at("norm1"))?,
                attention: Attention::new(&at("attn"), &parts)?,
                norm2: parts.norm(&at("norm2"))?,
                fc1: parts.layer(at("mlp.fc1"), config.width, false)?,
                fc2: parts.layer(at("mlp.fc2"), config.mlp, true)?,
            })
        };
        let blocks = (0..config.depth).map(block).collect::<Result<_>>()?;
        let patches = parts.edge("patch_embed.proj", |name| Shifted::of_images(name, config.channels, EDGE_BITS))?;
        let head = parts.edge("head", |name| Shifted::new(name, config.width, Sharing::All, EDGE_BITS, false))?;
        Ok(Self { config, precision, network, patches, blocks, head, margin: Cell::new(None) })
    }

    /// A network with the same values in tensors of its own, which is trained by itself.
    ///
    /// # Errors
    /// None but those of the tensor library.
    pub fn copy(&self) -> Result<Self> {
        let copy = Self::new(&self.network, self.precision)?;
        for ((_, to), (_, from)) in copy.vars().iter().zip(self.vars()) {
            to.set(&from).map_err(computation)?;
        }
        copy.activations().zip(self.activations()).for_each(|(to, from)| to.follow(from));
        Ok(copy)
    }

    /// The shape of the transformer.
    pub fn config(&self) -> &ViTConfig {
        &self.config
    }

    /// What is quantised.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The tensors in floats: weights before rounding, biases, norms.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Images (n, channels, image, image) to logits (n, classes). The first images that quantisers of activations see set
    /// their steps.
    ///
    /// # Errors
    /// Images of another size.
    pub fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let (n, channels, height, width) = x.dims4()?;
        if (channels, height, width) != (self.config.channels, self.config.image, self.config.image) {
            candle_core::bail!(
                "images are {channels} × {height} × {width}, but quantisers that belong to token positions were made for \
                 {} × {} × {}",
                self.config.channels,
                self.config.image,
                self.config.image
            );
        }
        let margin = self.margin.get();
        let strided = Conv2d { stride: self.config.patch, ..Conv2d::default() };
        let images = quantised(self.patches.input.as_ref(), x)?;
        let patches = ops::conv2d(&images, &self.patches.site.weight(None)?, Some(&self.patches.bias), &strided)?;
        let mut x = patches.flatten_from(2)?.transpose(1, 2)?.contiguous()?;
        let param = |name: &str| self.network.params().get(name);
        if let Some(token) = param("cls_token") {
            x = Tensor::cat(&[&token.repeat((n, 1, 1))?, &x], 1)?;
        }
        if let Some(position) = param("pos_embed") {
            x = x.broadcast_add(position)?;
        }
        for block in &self.blocks {
            let normed = norm(&x, &block.norm1)?;
            x = (&x + block.attention.forward(&normed, margin)?)?;
            let hidden = ops::gelu(&block.fc1.forward(&norm(&x, &block.norm2)?, margin)?)?;
            x = (&x + block.fc2.forward(&hidden, margin)?)?;
        }
        if let (Some(weight), Some(bias)) = (param("norm.weight"), param("norm.bias")) {
            x = ops::layer_norm(&x, weight, bias, ViT::EPS)?;
        }
        let seen = if self.config.class_token { x.get_on_dim(1, 0)?.contiguous()? } else { x.mean(1)? };
        self.head.forward(&seen, None)
    }

    /// Runs `f` while weights farther than `margin` from a boundary get no gradient.
    pub(super) fn within<R>(&self, margin: Option<f64>, f: impl FnOnce() -> R) -> R {
        let before = self.margin.replace(margin);
        let result = f();
        self.margin.set(before);
        result
    }

    /// The blocks' matrices.
    pub(super) fn sites(&self) -> impl Iterator<Item = &Site> {
        self.blocks.iter().flat_map(|block| block.attention.sites().chain([&block.fc1.site, &block.fc2.site]))
    }

    /// All matrices, the first layer's and the head's last.
    pub(super) fn all_sites(&self) -> impl Iterator<Item = &Site> {
        self.sites().chain([&self.patches.site, &self.head.site])
    }

    /// As [`Self::all_sites`].
    pub(super) fn all_sites_mut(&mut self) -> impl Iterator<Item = &mut Site> {
        let blocks = self
            .blocks
            .iter_mut()
            .flat_map(|block| block.attention.sites_mut().chain([&mut block.fc1.site, &mut block.fc2.site]));
        blocks.chain([&mut self.patches.site, &mut self.head.site])
    }

    /// The attention of each block.
    pub(super) fn attentions(&self) -> impl Iterator<Item = &Attention> {
        self.blocks.iter().map(|block| &block.attention)
    }

    /// As [`Self::attentions`].
    pub(super) fn attentions_mut(&mut self) -> impl Iterator<Item = &mut Attention> {
        self.blocks.iter_mut().map(|block| &mut block.attention)
    }

    /// All quantisers of activations.
    pub(super) fn activations(&self) -> impl Iterator<Item = &Shifted> {
        let layers = [&self.patches, &self.head].into_iter().filter_map(|layer| layer.input.as_ref());
        let blocks = self.blocks.iter().flat_map(|block| {
            let layers = [&block.fc1, &block.fc2].into_iter().filter_map(|layer| layer.input.as_ref());
            block.attention.activations().chain(layers)
        });
        blocks.chain(layers)
    }

    /// The blocks' quantised matrices as they are: weights, scales, levels. None if weights are floats.
    ///
    /// # Errors
    /// None but those of the tensor library.
    pub fn readings(&self) -> Result<Vec<Reading>> {
        self.sites().filter_map(|site| site.read().transpose()).collect()
    }

    /// Everything that training changes: the network's tensors, trained scales, steps and shifts of activations.
    pub fn vars(&self) -> Vec<(String, Var)> {
        let mut vars = self.network.params().vars();
        vars.extend(self.all_sites().filter_map(Site::trained));
        vars.extend(self.activations().flat_map(Shifted::vars));
        vars
    }

    /// The penalty of dampening, Σ(clip(w) − ŵ)² over the blocks' matrices, where ŵ counts as constant and the clip goes
    /// to the ends of the levels: it pulls each weight to the middle of its level.
    ///
    /// # Errors
    /// None but those of the tensor library.
    pub fn dampening(&self) -> Result<Option<Tensor>> {
        let mut sum: Option<Tensor> = None;
        for site in self.sites() {
            let Some(reading) = site.read()? else { continue };
            let (first, last) = reading.levels.codes();
            let bound = |code: i32| -> candle_core::Result<Tensor> {
                let bounds: Vec<f32> = reading.scales.iter().map(|&s| reading.levels.value(code, s)).collect();
                Tensor::from_vec(bounds, (reading.scales.len(), 1), &candle_core::Device::Cpu)
            };
            let penalty = || {
                let clipped =
                    site.origin.floats()?.broadcast_maximum(&bound(first)?)?.broadcast_minimum(&bound(last)?)?;
                (clipped - site.weight(None)?.detach())?.sqr()?.sum_all()
            };
            let penalty = penalty().map_err(computation)?;
            sum = Some(match sum {
                None => penalty,
                Some(sum) => (sum + penalty).map_err(computation)?,
            });
        }
        Ok(sum)
    }
}

fn norm(x: &Tensor, [weight, bias]: &[Var; 2]) -> candle_core::Result<Tensor> {
    ops::layer_norm(x, weight, bias, ViT::EPS)
}
