//! Text to statement: the one language of all doors. Pure; knows nothing of tables, links or servers.
//!
//! ```sql
//! CALL dbms_etl.sync_by_map("search", "products.title(shop.products.name)", "products.id=shop.products.id", "", "");
//! ```
//!
//! Every error holds the bytes of the text that it speaks of, also inside quoted strings with escapes.

pub mod ast;
mod letters;
mod lexer;
mod links;
mod mapping;
mod parser;
mod procedures;
mod rebuild;
mod verify;

pub use ast::{
    Assignment, CopyLink, KeepOld, Mapping, Name, Rebuild, RebuildLink, RebuildOptions,
    SnapshotLink, Statement, SyncByTable, VerifyLink,
};
pub use mapping::{key_list, mapping, mapping_list};
pub use parser::{forms, parse};

#[cfg(test)]
mod tests;
