//! The forms of values that a link may choose: from the file's section and from its own table, by snapshot and by stream,
//! and kept with the link whatever the file says later.

use serde_json::{Value, json};
use toml::Table;

use crate::support::daemon::Setup;
use crate::support::search::Search;
use crate::support::servers::{self, Flavour};
use crate::support::{SECONDS_30, until};

const COLUMNS: &str = "id INT PRIMARY KEY, flag TINYINT(1), small TINYINT, bit1 BIT(1), price DECIMAL(40,2), \
    at DATETIME(3), day DATE, stamp TIMESTAMP NULL, doc JSON, hash BINARY(3), raw BLOB, place POINT SRID 4326";

const VALUES: &str = "1, -2, b'1', '123456789012345678901234567890.10', '2026-03-04 05:06:07.5', '2026-03-00', \
    '0000-00-00 00:00:00', '{\"a\": \"x\\\\\"y\"}', X'01', X'ff00', ST_GeomFromText('POINT(10 20.5)', 4326)";

/// With every option, and the price at least with none.
fn chosen(id: u32) -> Value {
    json!({
        "id": id, "flag": true, "small": -2, "bit1": true, "price": "123456789012345678901234567890.10",
        "at": "2026-03-04T05:06:07.500+08:00", "day": "2026-03-00", "stamp": "0000-00-00T00:00:00Z",
        "doc": "{\"a\":\"x\\\"y\"}", "hash": "010000", "raw": "ff00", "place": "POINT(20.5 10)"
    })
}

/// The section of the file has BIT(1) and BINARY otherwise, and nothing else.
fn common(id: u32) -> Value {
    json!({
        "id": id, "flag": 1, "small": -2, "bit1": true,
        "price": 123_456_789_012_345_678_901_234_567_890.10_f64,
        "at": "2026-03-04T05:06:07.500", "day": null, "stamp": null, "doc": {"a": "x\"y"},
        "hash": "010000", "raw": "ff00", "place": {"type": "Point", "coordinates": [20.5, 10.0]}
    })
}

async fn until_there(search: &Search, index: &str, expected: impl Fn(u32) -> Value, ids: u32) {
    for id in 1..=ids {
        until(&format!("row {id} is a document of {index}"), SECONDS_30, async || {
            let found = search.doc(index, &id.to_string()).await.map(|doc| doc.source);
            if found == Some(expected(id)) { Ok(()) } else { Err(format!("it is {found:?}")) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_writes_the_forms_that_it_was_made_with() {
    let mysql = servers::mysql(Flavour::Mysql97);
    let search = servers::opensearch();
    let db = mysql.database("forms").await;
    mysql.exec(format!("CREATE TABLE {db}.t ({COLUMNS})")).await;
    let mut session = mysql.session().await;
    let mut insert = async |id: u32| {
        use mysql_async::prelude::Queryable;
        let insert = format!("INSERT INTO {db}.t VALUES ({id}, {VALUES})");
        for sql in ["SET sql_mode = ''", insert.as_str()] {
            session.query_drop(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        }
    };
    insert(1).await;
    let any = json!({"mappings": {"dynamic": false}});
    let (own, by_sql) =
        (search.index("forms_own", any.clone()).await, search.index("forms_sql", any).await);
    let text = format!(
        "[[links]]\ntable = \"{db}.t\"\nindex = \"{own}\"\n\
         [links.types]\ntinyint1 = \"bool\"\ndecimal = \"string\"\ndatetime_zone = \"+08:00\"\n\
         zero_date = \"string\"\njson = \"string\"\nspatial = \"wkt\"\n"
    );
    let links = text.parse::<Table>().expect("is TOML").remove("links").expect("is there");
    let mut daemon = Setup::new(&mysql, search.url())
        .set("link.types.bit1", "bool")
        .set("link.types.binary", "hex")
        .set("links", links)
        .start()
        .await;
    daemon.sql(&format!("CALL dbms_etl.sync_by_table('search', '{db}.t', '{by_sql}', '')")).await;
    until_there(&search, &own, chosen, 1).await;
    until_there(&search, &by_sql, common, 1).await;
    insert(2).await;
    until_there(&search, &own, chosen, 2).await;
    until_there(&search, &by_sql, common, 2).await;

    daemon.kill9();
    daemon.reconfigure("link.types.bit1", "number");
    daemon.reconfigure("link.types.binary", "base64");
    daemon.reconfigure("links", toml::Value::Array(Vec::new()));
    insert(3).await;
    daemon.start_again().await;
    until_there(&search, &own, chosen, 3).await;
    until_there(&search, &by_sql, common, 3).await;
}
