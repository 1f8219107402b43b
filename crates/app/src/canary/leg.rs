//! The parts of the path, to name the one that lost a canary.

/// The part of the path on which a canary was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Leg {
    /// The provider's log has no audit records at all: audit logging is probably switched off
    /// there.
    SourceSilent,
    /// The log has other audit records, but not this one: a filter, an exclusion, an audit policy.
    SourceWithoutIt,
    /// The log could not be read up to the time at which the canary was sent.
    SourceUnread,
    /// The event was read but the webhook has not accepted it, or the webhook accepts nothing.
    Webhook,
}

impl Leg {
    pub(crate) const ALL: [Leg; 4] = [
        Leg::SourceSilent,
        Leg::SourceWithoutIt,
        Leg::SourceUnread,
        Leg::Webhook,
    ];

    /// The leg's label in metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Leg::SourceSilent => "source_silent",
            Leg::SourceWithoutIt => "source_without_it",
            Leg::SourceUnread => "source_unread",
            Leg::Webhook => "webhook",
        }
    }

    /// What is known, for people.
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
