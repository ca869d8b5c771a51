//! `--allow`: which addresses may connect.

use std::net::IpAddr;

use ipnet::IpNet;

/// The networks that are let in; without any, all addresses are.
#[derive(Clone, Debug, Default)]
pub struct AllowList(Vec<IpNet>);

impl AllowList {
    /// Lets in these networks. A network of v4-mapped addresses means the v4 network.
    #[must_use]
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks.into_iter().map(canonical_network).collect())
    }

    /// Whether `address` may connect. A client of a dual-stack socket shows as `::ffff:192.0.2.1`. It is compared as
    /// `192.0.2.1`; otherwise it would slip past a list that names that address, or be kept out by it.
    #[must_use]
    pub fn allows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.is_empty() || self.0.iter().any(|network| network.contains(&address))
    }
}

/// Bits of the prefix that maps v4 addresses into v6.
const MAPPED_PREFIX: u8 = 96;

fn canonical_network(network: IpNet) -> IpNet {
    let mapped = match network {
        IpNet::V6(v6) if v6.prefix_len() >= MAPPED_PREFIX => v6
            .addr()
            .to_ipv4_mapped()
            .map(|v4| (v4, v6.prefix_len() - MAPPED_PREFIX)),
        _ => None,
    };
    match mapped {
        Some((v4, prefix)) => IpNet::new(v4.into(), prefix).expect("at most 32 bits are left"),
        None => network,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(networks: &[&str]) -> AllowList {
        AllowList::new(
            networks
                .iter()
                .map(|text| text.parse().expect("a network"))
                .collect(),
        )
    }

    fn allows(networks: &[&str], address: &str) -> bool {
        list(networks).allows(address.parse().expect("an address"))
    }

    #[test]
    fn no_list_lets_everybody_in() {
        assert!(allows(&[], "203.0.113.7"));
    }

    #[test]
    fn only_listed_networks_get_in() {
        let networks = ["10.0.0.0/8", "fd00::/8"];
        assert!(allows(&networks, "10.255.0.1"));
        assert!(allows(&networks, "fd00::1"));
        assert!(!allows(&networks, "11.0.0.1"));
        assert!(!allows(&networks, "fe80::1"));
    }

    #[test]
    fn mapped_addresses_are_v4_addresses() {
        assert!(allows(&["10.0.0.0/8"], "::ffff:10.1.2.3"));
        assert!(!allows(&["10.0.0.0/8"], "::ffff:11.1.2.3"));
        // All of v6 isn't all of v4.
        assert!(!allows(&["::/0"], "::ffff:11.1.2.3"));
        assert!(allows(&["::ffff:10.0.0.0/104"], "10.1.2.3"));
        assert!(!allows(&["::ffff:10.0.0.0/104"], "11.1.2.3"));
    }
}
