//! Pictures are well-formed, and hold what they were given; how they look is for eyes.

use super::{
    axis::{number, short_number},
    *,
};

/// Panics unless every tag is closed in order, every attribute quoted, and every `&` an entity.
fn assert_well_formed(document: &str) {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = document;
    while let Some(at) = rest.find('<') {
        let (text, tag) = rest.split_at(at);
        assert!(!text.contains('>'), "a stray > in {text:?}");
        let entities = ["&amp;", "&lt;", "&gt;", "&quot;"];
        let ands = text.match_indices('&').map(|(at, _)| &text[at..]);
        ands.for_each(|and| assert!(entities.iter().any(|entity| and.starts_with(entity)), "a bare & in {text:?}"));
        let end = tag.find('>').expect("a tag ends");
        let inner = &tag[1..end];
        assert!(!inner.contains('<') && inner.matches('"').count().is_multiple_of(2), "{inner}");
        let name = inner.trim_matches('/').split_whitespace().next().expect("a tag has a name");
        match (inner.starts_with('/'), inner.ends_with('/')) {
            (true, _) => assert_eq!(open.pop(), Some(name), "in {document}"),
            (false, true) => {}
            (false, false) => open.push(name),
        }
        rest = &tag[end + 1..];
    }
    assert!(open.is_empty() && rest.trim().is_empty(), "{open:?} left open");
    assert!(!document.contains("NaN") && !document.contains("inf"), "{document}");
}

/// The x and y of every line of a picture.
fn polylines(document: &str) -> Vec<Vec<(f64, f64)>> {
    let points = document.split("<polyline points=\"").skip(1).map(|rest| rest.split('"').next().unwrap());
    let point = |text: &str| {
        let (x, y) = text.split_once(',').unwrap();
        (x.parse().unwrap(), y.parse().unwrap())
    };
    points.map(|points| points.split(' ').map(point).collect()).collect()
}

fn lines(y: Axis, series: Vec<Series>) -> Lines {
    Lines {
        title: "p99.9 <over> time & \"space\"".to_owned(),
        subtitle: "three nodes\u{7}".to_owned(),
        x: Axis::linear("time, s"),
        panels: vec![Panel { y, series, height: 200 }],
        events: Vec::new(),
    }
}

#[test]
fn a_line_has_a_place_for_each_of_its_points() {
    let points: Vec<(f64, f64)> = (0..100).map(|x| (f64::from(x), f64::from(x * x))).collect();
    let document = lines(Axis::linear("latency, ms"), vec![Series::new("reads", 0, points)]).svg();
    assert_well_formed(&document);
    let all = polylines(&document);
    assert_eq!((all.len(), all[0].len()), (1, 100));
    // To the right, and larger values higher.
    assert!(all[0].windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 >= pair[1].1), "{all:?}");
    assert!(document.contains("p99.9 &lt;over&gt; time &amp; &quot;space&quot;"), "{document}");
    assert!(document.contains("time, s") && document.contains("latency, ms"), "{document}");
}

#[test]
fn what_was_not_measured_is_a_gap() {
    let points = vec![(0.0, 1.0), (1.0, 2.0), (2.0, f64::NAN), (3.0, 4.0), (4.0, 0.0), (5.0, 6.0), (6.0, 7.0)];
    let on = |y: Axis| {
        let document = lines(y, vec![Series::new("reads", 0, points.clone())]).svg();
        assert_well_formed(&document);
        (polylines(&document).iter().map(Vec::len).collect::<Vec<_>>(), document.matches("<circle").count())
    };
    assert_eq!(on(Axis::linear("ms")), (vec![2, 4], 6));
    // 0 has no place on a logarithmic axis; what stands alone is still seen.
    assert_eq!(on(Axis::log("ms")), (vec![2, 2], 5));
}

#[test]
fn series_events_and_panels_have_their_names() {
    let series = |name: &str, colour| Series::new(name, colour, vec![(0.0, 1.0), (9.0, 20.0)]);
    let mut picture = lines(Axis::log("ms"), vec![series("reads", 0), series("writes", 1).drawn(Style::Dashed)]);
    let panel = Panel { y: Axis::linear("operations/s"), series: vec![series("load", 2)], height: 80 };
    picture.panels.push(panel);
    let event = |at, label: &str| Event { at, label: label.to_owned() };
    picture.events = vec![event(3.0, "node killed"), event(3.5, "node back"), event(99.0, "out of sight")];
    let document = picture.svg();
    assert_well_formed(&document);
    for text in [">reads<", ">writes<", ">node killed<", ">node back<", "operations/s"] {
        assert!(document.contains(text), "no {text} in {document}");
    }
    // One series alone needs no legend, and an event beyond the axis is not shown.
    assert!(!document.contains(">load<") && !document.contains("out of sight"), "{document}");
    assert_eq!(document.matches("stroke-dasharray=\"3 3\"").count(), 2);
    // Two names that would run into each other stand in two rows.
    let row = |label: &str| document.lines().find(|line| line.contains(label)).unwrap().split('"').nth(3).unwrap();
    assert_ne!(row("node killed"), row("node back"));
}

#[test]
fn nothing_to_show_is_an_empty_picture() {
    for y in [Axis::linear("ms"), Axis::log("ms")] {
        assert_well_formed(&lines(y.clone(), Vec::new()).svg());
        assert_well_formed(&lines(y.clone(), vec![Series::new("none", 0, vec![(1.0, f64::NAN)])]).svg());
        assert_well_formed(&lines(y, vec![Series::new("all alike", 0, vec![(1.0, 3.0), (1.0, 3.0)])]).svg());
    }
}

#[test]
fn bars_are_as_high_as_their_values() {
    let group = |name: &str, values: &[f64]| (name.to_owned(), values.to_vec());
    let bars = Bars {
        title: "table 2".to_owned(),
        subtitle: String::new(),
        y: "ms".to_owned(),
        series: vec!["server-driven".to_owned(), "client-driven".to_owned()],
        panels: vec![
            BarPanel {
                title: "paper".to_owned(),
                groups: vec![group("p99.9\nreads", &[80.0, 40.0]), group("b", &[4.0, f64::NAN])],
            },
            BarPanel { title: "ours".to_owned(), groups: vec![group("a", &[1.0, 0.5])] },
        ],
    };
    let document = bars.svg();
    assert_well_formed(&document);
    let heights = document.split("height=\"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned());
    let heights: Vec<f64> = heights.filter_map(|height| height.parse().ok()).collect();
    // The document, two samples of the legend, then the bars.
    let [_, _, _, a, b, c, d, e] = heights[..] else { panic!("{heights:?}") };
    assert!((a / b - 2.0).abs() < 0.01 && (d / e - 2.0).abs() < 0.01 && c < b, "{heights:?}");
    assert!(document.contains(">80<") && document.contains(">0.5<") && document.contains(">reads<"), "{document}");
}

#[test]
fn axes_end_at_round_numbers() {
    let marks = |axis: Axis, values: &[f64]| {
        let ruler = axis.ruler(values.iter().copied(), 300.0);
        assert!(values.iter().all(|value| (0.0..=1.0).contains(&ruler.place(*value))), "{ruler:?}");
        ruler.marks.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(marks(Axis::linear(""), &[3.0, 47.0]), "0 10 20 30 40 50");
    assert_eq!(marks(Axis::linear(""), &[0.0, 12_000.0]), "0 2,000 4,000 6,000 8,000 10,000 12,000");
    assert_eq!(marks(Axis::log(""), &[0.3, 7.0]), "0.2 0.5 1 2 5 10");
    assert_eq!(marks(Axis::log(""), &[1.0, 100.0]), "1 2 5 10 20 50 100");
    assert_eq!(marks(Axis::log(""), &[0.02, 900.0]), "0.1 1 10 100 1,000");
    assert_eq!(marks(Axis::linear("").within(0.5, 1.0), &[0.7]), "0.5 0.6 0.7 0.8 0.9 1");
    let few = Axis::linear("").ruler([0.0, 250.0].into_iter(), 90.0).marks;
    assert_eq!(few.into_iter().map(|(value, _)| value).collect::<Vec<_>>(), [0.0, 100.0, 200.0, 300.0]);
    assert_eq!(marks(Axis::linear("").marked([(1.0, "one".to_owned())]), &[1.0, 2.0]), "one");
}

#[test]
fn numbers_are_as_people_write_them() {
    assert_eq!(
        (number(0.25), number(1e6), number(-1234.0), number(0.0)),
        ("0.25".into(), "1,000,000".into(), "-1,234".into(), "0".into())
    );
    assert_eq!(
        (short_number(68.94), short_number(1.555), short_number(1234.5)),
        ("68.9".into(), "1.55".into(), "1,234".into())
    );
}
