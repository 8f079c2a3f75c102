"""A student on disk and how to run it: manifest, word features, ONNX session, decoding, label codecs.

>>> import structural_kd
>>> ner = structural_kd.load("bundles/ner")  # doctest: +SKIP
>>> ner.predict([["Ada", "Lovelace", "lived", "in", "London"]])[0].entities  # doctest: +SKIP
[Entity(label='PER', start=0, end=2, score=0.97), Entity(label='LOC', start=4, end=5, score=0.99)]
"""

from structural_kd.extras import MissingExtraError
from structural_kd.manifest import BundleError, Manifest
from structural_kd.predictor import Predictor, load
from structural_kd.results import Entity, ParsedSentence, TaggedSentence

__all__ = [
    "BundleError",
    "Entity",
    "Manifest",
    "MissingExtraError",
    "ParsedSentence",
    "Predictor",
    "TaggedSentence",
    "load",
]
