//! Graphs: nodes and edges at given places.

use crate::palette::{Ink, both, fill, stroke};
use crate::shape;
use crate::svg::{Anchor, Canvas, N, Type};
use crate::text::{self, Weight};
use offprint_core::figure::{Graph, Node};

/// Usual radius of a node.
const RADIUS: f64 = 15.0;
const LABEL: f64 = 12.0;

/// A graph fitted to its place.
pub(crate) struct Fitted<'a> {
    graph: &'a Graph,
    pub size: (f64, f64),
    /// From data to the panel: scale, and the data's (left, top).
    scale: f64,
    origin: (f64, f64),
    inset: (f64, f64),
    /// Pixels of a node of size 1.
    radius: f64,
}

fn is_drawn(node: &Node) -> bool {
    node.x.abs() < 1e150 && node.y.abs() < 1e150
}

impl<'a> Fitted<'a> {
    pub(crate) fn new(graph: &'a Graph, width: f64, tallest: f64) -> Self {
        let nodes: Vec<&Node> = graph.nodes.iter().filter(|n| is_drawn(n)).collect();
        let range = |f: fn(&Node) -> f64| {
            let values = nodes.iter().map(|n| f(n));
            let low = values.clone().fold(f64::INFINITY, f64::min);
            (low, values.fold(f64::NEG_INFINITY, f64::max))
        };
        let ((x0, x1), (y0, y1)) = (range(|n| n.x), range(|n| n.y));
        let (w, h) = if nodes.is_empty() { (0.0, 0.0) } else { (x1 - x0, y1 - y0) };
        let size = nodes.iter().map(|n| size_of(n)).fold(1.0, f64::max);
        // Nodes at the rim, and the labels below them, need room.
        let inset = RADIUS * size + 22.0;
        let room = ((width - 2.0 * inset).max(20.0), (tallest - 2.0 * inset).max(20.0));
        let scale = [room.0 / w, room.1 / h].into_iter().filter(|s| s.is_finite()).fold(f64::INFINITY, f64::min);
        // Two nodes far apart are no reason for a panel of full size.
        let nearest = nearest_pair(&nodes);
        let scale = if scale.is_finite() { scale } else { 1.0 };
        let scale = if nearest > 0.0 { scale.min(140.0 / nearest) } else { scale };
        let radius = if nearest > 0.0 { RADIUS.min(scale * nearest * 0.36 / size) } else { RADIUS };
        let height = h * scale + 2.0 * inset;
        Self {
            graph,
            size: (width, height),
            scale,
            origin: (x0, y1),
            inset: ((width - w * scale) / 2.0, inset),
            radius: radius.max(2.5),
        }
    }

    pub(crate) fn draw(&self, canvas: &mut Canvas, x: f64, y: f64) {
        let place = |n: &Node| {
            let across = (n.x - self.origin.0) * self.scale;
            let down = (self.origin.1 - n.y) * self.scale;
            is_drawn(n).then_some((x + self.inset.0 + across, y + self.inset.1 + down))
        };
        let nodes = &self.graph.nodes;
        let mut words = Vec::new();
        for edge in &self.graph.edges {
            let (Some(a), Some(b)) = (nodes.get(edge.from), nodes.get(edge.to)) else { continue };
            let (Some(from), Some(to)) = (place(a), place(b)) else { continue };
            let width = if edge.width.is_finite() { edge.width.clamp(0.3, 12.0) } else { 1.5 };
            let paint = stroke(Ink::Axis, width);
            if edge.from == edge.to {
                let r = self.radius * size_of(a);
                let (u, v) = (N(from.1 - r * 0.7), N(from.1 - r * 2.6));
                let d = format!(
                    "M{} {u}C{} {v} {} {v} {} {u}",
                    N(from.0 - r * 0.7),
                    N(from.0 - r * 1.4),
                    N(from.0 + r * 1.4),
                    N(from.0 + r * 0.7)
                );
                canvas.path(&d, paint);
                words.push(((from.0, from.1 - r * 2.6), &edge.label));
                continue;
            }
            let length = (to.0 - from.0).hypot(to.1 - from.1);
            let trim =
                |node: &Node, arrow: bool| (self.radius * size_of(node) + if arrow { 2.0 } else { 0.0 }) / length;
            let (s, e) = (trim(a, false), 1.0 - trim(b, edge.arrow));
            if !(length > 0.0 && e > s) {
                continue;
            }
            let at = |t: f64| (from.0 + (to.0 - from.0) * t, from.1 + (to.1 - from.1) * t);
            let head = 7.0 + width;
            let end = if edge.arrow { (e - head * 0.8 / length).max(s) } else { e };
            canvas.line(at(s), at(end), paint);
            if edge.arrow {
                canvas.path(&shape::arrow_head(at(s), at(e), head), fill(Ink::Axis));
            }
            words.push((at((s + e) / 2.0), &edge.label));
        }
        for (at, label) in words {
            let kind = Type::new(11.5, Ink::Muted).anchored(Anchor::Middle).haloed();
            canvas.text((at.0, at.1 + 4.0), label, kind);
        }
        for node in nodes {
            let Some(at) = place(node) else { continue };
            let r = self.radius * size_of(node);
            canvas.circle(at, r, format!("{} stroke-width=\"1.5\"", both(Ink::Series(node.group), Ink::Background)));
            let inside = text::width(&node.label, LABEL, Weight::SemiBold) <= 2.0 * r - 5.0;
            if inside {
                let kind = Type::new(LABEL, Ink::Background).semibold().anchored(Anchor::Middle);
                canvas.text((at.0, at.1 + 4.3), &node.label, kind);
            } else {
                let label = text::shorten(&node.label, LABEL, Weight::Regular, 140.0);
                let kind = Type::new(LABEL, Ink::Text).anchored(Anchor::Middle).haloed();
                canvas.text((at.0, at.1 + r + 14.0), &label, kind);
            }
        }
    }
}

fn size_of(node: &Node) -> f64 {
    if node.size.is_finite() { node.size.clamp(0.1, 4.0) } else { 1.0 }
}

/// The smallest distance between two nodes that are not at one place; 0 if there are none, or too many to look.
fn nearest_pair(nodes: &[&Node]) -> f64 {
    if nodes.len() > 2_000 {
        return 0.0;
    }
    let mut nearest = f64::INFINITY;
    for (i, a) in nodes.iter().enumerate() {
        for b in &nodes[i + 1..] {
            let d = (a.x - b.x).hypot(a.y - b.y);
            if d > 0.0 {
                nearest = nearest.min(d);
            }
        }
    }
    if nearest.is_finite() { nearest } else { 0.0 }
}
