"""Results as other libraries have them: pandas' data frames, Parquet files, figures that notebooks show."""

import io
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vislens_interp.files import write_bytes
from vislens_interp.validation import missing_library

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


class Tabular(ABC):
    """What can be had as a table, a row an observation."""

    @abstractmethod
    def columns(self) -> Mapping[str, Any]:
        """Name of a column to its values, all of one length; None where there is none."""

    def to_pandas(self) -> "pd.DataFrame":
        """The table as a data frame.

        Raises:
            ImportError: pandas is not installed; the message says how.
        """
        try:
            import pandas
        except ImportError as error:
            raise missing_library("to_pandas() needs pandas", "tables") from error
        return pandas.DataFrame(dict(self.columns()))

    def to_parquet(self, path: str | os.PathLike[str]) -> Path:
        """The table as a Parquet file, whole or not at all; an earlier file is replaced.

        Raises:
            ImportError: pyarrow is not installed; the message says how.
            OSError: It cannot be written; what was there before is still there.
        """
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError as error:
            raise missing_library("to_parquet() needs pyarrow", "tables") from error
        buffer = io.BytesIO()
        parquet.write_table(pyarrow.table(dict(self.columns())), buffer, compression="zstd")
        return write_bytes(path, buffer.getvalue())


@cache
def figure_class() -> "type[Figure]":
    """Matplotlib's figure, which a notebook shows without pyplot too."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    class ShownFigure(Figure):
        def _repr_png_(self) -> bytes:
            buffer = io.BytesIO()
            FigureCanvasAgg(self).print_png(buffer)
            return buffer.getvalue()

    return ShownFigure
