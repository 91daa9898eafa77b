//! Quantised networks as files.
//!
//! A matrix called X is stored as `X.codes`, its codes counted from the first and packed b bits each, and `X.scale`. For
//! StatsQ the odd integer 2k + 1 of code k times s/2n is the weight, so that an integer product can use it as it is.
//! Everything else keeps its name and is in single precision; steps and shifts of activations stand under
//! `activations.`. Metadata hold the architecture and the precision.

use super::site::Site;
use super::{Precision, QuantisedViT, Reading, Shifted};
use crate::bits::{pack, unpack};
use candle_core::{DType, Tensor};
use ndarray::{Array1, ArrayD, IxDyn};
use offprint_core::artifact::{Arrays, Metadata};
use offprint_core::{Array, Error, Result};
use offprint_nn::models::ViTConfig;
use offprint_nn::{Architecture, Network, computation};

const FORMAT: (&str, &str) = ("format", "ofq");
const ARCHITECTURE: &str = "architecture";
const PRECISION: &str = "precision";
const ACTIVATIONS: &str = "activations";
const SHADOW: &str = "shadow";

/// b_qᵀ W_k of a block's heads, where the queries' bias is kept.
fn gain_of(block: usize) -> String {
    format!("blocks.{block}.attn.gain")
}

/// Whether metadata are those of a network quantised here.
pub fn is_quantised(metadata: &Metadata) -> bool {
    metadata.get(FORMAT.0).is_some_and(|format| format == FORMAT.1)
}

/// Bits of a code.
fn bits((first, last): (i32, i32)) -> u32 {
    ((last - first) as u32 + 1).trailing_zeros()
}

fn array(tensor: &Tensor) -> Result<Array> {
    let values = tensor.to_dtype(DType::F32).and_then(|t| t.flatten_all()?.to_vec1::<f32>()).map_err(computation)?;
    let array = ArrayD::from_shape_vec(IxDyn(tensor.dims()), values);
    array.map(Array::F32).map_err(|e| Error::Numerical(e.to_string()))
}

/// Names of the weights that are stored as codes.
fn coded(network: &QuantisedViT) -> Vec<String> {
    let depth = network.config().depth;
    let blocks = (0..depth)
        .flat_map(|i| ["attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"].map(|name| format!("blocks.{i}.{name}.weight")));
    blocks.chain(["patch_embed.proj.weight".to_owned(), "head.weight".to_owned()]).collect()
}

impl QuantisedViT {
    /// The network as arrays and words for a `.safetensors` file; with the weights before rounding if `shadow` is asked
    /// for, from which training can go on. Also the bytes of codes and scales.
    ///
    /// # Errors
    /// Weights that are floats.
    pub fn to_arrays(&self, shadow: bool) -> Result<(Arrays, Metadata, usize)> {
        let (mut arrays, mut bytes) = (Arrays::new(), 0);
        for site in self.all_sites() {
            let reading = site.read()?.ok_or_else(|| Error::parameter("weights", "floats", "quantised"))?;
            let codes = reading.levels.codes();
            let from_first = reading.codes().into_iter().map(|code| (i32::from(code) - codes.0) as u8);
            let packed = pack(from_first, bits(codes));
            bytes += packed.len() + 4 * reading.scales.len();
            arrays.insert(format!("{}.codes", site.name), Array::U8(Array1::from_vec(packed).into_dyn()));
            arrays.insert(format!("{}.scale", site.name), Array::F32(Array1::from_vec(reading.scales).into_dyn()));
        }
        let coded = coded(self);
        for (name, tensor) in self.network().params().snapshot()? {
            if !coded.contains(&name) {
                arrays.insert(name, array(&tensor)?);
            } else if shadow {
                arrays.insert(format!("{SHADOW}.{name}"), array(&tensor)?);
            }
        }
        for (name, var) in self.activations().flat_map(Shifted::vars) {
            arrays.insert(format!("{ACTIVATIONS}.{name}"), array(&var)?);
        }
        for (block, attention) in self.attentions().enumerate() {
            if let Some(gain) = attention.gain().map_err(computation)? {
                arrays.insert(gain_of(block), array(&gain)?);
            }
        }
        let words = |value: serde_json::Result<String>| value.expect("plain data");
        let metadata = [
            (FORMAT.0.to_owned(), FORMAT.1.to_owned()),
            (ARCHITECTURE.to_owned(), words(serde_json::to_string(self.network().architecture()))),
            (PRECISION.to_owned(), words(serde_json::to_string(&self.precision()))),
        ];
        Ok((arrays, metadata.into(), bytes))
    }

    /// The network that [`Self::to_arrays`] wrote, which computes with the same bits. With weights before rounding it can
    /// be trained on. `origin` is what errors call the file.
    ///
    /// # Errors
    /// Another format; arrays that are missing, of another shape or type, or not finite.
    pub fn from_arrays(arrays: &Arrays, metadata: &Metadata, origin: &str) -> Result<Self> {
        let bad = |problem: String| Error::input(origin, problem);
        let word = |key: &str| {
            let found = metadata.get(key);
            found.ok_or_else(|| bad(format!("does not tell its {key}: it was not written by offprint run ofq")))
        };
        if !is_quantised(metadata) {
            return Err(bad("is no network quantised by ofq".into()));
        }
        let architecture = Architecture::from_json(word(ARCHITECTURE)?, origin)?;
        let precision: Precision = serde_json::from_str(word(PRECISION)?)
            .map_err(|e| bad(format!("has a precision that cannot be read: {e}")))?;
        let Architecture::ViT(config) = &architecture else {
            return Err(bad("is no vision transformer".into()));
        };
        let file = File { arrays, origin };
        file.fits(config)?;
        let network = Network::fresh(&architecture, 0, DType::F32)?;
        let mut shadow = true;
        let coded = coded(&Self::new(&network, Precision { weights: None, activations: None, ..precision })?);
        for param in network.params().trained() {
            let name =
                if coded.contains(&param.name) { format!("{SHADOW}.{}", param.name) } else { param.name.clone() };
            if coded.contains(&param.name) && !arrays.contains_key(&name) {
                shadow = false;
                continue;
            }
            param.var.set(&file.tensor(&name, param.var.dims())?).map_err(computation)?;
        }
        let mut network = Self::new(&network, precision)?;
        for (name, var) in network.activations().flat_map(Shifted::vars) {
            var.set(&file.tensor(&format!("{ACTIVATIONS}.{name}"), var.dims())?).map_err(computation)?;
        }
        network.activations().for_each(Shifted::begun);
        let shape = [config.heads, config.width];
        for (block, attention) in network.attentions_mut().enumerate().filter(|_| !shadow) {
            if attention.gain().map_err(computation)?.is_some() {
                attention.store_gain(file.tensor(&gain_of(block), &shape)?);
            }
        }
        for site in network.all_sites_mut() {
            let reading = file.reading(site)?;
            match site.trained() {
                Some((_, scales)) if shadow => {
                    let values = file.tensor(&format!("{}.scale", site.name), scales.dims())?;
                    scales.set(&values).map_err(computation)?;
                }
                _ if shadow => {}
                _ => site.store(reading)?,
            }
        }
        Ok(network)
    }
}

/// A file of arrays.
struct File<'a> {
    arrays: &'a Arrays,
    origin: &'a str,
}

impl File<'_> {
    fn bad(&self, problem: String) -> Error {
        Error::input(self.origin, problem)
    }

    /// Refuses a shape that the arrays contradict, before anything of that size is made.
    fn fits(&self, config: &ViTConfig) -> Result<()> {
        let last = config.depth.checked_sub(1).ok_or_else(|| self.bad("has no block".into()))?;
        let tokens = config.image.checked_div(config.patch).and_then(|side| side.checked_mul(side));
        let tokens = tokens.and_then(|tokens| tokens.checked_add(usize::from(config.class_token)));
        let tokens = tokens.ok_or_else(|| self.bad("has images or patches of no possible size".into()))?;
        self.floats("pos_embed", &[1, tokens, config.width])?;
        self.floats("head.bias", &[config.classes])?;
        self.floats(&format!("blocks.{last}.mlp.fc1.bias"), &[config.mlp])?;
        let pixels = config.channels.checked_mul(config.patch).and_then(|n| n.checked_mul(config.patch));
        let weights = pixels.and_then(|pixels| pixels.checked_mul(config.width));
        match (self.arrays.get("patch_embed.proj.codes"), weights) {
            (Some(codes), Some(weights)) if codes.shape() == [weights] => Ok(()),
            _ => Err(self.bad("has codes \"patch_embed.proj.codes\" that do not fit its architecture".into())),
        }
    }

    fn floats(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let found = self.arrays.get(name).ok_or_else(|| self.bad(format!("has no array \"{name}\"")))?;
        let Array::F32(values) = found else {
            return Err(self.bad(format!("\"{name}\" has dtype {}, not float32", found.dtype())));
        };
        if values.shape() != shape {
            return Err(self.bad(format!("\"{name}\" has shape {:?}, but it must be {shape:?}", values.shape())));
        }
        let values: Vec<f32> = values.iter().copied().collect();
        match values.iter().position(|x| !x.is_finite()) {
            Some(at) => Err(self.bad(format!("\"{name}\" holds a value that is not finite, number {at}"))),
            None => Ok(values),
        }
    }

    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let values = self.floats(name, shape)?;
        Tensor::from_vec(values, shape, &candle_core::Device::Cpu).map_err(computation)
    }

    /// The matrix of `site` on its levels.
    fn reading(&self, site: &Site) -> Result<Reading> {
        let (levels, rows, columns, scales) =
            site.layout()?.ok_or_else(|| self.bad("says that its weights are floats".into()))?;
        let scales = self.floats(&format!("{}.scale", site.name), &[scales])?;
        let name = format!("{}.codes", site.name);
        let found = self.arrays.get(&name).ok_or_else(|| self.bad(format!("has no array \"{name}\"")))?;
        let Array::U8(packed) = found else {
            return Err(self.bad(format!("\"{name}\" has dtype {}, not uint8", found.dtype())));
        };
        let packed: Vec<u8> = packed.iter().copied().collect();
        let (codes, count) = (levels.codes(), rows * columns);
        let unpacked =
            unpack(&packed, bits(codes), count).filter(|_| packed.len() == (count * bits(codes) as usize).div_ceil(8));
        let Some(unpacked) = unpacked else {
            return Err(self.bad(format!(
                "\"{name}\" holds {} bytes for {count} codes of {} bits",
                packed.len(),
                bits(codes)
            )));
        };
        let scale = |i: usize| scales[i / columns % scales.len()];
        let weights = unpacked.iter().enumerate().map(|(i, &code)| levels.value(i32::from(code) + codes.0, scale(i)));
        Ok(Reading { name: site.name.clone(), weights: weights.collect(), columns, scales, levels })
    }
}
