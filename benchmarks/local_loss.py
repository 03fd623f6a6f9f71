"""Time the local loss beside the same mathematics written as a loop over texts: `python benchmarks/local_loss.py`.

Both run in one process on the same tensors, forward and backward, in turn; the table gives medians and their ratio.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from cmlr_utils.models.losses import local_loss

SIZES = ((16, 768, 7, 40), (16, 768, 19, 60), (32, 768, 19, 97))  # B, D, H = W, N
REPEATS = 5
TABLE = Path(__file__).with_name("local_loss.md")


def loop_loss(image_local: Tensor, words: Tensor) -> Tensor:
    """The published loss as it is usually written: one text at a time, every context vector built."""
    batch, width, height, _ = image_local.shape
    regions = image_local.flatten(2)  # [B, D, R]
    columns = []
    for text in words:  # [D, N]
        query = text.expand(batch, -1, -1)  # [B, D, N]
        attention = (regions.transpose(1, 2) @ query).softmax(-1)  # [B, R, N], over words
        attention = (attention / 0.25).softmax(1)  # over regions
        context = regions @ attention  # [B, D, N]
        columns.append((F.cosine_similarity(query, context, dim=1) / 0.2).logsumexp(-1))
    logits = torch.stack(columns, 1) / 0.1  # [B images, B texts]
    pairs = torch.arange(batch)
    return F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)


def library_loss(image_local: Tensor, words: Tensor) -> Tensor:
    loss = local_loss(image_local, words, torch.ones(len(words), words.shape[2], dtype=torch.bool))
    return loss.image_to_text + loss.text_to_image


def seconds(loss: Callable[[Tensor, Tensor], Tensor], *tensors: Tensor) -> float:
    leaves = [tensor.clone().requires_grad_() for tensor in tensors]
    start = time.perf_counter()
    loss(*leaves).backward()
    return time.perf_counter() - start


def main() -> None:
    torch.manual_seed(0)
    lines = [
        f"Made by `make bench`: {platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, CPU, float32; "
        f"medians of {REPEATS}.",
        "",
        "| B | D | map | words | loop, s | `local_loss`, s | ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    for batch, width, side, num_words in tqdm(SIZES, desc="local loss", unit="size"):
        tensors = (
            torch.randn(batch, width, side, side) / width**0.5,
            torch.randn(batch, width, num_words) / width**0.5,
        )
        torch.testing.assert_close(loop_loss(*tensors), library_loss(*tensors), rtol=1e-4, atol=1e-4)
        loop, library = [], []
        for _ in range(REPEATS):
            loop.append(seconds(loop_loss, *tensors))
            library.append(seconds(library_loss, *tensors))
        slow, fast = statistics.median(loop), statistics.median(library)
        lines.append(
            f"| {batch} | {width} | {side} x {side} | {num_words} | {slow:.3f} | {fast:.3f} | {slow / fast:.1f} |"
        )
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(TABLE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
