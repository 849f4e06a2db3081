//! Over-long comment lines, which rustfmt leaves alone: the words that do not fit move to the next line.
//!
//! Only plain paragraphs of `//`, `///` and `//!` are touched; tables, lists, code and pictures stay as they are drawn.

/// Columns of a line, the same number as in `rustfmt.toml`.
const WIDTH_MAX: usize = 120;

/// The text with every over-long comment line broken; the rest is returned as it was.
#[must_use]
pub fn reflow(text: &str) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let mut fenced = false;
    let mut at = 0;
    while at < lines.len() {
        let Some((prefix, body)) = comment(&lines[at]) else {
            (fenced, at) = (false, at + 1);
            continue;
        };
        fenced ^= body.starts_with("```");
        if !fenced && lines[at].chars().count() > WIDTH_MAX && is_prose(body) {
            let (prefix, kept, moved) = split(prefix, body);
            if !moved.is_empty() {
                lines[at] = format!("{prefix}{kept}");
                push_down(&mut lines, at + 1, &prefix, &moved);
            }
        }
        at += 1;
    }
    lines.join("\n") + if text.ends_with('\n') { "\n" } else { "" }
}

/// Puts `words` in front of the next line of the same paragraph, or on a line of their own.
fn push_down(lines: &mut Vec<String>, at: usize, prefix: &str, words: &str) {
    let follows = lines.get(at).and_then(|line| comment(line)).filter(|(next, body)| *next == prefix && is_prose(body));
    match follows.map(|(_, body)| format!("{prefix}{words} {body}")) {
        Some(joined) => lines[at] = joined,
        None => lines.insert(at, format!("{prefix}{words}")),
    }
}

/// The part of `body` that fits behind `prefix`, and the rest.
fn split(prefix: &str, body: &str) -> (String, String, String) {
    let room = WIDTH_MAX - prefix.chars().count();
    let cut = body.char_indices().take(room + 1).filter(|(_, c)| *c == ' ').last().map_or(body.len(), |(at, _)| at);
    (prefix.to_owned(), body[..cut].trim_end().to_owned(), body[cut..].trim_start().to_owned())
}

/// A line that is a comment and nothing else: indentation with the marker and one blank, and the words.
fn comment(line: &str) -> Option<(&str, &str)> {
    let indent = line.len() - line.trim_start().len();
    let rest = &line[indent..];
    let marker = ["//! ", "/// ", "// "].into_iter().find(|marker| rest.starts_with(marker))?;
    Some(line.split_at(indent + marker.len()))
}

/// Words of a paragraph, not a list, a table, a heading, code or a picture.
fn is_prose(body: &str) -> bool {
    let item = body.split_once(['.', ')']).is_some_and(|(number, _)| number.parse::<u32>().is_ok());
    !item && !body.starts_with([' ', '-', '*', '|', '#', '>', '+', '=']) && !body.starts_with("```")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_do_not_fit_move_to_the_next_line_of_the_paragraph() {
        let long = "word ".repeat(24);
        let text = format!("    /// {long}last\n    /// and on.\nfn a() {{}}\n");
        let lines: Vec<String> = reflow(&text).lines().map(str::to_owned).collect();
        assert_eq!(lines.len(), 3);
        assert!(lines.iter().all(|line| line.chars().count() <= WIDTH_MAX));
        assert!(lines[1].ends_with("last and on.") && lines[2] == "fn a() {}");
        let words = |text: &str| text.replace("///", "").split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(words(&text), words(&reflow(&text)), "no word is lost");
    }

    #[test]
    fn tables_lists_and_code_stay_as_they_are() {
        let wide = "x ".repeat(70);
        for text in [
            format!("// | {wide}|\n"),
            format!("// - {wide}\n"),
            format!("let a = {wide};\n"),
            format!("/// ```\n/// {wide}\n/// ```\n"),
        ] {
            assert_eq!(reflow(&text), text);
        }
    }
}
