from __future__ import annotations

import subprocess
import sys

import clickintent

PUBLIC = {
    "ArtifactError",
    "ClickintentError",
    "Config",
    "ConfigError",
    "DataError",
    "EmptyInputError",
    "EncoderConfig",
    "IntentLabeler",
    "LanguageModelError",
    "MissingColumnsError",
    "MissingDependencyError",
    "SessionEncoder",
    "StudentConfig",
    "Taxonomy",
    "WorkspaceError",
    "__version__",
    "demo",
    "distill",
    "draft_taxonomy",
    "embed",
    "evaluate",
    "explore",
    "forget",
    "identities",
    "ingest",
    "inspect",
    "label",
    "link_as_of",
    "load_config",
    "metrics",
    "plan",
    "pretrain",
    "run",
    "simulate",
    "visitor_embeddings",
    "visitor_history",
    "write_report",
}


def test_the_public_surface_is_exactly_this() -> None:
    assert set(clickintent.__all__) == PUBLIC
    assert len(clickintent.__all__) == len(PUBLIC)
    for name in PUBLIC:
        assert getattr(clickintent, name) is not None


def test_everything_public_is_documented() -> None:
    bare = [n for n in PUBLIC - {"__version__"} if not (getattr(clickintent, n).__doc__ or "").strip()]
    assert bare == []


def test_import_needs_no_extra() -> None:
    blocked = "torch onnx lightgbm openai altair vl_convert sentence_transformers pandas"
    code = (
        "import sys\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] in {blocked.split()!r}:\n"
        "            raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Block())\n"
        "import clickintent, clickintent.cli\n"
        "print('ok')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "ok\n", done.stderr
