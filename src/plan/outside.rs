//! What a later look from outside changes.

use std::{net::IpAddr, num::NonZeroU16};

use crate::model::{Nat, Outside, Seen};

/// Returns what is known after `news`; `listen_port` is WireGuard's, and `own` are the addresses that this machine has
/// now.
///
/// A family that was not answered stays as it was: an answer may get lost. Only an address that was this machine's own,
/// and is not any more, is forgotten.
pub fn look_again(known: Outside, news: Outside, listen_port: Option<NonZeroU16>, own: &[IpAddr]) -> Outside {
    let family = |known: Option<Seen>, news: Option<Seen>| match (known, news) {
        (_, Some(news)) if Some(news.asked_from) == listen_port => Some(news),
        // Asked from another port; that of the first time still holds.
        (Some(known), Some(news)) if known.address.ip() == news.address.ip() => Some(Seen { nat: news.nat, ..known }),
        (_, Some(news)) => Some(news),
        (known, None) => known.filter(|known| known.nat == Nat::BehindNat || own.contains(&known.address.ip())),
    };
    Outside { v4: family(known.v4, news.v4), v6: family(known.v6, news.v6) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_address_keeps_the_port_of_wireguard() {
        let known = outside("198.51.100.7:40000", 51821, Nat::BehindNat);

        let now = look_again(known, outside("198.51.100.7:40001", 39000, Nat::BehindNat), PORT, &[]);

        assert_eq!(now, known);
    }

    #[test]
    fn another_address_is_news_and_its_port_is_not_known() {
        let known = outside("198.51.100.7:40000", 51821, Nat::BehindNat);
        let news = outside("198.51.100.8:40001", 39000, Nat::BehindNat);

        let now = look_again(known, news, PORT, &[]);

        assert_eq!(now, news);
        assert_eq!(now.v4.unwrap().port_of(51821.try_into().unwrap()), None);
    }

    #[test]
    fn what_was_asked_from_wireguards_own_port_is_right() {
        let known = outside("198.51.100.7:40000", 51821, Nat::BehindNat);
        let news = outside("198.51.100.7:40001", 51821, Nat::BehindNat);

        assert_eq!(look_again(known, news, PORT, &[]), news);
    }

    #[test]
    fn silence_takes_only_what_this_machine_has_lost_itself() {
        let behind = outside("198.51.100.7:40000", 51821, Nat::BehindNat);
        let own = outside("[2001:db8::7]:51821", 51821, Nat::Public);

        assert_eq!(look_again(behind, Outside::default(), PORT, &[]), behind);
        assert_eq!(look_again(own, Outside::default(), PORT, &["2001:db8::7".parse().unwrap()]), own);
        assert_eq!(look_again(own, Outside::default(), PORT, &["2001:db8::8".parse().unwrap()]), Outside::default());
    }

    const PORT: Option<NonZeroU16> = NonZeroU16::new(51821);

    fn outside(address: &str, asked_from: u16, nat: Nat) -> Outside {
        let mut outside = Outside::default();
        outside.put(Seen { address: address.parse().unwrap(), asked_from: asked_from.try_into().unwrap(), nat });
        outside
    }
}
