//! A network as a graph of operations over named tensors: what dependencies are read from, and what runs.
//!
//! A [`Graph`] knows no widths: they are those of its tensors, so the same graph describes a network before and after
//! pruning. [`of`] writes down the architectures of `offprint_nn`; a network of another shape comes as a `graph.json`.

mod architectures;
mod builder;
pub mod examples;
mod file;
mod forward;
mod op;

pub use architectures::{of, shape_of};
pub use builder::Builder;
pub use forward::Named;
pub use op::{Affine, Attention, Conv, Nonlinearity, Op, Projections};

pub(in crate::hesso) use forward::zeros;
use offprint_core::{Error, Result};

/// One operation: its name, its inputs as numbers of nodes before it, and what it does.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Unique in its graph.
    pub name: String,
    /// Numbers of the nodes whose outputs it reads.
    pub inputs: Vec<usize>,
    /// What it does.
    pub op: Op,
}

/// Operations in the order in which they run; the first is the input, the last gives the output.
#[derive(Debug, Clone, PartialEq)]
pub struct Graph {
    nodes: Vec<Node>,
}

impl Graph {
    /// A graph of `nodes`. `origin` is what errors call it.
    ///
    /// # Errors
    /// No node; a first node that is no input, or a later one that is; a name given twice; an input that is not before
    /// its node; a number of inputs that the operation does not take.
    pub fn new(nodes: Vec<Node>, origin: &str) -> Result<Self> {
        let bad = |problem: String| Err(Error::input(origin, problem));
        if !matches!(nodes.first().map(|node| &node.op), Some(Op::Input { .. })) {
            return bad("the first node must be the input".into());
        }
        for (i, node) in nodes.iter().enumerate() {
            if nodes[..i].iter().any(|before| before.name == node.name) {
                return bad(format!("node \"{}\" stands twice", node.name));
            }
            if i > 0 && matches!(node.op, Op::Input { .. }) {
                return bad(format!("node \"{}\" is a second input; networks with one are read here", node.name));
            }
            if node.inputs.iter().any(|&from| from >= i) {
                return bad(format!("node \"{}\" reads a node that does not stand before it", node.name));
            }
            let takes = node.op.inputs();
            if !takes.contains(&node.inputs.len()) {
                let many = node.inputs.len();
                return bad(format!("node \"{}\" has {many} inputs, but it must have {}", node.name, takes.start()));
            }
        }
        Ok(Self { nodes })
    }

    /// The operations.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The names of all tensors, in the order of their first use, each with whether it is trained.
    pub fn tensors(&self) -> Vec<(String, bool)> {
        let mut names: Vec<(String, bool)> = Vec::new();
        for (name, trained) in self.nodes.iter().flat_map(|node| node.op.tensors()) {
            if !names.iter().any(|(known, _)| *known == name) {
                names.push((name, trained));
            }
        }
        names
    }

    /// The graph with the operation of each node, called by its number, replaced by what `change` makes of it.
    pub fn map(&self, change: impl Fn(usize, &Op) -> Op) -> Self {
        let node = |(number, node): (usize, &Node)| Node {
            name: node.name.clone(),
            inputs: node.inputs.clone(),
            op: change(number, &node.op),
        };
        Self { nodes: self.nodes.iter().enumerate().map(node).collect() }
    }
}

impl Graph {
    /// The shape of one sample, and the number of different tokens if it holds tokens.
    pub fn input(&self) -> (&[usize], Option<usize>) {
        match &self.nodes[0].op {
            Op::Input { shape, vocabulary } => (shape, *vocabulary),
            _ => (&[], None),
        }
    }
}
