"""One GET of an application's metrics: bounded in time and size, its errors translated, its password never shown.

The only place that speaks HTTP. ``http.client`` and no more: what follows redirects by itself would follow them to
files, and what reads proxies from the environment would ask somebody else than whom the configuration names.
"""

from __future__ import annotations

import base64
import http.client
import queue
import socket
import ssl
import threading
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote_to_bytes, urljoin, urlsplit

from perfctl.errors import CommandFailed, ConfigError, ConnectionLost, Denied, NoAnswer, PerfctlError, Unreachable

#: The largest answer that is read; metrics of a large application are a tenth of it.
LIMIT_BYTES = 4 << 20

#: How long an answer is waited for where nobody says otherwise.
TIMEOUT_S = 5.0

#: How often an answer may send on to another address.
_REDIRECTS = 5
#: How the names of charsets begin that are taken at their word; Python has codecs that are none, and slow ones.
_CHARSETS = ("utf-16", "utf-32", "iso-8859", "latin", "windows-125", "us-ascii", "ascii")

_SENDS_ON = (301, 302, 303, 307, 308)


def get(url: str, timeout_s: float) -> str:
    """The text that stands at an address, within ``timeout_s`` altogether, name look-up and redirects included.

    Raises Unreachable, NoAnswer, Denied, ConfigError, or CommandFailed with the status as code.
    """
    answers: queue.SimpleQueue[str | BaseException] = queue.SimpleQueue()
    line = _Line(timeout_s)

    def ask() -> None:
        try:
            answers.put(_followed(url, line))
        except BaseException as error:  # noqa: BLE001 - it is raised again where the answer is waited for
            answers.put(error)

    # A thread of its own: nothing else bounds a name look-up, or a server that sends a byte now and then.
    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=timeout_s)
    except queue.Empty:
        raise NoAnswer(f"no whole answer from {shown(url)} within {timeout_s:g} s") from None
    finally:
        line.cut()
    if isinstance(answer, BaseException):
        raise answer
    return answer


def shown(url: str) -> str:
    """The address without user, password and query, each of which may be a secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


@dataclass(slots=True)
class _Line:
    """The connection that is open now, for whoever waits to end it."""

    timeout_s: float
    _link: http.client.HTTPConnection | None = None
    _cut: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def open(self, parts: SplitResult) -> http.client.HTTPConnection:
        """A connection that is not made yet."""
        host, port = parts.hostname or "", parts.port
        link = (
            http.client.HTTPSConnection(host, port, timeout=self.timeout_s, context=ssl.create_default_context())
            if parts.scheme == "https"
            else http.client.HTTPConnection(host, port, timeout=self.timeout_s)
        )
        with self._lock:
            if self._cut:
                raise NoAnswer("nobody waits any more")
            self._link = link
        return link

    def cut(self) -> None:
        """End it, whatever it is doing."""
        with self._lock:
            self._cut = True
            sock = self._link.sock if self._link is not None else None
        if sock is not None:
            try:
                # Closing alone would not wake up who reads.
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                return


def _followed(url: str, line: _Line) -> str:
    first = _origin(url)
    secret = _basic(url)
    for _ in range(_REDIRECTS + 1):
        if urlsplit(url).scheme not in ("http", "https"):
            raise Unreachable(f"an answer leads to {urlsplit(url).scheme}:, which is not read")
        # Somebody else is not told the password.
        status, text, leads_to = _once(url, secret if _origin(url) == first else None, line)
        if status in _SENDS_ON and leads_to:
            url = _led_to(url, leads_to)
            continue
        if 200 <= status < 300:
            return text
        raise _refusal(status, url)
    raise Unreachable(f"{shown(url)} sends on more than {_REDIRECTS} times")


def _led_to(url: str, location: str) -> str:
    try:
        found = urljoin(url, location)
        urlsplit(found)
    except ValueError:
        raise Unreachable(f"{shown(url)} sends on to what is no address") from None
    return found


def _once(url: str, secret: str | None, line: _Line) -> tuple[int, str, str | None]:
    headers = {"Accept": "application/json, text/plain;q=0.9, */*;q=0.5", "Accept-Encoding": "identity"}
    if secret:
        headers["Authorization"] = f"Basic {secret}"
    link: http.client.HTTPConnection | None = None
    answer: http.client.HTTPResponse | None = None
    try:
        parts = urlsplit(url)
        link = line.open(parts)
        link.request("GET", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""), headers=headers)
        answer = link.getresponse()
        if not 200 <= answer.status < 300:
            return answer.status, "", answer.getheader("Location")
        body = answer.read(LIMIT_BYTES + 1)
        if len(body) > LIMIT_BYTES:
            raise Unreachable(f"{shown(url)} answers with more than {LIMIT_BYTES >> 20} MB")
        # Reading up to a bound, http.client takes an answer that breaks off for a whole one.
        if answer.length not in (None, 0):
            raise ConnectionLost(f"the answer from {shown(url)} breaks off")
        return answer.status, _text(body, answer.headers.get_content_charset("utf-8")), None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _unreached(url, error, line.timeout_s) from error
    finally:
        for each in (answer, link):
            if each is not None:
                each.close()


def _text(body: bytes, charset: str) -> str:
    """What was answered; of a charset in which no text is written as what it nearly always is."""
    if charset != "utf-8" and charset.startswith(_CHARSETS):
        try:
            return body.decode(charset, "replace")
        except (LookupError, ValueError):
            pass
    return body.decode("utf-8-sig", "replace")


def _unreached(url: str, error: Exception, timeout_s: float) -> PerfctlError:
    where = shown(url)
    if isinstance(error, TimeoutError):
        return NoAnswer(f"no answer from {where} within {timeout_s:g} s")
    if isinstance(error, ssl.SSLCertVerificationError):
        return Unreachable(f"no TLS with {where}: {error.verify_message}")
    if isinstance(error, ssl.SSLError):
        return Unreachable(f"no TLS with {where}: {error.reason or error}")
    if isinstance(error, OSError):
        return Unreachable(f"cannot reach {where}: {error.strerror or type(error).__name__}")
    if isinstance(error, (http.client.InvalidURL, ValueError)):
        return ConfigError(f"{where} is no address that HTTP knows")
    if isinstance(error, http.client.IncompleteRead):
        return ConnectionLost(f"the answer from {where} breaks off")
    return Unreachable(f"{where} does not speak HTTP: {type(error).__name__}")


def _refusal(status: int, url: str) -> PerfctlError:
    text = f"{shown(url)} answers {status} {http.client.responses.get(status, '')}".rstrip()
    if status in (401, 403):
        return Denied(text, hint="a user and password stand in the address: https://user:password@host/path")
    if status >= 500 or status == 429:
        return Unreachable(text)
    return CommandFailed(text, code=str(status))


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.rpartition("@")[2]


def _basic(url: str) -> str | None:
    user, at, _ = urlsplit(url).netloc.rpartition("@")
    return base64.b64encode(unquote_to_bytes(user)).decode() if at else None
