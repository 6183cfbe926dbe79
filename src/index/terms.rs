//! Values of a query to what stands in a field's column: terms, and the bounds of ranges. Knows no queries.

use std::ops::Bound;

use serde_json::Value;
use tantivy::Term;
use tantivy::schema::Field as Column;

use super::fault::{Answer, Fault};
use super::fields::{Field, Kind};
use super::source;

/// What a value asks for.
pub(super) enum Wanted {
    /// No document can have it.
    Nothing,
    Term(Term),
    /// A date that leaves its end open: from the first to the last.
    Between(Term, Term),
}

/// One end of a range, as it is given: whether it belongs to the range, and its value.
pub(super) type End<'q> = Option<(bool, &'q Value)>;

pub(super) fn wanted(column: Column, field: &Field, value: &Value) -> Answer<Wanted> {
    let wrong = || {
        Fault::request(format!(
            "failed to create query: a value is not of the type [{}] of [{}]",
            field.kind.name(),
            field.path
        ))
    };
    let double = |number| Wanted::Term(Term::from_field_f64(column, number));
    let found = match field.kind {
        Kind::Text | Kind::Keyword { .. } => {
            source::text(value).map(|text| Wanted::Term(Term::from_field_text(column, &text)))
        }
        Kind::Boolean => {
            source::boolean(value).map(|truth| Wanted::Term(Term::from_field_bool(column, truth)))
        }
        Kind::Date(format) => format.span(value).map(|span| {
            let term = |millis| Term::from_field_i64(column, millis);
            match span.first == span.last {
                true => Wanted::Term(term(span.first)),
                false => Wanted::Between(term(span.first), term(span.last)),
            }
        }),
        Kind::Integer { .. } => exact_integer(value).map(|whole| match whole {
            Some(whole) => Wanted::Term(Term::from_field_i64(column, whole)),
            None => Wanted::Nothing,
        }),
        Kind::Float => source::single(value).map(double),
        Kind::Double => source::float(value).map(double),
        Kind::Vector { .. } => {
            return Err(Fault::request(format!(
                "[{}] is a vector: ask for it with knn",
                field.path
            )));
        }
    };
    found.ok_or_else(wrong)
}

/// The bounds of a range over a field's column.
pub(super) fn range(
    column: Column,
    field: &Field,
    low: End<'_>,
    high: End<'_>,
) -> Answer<(Bound<Term>, Bound<Term>)> {
    let wrong = || {
        Fault::request(format!(
            "a bound of the range is not of the type [{}] of [{}]",
            field.kind.name(),
            field.path
        ))
    };
    let integer = |number: i64| Term::from_field_i64(column, number);
    let bound = |end: End<'_>, is_low: bool| -> Option<Bound<Term>> {
        let Some((closed, value)) = end else { return Some(Bound::Unbounded) };
        let term = match field.kind {
            Kind::Integer { .. } => {
                return whole_bound(value, closed, is_low).map(|bound| bound.map(integer));
            }
            // All of a day is within its end, and none of it behind.
            Kind::Date(format) => {
                let span = format.span(value)?;
                integer(if closed == is_low { span.first } else { span.last })
            }
            Kind::Float => Term::from_field_f64(column, source::single(value)?),
            Kind::Double => Term::from_field_f64(column, source::float(value)?),
            _ => Term::from_field_text(column, &source::text(value)?),
        };
        Some(if closed { Bound::Included(term) } else { Bound::Excluded(term) })
    };
    if matches!(field.kind, Kind::Text | Kind::Boolean | Kind::Vector { .. }) {
        return Err(Fault::request(format!(
            "the embedded index has no ranges over [{}], which is of type [{}]",
            field.path,
            field.kind.name()
        )));
    }
    Ok((bound(low, true).ok_or_else(wrong)?, bound(high, false).ok_or_else(wrong)?))
}

/// None for what is no number; `Some(None)` for one that no integer field can hold.
fn exact_integer(value: &Value) -> Option<Option<i64>> {
    if let Some(whole) = source::text(value)?.parse::<i64>().ok().filter(|_| !value.is_boolean()) {
        return Some(Some(whole));
    }
    let number = source::float(value)?;
    // -2^63 is the least that an integer can be, and 2^63 the first that it cannot.
    let fits = number.fract() == 0.0 && (-TWO_TO_63..TWO_TO_63).contains(&number);
    Some(fits.then_some(number as i64))
}

const TWO_TO_63: f64 = 9_223_372_036_854_775_808.0;

/// The bound over whole numbers that a bound of any number means.
fn whole_bound(value: &Value, closed: bool, is_low: bool) -> Option<Bound<i64>> {
    if let Some(Some(whole)) = exact_integer(value) {
        return Some(if closed { Bound::Included(whole) } else { Bound::Excluded(whole) });
    }
    let number = source::float(value)?;
    // Casting stops at the ends of i64, beyond which there is nothing.
    let nearest = if is_low { number.ceil() } else { number.floor() };
    let beyond = number.abs() >= TWO_TO_63;
    let is_inside = if is_low { number < 0.0 } else { number > 0.0 };
    match beyond && !is_inside {
        true => Some(Bound::Excluded(nearest as i64)),
        false => Some(Bound::Included(nearest as i64)),
    }
}
