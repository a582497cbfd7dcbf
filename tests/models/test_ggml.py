"""Blocks of llama.cpp: MLX's groups hold the same numbers, to the bit."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from emergence.models import ggml

BYTES = {"Q8_0": 34, "Q5_0": 22, "Q4_K": 144}
WEIGHTS = {"Q8_0": 32, "Q5_0": 32, "Q4_K": 256}


def blocks(kind: str, rows: int = 3, count: int = 4) -> np.ndarray:
    """Random bytes [row, bytes] with float16 scales of usual size, some negative, one zero."""
    rng = np.random.default_rng(0)
    data = rng.integers(0, 256, (rows, count, BYTES[kind]), dtype=np.uint8)
    for at in (0, 2) if kind == "Q4_K" else (0,):
        scales = (rng.normal(size=(rows, count)) * 0.02).astype(np.float16)
        scales[0, 0] = 0
        data[..., at : at + 2] = scales[..., None].view(np.uint8)
    return data.reshape(rows, -1)


def naive(kind: str, block: bytes) -> list[float]:
    """One block by the letter of `ggml-quants.c`, weight for weight, in float32."""
    d = np.frombuffer(block[:2], np.float16)[0].astype(np.float32)
    if kind == "Q8_0":
        return [d * np.float32(q) for q in np.frombuffer(block[2:], np.int8)]
    if kind == "Q5_0":
        high = int.from_bytes(block[2:6], "little")
        first = [(block[6 + j] & 15) | ((high >> j & 1) << 4) for j in range(16)]
        second = [(block[6 + j] >> 4) | ((high >> (j + 16) & 1) << 4) for j in range(16)]
        return [d * np.float32(q - 16) for q in first + second]
    least, packed, codes = (
        np.frombuffer(block[2:4], np.float16)[0].astype(np.float32),
        block[4:16],
        block[16:],
    )
    values = []
    for group in range(8):
        if group < 4:
            scale, offset = packed[group] & 63, packed[group + 4] & 63
        else:
            scale = (packed[group + 4] & 15) | (packed[group - 4] >> 6 << 4)
            offset = (packed[group + 4] >> 4) | (packed[group] >> 6 << 4)
        part = codes[32 * (group // 2) : 32 * (group // 2) + 32]
        quants = [byte >> 4 if group % 2 else byte & 15 for byte in part]
        values += [d * np.float32(scale) * np.float32(q) - least * np.float32(offset) for q in quants]
    return values


@pytest.mark.parametrize("kind", BYTES)
def test_a_repacked_tensor_dequantises_to_the_same_numbers(kind: str) -> None:
    data = blocks(kind)
    packed = ggml.repacked(data, kind)
    assert packed is not None
    bits, codes, scales, biases = packed
    assert codes.shape == (3, 4 * WEIGHTS[kind])
    assert codes.max() < 2**bits
    expected = [
        [v for i in range(4) for v in naive(kind, row[i * BYTES[kind] : (i + 1) * BYTES[kind]].tobytes())]
        for row in data
    ]
    parts = [mx.array(p).astype(mx.float32) for p in (scales, biases)]
    found = mx.dequantize(mx.array(ggml.words(codes, bits)), *parts, group_size=ggml.GROUP, bits=bits)
    np.testing.assert_array_equal(np.array(found), np.array(expected, np.float32))


@pytest.mark.parametrize("bits", [4, 5, 8])
def test_words_hold_codes_as_mlx_reads_them(bits: int) -> None:
    codes = np.random.default_rng(1).integers(0, 2**bits, (2, 64), dtype=np.uint8)
    ones, zeros = mx.ones((2, 2)), mx.zeros((2, 2))
    found = mx.dequantize(mx.array(ggml.words(codes, bits)), ones, zeros, group_size=32, bits=bits)
    np.testing.assert_array_equal(np.array(found), codes)


@pytest.mark.parametrize("kind", ["F32", "Q6_K", "IQ2_XS"])
def test_other_kinds_stay_in_float32(kind: str) -> None:
    assert ggml.repacked(np.zeros((2, 210), np.uint8), kind) is None
