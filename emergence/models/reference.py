"""Runs in another interpreter, with torch and transformers: logits of a model folder at every position.

Imports nothing of this package. `python reference.py FOLDER OUT < ids.json` reads a list of prompts, each a
list of token ids, and writes `OUT`, an npz of one float32 array [position, vocab] a prompt, named by its
number.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def main(folder: str, out: str) -> None:
    """Load `folder` in float32, refuse it if a tensor is missing or left over, and compute."""
    import numpy as np
    import torch
    import transformers

    logging: Any = transformers.logging
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    kind: Any = transformers.AutoModelForCausalLM
    options = {"dtype": torch.float32, "attn_implementation": "eager", "local_files_only": True}
    model, info = kind.from_pretrained(folder, output_loading_info=True, trust_remote_code=False, **options)
    for problem in ("missing_keys", "mismatched_keys"):
        if info.get(problem):
            sys.exit(f"transformers: {problem.replace('_', ' ')} {sorted(map(str, info[problem]))[:3]}")
    model.eval()
    logits = {}
    with torch.no_grad():
        for number, ids in enumerate(json.load(sys.stdin)):
            logits[str(number)] = model(torch.tensor([ids]), use_cache=False).logits[0].float().numpy()
    np.savez(out, **logits)


if __name__ == "__main__":
    main(*sys.argv[1:])
