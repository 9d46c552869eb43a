"""Markdown of a notebook as HTML whose formulas are MathML, which a browser shows without a script."""

import re
from html import unescape
from xml.etree.ElementTree import tostring

from jinja2 import pass_context
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

BEFORE_A_MARK = re.compile(r'<math [^>]*"inline"(?:(?!</math>).)*</math>[.,;:?!)]+')  # else a line may begin with it
LAYOUT = {  # attributes that place symbols; a formula that sets others, such as links and styles, does not get them
    *("xmlns", "display", "displaystyle", "scriptlevel", "mathvariant", "stretchy", "fence", "form", "separator"),
    *("movablelimits", "accent", "linethickness", "lspace", "rspace", "width", "height", "depth", "voffset"),
    *("minsize", "maxsize", "columnalign", "rowspacing", "columnspacing", "symmetric"),
}


class FormulaExporter(HTMLExporter):
    """nbconvert's exporter; a formula that is not understood stays as TeX."""

    @pass_context
    def markdown2html(self, context, source):
        attachments = context.get("cell", {}).get("attachments", {})
        page = MarkdownWithMath(renderer=_Renderer(escape=False, attachments=attachments)).render(source)
        return BEFORE_A_MARK.sub(r'<span class="unbroken">\g<0></span>', page)


class _Renderer(IPythonRenderer):
    def inline_math(self, body: str) -> str:
        return mathml(body, "inline") or super().inline_math(body)

    def block_math(self, body: str) -> str:
        formula = mathml(body, "block")
        return f'<span class="formula">{formula}</span>' if formula else super().block_math(body)


def mathml(tex: str, display: str) -> str:
    """The formula as an element <math>; "" if it cannot be converted. display: inline or block."""
    try:
        from latex2mathml.converter import convert_to_element

        formula = convert_to_element(tex.strip(), display=display)
    except Exception:  # the library raises errors of many types for faulty TeX
        return ""
    for element in formula.iter():
        element.text = unescape(element.text or "")  # the library writes symbols as entities, which tostring escapes
        element.attrib = {name: value for name, value in element.attrib.items() if name in LAYOUT}
    page = tostring(formula, encoding="unicode")
    return "" if "\\" in page else page  # a command that the library does not know
