"""Who may ask LIT: only those who were given its address, and no page of anybody else's.

LIT listens on this machine alone, but every page that the reader's browser shows, and every user of the machine, can
send requests there. So the address has a secret in its path, drawn anew at each start: in the path and not in a
cookie, since a frame in a notebook may be refused cookies, and all addresses in LIT's page are relative to its own.
"""

import hmac
import json
import re
from collections.abc import Callable, Iterable
from types import TracebackType
from urllib.parse import urlsplit
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

Write = Callable[[bytes], object]
OptExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]

LOOPBACK = ("127.0.0.1", "localhost", "::1")
WEB_LINK = re.compile(r"""<(link|script)\b[^>]*\b(href|src)=["']?(https?:)?//[^>]*>""", re.IGNORECASE)
# For every answer: the secret goes nowhere with a link that is followed, and text is not taken for a page.
HEADERS = [("Referrer-Policy", "no-referrer"), ("X-Content-Type-Options", "nosniff"), ("Cache-Control", "no-store")]
# Whatever is in the page, a browser asks nobody but LIT.
OWN_ALONE = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; form-action 'self'; base-uri 'none'"
CLOSED = "This is not the whole address of LIT, which only the notebook or terminal that opened it knows: look there.\n"


def guarded(app: WSGIApplication, token: str, proxied: bool, web_fonts: bool = False) -> WSGIApplication:
    """The application for requests under /token/ that come from its own page; all others are refused.

    proxied: it is reached through a notebook server, under whose name the browser asks. web_fonts: the page may ask
    the web for its fonts.
    """
    headers = HEADERS if web_fonts else [*HEADERS, ("Content-Security-Policy", OWN_ALONE)]

    def serve(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        why = refusal(environ, proxied)
        _, first, rest = (environ.get("PATH_INFO", "") + "//").split("/", 2)
        if why is None and not hmac.compare_digest(first.encode("utf-8", "replace"), token.encode()):
            why = CLOSED
        if why is not None:
            start("403 Forbidden", [("Content-Type", "text/plain; charset=utf-8"), *HEADERS])
            return [why.encode()]

        def started(status: str, own: list[tuple[str, str]], error: OptExcInfo | None = None, /) -> Write:
            return start(status, [*own, *headers], error)

        inside = {"SCRIPT_NAME": f"{environ.get('SCRIPT_NAME', '')}/{token}", "PATH_INFO": f"/{rest[:-1].rstrip('/')}"}
        return app(environ | inside, started)

    return serve


def refusal(environ: WSGIEnvironment, proxied: bool) -> str | None:
    """Why a request is none of LIT's own page, or None.

    A page elsewhere can have its name lead to this machine; then the browser asks for that name. And it can send a
    request without being shown the answer; then the browser says where it comes from.
    """
    host = environ.get("HTTP_HOST", "")
    if not proxied and _name(f"//{host}") not in LOOPBACK:
        return f"LIT answers to {' and '.join(LOOPBACK[:2])}, not to {json.dumps(host[:80])}.\n"
    origin = environ.get("HTTP_ORIGIN")
    asks_only = environ.get("REQUEST_METHOD") in ("GET", "HEAD")
    from_elsewhere = environ.get("HTTP_SEC_FETCH_SITE", "same-origin") not in ("same-origin", "none")
    if not asks_only and (from_elsewhere or (origin is not None and _place(origin) != _place(f"//{host}"))):
        return "LIT takes requests from its own page alone.\n"
    return None


def local_page(page: str) -> str:
    """A page of HTML without what it would ask the web for."""
    return WEB_LINK.sub("", page)


def _name(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:  # half of a bracket
        return None


def _place(address: str) -> tuple[str | None, int | None]:
    """Name and port; the port of the web where none is said."""
    try:
        parts = urlsplit(address)
        return parts.hostname, parts.port if parts.port not in (80, 443) else None
    except ValueError:
        return None, -1
