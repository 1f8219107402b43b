"""The tables of options in the pages of the bridges, made of what the built bridges say of themselves.

    BRIDGES_FOLDER=target/debug python3 tests/infra/options.py    # writes them
"""

import os
import re
from pathlib import Path

from kit import BRIDGES, ROOT, run

BEGIN = "<!-- options: made by tests/infra/options.py -->\n"
END = "<!-- end of options -->"
COMMANDS = ("run", "replay")


def options(folder, bridge, command):
    """{option with its value's name: what it is}, in the order of --help."""
    said = run(Path(folder).resolve() / f"{bridge}-audit-bridge", command, "--help", env={"COLUMNS": "200"}).stdout
    found = {}
    section = said.partition("\nOptions:\n")[2].partition("\n\nShapes")[0]
    for line in section.splitlines():
        if begun := re.match(r" +(?:-\w, )?(--[a-z-]+)(?: \[?<([^>]+)>\]?)?(?:\.\.\.)?(.*)", line):
            option, value, text = begun.groups()
            words = [text.strip()]
            found[f"{option} {value}" if value else option] = words
        elif found and line.startswith(" ") and line.strip():
            words.append(line.strip())
    found.pop("--help", None)
    return {option: " ".join(word for word in words if word) for option, words in found.items()}


def rows(folder):
    """(option, its commands, default, what it is) of all bridges together, and of each alone."""
    of = {}
    for bridge in BRIDGES:
        for command in COMMANDS:
            for option, text in options(folder, bridge, command).items():
                text = re.sub(r" ?\[env: [A-Z_]+=?\]", "", text)
                of.setdefault((option, text), {}).setdefault(bridge, []).append(command)
    shared, own = [], {bridge: [] for bridge in BRIDGES}
    for (option, text), bridges in of.items():
        default = re.search(r" ?\[default(?: for run and check)?: (.*?)\]", text)
        text = text.replace(default[0], "") if default else text
        cells = [option.replace("|", "\\|"), default[1] if default else "", text.replace("|", "\\|")]
        everywhere = len(bridges) == len(BRIDGES) and len({tuple(commands) for commands in bridges.values()}) == 1
        for bridge, commands in bridges.items():
            row = (cells[0], ", ".join(commands), *cells[1:])
            if not everywhere:
                own[bridge].append(row)
        if everywhere:
            shared.append(row)
    return {"bridges/README.md": shared, **{f"bridges/{bridge}/README.md": own[bridge] for bridge in BRIDGES}}


def _code(default):
    return default if " " in default or not default else f"`{default}`"


def table(found):
    lines = ["| option | of | default | |", "|---|---|---|---|"]
    for option, commands, default, text in sorted(found):
        lines.append(f"| `{option}` | {commands} | {_code(default)} | {text} |")
    return "\n".join(lines) + "\n"


def pages(folder):
    """{page: its text as it should be}."""
    made = {}
    for name, found in rows(folder).items():
        before, _, rest = (ROOT / name).read_text().partition(BEGIN)
        made[name] = f"{before}{BEGIN}{table(found)}{END}{rest.partition(END)[2]}"
    return made


if __name__ == "__main__":
    for name, text in pages(os.environ["BRIDGES_FOLDER"]).items():
        (ROOT / name).write_text(text)
