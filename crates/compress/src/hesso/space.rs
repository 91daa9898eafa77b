//! What can be removed from a network without changing what is left: pruning zero-invariant groups.
//!
//! Every channel of every output is a place. Operations tie places together: a sum ties the channels of its inputs, a
//! concatenation those of its output to those of its inputs behind each other, a norm or an activation its output to its
//! input. A class of tied channels is one *group*: when the rows that produce it, their biases and the gains and shifts
//! of the norms on it are zero, its channels are zero everywhere, and cutting it out leaves the network's function as it
//! was. The paper's search over nodes gives the same groups; here a channel behind a concatenation finds its producer by
//! itself.

use super::graph::{Attention, Op, Projections};
use super::net::Net;
use offprint_core::{Error, Result};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

/// Consecutive places along one axis of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slice {
    /// Number of the tensor in [`Space::tensors`].
    pub tensor: usize,
    /// The axis.
    pub axis: usize,
    /// First place.
    pub start: usize,
    /// Number of places.
    pub len: usize,
}

/// Consecutive elements of a tensor, row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    /// Number of the tensor.
    pub tensor: usize,
    /// The elements.
    pub elements: Range<usize>,
}

/// What is removed as one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Group {
    /// What produces it: zero where the group is zero.
    pub owned: Vec<Slice>,
    /// What reads it or goes with it: without effect while the group is zero.
    pub followers: Vec<Slice>,
    /// The elements of `owned`.
    pub stretches: Vec<Stretch>,
}

impl Group {
    /// Number of parameters that produce it.
    pub fn size(&self) -> usize {
        self.stretches.iter().map(|s| s.elements.len()).sum()
    }
}

/// What the groups of a component are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Channels of layers.
    Channels,
    /// Heads of the attention at this node: heads of keys and values with the queries that use them.
    Heads(usize),
    /// Components of all heads of the attention at this node.
    HeadDims(usize),
}

/// Groups that the same layers produce together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Component {
    /// The layers.
    pub name: String,
    /// What its groups are.
    pub kind: Kind,
    /// Numbers of its groups.
    pub groups: Range<usize>,
}

/// Channels that cannot be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fixed {
    /// The layers that produce them.
    pub name: String,
    /// How many there are.
    pub width: usize,
    /// Why they stay.
    pub why: String,
}

/// A tensor of the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
}

/// What is removed from attention.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Inside {
    /// Whole heads.
    #[default]
    Heads,
    /// The same components of all heads.
    HeadDims,
}

/// All that can be removed from a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Space {
    /// The network's tensors.
    pub tensors: Vec<Place>,
    /// The groups, component after component.
    pub groups: Vec<Group>,
    /// The components, in the order of their first layer.
    pub components: Vec<Component>,
    /// What stays.
    pub fixed: Vec<Fixed>,
}

impl Space {
    /// Searches `net`. Layers whose names are in `keep` stay as they are.
    ///
    /// # Errors
    /// A name in `keep` that is no node; inputs of a sum that have different numbers of channels.
    pub fn search(net: &Net, inside: Inside, keep: &[String]) -> Result<Self> {
        let mut search = Search::new(net, inside)?;
        for number in 0..net.graph().nodes().len() {
            search.visit(number)?;
        }
        search.keep(keep)?;
        Ok(search.finish())
    }

    /// The component of each group.
    pub fn component_of(&self) -> Vec<usize> {
        self.components.iter().enumerate().flat_map(|(i, c)| c.groups.clone().map(move |_| i)).collect()
    }
}

/// The node of a layer that produces places, and whether they lie inside it.
type Stem = (usize, bool);

/// The search under way.
struct Search<'a> {
    net: &'a Net,
    inside: Inside,
    tensors: Vec<Place>,
    numbers: HashMap<String, usize>,
    shapes: Vec<Vec<usize>>,
    /// First place of each node's output.
    first: Vec<usize>,
    /// Union–find over places.
    parent: Vec<usize>,
    /// What produces a place.
    stem: Vec<Option<Stem>>,
    owned: Vec<(usize, Slice)>,
    followers: Vec<(usize, Slice)>,
    fixed: Vec<(usize, String)>,
    kinds: HashMap<Stem, Kind>,
}

impl<'a> Search<'a> {
    fn new(net: &'a Net, inside: Inside) -> Result<Self> {
        let tensors: Vec<Place> = net
            .graph()
            .tensors()
            .into_iter()
            .map(|(name, _)| Place {
                shape: net.params().get(&name).map(|v| v.dims().to_vec()).unwrap_or_default(),
                name,
            })
            .collect();
        let numbers = tensors.iter().enumerate().map(|(i, place)| (place.name.clone(), i)).collect();
        Ok(Self {
            net,
            inside,
            tensors,
            numbers,
            shapes: net.trace()?,
            first: Vec::new(),
            parent: Vec::new(),
            stem: Vec::new(),
            owned: Vec::new(),
            followers: Vec::new(),
            fixed: Vec::new(),
            kinds: HashMap::new(),
        })
    }

    /// The number of channels of a node's output.
    fn width(&self, node: usize) -> usize {
        match self.net.graph().nodes()[node].op {
            Op::Input { vocabulary: Some(_), .. } => 0,
            _ => {
                let shape = &self.shapes[node];
                shape[if shape.len() == 4 { 1 } else { shape.len() - 1 }]
            }
        }
    }

    fn places(&mut self, count: usize, stem: Option<Stem>) -> usize {
        let first = self.parent.len();
        self.parent.extend(first..first + count);
        self.stem.resize(first + count, stem);
        first
    }

    fn root(&mut self, mut place: usize) -> usize {
        while self.parent[place] != place {
            self.parent[place] = self.parent[self.parent[place]];
            place = self.parent[place];
        }
        place
    }

    fn tie(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        // The earlier place stands for both, so that classes come in the order of the graph.
        self.parent[a.max(b)] = a.min(b);
    }

    fn fix(&mut self, places: Range<usize>, why: &str) {
        self.fixed.extend(places.map(|place| (place, why.to_owned())));
    }

    fn own(&mut self, place: usize, name: &str, axis: usize, range: Range<usize>) {
        let slice = Slice { tensor: self.numbers[name], axis, start: range.start, len: range.len() };
        self.owned.push((place, slice));
    }

    fn follow(&mut self, place: usize, name: &str, axis: usize, range: Range<usize>) {
        let slice = Slice { tensor: self.numbers[name], axis, start: range.start, len: range.len() };
        self.followers.push((place, slice));
    }

    /// Each channel of `node` owns, or is followed by, its place along `axis` of the tensor.
    fn each(&mut self, node: usize, name: &str, axis: usize, owned: bool) {
        let (first, width) = (self.first[node], self.width(node));
        for c in 0..width {
            if owned { self.own(first + c, name, axis, c..c + 1) } else { self.follow(first + c, name, axis, c..c + 1) }
        }
    }

    fn visit(&mut self, number: usize) -> Result<()> {
        let node = &self.net.graph().nodes()[number];
        let (width, input) = (self.width(number), node.inputs.first().copied());
        let depthwise = |search: &Self| match &node.op {
            Op::Conv2d { layer } => {
                let channels = input.map_or(0, |input| search.width(input));
                layer.groups > 1 && layer.groups == channels && layer.groups == width
            }
            _ => false,
        };
        let is_stem = match &node.op {
            Op::Linear(_) | Op::ConvTranspose2d { .. } | Op::Embedding { .. } | Op::PositionEmbedding { .. } => true,
            Op::Attention(_) => true,
            Op::Conv2d { .. } => !depthwise(self),
            _ => false,
        };
        let first = self.places(width, is_stem.then_some((number, false)));
        self.first.push(first);
        let all = first..first + width;
        match &node.op {
            Op::Input { .. } => self.fix(all, "is the network's input"),
            Op::Linear(layer) => self.stem_of(number, &layer.weight(), layer.bias(), 1, 0),
            Op::Conv2d { layer } if layer.groups == 1 => {
                self.stem_of(number, &layer.affine().weight(), layer.affine().bias(), 1, 0);
            }
            Op::Conv2d { layer } if depthwise(self) => {
                self.through(number)?;
                self.each(number, &layer.affine().weight(), 0, true);
                if let Some(bias) = layer.affine().bias() {
                    self.each(number, &bias, 0, true);
                }
            }
            Op::Conv2d { .. } => {
                let why = "a convolution in groups ties them by numbers that pruning would change";
                self.fix(all, why);
                self.fix_inputs(number, why);
            }
            Op::ConvTranspose2d { at, bias, .. } => {
                self.stem_of(number, &format!("{at}.weight"), bias.then(|| format!("{at}.bias")), 0, 1);
            }
            Op::Embedding { at } | Op::PositionEmbedding { at } => self.each(number, &format!("{at}.weight"), 1, true),
            Op::BatchNorm { at, .. } => {
                self.through(number)?;
                for name in ["weight", "bias"] {
                    self.each(number, &format!("{at}.{name}"), 0, true);
                }
                for name in ["running_mean", "running_var"] {
                    self.each(number, &format!("{at}.{name}"), 0, false);
                }
            }
            Op::GroupNorm { at, groups, .. } => {
                self.through(number)?;
                for name in ["weight", "bias"] {
                    self.each(number, &format!("{at}.{name}"), 0, true);
                }
                if *groups != width {
                    self.fix(all, "a group norm takes its statistics over several of them");
                }
            }
            Op::LayerNorm { .. } | Op::RmsNorm { .. } => {
                self.through(number)?;
                self.fix(all, "a norm takes its statistics over them");
            }
            Op::Activation { kind } => {
                self.through(number)?;
                if !kind.keeps_zero() {
                    self.fix(all, "the activation makes something of nothing");
                }
            }
            Op::Concat => {
                let mut at = first;
                for &input in &node.inputs {
                    for c in 0..self.width(input) {
                        self.tie(self.first[input] + c, at);
                        at += 1;
                    }
                }
            }
            Op::Flatten => {
                let input = node.inputs[0];
                let channels = self.width(input);
                let each = width / channels.max(1);
                (0..width).for_each(|i| self.tie(self.first[input] + i / each.max(1), first + i));
            }
            Op::PrependToken { weight } | Op::AddLearned { weight } => {
                self.through(number)?;
                let axis = self.tensors[self.numbers[weight]].shape.len().saturating_sub(1);
                self.each(number, weight, axis, true);
            }
            Op::Attention(attention) => self.attention(number, attention),
            Op::Add | Op::Mul | Op::MaxPool { .. } | Op::AvgPool { .. } | Op::MeanPlaces | Op::MeanTokens => {
                self.through(number)?;
            }
            Op::FirstToken | Op::ToTokens => self.through(number)?,
        }
        Ok(())
    }

    /// Ties the channels of the output to those of every input.
    fn through(&mut self, number: usize) -> Result<()> {
        let node = &self.net.graph().nodes()[number];
        let width = self.width(number);
        for &input in &node.inputs {
            if self.width(input) != width {
                let problem = format!(
                    "node \"{}\" has {width} channels, but its input \"{}\" {}",
                    node.name,
                    self.net.graph().nodes()[input].name,
                    self.width(input)
                );
                return Err(Error::input("graph", problem));
            }
            (0..width).for_each(|c| self.tie(self.first[input] + c, self.first[number] + c));
        }
        Ok(())
    }

    fn fix_inputs(&mut self, number: usize, why: &str) {
        for &input in &self.net.graph().nodes()[number].inputs {
            self.fix(self.first[input]..self.first[input] + self.width(input), why);
        }
    }

    /// A layer with channels of its own: `reads` is the axis of the weight along which the input lies, `gives` the other.
    fn stem_of(&mut self, number: usize, weight: &str, bias: Option<String>, reads: usize, gives: usize) {
        self.each(self.net.graph().nodes()[number].inputs[0], weight, reads, false);
        self.each(number, weight, gives, true);
        if let Some(bias) = bias {
            self.each(number, &bias, 0, true);
        }
    }

    fn attention(&mut self, number: usize, attention: &Attention) {
        let input = self.net.graph().nodes()[number].inputs[0];
        for layer in attention.projections.layers() {
            self.each(input, &layer.weight(), 1, false);
        }
        let output = &attention.output;
        self.each(number, &output.weight(), 0, true);
        if let Some(bias) = output.bias() {
            self.each(number, &bias, 0, true);
        }
        let Attention { heads, kv_heads, .. } = *attention;
        let (kv_heads, shared) = (kv_heads.max(1), heads / kv_heads.max(1));
        let d = self.tensors[self.numbers[&output.weight()]].shape[1] / heads.max(1);
        // Layer and first row of queries, keys and values, with the rows that belong to one head of keys.
        let parts = match &attention.projections {
            Projections::Fused { qkv } => [(qkv, 0, shared), (qkv, heads * d, 1), (qkv, (heads + kv_heads) * d, 1)],
            Projections::Separate { query, key, value } => [(query, 0, shared), (key, 0, 1), (value, 0, 1)],
        };
        let (count, kind) = match self.inside {
            Inside::Heads => (kv_heads, Kind::Heads(number)),
            Inside::HeadDims => (d, Kind::HeadDims(number)),
        };
        let first = self.places(count, Some((number, true)));
        self.kinds.insert((number, true), kind);
        for i in 0..count {
            // The rows of part `(…, start, times)` that go with group i, counted from its start.
            let ranges = |times: usize| -> Vec<Range<usize>> {
                match kind {
                    Kind::HeadDims(_) => (0..times * kv_heads).map(|h| h * d + i..h * d + i + 1).collect(),
                    _ => std::iter::once(i * times * d..(i + 1) * times * d).collect(),
                }
            };
            for (layer, start, times) in parts {
                for range in ranges(times) {
                    let range = start + range.start..start + range.end;
                    self.own(first + i, &layer.weight(), 0, range.clone());
                    if let Some(bias) = layer.bias() {
                        self.own(first + i, &bias, 0, range);
                    }
                }
            }
            for range in ranges(shared) {
                self.follow(first + i, &output.weight(), 1, range);
            }
        }
        if self.inside == Inside::HeadDims && attention.rope_theta.is_some() {
            self.fix(first..first + count, "rotary positions turn them in pairs");
        }
    }

    fn keep(&mut self, keep: &[String]) -> Result<()> {
        for name in keep {
            let nodes = self.net.graph().nodes();
            let Some(number) = nodes.iter().position(|node| &node.name == name) else {
                let layers: Vec<&str> =
                    nodes.iter().filter(|n| !n.op.tensors().is_empty()).map(|n| n.name.as_str()).collect();
                return Err(Error::parameter("keep", name, format!("layers among {}", layers.join(", "))));
            };
            let why = "is to be kept";
            self.fix(self.first[number]..self.first[number] + self.width(number), why);
            let inside: Vec<usize> =
                (0..self.stem.len()).filter(|&place| self.stem[place] == Some((number, true))).collect();
            inside.into_iter().for_each(|place| self.fix(place..place + 1, why));
        }
        Ok(())
    }

    fn finish(mut self) -> Space {
        let last = self.first.len() - 1;
        self.fix(self.first[last]..self.first[last] + self.width(last), "is the network's output");
        // A tensor in two places is cut for neither.
        let mut uses: HashMap<String, usize> = HashMap::new();
        for node in self.net.graph().nodes() {
            node.op.tensors().into_iter().for_each(|(name, _)| *uses.entry(name).or_default() += 1);
        }
        let shared: Vec<(usize, String)> = self
            .owned
            .iter()
            .chain(&self.followers)
            .map(|&(place, slice)| (place, &self.tensors[slice.tensor].name))
            .filter(|(_, name)| uses[*name] > 1)
            .map(|(place, name)| (place, format!("\"{name}\" serves two layers")))
            .collect();
        self.fixed.extend(shared);
        let mut why: HashMap<usize, String> = HashMap::new();
        for (place, reason) in std::mem::take(&mut self.fixed) {
            let root = self.root(place);
            why.entry(root).or_insert(reason);
        }
        // Classes of channels by the layers that produce them together.
        let mut stems: BTreeMap<usize, Vec<Stem>> = BTreeMap::new();
        for place in 0..self.parent.len() {
            let root = self.root(place);
            let of = stems.entry(root).or_default();
            if let Some(stem) = self.stem[place].filter(|stem| !of.contains(stem)) {
                of.push(stem);
            }
        }
        // The roots of each set of stems.
        let mut classes: Vec<(Vec<Stem>, Vec<usize>)> = Vec::new();
        for (root, stems) in stems {
            match classes.iter_mut().find(|(of, _)| *of == stems) {
                Some((_, roots)) => roots.push(root),
                None => classes.push((stems, vec![root])),
            }
        }
        let mut members: HashMap<usize, Group> = HashMap::new();
        for (place, slice) in std::mem::take(&mut self.owned) {
            let root = self.root(place);
            members.entry(root).or_default().owned.push(slice);
        }
        for (place, slice) in std::mem::take(&mut self.followers) {
            let root = self.root(place);
            members.entry(root).or_default().followers.push(slice);
        }
        let mut space = Space { tensors: self.tensors, groups: vec![], components: vec![], fixed: vec![] };
        for (stems, roots) in classes {
            let nodes = self.net.graph().nodes();
            let name: Vec<String> = stems
                .iter()
                .map(|&(node, inside)| match self.kinds.get(&(node, inside)) {
                    Some(Kind::Heads(_)) => format!("{} (heads)", nodes[node].name),
                    Some(Kind::HeadDims(_)) => format!("{} (head components)", nodes[node].name),
                    _ => nodes[node].name.clone(),
                })
                .collect();
            let name = if name.is_empty() { nodes[0].name.clone() } else { name.join(" + ") };
            let start = space.groups.len();
            for root in roots {
                if let Some(why) = why.get(&root) {
                    match space.fixed.iter_mut().find(|fixed| fixed.name == name && fixed.why == *why) {
                        Some(fixed) => fixed.width += 1,
                        None => space.fixed.push(Fixed { name: name.clone(), width: 1, why: why.clone() }),
                    }
                    continue;
                }
                let mut group = members.remove(&root).unwrap_or_default();
                // A channel that several layers read through one tensor, or a flattened one, follows itself once each.
                group.owned.sort_unstable();
                group.owned.dedup();
                group.stretches =
                    group.owned.iter().flat_map(|s| stretches(s, &space.tensors[s.tensor].shape)).collect();
                space.groups.push(group);
            }
            if space.groups.len() > start {
                let kind = stems.first().and_then(|stem| self.kinds.get(stem)).copied().unwrap_or(Kind::Channels);
                space.components.push(Component { name, kind, groups: start..space.groups.len() });
            }
        }
        space
    }
}

/// The elements of a slice of a tensor of the given shape.
fn stretches(slice: &Slice, shape: &[usize]) -> Vec<Stretch> {
    let inner: usize = shape[slice.axis + 1..].iter().product();
    let outer: usize = shape[..slice.axis].iter().product();
    let stretch = |i: usize| {
        let start = (i * shape[slice.axis] + slice.start) * inner;
        Stretch { tensor: slice.tensor, elements: start..start + slice.len * inner }
    };
    (0..outer).map(stretch).collect()
}
