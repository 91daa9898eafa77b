//! Writing a graph down, node by node.

use super::{Affine, Conv, Graph, Node, Nonlinearity, Op};
use offprint_core::Result;
use offprint_nn::ops;

/// A graph under construction. Each method adds a node and gives its number.
#[derive(Debug, Default)]
pub struct Builder {
    nodes: Vec<Node>,
}

impl Builder {
    /// A graph whose input has the given shape; its node is number 0.
    pub fn new(shape: &[usize], vocabulary: Option<usize>) -> Self {
        let op = Op::Input { shape: shape.to_vec(), vocabulary };
        Self { nodes: vec![Node { name: "input".into(), inputs: vec![], op }] }
    }

    /// Any operation under a name.
    pub fn add(&mut self, name: impl Into<String>, op: Op, inputs: &[usize]) -> usize {
        self.nodes.push(Node { name: name.into(), inputs: inputs.to_vec(), op });
        self.nodes.len() - 1
    }

    /// A linear layer with a bias, named after its tensors.
    pub fn linear(&mut self, at: impl Into<String>, x: usize) -> usize {
        let at = at.into();
        self.add(at.clone(), Op::Linear(Affine::biased(at)), &[x])
    }

    /// A linear layer without a bias.
    pub fn plain_linear(&mut self, at: impl Into<String>, x: usize) -> usize {
        let at = at.into();
        self.add(at.clone(), Op::Linear(Affine::plain(at)), &[x])
    }

    /// A convolution without a bias, then a batch norm.
    pub fn conv_norm(&mut self, conv: &str, geometry: ops::Conv2d, norm: &str, x: usize) -> usize {
        let y = self.add(conv, Op::Conv2d { layer: Conv::plain(conv, geometry) }, &[x]);
        self.add(norm, Op::BatchNorm { at: norm.into(), eps: 1e-5 }, &[y])
    }

    /// An element-wise function, named after its input.
    pub fn activation(&mut self, kind: Nonlinearity, x: usize) -> usize {
        let name = format!("{} after {}", serde_name(kind), self.nodes[x].name);
        self.add(name, Op::Activation { kind }, &[x])
    }

    /// A sum, named after its first input.
    pub fn sum(&mut self, x: usize, y: usize) -> usize {
        let name = format!("{} + {}", self.nodes[x].name, self.nodes[y].name);
        self.add(name, Op::Add, &[x, y])
    }

    /// The finished graph.
    ///
    /// # Errors
    /// What [`Graph::new`] refuses.
    pub fn finish(self) -> Result<Graph> {
        Graph::new(self.nodes, "graph")
    }
}

fn serde_name(kind: Nonlinearity) -> &'static str {
    match kind {
        Nonlinearity::Relu => "relu",
        Nonlinearity::Gelu => "gelu",
        Nonlinearity::Silu => "silu",
        Nonlinearity::Tanh => "tanh",
        Nonlinearity::Sigmoid => "sigmoid",
        Nonlinearity::Softplus => "softplus",
    }
}
