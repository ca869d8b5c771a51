use super::{Action, Damage, Fate, Rule, glob_matches};

#[test]
fn rules_print_what_parses_back() {
    for text in [
        "write offset=1M..2M nth=3 error=EIO",
        "read p=1% delay=20ms..80ms",
        "flush every=10 hang",
        "any conn=2 drop",
        "write export=db p=0.1% tear=512",
        "read offset=0..4k corrupt=bits:1",
        "write times=5 lose",
        "any up=5s down=2s error=EIO",
        "read,write first=3 after=2 for=10s delay=exp:20ms seed=7",
        "write fua error=ENOSPC after",
        "write after=3 error=EIO after",
        "read drop=mid",
        "read corrupt=zero",
        "write corrupt=random delay=1500us",
        "write misdirect=1M",
        "status garbage",
        "connect delay=1s drop",
        "connect hang",
        "flush at=backend error=ETIMEDOUT",
        "any at=backend export=d?* hang",
        "write export= lose",
    ] {
        let rule = Rule::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let printed = rule.to_string();
        assert_eq!(
            Rule::parse(&printed).as_ref(),
            Ok(&rule),
            "{text} printed as {printed}"
        );
    }
    let rule =
        Rule::parse("write,read error=EIO nth=3 offset=1048576..2048k").expect("the order is free");
    assert_eq!(rule.to_string(), "read,write offset=1M..2M nth=3 error=EIO");
}

#[test]
fn every_refusal_names_the_word() {
    for (text, complaint) in [
        ("", "missing commands"),
        ("wriet error=EIO", "`wriet`: expected commands"),
        ("read,read error=EIO", "`read`: given twice"),
        ("any,read error=EIO", "`any`: stands alone"),
        ("read", "after `read`: missing an action"),
        ("read p=5%", "missing an action"),
        ("read error", "after `error`: missing =NAME"),
        ("read error=EWHAT", "`EWHAT`: expected one of EPERM"),
        ("read error=EAGAIN", "`EAGAIN`: NBD can't say it"),
        ("read eror=EIO", "`eror=EIO`: expected one of export, conn"),
        ("read p=101% drop", "`101%`: expected a chance"),
        ("read p=5 drop", "`5`: expected a chance"),
        ("read nth=0 drop", "`0`: expected a whole number from 1"),
        ("read every=x drop", "`x`: expected"),
        ("read nth drop", "after `nth`: missing =N"),
        ("read p=1% p=2% drop", "`p`: given twice"),
        ("read offset=2M..1M drop", "`2M..1M`: expected a range"),
        ("read offset=1M drop", "`1M`: expected a range"),
        ("read conn=x drop", "`x`: expected a whole number"),
        ("read fua=1 drop", "`fua=1`: expected fua alone"),
        ("read fua drop", "`fua`: can't apply to read"),
        ("flush offset=0..1 drop", "`offset`: can't apply to flush"),
        ("read at=frontend drop", "`frontend`: expected backend"),
        (
            "cache at=backend delay=1s",
            "`at=backend`: a backend is never asked for cache",
        ),
        (
            "read at=backend conn=1 delay=1s",
            "`conn`: the cache's own I/O belongs to no connection",
        ),
        (
            "write at=backend fua delay=1s",
            "`fua`: the cache's own I/O",
        ),
        ("read at=backend drop", "`drop`: there is no client"),
        ("read at=backend garbage", "`garbage`: there is no client"),
        ("read delay=80ms..20ms", "`80ms..20ms`: expected a range"),
        ("read delay=exp:5", "`5`: expected a time"),
        ("read up=5s drop", "after `up`: missing down=T"),
        ("read down=5s drop", "after `down`: missing up=T"),
        ("read up=5s down=0s drop", "`down`: a time of zero"),
        ("read hang drop", "`drop`: the rule already says hang"),
        ("read hang=1 ", "`hang=1`: expected hang alone"),
        ("read drop=end", "`end`: expected mid"),
        (
            "read drop after",
            "`after`: stands alone only with error=NAME",
        ),
        ("read corrupt", "after `corrupt`: missing"),
        ("read corrupt=bits:0", "`bits:0`: expected bits:N"),
        ("read corrupt=all", "`all`: expected bits:N"),
        (
            "flush corrupt=zero",
            "`corrupt=zero`: can't apply to flush; it applies to read,write",
        ),
        (
            "any tear=512",
            "`tear=512`: can't apply to read,trim,flush,cache,status; it applies to write,zero",
        ),
        (
            "read lose",
            "`lose`: can't apply to read; it applies to write,trim,zero,flush",
        ),
        ("read misdirect=0", "`misdirect=0`: can't apply to read"),
        ("connect error=EIO", "`error=EIO`: can't apply to connect"),
        ("connect garbage", "`garbage`: can't apply to connect"),
        ("connect export=a drop", "`export`: can't apply to connect"),
        (
            "write tear=512 tear=512",
            "`tear=512`: the rule already says",
        ),
    ] {
        let error = Rule::parse(text).expect_err(text).to_string();
        assert!(error.contains(complaint), "{text}: {error}");
    }
}

#[test]
fn patterns() {
    for (pattern, name, expected) in [
        ("", "", true),
        ("", "a", false),
        ("*", "", true),
        ("db", "db", true),
        ("db", "db2", false),
        ("d*", "db2", true),
        ("*2", "db2", true),
        ("d?2", "db2", true),
        ("?", "", false),
        ("a*b*c", "a-b-b-c", true),
        ("a*b*c", "a-c-b", false),
    ] {
        assert_eq!(glob_matches(pattern, name), expected, "{pattern} {name}");
    }
}

#[test]
fn damage_is_exact_and_repeatable() {
    for count in [1, 7, 64, 100] {
        for seed in 0..50 {
            let mut data = [0xA5_u8; 8];
            Damage::Bits(count).apply(seed, &mut data);
            let flipped: u32 = data.iter().map(|byte| (byte ^ 0xA5).count_ones()).sum();
            assert_eq!(u64::from(flipped), count.min(64));
            let flips = Damage::Bits(count).flips(seed, 8);
            assert_eq!(flips.len() as u64, count.min(64));
            assert!(flips.iter().all(|bit| *bit < 64));
            assert_eq!(flips, Damage::Bits(count).flips(seed, 8));
        }
    }
    let mut data = [1_u8; 5];
    Damage::Zero.apply(1, &mut data);
    assert_eq!(data, [0; 5]);
    let (mut one, mut other) = ([0_u8; 16], [0_u8; 16]);
    Damage::Random.apply(1, &mut one);
    Damage::Random.apply(1, &mut other);
    assert_eq!(one, other);
    Damage::Random.apply(2, &mut other);
    assert_ne!(one, other);
    Damage::Bits(1).apply(1, &mut []);
}

#[test]
fn every_bit_can_be_hit() {
    let hit: std::collections::BTreeSet<u64> = (0..500)
        .flat_map(|seed| Damage::Bits(1).flips(seed, 4))
        .collect();
    assert_eq!(hit.len(), 32);
}

#[test]
fn fates_print_what_parses_back() {
    let fate = Fate {
        delay: Some(std::time::Duration::from_nanos(1_234_567)),
        action: Some(Action::Corrupt(Damage::Bits(3))),
        seed: 9,
    };
    assert_eq!(fate.to_string(), "delay=1234567ns corrupt=bits:3 seed=9");
    assert_eq!(fate.to_string().parse(), Ok(fate));
    assert!("".parse::<Fate>().is_err());
    assert!("seed=1".parse::<Fate>().is_err());
    assert!("delay=1s..2s".parse::<Fate>().is_err());
}
