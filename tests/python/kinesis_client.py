#!/usr/bin/env python3
"""Drives a Kinesis endpoint with boto3 and prints what it saw, as JSON.

Usage: kinesis_client.py ENDPOINT

The same questions go to any endpoint, so that the answers of several can be compared. Sequence
numbers and times, which differ, are judged here and reported as findings.
"""

import json
import sys
import time

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

STREAM = "judged"
PATIENCE_S = 30
KEYS = [f"key-{n}" for n in range(12)]


def client(endpoint):
    return boto3.client(
        "kinesis",
        endpoint_url=endpoint,
        region_name="eu-central-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        # Shapes of requests are the service's to judge, not the client's.
        config=Config(retries={"total_max_attempts": 1}, parameter_validation=False),
    )


class Judge:
    def __init__(self, endpoint):
        self.kinesis = client(endpoint)
        self.numbers = {}

    def until_active(self):
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            summary = self.kinesis.describe_stream_summary(StreamName=STREAM)
            if summary["StreamDescriptionSummary"]["StreamStatus"] == "ACTIVE":
                return summary["StreamDescriptionSummary"]
            time.sleep(0.05)
        raise TimeoutError("the stream does not become active")

    def refused(self, operation, **arguments):
        """The code of the error, or "none"."""
        try:
            getattr(self.kinesis, operation)(**arguments)
        except ClientError as error:
            return error.response["Error"]["Code"]
        return "none"

    def shards(self, **arguments):
        found, answer = [], self.kinesis.list_shards(StreamName=STREAM, **arguments)
        found += answer["Shards"]
        while "NextToken" in answer:
            answer = self.kinesis.list_shards(NextToken=answer["NextToken"])
            found += answer["Shards"]
        return found

    def described(self):
        names = ("ShardId", "ParentShardId", "AdjacentParentShardId", "HashKeyRange")
        shards = []
        for shard in self.shards():
            it = {name: shard.get(name) for name in names}
            it["closed"] = "EndingSequenceNumber" in shard["SequenceNumberRange"]
            shards.append(it)
        return shards

    def put(self, keys, prefix):
        """Which shard took which key."""
        took = {}
        for key in keys:
            data = f"{prefix}-{key}"
            answer = self.kinesis.put_record(StreamName=STREAM, PartitionKey=key, Data=data.encode())
            took[key] = answer["ShardId"]
            self.numbers[data] = answer["SequenceNumber"]
        return took

    def iterator(self, shard, kind, **more):
        answer = self.kinesis.get_shard_iterator(
            StreamName=STREAM, ShardId=shard, ShardIteratorType=kind, **more
        )
        return answer["ShardIterator"]

    def drain(self, iterator, **more):
        """All records, and the last answer: the end of the shard, or the first without records."""
        records = []
        for _ in range(100):
            answer = self.kinesis.get_records(ShardIterator=iterator, **more)
            records += answer["Records"]
            iterator = answer.get("NextShardIterator")
            if iterator is None or not answer["Records"]:
                break
        return records, answer

    def texts(self, shard, kind, **more):
        return [it["Data"].decode() for it in self.drain(self.iterator(shard, kind, **more))[0]]


def reading(judge, saw):
    kinesis = judge.kinesis
    kinesis.create_stream(StreamName=STREAM, ShardCount=3)
    summary = judge.until_active()
    saw["open"] = summary["OpenShardCount"]
    saw["retention_hours"] = summary["RetentionPeriodHours"]
    saw["created"] = judge.described()
    early = time.time() - 3600
    saw["took"] = judge.put(KEYS, "a")
    time.sleep(1.1)
    middle = time.time()
    time.sleep(1.1)
    judge.put(KEYS, "b")
    first = saw["took"][KEYS[0]]
    saw["horizon"] = judge.texts(first, "TRIM_HORIZON")
    saw["latest"] = judge.texts(first, "LATEST")
    number = judge.numbers[saw["horizon"][1]]
    saw["at_number"] = judge.texts(first, "AT_SEQUENCE_NUMBER", StartingSequenceNumber=number)
    saw["after_number"] = judge.texts(first, "AFTER_SEQUENCE_NUMBER", StartingSequenceNumber=number)
    saw["since_middle"] = judge.texts(first, "AT_TIMESTAMP", Timestamp=middle)
    saw["since_early"] = judge.texts(first, "AT_TIMESTAMP", Timestamp=early)
    records, last = judge.drain(judge.iterator(first, "TRIM_HORIZON"), Limit=2)
    saw["by_twos"] = [it["Data"].decode() for it in records]
    numbers = [int(it["SequenceNumber"]) for it in records]
    saw["numbers_grow"] = numbers == sorted(set(numbers))
    saw["numbers_are_those_of_put"] = all(
        judge.numbers[it["Data"].decode()] == it["SequenceNumber"] for it in records
    )
    starts = {it["ShardId"]: it["SequenceNumberRange"] for it in judge.shards()}
    saw["numbers_after_start"] = numbers[0] > int(starts[first]["StartingSequenceNumber"])
    saw["behind_at_tip"] = last["MillisBehindLatest"]
    saw["arrival_is_now"] = all(
        abs(it["ApproximateArrivalTimestamp"].timestamp() - time.time()) < 600 for it in records
    )
    saw["keys"] = sorted({it["PartitionKey"] for it in records})


def writing(judge, saw):
    answer = judge.kinesis.put_records(
        StreamName=STREAM,
        Records=[
            {"PartitionKey": "x", "ExplicitHashKey": "0", "Data": b"lowest"},
            {"PartitionKey": "x", "ExplicitHashKey": str(2**128 - 1), "Data": b"highest"},
        ],
    )
    saw["explicit"] = [answer["FailedRecordCount"]] + [it["ShardId"] for it in answer["Records"]]


def listing(judge, saw):
    ids = lambda shards: [it["ShardId"] for it in shards]
    saw["list"] = ids(judge.shards())
    saw["list_after"] = ids(judge.shards(ExclusiveStartShardId="shardId-000000000000"))
    for kind in ("AT_LATEST", "FROM_TRIM_HORIZON", "AT_TRIM_HORIZON"):
        saw[f"list_{kind}"] = ids(judge.shards(ShardFilter={"Type": kind}))
    after = {"Type": "AFTER_SHARD_ID", "ShardId": "shardId-000000000001"}
    saw["list_AFTER_SHARD_ID"] = ids(judge.shards(ShardFilter=after))
    saw["list_in_pages"] = ids(judge.shards(MaxResults=2))


def resharding(judge, saw):
    kinesis = judge.kinesis
    parent = "shardId-000000000001"
    bounds = judge.described()[1]["HashKeyRange"]
    middle = (int(bounds["StartingHashKey"]) + int(bounds["EndingHashKey"])) // 2
    before = judge.iterator(parent, "LATEST")
    kinesis.split_shard(StreamName=STREAM, ShardToSplit=parent, NewStartingHashKey=str(middle))
    saw["open_after_split"] = judge.until_active()["OpenShardCount"]
    saw["after_split"] = judge.described()
    saw["took_after_split"] = judge.put(KEYS, "c")
    records, end = judge.drain(judge.iterator(parent, "TRIM_HORIZON"))
    saw["of_parent"] = [it["Data"].decode() for it in records]
    saw["parent_ends"] = end.get("NextShardIterator") is None
    saw["child_shards"] = sorted(
        (it["ShardId"], it["ParentShards"]) for it in end.get("ChildShards", [])
    )
    saw["latest_of_before_ends"] = judge.drain(before)[1].get("NextShardIterator") is None
    saw["latest_of_closed_ends"] = (
        judge.drain(judge.iterator(parent, "LATEST"))[1].get("NextShardIterator") is None
    )
    children = [it["ShardId"] for it in saw["after_split"] if it["ParentShardId"] == parent]
    saw["of_children"] = [judge.texts(child, "TRIM_HORIZON") for child in children]
    ranges = {it["ShardId"]: it["SequenceNumberRange"] for it in judge.shards()}
    saw["child_starts_behind_parent"] = all(
        int(ranges[child]["StartingSequenceNumber"])
        > max([int(it["SequenceNumber"]) for it in records])
        for child in children
    )
    saw["split_of_closed"] = judge.refused(
        "split_shard", StreamName=STREAM, ShardToSplit=parent, NewStartingHashKey=str(middle)
    )
    kinesis.merge_shards(
        StreamName=STREAM, ShardToMerge=children[0], AdjacentShardToMerge=children[1]
    )
    saw["open_after_merge"] = judge.until_active()["OpenShardCount"]
    saw["after_merge"] = judge.described()
    saw["took_after_merge"] = judge.put(KEYS, "d")
    merged = saw["after_merge"][-1]["ShardId"]
    ends = [judge.drain(judge.iterator(child, "TRIM_HORIZON")) for child in children]
    saw["of_merged_parents"] = [[it["Data"].decode() for it in records] for records, _ in ends]
    saw["merged_parents_end"] = [it.get("NextShardIterator") is None for _, it in ends]
    saw["merged_child_shards"] = [
        sorted((it["ShardId"], sorted(it["ParentShards"])) for it in end.get("ChildShards", []))
        for _, end in ends
    ]
    saw["of_merged"] = judge.texts(merged, "TRIM_HORIZON")


def refusals(judge, saw):
    first, other = saw["took"][KEYS[0]], "shardId-000000000001"
    other = other if other != first else "shardId-000000000002"
    number = judge.numbers[saw["horizon"][0]]
    at = {"StreamName": STREAM, "ShardId": first}
    refused = judge.refused
    said = {
        "no stream": refused("describe_stream_summary", StreamName="none"),
        "list of no stream": refused("list_shards", StreamName="none"),
        "no shard": refused(
            "get_shard_iterator",
            StreamName=STREAM,
            ShardId="shardId-000000000099",
            ShardIteratorType="LATEST",
        ),
        "number of another shard": refused(
            "get_shard_iterator",
            StreamName=STREAM,
            ShardId=other,
            ShardIteratorType="AFTER_SEQUENCE_NUMBER",
            StartingSequenceNumber=number,
        ),
        "no number": refused("get_shard_iterator", **at, ShardIteratorType="AT_SEQUENCE_NUMBER"),
        "number that is none": refused(
            "get_shard_iterator",
            **at,
            ShardIteratorType="AT_SEQUENCE_NUMBER",
            StartingSequenceNumber="1" * 40,
        ),
        "unknown kind": refused("get_shard_iterator", **at, ShardIteratorType="FIRST"),
        "no time": refused("get_shard_iterator", **at, ShardIteratorType="AT_TIMESTAMP"),
        "time in the future": refused(
            "get_shard_iterator",
            **at,
            ShardIteratorType="AT_TIMESTAMP",
            Timestamp=time.time() + 3600,
        ),
        "iterator that is none": refused("get_records", ShardIterator="AAAA"),
        "limit too high": refused(
            "get_records", ShardIterator=judge.iterator(first, "LATEST"), Limit=10_001
        ),
        "token and name": refused("list_shards", StreamName=STREAM, NextToken="AAAA"),
        "no adjacent shards": refused(
            "merge_shards",
            StreamName=STREAM,
            ShardToMerge="shardId-000000000002",
            AdjacentShardToMerge="shardId-000000000000",
        ),
        "split at the edge": refused(
            "split_shard",
            StreamName=STREAM,
            ShardToSplit="shardId-000000000000",
            NewStartingHashKey="0",
        ),
        "stream exists": refused("create_stream", StreamName=STREAM, ShardCount=1),
    }
    saw |= {f"refused, {what}": code for what, code in said.items()}


def by_arn(judge, saw):
    summary = judge.kinesis.describe_stream_summary(StreamName=STREAM)["StreamDescriptionSummary"]
    arn = summary["StreamARN"]
    saw["arn_ends"] = arn.rsplit(":", 1)[1]
    shards = judge.kinesis.list_shards(StreamARN=arn)["Shards"]
    iterator = judge.kinesis.get_shard_iterator(
        StreamARN=arn, ShardId=shards[0]["ShardId"], ShardIteratorType="TRIM_HORIZON"
    )["ShardIterator"]
    answer = judge.kinesis.get_records(ShardIterator=iterator, StreamARN=arn)
    saw["by_arn"] = [len(shards), bool(answer["Records"])]
    judge.kinesis.delete_stream(StreamName=STREAM)
    saw["deleted"] = STREAM not in judge.kinesis.list_streams()["StreamNames"] or "DELETING"


def main(endpoint):
    judge, saw = Judge(endpoint), {}
    for step in (reading, writing, listing, resharding, refusals, by_arn):
        try:
            step(judge, saw)
        except (ClientError, TimeoutError) as error:
            saw[f"{step.__name__} stopped"] = str(error)
    print(json.dumps(saw))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
