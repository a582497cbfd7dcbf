"""Models stage: llama.cpp's blocks of quantised weights as MLX's groups of 32, number for number.

In: the bytes of a tensor of a GGUF file. Out: codes, scales and biases, and codes packed as MLX packs them.
Formats: `ggml-quants.c` of llama.cpp.
"""

from __future__ import annotations

import numpy as np

GROUP = 32
"""Weights that share a scale and a bias."""
Packed = tuple[int, np.ndarray, np.ndarray, np.ndarray]
"""Bits; codes [row, column] of uint8; scales and biases [row, column / 32]: scale * code + bias is a
weight.
"""


def repacked(data: np.ndarray, kind: str) -> Packed | None:
    """Blocks of llama.cpp as MLX's groups of 32; None for a kind that is kept in float32.

    `data` is [row, bytes]. Q8_0 and Q5_0 hold one float16 scale for 32 signed codes, Q4_K a scale and an
    offset for each of eight groups of 32, as products of a float16 and six bits.
    """
    if kind == "Q8_0":
        blocks = data.reshape(data.shape[0], -1, 34)
        codes = (blocks[..., 2:].view(np.int8).astype(np.int16) + 128).astype(np.uint8)
        return 8, _rows(codes), *_centred(blocks, 128)
    if kind == "Q5_0":
        blocks = data.reshape(data.shape[0], -1, 22)
        low, high = blocks[..., 6:] & 15, blocks[..., 6:] >> 4
        fifth = np.unpackbits(blocks[..., 2:6], axis=-1, bitorder="little") << 4
        return 5, _rows(np.concatenate([low, high], axis=-1) | fifth), *_centred(blocks, 16)
    if kind == "Q4_K":
        blocks = data.reshape(data.shape[0], -1, 144)
        scale, offset = (_half(blocks[..., i : i + 2]) for i in (0, 2))
        factors, offsets = _sixes(blocks[..., 4:16])
        pairs = blocks[..., 16:].reshape(*blocks.shape[:2], 4, 1, 32)
        codes = np.concatenate([pairs & 15, pairs >> 4], axis=-2)
        return 4, _rows(codes), _rows(scale * factors), _rows(-(offset * offsets))
    return None


def _half(pair: np.ndarray) -> np.ndarray:
    """The two bytes of a float16 as float32, [row, block, 1]."""
    return np.ascontiguousarray(pair).view(np.float16).astype(np.float32)


def _centred(blocks: np.ndarray, middle: int) -> tuple[np.ndarray, np.ndarray]:
    """Scales and biases for codes around `middle`: a power of two, so the bias is exact in float16."""
    scales = np.ascontiguousarray(blocks[..., :2]).view(np.float16)[..., 0]
    return scales, (scales.astype(np.float32) * -middle).astype(np.float16)


def _sixes(packed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eight six-bit scales and eight six-bit offsets from twelve bytes, as Q4_K lays them out."""
    low, middle, high = packed[..., :4], packed[..., 4:8], packed[..., 8:]
    scales = np.concatenate([low & 63, (high & 15) | (low >> 6 << 4)], axis=-1)
    offsets = np.concatenate([middle & 63, (high >> 4) | (middle >> 6 << 4)], axis=-1)
    return scales.astype(np.float32), offsets.astype(np.float32)


def _rows(blocks: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(blocks.reshape(blocks.shape[0], -1))


def words(codes: np.ndarray, bits: int) -> np.ndarray:
    """Codes [row, column] as MLX packs them: a stream of bits, the lowest first, in 32-bit words."""
    if bits == 8:
        return codes.view("<u4")
    stream = np.unpackbits(codes[..., None], axis=-1, count=bits, bitorder="little")
    return np.packbits(stream.reshape(len(codes), -1), axis=-1, bitorder="little").view("<u4")
