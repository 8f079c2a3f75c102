"""The graphs of each kind of model, by the file they go to."""

from collections.abc import Callable
from typing import Any

import onnx

from export.parser_graph import biaffine_graph, labeller_graph, relations_graph
from export.products import Product
from export.tagger_graph import crf_graph, softmax_graph
from structural_kd.manifest import MODEL, RELATIONS

GRAPHS: dict[str, dict[str, Callable[[Any, Product], onnx.ModelProto]]] = {
    "crf": {MODEL: crf_graph},
    "softmax": {MODEL: softmax_graph},
    "biaffine": {MODEL: biaffine_graph, RELATIONS: relations_graph},
    "labeller": {MODEL: labeller_graph},
}
