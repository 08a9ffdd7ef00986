//! Sections of a page between markers.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

const OPEN: &str = "<!-- report:";
const CLOSE: &str = " -->";

/// The page with each marked section replaced. A page may have any of the sections, each as often as it likes.
pub fn fill(page: &str, sections: &BTreeMap<&str, String>) -> Result<String> {
    let mut filled = String::new();
    let mut rest = page;
    while let Some(start) = rest.find(OPEN) {
        let after = &rest[start + OPEN.len()..];
        let (name, body) = after
            .split_once(CLOSE)
            .with_context(|| format!("a marker without `{CLOSE}`"))?;
        let end = format!("<!-- /report:{name}{CLOSE}");
        let Some(section) = sections.get(name) else {
            let known: Vec<&str> = sections.keys().copied().collect();
            bail!(
                "there is no section `{name}`; the sections are {}",
                known.join(", ")
            );
        };
        let close = body
            .find(&end)
            .with_context(|| format!("the marker `{name}` is not closed by `{end}`"))?;
        filled += &rest[..start];
        filled += &format!("{OPEN}{name}{CLOSE}\n{}\n{end}", section.trim_end());
        rest = &body[close + end.len()..];
    }
    Ok(filled + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_are_replaced_and_the_rest_is_left() {
        let sections = BTreeMap::from([("a", "one\ntwo\n".to_owned()), ("b", "three".to_owned())]);
        let page = "x\n<!-- report:b -->\nold\n<!-- /report:b -->\ny <!-- report:a --><!-- /report:a -->\n";
        let filled = fill(page, &sections).expect("well-formed");
        let expected = "x\n<!-- report:b -->\nthree\n<!-- /report:b -->\ny <!-- report:a -->\none\ntwo\n<!-- /report:a -->\n";
        assert_eq!(filled, expected);
        assert_eq!(fill(&filled, &sections).expect("well-formed"), filled);
    }

    #[test]
    fn a_marker_that_is_open_or_unknown_is_an_error() {
        let sections = BTreeMap::from([("a", String::new())]);
        for page in [
            "<!-- report:c --><!-- /report:c -->",
            "<!-- report:a -->",
            "<!-- report:a",
        ] {
            fill(page, &sections).expect_err(page);
        }
    }
}
