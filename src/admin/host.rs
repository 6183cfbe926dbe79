//! The names that this machine has for itself, in the header `Host`. Pure.

use std::net::IpAddr;

/// Whether the header names this machine as only it can: by a loopback address or as localhost, with any port.
pub(super) fn is_this_machine(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) if port.is_empty() || is_port(port) => address,
            _ => return false,
        },
        None => match host.rfind(':') {
            Some(at) if is_port(&host[at..]) => &host[..at],
            Some(_) => return false,
            None => host,
        },
    };
    match name.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => {
            let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
            name == "localhost" || name.ends_with(".localhost")
        }
    }
}

fn is_port(text: &str) -> bool {
    text.strip_prefix(':').is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_known_by_its_own_names_only() {
        for host in [
            "localhost",
            "LOCALHOST:9220",
            "localhost.:80",
            "a.localhost:9220",
            "127.0.0.1",
            "127.0.0.1:9220",
            "127.8.9.1:1",
            "[::1]",
            "[::1]:9220",
            "[::ffff:127.0.0.1]:9220",
        ] {
            assert!(is_this_machine(host), "{host}");
        }
        for host in [
            "",
            ":9220",
            "example.com",
            "example.com:9220",
            "localhost.example.com",
            "127.0.0.1.example.com",
            "10.0.0.1:9220",
            "[::1].example.com",
            "[::2]:9220",
            "localhost:evil",
            "notlocalhost",
        ] {
            assert!(!is_this_machine(host), "{host}");
        }
    }
}
