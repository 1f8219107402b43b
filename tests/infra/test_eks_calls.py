"""The calls that the built EKS bridge makes of moto, held against the policies, for each option that needs more.

Needs the built binaries: BRIDGES_FOLDER says where they are (cargo's test gives it). moto notes what it is asked.
"""

import base64
import contextlib
import http.server
import json
import os
import re
import subprocess
import threading
import time
import unittest
import urllib.parse
from pathlib import Path

import boto3
import recorded
from kit import moto, run, scratch

OWN, OTHER = "123456789012", "444455556666"
GROUP = "/aws/eks/production/cluster"
FAR = f"arn:aws:logs:eu-central-1:{OTHER}:log-group:/aws/eks/far/cluster"
ROLE = f"arn:aws:iam::{OTHER}:role/eks-audit-reader"
STREAM = "eks-audit-production"
EVENT = (
    '{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"1","stage":"ResponseComplete",'
    '"verb":"get","requestURI":"/","stageTimestamp":"2026-11-21T10:00:00.000002Z"}'
)
# How long a bridge may take on a machine that does much else.
PATIENCE = 120


def bridge():
    folder = os.environ.get("BRIDGES_FOLDER")
    if not folder:
        raise unittest.SkipTest("BRIDGES_FOLDER does not say where the binaries are")
    return Path(folder).resolve() / "eks-audit-bridge"


@contextlib.contextmanager
def receiver():
    """A webhook that takes everything: its URL, and the bodies that it got."""
    bodies = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/", bodies
    finally:
        server.shutdown()
        server.server_close()


def calls_in(file):
    """[(access key, call)] of a recording of moto, as the end-to-end tests have calls."""
    found = []
    # Without what is being written just now.
    for line in file.read_text().rpartition("\n")[0].splitlines():
        entry = json.loads(line)
        headers = {name.lower(): value for name, value in entry["headers"].items()}
        body = base64.b64decode(entry["body"]) if entry["body_encoded"] else (entry["body"] or "").encode()
        key = re.search(r"Credential=(\w+)/", headers.get("authorization", ""))
        if target := headers.get("x-amz-target"):
            service, _, operation = target.partition(".")
            call = {"action": f"{service.partition('_')[0].lower()}:{operation}", "body": json.loads(body)}
        elif b"Action=" in body:
            form = dict(urllib.parse.parse_qsl(body.decode()))
            call = {"action": f"sts:{form['Action']}", "body": form}
        else:
            continue
        found.append((key and key[1], call))
    return found


class Calls(unittest.TestCase):
    def go(self, folder, url, *flags, command="run"):
        """Starts the bridge with an identity of its own, whose key tells its calls from a role's."""
        nowhere = str(folder / "nowhere")
        environment = {
            "AWS_ENDPOINT_URL": url,
            "AWS_REGION": "eu-central-1",
            "AWS_ACCESS_KEY_ID": "AKIABRIDGE",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": nowhere,
            "AWS_SHARED_CREDENTIALS_FILE": nowhere,
        }
        state = ["--state-dir", str(folder / "state"), "--admin-address", "127.0.0.1:0"]
        with (folder / f"{command}.log").open("w") as log:
            return subprocess.Popen(
                [bridge(), command, "--start=-1m", *state, *flags],
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )

    def until(self, condition, folder):
        """Waits for what the bridge does."""
        end = time.monotonic() + PATIENCE
        while not condition():
            said = "".join(log.read_text() for log in folder.glob("*.log"))
            self.assertLess(time.monotonic(), end, said[-3000:])
            time.sleep(0.2)

    def judged(self, folder, calls, *words):
        """What the policies say of calls."""
        file = folder / "calls.jsonl"
        file.write_text("\n".join(map(json.dumps, calls)))
        return recorded.main([str(file), *words])

    def made(self, folder, flags, arrange, done):
        """What the bridge calls until `done`, by whose key it is signed: its own, and those of roles."""
        recording = folder / "recording"
        with moto(recording) as url, receiver() as (webhook, bodies):
            arrange(url)
            before = len(calls_in(recording))
            running = self.go(folder, url, f"--webhook-url={webhook}", *flags)
            try:
                # The first body may be the probe, an empty list.
                self.until(lambda: any(b'"auditID":"1"' in body for body in bodies), folder)
                self.until(lambda: done([call for _, call in calls_in(recording)[before:]]), folder)
            finally:
                running.terminate()
                running.wait()
            # What an operator asks is asked by the same role.
            self.go(folder, url, f"--webhook-url={webhook}", *flags, command="check").wait()
            calls = calls_in(recording)[before:]
        own = [call for key, call in calls if key in (None, "AKIABRIDGE")]
        return own, [call for key, call in calls if key not in (None, "AKIABRIDGE")]

    def log_group(self, url):
        logs = boto3.client("logs", "eu-central-1", endpoint_url=url)
        logs.create_log_group(logGroupName=GROUP)
        logs.create_log_stream(logGroupName=GROUP, logStreamName="kube-apiserver-audit-1")
        return logs

    def fill(self, url):
        self.put(self.log_group(url))

    def put(self, logs):
        event = {"timestamp": int(time.time() * 1000), "message": EVENT}
        logs.put_log_events(logGroupName=GROUP, logStreamName="kube-apiserver-audit-1", logEvents=[event])

    def test_unmasked_reading_needs_what_unmask_grants(self):
        with scratch() as folder:
            flags = ["--cluster-name=production", "--unmask"]
            own, others = self.made(folder, flags, self.fill, lambda _: True)
            self.assertEqual(others, [])
            self.assertIsNone(self.judged(folder, own, GROUP, "--unmask"))
            self.assertIn("logs:Unmask on", self.judged(folder, own, GROUP))

    def test_reading_by_a_role_needs_assume_role_here_and_reading_there(self):
        with scratch() as folder:
            groups = f"--log-group={GROUP},{FAR}"
            roles = [f"--role-arn={ROLE}", "--role-external-id=audit-bridge"]

            # moto does not know a group by its ARN; that it is asked for is enough.
            def far_was_asked(calls):
                return any(call["body"].get("logGroupIdentifier") == FAR for call in calls)

            own, others = self.made(folder, [groups, *roles], self.fill, far_was_asked)
            assumed = [call["body"] for call in own if call["action"] == "sts:AssumeRole"]
            self.assertTrue(assumed)
            self.assertEqual({body["ExternalId"] for body in assumed}, {"audit-bridge"})
            self.assertIsNone(self.judged(folder, own, GROUP, "--role-arn", ROLE))
            self.assertIsNone(self.judged(folder, others, FAR, "--account-role"))

    def test_reading_a_stream_needs_four_actions_on_it(self):
        if "--stream" not in run(bridge(), "run", "--help").stdout.split():
            raise unittest.SkipTest("the bridge reads no stream yet")

        def arrange(url):
            kinesis = boto3.client("kinesis", "eu-central-1", endpoint_url=url)
            kinesis.create_stream(StreamName=STREAM, ShardCount=2)
            logs = self.log_group(url)
            logs.put_subscription_filter(
                logGroupName=GROUP,
                filterName="audit-bridge",
                filterPattern="",
                destinationArn=f"arn:aws:kinesis:eu-central-1:{OWN}:stream/{STREAM}",
                roleArn=f"arn:aws:iam::{OWN}:role/writer",
            )
            self.put(logs)

        for given in [STREAM, f"arn:aws:kinesis:eu-central-1:{OWN}:stream/{STREAM}"]:
            with self.subTest(stream=given), scratch() as folder:
                own, others = self.made(folder, [f"--stream={given}"], arrange, lambda _: True)
                self.assertEqual(others, [])
                self.assertIsNone(self.judged(folder, own, "--stream", STREAM))


if __name__ == "__main__":
    unittest.main()
