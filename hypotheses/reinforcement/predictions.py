"""What is claimed of learning by reward, for each operation: frozen before a run.

All arms by reward begin at step 300 of fine-tuning on answers, with the bytes of arm `sft`: what differs
after it is the rule of learning. Accuracy is the share of held-out answers that the model, left to write,
writes exactly.

R0 is one-sided: permuted rewards must not *gain*, for noise may destroy what was learned. R1 to R5 say
something only where R4 holds: where nothing is learned by reward, reward has not been tried. R2 and R5
compare two arms where both are right equally often, at the lower of their last accuracies; the masses of
the other arm are interpolated between the checkpoints on either side of it. Both are two-sided: supported
means more than 15 points apart at some layer, falsified means within 10 points at every layer.

Known when this was written: a prototype with another recipe and one seed (reward .18 to .31 in 60 updates,
no layer below the last two gained answer mass, no word above 6e-6, permuted rewards fell to .01).
"""

from emergence import Prediction

VERSION = 1

READ = {"style": "symbolic", "band": "intermediate"}
GRPO = {"arm": "grpo", **READ, "min_seeds": 3}
EQUAL = {"threshold": 0.15, "negligible": 0.10}

# fmt: off
PREDICTIONS = (
    Prediction("R0", "permuted rewards: no gain of accuracy over where reward began",
               arm="grpo_random", **READ, family="answer", test="no accuracy gain", control=True),
    Prediction("R4", "rewards teach: accuracy is more than 5 points above where reward began",
               **GRPO, family="answer", test="accuracy gain", threshold=0.05, negligible=0.02),
    Prediction("R1", "rewards: an operation-word classifier emerges at some intermediate layer and position",
               **GRPO, family="words anywhere", test="classifier", emerges=True, premise="R4"),
    Prediction("R2", "at equal accuracy, reward and further SFT hold different answer mass at some layer",
               **GRPO, family="answer", test="contrast", **EQUAL, against=("sft",), premise="R4"),
    Prediction("R5", "what reward changes is more than learning from one's own right answers",
               **GRPO, family="answer", test="contrast", **EQUAL, against=("grpo_positive",), premise="R4"),
)
# fmt: on
