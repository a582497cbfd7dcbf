"""One instrument in a process of its own, ours or a peer's, doing the same work on the same model folder.

`python worker.py NAME FOLDER`, NAME being a function below. Reads a JSON object a line from stdin,
`{"prompts": [[ids]]}` for a lens or `{"rows": [[ids]], "answers": n}` for a LoRA step, and answers each with
`{"seconds", "peak_mb", "outcome"}`. Peak is resident memory above what the process held before the call. Only
the standard library at the top: the peers live in another environment.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TOP_K = 5
RANK, ALPHA, TARGETS = 16, 32.0, ("q_proj", "k_proj", "v_proj", "o_proj")
RATE = 1e-4
PACKAGES = ("mlx", "mlx-lm", "torch", "transformers", "peft", "nnsight", "transformer-lens")

Work = Callable[[dict[str, Any]], Any]


def emergence(folder: str) -> Work:
    """Our lens: statistics of every layer's whole distribution, no distribution kept."""
    import numpy as np

    from emergence import LogitLens, load

    lens = LogitLens(load(folder)[0])

    def work(job: dict[str, Any]) -> Any:
        read = lens.read(job["prompts"], top_k=TOP_K)
        return np.asarray(read.top_ids)

    return work


def emergence_step(folder: str) -> Work:
    """Our training step, as a training makes it."""
    import numpy as np

    from emergence import LogitLens, load
    from emergence.config.settings import LoRA
    from emergence.models import loading as models
    from emergence.training.batches import Batch
    from emergence.training.objectives import Objective
    from emergence.training.updates import Updates

    model = load(folder)[0]
    objective = Objective(LogitLens(model))
    adapters = models.lora(model, "lora", LoRA(rank=RANK, alpha=ALPHA, targets=TARGETS), 0)
    adapters.__enter__()
    updates = Updates(model, objective, RATE)

    def work(job: dict[str, Any]) -> Any:
        ids, n = np.array(job["rows"], np.int32), job["answers"]
        rows, last = len(ids), ids.shape[1] - n
        position = np.tile(np.arange(last - 1, ids.shape[1] - 1, dtype=np.int32), rows)
        batch = Batch(
            tokens=ids[:, :-1],
            row=np.repeat(np.arange(rows, dtype=np.int32), n),
            position=position,
            target=ids[:, last:].reshape(-1),
            last=np.full(rows, last - 1, np.int32),
            classes=("add",) * rows,
        )
        return updates.make(batch, 0)[0]

    work.adapters = adapters  # type: ignore[attr-defined]  # dropped, it would take the adapters out again
    return work


def _llama(folder: str) -> Any:
    import torch
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    for weight in model.parameters():
        weight.sum()  # the file is mapped: only what was touched is in memory
    return model


def transformers(folder: str) -> Work:
    """Hidden states of all layers, stacked, through norm and head: the usual few lines."""
    import torch

    model = _llama(folder)

    @torch.no_grad()
    def work(job: dict[str, Any]) -> Any:
        states = model.model(torch.tensor(job["prompts"]), output_hidden_states=True).hidden_states
        last = [s[:, -1] for s in states[1:]]  # the final one is normed already
        hidden = torch.stack([*(model.model.norm(s) for s in last[:-1]), last[-1]])
        log_probs = model.lm_head(hidden).log_softmax(-1)
        return log_probs.topk(TOP_K).indices.numpy()

    return work


def streamed(folder: str) -> Work:
    """The same, written with care for memory: one layer's distributions at a time."""
    import torch

    model = _llama(folder)

    @torch.no_grad()
    def work(job: dict[str, Any]) -> Any:
        states = model.model(torch.tensor(job["prompts"]), output_hidden_states=True).hidden_states
        last = [s[:, -1] for s in states[1:]]
        normed = [*(model.model.norm(s) for s in last[:-1]), last[-1]]
        return torch.stack([model.lm_head(s).log_softmax(-1).topk(TOP_K).indices for s in normed]).numpy()

    return work


def nnsight(folder: str) -> Work:
    """The lens of nnsight's own tutorial, at the last position."""
    import torch
    from nnsight import NNsight

    model = _llama(folder)
    traced = NNsight(model)

    @torch.no_grad()
    def work(job: dict[str, Any]) -> Any:
        with traced.trace(torch.tensor(job["prompts"])):
            states = [layer.output for layer in traced.model.layers]
            saved = torch.stack([(s[0] if isinstance(s, tuple) else s)[:, -1] for s in states]).save()
        log_probs = model.lm_head(model.model.norm(saved)).log_softmax(-1)
        return log_probs.topk(TOP_K).indices.numpy()

    return work


def transformer_lens(folder: str) -> Work:
    """TransformerLens's cache of the residual stream after each block, its own norm and unembedding."""
    import torch
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = TransformerBridge.boot_transformers(
        folder, hf_model=_llama(folder), tokenizer=tokenizer, device="cpu"
    )
    names = [f"blocks.{i}.hook_resid_post" for i in range(model.cfg.n_layers)]
    wanted = set(names)

    @torch.no_grad()
    def work(job: dict[str, Any]) -> Any:
        tokens = torch.tensor(job["prompts"])
        _, cache = model.run_with_cache(tokens, names_filter=wanted.__contains__)
        hidden = torch.stack([cache[name][:, -1] for name in names])
        log_probs = model.unembed(model.ln_final(hidden)).log_softmax(-1)
        return log_probs.topk(TOP_K).indices.numpy()

    return work


def peft(folder: str) -> Work:
    """transformers and peft: the library's own loss, AdamW."""
    import torch
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules=list(TARGETS))
    model = get_peft_model(_llama(folder), settings)
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=RATE)

    def work(job: dict[str, Any]) -> Any:
        ids = torch.tensor(job["rows"])
        labels = ids.clone()
        labels[:, : -job["answers"]] = -100
        # the last token is predicted and predicts nothing, so neither side feeds it
        logits = model(input_ids=ids[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return work


def _memory_mb(field: str) -> float:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(field)) / 1024


def measured(work: Work, job: dict[str, Any]) -> dict[str, Any]:
    """The work's outcome, its time, and its peak of resident memory."""
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = _memory_mb("VmRSS")
    start, cpu_start = time.perf_counter(), time.process_time()
    outcome = work(job)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    peak = _memory_mb("VmHWM") - before
    outcome = outcome.tolist() if hasattr(outcome, "tolist") else outcome
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_mb": peak, "outcome": outcome}


def main() -> None:
    """Serve one instrument until stdin ends."""
    name, folder = sys.argv[1:]
    out, sys.stdout = sys.stdout, sys.stderr
    work = globals()[name](folder)
    versions = {n: _version(n) for n in PACKAGES}
    print(
        json.dumps({"ready": name, "versions": {n: v for n, v in versions.items() if v}}),
        file=out,
        flush=True,
    )
    for line in sys.stdin:
        print(json.dumps(measured(work, json.loads(line))), file=out, flush=True)


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
