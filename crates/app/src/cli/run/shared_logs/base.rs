//! Merges the common checkpoint into each log's own.

use audit_bridge_core::checkpoint::Checkpoint;
use audit_bridge_core::source::{StoredPosition, StoredPositions};

/// A log's own positions, replaced by those of the common checkpoint where a process that read all
/// logs came further. A common checkpoint is merged once. It is identified by its write time, so
/// the clocks of two machines are never compared.
pub(super) fn merge(
    own: &Checkpoint,
    base: &Checkpoint,
    is_further: impl Fn(&StoredPosition, &StoredPosition) -> bool,
) -> StoredPositions {
    let mut positions = own.position.clone();
    if own.merged == Some(base.written) {
        return positions;
    }
    for (&partition, position) in &base.position {
        let own = positions.entry(partition);
        own.and_modify(|own| {
            if is_further(position, own) {
                own.clone_from(position);
            }
        })
        .or_insert_with(|| position.clone());
    }
    positions
}

#[cfg(test)]
mod tests {
    use audit_bridge_core::checkpoint::Owner;
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;

    fn checkpoint(position: StoredPosition, written: i64) -> Checkpoint {
        let owner = Owner {
            provider: "aks".to_owned(),
            source: "hub".to_owned(),
        };
        Checkpoint {
            written: Timestamp::from_second(written).unwrap(),
            ..Checkpoint::new(&owner, [(0, position)].into())
        }
    }

    /// Numbers are reached positions; anything else is a beginning that was only set.
    fn is_further(this: &StoredPosition, other: &StoredPosition) -> bool {
        match (this.as_u64(), other.as_u64()) {
            (Some(this), Some(other)) => this > other,
            (this, other) => this.is_some() && other.is_none(),
        }
    }

    #[test]
    fn base_checkpoint_merged_wins_only_where_further_whatever_the_clocks() {
        let made = || json!("from");
        for (own, base, want) in [
            (json!(5), json!(9), json!(9)),
            (json!(9), json!(5), json!(9)),
            (json!(9), made(), json!(9)),
            (made(), json!(5), json!(5)),
            (made(), made(), made()),
        ] {
            for (own_written, base_written) in [(1, 2), (2, 1), (1, 1)] {
                let own = checkpoint(own.clone(), own_written);
                let base = checkpoint(base.clone(), base_written);
                assert_eq!(merge(&own, &base, is_further)[&0], want);
            }
        }
    }

    #[test]
    fn base_checkpoint_merged_once_is_ignored_until_rewritten() {
        let mut own = checkpoint(json!(5), 1);
        let mut base = checkpoint(json!(9), 2);
        own.merged = Some(base.written);
        assert_eq!(
            merge(&own, &base, is_further)[&0],
            5,
            "the hub was made anew"
        );
        base.written = Timestamp::from_second(1).unwrap();
        assert_eq!(merge(&own, &base, is_further)[&0], 9);
    }
}
