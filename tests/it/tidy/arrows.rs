//! Keeps the module graph what `docs/architecture.md` says it is: a module may name only modules that stand above it in
//! `src/lib.rs`, and of those only the ones that the table below allows.
//!
//! Reads source text, so it sees `use crate::x`, `crate::x::y` and `use crate::{x, y}`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Named by everybody.
const FREE: [&str; 3] = ["error", "naive", "telemetry"];

/// Who may know whom, beside [`FREE`]. A module that is not in the table may know nobody.
const ARROWS: [(&str, &[&str]); 22] = [
    ("error", &[]),
    ("naive", &[]),
    ("telemetry", &[]),
    ("position", &[]),
    ("table", &[]),
    ("change", &["position", "table"]),
    ("document", &["position"]),
    // A lane orders document operations by their versions: decision 0006.
    ("flow", &["position", "document"]),
    ("net", &["flow"]),
    ("mysql", &["table", "net"]),
    ("state", &["position", "table", "document"]),
    ("source", &["position", "table", "change", "flow", "net", "mysql", "state"]),
    // `position` for `Version` alone: decision 0006.
    ("mapping", &["position", "table", "change", "document"]),
    ("connector", &["flow", "net", "state"]),
    // `state` for the catalog of pipelines alone: decision 0006.
    ("pipeline", &["document", "flow", "state", "connector"]),
    ("index", &["document"]),
    ("sink", &["position", "document", "flow", "net", "index"]),
    (
        "link",
        &[
            "position",
            "table",
            "change",
            "document",
            "flow",
            "state",
            "source",
            "mapping",
            "connector",
            "pipeline",
            "index",
            "sink",
        ],
    ),
    ("statement", &[]),
    // `mapping` and `table` for the words of a link's order: decision 0006. `document` and `position` for documents on
    // their way to a pipeline, `index` for searches: decision 0011.
    (
        "admin",
        &[
            "mysql",
            "position",
            "table",
            "document",
            "net",
            "state",
            "mapping",
            "index",
            "link",
            "statement",
        ],
    ),
    (
        "config",
        &[
            "flow",
            "net",
            "mysql",
            "state",
            "source",
            "mapping",
            "connector",
            "pipeline",
            "sink",
            "link",
            "statement",
            "admin",
        ],
    ),
    // `source` for the demo's own session: decision 0015.
    ("cli", &["net", "state", "source", "link", "statement", "admin", "config"]),
];

#[test]
fn modules_name_only_what_they_may_know() {
    let errors = check(&super::root().join("src"));
    assert!(errors.is_empty(), "\n{}\n", errors.join("\n"));
}

#[test]
fn a_forbidden_arrow_is_found_however_it_is_written() {
    let src = tempfile::tempdir().expect("a temporary folder can be made");
    let write = |name: &str, text: &str| {
        let path = src.path().join(name);
        fs::create_dir_all(path.parent().expect("a file is in a folder"))
            .expect("a folder can be made");
        fs::write(path, text).expect("a file can be written");
    };
    write(
        "lib.rs",
        "pub mod error; // why\n#[cfg(x)]\npub mod net;\npub mod mysql;\npub mod source;\npub mod sink;\npub mod odd;\n",
    );
    write("error.rs", "");
    write("net/mod.rs", "use crate::{\n    error::Error,\n    mysql::{a, b},\n};\n");
    write("mysql/mod.rs", "use crate::net; // crate::sink\nmod tests {\n    use super::*;\n}\n");
    write("source/mod.rs", "");
    write("sink/mod.rs", "use super::error;\n");
    write("sink/opensearch/bulk.rs", "fn f() { crate::source::g() }\n");
    write("odd.rs", "use crate::net;\n");
    let errors = check(src.path()).join("\n");
    for expected in [
        "net/mod.rs:1: `net` names `mysql`, which stands below it in lib.rs",
        "net/mod.rs:1: `net` may not know `mysql`",
        "sink/mod.rs:1: say `crate::`, not `super::`",
        "sink/opensearch/bulk.rs:1: `sink` may not know `source`",
        "`odd` is not in the table of arrows",
    ] {
        assert!(errors.contains(expected), "not found: {expected}\n{errors}");
    }
    assert_eq!(errors.lines().count(), 5, "{errors}");
}

#[test]
fn the_table_of_arrows_follows_the_order_of_lib() {
    let order = modules(&super::root().join("src"));
    let place = |name: &str| order.iter().position(|module| module == name);
    for (module, known) in ARROWS {
        let at =
            place(module).unwrap_or_else(|| panic!("`{module}` of the table is not in lib.rs"));
        for name in known {
            assert!(
                place(name) < Some(at),
                "the table lets `{module}` know `{name}`, which stands below it"
            );
        }
    }
}

fn check(src: &Path) -> Vec<String> {
    let order = modules(src);
    let places: BTreeMap<&str, usize> =
        order.iter().enumerate().map(|(at, name)| (name.as_str(), at)).collect();
    let table: BTreeMap<&str, &[&str]> = ARROWS.into_iter().collect();
    let mut errors = Vec::new();
    for module in &order {
        let Some(known) = table.get(module.as_str()) else {
            errors.push(format!("`{module}` is not in the table of arrows"));
            continue;
        };
        for file in files_of(src, module) {
            let text = super::read(&file);
            let at = |line: usize| {
                format!("{}:{line}", file.strip_prefix(src).unwrap_or(&file).display())
            };
            if let Some(line) = escape(src, &file, module, &text) {
                errors.push(format!(
                    "{}: say `crate::`, not `super::`, for another module",
                    at(line)
                ));
            }
            for (line, target) in crate_paths(&text) {
                let Some(place) = places.get(target.as_str()).filter(|_| target != *module) else {
                    continue;
                };
                if *place > places[module.as_str()] {
                    errors.push(format!(
                        "{}: `{module}` names `{target}`, which stands below it in lib.rs",
                        at(line)
                    ));
                }
                if !known.contains(&target.as_str()) && !FREE.contains(&target.as_str()) {
                    errors.push(format!("{}: `{module}` may not know `{target}`", at(line)));
                }
            }
        }
    }
    errors
}

/// The top-level modules in the order of `lib.rs`.
pub fn modules(src: &Path) -> Vec<String> {
    let lib = super::read(&src.join("lib.rs"));
    let names = lib.lines().filter_map(|line| {
        let line = line.trim();
        let line = line.strip_prefix("pub(crate) ").or(line.strip_prefix("pub ")).unwrap_or(line);
        Some(identifier(line.strip_prefix("mod ")?))
    });
    names.collect()
}

/// Where the top file of a module reaches its neighbours by `super::`, if it does. Its tests mean the module itself.
fn escape(src: &Path, file: &Path, module: &str, text: &str) -> Option<usize> {
    let is_top =
        file == src.join(format!("{module}.rs")) || file == src.join(module).join("mod.rs");
    let mut lines = text.lines().take_while(|line| !line.starts_with("mod tests")).enumerate();
    let found = lines.find(|(_, line)| {
        is_top && super::without_comment(line).trim_start().starts_with("use super::")
    });
    found.map(|(at, _)| at + 1)
}

/// The files of one top-level module.
fn files_of(src: &Path, module: &str) -> BTreeSet<PathBuf> {
    let alone = src.join(format!("{module}.rs"));
    let folder = super::files_below(&src.join(module), "rs");
    folder.into_iter().chain(alone.is_file().then_some(alone)).collect()
}

/// Every `crate::name` in the text, also inside `crate::{…}`, with its line number.
fn crate_paths(text: &str) -> Vec<(usize, String)> {
    let code: String = text.lines().flat_map(|line| [super::without_comment(line), "\n"]).collect();
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let line = code[..at].matches('\n').count() + 1;
        let rest = &code[at + "crate::".len()..];
        let heads = rest.strip_prefix('{').map_or_else(|| vec![rest], outer_items);
        found.extend(heads.into_iter().map(|head| (line, identifier(head))));
    }
    found
}

/// Splits `a::{b, c}, d}` at its outer commas, up to the closing brace.
fn outer_items(group: &str) -> Vec<&str> {
    let (mut depth, mut start, mut items) = (0_i32, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                items.push(&group[start..at]);
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => (),
        }
    }
    items
}

fn identifier(text: &str) -> String {
    text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}
