//! Implements the calls with the SDK, and classifies their failures.
//!
//! The SDK's own retries are switched off: the reader paces, counts and repeats calls within a
//! quota that all consumers of a shard share.

use std::time::Duration;

use audit_bridge_core::chain::chain;
use audit_bridge_core::readiness::{Component, Unavailable};
use aws_config::retry::RetryConfig;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::Builder;
use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::primitives::DateTime;
use aws_sdk_kinesis::types::{self, EncryptionType, ShardIteratorType};
use bytes::Bytes;
use jiff::Timestamp;

use super::super::error::{self, ASSUME_REMEDY, CLOCK_REMEDY, IDENTITY_REMEDY};
use super::super::stream_name::StreamName;
use super::super::{Access, AwsIdentity, timeouts};
use super::{
    IteratorStart, Packed, RecordsAnswer, SequenceNumber, StreamApi, StreamError, StreamErrorKind,
    StreamShard, Summary,
};

/// Most pages of `ListShards` that are read; a page has up to a thousand shards.
const LIST_PAGES_MAX: usize = 100;

/// One stream, with credentials that renew themselves.
#[derive(Debug, Clone)]
pub(crate) struct KinesisStream {
    client: Client,
    identity: AwsIdentity,
    stream: StreamName,
}

impl KinesisStream {
    /// Loads credentials and region as for log groups, and creates the client.
    ///
    /// # Errors
    /// There is no region, or the SDK's chain has no provider of credentials.
    pub(crate) async fn new(
        access: Access,
        stream: StreamName,
    ) -> Result<KinesisStream, Unavailable> {
        let identity = AwsIdentity::load(access).await?;
        let client = Client::from_conf(
            Builder::from(&identity.config)
                .retry_config(RetryConfig::disabled())
                .timeout_config(timeouts())
                .build(),
        );
        Ok(KinesisStream {
            client,
            identity,
            stream,
        })
    }

    /// Gets credentials once, for `check`. Returns when they expire, if the provider says so.
    ///
    /// # Errors
    /// There are no credentials; says why.
    pub(crate) async fn identity(&self) -> Result<String, Unavailable> {
        self.identity.check().await
    }

    /// The name, unless an ARN was given: the API takes only one of the two.
    fn name(&self) -> Option<String> {
        match self.stream.arn {
            Some(_) => None,
            None => Some(self.stream.name.clone()),
        }
    }

    fn arn(&self) -> Option<String> {
        self.stream.arn.clone()
    }

    fn fault<E, R>(&self, action: &str, error: &SdkError<E, R>) -> StreamError
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
        R: std::fmt::Debug + 'static,
    {
        let SdkError::ServiceError(answer) = error else {
            return self.unanswered(error);
        };
        let meta = answer.err().meta();
        let code = meta.code().unwrap_or("unknown");
        if error::refuses_identity(code) {
            self.identity.cache.renew();
        }
        let what = match meta.message() {
            Some(message) => format!("{action}: {code}: {message}"),
            // The answer is not an error of the service, for example a proxy's page or a truncated
            // body.
            None => format!("{action}: {}", chain(error)),
        };
        let (kind, part, remedy) = self.meaning(action, code);
        StreamError {
            kind,
            part,
            what,
            remedy,
        }
    }

    /// The error for a call without an answer, or with one that could not be read.
    fn unanswered(&self, error: &(dyn std::error::Error + 'static)) -> StreamError {
        let detail = chain(error);
        let assumed = self.identity.access.role.as_deref();
        match error::lacks_credentials(error) {
            true => StreamError {
                kind: StreamErrorKind::Other,
                part: Component::Identity,
                what: format!("no AWS credentials for {}: {detail}", error::role(assumed)),
                remedy: match assumed {
                    Some(_) => ASSUME_REMEDY.to_owned(),
                    None => IDENTITY_REMEDY.to_owned(),
                },
            },
            false => StreamError {
                kind: StreamErrorKind::Other,
                part: Component::Source,
                what: detail,
                remedy:
                    "it is tried again; check that this machine reaches Kinesis in that region \
                         (network policies, endpoints, proxies)"
                        .to_owned(),
            },
        }
    }

    /// Classifies an error of the service (Amazon Kinesis Data Streams API Reference, errors of
    /// each action and common errors).
    fn meaning(&self, action: &str, code: &str) -> (StreamErrorKind, Component, String) {
        let source = |kind: StreamErrorKind, remedy: String| (kind, Component::Source, remedy);
        let identity = |remedy: &str| {
            (
                StreamErrorKind::Other,
                Component::Identity,
                remedy.to_owned(),
            )
        };
        match code {
            "ProvisionedThroughputExceededException"
            | "LimitExceededException"
            | "KMSThrottlingException"
            | "ThrottlingException"
            | "Throttling" => source(
                StreamErrorKind::Throttled,
                "it is tried again, less often; a shard answers 5 calls and 2 MB a second to all \
                 that read it together"
                    .to_owned(),
            ),
            "ExpiredIteratorException" => source(
                StreamErrorKind::IteratorExpired,
                "another iterator is asked for".to_owned(),
            ),
            "InvalidArgumentException" | "ValidationException" => source(
                StreamErrorKind::BadPosition,
                "it is tried again; if it stays, please report it".to_owned(),
            ),
            "ResourceNotFoundException" => source(
                StreamErrorKind::NotFound,
                format!(
                    "check --stream (AUDIT_BRIDGE_STREAM) and the region, which is {}: --aws-region \
                     (AUDIT_BRIDGE_AWS_REGION, AWS_REGION), or the stream's ARN; a stream of another \
                     account needs its ARN",
                    self.identity.region
                ),
            ),
            "AccessDeniedException" | "AccessDenied" | "UnauthorizedOperation" => source(
                StreamErrorKind::Other,
                format!(
                    "allow {} the actions kinesis:ListShards, kinesis:GetShardIterator, \
                     kinesis:GetRecords and kinesis:DescribeStreamSummary on {} (refused was \
                     kinesis:{action})",
                    self.identity.role(),
                    self.stream.pattern(&self.identity.region),
                ),
            ),
            "KMSAccessDeniedException" => source(
                StreamErrorKind::Other,
                format!(
                    "the stream is encrypted: allow {} the action kms:Decrypt on the stream's key, in \
                     its own policy and, where the key is another account's, in the key's",
                    self.identity.role(),
                ),
            ),
            "KMSDisabledException"
            | "KMSInvalidStateException"
            | "KMSNotFoundException"
            | "KMSOptInRequired" => source(
                StreamErrorKind::Other,
                "the stream is encrypted by a key that cannot be used: enable it, or cancel its \
                 deletion; a key that is deleted takes the records with it"
                    .to_owned(),
            ),
            "RequestExpired"
            | "RequestTimeTooSkewed"
            | "InvalidSignatureException"
            | "SignatureDoesNotMatch" => identity(CLOCK_REMEDY),
            "ExpiredTokenException"
            | "ExpiredToken"
            | "UnrecognizedClientException"
            | "InvalidClientTokenId"
            | "IncompleteSignature"
            | "MissingAuthenticationToken"
            | "MissingAuthenticationTokenException" => identity(IDENTITY_REMEDY),
            _ => source(
                StreamErrorKind::Other,
                "it is tried again; if it stays, please report it".to_owned(),
            ),
        }
    }
}

impl StreamApi for KinesisStream {
    async fn shards(&self) -> Result<Vec<StreamShard>, StreamError> {
        let mut shards = Vec::new();
        let mut token: Option<String> = None;
        for _ in 0..LIST_PAGES_MAX {
            let request = self.client.list_shards();
            // A token already names the stream.
            let request = match token {
                Some(token) => request.next_token(token),
                None => request
                    .set_stream_name(self.name())
                    .set_stream_arn(self.arn()),
            };
            let answer = request.send().await;
            let page = answer.map_err(|error| self.fault("ListShards", &error))?;
            shards.extend(page.shards.unwrap_or_default().into_iter().map(shard));
            token = page.next_token.filter(|token| !token.is_empty());
            if token.is_none() {
                break;
            }
        }
        Ok(shards)
    }

    async fn iterator(&self, shard: &str, place: &IteratorStart) -> Result<String, StreamError> {
        let request = self
            .client
            .get_shard_iterator()
            .set_stream_name(self.name())
            .set_stream_arn(self.arn())
            .shard_id(shard);
        let request = match place {
            IteratorStart::After(number) => request
                .shard_iterator_type(ShardIteratorType::AfterSequenceNumber)
                .starting_sequence_number(number.to_string()),
            IteratorStart::Oldest => request.shard_iterator_type(ShardIteratorType::TrimHorizon),
            IteratorStart::From(time) => request
                .shard_iterator_type(ShardIteratorType::AtTimestamp)
                .timestamp(DateTime::from_millis(time.as_millisecond())),
        };
        let answer = request.send().await;
        let answer = answer.map_err(|error| self.fault("GetShardIterator", &error))?;
        Ok(answer.shard_iterator.unwrap_or_default())
    }

    async fn records(&self, iterator: &str, limit: u32) -> Result<RecordsAnswer, StreamError> {
        let answer = self
            .client
            .get_records()
            .set_stream_arn(self.arn())
            .shard_iterator(iterator)
            .limit(i32::try_from(limit).unwrap_or(i32::MAX))
            .send()
            .await;
        let answer = answer.map_err(|error| self.fault("GetRecords", &error))?;
        let behind = answer.millis_behind_latest;
        let children = answer.child_shards.unwrap_or_default();
        // An answer of `{}` is not the end of a shard: if it were taken for one, the shard would
        // never be read again.
        if answer.next_shard_iterator.is_none() && behind.is_none() && children.is_empty() {
            return Err(StreamError {
                kind: StreamErrorKind::Other,
                part: Component::Source,
                what: "GetRecords: an answer that says neither where to go on nor that the shard ended"
                    .to_owned(),
                remedy: "look at what stands between the bridge and Kinesis (a proxy?)".to_owned(),
            });
        }
        let behind = behind.unwrap_or_default();
        Ok(RecordsAnswer {
            records: answer.records.into_iter().map(packed).collect(),
            next: answer.next_shard_iterator.filter(|next| !next.is_empty()),
            behind: Duration::from_millis(u64::try_from(behind).unwrap_or_default()),
        })
    }

    async fn summary(&self) -> Result<Summary, StreamError> {
        let answer = self
            .client
            .describe_stream_summary()
            .set_stream_name(self.name())
            .set_stream_arn(self.arn())
            .send()
            .await;
        let answer = answer.map_err(|error| self.fault("DescribeStreamSummary", &error))?;
        let Some(summary) = answer.stream_description_summary else {
            return Err(StreamError {
                kind: StreamErrorKind::Other,
                part: Component::Source,
                what: "DescribeStreamSummary: the answer is empty".to_owned(),
                remedy: "it is tried again".to_owned(),
            });
        };
        let hours = u64::try_from(summary.retention_period_hours).unwrap_or_default();
        let encrypted = summary.encryption_type == Some(EncryptionType::Kms);
        Ok(Summary {
            status: summary.stream_status.as_str().to_owned(),
            retention: Duration::from_secs(hours * 3600),
            key: encrypted.then(|| summary.key_id.unwrap_or_default()),
            open_shards: usize::try_from(summary.open_shard_count).unwrap_or_default(),
        })
    }
}

fn shard(shard: types::Shard) -> StreamShard {
    let parents = [shard.parent_shard_id, shard.adjacent_parent_shard_id];
    let range = shard.sequence_number_range;
    StreamShard {
        id: shard.shard_id,
        parents: parents.into_iter().flatten().collect(),
        first: range
            .as_ref()
            .and_then(|range| SequenceNumber::parse(&range.starting_sequence_number)),
        is_closed: range.is_some_and(|range| range.ending_sequence_number.is_some()),
    }
}

fn packed(record: types::Record) -> Packed {
    let arrived = record.approximate_arrival_timestamp;
    Packed {
        // Not validated: it is only sent back to the stream.
        number: SequenceNumber::of_stream(record.sequence_number),
        arrived: arrived
            .and_then(|at| at.to_millis().ok())
            .and_then(|ms| Timestamp::from_millisecond(ms).ok()),
        data: Bytes::from(record.data.into_inner()),
    }
}
