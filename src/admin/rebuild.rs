//! `REBUILD LINK` as the order for one, and a rebuild as text. Looks nothing up.

use super::execute::utc;
use super::spec;
use crate::error::{Error, Result};
use crate::link::{NewRules, Rebuild, Wanted};
use crate::statement::RebuildOptions;

/// What the options, read from `text`, ask for.
pub(super) fn wanted(options: &RebuildOptions, text: &str) -> Result<Wanted> {
    let mut index = match &options.index {
        None => serde_json::Value::Null,
        // It was read once, when it was seen to be JSON.
        Some(index) => serde_json::from_str(&index.text)
            .map_err(|cause| Error::input("INDEX is not JSON").caused_by(cause).at(index.span))?,
    };
    let mut part = |name: &str| index.get_mut(name).map(serde_json::Value::take);
    let rules = options.mapping.as_ref().and_then(|rules| {
        let first = rules.first()?;
        let index = (first.index.text.clone(), first.index.span);
        Some(NewRules { index, rules: rules.iter().map(spec::rule).collect() })
    });
    Ok(Wanted {
        settings: part("settings"),
        mappings: part("mappings"),
        pipeline: options.pipeline.as_ref().map(|name| (name.text.clone(), name.span)),
        rules,
        keep_old_secs: options.keep_old.map(|keep| (keep.secs, keep.span)),
        statement: text.to_owned(),
    })
}

/// `rebuild: copying into goods_v2, by the link goods~2`
pub(super) fn progress(id: &str, rebuild: &Rebuild) -> String {
    let Rebuild { phase, link, index, differences, repaired, kept_until, waits_for } = rebuild;
    let mut text = match kept_until {
        None => format!("rebuild: {phase}; the new index is {index}, filled by the link {link}"),
        Some(until) => format!(
            "rebuilt; {index} is kept by the link {link} until {}, and REBUILD LINK `{id}` ROLLBACK goes back to it",
            utc(*until)
        ),
    };
    if *differences > 0 {
        text.push_str(&format!("; {differences} differences were found, and {repaired} mended"));
    }
    if !waits_for.is_empty() {
        text.push_str(&format!("; it waits: {waits_for}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rebuild_is_told_in_a_line() {
        let mut rebuild = Rebuild {
            phase: "verifying",
            link: "g~2".into(),
            index: "g_v2".into(),
            ..Rebuild::default()
        };
        let text = "rebuild: verifying; the new index is g_v2, filled by the link g~2";
        assert_eq!(progress("g", &rebuild), text);
        rebuild.waits_for = "x".into();
        rebuild.differences = 2;
        rebuild.repaired = 1;
        let more = "; 2 differences were found, and 1 mended; it waits: x";
        assert_eq!(progress("g", &rebuild), format!("{text}{more}"));
    }
}
