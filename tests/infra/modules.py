"""The tables of inputs and outputs in the pages of the Terraform modules.

    python3 tests/infra/modules.py    # writes them
"""

import re

from kit import BRIDGES, ROOT

BEGIN, END = "<!-- inputs and outputs: made by tests/infra/modules.py -->\n", "<!-- end of inputs and outputs -->"
TABLES = f"{re.escape(BEGIN)}(.*?){re.escape(END)}"


def blocks(path, kind):
    """[(name, text)] of the variables or outputs of a file."""
    return re.findall(rf'^{kind} "(\w+)" {{\n(.*?)^}}', path.read_text(), re.M | re.S)


def attribute(text, name):
    found = re.search(rf"^  {name} += (.+)$", text, re.M)
    return found[1] if found else None


def description(text):
    return attribute(text, "description")[1:-1].replace('\\"', '"').replace("|", "\\|")


def tables(folder):
    lines = ["| input | type | default | |", "|---|---|---|---|"]
    for name, text in blocks(folder / "variables.tf", "variable"):
        default = attribute(text, "default")
        shown = "**required**" if default is None else f"`{default}`"
        lines.append(f"| `{name}` | `{attribute(text, 'type')}` | {shown} | {description(text)} |")
    lines += ["", "| output | |", "|---|---|"]
    for name, text in blocks(folder / "outputs.tf", "output"):
        lines.append(f"| `{name}` | {description(text)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    for bridge in BRIDGES:
        page = ROOT / f"terraform/{bridge}/README.md"
        made = BEGIN + tables(page.parent) + END
        page.write_text(re.sub(f"{TABLES}", lambda _, made=made: made, page.read_text(), flags=re.S))
