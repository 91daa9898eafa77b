//! `graph.json`: nodes by name.

use super::{Graph, Node, Op};
use offprint_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// A node as it stands in a file: its inputs by name.
#[derive(Serialize, Deserialize)]
struct Line {
    name: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    inputs: Vec<String>,
    #[serde(flatten)]
    op: Op,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    nodes: Vec<Line>,
}

impl Graph {
    /// From the text of a `graph.json`: `{"nodes": [{"name": "x", "op": "input", "shape": [64]}, {"name": "fc1", "op":
    /// "linear", "at": "fc1", "inputs": ["x"]}, …]}`. `origin` is what errors call the text.
    ///
    /// # Errors
    /// Text that is no graph, an operation that is not known, or what [`Graph::new`] refuses.
    pub fn from_json(text: &str, origin: &str) -> Result<Self> {
        let bad = |problem: String| Error::input(origin, problem);
        let file: File = serde_json::from_str(text).map_err(|e| bad(format!("is no graph: {e}")))?;
        let names: Vec<String> = file.nodes.iter().map(|line| line.name.clone()).collect();
        let mut nodes = Vec::with_capacity(names.len());
        for line in file.nodes {
            let number = |input: &String| {
                let at = names.iter().position(|name| name == input);
                at.ok_or_else(|| bad(format!("node \"{}\" reads \"{input}\", which is no node", line.name)))
            };
            let inputs = line.inputs.iter().map(number).collect::<Result<_>>()?;
            nodes.push(Node { name: line.name, inputs, op: line.op });
        }
        Self::new(nodes, origin)
    }

    /// The graph as [`Self::from_json`] reads it.
    pub fn to_json(&self) -> serde_json::Value {
        let line = |node: &Node| Line {
            name: node.name.clone(),
            inputs: node.inputs.iter().map(|&from| self.nodes[from].name.clone()).collect(),
            op: node.op.clone(),
        };
        let file = File { nodes: self.nodes.iter().map(line).collect() };
        serde_json::to_value(file).expect("a graph is plain data")
    }
}
