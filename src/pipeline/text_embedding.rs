//! The `text_embedding` processor on one document: finds the texts that a field map names, and writes vectors beside
//! them. Knows no model.
//!
//! The document stays bytes: its values are looked at where they lie, and a vector is an edit at a place. So all that is
//! not a vector leaves as it came, digits of numbers and order of keys included.

use std::{borrow::Cow, ops::Range};

use serde_json::value::RawValue;

use super::{
    fields::{FieldMap, Target},
    json::{self, Kind, kind},
};
use crate::error::{Error, ErrorKind, Result};

/// What is to be done to one document.
#[derive(Debug, Default)]
pub struct Plan<'b> {
    pub texts: Vec<Text<'b>>,
    edits: Vec<Edit>,
}

/// A text to embed, and the field of the index its vector is for.
#[derive(Debug)]
pub struct Text<'b> {
    pub text: Cow<'b, str>,
    pub field: String,
}

/// These bytes of the body make way for the pieces.
#[derive(Debug)]
struct Edit {
    at: Range<usize>,
    pieces: Vec<Piece>,
}

#[derive(Debug)]
enum Piece {
    Json(String),
    /// The vector of the text at this place in [`Plan::texts`].
    Vector(usize),
}

/// New values of one object, by key.
#[derive(Debug)]
enum Node {
    Value(Vec<Piece>),
    Object(Nodes),
}

type Nodes = Vec<(String, Node)>;

impl<'b> Plan<'b> {
    pub fn new(fields: &FieldMap, body: &'b [u8]) -> Result<Self> {
        let broken = || refused("the document is not a JSON object");
        let text = std::str::from_utf8(body).map_err(|_| broken())?;
        let root: &RawValue = serde_json::from_str(text).map_err(|_| broken())?;
        if kind(root.get()) != Kind::Object {
            return Err(broken());
        }
        let mut planner = Planner { body: text, plan: Self::default() };
        planner.object(root.get(), fields, "")?;
        planner.plan.edits.sort_by_key(|edit| edit.at.start);
        Ok(planner.plan)
    }

    /// Whether the document passes unchanged.
    pub fn is_empty(&self) -> bool {
        self.edits.is_empty()
    }

    /// Writes `body` with the vectors, given in the order of the texts.
    pub fn write<'v>(&self, body: &[u8], vector: impl Fn(usize) -> &'v [f32], out: &mut Vec<u8>) {
        let mut from = 0;
        for edit in &self.edits {
            out.extend_from_slice(body.get(from..edit.at.start).unwrap_or_default());
            from = edit.at.end;
            for piece in &edit.pieces {
                match piece {
                    Piece::Json(json) => out.extend_from_slice(json.as_bytes()),
                    Piece::Vector(at) => write_vector(vector(*at), out),
                }
            }
        }
        out.extend_from_slice(body.get(from..).unwrap_or_default());
    }
}

/// Each number with the fewest digits that read back as the same 32 bits.
fn write_vector(vector: &[f32], out: &mut Vec<u8>) {
    let mut buffer = zmij::Buffer::new();
    out.push(b'[');
    for (at, number) in vector.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        out.extend_from_slice(buffer.format_finite(*number).as_bytes());
    }
    out.push(b']');
}

struct Planner<'b> {
    body: &'b str,
    plan: Plan<'b>,
}

impl<'b> Planner<'b> {
    /// Plans one object at `path`; what is found below it is planned before it.
    fn object(&mut self, raw: &'b str, fields: &FieldMap, path: &str) -> Result<()> {
        let entries = json::entries(raw).map_err(invalid)?;
        let mut nodes = Nodes::new();
        for rule in &fields.rules {
            for (key, value) in &entries {
                self.rule(rule, key, value, ("", path), &mut nodes)?;
            }
        }
        self.put(raw, &entries, nodes);
        Ok(())
    }

    /// Applies one rule to one entry. `prefix` is what of a dotted key lies behind us: `{"a.b": …}` is met by a rule
    /// for `b` inside `a`, and its vector gets a dotted key as well.
    fn rule(
        &mut self,
        (source, target): &(String, Target),
        key: &str,
        value: &'b str,
        (prefix, path): (&str, &str),
        nodes: &mut Nodes,
    ) -> Result<()> {
        if key == source {
            return match target {
                Target::Inside(inner) => {
                    self.inside(value, inner, &format!("{path}{prefix}{source}."))
                }
                Target::Vector(to) => {
                    let field = format!("{path}{prefix}{}", to.join("."));
                    if let Some(pieces) = self.source(source, value, field)? {
                        let mut to = to.clone();
                        to[0].insert_str(0, prefix);
                        insert(nodes, &to, pieces);
                    }
                    Ok(())
                }
            };
        }
        let (Some(rest), Target::Inside(inner)) =
            (key.strip_prefix(source).and_then(|rest| rest.strip_prefix('.')), target)
        else {
            return Ok(());
        };
        let prefix = format!("{prefix}{source}.");
        inner.rules.iter().try_for_each(|rule| self.rule(rule, rest, value, (&prefix, path), nodes))
    }

    /// An object, or each object of a list; what is neither has nothing inside.
    fn inside(&mut self, value: &'b str, fields: &FieldMap, path: &str) -> Result<()> {
        match kind(value) {
            Kind::Object => self.object(value, fields, path),
            Kind::List => {
                for element in json::list(value).map_err(invalid)? {
                    self.inside(element.get(), fields, path)?;
                }
                Ok(())
            }
            Kind::Text | Kind::Null | Kind::Other => Ok(()),
        }
    }

    /// The pieces of the vector of what stands at a mapped field; nothing where there is no text.
    fn source(&mut self, name: &str, value: &'b str, field: String) -> Result<Option<Vec<Piece>>> {
        match kind(value) {
            Kind::Null => Ok(None),
            Kind::Text => Ok(self.text(value, &field)?.map(|at| vec![Piece::Vector(at)])),
            Kind::List => self.texts(name, value, &format!("{field}.knn")).map(Some),
            Kind::Object => Err(not_a_text(name)),
            Kind::Other => Err(refused(format!(
                "map type field [{name}] is neither string nor nested type, cannot process it"
            ))),
        }
    }

    /// `[{"knn": […]}, …]`: one object for each text of a list.
    fn texts(&mut self, name: &str, value: &'b str, field: &str) -> Result<Vec<Piece>> {
        let mut pieces = Vec::new();
        for element in json::list(value).map_err(invalid)? {
            let wrong = match kind(element.get()) {
                Kind::Text => match self.text(element.get(), field)? {
                    Some(at) => {
                        let open = if pieces.is_empty() { "[{\"knn\":" } else { "},{\"knn\":" };
                        pieces.extend([Piece::Json(open.to_owned()), Piece::Vector(at)]);
                        continue;
                    }
                    None => continue,
                },
                Kind::Object => return Err(not_a_text(name)),
                Kind::List => "is nested list type",
                Kind::Null => "has null",
                Kind::Other => "has non string value",
            };
            return Err(refused(format!("list type field [{name}] {wrong}, cannot process it")));
        }
        let end = if pieces.is_empty() { "[]" } else { "}]" };
        pieces.push(Piece::Json(end.to_owned()));
        Ok(pieces)
    }

    /// Takes up a text and says where it stands; a blank one has no meaning to embed.
    fn text(&mut self, value: &'b str, field: &str) -> Result<Option<usize>> {
        let text = match value.get(1..value.len().saturating_sub(1)) {
            Some(inner) if !inner.contains('\\') => Cow::Borrowed(inner),
            _ => Cow::Owned(
                serde_json::from_str(value)
                    .map_err(|_| refused("a text of the document is not valid JSON"))?,
            ),
        };
        if text.trim().is_empty() {
            return Ok(None);
        }
        self.plan.texts.push(Text { text, field: field.to_owned() });
        Ok(Some(self.plan.texts.len() - 1))
    }

    /// Turns an object's new values into edits: a value that is there makes way, others come last.
    fn put(&mut self, raw: &str, entries: &[(Cow<'_, str>, &'b str)], nodes: Nodes) {
        let mut added = Vec::new();
        for (key, node) in nodes {
            let there =
                entries.iter().rev().find(|(name, _)| *name == key).map(|(_, value)| *value);
            match (there, node) {
                (Some(value), Node::Object(inner)) if kind(value) == Kind::Object => {
                    if let Ok(entries) = json::entries(value) {
                        self.put(value, &entries, inner);
                    }
                }
                (Some(value), node) => {
                    let mut pieces = Vec::new();
                    flatten(node, &mut pieces);
                    let start = self.offset(value);
                    self.plan.edits.push(Edit { at: start..start + value.len(), pieces });
                }
                (None, node) => {
                    let comma = if entries.is_empty() && added.is_empty() { "" } else { "," };
                    added.push(Piece::Json(format!("{comma}{}:", serde_json::Value::from(key))));
                    flatten(node, &mut added);
                }
            }
        }
        if !added.is_empty() {
            let end = self.offset(raw) + raw.len() - 1;
            self.plan.edits.push(Edit { at: end..end, pieces: added });
        }
    }

    /// Where a part of the body begins in it.
    fn offset(&self, part: &str) -> usize {
        part.as_ptr() as usize - self.body.as_ptr() as usize
    }
}

fn insert(nodes: &mut Nodes, path: &[String], pieces: Vec<Piece>) {
    let Some((first, rest)) = path.split_first() else { return };
    let at = match nodes.iter().position(|(key, _)| key == first) {
        Some(at) => at,
        None => {
            nodes.push((first.clone(), Node::Object(Nodes::new())));
            nodes.len() - 1
        }
    };
    match &mut nodes[at].1 {
        node if rest.is_empty() => *node = Node::Value(pieces),
        Node::Object(inner) => insert(inner, rest, pieces),
        node @ Node::Value(_) => {
            let mut inner = Nodes::new();
            insert(&mut inner, rest, pieces);
            *node = Node::Object(inner);
        }
    }
}

fn flatten(node: Node, out: &mut Vec<Piece>) {
    match node {
        Node::Value(pieces) => out.extend(pieces),
        Node::Object(inner) => {
            for (at, (key, node)) in inner.into_iter().enumerate() {
                let open = if at == 0 { "{" } else { "," };
                out.push(Piece::Json(format!("{open}{}:", serde_json::Value::from(key))));
                flatten(node, out);
            }
            out.push(Piece::Json("}".to_owned()));
        }
    }
}

fn invalid(_: serde_json::Error) -> Error {
    // The cause is left out: it may quote the document.
    refused("a part of the document is not valid JSON")
}

fn refused(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::DocumentRefused, message)
}

/// The original's sentence, with the names that its users know.
fn not_a_text(name: &str) -> Error {
    refused(format!(
        "[{name}] configuration doesn't match actual value type, configuration type is: java.lang.String, actual value \
         type is: java.util.HashMap"
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The document after the processor, with `[n]` as the vector of the n-th text; and the texts with their fields.
    fn run(map: Value, body: &str) -> Result<(String, Vec<(String, String)>)> {
        let fields = FieldMap::parse(map.as_object().expect("an object")).expect("a field map");
        let plan = Plan::new(&fields, body.as_bytes())?;
        let numbers: Vec<[f32; 1]> = (0..plan.texts.len()).map(|at| [at as f32 + 0.5]).collect();
        let mut out = Vec::new();
        plan.write(body.as_bytes(), |at| &numbers[at], &mut out);
        let texts =
            plan.texts.iter().map(|text| (text.text.to_string(), text.field.clone())).collect();
        Ok((String::from_utf8(out).expect("UTF-8"), texts))
    }

    fn written(map: Value, body: &str) -> String {
        run(map, body).expect("the document passes").0
    }

    #[test]
    fn the_rest_of_a_document_keeps_its_bytes() {
        let body = r#"{ "n":1.10, "t":"a\"b" ,"big":12345678901234567890.50,"o":{"x" : [1,  2]} }"#;
        let (out, texts) = run(json!({"t": "v"}), body).expect("passes");
        assert_eq!(
            out,
            r#"{ "n":1.10, "t":"a\"b" ,"big":12345678901234567890.50,"o":{"x" : [1,  2]} ,"v":[0.5]}"#
        );
        assert_eq!(texts, [("a\"b".to_owned(), "v".to_owned())]);
    }

    #[test]
    fn missing_null_and_blank_texts_are_skipped() {
        for body in
            [r#"{"other":1}"#, r#"{"t":null}"#, r#"{"t":""}"#, "{\"t\":\" \\n\u{3000} \"}", "{}"]
        {
            assert_eq!(written(json!({"t": "v"}), body), body);
        }
    }

    #[test]
    fn a_vector_that_was_there_makes_way() {
        assert_eq!(written(json!({"t": "v"}), r#"{"v":[9,9],"t":"x"}"#), r#"{"v":[0.5],"t":"x"}"#);
    }

    #[test]
    fn lists_of_texts_become_lists_of_objects() {
        let (out, texts) = run(json!({"t": "v"}), r#"{"t":["a"," ","b"]}"#).expect("passes");
        assert_eq!(out, r#"{"t":["a"," ","b"],"v":[{"knn":[0.5]},{"knn":[1.5]}]}"#);
        assert_eq!(texts[1], ("b".to_owned(), "v.knn".to_owned()));
        assert_eq!(written(json!({"t": "v"}), r#"{"t":[]}"#), r#"{"t":[],"v":[]}"#);
    }

    #[test]
    fn nested_and_dotted_maps_reach_inside() {
        let nested = json!({"a": {"b": "b_vec", "c": "c_vec"}, "top": "top_vec"});
        let (out, texts) =
            run(nested.clone(), r#"{"a":{"b":"x","c":"y","d":1},"top":"t"}"#).expect("passes");
        assert_eq!(
            out,
            r#"{"a":{"b":"x","c":"y","d":1,"b_vec":[0.5],"c_vec":[1.5]},"top":"t","top_vec":[2.5]}"#
        );
        assert_eq!(
            texts.iter().map(|(_, field)| field.as_str()).collect::<Vec<_>>(),
            ["a.b_vec", "a.c_vec", "top_vec"]
        );
        for body in [r#"{"a":null}"#, r#"{"a":"str"}"#, r#"{"a":{}}"#, r#"{"a":[]}"#] {
            assert_eq!(written(nested.clone(), body), body);
        }
        // Both inner fields get their vectors, in every object of the list.
        assert_eq!(
            written(
                json!({"a.b": "b_vec", "a.c": "c_vec"}),
                r#"{"a":[{"b":"x1","c":"y1"},{"b":null,"c":"y2"}]}"#
            ),
            r#"{"a":[{"b":"x1","c":"y1","b_vec":[0.5],"c_vec":[1.5]},{"b":null,"c":"y2","c_vec":[2.5]}]}"#
        );
    }

    #[test]
    fn a_dotted_key_gets_a_dotted_vector() {
        let (out, texts) = run(json!({"a.b": "b_vec"}), r#"{"a.b":"x"}"#).expect("passes");
        assert_eq!(out, r#"{"a.b":"x","a.b_vec":[0.5]}"#);
        assert_eq!(texts[0].1, "a.b_vec");
    }

    #[test]
    fn targets_are_paths_from_the_texts_object() {
        let map = json!({"a.b": "a.b_vec", "t": "x.y_vec", "u": "x.z_vec"});
        assert_eq!(
            written(map.clone(), r#"{"a":{"b":"x"},"t":"z","u":"w"}"#),
            r#"{"a":{"b":"x","a":{"b_vec":[0.5]}},"t":"z","u":"w","x":{"y_vec":[1.5],"z_vec":[2.5]}}"#
        );
        assert_eq!(written(map.clone(), r#"{"t":"z","x":{}}"#), r#"{"t":"z","x":{"y_vec":[0.5]}}"#);
        assert_eq!(written(map, r#"{"t":"z","x":5}"#), r#"{"t":"z","x":{"y_vec":[0.5]}}"#);
    }

    #[test]
    fn what_is_no_text_is_refused_in_the_recorded_words() {
        let cases = [
            ("5", "map type field [t] is neither string nor nested type, cannot process it"),
            ("true", "map type field [t] is neither string nor nested type, cannot process it"),
            ("[\"a\",null]", "list type field [t] has null, cannot process it"),
            ("[\"a\",1]", "list type field [t] has non string value, cannot process it"),
            ("[[\"a\"]]", "list type field [t] is nested list type, cannot process it"),
            (
                "{\"x\":\"a\"}",
                "[t] configuration doesn't match actual value type, configuration type is: java.lang.String, actual \
                 value type is: java.util.HashMap",
            ),
        ];
        for (value, sentence) in cases {
            let error = run(json!({"t": "v"}), &format!("{{\"t\":{value}}}")).expect_err(sentence);
            assert_eq!(
                (error.kind(), error.to_string().as_str()),
                (ErrorKind::DocumentRefused, sentence)
            );
        }
        for body in ["", "[]", "{\"t\":", "\"t\"", "{\"t\":\"\\ud800\"}"] {
            assert!(run(json!({"t": "v"}), body).is_err(), "{body}");
        }
    }

    #[test]
    fn numbers_are_written_with_the_fewest_digits() {
        let mut out = Vec::new();
        write_vector(&[-0.398438, 1.0, 0.1, 1e-9, -0.0, f32::MAX], &mut out);
        let read: Vec<f32> = serde_json::from_slice(&out).expect("JSON");
        assert_eq!(read, [-0.398438, 1.0, 0.1, 1e-9, -0.0, f32::MAX]);
        assert!(out.starts_with(b"[-0.398438,1.0,0.1,"), "{}", String::from_utf8_lossy(&out));
    }
}
