//! The modules of a crate and their dependencies, from the sources: `use`, and paths that start
//! with `crate`, `super` or `self`. Tests are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::rust_files;

/// Names from the crate's root: `["event", "json"]`.
pub(crate) type Module = Vec<String>;

/// The modules of a crate.
#[derive(Debug, Default)]
pub(crate) struct Modules {
    /// The code of each module.
    code: BTreeMap<Module, String>,
    /// The names that each module imports, and their paths.
    imports: BTreeMap<Module, BTreeMap<String, Vec<String>>>,
}

impl Modules {
    /// Reads the `src` folder of a crate.
    pub(crate) fn read(src: &Path) -> Modules {
        let mut modules = Modules::default();
        for file in rust_files(src) {
            let place = file.strip_prefix(src).unwrap().with_extension("");
            let mut module: Module = place
                .iter()
                .map(|part| part.to_str().unwrap().to_owned())
                .collect();
            if module.iter().any(|part| part == "tests") || module == ["main"] {
                continue;
            }
            module.retain(|part| part != "lib");
            let code = without_tests(&std::fs::read_to_string(&file).unwrap());
            modules.add(module, code);
        }
        modules
    }

    /// Adds one module.
    pub(crate) fn add(&mut self, module: Module, code: String) {
        self.code.insert(module, code);
    }

    /// Cycles between sibling modules, as text: the modules and the paths that they use.
    pub(crate) fn circles(&mut self) -> Vec<String> {
        let paths: Vec<(Module, Vec<String>)> = self
            .code
            .iter()
            .flat_map(|(module, code)| {
                paths_of(code)
                    .into_iter()
                    .filter_map(|path| Some((module.clone(), absolute(module, &path)?)))
            })
            .collect();
        for (module, path) in &paths {
            if let [.., name] = path.as_slice() {
                let imports = self.imports.entry(module.clone()).or_default();
                imports.insert(name.clone(), path.clone());
            }
        }
        // For each parent, which child uses which sibling, and by which path.
        let mut graphs: BTreeMap<Module, Graph> = BTreeMap::new();
        for (module, path) in &paths {
            let used = self.resolve(path, 0);
            let common = module.iter().zip(&used).take_while(|(a, b)| a == b).count();
            // A module and its submodules count as one.
            let (Some(from), Some(to)) = (module.get(common), used.get(common)) else {
                continue;
            };
            let edges = graphs.entry(module[..common].to_vec()).or_default();
            let how = format!("{} uses {}", module.join("::"), path.join("::"));
            edges
                .entry(from.clone())
                .or_default()
                .entry(to.clone())
                .or_insert(how);
        }
        graphs.values().flat_map(circles_of).collect()
    }

    /// The module that defines the item at a path, following re-exports.
    fn resolve(&self, path: &[String], depth: usize) -> Module {
        let known = (0..=path.len())
            .rev()
            .find(|&length| self.code.contains_key(&path[..length]))
            .unwrap_or(0);
        let module = &path[..known];
        let Some(name) = path.get(known) else {
            return module.to_vec();
        };
        let handed_on = self.imports.get(module).and_then(|names| names.get(name));
        match handed_on {
            Some(from) if depth < 8 && from != path => self.resolve(from, depth + 1),
            _ => module.to_vec(),
        }
    }
}

/// Who uses whom, and by which path.
type Graph = BTreeMap<String, BTreeMap<String, String>>;

/// The cycles of a graph: every set of modules that all reach each other.
fn circles_of(graph: &Graph) -> Vec<String> {
    let reached = |from: &String| {
        let mut seen = BTreeSet::new();
        let mut open = vec![from.clone()];
        while let Some(at) = open.pop() {
            for to in graph.get(&at).into_iter().flat_map(BTreeMap::keys) {
                if seen.insert(to.clone()) {
                    open.push(to.clone());
                }
            }
        }
        seen
    };
    let reach: BTreeMap<&String, BTreeSet<String>> =
        graph.keys().map(|from| (from, reached(from))).collect();
    let mut circles = BTreeSet::new();
    for (from, seen) in &reach {
        if seen.contains(*from) {
            let members = seen.iter().filter(|to| {
                reach
                    .get(to)
                    .is_some_and(|their| their.contains(from.as_str()))
            });
            circles.insert(members.cloned().collect::<BTreeSet<_>>());
        }
    }
    let told = |members: BTreeSet<String>| {
        let edges = members
            .iter()
            .flat_map(|from| graph[from].iter())
            .filter(|(to, _)| members.contains(*to));
        edges.map(|(_, how)| how.clone()).collect::<Vec<_>>()
    };
    circles
        .into_iter()
        .map(|members| told(members).join("; "))
        .collect()
}

/// The code without comments and test-only items.
fn without_tests(text: &str) -> String {
    let mut code = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let bare = line.trim_start();
        if bare.starts_with("//") {
            continue;
        }
        if !bare.starts_with("#[cfg(test)]") {
            code.push_str(line);
            code.push('\n');
            continue;
        }
        // Skip the following item, to the end of its statement or its closing brace at this indent.
        let indent = line.len() - bare.len();
        for line in lines.by_ref() {
            let bare = line.trim_start();
            let outer = line.len() - bare.len() == indent;
            if outer && (bare.starts_with('}') || line.ends_with(';')) {
                break;
            }
        }
    }
    code
}

/// Every path that starts with `crate`, `super` or `self`, in `use` and elsewhere.
fn paths_of(code: &str) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    let mut rest = code;
    while let Some(at) = ["crate::", "super::", "self::"]
        .iter()
        .filter_map(|root| rest.find(root))
        .min()
    {
        let begins = !rest[..at].ends_with(|c: char| c.is_alphanumeric() || "_:$".contains(c));
        let (found, length) = tree(&rest[at..]);
        if begins {
            paths.extend(found);
        }
        rest = &rest[at + length..];
    }
    paths
}

/// The paths in a tree such as `crate::a::{b, c::d}`, and the length of its text.
fn tree(text: &str) -> (Vec<Vec<String>>, usize) {
    let word = |text: &str| {
        text.find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(text.len())
    };
    let mut path: Vec<String> = Vec::new();
    let mut at = 0;
    loop {
        let length = word(&text[at..]);
        if length > 0 {
            path.push(text[at..at + length].to_owned());
            at += length;
        }
        if !text[at..].starts_with("::") {
            return (vec![path], at.max(1));
        }
        at += 2;
        if !text[at..].starts_with('{') {
            if word(&text[at..]) == 0 {
                return (vec![path], at);
            }
            continue;
        }
        at += 1;
        let mut all = Vec::new();
        loop {
            at += text[at..]
                .find(|c: char| !c.is_whitespace() && c != ',')
                .unwrap_or(text.len() - at);
            if text[at..].starts_with('}') || at >= text.len() {
                return (all, at + 1);
            }
            let (found, length) = tree(&text[at..]);
            all.extend(found.into_iter().map(|mut found| {
                if found.first().is_some_and(|first| first == "self") {
                    found.remove(0);
                }
                [path.clone(), found].concat()
            }));
            at += length;
            // Skip a rename.
            if let Some(name) = text[at..].strip_prefix(" as ") {
                at += 4 + word(name);
            }
        }
    }
}

/// The path from the crate's root.
fn absolute(module: &[String], path: &[String]) -> Option<Vec<String>> {
    let (first, rest) = path.split_first()?;
    let mut base = match first.as_str() {
        "crate" => Vec::new(),
        "self" => module.to_vec(),
        "super" => module.split_last()?.1.to_vec(),
        _ => return None,
    };
    let mut rest = rest;
    while let Some((_, further)) = rest.split_first().filter(|(name, _)| *name == "super") {
        base.pop()?;
        rest = further;
    }
    Some([base, rest.to_vec()].concat())
}

#[test]
fn circles_of_modules_are_named_and_nothing_else() {
    let mut modules = Modules::default();
    for (module, code) in [
        ("a", "use crate::b::Thing;"),
        ("b", "pub use self::inner::{Other, Thing};"),
        ("b::inner", "use crate::{\n    c::{self, Low as High},\n};"),
        ("c", "fn f() { crate::a::g() }"),
        // Using a parent's own items, or one module from two others, makes no cycle.
        ("d", "use self::one::First;"),
        ("d::one", "use super::Own;\nuse super::two::Second;"),
        ("d::two", "use super::Own;"),
    ] {
        let module = module.split("::").map(str::to_owned).collect();
        modules.add(module, code.to_owned());
    }
    assert_eq!(
        modules.circles(),
        ["a uses b::Thing; b::inner uses c; c uses a::g"]
    );
    // A re-export by the parent is still the sibling's item.
    let mut modules = Modules::default();
    for (module, code) in [
        ("p", "pub use self::y::Y;"),
        ("p::x", "use super::Y;"),
        ("p::y", "use super::x::X;"),
    ] {
        let module = module.split("::").map(str::to_owned).collect();
        modules.add(module, code.to_owned());
    }
    assert_eq!(modules.circles().len(), 1);
    let text = "use crate::a;\n#[cfg(test)]\nmod tests {\n    use crate::b;\n}\nuse crate::c;\n";
    let code = without_tests(text);
    assert_eq!(
        paths_of(&code),
        [["crate", "a"], ["crate", "c"]].map(|it| it.map(str::to_owned).to_vec())
    );
}
