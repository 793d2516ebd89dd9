"""Tell programs from web pages: whoever visits a page lets it call any port of this machine."""

from aiohttp import web

LOCAL_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})
"""A page that had its own name resolved to this machine is of one origin with us, but still asks for that name."""


def is_web_page(request: web.Request) -> bool:
    """Return whether a request comes from a browser, or names a host that this machine does not have by itself."""
    if "Origin" in request.headers or "Sec-Fetch-Site" in request.headers:
        return True
    name = request.headers.get("Host", "127.0.0.1").lower()
    name = name[: name.index("]") + 1] if name.startswith("[") and "]" in name else name.partition(":")[0]
    return name not in LOCAL_NAMES
