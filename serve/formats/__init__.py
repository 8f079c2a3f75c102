"""Answers beside plain JSON: CoNLL-U, drawings of trees, streams of JSON lines."""
