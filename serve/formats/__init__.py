"""Answers as JSON, CoNLL-U, drawings of trees, and streams of JSON lines."""
