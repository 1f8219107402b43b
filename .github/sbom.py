#!/usr/bin/env python3
"""Prints what a binary is made of, as SPDX 2.3: python3 .github/sbom.py eks-audit-bridge x86_64-unknown-linux-gnu

The crates that Cargo links into it on that platform (nothing that only builds or tests), with the checksums of
Cargo.lock and their licences. Only the standard library.
"""

import datetime
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def metadata(target):
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", target]
    return json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)


def linked(found, name):
    """The ids of the packages that a binary is linked from, itself first."""
    nodes = {node["id"]: node for node in found["resolve"]["nodes"]}
    (root,) = [package["id"] for package in found["packages"] if package["name"] == name]
    seen, todo = [root], [root]
    while todo:
        for used in nodes[todo.pop()]["deps"]:
            if any(kind["kind"] is None for kind in used["dep_kinds"]) and used["pkg"] not in seen:
                seen.append(used["pkg"])
                todo.append(used["pkg"])
    return seen


def checksums():
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    return {(package["name"], package["version"]): package.get("checksum") for package in lock}


def package(described, sums):
    name, version = described["name"], described["version"]
    licence = re.sub(r"\s*/\s*", " OR ", described["license"] or "NOASSERTION")
    made = {
        "SPDXID": "SPDXRef-" + re.sub(r"[^A-Za-z0-9.-]", "-", f"{name}-{version}"),
        "name": name,
        "versionInfo": version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": licence,
        "copyrightText": "NOASSERTION",
        "externalRefs": [
            {
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": f"pkg:cargo/{name}@{version}",
            }
        ],
    }
    if checksum := sums.get((name, version)):
        made["checksums"] = [{"algorithm": "SHA256", "checksumValue": checksum}]
    return made


def document(name, target):
    found = metadata(target)
    described = {item["id"]: item for item in found["packages"]}
    sums = checksums()
    packages = [package(described[each], sums) for each in linked(found, name)]
    # The time of the commit, so that the same sources give the same document.
    time = datetime.datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH", "0")), datetime.timezone.utc)
    root = packages[0]
    def related(one, how, other):
        return {"spdxElementId": one, "relationshipType": how, "relatedSpdxElement": other}

    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": f"{name}-{root['versionInfo']}-{target}",
        "documentNamespace": f"urn:audit-bridges:{name}:{root['versionInfo']}:{target}",
        "creationInfo": {"created": time.strftime("%Y-%m-%dT%H:%M:%SZ"), "creators": ["Tool: audit-bridges-sbom"]},
        "packages": packages,
        "relationships": [
            related("SPDXRef-DOCUMENT", "DESCRIBES", root["SPDXID"]),
            *(related(root["SPDXID"], "DEPENDS_ON", each["SPDXID"]) for each in packages[1:]),
        ],
    }


if __name__ == "__main__":
    print(json.dumps(document(*sys.argv[1:3]), indent=1))
