//! Statements as servers log them, what they are and what they touch.

use super::*;
use proptest::prelude::*;

/// `kind: tables`, with `+` for a change of columns, `*` for any table and `db.*` for a whole database.
fn said(statement: &str) -> String {
    let read = read(statement, "d");
    let kind = match &read.kind {
        Kind::Ddl { changes_columns: true } => "ddl+".to_owned(),
        Kind::Ddl { changes_columns: false } => "ddl".to_owned(),
        kind => format!("{kind:?}").to_lowercase(),
    };
    let mut touched: Vec<_> = read.tables.iter().map(ToString::to_string).collect();
    touched.extend(read.database.map(|name| format!("{name}.*")));
    touched.extend(read.any_table.then(|| "*".to_owned()));
    if touched.is_empty() { kind } else { format!("{kind}: {}", touched.join(" ")) }
}

#[test]
fn statements_of_the_log_are_understood() {
    let table = [
        // Transactions.
        ("BEGIN", "begin"),
        ("begin work", "begin"),
        ("START TRANSACTION", "begin"),
        ("START REPLICA", "other"),
        ("COMMIT", "commit"),
        ("/* tool */ COMMIT", "commit"),
        ("ROLLBACK", "rollback"),
        ("ROLLBACK WORK", "rollback"),
        ("ROLLBACK TO `a`", "savepoint"),
        ("ROLLBACK WORK TO SAVEPOINT a", "savepoint"),
        ("SAVEPOINT `a`", "savepoint"),
        ("RELEASE SAVEPOINT a", "savepoint"),
        ("XA START X'61',X'',1", "xastart(\"x'61',x'',1\")"),
        ("XA END X'61',X'',1", "xaend"),
        ("XA COMMIT X'61',X'',1", "xacommit"),
        ("XA ROLLBACK X'61',X'',1", "xarollback"),
        // Rows changed by statements.
        ("INSERT INTO t VALUES (1)", "dml: d.t"),
        ("insert into `e` . `t x`(a) select * from u", "dml: e.t x"),
        ("INSERT LOW_PRIORITY IGNORE t SET a = 1", "dml: d.t"),
        ("REPLACE INTO e.t VALUES ('x')", "dml: e.t"),
        ("INSERT INTO \"t\" VALUES (1)", "dml: d.t"),
        ("UPDATE t SET a = (SELECT b FROM u)", "dml: d.t"),
        ("UPDATE LOW_PRIORITY e.t AS x JOIN u ON x.a = u.a, v SET x.a = 1", "dml: e.t d.u d.v"),
        ("UPDATE (t, u) SET t.a = u.a", "dml: d.t d.u"),
        ("DELETE FROM t WHERE a = 1", "dml: d.t"),
        ("DELETE QUICK e.t, u FROM e.t JOIN u USING (id) WHERE 1", "dml: e.t d.u e.t d.u d.id"),
        (
            "DELETE x.* FROM (SELECT 1 FROM w WHERE 1) y JOIN t x LIMIT 1",
            "dml: d.x d.SELECT d.w d.t",
        ),
        ("WITH c AS (SELECT 1 FROM w) UPDATE t, c SET t.a = 1", "dml: d.t d.c"),
        ("WITH c AS (SELECT 1) DELETE FROM t", "dml: d.t"),
        ("LOAD DATA LOCAL INFILE '/x' IGNORE INTO TABLE `t` (a)", "dml: d.t"),
        ("LOAD INDEX INTO CACHE t", "other"),
        ("SELECT `d`.`f`(1)", "dml: *"),
        ("(SELECT f())", "dml: *"),
        ("DO f()", "dml: *"),
        // Definitions of a table that change how its rows are read.
        ("ALTER TABLE t ADD COLUMN a INT", "ddl+: d.t"),
        ("ALTER TABLE t ADD a INT", "ddl+: d.t"),
        ("ALTER TABLE t ADD `index` INT", "ddl+: d.t"),
        ("ALTER TABLE t ADD (a INT, b INT)", "ddl+: d.t"),
        ("ALTER TABLE `e`.`t` DROP COLUMN a, ADD INDEX (b)", "ddl+: e.t"),
        ("ALTER TABLE t DROP a", "ddl+: d.t"),
        ("ALTER TABLE t ADD INDEX (a), MODIFY b BIGINT COMMENT 'x, y'", "ddl+: d.t"),
        ("ALTER TABLE t CHANGE a b INT", "ddl+: d.t"),
        ("ALTER TABLE t RENAME COLUMN a TO b", "ddl+: d.t"),
        ("ALTER TABLE t CONVERT TO CHARACTER SET utf8mb4", "ddl+: d.t"),
        ("ALTER TABLE t ENGINE=InnoDB CHARACTER SET latin1", "ddl+: d.t"),
        ("ALTER TABLE t ENGINE = BLACKHOLE", "ddl+: d.t"),
        ("ALTER TABLE t ADD PRIMARY KEY (a)", "ddl+: d.t"),
        ("ALTER TABLE t ADD CONSTRAINT x PRIMARY KEY (a)", "ddl+: d.t"),
        ("ALTER TABLE t DROP PRIMARY KEY", "ddl+: d.t"),
        ("ALTER TABLE t DROP INDEX `PRIMARY`", "ddl+: d.t"),
        ("ALTER TABLE t DROP PARTITION p0", "ddl+: d.t"),
        ("ALTER TABLE t EXCHANGE PARTITION p WITH TABLE e.u", "ddl+: d.t d.u e.u"),
        ("ALTER TABLE t PARTITION BY HASH (a) PARTITIONS 4", "ddl+: d.t"),
        ("ALTER TABLE t ORDER BY a", "ddl+: d.t"),
        ("ALTER TABLE t WAIT 5 ADD a INT", "ddl+: d.t"),
        ("ALTER TABLE t NOWAIT RENAME TO e.u", "ddl+: d.t d.u e.u"),
        ("ALTER IGNORE TABLE t ADD UNIQUE (a)", "ddl+: d.t"),
        ("ALTER TABLE t CONVERT PARTITION p TO TABLE e.u", "ddl+: d.t d.u e.u"),
        ("ALTER TABLE t CONVERT TABLE u TO PARTITION p VALUES LESS THAN (5)", "ddl+: d.t d.u d.u"),
        ("RENAME TABLE IF EXISTS t WAIT 5 TO u, v NOWAIT TO t", "ddl+: d.t d.u d.v d.t"),
        ("TRUNCATE TABLE t WAIT 1", "ddl+: d.t"),
        ("DROP TABLE t, u NOWAIT", "ddl+: d.t d.u"),
        ("ALTER TABLE e.t RENAME TO u", "ddl+: e.t e.u d.u"),
        ("ALTER TABLE t RENAME AS e.u, ADD INDEX (a)", "ddl+: d.t d.u e.u"),
        ("RENAME TABLE t TO e.u, `v` TO w", "ddl+: d.t e.u d.v d.w"),
        ("TRUNCATE TABLE t", "ddl+: d.t"),
        ("TRUNCATE `e`.t", "ddl+: e.t"),
        ("DROP TABLE IF EXISTS t, e.u CASCADE", "ddl+: d.t e.u"),
        ("DROP TABLE `t` /* generated by server */", "ddl+: d.t"),
        ("DROP DATABASE IF EXISTS `e`", "ddl+: e.*"),
        ("DROP INDEX `PRIMARY` ON t", "ddl+: d.t"),
        ("CREATE TABLE t (a INT)", "ddl+: d.t"),
        ("CREATE OR REPLACE TABLE t LIKE u", "ddl+: d.t"),
        // Definitions that leave rows and columns as they are.
        (
            "ALTER TABLE t ADD INDEX i (a), ADD UNIQUE KEY (b), ALGORITHM=INPLACE, LOCK=NONE",
            "ddl: d.t",
        ),
        ("ALTER TABLE t WAIT 5 ADD INDEX (a)", "ddl: d.t"),
        ("ALTER ONLINE TABLE t ADD FULLTEXT INDEX (a)", "ddl: d.t"),
        (
            "ALTER TABLE t ADD CONSTRAINT c FOREIGN KEY (a) REFERENCES u (a, b) ON DELETE CASCADE",
            "ddl: d.t",
        ),
        (
            "ALTER TABLE t ADD CONSTRAINT CHECK (a > 1), DROP CHECK c, DROP FOREIGN KEY f",
            "ddl: d.t",
        ),
        ("ALTER TABLE t DROP INDEX i, RENAME KEY j TO k, ALTER INDEX k INVISIBLE", "ddl: d.t"),
        ("ALTER TABLE t COMMENT='a, b); DROP c' AUTO_INCREMENT = 7 ENGINE InnoDB", "ddl: d.t"),
        ("ALTER TABLE t STATS_PERSISTENT=1, FORCE, ENABLE KEYS", "ddl: d.t"),
        ("ALTER TABLE t ALTER COLUMN a SET DEFAULT 5, ALTER b DROP DEFAULT", "ddl: d.t"),
        ("/*!40000 ALTER TABLE `t` DISABLE KEYS */", "ddl: d.t"),
        ("CREATE UNIQUE INDEX i ON e.t (a)", "ddl: e.t"),
        ("CREATE TABLE IF NOT EXISTS t (a INT)", "ddl: d.t"),
        ("DROP INDEX `i` ON `t` ALGORITHM=INPLACE", "ddl: d.t"),
        ("ANALYZE LOCAL TABLE t, e.u", "ddl: d.t e.u"),
        ("OPTIMIZE TABLE t", "ddl: d.t"),
        (
            "CREATE DEFINER=`root`@`localhost` TRIGGER g BEFORE INSERT ON t FOR EACH ROW SET @a = 1",
            "ddl",
        ),
        (
            "CREATE ALGORITHM=MERGE DEFINER=x@y SQL SECURITY INVOKER VIEW v AS SELECT * FROM t",
            "ddl",
        ),
        ("DROP VIEW IF EXISTS t", "ddl"),
        ("DROP PROCEDURE t", "ddl"),
        ("CREATE DATABASE e", "ddl"),
        ("ALTER DATABASE d CHARACTER SET utf8mb4", "ddl"),
        // Not of any table that lasts.
        ("DROP /*!40005 TEMPORARY */ TABLE IF EXISTS `t`", "temporary { made: false }: d.t"),
        ("DROP TEMPORARY TABLE t", "temporary { made: false }: d.t"),
        ("CREATE TEMPORARY TABLE t (a INT)", "temporary { made: true }: d.t"),
        ("GRANT SELECT ON d.t TO u", "other"),
        ("FLUSH TABLES t", "other"),
        ("SET @a = 1", "other"),
        ("RENAME USER t TO u", "other"),
        ("", "other"),
        ("-- only a comment", "other"),
        // White space, comments and quotes.
        ("\n-- c\nALTER\tTABLE # x\n /* y */ e\n.\n`t``1`\nDROP/**/a", "ddl+: e.t`1"),
        ("ALTER TABLE t COMMENT 'it''s \\' DROP' ;", "ddl: d.t"),
        ("DROP TABLE `unclosed", "ddl+: d.unclosed"),
        // What cannot be read can touch all that it names.
        ("ALTER TABLE 'x' t DROP a", "ddl+: d.ALTER d.TABLE d.t d.DROP d.a"),
        ("INSERT INTO (t) VALUES (1)", "dml: d.INSERT d.INTO d.t d.VALUES d.1"),
    ];
    let mut wrong = Vec::new();
    for (statement, expected) in table {
        if said(statement) != expected {
            wrong.push(format!(
                "{statement}\n  expected {expected}\n  found    {}",
                said(statement)
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn names_are_compared_without_case_and_without_a_database_that_nobody_named() {
    let table = TableId::new("shop", "Products");
    assert!(read("TRUNCATE SHOP.products", "").names(&table));
    assert!(read("TRUNCATE products", "shop").names(&table));
    assert!(read("TRUNCATE products", "").names(&table));
    assert!(!read("TRUNCATE products", "stock").names(&table));
    assert!(!read("TRUNCATE shop.product", "shop").names(&table));
    assert!(read("DROP SCHEMA Shop", "").names(&table));
    assert!(!read("DROP SCHEMA stock", "shop").names(&table));
    assert!(read("SELECT stock.f()", "stock").names(&table));
}

proptest! {
    #[test]
    fn no_statement_makes_the_reader_panic(statement in "(\\PC|[\n'`\"\\\\/*!#.,();-]){0,60}") {
        read(&statement, "d");
    }

    #[test]
    fn no_end_of_a_statement_makes_the_reader_panic(
        beginning in prop::sample::select(vec![
            "ALTER TABLE", "DROP TABLE", "UPDATE", "DELETE", "INSERT", "RENAME TABLE", "CREATE", "WITH", "XA START",
            "LOAD DATA", "/*!40000 ALTER",
        ]),
        end in "[a-zT '`\"\\\\/*!#.,();=é\n-]{0,40}",
    ) {
        read(&format!("{beginning} {end}"), "d");
    }

    #[test]
    fn a_quoted_name_is_read_as_it_is_meant(db in "\\PC{1,12}", name in "\\PC{1,12}", space in "[ \n]{0,2}") {
        let quoted = |name: &str| format!("`{}`", name.replace('`', "``"));
        let statement = format!("DROP TABLE {}{space}.{space}{}", quoted(&db), quoted(&name));
        prop_assert_eq!(read(&statement, "d").tables, [TableId::new(db, name)]);
    }
}
