//! The service's errors, in its own words, and faults for tests.

use super::{ACCOUNT, CloudWatchFault, REGION};

/// An error of the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceError {
    pub status: u16,
    /// The error code: `ResourceNotFoundException`.
    pub code: String,
    pub message: String,
}

impl ServiceError {
    pub(super) fn new(code: &str, message: impl Into<String>) -> ServiceError {
        ServiceError {
            status: 400,
            code: code.to_owned(),
            message: message.into(),
        }
    }

    pub(super) fn invalid(message: impl Into<String>) -> ServiceError {
        ServiceError::new("InvalidArgumentException", message)
    }

    pub(super) fn no_stream(name: &str) -> ServiceError {
        ServiceError::new(
            "ResourceNotFoundException",
            format!("Stream {name} under account {ACCOUNT} not found."),
        )
    }

    pub(super) fn no_shard(id: &str, stream: &str) -> ServiceError {
        ServiceError::new(
            "ResourceNotFoundException",
            format!("Shard {id} in stream {stream} under account {ACCOUNT} does not exist"),
        )
    }

    /// The error for a shard whose read quota is used up.
    pub(super) fn reads_exceeded(id: &str, stream: &str) -> ServiceError {
        ServiceError::new(
            "ProvisionedThroughputExceededException",
            format!("Rate exceeded for Shard - {ACCOUNT}/{stream}/{id}"),
        )
    }

    /// The error for a shard whose write quota is used up.
    pub(super) fn writes_exceeded(id: &str, stream: &str) -> ServiceError {
        ServiceError::new(
            "ProvisionedThroughputExceededException",
            format!("Rate exceeded for shard {id} in stream {stream} under account {ACCOUNT}."),
        )
    }
}

/// The fault for a shard whose quota is used up.
pub fn throughput_exceeded() -> CloudWatchFault {
    CloudWatchFault::Error(
        400,
        "ProvisionedThroughputExceededException",
        "Rate exceeded for Shard - 123456789012/audit/shardId-000000000000",
    )
}

/// The fault for an iterator older than five minutes.
pub fn iterator_expired() -> CloudWatchFault {
    CloudWatchFault::Error(
        400,
        "ExpiredIteratorException",
        "Iterator expired. The iterator was created at time Thu Jan 22 01:22:02 UTC 2015 while \
         right now it is Thu Jan 22 01:28:02 UTC 2015 which is further in the future than the \
         tolerated delay of 300000 milliseconds.",
    )
}

/// The fault for a role that may not call an operation (`GetRecords`).
pub fn access_denied(operation: &str) -> CloudWatchFault {
    let message = format!(
        "User: arn:aws:sts::{ACCOUNT}:assumed-role/reader/x is not authorized to perform: \
         kinesis:{operation} on resource: arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/audit because \
         no identity-based policy allows the kinesis:{operation} action"
    );
    CloudWatchFault::Error(400, "AccessDeniedException", message.leak())
}

/// The fault for an internal error of the service.
pub fn internal_failure() -> CloudWatchFault {
    CloudWatchFault::Error(500, "InternalFailure", "Internal Service Failure")
}

/// The faults of `GetRecords` and `PutRecord` if the key of an encrypted stream cannot be used
/// (Kinesis Data Streams API Reference, errors of `GetRecords`).
pub fn kms_faults() -> [CloudWatchFault; 6] {
    let fault = |code, message| CloudWatchFault::Error(400, code, message);
    [
        fault(
            "KMSAccessDeniedException",
            "User arn:aws:sts::123456789012:assumed-role/reader/x is not authorized to decrypt \
             records in stream 123456789012:audit:1790000000",
        ),
        fault(
            "KMSDisabledException",
            "arn:aws:kms:eu-central-1:123456789012:key/0a1b2c3d is disabled.",
        ),
        fault(
            "KMSInvalidStateException",
            "arn:aws:kms:eu-central-1:123456789012:key/0a1b2c3d is pending deletion.",
        ),
        fault(
            "KMSNotFoundException",
            "Key 'arn:aws:kms:eu-central-1:123456789012:key/0a1b2c3d' does not exist",
        ),
        fault(
            "KMSOptInRequired",
            "The AWS Access Key Id needs a subscription for the service",
        ),
        fault(
            "KMSThrottlingException",
            "You have exceeded the rate at which you may call KMS. Reduce the frequency of your calls.",
        ),
    ]
}

/// The name of a stream in its ARN.
pub(super) fn stream_of_arn(arn: &str) -> Result<&str, ServiceError> {
    let prefix = format!("arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/");
    arn.strip_prefix(&prefix).ok_or_else(|| {
        let name = arn.rsplit('/').next().unwrap_or_default();
        ServiceError::no_stream(name)
    })
}
