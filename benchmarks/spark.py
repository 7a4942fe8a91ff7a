"""The same ingest on Spark in local mode, beside DuckDB: for the record, and that both give the same counts.

A cluster is not measured here; on one machine Spark pays for moving rows between processes and gains nothing.

    python benchmarks/spark.py [--work FOLDER]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from common import write_results
from events import SIZES, make_bank, ratio, run

REPEATS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=None)
    work = parser.parse_args().work or Path(tempfile.mkdtemp(prefix="clickintent-spark-"))
    source, rows = make_bank(work, "5m", SIZES["5m"])
    print(f"{rows:,} rows; Spark's peak is that of the Python driver, without the JVM and its workers")
    pairs = [(run("spark", source, work), run("ingest", source, work)) for _ in range(REPEATS)]
    counts = ("read", "events", "duplicates", "quarantined", "sessions")
    same = all(mine[name] == other[name] for mine, other in pairs for name in counts)
    figures = {"rows": rows, "spark_to_duckdb": ratio(pairs), "same_counts": same}
    print(figures)
    write_results("spark", {**figures, "spark": [p[0] for p in pairs], "duckdb": [p[1] for p in pairs]})


if __name__ == "__main__":
    main()
