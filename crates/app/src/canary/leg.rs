//! The parts of the way, by which one that is silent is named.

/// On which part of the way a canary was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Leg {
    /// The provider's log gave no audit record at all: the switch at the provider.
    SourceSilent,
    /// The log gave other audit records, and not this one: a filter, an exclusion, an audit policy.
    SourceWithoutIt,
    /// The log could not be read up to when the canary was sent.
    SourceUnread,
    /// It was read and the webhook has not accepted it, or accepts nothing.
    Webhook,
}

impl Leg {
    pub(crate) const ALL: [Leg; 4] = [
        Leg::SourceSilent,
        Leg::SourceWithoutIt,
        Leg::SourceUnread,
        Leg::Webhook,
    ];

    /// Its label in metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Leg::SourceSilent => "source_silent",
            Leg::SourceWithoutIt => "source_without_it",
            Leg::SourceUnread => "source_unread",
            Leg::Webhook => "webhook",
        }
    }

    /// What is known, for a person.
    pub(crate) fn what(self) -> &'static str {
        match self {
            Leg::SourceSilent => "the source can be read and gives no audit record at all",
            Leg::SourceWithoutIt => {
                "the source gives other audit records, and not that of this pod's own request"
            }
            Leg::SourceUnread => "the source could not be read up to the time of the request",
            Leg::Webhook => "the webhook has not accepted what was read",
        }
    }

    /// What to do. `source`: the commands that show the provider's switch.
    pub(crate) fn remedy(self, source: &str) -> String {
        match self {
            Leg::SourceSilent => format!(
                "somebody may have switched the audit log off: {source}; and look whether this log is \
                 that of the cluster in which this pod runs"
            ),
            Leg::SourceWithoutIt => format!(
                "a filter, an exclusion or an audit policy may leave it out: {source}; if the bridge \
                 does not run in the cluster whose log it reads, set --canary-interval off \
                 (AUDIT_BRIDGE_CANARY_INTERVAL)"
            ),
            Leg::SourceUnread => {
                "see what /readyz and the log say of the parts identity and source".to_owned()
            }
            Leg::Webhook => {
                "see what /readyz and the log say of the part webhook, and look at the receiver"
                    .to_owned()
            }
        }
    }
}
