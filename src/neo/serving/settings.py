"""What an operator can set, with the defaults."""

import re
from dataclasses import dataclass

_HOST = re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*\.?")
_ORIGIN = re.compile(r"https?://([a-z0-9.-]+|\[[0-9a-f:]+\])(:\d+)?")


@dataclass(frozen=True)
class Settings:
    """Limits and doors of a server.

    Raises:
        ValueError: a number below its least, or what is no host or origin.
    """

    name: str = "neo-demo"
    """What the model is called in requests and answers."""
    max_waiting: int = 64
    """Answers that may wait for a place in the running batch; more requests are refused with 429."""
    request_timeout: float = 300.0
    """Seconds from the first byte of a request to the last of its answer."""
    max_body_bytes: int = 32 * 2**20
    """Largest body of a request, pictures included."""
    max_text: int = 1_000_000
    """Most characters of all texts of a request, refused before they are cut into tokens."""
    max_images: int = 16
    """Most pictures of a request."""
    max_image_pixels: int = 50_000_000
    """Most pixels of all pictures of a request together, read from their heads before any is decoded."""
    decoders: int = 2
    """Threads that open pictures and prepare requests, so many at the same time."""
    api_keys: tuple[str, ...] = ()
    """One of these is asked for on every route but /health and the page; none: no key is."""
    rate_limit: int = 0
    """Answers a minute for each key, or for each address where there are no keys; 0: no limit."""
    media_domains: tuple[str, ...] = ()
    """Hosts from which pictures are fetched over https; none: only data: addresses."""
    media_redirects: int = 0
    """Redirects followed while fetching; the address is checked anew at each."""
    media_timeout: float = 10.0
    """Seconds for fetching one picture."""
    origins: tuple[str, ...] = ()
    """Origins of web pages that may read the answers (CORS)."""

    def __post_init__(self) -> None:
        least = {
            "max_waiting": 0,
            "max_body_bytes": 1024,
            "max_text": 1,
            "max_images": 0,
            "max_image_pixels": 4,
            "decoders": 1,
            "rate_limit": 0,
            "media_redirects": 0,
        }
        for name, low in least.items():
            if getattr(self, name) < low:
                raise ValueError(f"{name}={getattr(self, name)} must be at least {low}")
        for host in self.media_domains:
            if not _HOST.fullmatch(host):
                raise ValueError(
                    f"media_domains (--allow-media-domain) has {host!r}, which must be a host's name alone: a.example"
                )
        for origin in self.origins:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"origins (--allow-origin) has {origin!r}, which must be as browsers send it: https://a.example"
                )
        for name in ("request_timeout", "media_timeout"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} must be a number of seconds above 0")
