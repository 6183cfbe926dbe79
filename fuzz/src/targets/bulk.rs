//! Answers to a bulk: an outcome is for an operation that was sent, and nothing is done that the answer does not name.
//! Input: the answer of a cluster to the three operations below.

use driftless::document::{Action, DocOp, IdHasher};
use driftless::position::Version;
use driftless::sink::answer::{self, Placed};
use driftless::sink::{Outcome, Target};

pub fn read(input: &[u8]) {
    let target =
        Target { index: "products".into(), alias: "products-write".into(), ..Target::default() };
    let operation =
        |action, id, body| DocOp { action, id, key: IdHasher.key(id), version: Version(7), body };
    let part: [Placed<'_>; 3] = [
        (0, operation(Action::Upsert, "1", br#"{"id":1,"title":"a text of some length"}"#)),
        (2, operation(Action::Upsert, "b|\"2", br#"{"id":2,"title":null}"#)),
        (3, operation(Action::Delete, "1000", b"")),
    ];
    // The batch has one more, which was sent in another part.
    let mut outcomes: [Option<Outcome>; 4] = Default::default();
    let read = answer::read(&target, &part, input, &mut outcomes);
    assert_eq!(outcomes[1], None);
    let Ok(spoilt) = read else {
        assert!(outcomes.iter().all(Option::is_none), "an outcome out of no answer");
        return;
    };
    for place in spoilt {
        assert!(matches!(outcomes[place], Some(Outcome::Refused { .. })));
    }
    for (place, operation) in &part {
        if outcomes[*place] == Some(Outcome::Done) {
            let is_named = contains(input, operation.id.split('"').next().unwrap_or_default());
            assert!(is_named || input.contains(&b'\\'), "{} was not named", operation.id);
        }
    }
}

fn contains(input: &[u8], text: &str) -> bool {
    input.windows(text.len()).any(|window| window == text.as_bytes())
}
