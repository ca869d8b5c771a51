//! Metadata contexts: what `NBD_CMD_BLOCK_STATUS` can report (proto.md, "Metadata querying").
//!
//! A context is named `namespace:leaf`. Clients find contexts with queries; a query that nothing answers to is not an
//! error. A namespace alone (`base:`) is a wildcard when listing, and selects nothing when setting, so that a client
//! never gets a context that it can't interpret. That differs from zero queries, which list everything.

use crate::wire::wire_enum;

wire_enum! {
    /// A context that Weir offers. The number is the id that its chunks carry.
    pub struct MetaContext(u32);
    /// `base:allocation`: holes and zeroes, see [`AllocationFlags`](crate::extent::AllocationFlags).
    const BASE_ALLOCATION = 1;
    /// `x-weir:cache`: what the cache holds, see [`CacheFlags`](crate::extent::CacheFlags). The protocol reserves `x-`
    /// for names like this.
    const CACHE = 2;
}

impl MetaContext {
    /// Every context, in the order in which they are listed.
    pub const ALL: [Self; 2] = [Self::BASE_ALLOCATION, Self::CACHE];

    /// The context's name on the wire.
    #[must_use]
    pub const fn wire_name(self) -> &'static str {
        match self {
            Self::BASE_ALLOCATION => "base:allocation",
            Self::CACHE => "x-weir:cache",
            _ => "",
        }
    }

    /// The id that its block status chunks carry.
    #[inline]
    #[must_use]
    pub const fn id(self) -> u32 {
        self.0
    }

    /// The namespace with its colon.
    fn namespace(self) -> &'static str {
        let name = self.wire_name();
        name.find(':').map_or(name, |colon| &name[..=colon])
    }

    const fn bit(self) -> u8 {
        1 << self.0
    }
}

/// A set of contexts. Copies are cheap: every request is held against one.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct MetaContextSet(u8);

impl MetaContextSet {
    /// No context.
    pub const EMPTY: Self = Self(0);
    /// Every context that Weir offers.
    pub const ALL: Self = Self(MetaContext::BASE_ALLOCATION.bit() | MetaContext::CACHE.bit());

    /// Whether the set has no context.
    #[inline]
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether `context` is in the set.
    #[inline]
    #[must_use]
    pub fn contains(self, context: MetaContext) -> bool {
        MetaContext::ALL.contains(&context) && self.0 & context.bit() != 0
    }

    /// The set with `context` in it. A context that Weir doesn't offer is left out.
    #[must_use]
    pub fn with(self, context: MetaContext) -> Self {
        if MetaContext::ALL.contains(&context) {
            Self(self.0 | context.bit())
        } else {
            self
        }
    }

    /// The contexts of either set.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The contexts of both sets.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The contexts, in the order of [`MetaContext::ALL`].
    pub fn iter(self) -> impl Iterator<Item = MetaContext> {
        MetaContext::ALL
            .into_iter()
            .filter(move |&context| self.contains(context))
    }

    /// What one query of `NBD_OPT_SET_META_CONTEXT` selects: the context of exactly that name.
    #[must_use]
    pub fn selected_by(query: &str) -> Self {
        MetaContext::ALL
            .into_iter()
            .filter(|context| context.wire_name() == query)
            .fold(Self::EMPTY, Self::with)
    }

    /// What one query of `NBD_OPT_LIST_META_CONTEXT` lists: the context of that name, or a whole namespace.
    #[must_use]
    pub fn listed_by(query: &str) -> Self {
        MetaContext::ALL
            .into_iter()
            .filter(|context| context.wire_name() == query || context.namespace() == query)
            .fold(Self::EMPTY, Self::with)
    }
}

impl std::fmt::Debug for MetaContextSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests;
