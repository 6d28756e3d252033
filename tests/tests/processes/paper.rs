//! `quorate bench paper`, with few operations.

use std::{fs, time::Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::harness::{quorate, run};

#[test]
fn every_figure_has_a_table_and_a_picture() {
    // On a real disk, as durable writes want it.
    let directory = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory can be made");
    let (out, place) = (directory.path().join("pictures"), directory.path().join("servers"));
    let mut command = quorate(&["bench", "paper", "--quick", "--quiet", "--json"]);
    command.arg("--out").arg(&out).arg("--dir").arg(&place);
    let began = Instant::now();
    let said = run(&mut command);
    let report: Value = serde_json::from_str(&said.assert_ok().out).expect("it prints JSON");
    let figures = report["figures"].as_array().expect("there are figures");
    let names: Vec<&str> = figures.iter().filter_map(|figure| figure["figure"].as_str()).collect();
    assert_eq!(
        names,
        ["fig4", "fig5", "fig6", "fig8", "versions", "table2", "admission"],
        "after {:?}",
        began.elapsed()
    );
    for figure in figures {
        let rows = figure["rows"].as_array().expect("a figure has a table");
        let cells = rows.iter().flat_map(|row| row.as_array().expect("a row has cells"));
        assert!(rows.len() > 1 && cells.clone().all(|cell| cell != "none" || figure["figure"] == "fig8"), "{figure:#}");
        assert!(!figure["notes"].as_array().expect("it says what differs").is_empty(), "{figure:#}");
    }
    // Each line and each bar that was asked for is in its picture.
    for (name, mark, least) in [
        ("fig4", "<polyline", 5),
        ("fig5", "<polyline", 4),
        ("fig6", "<polyline", 3),
        ("fig8", "<polyline", 4),
        ("table2", "<rect", 16),
        ("admission", "<polyline", 3),
    ] {
        let path = out.join(format!("{name}.svg"));
        let picture = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(picture.starts_with("<svg") && picture.ends_with("</svg>\n"), "{picture}");
        assert!(picture.matches(mark).count() >= least, "{name}: {picture}");
    }
    let reads = |cell: usize| figures[4]["rows"][4][cell].as_str().and_then(|text| text.parse::<u64>().ok());
    assert!(reads(2) > Some(0) && reads(3) > Some(0), "{:#}", figures[4]);
    assert!(fs::read_dir(&place).expect("it is there").next().is_none(), "servers left files");
}

#[test]
fn a_figure_that_is_not_there_is_refused_with_those_that_are() {
    let said = run(&mut quorate(&["bench", "paper", "fig9"]));
    assert_eq!(said.code(), Some(2), "{}", said.error);
    assert!(said.error.contains("fig9") && said.error.contains("table2"), "{}", said.error);
}
