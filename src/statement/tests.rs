//! Statements and mapping strings as users write them, and what is said of those that are wrong.

use super::*;
use proptest::prelude::*;

const TUTORIAL: &str = r#"call dbms_etl.sync_by_map(
  "search",
  "test_index.my_text(db.test_table.t2),test_index.id(db.test_table.id)",
  "test_index.id=db.test_table.id",
  "",
  ""
);"#;

fn mapping_of(text: &str) -> Mapping {
    match parse(text) {
        Ok(Statement::SyncByMap(mapping)) => mapping,
        other => panic!("{text}: {other:?}"),
    }
}

fn table_of(text: &str) -> SyncByTable {
    match parse(text) {
        Ok(Statement::SyncByTable(table)) => table,
        other => panic!("{text}: {other:?}"),
    }
}

/// `field=db.table.column`, and each name again as its span cuts it out of the text.
fn written(assignment: &Assignment, text: &str) -> (String, String) {
    let Assignment { index, field, db, table, column } = assignment;
    let meant = [index, field, db, table, column].map(|name| name.text.as_str()).join(" ");
    let cut = [index, field, db, table, column].map(|name| &text[name.span.start..name.span.end]);
    (meant, cut.join(" "))
}

fn refusals<'t>(parse: impl Fn(&str) -> Option<crate::error::Error>, texts: &[&'t str]) -> String {
    let say = |text: &&'t str| match parse(text) {
        Some(error) => error.point_into(text),
        None => format!("UNEXPECTEDLY RIGHT: {text}"),
    };
    texts.iter().map(say).collect::<Vec<_>>().join("\n\n")
}

#[test]
fn the_tutorials_statement_is_read() {
    let mapping = mapping_of(TUTORIAL);
    assert_eq!(mapping.index.text, "test_index");
    let rules: Vec<_> = mapping.rules.iter().map(|rule| written(rule, TUTORIAL)).collect();
    let same = |text: &str| (text.to_owned(), text.to_owned());
    assert_eq!(
        rules,
        [same("test_index my_text db test_table t2"), same("test_index id db test_table id")]
    );
    assert_eq!(written(&mapping.keys[0], TUTORIAL), same("test_index id db test_table id"));
}

#[test]
fn case_quotes_comments_and_white_space_do_not_matter() {
    let text = "/* new */ CALL `DBMS_ETL` . Sync_By_Map -- here\n ('search', '\n  my-index2 . obj.te-xt ( `d``b` . \
                `t.1`.`c)` ) # rule\n',\n'my-index2._id = `d``b`.`t.1`.`i d`', ' ', '') ; ; -- done";
    let mapping = mapping_of(text);
    let (meant, cut) = written(&mapping.rules[0], text);
    assert_eq!(meant, "my-index2 obj.te-xt d`b t.1 c)");
    assert_eq!(cut, "my-index2 obj.te-xt `d``b` `t.1` `c)`");
    assert_eq!(mapping.keys[0].column.text, "i d");
}

#[test]
fn the_index_ends_at_the_first_dot_unless_it_is_ticked() {
    let rules = mapping_list("a.b.c(d.t.x), a.`b.d`(d.t.y)").expect("it is right");
    assert_eq!((rules[0].index.text.as_str(), rules[0].field.text.as_str()), ("a", "b.c"));
    assert_eq!(rules[1].field.text, "b.d");
    let rules = mapping_list("`a.b`.c(d.t.x)").expect("it is right");
    assert_eq!((rules[0].index.text.as_str(), rules[0].field.text.as_str()), ("a.b", "c"));
}

#[test]
fn sync_by_table_takes_a_list_or_all_columns() {
    let table =
        table_of("call dbms_etl.sync_by_table('search', 'd.`t``x`', 'logs.2026', 'id, `a b`')");
    assert_eq!((table.db.text.as_str(), table.table.text.as_str()), ("d", "t`x"));
    assert_eq!(table.index.text, "logs.2026");
    let columns = table.columns.expect("there is a list");
    assert_eq!(columns.iter().map(|c| c.text.as_str()).collect::<Vec<_>>(), ["id", "a b"]);
    for all in ["*", "", " ", " * "] {
        let text = format!("CALL dbms_etl.sync_by_table('search', 'd.t', 'i', '{all}')");
        assert_eq!(table_of(&text).columns, None);
    }
}

#[test]
fn links_are_shown_and_dropped() {
    assert_eq!(parse("call dbms_etl.show_sync_link()").ok(), Some(Statement::ShowSyncLink));
    let text = "call dbms_etl.drop_sync_link_by_id('l7');";
    let Ok(Statement::DropSyncLinkById { id }) = parse(text) else { panic!("{text}") };
    assert_eq!((id.text.as_str(), &text[id.span.start..id.span.end]), ("l7", "l7"));
    assert!(matches!(
        parse("CALL dbms_etl.show_sync_link_by_id(\"7\")"),
        Ok(Statement::ShowSyncLinkById { id }) if id.text == "7"
    ));
}

#[test]
fn the_beginning_of_a_procedure_is_taken_for_it() {
    let error = parse("CALL dbms_etl.drop_sync_link('a')").expect_err("there is none of that name");
    assert_eq!(error.advice(), Some("did you mean drop_sync_link_by_id?"));
}

#[test]
fn a_second_index_is_named_before_its_fields() {
    let text = "CALL dbms_etl.sync_by_map('search', 'i.a(d.t.x), j.a(d.t.y)', 'i.a=d.t.x', '', '')";
    let report = parse(text).expect_err("there are two").report();
    assert!(report.starts_with("one link feeds one index"), "{report}");
}

#[test]
fn an_error_points_through_quotes_and_escapes() {
    let text = "CALL dbms_etl.sync_by_map('search', 'i.a(`it''s`.`\\'é`.x), i.a(d.t.y)', 'i.a=d.t.x', '', '')";
    let error = parse(text).expect_err("the field is given twice");
    let span = error.span().expect("it has a place");
    assert_eq!(span.start, text.rfind("i.a(").expect("it is there") + 2);
    assert_eq!(&text[span.start..span.end], "a");
}

#[test]
fn a_misspelt_verb_is_told_its_form() {
    insta::assert_snapshot!(refusals(|text| parse(text).err(), &[
        "PASUE LINK x",
        "PAUSE x",
        "verfy link x",
        "SHOW TABLES",
    ]), @r#"
    unknown statement: it begins with `PASUE`; did you mean PAUSE? PAUSE | RESUME | RESET LINK <id>
      line 1, column 1
      | PASUE LINK x
      | ^^^^^

    expected LINK, found `x`; write PAUSE LINK <id>
      line 1, column 7
      | PAUSE x
      |       ^

    unknown statement: it begins with `verfy`; did you mean VERIFY? VERIFY LINK <id> [WHERE <condition>] [SAMPLE <n>%] [WITH VECTORS] [REPAIR]
      line 1, column 1
      | verfy link x
      | ^^^^^

    unknown statement: it begins with `SHOW`; it can be SHOW LINKS; SHOW | EXPORT DEAD LETTERS [OF LINK <id>]
      line 1, column 1
      | SHOW TABLES
      | ^^^^
    "#);
    assert_eq!(parse("show links").expect("a statement"), Statement::ShowSyncLink);
}

#[test]
fn a_wrong_statement_says_what_is_possible() {
    insta::assert_snapshot!(refusals(|text| parse(text).err(), &[
        "",
        "DROP TABLE x",
        "call",
        "call sync_by_map('search')",
        "call dbms_etl.sync_by_mop('search')",
        "call dbms_etl.frobnicate()",
        "call other.show_sync_link()",
        "call dbms_etl.sync_by_sql('x')",
        "call dbms_etl.show_sync_link",
        "call dbms_etl.show_sync_link(",
        "call dbms_etl.show_sync_link('7')",
        "call dbms_etl.show_sync_link() select 1",
        "call dbms_etl.show_sync_link(); select 1",
        "call dbms_etl.show_sync_link_by_id('')",
        "call dbms_etl.show_sync_link_by_id(x7)",
        "call dbms_etl.show_sync_link_by_id('7",
        "call dbms_etl.show_sync_link_by_id('7') /* end",
        "call /*!50000 dbms_etl */ .show_sync_link()",
        "call dbms_etl.sync_by_map('search', 'i.a(d.t.a)', 'i.a=d.t.a')",
        "call dbms_etl.sync_by_map('find', 'i.a(d.t.a)', 'i.a=d.t.a', '', '')",
        "call dbms_etl.sync_by_map('search', 'i.a(d.t.a)', ' ', '', '')",
        "call dbms_etl.sync_by_map('search', '', 'i.a=d.t.a', '', '')",
        "call dbms_etl.sync_by_map('search', 'i.a(d.t.a)', 'i.a=d.t.a', 'd.t.a=d.u.a', '')",
        "call dbms_etl.sync_by_map('search', 'i.a(d.t.a)', 'i.a=d.t.a', '', 'a > 1')",
        "call dbms_etl.sync_by_map('search', 'i.a(d.t.a)', 'j.a=d.t.a', '', '')",
        "call dbms_etl.sync_by_map('search', 'i.a(d.t.a)', 'i.id=d.u.id', '', '')",
        "call dbms_etl.sync_by_map('search', 'i.a(d.t.a)', 'i.a=d.t.b', '', '')",
        "call dbms_etl.sync_by_table('search', 't', 'i', '*')",
        "call dbms_etl.sync_by_table('search', 'a.b.c', 'i', '*')",
        "call dbms_etl.sync_by_table('search', 'a.b', 'My Index', '*')",
        "call dbms_etl.sync_by_table('search', 'a.b', 'Index', '*')",
        "call dbms_etl.sync_by_table('search', 'a.b', 'i', '*, a')",
        "call dbms_etl.sync_by_table('search', 'a.b', 'i', 'a, A')",
    ]), @r#"
    the statement is empty; this version knows CALL dbms_etl.sync_by_map("search", mapping list, key list, "", ""); CALL dbms_etl.sync_by_table("search", db.table, index, column list); CALL dbms_etl.show_sync_link(); CALL dbms_etl.show_sync_link_by_id(id); CALL dbms_etl.drop_sync_link_by_id(id); SHOW LINKS; PAUSE | RESUME | RESET LINK <id>; DROP LINK <id> [WITH INDEX]; SNAPSHOT LINK <id> [TABLE <db.table>] [WHERE <condition>]; VERIFY LINK <id> [WHERE <condition>] [SAMPLE <n>%] [WITH VECTORS] [REPAIR]; SHOW | EXPORT DEAD LETTERS [OF LINK <id>]; RETRY | DISCARD DEAD LETTERS OF LINK <id> [DOCUMENT '<_id>']; REBUILD LINK <id> [WITH <options>] | CANCEL | ROLLBACK; COPY LINK <id> TO INDEX <index> [AS <id>]
      line 1, column 1
      | 
      | ^

    unknown statement: it begins with `DROP`; it can be DROP LINK <id> [WITH INDEX]
      line 1, column 1
      | DROP TABLE x
      | ^^^^

    expected dbms_etl.<procedure>, found the end
      line 1, column 5
      | call
      |     ^

    unknown procedure sync_by_map; did you mean dbms_etl.sync_by_map?
      line 1, column 6
      | call sync_by_map('search')
      |      ^^^^^^^^^^^

    unknown procedure dbms_etl.sync_by_mop; did you mean sync_by_map?
      line 1, column 15
      | call dbms_etl.sync_by_mop('search')
      |               ^^^^^^^^^^^

    unknown procedure dbms_etl.frobnicate; dbms_etl has sync_by_map, sync_by_table, show_sync_link, show_sync_link_by_id, drop_sync_link_by_id
      line 1, column 15
      | call dbms_etl.frobnicate()
      |               ^^^^^^^^^^

    unknown procedure other.show_sync_link; did you mean dbms_etl.show_sync_link?
      line 1, column 6
      | call other.show_sync_link()
      |      ^^^^^^^^^^^^^^^^^^^^

    not yet: dbms_etl.sync_by_sql
      line 1, column 15
      | call dbms_etl.sync_by_sql('x')
      |               ^^^^^^^^^^^

    expected `(` behind the procedure, found the end
      line 1, column 29
      | call dbms_etl.show_sync_link
      |                             ^

    expected argument 1 as a quoted string, found the end
      line 1, column 30
      | call dbms_etl.show_sync_link(
      |                              ^

    dbms_etl.show_sync_link takes 0 arguments, here are 1; it is written dbms_etl.show_sync_link()
      line 1, column 30
      | call dbms_etl.show_sync_link('7')
      |                              ^^^

    expected the end of the statement, found `select`
      line 1, column 32
      | call dbms_etl.show_sync_link() select 1
      |                                ^^^^^^

    one statement at a time
      line 1, column 33
      | call dbms_etl.show_sync_link(); select 1
      |                                 ^^^^^^

    the id is empty; CALL dbms_etl.show_sync_link() lists the links
      line 1, column 36
      | call dbms_etl.show_sync_link_by_id('')
      |                                    ^^

    expected argument 1 as a quoted string, found `x7`
      line 1, column 36
      | call dbms_etl.show_sync_link_by_id(x7)
      |                                    ^^

    this string has no closing '
      line 1, column 36
      | call dbms_etl.show_sync_link_by_id('7
      |                                    ^

    this comment has no closing */
      line 1, column 41
      | call dbms_etl.show_sync_link_by_id('7') /* end
      |                                         ^^

    this version does not read comments that are to be executed
      line 1, column 6
      | call /*!50000 dbms_etl */ .show_sync_link()
      |      ^^

    dbms_etl.sync_by_map takes 5 arguments, here are 3; it is written dbms_etl.sync_by_map("search", mapping list, key list, "", "")
      line 1, column 62
      | call dbms_etl.sync_by_map('search', 'i.a(d.t.a)', 'i.a=d.t.a')
      |                                                              ^

    unknown target `find`; the first argument is always "search"
      line 1, column 27
      | call dbms_etl.sync_by_map('find', 'i.a(d.t.a)', 'i.a=d.t.a', '', '')
      |                           ^^^^^^

    the key list is empty; name the columns that make _id: index.field=db.table.column
      line 1, column 51
      | call dbms_etl.sync_by_map('search', 'i.a(d.t.a)', ' ', '', '')
      |                                                   ^^^

    the mapping list is empty; name at least one column: index.field(db.table.column)
      line 1, column 37
      | call dbms_etl.sync_by_map('search', '', 'i.a=d.t.a', '', '')
      |                                     ^^

    not yet: join conditions (argument 4); leave it empty: ""
      line 1, column 64
      | call dbms_etl.sync_by_map('search', 'i.a(d.t.a)', 'i.a=d.t.a', 'd.t.a=d.u.a', '')
      |                                                                ^^^^^^^^^^^^^

    not yet: a row filter (argument 5); leave it empty: ""
      line 1, column 68
      | call dbms_etl.sync_by_map('search', 'i.a(d.t.a)', 'i.a=d.t.a', '', 'a > 1')
      |                                                                    ^^^^^^^

    one link feeds one index, but here are `i` and `j`; make a link for each index
      line 1, column 52
      | call dbms_etl.sync_by_map('search', 'i.a(d.t.a)', 'j.a=d.t.a', '', '')
      |                                                    ^

    not yet: joins; a link reads one table, but here are d.t and d.u
      line 1, column 57
      | call dbms_etl.sync_by_map('search', 'i.a(d.t.a)', 'i.id=d.u.id', '', '')
      |                                                         ^^^

    field `a` is mapped from column `a`, not from this one
      line 1, column 60
      | call dbms_etl.sync_by_map('search', 'i.a(d.t.a)', 'i.a=d.t.b', '', '')
      |                                                            ^

    expected `.` and a table behind the database, found the end; the second argument is written db.table
      line 1, column 41
      | call dbms_etl.sync_by_table('search', 't', 'i', '*')
      |                                         ^

    expected the end behind the table, found `.`; the second argument is written db.table
      line 1, column 43
      | call dbms_etl.sync_by_table('search', 'a.b.c', 'i', '*')
      |                                           ^

    expected the end of the argument, found `Index`
      line 1, column 50
      | call dbms_etl.sync_by_table('search', 'a.b', 'My Index', '*')
      |                                                  ^^^^^

    `Index` cannot be the name of an index; index names are written in lower case
      line 1, column 47
      | call dbms_etl.sync_by_table('search', 'a.b', 'Index', '*')
      |                                               ^^^^^

    expected nothing behind `*`, found `,`
      line 1, column 53
      | call dbms_etl.sync_by_table('search', 'a.b', 'i', '*, a')
      |                                                     ^

    column `A` is given twice
      line 1, column 55
      | call dbms_etl.sync_by_table('search', 'a.b', 'i', 'a, A')
      |                                                       ^
    "#);
}

#[test]
fn a_wrong_mapping_list_points_at_the_character() {
    insta::assert_snapshot!(refusals(|text| mapping_list(text).err(), &[
        "",
        "i",
        "i.a",
        "i(d.t.a)",
        "i.a(t.a)",
        "i.a(d.t.a.b)",
        "i.a(d.t.a",
        "i.a(d.t.a) i.b(d.t.b)",
        "i.a(d.t.a),",
        "i.a=d.t.a",
        "i.'a'(d.t.a)",
        "i.a(d.t.``)",
        "i.a(d.t.a),\n  i.b(d.u.b)",
        "i.a(d.t.a), j.b(d.t.b)",
        "i.a(d.t.a), i.a(d.t.b)",
        "i._id(d.t.a)",
        "_i.a(d.t.a)",
    ]), @r#"
    the list is empty; a rule is written index.field(db.table.column)
      line 1, column 1
      | 
      | ^

    expected `.` and a field behind the index, found the end; a rule is written index.field(db.table.column)
      line 1, column 2
      | i
      |  ^

    expected `(` behind the field, found the end; a rule is written index.field(db.table.column)
      line 1, column 4
      | i.a
      |    ^

    expected `.` and a field behind the index, found `(`; a rule is written index.field(db.table.column)
      line 1, column 2
      | i(d.t.a)
      |  ^

    expected `.` and a column behind the table, found `)`; a rule is written index.field(db.table.column)
      line 1, column 8
      | i.a(t.a)
      |        ^

    expected `)` behind the column, found `.`; a rule is written index.field(db.table.column)
      line 1, column 10
      | i.a(d.t.a.b)
      |          ^

    expected `)` behind the column, found the end; a rule is written index.field(db.table.column)
      line 1, column 10
      | i.a(d.t.a
      |          ^

    expected `,` or the end, found `i`; a rule is written index.field(db.table.column)
      line 1, column 12
      | i.a(d.t.a) i.b(d.t.b)
      |            ^

    expected the name of an index, found the end; a rule is written index.field(db.table.column)
      line 1, column 12
      | i.a(d.t.a),
      |            ^

    expected `(` behind the field, found `=`; a rule is written index.field(db.table.column)
      line 1, column 4
      | i.a=d.t.a
      |    ^

    expected the name of a field, found a string; a rule is written index.field(db.table.column)
      line 1, column 3
      | i.'a'(d.t.a)
      |   ^^^

    a name is empty
      line 1, column 9
      | i.a(d.t.``)
      |         ^^

    not yet: joins; a link reads one table, but here are d.t and d.u
      line 2, column 7
      |   i.b(d.u.b)
      |       ^^^

    one link feeds one index, but here are `i` and `j`; make a link for each index
      line 1, column 13
      | i.a(d.t.a), j.b(d.t.b)
      |             ^

    field `a` is given twice
      line 1, column 15
      | i.a(d.t.a), i.a(d.t.b)
      |               ^

    no document can have a field called `_id`; choose another name
      line 1, column 3
      | i._id(d.t.a)
      |   ^^^

    `_i` cannot be the name of an index; index names do not begin with `_`, `-` or `+`
      line 1, column 1
      | _i.a(d.t.a)
      | ^^
    "#);
}

#[test]
fn a_wrong_key_list_points_at_the_character() {
    insta::assert_snapshot!(refusals(|text| key_list(text).err(), &[
        "i.a(d.t.a)",
        "i.a=d.t.a)",
        "i.a=d.t.a, i.b=d.t.A",
        "i.a==d.t.a",
    ]), @r#"
    expected `=` behind the field, found `(`; a key is written index.field=db.table.column
      line 1, column 4
      | i.a(d.t.a)
      |    ^

    expected `,` or the end, found `)`; a key is written index.field=db.table.column
      line 1, column 10
      | i.a=d.t.a)
      |          ^

    column `A` is in the key list twice
      line 1, column 16
      | i.a=d.t.a, i.b=d.t.A
      |                ^^^^^

    expected the name of a database, found `=`; a key is written index.field=db.table.column
      line 1, column 5
      | i.a==d.t.a
      |     ^
    "#);
}

#[test]
fn the_statements_of_the_page_are_read() {
    let page = include_str!("../../docs/statements.md");
    let mut statements: Vec<&str> = Vec::new();
    for block in page.split("```sql\n").skip(1) {
        let block = block.split("```").next().expect("a split has a first part");
        statements.extend(block.split_inclusive(';').filter(|text| !text.trim().is_empty()));
    }
    assert_eq!(statements.len(), 24, "{statements:?}");
    for statement in statements {
        parse(statement).unwrap_or_else(|error| panic!("{}", error.point_into(statement)));
    }
    let mapping = mapping_list("`logs.2026`.text(`my.db`.`t``1`.`a b`)").expect("the page says so");
    assert_eq!(
        (mapping[0].index.text.as_str(), mapping[0].table.text.as_str()),
        ("logs.2026", "t`1")
    );
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC{0,80}") {
        for error in [parse(&text).err(), mapping_list(&text).err(), key_list(&text).err()].into_iter().flatten() {
            error.point_into(&text);
        }
    }

    #[test]
    fn an_error_in_a_statement_lies_on_character_boundaries(
        list in "[a-z.,()=`'\"\\\\é \n#*/!-]{0,40}", keys in "[a-c.=,`\\\\' ]{0,20}",
    ) {
        let text = format!("CALL dbms_etl.sync_by_map(\"search\", \"{list}\", '{keys}', '', '')");
        if let Err(error) = parse(&text) {
            let span = error.span().expect("every error of a statement has a place");
            prop_assert!(span.start <= span.end && text.get(span.start..span.end).is_some(), "{span:?}");
        }
    }

    #[test]
    fn whatever_is_quoted_comes_back(name in "\\PC{1,20}", quote in prop::sample::select(vec!['\'', '"'])) {
        let ticked = format!("`{}`", name.replace('`', "``"));
        let list = format!("i.f(d.{ticked}.c)");
        let quoted: String = list
            .chars()
            .flat_map(|c| if c == quote || c == '\\' { vec!['\\', c] } else { vec![c] })
            .collect();
        let text = format!("call dbms_etl.sync_by_map('search', {quote}{quoted}{quote}, 'i.f=d.`x`.c', '', '')");
        match parse(&text) {
            Ok(Statement::SyncByMap(mapping)) => prop_assert_eq!(&mapping.rules[0].table.text, &name),
            Ok(other) => prop_assert!(false, "{:?}", other),
            Err(error) => prop_assert!(name != "x" && error.kind() == crate::error::ErrorKind::Unsupported, "{:?}", error),
        }
    }
}

fn verification(text: &str) -> VerifyLink {
    match parse(text) {
        Ok(Statement::VerifyLink(verification)) => verification,
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn a_verification_is_read_with_its_clauses_in_any_order() {
    let plain = verification("verify link products;");
    let none = (plain.condition, plain.sample_ppm, plain.with_vectors, plain.repair);
    assert_eq!((plain.link.text.as_str(), none), ("products", (None, None, false, false)));
    let text = "VERIFY LINK `a b` REPAIR SAMPLE 0.5 % WITH VECTORS WHERE a = '(;' AND (with = 1 /* x */ OR `repair` > 2.5) -- y\n;";
    let all = verification(text);
    let condition = all.condition.expect("a condition");
    assert_eq!(condition.text, "a = '(;' AND (with = 1 /* x */ OR `repair` > 2.5)");
    assert_eq!(&text[condition.span.start..condition.span.end], condition.text);
    assert_eq!((all.sample_ppm, all.with_vectors, all.repair), (Some(5_000), true, true));
    for (text, id) in [
        ("VERIFY LINK logs-2026.07", "logs-2026.07"),
        ("VERIFY LINK 'it''s'", "it's"),
        ("verify LINK a WHERE b < 1 repair", "a"),
    ] {
        assert_eq!(verification(text).link.text, id);
    }
    for (share, ppm) in [("100%", 1_000_000), ("5%", 50_000), ("12.5%", 125_000), ("0.0001%", 1)] {
        assert_eq!(verification(&format!("VERIFY LINK a SAMPLE {share}")).sample_ppm, Some(ppm));
    }
}

#[test]
fn a_wrong_verification_is_pointed_at() {
    let say = |text: &&'static str| match parse(text) {
        Err(error) => {
            let (message, span) = (error.to_string(), error.span().expect("a place"));
            format!("{message} [{}]", &text[span.start..span.end])
        }
        Ok(read) => panic!("{text}: {read:?}"),
    };
    let texts = [
        "VERIFY products",
        "VERIFY LINK",
        "VERIFY LINK a b",
        "VERIFY LINK a WHERE REPAIR",
        "VERIFY LINK a WHERE (b = 1",
        "VERIFY LINK a WHERE 1) OR (1 = 1",
        "VERIFY LINK a WHERE b /*! = 1 */",
        "VERIFY LINK a SAMPLE 5",
        "VERIFY LINK a SAMPLE 0%",
        "VERIFY LINK a SAMPLE 101%",
        "VERIFY LINK a SAMPLE x%",
        "VERIFY LINK a WITH REPAIR",
        "VERIFY LINK a REPAIR REPAIR",
        "VERIFY LINK a REPAIR; VERIFY LINK a",
    ];
    insta::assert_snapshot!(texts.iter().map(say).collect::<Vec<_>>().join("\n"), @r"
    expected LINK behind VERIFY, found `products` [products]
    expected the id of a link, found the end []
    expected a clause or the end of the statement, found `b` [b]
    the condition is empty [WHERE]
    this parenthesis is not closed [(]
    this parenthesis closes nothing [)]
    this version does not read comments that are to be executed [/*]
    a sample is a share like 5%, of at least 0.0001% and at most 100% [5]
    a sample is a share like 5%, of at least 0.0001% and at most 100% [0%]
    a sample is a share like 5%, of at least 0.0001% and at most 100% [101%]
    a sample is a share like 5%, of at least 0.0001% and at most 100% [x%]
    expected VECTORS behind WITH, found `REPAIR` [REPAIR]
    REPAIR is given twice [REPAIR]
    one statement at a time [VERIFY]
    ");
}

#[test]
fn statements_on_dead_letters_are_read() {
    let letters = |text: &str| match parse(text) {
        Ok(Statement::ShowDeadLetters { link }) => ("show", link, None),
        Ok(Statement::RetryDeadLetters { link, document }) => ("retry", Some(link), document),
        Ok(Statement::DiscardDeadLetters { link, document }) => ("discard", Some(link), document),
        other => panic!("{text}: {other:?}"),
    };
    let texts = |text: &str| {
        let (verb, link, document) = letters(text);
        (verb, link.map(|link| link.text), document.map(|document| document.text))
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(texts("show dead letters;"), ("show", None, None));
    assert_eq!(
        texts("SHOW DEAD LETTERS OF LINK logs-2026.07"),
        ("show", some("logs-2026.07"), None)
    );
    assert_eq!(texts("RETRY DEAD LETTERS OF LINK a;"), ("retry", some("a"), None));
    let quoted = "Discard Dead Letters Of Link `a b` Document '7|it''s'";
    assert_eq!(texts(quoted), ("discard", some("a b"), some("7|it's")));

    let say = |text: &&'static str| match parse(text) {
        Err(error) => {
            let (message, span) = (error.to_string(), error.span().expect("a place"));
            format!("{message} [{}]", &text[span.start..span.end])
        }
        Ok(read) => panic!("{text}: {read:?}"),
    };
    let wrong = [
        "SHOW DEAD",
        "SHOW DEAD LETTERS LINK a",
        "RETRY DEAD LETTERS",
        "RETRY DEAD LETTERS OF LINK",
        "DISCARD DEAD LETTERS OF LINK a 7",
        "DISCARD DEAD LETTERS OF LINK a DOCUMENT",
        "SHOW DEAD LETTERS OF LINK a DOCUMENT '7'",
    ];
    insta::assert_snapshot!(wrong.iter().map(say).collect::<Vec<_>>().join("\n"), @r"
    expected LETTERS, found the end []
    expected OF, found `LINK` [LINK]
    expected OF, found the end []
    expected the id of a link, found the end []
    expected DOCUMENT, found `7` [7]
    expected the `_id` of a document, in quotes, found the end []
    expected the end of the statement, found `DOCUMENT` [DOCUMENT]
    ");
}

#[test]
fn rows_of_a_snapshot_are_named_by_table_and_condition() {
    let text = "snapshot link `my link` table shop.`t 1` where (a = ')') or b = 1 -- x";
    let Ok(Statement::SnapshotLink(read)) = parse(text) else { panic!("{text}") };
    let (db, table) = read.table.expect("it is named");
    assert_eq!((&*read.id.text, &*db.text, &*table.text), ("my link", "shop", "t 1"));
    assert_eq!(read.condition.expect("there is one").text, "(a = ')') or b = 1");
    let Ok(Statement::SnapshotLink(read)) = parse("SNAPSHOT LINK x;") else { panic!("it is one") };
    assert_eq!((read.table, read.condition), (None, None));
    for text in [
        "SNAPSHOT x",
        "SNAPSHOT LINK x TABLE t",
        "SNAPSHOT LINK x WHERE",
        "SNAPSHOT LINK x WHERE a = 1)",
        "SNAPSHOT LINK x WHERE (a = 1",
        "SNAPSHOT LINK x WHERE a = 1; DROP TABLE t",
        "SNAPSHOT LINK x ROWS",
    ] {
        assert!(parse(text).is_err(), "{text}");
    }
}

#[test]
fn a_rebuild_is_read_with_its_options_in_any_order() {
    let rebuild = |text: &str| match parse(text) {
        Ok(Statement::RebuildLink(rebuild)) => rebuild,
        other => panic!("{text}: {other:?}"),
    };
    let options = |text: &str| match rebuild(text).what {
        Rebuild::Begin(options) => options,
        other => panic!("{text}: {other:?}"),
    };
    assert_eq!(options("rebuild link products;"), RebuildOptions::default());
    assert_eq!(rebuild("REBUILD LINK `a b` CANCEL").what, Rebuild::Cancel);
    assert_eq!(rebuild("REBUILD LINK logs-2026.07 rollback;").what, Rebuild::Rollback);
    let text = "REBUILD LINK p WITH KEEP OLD 2 Hours, PIPELINE 'm', MAPPING 'p.a(d.t.b), p.b(d.t.c)', INDEX '{\"mappings\": {}}'";
    let all = options(text);
    assert_eq!(all.keep_old.map(|keep| keep.secs), Some(7_200));
    assert_eq!(all.pipeline.map(|name| name.text).as_deref(), Some("m"));
    assert_eq!(all.index.map(|name| name.text).as_deref(), Some("{\"mappings\": {}}"));
    let mapping = all.mapping.expect("rules");
    assert_eq!((mapping.len(), mapping[1].column.text.as_str()), (2, "c"));
    assert_eq!(&text[mapping[1].column.span.start..mapping[1].column.span.end], "c");
    for (keep, secs) in
        [("0", 0), ("0 DAYS", 0), ("1 SECOND", 1), ("3 minutes", 180), ("2 DAY", 172_800)]
    {
        let read = options(&format!("REBUILD LINK p WITH KEEP OLD {keep}"));
        assert_eq!(read.keep_old.map(|keep| keep.secs), Some(secs));
    }
    let Ok(Statement::CopyLink(copy)) = parse("copy link a.b to index logs.x-2 as `c d`;") else {
        panic!("it is a copy")
    };
    assert_eq!((&*copy.link.text, &*copy.index.text), ("a.b", "logs.x-2"));
    assert_eq!(copy.id.expect("an id").text, "c d");
}

#[test]
fn a_wrong_rebuild_is_pointed_at() {
    let say = |text: &&'static str| match parse(text) {
        Err(error) => {
            let (message, span) = (error.to_string(), error.span().expect("a place"));
            format!("{message} [{}]", &text[span.start..span.end])
        }
        Ok(read) => panic!("{text}: {read:?}"),
    };
    let texts = [
        "REBUILD products",
        "REBUILD LINK",
        "REBUILD LINK a NOW",
        "REBUILD LINK a WITH",
        "REBUILD LINK a WITH REPAIR",
        "REBUILD LINK a WITH KEEP 1 DAY",
        "REBUILD LINK a WITH KEEP OLD 1",
        "REBUILD LINK a WITH KEEP OLD ever",
        "REBUILD LINK a WITH KEEP OLD 99999999 DAYS",
        "REBUILD LINK a WITH PIPELINE m",
        "REBUILD LINK a WITH PIPELINE ' '",
        "REBUILD LINK a WITH PIPELINE 'm' INDEX '{}'",
        "REBUILD LINK a WITH PIPELINE 'm', PIPELINE 'n'",
        "REBUILD LINK a WITH INDEX '{\"settings\": {\"é\": x}}'",
        "REBUILD LINK a WITH INDEX '{}'",
        "REBUILD LINK a WITH INDEX '{\"fields\": {}}'",
        "REBUILD LINK a WITH INDEX '{\"settings\": 1}'",
        "REBUILD LINK a WITH MAPPING 'a.b(d.t)'",
        "REBUILD LINK a CANCEL ROLLBACK",
        "COPY LINK a INDEX b",
        "COPY LINK a TO INDEX B",
        "COPY LINK a TO INDEX b c",
    ];
    insta::assert_snapshot!(texts.iter().map(say).collect::<Vec<_>>().join("\n"), @r#"
    expected LINK, found `products` [products]
    expected the id of a link, found the end []
    expected WITH, CANCEL, ROLLBACK or the end, found `NOW` [NOW]
    expected INDEX, MAPPING, PIPELINE or KEEP OLD, found the end []
    expected INDEX, MAPPING, PIPELINE or KEEP OLD, found `REPAIR` [REPAIR]
    expected OLD, found `1` [1]
    expected SECOND, MINUTE, HOUR or DAY, found the end []
    expected a number of SECOND, MINUTE, HOUR or DAY, found `ever` [ever]
    nothing is kept for so long [KEEP OLD 99999999 DAYS]
    expected the name of a pipeline in quotes, found `m` [m]
    the pipeline has no name [' ']
    expected `,` or the end of the statement, found `INDEX` [INDEX]
    PIPELINE is given twice [PIPELINE]
    this is not JSON: expected value [x]
    INDEX says nothing ['{}']
    unknown key `fields` ['{"fields": {}}']
    `settings` is not an object ['{"settings": 1}']
    expected `.` and a column behind the table, found `)` [)]
    expected the end of the statement, found `ROLLBACK` [ROLLBACK]
    expected TO, found `INDEX` [INDEX]
    `B` cannot be the name of an index [B]
    expected AS, found `c` [c]
    "#);
}
