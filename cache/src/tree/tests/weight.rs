//! What makes layers big.

use super::*;

/// Draws one line per layer: files, bytes, hidden bytes; then its heaviest.
fn draw_weights(layers: &[&str], most: usize) -> Vec<String> {
    stack(layers)
        .weights(most)
        .into_iter()
        .map(|layer| {
            let heaviest: Vec<String> = layer
                .heaviest
                .iter()
                .map(|heavy| {
                    let name = String::from_utf8_lossy(heavy.path.as_bytes()).into_owned();
                    let files = heavy.n_files.map_or(String::new(), |n| format!("/{n}"));
                    let hidden = match heavy.hidden_bytes {
                        0 => String::new(),
                        bytes => format!("-{bytes}"),
                    };
                    format!("{name}{files}={}{hidden}", heavy.size_bytes)
                })
                .collect();
            format!(
                "{} {} {}: {}",
                layer.n_files,
                layer.size_bytes,
                layer.hidden_bytes,
                heaviest.join(" ")
            )
        })
        .collect()
}

fn check(layers: &[&str], most: usize, expected: &[&str]) {
    // Layers of files always have their root.
    let layers: Vec<String> = layers.iter().map(|layer| format!("/ dir\n{layer}")).collect();
    let layers: Vec<&str> = layers.iter().map(String::as_str).collect();
    assert_eq!(draw_weights(&layers, most), expected, "{layers:?}");
}

#[test]
fn the_heaviest_of_each_layer_come_first() {
    check(&[], 3, &[]);
    check(&[""], 3, &["0 0 0: "]);
    check(&["a =1\nb =333\nc =22\ne ="], 2, &["4 6 0: b=3 c=2"]);
    check(
        &["d dir\nd/x =22\nd/y =333\ne =1"],
        9,
        &["3 6 0: d/2=5 d/y=3 d/x=2 e=1"],
    );
}

#[test]
fn a_directory_that_is_nearly_all_of_one_thing_isnt_told() {
    check(
        &["d dir\nd/e dir\nd/e/x =0123456789\nd/y ="],
        9,
        &["2 10 0: d/e/x=10"],
    );
    check(
        &["d dir\nd/e dir\nd/e/x =01234\nd/e/y =01234\nd/z =1"],
        9,
        &["3 11 0: d/e/2=10 d/e/x=5 d/e/y=5 d/z=1"],
    );
}

#[test]
fn what_later_layers_hide_is_told() {
    check(
        &["a =1\nb =22\nd dir\nd/c =333", "b =4444\nd opaque", "a gone"],
        9,
        &["3 6 6: d/c=3-3 b=2-2 a=1-1", "1 4 0: b=4", "0 0 0: "],
    );
    // Another name of it is still there.
    check(&["a =22\nb @a", "a gone"], 9, &["1 2 0: a=2", "0 0 0: "]);
}
