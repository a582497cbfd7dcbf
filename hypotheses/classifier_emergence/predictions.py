"""The pre-registered claims about classifier emergence: one line a claim, for each operation.

Frozen before a run. A change is a commit that says why, and raises VERSION: findings refer to it. Nobody
tunes a threshold to a result.

Read a row as: "under this *arm*, the mass on this *family* of tokens, at the layers of this *band*, on
prompts of this *style*, passes this *test*". A classifier is there when the mass on the own class exceeds 10
%, exceeds that of the largest other class by 10 points and that on the same operands under another class by
10 points (lower ends of 95 % intervals), and tells the classes apart (p < 0.01 over all layers of the band);
each half of the prompts is judged at the layer that the other half chose. It *emerges* when more than 10
points of it are new since step 0. There is none where at every layer one of these is below 5 %. Between 5 %
and 10 % nothing is decided. What SFT does is judged where the task was learned: where the model, left to
write, writes 90 % of the held-out answers of a class exactly.

The answer is judged by its last token, read where it is predicted: sizes give much of the first one away.
Operation words are looked for at every position of the prompt.

Version 1 was written after prototype runs, whose results were known. Version 2 had its claims under stricter
rules. Version 3 asks them of a task that is learned, with operands that say nothing of the operation; B3 asks
for the operation across forms, E5 for a gain over models that were not taught. The figures of version 1 were
known; nothing that version 3 judges had been read.

Version 4 asks whether what is read is *used* (K1 to K5): the last token's stream, or a part of it, is
exchanged between prompts that differ in their operation alone, and the share of the answer's log-odds that
this brings over must exceed that of changes of the same size that say nothing by 10 points. What was known:
two pilots on other recipes and smaller data, in which the operation was handed to the last token at about
half of the depth, and the word that the classification term writes was not used while the plane of the class
means was; and, of the data of version 3, the base model's share at that depth. Version 4 has a task seed, and
so data, of its own. It trains for 1,200 steps, five seeds an arm: 700 steps had left the task unlearned.
"""

from emergence import Prediction

VERSION = 4

BASE = {"arm": "base", "style": "symbolic"}
SFT = {"arm": "sft", "style": "symbolic", "min_seeds": 3, "min_accuracy": 0.90}
OBJECTIVE = {"arm": "classified", "family": "words", "band": "at 54 %", "min_seeds": 3}
USED = {"style": "symbolic", "band": "at 54 %", "test": "used"}
PROBE = {"style": "symbolic", "family": "stream", "band": "middle", "threshold": 0.25}

# fmt: off
PREDICTIONS = (
    Prediction("B1", "base model: no operation-word classifier at any intermediate layer or position",
               **BASE, family="words anywhere", band="intermediate", test="no classifier"),
    Prediction("B2", "base model: no classifier of the answer's last token in the middle band",
               **BASE, family="answer", band="middle", test="no classifier"),
    Prediction("B3", "base model: the operation is linearly decodable across forms in the middle band",
               **PROBE, arm="base", test="probe", negligible=0.10),

    Prediction("E1", "SFT: a classifier of the answer's last token emerges at some intermediate layer",
               **SFT, family="answer", band="intermediate", test="classifier", emerges=True),
    Prediction("E2", "SFT: an operation-word classifier emerges at some intermediate layer and position",
               **SFT, family="words anywhere", band="intermediate", test="classifier", emerges=True),
    Prediction("E3", "SFT: strength grows with the training steps",
               **SFT, family="answer", band="intermediate", test="growth", threshold=0.10),
    Prediction("E4", "SFT: the classifier sits in the middle band, as GPT-OSS's does at 54 % depth",
               **SFT, family="words or answer", band="middle", test="classifier", emerges=True),
    Prediction("E5", "SFT: strength predicts correctness better than in models that were not taught",
               **SFT, family="answer", band="intermediate", test="predicts correctness",
               against=("base", "shuffled"), threshold=0.10, negligible=0.05),
    Prediction("E6", "SFT: the emergence of E1 replicates over five seeds",
               **SFT | {"min_seeds": 5}, family="answer", band="intermediate", test="replication",
               emerges=True),

    Prediction("C1", "shuffled answers: no classifier of the last token appears, at any checkpoint",
               arm="shuffled", style="symbolic", family="answer", band="intermediate", test="no classifier",
               emerges=True, any_step=True, control=True),
    Prediction("C2", "random words: no classifier",
               arm="sft", style="symbolic", family="random words", band="intermediate", test="no classifier",
               control=True),
    Prediction("C3", "permuted weights: the operation is not decodable across forms",
               **PROBE, arm="permuted", test="no probe", negligible=0.20, control=True),

    Prediction("O1", "a classification term at 54 % depth makes an operation-word classifier there",
               **OBJECTIVE, style="symbolic", test="classifier", emerges=True),
    Prediction("O2", "the classifier of O1 carries over to a prompt style that was not trained on",
               **OBJECTIVE, style="worded", test="classifier", emerges=True, untrained_style=True),

    Prediction("K1", "base model: the answer depends on the last token's stream at 54 % depth",
               **USED, arm="base", family="stream"),
    Prediction("K2", "SFT: the answer depends on the last token's stream at 54 % depth",
               **SFT | USED, family="stream"),
    Prediction("K3", "SFT: some layer of the middle band carries the operation more than the answer",
               **SFT, family="stream", band="middle", test="carries the operation"),
    Prediction("K4", "the answer uses the word that the classification term of O1 writes",
               **OBJECTIVE | USED, premise="O1"),
    Prediction("K5", "the answer uses the plane of the class means there",
               **OBJECTIVE | USED | {"family": "class means"}, premise="O1"),
)
# fmt: on
