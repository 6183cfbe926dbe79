//! A pipeline's definition, checked: which processors run, with which options. Knows how refusals are worded, and
//! nothing of documents.

use serde_json::{Map, Value, json};

use super::{api::fault::Fault, fields::FieldMap};

/// What this version can run.
const KNOWN: &str = "text_embedding";

/// One `text_embedding`.
#[derive(Debug, Clone)]
pub struct Processor {
    pub model_id: String,
    pub fields: FieldMap,
    /// Texts in one request, in the place of the model's own limit.
    pub batch_texts: Option<usize>,
    /// A document that cannot be embedded passes without its vector.
    pub ignore_failure: bool,
}

/// The processors of a pipeline's definition, or the refusal in the original's words.
pub fn parse(name: &str, definition: &Map<String, Value>) -> Result<Vec<Processor>, Fault> {
    let known = ["description", "version", "processors", "_meta"];
    if definition.contains_key("on_failure") {
        return Err(Fault::parse(
            "[on_failure] is not there yet: give the processors ignore_failure, or none",
        )
        .property("on_failure"));
    }
    let processors = match definition.get("processors") {
        Some(Value::Array(processors)) => processors,
        None => {
            return Err(
                Fault::parse("[processors] required property is missing").property("processors")
            );
        }
        Some(_) => {
            return Err(Fault::parse("[processors] property isn't a list").property("processors"));
        }
    };
    let parsed = processors.iter().map(processor).collect::<Result<_, _>>()?;
    match unknown(definition, &known) {
        Some(unknown) => Err(Fault::parse(format!(
            "pipeline [{name}] doesn't support one or more provided configuration parameters [{unknown}]"
        ))),
        None => Ok(parsed),
    }
}

fn unknown(options: &Map<String, Value>, known: &[&str]) -> Option<String> {
    let unknown: Vec<&str> =
        options.keys().map(String::as_str).filter(|key| !known.contains(key)).collect();
    (!unknown.is_empty()).then(|| unknown.join(", "))
}

fn processor(given: &Value) -> Result<Processor, Fault> {
    let Some((kind, options)) = given.as_object().and_then(|given| given.iter().next()) else {
        return Err(Fault::parse("a processor must be an object with its type as the key"));
    };
    if kind != KNOWN {
        let reason =
            format!("No processor type exists with name [{kind}]; this version has [{KNOWN}]");
        return Err(Fault::parse(reason).with("processor_type", json!(kind)));
    }
    let Some(options) = options.as_object() else {
        return Err(Fault::parse("property isn't a map").with("processor_type", json!(KNOWN)));
    };
    text_embedding(options).map_err(|fault| {
        let fault = fault.with("processor_type", json!(KNOWN));
        match options.get("tag") {
            Some(tag @ Value::String(_)) => fault.with("processor_tag", tag.clone()),
            _ => fault,
        }
    })
}

fn text_embedding(options: &Map<String, Value>) -> Result<Processor, Fault> {
    for (key, sentence) in [
        ("on_failure", "[on_failure] is not there yet: use ignore_failure, or none"),
        ("if", "[if] is not there yet: map a field that is null where no vector is wanted"),
    ] {
        if options.contains_key(key) {
            return Err(Fault::parse(sentence).property(key));
        }
    }
    let model_id = match options.get("model_id") {
        Some(Value::String(id)) if !id.trim().is_empty() => id.clone(),
        None => return Err(missing("model_id")),
        Some(_) => {
            return Err(
                Fault::parse("model_id is null or empty, cannot process it").property("model_id")
            );
        }
    };
    let fields = match options.get("field_map") {
        None => return Err(missing("field_map")),
        Some(Value::Object(map)) => FieldMap::parse(map).ok_or_else(bad_field_map)?,
        Some(other) => {
            let reason =
                format!("[field_map] property isn't a map, but of type [{}]", java_type(other));
            return Err(Fault::parse(reason).property("field_map"));
        }
    };
    let batch_texts = match options.get("batch_size") {
        None => None,
        Some(size) => match size.as_u64().filter(|size| *size > 0) {
            Some(size) => Some(usize::try_from(size).unwrap_or(usize::MAX)),
            None => {
                return Err(Fault::parse("[batch_size] batch size must be a positive integer")
                    .property("batch_size"));
            }
        },
    };
    let ignore_failure = match options.get("ignore_failure") {
        None => false,
        Some(Value::Bool(flag)) => *flag,
        Some(other) => {
            let reason = format!(
                "[ignore_failure] property isn't a boolean, but of type [{}]",
                java_type(other)
            );
            return Err(Fault::parse(reason).property("ignore_failure"));
        }
    };
    let known = ["model_id", "field_map", "batch_size", "ignore_failure", "tag", "description"];
    match unknown(options, &known) {
        Some(unknown) => Err(Fault::parse(format!(
            "processor [{KNOWN}] doesn't support one or more provided configuration parameters [{unknown}]"
        ))),
        None => Ok(Processor { model_id, fields, batch_texts, ignore_failure }),
    }
}

fn missing(property: &'static str) -> Fault {
    Fault::parse(format!("[{property}] required property is missing")).property(property)
}

/// The original answers 500 here, and so do we: scripts that know it look for this sentence.
fn bad_field_map() -> Fault {
    let sentence = "Unable to create the processor as field_map has invalid key or value";
    Fault::new(500, "exception", format!("java.lang.IllegalArgumentException: {sentence}"))
        .caused_by(json!({"type": "illegal_argument_exception", "reason": sentence}))
}

fn java_type(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "java.lang.String",
        Value::Bool(_) => "java.lang.Boolean",
        Value::Number(number) if number.is_f64() => "java.lang.Double",
        Value::Number(_) => "java.lang.Integer",
        Value::Array(_) => "java.util.ArrayList",
        Value::Object(_) => "java.util.HashMap",
        Value::Null => "null",
    }
}
