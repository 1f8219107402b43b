//! What a failed call means, and what to do about it.

use std::error::Error as StdError;

use audit_bridge_core::chain::chain;
use audit_bridge_tail::QueryError;
use aws_sdk_cloudwatchlogs::error::SdkError;
use aws_sdk_cloudwatchlogs::operation::filter_log_events::FilterLogEventsError;

use super::Access;
use super::credentials_cache::NoCredentials;
use crate::client::cluster::cluster_of;
use crate::client::group::LogGroupName;

/// Remedy for missing credentials.
pub(super) const IDENTITY_REMEDY: &str = "give the pod a role: IRSA (annotate its ServiceAccount \
     with eks.amazonaws.com/role-arn, and let the role's trust policy name this namespace and \
     ServiceAccount) or EKS Pod Identity; then restart the pod";

/// Remedy where the role cannot be assumed.
pub(super) const ASSUME_REMEDY: &str = "let the pod's own role call sts:AssumeRole on the role of \
     --role-arn, and let that role's trust policy name the pod's role (and the --role-external-id, \
     if it asks for one)";

pub(super) const CLOCK_REMEDY: &str = "set this machine's clock right (chrony, NTP): AWS refuses signatures \
     that are more than 5 minutes off";

/// The role that makes the requests: the assumed role, else what the environment tells.
pub(super) fn role(assumed: Option<&str>) -> String {
    if let Some(role) = assumed {
        return format!("the role {role}");
    }
    match std::env::var("AWS_ROLE_ARN") {
        Ok(role) if !role.is_empty() => format!("the role {role}"),
        _ => "this identity".to_owned(),
    }
}

/// Remedy for a group that never had events, or has no new ones.
pub(super) fn silent(group: &str, region: &str, stream_prefix: &str) -> String {
    let cluster = cluster_of(group).unwrap_or("CLUSTER");
    format!(
        "look whether the cluster's audit log is switched on: aws eks describe-cluster --name \
         {cluster} --region {region} --query cluster.logging (on again: aws eks update-cluster-config \
         --name {cluster} --region {region} --logging \
         '{{\"clusterLogging\":[{{\"types\":[\"audit\"],\"enabled\":true}}]}}'), and whether {group} has \
         streams that begin with {stream_prefix}"
    )
}

/// What is known of a request that failed.
#[derive(Debug, Clone, Copy)]
pub(super) struct RequestContext<'a> {
    /// The request had a page token, which may have expired.
    pub(super) with_token: bool,
    /// The role that asked, and whether it asked for unmasked text.
    pub(super) access: &'a Access,
}

/// Turns a failed `FilterLogEvents` into an error for the tail.
pub(super) fn query<R>(
    error: &SdkError<FilterLogEventsError, R>,
    group: &LogGroupName,
    region: &str,
    asked: RequestContext<'_>,
) -> QueryError
where
    R: std::fmt::Debug + 'static,
{
    let assumed = asked.access.role.as_deref();
    let SdkError::ServiceError(answer) = error else {
        let detail = chain(error);
        return match lacks_credentials(error) {
            true => QueryError::Unauthenticated {
                detail: format!("no AWS credentials for {}: {detail}", role(assumed)),
                remedy: match assumed {
                    Some(_) => ASSUME_REMEDY.to_owned(),
                    None => IDENTITY_REMEDY.to_owned(),
                },
            },
            false => QueryError::Transient { detail },
        };
    };
    let meta = answer.err().meta();
    let code = meta.code().unwrap_or("unknown");
    let detail = match meta.message() {
        Some(message) => format!("{code}: {message}"),
        // The answer is not an error of the service, for example a proxy's page or a truncated
        // body.
        None => chain(error),
    };
    let denied = |remedy: String| QueryError::Denied {
        detail: detail.clone(),
        remedy,
    };
    let unauthenticated = |remedy: &str| QueryError::Unauthenticated {
        detail: detail.clone(),
        remedy: remedy.to_owned(),
    };
    match code {
        "ThrottlingException"
        | "Throttling"
        | "LimitExceededException"
        | "TooManyRequestsException"
        | "RequestLimitExceeded" => QueryError::Throttled { after: None },
        "ResourceNotFoundException" => denied(format!(
            "there is no log group {group} in {region}: check --cluster-name \
             (AUDIT_BRIDGE_CLUSTER_NAME) and --aws-region (AUDIT_BRIDGE_AWS_REGION, AWS_REGION); EKS \
             makes the group when a log type is switched on: {}",
            silent(&group.name, region, "kube-apiserver-audit-")
        )),
        "AccessDeniedException" | "AccessDenied" | "UnauthorizedOperation" => denied(format!(
            "allow {} the action logs:FilterLogEvents{} on {} and the same with :* at its end",
            role(assumed),
            if asked.access.unmask {
                " and, for --unmask, logs:Unmask"
            } else {
                ""
            },
            match group.place {
                Some(_) => group.to_string(),
                None => format!("arn:PARTITION:logs:{region}:ACCOUNT:log-group:{group}"),
            },
        )),
        // FilterLogEvents answers so for a group that is not of the Standard class.
        "InvalidOperationException" => denied(format!(
            "{group} has the log class Infrequent Access, which FilterLogEvents cannot read, and a \
             group keeps its class: delete the group, and EKS makes it anew in the Standard class \
             (switch the cluster's audit log off and on again); what the old one holds can be \
             exported by Logs Insights"
        )),
        "RequestExpired"
        | "RequestTimeTooSkewed"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch" => unauthenticated(CLOCK_REMEDY),
        "ExpiredTokenException"
        | "ExpiredToken"
        | "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "IncompleteSignature"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException" => unauthenticated(IDENTITY_REMEDY),
        "InvalidParameterException" | "ValidationException" if asked.with_token => {
            QueryError::TokenExpired
        }
        "InvalidParameterException" | "ValidationException" => denied(
            "check --log-group (AUDIT_BRIDGE_LOG_GROUP) and --log-stream-prefix \
             (AUDIT_BRIDGE_LOG_STREAM_PREFIX)"
                .to_owned(),
        ),
        _ => QueryError::Transient { detail },
    }
}

/// Whether an answer with this code may be a good one to new credentials of the same role.
pub(super) fn refuses_identity(code: &str) -> bool {
    matches!(
        code,
        "AccessDeniedException"
            | "AccessDenied"
            | "UnauthorizedOperation"
            | "ExpiredTokenException"
            | "ExpiredToken"
            | "UnrecognizedClientException"
            | "InvalidClientTokenId"
    )
}

/// Missing credentials arrive as a failed dispatch, without an error code of the service.
pub(super) fn lacks_credentials(error: &(dyn StdError + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<NoCredentials>() {
            return true;
        }
        next = error.source();
    }
    false
}
