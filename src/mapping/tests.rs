//! Mappings against definitions, rows against plans, and both ways of carrying a value against each other.

use super::*;
use crate::change::{Change, ChangeKind, Row, Value};
use crate::document::{Action, DocOp};
use crate::error::{Error, ErrorKind};
use crate::position::Version;
use crate::table::{Charset, Column, ColumnType};
use proptest::prelude::*;

fn column(name: &str, ty: ColumnType, declared: &str) -> Column {
    Column { name: name.to_owned(), ty, nullable: false, declared: declared.to_owned() }
}

/// `db.test_table` with a primary key over `id` and a unique one over (`t1`, `t2`).
fn test_table() -> TableDef {
    let mut columns = vec![
        column("id", ColumnType::BigInt { unsigned: false }, "bigint"),
        column("t1", ColumnType::Text, "varchar(20)"),
        column("t2", ColumnType::Text, "varchar(20)"),
        column("title", ColumnType::Text, "text"),
        column("kind", ColumnType::Enum { labels: vec!["a".into()] }, "enum('a')"),
        column("photo", ColumnType::Bytes, "blob"),
        column("bits", ColumnType::Unsupported { reason: "BIT is not yet read".into() }, "bit(3)"),
    ];
    columns[3].nullable = true;
    let id = TableId::new("db", "test_table");
    TableDef { id, columns, primary_key: vec![0], unique_keys: vec![vec![0], vec![1, 2]] }
}

/// A mapping as `link` makes it from the lists: `field:column …` and `column …`, with places in these texts.
fn spec(rules: &str, keys: &str) -> Spec {
    let list = |text: &str| -> Vec<Rule> {
        let mut at = 0;
        let mut rules = Vec::new();
        for word in text.split(' ').filter(|word| !word.is_empty()) {
            let (field, column) = word.split_once(':').unwrap_or((word, word));
            let span = Span::new(at + word.len() - column.len(), at + word.len());
            let field_span = Span::new(at, at + field.len());
            let table = TableId::new("db", "test_table");
            rules.push(Rule {
                field: field.into(),
                table,
                column: column.into(),
                span,
                field_span,
            });
            at += word.len() + 1;
        }
        rules
    };
    Spec { index: "test_index".to_owned(), rules: list(rules), keys: list(keys) }
}

fn plan(rules: &str, keys: &str) -> Plan {
    compile(&spec(rules, keys), &test_table()).expect("the mapping is right")
}

fn problems(rules: &str, keys: &str, def: &TableDef) -> String {
    let errors = compile(&spec(rules, keys), def).expect_err("the mapping is wrong");
    // Rules and keys stand in two texts here; the span is shown as numbers.
    let say = |error: &Error| match error.span() {
        Some(Span { start, end }) => {
            format!("{start}..{end} {:?}: {}", error.kind(), error.report())
        }
        None => format!("{:?}: {}", error.kind(), error.report()),
    };
    errors.iter().map(say).collect::<Vec<_>>().join("\n")
}

fn operations(plan: &Plan, change: &Change<'_>) -> Result<Vec<String>, Error> {
    let mut found = Vec::new();
    plan.apply(change, |offset| Version(offset.into()), &mut Scratch::default(), &mut |op| {
        let body = String::from_utf8_lossy(op.body);
        assert_eq!(op.key, plan.hasher.key(op.id));
        found.push(match op.action {
            Action::Upsert => format!("{} @{} = {body}", op.id, op.version),
            Action::Delete => format!("{} @{} deleted", op.id, op.version),
        });
    })?;
    Ok(found)
}

fn change<'a>(kind: ChangeKind, before: &[Value<'a>], after: &[Value<'a>]) -> Change<'a> {
    let row = |values: &[Value<'a>], offset| Row { values: values.to_vec(), offset };
    Change { kind, before: row(before, 100), after: row(after, 200) }
}

#[test]
fn only_the_named_columns_are_wanted_in_the_order_of_the_row() {
    let plan = plan("text:title number:id again:title", "t2 t1");
    assert_eq!(plan.wanted(), [0, 1, 2, 3]);
    assert_eq!(plan.table().to_string(), "db.test_table");
    let fields: Vec<_> =
        plan.fields().map(|(field, column)| (field, column.name.as_str())).collect();
    assert_eq!(fields, [("text", "title"), ("number", "id"), ("again", "title")]);
    assert_eq!(plan.keys().map(|key| key.name.as_str()).collect::<Vec<_>>(), ["t2", "t1"]);
}

#[test]
fn an_id_is_split_into_the_texts_that_it_was_joined_of() {
    let one = plan("text:title", "id");
    assert_eq!(one.key_texts("a|b\\c"), Some(vec!["a|b\\c".to_owned()]));
    let two = plan("text:title", "t2 t1");
    for (id, parts) in [
        ("a|1", Some(["a", "1"])),
        ("a\\|b\\\\|1", Some(["a|b\\", "1"])),
        ("|", Some(["", ""])),
        ("a", None),
        ("a|b|c", None),
        ("a\\b|1", None),
        ("a|1\\", None),
    ] {
        let parts = parts.map(|parts| parts.map(str::to_owned).to_vec());
        assert_eq!(two.key_texts(id), parts, "{id}");
    }
}

#[test]
fn the_document_holds_every_field_in_the_order_of_the_rules() {
    let plan = plan("obj.text:title n\"o:ID", "id");
    let mut body = Vec::new();
    plan.body(&[Value::Int(-7), Value::Text("é\n".as_bytes())], &mut body).expect("it is written");
    assert_eq!(String::from_utf8_lossy(&body), r#"{"obj.text":"é\n","n\"o":-7}"#);
    let mut body = Vec::new();
    plan.body(&[Value::Int(1), Value::Null], &mut body).expect("it is written");
    assert_eq!(String::from_utf8_lossy(&body), r#"{"obj.text":null,"n\"o":1}"#);
}

#[test]
fn a_change_of_the_key_deletes_the_old_document_and_writes_the_new_one() {
    let plan = plan("n:id", "id");
    let (one, two) = ([Value::Int(1)], [Value::Int(2)]);
    let said = |kind| operations(&plan, &change(kind, &one, &two)).expect("it is applied");
    assert_eq!(said(ChangeKind::Insert), [r#"2 @200 = {"n":2}"#]);
    assert_eq!(said(ChangeKind::Delete), ["1 @100 deleted"]);
    assert_eq!(said(ChangeKind::Update), ["1 @100 deleted", r#"2 @200 = {"n":2}"#]);
    let same = change(ChangeKind::Update, &one, &one);
    assert_eq!(operations(&plan, &same).expect("it is applied"), [r#"1 @200 = {"n":1}"#]);
}

#[test]
fn a_row_that_cannot_be_written_leaves_no_half_of_its_change() {
    let plan = plan("n:id text:title", "id");
    let bad = change(
        ChangeKind::Update,
        &[Value::Int(1), Value::Null],
        &[Value::Int(2), Value::Text(b"\xff")],
    );
    let mut count = 0;
    let error = plan
        .apply(&bad, |_| Version(1), &mut Scratch::default(), &mut |_| count += 1)
        .expect_err("the text is not UTF-8");
    assert_eq!(count, 0);
    assert_eq!(error.kind(), ErrorKind::DocumentRefused);
    insta::assert_snapshot!(error.report(), @"cannot write column `title` of db.test_table: its bytes are not valid UTF-8; mend the row: the value does not agree with the column's character set");
}

#[test]
fn an_id_of_several_columns_is_joined_and_escaped() {
    let plan = plan("n:t1", "t1 t2");
    let id = |one: &str, two: &str| {
        let mut id = String::new();
        let values = [Value::Text(one.as_bytes()), Value::Text(two.as_bytes())];
        plan.id(&values, &mut id).expect("it is an id");
        id
    };
    assert_eq!(id("a", "b"), "a|b");
    assert_eq!(id(r"a|", r"\b"), r"a\||\\b");
    assert_eq!(id("", ""), "|");
}

#[test]
fn an_id_that_cannot_be_is_refused_without_its_value() {
    let plan = plan("n:t1", "t1 t2");
    let (long, short) = ("secret".repeat(100), "x");
    let refused = |one: Value<'_>, two: Value<'_>| {
        let error = plan.id(&[one, two], &mut String::new()).expect_err("it is no id");
        format!("{:?}: {}", error.kind(), error.report())
    };
    let text = |text: &'static str| Value::Text(text.as_bytes());
    let single = compile(
        &spec("n:id", "id"),
        &TableDef {
            columns: vec![column("id", ColumnType::Text, "text")],
            unique_keys: vec![vec![0]],
            ..test_table()
        },
    );
    let empty =
        single.expect("right").id(&[text("")], &mut String::new()).expect_err("it is empty");
    let said = [
        refused(Value::Text(long.as_bytes()), Value::Text(short.as_bytes())),
        refused(text("a"), Value::Null),
        refused(text("a"), Value::Text(b"\xff")),
        format!("{:?}: {}", empty.kind(), empty.report()),
    ];
    insta::assert_snapshot!(said.join("\n"), @r#"
    DocumentRefused: an _id made of key column `t1`, `t2` of db.test_table has 602 bytes, more than 512; use another unique key, or mend the row
    Schema: cannot write column `t2` of db.test_table: it is NULL
    DocumentRefused: cannot write column `t2` of db.test_table: its bytes are not valid UTF-8; mend the row: the value does not agree with the column's character set
    DocumentRefused: an _id made of key column `id` of db.test_table is empty; use another unique key, or mend the row
    "#);
}

#[test]
fn keys_of_every_kind_are_their_text() {
    let zero = Value::Date { year: 0, month: 0, day: 0 };
    let cases = [
        (Value::UInt(u64::MAX), ColumnType::BigInt { unsigned: true }, "18446744073709551615"),
        (Value::DecimalText(b"-0.50"), ColumnType::Decimal { precision: 5, scale: 2 }, "-0.50"),
        (Value::Bytes(b"\x00\xff"), ColumnType::Bytes, "AP8="),
        (Value::Bytes(b"\x00"), ColumnType::Binary { length: 2 }, "AAA="),
        (zero, ColumnType::Date, "0000-00-00"),
        (Value::Text(b"\"a|b\\\""), ColumnType::Text, "\"a|b\\\""),
        (
            Value::Timestamp { seconds: 0, micros: 0, fsp: 0 },
            ColumnType::Timestamp { fsp: 1 },
            "0000-00-00T00:00:00.0Z",
        ),
    ];
    for (value, ty, text) in cases {
        let mut id = String::new();
        key::write_part(&value, &ty, false, &mut Vec::new(), &mut id).expect("it is a key");
        assert_eq!(id, text);
    }
}

#[test]
fn sync_by_table_maps_the_listed_columns_or_all() {
    let def = test_table();
    let all = Spec::of_table("i", &def, None, Span::new(3, 4));
    assert_eq!(all.rules.len(), def.columns.len());
    assert_eq!(all.keys.iter().map(|key| key.column.as_str()).collect::<Vec<_>>(), ["id"]);
    let listed = [("TITLE".to_owned(), Span::new(1, 6)), ("nil".to_owned(), Span::new(7, 10))];
    let spec = Spec::of_table("i", &def, Some(&listed), Span::default());
    assert_eq!((spec.rules[0].field.as_str(), spec.rules[1].column.as_str()), ("title", "nil"));
    assert_eq!(compile(&spec, &def).expect_err("nil is unknown")[0].span(), Some(listed[1].1));
}

#[test]
fn all_that_is_wrong_with_a_mapping_is_said_at_once() {
    let keyless = TableDef { primary_key: vec![], unique_keys: vec![], ..test_table() };
    let said = [
        problems("a:t3 b:bits c:titel d:id", "id", &test_table()),
        problems("a:id", "t1", &test_table()),
        problems("a:id", "id kind photo title", &test_table()),
        problems("a:id", "idd", &test_table()),
        problems("a:id", "", &test_table()),
        problems("a:id", "id", &keyless),
        problems("", "id", &test_table()),
    ];
    insta::assert_snapshot!(said.join("\n\n"), @r#"
    2..4 Input: unknown column `t3` in db.test_table; it has id, t1, t2, title, kind, photo, bits
    7..11 Unsupported: column `bits` of db.test_table is of type bit(3), which cannot be mapped: BIT is not yet read; leave the column out of the mapping
    14..19 Input: unknown column `titel` in db.test_table; it has id, t1, t2, title, kind, photo, bits; did you mean `title`?

    0..2 Input: two rows of db.test_table can have the same (t1), so one _id; the unique keys without NULL are (id), (t1, t2)

    3..7 Unsupported: column `kind` of db.test_table is of type enum('a'), which cannot be a key: the log names its values by number, and numbers move when labels change; use a column of integers, decimals, text, bytes or dates
    8..13 Unsupported: column `photo` of db.test_table is of type blob, which cannot be a key: its values are longer than an _id may be; use a column of integers, decimals, text, bytes or dates
    14..19 Input: column `title` of db.test_table may be NULL, so it cannot be a key; the unique keys without NULL are (id), (t1, t2)

    0..3 Input: unknown column `idd` in db.test_table; it has id, t1, t2, title, kind, photo, bits

    Input: no key says what the _id is made of; the unique keys without NULL are (id), (t1, t2)

    0..2 Input: db.test_table has no primary key and no unique key of NOT NULL columns; add one: ALTER TABLE `db`.`test_table` ADD PRIMARY KEY (…)

    Input: no column of db.test_table is mapped
    "#);
}

fn json_of(value: Value<'_>, ty: &ColumnType) -> String {
    let mut out = Vec::new();
    json::write(&value, ty, &mut out).expect("it is written");
    String::from_utf8(out).expect("JSON is UTF-8")
}

/// The examples of `docs/types.md`: `declaration`, how a SELECT gives the value, and what the page says of it.
#[test]
fn the_page_of_types_says_what_is_written() {
    let page = include_str!("../../docs/types.md");
    let (mut rows, mut options) = (Vec::new(), Vec::new());
    for line in page.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<_> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [types, _form, sql, example, _suggested] = cells[..] else {
            panic!("five cells: {line}")
        };
        if types.contains(" = ") {
            options.push((types.trim_matches('`'), cells[1].replace('`', ""), sql, example));
            continue;
        }
        rows.push((types.replace('`', ""), sql.trim_matches('`'), example.trim_matches('`')));
    }
    let mut left = examples();
    for (types, sql, example) in &rows {
        let at = left.iter().position(|(ty, text, _)| types.starts_with(ty) && text == sql);
        let at = at.unwrap_or_else(|| panic!("no example of {types} {sql} is checked"));
        let (_, _, written) = left.remove(at);
        for written in written {
            assert_eq!(&written, example, "{types} {sql}");
        }
    }
    assert!(left.is_empty(), "not on the page: {left:?}");
    check_options(&options);
}

/// The page's rows of options: option, type, value, and what becomes of it.
fn check_options(rows: &[(&str, String, &str, &str)]) {
    let mut left = other_forms();
    for (option, types, sql, example) in rows {
        let (sql, example) = (sql.trim_matches('`'), example.trim_matches('`'));
        let is_this = |form: &(&str, &str, &str, String)| {
            (form.0, form.2) == (*option, sql) && types.starts_with(form.1)
        };
        let at = left.iter().position(is_this);
        let at = at.unwrap_or_else(|| panic!("no example of {option} {types} {sql} is checked"));
        assert_eq!(left.remove(at).3, example, "{option} {types} {sql}");
    }
    assert!(left.is_empty(), "not on the page: {left:?}");
}

/// Option, beginning of the type, SQL value, and what is written.
fn other_forms() -> Vec<(&'static str, &'static str, &'static str, String)> {
    use ColumnType as T;
    use Value as V;
    let zero = V::Timestamp { seconds: 0, micros: 0, fsp: 0 };
    let date_time = |year, month, day, [hours, minutes, seconds]: [u8; 3], micros, fsp| {
        V::DateTime { year, month, day, hours, minutes, seconds, micros, fsp }
    };
    let at = date_time(2026, 3, 4, [5, 6, 7], 123_000, 3);
    let none = date_time(0, 0, 0, [0, 0, 0], 0, 0);
    let text = V::JsonText(b"{\"a\": [1, \"x y\"]}");
    let decimal = T::Decimal { precision: 8, scale: 2 };
    [
        ("tinyint1 = \"bool\"", "TINYINT(1)", "2", V::Int(2), T::TinyInt { unsigned: false }),
        ("bit1 = \"bool\"", "BIT(1)", "b'0'", V::UInt(0), T::Bit { length: 1 }),
        ("decimal = \"string\"", "DECIMAL", "-12.50", V::DecimalText(b"-12.50"), decimal),
        (
            "datetime_zone = \"+08:00\"",
            "DATETIME",
            "'2026-03-04 05:06:07.123'",
            at,
            T::DateTime { fsp: 3 },
        ),
        (
            "zero_date = \"string\"",
            "DATE(",
            "'2026-03-00'",
            V::Date { year: 2026, month: 3, day: 0 },
            T::Date,
        ),
        (
            "zero_date = \"string\"",
            "DATETIME",
            "'0000-00-00 00:00:00'",
            none,
            T::DateTime { fsp: 0 },
        ),
        (
            "zero_date = \"string\"",
            "TIMESTAMP",
            "'0000-00-00 00:00:00'",
            zero,
            T::Timestamp { fsp: 0 },
        ),
        ("json = \"string\"", "JSON", "'{\"a\": [1, \"x y\"]}'", text, T::Json),
        ("binary = \"hex\"", "BINARY", "x'01'", V::Bytes(&[1, 0, 0]), T::Binary { length: 3 }),
        ("binary = \"hex\"", "VARBINARY", "x'01ff'", V::Bytes(&[1, 255]), T::Bytes),
        (
            "spatial = \"wkt\"",
            "GEOMETRY",
            "ST_GeomFromText('POINT(10 20)', 4326)",
            V::Geometry(POINT),
            T::Geometry,
        ),
    ]
    .into_iter()
    .map(|(option, types, sql, value, ty)| {
        let types = types.trim_end_matches('(');
        (option, types, sql, in_form(option, types, value, ty))
    })
    .collect()
}

/// The only field of a document, written as `option` has it; NULL and the key are as ever.
fn in_form(option: &str, declared: &str, value: Value<'_>, ty: ColumnType) -> String {
    let (name, word) = option.split_once(" = ").expect("an option");
    let word = word.trim_matches('"').to_owned();
    let forms = Forms::from_words(&[(name.to_owned(), word)].into()).expect("an option");
    let mut def = test_table();
    def.columns[3] = column("title", ty, declared);
    let plan = compile(&spec("v:title", "id"), &def).expect("the mapping is right");
    let usual = {
        let mut out = Vec::new();
        plan.body(&[Value::Int(1), value], &mut out).expect("it is written");
        out
    };
    let plan = plan.in_forms(&forms);
    let body = |value| {
        let mut out = Vec::new();
        plan.body(&[Value::Int(1), value], &mut out).expect("it is written");
        String::from_utf8(out).expect("JSON is UTF-8")
    };
    let written = body(value);
    assert_ne!(written.as_bytes(), usual, "{option} changes nothing");
    assert_eq!(body(Value::Null), r#"{"v":null}"#, "{option}");
    let inner = written.strip_prefix(r#"{"v":"#).and_then(|rest| rest.strip_suffix('}'));
    inner.expect("one field").to_owned()
}

/// Values of every type, as the log has them.
fn one_of_each() -> Vec<(ColumnType, &'static str, Value<'static>)> {
    use ColumnType as T;
    use Value as V;
    let labels = || vec!["red".to_owned(), "gr\"n".to_owned()];
    let packed = V::PackedDecimal { bytes: &[0x7f, 0xff, 0xf3, 0xcd], precision: 8, scale: 2 };
    let day = V::Date { year: 2026, month: 3, day: 0 };
    let date_time = V::DateTime {
        year: 2026,
        month: 3,
        day: 4,
        hours: 5,
        minutes: 6,
        seconds: 7,
        micros: 8,
        fsp: 6,
    };
    let time = V::Time { negative: true, hours: 838, minutes: 59, seconds: 59, micros: 0, fsp: 6 };
    // {"a": 1}
    let document = b"\0\x01\0\x0c\0\x0b\0\x01\0\x05\x01\0a";
    let mut all = vec![
        (T::TinyInt { unsigned: false }, "tinyint(1)", V::Int(-7)),
        (T::BigInt { unsigned: true }, "bigint unsigned", V::UInt(u64::MAX)),
        (T::Float, "float", V::Float(0.1)),
        (T::Double, "double", V::Double(1e300)),
        (T::Decimal { precision: 8, scale: 2 }, "decimal(8,2)", packed),
        (T::Date, "date", day),
        (T::Time { fsp: 6 }, "time(6)", time),
        (T::DateTime { fsp: 6 }, "datetime(6)", date_time),
        (
            T::Timestamp { fsp: 3 },
            "timestamp(3)",
            V::Timestamp { seconds: 1_772_600_767, micros: 123_000, fsp: 3 },
        ),
        (T::Year, "year", V::Year(2026)),
        (T::Bit { length: 1 }, "bit(1)", V::UInt(1)),
        (T::Text, "text", V::Text("say \"hé\"".as_bytes())),
        (T::Binary { length: 9 }, "binary(9)", V::Binary { bytes: &[1], length: 9 }),
        (T::Bytes, "varbinary(9)", V::Bytes(&[1, 255])),
        (T::Enum { labels: labels() }, "enum('red','gr\"n')", V::Enum(2)),
        (T::Set { labels: labels() }, "set('red','gr\"n')", V::Set(3)),
        (T::Json, "json", V::JsonBinary(document)),
        (T::Geometry, "geometry", V::Geometry(POINT)),
        (T::Vector, "vector(2)", V::Vector(&[0, 0, 0x80, 0x3f, 0xcd, 0xcc, 0xcc, 0x3d])),
        (T::Uuid, "uuid", V::Binary { bytes: &[1; 16], length: 16 }),
        (T::Inet6, "inet6", V::Binary { bytes: &[1, 0, 0, 2], length: 16 }),
    ];
    for charset in Charset::ALL {
        all.push((T::TextIn { charset: *charset }, "text", V::Encoded(b"ab\xd6\xd0\0\0\0\x41")));
    }
    all
}

#[test]
fn a_row_of_every_type_is_written_without_an_allocation() {
    let (mut def, mut values) = (test_table(), vec![Value::Int(1), Value::Text(b"a|b")]);
    def.columns.truncate(2);
    for (at, (ty, declared, value)) in one_of_each().into_iter().enumerate() {
        def.columns.push(column(&format!("c{at}"), ty, declared));
        values.push(value);
    }
    def.unique_keys.truncate(1);
    let names: Vec<_> = def.columns.iter().map(|column| column.name.clone()).collect();
    let plan = compile(&spec(&names.join(" "), "id t1"), &def).expect("the mapping is right");
    let other = Forms::from_words(&forms_of_all_others()).expect("options");
    for plan in [plan.clone(), plan.in_forms(&other)] {
        let update = change(ChangeKind::Update, &values, &values);
        let (mut scratch, mut bytes) = (Scratch::default(), 0);
        let mut apply = || {
            let version = |offset: u32| Version(offset.into());
            let count = &mut |op: DocOp<'_>| bytes += op.body.len();
            plan.apply(&update, version, &mut scratch, count).expect("it is written");
        };
        // Buffers grow, and tables of character sets are made.
        apply();
        let counted = allocation_counter::measure(&mut apply);
        assert_eq!(counted.count_total, 0, "allocations");
        assert!(bytes > 1_000, "{bytes}");
    }
}

fn forms_of_all_others() -> std::collections::BTreeMap<String, String> {
    let words = [
        ("tinyint1", "bool"),
        ("bit1", "bool"),
        ("decimal", "string"),
        ("datetime_zone", "+08:00"),
        ("zero_date", "string"),
        ("json", "string"),
        ("binary", "hex"),
        ("spatial", "wkt"),
    ];
    let words = words.map(|(option, word)| (option.to_owned(), word.to_owned()));
    assert_eq!(words.len(), Forms::default().to_words().len(), "an option is left out");
    words.into()
}

#[test]
fn an_id_does_not_know_of_the_forms() {
    let words =
        [("binary", "hex"), ("decimal", "string"), ("datetime_zone", "Z"), ("bit1", "bool")];
    let words = words.map(|(option, word)| (option.to_owned(), word.to_owned()));
    let forms = Forms::from_words(&words.into()).expect("options");
    let mut def = test_table();
    def.columns[1].ty = ColumnType::Binary { length: 2 };
    def.columns[2].ty = ColumnType::Bit { length: 1 };
    let plan = compile(&spec("n:id", "t1 t2"), &def).expect("the mapping is right");
    let values = [Value::Int(7), Value::Bytes(&[1, 2]), Value::UInt(1)];
    let id = |plan: &Plan| {
        let mut id = String::new();
        plan.id(&values, &mut id).expect("it is an id");
        id
    };
    assert_eq!(id(&plan), "AQI=|1");
    assert_eq!(id(&plan.clone().in_forms(&forms)), "AQI=|1");
}

/// As the source stores it: longitude 20, latitude 10.
const POINT: &[u8] = b"\xe6\x10\0\0\x01\x01\0\0\0\0\0\0\0\0\0\x34\x40\0\0\0\0\0\0\x24\x40";

/// Beginning of the page's first cell, the SQL value, and the JSON that both representations of the value give.
fn examples() -> Vec<(&'static str, &'static str, Vec<String>)> {
    use ColumnType as T;
    use Value as V;
    let labels = || ["red", "green", "blue"].map(str::to_owned).to_vec();
    let all = |values: &[V<'_>], ty: T| values.iter().map(|value| json_of(*value, &ty)).collect();
    let date_time = V::DateTime {
        year: 2026,
        month: 3,
        day: 4,
        hours: 5,
        minutes: 6,
        seconds: 7,
        micros: 123_000,
        fsp: 3,
    };
    let no_day = V::DateTime {
        year: 2026,
        month: 3,
        day: 0,
        hours: 0,
        minutes: 0,
        seconds: 0,
        micros: 0,
        fsp: 0,
    };
    let moment = V::Timestamp { seconds: 1_772_600_767, micros: 123_000, fsp: 3 };
    let time = V::Time { negative: true, hours: 838, minutes: 59, seconds: 59, micros: 0, fsp: 1 };
    let small_time =
        V::Time { negative: false, hours: 5, minutes: 6, seconds: 7, micros: 0, fsp: 0 };
    let packed = V::PackedDecimal { bytes: &[0x7f, 0xff, 0xf3, 0xcd], precision: 8, scale: 2 };
    let zero = V::Timestamp { seconds: 0, micros: 0, fsp: 0 };
    vec![
        ("TINYINT", "-7", all(&[V::Int(-7)], T::TinyInt { unsigned: false })),
        (
            "BIGINT UNSIGNED",
            "18446744073709551615",
            all(&[V::UInt(u64::MAX)], T::BigInt { unsigned: true }),
        ),
        ("FLOAT", "0.1", all(&[V::Float(0.1)], T::Float)),
        ("DOUBLE", "1", all(&[V::Double(1.0)], T::Double)),
        (
            "DECIMAL",
            "-12.50",
            all(&[packed, V::DecimalText(b"-12.50")], T::Decimal { precision: 8, scale: 2 }),
        ),
        ("DATE", "'2026-03-04'", all(&[V::Date { year: 2026, month: 3, day: 4 }], T::Date)),
        ("DATE", "'2026-03-00'", all(&[V::Date { year: 2026, month: 3, day: 0 }], T::Date)),
        ("DATETIME", "'2026-03-04 05:06:07.123'", all(&[date_time], T::DateTime { fsp: 3 })),
        ("DATETIME", "'2026-03-00 00:00:00'", all(&[no_day], T::DateTime { fsp: 0 })),
        (
            "TIMESTAMP",
            "'2026-03-04 05:06:07.123'",
            all(&[moment, date_time], T::Timestamp { fsp: 3 }),
        ),
        ("TIMESTAMP", "'0000-00-00 00:00:00'", all(&[zero], T::Timestamp { fsp: 0 })),
        ("TIME", "'-838:59:59.0'", all(&[time], T::Time { fsp: 1 })),
        ("TIME", "'05:06:07'", all(&[small_time], T::Time { fsp: 0 })),
        ("BIT", "b'1010'", all(&[V::UInt(10)], T::Bit { length: 4 })),
        (
            "CHAR, …, in another",
            "_gbk x'd6d0'",
            all(&[V::Encoded(b"\xd6\xd0")], T::TextIn { charset: Charset::Gbk }),
        ),
        (
            "GEOMETRY",
            "ST_GeomFromText('POINT(10 20)', 4326)",
            all(&[V::Geometry(POINT)], T::Geometry),
        ),
        (
            "VECTOR",
            "STRING_TO_VECTOR('[1, 0.1]')",
            all(&[V::Vector(&[0, 0, 0x80, 0x3f, 0xcd, 0xcc, 0xcc, 0x3d])], T::Vector),
        ),
        ("YEAR", "2026", all(&[V::Year(2026), V::UInt(2026)], T::Year)),
        ("CHAR", "'say \"hé\"'", all(&[V::Text("say \"hé\"".as_bytes())], T::Text)),
        (
            "BINARY",
            "x'01'",
            all(
                &[V::Binary { bytes: &[1], length: 3 }, V::Bytes(&[1, 0, 0])],
                T::Binary { length: 3 },
            ),
        ),
        ("VARBINARY", "x'01ff'", all(&[V::Bytes(&[1, 255])], T::Bytes)),
        ("ENUM", "'green'", all(&[V::Enum(2), V::Label(b"green")], T::Enum { labels: labels() })),
        ("ENUM", "''", all(&[V::Enum(0), V::Label(b"")], T::Enum { labels: labels() })),
        (
            "SET",
            "'red,blue'",
            all(&[V::Set(5), V::Labels(b"red,blue")], T::Set { labels: labels() }),
        ),
        ("SET", "''", all(&[V::Set(0), V::Labels(b"")], T::Set { labels: labels() })),
        ("JSON", "'{\"a\": [1, \"x y\"]}'", all(&[V::JsonText(b"{\"a\": [1, \"x y\"]}")], T::Json)),
        (
            "JSON of",
            "'{\"a\": [1.50], \"a\": 2}'",
            all(&[V::JsonText(b"{\"a\": [1.50], \"a\": 2}")], T::JsonText),
        ),
        (
            "UUID",
            "'01234567-89AB-4DEF-8123-456789ABCD00'",
            all(
                &[
                    V::Binary {
                        bytes: b"\x01\x23\x45\x67\x89\xab\x4d\xef\x81\x23\x45\x67\x89\xab\xcd",
                        length: 16,
                    },
                    V::Text(b"01234567-89ab-4def-8123-456789abcd00"),
                ],
                T::Uuid,
            ),
        ),
        ("INET4", "'10.0.0.1'", all(&[V::Bytes(&[10, 0, 0, 1]), V::Text(b"10.0.0.1")], T::Inet4)),
        (
            "INET6",
            "'2001:db8:0:0:0:0:0:0'",
            all(&[V::Bytes(b"\x20\x01\x0d\xb8"), V::Text(b"2001:db8::")], T::Inet6),
        ),
        ("COMPRESSED", "'hello'", all(&[V::Packed(b"\0hello"), V::Text(b"hello")], T::Text)),
        ("any", "NULL", all(&[V::Null], T::Text)),
    ]
}

#[test]
fn white_space_inside_strings_of_json_stays() {
    let text = br#" { "a \" b" : [ 1 , "\\" , " } " ] } "#;
    assert_eq!(json_of(Value::JsonText(text), &ColumnType::Json), r#"{"a \" b":[1,"\\"," } "]}"#);
    assert_eq!(json_of(Value::JsonText(b""), &ColumnType::Json), "null");
    assert_eq!(json_of(Value::JsonText(br#""open\"#), &ColumnType::Json), r#""open\"#);
}

#[test]
fn a_text_that_is_no_json_is_refused_where_json_is_wanted_and_taken_where_text_is() {
    let ty = ColumnType::JsonText;
    assert_eq!(json_of(Value::JsonText(b""), &ty), "null");
    assert_eq!(json_of(Value::JsonText(b" [1.0, \"a  b\"] "), &ty), "[1.0,\"a  b\"]");
    for bad in ["1.", "{", "\"\\x\"", "secret"] {
        let error = json::write(&Value::JsonText(bad.as_bytes()), &ty, &mut Vec::new());
        let error = error.expect_err(bad);
        assert_eq!(error.kind(), ErrorKind::DocumentRefused);
        assert!(!error.report().contains("secret"));
    }
    let string = |text: &'static str| {
        in_form("json = \"string\"", "json", Value::JsonText(text.as_bytes()), ColumnType::JsonText)
    };
    assert_eq!(string("{\"a\": 1}"), r#""{\"a\":1}""#);
}

/// What a column holds does not depend on how it is stored.
#[test]
fn a_compressed_value_has_every_form_of_a_plain_one() {
    let hex = in_form("binary = \"hex\"", "blob", Value::Packed(b"\0\x01\xff"), ColumnType::Bytes);
    assert_eq!(hex, "\"01ff\"");
    let latin1 = ColumnType::TextIn { charset: Charset::Latin1 };
    assert_eq!(json_of(Value::Packed(b"\0caf\xe9"), &latin1), "\"café\"");
    assert_eq!(json_of(Value::Packed(b""), &ColumnType::Bytes), "\"\"");
    let wrong = json::write(&Value::Packed(b"\x001"), &ColumnType::Year, &mut Vec::new());
    assert_eq!(wrong.expect_err("no text").kind(), ErrorKind::Schema);
}

#[test]
fn zeros_in_front_of_a_decimal_go() {
    let ty = ColumnType::Decimal { precision: 8, scale: 2 };
    for (text, form) in [("00012.50", "12.50"), ("0.00", "0.00"), ("-.5", "-0.5"), ("000", "0")] {
        assert_eq!(json_of(Value::DecimalText(text.as_bytes()), &ty), form);
    }
    for bad in ["", "-", "1.", ".", "1e5", "1.2.3", "+1", "abc"] {
        let written = json::write(&Value::DecimalText(bad.as_bytes()), &ty, &mut Vec::new());
        assert_eq!(written.expect_err(bad).kind(), ErrorKind::Undecodable, "{bad}");
    }
}

#[test]
fn a_float_never_looks_like_an_integer() {
    for (number, form) in [(1.0, "1.0"), (-0.0, "-0.0"), (1e30, "1e+30"), (2.5e-7, "2.5e-7")] {
        assert_eq!(json_of(Value::Double(number), &ColumnType::Double), form);
    }
}

#[test]
fn a_value_of_another_type_is_an_error_and_not_a_guess() {
    let labels = vec!["a".to_owned()];
    let cases = [
        (Value::Int(1), ColumnType::Text, ErrorKind::Schema),
        (Value::Text(b"1"), ColumnType::Int { unsigned: false }, ErrorKind::Schema),
        (Value::Enum(2), ColumnType::Enum { labels: labels.clone() }, ErrorKind::Schema),
        (Value::Set(2), ColumnType::Set { labels }, ErrorKind::Schema),
        (Value::Float(f32::NAN), ColumnType::Float, ErrorKind::Undecodable),
    ];
    for (value, ty, kind) in cases {
        let error = json::write(&value, &ty, &mut Vec::new()).expect_err("it is foreign");
        assert_eq!(error.kind(), kind, "{}", error.report());
    }
}

/// MySQL's packed form of `digits` (precision of them, `scale` behind the point).
fn packed(negative: bool, digits: &str, scale: usize) -> Vec<u8> {
    const BYTES: [usize; 10] = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4];
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let head = whole.len() % 9;
    let mut groups = vec![&whole[..head]];
    groups.extend(
        whole.as_bytes()[head..].chunks(9).map(|g| std::str::from_utf8(g).expect("digits")),
    );
    groups.extend(fraction.as_bytes().chunks(9).map(|g| std::str::from_utf8(g).expect("digits")));
    let mut bytes: Vec<u8> = Vec::new();
    for group in groups.into_iter().filter(|group| !group.is_empty()) {
        let number: u32 = group.parse().expect("nine digits fit");
        bytes.extend(&number.to_be_bytes()[4 - BYTES[group.len()]..]);
    }
    if negative {
        bytes.iter_mut().for_each(|byte| *byte = !*byte);
    }
    bytes[0] ^= 0x80;
    bytes
}

proptest! {
    #[test]
    fn a_decimal_is_the_same_from_the_log_and_from_a_select(
        digits in "[0-9]{1,65}", scale in 0usize..=30, negative: bool,
    ) {
        let scale = scale.min(digits.len());
        let negative = negative && digits.bytes().any(|digit| digit != b'0');
        let bytes = packed(negative, &digits, scale);
        let (precision, scale_byte) = (digits.len() as u8, scale as u8);
        let ty = ColumnType::Decimal { precision, scale: scale_byte };
        let (whole, fraction) = digits.split_at(digits.len() - scale);
        let whole = whole.trim_start_matches('0');
        let text = format!(
            "{}{}{}{fraction}",
            if negative { "-" } else { "" },
            if whole.is_empty() { "0" } else { whole },
            if scale > 0 { "." } else { "" },
        );
        let log = json_of(Value::PackedDecimal { bytes: &bytes, precision, scale: scale_byte }, &ty);
        prop_assert_eq!(&log, &json_of(Value::DecimalText(text.as_bytes()), &ty));
        prop_assert_eq!(log, text);
    }

    #[test]
    fn a_binary_is_the_same_with_and_without_its_zeros(bytes in prop::collection::vec(any::<u8>(), 0..255), more in 0u16..20) {
        let length = (bytes.len() as u16 + more).min(255);
        let mut full = bytes.clone();
        full.resize(length.into(), 0);
        let cut = &full[..full.len() - full.iter().rev().take_while(|byte| **byte == 0).count()];
        let ty = ColumnType::Binary { length };
        let written = json_of(Value::Binary { bytes: cut, length }, &ty);
        prop_assert_eq!(&written, &json_of(Value::Bytes(&full), &ty));
        use base64::Engine as _;
        let back = base64::engine::general_purpose::STANDARD.decode(written.trim_matches('"'));
        prop_assert_eq!(back.expect("it is base64"), full);
    }

    #[test]
    fn labels_are_the_same_by_number_and_by_text(
        labels in prop::collection::vec("[^,]{0,6}", 1..64), bits: u64, number in 0usize..64,
    ) {
        let bits = if labels.len() < 64 { bits & ((1 << labels.len()) - 1) } else { bits };
        let named: Vec<_> = (0..labels.len()).filter(|bit| bits >> bit & 1 == 1).map(|bit| labels[bit].as_str()).collect();
        let number = number % (labels.len() + 1);
        let label = number.checked_sub(1).map_or("", |at| labels[at].as_str()).to_owned();
        let joined = named.join(",");
        let set = ColumnType::Set { labels: labels.clone() };
        prop_assert_eq!(json_of(Value::Set(bits), &set), json_of(Value::Labels(joined.as_bytes()), &set));
        let one = ColumnType::Enum { labels };
        prop_assert_eq!(json_of(Value::Enum(number as u16), &one), json_of(Value::Label(label.as_bytes()), &one));
    }

    #[test]
    fn a_timestamp_is_the_same_as_seconds_and_as_digits(seconds in 1u32.., micros in 0u32..1_000_000, fsp in 0u8..=6) {
        let (date, clock) = moment::utc(seconds, micros);
        let digits = Value::DateTime {
            year: date.year, month: date.month, day: date.day, hours: clock.hours as u8,
            minutes: clock.minutes, seconds: clock.seconds, micros, fsp: 6,
        };
        let ty = ColumnType::Timestamp { fsp };
        prop_assert_eq!(json_of(Value::Timestamp { seconds, micros, fsp }, &ty), json_of(digits, &ty));
    }

    #[test]
    fn json_without_white_space_means_the_same(value in json_values()) {
        let pretty = serde_json::to_string_pretty(&value).expect("it is JSON");
        let short = serde_json::to_string(&value).expect("it is JSON");
        prop_assert_eq!(json_of(Value::JsonText(pretty.as_bytes()), &ColumnType::Json), short);
    }

    #[test]
    fn floats_read_back_the_same(bits: u64) {
        let (long, short) = (f64::from_bits(bits), f32::from_bits(bits as u32));
        if long.is_finite() {
            let back: f64 = json_of(Value::Double(long), &ColumnType::Double).parse().expect("it is a number");
            prop_assert_eq!(back.to_bits(), long.to_bits());
        }
        if short.is_finite() {
            let text = json_of(Value::Float(short), &ColumnType::Float);
            prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{}", text);
            prop_assert_eq!(text.parse::<f32>().expect("it is a number").to_bits(), short.to_bits());
        }
    }

    #[test]
    fn different_keys_have_different_ids(
        one in ("[a|\\\\]{0,4}", "[a|\\\\]{0,4}"), other in ("[a|\\\\]{0,4}", "[a|\\\\]{0,4}"),
    ) {
        let plan = plan("n:t1", "t1 t2");
        let id = |(a, b): &(String, String)| {
            let mut id = String::new();
            plan.id(&[Value::Text(a.as_bytes()), Value::Text(b.as_bytes())], &mut id).expect("it is an id");
            id
        };
        prop_assert_eq!(id(&one) == id(&other), one == other);
    }
}

fn json_values() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<i64>().prop_map(Into::into),
        "[ \"\\\\\n{}a:,\\[\\]]{0,8}".prop_map(Into::into),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::btree_map("[ \"\\\\a]{0,4}", inner, 0..4)
                .prop_map(|map| map.into_iter().collect::<serde_json::Map<_, _>>().into()),
        ]
    })
}
