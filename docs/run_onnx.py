"""A tagger's bundle with nothing but numpy and ONNX Runtime: what is in the files, and what the graph reads.

    ORT_DISABLE_TELEMETRY=1 python docs/run_onnx.py bundles/ner Google is in London

It knows the words of the table only; `structural_kd.load` composes the rows of all others, batches, checks the files
and answers with entities and their probabilities.
"""

import json
import sys
import numpy as np
import onnxruntime as ort
bundle, *words = sys.argv[1:]
manifest, vocabulary = (json.load(open(f"{bundle}/{name}.json")) for name in ("manifest", "words/vocabulary"))
rows = np.load(f"{bundle}/words/projected.npy", mmap_mode="r")[[vocabulary.index(word) for word in words]]
feeds = {"rows": rows, "words": np.arange(len(words))[None], "lengths": np.array([len(words)])}
labels = ort.InferenceSession(f"{bundle}/model.onnx").run(["labels"], feeds)[0]
print([manifest["labels"][label] for label in labels[0]])
