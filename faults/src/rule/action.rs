//! What a rule does to a request, and what was decided for one request.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::errno::Errno;
use crate::kind::RequestKinds;
use crate::query::errno;
use crate::rng::Rng;
use crate::words::{self, LanguageError, Size, Time, Word, look_up, names, set_once};

/// The words that say what happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ActionWord {
    Error,
    Delay,
    Hang,
    Drop,
    Corrupt,
    Lose,
    Tear,
    Misdirect,
    Garbage,
    /// After an error: apply the request all the same.
    Applied,
}

pub(crate) const ACTIONS: &[Word<ActionWord>] = &[
    Word {
        name: "error",
        value: "NAME",
        help: "fail with it; with the bare word `after`: applied, and still says error",
        id: ActionWord::Error,
    },
    Word {
        name: "after",
        value: "",
        help: "with error: apply the request first",
        id: ActionWord::Applied,
    },
    Word {
        name: "delay",
        value: "T, A..B or exp:MEAN",
        help: "wait first; combines with any other action",
        id: ActionWord::Delay,
    },
    Word {
        name: "hang",
        value: "",
        help: "wait until the rule goes",
        id: ActionWord::Hang,
    },
    Word {
        name: "drop",
        value: "or drop=mid",
        help: "close the connection; `mid`: in the middle of the reply",
        id: ActionWord::Drop,
    },
    Word {
        name: "corrupt",
        value: "bits:N, zero or random",
        help: "damage what is returned or stored (exactly N distinct bits)",
        id: ActionWord::Corrupt,
    },
    Word {
        name: "lose",
        value: "",
        help: "acknowledge, store nothing",
        id: ActionWord::Lose,
    },
    Word {
        name: "tear",
        value: "BYTES",
        help: "store only that prefix, acknowledge all",
        id: ActionWord::Tear,
    },
    Word {
        name: "misdirect",
        value: "OFFSET",
        help: "store at that offset instead, acknowledge",
        id: ActionWord::Misdirect,
    },
    Word {
        name: "garbage",
        value: "",
        help: "reply with a wrong cookie",
        id: ActionWord::Garbage,
    },
];

/// What happens to a request besides a delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It fails.
    Error {
        /// With this error.
        errno: Errno,
        /// Whether it takes effect all the same.
        applied: bool,
    },
    /// It waits until the rule goes, then goes on.
    Hang,
    /// The connection is closed.
    Drop,
    /// The connection is closed in the middle of the reply.
    DropMid,
    /// The data returned or stored is damaged.
    Corrupt(Damage),
    /// It is acknowledged and has no effect.
    Lose,
    /// Only this many bytes at its beginning are stored; all are acknowledged.
    Tear(u64),
    /// It is stored at this offset instead, and acknowledged.
    Misdirect(u64),
    /// The reply has a wrong cookie.
    Garbage,
}

/// How data is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// So many distinct bits are flipped: all of them if the data has fewer.
    Bits(u64),
    /// Zeroes instead.
    Zero,
    /// Random bytes instead.
    Random,
}

/// The most bits that one firing flips; more is what `random` is for.
const BITS_MAX: u64 = 1 << 16;

impl Damage {
    /// Which bits of `length` bytes to flip, in ascending order: bit `i` is bit `i % 8` of byte `i / 8`. Empty unless
    /// it is [`Damage::Bits`].
    #[must_use]
    pub fn flips(self, seed: u64, length: u64) -> BTreeSet<u64> {
        let Self::Bits(count) = self else {
            return BTreeSet::new();
        };
        // A request's payload is far from this bound.
        let bits = length.saturating_mul(8);
        if count >= bits {
            return (0..bits).collect();
        }
        // Floyd's sample: each set of `count` bits is as likely as any other, with one draw per bit.
        let mut rng = Rng::new(seed);
        let mut flips = BTreeSet::new();
        for last in bits - count..bits {
            let bit = rng.below(last + 1);
            if !flips.insert(bit) {
                flips.insert(last);
            }
        }
        flips
    }

    /// Damages `data`; the same seed and length, the same damage.
    pub fn apply(self, seed: u64, data: &mut [u8]) {
        match self {
            Self::Zero => data.fill(0),
            Self::Random => Rng::new(seed).fill(data),
            Self::Bits(_) => {
                for bit in self.flips(seed, data.len() as u64) {
                    let byte = usize::try_from(bit / 8).expect("a bit of a slice in memory");
                    data[byte] ^= 1 << (bit % 8);
                }
            }
        }
    }
}

impl Action {
    /// The commands that it can apply to.
    pub(crate) fn applies_to(self) -> RequestKinds {
        let stores = RequestKinds::WRITE | RequestKinds::ZERO;
        match self {
            // A handshake knows no error numbers, and has no reply with a cookie.
            Self::Error { .. } | Self::DropMid | Self::Garbage => {
                RequestKinds::ALL.without(RequestKinds::CONNECT)
            }
            Self::Hang | Self::Drop => RequestKinds::ALL,
            Self::Corrupt(_) => RequestKinds::READ | RequestKinds::WRITE,
            Self::Lose => stores | RequestKinds::TRIM | RequestKinds::FLUSH,
            Self::Tear(_) | Self::Misdirect(_) => stores,
        }
    }

    /// Whether it needs a client: a connection or a reply.
    pub(crate) fn needs_client(self) -> bool {
        matches!(self, Self::Drop | Self::DropMid | Self::Garbage)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error {
                errno,
                applied: false,
            } => write!(f, "error={errno}"),
            Self::Error {
                errno,
                applied: true,
            } => write!(f, "error={errno} after"),
            Self::Hang => f.write_str("hang"),
            Self::Drop => f.write_str("drop"),
            Self::DropMid => f.write_str("drop=mid"),
            Self::Corrupt(Damage::Bits(count)) => write!(f, "corrupt=bits:{count}"),
            Self::Corrupt(Damage::Zero) => f.write_str("corrupt=zero"),
            Self::Corrupt(Damage::Random) => f.write_str("corrupt=random"),
            Self::Lose => f.write_str("lose"),
            Self::Tear(bytes) => write!(f, "tear={}", Size(*bytes)),
            Self::Misdirect(offset) => write!(f, "misdirect={}", Size(*offset)),
            Self::Garbage => f.write_str("garbage"),
        }
    }
}

/// What action words said, before it is known that they fit together. The delay is left to the caller, which knows
/// whether it may be random.
#[derive(Default)]
pub(super) struct ActionDraft {
    action: Option<Action>,
    applied: Option<()>,
}

impl ActionDraft {
    pub(super) fn take(
        &mut self,
        id: ActionWord,
        value: Option<&str>,
        word: &str,
    ) -> Result<(), LanguageError> {
        let name = word.split('=').next().unwrap_or(word);
        let needed =
            |what: &str| value.ok_or_else(|| LanguageError::missing(word, format!("={what}")));
        let action = match id {
            ActionWord::Applied => return set_once(&mut self.applied, (), word),
            ActionWord::Error => Action::Error {
                errno: errno(needed("NAME, such as error=EIO")?)?,
                applied: false,
            },
            ActionWord::Corrupt => Action::Corrupt(damage(needed("bits:N, zero or random")?)?),
            ActionWord::Tear => Action::Tear(words::size(needed("BYTES")?)?),
            ActionWord::Misdirect => Action::Misdirect(words::size(needed("OFFSET")?)?),
            ActionWord::Drop => match value {
                None => Action::Drop,
                Some("mid") => Action::DropMid,
                Some(other) => return Err(LanguageError::unexpected(other, "mid, or drop alone")),
            },
            ActionWord::Hang | ActionWord::Lose | ActionWord::Garbage | ActionWord::Delay => {
                if value.is_some() {
                    return Err(LanguageError::unexpected(word, format!("{name} alone")));
                }
                match id {
                    ActionWord::Hang => Action::Hang,
                    ActionWord::Lose => Action::Lose,
                    _ => Action::Garbage,
                }
            }
        };
        match self.action.replace(action) {
            Some(other) => Err(LanguageError::refused(
                word,
                format!("the rule already says {other}; only delay combines"),
            )),
            None => Ok(()),
        }
    }

    pub(super) fn finish(self) -> Result<Option<Action>, LanguageError> {
        match (self.action, self.applied) {
            (Some(Action::Error { errno, .. }), Some(())) => Ok(Some(Action::Error {
                errno,
                applied: true,
            })),
            (_, Some(())) => Err(LanguageError::refused(
                "after",
                "stands alone only with error=NAME; to skip hits say after=N",
            )),
            (action, None) => Ok(action),
        }
    }
}

fn damage(value: &str) -> Result<Damage, LanguageError> {
    match value {
        "zero" => Ok(Damage::Zero),
        "random" => Ok(Damage::Random),
        _ => value
            .strip_prefix("bits:")
            .and_then(|count| words::count(count).ok())
            .filter(|count| *count <= BITS_MAX)
            .map(Damage::Bits)
            .ok_or_else(|| {
                LanguageError::unexpected(value, "bits:N with N in 1..=65536, zero or random")
            }),
    }
}

/// What was decided for one request: nothing in it is left to chance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fate {
    /// How long it waits first.
    pub delay: Option<Duration>,
    /// What happens then.
    pub action: Option<Action>,
    /// What the damage of [`Action::Corrupt`] is drawn from.
    pub seed: u64,
}

/// Words as in a rule, and the seed of the damage.
impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let delay = self.delay.map(|delay| format!("delay={}", Time(delay)));
        let action = self.action.map(|action| action.to_string());
        let seed =
            matches!(self.action, Some(Action::Corrupt(_))).then(|| format!("seed={}", self.seed));
        let words: Vec<_> = [delay, action, seed].into_iter().flatten().collect();
        f.write_str(&words.join(" "))
    }
}

impl FromStr for Fate {
    type Err = LanguageError;

    fn from_str(text: &str) -> Result<Self, LanguageError> {
        fate_from_words(text.split_whitespace())
    }
}

/// Reads what [`Fate`] prints.
pub(crate) fn fate_from_words<'a>(
    words: impl Iterator<Item = &'a str>,
) -> Result<Fate, LanguageError> {
    let (mut draft, mut delay, mut seed) = (ActionDraft::default(), None, None);
    for word in words {
        let (name, value) = word
            .split_once('=')
            .map_or((word, None), |(name, value)| (name, Some(value)));
        match (name, value) {
            ("seed", Some(value)) => set_once(&mut seed, words::number(value)?, name)?,
            ("delay", Some(value)) => set_once(&mut delay, words::duration(value)?, name)?,
            _ => {
                let entry = look_up(ACTIONS, name)
                    .filter(|entry| entry.id != ActionWord::Delay)
                    .ok_or_else(|| {
                        LanguageError::unexpected(word, format!("one of {}", names(ACTIONS)))
                    })?;
                draft.take(entry.id, value, word)?;
            }
        }
    }
    let action = draft.finish()?;
    if action.is_none() && delay.is_none() {
        return Err(LanguageError::missing(
            "decision",
            format!("one of {}", names(ACTIONS)),
        ));
    }
    Ok(Fate {
        delay,
        action,
        seed: seed.unwrap_or(0),
    })
}
