"""Where the media of a row are: in a folder, inside an archive, or in the row itself."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vl3.data import rules
from vl3.messages.spool import SCHEME, Spool, data_of_url, file_of_url, is_data_url


@dataclass(frozen=True)
class Files:
    """Finds the media of one row.

    root: where relative paths begin
    members: files of the row's archive by name, each with a function that reads it
    """

    root: Path
    spool: Spool
    members: Mapping[str, Callable[[], bytes]] = field(default_factory=dict)

    def find(self, kind: str, source: object) -> str:
        """The path of a medium given as a path, file: or data: URL, or bytes.

        Raises: BadSample E120 for what is not there or on another machine, E121 for what is no
        ordinary file, E102 for other values.
        """
        if isinstance(source, bytes):
            return self.spool.keep(source)
        if not isinstance(source, str) or not source:
            raise rules.wrong_type(f"the source of {kind}", "a path", source)
        if source in self.members:
            return self.spool.keep(self.members[source]())
        if is_data_url(source):
            try:
                return self.spool.keep(data_of_url(source))
            except ValueError as error:
                raise rules.undecodable(source[:40], str(error)) from None
        path = file_of_url(source)
        if SCHEME.match(path):
            raise rules.web_address(path)
        path = os.path.join(self.root, path)
        try:
            found = os.stat(path)
        except (OSError, ValueError):
            raise rules.not_found(kind, path, str(self.root)) from None
        if not stat.S_ISREG(found.st_mode) or not found.st_size:
            raise rules.no_file(path, found)
        return path
