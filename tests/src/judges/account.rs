//! Judges the bodies that a test's webhook received.

use audit_bridge_testkit::Received;

use super::Judges;

/// What receivers made of a test's events, beyond the 2xx of the webhook.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Account {
    /// Number of judged bodies: those that the webhook accepted.
    pub bodies: usize,
    /// The `auditID` of every event that Falco saw, in order, with repetitions.
    pub falco_ids: Vec<String>,
    /// Bodies that Falco lost completely after answering 200: their index and the reason.
    pub lost_bodies: Vec<(usize, String)>,
    /// Single events that Falco lost.
    pub lost_items: Vec<LostItem>,
    /// Complaints of Kubernetes' decoder, with the index of the body.
    pub decoder: Vec<(usize, String)>,
}

/// An event that Falco lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostItem {
    /// Index of the body.
    pub body: usize,
    /// Index of the event in the body.
    pub item: usize,
    pub reason: String,
}

impl Account {
    /// Judges the requests that a webhook accepted.
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

    /// All complaints, in lines.
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
