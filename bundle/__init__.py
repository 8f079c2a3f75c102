"""A student on disk and how to run it: manifest, word features, ONNX session, decoding, label codecs.

>>> import bundle
>>> ner = bundle.load("bundles/ner")  # doctest: +SKIP
>>> ner.predict([["Ada", "Lovelace", "lived", "in", "London"]])[0].entities  # doctest: +SKIP
[Entity(label='PER', start=0, end=2, score=0.97), Entity(label='LOC', start=4, end=5, score=0.99)]
"""

from bundle.manifest import BundleError, Manifest
from bundle.predictor import Predictor, load
from bundle.results import Entity, ParsedSentence, TaggedSentence

__all__ = ["BundleError", "Entity", "Manifest", "ParsedSentence", "Predictor", "TaggedSentence", "load"]
