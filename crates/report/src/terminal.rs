//! A figure as text: its first plot or heat map in braille dots or shades, with axes and a legend.

use crate::axes::{Span, coordinate};
use crate::palette::{Ink, SERIES};
use crate::{heatmap, palette, plot, ticks};
use offprint_core::Figure;
use offprint_core::figure::{Axis, HeatMap, Layer, Palette, Panel, Plot, Scale};

/// The figure's first plot or heat map as text of at most `width` columns and about `height` lines; with `colour`, in
/// ANSI colours. A figure of other panels is only its title.
pub fn terminal(figure: &Figure, width: usize, height: usize, colour: bool) -> String {
    let (width, height) = (width.clamp(24, 400), height.clamp(6, 200));
    let mut out = Lines { width, colour, text: String::new() };
    out.plain(&figure.title);
    for panel in &figure.panels {
        match panel {
            Panel::Plot(p) => {
                draw_plot(&mut out, p, height);
                return out.text;
            }
            Panel::HeatMap(m) => {
                draw_map(&mut out, m, height);
                return out.text;
            }
            Panel::Images(_) | Panel::Graph(_) => {}
        }
    }
    out.text
}

/// ANSI colours of the 256-colour set, as near to the series' as it has.
const ANSI: [u8; SERIES] = [33, 202, 36, 170, 178, 75, 125, 246];
const GREY: u8 = 245;

/// The text so far.
struct Lines {
    width: usize,
    colour: bool,
    text: String,
}

impl Lines {
    fn plain(&mut self, text: &str) {
        let line: String = clean(text).chars().take(self.width).collect();
        if !line.trim().is_empty() {
            self.text.push_str(line.trim_end());
            self.text.push('\n');
        }
    }

    fn painted(&self, text: &str, ansi: u8) -> String {
        if self.colour && !text.trim().is_empty() { format!("\x1b[38;5;{ansi}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Text without control characters: a file's name must not steer the terminal.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A grid of braille cells, 2 × 4 dots each, with a letter or colour by series.
struct Dots {
    columns: usize,
    rows: usize,
    bits: Vec<u8>,
    owner: Vec<Option<usize>>,
    /// Cells that show their series' letter instead of dots.
    written: Vec<bool>,
}

impl Dots {
    fn new(columns: usize, rows: usize) -> Self {
        Self {
            columns,
            rows,
            bits: vec![0; columns * rows],
            owner: vec![None; columns * rows],
            written: vec![false; columns * rows],
        }
    }

    fn set(&mut self, x: i64, y: i64, series: usize) {
        let (Ok(x), Ok(y)) = (usize::try_from(x), usize::try_from(y)) else { return };
        let (column, row) = (x / 2, y / 4);
        if column >= self.columns || row >= self.rows {
            return;
        }
        const BITS: [[u8; 2]; 4] = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]];
        self.bits[row * self.columns + column] |= BITS[y % 4][x % 2];
        self.owner[row * self.columns + column] = Some(series);
    }

    /// Sets every `every`-th dot of a line, counting on from `phase`; gives the count after it.
    fn dashed(&mut self, from: (f64, f64), to: (f64, f64), series: usize, (every, phase): (i64, i64)) -> i64 {
        // Places beyond the grid are cut near it: nothing is seen of the rest, and the loop stays short.
        let far = 8.0 * (self.columns * 2).max(self.rows * 4) as f64;
        let clamp = |p: (f64, f64)| (p.0.clamp(-far, far), p.1.clamp(-far, far));
        let (from, to) = (clamp(from), clamp(to));
        let steps = (to.0 - from.0).abs().max((to.1 - from.1).abs()).ceil().max(1.0) as i64;
        for i in (0..=steps).filter(|i| (i + phase) % every == 0) {
            let t = i as f64 / steps as f64;
            let at = (from.0 + (to.0 - from.0) * t, from.1 + (to.1 - from.1) * t);
            self.set(at.0.round() as i64, at.1.round() as i64, series);
        }
        phase + steps
    }

    fn line(&mut self, from: (f64, f64), to: (f64, f64), series: usize) {
        self.dashed(from, to, series, (1, 0));
    }

    /// Marks the cell at a place with the letter of `series`.
    fn write(&mut self, (x, y): (f64, f64), series: usize) {
        if x < 0.0 || y < 0.0 || x >= (self.columns * 2) as f64 || y >= (self.rows * 4) as f64 {
            return;
        }
        let i = (y as usize / 4) * self.columns + x as usize / 2;
        (self.owner[i], self.written[i]) = (Some(series), true);
    }

    /// Marks all cells of `series`.
    fn write_all(&mut self, series: usize) {
        for (owner, written) in self.owner.iter().zip(&mut self.written) {
            *written |= *owner == Some(series);
        }
    }

    fn row(&self, lines: &Lines, row: usize, ansi: &[u8], letters: &[Option<char>]) -> String {
        let mut text = String::new();
        for column in 0..self.columns {
            let i = row * self.columns + column;
            let c = char::from_u32(0x2800 + u32::from(self.bits[i])).unwrap_or(' ');
            match self.owner[i] {
                Some(series) if self.written[i] => text.push(letters[series].unwrap_or(c)),
                Some(series) => text.push_str(&lines.painted(&c.to_string(), ansi[series])),
                None => text.push(' '),
            }
        }
        text
    }
}

fn draw_plot(out: &mut Lines, plot: &Plot, height: usize) {
    out.plain(&plot.title);
    let looks = plot::looks(plot, &mut Vec::new());
    let ansi: Vec<u8> =
        looks.iter().map(|l| if let Ink::Series(i) = l.ink { ANSI[i % SERIES] } else { GREY }).collect();
    legend(out, plot, &ansi);
    let (x, y) = plot::spans(plot);
    let rows = height.saturating_sub(4).max(3);
    let scale = Labels::new(&plot.y, y, rows);
    let mut columns = out.width.saturating_sub(scale.width + 2).max(8);
    if plot::is_equal(plot, x, y) {
        // Braille dots are about as wide as high.
        let square = (rows * 4) as f64 * x.length() / y.length() / 2.0;
        columns = columns.min(square.clamp(16.0, 400.0) as usize);
    }
    let mut dots = Dots::new(columns, rows);
    // Without colour, letters tell several series apart.
    let lettered = !out.colour && named(plot).len() > 1;
    let (w, h) = ((columns * 2 - 1) as f64, (rows * 4 - 1) as f64);
    let px = |v: f64| x.fraction(v).map(|f| f * w);
    let py = |v: f64| y.fraction(v).map(|f| (1.0 - f) * h);
    let foot = py(0.0).unwrap_or(h).clamp(0.0, h);
    for (series, layer) in plot.layers.iter().enumerate() {
        match layer {
            Layer::Line { x, y, dashed, .. } => {
                let (mut last, mut phase): (Option<(f64, f64)>, i64) = (None, 0);
                for (&a, &b) in x.iter().zip(y) {
                    let next = px(a).zip(py(b));
                    if let Some(to) = next {
                        phase = dots.dashed(last.unwrap_or(to), to, series, (if *dashed { 3 } else { 1 }, phase));
                    }
                    last = next;
                }
            }
            Layer::Points { x, y, .. } => {
                for (a, b) in x.iter().zip(y).filter_map(|(&a, &b)| px(a).zip(py(b))) {
                    dots.line((a, b), (a, b), series);
                }
            }
            Layer::Stems { x, y, .. } => {
                for (a, b) in x.iter().zip(y).filter_map(|(&a, &b)| px(a).zip(py(b))) {
                    dots.line((a, foot), (a, b), series);
                }
            }
            Layer::Bars { x: xs, y, .. } => {
                let is_bars = |l: &&Layer| matches!(l, Layer::Bars { .. });
                let groups = plot.layers.iter().filter(is_bars).count().max(1) as f64;
                let rank = plot.layers[..series].iter().filter(is_bars).count() as f64;
                let group = plot::bar_spacing(plot) / x.length() * w * 0.8;
                for (a, b) in xs.iter().zip(y).filter_map(|(&a, &b)| px(a).zip(py(b))) {
                    let left = a - group / 2.0 + rank * group / groups;
                    let right = left + (group / groups - 1.0).max(0.5);
                    // Bars wider than the view: only its own columns are filled.
                    let (mut at, end) = (left.max(0.0), right.min(w + 1.0));
                    while at < end {
                        dots.line((at, foot), (at, b), series);
                        at += 1.0;
                    }
                }
            }
            Layer::Segments { ends, .. } => {
                for &[a, b, c, d] in ends {
                    if let (Some(from), Some(to)) = (px(a).zip(py(b)), px(c).zip(py(d))) {
                        dots.line(from, to, series);
                    }
                }
            }
            Layer::Rule { vertical: true, at, .. } => {
                if let Some(a) = px(*at) {
                    dots.dashed((a, 0.0), (a, h), series, (2, 0));
                }
            }
            Layer::Rule { at, .. } => {
                if let Some(b) = py(*at) {
                    dots.dashed((0.0, b), (w, b), series, (2, 0));
                }
            }
        }
    }
    let letters: Vec<Option<char>> =
        plot.layers.iter().map(|l| if lettered { letter(plot, l) } else { None }).collect();
    for (series, layer) in plot.layers.iter().enumerate().filter(|(s, _)| letters[*s].is_some()) {
        if let Layer::Line { x, y, .. } = layer {
            let seen: Vec<(f64, f64)> = x.iter().zip(y).filter_map(|(&a, &b)| px(a).zip(py(b))).collect();
            for share in [0.3, 0.6, 1.0] {
                if let Some(p) = seen.get(((seen.len() as f64 * share) as usize).saturating_sub(1)) {
                    dots.write(*p, series);
                }
            }
        } else if !matches!(layer, Layer::Rule { .. }) {
            dots.write_all(series);
        }
    }
    framed(out, &scale, columns, |out, row| dots.row(out, row, &ansi, &letters));
    below(out, &plot.x, x, scale.width, columns);
}

/// The names of the legend, in order.
fn named(plot: &Plot) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for name in plot.layers.iter().map(plot::name).filter(|n| !n.trim().is_empty()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// The letter of a layer's name: a, b, c …
fn letter(plot: &Plot, layer: &Layer) -> Option<char> {
    let index = named(plot).iter().position(|n| *n == plot::name(layer))?;
    (b'a'..=b'z').nth(index).map(char::from)
}

fn legend(out: &mut Lines, plot: &Plot, ansi: &[u8]) {
    let lettered = !out.colour && named(plot).len() > 1;
    let mut seen: Vec<&str> = Vec::new();
    let mut line = String::new();
    let mut used = 0;
    for (layer, &ansi) in plot.layers.iter().zip(ansi) {
        let name = plot::name(layer);
        if name.trim().is_empty() || seen.contains(&name) {
            continue;
        }
        seen.push(name);
        let key = match layer {
            Layer::Line { dashed: true, .. } | Layer::Rule { .. } => "┄┄",
            Layer::Line { .. } => "──",
            Layer::Points { .. } => "⠒⠂",
            Layer::Bars { .. } => "██",
            Layer::Stems { .. } => "╷│",
            Layer::Segments { arrows: true, .. } => "─▸",
            Layer::Segments { .. } => "╱╱",
        };
        let name: String = clean(name).chars().take(out.width.saturating_sub(6)).collect();
        let length = name.chars().count() + 5;
        if used + length > out.width && used > 0 {
            out.text.push_str(line.trim_end());
            out.text.push('\n');
            (line, used) = (String::new(), 0);
        }
        let letter = if lettered { letter(plot, layer).map(String::from) } else { None };
        let key = match letter {
            Some(letter) if matches!(layer, Layer::Line { .. }) => {
                format!("{letter}{}", key.chars().next().unwrap_or('─'))
            }
            Some(letter) if !matches!(layer, Layer::Rule { .. }) => format!("{letter}{letter}"),
            _ => key.to_owned(),
        };
        line.push_str(&format!("{} {name}  ", out.painted(&key, ansi)));
        used += length;
    }
    if used > 0 {
        out.text.push_str(line.trim_end());
        out.text.push('\n');
    }
    let title = clean(&plot.y.title());
    if !title.is_empty() && seen != [plot.y.label.as_str()] {
        out.plain(&title);
    }
}

/// The numbers left of the rows.
struct Labels {
    by_row: Vec<String>,
    width: usize,
}

impl Labels {
    fn new(axis: &Axis, span: Span, rows: usize) -> Self {
        let mut by_row = vec![String::new(); rows];
        for (place, label) in numbers(axis, span, (rows / 3).clamp(2, 8)) {
            let row = ((1.0 - span.share(place)) * rows as f64 - 0.5).round().clamp(0.0, rows as f64 - 1.0) as usize;
            if by_row[row].is_empty() {
                by_row[row] = label.chars().take(14).collect();
            }
        }
        let width = by_row.iter().map(|l| l.chars().count()).max().unwrap_or(0);
        Self { by_row, width }
    }
}

/// Ticks with their numbers, or names of categories.
fn numbers(axis: &Axis, span: Span, wanted: usize) -> Vec<(f64, String)> {
    if axis.categories.is_empty() || span.scale == Scale::Log {
        return span.ticks(wanted, false).major;
    }
    let named = axis.categories.iter().enumerate().map(|(i, c)| (i as f64, clean(c)));
    named.filter(|(at, _)| (0.0..=1.0).contains(&span.share(*at))).collect()
}

fn framed(out: &mut Lines, scale: &Labels, columns: usize, row: impl Fn(&Lines, usize) -> String) {
    for (i, label) in scale.by_row.iter().enumerate() {
        let edge = if label.is_empty() { "│" } else { "┤" };
        let padding = " ".repeat(scale.width - label.chars().count());
        let line = format!("{padding}{}{}", out.painted(&format!("{label}{edge}"), GREY), row(out, i));
        out.text.push_str(line.trim_end());
        out.text.push('\n');
    }
    let line = format!("{}└{}", " ".repeat(scale.width), "─".repeat(columns));
    let line = out.painted(&line, GREY);
    out.text.push_str(&line);
    out.text.push('\n');
}

/// Numbers and title below the axis.
fn below(out: &mut Lines, axis: &Axis, span: Span, left: usize, columns: usize) {
    let mut line = vec![' '; left + 1 + columns];
    let mut free = 0;
    for (place, label) in numbers(axis, span, (columns / 9).clamp(2, 9)) {
        let label: Vec<char> = label.chars().take(16).collect();
        let centre = left as f64 + 1.0 + span.share(place) * (columns - 1) as f64;
        let start = (centre - label.len() as f64 / 2.0 + 0.5).max(0.0) as usize;
        let start = start.min(line.len().saturating_sub(label.len()));
        if start >= free && start + label.len() <= line.len() {
            line[start..start + label.len()].copy_from_slice(&label);
            free = start + label.len() + 2;
        }
    }
    let line: String = line.into_iter().collect();
    let line = out.painted(line.trim_end(), GREY);
    out.text.push_str(&line);
    out.text.push('\n');
    let title = clean(&axis.title());
    if !title.is_empty() {
        let start = left + 1 + columns.saturating_sub(title.chars().count()) / 2;
        out.plain(&format!("{}{title}", " ".repeat(start)));
    }
}

fn draw_map(out: &mut Lines, map: &HeatMap, height: usize) {
    out.plain(&map.title);
    let colours = heatmap::colours(map);
    let (x, y) = heatmap::spans(map);
    let y_title = clean(&map.y.title());
    out.plain(&y_title);
    let most = height.saturating_sub(5).max(3);
    let rows = most.checked_div(map.rows).map_or(3, |each| (each.clamp(1, 2) * map.rows).clamp(3, most));
    let scale = Labels::new(&map.y, y, rows);
    let room = out.width.saturating_sub(scale.width + 2).max(8);
    // Letters are twice as high as wide: small matrices get two or more columns a cell.
    let columns = room.checked_div(map.columns).map_or(room, |each| each.clamp(1, 4) * map.columns);
    let columns = columns.min(room);
    let cell = |row: usize, column: usize| -> Option<f64> {
        let r = row * map.rows / rows..((row + 1) * map.rows).div_ceil(rows);
        let c = column * map.columns / columns..((column + 1) * map.columns).div_ceil(columns);
        coordinate(colours.scale, heatmap::mean(map, r, c)?).map(|c| colours.share(c).clamp(0.0, 1.0))
    };
    framed(out, &scale, columns, |out, row| {
        (0..columns)
            .map(|column| match cell(row, column) {
                None => " ".to_owned(),
                Some(t) if out.colour => {
                    let [r, g, b] = palette::colour(map.palette, t);
                    format!("\x1b[38;2;{r};{g};{b}m█\x1b[0m")
                }
                Some(t) => shade(map.palette, t).to_string(),
            })
            .collect()
    });
    below(out, &map.x, x, scale.width, columns);
    let end = |c: f64| ticks::number(if colours.scale == Scale::Log { 10f64.powf(c) } else { c }, 3);
    let bar: String = (0..12)
        .map(|i| f64::from(i) / 11.0)
        .map(|t| match out.colour {
            true => {
                let [r, g, b] = palette::colour(map.palette, t);
                format!("\x1b[38;2;{r};{g};{b}m█\x1b[0m")
            }
            false => shade(map.palette, t).to_string(),
        })
        .collect();
    out.text.push_str(&format!("{} {bar} {}  {}", end(colours.low), end(colours.high), clean(&map.colour.title())));
    out.text.truncate(out.text.trim_end().len());
    out.text.push('\n');
}

/// Without colour, darker means more; of signed values, letters tell the sign.
fn shade(palette: Palette, t: f64) -> char {
    const AMOUNT: [char; 5] = ['·', '░', '▒', '▓', '█'];
    const SIGNED: [char; 7] = ['▼', 'v', '-', '·', '+', '^', '▲'];
    let pick = |set: &[char]| set[((t * set.len() as f64) as usize).min(set.len() - 1)];
    match palette {
        Palette::Diverging => pick(&SIGNED),
        Palette::Sequential | Palette::Grey => pick(&AMOUNT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "\
A line
y (m)
10┤                    ⣀⡠⠤⠒⠒⠉
  │             ⣀⡠⠤⠔⠒⠉⠉
 5┤      ⣀⣀⠤⠔⠒⠊⠉
 0┤⣀⠤⠤⠒⠊⠉
  └──────────────────────────
   0           5           10
               x
";
    const BARS: &str = "\
aa a  bb other
y
 2┤  aaaaa
  │  aaaabbbbb
  │  aaaabbbbb
 0┤  aaaabbbbb   aaaaabbbbb
  │              aaaaabbbbb
−2┤                   bbbbb
  └──────────────────────────
         up        down
";
    const MAP: &str = "\
row
0┤········░░░░
 │    ▒▒▒▒▓▓▓▓
2┤▓▓▓▓████████
 └────────────
   0       2
     column
0 ···░░▒▒▓▓███ 8  value (V)
";

    fn unit(label: &str) -> Axis {
        Axis::new(label).limits(0.0, 10.0)
    }

    #[test]
    fn a_line_rises_from_corner_to_corner() {
        let plot = Plot::new(unit("x"), unit("y").unit("m")).curve("", vec![0.0, 10.0], vec![0.0, 10.0]);
        let text = terminal(&Figure::new("A line", "").panel(plot), 30, 8, false);
        assert_eq!(text, LINE);
    }

    #[test]
    fn bars_stand_on_zero_and_series_have_letters() {
        let plot = Plot::new(Axis::categories("", ["up", "down"]), Axis::new("y").limits(-2.0, 2.0))
            .bars("a", vec![2.0, -1.0])
            .bars("other", vec![1.0, -2.0]);
        let text = terminal(&Figure::new("", "").panel(plot), 30, 10, false);
        assert_eq!(text, BARS);
    }

    #[test]
    fn maps_are_shaded_from_the_top_row_down() {
        let map = HeatMap {
            title: String::new(),
            values: vec![0.0, 1.0, 2.0, f64::NAN, 4.0, 5.0, 6.0, 7.0, 8.0],
            rows: 3,
            columns: 3,
            x: Axis::new("column"),
            y: Axis::new("row"),
            colour: Axis::new("value").unit("V"),
            palette: Palette::Grey,
        };
        let text = terminal(&Figure::new("", "").panel(map), 40, 8, false);
        assert_eq!(text, MAP);
    }

    #[test]
    fn colour_is_only_there_when_asked_for() {
        let plot = Plot::new(Axis::new("x"), Axis::new("y")).line("a\x1b[31m", vec![1.0, 2.0], vec![1.0, 2.0]);
        let figure = Figure::new("t", "").panel(plot);
        assert!(terminal(&figure, 60, 12, true).contains("\x1b[38;5;33m"));
        assert!(!terminal(&figure, 60, 12, false).contains('\x1b'));
    }
}
