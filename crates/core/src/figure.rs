//! Figures as data. They say *what* to show; one renderer (`offprint-report`) decides how it looks.

use serde::{Deserialize, Serialize};

/// One figure: a grid of panels read left to right, top to bottom.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Figure {
    /// One line above the figure.
    pub title: String,
    /// One or two sentences below it: what to see.
    pub caption: String,
    /// Panels per row, at least 1.
    pub columns: usize,
    /// The panels.
    pub panels: Vec<Panel>,
    /// The same picture at one moment after another, shown moving beside the still panels; mostly none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub frames: Vec<Frame>,
}

/// One moment of a moving [`Figure`]. All its frames should have the same panels with fixed limits, so that only what
/// moves does.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Frame {
    /// What moment it is.
    pub title: String,
    /// Its panel.
    pub panel: Panel,
}

/// One panel of a [`Figure`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Panel {
    /// Curves, points and bars over two axes.
    Plot(Plot),
    /// A matrix shown by colour.
    HeatMap(HeatMap),
    /// Small images side by side.
    Images(ImageGrid),
    /// Nodes and edges.
    Graph(Graph),
}

/// Layers over two axes.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Plot {
    /// Title of this panel; empty in a figure of one panel.
    pub title: String,
    /// Horizontal axis.
    pub x: Axis,
    /// Vertical axis.
    pub y: Axis,
    /// What is drawn, back to front.
    pub layers: Vec<Layer>,
    /// One unit has the same length on both axes (for points in a plane).
    pub equal_aspect: bool,
}

/// An axis of a [`Plot`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Axis {
    /// The quantity's name.
    pub label: String,
    /// Its unit; empty for pure numbers.
    pub unit: String,
    /// Linear or logarithmic.
    pub scale: Scale,
    /// Fixed limits; by default they follow the data.
    pub limits: Option<(f64, f64)>,
    /// Names in place of numbers at 0, 1, 2 … (for bars).
    pub categories: Vec<String>,
}

/// How an axis maps values to places.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scale {
    /// Equal differences are equally long.
    #[default]
    Linear,
    /// Equal ratios are equally long; values that are not positive are left out.
    Log,
}

/// One thing drawn in a [`Plot`]. An empty name keeps it out of the legend; values that are not finite leave a gap.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "layer", rename_all = "kebab-case")]
pub enum Layer {
    /// A curve through (x, y), with an optional band between `low` and `high`.
    Line {
        /// Name in the legend.
        name: String,
        /// Abscissae.
        x: Vec<f64>,
        /// Ordinates, as many as `x`.
        y: Vec<f64>,
        /// Lower and upper edge of the band, as many as `x` each (quantiles, standard errors: say which in the caption).
        band: Option<(Vec<f64>, Vec<f64>)>,
        /// Draw a mark at each point too.
        marks: bool,
        /// Draw dashed: references, theory, thresholds.
        dashed: bool,
    },
    /// Unconnected points.
    Points {
        /// Name in the legend.
        name: String,
        /// Abscissae.
        x: Vec<f64>,
        /// Ordinates, as many as `x`.
        y: Vec<f64>,
        /// Radius in pixels at the figure's natural size; 3 is usual, 1.2 for clouds of thousands.
        radius: f64,
    },
    /// Vertical bars; several `Bars` layers at the same places stand side by side.
    Bars {
        /// Name in the legend.
        name: String,
        /// Places of the bars; 0, 1, 2 … with categories.
        x: Vec<f64>,
        /// Heights.
        y: Vec<f64>,
        /// Half-lengths of the error bars, or none.
        error: Option<Vec<f64>>,
    },
    /// Vertical stems from zero to each point: sparse signals and spectra.
    Stems {
        /// Name in the legend.
        name: String,
        /// Places.
        x: Vec<f64>,
        /// Heights.
        y: Vec<f64>,
    },
    /// Straight pieces from (x0, y0) to (x1, y1): trajectories, matchings, drift fields.
    Segments {
        /// Name in the legend.
        name: String,
        /// The pieces as [x0, y0, x1, y1].
        ends: Vec<[f64; 4]>,
        /// End each piece in an arrow head.
        arrows: bool,
        /// Opacity per piece in 0..=1, one for all if it has one element.
        opacity: Vec<f64>,
    },
    /// A straight line across the whole panel at one value.
    Rule {
        /// Name in the legend.
        name: String,
        /// Vertical (at x = `at`) or horizontal (at y = `at`).
        vertical: bool,
        /// The value.
        at: f64,
    },
}

/// A matrix shown by colour, with a colour bar.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HeatMap {
    /// Title of this panel.
    pub title: String,
    /// Values row by row, the first row at the top; `rows * columns` of them. NaN is left blank.
    pub values: Vec<f64>,
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub columns: usize,
    /// Horizontal axis (columns); `limits` are the places of the outer edges.
    pub x: Axis,
    /// Vertical axis (rows); `limits` are the places of the (bottom, top) outer edges.
    pub y: Axis,
    /// What the colour says: label, unit, scale and limits.
    pub colour: Axis,
    /// How values become colours.
    pub palette: Palette,
}

/// How values become colours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Palette {
    /// Dark to light, perceptually even (amounts).
    #[default]
    Sequential,
    /// Two hues from white at zero (signed quantities); limits are made symmetric.
    Diverging,
    /// Black to white.
    Grey,
}

/// Small images of one size, side by side.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ImageGrid {
    /// Title of this panel.
    pub title: String,
    /// Height of each image in pixels.
    pub height: usize,
    /// Width of each image in pixels.
    pub width: usize,
    /// 1 (grey) or 3 (red, green, blue).
    pub channels: usize,
    /// Images per row.
    pub per_row: usize,
    /// The images: `height * width * channels` bytes each, row by row, channels last.
    pub images: Vec<Vec<u8>>,
    /// A word under each image, or none at all.
    pub labels: Vec<String>,
}

/// Nodes and edges at given places.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Graph {
    /// Title of this panel.
    pub title: String,
    /// The nodes.
    pub nodes: Vec<Node>,
    /// The edges.
    pub edges: Vec<Edge>,
}

/// A node of a [`Graph`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Node {
    /// Horizontal place; any unit, the panel scales to fit.
    pub x: f64,
    /// Vertical place, upwards.
    pub y: f64,
    /// Words in the node.
    pub label: String,
    /// Index of its colour in the palette of series.
    pub group: usize,
    /// Radius relative to the usual one.
    pub size: f64,
}

/// An edge of a [`Graph`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Edge {
    /// Index of the first node.
    pub from: usize,
    /// Index of the second node.
    pub to: usize,
    /// Line width in pixels.
    pub width: f64,
    /// Words beside the edge.
    pub label: String,
    /// End in an arrow head.
    pub arrow: bool,
}

impl Figure {
    /// A figure without panels, one panel per row.
    pub fn new(title: impl Into<String>, caption: impl Into<String>) -> Self {
        Self { title: title.into(), caption: caption.into(), columns: 1, panels: Vec::new(), frames: Vec::new() }
    }

    /// A moving figure: `frames` (moment, panel) in order, and as its still panels up to four of them, the first and the
    /// last among these. Frames beyond [`Self::MOST_FRAMES`] are left out, evenly.
    pub fn moving(
        title: impl Into<String>,
        caption: impl Into<String>,
        frames: impl IntoIterator<Item = (String, Panel)>,
    ) -> Self {
        let frames: Vec<Frame> = frames.into_iter().map(|(title, panel)| Frame { title, panel }).collect();
        let still = evenly(frames.len(), 4).into_iter().map(|i| frames[i].panel.clone().titled(&frames[i].title));
        let panels: Vec<Panel> = still.collect();
        let kept = evenly(frames.len(), Self::MOST_FRAMES);
        let mut kept = kept.into_iter().peekable();
        let moments = frames.into_iter().enumerate().filter(|(i, _)| kept.next_if_eq(i).is_some());
        let frames = moments.map(|(_, frame)| frame).collect();
        Self { columns: panels.len().max(1), panels, frames, ..Self::new(title, caption) }
    }

    /// Most frames of a moving figure.
    pub const MOST_FRAMES: usize = 60;

    /// Sets the number of panels per row.
    pub fn columns(mut self, columns: usize) -> Self {
        self.columns = columns.max(1);
        self
    }

    /// Adds a panel.
    pub fn panel(mut self, panel: impl Into<Panel>) -> Self {
        self.panels.push(panel.into());
        self
    }
}

/// At most `most` of `count` indices, evenly spread, the first and the last among them.
fn evenly(count: usize, most: usize) -> Vec<usize> {
    let n = count.min(most);
    (0..n).map(|i| i * (count - 1) / (n - 1).max(1)).collect()
}

impl Panel {
    /// The panel's title.
    pub fn title(&self) -> &str {
        match self {
            Self::Plot(plot) => &plot.title,
            Self::HeatMap(map) => &map.title,
            Self::Images(grid) => &grid.title,
            Self::Graph(graph) => &graph.title,
        }
    }

    /// Sets the panel's title.
    pub fn titled(mut self, title: impl Into<String>) -> Self {
        let title = title.into();
        match &mut self {
            Self::Plot(plot) => plot.title = title,
            Self::HeatMap(map) => map.title = title,
            Self::Images(grid) => grid.title = title,
            Self::Graph(graph) => graph.title = title,
        }
        self
    }
}

impl Plot {
    /// An empty plot over two axes.
    pub fn new(x: Axis, y: Axis) -> Self {
        Self { x, y, ..Self::default() }
    }

    /// Sets the panel's title.
    pub fn titled(mut self, title: impl Into<String>) -> Self {
        self.title = title.into();
        self
    }

    /// Makes one unit equally long on both axes.
    pub fn equal_aspect(mut self) -> Self {
        self.equal_aspect = true;
        self
    }

    /// Adds a layer on top of the others.
    pub fn layer(mut self, layer: Layer) -> Self {
        self.layers.push(layer);
        self
    }

    /// Adds a curve with a mark at each point.
    pub fn line(self, name: impl Into<String>, x: Vec<f64>, y: Vec<f64>) -> Self {
        self.layer(Layer::Line { name: name.into(), x, y, band: None, marks: true, dashed: false })
    }

    /// Adds a curve without marks.
    pub fn curve(self, name: impl Into<String>, x: Vec<f64>, y: Vec<f64>) -> Self {
        self.layer(Layer::Line { name: name.into(), x, y, band: None, marks: false, dashed: false })
    }

    /// Adds a dashed curve without marks: theory, references.
    pub fn reference(self, name: impl Into<String>, x: Vec<f64>, y: Vec<f64>) -> Self {
        self.layer(Layer::Line { name: name.into(), x, y, band: None, marks: false, dashed: true })
    }

    /// Adds a curve with a band from `low` to `high`.
    pub fn band(self, name: impl Into<String>, x: Vec<f64>, y: Vec<f64>, low: Vec<f64>, high: Vec<f64>) -> Self {
        self.layer(Layer::Line { name: name.into(), x, y, band: Some((low, high)), marks: true, dashed: false })
    }

    /// Adds unconnected points of the given radius.
    pub fn points(self, name: impl Into<String>, x: Vec<f64>, y: Vec<f64>, radius: f64) -> Self {
        self.layer(Layer::Points { name: name.into(), x, y, radius })
    }

    /// Adds bars at 0, 1, 2 …
    pub fn bars(self, name: impl Into<String>, y: Vec<f64>) -> Self {
        let x = (0..y.len()).map(|i| i as f64).collect();
        self.layer(Layer::Bars { name: name.into(), x, y, error: None })
    }

    /// Adds a dashed line across the panel at y = `at`.
    pub fn horizontal(self, name: impl Into<String>, at: f64) -> Self {
        self.layer(Layer::Rule { name: name.into(), vertical: false, at })
    }

    /// Adds a dashed line across the panel at x = `at`.
    pub fn vertical(self, name: impl Into<String>, at: f64) -> Self {
        self.layer(Layer::Rule { name: name.into(), vertical: true, at })
    }
}

impl Axis {
    /// A linear axis of a pure number.
    pub fn new(label: impl Into<String>) -> Self {
        Self { label: label.into(), ..Self::default() }
    }

    /// A logarithmic axis of a pure number.
    pub fn log(label: impl Into<String>) -> Self {
        Self { label: label.into(), scale: Scale::Log, ..Self::default() }
    }

    /// An axis of names at 0, 1, 2 …
    pub fn categories<S: Into<String>>(label: impl Into<String>, names: impl IntoIterator<Item = S>) -> Self {
        Self { label: label.into(), categories: names.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// Sets the unit.
    pub fn unit(mut self, unit: impl Into<String>) -> Self {
        self.unit = unit.into();
        self
    }

    /// Fixes the limits.
    pub fn limits(mut self, low: f64, high: f64) -> Self {
        self.limits = Some((low, high));
        self
    }

    /// The axis title: `label (unit)`.
    pub fn title(&self) -> String {
        if self.unit.is_empty() { self.label.clone() } else { format!("{} ({})", self.label, self.unit) }
    }
}

impl From<Plot> for Panel {
    fn from(plot: Plot) -> Self {
        Self::Plot(plot)
    }
}

impl From<HeatMap> for Panel {
    fn from(map: HeatMap) -> Self {
        Self::HeatMap(map)
    }
}

impl From<ImageGrid> for Panel {
    fn from(grid: ImageGrid) -> Self {
        Self::Images(grid)
    }
}

impl From<Graph> for Panel {
    fn from(graph: Graph) -> Self {
        Self::Graph(graph)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moving_figures_keep_their_ends_and_their_bounds() {
        let frame = |i: usize| (format!("t = {i}"), Panel::from(Plot::new(Axis::new("x"), Axis::new("y"))));
        for count in [0, 1, 2, 3, 60, 61, 500] {
            let figure = Figure::moving("", "", (0..count).map(frame));
            assert_eq!(figure.frames.len(), count.min(Figure::MOST_FRAMES));
            assert_eq!(figure.panels.len(), count.min(4));
            if count > 0 {
                let last = format!("t = {}", count - 1);
                assert_eq!((figure.frames[0].title.as_str(), &figure.frames.last().unwrap().title), ("t = 0", &last));
                assert_eq!((figure.panels[0].title(), figure.panels.last().unwrap().title()), ("t = 0", last.as_str()));
            }
        }
    }
}
