"""The options of `az`, `gcloud` and `kubeadm`, as those programs tell them of the commands that stand in the pages.

    AZ=/path/to/az GCLOUD=gcloud KUBEADM=kubeadm python3 tests/infra/cloud_cli_options.py   # records them in cloud_cli_options.json

What is not named keeps its record.

The record is what the pages are held against where the programs are not at hand, which is nearly everywhere. A
command that is new in a page has to be recorded.
"""

import json
import os
import re
import shutil
from pathlib import Path

import pages
from kit import run

RECORD = Path(__file__).parent / "cloud_cli_options.json"
PROGRAMS = {"az": "AZ", "gcloud": "GCLOUD", "kubeadm": "KUBEADM"}


def known():
    return json.loads(RECORD.read_text())


def command(program, words, record):
    """The longest beginning of the words that is a command of the record; None when there is none."""
    for count in range(len(pages.path(words)), 0, -1):
        found = " ".join(words[:count])
        if found in record[program]:
            return found
    return None


def help_of(program, words):
    """The options that a command has, or None when it is none."""
    ran = run(os.environ[PROGRAMS[program]], *words, "--help", check=False, env={"AZURE_CORE_COLLECT_TELEMETRY": "0"})
    if ran.returncode != 0:
        return None
    text = re.sub(r"\x1b\[[0-9;]*m", "", ran.stdout)
    # A group of commands is none itself.
    if re.search(r"^(Group|GROUPS|COMMANDS)$", text, re.M):
        return None
    if program == "kubeadm":
        # It shows the help of the command before a word that it does not know.
        if not re.search(rf"^  kubeadm {' '.join(words)} \[flags\]$", text, re.M):
            return None
        text = "\n".join(re.findall(r"^ +((?:-\w, )?--[a-z-]+)", text, re.M))
    elif program == "az":
        text = "\n".join(re.findall(r"^    (-.*?)(?:\[Required\]|:|$)", text, re.M))
    else:
        text = "".join(re.findall(r"^(?:SYNOPSIS|GCLOUD WIDE FLAGS)\n.*?(?=^[A-Z]|\Z)", text, re.M | re.S))
    return sorted(set(re.findall(r"(?<![\w-])(--?[a-z][a-z-]*)", text)))


def record():
    found = known()
    for program, variable in PROGRAMS.items():
        if variable not in os.environ:
            continue
        if not shutil.which(os.environ[variable]):
            raise SystemExit(f"{variable} does not name the program {program}")
        found[program] = {}
        for _, words in pages.of(program):
            # The shortest that is a command: what follows are its operands. Only kubeadm has commands below commands.
            counts = range(1, len(pages.path(words)) + 1)
            for count in reversed(counts) if program == "kubeadm" else counts:
                name = " ".join(words[:count])
                options = found[program].get(name) or help_of(program, words[:count])
                if options:
                    found[program][name] = options
                    break
            else:
                raise SystemExit(f"{program} {' '.join(words)}: no such command")
    RECORD.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    record()
