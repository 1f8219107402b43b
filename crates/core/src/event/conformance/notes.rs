//! What was repaired in an event, and what was removed from it.

use super::EventContext;

macro_rules! notes {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$doc])* $variant,)*
        }

        impl $name {
            pub const ALL: &[$name] = &[$($name::$variant),*];

            /// The name in reports and metrics.
            pub fn name(self) -> &'static str {
                match self {
                    $($name::$variant => $text,)*
                }
            }

            fn bit(self) -> u8 {
                1 << self as u8
            }
        }
    };
}

notes! {
    /// What was repaired so that receivers accept the event. Nothing is missing because of it.
    Repair {
        /// A duplicate key in an object: the last value stays, as the API server read it.
        DuplicateKey = "duplicate_key",
        /// Invalid UTF-8 or a lone surrogate, replaced by U+FFFD as Go decodes them.
        Encoding = "encoding",
        /// A time that was not in UTC with six digits, or no time at all.
        Time = "time",
        /// An integer written with a fraction or an exponent (`200.0`).
        Number = "number",
        /// v1beta1 or v1alpha1 became v1, or kind and API version were missing.
        Version = "version",
    }
}

notes! {
    /// What an event has lost; it is marked `audit.k8s.io/truncated` for that.
    GivenUp {
        /// The API server itself truncated it.
        ApiServer = "api_server",
        /// The provider truncated it within or behind its objects.
        ProviderObjects = "provider_objects",
        /// The provider truncated it before its objects: who, what or where may be missing.
        ProviderIdentity = "provider_identity",
        /// Content deeper than `--event-depth-max`.
        Depth = "depth",
        /// Parts of responseObject.
        ResponseObject = "response_object",
        /// Parts of requestObject.
        RequestObject = "request_object",
        /// Parts of other members: URI, user agent, groups, …
        Identity = "identity",
    }
}

/// All repairs and losses of one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Notes {
    repaired: u8,
    given_up: u8,
}

impl Notes {
    /// What the caller did to an event before it came here.
    pub(super) fn of(context: &EventContext<'_>) -> Notes {
        let mut notes = Notes::default();
        if context.replaced {
            notes.repair(Repair::Encoding);
        }
        if let Some(what) = context.given_up {
            notes.give_up(what);
        }
        notes
    }

    pub(super) fn repair(&mut self, what: Repair) {
        self.repaired |= what.bit();
    }

    pub(super) fn give_up(&mut self, what: GivenUp) {
        self.given_up |= what.bit();
    }

    pub fn repaired(self) -> impl Iterator<Item = Repair> {
        let is = move |what: &Repair| self.repaired & what.bit() != 0;
        Repair::ALL.iter().copied().filter(is)
    }

    pub fn given_up(self) -> impl Iterator<Item = GivenUp> {
        let is = move |what: &GivenUp| self.given_up & what.bit() != 0;
        GivenUp::ALL.iter().copied().filter(is)
    }

    /// Whether the event has the annotation `audit.k8s.io/truncated`.
    pub fn truncated(self) -> bool {
        self.given_up != 0
    }

    /// Whether nothing was repaired or lost.
    pub fn none(self) -> bool {
        self == Notes::default()
    }
}
