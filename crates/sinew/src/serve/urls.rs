//! URLs of members: `http://host:port`, in comma lists.
//!
//! Invariant: a [`Url`] has a host and a port other than 0, and no path. Errors say what to write instead.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs as _};

/// One checked URL.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Url {
    host: String,
    port: u16,
}

impl Url {
    /// `host:port`, for the resolver.
    fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// True if it means "every address of this machine", which nobody else can connect to.
    pub(super) fn is_wildcard(&self) -> bool {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        host.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified())
    }

    /// The addresses behind the URL, IPv4 first.
    pub(super) fn resolve(&self) -> Result<Vec<SocketAddr>, String> {
        let found = self.authority().to_socket_addrs();
        let mut addresses: Vec<SocketAddr> =
            found.map_err(|error| format!("{self}: the host name cannot be resolved: {error}"))?.collect();
        addresses.sort_by_key(|address| (!address.is_ipv4(), *address));
        addresses.dedup();
        Ok(addresses)
    }
}

impl std::fmt::Display for Url {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "http://{}:{}", self.host, self.port)
    }
}

/// Parses one URL of `flag`.
pub(super) fn parse(flag: &str, text: &str) -> Result<Url, String> {
    let text = text.trim();
    let wrong = |what: &str| format!("--{flag}: '{text}' {what}; write for example http://10.0.0.1:2380");
    let rest = match text.split_once("://") {
        Some(("http", rest)) => rest,
        Some(("https", _)) => return Err(format!("--{flag}: TLS is not available yet; write http:// in '{text}'")),
        Some(("unix" | "unixs", _)) => {
            return Err(format!("--{flag}: unix sockets are not available; write http://host:port for '{text}'"));
        }
        Some(_) => return Err(wrong("has an unknown scheme")),
        None => return Err(wrong("has no scheme")),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains('/') {
        return Err(wrong("must not contain a path"));
    }
    let (host, port) = rest.rsplit_once(':').ok_or_else(|| wrong("has no port"))?;
    let port = port.parse::<u16>().map_err(|_| wrong("has no port number from 1 to 65535"))?;
    if port == 0 {
        return Err(wrong("has port 0, which others cannot know"));
    }
    if host.is_empty() {
        return Err(wrong("has no host"));
    }
    let bracketed = host.starts_with('[') && host.ends_with(']');
    if host.contains(':') && !bracketed {
        return Err(format!("--{flag}: an IPv6 address stands in brackets: http://[::1]:2380 instead of '{text}'"));
    }
    if host.contains(['@', ' ', '?', '#']) {
        return Err(wrong("is not scheme, host and port"));
    }
    Ok(Url { host: host.to_lowercase(), port })
}

/// Parses a comma list of `flag`: at least one, none twice; sorted.
pub(super) fn parse_list(flag: &str, text: &str) -> Result<Vec<Url>, String> {
    let mut urls = Vec::new();
    for item in text.split(',').filter(|item| !item.trim().is_empty()) {
        let url = parse(flag, item)?;
        if urls.contains(&url) {
            return Err(format!("--{flag}: {url} stands there twice; remove one"));
        }
        urls.push(url);
    }
    if urls.is_empty() {
        return Err(format!("--{flag} is empty; write for example http://127.0.0.1:2380"));
    }
    urls.sort();
    Ok(urls)
}

/// Where to bind for `urls`: one address each, IPv4 if the host has one.
pub(super) fn listen_addresses(flag: &str, urls: &[Url]) -> Result<Vec<SocketAddr>, String> {
    let mut bound: Vec<SocketAddr> = Vec::new();
    for url in urls {
        let addresses = url.resolve().map_err(|reason| format!("--{flag}: {reason}"))?;
        let address = *addresses.first().ok_or_else(|| format!("--{flag}: {url} has no address"))?;
        if bound.contains(&address) {
            return Err(format!("--{flag}: two URLs mean the same address {address}; remove one"));
        }
        bound.push(address);
    }
    Ok(bound)
}

/// Two addresses that cannot be bound at the same time.
pub(super) fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let everywhere = |address: SocketAddr| address.ip().is_unspecified();
    let same_family = one.is_ipv4() == other.is_ipv4();
    one.port() == other.port() && (one.ip() == other.ip() || same_family && (everywhere(one) || everywhere(other)))
}

/// The loopback URL with `port`.
pub(super) fn loopback(port: u16) -> Url {
    Url { host: Ipv4Addr::LOCALHOST.to_string(), port }
}

/// The URL etcd advertises by default.
pub(super) fn localhost(port: u16) -> Url {
    Url { host: "localhost".to_owned(), port }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_normalised() {
        let show = |text: &str| parse("flag", text).map(|url| url.to_string());
        assert_eq!(show("http://127.0.0.1:2379"), Ok("http://127.0.0.1:2379".to_owned()));
        assert_eq!(show(" http://Host.Example:1/ "), Ok("http://host.example:1".to_owned()));
        assert_eq!(show("http://[::1]:2379"), Ok("http://[::1]:2379".to_owned()));
    }

    #[test]
    fn wrong_urls_say_what_to_write() {
        for (text, expected) in [
            ("127.0.0.1:2379", "no scheme"),
            ("https://a:1", "TLS is not available yet"),
            ("unix:///tmp/x", "unix sockets"),
            ("ftp://a:1", "unknown scheme"),
            ("http://a", "no port"),
            ("http://a:x", "1 to 65535"),
            ("http://a:70000", "1 to 65535"),
            ("http://a:0", "port 0"),
            ("http://:1", "no host"),
            ("http://a:1/path", "path"),
            ("http://::1:1", "brackets"),
            ("http://u@a:1", "scheme, host and port"),
        ] {
            let error = parse("flag", text).expect_err(text);
            assert!(error.contains(expected) && error.starts_with("--flag: "), "{text}: {error}");
        }
        assert!(parse_list("flag", "http://a:1,http://a:1").expect_err("twice").contains("twice"));
        assert!(parse_list("flag", " , ").expect_err("nothing").contains("empty"));
    }

    #[test]
    fn hosts_are_resolved_ipv4_first() {
        let url = parse("flag", "http://localhost:2379").expect("fine");
        let addresses = listen_addresses("flag", &[url]).expect("localhost resolves");
        assert_eq!(addresses, ["127.0.0.1:2379".parse().expect("address")]);
        assert!(parse("flag", "http://0.0.0.0:1").expect("fine").is_wildcard());
        assert!(parse("flag", "http://[::]:1").expect("fine").is_wildcard());
        assert!(!parse("flag", "http://0.0.0.1:1").expect("fine").is_wildcard());
    }

    #[test]
    fn wildcards_collide_with_everything_on_their_port() {
        let address = |text: &str| text.parse::<SocketAddr>().expect("address");
        assert!(collide(address("0.0.0.0:1"), address("127.0.0.1:1")));
        assert!(collide(address("127.0.0.1:1"), address("127.0.0.1:1")));
        assert!(!collide(address("127.0.0.1:1"), address("127.0.0.1:2")));
        assert!(!collide(address("127.0.0.1:1"), address("127.0.0.2:1")));
    }
}
