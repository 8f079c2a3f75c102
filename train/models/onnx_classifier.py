"""Token-classification models as ONNX graphs, quantised ones included, run by ONNX Runtime."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers.modeling_outputs import TokenClassifierOutput

from structural_kd.manifest import BundleError
from structural_kd.session import open_session

PIECES_A_RUN = 512
"""What bounds the memory of a run; more at once are no faster on a CPU."""

FEEDS = ("input_ids", "attention_mask", "token_type_ids")
SCORES = "logits"


class OnnxClassifier(nn.Module):
    """A graph that is called as a token-classification model of transformers is, without gradients.

    It runs on the CPU, on as many threads as torch has when it is loaded, a few windows at a time.

    Args:
        path: one file, with inputs ``input_ids``, ``attention_mask`` and ``token_type_ids`` (or some of
            them), [windows, pieces] int64, and an output ``logits`` [windows, pieces, labels].
        labels: their names, in order.

    Raises:
        ValueError: ONNX Runtime can not open the file, or its inputs or outputs are others; names both.
    """

    def __init__(self, path: Path, labels: Sequence[str]) -> None:
        super().__init__()
        try:
            self.session = open_session(path, threads=torch.get_num_threads())
        except BundleError as error:
            raise ValueError(f"{path} can not be opened: {error.__cause__ or error}") from error
        inputs, outputs = self.session.inputs, self.session.output_shapes
        unknown = sorted(inputs.keys() - set(FEEDS))
        if unknown or not inputs:
            found = ", ".join(unknown or ["none"])
            raise ValueError(f"{path} has the inputs {found}; a model of {', '.join(FEEDS)} is needed")
        shape = outputs.get(SCORES)
        if shape is None or len(shape) != 3:
            found = ", ".join(f"{name} of rank {len(sizes)}" for name, sizes in outputs.items())
            raise ValueError(
                f"{path} has no output {SCORES} of rank 3, so it does not score tokens: it has {found}; "
                "export the model for token classification"
            )
        try:
            scores = self._run(np.zeros((1, 2), np.int64), np.ones((1, 2), np.int64))
        except Exception as error:  # onnxruntime raises a different class for each of its status codes
            raise ValueError(f"{path} can not be run: {error}") from error
        if scores.shape != (1, 2, len(labels)):
            raise ValueError(
                f"{path} scores {scores.shape[-1]} labels, and id2label in config.json names {len(labels)}: "
                "they are not of one model"
            )

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> TokenClassifierOutput:
        """Scores, ``logits`` [W, p, M], of windows [W, p]; zeros beyond a window's end."""
        ids, mask = (values.cpu().numpy() for values in (input_ids, attention_mask))  # [W, p]
        lengths = mask.sum(1)  # [W]
        longest = int(lengths.max(initial=1))
        step = max(1, PIECES_A_RUN // longest)
        scores = []
        for first in range(0, len(ids), step):
            rows = slice(first, first + step)
            width = int(lengths[rows].max())
            found = self._run(ids[rows, :width], mask[rows, :width])  # [w, width, M]
            scores.append(np.pad(found, [(0, 0), (0, ids.shape[1] - width), (0, 0)]))
        logits = torch.from_numpy(np.concatenate(scores)).to(input_ids.device)  # [W, p, M]
        return TokenClassifierOutput(logits=logits)

    def _run(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        feeds = dict(zip(FEEDS, (ids, mask, np.zeros_like(ids)), strict=True))
        return self.session.run(**{name: feeds[name] for name in self.session.inputs})[SCORES]
