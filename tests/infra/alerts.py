#!/usr/bin/env python3
"""Shows which alerts fire in an outage, with the metrics that a bridge exposed in it.

Usage: python tests/infra/alerts.py OUTAGE.json

The file is {"healthy": TEXT, "outage": [[SECONDS, TEXT], [SECONDS, TEXT]], "fires": [ALERT…]}: what
/metrics said before the outage, and twice during it. A recorded outage lasts seconds and alerts wait for
minutes, so the two are prolonged: what grew between them (counters, and gauges that count seconds) goes on
growing at that pace, everything else stays. Prometheus' own promtool judges: before the outage nothing
fires, and an hour after its beginning all of these do.
"""

import json
import re
import sys
import unittest
from pathlib import Path

import yaml
from kit import ROOT, run, scratch
from tools import go_tool

RULES = ROOT / "deploy/helm/audit-bridge/files/rules.yaml"
TARGET = 'namespace="audit",pod="bridge-0",app_kubernetes_io_name="audit-bridge"'
# The exit status where promtool cannot be had.
SKIPPED = 77
HEALTHY_MINUTES, OUTAGE_MINUTES = 60, 60
SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$")


def samples(text):
    """Each series with its value; a series is its name and labels as they stand in the text."""
    found = {}
    for line in text.splitlines():
        match = SAMPLE.match(line)
        if match:
            name, labels, value = match.groups()
            found[name + "{" + ",".join(filter(None, [TARGET, labels])) + "}"] = float(value)
    return found


def counters(text):
    """The names of the metrics that only grow, as far as they are counters."""
    return {line.split()[2] for line in text.splitlines() if re.match(r"# TYPE \w+ (counter|histogram)", line)}


def pace(series, before, after, seconds, growing):
    """By how much a series grows in a minute."""
    name = series.split("{")[0]
    base = re.sub("_(total|bucket|count|sum)$", "", name)
    slope = (after - before) / seconds * 60
    if base in growing:
        return max(slope, 0)
    # A gauge that counts seconds: at the pace of the clock, or not at all.
    return 60 if name.endswith("_seconds") and slope > 30 else 0


def series(recorded):
    """What promtool is to load."""
    healthy = samples(recorded["healthy"])
    (first_at, first), (second_at, second) = recorded["outage"]
    growing = counters(second)
    first, second = samples(first), samples(second)
    loaded = []
    for name, value in second.items():
        start = healthy.get(name)
        calm = f"{start}x{HEALTHY_MINUTES - 1}" if start is not None else f"_x{HEALTHY_MINUTES}"
        grows = pace(name, first.get(name, 0), value, second_at - first_at, growing)
        loaded.append({"series": name, "values": f"{calm} {value}+{grows}x{OUTAGE_MINUTES}"})
    return loaded


def expectation(minutes, alerts, wanted):
    """How many of these alerts fire then."""
    names = "|".join(alerts) or ".+"
    expression = f'count(count by (alertname) (ALERTS{{alertstate="firing",alertname=~"{names}"}})) or vector(0)'
    return {"expr": expression, "eval_time": f"{minutes}m", "exp_samples": [{"labels": "{}", "value": wanted}]}


def judge(recorded):
    """What promtool finds wrong; empty when nothing is."""
    promtool = go_tool("promtool")
    groups = yaml.safe_load(RULES.read_text())["spec"]["groups"]
    known = {rule["alert"] for group in groups for rule in group["rules"]}
    unknown = set(recorded["fires"]) - known
    if unknown:
        return f"no such alerts: {sorted(unknown)}"
    test = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": series(recorded),
                "promql_expr_test": [
                    expectation(HEALTHY_MINUTES - 1, [], 0),
                    *(expectation(HEALTHY_MINUTES + OUTAGE_MINUTES, [alert], 1) for alert in recorded["fires"]),
                ],
            }
        ],
    }
    with scratch() as folder:
        (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": groups}))
        (folder / "test.yaml").write_text(yaml.safe_dump(test))
        ran = run(promtool, "test", "rules", "test.yaml", cwd=folder, check=False, timeout=300)
    return "" if ran.returncode == 0 else ran.stdout + ran.stderr


def main(arguments):
    if len(arguments) != 2:
        return __doc__
    try:
        return judge(json.loads(Path(arguments[1]).read_text())) or None
    except unittest.SkipTest as missing:
        print(missing, file=sys.stderr)
        return SKIPPED


if __name__ == "__main__":
    sys.exit(main(sys.argv))
