//! What to do when Event Hubs, or the way there, fails.

use super::{Credential, HubAddress, HubClient, HubErrorKind, IdentityKind, Transport};

impl HubClient {
    /// What to do about a failure of this kind; empty when it passes by itself.
    pub(super) fn remedy(&self, kind: HubErrorKind) -> String {
        let HubAddress {
            namespace,
            name,
            consumer_group,
            ..
        } = &self.hub;
        match kind {
            HubErrorKind::Identity => self.remedy_of_identity().to_owned(),
            HubErrorKind::Denied => match &self.credential {
                Credential::Identity { .. } => format!(
                    "grant the identity the role Azure Event Hubs Data Receiver on the event hub \
                     {name} (a new grant takes some minutes)"
                ),
                Credential::ConnectionStringFile(_) => format!(
                    "take the connection string of a shared access policy with Listen, of the \
                     event hub {name} or of the namespace {namespace} itself"
                ),
            },
            HubErrorKind::NotFound => format!(
                "check --event-hub ({name}) and --consumer-group ({consumer_group}): both must \
                 exist in {namespace}"
            ),
            HubErrorKind::Unresolved => format!(
                "check --event-hub-namespace ({namespace}): it must be the whole host name, like \
                 NAME.servicebus.windows.net; with a private endpoint, the cluster must resolve it"
            ),
            HubErrorKind::Unreachable => self.remedy_of_network(),
            HubErrorKind::Tls => {
                "something on the way shows another certificate than Azure's; trust \
                               its authority with SSL_CERT_FILE"
                    .to_owned()
            }
            HubErrorKind::Stolen => format!(
                "another consumer reads with an owner level: give this bridge a consumer group of \
                 its own instead of {consumer_group} (--consumer-group)"
            ),
            HubErrorKind::Crowded => format!(
                "more receivers than Event Hubs allows: give this bridge a consumer group of its \
                 own instead of {consumer_group} (--consumer-group)"
            ),
            HubErrorKind::Busy => {
                "the namespace is throttled: give it more throughput units".to_owned()
            }
            HubErrorKind::Position => {
                "restore the checkpoint, or remove it to begin at --start".to_owned()
            }
            HubErrorKind::Undecodable => format!(
                "no service of Azure sends such messages: give the right to send to the event hub \
                 {name} to nobody but the diagnostic settings"
            ),
            HubErrorKind::Ended | HubErrorKind::Other => String::new(),
        }
    }

    fn remedy_of_network(&self) -> String {
        let namespace = &self.hub.namespace;
        let check = match (&self.hub.endpoint, self.hub.transport) {
            (Some(endpoint), _) => format!(
                "check that something listens at {endpoint}, where AMQP connections go instead \
                 of to {namespace}, and that this network is let in"
            ),
            (None, Transport::AmqpTcp) => format!(
                "check that {namespace} lets this network in and that TCP port 5671 is open; where \
                 only port 443 is, set --event-hub-transport amqp-web-sockets"
            ),
            (None, Transport::AmqpWebSockets) => format!(
                "check that {namespace} lets this network in and that TCP port 443 is open, also \
                 for WebSockets"
            ),
        };
        let proxy = ["HTTPS_PROXY", "https_proxy"].map(std::env::var_os);
        match proxy.into_iter().flatten().any(|proxy| !proxy.is_empty()) {
            true => format!("{check}; HTTPS_PROXY is not used on this way: connections are direct"),
            false => check,
        }
    }

    fn remedy_of_identity(&self) -> &'static str {
        match &self.credential {
            Credential::Identity { kind, .. } => match kind {
                IdentityKind::WorkloadIdentity => {
                    "check the managed identity's federated credential: its issuer is the \
                     cluster's, its subject system:serviceaccount:NAMESPACE:NAME"
                }
                IdentityKind::ClientSecret => {
                    "check AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET"
                }
                IdentityKind::ClientCertificate => {
                    "check AZURE_TENANT_ID and AZURE_CLIENT_ID, and that the certificate at \
                     AZURE_CLIENT_CERTIFICATE_PATH is registered with that application and has not \
                     expired"
                }
                IdentityKind::ManagedIdentity => {
                    "on AKS, label the pod azure.workload.identity/use: \"true\" and annotate its \
                     service account with azure.workload.identity/client-id; elsewhere, assign the \
                     machine an identity (AZURE_CLIENT_ID names one of several)"
                }
            },
            Credential::ConnectionStringFile(_) => "check --connection-string-file",
        }
    }
}
