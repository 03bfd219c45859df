"""The generation loop: prompts in, tokens out one by one, tokens to text as they come.

One loop for single questions, batches, streams and conversations. Everything that belongs to a request is an
argument or a local of it, so any number of requests can be under way on one model.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import DynamicCache, PreTrainedTokenizerBase

from neo.inference.sampling import Sampling
from neo.model.neo import NeoForConditionalGeneration
from neo.processing.processor import Encoded


@dataclass
class Memory:
    """What a cache holds: the ids that were fed into it and the grids of their pictures."""

    cache: DynamicCache
    ids: list[int] = field(default_factory=list)
    grids: Tensor = field(default_factory=lambda: torch.empty(0, 2, dtype=torch.long))

    @classmethod
    def empty(cls, model: NeoForConditionalGeneration) -> Self:
        """To begin a conversation with."""
        return cls(DynamicCache(config=model.config.text_config))

    def keep_beginning(self, prompt: Encoded, image_token_id: int) -> None:
        """Forget everything after the longest beginning that the prompt shares.

        The prompt's last token is never part of it, since its logits are wanted, nor is a picture that is not
        whole or has another size there: the tokens of a picture saw one another.
        """
        ids = prompt.input_ids.tolist()
        pairs = zip(self.ids, ids[:-1], strict=False)
        kept = next((i for i, (ours, theirs) in enumerate(pairs) if ours != theirs), min(len(self.ids), len(ids) - 1))
        while kept and ids[kept] == image_token_id == ids[kept - 1]:
            kept -= 1
        for number, (start, _) in enumerate(_runs(self.ids[:kept], image_token_id)):
            if not torch.equal(self.grids[number], prompt.image_grid_hw[number]):
                kept = start
                break
        if kept < len(self.ids):
            self.cache.crop(kept - len(self.ids))
        self.ids = self.ids[:kept]
        self.grids = self.grids[: len(_runs(self.ids, image_token_id))]


def _runs(ids: list[int], token: int) -> list[tuple[int, int]]:
    """Start and stop of every run of `token`. Two pictures never touch: each has its `<img>` and `</img>`."""
    starts = [i for i, one in enumerate(ids) if one == token and (i == 0 or ids[i - 1] != token)]
    stops = [i + 1 for i, one in enumerate(ids) if one == token and (i + 1 == len(ids) or ids[i + 1] != token)]
    return list(zip(starts, stops, strict=True))


def count_steps(model: NeoForConditionalGeneration, prompt: Encoded) -> int:
    """How much of the model's context a prompt takes, in steps of t: one a word token, one a picture."""
    return int(model.get_positions(prompt.input_ids[None], prompt.image_grid_hw)[0].max()) + 1


@torch.inference_mode()
def generate_tokens(
    model: NeoForConditionalGeneration,
    batch: dict[str, Tensor],
    max_new_tokens: int,
    sampling: Sampling,
    stop_ids: frozenset[int],
    memory: Memory | None = None,
) -> Iterator[list[int | None]]:
    """Say the next tokens of each row.

    Args:
        batch: what `NeoProcessor.collate` returns, rows padded on the left.
        max_new_tokens: how many at the most.
        sampling: how they are chosen.
        stop_ids: a row ends before any of these.
        memory: of a single row, its beginning that an earlier call fed; it is brought up to date.

    Yields:
        For each step one token id per row, None where the row has ended.
    """
    device = model.device
    ids_BL, grids = batch["input_ids"].to(device), batch["image_grid_hw"].to(device)
    mask_BL = batch["attention_mask"].to(device)
    memory = memory or Memory.empty(model)
    past, seen = len(memory.ids), len(memory.grids)
    positions = model.get_positions(ids_BL, grids, mask_BL)[..., past:]
    pixels = batch["pixel_values"][int(batch["image_grid_hw"][:seen].prod(-1).sum()) :].to(device)
    padded = not bool(mask_BL.all())
    new_BL, generators = ids_BL[:, past:], sampling.generators(len(ids_BL))
    running = [True] * len(ids_BL)
    for step in range(max_new_tokens):
        logits = model(
            input_ids=new_BL,
            attention_mask=mask_BL if padded else None,
            position_ids=positions,
            past_key_values=memory.cache,
            pixel_values=pixels if step == 0 and len(pixels) else None,
            image_grid_hw=grids[seen:] if step == 0 and len(pixels) else None,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        memory.ids += new_BL[0].tolist()
        memory.grids = batch["image_grid_hw"]
        chosen = sampling.choose(logits, generators)
        said = chosen.tolist()
        running = [on and token not in stop_ids for on, token in zip(running, said, strict=True)]
        if not any(running):
            return
        yield [token if on else None for token, on in zip(said, running, strict=True)]
        # Words count on in t and stand at h = w = 0; rows that ended go on unheard.
        new_BL = chosen[:, None]
        positions = F.pad(positions[:1, :, -1:] + 1, (0, 0, 0, 0, 0, 2))
        mask_BL = F.pad(mask_BL, (0, 1), value=1)


def to_text(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    """What the model said, without special tokens."""
    return str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def text_pieces(tokenizer: PreTrainedTokenizerBase, tokens: Iterable[int]) -> Iterator[str]:
    """Text as its tokens come; the pieces joined are `to_text` of all tokens.

    A token may hold only a part of a character. Decoded text that ends in a replacement character may be such
    a part, so it waits for the next token.
    """
    waiting: list[int] = []
    for token in tokens:
        waiting.append(token)
        text = to_text(tokenizer, waiting)
        if text and not text.endswith("\N{REPLACEMENT CHARACTER}"):
            yield text
            waiting = []
    if text := to_text(tokenizer, waiting):
        yield text
