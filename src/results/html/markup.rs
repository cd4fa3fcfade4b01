//! HTML under construction: our own markup, and other people's text escaped.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// A page that grows.
#[derive(Debug, Default)]
pub(crate) struct Markup(String);

impl Markup {
    /// Markup of our own, as it is.
    pub(crate) fn raw(&mut self, markup: &str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// An element with text in it; `tag` is its name and attributes of our own: `th scope="row"`.
    pub(crate) fn element(&mut self, tag: &str, text: &str) -> &mut Self {
        self.raw(&format!("<{tag}>{}</{}>\n", escaped(text), name(tag)))
    }

    /// An element with markup in it.
    pub(crate) fn within(&mut self, tag: &str, fill: impl FnOnce(&mut Self)) -> &mut Self {
        self.raw(&format!("<{tag}>\n"));
        fill(self);
        self.raw(&format!("</{}>\n", name(tag)))
    }

    pub(crate) fn into_string(self) -> String {
        self.0
    }
}

/// Name of an element.
fn name(tag: &str) -> &str {
    tag.split(' ').next().unwrap_or_default()
}

/// Text as it may stand in an element and in a quoted attribute. Control characters go, those that turn the order of letters too.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(c),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {}
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

/// Bytes in base 64.
pub(crate) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_peoples_text_stays_text() {
        let mut page = Markup::default();
        page.element("td class=\"name\"", "<script>alert('x')</script> & \"\u{1b}\u{0}\u{202e}");
        assert_eq!(page.into_string(), "<td class=\"name\">&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &quot;</td>\n");
    }
}
