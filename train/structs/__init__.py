"""Structured distributions with exact inference, one family a file."""

from train.structs.base import FORBIDDEN, StructuredDistribution
from train.structs.chain import ChainMarginals, ChainStatistics, LinearChain
from train.structs.heads import ArcStatistics, HeadSelection, LabelledHeads
from train.structs.token import TokenSoftmax

__all__ = [
    "FORBIDDEN",
    "ArcStatistics",
    "ChainMarginals",
    "ChainStatistics",
    "HeadSelection",
    "LabelledHeads",
    "LinearChain",
    "StructuredDistribution",
    "TokenSoftmax",
]
