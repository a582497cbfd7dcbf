"""The pre-registered claims about classifier emergence: one line a claim, for each operation.

Frozen before a run. A change is a commit that says why, and raises VERSION: findings refer to it. Nobody
tunes a threshold to a result.

Read a row as: "under this *arm*, the mass on this *family* of tokens, at the layers of this *band*, on
prompts of this *style*, passes this *test*". A classifier is there when the mass on the own class exceeds 10
%, exceeds that of the largest other class by 10 points and that on other classes' prompts by 10 points (lower
ends of 95 % intervals), and tells the classes apart (p < 0.01 over all layers of the band); each half of the
prompts is judged at the layer that the other half chose. It *emerges* when more than 10 points of it are new
since step 0. There is none where at every layer one of these is below 5 %. Between 5 % and 10 % nothing is
decided.

Version 1 was written after prototype runs, whose results were known. Version 2 has the claims of version 1:
the rules by which they are judged have changed, and with them thresholds and seeds; no result was looked at
for it.
"""

from emergence import Prediction

VERSION = 2

BASE = {"arm": "base", "style": "symbolic"}
SFT = {"arm": "sft", "style": "symbolic", "min_seeds": 3}
OBJECTIVE = {"arm": "classified", "family": "words", "band": "at 54 %", "min_seeds": 3}

# fmt: off
PREDICTIONS = (
    Prediction("B1", "base model: no operation-word classifier at any intermediate layer",
               **BASE, family="words", band="intermediate", test="no classifier"),
    Prediction("B2", "base model: no answer classifier in the middle band",
               **BASE, family="answer", band="middle", test="no classifier"),
    Prediction("B3", "base model: the operation is linearly decodable in the middle band although B1 holds",
               **BASE, family="stream", band="middle", test="probe", premise="B1",
               threshold=0.25, negligible=0.10),

    Prediction("E1", "SFT: an answer classifier emerges at some intermediate layer",
               **SFT, family="answer", band="intermediate", test="classifier", emerges=True),
    Prediction("E2", "SFT: an operation-word classifier emerges at some intermediate layer",
               **SFT, family="words", band="intermediate", test="classifier", emerges=True),
    Prediction("E3", "SFT: strength grows with the training steps",
               **SFT, family="answer", band="intermediate", test="growth", threshold=0.10),
    Prediction("E4", "SFT: the classifier sits in the middle band, as GPT-OSS's does at 54 % depth",
               **SFT, family="words or answer", band="middle", test="classifier", emerges=True),
    Prediction("E5", "SFT: strength predicts correctness, prompt by prompt",
               **SFT, family="answer", band="intermediate", test="predicts correctness",
               threshold=0.60, negligible=0.55),
    Prediction("E6", "SFT: the emergence of E1 replicates over seeds",
               **SFT, family="answer", band="intermediate", test="replication",
               emerges=True),

    Prediction("C1", "shuffled answers: no answer classifier appears, at any checkpoint",
               arm="shuffled", style="symbolic", family="answer", band="intermediate", test="no classifier",
               emerges=True, any_step=True, control=True),
    Prediction("C2", "random words: no classifier",
               arm="sft", style="symbolic", family="random words", band="intermediate", test="no classifier",
               control=True),

    Prediction("O1", "a classification term at 54 % depth makes an operation-word classifier there",
               **OBJECTIVE, style="symbolic", test="classifier", emerges=True),
    Prediction("O2", "the classifier of O1 carries over to a prompt style that was not trained on",
               **OBJECTIVE, style="worded", test="classifier", emerges=True, untrained_style=True),
)
# fmt: on
