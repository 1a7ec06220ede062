"""The notebook runs from top to bottom, on the bundled pool, and lies in git without outputs."""

from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.name)
def test_it_holds_no_outputs_and_no_paths_of_a_machine(path: Path):
    for cell in nbformat.read(path, as_version=4).cells:
        assert not cell.get("outputs") and cell.get("execution_count") is None
        assert not any(word in cell.source for word in tuple(f"/{top}/" for top in ("home", "work", "tmp", "Users")))


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # the notebook's machinery has its own deprecations
def test_start_here_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from nbclient import NotebookClient

    monkeypatch.delenv("XLA_FLAGS", raising=False)  # one device, as where people run it
    notebook = nbformat.read(NOTEBOOKS / "start_here.ipynb", as_version=4)
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 3
    assert not [output for output in outputs if output.output_type == "stream" and output.name == "stderr"]
    assert any("x random" in output.get("text", "") for output in outputs)
