"""Trees as drawings: an HTML fragment with one SVG a sentence, by spaCy's displaCy.

The drawings have neither style attributes nor scripts, so that a page with a strict content security policy
can show them; a style sheet reaches their parts by displaCy's class names.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Literal

import structural_kd.segment  # noqa: F401 - brings spaCy in without torch, so it comes first
from serve.requests.items import AnsweredRequest

# isort: split
from spacy.displacy.render import DependencyRenderer

MEDIA_TYPE = "text/html"

Direction = Literal["ltr", "rtl"]

RIGHT_TO_LEFT = frozenset(("ar", "arc", "ckb", "dv", "fa", "he", "ps", "sd", "syr", "ug", "ur", "yi"))

# Words are as far apart as the longest needs, so a very long one would stretch the whole tree.
WORD_CHARACTERS = 20

_SPACE_ABOVE, _SPACE_BELOW = 32, 14
_ARROW = '<g class="displacy-arrow">'
_LABEL = '<text dy="1.25em" style="font-size: 0.8em; letter-spacing: 1px">'
_LABEL_ABOVE = '<text dy="-0.4em" font-size="0.8em">'


@dataclass(frozen=True, slots=True)
class _Arrow:
    """From a head to its dependent, as indices into the sentence; the root is its own head."""

    head: int
    dependent: int
    label: str
    title: str

    @property
    def width(self) -> int:
        return abs(self.head - self.dependent)

    def for_displacy(self) -> dict[str, Any]:
        return {
            "start": min(self.head, self.dependent),
            "end": max(self.head, self.dependent),
            "label": escape(self.label),
            "dir": "left" if self.dependent < self.head else "right",
        }


class _Renderer(DependencyRenderer):
    """displaCy with arcs that all run from left to right, so that no label along one is upside down."""

    def get_arc(self, x_start: int, y: int, y_curve: int, x_end: int) -> str:
        return super().get_arc(min(x_start, x_end), y, y_curve, max(x_start, x_end))


def direction_of(language: str) -> Direction:
    """The direction in which a language (ISO 639) is written.

    >>> direction_of("he"), direction_of("pt")
    ('rtl', 'ltr')
    """
    return "rtl" if language in RIGHT_TO_LEFT else "ltr"


def write(answered: AnsweredRequest) -> str:
    """A `<figure class="tree">` for each sentence; an arrow's title has relation, score and both words."""
    direction = direction_of(answered.model.manifest.language)
    return "".join(
        f'<figure class="tree" dir="{direction}" data-model="{escape(answered.model.id)}">'
        f"{_svg(f'{record.line}-{number}', record.tokens[start:end], tree, direction)}</figure>\n"
        for record, trees in answered
        for number, ((start, end), tree) in enumerate(zip(record.sentences, trees, strict=True))
    )


def _svg(name: str, words: Sequence[str], tree: Any, direction: Direction) -> str:
    # The narrowest are drawn last, and so are on top where the mouse is over several.
    *arcs, root = sorted(_arrows(words, tree), key=lambda arrow: arrow.width, reverse=True)
    shown = [_shortened(word) for word in words]
    distance = max([*(8 * len(word) + 40 for word in shown), *(7 * len(arc.label) + 30 for arc in arcs)])
    renderer = _Renderer({"distance": distance, "offset_x": distance // 2, "word_spacing": 30})
    renderer.direction = direction
    drawn = renderer.render_svg(
        name, [{"text": word, "tag": ""} for word in shown], [arc.for_displacy() for arc in arcs]
    )
    # displaCy's outer tag has styles, and no room for the root's arrow. Its labels lie inside the arcs, where
    # narrow arcs squeeze their letters, and outside by `side="right"`, which only some browsers know.
    inside = drawn.partition(">")[2].rpartition("</svg>")[0]
    inside = inside.replace(_LABEL, _LABEL_ABOVE).replace(' side="right"', "")
    inside = inside.replace('fill="none"', 'fill="none" pointer-events="all"')
    drawn_words, *drawn_arcs = inside.split(_ARROW)
    drawn_arcs.append(_root_arrow(renderer, root))
    titled = (
        f"{_ARROW}<title>{escape(arrow.title)}</title>{rest}"
        for arrow, rest in zip([*arcs, root], drawn_arcs, strict=True)
    )
    height = _SPACE_ABOVE + renderer.offset_y + renderer.word_spacing + _SPACE_BELOW
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" class="displacy" '
        f'width="{renderer.width}" height="{height}" '
        f'viewBox="0 {-_SPACE_ABOVE} {renderer.width} {height}" direction="{direction}" '
        f'font-family="sans-serif" role="img" aria-label="{escape(" ".join(words))}">'
        f"{drawn_words}{''.join(titled)}</svg>"
    )


def _root_arrow(renderer: _Renderer, root: _Arrow) -> str:
    """The inside of an arrow's group, as displaCy writes one; displaCy itself draws none for a root."""
    x = renderer.offset_x + root.dependent * renderer.distance + renderer.arrow_spacing // 2
    if renderer.direction == "rtl":
        x = renderer.width - x
    y = renderer.offset_y
    return (
        f'<path class="displacy-arc" d="M{x},{20 - _SPACE_ABOVE} L{x},{y}" stroke-width="2px" '
        'stroke="currentColor"/>'
        f'<text class="displacy-label" x="{x}" y="{14 - _SPACE_ABOVE}" font-size="0.8em" fill="currentColor" '
        f'text-anchor="middle">{escape(root.label)}</text>'
        f'<path class="displacy-arrowhead" d="{renderer.get_arrowhead("left", x, y, x)}" '
        'fill="currentColor"/></g>'
    )


def _arrows(words: Sequence[str], tree: Any) -> Iterator[_Arrow]:
    for index, (head, label, score) in enumerate(zip(tree.heads, tree.deprels, tree.scores, strict=True)):
        # Isolated, so that words of another direction do not turn the line around.
        ends = [f"\u2068{words[place]}\u2069" for place in ([head - 1, index] if head else [index])]
        yield _Arrow(head - 1 if head else index, index, label, f"{label} {score:.2f}: {' → '.join(ends)}")


def _shortened(word: str) -> str:
    return word if len(word) <= WORD_CHARACTERS else f"{word[: WORD_CHARACTERS - 1]}…"
