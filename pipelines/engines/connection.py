"""Opens an engine by its name, in a temporary working directory."""

import contextlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

from dlen_cam2.utils.errors import UserError
from pipelines.engines.duckdb_engine import Duckdb
from pipelines.engines.engine import Engine
from pipelines.engines.spark_engine import Spark

ENGINES = ("duckdb", "spark")


@contextlib.contextmanager
def connect(name: str, beside: str | os.PathLike, memory: str = "2GB", master: str = "local[*]") -> Iterator[Engine]:
    """Open the engine `name` with a working directory beside `beside`, which is removed at the end.

    Args:
        name: one of `ENGINES`.
        beside: the data set to write, on a disk with enough space that every machine of a cluster can access.
        memory: the memory that the engine may use, such as "2GB", before it writes to disk (for Spark, the driver).
        master: the master of Spark, such as "local[*]", "yarn" or "spark://host:7077".

    Raises:
        UserError: there is no such engine, or it cannot be started.
    """
    if name not in ENGINES:
        raise UserError(f"engine must be one of {ENGINES}. Received: {name!r}.")
    target = pathlib.Path(beside).resolve()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        directory = tempfile.mkdtemp(prefix=f".{target.name}.work-", dir=target.parent)
    except OSError as error:
        raise UserError(f"{target} cannot be created: {error}.") from error
    try:
        engine = Duckdb(directory, memory) if name == "duckdb" else Spark(directory, memory, master)
        try:
            yield engine
        finally:
            engine.close()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
