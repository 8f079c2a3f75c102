import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from structural_kd.labels import (
    Span,
    TagError,
    bioes_constraints,
    bioes_from_spans,
    bioes_labels,
    from_bioes,
    repair_to_bioes,
    spans_from_bioes,
)


def to_bioes(tags, scheme):
    """Strictly: the first misplaced tag is raised."""
    repaired, faults = repair_to_bioes(tags, scheme)
    if faults:
        raise faults[0]
    return repaired


@st.composite
def spans_and_length(draw):
    parts = draw(st.lists(st.tuples(st.sampled_from(["", "A", "B"]), st.integers(1, 4)), max_size=8))
    spans, length = [], 0
    for label, size in parts:
        if label:
            spans.append(Span(label, length, length + size))
        length += size
    return spans, length


@given(spans_and_length())
def test_spans_survive_bioes(case):
    spans, length = case
    assert spans_from_bioes(bioes_from_spans(spans, length)) == spans


@pytest.mark.parametrize("scheme", ["iob1", "iob2", "bioes"])
@given(case=spans_and_length())
def test_every_scheme_round_trips_through_bioes(scheme, case):
    tags = bioes_from_spans(*case)
    assert to_bioes(from_bioes(tags, scheme), scheme) == tags


@pytest.mark.parametrize(
    ("scheme", "tags", "expected"),
    [
        ("iob1", ["I-A", "I-A", "B-A", "I-B"], ["B-A", "E-A", "S-A", "S-B"]),
        ("iob2", ["B-A", "I-A", "B-A", "O"], ["B-A", "E-A", "S-A", "O"]),
        ("bioes", ["B-A", "I-A", "E-A", "S-B"], ["B-A", "I-A", "E-A", "S-B"]),
        ("iob2", ["B-a-b", "I-a-b"], ["B-a-b", "E-a-b"]),
        ("iob2", [], []),
    ],
)
def test_schemes_are_read_as_defined(scheme, tags, expected):
    assert to_bioes(tags, scheme) == expected


@pytest.mark.parametrize(
    ("scheme", "tags", "position"),
    [
        ("iob2", ["O", "I-A"], 1),
        ("iob2", ["B-A", "I-B"], 1),
        ("iob1", ["O", "B-A"], 1),
        ("iob1", ["I-B", "B-A"], 1),
        ("bioes", ["B-A", "O"], 1),
        ("bioes", ["O", "B-A", "I-A"], 2),
        ("bioes", ["E-A"], 0),
        ("bioes", ["I-A", "E-A"], 0),
        ("bioes", ["B-A", "E-B"], 1),
        ("bioes", ["B-A", "S-A"], 1),
        ("iob2", ["O", "S-A"], 1),
        ("iob2", ["O", "O", "X"], 2),
        ("iob2", ["B-"], 0),
        ("iob2", [""], 0),
        ("bioes", ["BI-A"], 0),
    ],
)
def test_an_invalid_sequence_names_the_position_and_the_tag(scheme, tags, position):
    with pytest.raises(TagError) as caught:
        to_bioes(tags, scheme)
    assert caught.value.position == position
    assert f"position {position}" in str(caught.value)
    assert tags[position] in str(caught.value)


def test_an_unknown_scheme_is_an_error():
    with pytest.raises(ValueError, match="iob1, iob2, bioes"):
        to_bioes(["O"], "bilou")
    with pytest.raises(ValueError, match="iob1, iob2, bioes"):
        from_bioes(["O"], "bilou")


@pytest.mark.parametrize(
    ("scheme", "tags", "repaired", "positions"),
    [
        ("iob2", ["O", "I-A", "I-A"], ["O", "B-A", "E-A"], [1]),
        ("iob2", ["B-A", "I-B", "I-B"], ["S-A", "B-B", "E-B"], [1]),
        ("bioes", ["B-A", "I-A", "S-A"], ["B-A", "E-A", "S-A"], [2]),
        ("bioes", ["B-A", "O", "E-A"], ["S-A", "O", "S-A"], [1, 2]),
        ("bioes", ["I-A"], ["S-A"], [0, 0]),
        ("bioes", ["S-A"], ["S-A"], []),
    ],
)
def test_repair_says_which_tags_it_changed_its_reading_of(scheme, tags, repaired, positions):
    result, faults = repair_to_bioes(tags, scheme)
    assert result == repaired
    assert [fault.position for fault in faults] == positions


@given(st.lists(st.sampled_from(["O", *bioes_labels(["A", "B"])]), max_size=8))
def test_repair_always_gives_a_valid_sequence_and_keeps_valid_ones(tags):
    repaired, faults = repair_to_bioes(tags, "bioes")
    spans_from_bioes(repaired)
    assert [tag == "O" for tag in repaired] == [tag == "O" for tag in tags]
    assert bool(faults) == (repaired != tags)


@pytest.mark.parametrize(
    "spans", [[Span("A", 0, 2), Span("B", 1, 3)], [Span("A", 2, 4)], [Span("A", 1, 1)], [Span("", 0, 1)]]
)
def test_spans_that_do_not_fit_are_an_error(spans):
    with pytest.raises(ValueError, match="Span"):
        bioes_from_spans(spans, 3)


def test_labels_are_sorted_by_type_and_distinct():
    expected = ["O", "B-A", "I-A", "E-A", "S-A", "B-B", "I-B", "E-B", "S-B"]
    assert bioes_labels(["B", "A", "B"]) == expected
    assert bioes_labels([]) == ["O"]


def test_constraints_allow_exactly_the_sequences_that_are_valid():
    labels = bioes_labels(["A", "B"])
    constraints = bioes_constraints(labels)
    assert constraints.transitions.dtype == constraints.start.dtype == constraints.end.dtype == np.bool_
    for length in (1, 2, 3, 4):
        for path in itertools.product(range(len(labels)), repeat=length):
            allowed = constraints.start[path[0]] and constraints.end[path[-1]]
            allowed = allowed and all(constraints.transitions[a, b] for a, b in itertools.pairwise(path))
            _, faults = repair_to_bioes([labels[index] for index in path], "bioes")
            assert bool(allowed) == (not faults)


def test_constraints_refuse_a_label_outside_of_bioes():
    with pytest.raises(TagError, match="position 1"):
        bioes_constraints(["O", "L-A"])
