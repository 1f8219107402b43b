#!/usr/bin/env python3
"""Has an endpoint bring log events into a stream by a subscription filter; prints its records.

Usage: subscribed_records.py ENDPOINT

Each line is one record, in base64. The endpoint has CloudWatch Logs and Kinesis: moto.
"""

import base64
import sys
import time

import boto3

GROUP, LOG_STREAM, STREAM = "/aws/eks/prod/cluster", "kube-apiserver-audit-1", "audit"
KEYS = {
    "aws_access_key_id": "test",
    "aws_secret_access_key": "test",
    "region_name": "eu-central-1",
}


def main(endpoint):
    kinesis = boto3.client("kinesis", endpoint_url=endpoint, **KEYS)
    logs = boto3.client("logs", endpoint_url=endpoint, **KEYS)
    kinesis.create_stream(StreamName=STREAM, ShardCount=1)
    summary = kinesis.describe_stream_summary(StreamName=STREAM)["StreamDescriptionSummary"]
    logs.create_log_group(logGroupName=GROUP)
    logs.create_log_stream(logGroupName=GROUP, logStreamName=LOG_STREAM)
    logs.put_subscription_filter(
        logGroupName=GROUP,
        filterName="audit",
        filterPattern="",
        destinationArn=summary["StreamARN"],
        roleArn="arn:aws:iam::123456789012:role/writer",
    )
    now = int(time.time() * 1000)
    events = [{"timestamp": now + n, "message": f'{{"n":{n}}}'} for n in range(3)]
    logs.put_log_events(logGroupName=GROUP, logStreamName=LOG_STREAM, logEvents=events)
    shard = kinesis.list_shards(StreamName=STREAM)["Shards"][0]["ShardId"]
    iterator = kinesis.get_shard_iterator(
        StreamName=STREAM, ShardId=shard, ShardIteratorType="TRIM_HORIZON"
    )["ShardIterator"]
    for record in kinesis.get_records(ShardIterator=iterator)["Records"]:
        print(base64.b64encode(record["Data"]).decode())


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
