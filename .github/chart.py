#!/usr/bin/env python3
"""Copies the chart as it is released: python3 .github/chart.py REGISTRY FOLDER SOURCE

In the repository the chart wants a registry, because there is no image. In a release it has that of the release as its
default, its page leads to the pages of that release (below the URL SOURCE), and it says what Artifact Hub shows. Only the
standard library.
"""

import re
import shutil
import sys
from pathlib import Path

CHART = Path(__file__).resolve().parents[1] / "deploy/helm/audit-bridge"


def release(registry, folder, source):
    made = Path(folder) / "audit-bridge"
    shutil.copytree(CHART, made)
    values = made / "values.yaml"
    text = values.read_text()
    text, found = re.subn(r'^(  registry: )""$', rf'\1"{registry}"', text, flags=re.M)
    if found != 1:
        raise SystemExit("values.yaml: image.registry is not where it was")
    note = r"Registry\. Required: no image is published, see deploy/README\.md for how to build and push one\."
    text, found = re.subn(note, "Registry of the release.", text)
    if found != 1:
        raise SystemExit("values.yaml: what stands above image.registry is not what it was")
    values.write_text(text)
    table = made / "README.md"
    text = re.sub(rf'`""` \| {note}', f'`"{registry}"` | Registry of the release.', table.read_text())
    # Beside the package there are no other pages.
    table.write_text(text.replace("](../../", f"]({source}/deploy/"))
    about = made / "Chart.yaml"
    version = re.search(r"^version: (.+)$", about.read_text(), re.M)[1]
    images = "".join(
        f"    - name: {bridge}-audit-bridge\n      image: {registry}/audit-bridge/{bridge}-audit-bridge:{version}\n"
        for bridge in ["eks", "gke", "aks"]
    )
    prerelease = "true" if "-" in version else "false"
    about.write_text(
        about.read_text()
        + f"home: {source}/README.md\n"
        + "annotations:\n"
        + "  artifacthub.io/category: security\n"
        + "  artifacthub.io/license: Apache-2.0\n"
        + f'  artifacthub.io/prerelease: "{prerelease}"\n'
        + f"  artifacthub.io/images: |\n{images}"
    )


if __name__ == "__main__":
    release(*sys.argv[1:4])
