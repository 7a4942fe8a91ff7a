"""A Spark session: the one that is open already, a local one, a cluster's, or one behind Spark Connect."""

from __future__ import annotations

import gc
import os
import re
import shutil
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clickintent.errors import ClickintentError, ConfigError, MissingDependencyError, error_of, require

_TIMEOUT_S = 10.0
#: Who set one of these has made up his mind about memory, ports and the like.
_CONFIGURED = ("PYSPARK_SUBMIT_ARGS", "SPARK_CONF_DIR", "SPARK_HOME")
#: Of a Spark that runs in this machine alone, if nothing else is configured.
_LOCAL = {
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.memory": "4g",
    "spark.log.level": "OFF",
    "spark.sql.shuffle.partitions": "32",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}
_ADVICE = "Correct 'spark' in the configuration, or start it; see docs/scale.md"


@contextmanager
def open_session(address: str) -> Iterator[Any]:
    """Yield a session, and stop it at the end unless somebody else had opened it.

    A session that is open already (in a notebook or a job of Databricks, or in your own program) is used
    whatever ``address`` says. Under ``spark-submit`` its ``--master`` holds.

    Args:
        address: a master (``local[4]``, ``yarn``, ``spark://host:7077``, ``k8s://…``) or ``sc://host:15002``.

    Raises:
        MissingDependencyError: if pyspark or Java is not installed.
        ConfigError: if nothing answers there, or Spark does not start.
    """
    require("pyspark", "spark")
    sql = require("pyspark.sql", "spark")
    there = sql.SparkSession.getActiveSession()
    if there is not None:
        # settings and names of our own, beside those of whoever opened it; Connect has no second session
        yield there.newSession() if hasattr(there, "_jsparkSession") else there
        return
    session = _connect(sql, address) if address.startswith("sc://") else _start(sql, address)
    try:
        yield session
    finally:
        session.stop()


@contextmanager
def running() -> Iterator[None]:
    """Raise what a worker raised on purpose as the same error here, without Java's account of it.

    Raises:
        ClickintentError: as on the worker.
        MissingDependencyError: if a worker lacks a package.
        ConfigError: if its Python is another one.
    """
    try:
        yield
    except ClickintentError:
        raise
    except Exception as error:
        found = _told(str(error))
        if found is None:
            raise
        raise found from error


def _told(text: str) -> Exception | None:
    ours = re.search(r"^(?:\S+: )?clickintent\.errors\.(\w+): (.*)$", text, re.MULTILINE)
    if ours:
        return error_of(ours[1], ours[2])
    missing = re.search(r"ModuleNotFoundError: No module named '([\w.]+)'", text)
    if missing:
        return MissingDependencyError(
            f"a Spark worker lacks the Python package {missing[1]!r}. Install the same clickintent[spark] on "
            "all workers, or send it with --archives; see docs/scale.md."
        )
    if "PYTHON_VERSION_MISMATCH" in text:
        return ConfigError(
            f"Spark's workers run another Python than this one, {sys.version_info[0]}.{sys.version_info[1]}. "
            "Set PYSPARK_PYTHON to the same version on all workers; see docs/scale.md."
        )
    return None


def _start(sql: Any, master: str) -> Any:
    """A session of a Spark whose driver is this process."""
    submitted = "PYSPARK_GATEWAY_PORT" in os.environ
    builder = sql.SparkSession.builder.appName("clickintent")
    if not submitted:
        _need_java()
        if master.startswith("spark://"):
            _reach(master, master.removeprefix("spark://").split(","), 7077)
        builder = builder.master(master)
    if master.startswith("local") and not submitted:
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        if not any(name in os.environ for name in _CONFIGURED):
            for name, value in _LOCAL.items():
                builder = builder.config(name, value)
    try:
        return builder.getOrCreate()
    except Exception as error:  # py4j, pyspark and Java each have their own
        raise ConfigError(
            f"spark = {master!r}: Spark did not start: {_first_line(error)}. It needs Java 17 or newer, and "
            f"for yarn HADOOP_CONF_DIR. {_ADVICE}."
        ) from error


def _connect(sql: Any, address: str) -> Any:
    """A session on a Connect server. The address may hold a token, so no message quotes it whole."""
    shown = "sc://" + address.removeprefix("sc://").split("/")[0].rpartition("@")[2]
    try:
        require("pyspark.sql.connect.session", "spark")
    except MissingDependencyError:
        raise
    except ImportError as error:
        raise MissingDependencyError(
            f"Spark Connect: {_first_line(error)}. Install it with: pip install 'clickintent[spark]'"
        ) from error
    _reach(shown, [shown.removeprefix("sc://")], 15002)
    gc.collect()  # of pyspark 4.0: an earlier session that is collected during a call makes that call hang
    try:
        session = sql.SparkSession.builder.remote(address).getOrCreate()
        _ = session.version  # nothing is sent before something is asked
    except Exception as error:
        said = _first_line(error).replace(address, shown)
        raise ConfigError(f"spark = {shown!r}: no session: {said}. {_ADVICE}.") from None
    return session


def _reach(shown: str, places: Sequence[str], default_port: int) -> None:
    """Ask whether anybody listens, because Spark itself would go on asking for minutes."""
    if any(name in os.environ for name in ("grpc_proxy", "https_proxy", "http_proxy", "HTTPS_PROXY")):
        return  # the way there is not ours to know
    why: OSError | None = None
    for place in places:
        host, _, port = place.partition(":")
        try:
            with socket.create_connection((host, int(port or default_port)), timeout=_TIMEOUT_S):
                return
        except OSError as error:
            why = error
        except ValueError:
            raise ConfigError(f"spark = {shown!r}: {port!r} is no port. {_ADVICE}.") from None
    raise ConfigError(f"spark = {shown!r}: nobody answers there ({why}). {_ADVICE}.") from why


def _need_java() -> None:
    home = os.environ.get("JAVA_HOME")
    if not (shutil.which(str(Path(home) / "bin" / "java")) if home else shutil.which("java")):
        where = f"JAVA_HOME is {home}, where there is no bin/java" if home else "there is no java on the PATH"
        raise MissingDependencyError(
            f"Spark needs Java 17 or newer, and {where}. Install it (Debian: apt-get install "
            'openjdk-17-jre-headless) or set JAVA_HOME; or use Spark Connect (spark = "sc://host"), which '
            'needs none here; or engine = "duckdb".'
        )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
