"""Structured distributions with exact inference, one family a file."""

from train.structs.base import FORBIDDEN, StructuredDistribution
from train.structs.chain import ChainMarginals, ChainStatistics, LinearChain
from train.structs.heads import ArcStatistics, HeadSelection, LabelledHeads
from train.structs.mixture import Mixture
from train.structs.second_order import SecondOrderHeads
from train.structs.span import SpanSet
from train.structs.token import TokenSoftmax
from train.structs.trees import MatrixTree, ProjectiveTree

__all__ = [
    "FORBIDDEN",
    "ArcStatistics",
    "ChainMarginals",
    "ChainStatistics",
    "HeadSelection",
    "LabelledHeads",
    "LinearChain",
    "MatrixTree",
    "Mixture",
    "ProjectiveTree",
    "SecondOrderHeads",
    "SpanSet",
    "StructuredDistribution",
    "TokenSoftmax",
]
