//! What holds of every drawing, whatever the data.

use offprint_core::figure::{Axis, Edge, Figure, Graph, HeatMap, ImageGrid, Layer, Node, Palette, Panel, Plot, Scale};
use proptest::prelude::*;
use resvg::usvg::{Options, Tree};

/// Any number at all, the awkward ones often.
fn number() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => -100.0..100.0f64,
        1 => prop::num::f64::ANY,
        1 => prop::sample::select(vec![
            0.0, -0.0, 1.0, 1e-300, 1e300, -1e300, 5e-324, f64::MAX, f64::MIN, f64::NAN, f64::INFINITY, f64::NEG_INFINITY,
        ]),
    ]
}

fn numbers() -> impl Strategy<Value = Vec<f64>> {
    prop_oneof![prop::collection::vec(number(), 0..40), (number(), 0..20usize).prop_map(|(x, n)| vec![x; n])]
}

fn words() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "[ -~]{0,30}", "\\PC{0,12}", Just("<b>&\"'\u{0}\u{1b}]]>".to_owned())]
}

fn axis() -> impl Strategy<Value = Axis> {
    let categories = prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(words(), 0..30)];
    (words(), words(), any::<bool>(), prop::option::of((number(), number())), categories).prop_map(
        |(label, unit, log, limits, categories)| Axis {
            label,
            unit,
            scale: if log { Scale::Log } else { Scale::Linear },
            limits,
            categories,
        },
    )
}

fn layer() -> impl Strategy<Value = Layer> {
    let pair = || (words(), numbers(), numbers());
    prop_oneof![
        (pair(), prop::option::of((numbers(), numbers())), any::<bool>(), any::<bool>())
            .prop_map(|((name, x, y), band, marks, dashed)| Layer::Line { name, x, y, band, marks, dashed }),
        (pair(), number()).prop_map(|((name, x, y), radius)| Layer::Points { name, x, y, radius }),
        (pair(), prop::option::of(numbers())).prop_map(|((name, x, y), error)| Layer::Bars { name, x, y, error }),
        pair().prop_map(|(name, x, y)| Layer::Stems { name, x, y }),
        (words(), prop::collection::vec([number(), number(), number(), number()], 0..20), any::<bool>(), numbers())
            .prop_map(|(name, ends, arrows, opacity)| Layer::Segments { name, ends, arrows, opacity }),
        (words(), any::<bool>(), number()).prop_map(|(name, vertical, at)| Layer::Rule { name, vertical, at }),
    ]
}

fn panel() -> impl Strategy<Value = Panel> {
    let plot = (words(), axis(), axis(), prop::collection::vec(layer(), 0..5), any::<bool>())
        .prop_map(|(title, x, y, layers, equal_aspect)| Panel::Plot(Plot { title, x, y, layers, equal_aspect }));
    let palette = prop::sample::select(vec![Palette::Sequential, Palette::Diverging, Palette::Grey]);
    // Sizes need not fit the values.
    let map = (words(), numbers(), (0..30usize, 0..30usize), (axis(), axis(), axis()), palette).prop_map(
        |(title, values, (rows, columns), (x, y, colour), palette)| {
            Panel::HeatMap(HeatMap { title, values, rows, columns, x, y, colour, palette })
        },
    );
    let images = (
        words(),
        (0..9usize, 0..9usize, 0..5usize, 0..7usize),
        prop::collection::vec(prop::collection::vec(any::<u8>(), 0..99), 0..9),
        prop::collection::vec(words(), 0..9),
    )
        .prop_map(|(title, (height, width, channels, per_row), images, labels)| {
            Panel::Images(ImageGrid { title, height, width, channels, per_row, images, labels })
        });
    let node = (number(), number(), words(), 0..20usize, number()).prop_map(|(x, y, label, group, size)| Node {
        x,
        y,
        label,
        group,
        size,
    });
    let edge = (0..9usize, 0..9usize, number(), words(), any::<bool>())
        .prop_map(|(from, to, width, label, arrow)| Edge { from, to, width, label, arrow });
    let graph = (words(), prop::collection::vec(node, 0..8), prop::collection::vec(edge, 0..9))
        .prop_map(|(title, nodes, edges)| Panel::Graph(Graph { title, nodes, edges }));
    prop_oneof![3 => plot, 2 => map, 1 => images, 1 => graph]
}

fn figure() -> impl Strategy<Value = Figure> {
    (words(), words(), 0..5usize, prop::collection::vec(panel(), 0..4))
        .prop_map(|(title, caption, columns, panels)| Figure { columns, panels, ..Figure::new(title, caption) })
}

/// The SVG's attributes with numbers in them hold numbers only, and an XML reader takes it.
fn check(svg: &str) -> Result<(), TestCaseError> {
    // Names of users may say "NaN"; numbers stand in attributes, before any text.
    for tag in svg.split('<').filter_map(|t| t.split_once('>')).map(|t| t.0) {
        // Base64 may spell anything.
        let tag = tag.split("base64,").next().unwrap_or_default();
        let told = tag.starts_with("svg xmlns");
        prop_assert!(told || !(tag.contains("NaN") || tag.contains("inf")), "{}", tag);
    }
    let tree = Tree::from_str(svg, &Options::default());
    prop_assert!(tree.is_ok(), "{:?}\n{}", tree.err(), svg);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_figure_is_well_formed_and_finite(figure in figure()) {
        check(&offprint_report::svg(&figure))?;
        check(&offprint_report::svg_inline(&figure))?;
        check(&offprint_report::svg_narrow(&figure))?;
    }

    #[test]
    fn any_figure_fits_the_terminal(figure in figure(), width in 24..120usize, height in 6..40usize) {
        let text = offprint_report::terminal(&figure, width, height, false);
        prop_assert!(!text.contains('\x1b'));
        prop_assert!(text.lines().count() <= height + 12, "{}", text);
        offprint_report::terminal(&figure, width, height, true);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn any_figure_becomes_a_png(figure in figure()) {
        let png = offprint_report::png(&figure, 1.0);
        prop_assert!(png.is_ok_and(|p| p.starts_with(b"\x89PNG")));
    }
}

#[test]
fn large_data_make_small_files() {
    let n = 200_000;
    let x: Vec<f64> = (0..n).map(f64::from).collect();
    let wave: Vec<f64> = x.iter().map(|x| (x * 0.37).sin() * (x * 1e-4).cos()).collect();
    let plot = |p: Plot| Figure::new("t", "").panel(p);
    let axes = || Plot::new(Axis::new("x"), Axis::new("y"));
    let line = offprint_report::svg(&plot(axes().curve("", x.clone(), wave.clone())));
    assert!(line.len() < 120_000, "{}", line.len());
    let cloud = offprint_report::svg(&plot(axes().points("", x.clone(), wave.clone(), 1.2)));
    assert!(cloud.len() < 450_000, "{}", cloud.len());
    let map = HeatMap {
        title: String::new(),
        values: wave,
        rows: 400,
        columns: 500,
        x: Axis::new("x"),
        y: Axis::new("y"),
        colour: Axis::new("z"),
        palette: Palette::Grey,
    };
    assert!(offprint_report::svg(&Figure::new("t", "").panel(map)).len() < 600_000);
}

#[test]
fn names_of_users_stay_text() {
    let evil = "</text><script>alert(1)</script>";
    let plot = Plot::new(Axis::categories(evil, [evil, "b"]), Axis::new(evil).unit(evil))
        .titled(evil)
        .bars(evil, vec![1.0, 2.0]);
    let svg = offprint_report::svg(&Figure::new(evil, evil).panel(plot.clone().line("other", vec![0.0], vec![1.0])));
    assert!(!svg.contains("<script"));
}
