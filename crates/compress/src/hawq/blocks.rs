//! What gets one number of bits: a layer, or several.

use offprint_core::{Error, Result};
use offprint_nn::LayerPlace;
use offprint_nn::layers::LayerKind;

/// Layers that are quantised together, to the same bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The layer's name, or the pattern that gathered several.
    pub name: String,
    /// Its layers, in the order of a forward pass.
    pub layers: Vec<LayerPlace>,
}

impl Block {
    /// Number of weights, n.
    pub fn weights(&self) -> u64 {
        self.layers.iter().map(|layer| layer.weights() as u64).sum()
    }

    /// Multiplications a sample.
    pub fn multiplications(&self) -> u64 {
        self.layers.iter().map(LayerPlace::multiplications).sum()
    }
}

/// Cuts `places` into blocks: one for each of `patterns`, in which `*` stands for anything (`layer1.*`), and one for each
/// layer that no pattern names. Embeddings are left alone unless a pattern names them. Blocks stand in the order of their
/// first layers.
///
/// # Errors
/// A pattern that no layer matches; a layer that two match; nothing to quantise.
pub fn partition(places: &[LayerPlace], patterns: &[String]) -> Result<Vec<Block>> {
    let mut blocks: Vec<Block> = patterns.iter().map(|name| Block { name: name.clone(), layers: Vec::new() }).collect();
    for place in places {
        let mut matching = blocks[..patterns.len()].iter_mut().filter(|block| matches(&block.name, &place.name));
        match (matching.next(), matching.next()) {
            (Some(first), Some(second)) => {
                let allowed = format!("apart: layer \"{}\" is in it and in \"{}\"", place.name, first.name);
                return Err(Error::parameter("blocks", &second.name, allowed));
            }
            (Some(block), None) => block.layers.push(place.clone()),
            (None, _) if place.kind == LayerKind::Embedding => {}
            (None, _) => blocks.push(Block { name: place.name.clone(), layers: vec![place.clone()] }),
        }
    }
    let names = || places.iter().map(|place| place.name.as_str()).collect::<Vec<_>>().join(", ");
    if let Some(empty) = blocks.iter().find(|block| block.layers.is_empty()) {
        return Err(Error::parameter("blocks", &empty.name, format!("a pattern that matches a layer: {}", names())));
    }
    if blocks.is_empty() {
        return Err(Error::input("model", "has no linear layer or convolution to quantise"));
    }
    let first = |block: &Block| places.iter().position(|place| *place == block.layers[0]);
    blocks.sort_by_key(first);
    Ok(blocks)
}

/// Whether `name` is what `pattern` says, `*` standing for any letters.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut left) = name.strip_prefix(head) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let tail = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = left.find(part) else { return false };
        left = &left[at + part.len()..];
    }
    left.ends_with(tail)
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn stars_stand_for_anything() {
        for (pattern, name, is) in [
            ("conv1", "conv1", true),
            ("conv1", "conv10", false),
            ("layer1.*", "layer1.0.conv1", true),
            ("layer1.*", "layer10.0", false),
            ("*.conv*", "layer1.0.conv2", true),
            ("a*b*c", "axxbc", true),
            ("a*b*c", "axxcb", false),
            ("*", "", true),
            ("ab*ba", "aba", false),
        ] {
            assert_eq!(matches(pattern, name), is, "{pattern} {name}");
        }
    }
}
