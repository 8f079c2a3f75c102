"""Reports as Markdown, and Markdown as a page of its own."""

from collections.abc import Sequence
from html import escape

from markdown_it import MarkdownIt
from tabulate import tabulate

STYLE = """
body { max-width: 70rem; margin: 2rem auto; padding: 0 1rem; font: 1rem/1.5 system-ui, sans-serif; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid #ccc; }
img { max-width: 100%; }
"""


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table: the first column to the left, all others to the right.

    >>> print(table(["", "points"], [["F1", "71.2"]]))
    |    |   points |
    |:---|---------:|
    | F1 |     71.2 |
    """
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    align = ("left", *["right"] * (len(headers) - 1))
    return tabulate(escaped, headers, tablefmt="pipe", colalign=align, disable_numparse=True)


def bullets(lines: Sequence[str]) -> str:
    """A Markdown list."""
    return "\n".join(f"- {line}" for line in lines)


def page(title: str, markdown: str) -> str:
    """The Markdown as an HTML page, without script and with nothing from outside."""
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    head = f'<meta charset="utf-8">\n<title>{escape(title)}</title>\n<style>{STYLE}</style>'
    return f'<!doctype html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n{body}</body>\n</html>\n'
