//! Finds the paths in Rust code, without knowing what they name.

/// Returns every path in the code with its line: trees taken apart, ours beginning with `crate`.
pub(crate) fn paths(file: &str, text: &str) -> Vec<(usize, String)> {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let tokens = tokens(code);
    let mut walk = Walk { tokens: &tokens, at: 0, module: module_path(file), found: Vec::new() };
    while let Some((_, token)) = tokens.get(walk.at) {
        if is_name(token) { walk.tree(&[]) } else { walk.at += 1 }
    }
    walk.found
}

/// The names from the crate's root to the module in a file, as `[link, kernel]`.
fn module_path(file: &str) -> Vec<String> {
    let file = file.trim_end_matches(".rs").trim_end_matches("/mod");
    file.split('/').map(str::to_owned).collect()
}

struct Walk<'a> {
    tokens: &'a [(usize, String)],
    at: usize,
    module: Vec<String>,
    found: Vec<(usize, String)>,
}

impl Walk<'_> {
    /// Walks `name`, `name::name…` or `name::{tree, …}` from the current token on.
    fn tree(&mut self, before: &[String]) {
        let mut path = before.to_vec();
        let mut line = 0;
        while let Some((here, token)) = self.tokens.get(self.at) {
            if token == "{" && !path.is_empty() && self.tokens[self.at - 1].1 == "::" {
                return self.branches(&path);
            }
            if !is_name(token) {
                break;
            }
            line = *here;
            path.push(token.clone());
            self.at += 1;
            match self.tokens.get(self.at).map(|(_, token)| token.as_str()) {
                Some("::") => self.at += 1,
                Some("!") => {
                    if let Some(name) = path.last_mut() {
                        name.push('!');
                    }
                    break;
                }
                Some(_) | None => break,
            }
        }
        self.found.push((line, self.resolve(path)));
    }

    fn branches(&mut self, path: &[String]) {
        self.at += 1;
        while let Some((_, token)) = self.tokens.get(self.at) {
            match token.as_str() {
                "}" => break,
                name if is_name(name) => self.tree(path),
                _ => self.at += 1,
            }
        }
        self.at += 1;
    }

    fn resolve(&self, path: Vec<String>) -> String {
        let mut resolved: Vec<String> = Vec::new();
        for name in path {
            match name.as_str() {
                "enroll_agent" if resolved.is_empty() => resolved.push("crate".to_owned()),
                "self" if !resolved.is_empty() => {}
                "super" => {
                    if resolved.is_empty() {
                        resolved.push("crate".to_owned());
                        resolved.extend(self.module.iter().cloned());
                    }
                    resolved.pop();
                }
                _ => resolved.push(name),
            }
        }
        resolved.join("::")
    }
}

fn is_name(token: &str) -> bool {
    token.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

/// Returns names, `::` and single signs with their lines, without comments and literals.
fn tokens(code: &str) -> Vec<(usize, String)> {
    let mut tokens = Vec::new();
    let mut rest = code;
    while let Some(first) = rest.chars().next() {
        let line = 1 + code[..code.len() - rest.len()].matches('\n').count();
        let length = match skipped(rest) {
            Some(length) => length,
            None if first.is_alphanumeric() || first == '_' => {
                rest.find(|sign: char| !sign.is_alphanumeric() && sign != '_').unwrap_or(rest.len())
            }
            None if rest.starts_with("::") => 2,
            None => first.len_utf8(),
        };
        if skipped(rest).is_none() {
            tokens.push((line, rest[..length].to_owned()));
        }
        rest = &rest[length..];
    }
    tokens
}

/// Returns the length of the space, comment or literal that `rest` begins with.
fn skipped(rest: &str) -> Option<usize> {
    let first = rest.chars().next()?;
    if first.is_whitespace() {
        return Some(first.len_utf8());
    }
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return Some(block_comment(rest));
    }
    let raw = rest.trim_start_matches('b').strip_prefix('r').map(|rest| rest.trim_start_matches('#'));
    if let Some(text) = raw.and_then(|raw| raw.strip_prefix('"')) {
        let start = rest.len() - text.len();
        let end = format!("\"{}", "#".repeat(rest[..start].matches('#').count()));
        return Some(text.find(&end).map_or(rest.len(), |found| start + found + end.len()));
    }
    if first == '"' {
        return Some(quoted(rest, '"'));
    }
    // `'a'` and `'\n'` are characters, `'a` is a lifetime, whose name is harmless.
    let is_character = rest.starts_with("'\\") || rest.char_indices().nth(2).is_some_and(|(_, third)| third == '\'');
    (first == '\'' && is_character).then(|| quoted(rest, '\''))
}

fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, sign) in rest.char_indices().skip(1) {
        if sign == quote && !escaped {
            return at + quote.len_utf8();
        }
        escaped = sign == '\\' && !escaped;
    }
    rest.len()
}

fn block_comment(rest: &str) -> usize {
    let mut depth = 0;
    for (at, _) in rest.char_indices() {
        if rest[at..].starts_with("/*") {
            depth += 1;
        }
        if rest[..at].ends_with("*/") && at > 2 {
            depth -= 1;
            if depth == 0 {
                return at;
            }
        }
    }
    rest.len()
}
