"""The encoder of the paper's teacher: M-BERT beside two character language models, as one graph.

The language models (Flair; Akbik et al. 2018) read characters. A bundle's encoder gets word pieces, so the
graph holds the characters of every piece, strings them together and reads them with two LSTMs, one in each
direction. A piece takes the forward state after its last character and the backward state at its first one.
A word's features are the mean over its pieces, where Flair takes one state a word: the cost is the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import spox
import spox.opset.ai.onnx.v21 as op
from numpy.typing import NDArray
from spox import Tensor as TensorType
from spox import Var
from tokenizers import Tokenizer
from torch import nn
from transformers import BertConfig, BertModel

from export.encoder_graph import encoder_graph
from export.layers import axis, constant, positions, size_of, weights

LONGEST_PIECE = 24
"""Characters of a piece that are read; no ordinary piece is longer."""

FIRST_CHARACTER = 2
"""0 is no character, 1 an unknown one."""


@dataclass(frozen=True)
class Shape:
    """Sizes of the teacher of Wang et al. 2021, which has 233.40 M parameters (table 7)."""

    vocabulary: int = 119_547
    hidden: int = 768
    layers: int = 12
    heads: int = 12
    feed_forward: int = 3072
    positions: int = 512
    characters: int = 275
    character_dim: int = 100
    language_model: int = 2048
    vector_dim: int = 300
    bilstm: int = 256
    parameters: int = 233_400_000

    @property
    def features(self) -> int:
        """Values a piece, E."""
        return self.hidden + 2 * self.language_model


class PaperEncoder(nn.Module):
    """The weights, all random: M-BERT without its pooler, the two language models without their decoders."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.bert = BertModel(
            BertConfig(
                vocab_size=shape.vocabulary,
                hidden_size=shape.hidden,
                num_hidden_layers=shape.layers,
                num_attention_heads=shape.heads,
                intermediate_size=shape.feed_forward,
                max_position_embeddings=shape.positions,
            ),
            add_pooling_layer=False,
        ).eval()
        self.forward_embedding, self.backward_embedding = (
            nn.Embedding(shape.characters, shape.character_dim) for _ in range(2)
        )
        self.forward_model, self.backward_model = (
            nn.LSTM(shape.character_dim, shape.language_model, batch_first=True) for _ in range(2)
        )


def piece_characters(tokenizer: Tokenizer, shape: Shape) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Characters of each piece [V, k] and how many they are [V].

    A piece that begins a word begins with a space; special pieces, as [CLS], have none.
    """
    alphabet: dict[str, int] = {}
    table = np.zeros((shape.vocabulary, LONGEST_PIECE), np.int64)
    counts = np.zeros(shape.vocabulary, np.int64)
    for piece, number in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]):
        if len(piece) > 1 and piece.startswith("[") and piece.endswith("]"):
            continue
        written = piece.removeprefix("##") if piece.startswith("##") else " " + piece
        for place, character in enumerate(written[:LONGEST_PIECE]):
            known = alphabet.setdefault(character, FIRST_CHARACTER + len(alphabet))
            table[number, place] = known if known < shape.characters else 1
        counts[number] = min(len(written), LONGEST_PIECE)
    return table, counts


def paper_encoder_graph(
    encoder: PaperEncoder, layers: Sequence[int], tokenizer: Tokenizer, shape: Shape
) -> onnx.ModelProto:
    """``ids`` and ``mask`` [W, p] int64 to ``hidden`` [W, p, E]: M-BERT's ``layers``, then both states."""
    table, counts = piece_characters(tokenizer, shape)
    bert = encoder_graph(encoder.bert, layers)
    ids = spox.argument(TensorType(np.int64, ("windows", "pieces")))
    mask = spox.argument(TensorType(np.int64, ("windows", "pieces")))
    (hidden,) = spox.inline(bert)(ids=ids, mask=mask).values()  # [W, p, D]
    length = op.mul(op.gather(constant(counts), ids), mask)  # [W, p]
    end = op.cumsum(length, op.const(np.int64(1)))  # [W, p]
    begin = op.sub(end, length)  # [W, p]
    total = op.max([op.reduce_max(end, axis(1), keepdims=0), axis(1)])  # [W], at least 1
    strung = _strung_together(op.gather(constant(table), ids), length, begin, total)  # [W, c]
    last = op.max([op.sub(end, axis(1)), axis(0)])  # [W, p]
    first = op.min([begin, op.unsqueeze(op.sub(total, axis(1)), axis(1))])  # [W, p]
    forward = _read(strung, total, encoder.forward_embedding, encoder.forward_model, "forward", last)
    backward = _read(strung, total, encoder.backward_embedding, encoder.backward_model, "reverse", first)
    graph = spox.build({"ids": ids, "mask": mask}, {"hidden": op.concat([hidden, forward, backward], axis=2)})
    # A bundle's check reads the width.
    graph.graph.output[0].type.tensor_type.shape.dim[2].dim_value = shape.features
    return graph


def _strung_together(characters: Var, length: Var, begin: Var, total: Var) -> Var:
    """Characters of pieces [W, p, k] one after the other [W, c], without gaps; zeros after the last one."""
    places = positions(size_of(characters, 2))  # [k]
    there = op.less(places, op.unsqueeze(length, axis(2)))  # [W, p, k]
    longest = op.reduce_max(total, keepdims=0)  # scalar: c
    # What is not there goes to a column of its own, which is cut off.
    column = op.where(there, op.add(op.unsqueeze(begin, axis(2)), places), longest)  # [W, p, k]
    row = op.add(
        op.mul(column, op.const(np.int64(0))),
        op.unsqueeze(positions(size_of(characters, 0)), axis(1, 2)),
    )  # [W, p, k]
    indices = op.concat([op.unsqueeze(row, axis(3)), op.unsqueeze(column, axis(3))], axis=3)
    windows = op.shape(characters, start=0, end=1)
    width = op.add(op.unsqueeze(longest, axis(0)), axis(1))
    canvas = op.expand(op.const(np.int64(0)), op.concat([windows, width], axis=0))  # [W, c + 1]
    written = op.scatter_nd(canvas, indices, characters)
    return op.slice(written, axis(0), op.unsqueeze(longest, axis(0)), axis(1))  # [W, c]


def _read(strung: Var, total: Var, embedding: nn.Embedding, lstm: nn.LSTM, direction: str, place: Var) -> Var:
    """States of one language model at a place of each piece: [W, c] and [W, p] -> [W, p, H]."""
    embedded = op.gather(constant(weights(embedding.weight)), op.transpose(strung, perm=[1, 0]))  # [c, W, e]
    w, r, b = onnx_lstm(lstm)
    states, _, _ = op.lstm(
        embedded,
        constant(w),
        constant(r),
        constant(b),
        op.cast(total, to=np.int32),
        hidden_size=r.shape[2],
        direction=direction,
    )  # [c, 1, W, H]
    by_window = op.transpose(op.squeeze(states, axis(1)), perm=[1, 0, 2])  # [W, c, H]
    return op.gather_nd(by_window, op.unsqueeze(place, axis(2)), batch_dims=1)  # [W, p, H]


def onnx_lstm(lstm: nn.LSTM) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """torch's LSTM weights (gates i, f, g, o) as ONNX orders them (i, o, f, g), one direction in front."""

    def ordered(name: str) -> NDArray[np.float32]:
        i, f, g, o = np.split(weights(lstm.get_parameter(name)), 4)
        return np.concatenate([i, o, f, g])

    biases = np.concatenate([ordered("bias_ih_l0"), ordered("bias_hh_l0")])
    return ordered("weight_ih_l0")[None], ordered("weight_hh_l0")[None], biases[None]
