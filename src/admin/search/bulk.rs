//! A bulk's lines, and what an update's body asks for, to items. A line that is not understood refuses the whole bulk before
//! anything is written. Knows no indexes.

use serde_json::{Map, Value};

use super::documents::{Item, expect, new_id};
use crate::index::{Answer, Fault, Members, What};

/// Each takes a multiple of its bytes until it is answered.
const ACTIONS_MAX: usize = 100_000;

/// Reads a bulk: an action a line, and behind it the document where there is one.
pub fn parse(body: &[u8], index: Option<&str>, pipeline: Option<&str>) -> Answer<Vec<Item>> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(Fault::new(400, "parse_exception", "request body is required"));
    }
    if !body.ends_with(b"\n") {
        return Err(Fault::request("The bulk request must be terminated by a newline [\\n]"));
    }
    let mut lines = body.split(|byte| *byte == b'\n').enumerate();
    let mut items = Vec::new();
    while let Some((number, line)) = lines.next() {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let number = number + 1;
        let malformed =
            |why: &str| Fault::request(format!("Malformed action/metadata line [{number}]: {why}"));
        let action: Value =
            serde_json::from_slice(line).map_err(|_| malformed("it is not JSON"))?;
        let action = action
            .as_object()
            .filter(|action| action.len() == 1)
            .and_then(|action| action.iter().next());
        let Some((name, Value::Object(about))) = action else {
            return Err(malformed("it is not {\"action\": {…}}"));
        };
        let action = match name.as_str() {
            "index" => "index",
            "create" => "create",
            "update" => "update",
            "delete" => "delete",
            _ => return Err(malformed("the actions are index, create, update and delete")),
        };
        let document = match action {
            "delete" => None,
            _ => Some(
                lines
                    .next()
                    .map(|(_, line)| line)
                    .filter(|line| !line.is_empty())
                    .ok_or_else(|| malformed("its document is missing"))?,
            ),
        };
        let mut item = item(action, about, document, index).map_err(|fault| Fault {
            reason: format!("line [{number}]: {}", fault.reason),
            ..fault
        })?;
        item.pipeline = item.pipeline.or_else(|| pipeline.map(str::to_owned));
        items.push(item);
        if items.len() > ACTIONS_MAX {
            return Err(Fault::request(format!(
                "a bulk has at most {ACTIONS_MAX} actions in the embedded index; send several bulks"
            )));
        }
    }
    Ok(items)
}

fn item(
    action: &'static str,
    about: &Map<String, Value>,
    document: Option<&[u8]>,
    index: Option<&str>,
) -> Answer<Item> {
    let known = [
        "_index",
        "_id",
        "version",
        "version_type",
        "pipeline",
        "retry_on_conflict",
        "require_alias",
    ];
    if let Some(other) = about.keys().find(|key| !known.contains(&key.as_str())) {
        return Err(Fault::request(format!(
            "the embedded index does not know the parameter [{other}] of an action"
        )));
    }
    let text = |key: &str| match about.get(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(Value::Number(number)) => Ok(Some(number.to_string())),
        Some(Value::Null) if key == "_id" => Ok(None),
        Some(_) => Err(Fault::request(format!("[{key}] of an action is not a text"))),
    };
    if about.get("require_alias").is_some_and(|required| *required != Value::Bool(false)) {
        return Err(Fault::request(
            "the embedded index has no aliases, and so none can be required",
        ));
    }
    let index = text("_index")?.or_else(|| index.map(str::to_owned));
    let index = index.ok_or_else(|| Fault::request("index is missing"))?;
    let id = match (text("_id")?, action) {
        (Some(id), _) => id,
        (None, "index" | "create") => new_id(),
        (None, _) => return Err(Fault::request("an _id is needed")),
    };
    let version_type = text("version_type")?;
    let expect = expect(action, about.get("version"), version_type.as_deref())?;
    let pipeline = text("pipeline")?;
    let what = match (action, document) {
        ("update", Some(document)) => merge(document)?,
        (_, Some(document)) => What::Put(document.strip_suffix(b"\r").unwrap_or(document).to_vec()),
        (_, None) => What::Delete,
    };
    Ok(Item { action, index, id, what: Some(what), expect, pipeline, done: None })
}

/// What an update's body asks for. Its documents keep their bytes.
pub fn merge(body: &[u8]) -> Answer<What> {
    let members =
        Members::parse(body).map_err(|_| Fault::parsing("an update is not an object in JSON"))?;
    let document = |key: &str| match members.get(key) {
        None => Ok(None),
        Some(json) if json.starts_with('{') => Ok(Some(json.as_bytes().to_vec())),
        Some(_) => Err(Fault::parsing(format!("[{key}] of an update is not an object"))),
    };
    let known = ["doc", "doc_as_upsert", "upsert"];
    if let Some((other, _)) = members.iter().find(|(key, _)| !known.contains(key)) {
        return Err(Fault::parsing(format!(
            "the embedded index does not know [{other}] in an update; it takes doc, doc_as_upsert and upsert"
        )));
    }
    let part = document("doc")?.ok_or_else(|| Fault::parsing("an update needs [doc]"))?;
    let otherwise = match members.get("doc_as_upsert") {
        None | Some("false") => document("upsert")?,
        Some("true") => Some(part.clone()),
        Some(_) => return Err(Fault::parsing("[doc_as_upsert] is true or false")),
    };
    Ok(What::Merge { part, otherwise })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::Expect;

    fn refused(body: &str) -> String {
        parse(body.as_bytes(), Some("a"), None).err().expect("is refused").reason
    }

    #[test]
    fn a_bulk_is_read_line_by_line() {
        let body = "{\"index\":{\"_id\":\"1\",\"version\":7,\"version_type\":\"external_gte\"}}\n{\"n\":1}\n\n\
                    {\"create\":{\"_index\":\"b\"}}\r\n{}\r\n{\"delete\":{\"_id\":2}}\n\
                    {\"update\":{\"_id\":\"3\"}}\n{\"doc\":{\"n\":2},\"doc_as_upsert\":true}\n";
        let items = parse(body.as_bytes(), Some("a"), Some("_none")).expect("is understood");
        let shown: Vec<_> = items.iter().map(|i| (i.action, i.index.as_str(), i.expect)).collect();
        assert_eq!(
            shown,
            [
                ("index", "a", Expect::NotAbove(7)),
                ("create", "b", Expect::Absent),
                ("delete", "a", Expect::Anything),
                ("update", "a", Expect::Anything),
            ]
        );
        assert!(matches!(&items[1].what, Some(What::Put(source)) if source == b"{}"));
        assert_eq!(items[2].id, "2");
        assert!(matches!(&items[3].what, Some(What::Merge { otherwise: Some(_), .. })));
    }

    #[test]
    fn a_line_that_is_not_understood_refuses_the_bulk() {
        assert!(refused("{\"index\":{}}\n{}").contains("newline"));
        assert!(refused("{\"index\":{}}\n").contains("missing"));
        assert!(refused("{\"upsert\":{}}\n{}\n").contains("actions"));
        assert!(refused("{\"index\":{\"routing\":\"x\"}}\n{}\n").contains("[routing]"));
        assert!(refused("{\"index\":{\"_id\":\"1\",\"version\":7}}\n{}\n").contains("external"));
        assert!(refused("{\"index\":{\"if_seq_no\":7}}\n{}\n").contains("[if_seq_no]"));
        assert!(refused("{\"update\":{\"_id\":\"1\"}}\n{\"script\":\"x\"}\n").contains("[script]"));
        for wrong in ["_id\":true", "_index\":true", "_index\":null", "pipeline\":[]"] {
            assert!(
                refused(&format!("{{\"index\":{{\"{wrong}}}}}\n{{}}\n")).contains("not a text")
            );
        }
        assert!(parse(b"\n", None, None).is_err());
        let delete = "{\"delete\":{\"_id\":\"1\"}}\n";
        assert!(refused(&delete.repeat(ACTIONS_MAX + 1)).contains("several"));
        assert!(parse(delete.repeat(ACTIONS_MAX).as_bytes(), Some("a"), None).is_ok());
    }

    #[test]
    fn an_update_keeps_the_digits() {
        let What::Merge { part, otherwise } =
            merge(br#"{"doc": {"n": 1.50}, "upsert": {"n": 2.0}}"#).expect("is understood")
        else {
            panic!("no merge")
        };
        assert_eq!(part, br#"{"n": 1.50}"#);
        assert_eq!(otherwise.as_deref(), Some(br#"{"n": 2.0}"#.as_slice()));
        assert!(merge(br#"{"doc": 1}"#).is_err() && merge(b"[]").is_err());
        assert!(merge(br#"{"doc": {}, "doc_as_upsert": "yes"}"#).is_err());
    }
}
