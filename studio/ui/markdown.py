"""What a model wrote, with the little Markdown that models write made visible: code, bold, headings, lists. Pure.

Everything is escaped first: what a model or a visitor wrote can neither draw over the page nor make the browser fetch
anything. Links and pictures stay text, and the words themselves stay as they are.
"""

import re
from html import escape

OPENS, CLOSES = "\ue000", "\ue001"
"""Stand for the marked token's tags until all else is HTML: characters that no text has a use for."""
_FENCE = re.compile(rf"^[{OPENS}{CLOSES}]?\s{{0,3}}```")
_CODE = re.compile(r"(`[^`\n]+`)")
_BOLD = re.compile(r"\*\*(?=\S)(.+?)(?<=\S)\*\*")
_ITALIC = re.compile(r"(?<![\w*])\*(?=[^\s*])([^*\n]+?)(?<=\S)\*(?![\w*])")
_HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$")
_BULLET = re.compile(r"^(\s*)[-*+]\s+(?=\S)")


def plain(words: str) -> str:
    """Return words without the two characters that stand for the mark."""
    return words.replace(OPENS, "").replace(CLOSES, "")


def markdown(words: str) -> str:
    """Return HTML of a text; a block of code that is not closed yet is one all the same."""
    html: list[str] = []
    code: list[str] | None = None
    for line in words.split("\n"):
        if _FENCE.match(line):
            mark = "".join(sign for sign in line if sign in OPENS + CLOSES)  # a mark within the fence is kept
            if code is None:
                code = [mark] if mark else []
            else:
                html.append(_block(code) + mark)
                code = None
        elif code is not None:
            code.append(line)
        else:
            html.append(_line(line))
    if code is not None:
        html.append(_block(code))
    return "\n".join(html).replace("</pre>\n", "</pre>").replace("\n<pre", "<pre")


def _block(lines: list[str]) -> str:
    return f'<pre tabindex="0"><code>{escape(chr(10).join(lines), quote=False)}</code></pre>'


def _line(line: str) -> str:
    heading = _HEADING.match(line)
    if heading:
        return f"<strong>{_inline(heading[1])}</strong>"
    return _inline(_BULLET.sub(r"\1• ", line))


def _inline(words: str) -> str:
    pieces = _CODE.split(words)
    return "".join(
        f"<code>{escape(piece[1:-1], quote=False)}</code>" if place % 2 else _emphasized(escape(piece, quote=False))
        for place, piece in enumerate(pieces)
    )


def _emphasized(html: str) -> str:
    return _ITALIC.sub(r"<em>\1</em>", _BOLD.sub(r"<strong>\1</strong>", html))
