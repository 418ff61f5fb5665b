"""Texts from strangers as text: what cannot be seen, or would steer a terminal, is spelled out."""

import re

WHITE_SPACE_SIGNS = {" ": "␣", "\n": "⏎", "\r": "␍", "\t": "⇥"}
# What moves the cursor, starts an escape sequence, turns the direction of writing, or is half a character.
UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


def spelled(text: str) -> str:
    """`text` with the white space that a tokenizer cares about made visible, on one line.

    >>> spelled(" Dallas\\n")
    '␣Dallas⏎'
    """
    text = re.sub(r"^ +| +\Z|[\n\r\t]+", lambda match: "".join(WHITE_SPACE_SIGNS[c] for c in match[0]), text)
    return UNSEEN.sub("�", text)


def printable(text: str) -> str:
    """`text` for a terminal: what would move its cursor, change its colours or open a link is spelled out.

    >>> printable("a\\x1b[31mb")
    'a\\\\x1b[31mb'
    """
    return UNSEEN.sub(lambda match: match[0] if match[0] in "\n\t" else ascii(match[0])[1:-1], text)


def literal(page: str) -> str:
    """HTML in which no formula is looked for: a notebook's MathJax would set `$5 and $6`, and make `\\href` a link.

    >>> literal("<p>$5 and $6</p>")
    '<div class="mathjax_ignore tex2jax_ignore"><p>$5 and $6</p></div>'
    """
    return f'<div class="mathjax_ignore tex2jax_ignore">{page}</div>'
