"""Equations as MathML, made while the site is built: browsers draw it without any script."""

import html
import re
import xml.etree.ElementTree as xml

from latex2mathml import converter

_ARITHMATEX = re.compile(
    r'<(span|div) class="arithmatex">\s*(?:\\\(|\\\[)(.*?)(?:\\\)|\\\])\s*</\1>', re.S
)
# What the converter does not know, in words that it does.
_SPELLED = (
    (re.compile(r"\\(begin|end)\{aligned\}"), r"\\\1{align*}"),
    (re.compile(r"\\operatorname\*"), r"\\operatorname"),
    (re.compile(r"\\arg\b"), r"\\operatorname{arg}"),
    (re.compile(r"\\(log|cos|exp) +(?=[a-zA-Z])"), r"\\\1\\, "),
)
# A word of three letters or more is a name, not a product of its letters.
_WORDS = re.compile(
    r"(?P<keep>\\(?:text|begin|end|operatorname|math[a-z]+)\*?\{[^}]*\}|\\[a-zA-Z]+)|[a-zA-Z]{3,}"
)
_SCRIPT = dict(zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "𝒜ℬ𝒞𝒟ℰℱ𝒢ℋℐ𝒥𝒦ℒℳ𝒩𝒪𝒫𝒬ℛ𝒮𝒯𝒰𝒱𝒲𝒳𝒴𝒵"))
_DOUBLE = {**dict(zip("NRPQZC", "ℕℝℙℚℤℂ")), "E": "𝔼", "1": "𝟙"}
_MATHML = "{http://www.w3.org/1998/Math/MathML}"


def to_mathml(latex: str, *, display: bool) -> str:
    """An equation as MathML.

    Raises:
      ValueError: a command of the equation is not known to the converter.
    """
    spelled = latex.strip()
    for pattern, replacement in _SPELLED:
        spelled = pattern.sub(replacement, spelled)
    spelled = _WORDS.sub(lambda m: m["keep"] or rf"\text{{{m[0]}}}", spelled)
    made = converter.convert(spelled, display="block" if display else "inline")
    xml.register_namespace("", _MATHML.strip("{}"))
    tree = xml.fromstring(made.replace("<mi>&</mi>", "<mi>&amp;</mi>"))
    for node in tree.iter():
        text = node.text or ""
        if re.search(r"\\[a-zA-Z]|&", text):
            raise ValueError(f"the equation {latex!r} has {text!r}, which is not understood")
        letters = {"script": _SCRIPT, "double-struck": _DOUBLE}.get(node.get("mathvariant", ""))
        if letters:  # browsers ignore these two values of the attribute
            node.text = "".join(letters.get(letter, letter) for letter in text)
            del node.attrib["mathvariant"]
    return xml.tostring(tree, encoding="unicode")


def render(page: str) -> str:
    r"""A page's HTML with every `\(…\)` and `\[…\]` that arithmatex has marked as MathML."""

    def convert(match: re.Match) -> str:
        tag, latex = match.groups()
        body = to_mathml(html.unescape(latex), display=tag == "div")
        return f'<{tag} class="arithmatex">{body}</{tag}>'

    return _ARITHMATEX.sub(convert, page)
