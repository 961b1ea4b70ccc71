"""The site of an atlas on this machine alone, by the standard library's server."""

from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

from vislens_interp.atlas.store import AtlasStore

HOST = "127.0.0.1"
"""Nobody else reaches it."""


class _Quiet(SimpleHTTPRequestHandler):
    """Files of one folder, without a line for each request."""

    extensions_map: ClassVar[dict[str, str]] = {
        **SimpleHTTPRequestHandler.extensions_map,
        ".js": "text/javascript",
        ".webp": "image/webp",
        ".parquet": "application/vnd.apache.parquet",
    }

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class names it so)
        pass

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-cache")  # a later run may have written the files anew
        super().end_headers()


def site_server(folder: str | Path, port: int = 0) -> ThreadingHTTPServer:
    """A server of the site; ``serve_forever()`` starts it, ``server_address`` says where.

    Args:
        folder: A finished atlas.
        port: 0 takes any that is free.

    Raises:
        FileNotFoundError: There is no atlas, or no site in it.
        OSError: The port is taken.
    """
    store = AtlasStore.open(folder)
    if not (store.folder / "index.html").is_file():
        raise FileNotFoundError(
            f"folder={str(folder)!r} holds an atlas without a site; write it: vislens atlas with the same arguments, or"
            " Atlas.save(..., site=True)."
        )
    try:
        return ThreadingHTTPServer((HOST, port), partial(_Quiet, directory=str(store.folder)))
    except OSError as error:
        raise OSError(
            error.errno, f"port={port} cannot be used ({error.strerror}); name another one, or 0 for any that is free"
        ) from error
