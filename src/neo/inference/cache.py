"""Keys and values of the sequences under way, and of finished ones that a later request may begin with.

Every sequence has one store: per layer its keys, 2 * head_dim wide, and its values, head_dim wide, as they are and one
token after the other, so that attention reads them in place. All stores share one budget. A finished sequence's store
is kept until the room is needed, least recently used first. A request that begins with the same content (same words,
pictures of the same pixels) takes its beginning from there: by taking the store over where little else is in it, by
copying otherwise.

A device may have less memory than the budget allows, as others take from it too: what is kept is forgotten then, and
where that is not enough, whoever asked is told (`OutOfMemory`) and nothing has changed for others.
"""

import logging
import traceback
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from neo.model.config import NeoTextConfig
from neo.model.linear import fastest_dtype
from neo.model.sizes import cache_bytes_per_token

logger = logging.getLogger(__name__)
T = TypeVar("T")

GROWTH = 128
"""Tokens by which stores grow."""
MOST_KEPT = 256
"""Finished sequences kept at the most, since each is compared with every new request."""


def cache_dtype(devices: Sequence[torch.device], dtype: torch.dtype) -> torch.dtype:
    """What keys and values of a model in `dtype` are kept in, whose layers compute on these devices.

    In float32 on processors that cannot multiply bf16: made into that once, not again for every token that reads them.
    """
    fastest = {fastest_dtype(device, dtype) for device in devices}
    return fastest.pop() if len(fastest) == 1 else dtype


class OutOfMemory(ValueError):
    """A device has no memory left for keys and values."""


class Store:
    """Keys and values of one sequence; the first `length` of `capacity` tokens are filled."""

    def __init__(
        self, config: NeoTextConfig, dtype: torch.dtype, devices: Sequence[torch.device], capacity: int
    ) -> None:
        self.length, self.capacity = 0, capacity
        heads, D = config.num_key_value_heads, config.head_dim
        self.keys = [_allocate((1, heads, capacity, 2 * D), dtype, device) for device in devices]
        self.values = [_allocate((1, heads, capacity, D), dtype, device) for device in devices]
        """Of each layer, where it computes."""
        self.contents = np.empty(capacity, np.int64)
        """Of each token its id, or for a picture's the number that stands for its pixels."""

    def grow(self, capacity: int) -> None:
        """Make room for more tokens, one layer after the other, so that only one is ever held twice.

        Where memory runs out halfway, all is as it was but that some layers have more room than they need.
        """
        self.contents = np.concatenate([self.contents[: self.length], np.empty(capacity - self.length, np.int64)])
        for layers in (self.keys, self.values):
            for layer, held in enumerate(layers):
                layers[layer] = _longer(held, capacity, self.length)
        self.capacity = capacity

    def write(self, layer: int, start: int, keys_1KLE: Tensor, values_1KLD: Tensor) -> tuple[Tensor, Tensor]:
        """Put the next tokens of one layer in at `start`; returns all keys and values of that layer up to them."""
        stop = start + keys_1KLE.shape[2]
        self.keys[layer][:, :, start:stop] = keys_1KLE
        self.values[layer][:, :, start:stop] = values_1KLD
        return self.keys[layer][:, :, :stop], self.values[layer][:, :, :stop]

    def advance(self, contents: np.ndarray) -> None:
        """Say that every layer holds the next tokens, and what they are."""
        self.contents[self.length : self.length + len(contents)] = contents
        self.length += len(contents)

    def shared_with(self, contents: np.ndarray) -> int:
        """Tokens at the beginning that are the same."""
        return shared_beginning(self.contents[: self.length], contents)


def shared_beginning(a: np.ndarray, b: np.ndarray) -> int:
    """Tokens at the beginning of two contents that are the same."""
    common = min(len(a), len(b))
    differ = np.flatnonzero(a[:common] != b[:common])
    return int(differ[0]) if len(differ) else common


class CacheMemory:
    """All stores of an engine, within one budget."""

    def __init__(
        self,
        config: NeoTextConfig,
        dtype: torch.dtype,
        devices: Sequence[torch.device],
        budget: int,
        reuse: bool = True,
    ) -> None:
        """Prepare the memory; it is taken as stores are opened.

        Args:
            config: sizes of the decoder.
            dtype: of keys and values.
            devices: where each layer computes, and so where its keys and values live.
            budget: bytes for all stores together.
            reuse: keep finished sequences for requests that begin like them.
        """
        self.config, self.dtype, self.devices, self.reuse = config, dtype, devices, reuse
        self.capacity = budget // cache_bytes_per_token(config, dtype) // GROWTH * GROWTH
        """Tokens that fit in all, a multiple of those by which stores grow."""
        self.used = 0
        """Tokens that stores were opened for."""
        self.live: list[Store] = []
        self.kept: OrderedDict[int, Store] = OrderedDict()  # by id(store), least recently used first

    def fits(self, tokens: int) -> bool:
        """Whether one sequence of this length could ever be held."""
        return tokens <= self.capacity

    def open(self, contents: np.ndarray, room: int, known: Sequence[Store] = ()) -> Store | None:
        """A store for a sequence of these contents, filled with as much of its beginning as is known.

        At least the last token is left to be computed, since its logits are wanted.

        Args:
            contents: of all its tokens.
            room: tokens that it is to hold.
            known: stores to look into where nothing is reused otherwise.

        Returns:
            None when there is no room; nothing has changed then but what was kept.

        Raises:
            OutOfMemory: a device has none left; nothing has changed then but what was kept.
        """
        source, shared = _best([*self.live, *self.kept.values()] if self.reuse else known, contents[:-1])
        if source is not None and id(source) in self.kept and 2 * shared >= source.length:
            return self._take_over(source, shared, room)
        if not self._make_room(_rounded(room), spare=source):
            if source is None or id(source) not in self.kept:
                return None
            return self._take_over(source, shared, room)
        key = id(source)
        if key in self.kept:
            self.kept.move_to_end(key)
            source = None  # not held here: what is kept may be forgotten for its memory
        store = self._new(_rounded(room))
        source = self.kept.get(key, source)
        if source is not None:
            self._copy(source, store, shared)
        return store

    def longest_known(self, contents: np.ndarray) -> int:
        """Tokens at the beginning of these contents that some store holds."""
        return _best([*self.live, *self.kept.values()], contents[:-1])[1] if self.reuse else 0

    def grow(self, store: Store, room: int) -> bool:
        """Let a live store hold so many tokens; False when there is no room for that.

        Raises:
            OutOfMemory: a device has none left.
        """
        if room <= store.capacity:
            return True
        capacity = _rounded(room)
        if not self._make_room(capacity - store.capacity):
            return False
        before = store.capacity
        self._taken(capacity, lambda: store.grow(capacity))
        self.used += capacity - before
        return True

    def close(self, store: Store, keep: bool = True) -> None:
        """End a sequence; what it held is kept for others if there is something to keep."""
        self.live.remove(store)
        if keep and self.reuse and store.length:
            self.kept[id(store)] = store
            if len(self.kept) > MOST_KEPT:
                self._forget_oldest()
        else:
            self.used -= store.capacity

    def forget(self) -> None:
        """Drop everything that is kept."""
        while self.kept:
            self._forget_oldest()

    def _new(self, capacity: int) -> Store:
        store = self._taken(capacity, lambda: Store(self.config, self.dtype, self.devices, capacity))
        self.used += capacity
        self.live.append(store)
        return store

    def _take_over(self, store: Store, shared: int, room: int) -> Store | None:
        del self.kept[id(store)]
        self.live.append(store)
        kept_length, store.length = store.length, shared
        try:
            if self.grow(store, room):
                return store
        except OutOfMemory:
            self.close(store, keep=False)
            raise
        store.length = kept_length
        self.close(store)
        return None

    def _taken(self, tokens: int, take: Callable[[], T]) -> T:
        """What needs memory for so many tokens; what is kept is forgotten for it where a device has none left."""
        while True:
            try:
                return take()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if not self.kept:
                    traceback.clear_frames(error.__traceback__)  # they hold what was had of it until then
                    size = tokens * cache_bytes_per_token(self.config, self.dtype)
                    raise OutOfMemory(
                        f"there is no memory left for a cache of {tokens} tokens, {size:,} bytes, beside {self.used} "
                        "tokens in use: ask for less, or free memory on the device"
                    ) from error
                self._forget_oldest()

    def _copy(self, source: Store, target: Store, length: int) -> None:
        for layers, known in ((target.keys, source.keys), (target.values, source.values)):
            for layer, held in zip(layers, known, strict=True):
                layer[:, :, :length] = held[:, :, :length]
        target.contents[:length] = source.contents[:length]
        target.length = length

    def _make_room(self, tokens: int, spare: Store | None = None) -> bool:
        """Forget kept stores, but for one, until so many tokens are free; none if all together were not enough."""
        keys = [key for key in self.kept if spare is None or key != id(spare)]
        if self.used - sum(self.kept[key].capacity for key in keys) + tokens > self.capacity:
            return False
        for key in keys:
            if self.used + tokens <= self.capacity:
                break
            self.used -= self.kept.pop(key).capacity
        return True

    def _forget_oldest(self) -> None:
        self.used -= self.kept.popitem(last=False)[1].capacity


def _best(stores: Sequence[Store], contents: np.ndarray) -> tuple[Store | None, int]:
    """The store that shares the longest beginning, and how many tokens that are."""
    best, shared = None, 0
    for store in stores:
        if (common := store.shared_with(contents)) > shared:
            best, shared = store, common
    # Nothing ends inside a picture: its tokens saw one another.
    while shared and shared < len(contents) and contents[shared] == contents[shared - 1] < 0:
        shared -= 1
    return (best, shared) if shared else (None, 0)


def _rounded(tokens: int) -> int:
    return -(-tokens // GROWTH) * GROWTH


def _allocate(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.empty(shape, dtype=dtype, device=device)


def _longer(held_1KLD: Tensor, capacity: int, length: int) -> Tensor:
    """One layer with room for so many tokens, of which the first are copied."""
    heads, room, width = held_1KLD.shape[1:]
    if room >= capacity:
        return held_1KLD
    longer = _allocate((1, heads, capacity, width), held_1KLD.dtype, held_1KLD.device)
    longer[:, :, :length] = held_1KLD[:, :, :length]
    return longer


def is_out_of_memory(error: Exception) -> bool:
    """Whether a device had no memory left. Torch has a class of its own for it on a GPU, elsewhere only these words."""
    words = ("can't allocate memory", "out of memory")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(part in str(error) for part in words)
