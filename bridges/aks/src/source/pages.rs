//! Carries pages from readers to the pipeline, and counts their bytes until they are taken.

use audit_bridge_core::read_budget::HeldBytes;
use audit_bridge_core::source::Page;
use tokio::sync::mpsc;

use crate::source::position::MessagePosition;

/// Capacity of the channel; each reader may hold one page more.
const PAGES_WAITING: usize = 1;

/// The source was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Closed;

pub(crate) type HubPage = Page<MessagePosition>;

type HeldPage = (HubPage, Option<HeldBytes>);

/// Where readers hand on their pages.
#[derive(Debug, Clone)]
pub(crate) struct PageSender(mpsc::Sender<HeldPage>);

/// Where the pipeline takes them.
#[derive(Debug)]
pub(super) struct PageReceiver(mpsc::Receiver<HeldPage>);

/// An empty channel.
pub(super) fn channel() -> (PageSender, PageReceiver) {
    let (sender, receiver) = mpsc::channel(PAGES_WAITING);
    (PageSender(sender), PageReceiver(receiver))
}

impl PageSender {
    /// Hands on a page without records.
    pub(super) async fn send(&self, page: HubPage) -> Result<(), Closed> {
        self.0.send((page, None)).await.map_err(|_| Closed)
    }

    /// Hands on a page that holds these bytes until it is taken.
    pub(super) async fn send_held(&self, page: HubPage, held: HeldBytes) -> Result<(), Closed> {
        self.0.send((page, Some(held))).await.map_err(|_| Closed)
    }

    /// Waits until the source is dropped.
    pub(super) async fn closed(&self) {
        self.0.closed().await;
    }
}

impl PageReceiver {
    /// The next page; `None` once all senders are gone.
    pub(super) async fn take(&mut self) -> Option<HubPage> {
        self.0.recv().await.map(|(page, _)| page)
    }
}
