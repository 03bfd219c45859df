"""Orders that need no memory."""

_MASK = (1 << 64) - 1


def permuted(place: int, size: int, key: int) -> int:
    """Where a permutation of `range(size)`, chosen by `key`, sends `place`; without holding the permutation.

    A Feistel network permutes the next power of four; places that land outside are sent on until inside.
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    low = (1 << half) - 1
    while True:
        left, right = place >> half, place & low
        for turn in range(4):
            left, right = right, left ^ (mix(key + turn, right) & low)
        place = left << half | right
        if place < size:
            return place


def mix(key: int, value: int) -> int:
    """Scatter two numbers to 64 bits (the finaliser of splitmix64)."""
    x = (key * 0x9E3779B97F4A7C15 + value * 0xD1B54A32D192ED03 + 0x2545F4914F6CDD1D) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)
