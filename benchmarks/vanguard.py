"""Who reaches ``confirm``, from the first k = 1 … 4 events of a visit (examples/vanguard.toml).

Side by side in one run, on the same visits and the same temporal split: page counts, an evening's features,
and the frozen embedding, each with LightGBM. AUC with 95 % bootstrap intervals; the encoder is trained anew
for each seed. Needs the data set, see docs/benchmarks.md.

    python benchmarks/vanguard.py [--seeds 3]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from clickintent import (
    distill,
    draft_taxonomy,
    embed,
    evaluate,
    ingest,
    label,
    load_config,
    metrics,
    pretrain,
)
from common import write_results

ROOT = Path(__file__).parents[1]
STAGES = (ingest, pretrain, embed, draft_taxonomy, label, distill, evaluate)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    seeds = range(parser.parse_args().seeds)
    runs: list[dict[str, Any]] = []
    config = load_config(ROOT / "examples" / "vanguard.toml")
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            seeded = config.model_copy(update={"workspace": Path(folder), "seed": seed})
            for stage in STAGES:
                stage(seeded)
            runs.append(metrics(seeded)["conversion"]["prefixes"])
    rows = []
    for k in runs[0]:
        for method in runs[0][k]["methods"]:
            found = [run[k]["methods"][method].get("auc") for run in runs]
            if all(found):
                values = [f["value"] for f in found]
                row = {"k": int(k), "method": method, "auc": float(np.mean(values))}
                row |= {"low": float(np.mean([f["low"] for f in found]))}
                row |= {"high": float(np.mean([f["high"] for f in found]))}
                row |= {"seed_min": min(values), "seed_max": max(values)}
                rows.append(row)
                print(
                    f"k={k}  {method:24s} {row['auc']:.3f}  95 % ({row['low']:.3f}–{row['high']:.3f})"
                    f"  seeds {row['seed_min']:.3f}–{row['seed_max']:.3f}"
                )
    write_results("vanguard", {"rows": rows, "seeds": len(runs)})


if __name__ == "__main__":
    main()
