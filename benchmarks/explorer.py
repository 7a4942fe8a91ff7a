"""The explorer on 100,000 sessions: seconds by step, memory, sizes of files, and how true its map is.

A simulated bank through every stage, with an encoder and a student of a few epochs: what the explorer costs
does not depend on how good they are. ``--copies 10`` counts ten times as many sessions, each copy's of other
visitors, to see what does not depend on ``explore.max_sessions``.

Trustworthiness (Venna, Kaski 2001): how near the ten nearest on the map are in embedding space; 1 is best.

    python benchmarks/explorer.py [--work DIR] [--sessions 106000] [--copies 1]
"""

from __future__ import annotations

import argparse
import gzip
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from sklearn.manifold import trustworthiness
from sklearn.neighbors import NearestNeighbors

from clickintent import pipeline
from clickintent.config import Config, load_config
from clickintent.explorer.layout import lay_out
from clickintent.explorer.points import quantized
from clickintent.pipeline.inputs import embedding_matrix
from clickintent.workspace import Workspace, atomically, write_table, write_text
from common import read_results, write_results

SETTINGS = """
[encoder]
epochs = 3

[student]
epochs = 10
learning_curve = false
"""
_SAMPLE, _NEIGHBOURS, _QUERIES = 4000, 10, 2000
_DAY_US = 86_400_000_000


def workspace(work: Path, sessions: int) -> Config:
    """A workspace of about 0.95 · ``sessions`` sessions that models see; what is there is not made again."""
    bank = work / "simbank"
    path = bank / "clickintent.toml"
    if not path.exists():
        simulate = work / "simulate.toml"
        write_text(f'workspace = "."\n[simbank]\nout = "simbank"\nsessions = {sessions}\n', simulate)
        pipeline.simulate(load_config(simulate))
        alone = path.read_text(encoding="utf-8")
        write_text(alone.replace('workspace = "workspace"', 'workspace = ".."') + SETTINGS, path)
    config = load_config(path)
    for stage in ("ingest", "pretrain", "embed", "draft_taxonomy", "label", "distill"):
        getattr(pipeline, stage)(config)
    return config


def multiplied(config: Config, copies: int, work: Path) -> Config:
    """Another workspace with ``copies`` of every session, of other visitors and accounts."""
    source, target = Workspace(config.workspace), Workspace(work)
    if not target.path("sessions").exists():
        for name in ("encoder", "student", "taxonomies"):
            shutil.copytree(source.path(name), target.path(name))
        shutil.copyfile(source.path("taxonomy.yaml"), target.path("taxonomy.yaml"))
        for name in ("sessions", "embeddings", "labels/student.parquet", "labels/teacher.parquet"):
            table = ds.dataset(source.path(name)).to_table()
            if name == "sessions":
                table = table.filter(pc.field("channel") == config.sessions.channel)
            with atomically(target.path(name)) as temporary:
                if name.endswith(".parquet"):
                    write_table(pa.concat_tables(_copy(table, i) for i in range(copies)), temporary)
                else:
                    temporary.mkdir()
                    for i in range(copies):
                        write_table(_copy(table, i), temporary / f"part-{i:05d}.parquet")
    return config.model_copy(update={"workspace": work})


def _copy(table: pa.Table, i: int) -> pa.Table:
    """The same sessions of other visitors; ids keep their form."""
    for name in ("session_id", "visitor_id", "account_id"):
        if i and name in table.column_names:
            at = table.schema.get_field_index(name)
            column = table[name]
            changed = pc.binary_join_element_wise(f"{i:x}", pc.utf8_slice_codeunits(column, 1), "")
            table = table.set_column(at, table.schema.field(name), changed)
    return table


def build(config: Config) -> dict[str, Any]:
    """The stage in a process of its own, for its memory and CPU time (of all threads)."""
    code = (
        "import sys, resource; from clickintent import pipeline; from clickintent.config import Config; "
        "config = Config.model_validate_json(sys.stdin.read()); pipeline.explore(config, force=True); "
        "used = resource.getrusage(resource.RUSAGE_SELF); "
        "print(used.ru_maxrss / 2**20, used.ru_utime + used.ru_stime)"
    )
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=config.model_dump_json(),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    seconds = time.monotonic() - started
    made = pipeline.metrics(config)["explorer"]
    peak, cpu = (float(value) for value in done.stdout.split())
    return {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
        "peak_gib": round(peak, 2),
        "sessions": made["sessions"],
        "shown": made["shown"],
        "steps": made["seconds"],
    }


def sizes(folder: Path) -> dict[str, Any]:
    """Bytes of the files of data/, as they are and as a server packs them."""
    data = folder / "data"

    def packed(path: Path) -> dict[str, int]:
        raw = path.read_bytes()
        return {"bytes": len(raw), "gzip": len(gzip.compress(raw, 6))}

    overview = data / "overview.json"
    data = data / json.loads(overview.read_text(encoding="utf-8"))["run"]
    files = [overview, *(path for path in sorted(data.iterdir()) if path.is_file())]
    found: dict[str, Any] = {path.name: packed(path) for path in files}
    for name in ("sessions", "intents"):
        files = sorted((data / name).glob("*.json"))
        largest = max(files, key=lambda path: path.stat().st_size)
        found[name] = {
            "files": len(files),
            "total": sum(path.stat().st_size for path in files),
            "largest": packed(largest),
        }
    return found


def maps(config: Config, landmarks: list[int]) -> list[dict[str, Any]]:
    """Seconds of CPU time and trustworthiness of the map by landmarks, of those and of the placed points."""
    vectors = _embeddings(config)
    rng = np.random.default_rng(config.seed)
    rows = []
    for n in landmarks:
        started = time.process_time()
        xy, is_landmark = lay_out(vectors, n, seed=config.seed)
        row: dict[str, Any] = {"landmarks": n, "cpu_seconds": round(time.process_time() - started, 1)}
        for name, some in (
            ("of landmarks", np.flatnonzero(is_landmark)),
            ("of placed", np.flatnonzero(~is_landmark)),
        ):
            if len(some) > _NEIGHBOURS * 2:
                drawn = rng.choice(some, min(_SAMPLE, len(some)), replace=False)
                value = trustworthiness(vectors[drawn], xy[drawn], n_neighbors=_NEIGHBOURS)
                row[name] = round(float(value), 4)
        rows.append(row)
        print(row)
    return rows


def rounding(config: Config) -> float:
    """Share of the ten most similar sessions that stay so among vectors of int8."""
    vectors = _embeddings(config)
    rows = np.random.default_rng(config.seed).choice(len(vectors), min(_QUERIES, len(vectors)), replace=False)
    small = np.frombuffer(quantized(vectors), np.int8).reshape(vectors.shape).astype(np.float32)
    found = [
        NearestNeighbors(n_neighbors=_NEIGHBOURS + 1, metric="cosine").fit(some).kneighbors(some[rows])[1]
        for some in (vectors, small)
    ]
    kept = [len(set(a) & set(b)) / (_NEIGHBOURS + 1) for a, b in zip(*found, strict=True)]
    return round(float(np.mean(kept)), 4)


def _embeddings(config: Config) -> np.ndarray:
    vectors = embedding_matrix(ds.dataset(config.workspace / "embeddings").to_table())
    most = config.explore.max_sessions
    if len(vectors) > most:
        vectors = vectors[
            np.sort(np.random.default_rng(config.seed).choice(len(vectors), most, replace=False))
        ]
    return vectors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work", type=Path, help="a folder that keeps the workspace")
    parser.add_argument("--sessions", type=int, default=106_000)
    parser.add_argument("--copies", type=int, default=1)
    parser.add_argument("--no-maps", action="store_true", help="do not lay out the map again and again")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = (arguments.work or Path(scratch)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        config = workspace(work, arguments.sessions)
        figures: dict[str, Any] = read_results("explorer")
        if arguments.copies > 1:
            more = multiplied(config, arguments.copies, Path(tempfile.mkdtemp(dir=scratch)))
            found = build(more)
            figures.setdefault("copies", {})[str(arguments.copies)] = found
            print(found)
        else:
            figures |= {"build": build(config), "sizes": sizes(config.workspace / "explorer")}
            figures["neighbours_kept_by_int8"] = rounding(config)
            print(figures["build"], figures["sizes"], figures["neighbours_kept_by_int8"], sep="\n")
            if not arguments.no_maps:
                figures["maps"] = maps(config, [1000, 2000, 4000, 10_000])
    print(f"peak of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")
    write_results("explorer", figures)


if __name__ == "__main__":
    main()
