//! Whom we dare to call with an address that came in a request: URLs that a trusted regex matches as a whole, and no
//! private address unless that is allowed. Knows nothing of what is asked there.
//!
//! Three doors are shut, because each alone can be walked around: the URL is compared when it is used (not only when
//! it is stored), an address written in the URL is looked at as the URL parser reads it (`127.1`, `0x7f000001` and
//! `[::ffff:127.0.0.1]` are all loopback), and a name is looked at after it was resolved, by the resolver that the
//! connection itself uses, so that no second look-up can give another address.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use regex::Regex;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

use crate::error::{Error, Result};

/// The regexes an endpoint's URL must match, and whether private addresses may be called.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    endpoints: Vec<Regex>,
    private_ip: bool,
}

impl Trust {
    /// Each regex must match a URL from its first to its last character, with or without `^` and `$`.
    pub fn new(endpoints: &[String], private_ip: bool) -> Result<Self> {
        let endpoints = endpoints
            .iter()
            .map(|pattern| {
                // The group keeps `a|b` whole; parsing the pattern alone first keeps `a)(b` from closing it.
                Regex::new(pattern)
                    .and_then(|_| Regex::new(&format!(r"\A(?:{pattern})\z")))
                    .map_err(|error| {
                        Error::input(format!("cannot use `{pattern}` as a regular expression"))
                            .caused_by(error)
                    })
            })
            .collect::<Result<_>>()?;
        Ok(Self { endpoints, private_ip })
    }

    pub fn allows_private_ip(&self) -> bool {
        self.private_ip
    }

    pub fn allows(&self, url: &str) -> bool {
        self.endpoints.iter().any(|pattern| pattern.is_match(url))
    }

    /// The private address or local name that stands in `url` itself, if private addresses are refused.
    pub fn private_host(&self, url: &Url) -> Option<String> {
        if self.private_ip {
            return None;
        }
        match url.host()? {
            Host::Ipv4(ip) => is_private(ip.into()).then(|| ip.to_string()),
            Host::Ipv6(ip) => is_private(ip.into()).then(|| ip.to_string()),
            Host::Domain(name) => is_local_name(name).then(|| name.to_owned()),
        }
    }
}

fn is_local_name(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

/// Addresses that lead into this machine, its network or its cloud's inside, or nowhere.
pub fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_private_v4(ip),
        IpAddr::V6(ip) => match inner_v4(ip) {
            Some(inner) => is_private_v4(inner),
            None => {
                ip.is_loopback()
                    || ip.is_unspecified()
                    || ip.is_multicast()
                    || ip.is_unique_local()
                    || ip.is_unicast_link_local()
                    || is_old_or_special(ip)
            }
        },
    }
}

/// Addresses that no server in the open has.
fn is_old_or_special(ip: Ipv6Addr) -> bool {
    match ip.segments() {
        // Reserved, beside the two that mean this machine.
        [0, 0, 0, 0, 0, 0, ..] => true,
        // NAT64 of a network of its own.
        [0x64, 0xff9b, 1, ..] => true,
        // For throwing away, and for examples.
        [0x100, 0, 0, 0, ..] | [0x2001, 0xdb8, ..] => true,
        // Teredo: through a tunnel to an IPv4 address that stands there in disguise.
        [0x2001, 0, ..] => true,
        // Site-local, given up in 2004 and still routed inside old networks.
        [first, ..] => first & 0xffc0 == 0xfec0,
    }
}

fn is_private_v4(ip: Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_multicast()
        || ip.is_broadcast()
        || a == 0
        || a >= 240
        // Carrier-grade NAT, where some clouds keep their metadata service.
        || (a == 100 && b & 0xc0 == 64)
        || (a == 198 && b & 0xfe == 18)
        || ip.octets()[..3] == [192, 0, 0]
        || ip.is_documentation()
}

/// The IPv4 address that an IPv6 address only wraps: mapped, translated, compatible, NAT64 or 6to4.
fn inner_v4(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = ip.segments();
    let low = || Ipv4Addr::from_bits((u32::from(g) << 16) | u32::from(h));
    match [a, b, c, d, e, f] {
        [0, 0, 0, 0, 0, 0xffff] | [0, 0, 0, 0, 0xffff, 0] | [0x64, 0xff9b, 0, 0, 0, 0] => {
            Some(low())
        }
        [0, 0, 0, 0, 0, 0] if g != 0 => Some(low()),
        [0x2002, ..] => Some(Ipv4Addr::from_bits((u32::from(b) << 16) | u32::from(c))),
        _ => None,
    }
}

/// A resolver that hides private addresses: a name that has any is refused as a whole.
#[derive(Debug, Clone, Default)]
pub struct PublicOnly;

/// A name led to a private address.
#[derive(Debug)]
pub struct PrivateAddress(pub String);

impl fmt::Display for PrivateAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Remote inference host name has private ip address: {}", self.0)
    }
}

impl std::error::Error for PrivateAddress {}

/// The private name that made a request fail, if that is why it failed.
pub fn refused_name(error: &reqwest::Error) -> Option<String> {
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if let Some(PrivateAddress(name)) = inner.downcast_ref() {
            return Some(name.clone());
        }
        cause = inner.source();
    }
    None
}

impl PublicOnly {
    pub fn resolver() -> Arc<dyn Resolve> {
        Arc::new(Self)
    }
}

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let name = name.as_str().to_owned();
            let found: Vec<SocketAddr> =
                tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            if found.iter().any(|address| is_private(address.ip())) {
                return Err(PrivateAddress(name).into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trust(patterns: &[&str]) -> Trust {
        Trust::new(&patterns.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>(), false)
            .expect("patterns parse")
    }

    #[test]
    fn a_url_is_trusted_only_when_the_whole_of_it_matches() {
        let tutorial = trust(&["^https://dashscope.aliyuncs.com/compatible-mode.*$"]);
        assert!(tutorial.allows("https://dashscope.aliyuncs.com/compatible-mode/v1/embeddings"));
        assert!(!tutorial.allows("http://dashscope.aliyuncs.com/compatible-mode/v1/embeddings"));
        assert!(
            !tutorial
                .allows("https://evil.example/?https://dashscope.aliyuncs.com/compatible-mode/v1")
        );
        let without_anchors = trust(&["https://a\\.example/v1", "b|c"]);
        assert!(without_anchors.allows("https://a.example/v1"));
        assert!(!without_anchors.allows("https://a.example/v1/x"));
        assert!(
            without_anchors.allows("c")
                && !without_anchors.allows("cc")
                && !without_anchors.allows("bx")
        );
        assert!(!trust(&[]).allows("https://a.example/"));
    }

    #[test]
    fn a_pattern_cannot_break_out_of_its_anchors() {
        assert!(Trust::new(&["a)(?:b".to_owned()], false).is_err());
        assert!(Trust::new(&["([".to_owned()], false).is_err());
    }

    #[test]
    fn private_addresses_are_known_in_every_dress() {
        let private = [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "0.0.0.0",
            "100.100.100.200",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "fec0::1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "::127.0.0.1",
            "ff02::1",
            "::2",
            "::ffff:0:169.254.169.254",
            "64:ff9b:1::a00:1",
            "2001:0:4136:e378:8000:63bf:3fff:fdd2",
            "2001:db8::1",
            "100::1",
            "192.0.2.1",
            "198.18.0.1",
            "240.0.0.1",
        ];
        for ip in private {
            assert!(is_private(ip.parse().expect("an address")), "{ip}");
        }
        for ip in [
            "8.8.8.8",
            "172.32.0.1",
            "100.128.0.1",
            "2606:4700::1111",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
        ] {
            assert!(!is_private(ip.parse().expect("an address")), "{ip}");
        }
    }

    #[test]
    fn an_address_in_the_url_is_read_like_the_connection_reads_it() {
        let closed = trust(&[]);
        let hidden = [
            "http://127.1/",
            "http://0x7f000001/",
            "http://2130706433/",
            "http://[::ffff:7f00:1]/",
            "http://LocalHost./",
        ];
        for url in hidden {
            let url = Url::parse(url).expect("a URL");
            assert!(closed.private_host(&url).is_some(), "{url}");
            assert!(Trust::new(&[], true).expect("no patterns").private_host(&url).is_none());
        }
        assert_eq!(
            closed.private_host(&Url::parse("https://api.example.com/").expect("a URL")),
            None
        );
    }

    #[tokio::test]
    async fn a_name_that_leads_to_a_private_address_is_not_called() {
        let options = super::super::http::Options {
            resolver: Some(PublicOnly::resolver()),
            ..Default::default()
        };
        let client = super::super::http::client(options).expect("a client");
        // `localhost` is refused by its name before; here it stands for any name that resolves inwards.
        let error = client.get("http://localhost:1/").send().await.expect_err("refused");
        assert_eq!(refused_name(&error).as_deref(), Some("localhost"));
    }
}
