"""What is claimed of parity: frozen before a run, as in `classifier_emergence`."""

from emergence import Prediction

VERSION = 1
READ = {"family": "words", "band": "intermediate", "style": "own"}

# fmt: off
PREDICTIONS = (
    Prediction("P1", "base model: no word for the parity at any intermediate layer",
               arm="base", **READ, test="no classifier"),
    Prediction("P2", "SFT: a word for the parity emerges at some intermediate layer",
               arm="sft", **READ, test="classifier", emerges=True, min_seeds=2),
    Prediction("P3", "shuffled answers: no word for the parity emerges, at any checkpoint",
               arm="shuffled", **READ, test="no classifier", emerges=True, any_step=True, control=True),
)
# fmt: on
