//! What receivers made of the bodies that a test's webhook was sent.

use audit_bridge_testkit::Received;

use super::Judges;

/// The account of a test, made where the events arrive rather than at the 2xx of the webhook.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Account {
    /// How many bodies were judged: those that the webhook accepted.
    pub bodies: usize,
    /// The `auditID` of every event that Falco has, in order, with repetitions.
    pub falco_ids: Vec<String>,
    /// Bodies that Falco lost whole, after its 200: which (from 0), and why.
    pub lost_bodies: Vec<(usize, String)>,
    /// Events that Falco lost alone.
    pub lost_items: Vec<LostItem>,
    /// What Kubernetes' decoder has against a body: which, and what.
    pub decoder: Vec<(usize, String)>,
}

/// An event that Falco lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostItem {
    /// Which body it was in, from 0.
    pub body: usize,
    /// Which event of the body, from 0.
    pub item: usize,
    /// Why.
    pub reason: String,
}

impl Account {
    /// Judges what a webhook received and accepted.
    pub fn of(judges: Judges, received: &[Received]) -> Account {
        let accepted = received.iter().filter(|request| request.accepted);
        Account::of_bodies(judges, accepted.map(|request| &*request.body))
    }

    /// Judges bodies.
    pub fn of_bodies<'a>(judges: Judges, bodies: impl IntoIterator<Item = &'a [u8]>) -> Account {
        let mut account = Account::default();
        for (body, bytes) in bodies.into_iter().enumerate() {
            account.bodies += 1;
            let complaints = judges.decode(bytes).complaints();
            let complaints = complaints.into_iter().map(|what| (body, what));
            account.decoder.extend(complaints);
            let verdict = judges.falco(bytes);
            account
                .lost_bodies
                .extend(verdict.refused.map(|why| (body, why)));
            for (item, found) in verdict.items.into_iter().enumerate() {
                match found.lost {
                    Some(reason) => account.lost_items.push(LostItem { body, item, reason }),
                    None => account.falco_ids.extend(
                        found
                            .fields
                            .get("ka.auditid")
                            .and_then(|id| id.as_str())
                            .map(str::to_owned),
                    ),
                }
            }
        }
        account
    }

    /// Everything that went wrong, in lines; empty when nothing did.
    pub fn complaints(&self) -> Vec<String> {
        let bodies = self.lost_bodies.iter();
        let bodies = bodies.map(|(body, why)| format!("body {body}: falco lost it: {why}"));
        let items = self.lost_items.iter().map(|lost| {
            let LostItem { body, item, reason } = lost;
            format!("body {body}: falco lost item {item}: {reason}")
        });
        let decoder = self.decoder.iter();
        let decoder = decoder.map(|(body, what)| format!("body {body}: decoder: {what}"));
        bodies.chain(items).chain(decoder).collect()
    }
}
