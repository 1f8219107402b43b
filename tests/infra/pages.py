"""The pages for people, and the commands in them."""

import functools
import re
import shlex

from kit import ROOT

FOLDERS = ["bridges", "deploy", "terraform", "cloudformation"]
# At the root: what a stranger reads first.
AT_THE_ROOT = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"]


@functools.cache
def pages():
    found = {path for folder in FOLDERS for path in (ROOT / folder).rglob("*.md") if ".terraform" not in str(path)}
    return sorted(found | {ROOT / name for name in AT_THE_ROOT})


def name(page):
    return str(page.relative_to(ROOT))


def blocks(page, language="sh"):
    """The fenced blocks of a page, also those in lists."""
    for indent, text in re.findall(rf"^( *)```{language}\n(.*?)^ *```", page.read_text(), re.M | re.S):
        yield "".join(line.removeprefix(indent) for line in text.splitlines(keepends=True))


@functools.cache
def commands(page):
    """Every command in the blocks of a page, as its words: also within pipes, lists and substitutions.

    A variable stays as it is written; what a substitution gives is the word X.
    """
    found = []
    for block in blocks(page):
        for line in block.replace("\\\n", " ").splitlines():
            found += _of(line)
    return found


def _of(line):
    found = []
    line = re.sub(r"<(\w+)>", r"\1", line)
    while inner := re.search(r"\$\(([^()]*)\)", line):
        found += _of(inner[1])
        line = line[: inner.start()] + "X" + line[inner.end() :]
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    words = []
    for word in [*lexer, ";"]:
        if set(word) <= set("|&;"):
            found += [words] if words else []
            words = []
        else:
            words.append(word)
    return [command for command in map(_command, found) if command]


def _command(words):
    """Without what stands before a program and where its output goes."""
    while words and (re.match(r"\w+=", words[0]) or words[0] in ["export", "sudo"]):
        words = words[1:]
    kept, skip = [], False
    for word in words:
        if skip or set(word) <= set("<>"):
            skip = set(word) <= set("<>")
            continue
        kept.append(word)
    return kept


def of(program):
    """The commands of a program in all pages: (page, its words behind the program)."""
    for page in pages():
        for words in commands(page):
            if words[0] == program:
                yield page, words[1:]


def options(words):
    """The options among words, without their values."""
    return [word.split("=")[0] for word in words if re.match(r"--?[a-zA-Z]", word)]


def path(words):
    """The words before the first option: which command it is (and its operands)."""
    found = []
    for word in words:
        if word.startswith("-"):
            break
        found.append(word)
    return found
