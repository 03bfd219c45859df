"""Pictures from the web, for operators who named the hosts (`--allow-media-domain`).

https alone, on its usual port, from those hosts alone. The host's address is looked up once, has to be public, and is
the one that is connected to, so that a name cannot come to mean another machine in between. Every redirect is a new
address and looked at in the same way.
"""

import asyncio
import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import SplitResult, urljoin, urlsplit

from neo.serving.media import MediaError

PORT = 443


class Allowance:
    """Bytes that all pictures of one request may have together; taken from by several threads."""

    def __init__(self, most: int) -> None:
        self.most, self._left, self._lock = most, most, threading.Lock()

    def take(self, count: int, name: str) -> None:
        """So many are read.

        Raises:
            MediaError: there were not so many left.
        """
        with self._lock:
            self._left -= count
        if self._left < 0:
            raise MediaError(413, "size", f"with {name} the pictures fetched have more than {self.most} bytes")


class Fetcher:
    """Fetches from a list of hosts."""

    def __init__(self, hosts: tuple[str, ...], *, seconds: float, redirects: int = 0, at_once: int = 8) -> None:
        self.hosts = {host.lower().rstrip(".") for host in hosts}
        self.seconds, self.redirects = seconds, redirects
        self.tls = ssl.create_default_context()
        self._places = asyncio.Semaphore(at_once)
        self._threads = ThreadPoolExecutor(at_once, "neo-fetch")

    async def fetch(self, url: str, name: str, allowance: Allowance) -> bytes:
        """The file at an address; `name` is what refusals call it.

        Raises:
            MediaError: it is not allowed, not reached, too large or too slow; never with an address in its words.
        """
        self.check(url, name)
        await self._places.acquire()
        fetched = asyncio.get_running_loop().run_in_executor(self._threads, self._fetch, url, name, allowance)
        fetched.add_done_callback(self._leave)
        try:
            async with asyncio.timeout(self.seconds):
                # Looking a name up cannot be broken off: its thread has the place until it ends.
                return await asyncio.shield(fetched)
        except TimeoutError:
            raise _unreachable(name) from None

    def _leave(self, fetched: "asyncio.Future[bytes]") -> None:
        self._places.release()
        fetched.exception()  # has been looked at: whoever waited may have gone

    def check(self, url: str, name: str) -> SplitResult:
        """An address, if it is one that may be fetched."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise MediaError(400, "address", f"{name}: its address cannot be read") from None
        if not self.hosts:
            raise MediaError(400, "address", f"{name}: only data: addresses are taken here, data:image/png;base64,...")
        if parts.scheme != "https" or port not in (None, 443) or parts.username is not None:
            raise MediaError(400, "address", f"{name}: only plain https addresses are fetched")
        if (parts.hostname or "").rstrip(".") not in self.hosts:
            raise MediaError(400, "address", f"{name}: its host is not among those that this server fetches from")
        return parts

    def _fetch(self, url: str, name: str, allowance: Allowance) -> bytes:
        deadline = time.monotonic() + self.seconds
        try:
            for _ in range(self.redirects + 1):
                parts = self.check(url, name)
                connection = _Pinned(
                    parts.hostname or "", public_address(parts.hostname or "", name), deadline, self.tls
                )
                try:
                    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
                    connection.request("GET", path, headers={"Accept": "image/*", "Accept-Encoding": "identity"})
                    response = connection.getresponse()
                    if response.status not in (301, 302, 303, 307, 308):
                        return self._read(response, connection, name, allowance)
                    url = urljoin(url, response.getheader("Location", ""))
                finally:
                    connection.watchdog.cancel()
                    connection.close()
        except (OSError, http.client.HTTPException, ValueError):  # ValueError: a control character in the address
            raise _unreachable(name) from None
        raise MediaError(422, "fetch", f"{name}: its address leads on to another")

    def _read(
        self, response: http.client.HTTPResponse, connection: "_Pinned", name: str, allowance: Allowance
    ) -> bytes:
        if response.status != 200:
            raise _unreachable(name)
        data = bytearray()
        while piece := response.read1(65536):
            data += piece
            allowance.take(len(piece), name)
        if connection.broken_off:
            raise TimeoutError
        return bytes(data)


class _Pinned(http.client.HTTPSConnection):
    """A connection to one address, whose certificate must be the host's; broken off at a deadline, wherever it is."""

    def __init__(self, host: str, address: str, deadline: float, tls: ssl.SSLContext) -> None:
        super().__init__(host, PORT, context=tls)
        self._address, self._deadline, self._tls = address, deadline, tls
        self._socket: ssl.SSLSocket | None = None  # kept here, for where a response has taken it over
        self.broken_off = False
        self.watchdog = threading.Timer(self._left(), self._break_off)
        """To be cancelled. A socket's own timeout begins anew with every byte."""
        self.watchdog.daemon = True
        self.watchdog.start()

    def connect(self) -> None:
        plain = socket.create_connection((self._address, PORT), self._left())
        try:
            tls = self._tls.wrap_socket(plain, server_hostname=self.host, do_handshake_on_connect=False)
        except BaseException:
            plain.close()
            raise
        self.sock = self._socket = tls
        self._left()  # the watchdog may have found no socket
        tls.do_handshake()

    def _break_off(self) -> None:
        self.broken_off = True
        if self._socket is not None:
            with contextlib.suppress(OSError):  # closed already
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)  # which wakes whoever waits for it

    def _left(self) -> float:
        if (left := self._deadline - time.monotonic()) <= 0:
            raise TimeoutError
        return left


def public_address(host: str, name: str) -> str:
    """The address of a host; refused where any of its addresses is not public.

    Raises:
        MediaError: it has none, or one that is not.
    """
    try:
        found = _look_up(host)
    except (OSError, UnicodeError):
        raise _unreachable(name) from None
    if not found or not all(is_public(address) for address in found):
        raise _unreachable(name)
    return found[0]


def _look_up(host: str) -> list[str]:
    return [str(entry[4][0]) for entry in socket.getaddrinfo(host, PORT, type=socket.SOCK_STREAM)]


def is_public(address: str) -> bool:
    """Whether an address is of the internet: not this machine, a private or local net or a cloud's metadata."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        # Reserved are also those that begin with zeros, in which an IPv4 address can hide in several ways.
        if ip.is_reserved or ip.ipv4_mapped or ip.sixtofour or ip.teredo:
            return False
        if ip.is_site_local:
            return False
    return ip.is_global and not ip.is_multicast


def _unreachable(name: str) -> MediaError:
    return MediaError(422, "fetch", f"{name} cannot be fetched")
