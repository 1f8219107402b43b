"""deny.toml, held against what Cargo resolves: licences, bans, sources; and one compiler for all.

cargo-deny does more (advisories). It takes minutes to build, so the workflow runs it, and this runs everywhere.
"""

import json
import re
import tomllib
import unittest

from kit import ROOT, need, run


def deny():
    return tomllib.loads((ROOT / "deny.toml").read_text())


def metadata():
    host = re.search(r"^host: (.+)$", run(need("rustc"), "-vV").stdout, re.M)[1]
    command = [need("cargo"), "metadata", "--format-version", "1", "--locked", "--filter-platform", host]
    # Where the tests are run all of it is there; else it is fetched.
    ran = run(*command, "--offline", check=False)
    return json.loads((ran if ran.returncode == 0 else run(*command)).stdout)


def allowed(expression, licences):
    """Whether an SPDX expression can be met with these licences."""
    words = re.findall(r"\(|\)|[\w.+-]+(?: WITH [\w.+-]+)?", re.sub(r"\s*/\s*", " OR ", expression))

    def any_of():
        found = all_of()
        while words and words[0] == "OR":
            words.pop(0)
            found = all_of() or found
        return found

    def all_of():
        found = one()
        while words and words[0] == "AND":
            words.pop(0)
            found = one() and found
        return found

    def one():
        word = words.pop(0)
        if word != "(":
            return word in licences
        found = any_of()
        words.pop(0)
        return found

    return any_of()


class Dependencies(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.found = metadata()
        cls.packages = {package["id"]: package for package in cls.found["packages"]}

    def test_expressions(self):
        for text, good in [
            ("MIT", True),
            ("GPL-3.0", False),
            ("GPL-3.0 OR MIT", True),
            ("GPL-3.0/MIT", True),
            ("MIT AND (GPL-3.0 OR ISC)", True),
            ("(MIT OR ISC) AND GPL-3.0", False),
            ("Apache-2.0 WITH LLVM-exception", True),
        ]:
            self.assertEqual(allowed(text, {"MIT", "ISC", "Apache-2.0 WITH LLVM-exception"}), good, text)

    def test_licences(self):
        licences = set(deny()["licenses"]["allow"])
        for package in self.packages.values():
            with self.subTest(package=package["name"]):
                self.assertTrue(allowed(package["license"] or "none", licences), package["license"])
        for licence in licences:
            used = [package for package in self.packages.values() if licence in (package["license"] or "")]
            self.assertTrue(used, f"nothing is under {licence}: take it out")

    def test_bans(self):
        users = {}
        for node in self.found["resolve"]["nodes"]:
            for used in node["deps"]:
                users.setdefault(self.packages[used["pkg"]]["name"], set()).add(self.packages[node["id"]]["name"])
        for ban in deny()["bans"]["deny"]:
            self.assertEqual(users.get(ban["crate"], set()) - set(ban.get("wrappers", [])), set(), ban["crate"])

    def test_sources(self):
        for package in self.packages.values():
            source = package["source"] or "registry+of this workspace"
            self.assertTrue(source.startswith("registry+"), f"{package['name']}: {source}")

    def test_one_compiler(self):
        compiler = tomllib.loads((ROOT / "rust-toolchain.toml").read_text())["toolchain"]["channel"]
        workspace = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]
        self.assertEqual(compiler, f"{workspace['rust-version']}.0")


if __name__ == "__main__":
    unittest.main()
