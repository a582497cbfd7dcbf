"""What has been reported of GPT-OSS, as claims: its layer 13 of 24 reads out "multiply" for `45 * 45 = `.

The report (chrishayuk/chuk-mlx, the lazarus experiments) rests on a lens that ran without the causal mask, on
few prompts and no control. Nothing of it had been measured with this suite when the claims were written.
Version 2 asks whether what is read is used (G4).
"""

from emergence import Prediction

VERSION = 2

WORDS = {"family": "words", "band": "at 54 %"}

# fmt: off
PREDICTIONS = (
    Prediction("G1", "GPT-OSS: operation words are read out at 54 % depth",
               arm="base", style="symbolic", **WORDS, test="classifier"),
    Prediction("G2", "GPT-OSS: they are in a story, too, where neither sign nor word names the operation",
               arm="base", style="story", **WORDS, test="classifier"),
    Prediction("G3", "permuted weights: no operation word at 54 % depth",
               arm="permuted", style="symbolic", **WORDS, test="no classifier", control=True),
    Prediction("G4", "GPT-OSS: the answer uses the words that are read out there",
               arm="base", style="symbolic", **WORDS, test="used", premise="G1"),
)
# fmt: on
