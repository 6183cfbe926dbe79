//! Shapes as the source stores them (four bytes of SRID, then WKB) to GeoJSON as `ST_AsGeoJSON` writes it, or to WKT. Knows
//! no columns.
//!
//! A stored shape has the longitude first, whatever axis order its reference system defines; so have both texts. That is
//! what `ST_AsGeoJSON` gives, and `ST_AsText` when it is asked for `axis-order=long-lat`, and what search engines read.

use super::double::write_double;
use crate::error::{Error, ErrorKind, Result};

/// Collections inside each other: one level is two of JSON, of which the server itself writes no more than a hundred.
const MAX_DEPTH: u32 = 50;

/// Types of WKB.
mod kind {
    pub const POINT: u32 = 1;
    pub const LINE_STRING: u32 = 2;
    pub const POLYGON: u32 = 3;
    pub const MULTI_POINT: u32 = 4;
    pub const MULTI_LINE_STRING: u32 = 5;
    pub const MULTI_POLYGON: u32 = 6;
    pub const COLLECTION: u32 = 7;
}

/// Appends the shape as a GeoJSON object. On an error `out` is as it was.
pub(super) fn write_geojson(bytes: &[u8], out: &mut Vec<u8>) -> Result<()> {
    whole(bytes, &GEOJSON, out, |shape, out| shape.geojson(out, 0))
}

/// Appends the shape as a JSON string of WKT. On an error `out` is as it was.
pub(super) fn write_wkt(bytes: &[u8], out: &mut Vec<u8>) -> Result<()> {
    whole(bytes, &WKT, out, |shape, out| {
        out.push(b'"');
        shape.wkt(out, 0)?;
        out.push(b'"');
        Some(())
    })
}

/// How positions and lists of them are put down.
struct Style {
    open: &'static [u8],
    close: &'static [u8],
    open_position: &'static [u8],
    between: &'static [u8],
    close_position: &'static [u8],
    whole_end: &'static [u8],
}

static GEOJSON: Style = Style {
    open: b"[",
    close: b"]",
    open_position: b"[",
    between: b",",
    close_position: b"]",
    whole_end: b".0",
};

static WKT: Style = Style {
    open: b"(",
    close: b")",
    open_position: b"",
    between: b" ",
    close_position: b"",
    whole_end: b"",
};

fn whole(
    bytes: &[u8],
    style: &'static Style,
    out: &mut Vec<u8>,
    write: impl FnOnce(&mut Shapes<'_>, &mut Vec<u8>) -> Option<()>,
) -> Result<()> {
    let begun_at = out.len();
    let mut shapes = Shapes { bytes: bytes.get(4..).unwrap_or_default(), style };
    match write(&mut shapes, out) {
        Some(()) if shapes.bytes.is_empty() => Ok(()),
        _ => {
            out.truncate(begun_at);
            Err(Error::new(ErrorKind::Undecodable, "its bytes are no shape"))
        }
    }
}

/// What is left of the bytes.
struct Shapes<'a> {
    bytes: &'a [u8],
    style: &'static Style,
}

impl Shapes<'_> {
    fn geojson(&mut self, out: &mut Vec<u8>, depth: u32) -> Option<()> {
        let kind = self.head()?;
        let name: &[u8] = match kind {
            kind::POINT => b"Point",
            kind::LINE_STRING => b"LineString",
            kind::POLYGON => b"Polygon",
            kind::MULTI_POINT => b"MultiPoint",
            kind::MULTI_LINE_STRING => b"MultiLineString",
            kind::MULTI_POLYGON => b"MultiPolygon",
            kind::COLLECTION => b"GeometryCollection",
            _ => return None,
        };
        out.extend_from_slice(b"{\"type\":\"");
        out.extend_from_slice(name);
        if kind == kind::COLLECTION {
            out.extend_from_slice(b"\",\"geometries\":[");
            let depth = deeper(depth)?;
            self.list(out, |shapes, out| shapes.geojson(out, depth))?;
            out.push(b']');
        } else {
            out.extend_from_slice(b"\",\"coordinates\":");
            self.coordinates(kind, out)?;
        }
        out.push(b'}');
        Some(())
    }

    fn wkt(&mut self, out: &mut Vec<u8>, depth: u32) -> Option<()> {
        let kind = self.head()?;
        let name: &[u8] = match kind {
            kind::POINT => b"POINT",
            kind::LINE_STRING => b"LINESTRING",
            kind::POLYGON => b"POLYGON",
            kind::MULTI_POINT => b"MULTIPOINT",
            kind::MULTI_LINE_STRING => b"MULTILINESTRING",
            kind::MULTI_POLYGON => b"MULTIPOLYGON",
            kind::COLLECTION => b"GEOMETRYCOLLECTION",
            _ => return None,
        };
        out.extend_from_slice(name);
        match kind {
            kind::POINT => {
                out.push(b'(');
                self.position(out)?;
                out.push(b')');
                Some(())
            }
            kind::COLLECTION if self.bytes.first_chunk() == Some(&[0; 4]) => {
                self.u32(true)?;
                out.extend_from_slice(b" EMPTY");
                Some(())
            }
            kind::COLLECTION => {
                out.push(b'(');
                let depth = deeper(depth)?;
                self.list(out, |shapes, out| shapes.wkt(out, depth))?;
                out.push(b')');
                Some(())
            }
            _ => self.coordinates(kind, out),
        }
    }

    fn coordinates(&mut self, kind: u32, out: &mut Vec<u8>) -> Option<()> {
        if kind == kind::POINT {
            return self.position(out);
        }
        out.extend_from_slice(self.style.open);
        match kind {
            kind::LINE_STRING => self.list(out, Self::position)?,
            kind::POLYGON => self.list(out, Self::ring)?,
            _ => self.list(out, |shapes, out| {
                let part = shapes.head()?;
                let is_point = part == kind::POINT && !shapes.style.open_position.is_empty();
                match (kind, part) {
                    (kind::MULTI_POINT, kind::POINT) if is_point => shapes.position(out),
                    (kind::MULTI_POINT, kind::POINT) => {
                        out.extend_from_slice(shapes.style.open);
                        shapes.position(out)?;
                        out.extend_from_slice(shapes.style.close);
                        Some(())
                    }
                    (kind::MULTI_LINE_STRING, kind::LINE_STRING)
                    | (kind::MULTI_POLYGON, kind::POLYGON) => shapes.coordinates(part, out),
                    _ => None,
                }
            })?,
        }
        out.extend_from_slice(self.style.close);
        Some(())
    }

    fn ring(&mut self, out: &mut Vec<u8>) -> Option<()> {
        self.coordinates(kind::LINE_STRING, out)
    }

    fn position(&mut self, out: &mut Vec<u8>) -> Option<()> {
        let style = self.style;
        out.extend_from_slice(style.open_position);
        write_double(self.f64()?, style.whole_end, out)?;
        out.extend_from_slice(style.between);
        write_double(self.f64()?, style.whole_end, out)?;
        out.extend_from_slice(style.close_position);
        Some(())
    }

    /// As many parts as the count before them says. Each takes bytes, so a count that lies ends with them.
    fn list(
        &mut self,
        out: &mut Vec<u8>,
        mut part: impl FnMut(&mut Self, &mut Vec<u8>) -> Option<()>,
    ) -> Option<()> {
        for at in 0..self.u32(true)? {
            if at > 0 {
                out.push(b',');
            }
            part(self, out)?;
        }
        Some(())
    }

    /// The type of the shape that begins here. The server stores little-endian numbers only.
    fn head(&mut self) -> Option<u32> {
        let (order, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        self.u32(*order == 1)
    }

    fn u32(&mut self, is_little_endian: bool) -> Option<u32> {
        let (number, rest) = self.bytes.split_first_chunk()?;
        self.bytes = rest;
        is_little_endian.then(|| u32::from_le_bytes(*number))
    }

    fn f64(&mut self) -> Option<f64> {
        let (number, rest) = self.bytes.split_first_chunk()?;
        self.bytes = rest;
        Some(f64::from_le_bytes(*number))
    }
}

fn deeper(depth: u32) -> Option<u32> {
    (depth < MAX_DEPTH).then_some(depth + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hex(text: &str) -> Vec<u8> {
        let pairs = text.as_bytes().chunks(2);
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16);
        pairs.map(|pair| byte(pair).expect("hex")).collect()
    }

    fn both(bytes: &[u8]) -> (String, String) {
        let (mut geojson, mut wkt) = (Vec::new(), Vec::new());
        write_geojson(bytes, &mut geojson).expect("a shape");
        write_wkt(bytes, &mut wkt).expect("a shape");
        (String::from_utf8(geojson).expect("UTF-8"), String::from_utf8(wkt).expect("UTF-8"))
    }

    /// Bytes and texts of MySQL 9.7: `ST_GeomFromText('POINT(10 20)', 4326)`, latitude first.
    #[test]
    fn the_longitude_comes_first() {
        let (geojson, wkt) = both(&hex("E6100000010100000000000000000034400000000000002440"));
        assert_eq!(geojson, r#"{"type":"Point","coordinates":[20.0,10.0]}"#);
        assert_eq!(wkt, r#""POINT(20 10)""#);
    }

    #[test]
    fn collections_hold_shapes_and_may_be_empty() {
        let bytes = hex(
            "000000000107000000020000000101000000000000000000F03F0000000000000040010700000000000000",
        );
        let (geojson, wkt) = both(&bytes);
        assert_eq!(
            geojson,
            r#"{"type":"GeometryCollection","geometries":[{"type":"Point","coordinates":[1.0,2.0]},{"type":"GeometryCollection","geometries":[]}]}"#
        );
        assert_eq!(wkt, r#""GEOMETRYCOLLECTION(POINT(1 2),GEOMETRYCOLLECTION EMPTY)""#);
        for end in 0..bytes.len() {
            assert!(write_geojson(&bytes[..end], &mut Vec::new()).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn collections_do_not_nest_for_ever() {
        let level = hex("010700000001000000");
        let bytes = [vec![0; 4], level.repeat(10_000)].concat();
        assert!(write_geojson(&bytes, &mut Vec::new()).is_err());
        assert!(write_wkt(&bytes, &mut Vec::new()).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut bytes in prop::collection::vec(0u8..9, 0..200)) {
            if let Some(order) = bytes.get_mut(4) {
                *order = 1;
            }
            let mut out = b"kept".to_vec();
            match write_geojson(&bytes, &mut out) {
                Ok(()) => prop_assert!(serde_json::from_slice::<&serde_json::value::RawValue>(&out[4..]).is_ok()),
                Err(_) => prop_assert_eq!(out, b"kept"),
            }
            let _ = write_wkt(&bytes, &mut Vec::new());
        }
    }
}
