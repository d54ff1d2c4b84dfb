"""Markdown to HTML that loads nothing: images become data URIs, the style stands in the page."""

import base64
import html
import re
from collections.abc import Mapping
from pathlib import Path

from markdown_it import MarkdownIt

from vqlib.errors import ReportError

STYLE = Path(__file__).with_name("report.css")
# The policy makes the browser itself refuse whatever is not in the page.
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<main>
{body}</main>
</body>
</html>
"""


def to_html(markdown: str, images: Mapping[str, bytes]) -> str:
    """The body of a page. ``images`` holds the PNG file of every image that the text may show, by its link.

    Raises:
        ReportError: the text shows an image that is not among them.
    """
    parser = MarkdownIt("js-default")  # CommonMark and tables; HTML in the text is shown, not obeyed
    parser.add_render_rule("table_close", lambda *_: "</table></div>\n")
    tokens = parser.parse(markdown)
    for place, token in enumerate(tokens):
        if token.type == "heading_open":
            token.attrSet("id", anchor(tokens[place + 1].content))
        elif token.type == "table_open":
            second = [one for one in tokens[place:] if one.type == "th_open"][1:2]
            words = any("left" in str(one.attrs.get("style")) for one in second)
            token.attrSet("class", "words" if words else "numbers")
    parser.add_render_rule("table_open", _table_open)
    for inline in (child for token in tokens for child in token.children or []):
        if inline.type == "image":
            link = str(inline.attrs["src"])
            if link not in images:
                raise ReportError(f"the text shows the image {link!r}; it may be one of {', '.join(images) or 'none'}")
            inline.attrs["src"] = f"data:image/png;base64,{base64.b64encode(images[link]).decode()}"
    return parser.renderer.render(tokens, parser.options, {})


def anchor(heading: str) -> str:
    """The name by which a heading can be linked to, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _table_open(_, tokens, place, options, env) -> str:
    return f'<div class="scroll"><table class="{tokens[place].attrs["class"]}">\n'


def page(title: str, markdown: str, images: Mapping[str, bytes]) -> str:
    """A whole, self-contained page."""
    return PAGE.format(title=html.escape(title), style=STYLE.read_text(), body=to_html(markdown, images))
