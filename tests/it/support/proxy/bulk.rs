//! A bulk of which a part is refused: every other operation goes to the index, and the answer has a status of ours for the
//! rest, in the places where they were.

use serde_json::{Value, json};

use super::{Message, Request};

/// A bulk request without every other operation.
pub(super) struct Half {
    pub kept: Message,
    /// Action and document's id of each operation, and whether it was kept.
    operations: Vec<(String, Value, bool)>,
    status: u16,
}

impl Half {
    pub fn of(request: &Request, status: u16) -> Self {
        let text = request.text();
        let (mut body, mut operations) = (String::new(), Vec::new());
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            let action: Value = serde_json::from_str(line).expect("a bulk's action is JSON");
            let (name, meta) = action
                .as_object()
                .and_then(|action| action.iter().next())
                .expect("an action has a name");
            let is_kept = operations.len() % 2 == 0;
            operations.push((name.clone(), meta["_id"].clone(), is_kept));
            let document = if name == "delete" { None } else { lines.next() };
            if is_kept {
                for line in std::iter::once(line).chain(document) {
                    body.push_str(line);
                    body.push('\n');
                }
            }
        }
        Self { kept: message(request, body), operations, status }
    }

    /// The whole answer, from what the index says of the kept ones.
    pub fn answer(&self, answered: &[u8]) -> Vec<u8> {
        let answered: Value = serde_json::from_slice(answered).expect("a bulk's answer is JSON");
        let mut items = answered["items"].as_array().cloned().unwrap_or_default().into_iter();
        let items: Vec<Value> = self
            .operations
            .iter()
            .map(|(action, id, is_kept)| match is_kept {
                true => items.next().unwrap_or_default(),
                false => json!({action: {"_index": "told", "_id": id, "status": self.status,
                    "error": {"type": "rejected_execution_exception", "reason": "told to refuse"}}}),
            })
            .collect();
        let body = json!({"took": 1, "errors": true, "items": items}).to_string();
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json";
        format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    }
}

/// The same request with another body.
fn message(request: &Request, body: String) -> Message {
    let is_of_body = |line: &&str| {
        let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
        !line.is_empty() && !matches!(name.as_str(), "content-length" | "transfer-encoding")
    };
    let mut head: String =
        request.head.lines().filter(is_of_body).flat_map(|line| [line, "\r\n"]).collect();
    head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
    let head_len = head.len();
    let bytes = [head.as_bytes(), body.as_bytes()].concat();
    Message { bytes, head_len, body: body.into_bytes() }
}
