"""The site of an atlas on this machine alone, by the standard library's server."""

import os
from collections.abc import Sequence
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote

from vislens_interp.atlas.site import check_site
from vislens_interp.atlas.store import COMPARISONS, MANIFEST, AtlasStore

HOST = "127.0.0.1"
"""Nobody else reaches it."""
PORTS = 2**16 - 1
"""The largest number of a port."""


class _Quiet(SimpleHTTPRequestHandler):
    """Files of atlases below one folder, without a line for each request."""

    folders: Sequence[Path]

    def translate_path(self, path: str) -> str:
        found = super().translate_path(path)
        inside = any(Path(found).is_relative_to(folder) for folder in self.folders)
        return found if inside else str(self.folders[0] / "nothing is here")

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


def site_server(folder: str | Path, port: int = 0) -> tuple[ThreadingHTTPServer, str]:
    """A server of the site, which ``serve_forever()`` starts, and the address of its index.

    Atlases that it was compared with are served too, because its pages link to them: then the address ends in the
    name of the folder.

    Args:
        folder: A finished atlas.
        port: 0 takes any that is free.

    Raises:
        FileNotFoundError: There is no atlas, or no site in it.
        OSError: The port is taken.
        ValueError: It is no port.
    """
    if not 0 <= port <= PORTS:
        raise ValueError(f"port={port}; expected a whole number from 0 to {PORTS}, 0 for any that is free.")
    store = AtlasStore.open(folder)
    check_site(store)
    own = store.folder.resolve()
    others = [(own / COMPARISONS / one["other"]).resolve() for one in store.comparisons().values()]
    served = [own, *(other for other in others if (other / MANIFEST).is_file())]
    root = Path(os.path.commonpath(served))

    class Site(_Quiet):
        folders = served

    try:
        server = ThreadingHTTPServer((HOST, port), partial(Site, directory=str(root)))
    except OSError as error:
        raise OSError(
            error.errno, f"port={port} cannot be used ({error.strerror}); name another one, or 0 for any that is free"
        ) from error
    below = "" if own == root else f"{quote(own.relative_to(root).as_posix())}/"
    return server, f"http://{HOST}:{server.server_address[1]}/{below}"
