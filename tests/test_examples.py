"""The examples run as their first lines say."""

from __future__ import annotations

import csv
import os
import random
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent / "examples"


def write_clicks(path: Path) -> None:
    """Visitors who come back on some days, for cards or for loans."""
    rng = random.Random(1)
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["cookie", "event_time", "page_url", "page_title"])
        for visitor in range(150):
            theme = rng.choice(["cards", "loans"])
            for day in sorted(rng.sample(range(40), rng.randint(1, 4))):
                for minute in range(rng.randint(2, 9)):
                    part = rng.randrange(8)
                    url = f"https://bank.example/{theme}/part-{'abcdefgh'[part]}"
                    time = 1_767_225_600 + day * 86_400 + visitor * 60 + minute * 70 + rng.randrange(60)
                    out.writerow([f"v{visitor}", time, url, f"{theme.title()}, part {part}"])


def test_embeddings_of_ones_own_table(tmp_path: Path) -> None:
    """With fewer epochs, which is all that is changed of it."""
    write_clicks(tmp_path / "clicks.csv")
    script = (EXAMPLES / "embeddings.py").read_text(encoding="utf-8")
    assert "EncoderConfig(epochs=6)" in script
    (tmp_path / "embeddings.py").write_text(script.replace("epochs=6", "epochs=2"), encoding="utf-8")
    columns = ["visitor_id=cookie", "ts=event_time", "url=page_url", "title=page_title"]
    environment = {k: v for k, v in os.environ.items() if k != "CLICKINTENT_KEY"} | {"TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, tmp_path / "embeddings.py", tmp_path / "clicks.csv", *columns],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "+ 0 duplicates + 0 quarantined" in done.stdout
    for shown in (", 64), float32", "page counts", "its first 32", "150 visitors"):
        assert shown in done.stdout
    moved = done.stdout.partition("which training did not see")[2].splitlines()[1:4]
    theme = "cards" if "/2027/cards" in done.stdout else "loans"
    assert len(moved) == 3
    assert all(theme in path for path in moved), moved
    assert list(tmp_path.glob("clickintent-*/encoder/README.md"))
