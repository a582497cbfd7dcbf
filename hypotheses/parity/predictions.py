"""What is claimed of parity: frozen before a run, as in `classifier_emergence`."""

from emergence import Prediction

# 2: the rules by which claims are judged have changed (thresholds, seeds); no result was looked at for it.
VERSION = 2
READ = {"family": "words", "band": "intermediate", "style": "own"}

# fmt: off
PREDICTIONS = (
    Prediction("P1", "base model: no word for the parity at any intermediate layer",
               arm="base", **READ, test="no classifier"),
    Prediction("P2", "SFT: a word for the parity emerges at some intermediate layer",
               arm="sft", **READ, test="classifier", emerges=True, min_seeds=3),
    Prediction("P3", "shuffled answers: no word for the parity emerges, at any checkpoint",
               arm="shuffled", **READ, test="no classifier", emerges=True, any_step=True, control=True),
)
# fmt: on
