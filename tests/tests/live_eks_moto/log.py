"""Writes to CloudWatch Logs on moto with boto3, as somebody else's code does.

Usage: log.py ENDPOINT, then commands as JSON lines on standard input, each answered by a line.
{"do":"group","group":G} · {"do":"stream","group":G,"stream":S} ·
{"do":"put","group":G,"stream":S,"events":[[timestamp, message], …]} ·
{"do":"role","name":R,"trust":{…}} (answers the role's ARN)
"""

import json
import sys

import boto3

REGION = "eu-central-1"
KEYS = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": REGION}


def main(endpoint):
    logs = boto3.client("logs", endpoint_url=endpoint, **KEYS)
    iam = boto3.client("iam", endpoint_url=endpoint, **KEYS)
    for line in sys.stdin:
        command = json.loads(line)
        said = "ok"
        match command["do"]:
            case "group":
                logs.create_log_group(logGroupName=command["group"])
            case "stream":
                logs.create_log_stream(
                    logGroupName=command["group"], logStreamName=command["stream"]
                )
            case "put":
                # The API wants each batch in the order of time.
                events = [{"timestamp": at, "message": text} for at, text in sorted(command["events"])]
                answer = logs.put_log_events(
                    logGroupName=command["group"],
                    logStreamName=command["stream"],
                    logEvents=events,
                )
                assert not answer.get("rejectedLogEventsInfo"), answer
            case "role":
                role = iam.create_role(
                    RoleName=command["name"],
                    AssumeRolePolicyDocument=json.dumps(command["trust"]),
                )
                said = role["Role"]["Arn"]
        print(said, flush=True)


main(sys.argv[1])
