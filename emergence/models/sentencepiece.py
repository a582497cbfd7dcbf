"""Models stage: a SentencePiece vocabulary as llama.cpp stores it becomes a `tokenizer.json`.

In: pieces, scores and kinds of a GGUF file. Out: the document that `tokenizers` reads, with the merges that
the published one has: they are not stored, and follow from the pieces and their order.
"""

from __future__ import annotations

from typing import Any

_CONTROL, _OWN = 3, 4  # llama.cpp's codes for control tokens and tokens that a user defined
_SPECIAL = ("<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>")


def tokenizer(
    tokens: list[str], scores: list[float], kinds: list[int], ids: dict[str, int]
) -> dict[str, Any]:
    """SentencePiece's BPE with byte fallback, as `tokenizers` reads it."""
    pieces = [token.replace(" ", "▁") for token in tokens]  # llama.cpp stores runs of spaces as spaces
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = [
        {"id": i, "content": piece, **flags, "special": i in ids.values() or piece in _SPECIAL}
        for i, (piece, kind) in enumerate(zip(pieces, kinds, strict=True))
        if kind in (_CONTROL, _OWN)
    ]
    bos = tokens[ids["bos"]]
    single, second = (
        [{"SpecialToken": {"id": bos, "type_id": i}}, {"Sequence": {"id": text, "type_id": i}}]
        for i, text in enumerate("AB")
    )
    # A token that a user defined is merged before all others; llama.cpp gives it a score of -1000.
    ranks = [0.0 if kind in (_CONTROL, _OWN) else score for score, kind in zip(scores, kinds, strict=True)]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"String": " "},
            "behavior": "MergedWithPrevious",
            "invert": False,
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": single,
            "pair": [*single, *second],
            "special_tokens": {bos: {"id": bos, "ids": [ids["bos"]], "tokens": [bos]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": tokens[ids["unknown"]],
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": {piece: i for i, piece in enumerate(pieces)},
            "merges": merges(pieces, ranks),
        },
    }


def merges(pieces: list[str], ranks: list[float]) -> list[list[str]]:
    """Every split of a piece into two: by rank, then the longer left part first, then the longer right.

    That is the order of the published tokenizer; a byte-pair encoder needs it where two merges rank alike.
    """
    known = {piece: i for i, piece in enumerate(pieces)}
    found = []
    for piece, rank in zip(pieces, ranks, strict=True):
        splits = [(piece[:i], piece[i:]) for i in range(1, len(piece))]
        pairs = sorted((known[a], known[b], a, b) for a, b in splits if a in known and b in known)
        found += [(rank, len(a), len(b), [a, b]) for _, _, a, b in pairs]
    return [pair for _, _, _, pair in sorted(found, key=lambda merge: merge[:3], reverse=True)]
