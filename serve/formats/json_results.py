"""Results as JSON, the same as those of `python -m structural_kd annotate`."""

import json
from collections.abc import Sequence
from typing import Any

from serve.requests.items import AnsweredRequest
from structural_kd.annotate.records import Record
from structural_kd.annotate.writers import AnnotatedRecord, write_jsonl

MEDIA_TYPE = "application/json"


def write_line(task: str, record: Record, answers: Sequence[Any]) -> str:
    """The line of an item, from the answers to its sentences."""
    return write_jsonl(AnnotatedRecord(record, **{"tagged" if task == "ner" else "parsed": answers}))


def write(answered: AnsweredRequest) -> str:
    """The body of a `NerResponse` or `ParseResponse`."""
    task = answered.model.manifest.task
    results = ",".join(write_line(task, record, answers).rstrip("\n") for record, answers in answered)
    return f'{{"model":{json.dumps(answered.model.id, ensure_ascii=False)},"results":[{results}]}}'
