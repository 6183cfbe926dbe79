//! What a file may hold, how its faults are shown, and that reference and documents say what the program does.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::de::value::{Error as ProbeError, StrDeserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, IntoDeserializer as _,
};
use serde::de::{MapAccess, Visitor};
use serde::forward_to_deserialize_any;
use toml::de::DeTable;

use super::load::parse;
use super::problem::Problems;
use super::value::{Source, deserialize};
use super::{Config, Loaded, links};
use crate::link::{Origin, PipelineMode, Rules};

fn env(name: &str) -> Option<String> {
    (name == "PORT" || name == "SECRET").then(|| "3307".to_owned())
}

fn loaded(text: &str) -> Loaded {
    parse(text, &env).unwrap_or_else(|errors| {
        panic!("{}", Problems::new("driftless.toml".into(), text.into(), errors))
    })
}

fn refused(text: &str) -> String {
    let errors = parse(text, &env).expect_err("it is wrong");
    Problems::new("driftless.toml".into(), text.into(), errors).to_string()
}

#[test]
fn a_word_on_statements_is_one_of_three() {
    let text = r#"
[[links]]
table = "d.t"
index = "i"
on_drop = "maybe"
"#;
    let told = refused(text);
    assert!(
        told.contains("driftless.toml:5:11") && told.contains("`delete`, `ignore` or `fail`"),
        "{told}"
    );
    assert!(refused("[link]\non_truncate = \"maybe\"").contains("`delete`"));
}

#[test]
fn a_beginning_that_is_none_is_shown_at_its_place() {
    let text = "[[links]]\ntable = \"d.t\"\nindex = \"i\"\nfrom = \"yesterday\"\n";
    let told = refused(text);
    assert!(
        told.contains("driftless.toml:4:8") && told.contains("`yesterday` is no beginning"),
        "{told}"
    );
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let text = r#"
memory_limit_bytes = "lots"
colour = "blue"

[http]
listen = "localhost"

[source]
port = 70000
user = ""
prot = 3306
tls = { mode = "verify-identity" }

[sink]
type = "opensaerch"
adresses = ["http://127.0.0.1:9200"]
lanes = "four"
bulk_documents = 0

[pipeline]
trusted_endpoints = ["^(https://a"]
private_ip_enabled = "yes"

[log]
level = "inof"

[[links]]
mapping = "i.a(d.t.a)"

[[links]]
maping = "i.a(d.t.a)"
"#;
    insta::assert_snapshot!(refused(text), @r#"
    driftless.toml:2:22: wrong value for `memory_limit_bytes`: expected a size as 1048576, "512KiB", "16MiB" or "1GiB"
      | memory_limit_bytes = "lots"
      |                      ^^^^^^
    driftless.toml:3:1: unknown key `colour`; there are `state_dir`, `memory_limit_bytes`, `http`, `log`, `secrets`, `source`, `snapshot`, `pipeline`, `sink`, `link`, `standby`, `links`
      | colour = "blue"
      | ^^^^^^
    driftless.toml:6:10: wrong value for `listen` in [http]: expected address:port, as "127.0.0.1:9220"
      | listen = "localhost"
      |          ^^^^^^^^^^^
    driftless.toml:9:8: wrong value for `port` in [source]: expected an integer from 0 to 65535
      | port = 70000
      |        ^^^^^
    driftless.toml:10:8: `source.user` is empty; say where the source is and who we are there
      | user = ""
      |        ^^
    driftless.toml:11:1: unknown key `prot` in [source]; did you mean `port`?
      | prot = 3306
      | ^^^^
    driftless.toml:12:16: `verify-identity` is no value of `mode` in [source.tls]; did you mean `verify_identity`? There are `disabled`, `preferred`, `required`, `verify_ca`, `verify_identity`
      | tls = { mode = "verify-identity" }
      |                ^^^^^^^^^^^^^^^^^
    driftless.toml:15:8: unknown sink type `opensaerch`; did you mean `opensearch`?
      | type = "opensaerch"
      |        ^^^^^^^^^^^^
    driftless.toml:16:1: unknown key `adresses` in [sink]; did you mean `addresses`?
      | adresses = ["http://127.0.0.1:9200"]
      | ^^^^^^^^
    driftless.toml:17:9: `lanes` in [sink] is a string, expected an integer that is not negative
      | lanes = "four"
      |         ^^^^^^
    driftless.toml:18:18: `sink.bulk_documents` is 0; write a number above 0, or leave the key out
      | bulk_documents = 0
      |                  ^
    driftless.toml:21:22: `^(https://a` is not a regular expression: unclosed group
      | trusted_endpoints = ["^(https://a"]
      |                      ^^^^^^^^^^^^^
    driftless.toml:22:22: `private_ip_enabled` in [pipeline] is a string, expected a boolean
      | private_ip_enabled = "yes"
      |                      ^^^^^
    driftless.toml:25:9: `inof` is not a log level; write one of off, error, warn, info, debug, trace, or module=level, …
      | level = "inof"
      |         ^^^^^^
    driftless.toml:27:1: the link has no `key`; a link has either `mapping` and `key`, or `table` and `index`
      | [[links]]
      | ^^^^^^^^^
    driftless.toml:31:1: unknown key `maping` in [[links]]; did you mean `mapping`?
      | maping = "i.a(d.t.a)"
      | ^^^^^^
    "#);
}

#[test]
fn an_error_inside_a_mapping_points_into_the_file() {
    let text = r#"
[[links]]
mapping = """
  products.name(shop.products.name),
  products.price(shop.items.price)
"""
key = "products.id=shop.products.id"

[[links]]
id = "second"
mapping = "a.\u0062(d.t.b)"
key = "a.id d.t.id"

[[links]]
table = "shop"
index = "orders"

[[links]]
table = "shop.orders"
index = "orders"
columns = ["id", "total", "ID"]

[[links]]
table = "shop.orders"
index = "one"

[[links]]
id = "two"
mapping = 'one.a(d.t.a)'
key = 'one.a=d.t.a'

[[links]]
table = "shop.orders"
mapping = "a.b(c.d.e)"
"#;
    insta::assert_snapshot!(refused(text), @r#"
    driftless.toml:5:18: not yet: joins; a link reads one table, but here are shop.products and shop.items
      |   products.price(shop.items.price)
      |                  ^^^^^^^^^^
    driftless.toml:12:13: expected `=` behind the field, found `d`; a key is written index.field=db.table.column
      | key = "a.id d.t.id"
      |             ^
    driftless.toml:15:14: expected `.` and a table behind the database, found the end; the second argument is written db.table
      | table = "shop"
      |              ^
    driftless.toml:21:28: column `ID` is given twice
      | columns = ["id", "total", "ID"]
      |                            ^^^
    driftless.toml:28:6: two links write the index `one`; they would overwrite each other's documents
      | id = "two"
      |      ^^^^^
    driftless.toml:32:1: the link mixes both ways to say what to sync; a link has either `mapping` and `key`, or `table` and `index`
      | [[links]]
      | ^^^^^^^^^
    "#);
}

#[test]
fn what_is_not_toml_is_said_with_its_place() {
    insta::assert_snapshot!(refused("[source\nhost = \"a\"\n[sink]\ntype = opensearch\n"), @r#"
    driftless.toml:1:8: not valid TOML: unclosed table, expected `]`
      | [source
      |        ^
    driftless.toml:4:8: not valid TOML: string values must be quoted, expected literal string
      | type = opensearch
      |        ^^^^^^^^^^
    "#);
    insta::assert_snapshot!(refused("[sink]\nlanes = 4\nlanes = 5\n"), @r#"
    driftless.toml:3:1: not valid TOML: duplicate key
      | lanes = 5
      | ^^^^^
    "#);
}

#[test]
fn no_secret_is_shown() {
    let text = r#"
source = { password = 4711, prot = 1 }
[sink]
addresses = ["http://me:sesame@127.0.0.1:9200"]
password = "${NOPE} sesame"
"#;
    let shown = refused(text);
    insta::assert_snapshot!(shown, @r#"
    driftless.toml:2:23: `password` in [source] is an integer, expected a string
    driftless.toml:2:29: unknown key `prot` in [source]; did you mean `port`?
    driftless.toml:4:14: an address of the sink holds a user or a password; give them as `user` and `password_file`
    driftless.toml:5:13: the environment has no variable `NOPE`; set it, or write the value here
    "#);
    assert!(!shown.contains("sesame") && !shown.contains("4711"));
    let unclosed = refused("[source]\npassword = \"sesame\nhost = 1\n");
    assert!(!unclosed.contains("sesame"), "{unclosed}");
}

#[test]
fn a_sink_is_logged_in_to_in_one_way() {
    let text = "[sink]\nuser = \"me\"\napi_key = \"sesame\"\napi_key_file = \"/nonexistent\"\n";
    insta::assert_snapshot!(refused(text), @r#"
    driftless.toml:4:16: `sink.api_key_file` stands beside `api_key`; leave one of them out
    driftless.toml:4:16: `sink.api_key_file` stands beside `user`; leave one of them out
    driftless.toml:4:16: cannot read the file of `sink.api_key_file`, /nonexistent: No such file or directory (os error 2)
    "#);
    insta::assert_snapshot!(refused("[sink]\nuser = \"me\"\napi_key = \"sesame\"\n"), @"driftless.toml:3:11: `sink.api_key` stands beside `user`; leave one of them out");
}

#[test]
fn the_environment_and_units_are_read() {
    let Loaded { config, .. } = loaded(
        r#"
        memory_limit_bytes = "64 MiB"
        state_dir = "/srv/${SECRET}/state"
        [source]
        port = "${PORT}"
        user = "$${PORT}"
        [pipeline]
        cache_bytes = 1_000
        trusted_endpoints = ["^https://a/.*$"]
        "#,
    );
    assert_eq!(config.memory_limit_bytes, 64 << 20);
    assert_eq!(config.state_dir(), Path::new("/srv/3307/state"));
    assert_eq!((config.source.port, config.source.user.as_str()), (3307, "${PORT}"));
    assert_eq!(config.pipeline.cache_bytes, 1_000);
}

#[test]
fn a_link_of_the_file_is_the_statement_that_would_have_made_it() {
    let Loaded { links, .. } = loaded(
        r#"
        [[links]]
        mapping = 'a.f(d.`t"x`.c)'
        key = "a.id=d.`t\"x`.id"
        [[links]]
        id = "whole"
        table = "d.t"
        index = "b"
        columns = ["id", "odd `name`, x"]
        [[links]]
        table = "d.t"
        index = "c"
        "#,
    );
    let [mapped, whole, all] = links.as_slice() else { panic!("three links") };
    assert_eq!((mapped.id.as_deref(), mapped.origin), (Some("a"), Origin::Config));
    let Rules::Map(spec) = &mapped.rules else { panic!("a mapping") };
    assert_eq!(spec.rules[0].table.name, "t\"x");
    let span = spec.rules[0].span;
    assert_eq!(&mapped.statement[span.start..span.end], "c");
    assert_eq!(whole.id.as_deref(), Some("whole"));
    let Rules::Table { table, index, columns, .. } = &whole.rules else { panic!("a table") };
    assert_eq!((table.to_string().as_str(), index.as_str()), ("d.t", "b"));
    let names: Vec<_> = columns.iter().flatten().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["id", "odd `name`, x"]);
    assert!(matches!(&all.rules, Rules::Table { columns: None, .. }));
    let again = crate::statement::parse(&whole.statement).expect("it is a statement");
    assert!(crate::admin::spec::of(&again, &whole.statement, Origin::Sql).is_some());
}

#[test]
fn a_pipeline_mode_is_one_of_three_and_fits_the_sink() {
    let text = r#"
[link]
pipeline_mode = "emulated"
[[links]]
table = "d.t"
index = "a"
pipeline_mode = "delegat"
"#;
    insta::assert_snapshot!(refused(text), @r#"
    driftless.toml:3:17: `emulated` is no value of `pipeline_mode` in [link]; did you mean `emulate`? There are `emulate`, `delegate`, `auto`
      | pipeline_mode = "emulated"
      |                 ^^^^^^^^^^
    driftless.toml:7:17: `delegat` is no value of `pipeline_mode` in [[links]]; did you mean `delegate`? There are `emulate`, `delegate`, `auto`
      | pipeline_mode = "delegat"
      |                 ^^^^^^^^^
    "#);
    let text = "[sink]\ntype = \"embedded\"\n[link]\npipeline_mode = \"delegate\"\n";
    insta::assert_snapshot!(refused(text), @r#"
    driftless.toml:4:17: pipeline_mode is `delegate`, and the embedded sink has no cluster that could run a pipeline; write `auto` or `emulate`: the pipelines registered at Driftless are run either way
      | pipeline_mode = "delegate"
      |                 ^^^^^^^^^^
    "#);
    let text = "[link]\npipeline_mode = \"emulate\"\n[[links]]\ntable = \"d.t\"\nindex = \"a\"\n\
        pipeline_mode = \"delegate\"\n[[links]]\ntable = \"d.t\"\nindex = \"b\"\n";
    let Loaded { links, config } = loaded(text);
    assert_eq!(config.link.pipeline_mode, PipelineMode::Emulate);
    let modes: Vec<_> = links.iter().map(|link| link.pipeline_mode).collect();
    assert_eq!(modes, [Some(PipelineMode::Delegate), None]);
}

#[test]
fn a_link_says_itself_in_which_forms_it_differs() {
    let text = r#"
[link.types]
decimal = "string"

[[links]]
table = "d.t"
index = "a"
[links.types]
tinyint1 = "bool"
datetime_zone = "+08:00"
"#;
    let Loaded { config, links } = loaded(text);
    let words = links[0].types.over(config.link.types).to_words();
    let chosen: Vec<_> =
        ["decimal", "tinyint1", "datetime_zone", "json"].map(|name| words[name].as_str()).into();
    assert_eq!(chosen, ["string", "bool", "+08:00", "value"]);
    let wrong = text
        .replace("decimal", "decimals")
        .replace("tinyint1 = \"bool\"", "tinyint1 = \"boolean\"")
        .replace("+08:00", "CET");
    insta::assert_snapshot!(refused(&wrong), @r#"
    driftless.toml:3:1: unknown key `decimals` in [link.types]; did you mean `decimal`?
      | decimals = "string"
      | ^^^^^^^^
    driftless.toml:9:12: `boolean` is no value of `tinyint1` in [[links.types]]; did you mean `bool`? There are `number`, `bool`
      | tinyint1 = "boolean"
      |            ^^^^^^^^^
    driftless.toml:10:17: wrong value for `datetime_zone` in [[links.types]]: expected "none", "Z" or an offset as "+08:00"
      | datetime_zone = "CET"
      |                 ^^^^^
    "#);
}

#[test]
fn a_missing_file_is_a_clear_error() {
    let problems =
        super::load(Path::new("/nonexistent/driftless.toml")).expect_err("it is not there");
    let shown = problems.to_string();
    assert!(
        shown.starts_with(
            "/nonexistent/driftless.toml: cannot read the configuration: No such file"
        ),
        "{shown}"
    );
    assert!(shown.ends_with("; name an existing file with --config"), "{shown}");
}

#[test]
fn every_file_in_the_folder_can_be_loaded() {
    let credentials = tempfile::tempdir().expect("a directory");
    let names =
        ["mysql-password", "search-password", "search-api-key", "mysql-ca.pem", "search-ca.pem"];
    for name in names {
        std::fs::write(credentials.path().join(name), "x").expect("writes");
    }
    let env = |name: &str| match name {
        "CREDENTIALS_DIRECTORY" => credentials.path().to_str().map(str::to_owned),
        _ => Some("x".repeat(32)),
    };
    let files = toml_files(&root().join("config"));
    assert!(files.len() >= 4, "{files:?}");
    for file in files {
        let text = std::fs::read_to_string(&file).expect("reads");
        let name = file.display().to_string();
        let loaded = parse(&text, &env).map_err(|errors| Problems::new(name, text.clone(), errors));
        assert!(loaded.is_ok(), "{}", loaded.expect_err("seen"));
    }
}

#[test]
fn the_reference_file_holds_every_key_with_its_default() {
    let reference = Reference::read();
    let everything = reference.text(|_| true);
    let table = DeTable::parse(&everything).expect("the reference is TOML when it is un-commented");
    let env = |_: &str| Some("x".to_owned());
    let source = Source { text: &everything, table: &table, env: &env };
    let (_, errors) = deserialize::<Config>(&source);
    let shown = Problems::new("config/driftless.toml".into(), everything.clone(), errors);
    assert!(shown.errors().is_empty(), "{shown}");

    let defaults = reference.text(|entry| !entry.is_example);
    assert_eq!(format!("{:#?}", loaded(&defaults).config), format!("{:#?}", Config::default()));

    let documented: Vec<&String> = reference.entries.keys().collect();
    let mut known = keys::<Config>();
    known.retain(|key| key != "links");
    known.sort();
    assert_eq!(documented, known.iter().collect::<Vec<_>>());
    for (key, entry) in &reference.entries {
        let said_to_have_none = entry.is_example;
        assert_eq!(said_to_have_none, has_no_default(key), "{key}: a default, or only an example?");
    }
}

/// Keys whose absence means something else than any value of theirs.
fn has_no_default(key: &str) -> bool {
    let last = key.rsplit('.').next().unwrap_or(key);
    matches!(key, "source.path" | "sink.user" | "sink.api_key" | "standby.name")
        || last.ends_with("_file")
        || matches!(last, "state_dir" | "server_id" | "password" | "tokens" | "clients")
}

#[test]
fn the_page_holds_every_key_with_its_default() {
    let page =
        std::fs::read_to_string(root().join("docs/config.md")).expect("docs/config.md is there");
    let mut rows: BTreeMap<String, String> = BTreeMap::new();
    for line in page.lines() {
        let Some((key, rest)) = line.strip_prefix("| `").and_then(|line| line.split_once("` | "))
        else {
            continue;
        };
        if !key.starts_with(|c: char| c.is_ascii_lowercase()) {
            continue;
        }
        let default = rest.split(" | ").next().unwrap_or_default();
        rows.insert(key.to_owned(), default.trim_matches('`').replace("\\|", "|"));
    }
    let reference = Reference::read();
    for (key, entry) in &reference.entries {
        let expected = if entry.is_example { "" } else { entry.value.as_str() };
        assert_eq!(
            rows.remove(key).as_deref().map(str::trim),
            Some(expected),
            "docs/config.md: the default of `{key}`"
        );
    }
    let links: Vec<String> =
        keys::<links::Entry>().iter().map(|key| format!("links.{key}")).collect();
    for key in &links {
        assert!(rows.remove(key).is_some(), "docs/config.md lacks `{key}`");
    }
    assert!(rows.is_empty(), "docs/config.md has keys that do not exist: {rows:?}");
}

/// `config/driftless.toml`, taken apart.
struct Reference {
    lines: Vec<String>,
    entries: BTreeMap<String, Entry>,
}

struct Entry {
    line: usize,
    value: String,
    is_example: bool,
}

impl Reference {
    fn read() -> Self {
        let text =
            std::fs::read_to_string(root().join("config/driftless.toml")).expect("it is there");
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let (mut entries, mut section) = (BTreeMap::new(), String::new());
        for (line, written) in lines.iter().enumerate() {
            if let Some(name) = written.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                section = format!("{name}.");
            }
            let Some((key, value)) = entry(written) else { continue };
            let before = line.checked_sub(1).and_then(|before| lines.get(before));
            let is_example =
                before.is_some_and(|before| before.to_lowercase().ends_with("for example:"));
            let entry = Entry { line, value: value.to_owned(), is_example };
            assert!(
                entries.insert(format!("{section}{key}"), entry).is_none(),
                "{section}{key} stands twice"
            );
        }
        Self { lines, entries }
    }

    /// The file with the entries un-commented that `wanted` names.
    fn text(&self, wanted: impl Fn(&Entry) -> bool) -> String {
        let mut lines = self.lines.clone();
        for entry in self.entries.values().filter(|entry| wanted(entry)) {
            lines[entry.line] = lines[entry.line].trim_start_matches("# ").to_owned();
        }
        lines.join("\n")
    }
}

/// `# key = value`.
fn entry(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.strip_prefix("# ")?.split_once(" = ")?;
    let is_of_key = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    key.chars().all(is_of_key).then_some((key, value))
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn toml_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("the folder is there").flatten();
    entries
        .flat_map(|entry| match entry.path() {
            path if path.is_dir() => toml_files(&path),
            path => vec![path],
        })
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect()
}

/// Every key that a `T` takes, as `source.tls.mode`: `Deserialize` itself is asked for its fields.
fn keys<T: DeserializeOwned>() -> Vec<String> {
    let mut open: Vec<Vec<&'static str>> = vec![Vec::new()];
    let mut keys = Vec::new();
    while let Some(path) = open.pop() {
        let fields = RefCell::new(None);
        let probe = Probe { path: &path, fields: &fields };
        assert!(T::deserialize(probe).is_err(), "a probe gives no value");
        match fields.into_inner() {
            Some(fields) => open.extend(fields.iter().map(|field| {
                let mut path = path.clone();
                path.push(field);
                path
            })),
            None => keys.push(path.join(".")),
        }
    }
    keys
}

/// Walks along `path`, and finds out what is asked for at its end.
#[derive(Clone, Copy)]
struct Probe<'p> {
    path: &'p [&'static str],
    fields: &'p RefCell<Option<&'static [&'static str]>>,
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = ProbeError;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ProbeError> {
        if self.path.is_empty() {
            *self.fields.borrow_mut() = Some(fields);
            return Err(ProbeError::custom("at the end"));
        }
        visitor.visit_map(self)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ProbeError> {
        visitor.visit_some(self)
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, ProbeError> {
        Err(ProbeError::custom("a leaf"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf unit unit_struct newtype_struct seq
        tuple tuple_struct map enum identifier ignored_any
    }
}

impl<'de> MapAccess<'de> for Probe<'_> {
    type Error = ProbeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, ProbeError> {
        let name = self.path.first().expect("a value ends the walk");
        let name: StrDeserializer<'_, ProbeError> = name.into_deserializer();
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<S::Value, ProbeError> {
        seed.deserialize(Probe { path: &self.path[1..], fields: self.fields })
    }
}
