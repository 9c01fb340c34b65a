//! `omniscribe analyze routing` on the model and the samples that ship.

use std::path::Path;

use omniscribe::eval::routing::RoutingReport;

fn analyze(arguments: &[&str]) -> std::process::Output {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_omniscribe"));
    command.args(["analyze", "routing"]).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("runs")
}

fn report(folder: &Path) -> RoutingReport {
    serde_json::from_str(&std::fs::read_to_string(folder.join("routing.json")).expect("a report")).expect("the report's form")
}

#[test]
fn routing_of_the_model_that_ships() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let output = analyze(&["models/base", "assets/samples.jsonl", "-o", out.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Two files of the same name are one utterance too many, and that is said.
    assert!(String::from_utf8_lossy(&output.stderr).contains("duplicate"), "{}", String::from_utf8_lossy(&output.stderr));
    let found = report(&out);
    let layers = found.usage.layers.len();
    assert!(found.recordings == 4 && found.steps > 400 && layers == 8, "{} {} {layers}", found.recordings, found.steps);
    for (a, row) in found.between_layers.iter().enumerate() {
        assert!(row[a].is_none_or(|v| (v - 1.0).abs() < 1e-9), "a layer decides itself");
        for (b, value) in row.iter().enumerate() {
            let (v, mirrored) = (value.unwrap_or(0.0), found.between_layers[b][a].unwrap_or(0.0));
            assert!((0.0..=1.0 + 1e-9).contains(&v) && (v - mirrored).abs() < 1e-9, "layers {a} and {b}: {v}, {mirrored}");
        }
    }
    assert_eq!(found.with.keys().collect::<Vec<_>>(), ["blank", "letter class", "speaker", "speech", "token"]);
    for layer in &found.by_class {
        for shares in layer {
            assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-9, "these sentences have every class: {shares:?}");
        }
    }
    let kept: Vec<f64> = found.under_noise.iter().map(|row| row.kept.iter().sum::<f64>() / layers as f64).collect();
    assert!(1.0 > kept[0] && kept[0] > kept[1] && kept[1] > kept[2] && kept[2] > 0.0, "more noise, fewer choices kept: {kept:?}");
    let exchanged = found.exchanged.expect("measured");
    assert!(exchanged.against_texts && exchanged.one_layer.len() == layers);
    assert!(exchanged.all_layers != exchanged.unchanged, "the experts of a trained model differ: {exchanged:?}");
    let words = exchanged.unchanged.reference_words;
    assert!(words == 52 && exchanged.one_layer.iter().all(|one| one.reference_words == words), "{exchanged:?}");
    let page = std::fs::read_to_string(out.join("routing.html")).unwrap();
    assert!(page.matches("<svg").count() > layers && !page.contains("src=") && page.contains("Experts exchanged"));
}

#[test]
fn routing_of_plain_recordings_and_of_a_dense_model() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let output = analyze(&["models/base", "assets/digits.wav", "-o", out.to_str().unwrap(), "--trials", "0"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found = report(&out);
    assert!(found.recordings == 1 && found.exchanged.is_none() && found.under_noise.is_empty() && !found.with.contains_key("speaker"));
    let missing = analyze(&["models/base", "assets/none.wav", "-o", out.to_str().unwrap()]);
    assert!(!missing.status.success() && String::from_utf8_lossy(&missing.stderr).contains("none.wav"));
}
